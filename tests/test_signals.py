"""add_signal_handler, plain signal handlers, and Ctrl-C in real programs."""

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import signal
import socket
import threading
import time

import pytest

from support.peers import until
from support.programs import output_of, run_program, start_program, until_asleep


@pytest.fixture(autouse=True)
def dispositions_as_before():
    watched = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in watched]
    yield
    assert [signal.getsignal(number) for number in watched] == before


def send(number):
    os.kill(os.getpid(), number)


send_from_c = ctypes.CDLL(None)["raise"]  # CPython does not know that it sends a signal


class Callbacks:
    """Callbacks of several kinds that call a function, in Python code or in nothing but C."""

    KINDS = ("function", "method", "builtin", "partial")

    def __init__(self, function, *args):
        self._function, self._args = function, args

    def method(self):
        self._function(*self._args)

    def of(self, kind):
        def function():
            self.method()

        match kind:
            case "function":
                return (function,)
            case "method":
                return (self.method,)
            case "partial":
                return (functools.partial(self._function, *self._args),)
        return (self._function, *self._args)


class TestAddSignalHandler:
    def test_is_called(self, loop, run):
        got = []

        async def main():
            assert loop.add_signal_handler(signal.SIGUSR1, got.append, "one") is None
            send(signal.SIGUSR1)
            await until(lambda: got)
            assert loop.remove_signal_handler(signal.SIGUSR1) is True

        run(main())
        assert got == ["one"]

    def test_beside_a_python_handler_of_the_program(self, loop, run):
        """It replaces what CPython calls, and the loop hears of the signal all the same."""
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, got.append, "loop")
            signal.signal(signal.SIGUSR1, lambda *_: got.append("program"))
            send(signal.SIGUSR1)
            for _ in range(10):  # the loop is busy, and has nothing else to ask the kernel for
                await asyncio.sleep(0)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert got == ["program", "loop"]

    def test_is_called_in_the_loop(self, loop, run):
        got = []

        def handler():
            got.append((asyncio.get_running_loop(), threading.current_thread()))

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, handler)
            send(signal.SIGUSR1)
            assert got == []
            await until(lambda: got)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert got == [(loop, threading.main_thread())]

    def test_wakes_a_sleeping_loop(self, loop, run):
        async def main():
            future = loop.create_future()
            loop.add_signal_handler(signal.SIGUSR1, future.set_result, "woken")
            timer = threading.Timer(0.03, send, (signal.SIGUSR1,))
            timer.start()
            started = time.monotonic()
            assert await future == "woken"
            assert time.monotonic() - started < 10
            timer.join()
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())

    def test_replaced(self, loop, run):
        old, new = [], []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, old.append, 1)
            loop.add_signal_handler(signal.SIGUSR1, new.append, 1)
            send(signal.SIGUSR1)
            await until(lambda: new)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert old == []

    def test_several_signals(self, loop, run):
        got = []

        async def main():
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                loop.add_signal_handler(number, got.append, number)
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                send(number)
            await until(lambda: len(got) == 3)
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                assert loop.remove_signal_handler(number) is True

        run(main())
        assert set(got) == {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP}

    def test_many_of_one_signal(self, loop, run):
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
            for _ in range(20):
                count = len(got)
                send(signal.SIGUSR1)
                await until(lambda count=count: len(got) > count)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert len(got) >= 20

    def test_sigint(self, loop, run):
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGINT, got.append, 1)
            send(signal.SIGINT)
            await until(lambda: got)
            assert loop.remove_signal_handler(signal.SIGINT) is True

        run(main())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_exception_in_the_handler(self, loop, run, unhandled):
        def fail():
            raise LookupError("in signal handler")

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, fail)
            send(signal.SIGUSR1)
            await until(lambda: unhandled)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        context = unhandled.take_one()
        assert isinstance(context["exception"], LookupError)
        assert context["message"].startswith("Exception in callback ")

    def test_removed_while_the_call_is_queued(self, loop, run):
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
            loop.remove_signal_handler(signal.SIGUSR1)
            signal.signal(signal.SIGUSR1, lambda number, frame: got.append(2))
            send(signal.SIGUSR1)
            await until(lambda: got)
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)

        run(main())
        assert got == [2]


class TestRemove:
    def test_never_added(self, loop):
        assert loop.remove_signal_handler(signal.SIGUSR1) is False

    def test_close_removes_all(self, loop):
        loop.add_signal_handler(signal.SIGUSR1, int)
        loop.add_signal_handler(signal.SIGINT, int)
        loop.close()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class TestRefusals:
    @pytest.mark.parametrize("number", [0, -1, 65, 1000])
    def test_number_out_of_range(self, loop, number):
        for method in (lambda n: loop.add_signal_handler(n, int), loop.remove_signal_handler):
            with pytest.raises(ValueError, match="invalid signal number"):
                method(number)

    @pytest.mark.parametrize("number", ["SIGUSR1", None, 1.5])
    def test_not_a_number(self, loop, number):
        for method in (lambda n: loop.add_signal_handler(n, int), loop.remove_signal_handler):
            with pytest.raises(TypeError, match=r"sig must be an int, not"):
                method(number)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
    def test_signals_that_cannot_be_caught(self, loop, number):
        with pytest.raises(RuntimeError, match=rf"^sig {number} cannot be caught$"):
            loop.add_signal_handler(number, int)

    @pytest.mark.both_modes
    def test_coroutine_function(self, loop):
        async def coroutine():
            pass

        with pytest.raises(TypeError, match=r"^coroutines cannot be used with add_signal_handler"):
            loop.add_signal_handler(signal.SIGUSR1, coroutine)
        coro = coroutine()
        with pytest.raises(TypeError, match=r"^coroutines cannot be used with add_signal_handler"):
            loop.add_signal_handler(signal.SIGUSR1, coro)
        coro.close()

    def test_closed_loop(self, loop):
        loop.close()
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            loop.add_signal_handler(signal.SIGUSR1, int)

    def test_other_thread(self, loop_factory):
        errors = []

        def body():
            loop = loop_factory()
            try:
                loop.add_signal_handler(signal.SIGUSR1, int)
            except (RuntimeError, ValueError) as exc:
                errors.append(exc)
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        (error,) = errors
        assert isinstance(error, RuntimeError)
        assert "set_wakeup_fd only works in main thread" in str(error)


class TestPlainHandlers:
    """signal.signal is all that uvicorn, Runner and ipykernel use."""

    def test_runs_while_the_loop_sleeps(self, loop, run):
        async def main():
            future = loop.create_future()

            def handler(number, frame):
                loop.call_soon_threadsafe(future.set_result, number)

            previous = signal.signal(signal.SIGUSR1, handler)
            timer = threading.Timer(0.03, send, (signal.SIGUSR1,))
            timer.start()
            loop.call_later(5, int)  # should the signal come just before asyncio falls asleep
            started = time.monotonic()
            assert await future == signal.SIGUSR1
            assert time.monotonic() - started < 10
            timer.join()
            signal.signal(signal.SIGUSR1, previous)

        run(main())

    def test_runs_while_the_loop_is_busy(self, loop, run):
        got = []
        previous = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))

        async def main():
            send(signal.SIGUSR1)
            await until(lambda: got)

        run(main())
        signal.signal(signal.SIGUSR1, previous)

    def test_c_handler_runs_in_a_thread_without_python_code(self, loop, run):
        """The loop's thread is told of it though it never waits: CPython itself tells it only when
        it takes the GIL, up to 3.12."""
        libc, thread, got = ctypes.CDLL(None), ctypes.c_ulong(), []

        async def main():
            signal.pthread_kill(thread.value, signal.SIGUSR1)
            turns = 0
            while not got and turns < 1_000_000:
                turns += 1
                await asyncio.sleep(0)
            return turns < 1_000_000

        with handled_by(lambda number, frame: got.append(number)):
            assert libc.pthread_create(ctypes.byref(thread), None, libc.pause, None) == 0
            was_told = run(main())
        libc.pthread_cancel(thread)
        libc.pthread_join(thread, None)
        assert was_told
        assert got == [signal.SIGUSR1]

    def test_exception_leaves_run_forever(self, loop):
        class LeaveError(Exception):
            pass

        def handler(number, frame):
            raise LeaveError

        previous = signal.signal(signal.SIGUSR1, handler)
        timer = threading.Timer(0.03, send, (signal.SIGUSR1,))
        timer.start()
        loop.call_later(5, int)  # should the signal come just before asyncio falls asleep
        try:
            with pytest.raises(LeaveError):
                loop.run_forever()
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
        assert loop.run_until_complete(asyncio.sleep(0, "again")) == "again"

    def test_ignored_signals_do_no_harm(self, loop, run):
        previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)

        async def main():
            timer = threading.Timer(0.01, send, (signal.SIGUSR1,))
            timer.start()
            before = time.monotonic()
            await asyncio.sleep(0.03)
            assert time.monotonic() - before >= 0.03
            timer.join()

        run(main())
        signal.signal(signal.SIGUSR1, previous)

    def test_storm_of_signals_ends_no_sleep_early(self, loop, run):
        hits = []
        previous = signal.signal(signal.SIGUSR2, lambda number, frame: hits.append(1))

        async def main():
            stop = threading.Event()

            def storm():
                while not stop.wait(0.001):
                    send(signal.SIGUSR2)

            thread = threading.Thread(target=storm)
            thread.start()
            for _ in range(10):
                before = loop.time()
                await asyncio.sleep(0.005)
                assert loop.time() - before >= 0.005 - 1e-6
            stop.set()
            thread.join()

        run(main())
        signal.signal(signal.SIGUSR2, previous)
        assert hits


class SendsWhenFreed:
    """CPython looks for signals behind a call that Python code makes, but not behind this."""

    __del__ = staticmethod(functools.partial(send_from_c, signal.SIGUSR1))


def ends_with_a_signal():
    sends = SendsWhenFreed()  # noqa: F841 - freed behind the last look of the function


@contextlib.contextmanager
def handled_by(handler):
    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


class TestBetweenCallbacks:
    """A plain handler runs before the next callback, whatever kind that and the last one are."""

    @pytest.fixture(params=[*Callbacks.KINDS, "end of a function"])
    def last(self, request):
        if request.param == "end of a function":
            return (ends_with_a_signal,)
        return Callbacks(send_from_c, signal.SIGUSR1).of(request.param)

    @pytest.fixture(params=Callbacks.KINDS)
    def kind(self, request):
        return request.param

    @pytest.fixture(params=["one batch", "two batches"])
    def schedule(self, request, loop):
        """Schedules the callback that the loop runs behind `last`."""

        def schedule(last, following):
            if request.param == "two batches":
                loop.call_soon(loop.call_soon, *following)
            loop.call_soon(*last)
            if request.param == "one batch":
                loop.call_soon(*following)

        return schedule

    @staticmethod
    def run_until_interrupted(loop):
        with handled_by(signal.default_int_handler), pytest.raises(KeyboardInterrupt):
            loop.run_forever()

    def test_the_handler_comes_first(self, loop, schedule, last, kind):
        order = []
        with handled_by(lambda *_: order.append("handler")):
            schedule(last, Callbacks(order.append, "callback").of(kind))
            loop.run_until_complete(asyncio.sleep(0.001))
        assert order == ["handler", "callback"]

    def test_keyboard_interrupt_takes_no_callback_along(self, loop, schedule, last, kind):
        order = []
        schedule(last, Callbacks(order.append, "callback").of(kind))
        self.run_until_interrupted(loop)
        assert order == []
        loop.run_until_complete(asyncio.sleep(0.001))
        assert order == ["callback"]

    # 3.14's loop still calls itself running behind such an interruption.
    @pytest.mark.asyncio_wrong((3, 14), (3, 15))
    def test_what_a_handle_held_is_freed_before_the_next_batch(self, loop, kind):
        order = []
        loop.call_soon(loop.call_soon, *Callbacks(order.append, "callback").of(kind))
        loop.call_soon(id, SendsWhenFreed())
        self.run_until_interrupted(loop)
        assert order == []
        loop.run_until_complete(asyncio.sleep(0.001))
        assert order == ["callback"]

    def test_the_next_event_is_not_lost(self, loop):
        received = []

        class Receiver(asyncio.Protocol):
            def data_received(self, data):
                received.append(data)
                if len(received) == 1:
                    ends_with_a_signal()

        async def connect(sock):
            await loop.create_connection(Receiver, sock=sock)

        near, far = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        for sock in near:
            loop.run_until_complete(connect(sock))
        for sock in far:
            sock.send(b"data")
        self.run_until_interrupted(loop)
        assert len(received) == 1
        loop.run_until_complete(asyncio.sleep(0.001))
        assert received == [b"data"] * 3
        for sock in far:
            sock.close()
        loop.run_until_complete(asyncio.sleep(0.001))

    def test_an_exception_is_the_last_callbacks(self, loop, schedule, last, kind):
        class HandlerError(Exception):
            pass

        def handler(number, frame):
            raise HandlerError

        order, reports = [], []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        with handled_by(handler):
            schedule(last, Callbacks(order.append, "callback").of(kind))
            loop.run_until_complete(asyncio.sleep(0.001))
        assert order == ["callback"]
        [report] = reports
        assert report.keys() == {"message", "exception", "handle"}
        assert report["message"].startswith("Exception in callback ")
        assert type(report["exception"]) is HandlerError


class TestWhatElseWaits:
    """Between callbacks of nothing but C, asyncio's own Python code lets others have their turn."""

    @pytest.fixture(params=["bare", "beside a connection"])
    def schedule(self, request, loop):
        """Schedules a callback that schedules itself, for ever, without a bytecode."""
        endless = functools.partial(loop.call_soon)
        endless.__setstate__((loop.call_soon, (endless,), {}, {}))
        near, far = socket.socketpair()
        if request.param != "bare":
            loop.add_reader(near, print)
        yield lambda: loop.call_soon(endless)
        loop.remove_reader(near)
        near.close()
        far.close()

    @pytest.mark.parametrize("in_thread", [False, True])
    def test_another_thread(self, loop, schedule, in_thread):
        order = []

        def stop():
            order.append("thread")
            loop.call_soon_threadsafe(loop.stop)

        schedule()
        loop.call_later(20, order.append, "too late")
        loop.call_later(20, loop.stop)
        stopper = threading.Timer(0.05, stop)
        stopper.start()
        if in_thread:
            runner = threading.Thread(target=loop.run_forever)
            runner.start()
            runner.join()
        else:
            loop.run_forever()
        stopper.join()
        assert order == ["thread"]

    def test_a_pending_call(self, loop, schedule):
        order = []
        call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: order.append("call") or 0)
        schedule()
        loop.call_soon(ctypes.pythonapi.Py_AddPendingCall, call, None)
        loop.call_later(0.1, order.append, "timer")
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
        assert order == ["call", "timer"]


class TestWakeupFd:
    def test_programs_own_wakeup_fd_is_given_back(self, loop, run):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        signal.set_wakeup_fd(near.fileno(), warn_on_full_buffer=False)
        try:
            run(asyncio.sleep(0.001))
            assert signal.set_wakeup_fd(-1) == near.fileno()
        finally:
            signal.set_wakeup_fd(-1)
            near.close()
            far.close()


class TestPrograms:
    def test_ctrl_c_cancels_the_main_task(self, loop_name):
        program = start_program(
            loop_name,
            """
            async def main():
                print("ready", flush=True)
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    print("cancelled", flush=True)
                    raise

            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(main())
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            """,
        )
        assert program.stdout.readline() == "ready\n"
        until_asleep(program)
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=20)
        assert (output, errors) == ("cancelled\ninterrupted\n", "")
        assert program.returncode == 0

    def test_ctrl_c_without_a_runner_leaves_run_forever(self, loop_name):
        program = start_program(
            loop_name,
            """
            loop = new_event_loop()
            loop.call_soon(lambda: print("ready", flush=True))
            try:
                loop.run_forever()
            except KeyboardInterrupt:
                print("interrupted", loop.is_running(), flush=True)
            print(loop.run_until_complete(asyncio.sleep(0.001, "again")), flush=True)
            loop.close()
            """,
        )
        assert program.stdout.readline() == "ready\n"
        until_asleep(program)
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=20)
        assert (output, errors) == ("interrupted False\nagain\n", "")

    def test_unhandled_ctrl_c_ends_the_process_as_python_does(self, loop_name):
        program = start_program(
            loop_name,
            """
            async def main():
                print("ready", flush=True)
                await asyncio.sleep(60)

            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(main())
            """,
        )
        assert program.stdout.readline() == "ready\n"
        until_asleep(program)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=20)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert program.returncode == -signal.SIGINT

    def test_sigterm_ends_the_process(self, loop_name):
        program = start_program(
            loop_name,
            """
            loop = new_event_loop()
            loop.call_soon(lambda: print("ready", flush=True))
            loop.run_forever()
            """,
        )
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=20)
        assert program.returncode == -signal.SIGTERM

    def test_ctrl_c_while_python_code_holds_the_loop(self, loop_name):
        program = start_program(
            loop_name,
            """
            def spin():
                print("ready", flush=True)
                while True:
                    pass

            loop = new_event_loop()
            loop.call_soon(spin)
            try:
                loop.run_forever()
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            loop.close()
            """,
        )
        assert program.stdout.readline() == "ready\n"
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=20)
        assert (output, errors) == ("interrupted\n", "")

    def test_signal_before_the_loop_runs(self, loop_name):
        output = output_of(
            loop_name,
            """
            import os, signal

            loop = new_event_loop()
            loop.add_signal_handler(signal.SIGUSR1, lambda: (print("got it"), loop.stop()))
            os.kill(os.getpid(), signal.SIGUSR1)
            loop.run_forever()
            loop.close()
            """,
        )
        assert output == "got it\n"

    def test_handlers_do_not_survive_into_a_child(self, loop_name):
        """A child started by a program with handlers dies of the signal it is sent."""
        output = output_of(
            loop_name,
            """
            import signal, subprocess, sys

            loop = new_event_loop()
            loop.add_signal_handler(signal.SIGTERM, int)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            child.terminate()
            print(child.wait(20))
            loop.close()
            """,
        )
        assert output == f"{-signal.SIGTERM}\n"

    def test_handlers_interrupt_no_system_calls(self, loop_name):
        """siginterrupt is off: a blocking call in another thread is not broken off."""
        done = run_program(
            loop_name,
            """
            import os, signal, threading

            read, write = os.pipe()
            got = []
            thread = threading.Thread(target=lambda: got.append(os.read(read, 10)))

            async def main():
                loop = asyncio.get_running_loop()
                future = loop.create_future()
                loop.add_signal_handler(signal.SIGUSR1, future.set_result, 1)
                thread.start()
                signal.pthread_kill(thread.ident, signal.SIGUSR1)
                await future
                os.write(write, b"data")
                await asyncio.to_thread(thread.join)
                print(got)

            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(main())
            """,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[b'data']\n"


class TestManyLoops:
    """A process has one wake-up descriptor, whatever loops it has."""

    def test_a_signal_for_a_loop_while_another_runs(self, loop, loop_factory):
        got = []
        loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
        other = loop_factory()

        async def main():
            send(signal.SIGUSR1)
            await asyncio.sleep(0.03)

        other.run_until_complete(main())
        other.close()
        assert got == []

        async def rest():
            await until(lambda: got)

        loop.run_until_complete(rest())
        assert got == [1]
        loop.remove_signal_handler(signal.SIGUSR1)

    def test_a_closed_loop_leaves_the_other_its_signals(self, loop, loop_factory):
        got = []
        other = loop_factory()
        other.add_signal_handler(signal.SIGUSR2, got.append, "other")
        other.close()
        loop.add_signal_handler(signal.SIGUSR1, got.append, "loop")

        async def main():
            send(signal.SIGUSR1)
            await until(lambda: got)

        loop.run_until_complete(main())
        assert got == ["loop"]
        loop.remove_signal_handler(signal.SIGUSR1)

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_each_gets_its_own(self, loop, loop_factory):
        got = []
        other = loop_factory()
        loop.add_signal_handler(signal.SIGUSR1, got.append, "loop")
        other.add_signal_handler(signal.SIGUSR2, got.append, "other")

        async def main():
            send(signal.SIGUSR1)
            send(signal.SIGUSR2)
            await until(lambda: got)

        loop.run_until_complete(main())
        assert got == ["loop"]

        async def rest():
            await until(lambda: len(got) == 2)

        other.run_until_complete(rest())
        assert got == ["loop", "other"]
        other.remove_signal_handler(signal.SIGUSR2)
        other.close()
        loop.remove_signal_handler(signal.SIGUSR1)

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_many_signals_displace_none(self, loop, run):
        """More than a socket pair has room for, within one callback."""
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, int)
            loop.add_signal_handler(signal.SIGTERM, got.append, 1)
            for _ in range(100_000):
                signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: got)
            loop.remove_signal_handler(signal.SIGUSR1)
            loop.remove_signal_handler(signal.SIGTERM)

        run(main())
        assert got == [1]

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_a_full_channel_displaces_none(self, loop_name):
        """Signals that arrive while no Python code runs, and more than there is room for."""
        done = run_program(
            loop_name,
            """
            import contextlib, fcntl, signal, threading

            several, once = signal.SIGRTMIN, signal.SIGTERM
            got = []

            def shrink_channel():
                fd = signal.set_wakeup_fd(-1)
                with contextlib.suppress(OSError):  # it is no pipe
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
                signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

            def flood():
                signal.pthread_sigmask(signal.SIG_BLOCK, {several, once})
                for _ in range(5000):
                    signal.pthread_kill(threading.get_ident(), several)
                signal.pthread_kill(threading.get_ident(), once)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {several, once})

            async def main():
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(several, int)
                loop.add_signal_handler(once, got.append, 1)
                shrink_channel()
                for count in range(1, 4):
                    flood()
                    await asyncio.sleep(0.01)
                    print(len(got) == count)
                signal.raise_signal(once)
                await asyncio.sleep(0.01)
                print(len(got) == 4)

            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(main())
            """,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "True\n" * 4

    def test_as_many_calls_as_signals(self, loop, run):
        got = []

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
            for _ in range(3):
                signal.raise_signal(signal.SIGUSR1)
            await until(lambda: len(got) >= 3)
            await asyncio.sleep(0.01)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert got == [1, 1, 1]

    def test_seen_in_the_next_turn(self, loop):
        """By a loop that watches nothing and never waits."""
        got, turns = [], []

        def spin():
            turns.append(1)
            if got or len(turns) > 1000:
                loop.stop()
            else:
                loop.call_soon(spin)

        loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        loop.call_soon(spin)
        loop.run_forever()
        loop.remove_signal_handler(signal.SIGUSR1)
        assert len(turns) <= 4

    def test_plain_handlers_run_between_callbacks_that_are_not_python(self, loop):
        again = functools.partial(int)
        again.__setstate__((loop.call_soon, (again,), {}, None))
        previous = signal.signal(signal.SIGALRM, lambda *_: loop.stop())
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        loop.call_soon(again)
        try:
            loop.run_forever()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            again.__setstate__((int, (), {}, None))

    @pytest.mark.parametrize("busy", [False, True], ids=["waiting", "busy"])
    def test_a_loop_with_handlers_in_another_thread(self, loop, busy):
        got, waiting = [], threading.Event()

        def arrived():
            got.append(threading.current_thread())
            loop.stop()

        def spin():
            if not got:
                loop.call_soon(spin)

        loop.add_signal_handler(signal.SIGUSR1, arrived)
        loop.call_soon(waiting.set)
        if busy:
            loop.call_soon(spin)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        assert waiting.wait(10)
        send(signal.SIGUSR1)
        thread.join(20)
        assert got == [thread]
        loop.remove_signal_handler(signal.SIGUSR1)

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_loops_with_handlers_in_two_threads(self, loop, loop_factory):
        """Whichever takes a signal from the channel hands it on; plain handlers run too."""
        got = []
        other = loop_factory()
        other.add_signal_handler(signal.SIGUSR2, got.append, "other")
        loop.add_signal_handler(signal.SIGUSR1, got.append, "loop")
        previous = signal.signal(signal.SIGHUP, lambda *_: got.append("plain"))
        thread = threading.Thread(target=other.run_forever)
        thread.start()

        async def main():
            for number in range(1, 51):
                for which in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                    threading.Thread(target=send, args=(which,)).start()
                await until(lambda number=number: len(got) == 3 * number)

        loop.run_until_complete(main())
        other.call_soon_threadsafe(other.stop)
        thread.join()
        signal.signal(signal.SIGHUP, previous)
        other.remove_signal_handler(signal.SIGUSR2)
        other.close()
        loop.remove_signal_handler(signal.SIGUSR1)
        assert [got.count(kind) for kind in ("loop", "other", "plain")] == [50, 50, 50]

    def test_a_loop_that_was_dropped_gets_nothing(self, loop, run, loop_factory):
        got = []
        other = loop_factory()
        other.add_signal_handler(signal.SIGUSR2, got.append, 1)
        del other  # its handler refers to it
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            gc.collect()
        previous = signal.signal(signal.SIGUSR2, lambda *_: got.append("plain"))

        async def main():
            send(signal.SIGUSR2)
            await until(lambda: got)

        run(main())
        signal.signal(signal.SIGUSR2, previous)
        assert got == ["plain"]

    def test_a_cancelled_handler_is_removed(self, loop, run):
        """Whoever handles the exceptions of a handler has its handle."""

        def fail():
            raise LookupError

        def cancel(loop, context):
            context["handle"].cancel()

        async def main():
            loop.set_exception_handler(cancel)
            loop.add_signal_handler(signal.SIGUSR1, fail)
            send(signal.SIGUSR1)
            await asyncio.sleep(0.02)
            assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
            send(signal.SIGUSR1)
            await until(lambda: signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL)
            assert loop.remove_signal_handler(signal.SIGUSR1) is False

        run(main())

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_handlers_go_on_in_the_child_of_a_fork(self, loop_name):
        done = run_program(
            loop_name,
            """
            import os, signal, warnings
            warnings.simplefilter("ignore")
            got = []

            async def wait():
                signal.raise_signal(signal.SIGUSR1)
                await asyncio.sleep(0.02)

            loop = new_event_loop()
            loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
            pid = os.fork()
            if pid == 0:
                loop.run_until_complete(wait())
                os._exit(len(got))
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            loop.run_until_complete(asyncio.sleep(0.02))
            print(got)
            loop.run_until_complete(wait())
            print(got)
            loop.close()
            """,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1\n[]\n[1]\n"


class TestWakeupDescriptorOfTheProgram:
    def test_hears_what_the_loop_has_no_handler_for(self, loop_name):
        done = run_program(
            loop_name,
            """
            import os, signal, socket

            reader, writer = socket.socketpair()
            reader.setblocking(False)
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno())
            signal.signal(signal.SIGUSR1, lambda *_: None)

            async def main():
                heard = asyncio.get_running_loop().create_future()
                loop = asyncio.get_running_loop()
                loop.add_reader(reader, lambda: heard.set_result(reader.recv(10)))
                os.kill(os.getpid(), signal.SIGUSR1)
                print(list(await asyncio.wait_for(heard, 20)) == [signal.SIGUSR1])
                loop.remove_reader(reader)

            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(main())
            print(signal.set_wakeup_fd(-1) == writer.fileno())
            """,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "True\nTrue\n"

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_is_back_when_the_last_handler_is_gone(self, loop, run):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        signal.set_wakeup_fd(near.fileno())
        previous = signal.signal(signal.SIGUSR2, lambda *_: None)
        try:
            loop.add_signal_handler(signal.SIGUSR1, int)
            run(asyncio.sleep(0.001))
            send(signal.SIGUSR2)
            run(asyncio.sleep(0.001))
            assert far.recv(10) == bytes([signal.SIGUSR2])
            loop.remove_signal_handler(signal.SIGUSR1)
            send(signal.SIGUSR2)
            assert far.recv(10) == bytes([signal.SIGUSR2])
        finally:
            signal.signal(signal.SIGUSR2, previous)
            assert signal.set_wakeup_fd(-1) == near.fileno()
            near.close()
            far.close()

    def test_one_that_is_set_during_the_run_stays(self, loop, run):
        near, far = socket.socketpair()
        near.setblocking(False)

        async def main():
            signal.set_wakeup_fd(near.fileno())
            await asyncio.sleep(0.001)

        try:
            run(main())
            assert signal.set_wakeup_fd(-1) == near.fileno()
        finally:
            signal.set_wakeup_fd(-1)
            near.close()
            far.close()

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_one_that_was_closed_during_the_run_is_not_put_back(self, loop, run):
        near, far = socket.socketpair()
        near.setblocking(False)
        signal.set_wakeup_fd(near.fileno())

        async def main():
            near.close()
            await asyncio.sleep(0.001)

        run(main())
        far.close()
        assert signal.set_wakeup_fd(-1) == -1
