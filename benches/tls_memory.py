"""What an idle TLS connection costs a server in memory, in bytes.

    python benches/tls_memory.py --loops asyncio,uvloop,oxloop --connections 500

Each connection has had one message echoed and is then left alone. The figure is the growth of
the server's anonymous resident memory from the first so many connections to twice as many,
divided by their number: what is allocated once, or for the first connections, is not in it.
"""

from __future__ import annotations

import argparse
import re
import resource
import socket
import ssl
import sys
import time
from pathlib import Path

import loops
import peers
import report
from measurement import FLOOR, Bench, MeasurementError, build_programs
from rows import Server

COLUMNS = {
    "protocol-tcp-1k": Server("protocol", "tcp", 1, "bytes", 1024),
    "protocol-tls-1k": Server("protocol", "tls", 1, "bytes", 1024),
    "protocol-tls-100k": Server("protocol", "tls", 1, "bytes", 100 * 1024),
    "streams-read-tls-1k": Server("streams-read", "tls", 1, "bytes", 1024),
    "streams-read-tls-100k": Server("streams-read", "tls", 1, "bytes", 100 * 1024),
}
LOOPS = "asyncio,uvloop,zuvloop,aiofastnet-asyncio,aiofastnet-uvloop,oxloop,oxloop+memorybio"
TIMEOUT = 10.0
SETTLING = 0.3
SPARE_DESCRIPTORS = 64


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
    left = len(message)
    while left:
        received = len(connection.recv(left))
        if not received:
            raise MeasurementError("the server closed a connection")
        left -= received
    return connection


def resident(pid: int) -> int:
    """Return the bytes of a process's memory that no file backs."""
    time.sleep(SETTLING)
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def bytes_per_connection(bench: Bench, server: Server, spec: str, count: int) -> float:
    message = bytes(server.size)
    context = client_context() if server.transport == "tls" else None
    open_connections: list[socket.socket] = []
    with bench.serving(server, spec) as (pid, address, _):
        try:
            open_connections += [connect(address, context, message) for _ in range(count)]
            before = resident(pid)
            open_connections += [connect(address, context, message) for _ in range(count)]
            return (resident(pid) - before) / count
        except OSError as error:
            raise MeasurementError(f"{type(error).__name__}: {error}") from error
        finally:
            for each in open_connections:
                each.close()


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loops", default=LOOPS, help="as for compare.py")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--programs", type=Path, help="directory of built floor and load")
    parser.add_argument("--venv", type=Path, default=peers.VENV)
    options = parser.parse_args()
    for spec in options.loops.split(","):
        if (mistake := loops.mistake(spec)) is not None:
            parser.error(mistake)
    return options


def allow_descriptors(count: int) -> None:
    """Raise the limit of this process, which its servers inherit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def main() -> None:
    options = parse_options()
    allow_descriptors(2 * options.connections + SPARE_DESCRIPTORS)
    programs = options.programs or build_programs(peers.ROOT)
    bench = Bench(peers.interpreter(options.venv), programs, 0.0, 0.0, 0, 0)
    body = []
    for spec in [*options.loops.split(","), FLOOR]:
        texts = []
        for name, server in COLUMNS.items():
            if loops.variant(spec) and server.transport != "tls":
                texts.append("")
                continue
            try:
                cost = bytes_per_connection(bench, server, spec, options.connections)
                texts.append(f"{cost:,.0f}")
            except MeasurementError as error:
                print(f"tls_memory: {name} on {spec}: {error}", file=sys.stderr)
                texts.append("-")
        body.append([spec, *texts])
    print(report.table([f"bytes, of {options.connections}", *COLUMNS], body))


if __name__ == "__main__":
    main()
