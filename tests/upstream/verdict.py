"""Sets a suite's outcomes against stock asyncio and the list, and says what that amounts to."""

from dataclasses import dataclass, field

from conformance.cases import PASSED, SKIPPED
from conformance.verdict import TAIL_LINES

# How faulthandler begins a stack; the main thread's is the last.
MOST_RECENT_FIRST = "(most recent call first):"
# Not tests: they are reported where something goes wrong, and count where it does not on asyncio.
PROCESS_EXIT = "(process exit)"
COLLECTION = " (collection)"  # after the name of what could not be imported


def is_trouble(test):
    return test == PROCESS_EXIT or test.endswith(COLLECTION)


@dataclass
class Verdict:
    """The counted tests of one suite, sorted by what became of them."""

    suite: str
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    not_counted: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)  # listed, and passed nevertheless
    trouble: str = ""  # why the suite as a whole has failed

    @property
    def counts(self):
        return len(self.passed), len(self.failed) + bool(self.trouble), len(self.listed)


def judge(suite, outcomes, control, listed):
    """`listed` holds the tests that are not expected to pass."""
    verdict = Verdict(suite)
    for test in sorted({*outcomes, *control.counted}):
        passed = test in outcomes and outcomes[test].status == PASSED
        if not control.counts(test):
            verdict.not_counted.append(test)
        elif test in listed:
            verdict.listed.append(test)
            if passed:
                verdict.needless.append(test)
        elif passed:
            verdict.passed.append(test)
        else:
            verdict.failed.append(test)
    return verdict


def table(verdicts, seconds):
    head = ("counted", "passed", "failed", "listed", "not counted", "seconds")
    lines = [f"{'suite':<20}" + "".join(f"{title:>13}" for title in head)]
    for verdict in verdicts:
        passed, failed, listed = verdict.counts
        row = (passed + failed + listed, passed, failed, listed, len(verdict.not_counted))
        row += (round(seconds[verdict.suite]),)
        lines.append(f"{verdict.suite:<20}" + "".join(f"{number:>13}" for number in row))
    return lines


def failure_lines(suite, test, outcomes, *, whole=False):
    """One failure with the end of its traceback."""
    if test not in outcomes:
        return [f"{suite}: {test}  [did not run]"]
    outcome = outcomes[test]
    status = "skipped, where stock asyncio passes" if outcome.status == SKIPPED else outcome.status
    detail = outcome.detail.strip().splitlines()
    if not whole:
        stack = [n for n, line in enumerate(detail) if line.endswith(MOST_RECENT_FIRST)]
        first = stack[-1] if stack else len(detail) - TAIL_LINES
        detail = detail[max(first, 0) :][:TAIL_LINES]
    return [f"{suite}: {test}  [{status}]", *(f"    {line}" for line in detail)]


def closing_line(verdicts):
    sums = [sum(numbers) for numbers in zip(*(v.counts for v in verdicts), strict=True)]
    return "{} passed, {} failed, {} skipped".format(*(sums or (0, 0, 0)))
