"""Instructions: what an operation on each hot path costs, against committed figures.

    python benches/instructions.py                compare with instructions.json, fail if it is more
    python benches/instructions.py --update       write instructions.json
    python benches/instructions.py --rounds 5     measure several times, and show the spread

Each path runs under callgrind, first few and then many operations; the difference is what the
operations cost. Counted are the instructions of the extension module itself, which its compiler
decides, and those of the whole process, which also depend on the interpreter and its libraries.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import re
import shutil
import ssl
import subprocess
import sys
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import counting
import measurement
import report
from counting import Figure

if TYPE_CHECKING:
    from collections.abc import Collection

FIGURES = Path(__file__).resolve().parent / "instructions.json"
# By how much a measurement may exceed its figure.
OWN_TOLERANCE = 0.01
WHOLE_TOLERANCE = 0.03
# What decides the module's own instructions; the rest of the toolchain decides the others.
COMPILER = {"machine", "rustc"}


@dataclass(frozen=True)
class Comparison:
    """A path's measurements beside its figure, if it has one."""

    name: str
    rounds: list[Figure]
    figure: Figure | None

    @property
    def measured(self) -> Figure:
        return Figure(
            round(median(each.own for each in self.rounds), 1),
            round(median(each.whole for each in self.rounds), 1),
        )

    @property
    def own_change(self) -> float:
        return self.measured.own / self.figure.own - 1 if self.figure else 0.0

    @property
    def whole_change(self) -> float:
        return self.measured.whole / self.figure.whole - 1 if self.figure else 0.0


# --- figures ------------------------------------------------------------------------------------


def toolchain(valgrind: Path) -> dict[str, str]:
    """Return what the figures depend on besides the source."""
    version = subprocess.run([valgrind, "--version"], check=True, capture_output=True, text=True)
    return {
        "machine": platform.machine(),
        "rustc": compiler_of_the_extension(),
        "cpu": processor(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "glibc": platform.libc_ver()[1],
        "valgrind": version.stdout.strip().removeprefix("valgrind-"),
    }


def compiler_of_the_extension() -> str:
    """Return the version that rustc wrote into the extension module."""
    spec = importlib.util.find_spec("oxloop._oxloop")
    if spec is None or spec.origin is None:
        sys.exit("instructions: oxloop is not installed in this environment")
    found = re.search(rb"rustc version ([^\0]+)", Path(spec.origin).read_bytes())
    return found[1].decode() if found else "unknown"


def processor() -> str:
    """Return the processor's model: libc and OpenSSL have functions of their own for some."""
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def read_figures(path: Path, python: str) -> tuple[dict[str, str], dict[str, Figure]]:
    """Return the toolchain and the figures for a Python version; both are empty without any."""
    known = json.loads(path.read_text()).get(python, {}) if path.exists() else {}
    figures = {name: Figure(**each) for name, each in known.get("figures", {}).items()}
    return known.get("toolchain", {}), figures


def write_figures(
    path: Path, python: str, tools: dict[str, str], comparisons: list[Comparison]
) -> None:
    """Replace the measured figures of one Python version; the others stay while their paths do."""
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    figures = known.get(python, {}).get("figures", {})
    figures |= {each.name: asdict(each.measured) for each in comparisons}
    names = [each.name for each in counting.HOT_PATHS if each.name in figures]
    known[python] = {"toolchain": tools, "figures": {name: figures[name] for name in names}}
    path.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")


# --- the report ---------------------------------------------------------------------------------


def table(comparisons: list[Comparison]) -> str:
    """Show the paths, one a line; the spread is what the rounds differed by."""
    head = ["path", *("own", "figure", "change", "spread"), *("all", "figure", "change", "spread")]
    return "\n".join("  ".join(line) for line in report.aligned([head, *map(row, comparisons)]))


def row(each: Comparison) -> list[str]:
    own = [figures.own for figures in each.rounds]
    whole = [figures.whole for figures in each.rounds]
    figure = each.figure
    return [
        each.name,
        *cells(own, each.measured.own, None if figure is None else figure.own),
        *cells(whole, each.measured.whole, None if figure is None else figure.whole),
    ]


def cells(rounds: list[float], measured: float, figure: float | None) -> tuple[str, ...]:
    spread = f"{max(rounds) - min(rounds):,.1f}" if len(rounds) > 1 else "-"
    if figure is None:
        return f"{measured:,.1f}", "-", "-", spread
    return f"{measured:,.1f}", f"{figure:,.1f}", f"{measured / figure - 1:+.2%}", spread


def differences(measured_with: dict[str, str], figures_with: dict[str, str]) -> dict[str, str]:
    """Say, by tool, where the figures were taken with another one."""
    return {
        tool: f"{tool} is {version}, the figures are of {figures_with.get(tool, 'none')}"
        for tool, version in measured_with.items()
        if version != figures_with.get(tool)
    }


def is_another_process(differing: Collection[str]) -> bool:
    """Tell whether what differs changes the process as well, and not only who counts."""
    return bool(set(differing) - {"valgrind"})


def judge(comparisons: list[Comparison], differing: Collection[str]) -> tuple[list[str], list[str]]:
    """Return what fails, and what is only said: figures hold for the tools they were taken with."""
    failed: list[str] = []
    noted: list[str] = []
    own = noted if COMPILER & set(differing) else failed
    whole = noted if is_another_process(differing) else failed
    for each in comparisons:
        if each.figure is None:
            own.append(f"{each.name}: has no figure")
        elif each.own_change > OWN_TOLERANCE:
            own.append(f"{each.name}: {each.own_change:.1%} more own instructions")
        elif each.own_change < -OWN_TOLERANCE:
            noted.append(
                f"{each.name}: {-each.own_change:.1%} fewer own instructions, update its figure"
            )
        if each.whole_change > WHOLE_TOLERANCE:
            whole.append(f"{each.name}: {each.whole_change:.1%} more instructions of the process")
    return failed, noted


# --- the program --------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--paths", default="*", help="a shell pattern (default: all)")
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each path")
    parser.add_argument("--update", action="store_true", help="write what was measured as figures")
    parser.add_argument("--valgrind", type=Path, default=shutil.which("valgrind"))
    options = parser.parse_args()
    paths = [each for each in counting.HOT_PATHS if fnmatchcase(each.name, options.paths)]
    if not paths or options.valgrind is None:
        parser.error("no such path" if options.valgrind else "valgrind is not installed")

    tools = toolchain(options.valgrind)
    python = "{}.{}".format(*sys.version_info)
    figures_with, figures = read_figures(FIGURES, python)
    differing = differences(tools, figures_with)
    if options.update and differing and len(paths) < len(counting.HOT_PATHS):
        parser.error("the figures of the other paths are of other tools: update all")
    try:
        measured = counting.measure_all(options.valgrind, paths, options.rounds)
    except (measurement.MeasurementError, OSError) as error:
        sys.exit(f"instructions: {error}")
    comparisons = [Comparison(name, rounds, figures.get(name)) for name, rounds in measured.items()]
    print(f"Instructions an operation, CPython {python}\n\n{table(comparisons)}\n")
    if options.update:
        write_figures(FIGURES, python, tools, comparisons)
        print(f"instructions: wrote {FIGURES.name}")
        return 0
    return conclude(comparisons, differing)


def conclude(comparisons: list[Comparison], differing: dict[str, str]) -> int:
    """Print what the measurements mean; return the status to exit with."""
    failed, noted = judge(comparisons, differing)
    for line in differing.values():
        print(f"note: {line}")
    if differing.keys() & COMPILER:
        print("note: so nothing fails here, whatever the changes are")
    elif is_another_process(differing):
        print("note: so no path fails for the instructions of the whole process")
    for line in noted:
        print(f"note: {line}")
    for line in failed:
        print(f"FAILED: {line}")
    print(f"instructions: {len(comparisons)} paths, {len(failed)} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
