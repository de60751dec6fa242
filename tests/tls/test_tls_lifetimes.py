"""What TLS connections log in debug mode, and what they leave behind: nothing."""

import asyncio
import contextlib
import gc
import logging
import re
import socket
import ssl
import warnings
import weakref

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import pattern, tcp_pair, turns, until
from support.protocols import Echo, Recorder
from support.tls import SIDES, peer_of, secured, wrapped


def collected(*refs):
    for _ in range(3):
        gc.collect()
    return all(ref() is None for ref in refs)


async def finish(protocol):
    protocol.transport.abort()
    await until(lambda: protocol.is_lost)


class TestDebugLog:
    @pytest.fixture
    def debug_mode(self):
        return True

    def matching(self, caplog, pattern):
        messages = [r.getMessage() for r in caplog.records if r.name == "asyncio"]
        return [message for message in messages if re.search(pattern, message)]

    def test_handshake_and_end(self, loop, run, pair, side, caplog):
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            pair[1].shutdown(socket.SHUT_WR)
            await until(lambda: protocol.is_lost)
            peer.close()

        with caplog.at_level(logging.DEBUG, "asyncio"):
            run(main())
        assert len(self.matching(caplog, r" starts SSL handshake$")) == 1
        assert len(self.matching(caplog, r": SSL handshake took \d+\.\d ms$")) == 1
        assert self.matching(caplog, r" received EOF$")

    def test_failed_handshake(self, loop, run, pair, caplog):
        async def main():
            pair[1].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(ssl.SSLError):
                await wrapped(loop, pair[0], Recorder, "client")
            await turns()

        with caplog.at_level(logging.DEBUG, "asyncio"):
            run(main())
        assert len(self.matching(caplog, r": SSL handshake failed$")) == 1
        assert not self.matching(caplog, r"SSL handshake took")
        assert not [r for r in caplog.records if r.levelno > logging.DEBUG]

    def test_failed_verification(self, loop, run, pair, caplog):
        contexts = server_context(), client_context(trust=False)
        peer = peer_of(pair[1], "client", contexts)

        def handshake():
            with contextlib.suppress(OSError):
                peer.handshake()

        async def main():
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.gather(
                    wrapped(loop, pair[0], Recorder, "client", contexts),
                    asyncio.to_thread(handshake),
                )
            await turns()

        with caplog.at_level(logging.DEBUG, "asyncio"):
            run(main())
        expected = r": SSL handshake failed on verifying the certificate$"
        assert len(self.matching(caplog, expected)) == 1

    def test_quiet_without_debug_mode(self, loop, run, pair, caplog):
        loop.set_debug(False)
        protocol = Recorder()

        async def main():
            await secured(loop, pair, protocol)
            pair[1].shutdown(socket.SHUT_WR)
            await until(lambda: protocol.is_lost)

        with caplog.at_level(logging.DEBUG, "asyncio"):
            run(main())
        assert not [r for r in caplog.records if "SSL" in r.getMessage()]


class TestCollection:
    @pytest.mark.parametrize("ending", ["close", "abort", "peer", "reset"])
    def test_after_the_end(self, loop, run, pair, side, ending):
        """Transport, protocol and SSLObject go, whoever ended the connection."""
        server, client = server_context(), client_context()

        async def main():
            protocol = Recorder()
            transport, peer = await secured(loop, pair, protocol, side, (server, client))
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received)
            if ending == "peer":
                await asyncio.to_thread(peer.unwrap)
            elif ending == "reset":
                pair[1].sendall(b"nonsense")
            else:
                getattr(transport, ending)()
                if ending == "close":
                    peer.close_notify()
            await until(lambda: protocol.is_lost)
            await turns()
            tls = transport.get_extra_info("ssl_object")
            return [weakref.ref(thing) for thing in (transport, protocol, tls)]

        assert collected(*run(main()))

    def test_failed_handshakes(self, loop, run, side):
        """Neither contexts nor protocols are kept by what came to nothing."""

        async def main():
            server, client = server_context(), client_context()
            protocols = []

            def factory():
                protocol = Recorder()
                protocols.append(weakref.ref(protocol))
                return protocol

            for _ in range(5):
                near, far = tcp_pair()
                far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                with pytest.raises(ssl.SSLError):
                    await wrapped(loop, near, factory, side, (server, client))
                far.close()
            await turns()
            return [*protocols, weakref.ref(server), weakref.ref(client)]

        assert collected(*run(main()))

    def test_server_and_its_context(self, loop, run):
        async def main():
            context = server_context()
            server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=context)
            transport, protocol = await loop.create_connection(
                Recorder,
                *server.sockets[0].getsockname(),
                ssl=client_context(),
                server_hostname=NAME,
            )
            transport.write(b"x")
            await until(lambda: protocol.received)
            transport.close()
            await until(lambda: protocol.is_lost)
            server.close()
            await server.wait_closed()
            await turns(10)
            return weakref.ref(context)

        assert collected(run(main()))

    def test_start_tls(self, loop, run, pair, side):
        async def main():
            protocol = Recorder()
            near, far = pair
            old, _ = await loop.connect_accepted_socket(lambda: protocol, near)
            peer = peer_of(far, side)
            if side == "server":
                upgrade = loop.start_tls(old, protocol, server_context(), server_side=True)
            else:
                upgrade = loop.start_tls(old, protocol, client_context(), server_hostname=NAME)
            new, _ = await asyncio.gather(upgrade, asyncio.to_thread(peer.handshake))
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)
            await turns()
            return [weakref.ref(thing) for thing in (old, new, protocol)]

        assert collected(*run(main()))


class TestUnclosed:
    def leave(self, loop_factory, pair, side):
        """The weak reference to a transport that nobody closed."""
        loop = loop_factory()

        async def main():
            transport, peer = await secured(loop, pair, Recorder(), side)
            peer.tls = None
            return weakref.ref(transport)

        try:
            return loop.run_until_complete(main())
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    @pytest.mark.parametrize("side", SIDES)
    def test_warns(self, loop_factory, pair, side):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ref = self.leave(loop_factory, pair, side)
            for _ in range(3):
                gc.collect()
        messages = [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]
        caught.clear()
        assert messages
        assert all(message.startswith("unclosed transport <") for message in messages)
        assert collected(ref)
        assert pair[0].fileno() == -1

    def test_closed_ones_do_not_warn(self, loop_factory, pair):
        loop = loop_factory()

        async def main():
            protocol = Recorder()
            _, peer = await secured(asyncio.get_running_loop(), pair, protocol)
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            del loop
            gc.collect()
        assert caught == []

    @pytest.mark.parametrize("state", ["handshake", "open", "closing"])
    def test_loop_closed_meanwhile(self, loop_factory, pair, state):
        """No hang and no crash, and the descriptor goes with the last reference."""
        loop = loop_factory()
        near, _ = pair

        async def main():
            loop = asyncio.get_running_loop()
            if state == "handshake":
                task = asyncio.ensure_future(wrapped(loop, near, Recorder, "server"))
                await turns(4)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                return
            transport, _ = await secured(loop, pair, Recorder())
            transport.write(pattern(8_000_000))
            if state == "closing":
                transport.close()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            del loop
            for _ in range(3):
                gc.collect()
        assert near.fileno() == -1
