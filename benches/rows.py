"""Rows: what is measured, and how near to the floor some rows are meant to be."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import bulk
import micro

KINDS = ("protocol", "buffered", "streams-read", "streams-readline", "streams-readexactly")
TRANSPORTS = ("tcp", "unix")
SIZES = {"1k": 1024, "100k": 100 * 1024}
CONNECTIONS = (1, 20, 200)
HANDSHAKE_SIZE = 64
PLAINTEXT = "Hello, world!"
JSON = '{"message":"Hello, world!"}'
# Frameworks with a client and a server, and how many requests are under way.
FRAMEWORKS = (("websockets", 32), ("grpc", 32), ("http3", 8))

# What part of the rate of a server without a loop a row is meant to reach, on this CPython.
TARGETS_PYTHON = "3.14"
FLOOR_TARGETS = {
    "echo-protocol-tcp-1k-x20": 0.97,
    "echo-protocol-tls-1k-x20": 0.97,
    "echo-streams-read-tcp-1k-x20": 0.78,
}
# Micro benchmarks with connections or pipes.
WITH_TRANSPORTS = ("connect-close", "echo-beside-thread-x32", "cat-4m", *bulk.BENCHMARKS)
# Twelve that stand for the others, where there is no time for all.
MAIN = (
    "call_soon_threadsafe",
    "timers-fired-batch",
    "sleep-0",
    "tasks-gathered",
    "echo-protocol-tcp-1k-x20",
    "echo-streams-read-tcp-1k-x20",
    "echo-streams-readline-tcp-1k-x20",
    "echo-protocol-tls-1k-x20",
    "echo-streams-read-tls-1k-x20",
    "echo-datagram-udp-1200-x16",
    "http-uvicorn-x32",
    "http-aiohttp-x32",
)


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
    body: str = PLAINTEXT


@dataclass(frozen=True)
class Endpoints:
    """An endpoints row: what two endpoints of the same loop do, see endpoints.py."""

    kind: str
    size: int
    count: int


@dataclass(frozen=True)
class Client:
    """A row of a real client: how many requests are under way, whom it asks, who is measured.

    It asks the `floor`, a `service` (see services.py), or a `framework` of its own kind (see
    frameworks.py); who is not measured runs on asyncio.
    """

    kind: str
    connections: int
    asked: str
    is_server_measured: bool = False


@dataclass(frozen=True)
class Row:
    """One line of the table: of a server, endpoints, a client, or else a micro benchmark."""

    name: str
    is_standard: bool
    server: Server | None = None
    endpoints: Endpoints | None = None
    client: Client | None = None

    @property
    def is_micro(self) -> bool:
        return self.server is None and self.endpoints is None and self.client is None

    @property
    def has_transports(self) -> bool:
        """Tell whether there are connections in it, and not only the loop."""
        return not self.is_micro or self.name in WITH_TRANSPORTS

    @property
    def has_floor(self) -> bool:
        """Tell whether there is a server without a loop for it."""
        return self.server is not None

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


def idle_row(idle: int) -> Row:
    """Make the row of 20 busy connections beside idle ones."""
    return Row(
        name=f"echo-protocol-tcp-1k-x20-idle-{idle}",
        is_standard=True,
        server=Server("protocol", "tcp", 20, "bytes", SIZES["1k"], idle=idle),
    )


def http_row(kind: str, connections: int) -> Row:
    """Make the row of an HTTP server of a real framework, see frameworks.py."""
    body = JSON if kind == "fastapi" else PLAINTEXT
    return Row(
        name=f"http-{kind}-x{connections}",
        is_standard=True,
        server=Server(kind, "tcp", connections, "http", body=body),
    )


def client_row(kind: str, connections: int, asked: str) -> Row:
    return Row(
        name=f"client-{kind}-x{connections}",
        is_standard=True,
        client=Client(kind, connections, asked),
    )


def framework_row(kind: str, connections: int) -> Row:
    """Make the row of a server of a real framework, which its own client asks."""
    return Row(
        name=f"server-{kind}-x{connections}",
        is_standard=True,
        client=Client(kind, connections, "framework", is_server_measured=True),
    )


def connections_row(name: str, kind: str, transport: str) -> Row:
    """Make the row of whole connections: handshakes, one small message, end."""
    return Row(
        name=f"{name}-{kind}-{transport}-x20",
        is_standard=True,
        server=Server(kind, transport, 20, "bytes", HANDSHAKE_SIZE, is_reconnecting=True),
    )


def bulk_row(way: str, transport: str) -> Row:
    """Make the row of a server that only sends, or only receives, in messages of 64 KiB."""
    kind, mode = {
        "send": ("bulk-sender", "bulk-receive"),
        "receive": ("bulk-receiver", "bulk-send"),
    }[way]
    return Row(
        name=f"bulk-{transport}-{way}",
        is_standard=True,
        server=Server(kind, transport, 1, mode, bulk.SIZE),
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
    *(idle_row(idle) for idle in (10, 10_000)),
    *(bulk_row(way, each) for each in ("tcp", "unix", "tls") for way in ("send", "receive")),
    connections_row("accept", "protocol", "tcp"),
    connections_row("handshake", "protocol", "tls"),
    *(datagram_row(size, 16) for size in (100, 1200)),
    *(endpoints_row(kind, 1200, 32) for kind in ("echo", "burst")),
    *(http_row(kind, count) for kind in ("uvicorn", "fastapi", "aiohttp") for count in (1, 32)),
    http_row("uvicorn-h11", 32),
    *(framework_row(kind, count) for kind, count in FRAMEWORKS),
    *(client_row(kind, count, "floor") for kind, count in (("aiohttp", 1), ("aiohttp", 32))),
    client_row("httpx", 8, "floor"),
    *(client_row(kind, 32, "service") for kind in ("redis", "asyncpg", "psycopg")),
    *(client_row(kind, count, "framework") for kind, count in FRAMEWORKS),
)


def select(patterns: str) -> list[Row]:
    """Return the rows that comma-separated words or patterns name, in the table's order.

    The words are `standard`, `all`, `main` and `micro`; anything else is a shell pattern.
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
        case "main":
            return row.name in MAIN
        case "micro":
            return row.is_micro
        case _:
            return fnmatchcase(row.name, pattern)
