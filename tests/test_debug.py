"""Debug mode: checks, the slow-callback log, tracebacks of origin, the ways to switch it on."""

import _thread
import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import socket
import sys
import threading
import time

import pytest

from support.peers import until
from support.programs import output_of, run_program


@pytest.fixture
def debug_mode():
    return True


def run_once(loop):
    loop.stop()
    loop.run_forever()


def test_set_and_get(loop):
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop.get_debug() is False
    loop.set_debug(True)
    assert loop.get_debug() is True


def test_default_slow_callback_duration(loop_factory):
    loop = loop_factory()
    assert loop.slow_callback_duration == 0.1
    loop.slow_callback_duration = 0.5
    assert loop.slow_callback_duration == 0.5
    loop.close()


class TestThreadCheck:
    TEXT = "Non-thread-safe operation invoked on an event loop other than the current one"

    @pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at"])
    def test_another_thread_is_refused(self, loop, method):
        errors = []

        def other():
            args = (int,) if method == "call_soon" else (0, int)
            try:
                getattr(loop, method)(*args)
            except RuntimeError as exc:
                errors.append(str(exc))

        async def main():
            thread = threading.Thread(target=other)
            thread.start()
            while thread.is_alive():
                await asyncio.sleep(0.001)
            thread.join()

        loop.run_until_complete(main())
        assert errors == [self.TEXT]

    def test_tasks_may_not_come_from_another_thread(self, loop, unhandled):
        async def main():
            def other():
                coro = asyncio.sleep(0)
                with contextlib.closing(coro):
                    loop.create_task(coro)

            with pytest.raises(RuntimeError, match=re.escape(self.TEXT)):
                await asyncio.to_thread(other)

        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())  # its thread may hold the task
        gc.collect()
        reports = {report["message"] for report in unhandled.take()}
        assert reports <= {"Task was destroyed but it is pending!"}

    def test_a_loop_that_does_not_run_is_not_checked(self, loop):
        thread = threading.Thread(target=loop.call_soon, args=(loop.stop,))
        thread.start()
        thread.join()
        loop.run_forever()

    def test_call_soon_threadsafe_is_not_checked(self, loop):
        async def main():
            future = loop.create_future()

            def other():
                loop.call_soon_threadsafe(future.set_result, 1)

            await asyncio.to_thread(other)
            assert await future == 1

        loop.run_until_complete(main())

    def test_not_checked_without_debug(self, loop):
        loop.set_debug(False)
        ran = []

        async def main():
            await asyncio.to_thread(loop.call_soon, ran.append, 1)
            await asyncio.sleep(0.01)

        loop.run_until_complete(main())
        assert ran == [1]


class TestCallbackCheck:
    @pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_at"])
    def test_coroutine_function(self, loop, method):
        async def coroutine():
            pass

        args = (0,) if method == "call_at" else ()
        expected = rf"^coroutines cannot be used with {method}\(\)$"
        with pytest.raises(TypeError, match=expected):
            getattr(loop, method)(*args, coroutine)

    def test_call_later_speaks_of_call_at(self, loop):
        async def coroutine():
            pass

        with pytest.raises(TypeError, match=r"^coroutines cannot be used with call_at\(\)$"):
            loop.call_later(1, coroutine)

    def test_coroutine_object(self, loop):
        async def coroutine():
            pass

        coro = coroutine()
        with pytest.raises(TypeError, match=r"^coroutines cannot be used with call_soon\(\)$"):
            loop.call_soon(coro)
        coro.close()

    def test_run_in_executor(self, loop):
        async def coroutine():
            pass

        expected = r"^coroutines cannot be used with run_in_executor\(\)$"
        with pytest.raises(TypeError, match=expected):
            loop.run_in_executor(None, coroutine)
        with pytest.raises(TypeError, match=r"^a callable object was expected by run_in_executor"):
            loop.run_in_executor(None, 5)

    def test_not_callable(self, loop):
        with pytest.raises(TypeError) as caught:
            loop.call_soon("no function")
        expected = "a callable object was expected by call_soon(), got 'no function'"
        assert str(caught.value) == expected


class TestSlowCallbacks:
    @pytest.fixture(autouse=True)
    def log(self, loop, caplog):
        caplog.set_level(logging.WARNING, "asyncio")
        loop.slow_callback_duration = 0.01
        return caplog

    def text_about(self, log, name):
        """What was said of that callback; on a busy machine others may be slow as well."""
        (record,) = [record for record in log.records if name in record.getMessage()]
        assert record.name == "asyncio"
        assert record.levelno == logging.WARNING
        return record.getMessage()

    def test_callback(self, loop, log):
        def slow_callback(text):
            time.sleep(0.02)

        loop.call_soon(slow_callback, "argument")
        loop.call_soon(int)
        run_once(loop)
        text = self.text_about(log, "slow_callback")
        assert re.match(r"Executing <Handle .*slow_callback\(.*\) .* took \d+\.\d{3} seconds", text)
        assert "test_debug.py" in text

    def test_timer(self, loop, log):
        loop.call_later(0.001, time.sleep, 0.02)
        loop.call_later(0.002, loop.stop)
        loop.run_forever()
        assert any(
            re.match(r"Executing <TimerHandle when=.* took \d+\.\d{3} seconds", record.getMessage())
            for record in log.records
        )

    def test_task_step_names_the_task(self, loop, log):
        async def slow_coroutine():
            time.sleep(0.02)

        async def main():
            await asyncio.create_task(slow_coroutine(), name="the slow one")

        loop.run_until_complete(main())
        text = self.text_about(log, "<Task finished name='the slow one'")
        assert re.match(r"Executing <Task .* took \d+\.\d{3} seconds", text)
        assert "slow_coroutine" in text

    def test_reader(self, loop, log):
        import socket

        near, far = socket.socketpair()
        with near, far:

            def slow_reader():
                loop.remove_reader(near)
                time.sleep(0.02)
                loop.stop()

            loop.add_reader(near, slow_reader)
            far.send(b"x")
            loop.run_forever()
        assert self.text_about(log, "slow_reader").startswith("Executing <Handle ")

    def test_threshold_is_read_each_time(self, loop, log):
        loop.call_soon(setattr, loop, "slow_callback_duration", 10)
        loop.call_soon(time.sleep, 0.02)
        run_once(loop)
        assert log.records == []

    def test_not_without_debug(self, loop, log):
        loop.set_debug(False)
        loop.call_soon(time.sleep, 0.02)
        run_once(loop)
        assert log.records == []


class TestTracebacks:
    @pytest.mark.parametrize(
        "schedule",
        [
            lambda loop, callback: loop.call_soon(callback),
            lambda loop, callback: loop.call_soon_threadsafe(callback),
            lambda loop, callback: loop.call_later(0, callback),
            lambda loop, callback: loop.call_at(0, callback),
        ],
        ids=["call_soon", "call_soon_threadsafe", "call_later", "call_at"],
    )
    def test_handle_tells_where_it_was_made(self, loop, unhandled, schedule):
        def fail():
            raise LookupError

        handle = schedule(loop, fail)
        last = handle._source_traceback[-1]
        assert last.filename == __file__
        assert last.name == "<lambda>"
        time.sleep(0.001)
        run_once(loop)
        context = unhandled.take_one()
        assert context["source_traceback"][-1].filename == __file__

    def test_call_from_a_thread_without_python_code(self, loop):
        called = []

        async def main():
            _thread.start_new_thread(loop.call_soon_threadsafe, (called.append, "called"))
            await until(lambda: called)

        loop.run_until_complete(main())
        assert called == ["called"]

    @pytest.mark.parametrize("kind", ["reader", "writer", "signal", "protocol", "event"])
    def test_handle_of_an_event_tells_where_it_was_made(self, loop, unhandled, kind):
        near, far = socket.socketpair()
        near.setblocking(False)

        def fail(*_):
            loop.remove_reader(near)
            loop.remove_writer(near)
            raise LookupError

        async def main():
            match kind:
                case "reader":
                    loop.add_reader(near, fail)
                    far.send(b"data")
                case "writer":
                    loop.add_writer(near, fail)
                case "signal":
                    loop.add_signal_handler(signal.SIGUSR1, fail)
                    os.kill(os.getpid(), signal.SIGUSR1)
                case _:
                    protocol = type("Failing", (asyncio.Protocol,), {"connection_lost": fail})
                    transport, _ = await loop.create_connection(protocol, sock=near.dup())
                    if kind == "event":
                        transport.write(bytes(4 << 20))
                        transport.close()
                        far.settimeout(0)
                        while transport.get_write_buffer_size():
                            with contextlib.suppress(BlockingIOError):
                                far.recv(1 << 20)
                            await asyncio.sleep(0)
                    else:
                        transport.abort()
            await until(lambda: unhandled)
            loop.remove_signal_handler(signal.SIGUSR1)

        with near, far:
            loop.run_until_complete(main())
        context = unhandled.take_one()
        assert context.keys() == {"message", "exception", "handle", "source_traceback"}
        assert context["source_traceback"] is context["handle"]._source_traceback
        frames = [frame.name for frame in context["source_traceback"] if frame.filename == __file__]
        assert frames[-1] in ("main", "test_handle_of_an_event_tells_where_it_was_made")

    def test_task_and_future_tell_where_they_were_made(self, loop):
        async def main():
            task = loop.create_task(asyncio.sleep(0))
            future = loop.create_future()
            future.cancel()
            await task
            return task._source_traceback, future._source_traceback

        for traceback in loop.run_until_complete(main()):
            assert any(
                frame.filename == __file__ and frame.name == "main" for frame in traceback[-2:]
            )

    def test_no_traceback_without_debug(self, loop):
        loop.set_debug(False)
        handle = loop.call_soon(int)
        assert handle._source_traceback is None
        run_once(loop)

    def test_default_handler_prints_the_origin(self, loop, caplog):
        loop.set_exception_handler(None)

        def fail():
            raise LookupError("the reason")

        loop.call_soon(fail)
        run_once(loop)
        (record,) = caplog.records
        text = record.getMessage()
        assert "Object created at (most recent call last):" in text
        assert "test_default_handler_prints_the_origin" in text
        assert record.exc_info[0] is LookupError

    def test_default_handler_prints_the_handles_origin(self, loop, caplog):
        loop.set_exception_handler(None)
        loop.call_soon(lambda: loop.call_exception_handler({"message": "from inside"}))
        run_once(loop)
        (record,) = caplog.records
        text = record.getMessage()
        assert text.startswith("from inside\nhandle_traceback: Handle created at (most recent")

    def test_traceback_of_a_task_never_retrieved(self, loop, unhandled):
        async def main():
            asyncio.create_task(self._fail())  # noqa: RUF006 - it is to be forgotten
            await asyncio.sleep(0.01)

        loop.run_until_complete(main())
        gc.collect()
        context = unhandled.take_one()
        assert context["message"] == "Task exception was never retrieved"
        assert any(frame.filename == __file__ for frame in context["source_traceback"])

    async def _fail(self):
        raise LookupError


class TestCoroutineOrigin:
    def test_tracked_during_the_run_only(self, loop):
        async def main():
            return sys.get_coroutine_origin_tracking_depth()

        assert sys.get_coroutine_origin_tracking_depth() == 0
        assert loop.run_until_complete(main()) == 10
        assert sys.get_coroutine_origin_tracking_depth() == 0

    def test_restores_what_was_set_before(self, loop):
        async def main():
            return sys.get_coroutine_origin_tracking_depth()

        sys.set_coroutine_origin_tracking_depth(3)
        try:
            assert loop.run_until_complete(main()) == 10
            assert sys.get_coroutine_origin_tracking_depth() == 3
        finally:
            sys.set_coroutine_origin_tracking_depth(0)

    def test_not_tracked_without_debug(self, loop):
        loop.set_debug(False)

        async def main():
            return sys.get_coroutine_origin_tracking_depth()

        assert loop.run_until_complete(main()) == 0

    def test_set_debug_in_a_running_loop(self, loop):
        async def main():
            loop.set_debug(False)
            await asyncio.sleep(0)
            off = sys.get_coroutine_origin_tracking_depth()
            loop.set_debug(True)
            await asyncio.sleep(0)
            return off, sys.get_coroutine_origin_tracking_depth()

        assert loop.run_until_complete(main()) == (0, 10)
        assert sys.get_coroutine_origin_tracking_depth() == 0

    def test_names_the_origin_of_a_coroutine_never_awaited(self, loop):
        async def forgotten():
            pass

        async def main():
            with pytest.warns(RuntimeWarning, match="was never awaited") as caught:
                forgotten()
            return str(caught[0].message)

        text = loop.run_until_complete(main())
        assert "Coroutine created at (most recent call last)" in text
        assert "test_debug.py" in text


class TestSwitches:
    SOURCE = """
        loop = new_event_loop()
        print(loop.get_debug())
        loop.close()
    """

    def test_environment(self, loop_name):
        assert output_of(loop_name, self.SOURCE, env={"PYTHONASYNCIODEBUG": "1"}) == "True\n"
        assert output_of(loop_name, self.SOURCE, env={"PYTHONASYNCIODEBUG": ""}) == "False\n"

    def test_environment_is_ignored_when_python_ignores_it(self, loop_name):
        output = output_of(loop_name, self.SOURCE, "-E", env={"PYTHONASYNCIODEBUG": "1"})
        assert output == "False\n"

    def test_dev_mode(self, loop_name):
        assert output_of(loop_name, self.SOURCE, "-X", "dev") == "True\n"

    def test_default(self, loop_name):
        assert output_of(loop_name, self.SOURCE) == "False\n"

    def test_unclosed_transport_warns_in_dev_mode(self, loop_name):
        done = run_program(
            loop_name,
            """
            import gc, socket

            async def main():
                near, far = socket.socketpair()
                loop = asyncio.get_running_loop()
                transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
                return far

            loop = new_event_loop()
            far = loop.run_until_complete(main())
            loop.close()
            gc.collect()
            far.close()
            """,
            "-X",
            "dev",
        )
        assert done.returncode == 0, done.stderr
        assert "ResourceWarning: unclosed transport <" in done.stderr

    def test_a_program_in_dev_mode_says_nothing_when_it_is_right(self, loop_name):
        output = output_of(
            loop_name,
            """
            async def serve(reader, writer):
                writer.write(await reader.readexactly(3))
                await writer.drain()
                writer.close()
                await writer.wait_closed()

            async def main():
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"abc")
                print(await reader.read())
                writer.close()
                await writer.wait_closed()
                server.close()
                await server.wait_closed()

            loop = new_event_loop()
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            """,
            "-X",
            "dev",
        )
        assert output == "b'abc'\n"


def test_close_is_logged(loop, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop.close()
    assert any(record.getMessage().startswith("Close <") for record in caplog.records)


def test_sockets_must_be_non_blocking_for_sock_methods_is_not_for_transports(loop, run):
    """A blocking socket given to a transport is made non-blocking, in debug mode too."""
    import socket

    near, far = socket.socketpair()

    async def main():
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
        assert near.gettimeout() == 0
        transport.close()
        await asyncio.sleep(0)

    run(main())
    far.close()


@pytest.mark.parametrize("place", ["instance", "subclass", "instance, while it runs"])
def test_a_cancelled_handle_asks_the_get_debug_of_its_loop(loop_factory, place):
    seen = []

    def cancel(loop):
        handle = loop.call_later(60, seen.append, "what it was")
        handle.cancel()
        return repr(handle)

    async def assign_and_cancel(loop):
        loop.get_debug = lambda: True
        return cancel(loop)

    loop = loop_factory()
    assert "what it was" not in cancel(loop)
    if place == "instance":
        loop.get_debug = lambda: True
        texts = [cancel(loop)]
    elif place == "subclass":
        loop.close()
        loop = type("Curious", (type(loop),), {"get_debug": lambda self: True})()
        texts = [cancel(loop)]
    else:
        texts = [loop.run_until_complete(assign_and_cancel(loop)), cancel(loop)]
    loop.close()
    assert all("what it was" in text for text in texts)
