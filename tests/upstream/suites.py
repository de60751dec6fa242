"""The manifest: which projects' tests run, in which version, and how the loop is swapped in."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from conformance.cases import THIS_VERSION, parse_versions

MANIFEST = Path(__file__).with_name("suites.toml")
SWAPS = frozenset({"policy", "uvicorn"})


@dataclass(frozen=True)
class Suite:
    """One project."""

    name: str
    version: str
    sha256: str = ""  # of the source distribution
    swap: tuple[str, ...] = ("policy",)  # what the plug-in does, see there
    unpack: tuple[str, ...] = ("tests", "pyproject.toml")  # of the source distribution
    tests: tuple[str, ...] = ("tests",)  # what pytest is given
    extras: str = ""  # as in `name[extras]`
    requirements: tuple[str, ...] = ()  # what the tests need besides
    pytest: tuple[str, ...] = ()  # further arguments
    environment: dict[str, str] = field(default_factory=dict)
    ci: tuple[str, ...] = ()  # CI's share, in place of `tests`
    stall: float = 90.0  # seconds without a test that begins or ends
    limit: float = 1500.0  # seconds for the whole
    versions: str = "all"
    left_out: str = ""  # why it does not run, unless a tree of its sources is given

    @property
    def runs_here(self):
        return THIS_VERSION in parse_versions(self.versions)


def load_suites(path=MANIFEST):
    """All suites by name, in the order of the file."""
    suites = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        values = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        suite = Suite(name, **values)
        if not SWAPS.issuperset(suite.swap):
            raise ValueError(f"{path.name}: {name}: no such swap: {suite.swap}")
        if not (suite.sha256 or suite.left_out):
            raise ValueError(f"{path.name}: {name}: neither sha256 nor left_out")
        try:
            parse_versions(suite.versions)
        except ValueError as error:
            raise ValueError(f"{path.name}: {name}: {error}") from None
        suites[name] = suite
    return suites
