"""Memory that returns: loads of connections and bursts of callbacks, and what is left of each.

Runs one measurement on one loop and prints a JSON object: for each load or burst, by its number,
the bytes of resident anonymous memory beyond those before the first.

- `peak-N`: while all connections are open, or all callbacks wait;
- `kept-N`: after all have closed, or have run;
- `held-N`: after a full garbage collection, and after the C library has been told to return free
  memory to the kernel (`malloc_trim`): what the program still holds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import idle
import loops
import process
import servers
from listening import BACKLOG, bound_tcp
from measurement import reason
from resident import resident_bytes

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

TURNS = 3
LOAD_SIZE = 64 * 1024
SETTLING = 0.3
SECONDS_A_TIMER = 4e-6
BURST_SECONDS = 0.01


class Memory:
    """The memory beyond what there was at the beginning, by name."""

    def __init__(self) -> None:
        self.before = resident_bytes()
        self.values: dict[str, int] = {}

    def note(self, name: str) -> None:
        self.values[name] = resident_bytes() - self.before

    def note_returned(self, number: int) -> None:
        self.note(f"kept-{number}")
        gc.collect()
        trim()
        self.note(f"held-{number}")


def trim() -> None:
    """Have the C library return free memory, if it is one that can (glibc)."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def nothing() -> None:
    pass


async def burst(count: int, schedule: Callable[[], object], seconds: float) -> dict[str, int]:
    """Schedule so many callbacks, wait until they have run; again."""
    memory = Memory()
    for number in range(1, TURNS + 1):
        for _ in range(count):
            schedule()
        memory.note(f"peak-{number}")
        await asyncio.sleep(seconds)
        memory.note_returned(number)
    return memory.values


async def handles(count: int) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    return await burst(count, lambda: loop.call_soon(nothing), BURST_SECONDS)


async def timers(count: int) -> dict[str, int]:
    loop = asyncio.get_running_loop()
    seconds = count * SECONDS_A_TIMER + BURST_SECONDS
    return await burst(count, lambda: loop.call_later(seconds, nothing), 2 * seconds)


class Client:
    """A process that opens idle connections, and closes them when it is told to."""

    def __init__(self, address: str, count: int, *, is_tls: bool) -> None:
        command = [sys.executable, idle.__file__, address, "--connections", str(count)]
        command += ["--size", str(LOAD_SIZE), *(["--tls"] if is_tls else [])]
        # Not by the loop, whose way of starting processes is not measured here.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    async def until_open(self) -> None:
        assert self.process.stdout is not None
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(None, self.process.stdout.readline):
            _, stderr = self.process.communicate()
            raise ConnectionError(reason(stderr, self.process.returncode))

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.process.communicate)


@contextlib.asynccontextmanager
async def echo_server(kind: str, context: ssl.SSLContext | None) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"backlog": BACKLOG, "ssl": context}
    server: asyncio.AbstractServer
    if kind == "protocol":
        server = await loop.create_server(servers.EchoProtocol, "127.0.0.1", 0, **options)
    else:
        handle = servers.streams_echo(lambda reader: reader.read(servers.BUFFER_LEN))
        server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    yield bound_tcp(server)
    server.close()


async def connections(count: int, kind: str, directory: Path | None) -> dict[str, int]:
    """Serve so many connections with traffic on each, until all are closed; again."""
    context = None if directory is None else servers.server_context(directory)
    is_tls = context is not None
    async with echo_server(kind, context) as address:
        # The first connections of all, and the first thread, make what is made once.
        client = Client(address, count // 100, is_tls=is_tls)
        await client.until_open()
        await client.close()
        await asyncio.sleep(SETTLING)
        gc.collect()
        trim()
        memory = Memory()
        for number in range(1, TURNS + 1):
            client = Client(address, count, is_tls=is_tls)
            await client.until_open()
            memory.note(f"peak-{number}")
            await client.close()
            await asyncio.sleep(SETTLING)
            memory.note_returned(number)
    return memory.values


def measurement(name: str, count: int, directory: Path | None) -> Awaitable[dict[str, int]]:
    if name == "handles":
        return handles(count)
    if name == "timers":
        return timers(count)
    return connections(count, name, directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    names = ["handles", "timers", "protocol", "streams-read"]
    parser.add_argument("--measurement", required=True, choices=names)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--tls", type=Path, help="directory of a certificate: serve over TLS")
    parser.add_argument("--core", type=int, help="run on this core")
    options = parser.parse_args()
    process.prepare(options.core)
    loop = loops.new_event_loop(options.loop)
    values = loop.run_until_complete(measurement(options.measurement, options.count, options.tls))
    print(json.dumps(values), flush=True)
    os._exit(0)  # a loop that cannot end its server or executor has been measured all the same


if __name__ == "__main__":
    main()
