"""loop.time assigned on the instance is honoured by timers.

Must hold: call_later counts from it, call_at is measured by it, and timers fire when it says
so. Home Assistant, looptime and test suites move time this way.
"""

import asyncio
import time


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def run_some(loop, turns=5):
    for _ in range(turns):
        loop.call_soon(int)
        loop.stop()
        loop.run_forever()


def test_call_later_counts_from_it(loop):
    loop.time = Clock(5000.0)
    assert loop.time() == 5000.0
    assert loop.call_later(10, int).when() == 5010.0


def test_timers_fire_when_it_says_so(loop):
    clock = loop.time = Clock()
    fired = []
    loop.call_later(100, fired.append, "hundred")
    loop.call_at(1050.0, fired.append, "fifty")
    run_some(loop)
    assert fired == []
    clock.now = 1060.0
    run_some(loop)
    assert fired == ["fifty"]
    clock.now = 1200.0
    run_some(loop)
    assert fired == ["fifty", "hundred"]


def test_sleep_is_measured_by_it(loop):
    clock = loop.time = Clock()
    started = time.monotonic()

    async def move():
        for _ in range(10):
            clock.now += 1000
            await asyncio.sleep(0)

    async def main():
        moving = asyncio.ensure_future(move())
        await asyncio.sleep(3600)
        await moving
        return clock.now

    assert loop.run_until_complete(main()) >= 4600.0
    assert time.monotonic() - started < 30


def test_monotonic_itself_as_home_assistant_assigns_it(loop):
    loop.time = time.monotonic
    fired = []
    loop.call_later(0.005, fired.append, 1)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert fired == [1]


def test_taken_away_again(loop):
    loop.time = Clock(10.0**9)
    del loop.time
    assert abs(loop.time() - time.monotonic()) < 5
    fired = []
    loop.call_later(0.001, fired.append, 1)
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    assert fired == [1]


def test_timeouts_follow_it(loop):
    clock = loop.time = Clock()

    async def main():
        try:
            async with asyncio.timeout(50):
                clock.now += 100
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "timed out"

    loop.call_later(500, loop.stop)
    assert loop.run_until_complete(main()) == "timed out"
