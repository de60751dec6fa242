"""connect_read_pipe and connect_write_pipe, over everything that asyncio takes for a pipe."""

import asyncio
import contextlib
import contextvars
import errno
import fcntl
import gc
import io
import os
import pty
import re
import socket
import sys
import tty
import warnings
import weakref

import pytest

from support.descriptors import watched_descriptors
from support.peers import pattern, turns, until
from support.protocols import Recorder, noting_resumes


def pipe():
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)


def fifo(directory):
    path = directory / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    return os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)


def terminal():
    """The two sides of a raw terminal; what is written to the first is read from the second."""
    main, side = pty.openpty()
    tty.setraw(side)
    return os.fdopen(side, "rb", 0), os.fdopen(main, "wb", 0)


@pytest.fixture(params=["pipe", "fifo", "socket", "terminal"])
def ends(request, tmp_path):
    """A reading and a writing end of each kind, both file objects."""
    makers = {
        "pipe": pipe,
        "fifo": lambda: fifo(tmp_path),
        "socket": socket.socketpair,
        "terminal": terminal,
    }
    both = makers[request.param]()
    yield both
    for end in both:
        with contextlib.suppress(OSError):
            end.close()


def write_to(end, data):
    view = memoryview(data)
    while view:
        view = view[os.write(end.fileno(), view) :]


def read_from(end, count):
    """A terminal hands on what was written in pieces of its own."""
    got = b""
    while len(got) < count:
        got += os.read(end.fileno(), count - len(got))
    return got


class TestReading:
    def test_connect_read_pipe_delivers_what_is_written(self, loop, run, ends):
        reader, writer = ends

        async def main():
            transport, protocol = await loop.connect_read_pipe(Recorder, reader)
            assert isinstance(transport, asyncio.ReadTransport)
            assert not isinstance(transport, asyncio.WriteTransport)
            assert protocol.transport is transport
            assert transport.get_protocol() is protocol
            assert transport.get_extra_info("pipe") is reader
            assert transport.get_extra_info("peername", "none") == "none"
            assert not os.get_blocking(reader.fileno())
            write_to(writer, b"one")
            await until(lambda: protocol.received == b"one")
            write_to(writer, b"two")
            await until(lambda: protocol.received == b"onetwo")
            assert transport.is_reading()
            assert not transport.is_closing()
            transport.close()
            assert transport.is_closing()
            assert not transport.is_reading()
            assert not protocol.is_lost
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]
            await turns()
            assert reader.fileno() == -1 if isinstance(reader, socket.socket) else reader.closed

        run(main())

    def test_other_side_of_a_terminal_closes(self, loop, run):
        reader, writer = terminal()

        async def main():
            # The main side gets EIO where a pipe would see its end.
            _, protocol = await loop.connect_read_pipe(Recorder, writer)
            reader.close()
            await until(lambda: protocol.is_lost)
            (error,) = protocol.lost_with
            assert error.errno == errno.EIO

        run(main())

    def test_pause_and_resume(self, loop, run, ends):
        reader, writer = ends

        async def main():
            transport, protocol = await loop.connect_read_pipe(Recorder, reader)
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            write_to(writer, b"later")
            await turns(10)
            assert protocol.received == b""
            transport.resume_reading()
            transport.resume_reading()
            await until(lambda: protocol.received == b"later")
            transport.close()
            transport.pause_reading()
            transport.resume_reading()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_paused_in_connection_made(self, loop, run):
        reader, writer = pipe()

        class Paused(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.pause_reading()

        async def main():
            writer.write(b"early")
            transport, protocol = await loop.connect_read_pipe(Paused, reader)
            await turns(10)
            assert protocol.received == b""
            transport.resume_reading()
            await until(lambda: protocol.received == b"early")
            transport.close()

        run(main())
        writer.close()

    def test_data_received_that_raises_does_not_end_it(self, loop, run, unhandled):
        reader, writer = pipe()

        class Failing(Recorder):
            def data_received(self, data):
                super().data_received(data)
                if data == b"bad":
                    raise LookupError("from data_received")

        async def main():
            transport, protocol = await loop.connect_read_pipe(Failing, reader)
            writer.write(b"bad")
            await until(lambda: unhandled)
            writer.write(b"good")
            await until(lambda: protocol.received == b"badgood")
            assert not transport.is_closing()
            transport.close()

        run(main())
        writer.close()
        assert isinstance(unhandled.take_one()["exception"], LookupError)

    def test_set_protocol(self, loop, run):
        reader, writer = pipe()

        async def main():
            transport, first = await loop.connect_read_pipe(Recorder, reader)
            second = Recorder()
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            writer.write(b"x")
            writer.close()
            await until(lambda: second.is_lost)
            assert second.received == b"x"
            assert first.calls == ["made"]

        run(main())

    def test_stream_reader(self, loop, run):
        reader, writer = pipe()

        async def main():
            stream = asyncio.StreamReader(limit=1024)
            await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), reader)
            sent = pattern(300_000)
            sending = loop.run_in_executor(None, write_to, writer, sent)
            assert await stream.readexactly(len(sent)) == sent
            await sending
            writer.close()
            assert await stream.read() == b""

        run(main())


class TestWriting:
    def test_connect_write_pipe_writes(self, loop, run, ends):
        reader, writer = ends

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            assert isinstance(transport, asyncio.WriteTransport)
            assert transport.get_extra_info("pipe") is writer
            assert transport.get_protocol() is protocol
            assert transport.can_write_eof()
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.write(b"one")
            transport.write(bytearray(b"two"))
            transport.write(memoryview(b"three"))
            transport.write(b"")
            transport.writelines([b"fo", b"ur"])
            assert transport.get_write_buffer_size() == 0
            assert read_from(reader, 15) == b"onetwothreefour"
            transport.close()
            assert transport.is_closing()
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]

        run(main())

    @pytest.mark.parametrize("data", [None, "text", 1])
    def test_what_is_no_data(self, loop, run, data):
        reader, writer = pipe()

        async def main():
            transport, _ = await loop.connect_write_pipe(Recorder, writer)
            with pytest.raises(AssertionError):
                transport.write(data)
            transport.close()

        run(main())
        reader.close()

    def test_flow_control(self, loop, run):
        reader, writer = pipe()
        os.set_blocking(reader.fileno(), False)
        sent = pattern(1_000_000)
        got = bytearray()

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.set_write_buffer_limits(high=5000)
            assert transport.get_write_buffer_limits() == (1250, 5000)
            changing = bytearray(sent)
            transport.write(changing)
            changing[:] = bytes(len(changing))
            assert protocol.paused
            assert 0 < transport.get_write_buffer_size() < len(sent)
            transport.write(b"end")
            while len(got) < len(sent) + 3:
                with contextlib.suppress(BlockingIOError):
                    got.extend(os.read(reader.fileno(), 1 << 16))
                await asyncio.sleep(0)
            await until(lambda: not protocol.paused)
            assert transport.get_write_buffer_size() == 0
            assert protocol.calls == ["made", "pause", "resume"]
            transport.close()

        run(main())
        reader.close()
        assert got == sent + b"end"

    def test_context_of_flow_control(self, loop):
        """What resume_writing sets is not seen by the code that runs the loop."""
        variable = contextvars.ContextVar("variable", default="unset")
        reader, writer = pipe()
        os.set_blocking(reader.fileno(), False)
        seen = []

        factory = noting_resumes(Recorder, variable, seen)

        async def main():
            variable.set("ours")
            transport, protocol = await loop.connect_write_pipe(factory, writer)
            transport.write(bytes(1_000_000))
            assert protocol.paused
            while protocol.paused:
                with contextlib.suppress(BlockingIOError):
                    os.read(reader.fileno(), 1 << 16)
                await asyncio.sleep(0)
            transport.abort()
            await until(lambda: protocol.is_lost)

        loop.run_until_complete(main())
        reader.close()
        assert seen == ["ours"]
        assert variable.get() == "unset"

    @pytest.mark.parametrize("ending", ["close", "write_eof"])
    def test_ending_sends_what_is_queued(self, loop, run, ending):
        reader, writer = pipe()
        sent = pattern(500_000)

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(sent)
            getattr(transport, ending)()
            assert transport.is_closing()
            transport.write(b"too late")
            reading = loop.run_in_executor(None, reader.readall)
            assert await reading == sent
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]
            assert writer.closed

        run(main())
        reader.close()

    def test_connection_lost_finds_the_descriptor_unwatched(self, loop, run):
        reader, writer = pipe()
        watched = []

        class Looking(Recorder):
            def connection_lost(self, exc):
                watched.append(writer.fileno() in watched_descriptors())
                super().connection_lost(exc)

        async def main():
            transport, protocol = await loop.connect_write_pipe(Looking, writer)
            transport.write(bytes(500_000))
            transport.close()
            await loop.run_in_executor(None, reader.readall)
            await until(lambda: protocol.is_lost)

        run(main())
        reader.close()
        assert watched == [False]

    def test_a_reader_beside_a_closing_transport(self, loop, run):
        """What the transport still has to send is sent."""
        reader, writer = pipe()
        os.set_blocking(reader.fileno(), False)
        fd = writer.fileno()
        received = bytearray()

        def is_all_received():
            received.extend(reader.read(1 << 20) or b"")
            return len(received) == 500_000

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(bytes(500_000))
            transport.close()
            loop.add_reader(fd, int)
            await until(is_all_received)
            await until(lambda: protocol.is_lost)
            loop.remove_reader(fd)

        run(main())
        reader.close()

    def test_abort_drops_what_is_queued(self, loop, run):
        reader, writer = pipe()

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(bytes(500_000))
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]
            assert len(reader.readall()) < 500_000

        run(main())
        reader.close()

    def test_reader_closing_notices_the_writer(self, loop, run, tmp_path):
        async def main(reader, writer):
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(b"unread")
            await turns()
            assert not transport.is_closing()
            reader.close()
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]

        run(main(*pipe()))
        run(main(*socket.socketpair()))
        run(main(*fifo(tmp_path)))

    def test_reader_closing_on_queued_data(self, loop, run):
        reader, writer = pipe()

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            transport.write(bytes(500_000))
            await turns()
            reader.close()
            await until(lambda: protocol.is_lost)
            (error,) = protocol.lost_with
            assert isinstance(error, BrokenPipeError)

        run(main())

    def test_write_to_a_closed_reader(self, loop, run, caplog):
        reader, writer = pipe()

        async def main():
            transport, protocol = await loop.connect_write_pipe(Recorder, writer)
            reader.close()
            for _ in range(7):
                transport.write(b"x")
            await until(lambda: protocol.is_lost)
            (error,) = protocol.lost_with
            assert isinstance(error, BrokenPipeError)

        run(main())
        warnings_logged = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        text = "pipe closed by peer or os.write(pipe, data) raised exception."
        assert warnings_logged == [text] * 2

    def test_character_device(self, loop, run):
        async def main():
            transport, protocol = await loop.connect_write_pipe(
                Recorder, os.fdopen(os.open("/dev/null", os.O_WRONLY), "wb", 0)
            )
            transport.write(bytes(100_000))
            assert transport.get_write_buffer_size() == 0
            await turns()
            transport.close()
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]

        run(main())


class TestBothEnds:
    def test_the_same_terminal_given_twice(self, loop, run):
        main_fd, side = pty.openpty()
        tty.setraw(side)
        device = os.fdopen(side, "r+b", 0)

        async def main():
            in_transport, incoming = await loop.connect_read_pipe(Recorder, device)
            out_transport, outgoing = await loop.connect_write_pipe(Recorder, device)
            out_transport.write(b"to the screen")
            assert os.read(main_fd, 100) == b"to the screen"
            os.write(main_fd, b"from the keyboard")
            await until(lambda: incoming.received == b"from the keyboard")
            # Enough to wait for the screen, while the keyboard goes on.
            sent = pattern(200_000)
            out_transport.write(sent)
            assert out_transport.get_write_buffer_size() > 0
            os.write(main_fd, b", more")
            await until(lambda: incoming.received.endswith(b", more"))
            got = bytearray()
            while len(got) < len(sent):
                got += await loop.run_in_executor(None, os.read, main_fd, 1 << 16)
            assert got == sent
            out_transport.close()
            in_transport.close()
            await until(lambda: incoming.is_lost and outgoing.is_lost)

        run(main())
        os.close(main_fd)

    def test_from_one_end_to_the_other(self, loop, run):
        reader, writer = pipe()

        async def main():
            _, incoming = await loop.connect_read_pipe(Recorder, reader)
            transport, _ = await loop.connect_write_pipe(Recorder, writer)
            sent = pattern(3_000_000)
            transport.writelines([sent[i : i + 1000] for i in range(0, len(sent), 1000)])
            transport.close()
            await until(lambda: incoming.is_lost)
            assert incoming.received == sent

        run(main())

    def test_watchers_of_a_terminal_beside_a_paused_reader(self, loop, run):
        reader, writer = pipe()

        async def main():
            transport, protocol = await loop.connect_read_pipe(Recorder, reader)
            transport.pause_reading()
            seen = loop.create_future()
            loop.add_reader(reader.fileno(), lambda: seen.done() or seen.set_result(None))
            writer.write(b"x")
            await seen
            assert loop.remove_reader(reader.fileno())
            transport.resume_reading()
            await until(lambda: protocol.received == b"x")
            transport.close()

        run(main())
        writer.close()


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("connect_read_pipe", "Pipe transport is for pipes/sockets only."),
        ("connect_write_pipe", "Pipe transport is only for pipes, sockets and character devices"),
    ],
)
class TestEitherEnd:
    def test_regular_file(self, loop, run, tmp_path, method, text):
        with (tmp_path / "file").open("w+b", 0) as file:
            with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
                run(getattr(loop, method)(Recorder, file))
            assert not file.closed

    def test_factory_that_raises(self, loop, run, method, text):
        def factory():
            raise LookupError("from the factory")

        reader, writer = pipe()
        with reader, writer, pytest.raises(LookupError):
            run(getattr(loop, method)(factory, reader))

    def test_cancelled_while_connecting(self, loop, run, method, text):
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))
        end = ends.pop(method)

        async def main():
            protocol = Recorder()
            task = loop.create_task(getattr(loop, method)(lambda: protocol, end))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: protocol.is_lost)
            assert end.closed

        run(main())
        for other in ends.values():
            other.close()

    def test_unclosed_warns(self, loop, run, method, text):
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))
        run(getattr(loop, method)(Recorder, ends[method]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
            gc.collect()
        texts = [str(warning.message) for warning in caught]
        assert any(
            text.startswith("unclosed transport <") and "PipeTransport" in text for text in texts
        )
        assert ends[method].closed
        for end in ends.values():
            end.close()

    def test_repr(self, loop, run, method, text):
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))
        fd = ends[method].fileno()

        async def main():
            transport, protocol = await getattr(loop, method)(Recorder, ends[method])
            await turns()
            assert f" fd={fd} " in repr(transport)
            transport.close()
            assert " closing fd=" in repr(transport)
            await until(lambda: protocol.is_lost)
            await turns()
            assert " closed fd=" in repr(transport)

        run(main())
        for end in ends.values():
            end.close()

    def test_debug_log(self, loop, run, method, text, caplog):
        caplog.set_level("DEBUG", "asyncio")
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))
        loop.set_debug(True)

        async def main():
            fd = ends[method].fileno()
            transport, _ = await getattr(loop, method)(Recorder, ends[method])
            side = "Read" if method == "connect_read_pipe" else "Write"
            logged = [record.getMessage() for record in caplog.records]
            assert any(line.startswith(f"{side} pipe {fd} connected: (") for line in logged)
            transport.close()

        run(main())
        for end in ends.values():
            end.close()


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
@pytest.mark.parametrize("number", [2**31, -(2**31) - 1, 2**40, 2**64, -(2**64), "1", 1.0, None])
def test_a_number_that_is_no_descriptors(loop, run, monkeypatch, method, number):
    """The error is that of asking the kernel for it."""

    class File:
        def fileno(self):
            return number

        def close(self):
            pass

    # asyncio's half-made transport dies without the attributes that its warning shows.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    with pytest.raises((OverflowError, TypeError)) as expected:
        os.fstat(number)
    with pytest.raises(expected.type, match=re.escape(str(expected.value))):
        run(getattr(loop, method)(Recorder, File()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
class TestHalfMade:
    """The connection fails when the file is the transport's already."""

    @pytest.fixture
    def failure(self, loop, run, method):
        """What is raised, as text: the exception leads to asyncio's transport."""

        async def main(factory, file):
            try:
                await getattr(loop, method)(factory, file)
            except Exception as error:
                return repr(error)

        def failure(factory, file):
            text = run(main(factory, file))
            gc.collect()
            return text

        return failure

    def test_of_a_descriptor_that_is_closed(self, failure):
        closed = []

        class File:
            def fileno(self):
                return number

            def close(self):
                closed.append(self)

        # One that nothing else gets meanwhile.
        with socket.socket() as other:
            number = fcntl.fcntl(other, fcntl.F_DUPFD, 512)
        os.close(number)
        file = File()
        with pytest.warns(ResourceWarning, match=f"unclosed transport <.* fd={number} idle"):
            raised = failure(Recorder, file)
        assert raised == repr(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        assert closed == [file]

    def test_for_a_protocol_without_connection_made(self, method, failure):
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))
        with pytest.warns(ResourceWarning, match="unclosed transport <"):
            raised = failure(lambda: None, ends[method])
        assert raised.startswith("AttributeError(")
        assert ends[method].closed
        for end in ends.values():
            end.close()

    def test_of_a_file_that_is_no_pipe(self, failure, tmp_path):
        """It is given back."""
        path = tmp_path / "file"
        path.touch()
        with path.open("r+b") as file:
            assert failure(Recorder, file).startswith("ValueError('Pipe transport is ")
            assert not file.closed

    def test_when_the_factory_fails(self, method, failure):
        ends = dict(zip(("connect_read_pipe", "connect_write_pipe"), pipe(), strict=True))

        def factory():
            raise LookupError

        assert failure(factory, ends[method]) == "LookupError()"
        assert not ends[method].closed
        for end in ends.values():
            end.close()


@pytest.mark.parametrize("buffered", [False, True])
def test_cycle_of_transport_and_file(loop, run, buffered):
    reader, writer = os.pipe()

    async def main():
        raw = io.FileIO(reader, "rb", closefd=False)
        file = io.BufferedReader(raw) if buffered else raw
        file.transport, _ = await loop.connect_read_pipe(Recorder, file)
        file.transport.pause_reading()
        await turns()
        return weakref.ref(raw)

    ref = run(main())
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        gc.collect()
    gc.collect()  # the warning had the transport
    assert ref() is None
    os.close(reader)
    os.close(writer)
