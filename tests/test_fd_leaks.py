"""Every way a connection or server can fail leaves the descriptor table as it was.

The check itself is process_as_before in conftest; these tests take it through the failures,
each many times, so that one forgotten descriptor cannot hide.
"""

import asyncio
import contextlib
import gc
import os
import socket
import threading

import pytest

from support.descriptors import open_descriptors
from support.peers import (
    Listener,
    Unresponsive,
    accepted,
    echo,
    reset,
    shut,
    tcp_pair,
    turns,
    until,
)
from support.protocols import Recorder

TIMES = 20


def count():
    return len(open_descriptors())


@pytest.fixture
def unchanged(loop, run):
    """Runs an async body TIMES times on the loop; the descriptors are then as many as before."""

    def unchanged(body, *, times=TIMES):
        async def main():
            await body()
            await turns(3)
            gc.collect()
            before = count()
            for _ in range(times):
                await body()
            await until(lambda: (gc.collect(), count() <= before)[1])

        run(main(), timeout=50)

    return unchanged


class TestConnecting:
    def test_refused(self, loop, unchanged, unused_port):
        async def body():
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(Recorder, "127.0.0.1", unused_port)

        unchanged(body)

    def test_refused_by_several(self, loop, unchanged, unused_port):
        async def getaddrinfo(*args, **kwargs):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", unused_port))
                for n in (1, 2, 3)
            ]

        loop.getaddrinfo = getaddrinfo

        async def body():
            for kwargs in ({}, {"happy_eyeballs_delay": 0.001}, {"interleave": 1}):
                with pytest.raises(OSError, match="Multiple exceptions"):
                    await loop.create_connection(Recorder, "faked.example", 1, **kwargs)

        unchanged(body)

    def test_happy_eyeballs_drop_the_losers(self, loop, unchanged):
        with Unresponsive() as hanging, Listener(echo) as listener:

            async def getaddrinfo(*args, **kwargs):
                return [
                    (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
                    for address in (hanging.address, hanging.address, listener.address)
                ]

            loop.getaddrinfo = getaddrinfo

            async def body():
                transport, protocol = await loop.create_connection(
                    Recorder, "faked.example", 1, happy_eyeballs_delay=0.002
                )
                assert transport.get_extra_info("peername") == listener.address
                transport.close()
                await until(lambda: protocol.is_lost)

            unchanged(body, times=5)

    def test_name_that_does_not_resolve(self, loop, unchanged):
        async def body():
            with pytest.raises(socket.gaierror):
                await loop.create_connection(Recorder, "no-such-host.invalid", 1)

        unchanged(body, times=5)

    def test_local_address_in_use(self, loop, unchanged, unused_port):
        with socket.create_server(("127.0.0.1", 0)) as taken:

            async def body():
                with pytest.raises(OSError, match="while attempting to bind"):
                    await loop.create_connection(
                        Recorder, "127.0.0.1", unused_port, local_addr=taken.getsockname()
                    )

            unchanged(body)

    def test_unix_path_that_is_not_there(self, loop, unchanged):
        async def body():
            with pytest.raises(FileNotFoundError):
                await loop.create_unix_connection(Recorder, "/nonexistent/socket")

        unchanged(body)

    def test_cancelled_while_connecting(self, loop, unchanged):
        with Unresponsive() as hanging:

            async def body():
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(
                        loop.create_connection(Recorder, *hanging.address), 0.002
                    )

            unchanged(body)

    def test_cancelled_in_the_lookup(self, loop, unchanged, monkeypatch):
        release = threading.Event()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(20) or [])

        async def body():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.create_connection(Recorder, "slow.example", 1), 0.002)

        try:
            unchanged(body, times=3)
        finally:
            release.set()

    def test_cancelled_after_any_number_of_turns(self, loop, run):
        """Cancelled right after the connection stands: it is closed all the same."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)

            async def attempt(steps):
                task = loop.create_task(loop.create_connection(Recorder, *listener.getsockname()))
                await turns(steps)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    transport, _ = await task
                    transport.abort()
                await asyncio.sleep(0.001)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        listener.accept()[0].close()

            async def main():
                await attempt(0)
                before = count()
                for steps in range(12):
                    await attempt(steps)
                await until(lambda: (gc.collect(), count() <= before)[1])

            run(main())

    def test_closed_exactly_once(self, loop, run, unused_port):
        """A descriptor number given to somebody else in between is left alone."""

        async def main():
            for _ in range(TIMES):
                tasks = [
                    loop.create_task(loop.create_connection(Recorder, "127.0.0.1", unused_port))
                    for _ in range(5)
                ]
                await turns(2)
                pairs = [socket.socketpair() for _ in range(5)]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for near, far in pairs:
                    near.send(b"mine")
                    assert far.recv(4) == b"mine"
                    near.close()
                    far.close()

        run(main())


class TestConnected:
    def test_reset_by_the_peer(self, loop, unchanged):
        async def body():
            _, protocol, far = await accepted(loop, Recorder, tcp_pair)
            reset(far)
            await until(lambda: protocol.is_lost)

        unchanged(body)

    def test_protocol_that_raises(self, loop, unchanged, unhandled):
        class Failing(Recorder):
            def data_received(self, data):
                raise LookupError("no")

        async def body():
            _, protocol, far = await accepted(loop, Failing)
            far.send(b"x")
            await until(lambda: protocol.is_lost)
            far.close()
            unhandled.clear()

        unchanged(body)

    def test_connection_made_that_raises(self, loop, unchanged, unhandled):
        class Failing(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                raise LookupError("no")

        async def body():
            _, protocol, far = await accepted(loop, Failing)
            far.close()
            await until(lambda: protocol.is_lost)
            unhandled.clear()

        unchanged(body)

    def test_connection_lost_that_raises(self, loop, unchanged, unhandled):
        class Failing(Recorder):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                raise LookupError("no")

        async def body():
            _, protocol, far = await accepted(loop, Failing)
            far.close()
            await until(lambda: protocol.is_lost)
            await turns()
            unhandled.clear()

        unchanged(body)

    def test_aborted_with_a_full_queue(self, loop, unchanged):
        async def body():
            transport, protocol, far = await accepted(loop, Recorder)
            transport.write(b"x" * 4_000_000)
            transport.abort()
            await until(lambda: protocol.is_lost)
            far.close()

        unchanged(body)

    def test_peer_gone_with_a_full_queue(self, loop, unchanged):
        async def body():
            transport, protocol, far = await accepted(loop, Recorder)
            transport.write(b"x" * 4_000_000)
            far.close()
            await until(lambda: protocol.is_lost)

        unchanged(body)

    def test_half_closed_from_both_sides(self, loop, unchanged):
        async def body():
            transport, protocol, far = await accepted(loop, Recorder)
            transport.write_eof()
            far.shutdown(socket.SHUT_WR)
            await until(lambda: protocol.is_lost)
            far.close()

        unchanged(body)


class TestServing:
    def test_port_in_use(self, loop, unchanged):
        with socket.create_server(("127.0.0.2", 0)) as taken:
            port = taken.getsockname()[1]

            async def body():
                with pytest.raises(OSError, match="while attempting to bind"):
                    await loop.create_server(Recorder, ["127.0.0.1", "127.0.0.2"], port)

            unchanged(body)

    def test_address_of_another_machine(self, loop, unchanged):
        async def body():
            with contextlib.suppress(OSError):
                await loop.create_server(Recorder, "192.0.2.1", 0)

        unchanged(body)

    def test_started_and_closed(self, loop, unchanged):
        async def body():
            server = await loop.create_server(Recorder, ["127.0.0.1", "::1"], 0)
            await shut(server)

        unchanged(body)

    def test_never_started(self, loop, unchanged):
        async def body():
            server = await loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False)
            server.close()

        unchanged(body)

    def test_unix_path_in_use(self, loop, unchanged, tmp_path):
        path = tmp_path / "file"
        path.write_text("not a socket")

        async def body():
            with pytest.raises(OSError, match="is already in use"):
                await loop.create_unix_server(Recorder, path)

        unchanged(body)

    def test_clients_that_leave_before_they_are_accepted(self, loop, unchanged):
        async def body():
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            for _ in range(5):
                reset(socket.create_connection(server.sockets[0].getsockname()))
            await turns(3)
            await shut(server)

        unchanged(body)

    def test_clients_never_accepted(self, loop, unchanged):
        async def body():
            server = await loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False)
            await server.start_serving()
            client = socket.create_connection(server.sockets[0].getsockname())
            server.close()
            client.close()
            await turns(3)

        unchanged(body)


class TestLoops:
    def test_opened_and_closed(self, loop_factory):
        for _ in range(3):
            loop_factory().close()
        before = count()
        for _ in range(50):
            loop_factory().close()
        assert count() <= before

    def test_used_and_closed(self, loop_factory):
        async def main(loop):
            transport, protocol, far = await accepted(loop, Recorder)
            await loop.getaddrinfo("localhost", 80)
            await loop.run_in_executor(None, int)
            transport.close()
            await until(lambda: protocol.is_lost)
            far.close()
            await loop.shutdown_default_executor()

        counts = []
        for _ in range(10):
            loop = loop_factory()
            loop.run_until_complete(main(loop))
            loop.close()
            gc.collect()
            counts.append(count())
        assert counts[-1] <= counts[1]

    def test_descriptors_are_not_inherited(self, loop_factory):
        """What a loop opens does not reach the programs that are started."""
        before = open_descriptors()
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        opened = {fd: name for fd, name in open_descriptors().items() if fd not in before}
        inherited = [name for fd, name in opened.items() if os.get_inheritable(fd)]
        loop.close()
        assert opened
        assert inherited == []

    def test_closed_in_a_thread(self, loop_factory):
        counts = []
        for _ in range(10):
            thread = threading.Thread(target=self._one_loop, args=(loop_factory,))
            thread.start()
            thread.join()
            counts.append(count())
        assert counts[-1] <= counts[1]

    def _one_loop(self, loop_factory):
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
