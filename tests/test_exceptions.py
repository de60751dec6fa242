"""What reaches the exception handler, in which form, and what the default one logs."""

import asyncio
import collections
import contextvars
import gc
import logging
import os
import signal
import sys
import time
import types

import pytest

from support.peers import until
from support.schedules import each_schedule

pytestmark = pytest.mark.both_modes

VAR = contextvars.ContextVar("VAR", default="outside")
#: asyncio asks for no more than ``get``, iteration and items.
MAPPINGS = [
    types.MappingProxyType,
    collections.UserDict,
    collections.ChainMap,
    collections.OrderedDict,
]


def run_once(loop):
    loop.stop()
    loop.run_forever()


def fail(text="the reason"):
    raise LookupError(text)


class TestHandlerOfTheLoop:
    def test_none_by_default(self, loop_factory):
        loop = loop_factory()
        assert loop.get_exception_handler() is None
        loop.close()

    @pytest.mark.parametrize("wrong", [1, "text", object()])
    def test_must_be_callable(self, loop, wrong):
        with pytest.raises(TypeError) as caught:
            loop.set_exception_handler(wrong)
        assert str(caught.value) == f"A callable object or None is expected, got {wrong!r}"

    def test_is_given_the_loop_and_the_context_itself(self, loop):
        got = []
        loop.set_exception_handler(lambda *args: got.append(args))
        context = {"message": "text"}
        loop.call_exception_handler(context)
        ((given_loop, given_context),) = got
        assert given_loop is loop
        assert given_context is context

    @pytest.mark.parametrize("mapping", MAPPINGS)
    def test_context_of_any_mapping(self, loop, mapping):
        got = []
        loop.set_exception_handler(lambda loop, context: got.append(context))
        context = mapping({"message": "text", "handle": None})
        loop.call_exception_handler(context)
        assert got == [context]
        assert got[0] is context

    @pytest.mark.parametrize("wrong", [None, 1, "text", [("message", "text")]])
    def test_context_that_is_no_mapping(self, loop, caplog, wrong):
        got = []
        loop.set_exception_handler(lambda loop, context: got.append(context))
        loop.call_exception_handler(wrong)
        if sys.version_info < (3, 12):
            assert got == [wrong]
            assert caplog.records == []
            return
        # The handler's context is looked for in it.
        assert got == []
        (record,) = caplog.records
        text = f"Unhandled error in exception handler\ncontext: {wrong!r}"
        assert record.getMessage() == text
        assert record.exc_info[0] is AttributeError


class TestContexts:
    def test_callback(self, loop, unhandled):
        handle = loop.call_soon(fail, "in callback")
        run_once(loop)
        context = unhandled.take_one()
        assert context["message"].startswith("Exception in callback ")
        assert " fail(" in context["message"]
        assert str(context["exception"]) == "in callback"
        assert context["handle"] is handle
        assert set(context) - {"source_traceback"} == {"message", "exception", "handle"}

    def test_timer(self, loop, unhandled):
        handle = loop.call_later(0.001, fail)
        loop.call_later(0.003, loop.stop)
        loop.run_forever()
        context = unhandled.take_one()
        assert context["message"].startswith("Exception in callback ")
        assert context["handle"] is handle

    def test_threadsafe(self, loop, unhandled):
        handle = loop.call_soon_threadsafe(fail)
        run_once(loop)
        assert unhandled.take_one()["handle"] is handle

    def test_reader(self, loop, unhandled):
        import socket

        near, far = socket.socketpair()
        with near, far:

            def readable():
                loop.remove_reader(near)
                fail()

            loop.add_reader(near, readable)
            far.send(b"x")
            loop.call_later(0.02, loop.stop)
            loop.run_forever()
        context = unhandled.take_one()
        assert context["message"].startswith("Exception in callback ")
        assert isinstance(context["exception"], LookupError)
        assert isinstance(context["handle"], asyncio.Handle)

    @each_schedule
    def test_callback_that_cancels_its_handle(self, loop, unhandled, schedule):
        """It is not the handle's any more when it raises."""

        def cancel_and_fail():
            handle.cancel()
            seen.append((handle._callback, handle._args, handle.cancelled()))
            fail()

        seen = []
        handle = schedule(loop, cancel_and_fail)
        time.sleep(0.001)
        run_once(loop)
        context = unhandled.take_one()
        assert seen == [(None, None, True)]
        assert context["message"] == "Exception in callback None()"
        assert context["handle"] is handle
        self.check_cancelled(loop, context, "cancel_and_fail")

    @pytest.mark.parametrize("how", ["removed", "replaced"])
    @pytest.mark.parametrize("side", ["reader", "writer"])
    def test_callback_that_cancels_its_watch(self, loop, unhandled, pair, side, how):
        add = getattr(loop, f"add_{side}")
        remove = getattr(loop, f"remove_{side}")
        near, far = pair
        far.send(b"x")

        def end_and_fail():
            if how == "removed":
                remove(near)
            else:
                add(near, remove, near)
            loop.call_soon(loop.stop)
            fail()

        add(near, end_and_fail)
        loop.run_forever()
        remove(near)
        context = unhandled.take_one()
        assert context["message"] == "Exception in callback None()"
        self.check_cancelled(loop, context, "end_and_fail")

    def check_cancelled(self, loop, context, name):
        """In debug mode the handle keeps what it was, as text."""
        shown = repr(context["handle"])
        class_name = context["handle"].__class__.__name__
        assert shown.startswith(f"<{class_name} cancelled")
        assert f"{name}()" in shown if loop.get_debug() else name not in shown
        assert ("created at" in shown) == loop.get_debug()
        assert ("source_traceback" in context) == loop.get_debug()

    def test_signal_handler_that_removes_itself(self, loop, unhandled):
        """Nobody cancels its handle."""

        def remove_and_fail():
            loop.remove_signal_handler(signal.SIGUSR1)
            loop.call_soon(loop.stop)
            fail()

        loop.add_signal_handler(signal.SIGUSR1, remove_and_fail)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        context = unhandled.take_one()
        assert "remove_and_fail()" in context["message"]
        assert "remove_and_fail()" in repr(context["handle"])
        assert "cancelled" not in repr(context["handle"])

    def test_the_loop_goes_on(self, loop, unhandled):
        ran = []
        for number in range(3):
            loop.call_soon(fail, str(number))
            loop.call_soon(ran.append, number)
        run_once(loop)
        assert ran == [0, 1, 2]
        assert [str(context["exception"]) for context in unhandled.take()] == ["0", "1", "2"]

    def test_base_exceptions_other_than_the_two(self, loop, unhandled):
        class Strange(BaseException):
            pass

        def strange():
            raise Strange

        ran = []
        loop.call_soon(strange)
        loop.call_soon(ran.append, 1)
        run_once(loop)
        assert ran == [1]
        assert isinstance(unhandled.take_one()["exception"], Strange)

    def test_cancelled_error_from_a_callback(self, loop, unhandled):
        def cancelled():
            raise asyncio.CancelledError

        loop.call_soon(cancelled)
        run_once(loop)
        assert isinstance(unhandled.take_one()["exception"], asyncio.CancelledError)

    def test_task_never_retrieved(self, loop, unhandled):
        async def main():
            fail("in task")

        task = loop.create_task(main())
        run_once(loop)
        del task
        gc.collect()
        context = unhandled.take_one()
        assert context["message"] == "Task exception was never retrieved"
        assert str(context["exception"]) == "in task"
        assert isinstance(context["future"], asyncio.Task)

    def test_pending_task_destroyed(self, loop, unhandled):
        class Never:
            def __await__(self):
                yield from asyncio.get_running_loop().create_future()

        async def main():
            await Never()

        task = loop.create_task(main())
        run_once(loop)
        del task
        gc.collect()
        context = unhandled.take_one()
        assert context["message"] == "Task was destroyed but it is pending!"

    def test_future_never_retrieved(self, loop, unhandled):
        future = loop.create_future()
        future.set_exception(LookupError("in future"))
        del future
        gc.collect()
        context = unhandled.take_one()
        assert context["message"] == "Future exception was never retrieved"

    @pytest.mark.skipif(
        sys.version_info < (3, 12), reason="3.11 calls it in the loop's own context"
    )
    def test_handler_runs_in_the_context_of_the_callback(self, loop):
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(VAR.get()))
        context = contextvars.copy_context()
        context.run(VAR.set, "inside")
        loop.call_soon(fail, context=context)
        run_once(loop)
        assert seen == ["inside"]

    @pytest.mark.skipif(
        sys.version_info < (3, 12), reason="3.11 calls it in the loop's own context"
    )
    def test_handler_runs_in_the_context_of_the_task(self, loop):
        seen = []
        loop.set_exception_handler(lambda loop, context: seen.append(VAR.get()))

        async def main():
            VAR.set("inside the task")
            fail()

        task = loop.create_task(main())
        run_once(loop)
        del task
        gc.collect()
        assert seen == ["inside the task"]


class TestHandlerThatRaises:
    def test_is_logged_with_the_context(self, loop, caplog):
        def handler(loop, context):
            raise ZeroDivisionError("in handler")

        loop.set_exception_handler(handler)
        loop.call_soon(fail)
        ran = []
        loop.call_soon(ran.append, 1)
        run_once(loop)
        (record,) = caplog.records
        assert record.name == "asyncio"
        assert record.getMessage().startswith("Unhandled error in exception handler\ncontext: {")
        assert record.exc_info[0] is ZeroDivisionError
        assert ran == [1]

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
    def test_keyboard_interrupt_and_system_exit_leave(self, loop, kind):
        def handler(loop, context):
            raise kind

        loop.set_exception_handler(handler)
        with pytest.raises(kind):
            loop.call_exception_handler({"message": "text"})
        loop.call_soon(fail)
        with pytest.raises(kind):
            loop.run_forever()

    def test_default_handler_overridden_and_raising(self, loop_factory, caplog):
        class Sub(type(self._loop_of(loop_factory))):
            def default_exception_handler(self, context):
                raise ZeroDivisionError("in default")

        loop = Sub()
        loop.call_exception_handler({"message": "text"})
        (record,) = caplog.records
        assert record.getMessage() == "Exception in default exception handler"
        caplog.clear()
        loop.set_exception_handler(lambda loop, context: fail())
        loop.call_exception_handler({"message": "text"})
        (record,) = caplog.records
        assert record.getMessage() == (
            "Exception in default exception handler while handling"
            " an unexpected error in custom exception handler"
        )
        loop.close()

    def _loop_of(self, loop_factory):
        loop = loop_factory()
        loop.close()
        return loop


class TestDefaultHandler:
    @pytest.fixture(autouse=True)
    def default_handler(self, loop):
        loop.set_exception_handler(None)

    def test_callback(self, loop, caplog):
        loop.call_soon(fail, "to be logged")
        run_once(loop)
        (record,) = caplog.records
        assert record.name == "asyncio"
        assert record.levelno == logging.ERROR
        text = record.getMessage()
        # Outside of debug mode newer Pythons leave out the arguments.
        assert text.startswith("Exception in callback fail(")
        assert "\nhandle: <Handle fail(" in text
        kind, exception, traceback = record.exc_info
        assert kind is LookupError
        assert str(exception) == "to be logged"
        assert traceback is exception.__traceback__

    def test_lines_are_sorted_by_key(self, loop, caplog):
        loop.call_exception_handler({"zebra": 1, "message": "Message", "apple": "2"})
        (record,) = caplog.records
        assert record.getMessage() == "Message\napple: '2'\nzebra: 1"
        assert not record.exc_info

    @pytest.mark.parametrize("context", [{}, {"message": ""}, {"message": None}])
    def test_without_a_message(self, loop, caplog, context):
        loop.call_exception_handler(context)
        (record,) = caplog.records
        assert record.getMessage() == "Unhandled exception in event loop"

    @pytest.mark.parametrize("mapping", MAPPINGS)
    @pytest.mark.parametrize("method", ["call_exception_handler", "default_exception_handler"])
    def test_any_mapping(self, loop, caplog, mapping, method):
        exception = LookupError("the reason")
        context = mapping({"zebra": 1, "message": "Message", "exception": exception, "apple": 2})
        getattr(loop, method)(context)
        (record,) = caplog.records
        assert record.getMessage() == "Message\napple: 2\nzebra: 1"
        assert record.exc_info[1] is exception

    def test_asks_a_mapping_for_its_own_items(self, loop, caplog):
        class Translated(dict):
            def get(self, key, default=None):
                return f"got {key}" if key == "message" else default

            def __iter__(self):
                return iter(["listed"])

            def __getitem__(self, key):
                return f"item {key}"

        loop.default_exception_handler(Translated(message="hidden", other=1))
        (record,) = caplog.records
        assert record.getMessage() == "got message\nlisted: 'item listed'"

    def test_mapping_that_takes_no_handle_traceback(self, loop, caplog):
        """In debug mode the default handler adds to the context that it is given."""
        context = types.MappingProxyType({"message": "Message"})
        loop.call_soon(loop.call_exception_handler, context)
        run_once(loop)
        (record,) = caplog.records
        if loop.get_debug():
            assert record.getMessage() == "Exception in default exception handler"
            assert record.exc_info[0] is TypeError
        else:
            assert record.getMessage() == "Message"

    @pytest.mark.parametrize("wrong", [None, 1, "text", [("message", "text")]])
    def test_no_mapping(self, loop, caplog, wrong):
        loop.call_exception_handler(wrong)
        (record,) = caplog.records
        assert record.getMessage() == "Exception in default exception handler"
        assert record.exc_info[0] is AttributeError
        with pytest.raises(AttributeError, match=r"object has no attribute 'get'$"):
            loop.default_exception_handler(wrong)

    def test_can_be_called_by_a_custom_handler(self, loop, caplog):
        loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
        loop.call_exception_handler({"message": "passed on"})
        (record,) = caplog.records
        assert record.getMessage() == "passed on"

    def test_context_that_cannot_be_printed(self, loop, caplog):
        class Unprintable:
            def __repr__(self):
                raise ZeroDivisionError("no repr")

        loop.call_exception_handler({"message": "text", "thing": Unprintable()})
        (record,) = caplog.records
        assert record.getMessage() == "Exception in default exception handler"
        assert record.exc_info[0] is ZeroDivisionError

    @pytest.mark.parametrize("custom", [False, True])
    def test_fails_itself(self, loop, caplog, monkeypatch, custom):
        """The logger is called from the clause that caught the exception."""
        calls = []

        def error(*args, **kwargs):
            calls.append((args, kwargs, sys.exc_info()[1]))

        def fail(context):
            raise ZeroDivisionError

        monkeypatch.setattr(logging.getLogger("asyncio"), "error", error)
        monkeypatch.setattr(loop, "default_exception_handler", fail, raising=False)
        if custom:
            loop.set_exception_handler(lambda loop, context: 1 / 0)
        loop.call_exception_handler({"message": "text"})
        ((message,), kwargs, exception) = calls.pop()
        assert message.startswith("Exception in default exception handler")
        assert kwargs == {"exc_info": True}
        assert type(exception) is ZeroDivisionError
        assert isinstance(exception.__context__, ZeroDivisionError) == custom
        assert sys.exc_info() == (None, None, None)

    def test_logging_config_of_the_program_applies(self, loop, caplog):
        logger = logging.getLogger("asyncio")
        logger.disabled = True
        try:
            loop.call_exception_handler({"message": "text"})
        finally:
            logger.disabled = False
        assert caplog.records == []

    def test_keyboard_interrupt_in_repr_leaves(self, loop):
        class Interrupting:
            def __repr__(self):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            loop.call_exception_handler({"message": "text", "thing": Interrupting()})


class TestWhatIsHandled:
    """A handler is called from the clause that caught the exception, and may log as from there."""

    @pytest.fixture
    def handled(self, loop):
        handled = []

        def handler(loop, context):
            assert sys.exc_info()[1] is context["exception"]
            assert context["exception"].__traceback__ is not None
            handled.append(type(context["exception"]))

        loop.set_exception_handler(handler)
        yield handled
        assert sys.exc_info() == (None, None, None)

    def test_callbacks(self, loop, run, pair, handled):
        near, far = pair

        def read():
            near.recv(1)
            raise ZeroDivisionError

        async def main():
            loop.call_soon(fail)
            loop.call_later(0, fail)
            loop.call_soon_threadsafe(fail)
            future = loop.create_future()
            future.add_done_callback(lambda future: fail())
            future.set_result(None)
            await until(lambda: handled == [LookupError] * 4)
            loop.add_reader(near, read)
            far.send(b"x")
            await until(lambda: handled[4:] == [ZeroDivisionError])
            loop.remove_reader(near)

        run(main())

    @pytest.mark.parametrize("failing", ["connection_made", "data_received", "connection_lost"])
    def test_protocols(self, loop, run, pair, handled, failing):
        near, far = pair

        async def main():
            protocol = type("Failing", (asyncio.Protocol,), {failing: lambda *args: fail()})
            transport, _ = await loop.create_connection(protocol, sock=near)
            far.send(b"x")
            if failing == "connection_lost":
                transport.close()
            await until(lambda: handled == [LookupError])
            transport.abort()

        run(main())

    def test_datagrams(self, loop, run, handled):
        async def main():
            class Failing(asyncio.DatagramProtocol):
                def datagram_received(self, data, address):
                    fail()

            far, _ = await loop.create_datagram_endpoint(Failing, ("127.0.0.1", 0))
            near, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=far.get_extra_info("sockname")
            )
            near.sendto(b"data")
            await until(lambda: handled == [LookupError])
            near.abort()
            far.abort()

        run(main())

    def test_what_a_handler_raises_has_a_context(self, loop, caplog):
        def handler(loop, context):
            raise ZeroDivisionError

        loop.set_exception_handler(handler)
        loop.call_soon(fail)
        run_once(loop)
        (record,) = caplog.records
        assert record.exc_info[0] is ZeroDivisionError
        assert type(record.exc_info[1].__context__) is LookupError

    def test_what_was_handled_before_is_again(self, loop, handled):
        before = KeyError()
        try:
            raise before
        except KeyError:
            loop.call_soon(fail)
            run_once(loop)
            after = sys.exc_info()[1]
        assert after is before
        assert handled == [LookupError]


def test_exception_is_not_kept_by_the_loop(loop, unhandled):
    import weakref

    class ReasonError(Exception):
        pass

    refs = []

    def raising():
        exception = ReasonError()
        refs.append(weakref.ref(exception))
        raise exception

    loop.call_soon(raising)
    run_once(loop)
    unhandled.take()
    run_once(loop)
    gc.collect()
    assert refs[0]() is None
