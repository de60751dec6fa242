"""Resident memory: what a process holds that no file backs."""

from __future__ import annotations

import re
from pathlib import Path

ANONYMOUS = re.compile(r"^Anonymous:\s+(\d+) kB", re.MULTILINE)


def resident_bytes(pid: int | str = "self") -> int:
    """Return the bytes of a process's memory that no file backs.

    By its page tables: the counter in `status` may be off by 64 pages.
    """
    found = ANONYMOUS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1]) * 1024
