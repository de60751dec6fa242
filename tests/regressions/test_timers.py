"""Timers keep asyncio's promises, and their memory comes back.

Must hold: never early; sleep(0.002) overshoots by less than 0.3 ms more than the kernel's own
(medians; asyncio rounds up to whole milliseconds, which is let pass there); equal deadlines fire in
order of scheduling; call_later(0) and negative delays give a real TimerHandle; infinite and
huge delays do no harm; a million cancelled timers give their memory back.
"""

import asyncio
import math
import statistics
import time

import pytest

from support.programs import output_of

RESOLUTION = time.get_clock_info("monotonic").resolution


@pytest.mark.both_modes
def test_never_early(loop, run):
    async def main():
        early = []
        for number in range(200):
            when = loop.time() + number * 0.00007
            future = loop.create_future()
            loop.call_at(when, lambda f=future, w=when: f.set_result(loop.time() - w))
            early.append(await future)
        return min(early)

    assert run(main()) >= -RESOLUTION


def test_overshoot_of_a_short_sleep(loop, run):
    async def main():
        kernels, ours = [], []
        for _ in range(50):
            before = time.perf_counter()
            time.sleep(0.002)
            between = time.perf_counter()
            await asyncio.sleep(0.002)
            kernels.append(between - before)
            ours.append(time.perf_counter() - between)
        return statistics.median(ours) - statistics.median(kernels)

    limit = 0.003 if isinstance(loop, asyncio.BaseEventLoop) else 0.0003
    differences = []
    for _ in range(20):  # the best of twenty, for a busy machine
        differences.append(run(main()))
        if differences[-1] < limit:
            return
    pytest.fail(f"differences of medians: {differences} s")


@pytest.mark.both_modes
@pytest.mark.parametrize("count", [2, 200, 5000])
def test_equal_deadlines_fire_in_order_of_scheduling(loop, count):
    """asyncio leaves the order of equal deadlines to its heap; a small one keeps it."""
    fired = []
    when = loop.time() + 0.005
    for number in range(count):
        loop.call_at(when, fired.append, number)
    loop.call_at(when + 0.01, loop.stop)
    loop.run_forever()
    if count > 2 and isinstance(loop, asyncio.BaseEventLoop):
        fired.sort()
    assert fired == list(range(count))


@pytest.mark.both_modes
@pytest.mark.parametrize("delay", [0, 0.0, -0.0, -1, -1e300, -math.inf])
def test_delays_of_zero_and_less(loop, delay):
    fired = []
    handle = loop.call_later(delay, fired.append, 1)
    assert isinstance(handle, asyncio.TimerHandle)
    assert isinstance(handle.when(), float)
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert fired == [1]
    cancelled = loop.call_later(delay, fired.append, 2)
    cancelled.cancel()
    loop.call_later(0.002, loop.stop)
    loop.run_forever()
    assert fired == [1]


@pytest.mark.parametrize("delay", [math.inf, 1e300, 1e18, 2.0**63, 10**12, 3600 * 24 * 365 * 300])
def test_huge_delays(loop, delay):
    fired = []
    handle = loop.call_later(delay, fired.append, "never")
    loop.call_later(0.002, fired.append, "soon")
    loop.call_later(0.004, loop.stop)
    loop.run_forever()
    assert fired == ["soon"]
    assert handle.when() >= delay
    handle.cancel()


def test_only_a_huge_delay_is_armed(loop):
    """The loop sleeps on it, and is woken by something else."""
    import threading

    handle = loop.call_later(math.inf, int)
    timer = threading.Timer(0.01, loop.call_soon_threadsafe, (loop.stop,))
    timer.start()
    loop.run_forever()
    timer.join()
    handle.cancel()


def test_a_million_cancelled_timers(loop_name):
    output = output_of(
        loop_name,
        """
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096

        def batch(loop):
            for _ in range(100_000):
                loop.call_later(3600, print, "never").cancel()
            loop.stop()
            loop.run_forever()

        loop = new_event_loop()
        batch(loop)
        before = resident()
        for _ in range(10):
            batch(loop)
        print(resident() - before)
        loop.close()
        """,
        timeout=50,
    )
    # One batch kept back would be 10 MB and more, all of them 100.
    assert int(output) < 50_000_000


def test_cancelled_timers_do_not_hold_up_the_others(loop):
    fired = []
    for number in range(10_000):
        handle = loop.call_later(0.001 + number * 1e-7, fired.append, number)
        if number % 100:
            handle.cancel()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert fired == list(range(0, 10_000, 100))
