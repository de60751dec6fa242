"""What a program does with a transport's socket comes after what it has written before.

Must hold: whoever has the socket of a transport (given to it, or asked of it) may shut it down, set
options of it or send by it right after write() or sendto(), in the same callback; what was written
leaves first, and nothing of it is lost.
"""

import asyncio
import socket

import pytest

from support.datagrams import Recorder as DatagramRecorder
from support.datagrams import bound
from support.peers import read_all, tcp_pair, until
from support.protocols import Recorder

WAYS = {
    "given": lambda transport, given, asked: given,
    "asked before": lambda transport, given, asked: asked,
    "asked now": lambda transport, given, asked: transport.get_extra_info("socket"),
    "private": lambda transport, given, asked: transport._sock,
}

ORDINALS = (b"first", b"second", b"third")


@pytest.fixture(params=WAYS)
def socket_of(request):
    """A function of a transport, the socket that it was given and the one it was asked for."""
    return WAYS[request.param]


async def connected(loop, near, factory=Recorder):
    return (await loop.connect_accepted_socket(factory, near))[0]


@pytest.mark.parametrize("turns_before", [0, 1])
def test_shutdown_after_write(loop, run, socket_of, turns_before):
    near, far = tcp_pair()

    async def main():
        transport = await connected(loop, near)
        asked = transport.get_extra_info("socket")
        for _ in range(turns_before):
            transport.write(b"before ")
            await asyncio.sleep(0)
        transport.write(b"what was ")
        transport.write(b"written")
        socket_of(transport, near, asked).shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(read_all, far) == b"before " * turns_before + (
            b"what was written"
        )
        assert not transport.is_closing()
        transport.close()

    run(main())
    far.close()


def test_what_the_socket_sends_itself_comes_behind(loop, run):
    near, far = tcp_pair()

    async def main():
        transport = await connected(loop, near)
        for number in range(5):
            transport.write(b"w%d " % number)
            near.send(b"s%d " % number)
        transport.close()
        received = await asyncio.to_thread(read_all, far)
        assert received == b"w0 s0 w1 s1 w2 s2 w3 s3 w4 s4 "

    run(main())
    far.close()


def test_in_data_received_of_a_server(loop, run):
    class Farewell(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.sock = transport.get_extra_info("socket")

        def data_received(self, data):
            self.transport.write(data)
            self.sock.shutdown(socket.SHUT_WR)

    async def main():
        server = await loop.create_server(Farewell, "127.0.0.1", 0)
        far = socket.create_connection(server.sockets[0].getsockname())
        far.sendall(b"hello")
        assert await asyncio.to_thread(read_all, far) == b"hello"
        far.close()
        server.close()
        await server.wait_closed()

    run(main())


def test_datagrams(loop, run, socket_of):
    async def main(near, far):
        near.setblocking(False)
        near.connect(far.getsockname())
        transport, _ = await loop.create_datagram_endpoint(DatagramRecorder, sock=near)
        asked = transport.get_extra_info("socket")
        for number in range(3):
            transport.sendto(b"first %d" % number)
            transport.sendto(b"second %d" % number)
            sock = socket_of(transport, near, asked)
            getattr(sock, "_sock", sock).send(b"third %d" % number)
        expected = [b"%s %d" % (word, number) for number in range(3) for word in ORDINALS]
        assert [far.recv(100) for _ in expected] == expected
        transport.close()

    with bound() as near, bound() as far:
        run(main(near, far))


def test_a_peer_is_answered_before_the_callback_blocks(loop, run):
    """Somebody who holds the socket may wait for the answer to what was just written."""
    near, far = tcp_pair()

    async def main():
        transport = await connected(loop, near)
        transport.write(b"question")
        far.settimeout(10)
        assert far.recv(100) == b"question"
        transport.close()
        await until(lambda: near.fileno() == -1)

    run(main())
    far.close()
