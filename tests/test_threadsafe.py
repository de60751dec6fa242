"""call_soon_threadsafe and run_coroutine_threadsafe from other threads."""

import asyncio
import contextvars
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.both_modes

VAR = contextvars.ContextVar("VAR", default=None)


@pytest.fixture
def threaded(loop):
    """``loop`` running in a thread of its own until the test ends."""
    started = threading.Event()

    def body():
        loop.call_soon(started.set)
        loop.run_forever()

    thread = threading.Thread(target=body)
    thread.start()
    assert started.wait(10)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_from_the_loops_own_thread_it_keeps_order_with_call_soon(loop):
    got = []
    loop.call_soon(got.append, 1)
    loop.call_soon_threadsafe(got.append, 2)
    loop.call_soon(got.append, 3)
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert got == [1, 2, 3]


def test_returns_a_handle_that_can_be_cancelled(loop):
    got = []
    handle = loop.call_soon_threadsafe(got.append, 1)
    assert isinstance(handle, asyncio.Handle)
    handle.cancel()
    assert handle.cancelled()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert got == []


def test_cancelled_from_another_thread(threaded):
    blocked, entered, ran = threading.Event(), threading.Event(), []

    def block():
        entered.set()
        blocked.wait(10)

    threaded.call_soon_threadsafe(block)
    assert entered.wait(10)
    handle = threaded.call_soon_threadsafe(ran.append, 1)
    handle.cancel()
    blocked.set()
    last = threading.Event()
    threaded.call_soon_threadsafe(last.set)
    assert last.wait(10)
    assert ran == []


def test_context_of_the_calling_thread(threaded):
    seen, done = [], threading.Event()

    def caller():
        VAR.set("caller")
        threaded.call_soon_threadsafe(lambda: (seen.append(VAR.get()), done.set()))

    thread = threading.Thread(target=caller)
    thread.start()
    thread.join()
    assert done.wait(10)
    assert seen == ["caller"]


def test_run_coroutine_threadsafe(threaded):
    async def add(a, b):
        await asyncio.sleep(0.001)
        return a + b, asyncio.get_running_loop()

    future = asyncio.run_coroutine_threadsafe(add(1, 2), threaded)
    assert future.result(10) == (3, threaded)


def test_run_coroutine_threadsafe_exception(threaded):
    async def fail():
        raise LookupError("from the loop")

    future = asyncio.run_coroutine_threadsafe(fail(), threaded)
    with pytest.raises(LookupError, match="from the loop"):
        future.result(10)


def test_run_coroutine_threadsafe_cancelled(threaded):
    cancelled, started = threading.Event(), threading.Event()

    async def forever():
        started.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    future = asyncio.run_coroutine_threadsafe(forever(), threaded)
    assert started.wait(10)
    future.cancel()
    assert cancelled.wait(10)


def test_closing_races_with_calls_from_threads(loop_factory):
    """Callers either get in or see RuntimeError; nothing crashes, nothing hangs."""
    for _ in range(10):
        loop = loop_factory()
        outcomes, go = [], threading.Event()

        def feed(loop=loop, outcomes=outcomes, go=go):
            go.set()
            try:
                while True:
                    loop.call_soon_threadsafe(int)
                    time.sleep(0)
            except RuntimeError as exc:
                outcomes.append(str(exc))

        threads = [threading.Thread(target=feed) for _ in range(3)]
        for thread in threads:
            thread.start()
        go.wait()
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
        loop.close()
        for thread in threads:
            thread.join()
        assert outcomes == ["Event loop is closed"] * 3


def test_two_loops_wake_each_other(loop, threaded_pair):
    one, two = threaded_pair
    count, done = [0], threading.Event()

    def ping(here, there):
        count[0] += 1
        if count[0] == 500:
            done.set()
        else:
            there.call_soon_threadsafe(ping, there, here)

    one.call_soon_threadsafe(ping, one, two)
    assert done.wait(20)


@pytest.fixture
def threaded_pair(loop_factory):
    loops, threads = [loop_factory(), loop_factory()], []
    for loop in loops:
        threads.append(threading.Thread(target=loop.run_forever))
        threads[-1].start()
    yield loops
    for loop, thread in zip(loops, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_burst_from_a_thread_while_the_loop_is_busy(loop):
    """Wake-ups coalesce, and none is lost."""
    got = []

    def feed():
        for number in range(20000):
            loop.call_soon_threadsafe(got.append, number)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=feed)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert got == list(range(20000))


class TestCancelWhileRunning:
    def test_can_be_interrupted(self, threaded):
        """From 3.14 on it waits for the callback; what a signal handler raises ends the wait."""
        started, release, ended = threading.Event(), threading.Event(), threading.Event()

        def callback():
            started.set()
            release.wait(30)
            ended.set()

        def interrupt(*_):
            raise KeyboardInterrupt

        def cancel():
            handle.cancel()
            # Before 3.14 there is no wait to interrupt.
            time.sleep(30)

        handle = threaded.call_soon_threadsafe(callback)
        assert started.wait(10)
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                cancel()
            assert not ended.is_set()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            release.set()
        assert ended.wait(10)
