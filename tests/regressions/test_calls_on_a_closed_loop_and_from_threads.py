"""call_soon on a closed loop raises; call_soon_threadsafe keeps order and wakes.

Must hold: every way to schedule on a closed loop raises RuntimeError; calls from eight threads
arrive in each thread's order; a blocked loop is woken by each first call.
"""

import threading
import time

import pytest


@pytest.mark.parametrize("debug", [False, True])
def test_closed_loop_refuses(loop_factory, debug):
    loop = loop_factory()
    loop.set_debug(debug)
    loop.close()
    for call in (
        lambda: loop.call_soon(int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: loop.call_later(0, int),
        lambda: loop.call_at(0, int),
    ):
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            call()


@pytest.mark.both_modes
def test_eight_threads_keep_their_order(loop):
    count, got = 2000, []
    finished = threading.Semaphore(0)

    def feed(name):
        for number in range(count):
            loop.call_soon_threadsafe(got.append, (name, number))
        finished.release()

    def end():
        for _ in range(8):
            finished.acquire()
        loop.call_soon_threadsafe(loop.stop)

    threads = [threading.Thread(target=feed, args=(n,)) for n in range(8)]
    threads.append(threading.Thread(target=end))
    for thread in threads:
        thread.start()
    loop.run_forever()
    for thread in threads:
        thread.join()
    for name in range(8):
        assert [number for who, number in got if who == name] == list(range(count))


@pytest.mark.both_modes
def test_every_single_call_wakes_a_blocked_loop(loop):
    """One call at a time, each made once the loop sleeps again."""
    got = threading.Semaphore(0)
    delays = []

    def feed():
        for _ in range(50):
            time.sleep(0.002)
            before = time.monotonic()
            loop.call_soon_threadsafe(got.release)
            assert got.acquire(timeout=10)
            delays.append(time.monotonic() - before)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=feed)
    thread.start()
    timer = loop.call_later(50, loop.stop)
    loop.run_forever()
    timer.cancel()
    thread.join()
    assert len(delays) == 50


@pytest.mark.both_modes
def test_calls_made_while_the_loop_does_not_run(loop):
    got = []
    threads = [
        threading.Thread(target=loop.call_soon_threadsafe, args=(got.append, n)) for n in range(8)
    ]
    for thread in threads:
        thread.start()
        thread.join()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert got == list(range(8))
