"""Rows: what is measured, and how near to the floor some rows are meant to be."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import micro

KINDS = ("protocol", "buffered", "streams-read", "streams-readline", "streams-readexactly")
TRANSPORTS = ("tcp", "unix")
SIZES = {"1k": 1024, "100k": 100 * 1024}
CONNECTIONS = (1, 20, 200)
HANDSHAKE_SIZE = 64

# What part of the rate of a server without a loop a row is meant to reach, on CPython 3.14.
FLOOR_TARGETS = {
    "echo-protocol-tcp-1k-x20": 0.97,
    "echo-protocol-tls-1k-x20": 0.97,
    "echo-streams-read-tcp-1k-x20": 0.78,
}


@dataclass(frozen=True)
class Server:
    """A server row: what serves, over what, and what the load generator sends."""

    kind: str
    transport: str
    connections: int
    mode: str
    size: int = 0
    is_reconnecting: bool = False
    idle: int = 0  # further connections, which stay silent


@dataclass(frozen=True)
class Endpoints:
    """An endpoints row: what two endpoints of the same loop do, see endpoints.py."""

    kind: str
    size: int
    count: int


@dataclass(frozen=True)
class Row:
    """One line of the table: a server row, an endpoints row, or else a micro benchmark."""

    name: str
    is_standard: bool
    server: Server | None = None
    endpoints: Endpoints | None = None

    @property
    def is_tls(self) -> bool:
        return self.server is not None and self.server.transport == "tls"

    @property
    def floor_target(self) -> float | None:
        return FLOOR_TARGETS.get(self.name)


def echo_row(kind: str, transport: str, size: str, connections: int) -> Row:
    """Make an echo row; the standard ones cross each kind with one other thing at a time."""
    mode = "line" if kind == "streams-readline" else "bytes"
    is_scaled = kind in {"protocol", "streams-read"} and (transport, size) == ("tcp", "1k")
    return Row(
        name=f"echo-{kind}-{transport}-{size}-x{connections}",
        is_standard=is_scaled or (connections == 20 and f"{transport}-{size}" != "unix-100k"),
        server=Server(kind, transport, connections, mode, SIZES[size]),
    )


def http_row(kind: str) -> Row:
    return Row(f"http-{kind}", is_standard=True, server=Server(kind, "tcp", 20, "http"))


def handshake_row(kind: str) -> Row:
    """Make the row of whole connections over TLS: handshake, one small message, end."""
    return Row(
        name=f"handshake-{kind}-tls-x20",
        is_standard=True,
        server=Server(kind, "tls", 20, "bytes", HANDSHAKE_SIZE, is_reconnecting=True),
    )


def datagram_row(size: int, in_flight: int) -> Row:
    """Make the row of a UDP server and a plain client with so many datagrams under way."""
    return Row(
        name=f"echo-datagram-udp-{size}-x{in_flight}",
        is_standard=True,
        server=Server("datagram", "udp", in_flight, "datagrams", size),
    )


def endpoints_row(kind: str, size: int, count: int) -> Row:
    return Row(
        name=f"endpoints-{kind}-{size}-x{count}",
        is_standard=True,
        endpoints=Endpoints(kind, size, count),
    )


ROWS = (
    *(Row(name, is_standard=True) for name in micro.NAMES),
    *(
        echo_row(kind, transport, size, connections)
        for kind in KINDS
        for transport in TRANSPORTS
        for size in SIZES
        for connections in CONNECTIONS
    ),
    echo_row("sock", "tcp", "1k", 20),
    *(echo_row(kind, "tls", size, 20) for kind in ("protocol", "streams-read") for size in SIZES),
    handshake_row("protocol"),
    *(datagram_row(size, 16) for size in (100, 1200)),
    *(endpoints_row(kind, 1200, 32) for kind in ("echo", "burst")),
    *(http_row(kind) for kind in ("uvicorn", "uvicorn-h11", "aiohttp")),
)


def select(patterns: str) -> list[Row]:
    """Return the rows that comma-separated words or patterns name, in the table's order.

    The words are `standard`, `all` and `micro`; anything else is a shell pattern.
    """
    chosen = patterns.split(",")
    rows = [row for row in ROWS if any(is_named(row, pattern) for pattern in chosen)]
    for pattern in chosen:
        if not any(is_named(row, pattern) for row in ROWS):
            raise ValueError(f"no row is named {pattern!r}")
    return rows


def is_named(row: Row, pattern: str) -> bool:
    match pattern:
        case "all":
            return True
        case "standard":
            return row.is_standard
        case "micro":
            return row.server is None and row.endpoints is None
        case _:
            return fnmatchcase(row.name, pattern)
