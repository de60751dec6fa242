"""`oxloop.new_event_loop(busy_poll=...)`: a loop that asks before it waits does the same things."""

import asyncio
import functools
import signal
import threading
import time

import pytest

import oxloop
from support.peers import accepted, tcp_pair, until
from support.protocols import Recorder

#: Longer than a test takes, and as a user would choose it.
LIMITS = [10_000_000, 50]


@pytest.fixture(params=LIMITS)
def busy_loop(request):
    event_loop = oxloop.new_event_loop(busy_poll=request.param)
    assert event_loop.busy_poll == request.param
    yield event_loop
    event_loop.close()


def test_is_off_unless_asked_for():
    loop = oxloop.new_event_loop()
    assert loop.busy_poll == 0
    loop.busy_poll = 7
    assert loop.busy_poll == 7
    loop.close()


def test_refuses_what_is_no_time():
    with pytest.raises(ValueError, match="busy_poll must not be negative"):
        oxloop.new_event_loop(busy_poll=-1)
    with pytest.raises(TypeError):
        oxloop.new_event_loop(busy_poll="1")
    with pytest.raises(TypeError):
        oxloop.new_event_loop(50)


def test_is_a_loop_factory():
    async def limit():
        return asyncio.get_running_loop().busy_poll

    with asyncio.Runner(loop_factory=functools.partial(oxloop.new_event_loop, busy_poll=20)) as it:
        assert it.run(limit()) == 20


def test_timers_are_never_early(busy_loop):
    async def main():
        begin = busy_loop.time()
        for delay in (0, 0.0001, 0.001, 0.02):
            await asyncio.sleep(delay)
        assert busy_loop.time() - begin >= 0.0211

    busy_loop.run_until_complete(main())


def test_data_arrives(busy_loop):
    async def main():
        transport, protocol, far = await accepted(busy_loop, Recorder, tcp_pair)
        for number in range(100):
            await asyncio.to_thread(far.send, b"%03d" % number)
            await until(lambda n=number: len(protocol.received) == 3 * n + 3)
            transport.write(protocol.received[-3:])
            assert await asyncio.to_thread(far.recv, 3) == b"%03d" % number
        transport.close()
        await until(lambda: protocol.is_lost)
        far.close()

    busy_loop.run_until_complete(main())


def test_other_threads_run_and_wake_it(busy_loop):
    """The GIL is free while the loop asks, and call_soon_threadsafe ends the asking."""
    called = []

    def call():
        time.sleep(0.01)
        for number in range(1000):
            busy_loop.call_soon_threadsafe(called.append, number)
        busy_loop.call_soon_threadsafe(busy_loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    busy_loop.run_forever()
    thread.join()
    assert called == list(range(1000))


def test_signals_arrive(busy_loop):
    busy_loop.add_signal_handler(signal.SIGUSR1, busy_loop.stop)
    threading.Timer(0.01, signal.raise_signal, [signal.SIGUSR1]).start()
    busy_loop.run_forever()
    threading.Timer(0.01, lambda: signal.pthread_kill(threading.main_thread().ident, 2)).start()
    with pytest.raises(KeyboardInterrupt):
        busy_loop.run_forever()
