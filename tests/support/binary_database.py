"""A small database with a binary wire protocol, and a pipelining client in asyncpg's manner.

Frames: one byte of kind, four of length, the payload. The server answers Q(uery) with rows
R and a C(omplete), or with an E(rror); after S(ync) it says Z. COPY streams many rows.
"""

import asyncio
import collections
import struct

HEAD = struct.Struct("!cI")


def frame(kind, payload=b""):
    return HEAD.pack(kind, len(payload)) + payload


class FrameProtocol(asyncio.Protocol):
    """Cuts the stream into frames and keeps to the transport's flow control."""

    def __init__(self):
        self._buffer = bytearray()
        self.transport = None
        self.can_write = asyncio.Event()
        self.can_write.set()

    def connection_made(self, transport):
        self.transport = transport

    def pause_writing(self):
        self.can_write.clear()

    def resume_writing(self):
        self.can_write.set()

    def data_received(self, data):
        self._buffer += data
        while len(self._buffer) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._buffer)
            end = HEAD.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEAD.size : end])
            del self._buffer[:end]
            self.frame_received(kind, payload)

    def frame_received(self, kind, payload):
        raise NotImplementedError


class Database(FrameProtocol):
    """The server's end of one connection."""

    def frame_received(self, kind, payload):
        if kind == b"Q":
            self._query(payload)
        elif kind == b"S":
            self.transport.write(frame(b"Z"))
        elif kind == b"X":
            self.transport.close()

    def _query(self, payload):
        verb, _, rest = payload.partition(b" ")
        if verb == b"ECHO":
            # A memoryview over a buffer of its own, as drivers in C hand them over.
            self.transport.write(memoryview(frame(b"R", rest)))
        elif verb == b"COUNT":
            rows = [frame(b"R", b"%d" % number) for number in range(int(rest))]
            self.transport.writelines(rows)
        elif verb == b"COPY":
            size, count = map(int, rest.split())
            for number in range(count):
                self.transport.write(frame(b"R", bytes([number % 256]) * size))
        else:
            self.transport.write(frame(b"E", b"unknown verb " + verb))
            return
        self.transport.write(frame(b"C"))


class QueryError(Exception):
    """What the database said about a query."""


class Client(FrameProtocol):
    """Sends queries without waiting for answers, and gives each its rows in order."""

    def __init__(self):
        super().__init__()
        self._waiting = collections.deque()
        self._rows = []
        self._lost = None
        self.times_paused = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._lost = asyncio.get_running_loop().create_future()

    def frame_received(self, kind, payload):
        if kind == b"R":
            self._rows.append(payload)
            return
        future = self._waiting.popleft()
        rows, self._rows = self._rows, []
        if future.done():  # its caller gave up, and the answer came all the same
            return
        if kind == b"E":
            future.set_exception(QueryError(payload.decode()))
        else:
            future.set_result(rows)

    def connection_lost(self, exc):
        for future in self._waiting:
            if not future.done():
                future.set_exception(exc or ConnectionError("connection closed"))
        self._lost.set_result(exc)

    def pause_writing(self):
        super().pause_writing()
        self.times_paused += 1

    async def query(self, text, timeout=15):
        await self.can_write.wait()
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting.append(future)
        self.transport.write(memoryview(frame(b"Q", text)))
        timer = loop.call_later(timeout, self._give_up, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _give_up(self, future):
        if not future.done():
            future.set_exception(TimeoutError("the query timed out"))

    async def sync(self):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self.transport.write(frame(b"S"))
        await future

    async def close(self):
        self.transport.write(frame(b"X"))
        return await self._lost
