"""Running, stopping and closing a loop, and what it shuts down on the way."""

import asyncio
import concurrent.futures
import gc
import os
import signal
import socket
import sys
import threading
import time
import weakref

import pytest

from support.peers import PAIRS
from support.programs import run_program
from support.transports import drop_unclosed


async def value(result=None):
    return result


class TestRunUntilComplete:
    def test_accepts_a_done_future(self, loop):
        future = loop.create_future()
        future.set_result(5)
        assert loop.run_until_complete(future) == 5

    def test_accepts_an_awaitable(self, loop):
        class Awaitable:
            def __await__(self):
                yield
                return "awaited"

        assert loop.run_until_complete(Awaitable()) == "awaited"

    @pytest.mark.parametrize("wrong", [None, 1, "text", value])
    def test_refuses_what_cannot_be_awaited(self, loop, wrong):
        with pytest.raises(TypeError):
            loop.run_until_complete(wrong)

    def test_refuses_a_future_of_another_loop(self, loop, loop_factory):
        other = loop_factory()
        try:
            with pytest.raises(ValueError, match="belongs to a different loop"):
                loop.run_until_complete(other.create_future())
        finally:
            other.close()

    def test_cancelled(self, loop):
        async def main():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(main())

    def test_done_callback_is_taken_off_after_the_run(self, loop):
        future = loop.create_future()
        loop.call_soon(loop.stop)
        with pytest.raises(RuntimeError):
            loop.run_until_complete(future)
        future.set_result(None)
        ran = []
        loop.call_later(0.01, ran.append, 1)
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        assert ran == [1], "the old future stopped the new run"

    def test_the_root_task_is_recognisable(self, loop):
        """anyio finds the root task by this very callback."""
        from asyncio.base_events import _run_until_complete_cb

        async def main():
            return [callback for callback, _ in asyncio.current_task()._callbacks]

        assert _run_until_complete_cb in loop.run_until_complete(main())

    def test_many_runs_of_one_loop(self, loop):
        assert [loop.run_until_complete(value(n)) for n in range(200)] == list(range(200))


# Some 3.13s take the running loop's state away when they refuse.
@pytest.mark.asyncio_wrong((3, 13), (3, 14))
class TestNesting:
    def test_a_running_loop_cannot_run(self, loop):
        async def main():
            with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
                loop.run_forever()
            coro = value()
            with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
                loop.run_until_complete(coro)
            coro.close()
            assert loop.is_running()
            await asyncio.sleep(0)

        loop.run_until_complete(main())

    def test_another_loop_cannot_run_inside(self, loop, loop_factory):
        other = loop_factory()
        expected = "^Cannot run the event loop while another loop is running$"

        async def main():
            with pytest.raises(RuntimeError, match=expected):
                other.run_forever()
            assert asyncio.get_running_loop() is loop
            assert not other.is_running()

        loop.run_until_complete(main())
        other.close()

    def test_a_loop_running_in_another_thread_cannot_run_here(self, loop):
        started = threading.Event()

        def body():
            loop.call_soon(started.set)
            loop.run_forever()

        thread = threading.Thread(target=body)
        thread.start()
        started.wait(10)
        try:
            assert loop.is_running()
            with pytest.raises(RuntimeError, match=r"^This event loop is already running$"):
                loop.run_forever()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class TestState:
    def test_repr(self, loop):
        text = repr(loop)
        assert text == f"<{type(loop).__name__} running=False closed=False debug=False>"
        loop.set_debug(True)
        assert repr(loop).endswith("running=False closed=False debug=True>")
        loop.set_debug(False)
        assert "running=True" in loop.run_until_complete(self._repr_inside())
        loop.close()
        assert "closed=True" in repr(loop)

    async def _repr_inside(self):
        return repr(asyncio.get_running_loop())

    def test_is_an_abstract_event_loop(self, loop):
        assert isinstance(loop, asyncio.AbstractEventLoop)

    def test_hash_weakref_and_attributes(self, loop):
        """What aiofastnet, Sentry, anyio, Tornado and Home Assistant do with a loop."""
        assert {loop: 1}[loop] == 1
        assert weakref.WeakKeyDictionary({loop: 1})[loop] == 1
        loop.some_name = "value"
        assert loop.__dict__["some_name"] == "value"
        del loop.some_name
        assert "some_name" not in loop.__dict__

    def test_methods_can_be_replaced_on_the_instance(self, loop):
        closed = []
        original = loop.close

        def close():
            closed.append(True)
            original()

        loop.close = close
        loop.close()
        assert closed == [True]
        assert loop.is_closed()

    def test_can_be_subclassed(self, loop):
        class Sub(type(loop)):
            def __init__(self):
                super().__init__()
                self.times = 0

            def time(self):
                self.times += 1
                return super().time()

            def call_soon(self, callback, *args, context=None):
                return super().call_soon(callback, *args, context=context)

        sub = Sub()
        try:
            assert sub.run_until_complete(value(3)) == 3
            assert sub.run_until_complete(asyncio.sleep(0.001, "slept")) == "slept"
            assert sub.times > 0
        finally:
            sub.close()

    def test_a_subclass_has_arguments_of_its_own(self, loop):
        class Tagged(type(loop)):
            def __init__(self, tag, *, option=None):
                super().__init__()
                self.tagged = tag, option

        tagged = Tagged("tag", option=1)
        try:
            assert tagged.tagged == ("tag", 1)
            assert tagged.run_until_complete(value(3)) == 3
        finally:
            tagged.close()

    # What was made before the arguments were looked at is freed unclosed.
    @pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
    @pytest.mark.filterwarnings("ignore:Exception ignored.*__del__")
    def test_other_arguments_are_refused(self, loop):
        with pytest.raises(TypeError):
            type(loop)(None, None)
        with pytest.raises(TypeError):
            type(loop)(no_such=True)


class TestClose:
    def test_nothing_runs_on_a_closed_loop(self, loop):
        loop.close()
        expected = "^Event loop is closed$"
        with pytest.raises(RuntimeError, match=expected):
            loop.run_forever()
        coro = value()
        with pytest.raises(RuntimeError, match=expected):
            loop.run_until_complete(coro)
        with pytest.raises(RuntimeError, match=expected):
            loop.create_task(coro)
        coro.close()
        with pytest.raises(RuntimeError, match=expected):
            loop.run_in_executor(None, int)

    @pytest.mark.parametrize("kind", ["stream", "datagram"])
    def test_transports_cannot_resume_reading(self, loop_factory, kind):
        loop = loop_factory()
        near, far = PAIRS["tcp"]()
        if kind == "stream":
            making = loop.connect_accepted_socket(asyncio.Protocol, near)
        else:
            near.close()
            making = loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
            )
        made = [*loop.run_until_complete(making)]
        made[0].pause_reading()
        loop.close()
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            made[0].resume_reading()
        far.close()
        drop_unclosed(made)

    @pytest.mark.parametrize("kind", ["stream", "datagram", "pipe"])
    def test_transports_keep_nothing_that_has_to_wait(self, loop_factory, kind):
        """Nobody would hear that the kernel takes more."""
        loop = loop_factory()
        near, far = socket.socketpair()
        if kind == "stream":
            making = loop.create_connection(asyncio.Protocol, sock=near)
        elif kind == "pipe":
            making = loop.connect_write_pipe(asyncio.Protocol, near)
        else:
            near.close()
            far.close()
            near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
            near.setblocking(False)
            far.bind("")  # the kernel gives it a name
            making = loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=near)
        made = [*loop.run_until_complete(making)]
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

        def fill():
            for _ in range(10_000):
                if kind == "datagram":
                    made[0].sendto(bytes(1000), far.getsockname())
                else:
                    made[0].write(bytes(1000))

        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            fill()
        assert made[0].get_write_buffer_size() == 0
        far.close()
        drop_unclosed(made)

    @pytest.mark.parametrize("subclass", [False, True])
    def test_transports_keep_what_comes_behind_what_waits(self, loop_factory, subclass):
        class Connection(socket.socket):
            pass

        loop = loop_factory()
        near, far = socket.socketpair()
        if subclass:
            near = Connection(fileno=near.detach())
        made = [*loop.run_until_complete(loop.create_connection(asyncio.Protocol, sock=near))]
        while not made[0].get_write_buffer_size():
            made[0].write(bytes(4096))
        size = made[0].get_write_buffer_size()
        loop.close()
        made[0].write(b"more")
        assert made[0].get_write_buffer_size() == size + 4
        far.close()
        drop_unclosed(made)

    def test_pending_callbacks_and_timers_are_dropped(self, loop):
        class Target:
            def method(self):
                raise AssertionError("ran after close")

        target = Target()
        ref = weakref.ref(target)
        loop.call_soon(target.method)
        loop.call_later(60, target.method)
        loop.close()
        del target
        gc.collect()
        assert ref() is None

    def test_frees_the_loop(self, loop_factory):
        loop = loop_factory()
        loop.run_until_complete(value())
        loop.close()
        ref = weakref.ref(loop)
        del loop
        gc.collect()
        assert ref() is None

    def test_does_not_wait_for_the_executor(self, loop):
        release = threading.Event()
        future = loop.run_in_executor(None, release.wait, 10)
        started = time.monotonic()
        loop.close()
        assert time.monotonic() - started < 5
        release.set()
        assert not future.done()


class TestExceptionsThatLeave:
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_from_a_callback_and_the_loop_runs_again(self, loop, kind):
        def callback():
            raise kind("out")

        ran = []
        loop.call_soon(callback)
        loop.call_soon(ran.append, 1)
        with pytest.raises(kind):
            loop.run_forever()
        assert not loop.is_running()
        assert asyncio._get_running_loop() is None
        assert loop.run_until_complete(value("again")) == "again"
        assert ran == [1]

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_from_a_task_and_the_loop_runs_again(self, loop, kind):
        async def main():
            await asyncio.sleep(0)
            raise kind("out")

        with pytest.raises(kind):
            loop.run_until_complete(main())
        assert loop.run_until_complete(value("again")) == "again"

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_from_a_timer_and_the_loop_runs_again(self, loop, kind):
        def callback():
            raise kind

        fired = []
        loop.call_later(0.001, callback)
        loop.call_later(0.005, fired.append, 1)
        with pytest.raises(kind):
            loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0.01))
        assert fired == [1]

    def test_from_a_signal_handler_while_the_loop_sleeps(self, loop):
        class Out(BaseException):
            pass

        def handler(signum, frame):
            raise Out

        previous = signal.signal(signal.SIGUSR1, handler)
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(Out):
                loop.run_until_complete(asyncio.sleep(10))
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
        assert loop.run_until_complete(value("again")) == "again"
        for task in asyncio.all_tasks(loop):
            task.cancel()


class TestAsyncGenerators:
    def test_abandoned_generator_is_closed_by_the_loop(self, loop, run):
        closed = []

        async def generate():
            try:
                yield 1
                yield 2
            finally:
                await asyncio.sleep(0)
                closed.append(asyncio.get_running_loop())

        async def main():
            async for _ in generate():
                break
            gc.collect()
            for _ in range(5):
                await asyncio.sleep(0)

        run(main())
        assert closed == [loop]

    def test_error_while_closing_reaches_the_handler(self, loop, run, unhandled):
        async def generate():
            try:
                yield 1
            finally:
                raise LookupError("in finally")

        async def main():
            generator = generate()
            await anext(generator)
            await loop.shutdown_asyncgens()
            return generator

        generator = run(main())
        context = unhandled.take_one()
        assert context["asyncgen"] is generator
        assert isinstance(context["exception"], LookupError)
        expected = f"an error occurred during closing of asynchronous generator {generator!r}"
        assert context["message"] == expected

    def test_generator_begun_after_shutdown_warns(self, loop, run):
        async def generate():
            yield 1

        async def main():
            await loop.shutdown_asyncgens()
            generator = generate()
            with pytest.warns(ResourceWarning, match="was scheduled after loop.shutdown_asyncgens"):
                await anext(generator)
            await generator.aclose()

        run(main())

    def test_hooks_are_set_during_the_run_only(self, loop, run):
        mine = (lambda agen: None, lambda agen: None)
        sys.set_asyncgen_hooks(*mine)
        try:

            async def main():
                hooks = sys.get_asyncgen_hooks()
                assert hooks.firstiter is not mine[0]
                assert callable(hooks.firstiter)
                assert callable(hooks.finalizer)

            run(main())
            assert tuple(sys.get_asyncgen_hooks()) == mine
        finally:
            sys.set_asyncgen_hooks(None, None)


class TestDefaultExecutor:
    def test_shutdown_waits_for_the_work(self, loop, run):
        done = []

        async def main():
            future = loop.run_in_executor(None, lambda: (time.sleep(0.05), done.append(1)))
            await loop.shutdown_default_executor()
            assert done == [1]
            await future

        run(main())

    def test_nothing_is_accepted_after_shutdown(self, loop, run):
        async def main():
            await loop.shutdown_default_executor()
            with pytest.raises(RuntimeError, match=r"^Executor shutdown has been called$"):
                loop.run_in_executor(None, int)
            with concurrent.futures.ThreadPoolExecutor(1) as own:
                assert await loop.run_in_executor(own, int) == 0

        run(main())

    def test_shutdown_twice(self, loop, run):
        async def main():
            await loop.run_in_executor(None, int)
            await loop.shutdown_default_executor()
            await loop.shutdown_default_executor()

        run(main())

    @pytest.mark.asyncio_since(3, 13)  # 3.12 lets a TimeoutError out, or InvalidStateError
    def test_shutdown_with_a_timeout(self, loop, run):
        release = threading.Event()

        async def main():
            future = loop.run_in_executor(None, release.wait, 20)
            with pytest.warns(RuntimeWarning, match="The executor did not finishing joining"):
                await loop.shutdown_default_executor(0.01)
            release.set()
            assert await future is True

        run(main())
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and "_do_shutdown" in thread.name:
                thread.join()

    @pytest.mark.asyncio_since(3, 13)  # before, it joins the threads, and fails a cancelled future
    def test_shutdown_that_is_cancelled(self, loop, run):
        release = threading.Event()

        async def main():
            future = loop.run_in_executor(None, release.wait, 20)
            shutdown = asyncio.ensure_future(loop.shutdown_default_executor())
            await asyncio.sleep(0)
            shutdown.cancel()
            with pytest.raises(asyncio.CancelledError):
                await shutdown
            assert not future.done()
            release.set()
            assert await future is True

        run(main())

    @pytest.mark.asyncio_since(3, 12)
    def test_shutdown_in_time(self, loop, run):
        async def main():
            await loop.run_in_executor(None, int)
            await loop.shutdown_default_executor(timeout=20)

        run(main())


class TestRunner:
    def test_runner_with_loop_factory(self, loop_factory):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            assert runner.run(value(1)) == 1
            assert type(runner.get_loop()) is type(runner.run(self._loop()))
            loop = runner.get_loop()
        assert loop.is_closed()

    async def _loop(self):
        return asyncio.get_running_loop()

    def test_runner_cancels_what_is_left(self, loop_factory):
        cancelled = []

        async def forever():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def main():
            asyncio.get_running_loop().left = asyncio.create_task(forever())
            await asyncio.sleep(0)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        assert cancelled == [True]

    def test_runner_debug(self, loop_factory):
        async def main():
            return asyncio.get_running_loop().get_debug()

        with asyncio.Runner(debug=True, loop_factory=loop_factory) as runner:
            assert runner.run(main()) is True

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio.run(loop_factory=) is 3.12's")
    def test_asyncio_run_with_loop_factory(self, loop_factory):
        expected = loop_factory()
        expected.close()
        got = asyncio.run(self._loop(), loop_factory=loop_factory)
        assert type(got) is type(expected)
        assert got.is_closed()

    def test_loops_in_many_threads_at_once(self, loop_factory):
        results = []

        async def main(number):
            await asyncio.sleep(0.01)
            results.append(number)

        def body(number):
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                for _ in range(5):
                    runner.run(main(number))

        threads = [threading.Thread(target=body, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == sorted(list(range(8)) * 5)


class TestFailedStart:
    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_leaves_a_loop_that_can_run_and_be_closed(self, loop_name):
        """What an audit hook raises while run_forever() sets up undoes the set-up."""
        done = run_program(
            loop_name,
            """
            import sys

            armed = []

            def hook(event, _):
                if armed and event.startswith("sys.set_asyncgen_hook"):
                    armed.clear()
                    raise KeyboardInterrupt

            sys.addaudithook(hook)
            loop = new_event_loop()
            hooks = sys.get_asyncgen_hooks()
            future = loop.create_future()
            future.set_result(None)
            armed.append(True)
            try:
                loop.run_until_complete(future)
            except KeyboardInterrupt:
                print("interrupted")
            print(loop.is_running(), sys.get_asyncgen_hooks() == hooks)
            print(loop.run_until_complete(asyncio.sleep(0, "again")))
            loop.close()
            """,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "interrupted\nFalse True\nagain\n"

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    @pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, RuntimeError])
    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("call", [1, 2])
    @pytest.mark.parametrize(
        "step",
        [
            (sys, "get_asyncgen_hooks"),
            (sys, "set_asyncgen_hooks"),
            (sys, "get_coroutine_origin_tracking_depth"),
            (sys, "set_coroutine_origin_tracking_depth"),
            (threading, "get_ident"),
            (threading, "main_thread"),
            (signal, "set_wakeup_fd"),
            (asyncio.events, "_get_running_loop"),
            (asyncio.events, "_set_running_loop"),
        ],
        ids=lambda step: step[1],
    )
    def test_each_step_may_fail_once(self, loop, monkeypatch, step, call, when, kind):
        """Of the set-up and of the clean-up, with its effect or without it."""
        module, name = step
        original, calls = getattr(module, name), []

        def failing(*args, **kwargs):
            calls.append(name)
            fails = len(calls) == call
            if fails and when == "before":
                raise kind
            result = original(*args, **kwargs)
            if fails:
                raise kind
            return result

        loop.set_debug(True)
        hooks = sys.get_asyncgen_hooks()
        depth = sys.get_coroutine_origin_tracking_depth()
        outcome, coro = None, asyncio.sleep(0)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, failing)
            try:
                loop.run_until_complete(coro)
            except kind as error:
                outcome = error
        assert (outcome is not None) == (len(calls) >= call)
        assert not loop.is_running()
        assert asyncio._get_running_loop() is None
        assert sys.get_asyncgen_hooks() == hooks
        assert sys.get_coroutine_origin_tracking_depth() == depth
        assert signal.set_wakeup_fd(-1) == -1
        assert loop.run_until_complete(asyncio.sleep(0, "again")) == "again"
        assert signal.set_wakeup_fd(-1) == -1
        assert sys.get_asyncgen_hooks() == hooks
        coro.close()  # where the run failed before it was a task's
        loop.close()
