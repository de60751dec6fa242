"""Micro benchmarks of what needs more than the loop: threads, processes, the resolver, sockets.

Each returns the CPU seconds of this process, as those in micro.py do: what children and the
peer of a connection use is not counted.
"""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CAT_BYTES = 4 << 20
# What a process has open that has nothing to do with connections, at most.
OPEN_MOST = 16
# Accepts and closes connections on all loopback addresses, on a core of its own if it can.
ACCEPTOR = """
import os, socket
os.sched_setaffinity(0, range(os.cpu_count()))
listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(1)
    connection.close()
"""


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


def start_acceptor() -> subprocess.Popen[bytes]:
    """Start the peer outside the loop, whose way of starting processes is not measured here."""
    return subprocess.Popen([sys.executable, "-c", ACCEPTOR], stdout=subprocess.PIPE)


async def connect_close(count: int) -> float:
    """Connect to a numeric address over TCP, close, and wait until the connection is lost."""
    loop = asyncio.get_running_loop()
    lost = loop.create_future()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set_result(exc)

    with start_acceptor() as acceptor:
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


# Operations a sample.
BENCHMARKS: dict[str, tuple[Callable[[int], Awaitable[float]], int]] = {
    "run_in_executor": (run_in_executor, 10_000),
    "getaddrinfo-numeric": (getaddrinfo_numeric, 20_000),
    "connect-close": (connect_close, 3_000),
    "spawn-wait": (spawn_wait, 200),
    "cat-4m": (cat_4m, 20),
}
