"""One suite: set up, run on oxloop, and set against stock asyncio."""

import time
from dataclasses import replace

from conformance.cases import PASSED, THIS_VERSION

from . import verdict
from .control import Control
from .places import PlaceError
from .process import Choice, run_suite


def say(text):
    print(text, flush=True)


class Job:
    """What a run does with one suite, and what it has found."""

    def __init__(self, suite, place, *, arguments, listing, wheel):
        self.suite = suite
        self.place = place
        self.outcomes = {}
        self.verdict = verdict.Verdict(suite.name)
        self.listed = {}
        self.unused = []
        self.seconds = 0.0
        self._arguments = arguments
        self._listing = listing
        self._wheel = wheel

    def run(self):
        start = time.monotonic()
        try:
            self.place.prepare(self._wheel)
            say(f"{self.suite.name} {self.suite.version}: set up")
            self._run_tests()
        except PlaceError as error:
            self.verdict.trouble = str(error)
        self.seconds = time.monotonic() - start
        say("\n".join(self._report()))
        return self

    def _run_tests(self):
        choice = self._choice()
        control = Control(self.place, choice)
        known = not self._arguments.control and control.load()
        if not known and not self._arguments.quick:
            control.measure()
            known = True
        run = run_suite(self.place, choice)
        self.outcomes = run.outcomes
        self._take_list()
        self._try_again(choice, control.counts if known else lambda test: True)
        if not known:
            control.assume(self.outcomes, self.listed)
        self.verdict = verdict.judge(self.suite.name, self.outcomes, control, self.listed)
        if not run.loops:
            self.verdict.trouble = (
                f"no loop of oxloop was made: the swap took nothing\n{run.output}"
            )
        elif not self.verdict.passed:
            self.verdict.trouble = "no test passed"

    def _choice(self):
        suite, given = self.suite, tuple(self._arguments.pytest)
        share = suite.ci if self._arguments.ci else ()
        return Choice(True, given or share or suite.tests, stall=suite.stall, limit=suite.limit)

    def _take_list(self):
        for entry in self._listing:
            if entry.suite == self.suite.name and THIS_VERSION in entry.versions:
                tests = [test for test in self.outcomes if entry.matches(test)]
                self.listed.update(dict.fromkeys(tests, entry))
                if not tests:
                    self.unused.append(entry)

    def _try_again(self, choice, counts):
        """A machine that is busy makes a test fail once; only the second failure is believed."""
        wrong = frozenset(
            test
            for test, outcome in self.outcomes.items()
            if outcome.status != PASSED
            and counts(test)
            and test not in self.listed
            and not verdict.is_trouble(test)
        )
        if not wrong:
            return
        again = run_suite(self.place, replace(choice, only=wrong)).outcomes
        for test in sorted(wrong):
            if test in again and again[test].status == PASSED:
                say(f"{self.suite.name}: {test}  [passed at the second try]")
                self.outcomes[test] = again[test]

    def _report(self):
        name, verbose = self.suite.name, self._arguments.verbose
        lines = ["{}: {} passed, {} failed, {} listed".format(name, *self.verdict.counts)]
        for test in self.verdict.failed:
            lines += verdict.failure_lines(name, test, self.outcomes, whole=verbose)
        if verbose:
            for test in self.verdict.listed:
                lines.append(f"{name}: {test}  [listed: {self.listed[test].reason}]")
        for test in self.verdict.needless:
            lines.append(f"{self.listed[test].source}: {test} passes; it need not be listed")
        if not (self._arguments.ci or self._arguments.pytest):
            for entry in self.unused:
                lines.append(f"{entry.source}: {entry.id} is no test of {name}")
        if self.verdict.trouble:
            lines.append(f"{name}: {self.verdict.trouble}")
        return lines

    def as_json(self):
        groups = ("passed", "failed", "listed", "not_counted", "needless", "trouble")
        return {
            "version": self.suite.version,
            "seconds": round(self.seconds, 1),
            **{group: getattr(self.verdict, group) for group in groups},
            "details": {
                test: {"status": outcome.status, "detail": outcome.detail}
                for test, outcome in sorted(self.outcomes.items())
                if outcome.status != PASSED
            },
        }
