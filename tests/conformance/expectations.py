"""The list of tests that are not expected to pass, and why.

A line of it is `id | versions | reason`. An id may hold `{a,b}` choices; its test may be
`*` for each test of one class. See README.md for what belongs into it.
"""

from dataclasses import dataclass
from pathlib import Path

from .cases import TestId, expand_braces, parse_versions

WHITE_BOX = Path(__file__).with_name("white_box.txt")


class ListError(Exception):
    """A line of the list cannot be read."""


@dataclass(frozen=True)
class Entry:
    id: TestId
    versions: frozenset[str]
    reason: str
    source: str

    def matches(self, test):
        same_class = (test.module, test.class_name) == (self.id.module, self.id.class_name)
        return same_class and self.id.test in ("*", test.test)


class Listing:
    """A list, as it stands in its file."""

    def __init__(self, name, text):
        self.name = name
        self.entries = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                self._add(line, f"{name}:{number}")

    @classmethod
    def load(cls, path=WHITE_BOX):
        return cls(path.name, path.read_text(encoding="utf-8"))

    def _add(self, line, source):
        fields = [part.strip() for part in line.split("|")]
        if len(fields) != 3 or not all(fields):
            raise ListError(f"{source}: not `id | versions | reason`: {line}")
        ids, versions, reason = fields
        try:
            for text in expand_braces(ids):
                entry = Entry(TestId.parse(text), parse_versions(versions), reason, source)
                self.entries.append(entry)
        except ValueError as error:
            raise ListError(f"{source}: {error}") from None

    def for_version(self, version):
        return [entry for entry in self.entries if version in entry.versions]


def match_tests(entries, tests):
    """Return {test: entry} for the tests that an entry names, and the entries that name none."""
    matched, unused = {}, []
    for entry in entries:
        hits = [test for test in tests if entry.matches(test)]
        if not hits:
            unused.append(entry)
        for test in hits:
            matched.setdefault(test, entry)
    return matched, unused
