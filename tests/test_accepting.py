"""Connections that a server is accepting are among the tasks, and who cancels all tasks ends them.

asyncio accepts in a task, which lasts until the turn after `connection_made` or the end of the TLS
handshake. oxloop has no such task, and must look as if it had.
"""

import asyncio
import contextlib
import contextvars
import gc
import io
import socket
import threading
import time
import warnings
import weakref

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import PATIENCE_S, shut, turns, until
from support.protocols import Echo, Recorder

with warnings.catch_warnings():
    # It imports typing.ByteString, which Python 3.15 warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    from aiosmtpd.controller import Controller


class Holding(Recorder):
    """Keeps its connection open whatever the peer does."""

    keep_open = True


def connect(server):
    client = socket.create_connection(server.sockets[0].getsockname())
    client.settimeout(PATIENCE_S)
    return client


def is_ended(client):
    """True if the other end closes the connection, False if it sends something before."""
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def others():
    """All tasks but the one that runs."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def cancel_all(loop, but=frozenset()):
    for task in asyncio.all_tasks(loop) - but:
        task.cancel()


def silent_client(server):
    """A connection whose server waits for a handshake."""
    return connect(server)


async def tls_server(loop, factory=Recorder, **keywords):
    return await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context(), **keywords)


@pytest.mark.filterwarnings("ignore:unclosed.*socket:ResourceWarning")  # asyncio drops it
class TestStopping:
    """A program stops as a connection comes in."""

    @pytest.mark.parametrize("backlog", [1, 20], ids=["one", "several"])
    def test_who_came_in_the_turn_before(self, loop, backlog):
        server = loop.run_until_complete(loop.create_server(Holding, "127.0.0.1", 0))
        clients = [connect(server) for _ in range(backlog)]

        def stop():
            loop.stop()
            cancel_all(loop)

        loop.call_soon(loop.call_soon, stop)  # the connections are noticed in the turn before
        loop.run_forever()
        server.close()
        loop.run_until_complete(asyncio.wait_for(server.wait_closed(), PATIENCE_S))
        loop.run_until_complete(turns())
        for client in clients:
            with client:
                assert is_ended(client)

    def test_data_that_was_sent_already(self, loop, run):
        """It is gone with the connection, and the server goes on."""
        made = []

        async def main():
            server = await loop.create_server(
                lambda: made.append(Holding()) or made[-1], "127.0.0.1", 0
            )
            with connect(server) as client:
                client.sendall(b"request")
                loop.call_soon(loop.call_soon, cancel_all, loop, asyncio.all_tasks())
                await turns(8)
                assert is_ended(client)
            with connect(server) as client:
                client.sendall(b"next")
                await until(lambda: made and made[-1].received == b"next")
                made[-1].transport.close()
                await until(lambda: made[-1].is_lost)
            await shut(server)

        run(main())

    def test_run_ends(self, loop_factory):
        """asyncio.run's own clean-up: cancel, gather, ask each task how it ended."""
        reports, clients = [], []

        async def main():
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: reports.append(context))
            server = await tls_server(loop)
            clients.append(silent_client(server))
            await until(others)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main())
        with clients[0] as client:
            assert is_ended(client)
        assert not reports

    # asyncio's transports are freed unclosed there, and their finalizer fails.
    @pytest.mark.filterwarnings("ignore:Exception ignored.*_SelectorTransport")
    @pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
    @pytest.mark.parametrize("sends", [False, True], ids=["silent", "talking"])
    def test_a_mail_server_in_a_thread(self, loop_factory, sends):
        """aiosmtpd's Controller cancels all tasks, stops the loop, and waits for the server."""
        for _ in range(10):
            controller = Controller(object(), hostname="127.0.0.1", port=0, loop=loop_factory())
            with started(controller) as address:
                client = socket.create_connection(address)
                if sends:
                    client.sendall(b"EHLO there\r\n")
                stopping = threading.Thread(target=controller.stop, daemon=True)
                stopping.start()
                stopping.join(PATIENCE_S)
                client.close()
                assert not stopping.is_alive(), "the controller does not stop"


@contextlib.contextmanager
def started(controller):
    """The address of its server; the controller connects to it, and so needs a port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        controller.port = free.getsockname()[1]
    controller.start()
    yield ("127.0.0.1", controller.port)


# asyncio frees its sockets and transports unclosed there, and tasks that did not begin.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored.*Transport")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
class TestTurns:
    """In which turn of the loop each step comes, and what ends a connection between two of them."""

    def test_steps(self, loop, run):
        """The task is seen in the turn after the accept, in which the factory is called."""
        turn, steps = 0, []

        class Telling(Recorder):
            def __init__(self):
                super().__init__()
                steps.append(("factory", turn))

            def connection_made(self, transport):
                super().connection_made(transport)
                steps.append(("connection_made", turn))

        async def main():
            nonlocal turn
            server = await loop.create_server(Telling, "127.0.0.1", 0)
            with connect(server):
                while not others():
                    await asyncio.sleep(0)
                while len(steps) < 2:
                    turn += 1
                    await asyncio.sleep(0)
                await until(lambda: not others())
            await shut(server)

        run(main())
        assert steps == [("factory", 1), ("connection_made", 2)]

    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    def test_cancelled_before_the_factory_is_called(self, loop, run, tls):
        async def main():
            server = await loop.create_server(
                pytest.fail, "127.0.0.1", 0, ssl=server_context() if tls else None
            )
            clients = [connect(server) for _ in range(3)]
            while not others():
                await asyncio.sleep(0)
            cancel_all(loop, {asyncio.current_task()})
            await turns()
            gc.collect()
            for client in clients:
                with client:
                    assert is_ended(client)
            assert not others()
            await shut(server)

        run(main())

    @pytest.mark.both_modes
    @pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
    @pytest.mark.parametrize("closed", ["before", "in"])
    def test_the_server_is_closed_before_the_transport(self, loop, run, debug_mode, closed, tls):
        """Before the factory is called, or in it: in vain, as debug mode tells.

        asyncio's TLS keeps the socket for long.
        """
        made, reports = [], []

        async def main():
            loop.set_exception_handler(lambda _, context: reports.append(context))

            def factory():
                made.append(Recorder())
                server.close()
                return made[-1]

            server = await loop.create_server(
                factory,
                "127.0.0.1",
                0,
                ssl=server_context() if tls else None,
            )
            with connect(server) as client:
                while not others():
                    await asyncio.sleep(0)
                assert not made
                if closed == "before":
                    server.close()
                await until(lambda: made)
                await server.wait_closed()
                await turns()
                (protocol,) = made
                assert not protocol.calls
                assert not others()
                told = [(type(it["exception"]), it["protocol"]) for it in reports]
                assert told == ([(AssertionError, protocol)] if debug_mode else [])
                reports.clear()
                if not tls:
                    gc.collect()
                    assert is_ended(client)

        run(main())
        gc.collect()

    @pytest.mark.both_modes
    def test_a_failing_factory_is_reported_in_its_context(self, loop, run):
        variable = contextvars.ContextVar("variable", default="unset")
        reports = []

        def fail():
            variable.set("set by the factory")
            raise ValueError("no protocol")

        async def main():
            loop.set_exception_handler(lambda _, context: reports.append(variable.get()))
            server = await loop.create_server(fail, "127.0.0.1", 0)
            with connect(server) as client:
                while not others():
                    await asyncio.sleep(0)
                await turns()
                gc.collect()
                assert is_ended(client)
            await shut(server)

        run(main())
        assert set(reports) <= {"set by the factory"}

    def test_a_factory_is_interrupted(self, loop, run):
        """What was accepted with it has its turn when the loop runs again."""
        made = []

        def factory():
            made.append(Recorder())
            if len(made) == 1:
                raise KeyboardInterrupt
            return made[-1]

        loop.set_exception_handler(lambda _loop, _context: None)  # asyncio's task speaks of it too
        server = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0))
        clients = [connect(server) for _ in range(3)]
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()

        async def main():
            gc.collect()
            await until(lambda: [bool(it.transport) for it in made] == [False, True, True])
            assert is_ended(clients[0])
            for protocol in made[1:]:
                protocol.transport.abort()
            for client in clients:
                client.close()
            await shut(server)

        run(main())

    def test_a_factory_that_fails_for_who_is_watched(self, loop, run):
        reports = []

        def fail():
            raise ValueError("no protocol")

        async def main():
            loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
            server = await loop.create_server(fail, "127.0.0.1", 0)
            with connect(server) as client:
                while not others():
                    await asyncio.sleep(0)
                await asyncio.wait(others(), timeout=PATIENCE_S)
                assert not others()
                reports.clear()
                gc.collect()
                assert is_ended(client)
            await shut(server)

        run(main())
        assert set(reports) <= {"Error on transport creation for incoming connection"}

    def test_the_loop_is_closed_before_the_factory_is_called(self, loop_factory):
        loop = loop_factory()
        silent_about_pending_tasks(loop)
        server = loop.run_until_complete(loop.create_server(pytest.fail, "127.0.0.1", 0))
        with connect(server) as client:
            loop.call_soon(loop.stop)
            loop.run_forever()
            assert asyncio.all_tasks(loop)
            loop.close()
            gc.collect()
            assert is_ended(client)


class TestHowLong:
    @pytest.mark.parametrize("turn", [1, 2])
    def test_until_the_turn_after_connection_made(self, loop, run, turn):
        """A callback that connection_made queued sees it; what that one queues does not."""
        seen, before = [], set()

        class Looking(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                loop.call_soon(self.look, turn - 1)

            def look(self, turns_to_come):
                if turns_to_come:
                    loop.call_soon(self.look, turns_to_come - 1)
                else:
                    seen.append(bool(asyncio.all_tasks(loop) - before))

        async def main():
            before.update(asyncio.all_tasks())
            server = await loop.create_server(Looking, "127.0.0.1", 0)
            with connect(server):
                await until(lambda: seen)
            await turns()
            await shut(server)

        run(main())
        assert seen == [turn == 1]

    @pytest.mark.parametrize("turn", [1, 2])
    def test_cancelled_by_what_connection_made_queued(self, loop, run, turn):
        """The first turn ends the connection, from the second on it is the protocol's."""
        made, before = [], set()

        class Cancelling(Echo):
            def connection_made(self, transport):
                super().connection_made(transport)
                made.append(self)
                loop.call_soon(self.cancel, turn - 1)

            def cancel(self, turns_to_come):
                if turns_to_come:
                    loop.call_soon(self.cancel, turns_to_come - 1)
                    return
                cancel_all(loop, before)

        async def main():
            before.update(asyncio.all_tasks())
            server = await loop.create_server(Cancelling, "127.0.0.1", 0)
            with connect(server) as client:
                await until(lambda: made)
                await turns(8)
                client.sendall(b"hello")
                ended = await asyncio.to_thread(is_ended, client)
                made[0].transport.close()
            await turns()
            await shut(server)
            return ended

        assert run(main()) is (turn == 1)

    def test_until_the_handshake_is_over(self, loop, run):
        async def main():
            server = await tls_server(loop)
            before = others()
            client, _ = await loop.create_connection(
                asyncio.Protocol, *server.sockets[0].getsockname()
            )
            await until(others)
            (accepting,) = others() - before
            await asyncio.sleep(0.02)
            assert not accepting.done()
            upgraded = await loop.start_tls(
                client, asyncio.Protocol(), client_context(), server_hostname=NAME
            )
            await asyncio.wait([accepting], timeout=PATIENCE_S)
            assert accepting.done()
            assert others() == before
            upgraded.close()
            server.close()
            await turns(20)

        run(main())

    @pytest.mark.parametrize("how", ["gone", "nonsense", "late"])
    def test_until_the_handshake_failed(self, loop, run, how):
        async def main():
            server = await tls_server(
                loop, ssl_handshake_timeout=0.1 if how == "late" else PATIENCE_S
            )
            client = silent_client(server)
            await until(others)
            (accepting,) = others()
            if how == "gone":
                client.close()
            elif how == "nonsense":
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.wait([accepting], timeout=PATIENCE_S)
            assert accepting.done()
            assert not others()
            client.close()
            await shut(server)

        run(main())

    def test_nothing_shows_between_connections(self, loop, run):
        async def main():
            made = []
            server = await loop.create_server(
                lambda: made.append(Recorder()) or made[-1], "127.0.0.1", 0
            )
            for count in range(1, 4):
                assert not others()
                with connect(server):
                    await until(lambda: others() or len(made) == count)  # noqa: B023
                    await until(lambda: len(made) == count)  # noqa: B023
                    await turns()
                    assert not others()
                await until(lambda: made[-1].is_lost)
            await shut(server)

        run(main())


class TestTheTask:
    """What stands among the tasks can do what a task can."""

    @pytest.fixture
    def accepting(self, loop, run):
        """A task of a handshake that is under way."""

        async def begin():
            server = await tls_server(loop)
            client = silent_client(server)
            await until(others)
            (task,) = others()
            return server, client, task

        async def end():
            client.close()
            await shut(server)
            await turns()

        server, client, task = run(begin())
        yield task
        run(end())

    def test_is_a_task(self, loop, accepting):
        assert isinstance(accepting, asyncio.Task)
        assert isinstance(accepting, asyncio.Future)
        assert asyncio.isfuture(accepting)
        assert accepting.get_loop() is loop
        assert asyncio.all_tasks(loop) == {accepting}

    def test_tells_what_a_task_tells(self, loop, run, accepting):
        run(turns())
        assert not accepting.done()
        assert not accepting.cancelled()
        assert accepting.cancelling() == 0
        assert asyncio.iscoroutine(accepting.get_coro())
        accepting.set_name("the accept")
        assert accepting.get_name() == "the accept"
        assert "the accept" in repr(accepting)
        assert len(accepting.get_stack()) == 1
        text = io.StringIO()
        accepting.print_stack(file=text)
        assert "Stack for" in text.getvalue()
        with pytest.raises(asyncio.InvalidStateError):
            accepting.result()
        with pytest.raises(asyncio.InvalidStateError):
            accepting.exception()
        with pytest.raises(AttributeError):
            accepting.no_such_thing  # noqa: B018

    def test_calls_back(self, loop, run, accepting):
        ended, never = [], []
        accepting.add_done_callback(ended.append)
        accepting.add_done_callback(never.append)
        assert accepting.remove_done_callback(never.append) == 1
        assert accepting.cancel()
        run(turns(8))
        assert len(ended) == 1
        assert not never
        assert accepting.done()

    def test_callbacks_get_the_task_that_is_listed(self, loop, run, accepting):
        called = []

        async def main():
            accepting.add_done_callback(called.append)
            loop.call_later(0.01, accepting.cancel)
            for next_done in asyncio.as_completed([accepting], timeout=PATIENCE_S):
                assert await next_done is None

        run(main())
        assert called == [accepting]

    def test_cancelled_in_the_handshake_it_ends_with_none(self, loop, run, accepting):
        async def main():
            await turns()
            accepting.cancel()
            assert await asyncio.gather(accepting) == [None]
            assert not accepting.cancelled()
            assert accepting.result() is None

        run(main())

    @pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a while"])
    def test_gathered_after_cancelling(self, loop, run, accepting, waits):
        async def main():
            if waits:
                await turns()
            tasks = others()
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [isinstance(result, Exception) for result in results] == [False] * len(tasks)
            assert all(task.done() for task in tasks)

        run(main())
        assert not asyncio.all_tasks(loop)

    @pytest.mark.parametrize(
        "wait",
        [
            asyncio.gather,
            lambda task: asyncio.wait([task]),
            lambda task: asyncio.wait_for(task, PATIENCE_S),
            asyncio.shield,
            lambda task: task,
        ],
        ids=["gather", "wait", "wait_for", "shield", "await"],
    )
    def test_is_waited_for(self, loop, run, wait):
        async def main():
            server = await tls_server(loop)
            client = silent_client(server)
            await until(others)
            (task,) = others()
            loop.call_later(0.01, client.close)
            await wait(task)
            assert task.done()
            await shut(server)

        run(main())

    def test_a_timeout_closes_the_connection(self, loop, run):
        """wait_for cancels what it waited for."""

        async def main():
            server = await tls_server(loop)
            with silent_client(server) as client:
                await until(others)
                (task,) = others()
                await turns()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(task, 0.01)
                assert await asyncio.to_thread(is_ended, client)
            await shut(server)

        run(main())


class TestSeveral:
    def test_connections_of_one_server(self, loop, run):
        """Whoever comes later is another's; one that is over stays open when others are ended."""

        async def main():
            made = []
            server = await tls_server(loop, lambda: made.append(Recorder()) or made[-1])
            first = silent_client(server)
            await until(others)
            earlier = others()
            second = silent_client(server)
            await until(lambda: others() - earlier)
            later = others() - earlier
            for task in earlier:
                task.cancel()
            assert await asyncio.to_thread(is_ended, first)
            await turns()
            assert not any(task.done() for task in later)
            assert others() == later
            for task in later:
                task.cancel()
            assert await asyncio.to_thread(is_ended, second)
            await turns()
            assert not others()
            first.close()
            second.close()
            await shut(server)

        run(main())

    def test_cancelling_spares_who_is_accepted(self, loop, run):
        """One handshake is over, one is not, when the tasks are cancelled that were seen before."""

        async def main():
            made = []
            server = await tls_server(loop, lambda: made.append(Echo()) or made[-1])
            silent = silent_client(server)
            client, _ = await loop.create_connection(
                asyncio.Protocol, *server.sockets[0].getsockname()
            )
            await until(lambda: len(made) == 2)
            tasks = others()
            received = Recorder()
            upgraded = await loop.start_tls(
                client, received, client_context(), server_hostname=NAME
            )
            await turns(8)
            for task in tasks:
                task.cancel()
            assert await asyncio.to_thread(is_ended, silent)
            upgraded.write(b"still here")
            await until(lambda: received.received == b"still here")
            upgraded.close()
            silent.close()
            server.close()
            await turns(20)

        run(main())

    def test_loops(self, loop, run, loop_factory):
        """Each loop has its own; looking from elsewhere does no harm."""

        async def main():
            server = await tls_server(loop)
            with silent_client(server) as client:
                await until(others)
                other = loop_factory()
                assert not asyncio.all_tasks(other)
                other.close()
                from_a_thread = await asyncio.to_thread(lambda: len(asyncio.all_tasks(loop)))
                assert from_a_thread >= 1
                for task in others():
                    task.cancel()
                assert await asyncio.to_thread(is_ended, client)
            await shut(server)

        run(main())

    def test_a_closed_loop(self, loop_factory):
        loop = loop_factory()
        server = loop.run_until_complete(loop.create_server(Holding, "127.0.0.1", 0))
        client = connect(server)
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()
        server.close()
        with client, warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the connection was not closed
            silent_about_pending_tasks(loop)
            loop.close()
            asyncio.all_tasks(loop)
            del server, loop
            gc.collect()


def silent_about_pending_tasks(loop):
    loop.set_exception_handler(lambda _loop, _context: None)


class TestGarbage:
    def test_what_waits_for_its_turn_is_collected(self, loop_factory):
        """A socket object that was accepted, has no transport yet, and leads back to the loop."""
        loop = loop_factory()
        silent_about_pending_tasks(loop)

        class Connection(socket.socket):
            """With attributes."""

        class Listener(socket.socket):
            def accept(self):
                number, address = self._accept()
                connection = Connection(fileno=number)
                connection.listener = self
                return connection, address

        listener = Listener()
        listener.loop = loop
        listener.bind(("127.0.0.1", 0))
        server = loop.run_until_complete(loop.create_server(Recorder, sock=listener))
        client = connect(server)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert asyncio.all_tasks(loop)
        refs = [weakref.ref(loop), weakref.ref(server)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing was closed, and nothing awaited
            del loop, server, listener
            gc.collect()
            gc.collect()
        with client:
            assert is_ended(client)
        assert [ref() for ref in refs] == [None, None]

    @pytest.mark.parametrize("looked", [False, True])
    def test_an_abandoned_server_is_collected(self, loop_factory, looked):
        """With its loop, whether or not somebody saw what it accepts."""
        loop = loop_factory()
        silent_about_pending_tasks(loop)
        server = loop.run_until_complete(tls_server(loop))
        client = silent_client(server)
        deadline = time.monotonic() + PATIENCE_S
        while not (looked and asyncio.all_tasks(loop)) and time.monotonic() < deadline:
            loop.run_until_complete(asyncio.sleep(0.001))
            if not looked:
                break
        loop.run_until_complete(turns())
        refs = [weakref.ref(loop), weakref.ref(server)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # nothing was closed
            del loop, server
            gc.collect()
            gc.collect()
        client.close()
        assert [ref() for ref in refs] == [None, None]

    def test_a_closed_server_is_freed_at_once(self, loop, run):
        """Without the collector: the server and what is among the tasks are no cycle."""

        async def main():
            server = await loop.create_server(Recorder, "127.0.0.1", 0)
            with connect(server):
                await turns(8)
            await turns(8)
            await shut(server)
            return weakref.ref(server)

        gc.disable()
        try:
            ref = run(main())
            assert ref() is None
        finally:
            gc.enable()
