"""Every entry of asyncio's "Low-level API Index" has a test of its own, on every loop.

The tests are in ``api_index/``, a file for each part of the index; here is what makes sure that
none is missing.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.low_level_api import ENTRIES
from support.peers import SLOWNESS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def collected():
    """(loop, entry) of every test that a run on both loops would collect."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--loop", "both"]
    options = ["-p", "no:cacheprovider", "tests/api_index"]
    done = subprocess.run(
        command + options,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50 * SLOWNESS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ids = re.findall(r"::\w+\[(asyncio|oxloop)-([^\]]+)\]$", done.stdout, flags=re.MULTILINE)
    return {(loop, entry) for loop, names in ids for entry in re.split(r"[+-]", names)}


@pytest.mark.parametrize("name", ENTRIES)
def test_has_a_test(collected, loop_name, name):
    assert (loop_name, name) in collected


def test_no_entry_stands_twice():
    assert len(ENTRIES) == len(set(ENTRIES))
