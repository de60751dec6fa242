"""Idle connections: each has had one message echoed and is then left alone.

As a program it opens some, prints `open`, and closes them when its standard input ends.
"""

from __future__ import annotations

import argparse
import resource
import socket
import ssl
import sys
from typing import TYPE_CHECKING

from measurement import MeasurementError

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT = 10.0
SPARE_DESCRIPTORS = 128


def allow_descriptors(connections: int) -> None:
    """Raise the limit of this process, which its servers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(address: str, context: ssl.SSLContext | None, message: bytes) -> socket.socket:
    """Open a connection, have a message echoed, and return it."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), TIMEOUT)
    if context is not None:
        connection = context.wrap_socket(connection)
    connection.sendall(message)
    received = bytearray()
    while len(received) < len(message):
        data = connection.recv(len(message) - len(received))
        if not data:
            raise MeasurementError("the server closed a connection")
        received += data
    if received != message:
        raise MeasurementError("what came back is not what was sent")
    return connection


class IdleConnections:
    """Connections to one server, closed at the end of a `with` block."""

    def __init__(self, address: str, *, is_tls: bool = False, size: int = 1024) -> None:
        self.address = address
        self.context = client_context() if is_tls else None
        self.message = bytes(range(256)) * (size // 256) + bytes(size % 256)
        self.connections: list[socket.socket] = []

    def __enter__(self) -> IdleConnections:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, OSError):
            count = len(self.connections)
            text = f"{type(error).__name__}: {error}, with {count} connections open"
            raise MeasurementError(text) from error

    def grow(self, count: int) -> None:
        """Open connections until there are so many."""
        while len(self.connections) < count:
            self.connections.append(connect(self.address, self.context, self.message))

    def close(self) -> None:
        for each in self.connections:
            each.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--size", type=int, default=1024, help="bytes of the message")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    allow_descriptors(options.connections)
    with IdleConnections(options.address, is_tls=options.tls, size=options.size) as connections:
        connections.grow(options.connections)
        print("open", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
