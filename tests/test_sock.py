"""sock_recv, sock_sendall and their kin: data, waiting, refusals, cancellation, closing."""

import array
import asyncio
import contextlib
import itertools
import os
import socket
import ssl
import threading
import time

import pytest

from support.peers import Listener, echo, until

pytestmark = pytest.mark.both_modes


@pytest.fixture
def datagrams():
    """Two UDP sockets, bound, not connected."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        for sock in (near, far):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield near, far


def fill(sock):
    """Writes until the kernel takes no more."""
    while True:
        try:
            sock.send(b"x" * 65536)
        except BlockingIOError:
            return


async def suspended(coro):
    """A task that has begun and waits."""
    task = asyncio.create_task(coro)
    await asyncio.sleep(0.01)
    assert not task.done()
    return task


def first_step(coro):
    """Runs a coroutine that must not suspend."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    coro.close()
    pytest.fail("the coroutine suspended")


async def spin():
    """Keeps the loop from sleeping."""
    while True:
        await asyncio.sleep(0)


async def cancelled(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class TestReceive:
    def test_recv_returns_what_is_there_without_waiting(self, loop, run, pair):
        near, far = pair

        async def main():
            far.send(b"data")
            assert first_step(loop.sock_recv(near, 2)) == b"da"
            assert first_step(loop.sock_recv(near, 100)) == b"ta"

        run(main())

    def test_recv_at_the_end_of_the_stream(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_recv(near, 100))
            far.close()
            assert await task == b""
            assert await loop.sock_recv(near, 100) == b""

        run(main())

    def test_recv_of_nothing(self, loop, run, pair):
        near, far = pair
        far.send(b"x")

        async def main():
            assert await loop.sock_recv(near, 0) == b""
            assert await loop.sock_recv(near, 1) == b"x"

        run(main())

    @pytest.mark.parametrize("size", [-1, "1", None, 1.5])
    def test_recv_of_no_size(self, loop, run, pair, size):
        with pytest.raises((ValueError, TypeError)):
            run(loop.sock_recv(pair[0], size))

    def test_recv_into(self, loop, run, pair):
        near, far = pair
        buffer = bytearray(b"......")

        async def main():
            task = await suspended(loop.sock_recv_into(near, memoryview(buffer)[2:]))
            far.send(b"abc")
            assert await task == 3
            far.send(b"wxyz123")
            assert first_step(loop.sock_recv_into(near, buffer)) == 6

        run(main())
        assert buffer == b"wxyz12"

    @pytest.mark.parametrize("buffer", [b"read-only", "text", None])
    def test_recv_into_no_buffer(self, loop, run, pair, buffer):
        with pytest.raises((TypeError, BufferError)):
            run(loop.sock_recv_into(pair[0], buffer))

    def test_recv_into_array(self, loop, run, pair):
        near, far = pair
        far.send((7).to_bytes(4, "little") * 2)
        numbers = array.array("I", [0, 0])
        assert run(loop.sock_recv_into(near, numbers)) == 8
        assert list(numbers) == [7, 7]

    def test_a_reset_connection(self, loop, run, pair):
        near, far = pair

        async def main():
            near.send(b"never read")
            task = await suspended(loop.sock_recv(near, 10))
            far.close()
            with pytest.raises(ConnectionResetError):
                await task

        run(main())

    def test_many_messages(self, loop, run, pair):
        near, far = pair

        async def reply():
            while data := await loop.sock_recv(far, 1000):
                await loop.sock_sendall(far, data)

        async def main():
            task = asyncio.create_task(reply())
            for number in range(300):
                message = str(number).encode()
                await loop.sock_sendall(near, message)
                assert await loop.sock_recv(near, 1000) == message
                if number % 50 == 0:
                    await asyncio.sleep(0.001)
            near.close()
            await task

        run(main())


class TestSend:
    def test_sendall_needs_no_wait_for_a_little(self, loop, run, pair):
        near, far = pair

        async def main():
            assert first_step(loop.sock_sendall(near, b"data")) is None
            assert first_step(loop.sock_sendall(near, b"")) is None
            assert far.recv(100) == b"data"

        run(main())

    @pytest.mark.parametrize(
        "make", [bytes, bytearray, memoryview, lambda data: array.array("B", data)]
    )
    def test_sendall_of_much(self, loop, run, pair, make):
        near, far = pair
        data = os.urandom(3_000_000)

        async def main():
            task = await suspended(loop.sock_sendall(near, make(data)))
            received = bytearray()
            while len(received) < len(data):
                received += await loop.sock_recv(far, 1 << 16)
            assert await task is None
            assert received == data

        run(main())

    def test_a_bytearray_that_is_being_sent_cannot_be_resized(self, loop, run, pair):
        near, far = pair
        data = bytearray(3_000_000)

        async def main():
            task = await suspended(loop.sock_sendall(near, data))
            with pytest.raises(BufferError):
                data.clear()
            await cancelled(task)
            assert far.recv(10) == bytes(10)

        run(main())

    @pytest.mark.parametrize("data", ["text", None, 5, memoryview(b"abcdef")[::2]])
    def test_what_is_no_bytes(self, loop, run, pair, data):
        with pytest.raises((TypeError, BufferError)):
            run(loop.sock_sendall(pair[0], data))

    def test_the_peer_is_gone(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_sendall(near, bytes(3_000_000)))
            far.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await task
            with pytest.raises(BrokenPipeError):
                await loop.sock_sendall(near, b"more")

        run(main())

    def test_sending_and_receiving_at_once(self, loop, run, pair):
        near, far = pair
        data = os.urandom(2_000_000)

        async def receive(sock):
            received = bytearray()
            while len(received) < len(data):
                received += await loop.sock_recv(sock, 1 << 16)
            return received

        async def main():
            results = await asyncio.gather(
                loop.sock_sendall(near, data),
                loop.sock_sendall(far, data),
                receive(near),
                receive(far),
            )
            assert results == [None, None, data, data]

        run(main())


class TestDatagrams:
    def test_recvfrom_and_sendto(self, loop, run, datagrams):
        near, far = datagrams

        async def main():
            task = await suspended(loop.sock_recvfrom(near, 100))
            assert await loop.sock_sendto(far, b"hello", near.getsockname()) == 5
            assert await task == (b"hello", far.getsockname())
            assert first_step(loop.sock_sendto(far, b"", near.getsockname())) == 0
            assert await loop.sock_recvfrom(near, 100) == (b"", far.getsockname())

        run(main())

    def test_recvfrom_into(self, loop, run, datagrams):
        near, far = datagrams
        buffer = bytearray(8)

        async def main():
            task = await suspended(loop.sock_recvfrom_into(near, buffer))
            far.sendto(b"hello", near.getsockname())
            assert await task == (5, far.getsockname())
            far.sendto(b"world", near.getsockname())
            assert await loop.sock_recvfrom_into(near, buffer, 2) == (2, far.getsockname())
            far.sendto(b"whole", near.getsockname())
            assert await loop.sock_recvfrom_into(near, buffer, 0) == (5, far.getsockname())

        run(main())
        assert buffer == b"whole\0\0\0"

    def test_a_host_name_is_for_getaddrinfo(self, loop, run, datagrams):
        near, _ = datagrams
        with pytest.raises(TypeError):
            run(loop.sock_sendto(near, b"x", "localhost"))

    def test_an_unconnected_socket_needs_an_address(self, loop, run, datagrams):
        with pytest.raises(OSError, match="Destination address required"):
            run(loop.sock_sendall(datagrams[0], b"x"))

    def test_sendto_waits_for_room(self, loop, run):
        name = b"\0oxloop-test-sock-%d" % os.getpid()

        async def main(sender, receiver):
            sent = 0
            while True:
                task = asyncio.create_task(loop.sock_sendto(sender, b"x" * 1000, name))
                sent += 1
                done, _ = await asyncio.wait([task], timeout=0.05)
                if not done:
                    break
            for _ in range(sent):
                data, _ = await loop.sock_recvfrom(receiver, 2000)
                assert data == b"x" * 1000
            assert await task == 1000

        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.bind(name)
            for sock in (sender, receiver):
                sock.setblocking(False)
            run(main(sender, receiver))


class TestAccept:
    def test_accept(self, loop, run):
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setblocking(False)
                task = await suspended(loop.sock_accept(listener))
                with socket.create_connection(listener.getsockname()) as client:
                    connection, address = await task
                    with connection:
                        assert address == client.getsockname()
                        assert connection.getblocking() is False
                        assert type(connection) is socket.socket
                    with socket.create_connection(listener.getsockname()) as second:
                        await asyncio.sleep(0.01)
                        connection, address = await loop.sock_accept(listener)
                        connection.close()
                        assert address == second.getsockname()

        run(main())

    def test_a_cancelled_accept_takes_no_connection(self, loop, run):
        async def main():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                listener.setblocking(False)
                await cancelled(await suspended(loop.sock_accept(listener)))
                with socket.create_connection(listener.getsockname()) as client:
                    connection, address = await loop.sock_accept(listener)
                    with connection:
                        assert address == client.getsockname()

        run(main())


class TestRefusals:
    def calls(self, loop, sock):
        return {
            "sock_recv": lambda: loop.sock_recv(sock, 1),
            "sock_recv_into": lambda: loop.sock_recv_into(sock, bytearray(1)),
            "sock_recvfrom": lambda: loop.sock_recvfrom(sock, 1),
            "sock_recvfrom_into": lambda: loop.sock_recvfrom_into(sock, bytearray(1)),
            "sock_sendall": lambda: loop.sock_sendall(sock, b"x"),
            "sock_sendto": lambda: loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
            "sock_accept": lambda: loop.sock_accept(sock),
            "sock_connect": lambda: loop.sock_connect(sock, ("127.0.0.1", 9)),
        }

    def test_ssl_sockets(self, loop, run, pair):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with context.wrap_socket(pair[0], do_handshake_on_connect=False) as secured:
            for call in self.calls(loop, secured).values():
                with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                    run(call())

    def test_blocking_sockets_in_debug_mode(self, loop, run, pair):
        near, _ = pair
        loop.set_debug(True)
        for timeout in (None, 1.0):
            near.settimeout(timeout)
            for call in self.calls(loop, near).values():
                with pytest.raises(ValueError, match="the socket must be non-blocking"):
                    run(call())

    def test_closed_sockets(self, loop, run):
        sock = socket.socket()
        sock.setblocking(False)
        sock.close()
        for call in self.calls(loop, sock).values():
            with pytest.raises(OSError, match="Bad file descriptor"):
                run(call())

    def test_a_transports_socket(self, loop, run):
        async def main():
            with Listener(echo) as listener:
                transport, _ = await loop.create_connection(asyncio.Protocol, *listener.address)
                await asyncio.sleep(0)
                real = transport.get_extra_info("socket")._sock
                for call in (
                    lambda: loop.sock_recv(real, 1),
                    lambda: loop.sock_recv_into(real, bytearray(1)),
                    lambda: loop.sock_recvfrom(real, 1),
                ):
                    with pytest.raises(RuntimeError, match="is used by transport"):
                        await call()
                # What need not wait, nobody objects to.
                assert await loop.sock_sendall(real, b"x") is None
                transport.abort()
                await asyncio.sleep(0.01)

        run(main())

    def test_nothing_happens_before_the_first_step(self, loop, run, pair):
        near, far = pair
        far.send(b"x")

        async def main():
            loop.sock_recv(near, 1).close()
            assert await loop.sock_recv(near, 1) == b"x"

        run(main())


class TestBlockingSockets:
    def test_a_blocking_socket_blocks(self, loop, run, pair, debug_mode):
        near, far = pair
        loop.set_debug(False)
        near.setblocking(True)

        async def main():
            thread = threading.Timer(0.05, far.send, [b"late"])
            thread.start()
            assert first_step(loop.sock_recv(near, 10)) == b"late"
            thread.join()

        run(main())

    def test_a_socket_with_a_timeout_keeps_it(self, loop, run, pair, debug_mode):
        near, _ = pair
        loop.set_debug(False)
        near.settimeout(0.02)

        async def main():
            with pytest.raises(TimeoutError):
                first_step(loop.sock_recv(near, 10))

        run(main())

    def test_a_subclass_uses_its_own_methods(self, loop, run):
        calls = []

        class Counting(socket.socket):
            def recv(self, *args):
                calls.append("recv")
                return super().recv(*args)

            def send(self, *args):
                calls.append("send")
                return super().send(*args)

        async def main():
            with Counting() as sock, Listener(echo) as listener:
                sock.setblocking(False)
                await loop.sock_connect(sock, listener.address)
                await loop.sock_sendall(sock, memoryview(b"hello"))
                assert await loop.sock_recv(sock, 100) == b"hello"

        run(main())
        assert calls[0] == "send"
        assert "recv" in calls

    def test_a_subclass_sends_much(self, loop, run):
        class Plain(socket.socket):
            pass

        near, far = socket.socketpair()
        data = os.urandom(2_000_000)

        async def main():
            with Plain(fileno=near.detach()) as sock, far:
                sock.setblocking(False)
                far.setblocking(False)
                task = await suspended(loop.sock_sendall(sock, data))
                received = bytearray()
                while len(received) < len(data):
                    received += await loop.sock_recv(far, 1 << 16)
                await task
                assert received == data

        run(main())


class TestCancellation:
    def test_recv_loses_nothing(self, loop, run, pair):
        near, far = pair

        async def main():
            for _ in range(3):
                await cancelled(await suspended(loop.sock_recv(near, 100)))
            far.send(b"kept")
            assert await loop.sock_recv(near, 100) == b"kept"

        run(main())

    def test_after_the_event_and_before_the_step(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_recv_into(near, bytearray(10)))
            far.send(b"kept")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await loop.sock_recv(near, 100) == b"kept"

        run(main())

    def test_sendall_can_go_on_elsewhere(self, loop, run, pair):
        near, far = pair

        async def main():
            fill(near)
            await cancelled(await suspended(loop.sock_sendall(near, b"never")))
            task = await suspended(loop.sock_sendall(near, b"end"))
            received = b""
            while not received.endswith(b"end"):
                received += await loop.sock_recv(far, 1 << 20)
            await task
            assert b"never" not in received

        run(main())

    def test_a_refusal_that_nobody_waited_for_is_the_next_connects(self, loop, run):
        """After which the socket can connect: the refusal was read once, and by connect(2)."""

        async def main():
            with socket.socket() as listener, socket.socket() as sock:
                listener.bind(("127.0.0.1", 0))
                sock.setblocking(False)
                task = asyncio.create_task(loop.sock_connect(sock, listener.getsockname()))
                await asyncio.sleep(0)
                await cancelled(task)
                listener.listen()
                with pytest.raises(ConnectionRefusedError):
                    await loop.sock_connect(sock, listener.getsockname())
                await loop.sock_connect(sock, listener.getsockname())
                assert sock.getpeername() == listener.getsockname()

        run(main())

    def test_connecting_a_socket_with_a_timeout(self, loop, run, debug_mode):
        """asyncio is in connect() then, until the timeout is over."""
        loop.set_debug(False)

        async def main():
            with socket.socket() as listener, contextlib.ExitStack() as waiting:
                listener.bind(("127.0.0.1", 0))
                listener.listen(0)
                address = listener.getsockname()
                # They fill the queue of who is not accepted yet.
                for _ in range(4):
                    sock = waiting.enter_context(socket.socket())
                    sock.setblocking(False)
                    sock.connect_ex(address)
                late = waiting.enter_context(socket.socket())
                late.settimeout(0.05)
                with pytest.raises(TimeoutError, match="timed out"):
                    first_step(loop.sock_connect(late, address))

        run(main())

    def test_timeouts(self, loop, run, pair):
        near, far = pair

        async def main():
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await loop.sock_recv(near, 1)
            far.send(b"x")
            assert await loop.sock_recv(near, 1) == b"x"

        run(main())

    def test_nothing_is_watched_afterwards(self, loop, run, pair):
        near, _ = pair

        async def main():
            await cancelled(await suspended(loop.sock_recv(near, 1)))
            assert loop.remove_reader(near) is False
            assert loop.remove_writer(near) is False

        run(main())


class TestLife:
    """What a socket's end, or another socket with its number, does to what the loop knows."""

    def test_a_reused_number_is_another_socket(self, loop, run):
        async def main():
            for number in range(20):
                near, far = socket.socketpair()
                with near, far:
                    near.setblocking(False)
                    task = await suspended(loop.sock_recv(near, 10))
                    far.send(b"%d" % number)
                    assert await task == b"%d" % number

        run(main())

    def test_another_socket_put_in_its_place(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_recv(near, 10))
            far.send(b"old")
            assert await task == b"old"
            other, peer = socket.socketpair()
            with other, peer:
                other.setblocking(False)
                os.dup2(other.fileno(), near.fileno())
                task = await suspended(loop.sock_recv(near, 10))
                peer.send(b"new")
                assert await task == b"new"

        run(main())

    @pytest.mark.parametrize("busy", [False, True], ids=["else quiet", "else busy"])
    def test_other_sockets_put_in_the_places_of_several(self, loop, run, busy):
        """Whether the loop has other things to do or sleeps at once."""

        async def main():
            pairs = [socket.socketpair() for _ in range(6)]
            for sock in itertools.chain(*pairs):
                sock.setblocking(False)
            try:
                for near, far in pairs[:3]:
                    task = await suspended(loop.sock_recv(near, 10))
                    far.send(b"old")
                    assert await task == b"old"
                for (near, _), (other, _) in zip(pairs[:3], pairs[3:], strict=True):
                    os.dup2(other.fileno(), near.fileno())
                tasks = [asyncio.create_task(loop.sock_recv(near, 10)) for near, _ in pairs[:3]]
                spinner = asyncio.create_task(spin()) if busy else None
                await asyncio.sleep(0.01)
                for _, peer in pairs[3:]:
                    peer.send(b"new")
                assert await asyncio.gather(*tasks) == [b"new"] * 3
                if spinner is not None:
                    await cancelled(spinner)
            finally:
                for sock in itertools.chain(*pairs):
                    sock.close()

        run(main())

    def test_sockets_served_by_turns_and_waited_for_together(self, loop, run):
        """Data reaches whom it is for, however the waits, the ends and the new sockets mix."""

        async def echo_all(sock):
            with sock:
                while data := await loop.sock_recv(sock, 100):
                    await loop.sock_sendall(sock, data)

        async def client(number):
            near, far = socket.socketpair()
            for sock in (near, far):
                sock.setblocking(False)
            server = asyncio.create_task(echo_all(far))
            with near:
                for turn in range(number + 3):
                    message = b"%d of %d" % (turn, number)
                    await loop.sock_sendall(near, message)
                    assert await loop.sock_recv(near, 100) == message
            await server

        async def main():
            for _ in range(3):
                await asyncio.gather(*(client(number) for number in range(30)))

        run(main())

    def test_a_duplicate_that_outlives_the_socket_costs_nothing(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_recv(near, 10))
            far.send(b"x")
            await task
            with near.dup():
                near.close()
                far.send(b"never read by this loop")
                await asyncio.sleep(0.05)
                before = time.process_time()
                await asyncio.sleep(0.3)
                assert time.process_time() - before < 0.1

        run(main())

    def test_unread_data_costs_nothing(self, loop, run, pair):
        near, far = pair

        async def main():
            task = await suspended(loop.sock_recv(near, 1))
            far.send(b"xyz")
            await task
            await asyncio.sleep(0.01)
            before = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - before < 0.1
            assert await loop.sock_recv(near, 10) == b"yz"

        run(main())

    def test_closing_while_somebody_waits(self, loop, run, pair):
        near, _ = pair

        async def main():
            task = await suspended(loop.sock_recv(near, 10))
            near.close()
            await cancelled(task)
            other, peer = socket.socketpair()
            with other, peer:
                other.setblocking(False)
                task = await suspended(loop.sock_recv(other, 10))
                peer.send(b"x")
                assert await task == b"x"

        run(main())

    def test_a_reader_after_a_wait(self, loop, run, pair):
        near, far = pair
        got = []

        async def main():
            task = await suspended(loop.sock_recv(near, 10))
            far.send(b"one")
            assert await task == b"one"
            loop.add_reader(near, lambda: got.append(near.recv(10)))
            far.send(b"two")
            await until(lambda: got)
            assert loop.remove_reader(near) is True
            assert loop.remove_reader(near) is False
            far.send(b"three")
            assert await loop.sock_recv(near, 10) == b"three"

        run(main())
        assert got == [b"two"]

    def test_a_transport_after_a_wait(self, loop, run, pair):
        near, far = pair
        got = []

        class Collect(asyncio.Protocol):
            def data_received(self, data):
                got.append(data)

        async def main():
            task = await suspended(loop.sock_recv(near, 10))
            far.send(b"one")
            assert await task == b"one"
            transport, _ = await loop.create_unix_connection(Collect, sock=near)
            far.send(b"two")
            await until(lambda: got)
            transport.close()
            await asyncio.sleep(0.01)

        run(main())
        assert got == [b"two"]

    def test_the_loop_closes_while_somebody_waits(self, loop_factory, pair):
        near, far = pair
        loop = loop_factory()

        async def main():
            return await suspended(loop.sock_recv(near, 10))

        task = loop.run_until_complete(main())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()
        far.send(b"still usable")
        assert near.recv(20) == b"still usable"

    def test_a_closed_loop_refuses_to_wait(self, loop_factory, pair):
        loop = loop_factory()
        loop.close()
        coro = loop.sock_recv(pair[0], 1)
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            coro.send(None)
