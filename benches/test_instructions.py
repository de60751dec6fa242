"""What callgrind wrote is read rightly, and a path that costs more than its figure fails."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import callgrind
import counted
import counting
import instructions
import measurement
from counting import Figure

# Of the 41 instructions of main, 30 are counted once more in what its caller spent on calling it,
# and one line costs none.
PROFILE = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
cmd:  python a=b: c
part: 1

desc: I1 cache:
desc: Option: --separate-threads=no

positions: line
events: Ir
summary: 146

ob=(1) /usr/lib/ld=2.so
fl=(1) a.c
fn=(1) start
0 5
cob=(2) /somewhere/_oxloop.so
cfi=(2) b.rs
cfn=(2) main: x
calls=1 10
+3 41
+4 100

ob=(2)
fl=(2)
fn=(2)
10 30
* 11
fi=(3) c.rs
-2

totals: 146
"""


def read(text: str) -> dict[str, int]:
    profile = callgrind.Profile()
    profile.read(text.splitlines(keepends=True))
    return dict(profile.instructions)


def test_instructions_belong_to_the_object_whose_lines_they_are() -> None:
    assert read(PROFILE) == {"ld=2.so": 105, "_oxloop.so": 41}


def test_the_column_of_the_instructions_is_found() -> None:
    text = PROFILE.replace("positions: line", "positions: instr line")
    text = text.replace("events: Ir", "events: Dr Ir")
    lines = [
        f"0x1f {line.replace(' ', ' 7 ', 1)}" if line[:1] in {*"0123456789+-*"} else line
        for line in text.splitlines()
    ]
    assert read("\n".join(lines)) == {"ld=2.so": 105, "_oxloop.so": 41}


@pytest.mark.parametrize("cut", ["totals: 146\n", "* 11\n", "calls=1 10\n"])
def test_a_profile_that_is_cut_or_misread_has_no_result(cut: str) -> None:
    with pytest.raises(ValueError, match="in all"):
        read(PROFILE.replace(cut, ""))


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_what_callgrind_writes_adds_up(tmp_path: Path) -> None:
    output = tmp_path / "out"
    loop = "import os\nfor count in (9, 9, 1009):\n    sum(range(count))\n    os.getppid()"
    command = callgrind.command(Path("valgrind"), output, counting.PHASE_END)
    subprocess.run([*command, sys.executable, "-I", "-S", "-c", loop], check=True)
    few, many = (callgrind.read(tmp_path / f"out.{part}") for part in (2, 3))
    assert 1000 < many.total() - few.total() < 1_000_000
    assert any(name.startswith(("libpython", "python")) for name in many)


@pytest.mark.parametrize("path", counting.HOT_PATHS, ids=lambda path: path.name)
def test_a_path_and_its_client_end_by_themselves(path: counting.HotPath, tmp_path: Path) -> None:
    pytest.importorskip("oxloop")
    if not shutil.which("openssl"):
        pytest.skip("the openssl program is not installed")
    counting.make_certificate(tmp_path)
    few = replace(path, few=2, many=3)
    counting.run(counting.program(few, tmp_path), few)


def test_a_path_that_fails_says_why() -> None:
    path = counting.HotPath("wrong", 1, 2, counting.tcp_client)
    with pytest.raises(measurement.MeasurementError, match="wrong: ValueError: no"):
        counting.run([sys.executable, "-c", "raise ValueError('no')"], path)


def test_each_path_of_the_program_is_counted_and_has_a_figure() -> None:
    names = [path.name for path in counting.HOT_PATHS]
    assert names == list(counted.HOT_PATHS)
    _, figures = instructions.read_figures(instructions.FIGURES, "3.11")
    assert sorted(figures) == sorted(names)


TOOLS = {"machine": "x86_64", "rustc": "1.0", "python": "3.11.1", "glibc": "2.0", "valgrind": "3"}


def concluded(
    capsys: pytest.CaptureFixture[str],
    measured: Figure,
    figure: Figure | None,
    **other_tools: str,
) -> tuple[int, str]:
    comparisons = [instructions.Comparison("sleep-0", [measured], figure)]
    differing = instructions.differences(TOOLS | other_tools, TOOLS)
    status = instructions.conclude(comparisons, differing)
    return status, capsys.readouterr().out


@pytest.mark.parametrize(
    ("measured", "status", "said"),
    [
        (Figure(1009.0, 10_290.0), 0, "1 paths, 0 failures"),
        (Figure(1011.0, 10_000.0), 1, "FAILED: sleep-0: 1.1% more own instructions"),
        (Figure(1000.0, 10_310.0), 1, "FAILED: sleep-0: 3.1% more instructions of the process"),
        (Figure(985.0, 9_000.0), 0, "note: sleep-0: 1.5% fewer own instructions"),
    ],
)
def test_more_than_the_figure_fails_and_less_is_said(
    capsys: pytest.CaptureFixture[str], measured: Figure, status: int, said: str
) -> None:
    found = concluded(capsys, measured, Figure(1000.0, 10_000.0))
    assert found[0] == status
    assert said in found[1]


def test_a_path_without_a_figure_fails(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = concluded(capsys, Figure(1.0, 2.0), None)
    assert status == 1
    assert "FAILED: sleep-0: has no figure" in text


def test_another_compiler_makes_every_change_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = concluded(capsys, Figure(2.0, 2.0), Figure(1.0, 1.0), rustc="1.1")
    assert status == 0
    assert "note: rustc is 1.1, the figures are of 1.0" in text
    assert "note: sleep-0: 100.0% more own instructions" in text


def test_other_libraries_make_the_whole_process_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    own = concluded(capsys, Figure(2.0, 2.0), Figure(1.0, 1.0), glibc="2.1")
    assert own[0] == 1
    assert "FAILED: sleep-0: 100.0% more own instructions" in own[1]
    assert "note: sleep-0: 100.0% more instructions of the process" in own[1]
    status, _ = concluded(capsys, Figure(1.0, 2.0), Figure(1.0, 1.0), glibc="2.1")
    assert status == 0


def test_another_valgrind_counts_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    status, _ = concluded(capsys, Figure(1.0, 2.0), Figure(1.0, 1.0), valgrind="4")
    assert status == 1


def test_an_update_keeps_what_was_not_measured_and_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    runs = [("3.12", "sleep-0"), ("3.11", "sleep-0"), ("3.11", "gone"), ("3.11", "call_soon-chain")]
    for python, name in runs:
        rounds = [Figure(1.0, 2.0), Figure(5.0, 6.0), Figure(3.0, 4.0)]
        comparison = instructions.Comparison(name, rounds, None)
        instructions.write_figures(path, python, TOOLS, [comparison])
    tools, figures = instructions.read_figures(path, "3.11")
    assert tools == TOOLS
    assert figures == {"call_soon-chain": Figure(3.0, 4.0), "sleep-0": Figure(3.0, 4.0)}
    assert instructions.read_figures(path, "3.12")[1] == {"sleep-0": Figure(3.0, 4.0)}
    assert instructions.read_figures(path, "3.13") == ({}, {})


def test_the_table_has_a_line_for_each_path() -> None:
    rounds = [Figure(1010.0, 3000.0), Figure(1012.0, 3000.0)]
    text = instructions.table(
        [
            instructions.Comparison("sleep-0", rounds, Figure(1000.0, 3000.0)),
            instructions.Comparison("queue", rounds[:1], None),
        ]
    )
    assert text.splitlines()[1].split() == [
        *("sleep-0", "1,011.0", "1,000.0", "+1.10%", "2.0"),
        *("3,000.0", "3,000.0", "+0.00%", "0.0"),
    ]
    assert text.splitlines()[2].split() == ["queue", "1,010.0", *"---", "3,000.0", *"---"]
