"""Runs inside a project's own environment: swaps the loop, counts loops, reports each test.

A `.pth` file of that environment imports this module at start, in every process that has the
variable `OXLOOP_UPSTREAM_SWAP`; pytest gets it as a plug-in besides. The variable names what a user
of the project would do: `policy` is `oxloop.install()`, `uvicorn` what its `--loop` does, as it
names asyncio's own loop otherwise. Without the variable stock asyncio runs.

Each loop of oxloop that is made adds a byte to the file `OXLOOP_UPSTREAM_LOOPS`.

PYTEST_DONT_REWRITE: pytest finds this module imported already, and would warn.
"""

import json
import os
import sys
import time
from pathlib import Path

SWAPS = os.environ.get("OXLOOP_UPSTREAM_SWAP", "").split()
DETAIL_LIMIT = 6000


def count_loops(path):
    """Make `oxloop.new_event_loop` leave a mark for each loop, in whichever process."""
    from oxloop import _runner

    made = _runner.EventLoop

    def counted(*args, **options):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        os.write(descriptor, b".")
        os.close(descriptor)
        return made(*args, **options)

    _runner.EventLoop = counted


def swap_at_start():
    """What must be done before the program runs, in child processes too."""
    if not SWAPS or getattr(sys, "_oxloop_swapped", False):
        return
    sys._oxloop_swapped = True
    import oxloop

    count_loops(os.environ["OXLOOP_UPSTREAM_LOOPS"])
    if "policy" in SWAPS:
        oxloop.install()


def uvicorn_loop_factory(use_subprocess=False):
    import oxloop

    return oxloop.new_event_loop


def pytest_sessionstart(session):
    if "uvicorn" in SWAPS:
        from uvicorn import config

        # What a server takes that is not told which loop.
        config.LOOP_FACTORIES["auto"] = f"{__name__}:{uvicorn_loop_factory.__name__}"


class Reporter:
    """Appends what happens to a file, opened anew each time: a test may close any descriptor."""

    def __init__(self, job):
        self._events = Path(job["events"])
        self._only = job["only"] and set(job["only"])
        self._without = set(job["without"])
        self._pid = os.getpid()

    def write(self, **event):
        if os.getpid() != self._pid:  # a test's fork
            return
        with self._events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def pytest_collectreport(self, report):
        if report.failed and report.nodeid not in self._without:
            name = f"{report.nodeid or '.'} (collection)"
            detail = str(report.longrepr)[-DETAIL_LIMIT:]
            self.write(event="end", test=name, outcome="failed", detail=detail, seconds=0)

    def pytest_collection_modifyitems(self, config, items):
        kept, dropped = [], []
        for item in items:
            wanted = self._only is None or item.nodeid in self._only
            wanted = wanted and item.nodeid not in self._without
            (kept if wanted else dropped).append(item)
        if dropped:
            config.hook.pytest_deselected(items=dropped)
            items[:] = kept
        self.write(event="collected", tests=[item.nodeid for item in kept])

    def pytest_runtest_logstart(self, nodeid, location):
        self._outcome, self._detail, self._started = None, "", time.monotonic()
        self.write(event="start", test=nodeid)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self._outcome = "failed"
            self._detail = f"{self._detail}{report.when}: {report.longreprtext}\n"
        elif report.skipped and not hasattr(report, "wasxfail"):
            self._outcome = self._outcome or "skipped"
            self._detail = self._detail or str(report.longrepr)
        elif report.when == "call":
            self._outcome = self._outcome or "passed"

    def pytest_runtest_logfinish(self, nodeid, location):
        self.write(
            event="end",
            test=nodeid,
            outcome=self._outcome or "passed",
            detail=self._detail[-DETAIL_LIMIT:],
            seconds=round(time.monotonic() - self._started, 3),
        )

    def pytest_unconfigure(self, config):
        self.write(event="done")


def pytest_configure(config):
    job = os.environ.get("OXLOOP_UPSTREAM_JOB")
    # pytest may run inside a test, in this process or another one: that is none of the run's tests.
    if job and not getattr(sys, "_oxloop_reports", False):
        sys._oxloop_reports = True
        del os.environ["OXLOOP_UPSTREAM_JOB"]
        reporter = Reporter(json.loads(Path(job).read_text(encoding="utf-8")))
        config.pluginmanager.register(reporter, "oxloop-reporter")


swap_at_start()
