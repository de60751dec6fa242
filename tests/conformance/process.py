"""One child process: started, watched through its event file, and killed when it hangs."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from .cases import FAILED, Outcome

CHILD = Path(__file__).with_name("child.py")
PACKAGES = ("test.test_asyncio", "test", "test.test_unittest", "unittest.test")
EXIT_SECONDS = 15.0
POLL_SECONDS = 0.02
TAIL_LIMIT = 4000

INTERRUPTED = threading.Event()  # once set, every child is killed


@dataclass(frozen=True)
class Subject:
    """Which loop is tested, and on which tests."""

    loop: str
    packages: tuple[str, ...] = PACKAGES
    path: tuple[str, ...] = ()


@dataclass
class ChildRun:
    """What became of one process."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    modules: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    fixture: Outcome | None = None  # a failed or skipped setUpClass or setUpModule
    running: str | None = None  # the test that had begun and not ended
    finished: bool = False
    timed_out: bool = False
    returncode: int | None = None
    output: str = ""

    @property
    def exit_trouble(self):
        """Why the end of a process that ran all its tests is not a good one; else None."""
        if self.timed_out:
            return f"all tests ended, the process did not within {EXIT_SECONDS:.0f} s"
        if self.returncode:
            return f"all tests ended, then the process did with status {self.returncode}"
        return None

    def read_events(self, path):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # the process was killed in the middle of it
                continue
            getattr(self, "_on_" + event.pop("event"))(**event)

    def _on_start(self, test):
        self.running = test

    def _on_end(self, test, outcome, detail, seconds):
        self.running = None
        self.outcomes[test] = Outcome(outcome, detail, seconds)

    def _on_fixture(self, outcome, detail):
        if self.fixture is None or outcome == FAILED:
            self.fixture = Outcome(outcome, detail)

    def _on_module(self, module, classes):
        self.modules[module] = classes

    def _on_done(self):
        self.finished = True


def run_child(subject, work, *, stall, limit):
    """Run a child that does `work`; it may take `limit` seconds, and `stall` between two events."""
    with tempfile.TemporaryDirectory(prefix="oxc-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        scratch = directory / "d"  # short: tests make Unix sockets in it
        scratch.mkdir()
        events, output = directory / "events", directory / "output"
        job = {
            "loop": subject.loop,
            "packages": subject.packages,
            "path": subject.path,
            "directory": str(scratch),
            "events": str(events),
            **work,
        }
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
        run = ChildRun()
        with output.open("wb") as file:
            process = _start(directory / "job.json", file)
            try:
                run.timed_out = not watch(process, events, stall, limit)
            finally:
                end(process)
        run.returncode = process.returncode
        run.read_events(events)
        text = output.read_text(encoding="utf-8", errors="replace")
        if run.timed_out:  # where a hung thread waits in C tells nothing
            text = text.partition("Current thread's C stack trace")[0]
        run.output = text[-TAIL_LIMIT:].strip()
        return run


def _start(job, output):
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS")
    }
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", str(CHILD), str(job)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def watch(process, events, stall, limit):
    """Wait for the end of `process`; False when it has come to a standstill."""
    start = progress = time.monotonic()
    size = 0
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        new_size = events.stat().st_size if events.exists() else 0
        if new_size != size:
            size, progress = new_size, now
            if events.read_bytes().endswith(b'{"event": "done"}\n'):
                stall = EXIT_SECONDS
        if now - progress > stall or now - start > limit or INTERRUPTED.is_set():
            return False
    return True


def end(process):
    """Kill what is left; SIGABRT first, for faulthandler's report of what every thread did."""
    if process.poll() is None:
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
