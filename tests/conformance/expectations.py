"""The lists of tests that are not expected to pass, and why.

A line of a list is `id | versions | reason`. An id may hold `{a,b}` choices; its test may be
`*` for each test of one class. See README.md for what belongs into which list.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from .cases import VERSIONS, TestId, expand_braces, format_versions, parse_versions

DIRECTORY = Path(__file__).with_name("expectations")
WHITE_BOX = "white_box"
LATER = "later"
FEATURES = ("datagrams", "sockets", "sendfile", "pipes", "subprocess", "tls", "policies")


class ListError(Exception):
    """A line of a list cannot be read."""


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
    """One list, as it stands in its file."""

    def __init__(self, kind, text):
        self.kind = kind
        self.heading = []
        self.entries = []
        for number, line in enumerate(text.splitlines(), 1):
            source = f"{kind}.txt:{number}"
            if line.startswith("#") and not self.entries:
                self.heading.append(line)
            if line.strip() and not line.startswith("#"):
                self._add(line, source)

    @classmethod
    def load(cls, kind, directory=DIRECTORY):
        return cls(kind, (directory / f"{kind}.txt").read_text(encoding="utf-8"))

    def _add(self, line, source):
        fields = [part.strip() for part in line.split("|")]
        if len(fields) != 3 or not all(fields):
            raise ListError(f"{source}: not `id | versions | reason`: {line}")
        ids, versions, reason = fields
        if self.kind == LATER and reason not in FEATURES:
            raise ListError(f"{source}: {reason!r} is none of {', '.join(FEATURES)}")
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


def update_later(listing, version, remove, add):
    """The text of the list `later` without `remove` and with `add` ({id: feature}) in `version`.

    Entries are rewritten in one order, classes that share a test joined in braces.
    """
    versions = defaultdict(set)
    for entry in listing.entries:
        versions[entry.id, entry.reason] |= entry.versions
    for (test, _), known in versions.items():
        if test in remove:
            known.discard(version)
    for test, feature in add.items():
        versions[test, feature].add(version)
    classes = defaultdict(list)
    for (test, feature), known in versions.items():
        if known:
            classes[feature, test.module, test.test, frozenset(known)].append(test.class_name)
    lines = list(listing.heading)
    for feature in FEATURES:
        group = [(key, names) for key, names in classes.items() if key[0] == feature]
        if group:
            lines.append("")
        for (_, module, test, known), names in sorted(group, key=_line_order):
            cls = names[0] if len(names) == 1 else "{" + ",".join(sorted(names)) + "}"
            lines.append(f"{module}.{cls}.{test} | {format_versions(known)} | {feature}")
    return "\n".join(lines) + "\n"


def _line_order(item):
    (_, module, test, known), names = item
    return module, sorted(names), test, sorted(VERSIONS.index(version) for version in known)
