"""loop.sendfile and loop.sock_sendfile: ranges, growing files, fallbacks, refusals, positions."""

import asyncio
import hashlib
import io
import os
import socket
import threading

import aiohttp
import aiohttp.web
import pytest

from support.peers import Listener, pattern, read_all, reset, until
from support.protocols import Pausable
from support.web import aiohttp_served

SIZE = 3_000_000
DATA = pattern(SIZE)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        yield file


class Sink:
    """A peer that keeps what it reads until the end of the stream."""

    def __init__(self):
        self.received = None

    def __call__(self, conn):
        with conn:
            self.received = read_all(conn)


@pytest.fixture
def sink():
    return Sink()


def slow_listener():
    """Listens for connections that buffer little."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    listener.setblocking(False)
    return listener


def buffer_little(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)


async def begun(task, peer):
    """Waits until the first of the file is there; the rest has no room."""

    def has_data():
        try:
            return peer.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False

    await until(has_data)
    await asyncio.sleep(0.05)
    assert not task.done()


class Quiet(Pausable, asyncio.Protocol):
    """Remembers what concerns the test: data, pauses, the end."""

    def __init__(self):
        self.received = bytearray()
        self.lost = False

    def data_received(self, data):
        self.received += data

    def connection_lost(self, exc):
        self.lost = True


class ByTransport:
    """Sends through a transport."""

    async def open(self, loop, address):
        self.loop = loop
        self.transport, self.protocol = await loop.create_connection(Quiet, *address)
        self.sock = self.transport.get_extra_info("socket")

    async def send(self, *args, **kwargs):
        return await self.loop.sendfile(self.transport, *args, **kwargs)

    async def close(self):
        self.transport.close()
        await until(lambda: self.protocol.lost)


class BySocket:
    """Sends through a socket."""

    async def open(self, loop, address):
        self.loop = loop
        self.sock = socket.socket()
        self.sock.setblocking(False)
        await loop.sock_connect(self.sock, address)

    async def send(self, *args, **kwargs):
        return await self.loop.sock_sendfile(self.sock, *args, **kwargs)

    async def close(self):
        self.sock.close()


@pytest.fixture(params=[ByTransport, BySocket])
def way(request):
    return request.param()


@pytest.fixture
def sending(loop, run, way, sink):
    """Runs ``body(way)`` on a connection and returns what the peer received."""

    def sending(body):
        async def main(address):
            await way.open(loop, address)
            try:
                await body(way)
            finally:
                await way.close()
            await until(lambda: sink.received is not None)

        with Listener(sink) as listener:
            run(main(listener.address))
        return sink.received

    return sending


class Unseekable(io.RawIOBase):
    """A stream without descriptor and position."""

    def __init__(self, data):
        self._source = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._source.readinto(buffer)


class TestRange:
    @pytest.mark.parametrize(
        ("offset", "count"),
        [(0, None), (1000, None), (0, 70_000), (1000, 2_000_001), (SIZE - 5, 100), (5, 1)],
    )
    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_what_is_sent_and_the_position_afterwards(self, sending, file, kind, offset, count):
        source = file if kind == "file" else io.BytesIO(DATA)
        end = SIZE if count is None else min(SIZE, offset + count)

        async def body(way):
            assert await way.send(source, offset, count) == end - offset

        assert sending(body) == DATA[offset:end]
        assert source.tell() == end

    def test_keywords(self, sending, file):
        async def body(way):
            assert await way.send(file, offset=10, count=20, fallback=False) == 20

        assert sending(body) == DATA[10:30]

    def test_an_empty_file(self, sending, tmp_path):
        path = tmp_path / "empty"
        path.touch()

        async def body(way):
            with path.open("rb") as file:
                assert await way.send(file) == 0

        assert sending(body) == b""

    def test_behind_the_end(self, sending, file):
        async def body(way):
            assert await way.send(file, SIZE + 10, 5) == 0

        assert sending(body) == b""

    def test_the_position_before_does_not_matter(self, sending, file):
        async def body(way):
            file.seek(1234)
            assert await way.send(file, 7, 9) == 9
            assert file.tell() == 16

        assert sending(body) == DATA[7:16]

    def test_twice(self, sending, file):
        async def body(way):
            assert await way.send(file, 0, 100_000) == 100_000
            assert await way.send(file, file.tell()) == SIZE - 100_000

        assert sending(body) == DATA

    def test_a_file_that_grows(self, loop, run, tmp_path, way):
        path = tmp_path / "log"
        path.write_bytes(DATA)
        received = bytearray()

        async def main():
            listener = slow_listener()
            with listener, path.open("rb") as file, path.open("ab") as log:
                await way.open(loop, listener.getsockname())
                buffer_little(way.sock)
                peer, _ = await loop.sock_accept(listener)
                with peer:
                    task = asyncio.create_task(way.send(file))
                    await begun(task, peer)
                    log.write(b"more")
                    log.flush()
                    while len(received) < SIZE + 4:
                        received.extend(await loop.sock_recv(peer, 1 << 18))
                    assert await task == SIZE + 4
                    await way.close()

        run(main())
        assert received == DATA + b"more"

    def test_a_hole_of_gigabytes(self, loop, run, tmp_path, way):
        """Sparse: what counts is the offset past 4 GiB, not the amount."""
        path = tmp_path / "sparse"
        offset = 5 << 30
        with path.open("wb") as file:
            file.seek(offset)
            file.write(b"end")
        sink = Sink()

        async def main(address):
            await way.open(loop, address)
            with path.open("rb") as file:
                assert await way.send(file, offset - 1, 1000, fallback=False) == 4
                assert file.tell() == offset + 3
            await way.close()
            await until(lambda: sink.received is not None)

        with Listener(sink) as listener:
            run(main(listener.address))
        assert sink.received == b"\0end"


class TestFallback:
    def test_no_file(self, sending):
        async def body(way):
            with pytest.raises(asyncio.SendfileNotAvailableError):
                await way.send(io.BytesIO(b"data"), fallback=False)
            assert await way.send(io.BytesIO(b"data")) == 4

        assert sending(body) == b"data"

    def test_an_unseekable_stream_with_an_offset(self, sending):
        async def body(way):
            with pytest.raises(io.UnsupportedOperation):
                await way.send(Unseekable(b"data"), 2)

        assert sending(body) == b""

    def test_the_kernel_refuses(self, sending):
        """A descriptor that sendfile(2) cannot read from: an eventfd, of size 0."""

        class Refused(io.BytesIO):
            def fileno(self):
                return event

        async def body(way):
            with pytest.raises(
                asyncio.SendfileNotAvailableError, match=r"os\.sendfile call failed"
            ):
                await way.send(Refused(DATA), 3, 500_000, fallback=False)
            file = Refused(DATA)
            assert await way.send(file, 3, 500_000) == 500_000
            assert file.tell() == 500_003

        event = os.eventfd(0)
        try:
            assert sending(body) == DATA[3:500_003]
        finally:
            os.close(event)

    def test_the_protocol_is_back_afterwards(self, loop, run, sink):
        async def main(address):
            transport, protocol = await loop.create_connection(Quiet, *address)
            task = asyncio.create_task(loop.sendfile(transport, io.BytesIO(DATA)))
            await asyncio.sleep(0)
            assert await task == SIZE
            assert transport.get_protocol() is protocol
            assert transport.is_reading()
            transport.close()
            await until(lambda: protocol.lost)
            await until(lambda: sink.received is not None)

        with Listener(sink) as listener:
            run(main(listener.address))
        assert sink.received == DATA


class TestRefusals:
    def test_text_files(self, sending, tmp_path):
        path = tmp_path / "text"
        path.write_text("text")

        async def body(way):
            with path.open() as file, pytest.raises(ValueError, match="opened in binary mode"):
                await way.send(file)

        assert sending(body) == b""

    @pytest.mark.parametrize(
        ("offset", "count", "error", "text"),
        [
            (0, 0, ValueError, r"count must be a positive integer \(got 0\)"),
            (0, -1, ValueError, r"count must be a positive integer \(got -1\)"),
            (0, "1", TypeError, r"count must be a positive integer \(got '1'\)"),
            (-1, None, ValueError, r"offset must be a non-negative integer \(got -1\)"),
            (1.5, None, TypeError, r"offset must be a non-negative integer \(got 1.5\)"),
        ],
    )
    def test_numbers(self, sending, file, offset, count, error, text):
        async def body(way):
            with pytest.raises(error, match=text):
                await way.send(file, offset, count)

        assert sending(body) == b""

    def test_datagram_sockets(self, loop, run, file):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
                run(loop.sock_sendfile(sock, file))

    def test_blocking_sockets_in_debug_mode(self, loop, run, file):
        loop.set_debug(True)
        with socket.socket() as sock, pytest.raises(ValueError, match="must be non-blocking"):
            run(loop.sock_sendfile(sock, file))

    def test_a_closing_transport(self, loop, run, sink, file):
        async def main(address):
            transport, protocol = await loop.create_connection(Quiet, *address)
            transport.close()
            with pytest.raises(RuntimeError, match=r"^Transport is closing$"):
                await loop.sendfile(transport, file)
            await until(lambda: protocol.lost)

        with Listener(sink) as listener:
            run(main(listener.address))

    def test_a_transport_that_cannot(self, loop, run, file):
        class Other(asyncio.Transport):
            def is_closing(self):
                return False

        with pytest.raises(RuntimeError, match="sendfile is not supported for transport"):
            run(loop.sendfile(Other(), file))


class TestTransport:
    def test_the_queue_goes_first(self, loop, run, sink, file):
        async def main(address):
            transport, protocol = await loop.create_connection(Quiet, *address)
            transport.write(b"h" * 500_000)
            assert await loop.sendfile(transport, file) == SIZE
            transport.write(b"tail")
            transport.close()
            await until(lambda: protocol.lost)
            await until(lambda: sink.received is not None)

        with Listener(sink) as listener:
            run(main(listener.address))
        assert sink.received == b"h" * 500_000 + DATA + b"tail"

    def test_writes_meanwhile_are_refused(self, loop, run, file):
        async def main():
            with slow_listener() as listener:
                transport, protocol = await loop.create_connection(Quiet, *listener.getsockname())
                buffer_little(transport.get_extra_info("socket"))
                peer, _ = await loop.sock_accept(listener)
                with peer:
                    task = asyncio.create_task(loop.sendfile(transport, file))
                    await begun(task, peer)
                    assert not transport.is_reading()
                    for write in (transport.write, lambda data: transport.writelines([data])):
                        with pytest.raises(RuntimeError, match="sendfile is in progress"):
                            write(b"x")
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert transport.is_reading()
                    transport.write(b"end")
                    received = bytearray()
                    while not received.endswith(b"end"):
                        received += await loop.sock_recv(peer, 1 << 18)
                    assert received == DATA[: len(received) - 3] + b"end"
                    await loop.sock_sendall(peer, b"hello")
                    await until(lambda: protocol.received == b"hello")
                    transport.abort()
                    await until(lambda: protocol.lost)

        run(main())

    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_the_peer_resets(self, loop, run, file, kind):
        source = file if kind == "file" else io.BytesIO(DATA)

        async def main():
            with slow_listener() as listener:
                transport, protocol = await loop.create_connection(Quiet, *listener.getsockname())
                buffer_little(transport.get_extra_info("socket"))
                peer, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(loop.sendfile(transport, source))
                await begun(task, peer)
                reset(peer)
                with pytest.raises(ConnectionError):
                    await task
                assert 0 < source.tell() < SIZE
                transport.abort()
                await until(lambda: protocol.lost)

        run(main())

    def test_a_paused_transport_stays_paused(self, loop, run, sink, file):
        async def main(address):
            transport, protocol = await loop.create_connection(Quiet, *address)
            transport.pause_reading()
            assert await loop.sendfile(transport, file) == SIZE
            assert not transport.is_reading()
            transport.close()
            await until(lambda: protocol.lost)

        with Listener(sink) as listener:
            run(main(listener.address))


class TestSocket:
    def test_cancelled(self, loop, run, file):
        near, far = socket.socketpair()

        async def main():
            task = asyncio.create_task(loop.sock_sendfile(near, file))
            await begun(task, far)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await loop.sock_sendall(far, b"other way")
            assert await loop.sock_recv(near, 100) == b"other way"
            assert loop.remove_writer(near) is False
            task = asyncio.create_task(loop.sock_sendall(near, b"end"))
            received = b""
            while not received.endswith(b"end"):
                received += await loop.sock_recv(far, 1 << 18)
            await task
            assert received == DATA[: len(received) - 3] + b"end"

        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            run(main())

    def test_other_work_goes_on(self, loop, run, tmp_path):
        path = tmp_path / "big"
        block = pattern(1 << 20)
        path.write_bytes(block * 64)
        digest = hashlib.sha256(block * 64).hexdigest()
        received = hashlib.sha256()
        ticks = 0
        ended = threading.Event()

        def consume(conn):
            with conn:
                while data := conn.recv(1 << 18):
                    received.update(data)
            ended.set()

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0)
                ticks += 1

        async def main(address):
            way = BySocket()
            await way.open(loop, address)
            ticking = asyncio.create_task(tick())
            with path.open("rb") as file:
                assert await way.send(file) == 64 << 20
            ticking.cancel()
            await way.close()
            await until(ended.is_set)

        with Listener(consume) as listener:
            run(main(listener.address))
        assert ticks > 10
        assert received.hexdigest() == digest


def test_a_file_response_of_aiohttp(loop, run, tmp_path):
    """64 MiB, whole and in part, by sendfile(2)."""
    path = tmp_path / "big"
    data = pattern(1 << 20) * 64
    path.write_bytes(data)

    async def serve(request):
        return aiohttp.web.FileResponse(path)

    async def main():
        app = aiohttp.web.Application()
        app.router.add_get("/", serve)
        async with aiohttp_served(app) as port, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/"
            async with session.get(url) as response:
                assert response.status == 200
                assert await response.read() == data
            headers = {"Range": "bytes=1000-2000999"}
            async with session.get(url, headers=headers) as response:
                assert response.status == 206
                assert await response.read() == data[1000:2001000]

    run(main(), timeout=40)
