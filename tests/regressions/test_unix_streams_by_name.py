"""Unix stream sockets by abstract name, and servers that follow each other at one path.

Must hold: an abstract name (with its NUL, as text or as bytes) works for servers and for clients; a
server that is closed leaves its successor's path alone. What else goes for paths is in
test_servers.py and test_connections.py.
"""

import asyncio
import os
import socket

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
