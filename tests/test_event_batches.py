"""What an event's callback queues is for the next batch, behind timers and behind a poll.

The loop has nothing else to do when the event comes, whoever it is for.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import socket
import sys
import tempfile
import time

import pytest

from support.descriptors import watched_descriptors
from support.peers import PATIENCE_S, until
from support.transports import drop_unclosed


class Reacting(asyncio.Protocol, asyncio.DatagramProtocol):
    """Calls the function for the first event, of whatever kind."""

    def __init__(self, react):
        self.react = react

    def occurred(self):
        react, self.react = self.react, None
        if react is not None:
            react()

    def data_received(self, data):
        self.occurred()

    def datagram_received(self, data, addr):
        self.occurred()

    def eof_received(self):
        self.occurred()

    def resume_writing(self):
        self.occurred()

    def connection_lost(self, exc):
        self.occurred()


class ReactingWithBuffer(asyncio.BufferedProtocol):
    def __init__(self, react):
        self.react = react

    def get_buffer(self, sizehint):
        return bytearray(100)

    def buffer_updated(self, nbytes):
        self.react()


def of(transport, occur):
    occur.transport = transport
    return occur


def take_all(sock):
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 16):
            pass


@contextlib.asynccontextmanager
async def stream(loop, react, *, protocol=Reacting, occur=None, full=False):
    near, far = socket.socketpair()
    far.setblocking(False)
    with far:
        transport, _ = await loop.create_connection(lambda: protocol(react), sock=near)
        if full:
            transport.set_write_buffer_limits(high=0)
            while not transport.get_write_buffer_size():
                transport.write(bytes(4096))
        try:
            yield of(transport, lambda: far.send(b"x") if occur is None else occur(far))
        finally:
            if not transport.is_closing():
                transport.abort()
            await asyncio.sleep(0)


def buffered(loop, react):
    return stream(loop, react, protocol=ReactingWithBuffer)


def end_of_stream(loop, react):
    return stream(loop, react, occur=lambda far: far.shutdown(socket.SHUT_WR))


def room_to_write(loop, react):
    return stream(loop, react, occur=take_all, full=True)


@contextlib.asynccontextmanager
async def end_of_writing(loop, react):
    """The connection is over when the last bytes have left."""
    async with stream(loop, lambda: None, occur=take_all, full=True) as occur:
        transport = occur.transport
        transport.get_protocol().react = None
        transport.set_protocol(Reacting(react))
        transport.close()
        yield occur


@contextlib.asynccontextmanager
async def datagrams(loop, react):
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    near.setblocking(False)
    with far:
        transport, _ = await loop.create_datagram_endpoint(lambda: Reacting(react), sock=near)
        try:
            yield lambda: far.send(b"x")
        finally:
            transport.abort()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def read_pipe(loop, react):
    near, far = os.pipe()
    transport, _ = await loop.connect_read_pipe(lambda: Reacting(react), os.fdopen(near, "rb", 0))
    try:
        yield of(transport, lambda: os.write(far, b"x"))
    finally:
        os.close(far)
        transport.close()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watched(loop, react):
    near, far = socket.socketpair()
    near.setblocking(False)

    def read():
        near.recv(1)
        react()

    with near, far:
        loop.add_reader(near, read)
        yield lambda: far.send(b"x")
        loop.remove_reader(near)


SOURCES = [
    stream,
    buffered,
    end_of_stream,
    room_to_write,
    end_of_writing,
    datagrams,
    read_pipe,
    watched,
]


@pytest.fixture(params=SOURCES, ids=lambda source: source.__name__)
def source(request):
    return request.param


class TestAnIdleLoop:
    def test_timers_that_are_due_come_first(self, loop, run, source):
        order = []

        def react():
            order.append("event")
            loop.call_soon(order.append, "queued by the event")

        async def main():
            async with source(loop, react) as occur:
                await asyncio.sleep(0.01)

                def both():
                    occur()
                    loop.call_later(0, order.append, "timer")

                loop.call_later(0.01, both)
                await until(lambda: len(order) == 3)

        run(main())
        assert order == ["event", "timer", "queued by the event"]

    def test_timers_of_the_event_come_later(self, loop, run, source):
        order = []

        def react():
            order.append("event")
            loop.call_soon(order.append, "queued by the event")
            loop.call_later(0, order.append, "later")
            loop.call_at(loop.time() - 1, order.append, "overdue")

        async def main():
            async with source(loop, react) as occur:
                loop.call_later(0.01, occur)
                await until(lambda: len(order) == 4)

        run(main())
        assert order == ["event", "queued by the event", "overdue", "later"]

    def test_the_kernel_is_asked_before(self, loop, run, source, pair):
        near, far = pair
        order = []

        def react():
            order.append("event")
            far.send(b"x")
            loop.call_soon(first)

        def first():
            order.append("first")
            loop.call_soon(order.append, "second")

        def read():
            near.recv(1)
            order.append("read")

        async def main():
            loop.add_reader(near, read)
            async with source(loop, react) as occur:
                loop.call_later(0.01, occur)
                await until(lambda: len(order) == 4)
            loop.remove_reader(near)

        run(main())
        assert order == ["event", "first", "read", "second"]

    def test_a_stop_comes_before(self, loop, source):
        order = []

        def react():
            order.append("event")
            loop.call_soon(order.append, "queued by the event")
            loop.stop()

        context = source(loop, react)
        occur = loop.run_until_complete(context.__aenter__())
        loop.call_later(0.01, occur)
        deadline = loop.call_later(PATIENCE_S, loop.stop)
        loop.run_forever()
        deadline.cancel()
        assert order == ["event"]
        loop.call_soon(order.append, "queued later")
        loop.run_until_complete(context.__aexit__(None, None, None))
        assert order == ["event", "queued by the event", "queued later"]

    # asyncio's transport does not survive an interruption while it writes.
    @pytest.mark.parametrize(
        "source",
        [it for it in SOURCES if it not in (room_to_write, end_of_writing)],
        ids=lambda source: source.__name__,
    )
    def test_an_interruption_leaves_it_queued(self, loop, source):
        """Whatever was queued keeps its order when the loop runs again."""
        order = []

        def react():
            order.append("event")
            loop.call_soon(order.append, "queued by the event")
            raise KeyboardInterrupt

        context = source(loop, react)
        occur = loop.run_until_complete(context.__aenter__())
        loop.call_later(0.01, occur)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(PATIENCE_S))
        loop.call_soon(order.append, "queued later")
        loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(context.__aexit__(None, None, None))
        assert order == ["event", "queued by the event", "queued later"]

    @pytest.mark.parametrize(
        "source", [stream, buffered, datagrams, read_pipe], ids=lambda source: source.__name__
    )
    def test_an_interruption_leaves_the_other_events_first(self, loop, source):
        """Before the timers that were due with them, and what was queued since."""
        order = []

        def react():
            order.append("event")
            if len(order) == 1:
                loop.call_soon(order.append, "queued by the first")
                raise KeyboardInterrupt

        contexts = [source(loop, react) for _ in range(3)]
        occurs = [loop.run_until_complete(context.__aenter__()) for context in contexts]

        def all_at_once():
            for occur in occurs:
                occur()
            loop.call_later(0, order.append, "timer")

        loop.call_later(0.01, all_at_once)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(PATIENCE_S))
        assert order == ["event"]
        time.sleep(0.01)
        for _ in range(3):
            loop.run_until_complete(asyncio.sleep(0))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for context in contexts:
            loop.run_until_complete(context.__aexit__(None, None, None))
        assert order == ["event", "event", "event", "timer", "queued by the first"]


class TestWhoLooksAtHandles:
    """Each event is a handle for them."""

    def test_debug_mode_tells_of_slow_events(self, loop, run, source, caplog):
        loop.set_debug(True)
        loop.slow_callback_duration = 0.05
        occurred = []

        def react():
            time.sleep(0.1)
            occurred.append(None)

        async def main():
            async with source(loop, react) as occur:
                loop.call_later(0.01, occur)
                caplog.clear()
                await until(lambda: occurred)
                await asyncio.sleep(0)
                return [record.getMessage() for record in caplog.records]

        with caplog.at_level(logging.WARNING, "asyncio"):
            told = run(main())
        assert any(text.startswith("Executing <Handle ") for text in told), told

    @pytest.mark.parametrize("when", ["before the loop was made", "after"])
    def test_a_profiler_that_replaces_run(self, loop_factory, source, when, monkeypatch):
        original = asyncio.Handle._run
        running = []
        occurred = []

        def _run(handle):
            running.append(handle)
            try:
                return original(handle)
            finally:
                running.pop()

        async def main(loop):
            async with source(loop, lambda: occurred.append(len(running))) as occur:
                loop.call_later(0.01, occur)
                await until(lambda: occurred)

        if when != "after":
            monkeypatch.setattr(asyncio.Handle, "_run", _run)
        loop = loop_factory()
        monkeypatch.setattr(asyncio.Handle, "_run", _run)
        with contextlib.closing(loop):
            loop.run_until_complete(asyncio.wait_for(main(loop), PATIENCE_S))
        assert occurred == [1]


class TestBetweenThePollAndTheEvent:
    @pytest.mark.parametrize("source", [stream, read_pipe], ids=lambda source: source.__name__)
    @pytest.mark.parametrize("paused_before", [False, True])
    def test_reading_is_resumed(self, loop, run, source, paused_before):
        """What is readable is found by the next poll."""
        order = []

        def first():
            order.append("first")
            if not paused_before:
                paused[0].pause_reading()
            paused[0].resume_reading()
            loop.call_soon(second)

        def second():
            order.append("second")
            loop.call_soon(order.append, "third")

        async def main():
            async with source(loop, lambda: order.append("event")) as occur:
                paused.append(occur.transport)
                if paused_before:
                    occur.transport.pause_reading()
                await asyncio.sleep(0.01)
                loop.call_soon(first)
                occur()
                await until(lambda: len(order) == 4)

        paused = []
        run(main())
        assert order == ["first", "second", "event", "third"]


def test_all_that_is_ready_is_one_batch(loop, run):
    """However many there are: the kernel is asked for as many events as there can be."""
    pairs = [socket.socketpair() for _ in range(300)]
    order = []

    def read(sock):
        sock.recv(1)
        order.append("read")
        if len(order) == 1:
            loop.call_soon(order.append, "queued by the first")

    async def main():
        for near, far in pairs:
            loop.add_reader(near, read, near)
            far.send(b"x")
        await until(lambda: len(order) == 301)
        for near, _ in pairs:
            loop.remove_reader(near)

    try:
        run(main())
    finally:
        for near, far in pairs:
            near.close()
            far.close()
    assert order == ["read"] * 300 + ["queued by the first"]


@contextlib.asynccontextmanager
async def last_bytes_of_stream(loop, protocol):
    near, far = socket.socketpair()
    transport, _ = await loop.create_connection(lambda: protocol, sock=near)
    with far:
        yield close_with_unsent(transport, transport.write, far)


@contextlib.asynccontextmanager
async def last_bytes_of_pipe(loop, protocol):
    near, far = socket.socketpair()
    transport, _ = await loop.connect_write_pipe(lambda: protocol, near)
    with far:
        yield close_with_unsent(transport, transport.write, far)


@contextlib.asynccontextmanager
async def last_datagrams(loop, protocol):
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/far"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far:
            far.bind(path)
            transport, _ = await loop.create_datagram_endpoint(
                lambda: protocol, remote_addr=path, family=socket.AF_UNIX
            )
            yield close_with_unsent(transport, transport.sendto, far)


def close_with_unsent(transport, send, far):
    far.setblocking(False)
    while not transport.get_write_buffer_size():
        send(bytes(4096))
    transport.close()
    return of(transport, lambda: take_all(far))


class TestConnectionLostBehindTheLastBytes:
    """A transport that was closed ends with the event that sends its last bytes."""

    @pytest.fixture(
        params=[last_bytes_of_stream, last_bytes_of_pipe, last_datagrams],
        ids=lambda closing: closing.__name__,
    )
    def closing(self, request):
        return request.param

    @pytest.mark.parametrize("queued", [False, True])
    def test_its_exception_is_that_of_a_handle(self, loop, run, closing, queued):
        """From 3.12 on the handler is called in the context of the connection."""
        variable = contextvars.ContextVar("variable")
        reports = []

        def react():
            raise LookupError("from connection_lost")

        def report(loop, context):
            reports.append((context, variable.get("unset")))

        def take():
            occur()
            if queued:
                loop.call_soon(lambda: None)

        async def main():
            nonlocal occur
            outside = contextvars.copy_context()
            variable.set("of the connection")
            loop.set_exception_handler(report)
            async with closing(loop, Reacting(react)) as occur:
                loop.call_later(0.01, take, context=outside)
                await until(lambda: reports)
                await asyncio.sleep(0)
                return repr(occur.transport)

        occur = None
        text = run(main())
        [(context, value)] = reports
        assert set(context) == {"message", "exception", "handle"}
        assert context["message"].startswith("Exception in callback ")
        assert isinstance(context["exception"], LookupError)
        assert isinstance(context["handle"], asyncio.Handle)
        assert repr(context["handle"]).startswith("<Handle ")
        assert context["exception"].__traceback__ is not None
        assert "closed" in text
        if sys.version_info >= (3, 12):
            assert value == "of the connection"
            assert context["handle"].get_context()[variable] == value

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
    def test_an_interruption_gets_out(self, loop, closing, interruption):
        lost = []

        def react():
            lost.append(None)
            raise interruption

        async def main():
            async with closing(loop, Reacting(react)) as occur:
                loop.call_later(0.01, occur)
                await asyncio.sleep(PATIENCE_S)

        task = loop.create_task(main())
        with pytest.raises(interruption):
            loop.run_until_complete(task)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        assert lost == [None]


def test_a_pipe_is_not_watched_after_its_end(loop, run, unhandled):
    """Even if the protocol has no eof_received."""

    class Incomplete:
        def connection_made(self, transport):
            pass

    near, far = os.pipe()
    file = os.fdopen(near, "rb", 0)
    made = []

    async def main():
        made.extend(await loop.connect_read_pipe(Incomplete, file))
        os.close(far)
        await until(lambda: unhandled)
        return near in watched_descriptors()

    assert not run(main())
    assert isinstance(unhandled.take()[0]["exception"], AttributeError)
    drop_unclosed(made)
    file.close()


class TestTurnsOf:
    """How many turns after the event, in a loop that counts them."""

    @pytest.fixture
    def turns(self, loop):
        counted = []

        def count(number=0):
            counted.append(number)
            if number < 6:
                loop.call_soon(count, number + 1)

        loop.call_soon(count)
        return counted

    def test_a_signal(self, loop, run, turns):
        """It is seen with the turn's other events, and its handler is queued then."""

        async def main():
            loop.add_signal_handler(signal.SIGUSR1, turns.append, "handler")
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: len(turns) == 8)
            loop.remove_signal_handler(signal.SIGUSR1)

        run(main())
        assert turns[:4] == [0, 1, 2, "handler"]

    def test_a_handler_that_is_removed_before_its_turn(self, loop, run, turns):
        async def main():
            loop.add_signal_handler(signal.SIGUSR1, turns.append, "handler")
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0)
            loop.remove_signal_handler(signal.SIGUSR1)
            await until(lambda: len(turns) == 7)

        run(main())
        assert turns == [0, 1, 2, 3, 4, 5, 6]

    @pytest.mark.asyncio_since(3, 14)
    def test_the_exit_of_a_process(self, loop, run, turns):
        class Process(asyncio.SubprocessProtocol):
            def process_exited(self):
                turns.append("exited")

        async def main():
            transport, _ = await loop.subprocess_exec(
                Process, "sleep", "60", stdin=None, stdout=None, stderr=None
            )
            pid = transport.get_pid()
            await until(lambda: len(turns) == 7)
            turns.clear()

            def wait(number=0):
                if number == 0:
                    transport.kill()
                    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                turns.append(number)
                if number < 4:
                    loop.call_soon(wait, number + 1)

            loop.call_soon(wait)
            await until(lambda: len(turns) == 6)
            transport.close()

        run(main())
        assert turns == [0, 1, 2, "exited", 3, 4]
