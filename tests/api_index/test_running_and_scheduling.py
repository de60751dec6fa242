"""Low-level API Index: lifecycle, debugging, callbacks, executors, tasks, signals, errors."""

import asyncio
import concurrent.futures
import contextvars
import functools
import logging
import math
import os
import signal
import threading

import pytest

from support.low_level_api import entry
from support.peers import turns, until


@pytest.mark.both_modes
@entry("loop.run_until_complete")
def test_coroutine_future_and_failure(loop):
    async def fails():
        raise LookupError("from the task")

    future = loop.create_future()
    loop.call_soon(future.set_result, "of the future")
    assert loop.run_until_complete(asyncio.sleep(0, "of the coroutine")) == "of the coroutine"
    assert loop.run_until_complete(future) == "of the future"
    with pytest.raises(LookupError, match=r"^from the task$"):
        loop.run_until_complete(fails())
    with pytest.raises(TypeError):
        loop.run_until_complete("nothing that could be awaited")


@pytest.mark.both_modes
@entry("loop.run_until_complete")
def test_stopped_before_it_is_complete(loop):
    future = loop.create_future()
    loop.call_soon(loop.stop)
    with pytest.raises(RuntimeError, match=r"^Event loop stopped before Future completed\.$"):
        loop.run_until_complete(future)


@entry("loop.run_forever", "loop.stop")
def test_runs_until_it_is_stopped_and_again(loop):
    ran = []
    for number in range(3):
        loop.call_soon(ran.append, number)
        loop.call_later(0.001, ran.append, "timer")
        loop.call_later(0.002, loop.stop)
        assert loop.run_forever() is None
    assert ran == [0, "timer", 1, "timer", 2, "timer"]


@entry("loop.stop")
def test_what_is_queued_runs_and_what_that_queues_waits(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "queued")
    loop.call_soon(loop.call_soon, ran.append, "later")
    loop.run_forever()
    assert ran == ["queued"]
    loop.stop()
    loop.run_forever()
    assert ran == ["queued", "later"]


@pytest.mark.both_modes
@entry("loop.close")
def test_drops_what_is_queued_and_refuses_more(loop, run):
    async def main():
        with pytest.raises(RuntimeError, match=r"^Cannot close a running event loop$"):
            loop.close()

    run(main())
    never = []
    loop.call_soon(never.append, 1)
    loop.close()
    loop.close()
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        loop.run_forever,
    ):
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            call()
    assert never == []


@entry("loop.is_running")
def test_during_the_run_only(loop, run):
    async def main():
        seen.append(loop.is_running())
        loop.call_soon(lambda: seen.append(loop.is_running()))
        await asyncio.sleep(0)
        seen.append(await asyncio.to_thread(loop.is_running))

    seen = [loop.is_running()]
    run(main())
    seen.append(loop.is_running())
    loop.close()
    seen.append(loop.is_running())
    assert seen == [False, True, True, True, False, False]


@entry("loop.is_closed")
def test_after_close_only(loop):
    seen = [loop.is_closed()]
    loop.call_soon(lambda: seen.append(loop.is_closed()))
    loop.run_until_complete(turns(1))
    seen.append(loop.is_closed())
    loop.close()
    seen.append(loop.is_closed())
    assert seen == [False, False, False, True]


@entry("loop.shutdown_asyncgens")
def test_generators_end_in_their_finally(loop, run):
    closed = []

    async def numbers(name):
        try:
            while True:
                yield name
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def main():
        generators = [numbers("one"), numbers("other")]
        for generator in generators:
            await anext(generator)
        await loop.shutdown_asyncgens()
        assert sorted(closed) == ["one", "other"]
        for generator in generators:
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

    run(main())


@entry("loop.set_debug", "loop.get_debug")
def test_debug_mode_checks_the_thread(loop, run):
    async def main():
        errors = []
        for mode in (False, True):
            loop.set_debug(mode)
            assert loop.get_debug() is mode
            try:
                await asyncio.to_thread(loop.call_soon, int)
            except RuntimeError as exc:
                errors.append(str(exc))
        return errors

    assert run(main()) == [
        "Non-thread-safe operation invoked on an event loop other than the current one"
    ]
    assert loop.get_debug() is True


@entry("loop.call_soon")
def test_first_in_first_out_with_arguments_and_context(loop):
    variable = contextvars.ContextVar("variable", default="default")
    ran = []
    mine = contextvars.copy_context()
    mine.run(variable.set, "mine")
    loop.call_soon(ran.append, 1)
    loop.call_soon(lambda *args: ran.append(args), 2, "two")
    cancelled = loop.call_soon(ran.append, "cancelled")
    loop.call_soon(lambda: ran.append(variable.get()), context=mine)
    loop.call_soon(lambda: ran.append(variable.get()))
    cancelled.cancel()
    loop.run_until_complete(turns(1))
    assert cancelled.cancelled()
    assert ran == [1, (2, "two"), "mine", "default"]


@entry("loop.call_soon_threadsafe")
def test_wakes_a_sleeping_loop_and_keeps_each_threads_order(loop):
    def work(name):
        barrier.wait(10)
        for number in range(200):
            loop.call_soon_threadsafe(ran.append, (name, number))
        loop.call_soon_threadsafe(done.append, name)
        loop.call_soon_threadsafe(lambda: len(done) == 3 and loop.stop())

    ran, done, barrier = [], [], threading.Barrier(3)
    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    loop.run_forever()  # no timer, no descriptor: only those calls can end it
    for thread in threads:
        thread.join(10)
    for name in "abc":
        assert [number for who, number in ran if who == name] == list(range(200))


@entry("loop.call_later")
def test_after_its_delay_and_not_when_cancelled(loop):
    ran = []
    begin = loop.time()
    handle = loop.call_later(0.005, lambda: ran.append(loop.time() - begin))
    never = loop.call_later(0.001, ran.append, "never")
    loop.call_later(-5, ran.append, "at once")
    never.cancel()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert ran[0] == "at once"
    assert ran[1] >= 0.005
    assert len(ran) == 2
    assert isinstance(handle, asyncio.TimerHandle)
    assert begin <= handle.when() - 0.005 <= loop.time()


@entry("loop.call_at")
def test_in_order_of_time(loop):
    ran = []
    when = loop.time() + 0.005
    loop.call_at(when + 0.002, loop.stop)
    loop.call_at(when + 0.001, ran.append, "third")
    assert loop.call_at(when, ran.append, "second").when() == when
    loop.call_at(when - 0.001, ran.append, "first")
    loop.call_at(math.inf, ran.append, "never").cancel()
    loop.run_forever()
    assert ran == ["first", "second", "third"]
    assert loop.time() >= when


@pytest.mark.both_modes
@entry("loop.run_in_executor")
def test_in_a_thread_with_its_exception(loop, run):
    async def main():
        names = await loop.run_in_executor(None, threading.get_ident)
        with pytest.raises(ZeroDivisionError):
            await loop.run_in_executor(None, divmod, 1, 0)
        with concurrent.futures.ThreadPoolExecutor(1, "mine") as pool:
            named = await loop.run_in_executor(pool, lambda: threading.current_thread().name)
        return names, named

    thread, name = run(main())
    assert thread != threading.get_ident()
    assert name == "mine_0"


@pytest.mark.both_modes
@entry("loop.run_in_executor")
def test_the_loop_goes_on_meanwhile(loop, run):
    async def main():
        released = threading.Event()
        waiting = loop.run_in_executor(None, released.wait, 20)
        await turns(3)
        assert not waiting.done()
        released.set()
        return await waiting

    assert run(main()) is True


@pytest.mark.both_modes
@entry("loop.set_default_executor")
def test_is_used_and_shut_down(loop, run):
    pool = concurrent.futures.ThreadPoolExecutor(1, "default")
    loop.set_default_executor(pool)

    async def main():
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        await loop.shutdown_default_executor()
        return name

    assert run(main()) == "default_0"
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(print)
    with pytest.raises(TypeError, match="executor must be ThreadPoolExecutor instance"):
        loop.set_default_executor("no executor")


@entry("loop.create_future")
def test_of_this_loop_and_awaited(loop, run):
    future = loop.create_future()
    assert type(future) is asyncio.Future
    assert future.get_loop() is loop
    called = []
    future.add_done_callback(called.append)
    loop.call_soon(future.set_result, 42)

    async def main():
        return await future

    assert run(main()) == 42
    assert called == [future]


@entry("loop.create_task")
def test_name_context_and_cancellation(loop, run):
    variable = contextvars.ContextVar("variable", default=None)
    context = contextvars.copy_context()
    context.run(variable.set, "of the context")

    async def reads():
        return asyncio.current_task().get_name(), variable.get()

    async def waits():
        await asyncio.sleep(3600)

    async def main():
        first = loop.create_task(reads(), name="first", context=context)
        second = loop.create_task(waits())
        await turns(2)
        second.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await second
        return await first

    assert run(main()) == ("first", "of the context")


@pytest.mark.both_modes
@entry("loop.set_task_factory", "loop.get_task_factory")
def test_makes_every_task(loop, run):
    made = []

    class MyTask(asyncio.Task):
        pass

    def factory(loop, coro, **kwargs):
        made.append(coro.__name__)
        return MyTask(coro, loop=loop, **kwargs)

    async def child():
        return type(asyncio.current_task())

    async def main():
        return await asyncio.create_task(child()), await loop.create_task(child())

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    assert run(main()) == (MyTask, MyTask)
    assert made == ["main", "child", "child"]
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(1)
    loop.set_task_factory(None)
    assert loop.get_task_factory() is None


@entry("loop.add_signal_handler")
def test_runs_in_the_loop_with_its_arguments(loop, run):
    heard = []

    async def main():
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "first")
        loop.add_signal_handler(signal.SIGUSR1, heard.append, "its successor")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == []  # never in the middle of other code
        await until(lambda: heard)
        with pytest.raises(RuntimeError, match="sig 9 cannot be caught"):
            loop.add_signal_handler(signal.SIGKILL, print)
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())
    assert heard == ["its successor"]


@pytest.mark.both_modes
@entry("loop.remove_signal_handler")
def test_says_whether_there_was_one_and_restores(loop, run):
    async def main():
        loop.add_signal_handler(signal.SIGUSR2, print)
        loop.add_signal_handler(signal.SIGINT, print)
        assert signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL
        removed = [loop.remove_signal_handler(signal.SIGUSR2) for _ in range(2)]
        assert loop.remove_signal_handler(signal.SIGINT) is True
        return removed

    assert run(main()) == [True, False]
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@entry("loop.call_exception_handler")
def test_hands_the_context_on(loop, unhandled):
    error = LookupError("told")
    loop.call_exception_handler({"message": "something happened", "exception": error})
    assert unhandled.take() == [{"message": "something happened", "exception": error}]


@pytest.mark.both_modes
@entry("loop.set_exception_handler", "loop.get_exception_handler")
def test_is_told_what_a_callback_raises(loop):
    contexts = []

    def handler(where, context):
        contexts.append((where, context))

    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    handle = loop.call_soon(functools.partial(divmod, 1, 0))
    loop.run_until_complete(turns(2))
    ((where, context),) = contexts
    assert where is loop
    assert context["message"].startswith("Exception in callback ")
    assert type(context["exception"]) is ZeroDivisionError
    assert context["handle"] is handle
    with pytest.raises(TypeError, match="A callable object or None is expected"):
        loop.set_exception_handler("no handler")
    loop.set_exception_handler(None)
    assert loop.get_exception_handler() is None


@entry("loop.default_exception_handler")
def test_logs_message_and_traceback(loop, caplog):
    loop.set_exception_handler(None)
    with caplog.at_level(logging.ERROR, "asyncio"):
        loop.call_soon(divmod, 1, 0)
        loop.run_until_complete(turns(2))
        loop.default_exception_handler({"message": "said directly", "extra": "shown"})
    first, second = caplog.records
    assert first.getMessage().startswith("Exception in callback divmod(")
    assert first.exc_info[0] is ZeroDivisionError
    assert second.getMessage() == "said directly\nextra: 'shown'"
    assert not second.exc_info
