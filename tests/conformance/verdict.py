"""Sets outcomes against the control and the list, and says what that amounts to."""

from collections import Counter
from dataclasses import dataclass, field

from .cases import PASSED, PROCESS_EXIT, SKIPPED, TestId

TAIL_LINES = 12


@dataclass
class Verdict:
    """The counted tests of one run, sorted by what became of them."""

    passed: list[TestId] = field(default_factory=list)
    failed: list[TestId] = field(default_factory=list)
    white_box: list[TestId] = field(default_factory=list)
    not_counted: list[TestId] = field(default_factory=list)
    # Listed, and passed nevertheless.
    needless: list[TestId] = field(default_factory=list)

    @property
    def closing_line(self):
        counts = len(self.passed), len(self.failed), len(self.white_box)
        return "{} passed, {} failed, {} skipped".format(*counts)


def judge(outcomes, control, listed):
    """`listed` holds the tests that are not expected to pass."""
    verdict = Verdict()
    for test, outcome in sorted(outcomes.items()):
        if test.test == PROCESS_EXIT:
            # Stock asyncio leaves a word about it only where it goes wrong there too.
            (verdict.not_counted if test in control.statuses else verdict.failed).append(test)
        elif not control.counts(test):
            verdict.not_counted.append(test)
        elif test in listed:
            verdict.white_box.append(test)
            if outcome.status == PASSED:
                verdict.needless.append(test)
        elif outcome.status == PASSED:
            verdict.passed.append(test)
        else:
            verdict.failed.append(test)
    return verdict


def module_table(verdict):
    """Lines of a table: counts for each module."""
    columns = ("passed", "failed", "white_box", "not_counted")
    counts = {name: Counter(test.module for test in getattr(verdict, name)) for name in columns}
    modules = sorted(set().union(*counts.values()))
    head = ("counted", "passed", "failed", "white-box", "not counted")
    lines = [f"{'module':<28}" + "".join(f"{title:>12}" for title in head)]
    totals = Counter()
    for module in modules:
        row = [counts[name][module] for name in columns]
        row.insert(0, sum(row[:-1]))
        totals.update(dict(enumerate(row)))
        lines.append(f"{module:<28}" + "".join(f"{number:>12}" for number in row))
    row = [totals[index] for index in range(len(head))]
    lines.append(f"{'all':<28}" + "".join(f"{number:>12}" for number in row))
    return lines


def failure_lines(test, outcome, *, whole=False):
    """One failure with the end of its traceback."""
    status = "skipped, where stock asyncio passes" if outcome.status == SKIPPED else outcome.status
    detail = outcome.detail.strip().splitlines()
    if not whole:
        detail = detail[-TAIL_LINES:]
    return [f"{test}  [{status}]", *(f"    {line}" for line in detail)]


def as_json(verdict, outcomes, details):
    """What `--json` writes."""
    groups = {name: [str(test) for test in tests] for name, tests in vars(verdict).items()}
    return {
        **details,
        **groups,
        "outcomes": {
            str(test): {
                "status": outcome.status,
                "seconds": outcome.seconds,
                **({"detail": outcome.detail} if outcome.status != PASSED else {}),
            }
            for test, outcome in sorted(outcomes.items())
        },
    }
