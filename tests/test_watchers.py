"""add_reader, add_writer and their removal: level-triggering, replacement, odd descriptors."""

import asyncio
import contextlib
import gc
import os
import pty
import resource
import socket
import tempfile
import threading
import time
import weakref

import pytest

from support.peers import until
from support.protocols import Recorder

pytestmark = pytest.mark.both_modes


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


class WithNumber:
    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number


def fill(sock):
    """Writes until the kernel takes no more."""
    while True:
        try:
            sock.send(b"x" * 65536)
        except BlockingIOError:
            return


def empty(sock):
    while True:
        try:
            if not sock.recv(65536):
                return
        except BlockingIOError:
            return


class TestReader:
    def test_is_called_when_readable(self, loop, run, pair):
        near, far = pair
        got = []

        async def main():
            assert loop.add_reader(near, lambda: got.append(near.recv(10))) is None
            await asyncio.sleep(0.01)
            assert got == []
            far.send(b"one")
            await until(lambda: got)
            far.send(b"two")
            await until(lambda: len(got) == 2)
            assert loop.remove_reader(near) is True
            far.send(b"three")
            await asyncio.sleep(0.01)

        run(main())
        assert got == [b"one", b"two"]

    def test_arguments(self, loop, run, pair):
        near, far = pair
        got = []

        def readable(*args):
            got.append(args)
            loop.remove_reader(near)

        async def main():
            loop.add_reader(near, readable, 1, "two", None)
            far.send(b"x")
            await until(lambda: got)

        run(main())
        assert got == [(1, "two", None)]

    def test_data_already_there(self, loop, run, pair):
        near, far = pair
        far.send(b"early")
        got = []

        async def main():
            loop.add_reader(near, lambda: got.append(near.recv(10)))
            await until(lambda: got)
            loop.remove_reader(near)

        run(main())
        assert got == [b"early"]

    def test_eof_and_reset_are_readable(self, loop, run, pair):
        near, far = pair
        got = []

        async def main():
            loop.add_reader(near, lambda: got.append(near.recv(10)))
            far.shutdown(socket.SHUT_WR)
            await until(lambda: got)
            loop.remove_reader(near)

        run(main())
        assert got[0] == b""

    def test_pipe_hangup_is_readable(self, loop, run, pipe):
        read, write = pipe
        got = []

        def readable():
            got.append(os.read(read, 10))
            loop.remove_reader(read)

        async def main():
            loop.add_reader(read, readable)
            os.close(write)
            await until(lambda: got)

        run(main())
        assert got == [b""]

    def test_watching_before_the_loop_runs(self, loop, pair):
        near, far = pair
        got = []

        def readable():
            got.append(near.recv(10))
            loop.remove_reader(near)
            loop.stop()

        loop.add_reader(near, readable)
        far.send(b"x")
        loop.run_forever()
        assert got == [b"x"]

    def test_the_callback_runs_in_the_context_of_registration(self, loop, run, pair):
        import contextvars

        var = contextvars.ContextVar("var", default=None)
        near, far = pair
        seen = []

        def readable():
            near.recv(10)
            seen.append(var.get())

        async def main():
            var.set("registered")
            loop.add_reader(near, readable)
            var.set("later")
            far.send(b"x")
            await until(lambda: seen)
            loop.remove_reader(near)

        run(main())
        assert seen == ["registered"]


class TestWriter:
    def test_is_called_while_writable(self, loop, run, pair):
        near, _ = pair
        calls = []

        async def main():
            assert loop.add_writer(near, calls.append, 1) is None
            await until(lambda: len(calls) >= 3)
            assert loop.remove_writer(near) is True

        run(main())
        count = len(calls)
        run(asyncio.sleep(0.01))
        assert len(calls) == count

    def test_waits_until_there_is_room(self, loop, run, pair):
        near, far = pair
        calls = []
        fill(near)

        async def main():
            loop.add_writer(near, calls.append, 1)
            await asyncio.sleep(0.01)
            assert calls == []
            empty(far)
            await until(lambda: calls)
            loop.remove_writer(near)

        run(main())

    def test_reader_and_writer_of_one_descriptor(self, loop, run, pair):
        near, far = pair
        reads, writes = [], []

        async def main():
            loop.add_reader(near, lambda: reads.append(near.recv(10)))
            loop.add_writer(near, writes.append, 1)
            await until(lambda: writes)
            assert reads == []
            assert loop.remove_writer(near) is True
            far.send(b"x")
            await until(lambda: reads)
            assert loop.remove_writer(near) is False
            assert loop.remove_reader(near) is True
            assert loop.remove_reader(near) is False

        run(main())

    def test_removing_the_reader_leaves_the_writer(self, loop, run, pair):
        near, far = pair
        calls = []

        async def main():
            loop.add_reader(near, int)
            loop.add_writer(near, calls.append, 1)
            loop.remove_reader(near)
            far.send(b"x")
            await until(lambda: len(calls) > 3)
            loop.remove_writer(near)

        run(main())


class TestReplacement:
    @pytest.mark.parametrize("add", ["add_reader", "add_writer"])
    def test_last_callback_wins(self, loop, run, pair, add):
        near, far = pair
        old, new = [], []

        async def main():
            getattr(loop, add)(near, old.append, 1)
            getattr(loop, add)(near, new.append, 1)
            far.send(b"x")
            await until(lambda: len(new) > 2)
            getattr(loop, add.replace("add", "remove"))(near)

        run(main())
        assert old == []

    def test_replaced_while_the_event_is_queued(self, loop, run, pair):
        near, far = pair
        old, new = [], []

        async def main():
            loop.add_reader(near, old.append, 1)
            far.send(b"x")
            await until(lambda: old)
            loop.add_reader(near, lambda: new.append(near.recv(10)))
            count = len(old)
            await until(lambda: new)
            loop.remove_reader(near)
            return count

        assert run(main()) == len(old)

    def test_replaced_callback_is_released(self, loop, pair):
        near, _ = pair

        class Target:
            def method(self):
                pass

        target = Target()
        ref = weakref.ref(target)
        loop.add_reader(near, target.method)
        del target
        loop.add_reader(near, int)
        gc.collect()
        assert ref() is None
        loop.remove_reader(near)

    def test_removed_inside_another_readers_callback(self, loop, run, pair):
        """Both are ready in one poll; the first takes the second away."""
        one, two = socket.socketpair(), socket.socketpair()
        calls = []

        def readable(mine, other):
            calls.append(mine)
            mine.recv(10)
            loop.remove_reader(other)

        async def main():
            loop.add_reader(one[0], readable, one[0], two[0])
            loop.add_reader(two[0], readable, two[0], one[0])
            one[1].send(b"x")
            two[1].send(b"x")
            await until(lambda: calls)
            await asyncio.sleep(0.01)

        run(main())
        assert len(calls) == 1
        loop.remove_reader(calls[0])
        for sock in (*one, *two):
            sock.close()

    def test_removing_itself_in_its_callback(self, loop, run, pair):
        near, far = pair
        calls = []

        def readable():
            calls.append(loop.remove_reader(near))

        async def main():
            loop.add_reader(near, readable)
            far.send(b"x")
            await until(lambda: calls)
            await asyncio.sleep(0.01)

        run(main())
        assert calls == [True]

    def test_many_additions_and_removals(self, loop, run, pair):
        """What psycopg does: a registration for every single wait."""
        near, far = pair

        async def main():
            for number in range(300):
                future = loop.create_future()
                loop.add_reader(near, future.set_result, number)
                far.send(b"x")
                assert await future == number
                assert loop.remove_reader(near)
                near.recv(10)

        run(main())


class TestDescriptors:
    def test_by_number(self, loop, run, pair):
        near, far = pair
        got = []

        async def main():
            loop.add_reader(near.fileno(), lambda: got.append(near.recv(10)))
            far.send(b"x")
            await until(lambda: got)
            assert loop.remove_reader(near.fileno()) is True

        run(main())

    def test_number_and_object_are_the_same(self, loop, pair):
        near, _ = pair
        loop.add_reader(near, int)
        assert loop.remove_reader(near.fileno()) is True
        loop.add_reader(near.fileno(), int)
        assert loop.remove_reader(near) is True

    def test_object_with_fileno(self, loop, run, pair):
        near, far = pair
        got = []

        class File:
            def fileno(self):
                return near.fileno()

        async def main():
            file = File()
            loop.add_reader(file, lambda: got.append(near.recv(10)))
            far.send(b"x")
            await until(lambda: got)
            assert loop.remove_reader(file) is True

        run(main())

    @pytest.mark.parametrize("wrong", [None, "text", object(), 1.5, []])
    def test_not_a_descriptor(self, loop, wrong):
        expected = "Invalid file object"
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises(ValueError, match=expected):
                method(wrong, int)
        for method in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(ValueError, match=expected):
                method(wrong)

    @pytest.mark.parametrize("number", [-1, -(2**31), -(2**40), -(2**70)])
    def test_negative(self, loop, number):
        for file in (number, WithNumber(number)):
            for add in (loop.add_reader, loop.add_writer):
                with pytest.raises(ValueError, match=f"^Invalid file descriptor: {number}$"):
                    add(file, int)
            for remove in (loop.remove_reader, loop.remove_writer):
                with pytest.raises(ValueError, match=f"^Invalid file descriptor: {number}$"):
                    remove(file)

    @pytest.mark.parametrize("number", [2**31, 2**40, 2**70])
    def test_more_than_the_kernel_counts(self, loop, number):
        for file in (number, WithNumber(number)):
            for add in (loop.add_reader, loop.add_writer):
                with pytest.raises(OverflowError, match="too large to convert to C int"):
                    add(file, int)
            for remove in (loop.remove_reader, loop.remove_writer):
                assert remove(file) is False

    @pytest.mark.parametrize("number", [2**20 - 1, 2**20, 2**31 - 1])
    def test_more_than_the_process_has(self, loop, number):
        """No memory is taken for all the numbers below it."""
        for file in (number, WithNumber(number)):
            for add in (loop.add_reader, loop.add_writer):
                with pytest.raises(OSError, match="Bad file descriptor"):
                    add(file, int)
            for remove in (loop.remove_reader, loop.remove_writer):
                assert remove(file) is False

    def test_a_high_number(self, loop, run, pair):
        near, far = pair
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        many = min(limits[1], 2**20 + 2)
        high = many - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (many, limits[1]))
        os.dup2(near.fileno(), high)
        try:
            got = []

            async def main():
                loop.add_reader(high, lambda: got.append(os.read(high, 10)))
                far.send(b"x")
                await until(lambda: got)
                assert loop.remove_reader(high) is True
                assert loop.remove_reader(high) is False

            run(main())
        finally:
            os.close(high)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    @pytest.mark.parametrize("answer", [1.5, "1"])
    def test_fileno_that_can_be_a_number(self, loop, pair, answer):
        near, _ = pair
        answer = type(answer)(near.fileno())
        loop.add_reader(WithNumber(answer), int)
        assert loop.remove_reader(near) is True

    def test_closed_loop_looks_at_the_object_first(self, loop_factory):
        loop = loop_factory()
        loop.close()
        assert loop.remove_reader(-1) is False
        assert loop.remove_writer(2**40) is False
        for number in (-1, 2**40):
            with pytest.raises(RuntimeError, match="Event loop is closed"):
                loop.add_reader(number, int)
        with pytest.raises(ValueError, match="Invalid file object"):
            loop.remove_reader("text")

    def test_closed_descriptor(self, loop):
        read, write = os.pipe()
        os.close(read)
        os.close(write)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_reader(read, int)
        with pytest.raises(OSError, match="Bad file descriptor"):
            loop.add_writer(write, int)
        assert loop.remove_reader(read) is False
        assert loop.remove_writer(write) is False

    def test_closed_socket(self, loop):
        sock = socket.socket()
        sock.close()
        for add in (loop.add_reader, loop.add_writer):
            with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
                add(sock, int)
        for remove in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
                remove(sock)

    def test_closed_socket_that_was_watched(self, loop, pair):
        near, _ = pair
        loop.add_reader(near, int)
        near.close()
        assert loop.remove_writer(near) is False
        assert loop.remove_reader(near) is True
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            loop.remove_reader(near)

    @pytest.mark.parametrize("add", ["add_reader", "add_writer"])
    @pytest.mark.parametrize("by_object", [True, False], ids=["object", "number"])
    def test_regular_file(self, loop, add, by_object):
        with tempfile.TemporaryFile() as file:
            watched = file if by_object else file.fileno()
            with pytest.raises(PermissionError, match="Operation not permitted"):
                getattr(loop, add)(watched, int)
            assert getattr(loop, add.replace("add", "remove"))(watched) is False
        assert loop.run_until_complete(asyncio.sleep(0, "goes on")) == "goes on"

    def test_reused_number(self, loop, run):
        """A new socket under an old number is a new socket."""
        old, new = [], []
        first, first_far = socket.socketpair()
        fd = first.fileno()
        loop.add_reader(fd, old.append, 1)
        loop.remove_reader(fd)
        first.close()
        second, second_far = socket.socketpair()
        if second.fileno() != fd:
            os.dup2(second.fileno(), fd)
            second.close()
            second = socket.socket(fileno=fd)
        second.setblocking(False)

        async def main():
            loop.add_reader(fd, lambda: new.append(second.recv(10)))
            second_far.send(b"x")
            await until(lambda: new)
            loop.remove_reader(fd)

        run(main())
        assert old == []
        for sock in (first_far, second, second_far):
            sock.close()

    def test_terminal(self, loop, run):
        master, slave = pty.openpty()
        got = []

        async def main():
            loop.add_reader(master, lambda: got.append(os.read(master, 100)))
            os.write(slave, b"from the terminal")
            await until(lambda: b"".join(got) == b"from the terminal")
            loop.remove_reader(master)

        run(main())
        os.close(slave)
        os.close(master)

    def test_eventfd(self, loop, run):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        got = []

        async def main():
            loop.add_reader(fd, lambda: got.append(os.eventfd_read(fd)))
            os.eventfd_write(fd, 3)
            await until(lambda: got)
            loop.remove_reader(fd)

        run(main())
        os.close(fd)
        assert got == [3]

    def test_many_descriptors(self, loop, run):
        pairs = [socket.socketpair() for _ in range(150)]
        got = []

        def readable(number):
            pairs[number][0].recv(10)
            got.append(number)

        async def main():
            for number, (near, _) in enumerate(pairs):
                loop.add_reader(near, readable, number)
            for _, far in pairs:
                far.send(b"x")
            await until(lambda: len(got) == len(pairs))
            for near, _ in pairs:
                assert loop.remove_reader(near)

        run(main())
        assert sorted(got) == list(range(150))
        for near, far in pairs:
            near.close()
            far.close()


class TestTransportsDescriptor:
    @pytest.mark.parametrize(
        "method", ["add_reader", "remove_reader", "add_writer", "remove_writer"]
    )
    def test_is_refused(self, loop, run, pair, method):
        near, _ = pair

        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            args = (int,) if method.startswith("add") else ()
            for fd in (near, near.fileno()):
                with pytest.raises(RuntimeError, match=r"File descriptor .* is used by transport"):
                    getattr(loop, method)(fd, *args)
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        run(main())

    def test_text_names_descriptor_and_transport(self, loop, run, pair):
        near, _ = pair

        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            with pytest.raises(RuntimeError) as caught:
                loop.add_reader(near.fileno(), int)
            fd = near.fileno()
            assert str(caught.value) == (
                f"File descriptor {fd!r} is used by transport {transport!r}"
            )
            transport.close()
            await asyncio.sleep(0.001)

        run(main())

    @pytest.mark.parametrize(
        "method",
        [
            "add_reader",
            pytest.param("add_writer", marks=pytest.mark.asyncio_wrong((3, 0), (4, 0))),
            pytest.param("remove_writer", marks=pytest.mark.asyncio_wrong((3, 0), (4, 0))),
        ],
    )
    def test_a_closing_transport_sends_its_data(self, loop, run, pair, method):
        """asyncio takes the writer of the transport away."""
        near, far = pair
        far.setblocking(False)
        fd = near.fileno()
        received = bytearray()

        def is_all_received():
            with contextlib.suppress(BlockingIOError):
                received.extend(far.recv(1 << 20))
            return len(received) == 2_000_000

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
            transport.write(bytes(2_000_000))
            transport.close()
            getattr(loop, method)(fd, *([int] if method.startswith("add") else []))
            await until(is_all_received)
            await until(lambda: protocol.is_lost)
            loop.remove_reader(fd)
            loop.remove_writer(fd)

        run(main())

    def test_is_free_again_after_the_transport_closed(self, loop, run, pair):
        near, _ = pair
        fd = near.fileno()

        async def main():
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            transport.close()
            await until(lambda: near.fileno() == -1)
            assert loop.remove_reader(fd) is False

        run(main())


class TestClosedLoop:
    def test_refuses(self, loop, pair):
        near, _ = pair
        loop.close()
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
                method(near, int)

    def test_callbacks_are_released_at_close(self, loop, pair):
        near, _ = pair

        class Target:
            def method(self):
                pass

        target = Target()
        ref = weakref.ref(target)
        loop.add_reader(near, target.method)
        loop.close()
        del target
        gc.collect()
        assert ref() is None
        assert near.fileno() != -1


def test_missing_callback(loop, pair):
    near, _ = pair
    with pytest.raises(TypeError):
        loop.add_reader(near)
    with pytest.raises(TypeError):
        loop.add_writer(near)


def test_a_sleeping_loop_wakes_for_data_sent_by_a_thread(loop, run, pair):
    near, far = pair

    def send():
        time.sleep(0.03)
        far.send(b"x")

    async def main():
        future = loop.create_future()
        loop.add_reader(near, future.set_result, True)
        thread = threading.Thread(target=send)
        thread.start()
        assert await future
        loop.remove_reader(near)
        thread.join()

    run(main())
