"""Measurement: one row on one loop, in processes of its own, started and ended here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import loops
import rows
import services
import tls_files
from disturbance import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HERE = Path(__file__).resolve().parent
# What the system lets a process open: rows with idle connections raise a server's limit to it.
FILES_MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
READY_TIMEOUT = 30.0
RUN_TIMEOUT = 120.0
# Of a row, beside its warm-up and window. Some loops hang, in more than one row; the slowest row
# of a loop that does not takes 18 s on a quiet machine.
ROW_TIMEOUT = 40.0
# A sample that lost more than this part of a core to other machines is not kept, if a few more
# tries give a better one.
STOLEN_MOST = 0.05
TRIES = 4
FLOOR = "floor"
# A loop that fails like this does not support the row: asking it again is no use, or takes too
# long. Nor is asking a machine again that cannot have the services.
UNSUPPORTED = (
    "NotImplementedError",
    "ImportError",
    "ModuleNotFoundError",
    "AttributeError",
    "no result after",
    "services: ",
)
# A loop that keeps silent would cost as long a time again.
SILENT = ("no result after", "not ready after")
# A reason is published: a file's name tells enough, and where it is concerns nobody.
DIRECTORIES = re.compile(r"(?<![\w/:])(?:/[\w.+@-]+)+/(?=[\w.+@-])")
EXCEPTION_LINE = re.compile(r"[\w.]+(Error|Exception|Exit)\b")


class MeasurementError(Exception):
    """A measurement that gave no number; its text is the reason."""

    @property
    def is_permanent(self) -> bool:
        return str(self).startswith((*UNSUPPORTED, *SILENT))


@contextlib.contextmanager
def reasons() -> Iterator[None]:
    """Make a reason of whatever else fails than what is measured: it must not end a run."""
    try:
        yield
    except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        text = DIRECTORIES.sub("", f"{type(error).__name__}: {error}")
        raise MeasurementError(text) from error


@dataclass(frozen=True)
class Sample:
    """What one measurement showed. Latencies and the wall rate exist for servers only."""

    rate: float  # operations or requests per CPU-second
    cpu_seconds: float
    wall_rate: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    idle_connections: int = 0
    stolen: float = 0.0  # part of a core's time that went to other machines
    others: float = 0.0  # part of the cores' time that went to other processes

    @property
    def is_disturbed(self) -> bool:
        return self.stolen > STOLEN_MOST

    def to_json(self) -> dict[str, Any]:
        """Return what is known; a field that says nothing is left out."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Sample:
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


Outcome: TypeAlias = Sample | MeasurementError
Program: TypeAlias = "subprocess.Popen[bytes]"


@dataclass(frozen=True)
class Bench:
    """Where and how long measurements run."""

    python: Path
    programs: Path  # the directory of the floor and load programs
    warmup: float
    seconds: float
    server_core: int
    client_core: int

    def measure(self, row: rows.Row, spec: str) -> Sample:
        """Measure a row on a loop (a specification, see loops.py) or on the floor.

        It is measured again while too much time is stolen from it; the best try is kept.
        """
        return self.undisturbed(lambda: self.measure_once(row, spec))

    def outcome(self, row: rows.Row, spec: str) -> Outcome:
        """Measure a row on a loop; return the reason if that cannot be."""
        try:
            return self.measure(row, spec)
        except MeasurementError as error:
            return error

    def undisturbed(self, measure: Callable[[], Sample], pids: Iterable[int] = ()) -> Sample:
        """Return what is measured, with the least stolen of some tries; name who stays alive."""
        tries: list[Sample] = []
        while len(tries) < TRIES and all(sample.is_disturbed for sample in tries):
            with Watch(self.server_core, self.client_core, pids=pids) as watch, reasons():
                sample = measure()
            tries.append(replace(sample, stolen=watch.stolen, others=watch.others))
        return min(tries, key=lambda sample: sample.stolen)

    @property
    def timeout(self) -> float:
        return ROW_TIMEOUT + self.warmup + self.seconds

    def measure_once(self, row: rows.Row, spec: str) -> Sample:
        if row.endpoints is not None:
            return self._measure_endpoints(row.endpoints, spec)
        if row.client is not None:
            return self._measure_client(row.client, spec)
        if row.server is None:
            with self.benchmarking(row.name, spec) as process:
                return self.run_part(process)
        with self.serving(row.server, spec) as (pid, address, directory):
            return self.load(row.server, spec, pid, address, directory)

    @contextlib.contextmanager
    def serving(self, server: rows.Server, spec: str) -> Iterator[tuple[int, str, Path]]:
        """Start a row's server; yield its pid, its address and a directory that ends with it."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            if server.transport == "tls":
                tls_files.make_certificate(self.programs, directory)
            command = self._server_command(server, spec, directory)
            with running_server(command, environment(spec), directory) as (process, address):
                yield process.pid, address, directory

    @contextlib.contextmanager
    def benchmarking(self, name: str, spec: str) -> Iterator[Program]:
        """Start a micro benchmark; yield it when it is warm, and awaits its first turn."""
        command: list[str | Path] = [self.python, HERE / "micro.py", "--benchmark", name]
        command += ["--loop", loops.base_name(spec), "--core", str(self.server_core)]
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as directory,
            running_server(command, environment(spec), Path(directory)) as (process, _),
        ):
            yield process

    def run_part(self, benchmark: Program) -> Sample:
        """Have a micro benchmark run its operations once."""
        assert benchmark.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its last words say why
            benchmark.stdin.write(b"\n")
            benchmark.stdin.flush()
        answer = await_line(benchmark, self.timeout)
        if not answer:
            raise MeasurementError("ended in the middle")
        result = json.loads(answer)
        return Sample(result["operations"] / result["cpu_seconds"], result["cpu_seconds"])

    def _measure_endpoints(self, row: rows.Endpoints, spec: str) -> Sample:
        command: list[str | Path] = [self.python, HERE / "endpoints.py", "--kind", row.kind]
        command += ["--loop", loops.base_name(spec)]
        command += ["--size", str(row.size), "--count", str(row.count)]
        # Who is measured has the server's core.
        server_core, client_core = self.server_core, self.client_core
        if row.kind == "burst":
            server_core, client_core = client_core, server_core
        env = environment(spec)
        server = [*command, "--core", str(server_core)]
        with (
            tempfile.TemporaryDirectory(prefix="bench-") as directory,
            running_server(server, env, Path(directory)) as (process, address),
        ):
            command += ["--core", str(client_core), "--connect", address]
            command += ["--server-pid", str(process.pid)]
            command += ["--warmup", str(self.warmup), "--seconds", str(self.seconds)]
            return sample_of(run_to_json(command, env, self.timeout))

    def _measure_client(self, row: rows.Client, spec: str) -> Sample:
        server_loop, client_loop = ("asyncio", spec)
        server_core, client_core = self.client_core, self.server_core
        if row.is_server_measured:
            server_loop, client_loop = client_loop, server_loop
            server_core, client_core = client_core, server_core
        command: list[str | Path] = [self.python, HERE / "clients.py", "--kind", row.kind]
        command += ["--loop", loops.base_name(client_loop), "--core", str(client_core)]
        command += ["--connections", str(row.connections)]
        command += ["--warmup", str(self.warmup), "--seconds", str(self.seconds)]
        with self._asked(row, server_loop, server_core) as (pid, address, directory):
            command += ["--address", address, "--certificate", directory / "certificate.pem"]
            command += ["--measured-pid", str(pid)] if row.is_server_measured else []
            env = environment(client_loop)
            return sample_of(run_to_json(command, env, self.timeout))

    @contextlib.contextmanager
    def _asked(self, row: rows.Client, spec: str, core: int) -> Iterator[tuple[int, str, Path]]:
        """Start whom a client asks; yield the pid, the address and the certificate's directory."""
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            directory = Path(name)
            if row.asked == "service":
                try:
                    yield 0, services.address(row.kind, core), directory
                except services.ServicesError as error:
                    raise MeasurementError(str(error)) from error
                return
            command: list[str | Path] = [self.programs / "floor", "--http", "127.0.0.1:0"]
            if row.asked == "framework":
                tls_files.make_certificate(self.programs, directory)
                command = [self.python, HERE / "servers.py", "--kind", row.kind]
                command += ["--loop", loops.base_name(spec), "--tls", directory]
            command += ["--core", str(core)]
            with running_server(command, environment(spec), directory) as (process, address):
                yield process.pid, address, directory

    def _server_command(self, server: rows.Server, spec: str, directory: Path) -> list[str | Path]:
        address = f"{directory}/server" if server.transport == "unix" else "127.0.0.1:0"
        is_tls = server.transport == "tls"
        command: list[str | Path]
        if spec == FLOOR:
            command = [self.programs / "floor"]
            if is_tls:
                command = tls_files.floor_command(self.programs, self.python, directory)
            return [*command, *floor_mode(server), "--core", str(self.server_core), address]
        command = [self.python, HERE / "servers.py", "--core", str(self.server_core)]
        command += ["--loop", loops.base_name(spec), "--kind", server.kind]
        command += ["--tls", directory] if is_tls else []
        return [*command, "--size", str(server.size), "--address", address]

    def load(
        self, server: rows.Server, spec: str, pid: int, address: str, directory: Path
    ) -> Sample:
        """Run the load generator against a row's server."""
        command: list[str | Path] = [self.programs / "load", "--core", str(self.client_core)]
        command += ["--connections", str(server.connections), "--mode", server.mode]
        command += ["--warmup", str(self.warmup), "--seconds", str(self.seconds)]
        command += ["--server-pid", str(pid)]
        if server.transport == "tls":
            command += tls_files.client_options(directory)
        if server.idle:
            command += ["--idle", str(server.idle)]
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES_MOST, FILES_MOST))
        if server.is_reconnecting:
            command += ["--reconnect", "yes"]
        if server.mode == "http":
            command += ["--body", rows.PLAINTEXT if spec == FLOOR else server.body]
        else:
            command += ["--size", str(server.size)]
        return sample_of(run_to_json([*command, address], None, self.timeout))


def floor_mode(server: rows.Server) -> list[str]:
    """Return the floor's options for what a client does in that mode."""
    modes = {
        "http": ["--http"],
        "datagrams": ["--udp"],
        "bulk-receive": ["--send", str(server.size)],
        "bulk-send": ["--receive"],
    }
    return modes.get(server.mode, [])


def sample_of(result: dict[str, float]) -> Sample:
    """Return the sample in the answer of a client of any kind; not all time their requests."""
    requests, cpu_seconds = result["requests"], result["server_cpu_seconds"]
    if not requests or not cpu_seconds:
        raise MeasurementError("no request was answered in the window")
    return Sample(
        rate=requests / cpu_seconds,
        cpu_seconds=cpu_seconds,
        wall_rate=requests / result["seconds"],
        p50_us=result.get("p50_us"),
        p99_us=result.get("p99_us"),
        p999_us=result.get("p999_us"),
        idle_connections=int(result.get("idle_connections", 0)),
    )


def environment(spec: str) -> dict[str, str]:
    """Return the environment for a loop: DIRECTORY of NAME@DIRECTORY is searched first."""
    # Neither the caller's debug mode nor its module path may leak into a measurement.
    own = ("PYTHON", "OXLOOP_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    if loops.variant(spec):
        kept["OXLOOP_TLS"] = loops.variant(spec)
    directory = spec.partition("@")[2]
    if directory:
        kept["PYTHONPATH"] = str(Path(directory).resolve())
    return kept


def run_to_json(
    command: list[str | Path], env: dict[str, str] | None, timeout: float = RUN_TIMEOUT
) -> dict[str, float]:
    """Run a program to its end and return the JSON object it prints."""
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as expired:
        raise MeasurementError(f"no result after {timeout:.0f} s") from expired
    if done.returncode:
        raise MeasurementError(reason(done.stderr, done.returncode))
    result: dict[str, float] = json.loads(done.stdout)
    return result


@contextlib.contextmanager
def running_server(
    command: list[str | Path], env: dict[str, str], directory: Path
) -> Iterator[tuple[Program, str]]:
    """Start a server, yield it and its address, and kill it; add its last words to errors."""
    pipe = subprocess.PIPE
    with (
        (directory / "stderr").open("w+") as stderr,
        subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=stderr) as process,
    ):
        try:
            yield process, await_address(process)
        except MeasurementError as error:
            process.kill()
            status = process.wait()
            stderr.seek(0)
            text = stderr.read()
            if text.strip() or status > 0:
                found = MeasurementError(reason(text, status))
                if not found.is_permanent:
                    found = MeasurementError(f"{found} ({error})")
                raise found from error
            raise
        finally:
            process.kill()


def await_address(process: Program, seconds: float = READY_TIMEOUT) -> str:
    """Return the address that a server prints when it is ready."""
    try:
        answer = await_line(process, seconds)
    except MeasurementError as error:
        raise MeasurementError(f"not ready after {seconds:.0f} s") from error
    word, _, address = answer.strip().partition(" ")
    if word != "ready":
        raise MeasurementError("ended before it was ready")
    return address


def await_line(process: Program, seconds: float) -> str:
    """Return the line that a program prints, or nothing if it ends."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], seconds)[0]:
        raise MeasurementError(f"no result after {seconds:.0f} s")
    return process.stdout.readline().decode()


def reason(stderr: str, status: int) -> str:
    """Return the line that says why a program failed: an exception's last, else the last."""
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    # A Rust backtrace may follow the exception of a Rust extension.
    raised = [line for line in lines if EXCEPTION_LINE.match(line)]
    text = (raised or lines or [f"ended with status {status}"])[-1].strip()
    return DIRECTORIES.sub("", text)


def build_programs(root: Path) -> Path:
    """Build the floor and the load generator; return the directory they are in."""
    cargo = ["cargo", "build", "--release", "--package", "floor", "--package", "load"]
    if subprocess.run([*cargo, "--quiet"], cwd=root, check=False).returncode:
        sys.exit("compare: the floor and load programs could not be built")
    metadata = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return Path(json.loads(metadata.stdout)["target_directory"]) / "release"
