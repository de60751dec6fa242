"""What the other modules speak of: test ids, Python versions, outcomes."""

import re
import sys
from dataclasses import dataclass, field
from itertools import product

PASSED = "passed"
FAILED = "failed"
SKIPPED = "skipped"
HUNG = "hung"
CRASHED = "crashed"

# A pseudo test of each class: that its process ends, in time and with status 0.
PROCESS_EXIT = "(process exit)"

VERSIONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
THIS_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, order=True)
class TestId:
    __test__ = False  # pytest: this is no test class

    module: str
    class_name: str
    test: str

    def __str__(self):
        return f"{self.module}.{self.class_name}.{self.test}"

    @classmethod
    def parse(cls, text):
        match = re.fullmatch(r"([\w.]+)\.(\w+)\.(\w+|\*|\(process exit\))", text)
        if match is None:
            raise ValueError(f"not a test id (module.Class.test): {text!r}")
        return cls(*match.groups())


@dataclass
class Outcome:
    status: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class TestClass:
    """The tests of one class that are to run together."""

    __test__ = False

    module: str
    name: str
    tests: list[str] = field(default_factory=list)

    def id_of(self, test):
        return TestId(self.module, self.name, test)


def expand_braces(text):
    """'{a,b}c' -> ['ac', 'bc']."""
    parts = re.split(r"\{([^{}]*)\}", text)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in product(*choices)]


def parse_versions(text):
    """'3.11-3.13, 3.15' or '3.13+' or 'all' -> the set of the versions meant."""
    if text == "all":
        return frozenset(VERSIONS)
    versions = set()
    for part in text.split(","):
        match = re.fullmatch(r"(3\.\d+)(?:(\+)|-(3\.\d+))?", part.strip())
        if match is None or match[1] not in VERSIONS or (match[3] or match[1]) not in VERSIONS:
            raise ValueError(f"not a set of versions: {text!r}")
        first = VERSIONS.index(match[1])
        last = len(VERSIONS) - 1 if match[2] else VERSIONS.index(match[3] or match[1])
        if last < first:
            raise ValueError(f"not a set of versions: {text!r}")
        versions.update(VERSIONS[first : last + 1])
    return frozenset(versions)
