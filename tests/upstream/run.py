"""Run the test suites of projects that stand on asyncio, with oxloop in its place.

    python tests/upstream/run.py [--suites aiohttp,anyio] [--ci] [--quick]

Needs the network for pip, and the interpreter of an environment in which `make build` has been.
See README.md.
"""

import argparse
import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from conformance.cases import THIS_VERSION  # noqa: E402
from conformance.process import INTERRUPTED  # noqa: E402
from upstream import verdict  # noqa: E402
from upstream.differences import load_list  # noqa: E402
from upstream.job import Job, say  # noqa: E402
from upstream.places import Place, newest_wheel  # noqa: E402
from upstream.suites import load_suites  # noqa: E402


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--suites", metavar="A,B", help="only these suites")
    add("--ci", action="store_true", help="only the share of each suite that CI takes")
    add("--quick", action="store_true", help="run only what fails on stock asyncio, not all")
    add("--control", action="store_true", help="run stock asyncio anew instead of its cache")
    add("--tree", action="append", default=[], metavar="SUITE=DIRECTORY", help="its tests there")
    add("--wheel", type=Path, metavar="FILE", help="oxloop (default: what `make build` made)")
    add("-j", dest="workers", type=int, default=1, metavar="N", help="suites at once")
    add("--json", type=Path, metavar="FILE", help="write all outcomes there")
    add("-v", "--verbose", action="store_true", help="whole tracebacks, and what is listed")
    add("pytest", nargs="*", help="what pytest is given, in place of the suite's tests")
    return parser.parse_args(arguments)


def chosen_suites(names, trees, *, ci=False):
    suites = load_suites()
    names = names.split(",") if names else list(suites)
    for name in (*names, *trees):
        if name not in suites:
            raise SystemExit(f"no suite {name}; there are {', '.join(suites)}")
    chosen = []
    for suite in (suites[name] for name in names):
        if suite.left_out and suite.name not in trees:
            say(f"{suite.name} {suite.version}: left out, {suite.left_out}")
        elif not suite.runs_here:
            say(f"{suite.name} {suite.version}: not on Python {THIS_VERSION}")
        elif ci and not suite.ci:
            say(f"{suite.name} {suite.version}: not in CI")
        else:
            chosen.append(suite)
    return chosen


def run_jobs(jobs, workers):
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(Job.run, jobs))
        except BaseException:
            INTERRUPTED.set()
            pool.shutdown(cancel_futures=True)
            raise


def main(arguments=None):
    arguments = parse_arguments(arguments)
    # To be stopped like by Ctrl-C is what kills the children.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    trees = {
        name: Path(directory).resolve()
        for name, _, directory in (text.partition("=") for text in arguments.tree)
    }
    shared = {
        "arguments": arguments,
        "listing": load_list(),
        "wheel": arguments.wheel or newest_wheel(),
    }
    jobs = [
        Job(suite, Place(suite, trees.get(suite.name)), **shared)
        for suite in chosen_suites(arguments.suites, trees, ci=arguments.ci)
    ]
    run_jobs(jobs, arguments.workers)
    verdicts = [job.verdict for job in jobs]
    print(*verdict.table(verdicts, {job.suite.name: job.seconds for job in jobs}), sep="\n")
    if arguments.json:
        report = {job.suite.name: job.as_json() for job in jobs}
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(verdict.closing_line(verdicts))
    return 1 if any(v.failed or v.trouble for v in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
