"""What several callbacks of one turn write, and when it has left.

The callbacks are queued together, so that they run in one turn. The transport is one of a server:
nobody else holds its socket.
"""

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
import warnings

import pytest

from support.peers import PATIENCE_S, read_all, turns, until
from support.protocols import Recorder


@contextlib.asynccontextmanager
async def served(loop):
    """(transport, far): a connection of a server, and a blocking socket at the other end."""
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname(), timeout=PATIENCE_S) as far:
        await until(lambda: protocols and protocols[0].transport)
        yield protocols[0].transport, far
        protocols[0].transport.close()
        server.close()
        await until(lambda: protocols[0].is_lost)


async def in_one_turn(loop, *callbacks):
    """Runs callbacks in one turn, and returns their results; an exception is one."""
    results = []

    def noting(callback):
        try:
            results.append(callback())
        except Exception as error:
            results.append(error)

    for callback in callbacks:
        loop.call_soon(noting, callback)
    await turns(2)
    return results


def now_readable(far):
    """What the other end has received by now."""
    return far.recv(100) if select.select([far], [], [], 0)[0] else b""


def step(coroutine):
    """Runs a coroutine that need not wait to its end, and returns its result."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it had to wait")


def test_arrives_in_order_and_once(loop, run):
    async def main():
        async with served(loop) as (transport, far):
            await in_one_turn(loop, *[lambda n=n: transport.write(b"%d," % n) for n in range(50)])
            transport.write_eof()
            assert await asyncio.to_thread(read_all, far) == b"".join(
                b"%d," % number for number in range(50)
            )

    run(main())


def test_before_a_sock_method(loop, run, pair):
    near, _ = pair

    async def main():
        async with served(loop) as (transport, far):
            near.setblocking(False)
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: step(loop.sock_sendall(near, b"second")),
                lambda: now_readable(far),
            )
            assert received == b"first"

    run(main())


def test_before_a_write_to_a_pipe(loop, run):
    async def main():
        reading, writing = os.pipe()
        pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writing, "wb"))
        async with served(loop) as (transport, far):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: pipe.write(b"second"),
                lambda: now_readable(far),
            )
            assert received == b"first"
        pipe.close()
        await turns()
        os.close(reading)

    run(main())


@pytest.mark.parametrize(
    "look",
    [
        lambda transport: transport.get_write_buffer_size(),
        lambda transport: transport.get_extra_info("socket"),
        lambda transport: transport.set_write_buffer_limits(high=1000),
        lambda transport: transport.close(),
        lambda transport: transport.write_eof(),
    ],
    ids=["size", "socket", "limits", "close", "write_eof"],
)
def test_before_another_callback_looks_at_the_transport(loop, run, look):
    async def main():
        async with served(loop) as (transport, far):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: look(transport),
                lambda: now_readable(far),
            )
            assert received == b"first"

    run(main())


def test_before_a_fork(loop, run):
    def fork():
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)

    async def main():
        async with served(loop) as (transport, far):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                fork,
                lambda: now_readable(far),
            )
            assert received == b"first"

    run(main())


def test_before_a_fork_in_another_thread(loop, run):
    """Otherwise the child would send it too."""

    def fork(transport):
        child = os.fork()
        if not child:
            transport.close()
            os._exit(0)
        os.waitpid(child, 0)

    async def main():
        async with served(loop) as (transport, far):

            def fork_in_thread():
                thread = threading.Thread(target=fork, args=[transport])
                thread.start()
                thread.join()

            await in_one_turn(loop, lambda: transport.write(b"once"), fork_in_thread)
            transport.write_eof()
            assert await asyncio.to_thread(read_all, far) == b"once"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        run(main())


def test_behind_each_callback_in_debug_mode(loop, run):
    loop.set_debug(True)

    async def main():
        async with served(loop) as (transport, far):
            _, received = await in_one_turn(
                loop, lambda: transport.write(b"first"), lambda: now_readable(far)
            )
            assert received == b"first"

    run(main())


def test_behind_a_callback_that_takes_long(loop, run):
    async def main():
        async with served(loop) as (transport, far):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: time.sleep(0.02),
                lambda: now_readable(far),
            )
            assert received == b"first"

    run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_when_another_callback_ends_the_run(loop, run, kind):
    def leave():
        raise kind

    connection = contextlib.AsyncExitStack()
    transport, far = run(connection.enter_async_context(served(loop)))
    loop.call_soon(transport.write, b"first")
    loop.call_soon(leave)
    with pytest.raises(kind):
        loop.run_until_complete(asyncio.sleep(PATIENCE_S))
    assert now_readable(far) == b"first"
    for task in asyncio.all_tasks(loop):
        task.cancel()
    run(connection.aclose())


def test_a_loop_that_has_ended_has_sent_all(loop, run):
    connection = contextlib.AsyncExitStack()
    transport, far = run(connection.enter_async_context(served(loop)))
    loop.call_soon(transport.write, b"first")
    loop.call_soon(loop.stop)
    loop.call_soon(transport.write, b" second")
    loop.run_forever()
    assert now_readable(far) == b"first second"
    run(connection.aclose())


def test_to_a_peer_on_the_same_loop(loop, run):
    """It has arrived after two turns, as if it had been sent at once."""

    async def main():
        async with served(loop) as (transport, far):
            far.setblocking(False)
            other, protocol = await loop.create_connection(Recorder, sock=far.dup())
            await in_one_turn(loop, lambda: transport.write(b"first"))
            await asyncio.sleep(0)
            assert protocol.received == b"first"
            other.close()
            await until(lambda: protocol.is_lost)

    run(main())


@pytest.mark.parametrize(
    "failing", ["data_received", "eof_received", "_force_close", "_fatal_error"]
)
def test_before_a_connection_ends_by_an_exception(loop, run, failing, unhandled):
    """What another callback of the turn wrote has been sent."""

    def fail(*_):
        raise ValueError("as it happens")

    async def main():
        async with served(loop) as (transport, far):
            if failing == "data_received":
                transport.get_protocol().data_received = fail
                far.send(b"x")
                loop.call_soon(transport.write, b"first")
            elif failing == "eof_received":
                transport.get_protocol().eof_received = fail
                far.shutdown(socket.SHUT_WR)
                loop.call_soon(transport.write, b"first")
            else:
                loop.call_soon(transport.write, b"first")
                arguments = [OSError("x")] if failing == "_fatal_error" else [None]
                loop.call_soon(getattr(transport, failing), *arguments)
            assert await asyncio.to_thread(read_all, far) == b"first"

    run(main())
    unhandled.take()


def test_before_a_peer_on_the_same_loop_ends(loop, run):
    async def main():
        async with served(loop) as (transport, far):
            far.setblocking(False)
            other, protocol = await loop.create_connection(Recorder, sock=far.dup())
            far.close()

            def write_and_abort_the_peer():
                loop.call_soon(transport.write, b"first")
                other.abort()

            loop.call_soon(write_and_abort_the_peer)
            near = transport.get_protocol()
            await until(lambda: near.is_lost and protocol.is_lost)
            assert [type(error) for error in near.lost_with] == [ConnectionResetError]

    run(main())


def test_of_a_datagram_transport_that_is_closing(loop, run):
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.settimeout(PATIENCE_S)
            address = listener.getsockname()
            sender, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )

            def send_after_close():
                loop.call_soon(sender.sendto, b"first", address)
                sender.close()

            loop.call_soon(send_after_close)
            await turns()
            assert await asyncio.to_thread(listener.recv, 100) == b"first"

    run(main())


AT_ONCE = {
    "write_eof": lambda transport: transport.write_eof(),
    "more than ever waits": lambda transport: transport.write(bytes(300_000)),
    "its size is asked for": lambda transport: (
        transport.write(b"second"),
        transport.get_write_buffer_size(),
    ),
    "its socket is held": lambda transport: (
        transport.write(b"second"),
        transport.get_extra_info("socket"),
    ),
}


@pytest.mark.parametrize("second", AT_ONCE)
def test_before_another_transport_sends_at_once(loop, run, second):
    async def main():
        async with served(loop) as (transport, far), served(loop) as (another, _):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: AT_ONCE[second](another),
                lambda: now_readable(far),
            )
            assert received == b"first"

    run(main())


def test_before_a_function_runs_in_an_executor(loop, run):
    async def main():
        async with served(loop) as (transport, far):
            _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                lambda: loop.run_in_executor(None, far.recv, 100),
            )
            assert await received == b"first"

    run(main())


def test_before_a_child_is_signalled(loop, run):
    async def main():
        child = await asyncio.create_subprocess_exec("sleep", "60")
        async with served(loop) as (transport, far):
            _, _, received = await in_one_turn(
                loop,
                lambda: transport.write(b"first"),
                child.kill,
                lambda: now_readable(far),
            )
            assert received == b"first"
        await child.wait()

    run(main())


def test_an_error_is_for_the_protocol_that_was_there(loop, run):
    class Endpoint(asyncio.DatagramProtocol):
        def __init__(self):
            self.errors = []

        def error_received(self, exc):
            self.errors.append(type(exc))

    async def main():
        first, second = Endpoint(), Endpoint()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: first, remote_addr=("127.0.0.1", 9)
        )
        await in_one_turn(
            loop,
            lambda: transport.sendto(bytes(65_512)),
            lambda: transport.set_protocol(second),
        )
        assert (first.errors, second.errors) == ([OSError], [])
        transport.close()
        await turns()

    run(main())


def test_datagrams_and_streams_keep_their_order(loop, run):
    """Each is there when a later one of the other kind is."""

    async def main():
        async with served(loop) as (transport, far):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
                listener.bind(("127.0.0.1", 0))
                listener.setblocking(False)
                sender, _ = await loop.create_datagram_endpoint(
                    asyncio.DatagramProtocol, remote_addr=listener.getsockname()
                )
                await in_one_turn(
                    loop,
                    lambda: sender.sendto(b"one"),
                    lambda: transport.write(b"two"),
                    lambda: sender.sendto(b"three"),
                )
                assert far.recv(100) == b"two"
                assert [listener.recv(100), listener.recv(100)] == [b"one", b"three"]
                sender.close()
                await turns()

    run(main())
