"""What stock asyncio passes of a suite, twice; kept in a cache file."""

import hashlib
import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

from conformance.cases import PASSED

from .places import CACHE
from .process import run_suite
from .verdict import PROCESS_EXIT, is_trouble

TIMES = 2
SOURCES = ("process.py", "plugin/oxloop_upstream.py", "constraints.txt")


class Control:
    """The tests that count, and those that do not."""

    def __init__(self, place, choice, cache=CACHE):
        self._place = place
        self._stock = replace(choice, swapped=False)
        name = f"{place.suite.name}-{platform.python_version()}.json"
        self._path = cache / "control" / name
        self._key = _key(place, choice)
        self.statuses: dict[str, bool] = {}

    @property
    def counted(self):
        return [test for test, passes in self.statuses.items() if passes]

    def counts(self, test):
        if is_trouble(
            test
        ):  # stock asyncio leaves a word about it only where it goes wrong there too
            return test not in self.statuses
        return self.statuses.get(test, False)

    def load(self):
        """Tell whether the cache knows this suite, as it is now."""
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        if data["key"] != self._key:
            return False
        self.statuses = data["statuses"]
        return True

    def measure(self):
        """Run the whole suite on stock asyncio and keep the outcome."""
        runs = [run_suite(self._place, self._stock).outcomes for _ in range(TIMES)]
        self.statuses = {
            test: all(_passes(outcomes, test) for outcomes in runs)
            for test in {name for outcomes in runs for name in outcomes}
        }
        if not self.counted:  # a suite that cannot begin is not known for that the next time
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        text = json.dumps({"key": self._key, "statuses": self.statuses}, indent=1)
        part.write_text(text, encoding="utf-8")
        part.replace(self._path)

    def assume(self, outcomes, listed):
        """Learn from a run on another loop, without the time for a control.

        What passed there is taken to pass on stock asyncio, and so is what is `listed`; only the
        rest runs on it.
        """
        if PROCESS_EXIT in outcomes:  # only the whole suite tells
            self.measure()
            return
        passes = {test for test in outcomes if test in listed or _passes(outcomes, test)}
        left = frozenset(outcomes) - passes
        for _ in range(TIMES):
            if left:
                run = run_suite(self._place, replace(self._stock, only=left)).outcomes
                self.statuses.update((test, False) for test in run if is_trouble(test))
                left = frozenset(test for test in left if _passes(run, test))
        self.statuses.update((test, True) for test in passes | left)


def _passes(outcomes, test):
    return test in outcomes and outcomes[test].status == PASSED


def _key(place, choice):
    """Changes whenever the cached outcomes may have become wrong."""
    suite = replace(place.suite, ci=())  # what runs of it stands in the arguments
    digest = hashlib.sha256(f"{sys.version} {suite} {choice.arguments}".encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()
