"""Data that a StreamReader holds when start_tls is called is not lost.

Must hold: on the client's side it stays readable as what came in clear; on the server's side it
is the beginning of the handshake (asyncio before 3.14 loses it).
"""

import asyncio

import pytest

from support.certificates import NAME, client_context, server_context
from support.tls import peer_of, tcp_streams


def test_of_the_client_stays_readable(loop, run):
    async def main():
        with tcp_streams() as (near, far):
            reader, writer = await asyncio.open_connection(sock=near)
            far.sendall(b"220 ready\r\n")
            while len(reader._buffer) < 11:
                await asyncio.sleep(0.001)
            peer = peer_of(far, "client")
            await asyncio.gather(
                writer.start_tls(client_context(), server_hostname=NAME),
                asyncio.to_thread(peer.handshake),
            )
            await asyncio.to_thread(peer.send, b"sealed\r\n")
            assert await reader.readline() == b"220 ready\r\n"
            assert await reader.readline() == b"sealed\r\n"
            writer.transport.abort()

    run(main())


@pytest.mark.asyncio_since(3, 14)
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_of_the_server_begins_the_handshake(loop, run, paused):
    """Also when the reader holds so much that it has paused the transport."""
    connected = []

    async def main():
        with tcp_streams() as (near, far):
            reader = asyncio.StreamReader(limit=100 if paused else 1 << 16)
            protocol = asyncio.StreamReaderProtocol(
                reader, lambda reader, writer: connected.append(writer)
            )
            await loop.connect_accepted_socket(lambda: protocol, near)
            peer = peer_of(far, "server")
            handshake = asyncio.ensure_future(asyncio.to_thread(peer.handshake))
            while len(reader._buffer) < 150:
                await asyncio.sleep(0.001)
            (writer,) = connected
            await asyncio.gather(writer.start_tls(server_context()), handshake)
            writer.write(b"sealed")
            assert await asyncio.to_thread(peer.receive_exactly, 6) == b"sealed"
            writer.transport.abort()

    run(main())
