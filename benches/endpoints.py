"""Two endpoints of one event loop that send each other datagrams, a process each.

Plays one part until the window is over or, as the server, until it is killed. The client
reads the server's CPU clock, the receiver its own, at the window's beginning and end; both
print a JSON object with the datagrams counted and the CPU seconds of the measured process.

- `echo`: the client keeps so many datagrams under way; the server is measured.
- `burst`: the server sends so many datagrams in each turn of its loop to whoever greets it;
  the receiver counts what arrives, and is measured. What it is too slow for is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import Any

import loops
import process
from stopwatch import cpu_clock

GREETING_INTERVAL = 0.05


class Echo(asyncio.DatagramProtocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


class Sender(asyncio.DatagramProtocol):
    """Sends bursts to the first who greets it."""

    def __init__(self, size: int, count: int) -> None:
        self.data = bytes(size)
        self.count = count
        self.peer: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.peer is None:
            self.peer = addr
            self.send_burst()

    def send_burst(self) -> None:
        sendto, data, peer = self.transport.sendto, self.data, self.peer
        for _ in range(self.count):
            sendto(data, peer)
        asyncio.get_running_loop().call_soon(self.send_burst)


class Client(asyncio.DatagramProtocol):
    """Keeps datagrams under way and counts the answers, of which each must be its request."""

    def __init__(self, size: int, count: int) -> None:
        self.data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        self.count = count
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def start(self) -> None:
        for _ in range(self.count):
            self.transport.sendto(self.data)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data != self.data:
            raise SystemExit("endpoints: what came back is not what was sent")
        self.received += 1
        self.transport.sendto(data)


class Receiver(asyncio.DatagramProtocol):
    """Counts what it receives."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self.received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def start(self) -> None:
        """Greet until the sender sends: a greeting may come before it waits for one."""
        if not self.received:
            self.transport.sendto(b"hello")
            asyncio.get_running_loop().call_later(GREETING_INTERVAL, self.start)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received += 1


SERVERS: dict[str, Any] = {"echo": lambda size, count: Echo(), "burst": Sender}
CLIENTS: dict[str, Any] = {"echo": Client, "burst": Receiver}


async def serve(kind: str, size: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: SERVERS[kind](size, count), local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    print("ready", f"{host}:{port}", flush=True)
    await loop.create_future()


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run the client and return its count and the CPU time of who is measured."""
    loop = asyncio.get_running_loop()
    host, _, port = options.connect.rpartition(":")
    _, client = await loop.create_datagram_endpoint(
        lambda: CLIENTS[options.kind](options.size, options.count), remote_addr=(host, int(port))
    )
    client.start()
    await asyncio.sleep(options.warmup)
    measured = cpu_clock(options.server_pid if options.kind == "echo" else os.getpid())

    def read() -> tuple[int, float, float]:
        return client.received, time.monotonic(), time.clock_gettime(measured)

    before = read()
    await asyncio.sleep(options.seconds)
    count, seconds, cpu = (now - then for now, then in zip(read(), before, strict=True))
    return {"requests": count, "seconds": seconds, "server_cpu_seconds": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    parser.add_argument("--kind", required=True, choices=SERVERS)
    parser.add_argument("--size", type=int, required=True, help="bytes of a datagram")
    parser.add_argument("--count", type=int, required=True, help="datagrams under way, or a turn")
    parser.add_argument("--core", type=int, help="run on this core")
    parser.add_argument("--connect", help="be the client of the server at this address")
    parser.add_argument("--server-pid", type=int, help="for the client: the server's process")
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    process.prepare(options.core)
    loop = loops.new_event_loop(options.loop)
    if options.connect is None:
        loop.run_until_complete(serve(options.kind, options.size, options.count))
    else:
        print(json.dumps(loop.run_until_complete(measure(options))))


if __name__ == "__main__":
    main()
