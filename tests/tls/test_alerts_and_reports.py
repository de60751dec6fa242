"""TLS as it should be: alerts, reports of failed handshakes, what is paused and what is over."""

import asyncio
import contextlib
import hashlib
import socket
import ssl

import pytest

from support.certificates import OTHER_NAME, authority, client_context, server_context
from support.peers import PAIRS, pattern, read_all, turns, until
from support.protocols import BufferedRecorder, Echo, Recorder
from support.tls import VERSIONS, peer_of, secured, wrapped

EVER = (3, 11), (4, 0)


def sha256(data):
    return hashlib.sha256(data).digest()


async def finish(protocol):
    protocol.transport.abort()
    await until(lambda: protocol.is_lost)


@pytest.mark.asyncio_wrong(*EVER)
class TestAlerts:
    """A handshake that is refused ends with the alert that says why, not with a mere EOF."""

    def alert(self, loop, run, pair, side, contexts):
        near, far = pair
        peer = peer_of(far, side, contexts)

        async def main():
            ours, theirs = await asyncio.gather(
                wrapped(loop, near, Recorder, side, contexts),
                asyncio.to_thread(lambda: (peer.handshake(), peer.receive())),
                return_exceptions=True,
            )
            assert isinstance(ours, ssl.SSLError)
            await turns()
            return theirs

        theirs = run(main())
        assert isinstance(theirs, ssl.SSLError), theirs
        return theirs.reason

    def test_unknown_authority(self, loop, run, pair, version):
        contexts = server_context(version=version), client_context(trust=False)
        assert "ALERT_UNKNOWN_CA" in self.alert(loop, run, pair, "client", contexts)

    def test_expired_certificate(self, loop, run, pair):
        contexts = server_context(age_days=100), client_context()
        assert "CERTIFICATE_EXPIRED" in self.alert(loop, run, pair, "client", contexts)

    def test_another_host(self, loop, run, pair):
        contexts = server_context(OTHER_NAME), client_context()
        assert "ALERT_BAD_CERTIFICATE" in self.alert(loop, run, pair, "client", contexts)

    def test_client_certificate_of_a_stranger(self, loop, run, pair, version):
        stranger = authority("a stranger").issue("client.test")
        contexts = (
            server_context(clients=ssl.CERT_REQUIRED, version=version),
            client_context(certificate=stranger),
        )
        assert "ALERT_UNKNOWN_CA" in self.alert(loop, run, pair, "server", contexts)

    def test_no_version_in_common(self, loop, run, pair):
        contexts = server_context(version=VERSIONS["1.3"]), client_context(version=VERSIONS["1.2"])
        assert "ALERT_PROTOCOL_VERSION" in self.alert(loop, run, pair, "server", contexts)

    def test_refused_name(self, loop, run, pair):
        server = server_context()
        server.sni_callback = lambda *args: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        contexts = server, client_context()
        assert "UNRECOGNIZED_NAME" in self.alert(loop, run, pair, "server", contexts)

    def test_broken_record(self, loop, run, pair, side):
        """After the handshake too."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            record = peer.sealed(b"data")
            pair[1].sendall(record[:-1] + bytes([record[-1] ^ 1]))
            with pytest.raises(ssl.SSLError, match="ALERT_BAD_RECORD_MAC"):
                await asyncio.to_thread(peer.receive)
            await until(lambda: protocol.is_lost)

        run(main())


class TestReports:
    """In debug mode, as asyncio does it."""

    @pytest.fixture
    def debug_mode(self):
        return True

    @pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x00" * 99])
    def test_failed_handshakes_of_a_server_in_debug_mode(self, loop, run, unhandled, opening):
        def attack(address):
            with socket.create_connection(address, timeout=10) as sock:
                sock.sendall(opening)
                with contextlib.suppress(ConnectionError):
                    read_all(sock)

        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
            await asyncio.to_thread(attack, server.sockets[0].getsockname())
            await until(lambda: unhandled)
            server.close()
            await turns()

        run(main())
        context = unhandled.take_one()
        assert context["message"] == "Error on transport creation for incoming connection"
        assert isinstance(context["exception"], ssl.SSLError)
        assert isinstance(context["protocol"], Echo)
        assert isinstance(context["transport"], asyncio.Transport)


class TestBufferedProtocols:
    @pytest.mark.asyncio_wrong(*EVER)
    def test_close_inside_buffer_updated(self, loop, run, pair):
        """Nothing is delivered after it, though there is more in the same record."""

        class Closing(BufferedRecorder):
            def get_buffer(self, sizehint):
                return memoryview(super().get_buffer(sizehint))

            def buffer_updated(self, nbytes):
                super().buffer_updated(nbytes)
                self.calls.append("close")
                self.transport.close()

        protocol = Closing(size=10)

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, pattern(1000))
            with contextlib.suppress(OSError):
                await asyncio.to_thread(peer.receive_all)
                peer.close_notify()
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls[:3] == ["made", "data", "close"]
        assert "data" not in protocol.calls[3:]

    @pytest.mark.parametrize("wrong", [b"bytes", memoryview(b"read-only")], ids=["bytes", "view"])
    def test_no_writable_buffer(self, loop, run, pair, unhandled, wrong):
        protocol = BufferedRecorder()
        protocol.buffer = wrong

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"payload")
            await until(lambda: protocol.is_lost)

        run(main())
        context = unhandled.take_one()
        kind = type(wrong).__name__
        text = f"read() argument 2 must be read-write bytes-like object, not {kind}"
        assert repr(context["exception"]) == repr(TypeError(text))


class TestFlowControl:
    @pytest.mark.asyncio_wrong(*EVER)
    def test_start_tls_on_a_paused_transport(self, loop, run):
        """asyncio's protocol asserts that it was told of the pause, which came before it."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()
        data = pattern(2_000_000)

        async def main():
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
            transport.write(data)
            assert protocol.calls == ["made", "pause"]
            peer = peer_of(far, "server")

            def take():
                received = bytearray()
                while len(received) < len(data):
                    received += far.recv(min(65536, len(data) - len(received)))
                peer.handshake()
                return received

            upgrade = loop.start_tls(transport, protocol, server_context(), server_side=True)
            new, received = await asyncio.gather(upgrade, asyncio.to_thread(take))
            assert sha256(received) == sha256(data)
            await until(lambda: not protocol.paused)
            new.write(b"sealed")
            assert await asyncio.to_thread(peer.receive_exactly, 6) == b"sealed"
            new.abort()
            await until(lambda: protocol.is_lost)

        run(main())
        far.close()

    @pytest.mark.asyncio_wrong(*EVER)
    def test_limit_of_zero_does_not_pause_what_is_empty(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            transport.set_write_buffer_limits(high=0)
            await turns()
            assert protocol.calls == ["made"]
            await finish(protocol)

        run(main())
