"""The server under test: one kind of server on one event loop, until it is killed.

Prints `ready ADDRESS` once it listens. Nothing else runs in the process: the load
generator reads its CPU clock from outside, and it ends by the signal that kills it.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bulk
import frameworks
import loops
import process
from listening import BACKLOG, announce, bound_tcp, split_tcp, until_killed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    Serve = Callable[[str, int, ssl.SSLContext | None], Awaitable[None]]

BUFFER_LEN = 256 * 1024
# asyncio's default limit of 64 KiB is shorter than the longest line measured.
STREAM_LIMIT = 256 * 1024


class EchoProtocol(asyncio.Protocol):
    """Writes back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoBufferedProtocol(asyncio.BufferedProtocol):
    """Receives into one buffer and writes back a copy of the part that was filled.

    It must be a copy: the transport may keep what it cannot send at once, and the buffer
    is filled again by the next read.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.view = memoryview(bytearray(BUFFER_LEN))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.view[:nbytes]))


class EchoDatagramProtocol(asyncio.DatagramProtocol):
    """Sends back what it receives."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data, addr)


def streams_echo(
    next_message: Callable[[asyncio.StreamReader], Awaitable[bytes]],
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a connection handler that writes back each message that `next_message` reads."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while message := await next_message(reader):
                writer.write(message)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the load generator leaves in the middle of a message
        finally:
            writer.close()

    return handle


def server_context(directory: Path) -> ssl.SSLContext:
    """Return the context of a server whose certificate and key are in a directory."""
    import ssl  # noqa: PLC0415 - only a server over TLS pays for the import

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    return context


# Every server listens by host and port, as programs do: a loop that is given a socket may
# treat its connections differently (asyncio sets TCP_NODELAY by the socket's protocol).


async def serve_protocol(
    address: str, context: ssl.SSLContext | None, protocol: Callable[[], Any]
) -> None:
    loop = asyncio.get_running_loop()
    if "/" in address:
        server = await loop.create_unix_server(protocol, address, backlog=BACKLOG, ssl=context)
    else:
        server = await loop.create_server(
            protocol, *split_tcp(address), backlog=BACKLOG, ssl=context
        )
        address = bound_tcp(server)
    announce(address)
    await until_killed()
    server.close()


async def serve_streams(
    address: str,
    context: ssl.SSLContext | None,
    next_message: Callable[..., Awaitable[bytes]],
) -> None:
    handle = streams_echo(next_message)
    options: dict[str, Any] = {"limit": STREAM_LIMIT, "backlog": BACKLOG, "ssl": context}
    if "/" in address:
        server = await asyncio.start_unix_server(handle, address, **options)
    else:
        server = await asyncio.start_server(handle, *split_tcp(address), **options)
        address = bound_tcp(server)
    announce(address)
    await until_killed()
    server.close()


async def serve_datagrams(address: str) -> None:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        EchoDatagramProtocol, local_addr=split_tcp(address)
    )
    host, port = transport.get_extra_info("sockname")
    announce(f"{host}:{port}")
    await until_killed()


async def echo_socket(connection: socket.socket) -> None:
    """Write back what a connection sends, by the loop's methods for sockets."""
    loop = asyncio.get_running_loop()
    with connection:
        while data := await loop.sock_recv(connection, BUFFER_LEN):
            await loop.sock_sendall(connection, data)


async def serve_sockets(address: str) -> None:
    loop = asyncio.get_running_loop()
    listener = socket.create_server(split_tcp(address), backlog=BACKLOG)
    listener.setblocking(False)
    host, port = listener.getsockname()
    announce(f"{host}:{port}")
    tasks = set()  # the loop keeps no reference to a task
    while True:
        connection, _ = await loop.sock_accept(listener)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tasks.add(loop.create_task(echo_socket(connection)))


def protocol_server(protocol: Callable[[], Any]) -> Serve:
    return lambda address, size, context: serve_protocol(address, context, protocol)


def bulk_sender(size: int) -> Callable[[], bulk.Sender]:
    return lambda: bulk.Sender(bulk.messages_of(size))


def streams_server(
    next_message: Callable[[asyncio.StreamReader, int], Awaitable[bytes]],
) -> Serve:
    return lambda address, size, context: serve_streams(
        address, context, lambda reader: next_message(reader, size)
    )


KINDS: dict[str, Serve] = {
    "protocol": protocol_server(EchoProtocol),
    "buffered": protocol_server(EchoBufferedProtocol),
    "streams-read": streams_server(lambda reader, size: reader.read(BUFFER_LEN)),
    "streams-readline": streams_server(lambda reader, size: reader.readline()),
    "streams-readexactly": streams_server(lambda reader, size: reader.readexactly(size)),
    "bulk-sender": lambda address, size, context: serve_protocol(
        address, context, bulk_sender(size)
    ),
    "bulk-receiver": protocol_server(bulk.Receiver),
    "datagram": lambda address, size, context: serve_datagrams(address),
    "sock": lambda address, size, context: serve_sockets(address),
}


NAMES = (*KINDS, *frameworks.KINDS)


async def serve(kind: str, address: str, size: int, directory: Path | None) -> None:
    """Serve over TLS if there is a directory with a certificate."""
    if kind in frameworks.KINDS:
        await frameworks.KINDS[kind](address, directory)
    else:
        context = None if directory is None else server_context(directory)
        await KINDS[kind](address, size, context)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", required=True, choices=loops.NAMES)
    parser.add_argument("--kind", required=True, choices=NAMES)
    parser.add_argument("--address", default="127.0.0.1:0", help="host:port or a Unix path")
    parser.add_argument("--size", type=int, default=1024, help="message length for readexactly")
    parser.add_argument("--core", type=int, help="run on this core")
    parser.add_argument("--tls", type=Path, help="directory of a certificate: serve over TLS")
    options = parser.parse_args()
    process.prepare(options.core)
    loop = loops.new_event_loop(options.loop)
    loop.run_until_complete(serve(options.kind, options.address, options.size, options.tls))


if __name__ == "__main__":
    main()
