"""Stream transports over TCP and Unix sockets: reading, writing, closing, extra info."""

import array
import asyncio
import contextvars
import hashlib
import socket
import sys

import pytest

from support.peers import PAIRS, pattern, read_all, read_exactly, turns, until
from support.protocols import RECORDERS, BufferedRecorder, Recorder, noting_resumes

pytestmark = pytest.mark.both_modes


@pytest.fixture(params=PAIRS)
def family(request):
    return request.param


@pytest.fixture(params=RECORDERS)
def kind(request):
    return RECORDERS[request.param]


@pytest.fixture
def pair(family):
    near, far = PAIRS[family]()
    yield near, far
    near.close()
    far.close()


async def connect(loop, near, protocol):
    """The transport of ``near`` with ``protocol`` on it."""
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
    return transport


@pytest.fixture
def play(loop, run, pair):
    """Runs ``scene(transport, far)`` on the transport of one end, with the socket of the other."""
    near, far = pair

    def play(protocol, scene):
        async def main():
            await scene(await connect(loop, near, protocol), far)

        run(main())

    return play


async def lost(protocol):
    await until(lambda: protocol.is_lost)
    await turns(2)


class TestReading:
    def test_order_of_callbacks(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            assert protocol.calls == ["made"]
            far.sendall(b"some data")
            await until(lambda: protocol.received)
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)

        play(protocol, scene)
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"some data"
        assert protocol.lost_with == [None]

    def test_data_sent_before_the_transport(self, loop, run, pair, kind):
        near, far = pair
        protocol = kind()
        far.sendall(b"early")
        far.shutdown(socket.SHUT_WR)

        async def main():
            await connect(loop, near, protocol)
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"early"

    def test_big_transfer(self, play, kind):
        protocol = kind()
        data = pattern(8_000_000)

        async def scene(transport, far):
            sending = asyncio.to_thread(self._send, far, data)
            await asyncio.gather(sending, until(lambda: protocol.is_lost))

        play(protocol, scene)
        assert hashlib.sha256(protocol.received).digest() == hashlib.sha256(data).digest()

    def _send(self, far, data):
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)

    def test_each_message_of_a_dialogue(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            for size in (1, 100, 4095, 4096, 4097, 65535, 65536, 65537, 10):
                protocol.received.clear()
                data = pattern(size)
                await asyncio.to_thread(far.sendall, data)
                await until(lambda size=size: len(protocol.received) == size)
                assert protocol.received == data
            protocol.transport.abort()
            await lost(protocol)

        play(protocol, scene)

    def test_pause_and_resume(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            far.sendall(b"data")
            await asyncio.sleep(0.01)
            assert protocol.received == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.received == b"data")
            transport.close()
            assert not transport.is_reading()
            transport.pause_reading()
            transport.resume_reading()
            assert not transport.is_reading()
            await lost(protocol)

        play(protocol, scene)

    def test_resume_without_pause(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            transport.resume_reading()
            far.sendall(b"data")
            await until(lambda: protocol.received == b"data")
            transport.abort()
            await lost(protocol)

        play(protocol, scene)

    def test_pause_inside_data_received(self, play):
        class Pausing(Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.transport.pause_reading()

        protocol = Pausing()

        async def scene(transport, far):
            far.sendall(b"one")
            await until(lambda: protocol.received == b"one")
            far.sendall(b"two")
            await asyncio.sleep(0.01)
            assert protocol.received == b"one"
            transport.resume_reading()
            await until(lambda: protocol.received == b"onetwo")
            transport.abort()
            await lost(protocol)

        play(protocol, scene)

    def test_paused_in_connection_made(self, loop, run, pair, kind):
        near, far = pair

        class Pausing(kind):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.pause_reading()

        protocol = Pausing()
        far.sendall(b"data")

        async def main():
            transport = await connect(loop, near, protocol)
            await asyncio.sleep(0.01)
            assert protocol.received == b""
            transport.resume_reading()
            await until(lambda: protocol.received == b"data")
            transport.abort()
            await lost(protocol)

        run(main())

    def test_eof_is_not_seen_while_paused(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            transport.pause_reading()
            far.sendall(b"data")
            far.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.01)
            assert protocol.calls == ["made"]
            transport.resume_reading()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.calls == ["made", "data", "eof", "lost"]

    def test_eof_received_that_keeps_the_connection(self, play, kind):
        protocol = kind()
        protocol.keep_open = True

        async def scene(transport, far):
            far.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.calls)
            await turns()
            assert not transport.is_closing()
            transport.write(b"still writing")
            assert await asyncio.to_thread(read_exactly, far, 13) == b"still writing"
            assert protocol.calls.count("eof") == 1
            transport.close()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.lost_with == [None]

    @pytest.mark.parametrize("returned", [None, False, 0, ""])
    def test_eof_received_that_does_not(self, play, returned):
        protocol = Recorder()
        protocol.keep_open = returned

        async def scene(transport, far):
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)
            assert transport.is_closing()

        play(protocol, scene)
        assert protocol.lost_with == [None]


class TestBufferedProtocol:
    def test_size_hint_is_minus_one(self, play):
        protocol = BufferedRecorder()

        async def scene(transport, far):
            far.sendall(b"x")
            await until(lambda: protocol.received)
            protocol.transport.abort()
            await lost(protocol)

        play(protocol, scene)
        assert set(protocol.hints) == {-1}

    def test_buffer_smaller_than_the_data(self, play):
        protocol = BufferedRecorder(size=7)
        data = pattern(1000)

        async def scene(transport, far):
            far.sendall(data)
            await until(lambda: len(protocol.received) == len(data))
            protocol.transport.abort()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.received == data

    @pytest.mark.parametrize(
        "make",
        [bytearray, lambda n: memoryview(bytearray(n)), lambda n: array.array("B", bytes(n))],
        ids=["bytearray", "memoryview", "array"],
    )
    def test_any_writable_buffer(self, play, make):
        got = []

        class Protocol(BufferedRecorder):
            def get_buffer(self, sizehint):
                self.buffer = make(100)
                return self.buffer

            def buffer_updated(self, nbytes):
                got.append(bytes(memoryview(self.buffer)[:nbytes]))

        protocol = Protocol()

        async def scene(transport, far):
            far.sendall(b"payload")
            await until(lambda: b"".join(got) == b"payload")
            protocol.transport.abort()
            await lost(protocol)

        play(protocol, scene)

    @pytest.mark.parametrize(
        "wrong",
        [b"bytes", "text", memoryview(b"read-only"), memoryview(bytearray(8))[::2], [1, 2]],
        ids=["bytes", "str", "read-only", "strided", "list"],
    )
    def test_no_writable_buffer(self, play, unhandled, wrong):
        protocol = BufferedRecorder()
        protocol.buffer = wrong

        async def scene(transport, far):
            far.sendall(b"payload")
            await lost(protocol)

        play(protocol, scene)
        context = unhandled.take_one()
        assert context["message"] == "Fatal read error on socket transport"
        kind = type(wrong).__name__
        text = f"recv_into() argument 1 must be read-write bytes-like object, not {kind}"
        assert repr(context["exception"]) == repr(TypeError(text))
        assert protocol.lost_with == [context["exception"]]

    def test_a_new_buffer_every_time(self, play):
        class Protocol(BufferedRecorder):
            def get_buffer(self, sizehint):
                self.buffer = bytearray(len(self.hints) + 1)
                return super().get_buffer(sizehint)

        protocol = Protocol()
        data = pattern(500)

        async def scene(transport, far):
            far.sendall(data)
            await until(lambda: len(protocol.received) == len(data))
            protocol.transport.abort()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.received == data

    def test_the_buffer_is_let_go_of_after_each_read(self, loop, run, pair):
        near, far = pair

        class Protocol(BufferedRecorder):
            def buffer_updated(self, nbytes):
                super().buffer_updated(nbytes)
                self.buffer.append(0)  # BufferError while it is exported

        protocol = Protocol()

        async def main():
            await connect(loop, near, protocol)
            for count in (1, 2, 3):
                far.sendall(b"x")
                await until(lambda count=count: len(protocol.received) == count)
            protocol.transport.abort()
            await lost(protocol)

        try:
            run(main())
        except BufferError:
            pytest.fail("the transport keeps the buffer")


class TestSetProtocol:
    @pytest.mark.parametrize("first", RECORDERS)
    @pytest.mark.parametrize("second", RECORDERS)
    def test_data_goes_to_the_new_one(self, loop, run, pair, first, second):
        near, far = pair
        old, new = RECORDERS[first](), RECORDERS[second]()

        async def main():
            transport = await connect(loop, near, old)
            assert transport.get_protocol() is old
            far.sendall(b"for the old")
            await until(lambda: old.received == b"for the old")
            transport.set_protocol(new)
            assert transport.get_protocol() is new
            far.sendall(b"for the new")
            await until(lambda: new.received == b"for the new")
            far.shutdown(socket.SHUT_WR)
            await lost(new)

        run(main())
        assert old.calls == ["made", "data"]
        assert new.calls == ["data", "eof", "lost"]

    def test_inside_data_received(self, loop, run, pair):
        near, far = pair
        new = BufferedRecorder()

        class Switching(Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.transport.set_protocol(new)

        old = Switching()

        async def main():
            await connect(loop, near, old)
            far.sendall(b"upgrade")
            await until(lambda: old.received == b"upgrade")
            far.sendall(b"payload")
            await until(lambda: new.received == b"payload")
            far.shutdown(socket.SHUT_WR)
            await lost(new)

        run(main())
        assert old.calls == ["made", "data"]


class TestWriting:
    @pytest.mark.parametrize(
        "make",
        [bytes, bytearray, memoryview, lambda b: memoryview(bytearray(b))],
        ids=["bytes", "bytearray", "memoryview", "memoryview of bytearray"],
    )
    def test_types(self, play, make):
        protocol = Recorder()

        async def scene(transport, far):
            assert transport.write(make(b"written")) is None
            assert await asyncio.to_thread(read_exactly, far, 7) == b"written"
            transport.close()
            await lost(protocol)

        play(protocol, scene)

    def test_order(self, loop, run, pair):
        near, far = pair
        protocol = Recorder()
        pieces = [pattern(size, b"%d" % size) for size in (1, 10, 70000, 3, 200000, 0, 5)]

        async def main():
            transport = await connect(loop, near, protocol)
            for number, piece in enumerate(pieces):
                if number % 2:
                    transport.writelines([piece, bytearray(b"-"), memoryview(b"+")])
                else:
                    transport.write(piece)
            transport.close()
            reading = asyncio.to_thread(read_all, far)
            return (await asyncio.gather(reading, lost(protocol)))[0]

        expected = b"".join(
            piece + (b"-+" if number % 2 else b"") for number, piece in enumerate(pieces)
        )
        assert run(main()) == expected

    def test_writes_of_several_callbacks(self, loop, run, pair):
        near, far = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            for number in range(500):
                loop.call_soon(transport.write, b"%03d" % number)
                if number % 7 == 0:
                    await asyncio.sleep(0)
            assert await asyncio.to_thread(read_exactly, far, 1500) == b"".join(
                b"%03d" % number for number in range(500)
            )
            transport.close()
            await lost(protocol)

        run(main())

    def test_mutable_buffers_can_be_changed_afterwards(self, loop, run, pair):
        near, far = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.pause_reading()
            blocker = b"b" * 4_000_000
            transport.write(blocker)
            data = bytearray(b"original")
            transport.write(data)
            if isinstance(loop, asyncio.BaseEventLoop) and sys.version_info >= (3, 12):
                data = bytearray(data)  # asyncio keeps the object itself since 3.12
            data[:] = b"modified"
            data += b"and longer"
            reading = asyncio.to_thread(read_exactly, far, len(blocker) + 8)
            received = await reading
            assert received[-8:] == b"original"
            transport.close()
            await lost(protocol)

        run(main())

    def test_zero_length(self, play):
        protocol = Recorder()

        async def scene(transport, far):
            for empty in (b"", bytearray(), memoryview(b"")):
                transport.write(empty)
            transport.writelines([])
            transport.writelines([b"", b""])
            assert transport.get_write_buffer_size() == 0
            transport.write(b"x")
            transport.close()
            assert await asyncio.to_thread(read_all, far) == b"x"
            await lost(protocol)

        play(protocol, scene)

    def test_writelines(self, play):
        protocol = Recorder()

        async def scene(transport, far):
            transport.writelines([b"a", bytearray(b"b"), memoryview(b"c"), b"", b"d"])
            transport.writelines((b"e", b"f"))
            transport.close()
            assert await asyncio.to_thread(read_all, far) == b"abcdef"
            await lost(protocol)

        play(protocol, scene)

    def test_writelines_of_very_many(self, loop, run, pair):
        """More pieces than one system call takes."""
        near, far = pair
        protocol = Recorder()
        pieces = [b"%05d" % number for number in range(5000)]

        async def main():
            transport = await connect(loop, near, protocol)
            transport.writelines(pieces)
            transport.close()
            return await asyncio.to_thread(read_all, far)

        assert run(main()) == b"".join(pieces)

    def test_big_transfer(self, loop, run, pair):
        near, far = pair
        protocol = Recorder()
        data = pattern(16_000_000)

        async def main():
            transport = await connect(loop, near, protocol)
            for start in range(0, len(data), 1_000_000):
                transport.write(data[start : start + 1_000_000])
            transport.close()
            reading = asyncio.to_thread(read_all, far)
            return (await asyncio.gather(reading, lost(protocol)))[0]

        assert hashlib.sha256(run(main())).digest() == hashlib.sha256(data).digest()
        assert protocol.lost_with == [None]

    def test_both_directions_at_once(self, loop, run, family, kind):
        near, far = PAIRS[family]()
        one, two = kind(), kind()
        data = pattern(3_000_000)

        async def main():
            first = await connect(loop, near, one)
            far.setblocking(False)
            second = await connect(loop, far, two)
            first.write(data)
            second.write(data)
            await until(lambda: len(one.received) == len(two.received) == len(data))
            first.close()
            await lost(one)
            await lost(two)

        run(main())
        assert one.received == two.received == data


class TestFlowControl:
    def test_default_limits(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            assert transport.get_write_buffer_limits() == (16384, 65536)
            assert transport.get_write_buffer_size() == 0
            transport.abort()
            await lost(protocol)

        run(main())

    def test_default_limits_of_client_and_server(self, loop, run):
        accepted = []

        def factory():
            accepted.append(Recorder())
            return accepted[-1]

        async def main():
            server = await loop.create_server(factory, "127.0.0.1", 0)
            transport, protocol = await loop.create_connection(
                Recorder, *server.sockets[0].getsockname()
            )
            await until(lambda: accepted and accepted[0].transport)
            for one in (transport, accepted[0].transport):
                assert one.get_write_buffer_limits() == (16384, 65536)
            transport.close()
            await until(lambda: protocol.is_lost and accepted[0].is_lost)
            server.close()
            await server.wait_closed()

        run(main())

    @pytest.mark.parametrize(
        ("given", "limits"),
        [
            ({}, (16384, 65536)),
            ({"high": 1000}, (250, 1000)),
            ({"low": 100}, (100, 400)),
            ({"high": 500, "low": 500}, (500, 500)),
            ({"high": 0}, (0, 0)),
            ({"high": 0, "low": 0}, (0, 0)),
            ({"high": 2**40, "low": 1}, (1, 2**40)),
        ],
    )
    def test_set_write_buffer_limits(self, loop, run, pair, given, limits):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == limits
            transport.abort()
            await lost(protocol)

        run(main())

    def test_limits_that_make_no_sense(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            for high, low in ((1, 2), (-1, 0), (10, -1)):
                with pytest.raises(ValueError, match=rf"high \({high}\) must be >= low \({low}\)"):
                    transport.set_write_buffer_limits(high=high, low=low)
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.abort()
            await lost(protocol)

        run(main())

    def test_pause_and_resume_writing(self, play):
        protocol = Recorder()
        data = pattern(8_000_000)

        async def scene(transport, far):
            transport.write(data)
            assert protocol.calls == ["made", "pause"]
            size = transport.get_write_buffer_size()
            assert 65536 < size <= len(data)
            transport.write(b"more")
            assert transport.get_write_buffer_size() == size + 4
            assert protocol.calls == ["made", "pause"]
            reading = asyncio.to_thread(read_exactly, far, len(data) + 4)
            received = await reading
            await until(lambda: not protocol.paused)
            assert protocol.calls == ["made", "pause", "resume"]
            assert transport.get_write_buffer_size() == 0
            assert received == data + b"more"
            transport.close()
            await lost(protocol)

        play(protocol, scene)

    def test_resumes_at_the_low_water_mark(self, play):
        sizes = []

        class Watching(Recorder):
            def resume_writing(self):
                super().resume_writing()
                sizes.append(self.transport.get_write_buffer_size())

        protocol = Watching()

        async def scene(transport, far):
            transport.set_write_buffer_limits(high=2_000_000, low=1_000_000)
            transport.write(b"x" * 12_000_000)
            assert protocol.paused
            await asyncio.to_thread(read_exactly, far, 12_000_000)
            await until(lambda: not protocol.paused)
            transport.close()
            await lost(protocol)

        play(protocol, scene)
        assert len(sizes) == 1
        assert sizes[0] <= 1_000_000

    # Older asyncios forget the write, or go on with a writer of nothing for ever.
    @pytest.mark.asyncio_since(3, 14)
    def test_resumed_protocol_writes_to_a_closing_transport(self, play):
        """asyncio's SSLProtocol does that: the alert that ends TLS waits for `resume_writing`."""

        class Trailing(Recorder):
            def resume_writing(self):
                super().resume_writing()
                self.transport.write(b"the end")

        protocol = Trailing()
        data = pattern(8_000_000)

        async def scene(transport, far):
            transport.write(data)
            assert protocol.paused
            transport.close()
            received = await asyncio.to_thread(read_all, far)
            assert received == data + b"the end"
            await lost(protocol)
            assert protocol.lost_with == [None]

        play(protocol, scene)

    def test_every_write_pauses_with_a_limit_of_zero(self, play):
        protocol = Recorder()

        async def scene(transport, far):
            transport.set_write_buffer_limits(high=0)
            transport.write(b"x" * 8_000_000)
            assert protocol.paused
            await asyncio.to_thread(read_exactly, far, 8_000_000)
            await until(lambda: not protocol.paused)
            transport.close()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.calls == ["made", "pause", "resume", "lost"]

    def test_errors_in_pause_and_resume_are_reported(self, loop, run, pair, unhandled):
        near, far = pair

        class Failing(Recorder):
            def pause_writing(self):
                super().pause_writing()
                raise LookupError("in pause")

            def resume_writing(self):
                super().resume_writing()
                raise LookupError("in resume")

        protocol = Failing()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.write(b"x" * 8_000_000)
            await asyncio.to_thread(read_exactly, far, 8_000_000)
            await until(lambda: "resume" in protocol.calls)
            transport.write(b"goes on")
            assert await asyncio.to_thread(read_exactly, far, 7) == b"goes on"
            transport.close()
            await lost(protocol)
            return transport

        transport = run(main())
        pause, resume = unhandled.take()
        assert pause["message"] == "protocol.pause_writing() failed"
        assert resume["message"] == "protocol.resume_writing() failed"
        for context in (pause, resume):
            assert context["transport"] is transport
            assert context["protocol"] is protocol
            assert isinstance(context["exception"], LookupError)

    def test_no_pause_after_abort(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.write(b"x" * 8_000_000)
            transport.abort()
            assert transport.get_write_buffer_size() == 0
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "pause", "lost"]


class TestWriteEof:
    def test_half_close(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            assert transport.can_write_eof() is True
            transport.write(b"request")
            transport.write_eof()
            transport.write_eof()
            assert await asyncio.to_thread(read_all, far) == b"request"
            assert not transport.is_closing()
            far.sendall(b"answer")
            await until(lambda: protocol.received == b"answer")
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)

        play(protocol, scene)
        assert protocol.calls == ["made", "data", "eof", "lost"]

    def test_after_what_is_queued(self, play):
        protocol = Recorder()
        data = pattern(6_000_000)

        async def scene(transport, far):
            transport.write(data)
            transport.write_eof()
            assert await asyncio.to_thread(read_all, far) == data
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)

        play(protocol, scene)

    def test_nothing_can_be_written_after_it(self, play):
        protocol = Recorder()

        async def scene(transport, far):
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"^Cannot call write\(\) after write_eof\(\)$"):
                transport.write(b"x")
            with pytest.raises(
                RuntimeError, match=r"^Cannot call write(lines)?\(\) after write_eof"
            ):
                transport.writelines([b"x"])
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)

        play(protocol, scene)

    def test_of_a_closing_transport(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.close()
            transport.write_eof()
            await lost(protocol)

        run(main())


class TestClosing:
    def test_close_flushes(self, play):
        protocol = Recorder()
        data = pattern(5_000_000)

        async def scene(transport, far):
            transport.write(data)
            assert transport.close() is None
            transport.close()
            assert transport.is_closing()
            assert not protocol.is_lost
            assert await asyncio.to_thread(read_all, far) == data
            await lost(protocol)

        play(protocol, scene)
        assert protocol.lost_with == [None]

    def test_connection_lost_is_not_called_inside_close(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.close()
            assert not protocol.is_lost
            await lost(protocol)
            transport.close()
            transport.abort()
            await turns()

        run(main())
        assert protocol.lost_with == [None]

    def test_no_data_after_close(self, play, kind):
        protocol = kind()

        async def scene(transport, far):
            far.sendall(b"too late")
            transport.close()
            await lost(protocol)

        play(protocol, scene)
        assert protocol.received == b""

    def test_abort_drops_what_is_queued(self, play):
        protocol = Recorder()

        async def scene(transport, far):
            transport.write(b"x" * 8_000_000)
            transport.abort()
            assert transport.is_closing()
            assert not protocol.is_lost
            await lost(protocol)
            received = await asyncio.to_thread(self._read_what_is_left, far)
            assert received < 8_000_000

        play(protocol, scene)
        assert protocol.lost_with == [None]

    def _read_what_is_left(self, far):
        try:
            return len(read_all(far))
        except ConnectionResetError:
            return 0

    def test_abort_while_closing(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.write(b"x" * 8_000_000)
            transport.close()
            await turns()
            assert not protocol.is_lost
            transport.abort()
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_the_socket_is_closed_after_connection_lost(self, loop, run, pair):
        near, _ = pair
        open_at = []

        class Watching(Recorder):
            def connection_lost(self, exc):
                open_at.append(near.fileno() != -1)
                super().connection_lost(exc)

        protocol = Watching()

        async def main():
            transport = await connect(loop, near, protocol)
            transport.close()
            await lost(protocol)
            assert near.fileno() == -1

        run(main())
        assert open_at == [True]

    def test_methods_after_it_is_closed(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            peer = transport.get_extra_info("peername")
            transport.close()
            await lost(protocol)
            assert transport.is_closing()
            assert not transport.is_reading()
            assert transport.get_extra_info("peername") == peer
            assert transport.get_write_buffer_size() == 0
            transport.pause_reading()
            transport.resume_reading()
            transport.close()
            transport.abort()
            transport.write_eof()
            assert "closed" in repr(transport)

        run(main())

    def test_broken_pipe(self, play):
        """Writing to a peer that went away ends in connection_lost with the error."""
        protocol = Recorder()
        protocol.keep_open = True

        async def scene(transport, far):
            transport.pause_reading()
            far.close()
            for _ in range(100):
                transport.write(b"x" * 100)
                await asyncio.sleep(0.001)
                if protocol.is_lost:
                    break
            await lost(protocol)

        play(protocol, scene)
        (exc,) = protocol.lost_with
        assert isinstance(exc, ConnectionResetError | BrokenPipeError)


class TestInfo:
    def test_class(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            assert hash(transport) == hash(transport)
            transport.abort()
            await lost(protocol)

        run(main())

    def test_extra_info(self, loop, run, pair, family):
        near, far = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            sock = transport.get_extra_info("socket")
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock.fileno() == near.fileno()
            assert sock.family == near.family
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 0
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert transport.get_extra_info("sockname") == near.getsockname()
            assert transport.get_extra_info("peername") == far.getsockname()
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", "default") == "default"
            assert transport.get_extra_info("sslcontext") is None
            assert transport.get_extra_info("peername", default=1) == far.getsockname()
            transport.abort()
            await lost(protocol)

        run(main())

    def test_repr(self, loop, run, pair):
        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            fd = near.fileno()
            text = repr(transport)
            assert f"fd={fd}" in text
            assert "read=polling" in text
            assert "write=<idle, bufsize=0>" in text
            transport.pause_reading()
            assert "read=idle" in repr(transport)
            transport.write(b"x" * 8_000_000)
            size = transport.get_write_buffer_size()
            assert f"write=<polling, bufsize={size}>" in repr(transport)
            transport.abort()
            assert "closing" in repr(transport)
            await lost(protocol)
            assert "closed" in repr(transport)
            assert f"fd={fd}" in repr(transport)

        run(main())

    def test_weak_references_and_attributes(self, loop, run, pair):
        import weakref

        near, _ = pair
        protocol = Recorder()

        async def main():
            transport = await connect(loop, near, protocol)
            assert weakref.ref(transport)() is transport
            table = weakref.WeakKeyDictionary({transport: 1})
            assert table[transport] == 1
            transport.abort()
            await lost(protocol)

        run(main())


class TestContext:
    def test_flow_control_is_of_the_connection(self, loop, run, pair):
        """What resume_writing sets is not seen by the code that runs the loop."""
        var = contextvars.ContextVar("var", default="none")
        near, far = pair
        seen = []

        class Noting(noting_resumes(Recorder, var, seen)):
            def pause_writing(self):
                super().pause_writing()
                seen.append(var.get())

        protocol = Noting()

        async def main():
            var.set("of the caller")
            transport = await connect(loop, near, protocol)
            transport.write(b"x" * 8_000_000)
            await asyncio.to_thread(read_exactly, far, 8_000_000)
            await until(lambda: "resume" in protocol.calls)
            transport.close()
            await lost(protocol)

        loop.run_until_complete(main())
        assert seen == ["of the caller"] * 2
        assert var.get() == "none"

    @pytest.mark.parametrize(
        ("kind", "failing"),
        [
            (Recorder, "data_received"),
            (Recorder, "eof_received"),
            (BufferedRecorder, "get_buffer"),
            (BufferedRecorder, "buffer_updated"),
        ],
    )
    def test_exception_handler(self, loop, run, pair, kind, failing):
        var = contextvars.ContextVar("var", default="none")
        near, far = pair
        seen = []

        def fail(*args):
            raise LookupError(failing)

        protocol = kind()
        setattr(protocol, failing, fail)

        async def main():
            loop.set_exception_handler(lambda loop, context: seen.append(var.get()))
            var.set("of the caller")
            await connect(loop, near, protocol)
            var.set("changed")
            if failing == "eof_received":
                far.shutdown(socket.SHUT_WR)
            else:
                far.sendall(b"x")
            await lost(protocol)

        run(main())
        assert seen == ["of the caller"]

    @pytest.mark.asyncio_since(3, 15)
    def test_callbacks_run_in_one_context_of_the_connection(self, loop, run, pair):
        var = contextvars.ContextVar("var", default="none")
        near, far = pair
        seen = []

        class Noting(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                seen.append(var.get())
                var.set("of the connection")

            def data_received(self, data):
                super().data_received(data)
                seen.append(var.get())

            def eof_received(self):
                seen.append(var.get())

            def connection_lost(self, exc):
                super().connection_lost(exc)
                seen.append(var.get())

        protocol = Noting()

        async def main():
            var.set("of the caller")
            await connect(loop, near, protocol)
            var.set("changed")
            far.sendall(b"x")
            await until(lambda: protocol.received)
            far.shutdown(socket.SHUT_WR)
            await lost(protocol)
            assert var.get() == "changed"

        run(main())
        assert seen == ["of the caller"] + ["of the connection"] * 3
