"""Garbage: what must be collected, what must stay alive, and what an unclosed thing says."""

import asyncio
import functools
import gc
import inspect
import socket
import sys
import time
import types
import warnings
import weakref

import pytest

from support.peers import turns, unix_pair, until
from support.protocols import Recorder
from support.schedules import each_schedule


def run_once(loop):
    loop.stop()
    loop.run_forever()


class Owner:
    """Something with methods to schedule."""

    def method(self, *args):
        pass


def collected(ref):
    gc.collect()
    return ref() is None


class TestHandles:
    @each_schedule
    @pytest.mark.parametrize("keeps_handle", [False, True])
    def test_cycle_of_loop_handle_method_and_owner(self, loop_factory, schedule, keeps_handle):
        loop = loop_factory()
        owner = Owner()
        owner.loop = loop
        handle = schedule(loop, owner.method)
        if keeps_handle:
            owner.handle = handle
        ref = weakref.ref(owner)
        loop_ref = weakref.ref(loop)
        del handle, owner
        assert not collected(ref), "the loop's queue keeps its callbacks alive"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the loop was not closed
            del loop
            assert collected(ref)
            assert collected(loop_ref)

    @each_schedule
    @pytest.mark.parametrize("ending", ["close", "run", "cancel"])
    def test_cycle_of_an_owner_that_keeps_its_handle(self, loop, schedule, ending):
        """The common pattern: self.handle = loop.call_soon(self.method)."""
        owner = Owner()
        owner.loop = loop
        owner.handle = schedule(loop, owner.method)
        ref = weakref.ref(owner)
        if ending == "cancel":
            owner.handle.cancel()
        del owner
        if ending == "close":
            loop.close()
        else:
            time.sleep(0.001)
            run_once(loop)
            run_once(loop)
        assert collected(ref)

    @pytest.mark.parametrize(
        "schedule",
        [
            lambda loop: loop.call_soon(int),
            lambda loop: loop.call_soon_threadsafe(int),
            lambda loop: loop.call_later(0, int),
        ],
        ids=["call_soon", "call_soon_threadsafe", "call_later"],
    )
    @pytest.mark.parametrize("cancelled", [False, True], ids=["ran", "cancelled"])
    def test_loop_that_leads_to_a_handle_of_its_own(self, loop_factory, schedule, cancelled):
        async def main(loop):
            loop.handle = schedule(loop)
            if cancelled:
                loop.handle.cancel()
            await asyncio.sleep(0.001)
            await turns(1)

        loop = loop_factory()
        loop.run_until_complete(main(loop))
        loop.close()
        ref = weakref.ref(loop)
        del loop
        assert collected(ref)

    def test_cycle_through_the_arguments(self, loop_factory):
        loop = loop_factory()
        owner = Owner()
        owner.loop = loop
        for count in range(1, 8):
            loop.call_soon(print, *[owner] * count)
        ref = weakref.ref(owner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del owner, loop
            assert collected(ref)

    def test_cycle_through_the_context(self, loop_factory):
        import contextvars

        var = contextvars.ContextVar("var")
        loop = loop_factory()
        owner = Owner()
        owner.loop = loop
        context = contextvars.copy_context()
        context.run(var.set, owner)
        loop.call_soon(print, context=context)
        ref = weakref.ref(owner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del owner, loop, context
            assert collected(ref)

    def test_collection_does_not_take_what_is_queued(self, loop):
        """Handles that only the queue owns, garbage collections in between, all run."""
        ran = []
        for number in range(1000):
            loop.call_soon(ran.append, (number, Owner()))
            loop.call_later(0, ran.append, (number, Owner()))
            if number % 100 == 0:
                gc.collect()
        gc.collect()
        time.sleep(0.002)
        run_once(loop)
        assert len(ran) == 2000

    def test_collections_inside_callbacks(self, loop):
        ran = []

        def callback(number):
            gc.collect()
            ran.append(number)
            if number < 20:
                loop.call_soon(callback, number + 10)

        for number in range(10):
            loop.call_soon(callback, number)
        for _ in range(4):
            run_once(loop)
        assert ran == list(range(30))

    def test_callback_is_released_after_it_ran(self, loop):
        owner = Owner()
        ref = weakref.ref(owner)
        loop.call_soon(owner.method, owner)
        loop.call_later(0, owner.method, owner)
        del owner
        time.sleep(0.001)
        run_once(loop)
        run_once(loop)
        assert ref() is None

    def test_handle_outlives_the_loop(self, loop_factory):
        loop = loop_factory()
        handle, timer = loop.call_soon(int), loop.call_later(1, int)
        loop.close()
        del loop
        gc.collect()
        repr(handle)
        repr(timer)
        handle.cancel()
        timer.cancel()
        assert timer.cancelled()

    def test_handles_are_not_kept(self, loop):
        handle = loop.call_soon(int)
        ref = weakref.ref(handle)
        del handle
        run_once(loop)
        run_once(loop)
        assert collected(ref)

    def test_cancelled_timers_are_not_kept_forever(self, loop):
        refs = []
        for _ in range(1000):
            timer = loop.call_later(3600, int)
            refs.append(weakref.ref(timer))
            timer.cancel()
        del timer
        for _ in range(3):
            run_once(loop)
        gc.collect()
        assert sum(ref() is not None for ref in refs) < 500

    def test_reference_counts_of_arguments(self, loop):
        arg, callback = object(), lambda *args: None
        before = sys.getrefcount(arg), sys.getrefcount(callback)
        for count in range(6):
            loop.call_soon(callback, *[arg] * count)
            loop.call_later(0, callback, *[arg] * count)
            loop.call_soon_threadsafe(callback, *[arg] * count)
            loop.call_soon(callback, *[arg] * count).cancel()
            loop.call_later(1000, callback, *[arg] * count).cancel()
        time.sleep(0.001)
        for _ in range(3):
            run_once(loop)
        gc.collect()
        assert (sys.getrefcount(arg), sys.getrefcount(callback)) == before

    def test_reference_counts_of_none_and_friends(self, loop):
        class Value:
            pass

        value = Value()
        before = sys.getrefcount(Value)
        for _ in range(1000):
            loop.call_soon(int)
            loop.call_soon(isinstance, value, Value)
        run_once(loop)
        assert sys.getrefcount(Value) == before


class TestLoop:
    def test_attribute_cycle(self, loop_factory):
        loop = loop_factory()
        loop.itself = loop
        loop.close()
        ref = weakref.ref(loop)
        del loop
        assert collected(ref)

    def test_exception_handler_and_task_factory(self, loop_factory):
        loop = loop_factory()
        owner = Owner()
        owner.loop = loop
        loop.set_exception_handler(owner.method)
        loop.set_task_factory(owner.method)
        loop.close()
        ref = weakref.ref(owner)
        del owner, loop
        assert collected(ref)

    def test_readers(self, loop_factory):
        loop = loop_factory()
        near, far = socket.socketpair()
        owner = Owner()
        owner.loop = loop
        loop.add_reader(near, owner.method)
        loop.add_writer(near, owner.method)
        ref = weakref.ref(owner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del owner, loop
            assert collected(ref)
        near.close()
        far.close()

    def test_signal_handlers(self, loop_factory):
        import signal

        loop = loop_factory()
        owner = Owner()
        owner.loop = loop
        loop.add_signal_handler(signal.SIGUSR1, owner.method)
        loop.close()
        ref = weakref.ref(owner)
        del owner, loop
        assert collected(ref)

    def test_tasks_and_futures_of_a_closed_loop(self, loop_factory):
        loop = loop_factory()

        async def main():
            return Owner()

        owner = loop.run_until_complete(main())
        ref = weakref.ref(owner)
        loop_ref = weakref.ref(loop)
        loop.close()
        del owner, loop
        assert collected(ref)
        assert collected(loop_ref)

    def test_many_loops_leave_nothing(self, loop_factory):
        refs = []
        for _ in range(30):
            loop = loop_factory()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
            refs.append(weakref.ref(loop))
        del loop
        gc.collect()
        assert [ref() for ref in refs] == [None] * 30

    def test_result_is_not_kept(self, loop):
        class Result:
            pass

        async def main():
            return Result()

        result = loop.run_until_complete(main())
        ref = weakref.ref(result)
        del result
        assert collected(ref)

    def test_exception_is_not_kept(self, loop):
        class FailError(Exception):
            pass

        async def main():
            raise FailError

        refs = []
        try:
            loop.run_until_complete(main())
        except FailError as exc:
            refs.append(weakref.ref(exc))
        run_once(loop)
        assert collected(refs[0])


class TestTransports:
    def test_closed_transport_is_collected(self, loop, run):
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
            far.send(b"x")
            await until(lambda: protocol.received)
            transport.close()
            await until(lambda: protocol.is_lost)
            return weakref.ref(transport), weakref.ref(protocol)

        transport_ref, protocol_ref = run(main())
        far.close()
        assert collected(transport_ref)
        assert collected(protocol_ref)

    def test_closed_transport_lets_go_of_its_protocol(self, loop, run):
        """Reference counts alone free the protocol, while somebody keeps the transport."""
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
            transport.close()
            await until(lambda: protocol.is_lost)
            await turns()
            return transport, weakref.ref(protocol)

        gc.disable()
        try:
            transport, ref = run(main())
            assert ref() is None
            assert transport.is_closing()
        finally:
            gc.enable()
            far.close()

    def test_unclosed_transport_warns_and_closes_its_socket(self, loop, run):
        near, far = unix_pair()
        fd = near.fileno()

        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            transport.pause_reading()
            await turns()
            return weakref.ref(transport), repr(transport)

        def abandon():
            abandoned = run(main())
            gc.collect()
            return abandoned

        with pytest.warns(ResourceWarning, match="unclosed transport") as caught:
            ref, text = abandon()
        assert str(caught[0].message).startswith(f"unclosed transport {text[:30]}")
        caught.clear()  # a recorded warning has its source
        gc.collect()
        assert ref() is None
        assert near.fileno() == -1
        assert far.recv(1) == b""
        far.close()
        assert fd != -1

    def test_reading_transport_is_kept_by_the_loop(self, loop, run):
        near, far = unix_pair()
        got = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                got.append(data)
                self.transport.close()

        async def main():
            await loop.connect_accepted_socket(Protocol, near)
            gc.collect()
            far.send(b"still there")
            await until(lambda: got)
            await turns()

        run(main())
        far.close()
        assert got == [b"still there"]

    def test_buffered_writes_are_released(self, loop, run):
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
            data = b"x" * 5_000_000
            before = sys.getrefcount(data)
            transport.write(data)
            transport.writelines([data, data])
            transport.abort()
            await until(lambda: protocol.is_lost)
            await turns()
            return sys.getrefcount(data) - before

        assert run(main()) == 0
        far.close()

    def test_socket_is_closed_by_the_transport_and_by_nothing_else(self, loop, run):
        """get_extra_info's socket does not close the descriptor when it is dropped."""
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
            for _ in range(10):
                sock = transport.get_extra_info("socket")
                del sock
            gc.collect()
            transport.write(b"alive")
            assert await asyncio.to_thread(far.recv, 5) == b"alive"
            transport.close()
            await until(lambda: protocol.is_lost)

        run(main())
        far.close()


class TestServers:
    def test_closed_server_is_collected(self, loop, run):
        async def main():
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            server.close()
            await server.wait_closed()
            return weakref.ref(server)

        assert collected(run(main()))

    def test_serving_server_is_kept_by_the_loop(self, loop, run):
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        async def main():
            server = await loop.create_server(factory, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            fd = server.sockets[0].fileno()
            ref = weakref.ref(server)
            del server
            gc.collect()
            with socket.create_connection(address):
                await until(lambda: made and made[0].transport)
            await until(lambda: made[0].is_lost)
            return ref, fd

        ref, _ = run(main())
        server = ref()
        if server is not None:
            server.close()

    def test_factory_is_released_with_the_server(self, loop, run):
        owner = Owner()
        ref = weakref.ref(owner)

        async def main(factory):
            server = await loop.create_server(factory, "127.0.0.1", 0)
            server.close()
            await server.wait_closed()

        run(main(owner.method))
        del owner
        assert collected(ref)

    def test_cycle_of_server_and_factory(self, loop, run):
        owner = Owner()
        ref = weakref.ref(owner)

        async def main(owner):
            owner.server = await loop.create_server(owner.method, "127.0.0.1", 0)
            owner.server.close()
            await owner.server.wait_closed()

        run(main(owner))
        del owner
        assert collected(ref)

    def test_attribute_cycle(self, loop, run):
        async def main():
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            server.itself = server
            server.close()
            await server.wait_closed()
            return weakref.ref(server)

        assert collected(run(main()))


class TestCoroutineMethods:
    def test_collector_sees_what_they_hold(self, loop):
        method = inspect.getattr_static(loop, "create_server")
        assert gc.is_tracked(method)
        defaults = method.__kwdefaults__  # which makes the function that has them
        held = gc.get_referents(method, *gc.get_referents(method))
        assert any(it is defaults for it in held)

    def test_cycle_through_a_bound_method(self, loop_factory):
        loop = loop_factory()
        ref = weakref.ref(loop)
        loop.kept = [loop.create_server, loop.sock_recv]
        loop.close()
        del loop
        assert collected(ref)

    def test_weak_references(self, loop):
        ref = weakref.WeakMethod(loop.create_server)
        assert ref() == loop.create_server


class TestCoroutines:
    CALLS = (
        "create_connection",
        "create_server",
        "create_unix_connection",
        "create_unix_server",
        "connect_accepted_socket",
        "getaddrinfo",
        "getnameinfo",
        "shutdown_asyncgens",
        "shutdown_default_executor",
    )

    def coroutine(self, loop, name):
        args = {
            "create_connection": (Recorder, "127.0.0.1", 1),
            "create_server": (Recorder, "127.0.0.1", 0),
            "create_unix_connection": (Recorder, "/nonexistent"),
            "create_unix_server": (Recorder, "/nonexistent/x"),
            "connect_accepted_socket": (Recorder, None),
            "getaddrinfo": ("127.0.0.1", 1),
            "getnameinfo": (("127.0.0.1", 1),),
        }
        return getattr(loop, name)(*args.get(name, ()))

    @pytest.mark.parametrize("name", CALLS)
    def test_is_a_coroutine(self, loop, name):
        coro = self.coroutine(loop, name)
        assert asyncio.iscoroutine(coro)
        assert coro.__name__ == name
        assert coro.__qualname__.endswith(f".{name}")
        assert name in repr(coro)
        coro.close()
        coro.close()

    @pytest.mark.parametrize("name", CALLS)
    def test_never_awaited_warns(self, loop, name):
        def forget():
            self.coroutine(loop, name)
            gc.collect()

        with pytest.warns(RuntimeWarning, match=rf"coroutine '.*{name}' was never awaited"):
            forget()

    @pytest.mark.parametrize("name", CALLS)
    def test_is_not_awaited_twice(self, loop, run, name):
        coro = self.coroutine(loop, name)
        coro.close()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            coro.send(None)

    def test_throw_before_the_first_step(self, loop):
        coro = self.coroutine(loop, "create_connection")
        with pytest.raises(LookupError, match="thrown"):
            coro.throw(LookupError("thrown"))

    def test_arguments_are_released(self, loop, run, unused_port):
        owner = Owner()
        ref = weakref.ref(owner)

        async def main(factory):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(factory, "127.0.0.1", unused_port)

        run(main(owner.method))
        del owner
        assert collected(ref)

    def test_result_is_that_of_the_coroutine_protocol(self, loop):
        """Driven by hand, a method that needs no waiting ends in StopIteration."""
        coro = self.coroutine(loop, "shutdown_asyncgens")
        with pytest.raises(StopIteration) as caught:
            coro.send(None)
        assert caught.value.value is None

    def test_can_be_awaited_gathered_and_wrapped(self, loop, run):
        async def main():
            task = asyncio.ensure_future(loop.getaddrinfo("127.0.0.1", 1))
            assert isinstance(task, asyncio.Task)
            direct = await loop.getaddrinfo("127.0.0.1", 1)
            gathered = await asyncio.gather(loop.getaddrinfo("127.0.0.1", 1), task)
            assert gathered == [direct, direct]
            assert await asyncio.wait_for(loop.getaddrinfo("127.0.0.1", 1), 10) == direct

        run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_a_handle_whose_callback_left_the_run_is_collected(loop, kind, schedule):
    class Argument:
        pass

    def leave(argument):
        raise kind

    argument = Argument()
    delay = (0,) if schedule == "call_later" else ()
    argument.handle = getattr(loop, schedule)(*delay, leave, argument)
    with pytest.raises(kind):
        loop.run_forever()
    ref = weakref.ref(argument)
    del argument
    assert collected(ref)


class TestChains:
    """Objects that own each other, in a row as long as programs make them."""

    LENGTH = 100_000

    @pytest.fixture(params=["soon", "timer"])
    def schedule(self, loop, request):
        if request.param == "soon":
            return loop.call_soon
        return lambda callback, *args: loop.call_later(3600, callback, *args)

    @pytest.mark.parametrize(
        "wrap",
        [
            pytest.param(lambda handle: handle, id="argument"),
            pytest.param(lambda handle: (handle,), id="tuple"),
            pytest.param(lambda handle: functools.partial(print, handle), id="partial"),
            pytest.param(lambda handle: types.SimpleNamespace(handle=handle), id="namespace"),
        ],
    )
    def test_the_loop_lets_go_of_them(self, loop, schedule, wrap):
        last = None
        for _ in range(self.LENGTH):
            last = schedule(print, wrap(last))
        ended = weakref.ref(last)
        last = None
        loop.close()
        assert ended() is None

    def test_cancelling_the_last_frees_the_others(self, loop):
        """Handles that only their successor owns: the loop has let go of them already."""
        ends = []
        last = None
        for number in range(self.LENGTH):
            handle = loop.call_later(3600, print, last)
            if number == 0:
                ends.append(weakref.ref(handle))
            last = handle
        handle = None
        loop.close()
        last.cancel()
        last = None
        assert ends[0]() is None


class TestDestructorsThatComeBack:
    """What a handle lets go of may run code that schedules, cancels, stops or closes."""

    class Ends:
        def __init__(self, action):
            self.action = action

        def __del__(self):
            self.action()

    @pytest.fixture(params=["soon", "timer"])
    def schedule(self, loop, request):
        if request.param == "soon":
            return loop.call_soon
        return lambda callback, *args: loop.call_later(3600, callback, *args)

    def test_cancel(self, loop, schedule):
        ran = []
        handles = []

        def again():
            loop.call_soon(ran.append, 1)
            if handles:
                handles.pop().cancel()

        handles += [schedule(int, self.Ends(again)) for _ in range(100)]
        while handles:
            handles.pop().cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert len(ran) == 100

    def test_run(self, loop):
        ran = []

        def once(number):
            ran.append(number)
            if number:
                # The callback's handle is the last to have the new one's argument.
                loop.call_soon(lambda ends: None, self.Ends(lambda: once(number - 1)))

        once(100)
        loop.call_later(0.05, loop.stop)
        loop.run_forever()
        assert ran == list(range(100, -1, -1))

    def test_stop(self, loop, schedule):
        schedule(int, self.Ends(loop.stop)).cancel()
        loop.run_forever()
        loop.call_soon(lambda ends: None, self.Ends(loop.stop))
        loop.run_forever()

    def test_close(self, loop, schedule):
        refused = []

        def use():
            loop.close()
            for call in (loop.call_soon, loop.call_soon_threadsafe, lambda f: loop.call_at(0, f)):
                try:
                    call(int)
                except RuntimeError as error:
                    refused.append(str(error))

        for _ in range(100):
            schedule(int, self.Ends(use))
        loop.close()
        gc.collect()
        assert refused == ["Event loop is closed"] * 300

    def test_chain(self, loop, schedule):
        """Below the depth at which freeing is put off, and above it."""
        ran, last = [], None
        for _ in range(1000):
            last = schedule(int, self.Ends(lambda: loop.call_soon(ran.append, 1)), last)
        handles = [last]
        last = None
        if schedule != loop.call_soon:
            loop.call_soon(loop.stop)
            loop.run_forever()
        while handles:
            handle = handles.pop()
            handles += [arg for arg in handle._args if isinstance(arg, asyncio.Handle)]
            handle.cancel()
        handle = None
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert len(ran) == 1000

    def test_garbage(self, loop_factory):
        """A loop that was never closed, in a cycle with what it holds."""
        ended = []
        loop = loop_factory()
        for _ in range(100):
            ends = self.Ends(lambda: ended.append(1))
            ends.loop = loop
            loop.call_soon(int, ends)
            loop.call_later(3600, int, ends)
        del loop, ends
        with pytest.warns(ResourceWarning, match="unclosed event loop"):
            gc.collect()
        gc.collect()
        assert len(ended) == 100
