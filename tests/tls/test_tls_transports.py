"""Transports over TLS: data both ways, flow control, protocols, what they say of themselves."""

import asyncio
import contextvars
import hashlib
import logging
import socket
import ssl
import struct

import pytest

from support.peers import PAIRS, pattern, turns, until
from support.protocols import Echo, Recorder
from support.tls import RECORDERS, ViewRecorder, peer_of, secured, wrapped

WATER_MARKS = (128 * 1024, 512 * 1024)
THRESHOLD = 5


@pytest.fixture(params=RECORDERS)
def kind(request):
    return RECORDERS[request.param]


async def finish(protocol):
    protocol.transport.abort()
    await until(lambda: protocol.is_lost)


def sha256(data):
    return hashlib.sha256(data).digest()


class TestReading:
    def test_order_of_callbacks(self, loop, run, pair, kind, side):
        protocol = kind()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            assert protocol.calls == ["made"]
            await asyncio.to_thread(peer.send, b"some data")
            await until(lambda: protocol.received)
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"some data"
        assert protocol.lost_with == [None]

    def test_data_right_behind_the_handshake(self, loop, run, pair, kind):
        """The last flight of a client's handshake, data and close_notify in one segment."""
        protocol = kind()

        near, far = pair
        peer = peer_of(far, "server")

        async def main():
            await asyncio.gather(
                wrapped(loop, near, lambda: protocol, "server"),
                asyncio.to_thread(peer.say_all_at_once, b"early"),
            )
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"early"

    def test_big_transfer(self, loop, run, pair, kind, side, version):
        protocol = kind()
        data = pattern(4_000_000)

        async def main():
            _, peer = await secured(loop, pair, protocol, side)

            def send():
                for start in range(0, len(data), 70_000):
                    peer.send(data[start : start + 70_000])
                peer.unwrap()

            await asyncio.gather(asyncio.to_thread(send), until(lambda: protocol.is_lost))

        run(main())
        assert sha256(protocol.received) == sha256(data)
        assert protocol.lost_with == [None]

    def test_sizes_around_those_of_records(self, loop, run, pair, kind):
        protocol = kind()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            for size in (1, 16383, 16384, 16385, 4095, 4096, 4097, 65536, 262144, 10):
                protocol.received.clear()
                data = pattern(size)
                await asyncio.to_thread(peer.send, data)
                await until(lambda size=size: len(protocol.received) == size)
                assert protocol.received == data
            await finish(protocol)

        run(main())

    def test_records_a_byte_at_a_time(self, loop, run, pair, kind):
        protocol = kind()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            for byte in peer.sealed(b"in pieces"):
                await asyncio.to_thread(peer.sock.sendall, bytes([byte]))
                await turns(1)
            await until(lambda: protocol.received == b"in pieces")
            await finish(protocol)

        run(main())

    def test_many_small_records_in_one_segment(self, loop, run, pair, kind):
        protocol = kind()
        data = pattern(5000)

        async def main():
            _, peer = await secured(loop, pair, protocol)
            sealed = b"".join(peer.sealed(data[i : i + 5]) for i in range(0, 5000, 5))
            await asyncio.to_thread(peer.sock.sendall, sealed)
            await until(lambda: len(protocol.received) == len(data))
            assert protocol.received == data
            await finish(protocol)

        run(main())

    def test_empty_records_are_not_delivered(self, loop, run, pair, version):
        """OpenSSL writes none by itself before TLS 1.3; a peer may."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"")
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received == b"data")
            assert protocol.calls == ["made", "data"]
            await finish(protocol)

        run(main())

    def test_pause_and_resume(self, loop, run, pair, kind, side):
        protocol = kind()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            await asyncio.to_thread(peer.send, b"data")
            await asyncio.sleep(0.01)
            assert protocol.received == b""
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.received == b"data")
            await finish(protocol)

        run(main())

    def test_a_paused_reader_slows_the_peer_down(self, loop, run, pair, kind):
        """Neither the loop nor the kernel takes all; then everything arrives."""
        protocol = kind()
        data = pattern(16_000_000)
        sent = 0

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            transport.pause_reading()

            def send():
                nonlocal sent
                for start in range(0, len(data), 16_000):
                    peer.send(data[start : start + 16_000])
                    sent = start + 16_000
                peer.unwrap()

            sending = asyncio.ensure_future(asyncio.to_thread(send))
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.1)
            assert sent < len(data)
            assert protocol.received == b""
            transport.resume_reading()
            await sending
            await until(lambda: protocol.is_lost)

        run(main())
        assert sha256(protocol.received) == sha256(data)

    def test_pause_inside_data_received(self, loop, run, pair):
        class Pausing(Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.transport.pause_reading()

        protocol = Pausing()
        data = pattern(3_000_000)

        async def main():
            transport, peer = await secured(loop, pair, protocol)

            def send():
                peer.send(data)

            sending = asyncio.ensure_future(asyncio.to_thread(send))
            while len(protocol.received) < len(data):
                await until(lambda: not transport.is_reading())
                seen = len(protocol.received)
                await turns(3)
                assert len(protocol.received) == seen
                transport.resume_reading()
                await turns(1)
            assert protocol.received == data
            await sending
            await finish(protocol)

        run(main())

    def test_buffered_protocol_with_a_small_buffer(self, loop, run, pair):
        """What one record holds is asked for in several pieces."""
        protocol = ViewRecorder(size=7)
        data = pattern(20_000)

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, data)
            await until(lambda: len(protocol.received) == len(data))
            assert protocol.received == data
            await finish(protocol)

        run(main())

    def test_read_buffer_limits(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            assert transport.get_read_buffer_limits() == (64 * 1024, 256 * 1024)
            assert transport.get_read_buffer_size() == 0
            transport.set_read_buffer_limits(high=4096)
            assert transport.get_read_buffer_limits() == (1024, 4096)
            transport.set_read_buffer_limits(low=1024)
            assert transport.get_read_buffer_limits() == (1024, 4096)
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_read_buffer_limits(high=1, low=2)
            await asyncio.to_thread(peer.send, pattern(1_000_000))
            await until(lambda: len(protocol.received) == 1_000_000)
            await finish(protocol)

        run(main())


class TestWriting:
    def test_what_is_written_arrives(self, loop, run, pair, side, version):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(b"one ")
            transport.write(b"")
            transport.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
            transport.writelines([])
            assert await asyncio.to_thread(peer.receive_exactly, 18) == b"one two three four"
            await finish(protocol)

        run(main())

    @pytest.mark.parametrize("size", [1, 16383, 16384, 16385, 100_000, 4_000_000])
    def test_sizes(self, loop, run, pair, side, size):
        protocol, data = Recorder(), pattern(size)

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(data)
            received = await asyncio.to_thread(peer.receive_exactly, size)
            assert sha256(received) == sha256(data)
            assert transport.get_write_buffer_size() == 0
            await finish(protocol)

        run(main())

    def test_views_of_other_shapes(self, loop, run, pair):
        protocol = Recorder()
        items = struct.pack("4i", 1, 2, 3, 4)

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            transport.write(memoryview(b"a_b_c_")[::1][:5:1])
            transport.write(memoryview(bytearray(b"writable")))
            received = await asyncio.to_thread(peer.receive_exactly, 13)
            assert received == b"a_b_cwritable"
            transport.write(memoryview(items))
            assert await asyncio.to_thread(peer.receive_exactly, 16) == items
            await finish(protocol)

        run(main())

    def test_a_bytearray_may_change_after_write(self, loop, run, pair):
        """What write() took was encrypted, or copied."""
        protocol = Recorder()
        data = pattern(3_000_000)

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            changing = bytearray(data)
            transport.write(changing)
            changing[:] = bytes(len(changing))
            received = await asyncio.to_thread(peer.receive_exactly, len(data))
            assert sha256(received) == sha256(data)
            await finish(protocol)

        run(main())

    def test_many_small_writes(self, loop, run, pair):
        protocol = Recorder()
        data = pattern(60_000)

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            for start in range(0, len(data), 20):
                transport.write(data[start : start + 20])
            assert await asyncio.to_thread(peer.receive_exactly, len(data)) == data
            await finish(protocol)

        run(main())

    def test_both_directions_at_once(self, loop, run, pair, side):
        protocol = Echo()
        data = pattern(3_000_000)

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)

            def dialogue():
                received = bytearray()
                for start in range(0, len(data), 50_000):
                    peer.send(data[start : start + 50_000])
                    received += peer.receive()
                received += peer.receive_exactly(len(data) - len(received))
                return received

            assert sha256(await asyncio.to_thread(dialogue)) == sha256(data)
            transport.abort()
            await turns()

        run(main())

    @pytest.mark.parametrize("wrong", [None, "str", 5, [b"x"]], ids=["none", "str", "int", "list"])
    @pytest.mark.parametrize("state", ["open", "closing"])
    def test_wrong_types_raise(self, loop, run, pair, wrong, state):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            if state == "closing":
                transport.close()
            expected = rf"^data: expecting a bytes-like instance, got {type(wrong).__name__}$"
            with pytest.raises(TypeError, match=expected):
                transport.write(wrong)
            await finish(protocol)

        run(main())

    @pytest.mark.parametrize("ending", ["close", "abort", "peer gone"])
    def test_after_the_end_is_ignored_and_warned_of(self, loop, run, pair, caplog, ending):
        protocol = Recorder()
        caplog.set_level(logging.WARNING, "asyncio")

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            if ending == "peer gone":
                await asyncio.to_thread(peer.unwrap)
                await until(lambda: protocol.is_lost)
            else:
                getattr(transport, ending)()
            for count in range(THRESHOLD + 3):
                transport.write(b"ignored")
                if count < THRESHOLD - 1:
                    assert caplog.records == []
            if ending == "close":
                assert await asyncio.to_thread(peer.receive_all) == b""
                peer.close_notify()
            await until(lambda: protocol.is_lost)

        run(main())
        assert {record.getMessage() for record in caplog.records} == {"SSL connection is closed"}

    def test_write_eof(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            assert transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            transport.write(b"still open")
            assert await asyncio.to_thread(peer.receive_exactly, 10) == b"still open"
            await finish(protocol)

        run(main())

    def test_write_inside_connection_made(self, loop, run, pair, side):
        class Greeting(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.write(b"hello")

        protocol = Greeting()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            assert await asyncio.to_thread(peer.receive_exactly, 5) == b"hello"
            await finish(protocol)

        run(main())


class TestFlowControl:
    def test_default_limits(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side)
            assert transport.get_write_buffer_limits() == WATER_MARKS
            assert transport.get_write_buffer_size() == 0
            await finish(protocol)

        run(main())

    @pytest.mark.parametrize(
        ("given", "limits"),
        [
            ({"high": 1000}, (250, 1000)),
            ({"low": 1000}, (1000, 4000)),
            ({"high": 1000, "low": 10}, (10, 1000)),
            ({}, WATER_MARKS),
        ],
    )
    def test_set_limits(self, loop, run, pair, given, limits):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == limits
            with pytest.raises(ValueError, match=r"high \(1\) must be >= low \(2\) must be >= 0"):
                transport.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(ValueError, match=r"must be >= 0"):
                transport.set_write_buffer_limits(high=-1)
            assert transport.get_write_buffer_limits() == limits
            assert protocol.calls == ["made"]
            await finish(protocol)

        run(main())

    def test_pause_and_resume(self, loop, run, side):
        """One pause above the high mark, one resume when the peer has read; all arrives."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()
        chunk = pattern(100_000)

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            written = 0
            while not protocol.paused:
                transport.write(chunk)
                written += len(chunk)
                assert written < 8_000_000
                await turns(2)
            assert WATER_MARKS[1] <= written
            assert transport.get_write_buffer_size() >= WATER_MARKS[0]
            await turns(5)
            assert protocol.calls == ["made", "pause"]
            received = await asyncio.to_thread(peer.receive_exactly, written)
            await until(lambda: not protocol.paused)
            assert protocol.calls == ["made", "pause", "resume"]
            assert sha256(received) == sha256(chunk * (written // len(chunk)))
            assert transport.get_write_buffer_size() == 0
            await finish(protocol)

        run(main())
        far.close()

    def test_large_writes_pause_at_once(self, loop, run, side):
        """asyncio needs two: what it handed to the transport below it does not count."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            transport.write(bytes(8_000_000))
            transport.write(bytes(8_000_000))
            await turns(2)
            assert protocol.calls == ["made", "pause"]
            received = await asyncio.to_thread(peer.receive_exactly, 16_000_000)
            assert len(received) == 16_000_000
            await until(lambda: protocol.calls == ["made", "pause", "resume"])
            await finish(protocol)

        run(main())
        far.close()

    def test_limits_of_ones_own(self, loop, run):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, (near, far), protocol)
            transport.set_write_buffer_limits(high=4_000_000, low=0)
            transport.write(bytes(3_000_000))
            await turns(3)
            assert protocol.calls == ["made"]
            transport.write(bytes(6_000_000))
            await turns(3)
            assert protocol.calls == ["made", "pause"]
            await asyncio.to_thread(peer.receive_exactly, 9_000_000)
            await until(lambda: protocol.calls == ["made", "pause", "resume"])
            await finish(protocol)

        run(main())
        far.close()

    @pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
    def test_raising_callbacks_are_reported(self, loop, run, unhandled, callback):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)

        class Raising(Recorder):
            def pause_writing(self):
                super().pause_writing()
                if callback == "pause_writing":
                    raise LookupError("pause")

            def resume_writing(self):
                super().resume_writing()
                if callback == "resume_writing":
                    raise LookupError("resume")

        protocol = Raising()

        async def main():
            transport, peer = await secured(loop, (near, far), protocol)
            transport.write(bytes(8_000_000))
            transport.write(bytes(8_000_000))
            await asyncio.to_thread(peer.receive_exactly, 16_000_000)
            await until(lambda: protocol.calls == ["made", "pause", "resume"])
            context = unhandled.take_one()
            assert context["message"] == f"protocol.{callback}() failed"
            assert isinstance(context["exception"], LookupError)
            assert context["transport"] is transport
            assert "protocol" in context
            transport.write(b"goes on")
            assert await asyncio.to_thread(peer.receive_exactly, 7) == b"goes on"
            await finish(protocol)

        run(main())
        far.close()


class TestProtocols:
    def test_get_and_set(self, loop, run, pair, side):
        first, second, third = Recorder(), ViewRecorder(), Recorder()

        async def main():
            transport, peer = await secured(loop, pair, first, side)
            assert transport.get_protocol() is first
            await asyncio.to_thread(peer.send, b"1")
            await until(lambda: first.received == b"1")
            transport.set_protocol(second)
            assert transport.get_protocol() is second
            await asyncio.to_thread(peer.send, b"22")
            await until(lambda: second.received == b"22")
            transport.set_protocol(third)
            await asyncio.to_thread(peer.send, b"333")
            await until(lambda: third.received == b"333")
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: third.is_lost)

        run(main())
        assert first.calls == ["made", "data"]
        assert second.calls == ["data"]
        assert third.calls == ["data", "eof", "lost"]

    def test_set_inside_data_received(self, loop, run, pair):
        second = Recorder()

        class Switching(Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.transport.set_protocol(second)
                self.transport.write(b"go on")

        first = Switching()

        async def main():
            _, peer = await secured(loop, pair, first)
            await asyncio.to_thread(peer.send, b"first")
            assert await asyncio.to_thread(peer.receive_exactly, 5) == b"go on"
            await asyncio.to_thread(peer.send, b"second")
            await until(lambda: second.received == b"second")
            first.transport.abort()
            await until(lambda: second.is_lost)

        run(main())
        assert first.calls == ["made", "data"]
        assert second.calls == ["data", "lost"]

    @pytest.mark.parametrize("callback", ["data_received", "eof_received"])
    def test_raising_callbacks(self, loop, run, pair, unhandled, callback):
        class Raising(Recorder):
            def data_received(self, data):
                super().data_received(data)
                if callback == "data_received":
                    raise LookupError(callback)

            def eof_received(self):
                super().eof_received()
                if callback == "eof_received":
                    raise LookupError(callback)

        protocol = Raising()
        messages = {
            "data_received": "Fatal error on SSL protocol",
            "eof_received": "Error calling eof_received()",
        }

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received)
            if callback == "eof_received":
                peer.close_notify()
            await until(lambda: protocol.is_lost)
            context = unhandled.take_one()
            assert context["message"] == messages[callback]
            assert isinstance(context["exception"], LookupError)
            assert {"message", "exception", "transport", "protocol"} <= context.keys()

        run(main())
        assert protocol.calls[-1] == "lost"
        assert isinstance(protocol.lost_with[0], LookupError)

    def test_raising_connection_lost(self, loop, run, pair, unhandled):
        class Raising(Recorder):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                raise LookupError

        protocol = Raising()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            transport.abort()
            await until(lambda: protocol.is_lost)
            await turns()
            assert isinstance(unhandled.take_one()["exception"], LookupError)

        run(main())

    def test_keyboard_interrupt_leaves_the_run(self, loop, run, pair):
        class Interrupted(Recorder):
            def data_received(self, data):
                raise KeyboardInterrupt

        protocol = Interrupted()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"data")
            await asyncio.sleep(15)

        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        task.cancel()
        run(finish(protocol))
        assert task.cancelled()

    def test_context_of_the_callbacks(self, loop, run, pair):
        """data_received sees the variables of the code that opened the connection."""
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []

        class Looking(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                seen.append(variable.get())

            def data_received(self, data):
                super().data_received(data)
                seen.append(variable.get())

            def connection_lost(self, exc):
                super().connection_lost(exc)
                seen.append(variable.get())

        protocol = Looking()

        async def main():
            variable.set("opener")
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"data")
            await until(lambda: protocol.received)
            await finish(protocol)

        run(main())
        assert seen == ["opener"] * 3

    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    def test_context_after_resuming(self, loop, run, pair):
        """It is not the one of whoever resumes reading, as it is in asyncio."""
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []

        class Looking(Recorder):
            def data_received(self, data):
                super().data_received(data)
                seen.append(variable.get())

        protocol = Looking()

        async def resume(transport):
            variable.set("resumer")
            transport.resume_reading()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            transport.pause_reading()
            await asyncio.to_thread(peer.send, b"data")
            await turns(20)
            await asyncio.create_task(resume(transport))
            await until(lambda: protocol.received)
            await finish(protocol)

        run(main())
        assert seen == ["unset"]


class TestClosing:
    def test_is_closing(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            assert transport.is_closing() is False
            transport.close()
            assert transport.is_closing() is True
            assert not protocol.is_lost
            peer.close_notify()
            await until(lambda: protocol.is_lost)
            assert transport.is_closing() is True

        run(main())

    def test_close_twice(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            transport.close()
            transport.close()
            peer.close_notify()
            await until(lambda: protocol.is_lost)
            transport.close()
            await turns()

        run(main())
        assert protocol.lost_with == [None]

    def test_abort(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(bytes(8_000_000))
            transport.abort()
            assert transport.is_closing()
            assert not protocol.is_lost
            await until(lambda: protocol.is_lost)
            with pytest.raises(OSError):  # noqa: PT011 (SSLEOFError, or a reset)
                await asyncio.to_thread(peer.receive_exactly, 8_000_000)

        run(main())
        assert protocol.lost_with == [None]

    def test_abort_while_closing(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            transport.close()
            await turns()
            assert not protocol.is_lost
            transport.abort()
            await until(lambda: protocol.is_lost)
            transport.abort()
            await turns()

        run(main())
        assert protocol.lost_with == [None]

    def test_close_inside_data_received(self, loop, run, pair):
        """Nothing is delivered any more after the callback has returned."""

        class Closing(Recorder):
            def data_received(self, data):
                super().data_received(data)
                self.calls.append("closing")
                self.transport.write(b"bye")
                self.transport.close()

        protocol = Closing()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, b"data")
            assert await asyncio.to_thread(peer.receive_all) == b"bye"
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.calls[:3] == ["made", "data", "closing"]
        assert protocol.calls[-1] == "lost"

    def test_close_inside_connection_made(self, loop, run, pair, side):
        class Closing(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                transport.write(b"bye")
                transport.close()

        protocol = Closing()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            assert await asyncio.to_thread(peer.receive_all) == b"bye"
            await asyncio.to_thread(peer.unwrap)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.lost_with == [None]


class TestExtraInfo:
    def test_names(self, loop, run, pair, side, version):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            info = transport.get_extra_info
            tls = info("ssl_object")
            assert type(tls) is ssl.SSLObject
            assert info("ssl_object") is tls
            assert tls.server_side is (side == "server")
            assert info("sslcontext") is tls.context
            assert info("cipher") == tls.cipher() == peer.tls.cipher()
            assert info("compression") is None
            assert info("peercert") == tls.getpeercert()
            if side == "client":
                assert ("DNS", "oxloop.test") in info("peercert")["subjectAltName"]
            else:
                assert info("peercert") is None
            assert info("peername") == pair[1].getsockname()
            assert info("sockname") == pair[1].getpeername()
            assert info("socket").fileno() == pair[0].fileno()
            assert info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == 1
            assert info("unknown") is None
            assert info("unknown", "default") == "default"
            await finish(protocol)

        run(main())

    def test_after_the_end(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            info = transport.get_extra_info
            tls, cipher, context = info("ssl_object"), info("cipher"), info("sslcontext")
            await finish(protocol)
            await turns()
            assert info("ssl_object") is tls
            assert info("cipher") == cipher == tls.cipher()
            assert info("sslcontext") is context

        run(main())

    def test_kinds(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            assert isinstance(transport, asyncio.Transport)
            assert transport._start_tls_compatible is True
            assert "object at 0x" in repr(transport) or "fd=" in repr(transport)
            await finish(protocol)

        run(main())
