"""Server.close() ends the listening and nothing else.

Must hold: accepted connections are not touched, serve_forever() ends, and wait_closed()
follows the running Python: until 3.11 it returns once the server is closed, from 3.12 on it
waits for the connections.
"""

import asyncio
import socket
import sys

import pytest

from support.peers import read_exactly, turns, until
from support.protocols import Recorder


@pytest.fixture
def accepted():
    return []


@pytest.fixture
def factory(accepted):
    def factory():
        accepted.append(Recorder())
        return accepted[-1]

    return factory


def test_connections_stay(loop, run, factory, accepted):
    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname(), 15)
        await until(lambda: accepted and accepted[0].transport)
        server.close()
        for number in range(20):
            client.sendall(b"%02d" % number)
            await until(lambda n=number: len(accepted[0].received) == 2 * (n + 1))
            accepted[0].transport.write(b"ok")
            assert await asyncio.to_thread(read_exactly, client, 2) == b"ok"
        assert not accepted[0].is_lost
        client.close()
        await until(lambda: accepted[0].is_lost)
        await server.wait_closed()

    run(main())


def test_serve_forever_ends(loop, run, factory):
    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        serving = asyncio.ensure_future(server.serve_forever())
        loop.call_later(0.01, server.close)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(serving), 15)
        assert serving.cancelled()

    run(main())


def test_wait_closed_follows_the_python(loop, run, factory, accepted):
    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname(), 15)
        await until(lambda: accepted and accepted[0].transport)
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await turns()
        await asyncio.sleep(0.01)
        assert waiting.done() is (sys.version_info < (3, 12))
        client.close()
        await until(lambda: accepted[0].is_lost)
        await waiting

    run(main())
