"""transport.close() always sends FIN at once.

Must hold: an idle client sees EOF as soon as the server closes its transport, for 1 and for
100 clients, and afterwards the descriptor count is what it was.
"""

import socket

import pytest

from support.descriptors import open_descriptors
from support.peers import until
from support.protocols import Recorder


@pytest.mark.parametrize("clients", [1, 100])
@pytest.mark.parametrize("from_callback", [False, True], ids=["task", "callback"])
def test_idle_clients_see_eof(loop, run, clients, from_callback):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    def is_closed(sock):
        try:
            return sock.recv(1) == b""
        except BlockingIOError:
            return False

    async def main():
        before = len(open_descriptors())
        server = await loop.create_server(factory, "127.0.0.1", 0, backlog=200)
        socks = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(clients)]
        for sock in socks:
            sock.setblocking(False)
        await until(lambda: len(protocols) == clients and all(p.transport for p in protocols))
        for protocol in protocols:
            if from_callback:
                loop.call_soon(protocol.transport.close)
            else:
                protocol.transport.close()
        waiting = set(socks)
        # No data, no timer and no signal comes to the server's help.
        await until(
            lambda: not (waiting.difference_update(filter(is_closed, [*waiting])), waiting)[1]
        )
        assert all(protocol.is_lost for protocol in protocols)
        assert all(protocol.lost_with == [None] for protocol in protocols)
        for sock in socks:
            sock.close()
        server.close()
        await server.wait_closed()
        await until(lambda: len(open_descriptors()) <= before)

    run(main())


def test_close_with_data_queued_sends_it_first(loop, run):
    from support.peers import read_all, tcp_pair

    near, far = tcp_pair()
    data = b"x" * 3_000_000

    async def main():
        import asyncio

        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        transport.write(data)
        transport.close()
        assert len(await asyncio.to_thread(read_all, far)) == len(data)
        await until(lambda: protocol.is_lost)

    run(main())
    far.close()
