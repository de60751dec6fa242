"""A key-value store that speaks RESP over streams, and a client in redis-py's manner."""

import asyncio
import contextlib


def encode(value):
    """One RESP value."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, Exception):
        return b"-ERR %s\r\n" % str(value).encode()
    if isinstance(value, list | tuple):
        return b"*%d\r\n" % len(value) + b"".join(map(encode, value))
    return b"$%d\r\n%s\r\n" % (len(value), value)


class StoreError(Exception):
    """An error the store answered with."""


async def decode(reader):
    """Reads one RESP value."""
    line = await reader.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("connection closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b":":
        return int(rest)
    if kind == b"-":
        return StoreError(rest.decode())
    length = int(rest)
    if length == -1:
        return None
    if kind == b"*":
        return [await decode(reader) for _ in range(length)]
    data = await reader.readexactly(length + 2)
    return data[:-2]


class Store:
    """The server: one dict, and channels that clients subscribe to."""

    def __init__(self):
        self.data = {}
        self.subscribers = {}
        self._blocked = {}

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                command = await decode(reader)
                writer.write(encode(await self._run(command, writer)))
                await writer.drain()
        for channel in self.subscribers.values():
            channel.discard(writer)
        writer.close()

    async def _run(self, command, writer):
        name, *args = command
        method = getattr(self, f"_{name.decode().lower()}", None)
        if method is None:
            return StoreError(f"unknown command {name.decode()}")
        result = method(writer, *args)
        return await result if asyncio.iscoroutine(result) else result

    def _ping(self, writer):
        return b"PONG"

    def _set(self, writer, key, value):
        self.data[key] = value
        return b"OK"

    def _get(self, writer, key):
        return self.data.get(key)

    def _incr(self, writer, key):
        self.data[key] = b"%d" % (int(self.data.get(key, b"0")) + 1)
        return int(self.data[key])

    def _rpush(self, writer, key, *values):
        queue = self.data.setdefault(key, [])
        queue.extend(values)
        for future in self._blocked.pop(key, []):
            if not future.done():
                future.set_result(None)
        return len(queue)

    async def _blpop(self, writer, key, timeout):
        loop = asyncio.get_running_loop()
        deadline = loop.time() + float(timeout)
        while not self.data.get(key):
            future = loop.create_future()
            self._blocked.setdefault(key, []).append(future)
            try:
                async with asyncio.timeout_at(deadline):
                    await future
            except TimeoutError:
                return None
        return [key, self.data[key].pop(0)]

    def _subscribe(self, writer, channel):
        self.subscribers.setdefault(channel, set()).add(writer)
        return [b"subscribe", channel, 1]

    def _publish(self, writer, channel, message):
        receivers = self.subscribers.get(channel, ())
        for receiver in receivers:
            receiver.write(encode([b"message", channel, message]))
        return len(receivers)


class Connection:
    """The client: single commands, pipelines, subscriptions."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, *address):
        if len(address) == 1:
            return cls(*await asyncio.open_unix_connection(*address))
        return cls(*await asyncio.open_connection(*address))

    async def send(self, *args):
        self.writer.write(
            encode([arg if isinstance(arg, bytes) else str(arg).encode() for arg in args])
        )
        await self.writer.drain()

    async def receive(self):
        value = await decode(self.reader)
        if isinstance(value, StoreError):
            raise value
        return value

    async def command(self, *args):
        await self.send(*args)
        return await self.receive()

    async def pipeline(self, commands):
        self.writer.writelines(
            encode([arg if isinstance(arg, bytes) else str(arg).encode() for arg in args])
            for args in commands
        )
        await self.writer.drain()
        return [await decode(self.reader) for _ in commands]

    async def close(self):
        self.writer.close()
        await self.writer.wait_closed()
