"""Run the interpreter's own asyncio tests with oxloop in the place of asyncio's loop.

    python tests/conformance/run.py [--modules test_events,test_streams] [--match sendfile]

Needs nothing but the interpreter that runs it, with oxloop installed in it. See README.md.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from conformance import cases, expectations, verdict  # noqa: E402
from conformance.control import RETRIES, Control  # noqa: E402
from conformance.process import PACKAGES, Subject, run_child  # noqa: E402
from conformance.schedule import Scheduler  # noqa: E402
from conformance.swap import STOCK  # noqa: E402

MODULES = (
    "test_base_events",
    "test_buffered_proto",
    "test_context",
    "test_eager_task_factory",
    "test_events",
    "test_free_threading",
    "test_futures",
    "test_futures2",
    "test_graph",
    "test_locks",
    "test_pep492",
    "test_protocols",
    "test_queues",
    "test_runners",
    "test_selector_events",
    "test_sendfile",
    "test_server",
    "test_server_context",
    "test_sock_lowlevel",
    "test_ssl",
    "test_sslproto",
    "test_staggered",
    "test_streams",
    "test_subprocess",
    "test_taskgroups",
    "test_tasks",
    "test_threads",
    "test_timeouts",
    "test_tools",
    "test_transports",
    "test_unix_events",
    "test_waitfor",
    # Beside test_asyncio, these run coroutines on a loop too.
    "test_asyncgen",
    "test_contextlib_async",
    "test_coroutines",
    "test_async_case",
)


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--loop", default="oxloop", metavar="NAME", help="oxloop, asyncio, or module:class")
    add("--modules", metavar="A,B", help="only these test modules")
    add("--match", metavar="REGEX", help="only tests whose id this regular expression finds")
    add("-j", dest="workers", type=int, default=os.cpu_count(), metavar="N", help="processes")
    add("--json", type=Path, metavar="FILE", help="write all outcomes there")
    add("--control", action="store_true", help="run stock asyncio anew instead of its cache")
    add("--quick", action="store_true", help="on stock asyncio run what does not pass, not all")
    add("--list", dest="listed", action="store_true", help="use oxloop's list for another loop too")
    add("--strict", action="store_true", help="fail when an entry of the list is needless")
    add("-v", "--verbose", action="store_true", help="progress, whole tracebacks, what is listed")
    return parser.parse_args(arguments)


def discover(subject, modules):
    """The test classes of `modules`, imported by a child on the stock loop."""
    stock = Subject(STOCK, subject.packages, subject.path)
    run = run_child(stock, {"modules": modules}, stall=120, limit=120)
    if not run.finished:
        raise SystemExit(f"the test modules cannot be imported:\n{run.output}")
    return [
        cases.TestClass(module, name, tests)
        for module, classes in run.modules.items()
        for name, tests in classes.items()
    ]


def select(classes, pattern):
    """Only the tests whose id `pattern` finds."""
    if pattern is None:
        return classes
    wanted = re.compile(pattern)
    chosen = []
    for cls in classes:
        tests = [test for test in cls.tests if wanted.search(str(cls.id_of(test)))]
        if tests:
            chosen.append(cases.TestClass(cls.module, cls.name, tests))
    return chosen


def load_list(tests):
    """Return {test: entry} for this version, and the entries that match no test."""
    entries = expectations.Listing.load().for_version(cases.THIS_VERSION)
    named = Counter(test for entry in entries for test in tests if entry.matches(test))
    for test, times in named.items():
        if times > 1:
            raise SystemExit(f"{test} is listed {times} times")
    return expectations.match_tests(entries, tests)


def run_loop(subject, control, classes, listed, arguments, progress):
    scheduler = Scheduler(subject, arguments.workers, weights=control.weights, progress=progress)
    outcomes = scheduler.run(classes, expected_to_fail=frozenset(listed))
    # A test that stock asyncio passes only now and then gets the control's second chances, any
    # other one: these tests wait for the clock of a machine that may be busy.
    flaky = control.flaky_failures(outcomes)
    scheduler.retry(flaky, times=RETRIES)
    wrong = [
        test
        for test, outcome in outcomes.items()
        if outcome.status not in (cases.PASSED, cases.SKIPPED)
        and test.test.isidentifier()
        and test not in listed
        and test not in flaky
    ]
    for test in sorted(scheduler.retry(wrong, times=1)):
        print(f"{test}  [passed at the second try]", flush=True)
    return outcomes


def print_report(result, outcomes, listed, unused, *, verbose):
    for test in result.failed:
        print(*verdict.failure_lines(test, outcomes[test], whole=verbose), sep="\n")
    if verbose:
        for test in result.white_box:
            print(f"{test}  [white box: {listed[test].reason}] {outcomes[test].status}")
    for entry in unused:
        print(f"{entry.source}: {entry.id} is no test of Python {cases.THIS_VERSION}")
    for test in result.needless:
        print(f"{listed[test].source}: {test} passes; it need not be listed")
    print(*verdict.module_table(result), sep="\n")


def main(arguments=None):
    arguments = parse_arguments(arguments)
    start = time.monotonic()
    # To be stopped like by Ctrl-C is what kills the children.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = (lambda text: print(text, flush=True)) if arguments.verbose else lambda text: None
    modules = arguments.modules.split(",") if arguments.modules else list(MODULES)
    if arguments.loop == "oxloop" and importlib.util.find_spec("oxloop") is None:
        raise SystemExit(
            f"{sys.executable} has no oxloop: run `make build`, and this with .venv/bin/python"
        )
    subject = Subject(arguments.loop, PACKAGES)
    classes = discover(subject, modules)
    control = Control.load(subject.packages)
    unknown = classes if arguments.control else control.missing(classes)
    if unknown and not arguments.quick:
        print(f"stock asyncio first: {len(unknown)} classes", flush=True)
        control.measure(unknown, subject, arguments.workers, progress)
    chosen = select(classes, arguments.match)
    if not chosen:
        raise SystemExit("no test has such a name")
    listed, unused = {}, []
    if arguments.loop == "oxloop" or arguments.listed:
        tests = [cls.id_of(test) for cls in classes for test in cls.tests]
        listed, unused = load_list(tests)
        unused = [] if arguments.modules else unused
    outcomes = run_loop(subject, control, chosen, listed, arguments, progress)
    if arguments.quick:
        control.assume(outcomes, listed, subject, arguments.workers, progress)
    result = verdict.judge(outcomes, control, listed)
    print_report(result, outcomes, listed, unused, verbose=arguments.verbose)
    if arguments.json:
        details = {
            "loop": arguments.loop,
            "python": platform.python_version(),
            "seconds": round(time.monotonic() - start, 1),
        }
        report = verdict.as_json(result, outcomes, details)
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(
        f"{arguments.loop} on Python {platform.python_version()}, {time.monotonic() - start:.0f} s"
    )
    print(result.closing_line)
    needless = arguments.strict and (unused or result.needless)
    return 1 if result.failed or needless else 0


if __name__ == "__main__":
    sys.exit(main())
