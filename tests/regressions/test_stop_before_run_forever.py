"""stop() before run_forever() lets one iteration run.

Must hold: everything that is ready runs, a due timer and a ready socket are noticed, what they
schedule waits, and the flag is spent.
"""

import socket
import time

import pytest


@pytest.mark.both_modes
def test_ready_callbacks_run_and_what_they_add_does_not(loop):
    ran = []
    loop.call_soon(lambda: (ran.append(1), loop.call_soon(ran.append, 3)))
    loop.call_soon(ran.append, 2)
    loop.stop()
    loop.run_forever()
    assert ran == [1, 2]
    loop.stop()
    loop.run_forever()
    assert ran == [1, 2, 3]


def test_due_timers_and_ready_sockets_are_served(loop):
    ran = []
    near, far = socket.socketpair()
    loop.add_reader(near, lambda: (near.recv(1), ran.append("reader")))
    loop.call_later(0, ran.append, "timer")
    far.send(b"x")
    time.sleep(0.002)
    loop.stop()
    loop.run_forever()
    assert sorted(ran) == ["reader", "timer"]
    loop.remove_reader(near)
    near.close()
    far.close()


def test_it_does_not_wait_for_a_timer(loop):
    timer = loop.call_later(60, int)
    loop.stop()
    started = time.monotonic()
    loop.run_forever()
    assert time.monotonic() - started < 30
    timer.cancel()


def test_the_flag_is_spent(loop):
    loop.stop()
    loop.run_forever()
    ran = []
    loop.call_later(0.005, ran.append, 1)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert ran == [1]


def test_from_another_thread_between_runs(loop):
    import threading

    for _ in range(20):
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
        thread.start()
        loop.run_forever()
        thread.join()
