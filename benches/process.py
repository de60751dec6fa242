"""What a measured process does first."""

from __future__ import annotations

import os


def prepare(core: int | None) -> None:
    """Keep to a core, if any, and settle the allocator.

    This comes before the loop is made, so that threads of its own stay on the core too.
    """
    if core is not None:
        os.sched_setaffinity(0, {core})
    settle_allocator()


def settle_allocator() -> None:
    """Free one large block, which tells glibc to keep blocks of that size.

    Sooner or later a long-running program does so. Until then a loop that reads into a new
    buffer of 256 KiB each time, as asyncio does, maps and unmaps memory at every read, which
    is four times slower: what is measured would depend on what was freed by chance before.
    """
    block = bytearray(1 << 20)
    del block
