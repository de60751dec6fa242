"""Counting: the instructions of an operation on each hot path, and the clients of its servers."""

from __future__ import annotations

import compileall
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import callgrind
import measurement

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
EXTENSION = "_oxloop"
PHASE_END = "getppid"  # the function by which counted.py ends each number of operations
# A path takes some 12 s of CPU time under callgrind, and a busy machine gives it slowly.
TIMEOUT = 200.0


@dataclass(frozen=True)
class HotPath:
    """What is counted: a path of counted.py, and the client that it serves, if it serves one."""

    name: str
    few: int
    many: int
    client: Callable[[str, int], None] | None = None

    @property
    def phases(self) -> tuple[int, int, int]:
        """The numbers of operations, one after another; the first warms up."""
        return self.few, self.few, self.many


@dataclass(frozen=True)
class Figure:
    """Instructions an operation: of the extension module, and of the whole process."""

    own: float
    whole: float


# --- the clients --------------------------------------------------------------------------------


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=TIMEOUT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def exchange(client: socket.socket, count: int) -> None:
    """Send messages of 1 KiB, and check that each comes back before the next is sent."""
    message = bytes(range(256)) * 4
    for _ in range(count):
        client.sendall(message)
        answer = b""
        while len(answer) < len(message):
            received = client.recv(len(message) - len(answer))
            if not received:
                raise measurement.MeasurementError("the server left")
            answer += received
        if answer != message:
            raise measurement.MeasurementError("another message came back")


def tcp_client(address: str, count: int) -> None:
    with connected(address) as client:
        exchange(client, count)


def tls_client(address: str, count: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(connected(address)) as client:
        exchange(client, count)
        client.unwrap().close()


def udp_client(address: str, count: int) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((host, int(port)))
        for number in range(count):
            message = b"%0100d" % number
            client.send(message)
            if client.recv(len(message)) != message:
                raise measurement.MeasurementError("another message came back")
        client.send(b"")


HOT_PATHS = (
    HotPath("call_soon-chain", 2_000, 22_000),
    HotPath("timers-fired-chain", 2_000, 12_000),
    HotPath("sleep-0", 2_000, 12_000),
    HotPath("tasks-gathered", 1_000, 5_000),
    HotPath("echo-protocol-tcp-1k-x1", 500, 2_500, tcp_client),
    HotPath("echo-streams-read-tcp-1k-x1", 500, 2_500, tcp_client),
    HotPath("echo-protocol-tls-1k-x1", 500, 4_500, tls_client),
    HotPath("echo-datagram-udp-100-x1", 500, 2_500, udp_client),
    HotPath("sock-ping-pong", 500, 2_500),
    HotPath("connect-accept-close", 100, 500),
)


# --- measuring ----------------------------------------------------------------------------------


def make_certificate(directory: Path) -> None:
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-subj", "/CN=localhost"]
    command += ["-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/certificate.pem"]
    subprocess.run(command, check=True, capture_output=True)


@dataclass(frozen=True)
class Counting:
    """How paths are counted: by which callgrind, with files in which directory."""

    valgrind: Path
    directory: Path

    def measure(self, path: HotPath, turn: int) -> Figure:
        output = self.directory / f"{path.name}-{turn}"
        command = callgrind.command(self.valgrind, output, PHASE_END)
        run([*command, *program(path, self.directory)], path)
        few, many = (callgrind.read(output.with_name(f"{output.name}.{part}")) for part in (2, 3))
        extra = path.many - path.few
        many.subtract(few)
        own = sum(count for name, count in many.items() if name.startswith(EXTENSION))
        return Figure(round(own / extra, 1), round(many.total() / extra, 1))


def program(path: HotPath, directory: Path) -> list[str | Path]:
    """Return the command of the program that is counted; a certificate is in the directory."""
    command: list[str | Path] = [sys.executable, HERE / "counted.py", "--path", path.name]
    return [*command, "--directory", directory, "--operations", *map(str, path.phases)]


def run(command: list[str | Path], path: HotPath) -> None:
    """Run a path and its clients to their end."""
    env = measurement.environment("oxloop")
    # What is hashed must not differ between two runs.
    env |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with (
        tempfile.TemporaryFile("w+") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        failure = ""
        try:
            if path.client is not None:
                for operations in path.phases:
                    path.client(measurement.await_address(process, TIMEOUT), operations)
            process.wait(TIMEOUT)
        except (measurement.MeasurementError, OSError, subprocess.TimeoutExpired) as error:
            failure = f" ({error})"
            process.kill()
        stderr.seek(0)
        if process.wait() or failure:
            reason = measurement.reason(stderr.read(), process.returncode)
            raise measurement.MeasurementError(f"{path.name}: {reason}{failure}")


def measure_all(valgrind: Path, paths: list[HotPath], rounds: int) -> dict[str, list[Figure]]:
    """Measure each path so many times, one run on each core at a time."""
    workers = len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(prefix="instructions-") as name,
        ThreadPoolExecutor(workers) as executor,
    ):
        directory = Path(name)
        make_certificate(directory)
        compileall.compile_dir(HERE, maxlevels=0, quiet=1)  # once, instead of in each run
        counting = Counting(valgrind, directory)
        runs = [
            (path, executor.submit(counting.measure, path, turn))
            for turn in range(rounds)
            for path in paths
        ]
        figures: dict[str, list[Figure]] = {path.name: [] for path in paths}
        for path, measured in runs:
            figures[path.name].append(measured.result())
    return figures
