"""The list of tests that are not expected to pass, and why.

A line of it is `suite: id | versions | reason`, where the id is pytest's; one that ends with `[*]`
means each set of parameters of that test. The reason is the first cell of a row of
docs/compatibility.md: what is no deliberate difference is a bug, and does not belong here.
"""

from dataclasses import dataclass
from pathlib import Path

from conformance.cases import parse_versions

DIFFERENCES = Path(__file__).with_name("differences.txt")
ANY_PARAMETERS = "[*]"


class ListError(Exception):
    """A line of the list cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One line."""

    suite: str
    id: str
    versions: frozenset[str]
    reason: str
    source: str

    def matches(self, test):
        if self.id.endswith(ANY_PARAMETERS):
            return test.partition("[")[0] == self.id.removesuffix(ANY_PARAMETERS)
        return test == self.id


def load_list(path=DIFFERENCES):
    return parse_list(path.name, path.read_text(encoding="utf-8"))


def parse_list(name, text):
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        source = f"{name}:{number}"
        fields = [part.strip() for part in line.rsplit("|", 2)]
        suite, colon, test = fields[0].partition(": ")
        if len(fields) != 3 or not all((*fields, colon, test)):
            raise ListError(f"{source}: not `suite: id | versions | reason`: {line}")
        try:
            versions = parse_versions(fields[1])
        except ValueError as error:
            raise ListError(f"{source}: {error}") from None
        entries.append(Entry(suite, test, versions, fields[2], source))
    return entries
