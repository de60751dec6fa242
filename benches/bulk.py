"""Bulk: bytes in one direction in large writes, by protocols that respect flow control.

The servers' part of it is asked by the load generator, which checks every byte. The benchmarks
have both ends in one loop.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from typing import TYPE_CHECKING, Any

from listening import bound_tcp, split_tcp
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Connect = Callable[[asyncio.AbstractEventLoop, "Sender", "Counter"], Awaitable[object]]

SIZE = 64 * 1024
BURST = 16
UNSENT_MOST = 64 << 20
# What the load generator expects: the numbers of messages start anew after so many, and
# whoever receives from it says a dot for so many bytes.
NUMBERS = 16
RECEIPT_BYTES = 4 << 20


def messages_of(size: int) -> Iterator[bytes]:
    """Return numbered messages, again and again."""
    filler = bytes(ord("!") + offset % 94 for offset in range(16, size))
    return itertools.cycle([f"{number:016x}".encode() + filler for number in range(NUMBERS)])


class Sender(asyncio.Protocol):
    """Writes messages while the transport takes them, a burst a turn; closes at their end."""

    def __init__(self, messages: Iterator[bytes]) -> None:
        self.messages = messages
        self.is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.send()

    def send(self) -> None:
        if self.transport.is_closing():
            return  # a client that has gone: others come
        if self.transport.get_write_buffer_size() > UNSENT_MOST:
            raise SystemExit("bulk: the transport does not pause its writer")
        for _ in range(BURST):
            message = next(self.messages, None)
            if message is None:
                # Not from resume_writing itself: a pipe of asyncio's would drop what is unsent.
                asyncio.get_running_loop().call_soon(self.transport.close)
                return
            self.transport.write(message)
            if self.is_paused:
                return
        asyncio.get_running_loop().call_soon(self.send)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.send()


class Receiver(asyncio.Protocol):
    """Receives, and says a dot for each so many bytes."""

    received = 0
    due = RECEIPT_BYTES

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        while self.received >= self.due:
            self.due += RECEIPT_BYTES
            self.transport.write(b".")


class Counter(asyncio.Protocol):
    """Receives until the end, and resolves a future with the number of bytes."""

    def __init__(self, done: asyncio.Future[int]) -> None:
        self.done = done
        self.received = 0

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.done.set_result(self.received)


async def tcp(loop: asyncio.AbstractEventLoop, sender: Sender, counter: Counter) -> None:
    server = await loop.create_server(lambda: counter, "127.0.0.1", 0)
    await loop.create_connection(lambda: sender, *split_tcp(bound_tcp(server)))
    await counter.done
    server.close()


async def unix(loop: asyncio.AbstractEventLoop, sender: Sender, counter: Counter) -> None:
    ours, theirs = socket.socketpair()
    await loop.create_connection(lambda: counter, sock=theirs)
    await loop.create_connection(lambda: sender, sock=ours)


async def pipe(loop: asyncio.AbstractEventLoop, sender: Sender, counter: Counter) -> None:
    reading, writing = os.pipe()
    await loop.connect_read_pipe(lambda: counter, os.fdopen(reading, "rb", 0))
    await loop.connect_write_pipe(lambda: sender, os.fdopen(writing, "wb", 0))


def within_a_loop(connect: Connect) -> Callable[[int], Awaitable[float]]:
    """Return the benchmark that sends so many messages over what `connect` connects."""

    async def run(count: int) -> float:
        loop = asyncio.get_running_loop()
        counter = Counter(loop.create_future())
        with Stopwatch() as stopwatch:
            await connect(loop, Sender(itertools.repeat(bytes(SIZE), count)), counter)
            received = await counter.done
        assert received == count * SIZE
        return stopwatch.seconds

    return run


# Writes a sample.
BENCHMARKS: dict[str, tuple[Callable[[int], Awaitable[float]], int]] = {
    f"bulk-{name}-within": (within_a_loop(connect), 3_000)
    for name, connect in (("tcp", tcp), ("unix", unix), ("pipe", pipe))
}
