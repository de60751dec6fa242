"""One run of pytest over a suite, and what became of it when tests hang or crash."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from conformance.cases import CRASHED, FAILED, HUNG, Outcome
from conformance.process import INTERRUPTED, TAIL_LIMIT, ChildRun, end, watch

from .verdict import MOST_RECENT_FIRST, PROCESS_EXIT

BREAKDOWNS_MAX = 8
NOT_INHERITED = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS", "PYTEST_ADDOPTS")
# What a continuous integration's variables change in the tests is not wanted either.
NOT_INHERITED += ("CI", "GITHUB_ACTIONS")


@dataclass
class PytestRun(ChildRun):
    """What one process reported."""

    collected: list[str] = field(default_factory=list)
    loops: int = 0

    def _on_collected(self, tests):
        self.collected = tests


@dataclass(frozen=True)
class Choice:
    """Which tests of a suite run, and on which loop."""

    swapped: bool
    arguments: tuple[str, ...]
    only: frozenset[str] | None = None
    stall: float = 90.0
    limit: float = 1500.0


@dataclass
class SuiteRun:
    """The outcomes of a suite's tests, by node id."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    loops: int = 0
    output: str = ""  # the end of what the last process wrote


def run_suite(place, choice):
    """Run the chosen tests, going on behind each that hangs or takes the process with it."""
    result, left = SuiteRun(), []
    for _ in range(BREAKDOWNS_MAX):
        run = run_pytest(place, choice, without=sorted(result.outcomes))
        result.loops += run.loops
        result.output = run.output
        result.outcomes.update(run.outcomes)
        if run.finished:
            if run.exit_trouble and run.returncode not in (1, 2, 5):
                detail = f"{run.exit_trouble}\n{run.output}"
                result.outcomes[PROCESS_EXIT] = Outcome(CRASHED, detail)
            return result
        status = HUNG if run.timed_out else CRASHED
        how = "made no progress" if run.timed_out else f"ended the process ({run.returncode})"
        culprit = run.running or PROCESS_EXIT
        result.outcomes[culprit] = Outcome(status, f"{how}\n{run.output}")
        left = [test for test in run.collected if test not in result.outcomes]
        if not left or run.running is None:
            break
    for test in left:
        result.outcomes[test] = Outcome(FAILED, "not run: too many tests before it broke down")
    return result


def run_pytest(place, choice, without):
    """One process over the suite, less the tests `without`."""
    with tempfile.TemporaryDirectory(prefix="oxu-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        events, output, loops = (directory / part for part in ("events", "output", "loops"))
        job = {
            "events": str(events),
            "only": None if choice.only is None else sorted(choice.only),
            "without": without,
        }
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
        temporary = directory / "t"  # short: tests make Unix sockets in it
        temporary.mkdir()
        environment = _environment(place, choice, directory)
        run = PytestRun()
        with output.open("wb") as file:
            process = subprocess.Popen(
                _command(place, choice),
                cwd=place.tests,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
            try:
                run.timed_out = not watch(process, events, choice.stall, choice.limit)
            finally:
                end(process)
        if INTERRUPTED.is_set():
            raise KeyboardInterrupt
        run.returncode = process.returncode
        run.read_events(events)
        run.loops = loops.stat().st_size if loops.exists() else 0
        text = output.read_text(encoding="utf-8", errors="replace")
        run.output = _end_of(text, hung=run.timed_out)
        return run


def _end_of(text, *, hung):
    """What a process wrote last; of a hung one, where its main thread was."""
    text = text.partition("Current thread's C stack trace")[0] if hung else text
    stack = text.rfind(MOST_RECENT_FIRST) if hung else -1
    if stack == -1:
        return text[-TAIL_LIMIT:].strip()
    return text[text.rfind("\n", 0, stack) + 1 :][:TAIL_LIMIT]


def _command(place, choice):
    return [
        *(str(place.python), "-X", "faulthandler", "-m", "pytest"),
        *("-p", "oxloop_upstream", "-p", "no:cacheprovider", "-o", "addopts="),
        *("-q", "--no-header", "--tb=short", "--continue-on-collection-errors"),
        *place.suite.pytest,
        *choice.arguments,
    ]


def _environment(place, choice, directory):
    environment = {name: v for name, v in os.environ.items() if name not in NOT_INHERITED}
    environment |= {
        name: os.path.expandvars(value) for name, value in place.suite.environment.items()
    }
    environment |= {
        "OXLOOP_UPSTREAM_JOB": str(directory / "job.json"),
        "OXLOOP_UPSTREAM_LOOPS": str(directory / "loops"),
        "OXLOOP_UPSTREAM_SWAP": " ".join(place.suite.swap) if choice.swapped else "",
        "PATH": f"{place.python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONHASHSEED": "0",  # ids of parametrized tests must not change from run to run
        "TMPDIR": str(directory / "t"),
    }
    return environment
