"""What stock asyncio passes on this interpreter and this machine; kept in a cache file."""

import hashlib
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

from .cases import FAILED, PASSED, SKIPPED, TestId
from .process import CHILD, Subject
from .schedule import Scheduler
from .swap import STOCK

FLAKY = "flaky"  # failed once and passed when run again
RETRIES = 2
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "conformance"


class Control:
    """The outcome of every test on stock asyncio: passed, flaky, failed or skipped."""

    def __init__(self, path, packages):
        self._path = path
        self._key = _interpreter_key(packages)
        self.statuses: dict[TestId, str] = {}
        self.weights: dict[tuple[str, str], float] = {}
        self._modules = {}

    @classmethod
    def load(cls, packages, directory=CACHE):
        name = f"{sys.implementation.name}-{platform.python_version()}.json"
        control = cls(directory / name, packages)
        try:
            data = json.loads(control._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return control
        if data["key"] == control._key:
            control._take(data["modules"])
        return control

    def counts(self, test):
        return self.statuses.get(test) in (PASSED, FLAKY)

    def flaky_failures(self, outcomes):
        """Those of `outcomes` that went wrong where stock asyncio is unsteady too."""
        return [
            test
            for test, outcome in outcomes.items()
            if outcome.status != PASSED and self.statuses.get(test) == FLAKY
        ]

    def missing(self, classes):
        """The classes of those modules for which nothing is known."""
        return [cls for cls in classes if cls.module not in self._modules]

    def measure(self, classes, subject, workers, progress):
        """Run `classes`, which are whole modules, on stock asyncio and keep the outcome."""
        stock = Subject(STOCK, subject.packages, subject.path)
        scheduler = Scheduler(stock, workers, weights=self.weights, progress=progress)
        outcomes = scheduler.run(classes)
        wrong = [test for test, outcome in outcomes.items() if _may_be_flaky(test, outcome)]
        flaky = scheduler.retry(wrong, RETRIES)
        modules = {}
        for test, outcome in sorted(outcomes.items()):
            status = FLAKY if test in flaky else outcome.status
            status = status if status in (PASSED, FLAKY, SKIPPED) else FAILED
            of_class = modules.setdefault(test.module, {}).setdefault(test.class_name, {})
            detail = "" if status in (PASSED, FLAKY) else outcome.detail[-300:]
            of_class[test.test] = [status, outcome.seconds, detail]
        self._take(modules)
        self._save()

    def assume(self, outcomes, listed, subject, workers, progress):
        """Learn from a run on another loop, without the time for a control.

        What passed there is taken to pass on stock asyncio; what failed or skipped itself and is
        not listed runs on stock asyncio, each test alone.
        """
        unknown = {
            test: outcome
            for test, outcome in outcomes.items()
            if outcome.status != PASSED
            and test.test.isidentifier()
            and test not in listed
            and test not in self.statuses
        }
        wrong = [test for test, outcome in unknown.items() if _may_be_flaky(test, outcome)]
        stock = Subject(STOCK, subject.packages, subject.path)
        scheduler = Scheduler(stock, workers, progress=progress)
        scheduler.outcomes.update(unknown)
        passed = scheduler.retry([test for test in unknown if test not in wrong], 1)
        passed |= scheduler.retry(wrong, RETRIES)
        for test, outcome in outcomes.items():
            if outcome.status == PASSED or test in listed or test in passed:
                self.statuses.setdefault(test, PASSED)
            elif test.test.isidentifier():
                skipped = outcome.status == SKIPPED
                self.statuses.setdefault(test, SKIPPED if skipped else FAILED)

    def _take(self, modules):
        self._modules.update(modules)
        for module, classes in modules.items():
            for cls, tests in classes.items():
                self.weights[module, cls] = sum(seconds for _, seconds, _ in tests.values())
                for test, (status, _, _) in tests.items():
                    self.statuses[TestId(module, cls, test)] = status

    def _save(self):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"key": self._key, "modules": self._modules}, indent=1)
        part = self._path.with_suffix(".part")
        part.write_text(text, encoding="utf-8")
        part.replace(self._path)


def _may_be_flaky(test, outcome):
    return outcome.status not in (PASSED, SKIPPED) and test.test.isidentifier()


def _interpreter_key(packages):
    """Changes whenever the cached outcomes may have become wrong."""
    digest = hashlib.sha256(f"{sys.version} {os.geteuid() == 0} {packages}".encode())
    directories = [Path(importlib.util.find_spec("asyncio").origin).parent]
    for package in packages:
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:
            continue
        if spec is not None:
            directories += map(Path, spec.submodule_search_locations or ())
    for directory in directories:
        for file in sorted(directory.glob("*.py")):
            digest.update(f"{file.name} {file.stat().st_mtime_ns}".encode())
    digest.update(CHILD.read_bytes())
    return digest.hexdigest()
