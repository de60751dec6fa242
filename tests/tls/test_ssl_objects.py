"""`get_extra_info("ssl_object")` is a real `ssl.SSLObject` whose methods work at any time."""

import asyncio
import contextlib
import socket
import ssl
import sys

import pytest

from support.certificates import NAME, authority, client_context, server_context
from support.peers import pattern, until
from support.protocols import Echo, Recorder
from support.tls import VERSIONS, secured


async def finish(protocol):
    protocol.transport.abort()
    await until(lambda: protocol.is_lost)


def account(tls):
    """What an idle SSLObject says of its connection, but for the other end's view of it."""
    return {
        "version": tls.version(),
        "cipher": tls.cipher(),
        "compression": tls.compression(),
        "alpn": tls.selected_alpn_protocol(),
        "pending": tls.pending(),
        "server_side": tls.server_side,
        "server_hostname": tls.server_hostname,
        "peercert": tls.getpeercert(),
        "der": tls.getpeercert(binary_form=True),
        "reused": tls.session_reused,
        "context": tls.context,
    }


class TestMethods:
    def test_agree_with_the_peers(self, loop, run, pair, side, version):
        certificate = authority().issue("client.test")
        server = server_context(clients=ssl.CERT_REQUIRED, version=version)
        client = client_context(certificate=certificate)
        server.set_alpn_protocols(["h2"])
        client.set_alpn_protocols(["h2"])
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, (server, client))
            ours = account(transport.get_extra_info("ssl_object"))
            theirs = account(peer.tls)
            for name in ("version", "cipher", "compression", "alpn", "reused"):
                assert ours[name] == theirs[name]
            assert ours["alpn"] == "h2"
            assert ours["pending"] == 0
            assert ours["server_side"] is (side == "server")
            assert ours["server_hostname"] == (None if side == "server" else NAME)
            expected = certificate if side == "server" else authority().issue(NAME)
            assert ours["der"] == expected.der
            assert ours["context"] is (server if side == "server" else client)
            await finish(protocol)

        run(main())

    @pytest.mark.parametrize("callback", ["made", "data", "eof", "lost"])
    def test_inside_callbacks(self, loop, run, pair, side, callback):
        accounts = {}

        class Asking(Recorder):
            def ask(self, name):
                accounts[name] = account(self.transport.get_extra_info("ssl_object"))

            def connection_made(self, transport):
                super().connection_made(transport)
                self.ask("made")

            def data_received(self, data):
                super().data_received(data)
                self.ask("data")

            def eof_received(self):
                self.ask("eof")

            def connection_lost(self, exc):
                self.ask("lost")
                super().connection_lost(exc)

        protocol = Asking()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            await asyncio.to_thread(peer.send, b"data")
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert accounts[callback] == accounts["made"]

    def test_with_data_unsent_and_unread(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            tls = transport.get_extra_info("ssl_object")
            before = account(tls)
            transport.pause_reading()
            transport.write(pattern(8_000_000))
            await asyncio.to_thread(peer.sock.sendall, peer.sealed(b"unread" * 1000))
            await asyncio.sleep(0.02)
            after = account(tls)
            del before["pending"], after["pending"]
            assert after == before
            await finish(protocol)

        run(main())

    def test_channel_binding(self, loop, run, pair, side):
        contexts = server_context(version=VERSIONS["1.2"]), client_context()
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, contexts)
            tls = transport.get_extra_info("ssl_object")
            binding = tls.get_channel_binding("tls-unique")
            assert len(binding) == 12
            assert binding == peer.tls.get_channel_binding("tls-unique")
            with pytest.raises(ValueError, match="channel binding type not implemented"):
                tls.get_channel_binding("tls-unknown")
            await finish(protocol)

        run(main())

    def test_shared_ciphers(self, loop, run, pair, side, version):
        protocol = Recorder()
        contexts = server_context(version=version), client_context(version=version)

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, contexts)
            tls = transport.get_extra_info("ssl_object")
            if side == "server":
                assert tls.cipher() in tls.shared_ciphers()
            else:
                assert tls.cipher() in peer.tls.shared_ciphers()
                assert not tls.shared_ciphers() or tls.cipher() in tls.shared_ciphers()
            await finish(protocol)

        run(main())

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="the methods are new in Python 3.13")
    def test_chains(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, "client")
            tls = transport.get_extra_info("ssl_object")
            assert tls.get_verified_chain()[0] == authority().issue(NAME).der
            assert len(tls.get_verified_chain()) == 2
            assert tls.get_unverified_chain() == [authority().issue(NAME).der]
            await finish(protocol)

        run(main())

    @pytest.mark.skipif(sys.version_info < (3, 15), reason="the methods are new in Python 3.15")
    def test_group_and_signature(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            assert tls.group() == peer.tls.group()
            assert tls.server_sigalg() == peer.tls.server_sigalg()
            await finish(protocol)

        run(main())

    def test_session(self, loop, run, pair, version):
        contexts = server_context(version=version), client_context(version=version)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, "client", contexts)
            await asyncio.to_thread(peer.send, b"x")
            await until(lambda: protocol.received)
            tls = transport.get_extra_info("ssl_object")
            session = tls.session
            assert type(session) is ssl.SSLSession
            assert session == tls.session
            assert session.timeout > 0
            assert session.has_ticket
            with pytest.raises(ValueError, match="Cannot set session after handshake"):
                tls.session = session
            await finish(protocol)

        run(main())

    def test_session_of_the_loop_resumed_by_a_peer(self, loop, run, pair):
        """And one more loop-side server of the same context."""
        server, client = server_context(), client_context()

        async def main():
            listening = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server)
            address = listening.sockets[0].getsockname()

            def visit(session=None):
                with (
                    socket.create_connection(address, timeout=10) as sock,
                    client.wrap_socket(sock, server_hostname=NAME, session=session) as tls,
                ):
                    tls.sendall(b"x")
                    assert tls.recv(1) == b"x"  # the tickets came before
                    return tls.session, tls.session_reused

            session, reused = await asyncio.to_thread(visit)
            assert not reused
            _, reused = await asyncio.to_thread(visit, session)
            assert reused
            listening.close()

        run(main())

    def test_methods_of_a_finished_handshake(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            assert tls.do_handshake() is None
            transport.write(b"still fine")
            assert await asyncio.to_thread(peer.receive_exactly, 10) == b"still fine"
            with pytest.raises(ssl.SSLError):
                tls.verify_client_post_handshake()
            await finish(protocol)

        run(main())

    def test_read_finds_nothing(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            with pytest.raises(ssl.SSLWantReadError):
                tls.read(1)
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received == b"data")
            with pytest.raises(ssl.SSLWantReadError):
                tls.read(1, bytearray(1))
            await finish(protocol)

        run(main())

    def test_write_leaves_with_the_next_write(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            assert tls.write(b"by hand, ") == 9
            transport.write(b"by transport")
            assert await asyncio.to_thread(peer.receive_exactly, 21) == b"by hand, by transport"
            await finish(protocol)

        run(main())


class TestAfterTheEnd:
    @pytest.mark.parametrize("ending", ["close", "abort", "close_notify", "fin"])
    def test_methods(self, loop, run, pair, side, ending):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            before = account(tls)
            if ending == "close_notify":
                await asyncio.to_thread(peer.unwrap)
            elif ending == "fin":
                pair[1].shutdown(socket.SHUT_WR)
            else:
                getattr(transport, ending)()
                if ending == "close":
                    peer.close_notify()
            await until(lambda: protocol.is_lost)
            protocol.transport = None
            return tls, before

        tls, before = run(main())
        assert account(tls) == before

    def test_reading_and_writing_fail_softly(self, loop, run, pair, side):
        """An exception of ssl's, or nothing: never a crash."""
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            await finish(protocol)
            protocol.transport = None
            return tls

        tls = run(main())
        for call in (lambda: tls.read(1), lambda: tls.write(b"x"), tls.unwrap, tls.do_handshake):
            with contextlib.suppress(ssl.SSLError):
                call()
        assert tls.version().startswith("TLSv1")

    def test_outlives_the_loop(self, loop_factory, pair, side):
        protocol = Recorder()
        loop = loop_factory()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side)
            tls = transport.get_extra_info("ssl_object")
            before = account(tls)
            await finish(protocol)
            return tls, before

        tls, before = loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        protocol.transport = protocol.loop = None
        assert account(tls) == before
