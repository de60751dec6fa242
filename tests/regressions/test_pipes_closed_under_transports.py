"""A program closes its own pipe under a transport, and the number gets another file.

Must hold: not a byte of the other file is read, none is written to it, and it is neither watched
nor closed; the transport ends with EBADF; the number is free for its next user. asyncio keeps the
number and goes on with it, whoever has it.
"""

import asyncio
import contextlib
import io
import os
import socket

import pytest

from support.peers import turns, until
from support.protocols import Recorder
from support.strangers import Stranger, is_bad_descriptor, refused_to_resume

asyncio_uses_the_number = pytest.mark.asyncio_wrong((3, 0), (4, 0))


class Wrapped:
    """A file that only its own methods can tell about."""

    def __init__(self, file):
        self._file = file

    def fileno(self):
        return self._file.fileno()

    def close(self):
        self._file.close()


def reading(fd):
    return {
        "raw": lambda: os.fdopen(fd, "rb", 0),
        "buffered": lambda: os.fdopen(fd, "rb"),
        "text": lambda: os.fdopen(fd, "r"),
        "wrapped": lambda: Wrapped(os.fdopen(fd, "rb", 0)),
        "subclass": lambda: type("File", (io.FileIO,), {})(fd, "rb"),
    }


def writing(fd):
    return {
        "raw": lambda: os.fdopen(fd, "wb", 0),
        "buffered": lambda: os.fdopen(fd, "wb"),
        "text": lambda: os.fdopen(fd, "w"),
        "wrapped": lambda: Wrapped(os.fdopen(fd, "wb", 0)),
        "subclass": lambda: type("File", (io.FileIO,), {})(fd, "wb"),
    }


KINDS = [*reading(-1), "socket"]


@pytest.fixture(params=KINDS)
def reader(request):
    """The reading end of that kind, and the descriptor of the writing end."""
    if request.param == "socket":
        near, far = socket.socketpair()
        far = far.detach()
    else:
        near, far = os.pipe()
        near = reading(near)[request.param]()
    yield near, far
    near.close()
    os.close(far)


@pytest.fixture(params=KINDS)
def writer(request):
    """The writing end of that kind, and the descriptor of the reading end."""
    if request.param == "socket":
        near, far = socket.socketpair()
        far = far.detach()
    else:
        far, near = os.pipe()
        near = writing(near)[request.param]()
    os.set_blocking(far, False)
    yield near, far
    near.close()
    os.close(far)


async def ended(transport, protocol):
    with contextlib.suppress(AttributeError):  # a reading transport has no abort()
        transport.abort()
    transport.close()
    await until(lambda: protocol.is_lost)


async def close_beside_a_stranger(connecting, near):
    transport, protocol = await connecting
    await turns()
    with Stranger(near) as stranger:
        await ended(transport, protocol)
        stranger.sock.send(b"still open")
        assert stranger.got() == [b"still open", None]


class TestReading:
    @asyncio_uses_the_number
    def test_nothing_of_the_stranger_is_read(self, loop, run, reader, unhandled):
        """It is closed by a callback of the poll that has found both readable."""
        near, far = reader
        strangers = []

        class Closing(Recorder):
            def data_received(self, data):
                strangers.append(Stranger(near))
                strangers[0].peer.send(b"for the stranger")

        async def main():
            first, second = socket.socketpair()
            closing, _ = await loop.create_connection(Closing, sock=first)
            _transport, protocol = await loop.connect_read_pipe(Recorder, near)
            await turns()
            second.send(b"x")
            os.write(far, b"data")
            await until(lambda: protocol.is_lost)
            closing.abort()
            (stranger,) = strangers
            assert stranger.got() == [None, b"for the stranger"]
            assert bytes(protocol.received) == b""
            stranger.close()
            second.close()
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))
        assert [type(context["exception"]) for context in unhandled.take()] == [OSError]

    @asyncio_uses_the_number
    def test_a_resumed_transport_does_not_watch_the_stranger(self, loop, run, reader):
        near, _far = reader

        async def main():
            transport, protocol = await loop.connect_read_pipe(Recorder, near)
            transport.pause_reading()
            await turns()
            with Stranger(near) as stranger:
                stranger.peer.send(b"for the stranger")
                transport.resume_reading()
                await until(lambda: protocol.is_lost)
                assert stranger.got() == [None, b"for the stranger"]
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))

    def test_reading_of_a_closed_pipe_is_not_resumed(self, loop, run, reader):
        """Nobody has the number: the caller is told, and the transport is as it was."""
        near, _far = reader

        async def main():
            transport, protocol = await loop.connect_read_pipe(Recorder, near)
            transport.pause_reading()
            await turns()
            near.close()
            await refused_to_resume(transport, protocol)
            await ended(transport, protocol)

        run(main())

    def test_close_leaves_the_stranger_open(self, loop, run, reader):
        near, _far = reader
        run(close_beside_a_stranger(loop.connect_read_pipe(Recorder, near), near))


class TestWriting:
    def test_a_closed_pipe_ends_the_transport(self, loop, run, writer):
        near, _far = writer

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, near)
            await turns()
            near.close()
            transport.write(b"data")
            await until(lambda: protocol.is_lost)
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))

    @asyncio_uses_the_number
    def test_nothing_is_written_to_the_stranger(self, loop, run, writer):
        near, far = writer

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, near)
            await turns()
            with Stranger(near) as stranger:
                transport.write(b"not for the stranger")
                await until(lambda: protocol.is_lost)
                assert stranger.got() == [None, None]
            assert os.read(far, 100) == b""
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))

    @asyncio_uses_the_number
    def test_what_is_queued_is_not_written_to_the_stranger(self, loop, run, writer):
        """A duplicate keeps the pipe's registration alive, and the pipe is writable again."""
        near, far = writer

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, near)
            await turns()
            transport.write(bytes(1_000_000))
            duplicate = os.dup(near.fileno())
            with Stranger(near) as stranger:
                while not protocol.is_lost:
                    with contextlib.suppress(BlockingIOError):
                        os.read(far, 1_000_000)
                    await asyncio.sleep(0.001)
                assert stranger.got() == [None, None]
            os.close(duplicate)
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))

    def test_close_leaves_the_stranger_open(self, loop, run, writer):
        near, _far = writer
        run(close_beside_a_stranger(loop.connect_write_pipe(Recorder, near), near))


@asyncio_uses_the_number
@pytest.mark.parametrize("user", ["add_reader", "sock_recv", "connect_read_pipe"])
def test_the_number_is_free_for_its_next_user(loop, run, reader, user):
    near, _far = reader

    async def main():
        transport, protocol = await loop.connect_read_pipe(Recorder, near)
        await turns()
        stranger = Stranger(near)
        stranger.peer.send(b"x")
        if user == "add_reader":
            got = asyncio.Event()
            loop.add_reader(stranger.sock, got.set)
            await asyncio.wait_for(got.wait(), 10)
            loop.remove_reader(stranger.sock)
        elif user == "sock_recv":
            assert await loop.sock_recv(stranger.sock, 10) == b"x"
            await ended(transport, protocol)
        else:
            successor, sink = await loop.connect_read_pipe(Recorder, stranger.sock)
            await until(lambda: sink.received)
            await ended(successor, sink)
        await until(lambda: protocol.is_lost)
        assert bytes(protocol.received) == b""
        stranger.close()
        if user != "sock_recv":  # which had nothing to wait for
            assert is_bad_descriptor(protocol.lost_with[0])

    run(main())
