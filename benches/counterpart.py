"""The other side of benchmarks within one process, in a process of its own, on another core.

What it uses is not measured. It uses no event loop, and ends when the measured process has
closed its sockets, or kills it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MESSAGE = bytes(range(256))


def start(part: str, *ends: socket.socket) -> subprocess.Popen[bytes]:
    """Start a part, which gets these sockets; not by the loop, whose ways are not measured here."""
    numbers = [end.fileno() for end in ends]
    command = [sys.executable, __file__, part, *map(str, numbers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=numbers)
    for end in ends:
        end.close()
    return process


def accept(ends: list[socket.socket]) -> None:
    """Accept and close connections on all loopback addresses; print the port."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        connection.recv(1)
        connection.close()


def answer(ends: list[socket.socket]) -> None:
    """Send back what the one socket receives."""
    [end] = ends
    while message := end.recv(len(MESSAGE)):
        end.sendall(message)


def ask(ends: list[socket.socket]) -> None:
    """Send a message on all sockets, wait for all answers, and again."""
    for end in ends:
        end.settimeout(None)
    while True:
        for end in ends:
            end.sendall(MESSAGE)
        for end in ends:
            received = end.recv(len(MESSAGE), socket.MSG_WAITALL)
            if not received:
                return
            assert received == MESSAGE


PARTS: dict[str, Callable[[list[socket.socket]], None]] = {
    "accept": accept,
    "answer": answer,
    "ask": ask,
}


def main() -> None:
    part, *numbers = sys.argv[1:]
    measured = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - measured or measured)
    with contextlib.suppress(ConnectionError):  # the measured process has ended
        PARTS[part]([socket.socket(fileno=int(number)) for number in numbers])


if __name__ == "__main__":
    main()
