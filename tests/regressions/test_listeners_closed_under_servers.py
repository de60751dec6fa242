"""A program closes a listening socket under its server, and the number gets another file.

Must hold: the server takes no connection that is not its own, and neither watches nor closes the
other file; its own `close()` does what it does otherwise.
"""

import asyncio
import contextlib
import errno
import socket

import pytest

from support.descriptors import watched_descriptors
from support.peers import turns, until
from support.protocols import Echo, Recorder
from support.strangers import is_bad_descriptor, renumbered

#: `close()` raises "Invalid file descriptor: -1", and what it has left undone stays.
asyncio_cannot_close = pytest.mark.asyncio_wrong((3, 0), (4, 0))


def listening():
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def stranger_instead_of(sock):
    """A listening socket that has the number of ``sock``, which is closed."""
    stranger, number = listening(), sock.fileno()
    sock.close()
    return renumbered(stranger, number)


def close(server):
    with contextlib.suppress(ValueError):  # asyncio's
        server.close()


def refuse():
    raise AssertionError("a connection of another socket was accepted")


def test_a_connection_of_the_stranger_is_not_accepted(loop, run, unhandled):
    """The socket is closed by a callback of the poll that has found both readable."""
    sock = listening()
    knocking = []

    class Closing(Recorder):
        def data_received(self, data):
            self.stranger = stranger_instead_of(sock)
            knocking.append(socket.create_connection(self.stranger.getsockname()))

    async def main():
        near, far = socket.socketpair()
        transport, protocol = await loop.create_connection(Closing, sock=near)
        server = await loop.create_server(refuse, sock=sock)
        await turns()
        far.send(b"x")
        knocking.append(socket.socket())
        knocking[0].setblocking(False)
        knocking[0].connect_ex(sock.getsockname())
        await until(lambda: len(knocking) == 2)
        await turns()
        protocol.stranger.accept()[0].close()
        transport.abort()
        await until(lambda: protocol.is_lost)
        close(server)
        for sock_ in (far, protocol.stranger, *knocking):
            sock_.close()

    run(main())
    assert is_bad_descriptor(unhandled.take_one()["exception"])


def test_a_closed_socket_does_not_start_to_serve(loop, run):
    async def main():
        sock = listening()
        server = await loop.create_server(refuse, sock=sock, start_serving=False)
        stranger = stranger_instead_of(sock)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await server.start_serving()
        assert stranger.fileno() not in watched_descriptors()
        close(server)
        stranger.close()

    run(main())


@asyncio_cannot_close
def test_close(loop, run):
    async def main():
        first, second = listening(), listening()
        server = await loop.create_server(refuse, sock=first)
        forever = asyncio.ensure_future(server.serve_forever())
        await turns()
        stranger = stranger_instead_of(first)
        server.close()
        assert not server.is_serving()
        assert server.sockets == ()
        await server.wait_closed()
        with pytest.raises(asyncio.CancelledError):
            await forever
        stranger.getsockname()
        stranger.close()
        second.close()

    run(main())


@asyncio_cannot_close
def test_the_number_is_free_for_its_next_user(loop, run):
    """Another server gets it, and the end of the first one leaves that alone."""

    async def main():
        sock = listening()
        server = await loop.create_server(refuse, sock=sock)
        await turns()
        stranger = stranger_instead_of(sock)
        address = stranger.getsockname()
        successor = await loop.create_server(Echo, sock=stranger)
        server.close()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"data")
        assert await reader.readexactly(4) == b"data"
        writer.close()
        await writer.wait_closed()
        successor.close()
        await successor.wait_closed()

    run(main())


def test_a_listener_that_rested_does_not_watch_the_stranger(loop, run, unhandled):
    """Out of descriptors it rests for a second, and is closed meanwhile."""

    class Exhausted(socket.socket):
        asked = 0

        def accept(self):
            self.asked += 1
            raise OSError(errno.EMFILE if self.asked == 1 else errno.EAGAIN, "try again")

    async def main():
        sock = Exhausted(fileno=listening().detach())
        server = await loop.create_server(refuse, sock=sock, backlog=1)
        await turns()
        knocking = socket.create_connection(sock.getsockname())
        await until(lambda: sock.asked)
        await turns()
        stranger = stranger_instead_of(sock)
        await until(lambda: len(unhandled) == 2)
        assert stranger.fileno() not in watched_descriptors()
        close(server)
        stranger.close()
        knocking.close()

    run(main())
    exhausted, closed = (context["exception"] for context in unhandled.take())
    assert exhausted.errno == errno.EMFILE
    assert str(closed) == "Invalid file descriptor: -1"


@pytest.mark.asyncio_wrong((3, 0), (4, 0))  # it reports the same without end
def test_a_duplicate_keeps_nobody_busy(loop, run, unhandled):
    """The kernel reports the closed socket as long as a duplicate of its descriptor lives."""

    async def main():
        sock = listening()
        server = await loop.create_server(refuse, sock=sock)
        await turns()
        address, duplicate = sock.getsockname(), sock.dup()
        sock.close()
        knocking = socket.create_connection(address)
        await until(lambda: unhandled)
        await asyncio.sleep(0.05)
        server.close()
        duplicate.close()
        knocking.close()

    run(main())
    assert is_bad_descriptor(unhandled.take_one()["exception"])
