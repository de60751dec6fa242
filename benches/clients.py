"""A real client on one event loop: so many requests under way, for as long as the window lasts.

Prints a JSON object with the requests answered in the window and the CPU seconds of the measured
process, which is this one or the server's. Each request's answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import loops
import process
from frameworks import BODY, GRPC_SERVICE
from listening import split_tcp
from stopwatch import cpu_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Request = Callable[[], Awaitable[None]]

library = importlib.import_module
MESSAGE = bytes(range(128)) * 8
QUERY_TEXT = "hello"


# Each of these connects and returns what makes one request, for each of `count` under way.


async def aiohttp(options: argparse.Namespace) -> list[Request]:
    module = library("aiohttp")
    count, url = options.connections, f"http://{options.address}/"
    session = module.ClientSession(connector=module.TCPConnector(limit=count))

    async def request() -> None:
        async with session.get(url) as response:
            check(await response.read(), BODY)

    return [request] * count


async def httpx(options: argparse.Namespace) -> list[Request]:
    module = library("httpx")
    count, url = options.connections, f"http://{options.address}/"
    limits = module.Limits(max_connections=count, max_keepalive_connections=count)
    client = module.AsyncClient(limits=limits, trust_env=False)

    async def request() -> None:
        check((await client.get(url)).content, BODY)

    return [request] * count


async def redis(options: argparse.Namespace) -> list[Request]:
    """Get a value of 1 KiB, on a connection each."""
    module = library("redis.asyncio")

    async def connect() -> Request:
        client = module.Redis.from_url(options.address, single_connection_client=True)
        await client.set("bench", MESSAGE)

        async def request() -> None:
            check(await client.get("bench"), MESSAGE)

        return request

    return [await connect() for _ in range(options.connections)]


async def asyncpg(options: argparse.Namespace) -> list[Request]:
    """Select a row of two parameters, by a prepared statement, on a connection each."""
    module = library("asyncpg")

    async def connect() -> Request:
        connection = await module.connect(options.address, ssl=False)
        numbers = itertools.count()

        async def request() -> None:
            number = next(numbers)
            row = await connection.fetchrow("SELECT $1::int, $2::text", number, QUERY_TEXT)
            check(tuple(row), (number, QUERY_TEXT))

        return request

    return [await connect() for _ in range(options.connections)]


async def psycopg(options: argparse.Namespace) -> list[Request]:
    """Select the same, by a statement that the library prepares by itself."""
    module = library("psycopg")

    async def connect() -> Request:
        connection = await module.AsyncConnection.connect(
            options.address, autocommit=True, sslmode="disable"
        )
        numbers = itertools.count()

        async def request() -> None:
            number = next(numbers)
            cursor = await connection.execute("SELECT %s::int, %s::text", (number, QUERY_TEXT))
            check(await cursor.fetchone(), (number, QUERY_TEXT))

        return request

    return [await connect() for _ in range(options.connections)]


async def websockets(options: argparse.Namespace) -> list[Request]:
    """Have a message of 1 KiB echoed, on a connection each."""
    module = library("websockets.asyncio.client")

    async def connect() -> Request:
        connection = await module.connect(f"ws://{options.address}", compression=None, proxy=None)

        async def request() -> None:
            await connection.send(MESSAGE)
            check(await connection.recv(), MESSAGE)

        return request

    return [await connect() for _ in range(options.connections)]


async def grpc(options: argparse.Namespace) -> list[Request]:
    """Have a message of 1 KiB echoed, in calls on one channel."""
    channel = library("grpc.aio").insecure_channel(options.address)
    call = channel.unary_unary(f"/{GRPC_SERVICE}/Unary")

    async def request() -> None:
        check(await call(MESSAGE), MESSAGE)

    return [request] * options.connections


async def http3(options: argparse.Namespace) -> list[Request]:
    """GET by aioquic, on a connection each."""
    quic, h3 = library("aioquic.asyncio"), library("aioquic.h3.connection")
    events = library("aioquic.h3.events")
    head = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost")]
    head.append((b":path", b"/"))

    class Protocol(quic.QuicConnectionProtocol):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.http = h3.H3Connection(self._quic)
            self.answer: asyncio.Future[bytes] | None = None
            self.body = b""

        async def request(self) -> None:
            self.answer, self.body = asyncio.get_running_loop().create_future(), b""
            self.http.send_headers(self._quic.get_next_available_stream_id(), head, end_stream=True)
            self.transmit()
            check(await self.answer, BODY)

        def quic_event_received(self, event: Any) -> None:
            for each in self.http.handle_event(event):
                if isinstance(each, events.DataReceived):
                    self.body += each.data
                if getattr(each, "stream_ended", False) and self.answer is not None:
                    self.answer.set_result(self.body)

    async def connect() -> Request:
        configuration = library("aioquic.quic.configuration").QuicConfiguration(
            alpn_protocols=h3.H3_ALPN, server_name="localhost", cafile=str(options.certificate)
        )
        connecting = quic.connect(
            *split_tcp(options.address), configuration=configuration, create_protocol=Protocol
        )
        protocol = await connecting.__aenter__()
        protocol.connecting = connecting  # which closes the connection when it is freed
        request: Request = protocol.request
        return request

    return [await connect() for _ in range(options.connections)]


KINDS: dict[str, Callable[[argparse.Namespace], Awaitable[list[Request]]]] = {
    "aiohttp": aiohttp,
    "httpx": httpx,
    "redis": redis,
    "asyncpg": asyncpg,
    "psycopg": psycopg,
    "websockets": websockets,
    "grpc": grpc,
    "http3": http3,
}


def check(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} is not the answer {expected!r}")


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Keep requests under way; count those answered in the window, and the CPU time of it."""
    requests = await KINDS[options.kind](options)
    counts = [0] * len(requests)

    async def ask(index: int, request: Request) -> None:
        while True:
            await request()
            counts[index] += 1

    tasks = [asyncio.create_task(ask(*each)) for each in enumerate(requests)]
    clock = cpu_clock(options.measured_pid or os.getpid())

    async def read_after(seconds: float) -> tuple[list[int], float, float]:
        failed, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in failed:
            task.result()
        return counts.copy(), time.monotonic(), time.clock_gettime(clock)

    before, after = await read_after(options.warmup), await read_after(options.seconds)
    answers = [now - then for now, then in zip(after[0], before[0], strict=True)]
    return {
        "requests": sum(answers),
        "seconds": after[1] - before[1],
        "server_cpu_seconds": after[2] - before[2],
        "idle_connections": answers.count(0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    parser.add_argument("--kind", required=True, choices=KINDS)
    parser.add_argument("--address", required=True, help="host:port, or the URL of a service")
    parser.add_argument("--connections", type=int, default=1, help="requests under way")
    parser.add_argument("--certificate", type=Path, help="what to trust: the server's own")
    parser.add_argument("--core", type=int, help="run on this core")
    parser.add_argument("--measured-pid", type=int, help="measure the server, not the client")
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    process.prepare(options.core)
    loop = loops.new_event_loop(options.loop)
    # How a library ends while requests are under way is not measured, and says nothing.
    status = 1
    try:
        print(json.dumps(loop.run_until_complete(measure(options))), flush=True)
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
