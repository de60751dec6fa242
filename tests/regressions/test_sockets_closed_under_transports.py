"""A program closes its own socket under a transport, and the number gets another file.

Must hold: not a byte of one connection is sent to, or read from, the other; the transport ends with
EBADF; the number is free for its next user.
"""

import asyncio
import contextlib
import os
import socket

import pytest

from support import datagrams
from support.peers import turns, unix_pair, until
from support.protocols import BufferedRecorder, Recorder
from support.strangers import Stranger, is_bad_descriptor, refused_to_resume


async def closed_under(loop, factory=Recorder):
    """(transport, protocol, stranger, the far end of the first connection)"""
    near, far = unix_pair()
    near = socket.socket(fileno=near.detach())
    transport, protocol = await loop.create_connection(factory, sock=near)
    await asyncio.sleep(0)
    return transport, protocol, Stranger(near), far


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
    """asyncio watches it, and ends at the first byte that it gets; but it reads none."""

    async def main():
        transport, protocol, stranger, far = await closed_under(loop)
        transport.pause_reading()
        await turns()
        stranger.peer.send(b"for the stranger")
        transport.resume_reading()
        await until(lambda: protocol.is_lost)
        assert stranger.got() == [None, b"for the stranger"]
        assert bytes(protocol.received) == b""
        stranger.close()
        far.close()
        return protocol.lost_with[0]

    assert is_bad_descriptor(run(main()))


def test_reading_of_a_closed_socket_is_not_resumed(loop, run):
    """Nobody has the number: the caller is told, and the transport is as it was."""

    async def main():
        near, far = unix_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=near)
        transport.pause_reading()
        await turns()
        near.close()
        await refused_to_resume(transport, protocol)
        assert transport.is_reading()
        transport.abort()
        await until(lambda: protocol.is_lost)
        far.close()

    run(main())


class TestDatagrams:
    async def closed_under(self, loop, connected):
        far = socket.socket(type=socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        far.setblocking(False)
        near = socket.socket(type=socket.SOCK_DGRAM)
        near.bind(("127.0.0.1", 0))
        if connected:
            near.connect(far.getsockname())
        transport, protocol = await loop.create_datagram_endpoint(datagrams.Recorder, sock=near)
        await turns()
        return transport, protocol, Stranger(near, socket.SOCK_DGRAM), far

    @pytest.mark.parametrize("connected", [True, False])
    def test_nothing_is_sent_to_the_stranger(self, loop, run, connected):
        async def main():
            transport, protocol, stranger, far = await self.closed_under(loop, connected)
            stranger.peer.send(b"for the stranger")
            address = None if connected else far.getsockname()
            transport.sendto(b"not for the stranger", address)
            await until(lambda: protocol.errors)
            transport.abort()
            await until(lambda: protocol.lost_with)
            assert stranger.got() == [None, b"for the stranger"]
            assert protocol.payloads == []
            with pytest.raises(BlockingIOError):
                far.recv(100)
            stranger.close()
            far.close()
            return protocol.errors[0]

        assert is_bad_descriptor(run(main()))

    def test_nothing_of_the_stranger_is_received(self, loop, run):
        async def main():
            transport, protocol, stranger, far = await self.closed_under(loop, True)
            transport.close()
            stranger.peer.send(b"for the stranger")
            await until(lambda: protocol.lost_with)
            assert stranger.got() == [None, b"for the stranger"]
            assert protocol.payloads == []
            stranger.sock.send(b"still open")
            assert stranger.got() == [b"still open", None]
            stranger.close()
            far.close()

        run(main())

    @pytest.mark.asyncio_wrong((3, 0), (4, 0))  # "File descriptor ... is used by transport ..."
    def test_the_number_is_free_for_its_next_user(self, loop, run):
        async def main():
            _transport, protocol, stranger, far = await self.closed_under(loop, True)
            successor, sink = await loop.create_datagram_endpoint(
                datagrams.Recorder, sock=stranger.sock
            )
            stranger.peer.send(b"for the stranger")
            await until(lambda: sink.received)
            await until(lambda: protocol.lost_with)
            successor.abort()
            await until(lambda: sink.lost_with)
            assert protocol.payloads == []
            stranger.close()
            far.close()
            return protocol.lost_with[0]

        assert is_bad_descriptor(run(main()))
