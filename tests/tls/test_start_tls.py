"""loop.start_tls: TLS over an open transport, on both sides, and over TLS itself."""

import asyncio
import contextlib
import hashlib
import socket
import ssl

import pytest

from support.certificates import (
    NAME,
    OTHER_NAME,
    client_context,
    server_context,
)
from support.peers import PAIRS, pattern, reset, turns, until
from support.protocols import Recorder
from support.tls import RECORDERS, Peer, Tunnel, peer_of, secured


@pytest.fixture(params=RECORDERS)
def kind(request):
    return RECORDERS[request.param]


def upgrade(loop, transport, protocol, side, contexts=None, **options):
    """The start_tls of that side, with what the side needs."""
    server, client = contexts or (server_context(), client_context())
    if side == "server":
        return loop.start_tls(transport, protocol, server, server_side=True, **options)
    return loop.start_tls(transport, protocol, client, server_hostname=NAME, **options)


async def plain(loop, near, protocol):
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    return transport


async def upgraded(loop, pair, protocol, side, contexts=None, **options):
    """(old transport, new one, peer) once both sides have shaken hands."""
    near, far = pair
    transport = await plain(loop, near, protocol)
    peer = peer_of(far, side, contexts)
    new, _ = await asyncio.gather(
        upgrade(loop, transport, protocol, side, contexts, **options),
        asyncio.to_thread(peer.handshake),
    )
    return transport, new, peer


async def finish(transport, protocol):
    transport.abort()
    await until(lambda: protocol.is_lost)


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_a_transport_that_ends_meanwhile_is_no_success(loop, run, pair, ending):
    """The program ends the transport during the handshake."""

    async def main():
        protocol = Recorder()
        transport = await plain(loop, pair[0], protocol)
        upgrading = asyncio.ensure_future(upgrade(loop, transport, protocol, "client"))
        await asyncio.sleep(0.02)
        getattr(transport, ending)()
        try:
            return await asyncio.wait_for(upgrading, 10)
        except OSError as error:
            return error

    result = run(main())
    assert result is None or isinstance(result, OSError)


class TestUpgrade:
    def test_both_ways(self, loop, run, pair, kind, side, version):
        protocol = kind()
        contexts = server_context(version=version), client_context(version=version)

        async def main():
            old, new, peer = await upgraded(loop, pair, protocol, side, contexts)
            assert new is not old
            assert isinstance(new, asyncio.Transport)
            assert protocol.calls == ["made"]
            assert protocol.transport is old
            assert new.get_protocol() is protocol
            assert new.get_extra_info("ssl_object").version() == peer.tls.version()
            assert old.get_extra_info("ssl_object") is None
            new.write(b"from the loop")
            assert await asyncio.to_thread(peer.receive_exactly, 13) == b"from the loop"
            await asyncio.to_thread(peer.send, b"to the loop")
            await until(lambda: protocol.received == b"to the loop")
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.lost_with == [None]

    @pytest.mark.parametrize("family", PAIRS)
    def test_after_a_dialogue_in_clear(self, loop, run, family, side):
        near, far = PAIRS[family]()
        protocol = Recorder()

        async def main():
            transport = await plain(loop, near, protocol)
            await asyncio.to_thread(far.sendall, b"STARTTLS")
            await until(lambda: protocol.received == b"STARTTLS")
            transport.write(b"220 go ahead")
            peer = peer_of(far, side)

            def answer():
                assert far.recv(12) == b"220 go ahead"
                peer.handshake()

            new, _ = await asyncio.gather(
                upgrade(loop, transport, protocol, side), asyncio.to_thread(answer)
            )
            protocol.received.clear()
            await asyncio.to_thread(peer.send, b"in secret")
            await until(lambda: protocol.received == b"in secret")
            await finish(new, protocol)

        run(main())
        far.close()

    def test_big_transfers(self, loop, run, pair, kind, side):
        protocol = kind()
        data = pattern(3_000_000)

        async def main():
            _, new, peer = await upgraded(loop, pair, protocol, side)
            new.write(data)
            received = await asyncio.to_thread(peer.receive_exactly, len(data))
            assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
            await asyncio.to_thread(peer.send, data)
            await until(lambda: len(protocol.received) == len(data))
            assert hashlib.sha256(protocol.received).digest() == hashlib.sha256(data).digest()
            await finish(new, protocol)

        run(main())

    def test_new_transport_closes_all(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            old, new, peer = await upgraded(loop, pair, protocol, side)
            new.close()
            assert new.is_closing()
            assert await asyncio.to_thread(peer.receive_all) == b""
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)
            assert old.is_closing()

        run(main())
        assert protocol.calls[-1] == "lost"
        assert protocol.lost_with == [None]

    def test_closing_the_old_transport(self, loop, run, pair, side):
        """It is the connection's end without close_notify; the protocol learns of it."""
        protocol = Recorder()

        async def main():
            old, new, peer = await upgraded(loop, pair, protocol, side)
            old.close()
            await until(lambda: protocol.is_lost)
            assert new.is_closing()
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                await asyncio.to_thread(peer.receive)

        run(main())
        assert protocol.lost_with == [None]

    def test_a_new_protocol(self, loop, run, pair, side):
        """start_tls may be given another protocol than the transport had."""
        first, second = Recorder(), Recorder()
        near, far = pair

        async def main():
            transport = await plain(loop, near, first)
            peer = peer_of(far, side)
            new, _ = await asyncio.gather(
                upgrade(loop, transport, second, side), asyncio.to_thread(peer.handshake)
            )
            assert second.calls == []
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: second.received == b"data")
            await finish(new, second)

        run(main())
        assert first.calls == ["made"]

    def test_reading_was_paused(self, loop, run, pair, side):
        """The handshake reads all the same, and so does the new transport."""
        protocol = Recorder()
        near, far = pair

        async def main():
            transport = await plain(loop, near, protocol)
            transport.pause_reading()
            peer = peer_of(far, side)
            new, _ = await asyncio.gather(
                upgrade(loop, transport, protocol, side), asyncio.to_thread(peer.handshake)
            )
            assert new.is_reading()
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received == b"data")
            await finish(new, protocol)

        run(main())

    def test_data_right_behind_the_handshake(self, loop, run, pair, kind):
        protocol = kind()
        near, far = pair
        peer = peer_of(far, "server")

        async def main():
            transport = await plain(loop, near, protocol)
            await asyncio.gather(
                upgrade(loop, transport, protocol, "server"),
                asyncio.to_thread(peer.say_all_at_once, b"early"),
            )
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"early"

    def test_what_was_queued_leaves_in_clear(self, loop, run):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()
        data = pattern(2_000_000)

        async def main():
            transport = await plain(loop, near, protocol)
            transport.set_write_buffer_limits(high=4_000_000)
            transport.write(data)
            peer = peer_of(far, "server")

            def take():
                received = bytearray()
                while len(received) < len(data):
                    received += far.recv(min(65536, len(data) - len(received)))
                peer.handshake()
                return bytes(received)

            new, received = await asyncio.gather(
                upgrade(loop, transport, protocol, "server"), asyncio.to_thread(take)
            )
            assert received == data
            new.write(b"sealed")
            assert await asyncio.to_thread(peer.receive_exactly, 6) == b"sealed"
            await finish(new, protocol)

        run(main())
        far.close()


class TestRefusals:
    @pytest.mark.parametrize("wrong", [None, True, "context", object()], ids=type)
    def test_contexts(self, loop, run, pair, wrong):
        protocol = Recorder()

        async def main():
            transport = await plain(loop, pair[0], protocol)
            with pytest.raises(TypeError) as caught:
                await loop.start_tls(transport, protocol, wrong)
            expected = "sslcontext is expected to be an instance of ssl.SSLContext, got"
            assert str(caught.value) == f"{expected} {wrong!r}"
            await finish(transport, protocol)

        run(main())

    def test_transports(self, loop, run):
        class Stranger(asyncio.Transport):
            def __repr__(self):
                return "<a stranger>"

        async def main():
            expected = r"^transport <a stranger> is not supported by start_tls\(\)$"
            with pytest.raises(TypeError, match=expected):
                await loop.start_tls(Stranger(), Recorder(), client_context())

        run(main())

    @pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
    def test_timeouts(self, loop, run, pair, name):
        protocol = Recorder()

        async def main():
            transport = await plain(loop, pair[0], protocol)
            with pytest.raises(ValueError, match=rf"^{name} should be a positive number, got -1$"):
                await loop.start_tls(transport, protocol, client_context(), **{name: -1})
            assert not transport.is_closing()
            assert transport.get_protocol() is protocol
            await asyncio.to_thread(pair[1].sendall, b"goes on")
            await until(lambda: protocol.received == b"goes on")
            await finish(transport, protocol)

        run(main())

    def test_certificate(self, loop, run, pair):
        """The exception is raised, and the connection closed under the protocol."""
        protocol = Recorder()
        near, far = pair
        contexts = server_context(OTHER_NAME), client_context()
        peer = peer_of(far, "client", contexts)

        async def main():
            transport = await plain(loop, near, protocol)
            ours, theirs = await asyncio.gather(
                upgrade(loop, transport, protocol, "client", contexts),
                asyncio.to_thread(lambda: (peer.handshake(), peer.receive())),
                return_exceptions=True,
            )
            assert type(ours) is ssl.SSLCertVerificationError
            assert isinstance(theirs, OSError)
            assert transport.is_closing()
            await until(lambda: near.fileno() == -1)

        run(main())

    def test_answer_in_clear(self, loop, run, pair):
        protocol = Recorder()
        near, far = pair

        async def main():
            transport = await plain(loop, near, protocol)
            far.sendall(b"454 TLS not available\r\n")
            with pytest.raises(ssl.SSLError) as caught:
                await upgrade(loop, transport, protocol, "client")
            assert caught.value.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}
            await until(lambda: near.fileno() == -1)

        run(main())

    def test_timeout(self, loop, run, pair, side):
        protocol = Recorder()
        near, _ = pair
        expected = "SSL handshake is taking longer than 0.05 seconds: aborting the connection"

        async def main():
            transport = await plain(loop, near, protocol)
            with pytest.raises(ConnectionAbortedError) as caught:
                await upgrade(loop, transport, protocol, side, ssl_handshake_timeout=0.05)
            assert str(caught.value) == expected
            await until(lambda: near.fileno() == -1)

        run(main())

    @pytest.mark.parametrize("how", ["fin", "reset"])
    def test_peer_gone(self, loop, run, pair, side, how):
        protocol = Recorder()
        near, far = pair

        async def main():
            transport = await plain(loop, near, protocol)
            task = asyncio.ensure_future(upgrade(loop, transport, protocol, side))
            await turns(3)
            if how == "fin":
                far.shutdown(socket.SHUT_WR)
            else:
                reset(far)
            with pytest.raises(ConnectionResetError):
                await task
            await until(lambda: near.fileno() == -1)

        run(main())

    @pytest.mark.parametrize("turns_before", [0, 1, 3, 10])
    def test_cancelled(self, loop, run, pair, side, turns_before):
        protocol = Recorder()
        near, far = pair

        async def main():
            transport = await plain(loop, near, protocol)
            task = asyncio.ensure_future(upgrade(loop, transport, protocol, side))
            await turns(turns_before)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not turns_before:
                assert not transport.is_closing()
                transport.close()
            await until(lambda: near.fileno() == -1)

        run(main())
        with contextlib.suppress(ConnectionResetError):
            while far.recv(65536):
                pass


class TestOverTls:
    """An inner session in the records of an outer one: a client of a TLS proxy."""

    async def tunnelled(self, loop, pair, protocol, side, kind=Recorder, **options):
        """(outer transport, inner transport, inner peer)."""
        outer_protocol = kind()
        outer, outer_peer = await secured(loop, pair, outer_protocol, side)
        server, client = server_context(), client_context()
        if side == "server":
            peer = Peer(Tunnel(outer_peer), client, server_hostname=NAME)
        else:
            peer = Peer(Tunnel(outer_peer), server, server_side=True)
        inner, _ = await asyncio.gather(
            upgrade(loop, outer, protocol, side, (server, client), **options),
            asyncio.to_thread(peer.handshake),
        )
        return outer, inner, peer, outer_peer

    def test_both_ways(self, loop, run, pair, kind, side):
        protocol = kind()
        data = pattern(1_000_000)

        async def main():
            outer, inner, peer, _ = await self.tunnelled(loop, pair, protocol, side)
            assert inner is not outer
            assert inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object")
            assert inner.get_extra_info("peername") == outer.get_extra_info("peername")
            inner.write(data)
            received = await asyncio.to_thread(peer.receive_exactly, len(data))
            assert received == data
            await asyncio.to_thread(peer.send, data)
            await until(lambda: len(protocol.received) == len(data))
            assert protocol.received == data
            await finish(inner, protocol)

        run(main())

    def test_close_notify_of_the_inner_session(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            _, _, peer, outer_peer = await self.tunnelled(loop, pair, protocol, side)
            await asyncio.to_thread(peer.send, b"last")
            await asyncio.to_thread(peer.unwrap)
            assert await asyncio.to_thread(outer_peer.receive_all) == b""
            await asyncio.to_thread(outer_peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.received == b"last"
        assert protocol.calls == ["data", "eof", "lost"]
        assert protocol.lost_with == [None]

    def test_close_by_the_loop(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            _, inner, peer, outer_peer = await self.tunnelled(loop, pair, protocol, side)
            inner.write(b"last")
            inner.close()
            assert await asyncio.to_thread(peer.receive_all) == b"last"
            await asyncio.to_thread(peer.unwrap)
            assert await asyncio.to_thread(outer_peer.receive_all) == b""
            await asyncio.to_thread(outer_peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.lost_with == [None]

    def test_reset_of_the_connection(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            await self.tunnelled(loop, pair, protocol, side)
            reset(pair[1])
            await until(lambda: protocol.is_lost)

        run(main())
        assert isinstance(protocol.lost_with[0], ConnectionResetError)

    def test_end_of_the_outer_session(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            _, _, peer, outer_peer = await self.tunnelled(loop, pair, protocol, side)
            await asyncio.to_thread(peer.send, b"data")
            await asyncio.to_thread(outer_peer.close_notify)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.received == b"data"
        assert protocol.lost_with == [None]

    def test_flow_control(self, loop, run, side):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            _, inner, peer, _ = await self.tunnelled(loop, (near, far), protocol, side)
            written = 0
            while not protocol.paused:
                inner.write(bytes(200_000))
                written += 200_000
                assert written < 16_000_000
                await turns(2)
            received = await asyncio.to_thread(peer.receive_exactly, written)
            assert received == bytes(written)
            await until(lambda: not protocol.paused)
            await finish(inner, protocol)

        run(main())
        assert protocol.calls[:2] == ["pause", "resume"]
        far.close()
