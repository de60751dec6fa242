"""A client that never answers the handshake is dropped at the timeout and leaks nothing.

Must hold: its descriptor is closed, no protocol hears of it, nothing keeps the connection's
objects, and a server with many of them goes on to serve.
"""

import asyncio
import gc
import socket
import weakref

from support.certificates import NAME, client_context, server_context
from support.descriptors import open_channels
from support.peers import turns, until
from support.protocols import Echo, Recorder

CLIENTS = 30
TIMEOUT_S = 2  # enough for a client that answers, on a busy machine too


def test_are_dropped(loop, run):
    made, factories = [], []

    class Noting(Echo):
        def __init__(self):
            factories.append(weakref.ref(self))

        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(transport)

    async def main():
        server = await loop.create_server(
            Noting, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=TIMEOUT_S
        )
        address = server.sockets[0].getsockname()
        before = len(open_channels())
        silent = [socket.create_connection(address, timeout=10) for _ in range(CLIENTS)]
        await until(lambda: len(factories) == CLIENTS)
        await until(lambda: len(open_channels()) == before + CLIENTS)
        for sock in silent:
            assert sock.recv(1) == b""
            sock.close()
        assert made == []
        await turns(3)
        gc.collect()
        assert [ref() for ref in factories] == [None] * CLIENTS
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=client_context(), server_hostname=NAME
        )
        transport.write(b"served")
        await until(lambda: protocol.received == b"served")
        transport.close()
        await until(lambda: protocol.is_lost)
        server.close()
        await asyncio.sleep(0.01)

    run(main())
