"""Unix stream sockets by path and by abstract name.

Must hold: an abstract name (with its NUL, as text or as bytes) works for servers and for clients; a
path is text, bytes or a Path; a server replaces the socket that an earlier process left at its
path, and nothing else; the path is removed with the server where this Python does that, unless
``cleanup_socket=False``.
"""

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from support.peers import until
from support.protocols import Echo, Recorder


async def talk(loop, name):
    transport, protocol = await loop.create_unix_connection(Recorder, name)
    transport.write(b"hello")
    await until(lambda: protocol.received == b"hello")
    peername = transport.get_extra_info("peername")
    transport.close()
    await until(lambda: protocol.is_lost)
    return peername


@pytest.mark.parametrize("kind", [str, str.encode], ids=["text", "bytes"])
def test_abstract_names_both_ways(loop, run, kind):
    name = kind(f"\0oxloop-stream-{os.getpid()}")

    async def main():
        server = await loop.create_unix_server(Echo, name)
        expected = name if isinstance(name, bytes) else name.encode()
        assert server.sockets[0].getsockname() == expected
        assert await talk(loop, name) == expected
        with socket.socket(socket.AF_UNIX) as plain:  # a client of another kind
            plain.connect(name)
            plain.settimeout(10)
            plain.send(b"plain")
            assert await asyncio.to_thread(plain.recv, 100) == b"plain"
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Recorder, name)

    run(main())


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
def test_paths(loop, run, tmp_path, kind):
    path = tmp_path / "socket"

    async def main():
        server = await loop.create_unix_server(Echo, kind(path))
        assert await talk(loop, kind(path)) == str(path)
        server.close()
        await server.wait_closed()

    run(main())


def test_a_stale_socket_is_replaced_and_nothing_else(loop, run, tmp_path):
    stale, file = tmp_path / "stale", tmp_path / "file"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(stale))
    file.write_text("content")

    async def main():
        server = await loop.create_unix_server(Echo, stale)
        await talk(loop, str(stale))
        server.close()
        await server.wait_closed()
        with pytest.raises(OSError, match="is already in use"):
            await loop.create_unix_server(Echo, file)

    run(main())
    assert file.read_text() == "content"


def test_cleanup_of_the_path(loop, run, tmp_path):
    kept, default = tmp_path / "kept", tmp_path / "default"
    has_keyword = sys.version_info >= (3, 13) or type(loop).__module__.startswith("oxloop")

    async def main():
        keywords = {"cleanup_socket": False} if has_keyword else {}
        servers = [
            await loop.create_unix_server(Echo, kept, **keywords),
            await loop.create_unix_server(Echo, default),
        ]
        for server in servers:
            server.close()
            await server.wait_closed()

    run(main())
    assert kept.is_socket()
    assert default.exists() == (sys.version_info < (3, 13))


def test_a_successor_keeps_its_path(loop, run, tmp_path):
    path = tmp_path / "socket"

    async def main():
        first = await loop.create_unix_server(Echo, path)
        second = await loop.create_unix_server(Echo, path)
        first.close()
        await first.wait_closed()
        await talk(loop, str(path))
        second.close()
        await second.wait_closed()

    run(main())
