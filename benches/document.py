"""Document: docs/benchmarks.md with its plots, from files of samples.

    python benches/document.py samples.json scale.json
    python benches/document.py --to elsewhere samples-3.14.json samples-3.11.json

Takes what compare.py, scale.py and memory.py wrote with --json, in the order in which it is to be
shown. Copies the files beside the plots, so that whoever doubts a number can compute it anew.
Needs matplotlib, which the environment of the peers has: run it by that interpreter.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comparison
import costs
import curves
import peers
import plots
import ratio
import report
from curves import Curve, Limit, Plot, Series
from measurement import FLOOR

if TYPE_CHECKING:
    from line import Line

DIRECTORY = "benchmarks"
COLUMNS = 100
ABOUT = {
    "date": "date",
    "commit": "commit",
    "cpu": "processor",
    "cores": "cores",
    "memory_gib": "memory in GiB",
    "kernel": "Linux",
    "libc": "C library",
    "python": "CPython",
    "openssl": "OpenSSL",
    "rounds": "rounds",
    "seconds": "window in s, of the last round",
    "elapsed_seconds": "took s",
    "load_average": "load average before",
    "command": "command",
}
ORIGIN = """\
`make bench` measured this and `benches/document.py` wrote the page: a change by hand would be lost.
The raw samples are in"""
PICTURES = {
    "times": "Costs in time by what they may grow with",
    "memory": "Memory by turns of use: at the peak, kept after it, held for good",
}
READING = """\
- A **rate** is operations or requests per CPU-second of the measured process, its median over the
  rounds. It says what a machine that has nothing else to do could serve with one core.
- A **ratio** is the median of each round's ratio of oxloop's rate to that of the best peer, the
  other loop with the best median rate. In brackets stands its 95% confidence interval,
  by the bootstrap over the rounds.
- The **verdict** is `lead` if the interval lies at 1 or above, `behind` if it lies below 1, and
  `even` if it contains 1.
- **to floor** is the ratio to a server without an event loop: epoll, one `recv` and one `send` a
  request. Where there is a target for it, its verdict stands beside it.
- **Latencies** are wall time from a request to its answer, with as many requests under way as the
  name of the row says.
- Of **costs**, less is better. Their ratio is the best peer's cost to oxloop's, so that here too
  more than 1 means that oxloop leads.
- What each row does, and how it is measured, is in [benches/README.md](../benches/README.md).\
"""


@dataclass
class Source:
    """One file of samples: a comparison of loops, or curves."""

    path: Path
    about: dict[str, Any]
    lines: list[Line] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Source:
        found = json.loads(path.read_text())
        if "curves" in found:
            return cls(path, found["about"], plots=[plot_of(each) for each in found["curves"]])
        about, lines = comparison.from_text(path.read_text())
        return cls(path, about, lines)

    @property
    def specs(self) -> list[str]:
        """The loops in the order of their first row; the floor is the last."""
        known = [
            *(spec for line in self.lines for spec in line.cells),
            *(spec for plot in self.plots for spec in plot.series),
        ]
        return sorted(dict.fromkeys(known), key=lambda spec: spec == FLOOR)

    @property
    def figures(self) -> list[Plot]:
        return [plot for plot in self.plots if plot.counts and not costs.is_growing(plot)]

    @property
    def drawn(self) -> dict[str, list[Plot]]:
        """Curves by the picture that they are in."""
        growing = [plot for plot in self.plots if costs.is_growing(plot)]
        found = {
            "times": [plot for plot in growing if plot.curve.unit == "seconds"],
            "memory": [plot for plot in growing if plot.curve.unit != "seconds"],
        }
        return {what: drawn for what, drawn in found.items() if drawn}

    def drawing(self, what: str) -> str:
        """Return the name of the file of one of its plots."""
        return f"{self.path.stem}-{what}.svg"


def plot_of(found: dict[str, Any]) -> Plot:
    """Return the curve that was written as this, see curves.py."""
    most = found["growth_most"]
    limit = None if most is None else Limit(found["limit"], lambda first, last: float(most))
    names = (found["curve"], found["what"], found["unit"], found["counted"])
    series = {
        spec: Series(
            {
                point["count"]: {
                    number: value
                    for number, value in enumerate(point["samples"])
                    if value is not None
                }
                for point in each["points"]
            },
            each["failure"],
        )
        for spec, each in found["loops"].items()
    }
    return Plot(Curve(*names, limit), series)


def paragraph(text: str) -> str:
    return textwrap.fill(text, COLUMNS, break_long_words=False, break_on_hyphens=False)


def headline(source: Source) -> str:
    """Say in a sentence or two what a file of samples shows, if it can be said so shortly."""
    if not source.lines:
        return paragraph(costs.headline(source.plots))
    mean = ratio.geometric_mean(line.peer_ratio.value for line in source.lines if line.peer_ratio)
    verdicts = [line.verdict for line in source.lines]
    lead, even, behind = (verdicts.count(each) for each in ("lead", "even", "behind"))
    undecided = len(verdicts) - lead - even - behind
    rest = f"; {undecided} have too few rounds for a verdict" if undecided else ""
    mean_text = "-" if mean is None else f"{mean:.2f}"
    return paragraph(
        f"On CPython {source.about['python']} oxloop leads the best other loop of a row in {lead} "
        f"of {len(verdicts)} rows, is even with it in {even} and behind in {behind}{rest}. The "
        f"geometric mean of the ratios is {mean_text}."
    )


def about_table(sources: list[Source]) -> str:
    """Return where, when and with what each file was measured."""
    names = [source.path.name for source in sources]
    body = [
        [text, *(str(source.about.get(key, "-")) for source in sources)]
        for key, text in ABOUT.items()
    ]
    pinned = {line.partition("==")[0].partition("[")[0] for line in requirements()}
    packages: dict[str, None] = {}
    for source in sources:
        packages |= dict.fromkeys(source.about.get("packages", {}))
    body += [
        [name, *(source.about.get("packages", {}).get(name, "-") for source in sources)]
        for name in packages
        if name in pinned or name == "oxloop"
    ]
    return report.table(["", *names], body)


def requirements() -> list[str]:
    return peers.REQUIREMENTS.read_text().splitlines()


def verdict_table(source: Source) -> str:
    """Return each row's ratio and verdict without the rates of all loops."""
    body = []
    for line in source.lines:
        rates = [
            report.rate_text(line.cells[spec].rate if spec else None)
            for spec in (line.subject, line.best_peer)
        ]
        target = "" if line.floor_target is None else f"{line.floor_target} {line.floor_verdict}"
        body.append(
            [
                *(line.name, rates[0], line.best_peer or "-", rates[1]),
                *(report.ratio_text(line.peer_ratio), line.verdict),
                *(report.ratio_text(line.floor_ratio), target),
            ]
        )
    heads = ["row", "oxloop", "best peer", "its rate", "ratio", "verdict", "to floor", "target"]
    return report.table(heads, body)


def items(texts: list[str]) -> str:
    fill = textwrap.TextWrapper(
        COLUMNS,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(fill.fill(text) for text in texts)


def folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def picture(source: Source, what: str, text: str) -> str:
    return f"![{text}]({DIRECTORY}/{source.drawing(what)})"


def comparison_section(source: Source) -> list[str]:
    """Return the paragraphs of a comparison."""
    specs, lines = source.specs, source.lines
    timed = [line for line in lines if line.is_timed]
    found = [
        f"## Loops on CPython {source.about['python']}",
        items(report.summary(lines)),
        picture(source, "ratios", "Each row's ratio to the best peer, with its interval"),
        verdict_table(source),
        folded("Rates of all loops", report.medians_table(lines, specs, "rate", "per CPU-second")),
    ]
    if timed:
        wall = report.medians_table(timed, specs, "wall_rate", "per second of wall time")
        found += [
            "### Latencies",
            picture(source, "latencies", "p50, p99 and p99.9 of the main rows"),
            folded("p50, p99 and p99.9 of all rows", report.latency_table(timed, specs)),
            folded("Rates by wall time", wall),
        ]
    return [*found, folded("Notes: why numbers are missing, and more", items(report.notes(lines)))]


def figures_section(source: Source) -> list[str]:
    """Return the paragraphs of what things cost, however many there are."""
    values = curves.table(source.figures, source.specs)
    found = [
        f"## Memory and idleness on CPython {source.about['python']}",
        costs.figures_table(source.figures),
        folded("Values of all loops", f"{items(curves.legend(source.figures))}\n\n{values}"),
    ]
    return [*found, *missing(source.figures)]


def growth_section(source: Source) -> list[str]:
    """Return the paragraphs of costs that may grow."""
    growing = [plot for plots in source.drawn.values() for plot in plots]
    found = [f"## Costs that may grow, on CPython {source.about['python']}"]
    found.append(items(costs.kept(growing)))
    for what, drawn in source.drawn.items():
        found.append(picture(source, what, PICTURES[what]))
        values = curves.table(drawn, source.specs)
        found += [
            folded("How much they grow", curves.growth_table(drawn, source.specs)),
            folded("Values of all loops", f"{items(curves.legend(drawn))}\n\n{values}"),
        ]
    return [each for each in [*found, *missing(growing)] if each]


def missing(plots: list[Plot]) -> list[str]:
    """Return why values are missing, if any are."""
    texts = curves.notes(plots)
    return [folded("Notes: why numbers are missing", items(texts))] if texts else []


def sections(source: Source) -> list[str]:
    """Return the paragraphs of a file of samples."""
    found = comparison_section(source) if source.lines else []
    found += figures_section(source) if source.figures else []
    return found + (growth_section(source) if source.drawn else [])


def markdown(sources: list[Source]) -> str:
    """Return the page."""
    files = ", ".join(f"[{each.path.name}]({DIRECTORY}/{each.path.name})" for each in sources)
    found = [
        "# Benchmarks",
        *(text for source in sources if (text := headline(source))),
        paragraph(f"{ORIGIN} {files}."),
        f"## How to read it\n\n{READING}",
    ]
    for source in sources:
        found += sections(source)
    found.append(f"## Machine and versions\n\n{about_table(sources)}")
    return "\n\n".join(found) + "\n"


def write(sources: list[Source], to: Path) -> None:
    """Write the page, its plots and copies of the samples; remove plots that are no more."""
    directory = to / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.svg"):
        old.unlink()
    for source in sources:
        copy = directory / source.path.name
        if source.path.resolve() != copy.resolve():
            shutil.copyfile(source.path, copy)
        if source.lines:
            plots.ratios(source.lines, directory / source.drawing("ratios"))
        if any(line.is_timed for line in source.lines):
            plots.latencies(source.lines, source.specs, directory / source.drawing("latencies"))
        for what, drawn in source.drawn.items():
            plots.curves(drawn, source.specs, directory / source.drawing(what))
    (to / "benchmarks.md").write_text(markdown(sources))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("samples", nargs="+", type=Path, help="files that --json wrote")
    parser.add_argument("--to", type=Path, default=peers.ROOT / "docs", help="default: docs")
    options = parser.parse_args()
    write([Source.read(path) for path in options.samples], options.to)


if __name__ == "__main__":
    main()
