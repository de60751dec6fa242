"""What one turn of the loop sees: descriptors, timers and other threads, before each batch."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from support.descriptors import watched_descriptors
from support.peers import PATIENCE_S, until
from support.programs import output_of
from support.protocols import Recorder

ROUNDS = 100


async def turns_until(condition, most=1000):
    """How many turns pass until the condition holds, or `most`."""
    for count in range(most):
        if condition():
            return count
        await asyncio.sleep(0)
    return most


def test_written_data_arrives_in_two_turns(loop, run, pair):
    async def main():
        near, far = pair
        writer, _ = await loop.create_connection(asyncio.Protocol, sock=near)
        reader, sink = await loop.create_connection(Recorder, sock=far)
        await asyncio.sleep(0.01)
        counts = []
        for number in range(ROUNDS):
            writer.write(b"x")
            counts.append(await turns_until(lambda number=number: len(sink.received) > number))
        writer.abort()
        reader.abort()
        return counts

    assert max(run(main())) <= 2


def test_a_busy_loop_hears_readers_in_the_next_turn(loop, run, pair):
    """A chain of callbacks that never ends does not keep a descriptor waiting."""
    near, far = pair
    got = []

    async def main():
        loop.add_reader(near, lambda: got.append(near.recv(10)))
        counts = []
        for number in range(ROUNDS):
            far.send(b"x")
            counts.append(await turns_until(lambda number=number: len(got) > number))
        loop.remove_reader(near)
        return counts

    assert max(run(main())) <= 2


def test_a_zero_timeout_sees_what_is_ready(loop, run, pair):
    near, far = pair
    far.send(b"x")

    async def main():
        seen = 0
        for number in range(ROUNDS):
            event = asyncio.Event()
            loop.add_reader(near, event.set)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), 0)
            loop.remove_reader(near)
            seen += event.is_set()
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        return seen

    assert run(main()) == ROUNDS


@pytest.mark.parametrize(
    "ending",
    [
        "close",
        pytest.param("close_clients", marks=pytest.mark.asyncio_since(3, 13)),
        pytest.param("abort_clients", marks=pytest.mark.asyncio_since(3, 13)),
    ],
)
def test_a_server_has_who_connected(loop, run, ending):
    """create_connection has returned, and the server ends at once: it knows the connection."""

    async def main():
        unknown = 0
        for _ in range(ROUNDS):
            made = []

            def factory(made=made):
                made.append(Recorder())
                return made[-1]

            server = await loop.create_server(factory, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            client, _ = await loop.create_connection(asyncio.Protocol, *address)
            client.write(b"request")
            server.close()
            if ending != "close":
                getattr(server, ending)()
                await until(lambda made=made: made and made[0].is_lost)
            else:
                await until(lambda made=made: made and made[0].received)
            unknown += len(made) != 1
            client.abort()
            for protocol in made:
                protocol.transport.abort()
            await server.wait_closed()
        return unknown

    assert run(main()) == 0


@pytest.mark.parametrize("by_transport", [False, True], ids=["sock_connect", "create_connection"])
def test_a_connection_is_the_servers_as_soon_as_it_is_the_clients(loop, run, by_transport):
    """In the very turn, and not before the server's factory was called."""

    async def main():
        known = []
        for _ in range(ROUNDS):
            made = []
            server = await loop.create_server(
                lambda made=made: made.append(Recorder()) or made[-1], "127.0.0.1", 0
            )
            address = server.sockets[0].getsockname()
            with socket.socket() as client:
                client.setblocking(False)
                if by_transport:
                    transport, _ = await loop.create_connection(asyncio.Protocol, *address)
                else:
                    await loop.sock_connect(client, address)
                known.append(len(made))
                server.close()
                await until(lambda made=made: made[0].transport)
                made[0].transport.abort()
                if by_transport:
                    transport.abort()
            await server.wait_closed()
        return known

    assert run(main()) == [1] * ROUNDS


@pytest.mark.parametrize("first", ["queued", "reader", "data"])
def test_events_in_the_order_in_which_they_came(loop, run, first):
    """A transport's and a watched descriptor's, both behind what was queued before them."""
    order = []

    class Noting(asyncio.Protocol):
        def data_received(self, data):
            order.append("data")
            loop.call_soon(order.append, "of the data")

    def read(sock):
        sock.recv(1)
        order.append("reader")
        loop.call_soon(order.append, "of the reader")

    async def main():
        watched, peer = socket.socketpair()
        ours, theirs = socket.socketpair()
        with watched, peer, theirs:
            transport, _ = await loop.create_connection(Noting, sock=ours)
            loop.add_reader(watched, read, watched)
            await asyncio.sleep(0.01)
            if first == "queued":
                loop.call_soon(order.append, "queued")
                theirs.send(b"x")
            else:
                for sock in (peer, theirs) if first == "reader" else (theirs, peer):
                    sock.send(b"x")
            await until(lambda: len(order) == (3 if first == "queued" else 4))
            loop.remove_reader(watched)
            transport.close()
            await asyncio.sleep(0)

    run(main())
    assert (
        order
        == {
            "queued": ["queued", "data", "of the data"],
            "reader": ["reader", "data", "of the reader", "of the data"],
            "data": ["data", "reader", "of the data", "of the reader"],
        }[first]
    )


def test_a_clock_that_jumps_moves_timers(loop, run):
    async def main():
        now = loop.time()
        loop.time = lambda: now
        fired = []
        loop.call_at(now + 10, fired.append, True)
        await asyncio.sleep(0)
        assert not fired
        now += 10
        count = await turns_until(lambda: fired)
        del loop.time
        return count

    assert run(main()) <= 2


def test_a_due_timer_runs_in_a_busy_loop(loop, run):
    async def main():
        fired = []
        loop.call_at(loop.time() + 0.001, fired.append, True)
        time.sleep(0.002)
        return await turns_until(lambda: fired)

    assert run(main()) <= 2


def test_a_call_on_the_way_to_the_wait_is_not_missed(loop):
    """The loop asks for the time before it waits; another thread calls meanwhile."""
    seen = []

    def clock():
        if armed:
            armed.clear()
            thread = threading.Thread(target=late)
            thread.start()
            thread.join()
        return time.monotonic()

    def late():
        loop.call_soon_threadsafe(stop)

    def stop():
        seen.append(True)
        loop.stop()

    armed = []
    loop.time = clock
    endless = loop.call_later(PATIENCE_S, loop.stop)
    loop.call_later(0.02, armed.append, True)
    loop.run_forever()
    endless.cancel()
    del loop.time
    assert seen


class TestOtherThreads:
    """asyncio does not promise these, and pyzmq and ipykernel live on them."""

    @pytest.fixture
    def waiting(self, loop):
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        idle = threading.Event()
        loop.call_soon_threadsafe(loop.call_later, 0.05, idle.set)
        assert idle.wait(PATIENCE_S)
        yield loop
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def test_readers(self, waiting, pair):
        near, far = pair
        got, heard = [], threading.Event()

        def read():
            got.append(near.recv(10))
            heard.set()

        waiting.add_reader(near, read)
        far.send(b"x")
        assert heard.wait(PATIENCE_S)
        assert waiting.remove_reader(near)
        assert near.fileno() not in watched_descriptors()
        assert not waiting.remove_reader(near)
        assert got == [b"x"]

    def test_writers(self, waiting, pair):
        near, _far = pair
        heard = threading.Event()
        waiting.add_writer(near, heard.set)
        assert heard.wait(PATIENCE_S)
        assert waiting.remove_writer(near)
        assert near.fileno() not in watched_descriptors()

    def test_debug_mode_refuses_transports(self, loop, waiting, pair):
        near, _far = pair
        made = asyncio.run_coroutine_threadsafe(
            loop.create_connection(asyncio.Protocol, sock=near), loop
        )
        transport, _ = made.result(PATIENCE_S)
        loop.set_debug(True)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            transport.close()
        loop.set_debug(False)
        # The refused call has left it half closed, on both loops.
        loop.call_soon_threadsafe(transport._call_connection_lost, None)


def test_a_reused_number_is_not_watched_for_who_had_it(loop, run):
    """A socket is closed with two callbacks on it: removing one does not watch its successor."""

    async def main():
        called = []
        near, far = socket.socketpair()
        loop.add_reader(near, called.append, "reader")
        number = near.fileno()
        near.close()
        successor, peer = socket.socketpair()
        assert successor.fileno() == number
        peer.send(b"x")
        await asyncio.sleep(0.01)
        loop.remove_reader(number)
        await asyncio.sleep(0.01)
        for sock in (far, successor, peer):
            sock.close()
        return called

    assert run(main()) == []


class TestFork:
    def test_a_write_before_a_fork_is_sent_once(self, loop_name):
        output = output_of(
            loop_name,
            """
            import os, socket, sys, warnings
            warnings.simplefilter("ignore")
            loop = new_event_loop()
            near, far = socket.socketpair()
            making = loop.create_connection(asyncio.Protocol, sock=near)
            transport, _ = loop.run_until_complete(making)

            def callback():
                transport.write(b"once")
                pid = os.fork()
                if pid == 0:
                    sys.exit(0)
                os.waitpid(pid, 0)
                loop.stop()

            loop.call_soon(callback)
            try:
                loop.run_forever()
            except SystemExit:
                os._exit(0)
            transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
            print(far.recv(100))
            """,
        )
        assert output == "b'once'\n"

    @pytest.mark.asyncio_wrong((3, 0), (4, 0))  # its child shares the parent's epoll instance
    def test_a_child_that_closes_what_it_inherited(self, loop_name):
        output = output_of(
            loop_name,
            """
            import os, socket, warnings
            warnings.simplefilter("ignore")
            heard = []

            class Protocol(asyncio.Protocol):
                def data_received(self, data):
                    heard.append(data)

                def connection_lost(self, exc):
                    heard.append("lost")

            async def main():
                loop = asyncio.get_running_loop()
                server = await loop.create_server(Protocol, "127.0.0.1", 0)
                near, far = socket.socketpair()
                watched, writer = socket.socketpair()
                transport, _ = await loop.create_connection(Protocol, sock=near)
                loop.add_reader(watched, lambda: heard.append(watched.recv(9)))
                await asyncio.sleep(0.01)
                pid = os.fork()
                if pid == 0:
                    try:
                        server.close()
                        transport.abort()
                        loop.remove_reader(watched)
                    finally:
                        os._exit(0)
                os.waitpid(pid, 0)
                far.send(b"transport")
                writer.send(b"watched")
                client = socket.create_connection(server.sockets[0].getsockname())
                client.send(b"server")
                for _ in range(500):
                    if len(heard) == 3:
                        break
                    await asyncio.sleep(0.01)
                print(sorted(heard))
                loop.remove_reader(watched)
                client.close()
                server.close()
                transport.abort()
                await asyncio.sleep(0.01)

            loop = new_event_loop()
            loop.run_until_complete(main())
            loop.close()
            """,
        )
        assert output == "[b'server', b'transport', b'watched']\n"
