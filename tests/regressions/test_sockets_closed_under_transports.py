"""A program closes its own socket under a transport, and the number gets another file.

Must hold: not a byte of one connection is sent to, or read from, the other; the transport ends with
EBADF; the number is free for its next user.
"""

import asyncio
import contextlib
import errno
import os
import socket

import pytest

from support.peers import unix_pair, until
from support.protocols import BufferedRecorder, Recorder


class Stranger:
    """A connection whose socket has the number of one that was just closed."""

    def __init__(self, closed):
        number = closed.fileno()
        closed.close()
        self.sock, self.peer = socket.socketpair()
        assert self.sock.fileno() == number
        for sock in (self.sock, self.peer):
            sock.setblocking(False)

    def got(self):
        """What came out of the stranger's own connection, on both ends."""
        received = []
        for sock in (self.peer, self.sock):
            try:
                received.append(sock.recv(100))
            except BlockingIOError:
                received.append(None)
        return received

    def close(self):
        self.sock.close()
        self.peer.close()


async def closed_under(loop, factory=Recorder):
    """(transport, protocol, stranger, the far end of the first connection)"""
    near, far = unix_pair()
    near = socket.socket(fileno=near.detach())
    transport, protocol = await loop.create_connection(factory, sock=near)
    await asyncio.sleep(0)
    return transport, protocol, Stranger(near), far


def is_bad_descriptor(error):
    return isinstance(error, OSError) and error.errno == errno.EBADF


@pytest.mark.parametrize("factory", [Recorder, BufferedRecorder])
def test_a_write_ends_the_transport(loop, run, factory):
    async def main():
        transport, protocol, stranger, far = await closed_under(loop, factory)
        stranger.peer.send(b"for the stranger")
        transport.write(b"not for the stranger")
        await until(lambda: protocol.is_lost)
        await asyncio.sleep(0.01)
        assert stranger.got() == [None, b"for the stranger"]
        assert bytes(protocol.received) == b""
        os.fstat(stranger.sock.fileno())
        stranger.close()
        far.close()
        return protocol.lost_with[0]

    assert is_bad_descriptor(run(main()))


@pytest.mark.parametrize("ending", ["close", "abort", "write_eof"])
def test_an_end_leaves_the_stranger_alone(loop, run, ending):
    async def main():
        transport, protocol, stranger, far = await closed_under(loop)
        stranger.peer.send(b"for the stranger")
        with contextlib.suppress(OSError):  # asyncio's write_eof shuts the socket down at once
            getattr(transport, ending)()
        await asyncio.sleep(0.02)
        transport.abort()
        await until(lambda: protocol.is_lost)
        assert stranger.got() == [None, b"for the stranger"]
        stranger.sock.send(b"still open")
        assert stranger.got() == [b"still open", None]
        stranger.close()
        far.close()

    run(main())


@pytest.mark.asyncio_wrong((3, 0), (4, 0))  # "File descriptor ... is used by transport ..."
@pytest.mark.parametrize("user", ["add_reader", "sock_recv", "create_connection"])
def test_the_number_is_free_for_its_next_user(loop, run, user):
    """The transport that had it is told."""

    async def main():
        transport, protocol, stranger, far = await closed_under(loop)
        stranger.peer.send(b"x")
        if user == "add_reader":
            got = asyncio.Event()
            loop.add_reader(stranger.sock, got.set)
            await asyncio.wait_for(got.wait(), 10)
            loop.remove_reader(stranger.sock)
            assert stranger.sock.recv(10) == b"x"
        elif user == "sock_recv":
            assert await loop.sock_recv(stranger.sock, 10) == b"x"
        else:
            successor, sink = await loop.create_connection(Recorder, sock=stranger.sock)
            await until(lambda: sink.received)
            successor.write(b"y")
            await until(lambda: not successor.get_write_buffer_size())
            assert stranger.peer.recv(10) == b"y"
            await until(lambda: protocol.is_lost)
            assert is_bad_descriptor(protocol.lost_with[0])
            successor.abort()
            await until(lambda: sink.is_lost)
        transport.abort()
        await until(lambda: protocol.is_lost)
        assert bytes(protocol.received) == b""
        stranger.close()
        far.close()

    run(main())


def test_a_resumed_transport_does_not_watch_the_stranger(loop, run):
    async def main():
        transport, protocol, stranger, far = await closed_under(loop)
        transport.pause_reading()
        stranger.peer.send(b"for the stranger")
        with contextlib.suppress(OSError, ValueError):  # what asyncio's selector says
            transport.resume_reading()
        await asyncio.sleep(0.02)
        assert bytes(protocol.received) == b""
        transport.abort()
        await until(lambda: protocol.is_lost)
        assert stranger.got() == [None, b"for the stranger"]
        stranger.close()
        far.close()

    run(main())
