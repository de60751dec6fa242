"""One hot path, for each number of operations that is asked for: the program that callgrind runs.

A call of getppid, which nothing else here makes, ends each of them: it tells callgrind to write
what it has counted and to begin anew. Servers print `ready ADDRESS` once they listen, serve one
client and close when it has left. All that runs before and after the operations is the same for
every number of them, so that the difference of two is what the operations cost.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import listening
import loops
import micro
import servers

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    HotPath = Callable[[int, Path], Awaitable[object]]

HOST = "127.0.0.1"
MESSAGE = bytes(1024)


class UntilLost(asyncio.Protocol):
    """Tells when its connection is lost."""

    def __init__(self, lost: asyncio.Future[None]) -> None:
        self.lost = lost

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)


class EchoProtocol(UntilLost, servers.EchoProtocol):
    """Writes back what it receives until the client leaves."""


class EchoDatagramProtocol(asyncio.DatagramProtocol):
    """Sends back what it receives, until that is nothing."""

    def __init__(self, lost: asyncio.Future[None]) -> None:
        self.lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data:
            self.transport.sendto(data, addr)
        else:
            self.lost.set_result(None)


async def echo_protocol(context: ssl.SSLContext | None = None) -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    server = await loop.create_server(lambda: EchoProtocol(lost), HOST, 0, ssl=context)
    listening.announce(listening.bound_tcp(server))
    await lost
    server.close()


async def echo_streams() -> None:
    left = asyncio.get_running_loop().create_future()
    echo = servers.streams_echo(lambda reader: reader.read(servers.BUFFER_LEN))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await echo(reader, writer)
        await writer.wait_closed()
        left.set_result(None)

    server = await asyncio.start_server(handle, HOST, 0, limit=servers.STREAM_LIMIT)
    listening.announce(listening.bound_tcp(server))
    await left
    server.close()


async def sock_ping_pong(count: int) -> None:
    """Send to a task of the same loop by sock_sendall, and receive its answer by sock_recv.

    With a client outside, it would be chance whether a receive finds its message or must wait.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    task = loop.create_task(servers.echo_socket(theirs))
    with ours:
        for _ in range(count):
            await loop.sock_sendall(ours, MESSAGE)
            await loop.sock_recv(ours, servers.BUFFER_LEN)
    await task


async def echo_datagram() -> None:
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: EchoDatagramProtocol(lost), local_addr=(HOST, 0)
    )
    listening.announce("{}:{}".format(*transport.get_extra_info("sockname")))
    await lost
    transport.close()


async def connect_accept_close(count: int) -> None:
    """Connect to a server of the same loop, close, and wait until both ends are lost."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()
    server = await loop.create_server(lambda: UntilLost(accepted), HOST, 0)
    _, port = listening.split_tcp(listening.bound_tcp(server))
    for _ in range(count):
        accepted, connected = loop.create_future(), loop.create_future()
        transport, _ = await loop.create_connection(
            functools.partial(UntilLost, connected), HOST, port
        )
        transport.close()
        await connected
        await accepted
    server.close()


def benchmark(name: str) -> HotPath:
    """Return one of the micro benchmarks as a hot path."""
    measure, _ = micro.BENCHMARKS[name]
    return lambda count, directory: measure(count)


# Each is given the number of operations and a directory with a certificate. The names are those of
# the comparison's rows where they do the same.
HOT_PATHS: dict[str, HotPath] = {
    "call_soon-chain": benchmark("call_soon-chain"),
    "timers-fired-chain": benchmark("timers-fired-chain"),
    "sleep-0": benchmark("sleep-0"),
    "tasks-gathered": benchmark("tasks-gathered"),
    "echo-protocol-tcp-1k-x1": lambda count, directory: echo_protocol(),
    "echo-streams-read-tcp-1k-x1": lambda count, directory: echo_streams(),
    "echo-protocol-tls-1k-x1": lambda count, directory: echo_protocol(
        servers.server_context(directory)
    ),
    "echo-datagram-udp-100-x1": lambda count, directory: echo_datagram(),
    "sock-ping-pong": lambda count, directory: sock_ping_pong(count),
    "connect-accept-close": lambda count, directory: connect_accept_close(count),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", required=True, choices=HOT_PATHS)
    parser.add_argument("--operations", type=int, nargs="+", required=True)
    parser.add_argument("--directory", type=Path, required=True, help="where a certificate is")
    options = parser.parse_args()
    path = HOT_PATHS[options.path]
    loop = loops.new_event_loop("oxloop")
    # No collection of all objects: when one is due would be chance.
    gc.freeze()
    gc.set_threshold(700, 10, 1 << 30)
    for operations in options.operations:
        loop.run_until_complete(path(operations, options.directory))
        os.getppid()
    loop.close()


if __name__ == "__main__":
    main()
