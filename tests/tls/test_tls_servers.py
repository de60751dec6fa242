"""Servers over TLS: what counts as their connections, and what ends those."""

import asyncio
import contextlib
import socket
import sys

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import read_all, turns, until
from support.protocols import Recorder

COUNT = 3


@pytest.fixture
def accepting(loop, run):
    """(server, its protocols, its clients) with connections that are open."""
    accepted = []

    def factory():
        accepted.append(Recorder())
        return accepted[-1]

    async def begin():
        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        clients = []
        for _ in range(COUNT):
            _, client = await loop.create_connection(
                Recorder, *address, ssl=client_context(), server_hostname=NAME
            )
            clients.append(client)
        await until(lambda: all(protocol.calls for protocol in accepted))
        return server, accepted, clients

    server, accepted, clients = run(begin())
    yield server, accepted, clients

    async def end():
        server.close()
        for protocol in (*accepted, *clients):
            if protocol.transport is not None:
                protocol.transport.abort()
                await until(lambda: protocol.is_lost)  # noqa: B023
        await turns()

    run(end())


def test_close_leaves_the_connections(loop, run, accepting):
    server, accepted, clients = accepting

    async def main():
        server.close()
        await turns()
        for client, protocol in zip(clients, accepted, strict=True):
            client.transport.write(b"still open")
            await until(lambda: protocol.received == b"still open")  # noqa: B023

    run(main())


@pytest.mark.asyncio_since(3, 13)
@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_ending_the_clients(loop, run, accepting, method):
    server, accepted, clients = accepting

    async def main():
        server.close()
        getattr(server, method)()
        await until(lambda: all(protocol.is_lost for protocol in accepted))
        await until(lambda: all(client.is_lost for client in clients))
        await asyncio.wait_for(server.wait_closed(), 15)

    run(main())
    assert all(len(protocol.lost_with) == 1 for protocol in accepted)


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="wait_closed does not wait for connections before 3.12"
)
def test_wait_closed_waits_for_them(loop, run, accepting):
    server, accepted, clients = accepting

    async def main():
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        for client in clients[:-1]:
            client.transport.close()
            await until(lambda: client.is_lost)  # noqa: B023
        await asyncio.sleep(0.01)
        assert not waiting.done()
        clients[-1].transport.close()
        await asyncio.wait_for(waiting, 15)
        assert all(protocol.is_lost for protocol in accepted)

    run(main())


def test_wait_closed_does_not_wait_for_failed_handshakes(loop, run):
    """Nor for those that are given up at their timeout."""

    def nonsense(address):
        with socket.create_connection(address, timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                read_all(sock)

    async def main():
        server = await loop.create_server(
            Recorder, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=0.2
        )
        address = server.sockets[0].getsockname()
        silent = socket.create_connection(address)
        await asyncio.to_thread(nonsense, address)
        await asyncio.sleep(0.02)
        server.close()
        await asyncio.wait_for(server.wait_closed(), 15)
        assert await asyncio.to_thread(silent.recv, 1) == b""
        silent.close()

    run(main())
