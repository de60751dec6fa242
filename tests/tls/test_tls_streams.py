"""Streams and sendfile over TLS: open_connection, start_server, StreamWriter.start_tls."""

import asyncio
import contextlib
import hashlib
import io
import ssl

import pytest

from support.certificates import NAME, OTHER_NAME, client_context, server_context
from support.peers import PAIRS, pattern, turns, until
from support.protocols import Recorder
from support.tls import Peer, Tunnel, peer_of, secured

SIZE = 1_500_000
DATA = pattern(SIZE)


async def echo_lines(reader, writer):
    """Echoes lines until the end; an upgrade is asked for by name."""
    while line := await reader.readline():
        if line == b"STARTTLS\n":
            writer.write(b"GO\n")
            await writer.start_tls(server_context())
            continue
        writer.write(line)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(callback=echo_lines, **options):
    server = await asyncio.start_server(callback, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


async def leave(writer):
    writer.close()
    await writer.wait_closed()


class TestStreams:
    def test_dialogue(self, loop, run):
        async def main():
            async with serving(ssl=server_context()) as address:
                reader, writer = await asyncio.open_connection(
                    *address, ssl=client_context(), server_hostname=NAME
                )
                for line in (b"one\n", b"two\n", pattern(60_000).replace(b"\n", b"") + b"\n"):
                    writer.write(line)
                    await writer.drain()
                    assert await reader.readuntil(b"\n") == line
                assert writer.can_write_eof() is False
                assert writer.get_extra_info("ssl_object").version().startswith("TLSv1")
                await leave(writer)

        run(main())

    def test_unix(self, loop, run, tmp_path):
        path = str(tmp_path / "socket")

        async def main():
            server = await asyncio.start_unix_server(echo_lines, path, ssl=server_context())
            reader, writer = await asyncio.open_unix_connection(
                path, ssl=client_context(), server_hostname=NAME
            )
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            await leave(writer)
            server.close()

        run(main())

    def test_read_to_the_end(self, loop, run):
        async def send(reader, writer):
            writer.write(DATA)
            await leave(writer)

        async def main():
            async with serving(send, ssl=server_context()) as address:
                reader, writer = await asyncio.open_connection(
                    *address, ssl=client_context(), server_hostname=NAME
                )
                assert hashlib.sha256(await reader.read()).digest() == hashlib.sha256(DATA).digest()
                assert reader.at_eof()
                await leave(writer)

        run(main())

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_many_connections_in_turns(self, loop, run, version):
        """More sessions than keep record buffers, each with a stream of bytes of its own."""
        count = 90

        async def main():
            server_side, client_side = server_context(version=version), client_context()
            async with serving(ssl=server_side) as address:
                streams = [
                    await asyncio.open_connection(
                        *address, ssl=client_side, server_hostname=NAME, limit=1 << 20
                    )
                    for _ in range(count)
                ]
                for turn, size in enumerate([1, 1000, 40_000, 100]):
                    lines = []
                    for number, (_, writer) in enumerate(streams):
                        seed = b"%d of %d" % (turn, number)
                        lines.append(pattern(size, seed).replace(b"\n", b" ") + b"\n")
                        writer.write(lines[-1])
                    for (reader, _), line in zip(streams, lines, strict=True):
                        assert await reader.readuntil(b"\n") == line
                for _, writer in streams:
                    await leave(writer)

        run(main())

    def test_drain_waits_for_a_slow_peer(self, loop, run):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)

        async def main():
            peer = peer_of(far, "client")
            (_, writer), _ = await asyncio.gather(
                asyncio.open_connection(sock=near, ssl=client_context(), server_hostname=NAME),
                asyncio.to_thread(peer.handshake),
            )
            for _ in range(3):
                writer.write(DATA)
            draining = asyncio.ensure_future(writer.drain())
            await asyncio.sleep(0.02)
            assert not draining.done()
            received = await asyncio.to_thread(peer.receive_exactly, 3 * SIZE)
            assert received == DATA * 3
            await draining
            writer.transport.abort()
            await writer.wait_closed()

        run(main())
        far.close()

    def test_reader_limit_pauses_the_transport(self, loop, run):
        """Nothing is lost when a reader takes its time."""

        async def send(reader, writer):
            writer.write(DATA)
            await writer.drain()
            await leave(writer)

        async def main():
            async with serving(send, ssl=server_context()) as address:
                reader, writer = await asyncio.open_connection(
                    *address, ssl=client_context(), server_hostname=NAME, limit=1000
                )
                received = bytearray()
                while chunk := await reader.read(50_000):
                    received += chunk
                    if len(received) < 400_000:
                        await asyncio.sleep(0.001)
                assert received == DATA
                await leave(writer)

        run(main())

    def test_verification_fails(self, loop, run):
        async def main():
            async with serving(ssl=server_context(OTHER_NAME)) as address:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await asyncio.open_connection(
                        *address, ssl=client_context(), server_hostname=NAME
                    )
                await turns()

        run(main())

    def test_wait_closed_raises_what_ended_the_connection(self, loop, run, pair):
        near, far = pair

        async def main():
            peer = peer_of(far, "client")
            (_, writer), _ = await asyncio.gather(
                asyncio.open_connection(
                    sock=near, ssl=client_context(), server_hostname=NAME, ssl_shutdown_timeout=0.05
                ),
                asyncio.to_thread(peer.handshake),
            )
            writer.close()
            with pytest.raises(TimeoutError, match=r"^SSL shutdown timed out$"):
                await writer.wait_closed()

        run(main())


class TestStartTls:
    def test_both_ends(self, loop, run):
        async def main():
            async with serving() as address:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"in clear\n")
                assert await reader.readline() == b"in clear\n"
                writer.write(b"STARTTLS\n")
                assert await reader.readline() == b"GO\n"
                before = writer.transport
                await writer.start_tls(client_context(), server_hostname=NAME)
                assert writer.transport is not before
                assert writer.get_extra_info("ssl_object").version().startswith("TLSv1")
                line = pattern(50_000).replace(b"\n", b"") + b"\n"
                writer.write(line)
                assert await reader.readline() == line
                await leave(writer)

        run(main())

    def test_fails_on_verification(self, loop, run):
        refused = []

        async def refuse(reader, writer):
            with pytest.raises(OSError):  # noqa: PT011 (an alert, or a reset)
                await writer.start_tls(server_context(OTHER_NAME))
            writer.close()
            refused.append(True)

        async def main():
            async with serving(refuse) as address:
                _, writer = await asyncio.open_connection(*address)
                with pytest.raises(ssl.SSLCertVerificationError):
                    await writer.start_tls(client_context(), server_hostname=NAME)
                writer.close()
                await until(lambda: refused)
                await turns()

        run(main())

    def test_over_tls(self, loop, run):
        """The server's side upgrades a connection that has TLS already."""

        async def main():
            async with serving(ssl=server_context()) as address:
                context = client_context()
                reader, writer = await asyncio.open_connection(
                    *address, ssl=context, server_hostname=NAME
                )
                writer.write(b"STARTTLS\n")
                assert await reader.readline() == b"GO\n"
                outer = writer.get_extra_info("ssl_object")
                await writer.start_tls(client_context(), server_hostname=NAME)
                assert writer.get_extra_info("ssl_object") is not outer
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
                await leave(writer)

        run(main())

    @pytest.mark.asyncio_since(3, 14)
    def test_first_flight_already_read(self, loop, run):
        """A client that does not wait for the answer: its hello is in the StreamReader."""
        started = []

        async def late(reader, writer):
            assert await reader.readexactly(8) == b"STARTTLS"
            while len(reader._buffer) < 100:
                await asyncio.sleep(0.001)
            started.append(len(reader._buffer))
            await writer.start_tls(server_context())
            writer.write(await reader.readexactly(5))
            await leave(writer)

        async def main():
            async with serving(late) as address:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"STARTTLS")
                await writer.start_tls(client_context(), server_hostname=NAME)
                writer.write(b"hello")
                assert await reader.read() == b"hello"
                await leave(writer)

        run(main())
        assert started


class TestSendfile:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "data"
        path.write_bytes(DATA)
        with path.open("rb") as file:
            yield file

    @pytest.mark.parametrize(
        ("offset", "count"), [(0, None), (0, 1000), (1000, None), (500_000, 70_000), (SIZE, None)]
    )
    def test_ranges(self, loop, run, pair, side, file, offset, count):
        protocol = Recorder()
        expected = DATA[offset:] if count is None else DATA[offset : offset + count]

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(b"<")
            sending = asyncio.ensure_future(loop.sendfile(transport, file, offset, count))
            received = await asyncio.to_thread(peer.receive_exactly, 1 + len(expected))
            assert await sending == len(expected)
            assert received == b"<" + expected
            assert file.tell() == offset + len(expected)
            transport.write(b">")
            assert await asyncio.to_thread(peer.receive_exactly, 1) == b">"
            await asyncio.to_thread(peer.send, b"reading goes on")
            await until(lambda: protocol.received == b"reading goes on")
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_of_a_file_object_without_descriptor(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            sending = asyncio.ensure_future(loop.sendfile(transport, io.BytesIO(DATA)))
            assert await asyncio.to_thread(peer.receive_exactly, SIZE) == DATA
            assert await sending == SIZE
            transport.abort()
            await until(lambda: protocol.is_lost)

        run(main())

    def test_needs_the_fallback(self, loop, run, pair, file):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            with pytest.raises(
                RuntimeError, match="fallback is disabled and native sendfile is not supported"
            ):
                await loop.sendfile(transport, file, fallback=False)
            transport.abort()
            with pytest.raises(RuntimeError, match=r"^Transport is closing$"):
                await loop.sendfile(transport, file)
            await until(lambda: protocol.is_lost)

        run(main())

    def test_connection_lost_meanwhile(self, loop, run, file):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, (near, far), protocol)
            sending = asyncio.ensure_future(loop.sendfile(transport, io.BytesIO(DATA * 10)))
            await asyncio.sleep(0.02)
            assert not sending.done()
            far.close()
            with pytest.raises(ConnectionError):
                await sending
            await until(lambda: protocol.is_lost)

        run(main())

    def test_over_tls_in_tls(self, loop, run, pair, file):
        outer_protocol, protocol = Recorder(), Recorder()

        async def main():
            outer, outer_peer = await secured(loop, pair, outer_protocol)
            peer = Peer(Tunnel(outer_peer), client_context(), server_hostname=NAME)
            inner, _ = await asyncio.gather(
                loop.start_tls(outer, protocol, server_context(), server_side=True),
                asyncio.to_thread(peer.handshake),
            )
            sending = asyncio.ensure_future(loop.sendfile(inner, file))
            assert await asyncio.to_thread(peer.receive_exactly, SIZE) == DATA
            assert await sending == SIZE
            inner.abort()
            await until(lambda: protocol.is_lost)

        run(main())
