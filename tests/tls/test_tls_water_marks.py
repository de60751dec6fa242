"""Water marks of TLS transports, small ones above all: what waits is never more, unless told."""

import asyncio
import itertools

import pytest

from support.peers import unix_pair, until
from support.protocols import Pausable, Recorder
from support.tls import secured

MARKS = (
    {"high": 1},
    {"high": 1_000, "low": 0},
    {"high": 1_000, "low": 1_000},
    {"high": 20_000},
    {"low": 3_000},
    {"high": 70_000, "low": 60_000},
    {"high": 300_000},
    {"high": 5_000_000, "low": 10},
    {},
)
SIZES = (1, 500, 20_000, 300_000)
TOTAL = 9_000_000


class Writer(Pausable, Recorder):
    """Writes as long as it may."""


def check(transport, writer):
    _, high = transport.get_write_buffer_limits()
    size = transport.get_write_buffer_size()
    assert size <= high or writer.paused, f"{size} bytes wait, above {high}"


async def fill(transport, writer, sizes):
    """Writes until told to stop, and a little more; returns how much."""
    written = 0
    for size in itertools.cycle(sizes):
        if writer.paused or written >= TOTAL:
            break
        transport.write(bytes(size))
        written += size
        check(transport, writer)
        if size % 2 == 0:
            await asyncio.sleep(0)
            check(transport, writer)
    transport.write(b"more")
    check(transport, writer)
    return written + 4


@pytest.fixture
def narrow():
    """A pair with little room. Not of TCP, which waits by its timers if there is too little."""
    near, far = unix_pair(16 << 10)
    with near, far:
        yield near, far


@pytest.mark.parametrize("marks", MARKS, ids=str)
@pytest.mark.parametrize("sizes", [*((size,) for size in SIZES[1:]), SIZES], ids=str)
def test_who_is_not_told_has_no_more_than_the_mark(loop, run, narrow, marks, sizes):
    writer = Writer()

    async def main():
        transport, peer = await secured(loop, narrow, writer)
        transport.set_write_buffer_limits(**marks)
        written = 0
        for _ in range(3):
            count = await fill(transport, writer, sizes)
            written += count
            reading = asyncio.ensure_future(asyncio.to_thread(peer.receive_exactly, count))
            assert len(await reading) == count
            await until(lambda: not writer.paused)
            assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]
        transport.abort()
        await until(lambda: writer.is_lost)

    run(main(), timeout=50)


@pytest.mark.parametrize("later", MARKS, ids=str)
@pytest.mark.parametrize("first", MARKS[::3], ids=str)
def test_marks_that_change_while_much_waits(loop, run, pair, first, later):
    writer = Writer()

    async def main():
        transport, peer = await secured(loop, pair, writer)
        transport.set_write_buffer_limits(**first)
        written = await fill(transport, writer, (20_000,))
        transport.set_write_buffer_limits(**later)
        check(transport, writer)
        written += await fill(transport, writer, (20_000,))
        await asyncio.to_thread(peer.receive_exactly, written)
        await until(lambda: not writer.paused)
        transport.abort()
        await until(lambda: writer.is_lost)

    run(main(), timeout=50)
