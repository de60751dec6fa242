"""Micro benchmarks of what needs more than the loop: threads, processes, signals, sockets, names.

Each returns the CPU seconds of this process, as those in micro.py do: what children and the
peer of a connection use is not counted.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import counterpart
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CAT_BYTES = 4 << 20
# What a process has open that has nothing to do with connections, at most.
OPEN_MOST = 16
# The interval at which psycopg looks up from waiting for an answer.
QUERY_INTERVAL = 0.1
SOCKETS = 32


def nothing() -> None:
    pass


async def run_in_executor(count: int) -> float:
    loop = asyncio.get_running_loop()
    with Stopwatch() as stopwatch:
        for _ in range(count):
            await loop.run_in_executor(None, nothing)
    return stopwatch.seconds


async def getaddrinfo_numeric(count: int) -> float:
    """Resolve what needs no resolving."""
    loop = asyncio.get_running_loop()
    with Stopwatch() as stopwatch:
        for _ in range(count):
            await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    return stopwatch.seconds


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def connect_close(count: int) -> float:
    """Connect to a numeric address over TCP, close, and wait until the connection is lost."""
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    with counterpart.start("accept") as acceptor:
        assert acceptor.stdout is not None
        port = int(acceptor.stdout.readline())
        # An address that no other sample has used, whose ports are all free.
        host = ".".join(["127", *(str(random.randrange(1, 255)) for _ in range(3))])
        with Stopwatch() as stopwatch:
            for _ in range(count):
                lost = loop.create_future()
                transport, _ = await loop.create_connection(Protocol, host, port)
                transport.close()
                await lost
        acceptor.kill()
    if open_descriptors() > OPEN_MOST:
        raise NotImplementedError("connection_lost comes and the socket stays open")
    return stopwatch.seconds


async def spawn_wait(count: int) -> float:
    with Stopwatch() as stopwatch:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec("true")
            await process.wait()
    return stopwatch.seconds


async def cat_4m(count: int) -> float:
    """Write 4 MiB to a child and read them back."""
    data = bytes(CAT_BYTES)
    with Stopwatch() as stopwatch:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(
                "cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await process.communicate(data)
            assert output == data
    return stopwatch.seconds


async def readable(loop: asyncio.AbstractEventLoop, number: int) -> None:
    """Wait as psycopg does for an answer: by a reader, and a timer to look up in between."""
    is_readable = False
    while not is_readable:
        waited = loop.create_future()

        def wake(is_answer: bool, waited: asyncio.Future[None] = waited) -> None:
            nonlocal is_readable
            is_readable |= is_answer
            if not waited.done():
                waited.set_result(None)

        loop.add_reader(number, wake, True)
        timer = loop.call_later(QUERY_INTERVAL, wake, False)
        await waited
        timer.cancel()
        loop.remove_reader(number)


async def add_reader_query(count: int) -> float:
    """Send a query to another process, wait, and read its answer."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    query = counterpart.MESSAGE
    with ours, counterpart.start("answer", theirs) as answerer:
        with Stopwatch() as stopwatch:
            for _ in range(count):
                ours.send(query)
                await readable(loop, ours.fileno())
                assert ours.recv(len(query)) == query
        answerer.kill()
    return stopwatch.seconds


async def signal_handled(count: int) -> float:
    """Send this process a signal and wait until its handler has run."""
    loop = asyncio.get_running_loop()
    waited = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, lambda: waited.set_result(None))
    own = os.getpid()
    with Stopwatch() as stopwatch:
        for _ in range(count):
            waited = loop.create_future()
            os.kill(own, signal.SIGUSR1)
            await waited
    loop.remove_signal_handler(signal.SIGUSR1)
    return stopwatch.seconds


async def echo_beside_thread(count: int) -> float:
    """Answer on sockets that become ready together, while a thread of Python code computes.

    The thread is a part of the figure: it runs whenever the loop does not hold the GIL. Both may
    use all cores, as in a program: on one core the thread would seldom be there to take the GIL.
    """
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = count

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)
            self.transport.write(data)

    is_over = False

    def compute() -> None:
        while not is_over:
            pass

    pairs = [socket.socketpair() for _ in range(SOCKETS)]
    for ours, _ in pairs:
        await loop.create_connection(Echo, sock=ours)
    thread = threading.Thread(target=compute, daemon=True)
    with counterpart.start("ask", *(theirs for _, theirs in pairs)) as asker:
        thread.start()
        with Stopwatch() as stopwatch:
            await done
        is_over = True
        thread.join()
        asker.kill()
    await asyncio.sleep(0.01)  # the connections see the end
    return stopwatch.seconds


# Operations a turn.
BENCHMARKS: dict[str, tuple[Callable[[int], Awaitable[float]], int]] = {
    "run_in_executor": (run_in_executor, 4_000),
    "getaddrinfo-numeric": (getaddrinfo_numeric, 7_000),
    "connect-close": (connect_close, 1_000),
    "add_reader-query": (add_reader_query, 3_000),
    "signal": (signal_handled, 7_000),
    "echo-beside-thread-x32": (echo_beside_thread, 160),
    "spawn-wait": (spawn_wait, 70),
    "cat-4m": (cat_4m, 7),
}
