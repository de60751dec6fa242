"""run_in_executor and set_default_executor."""

import asyncio
import concurrent.futures
import contextvars
import threading
import time

import pytest

pytestmark = pytest.mark.both_modes


def test_result_and_thread(loop, run):
    async def main():
        return await loop.run_in_executor(None, threading.current_thread)

    thread = run(main())
    assert thread is not threading.current_thread()
    assert thread.name.startswith("asyncio_")


def test_arguments(loop, run):
    async def main():
        return await loop.run_in_executor(None, lambda *args: args, 1, "two", None)

    assert run(main()) == (1, "two", None)


def test_returns_an_asyncio_future_of_this_loop(loop, run):
    async def main():
        future = loop.run_in_executor(None, int)
        assert asyncio.isfuture(future)
        assert future.get_loop() is loop
        await future

    run(main())


def test_executor_of_ones_own_kind(loop, run):
    class Inline(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):
            future = concurrent.futures.Future()
            future.set_result(fn(*args, **kwargs))
            return future

    async def main():
        return await loop.run_in_executor(Inline(), threading.current_thread)

    assert run(main()) is threading.current_thread()


@pytest.mark.parametrize("wrong", [None, 1, object()])
def test_default_executor_must_be_a_thread_pool(loop, wrong):
    with pytest.raises(TypeError, match=r"^executor must be ThreadPoolExecutor instance$"):
        loop.set_default_executor(wrong)


def test_submit_errors_come_through(loop):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        loop.run_in_executor(pool, int)


def test_closed_loop(loop):
    loop.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.run_in_executor(None, int)


def test_many_at_once(loop, run):
    async def main():
        calls = [loop.run_in_executor(None, pow, n, 2) for n in range(300)]
        return await asyncio.gather(*calls)

    assert run(main()) == [n * n for n in range(300)]


def test_cancelled_while_queued(loop, run):
    ran = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        async def main():
            release = threading.Event()
            first = loop.run_in_executor(pool, release.wait, 20)
            second = loop.run_in_executor(pool, ran.append, 1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await asyncio.sleep(0)  # the cancellation passes on in a callback
            release.set()
            await first

        run(main())
    assert ran == []


def test_cancelled_while_running_sets_no_result_later(loop, run):
    async def main():
        release, entered = threading.Event(), threading.Event()

        def work():
            entered.set()
            return release.wait(20)

        future = loop.run_in_executor(None, work)
        await loop.run_in_executor(None, entered.wait, 20)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        release.set()
        await loop.run_in_executor(None, int)
        await asyncio.sleep(0.01)
        assert future.cancelled()

    run(main())


def test_to_thread_carries_the_context(loop, run):
    var = contextvars.ContextVar("var")

    async def main():
        var.set("carried")
        return await asyncio.to_thread(var.get)

    assert run(main()) == "carried"


def test_loop_closed_while_work_is_in_flight(loop_factory):
    release = threading.Event()
    pool = concurrent.futures.ThreadPoolExecutor(1)
    loop = loop_factory()
    future = loop.run_in_executor(pool, release.wait, 20)
    loop.close()
    release.set()
    pool.shutdown(wait=True)
    time.sleep(0.01)
    assert not future.done()
