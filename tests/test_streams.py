"""asyncio's streams on the loop: open_connection, start_server and their Unix twins."""

import asyncio
import hashlib
import socket
import sys

import pytest

from support.peers import Listener, echo, pattern, read_all, turns, unix_pair, until

pytestmark = pytest.mark.both_modes


async def stream_of(sock, limit=2**16):
    """(reader, writer) over one end of a socket pair."""
    if sock.family == socket.AF_UNIX:
        return await asyncio.open_unix_connection(sock=sock, limit=limit)
    return await asyncio.open_connection(sock=sock, limit=limit)


@pytest.fixture
def pair():
    near, far = unix_pair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def talk(loop, run, pair):
    """Runs ``body(reader, writer, far)`` on a stream and closes the stream after it."""
    near, far = pair

    def talk(body, limit=2**16):
        async def main():
            reader, writer = await stream_of(near, limit)
            try:
                return await body(reader, writer, far)
            finally:
                writer.transport.abort()
                await turns()

        return run(main())

    return talk


class TestReading:
    def test_read_returns_what_is_there(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"some bytes")
            assert await reader.read(100) == b"some bytes"
            far.sendall(b"0123456789")
            assert await reader.read(4) == b"0123"
            assert await reader.read(100) == b"456789"
            assert await reader.read(0) == b""

        talk(body)

    def test_read_to_the_end(self, talk):
        data = pattern(3_000_000)

        async def body(reader, writer, far):
            sending = asyncio.to_thread(self._send, far, data)
            received, _ = await asyncio.gather(reader.read(), sending)
            assert reader.at_eof()
            assert await reader.read() == b""
            return received

        assert talk(body) == data

    def _send(self, far, data):
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)

    def test_read_waits(self, talk):
        async def body(reader, writer, far):
            reading = asyncio.ensure_future(reader.read(10))
            await turns()
            assert not reading.done()
            far.sendall(b"x")
            assert await reading == b"x"

        talk(body)

    def test_readline(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"one\ntwo\r\n\nrest")
            assert await reader.readline() == b"one\n"
            assert await reader.readline() == b"two\r\n"
            assert await reader.readline() == b"\n"
            reading = asyncio.ensure_future(reader.readline())
            await turns()
            assert not reading.done()
            far.shutdown(socket.SHUT_WR)
            assert await reading == b"rest"
            assert await reader.readline() == b""

        talk(body)

    def test_readline_in_pieces(self, talk):
        async def body(reader, writer, far):
            reading = asyncio.ensure_future(reader.readline())
            for byte in b"slow line\n":
                far.sendall(bytes([byte]))
                await turns(2)
            assert await reading == b"slow line\n"

        talk(body)

    def test_many_lines(self, talk):
        lines = [b"%d\n" % number for number in range(20000)]

        async def body(reader, writer, far):
            sending = asyncio.ensure_future(asyncio.to_thread(self._send, far, b"".join(lines)))
            received = [line async for line in reader]
            await sending
            return received

        assert talk(body) == lines

    def test_line_over_the_limit(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"x" * 1000 + b"\nafter it\n")
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            assert await reader.readline() == b"after it\n"

        talk(body, limit=100)

    def test_line_over_the_limit_without_its_end(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"x" * 1000)
            with pytest.raises(ValueError, match="limit"):
                await reader.readline()
            far.sendall(b"yes\n")
            await reader.readline()

        talk(body, limit=100)

    def test_readexactly(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"0123456789")
            assert await reader.readexactly(3) == b"012"
            assert await reader.readexactly(0) == b""
            assert await reader.readexactly(7) == b"3456789"
            with pytest.raises(ValueError, match="readexactly size can not be less than zero"):
                await reader.readexactly(-1)

        talk(body)

    def test_readexactly_of_much(self, talk):
        data = pattern(2_000_000)

        async def body(reader, writer, far):
            sending = asyncio.to_thread(far.sendall, data)
            received, _ = await asyncio.gather(reader.readexactly(len(data)), sending)
            return received

        assert talk(body) == data

    def test_readexactly_and_the_end(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"too short")
            far.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(100)
            assert caught.value.partial == b"too short"
            assert caught.value.expected == 100

        talk(body)

    def test_readuntil(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"one||two|three||")
            assert await reader.readuntil(b"||") == b"one||"
            assert await reader.readuntil(b"||") == b"two|three||"
            far.sendall(b"half|")
            reading = asyncio.ensure_future(reader.readuntil(b"||"))
            await turns()
            far.sendall(b"|")
            assert await reading == b"half||"

        talk(body)

    @pytest.mark.skipif(sys.version_info < (3, 13), reason="several separators are 3.13's")
    def test_readuntil_of_several(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"one;two\nthree")
            assert await reader.readuntil((b"\n", b";")) == b"one;"
            assert await reader.readuntil((b"\n", b";")) == b"two\n"

        talk(body)

    def test_readuntil_over_the_limit(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"x" * 1000 + b"|")
            await turns()
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"|")
            # Nothing of it was taken.
            assert len(await reader.readexactly(1001)) == 1001

        talk(body, limit=100)

    def test_readuntil_and_the_end(self, talk):
        async def body(reader, writer, far):
            far.sendall(b"no separator")
            far.shutdown(socket.SHUT_WR)
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readuntil(b"|")
            assert caught.value.partial == b"no separator"

        talk(body)

    def test_two_readers_at_once(self, talk):
        async def body(reader, writer, far):
            first = asyncio.ensure_future(reader.read(1))
            await turns()
            with pytest.raises(RuntimeError, match="while another coroutine is already waiting"):
                await reader.read(1)
            first.cancel()
            await turns()
            far.sendall(b"x")
            assert await reader.read(1) == b"x"

        talk(body)

    def test_cancelled_read_loses_nothing(self, talk):
        async def body(reader, writer, far):
            for number in range(50):
                reading = asyncio.ensure_future(reader.readexactly(100))
                await turns(number % 3)
                far.sendall(b"%d" % (number % 10))
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            return await reader.readexactly(50)

        assert talk(body) == b"0123456789" * 5

    def test_reset_is_raised(self, loop, run):
        from support.peers import reset, tcp_pair

        near, far = tcp_pair()

        async def main():
            reader, writer = await stream_of(near)
            reading = asyncio.ensure_future(reader.read(1))
            await turns()
            reset(far)
            with pytest.raises(ConnectionResetError):
                await reading
            with pytest.raises(ConnectionResetError):
                await reader.readline()
            writer.close()
            with pytest.raises(ConnectionResetError):
                await writer.wait_closed()

        run(main())


class TestBackpressure:
    def test_reading_pauses_above_twice_the_limit(self, talk):
        async def body(reader, writer, far):
            far.setblocking(False)
            sent = 0
            for _ in range(200):
                try:
                    sent += far.send(b"x" * 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.001)
            assert not writer.transport.is_reading()
            assert sent < 200 * 65536
            assert len(await reader.readexactly(sent)) == sent
            await until(writer.transport.is_reading)

        talk(body, limit=1000)

    def test_eof_while_paused_is_not_lost(self, talk):
        data = pattern(500_000)

        async def body(reader, writer, far):
            sending = asyncio.ensure_future(asyncio.to_thread(self._send, far, data))
            await asyncio.sleep(0.02)
            received = bytearray()
            while chunk := await reader.read(1000):
                received += chunk
            await sending
            return received

        assert talk(body, limit=1000) == data

    def _send(self, far, data):
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)

    def test_drain_waits_for_the_reader_of_the_other_end(self, talk):
        async def body(reader, writer, far):
            writer.write(b"x" * 8_000_000)
            draining = asyncio.ensure_future(writer.drain())
            await turns()
            assert not draining.done()
            reading = asyncio.ensure_future(asyncio.to_thread(read_all, far))
            await draining
            writer.close()
            assert len(await reading) == 8_000_000

        talk(body)

    def test_several_drains_at_once(self, talk):
        async def body(reader, writer, far):
            writer.write(b"x" * 8_000_000)
            drains = [asyncio.ensure_future(writer.drain()) for _ in range(3)]
            await turns()
            reading = asyncio.ensure_future(asyncio.to_thread(read_all, far))
            await asyncio.gather(*drains)
            writer.close()
            await reading

        talk(body)

    def test_drain_raises_when_the_connection_is_lost(self, talk):
        async def body(reader, writer, far):
            writer.write(b"x" * 8_000_000)
            draining = asyncio.ensure_future(writer.drain())
            await turns()
            far.close()
            with pytest.raises(ConnectionError):
                await draining

        talk(body)

    def test_drain_with_nothing_to_do(self, talk):
        async def body(reader, writer, far):
            for _ in range(10):
                await writer.drain()

        talk(body)


class TestWriter:
    def test_write_and_writelines(self, talk):
        async def body(reader, writer, far):
            writer.write(b"one ")
            writer.writelines([b"two ", bytearray(b"three")])
            assert writer.can_write_eof()
            writer.write_eof()
            return await asyncio.to_thread(read_all, far)

        assert talk(body) == b"one two three"

    def test_close_and_wait_closed(self, talk):
        async def body(reader, writer, far):
            assert not writer.is_closing()
            writer.write(b"last words")
            writer.close()
            assert writer.is_closing()
            await writer.wait_closed()
            await writer.wait_closed()
            return await asyncio.to_thread(read_all, far)

        assert talk(body) == b"last words"

    def test_extra_info_and_transport(self, talk):
        async def body(reader, writer, far):
            assert isinstance(writer.transport, asyncio.Transport)
            assert (
                writer.get_extra_info("socket").fileno()
                == writer.transport.get_extra_info("socket").fileno()
            )
            assert writer.get_extra_info("none", 5) == 5

        talk(body)

    def test_drain_after_close(self, talk):
        async def body(reader, writer, far):
            writer.write(b"x")
            writer.close()
            await writer.wait_closed()
            with pytest.raises(ConnectionResetError, match="Connection lost"):
                await writer.drain()

        talk(body)


class TestServers:
    def test_echo(self, loop, run):
        async def serve(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def client(address, number):
            reader, writer = await asyncio.open_connection(*address)
            for count in range(5):
                writer.write(b"line %d of %d\n" % (count, number))
                await writer.drain()
                assert await reader.readline() == b"LINE %d OF %d\n" % (count, number)
            writer.close()
            await writer.wait_closed()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            await asyncio.gather(*(client(address, number) for number in range(30)))
            server.close()
            await server.wait_closed()

        run(main())

    def test_unix_echo(self, loop, run, tmp_path):
        path = str(tmp_path / "socket")

        async def serve(reader, writer):
            writer.write(await reader.read())
            writer.close()
            await writer.wait_closed()

        async def main():
            server = await asyncio.start_unix_server(serve, path)
            reader, writer = await asyncio.open_unix_connection(path)
            data = pattern(1_000_000)
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

        run(main())

    def test_plain_function_as_callback(self, loop, run):
        called = []

        def serve(reader, writer):
            called.append(type(reader))
            writer.close()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

        run(main())
        assert called == [asyncio.StreamReader]

    def test_error_in_the_callback(self, loop, run, unhandled):
        async def serve(reader, writer):
            raise LookupError("in the callback")

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            await until(lambda: unhandled or reader.at_eof())
            writer.transport.abort()
            await turns()
            server.close()
            await server.wait_closed()

        run(main())
        contexts = unhandled.take()
        if sys.version_info >= (3, 12):
            assert [str(context["exception"]) for context in contexts] == ["in the callback"]
            message = "Unhandled exception in client_connected_cb"
            assert contexts[0]["message"] == message
        else:
            assert len(contexts) <= 1

    def test_client_that_goes_away(self, loop, run):
        """The server task that waits for it ends with the reader's EOF."""
        ended = []

        async def serve(reader, writer):
            ended.append(await reader.read())
            writer.close()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            socket.create_connection(server.sockets[0].getsockname()).close()
            await until(lambda: ended)
            server.close()
            await server.wait_closed()

        run(main())
        assert ended == [b""]

    def test_limit_of_the_server(self, loop, run):
        errors = []

        async def serve(reader, writer):
            try:
                await reader.readline()
            except ValueError as exc:
                errors.append(exc)
            writer.close()

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=10)
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"much longer than ten\n")
            await until(lambda: errors)
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

        run(main())


class TestForeignReaders:
    """Programs patch StreamReader or bring their own: what they did must be honoured."""

    def test_subclass_of_the_reader(self, loop, run, pair):
        near, far = pair
        fed = []

        class Own(asyncio.StreamReader):
            def feed_data(self, data):
                fed.append(bytes(data))
                super().feed_data(data.upper())

            def feed_eof(self):
                fed.append("eof")
                super().feed_eof()

        async def main():
            reader = Own()
            protocol = asyncio.StreamReaderProtocol(reader)
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=near)
            far.sendall(b"shout")
            assert await reader.read(5) == b"SHOUT"
            far.shutdown(socket.SHUT_WR)
            assert await reader.read() == b""
            transport.close()
            await turns()

        run(main())
        assert b"".join(item for item in fed if item != "eof") == b"shout"
        assert fed[-1] == "eof"

    def test_subclass_of_the_protocol(self, loop, run, pair):
        near, far = pair
        calls = []

        class Own(asyncio.StreamReaderProtocol):
            def data_received(self, data):
                calls.append(bytes(data))
                super().data_received(data)

            def connection_lost(self, exc):
                calls.append("lost")
                super().connection_lost(exc)

        async def main():
            reader = asyncio.StreamReader()
            protocol = Own(reader)
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=near)
            far.sendall(b"data")
            assert await reader.read(4) == b"data"
            transport.close()
            await until(lambda: "lost" in calls)

        run(main())
        assert calls == [b"data", "lost"]

    @pytest.mark.parametrize(
        ("patched", "method"),
        [
            (asyncio.StreamReader, "feed_data"),
            (asyncio.StreamReaderProtocol, "data_received"),
        ],
    )
    def test_patched_on_the_class(self, loop, run, pair, monkeypatch, patched, method):
        near, far = pair
        original = getattr(patched, method)
        seen = []

        def note(self, data):
            seen.append(bytes(data))
            return original(self, data)

        monkeypatch.setattr(patched, method, note)

        async def main():
            reader, writer = await stream_of(near)
            far.sendall(b"data")
            assert await reader.read(4) == b"data"
            writer.transport.abort()
            await turns()

        run(main())
        assert b"".join(seen) == b"data"

    def test_feed_data_patched_on_the_instance(self, talk):
        async def body(reader, writer, far):
            seen = []
            original = reader.feed_data

            def feed_data(data):
                seen.append(bytes(data))
                original(data)

            reader.feed_data = feed_data
            far.sendall(b"data")
            assert await reader.read(4) == b"data"
            assert b"".join(seen) == b"data"

        talk(body)

    def test_data_fed_by_hand_and_by_the_socket(self, talk):
        async def body(reader, writer, far):
            reader.feed_data(b"by hand ")
            far.sendall(b"by socket")
            await until(lambda: len(reader._buffer) == 17)
            assert bytes(reader._buffer) == b"by hand by socket"
            assert await reader.readexactly(17) == b"by hand by socket"

        talk(body)

    def test_the_buffer_can_be_looked_at(self, talk):
        """redis-py and others look into the reader's buffer."""

        async def body(reader, writer, far):
            far.sendall(b"peek")
            await until(lambda: reader._buffer)
            assert type(reader._buffer) is bytearray
            assert bytes(reader._buffer) == b"peek"
            assert await reader.read(2) == b"pe"
            assert bytes(reader._buffer) == b"ek"

        talk(body)

    def test_exception_set_on_the_reader(self, talk):
        async def body(reader, writer, far):
            reading = asyncio.ensure_future(reader.read(1))
            await turns()
            reader.set_exception(LookupError("set from outside"))
            with pytest.raises(LookupError, match="set from outside"):
                await reading

        talk(body)

    def test_protocol_switched_away_from_the_stream(self, talk):
        """nats and others take the transport of a stream over."""
        from support.protocols import Recorder

        async def body(reader, writer, far):
            far.sendall(b"stream")
            assert await reader.read(6) == b"stream"
            protocol = Recorder()
            writer.transport.set_protocol(protocol)
            far.sendall(b"protocol")
            await until(lambda: protocol.received == b"protocol")
            assert len(reader._buffer) == 0

        talk(body)


def test_streams_at_both_ends(loop, run):
    data = pattern(4_000_000)

    async def copy(reader, writer):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()

    async def main():
        with Listener(echo) as listener:
            reader, writer = await asyncio.open_connection(*listener.address)
            digest = hashlib.sha256()

            async def receive():
                while chunk := await reader.read(65536):
                    digest.update(chunk)

            receiving = asyncio.ensure_future(receive())
            for start in range(0, len(data), 50_000):
                writer.write(data[start : start + 50_000])
                await writer.drain()
            writer.write_eof()
            await receiving
            writer.close()
            await writer.wait_closed()
            return digest.digest()

    assert run(main()) == hashlib.sha256(data).digest()


def test_open_connection_errors(loop, run, unused_port):
    with pytest.raises(ConnectionRefusedError):
        run(asyncio.open_connection("127.0.0.1", unused_port))
    with pytest.raises(FileNotFoundError):
        run(asyncio.open_unix_connection("/nonexistent/socket"))


def test_line_per_turn_under_load(loop, run):
    """Many small requests in one segment are answered in order."""

    async def serve(reader, writer):
        async for line in reader:
            writer.write(line)
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        lines = [b"%d\n" % number for number in range(5000)]
        writer.writelines(lines)
        writer.write_eof()
        assert await reader.read() == b"".join(lines)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())
