"""A program closes a socket that a `sock_*` method waits for, and the number gets another file.

Must hold: the method ends with EBADF once it hears of the socket, and neither reads from the other
file, nor writes to it, nor asks it whether a connection was made.
"""

import asyncio
import contextlib
import socket

import pytest

from support.peers import Unresponsive, turns, unix_pair
from support.strangers import Stranger, is_bad_descriptor


def filled(kind=socket.SOCK_STREAM):
    """A pair whose first end takes no more."""
    near, far = socket.socketpair(type=kind)
    for sock in (near, far):
        sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            near.send(bytes(10_000))
    return near, far


def drain(sock):
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1_000_000)


RECEIVING = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 100),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(100)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 100),
    "sock_recvfrom_into": lambda loop, sock: loop.sock_recvfrom_into(sock, bytearray(100)),
}


class TestWithADuplicate:
    """The kernel goes on reporting the socket, as a duplicate of its descriptor lives."""

    async def outcome(self, waiting, sock, happens):
        await turns()
        assert not waiting.done()
        duplicate = sock.dup()
        with Stranger(sock) as stranger:
            stranger.peer.send(b"for the stranger")
            happens()
            await asyncio.wait([waiting], timeout=15)
            assert stranger.got() == [None, b"for the stranger"]
        duplicate.close()
        return waiting.exception()

    @pytest.mark.parametrize("method", RECEIVING)
    def test_receiving(self, loop, run, method):
        async def main():
            near, far = unix_pair()
            waiting = asyncio.ensure_future(RECEIVING[method](loop, near))
            error = await self.outcome(waiting, near, lambda: far.send(b"data"))
            far.close()
            return error

        assert is_bad_descriptor(run(main()))

    def test_accepting(self, loop, run):
        async def main():
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            client, address = socket.socket(), sock.getsockname()
            waiting = asyncio.ensure_future(loop.sock_accept(sock))
            error = await self.outcome(waiting, sock, lambda: client.connect(address))
            client.close()
            return error

        assert is_bad_descriptor(run(main()))

    def test_sending(self, loop, run):
        async def main():
            near, far = filled()
            waiting = asyncio.ensure_future(loop.sock_sendall(near, b"data"))
            error = await self.outcome(waiting, near, lambda: drain(far))
            far.close()
            return error

        assert is_bad_descriptor(run(main()))

    def test_sending_a_datagram(self, loop, run, tmp_path):
        async def main():
            near, far = filled(socket.SOCK_DGRAM)
            path = str(tmp_path / "far")
            far.bind(path)
            waiting = asyncio.ensure_future(loop.sock_sendto(near, b"data", path))
            error = await self.outcome(waiting, near, lambda: drain(far))
            far.close()
            return error

        assert is_bad_descriptor(run(main()))

    @pytest.mark.parametrize("fallback", [True, False])
    def test_sending_a_file(self, loop, run, tmp_path, fallback):
        path = tmp_path / "file"
        path.write_bytes(b"data")

        async def main():
            near, far = filled()
            with path.open("rb") as file:
                sending = loop.sock_sendfile(near, file, fallback=fallback)
                waiting = asyncio.ensure_future(sending)
                error = await self.outcome(waiting, near, lambda: drain(far))
            far.close()
            return error

        error = run(main())
        if fallback:
            assert is_bad_descriptor(error)
        else:
            assert isinstance(error, asyncio.SendfileNotAvailableError)

    def test_connecting(self, loop, run):
        """The peer refuses the connection when it is asked again, a second later."""

        async def main():
            sock = socket.socket()
            sock.setblocking(False)
            with Unresponsive() as peer:
                waiting = asyncio.ensure_future(loop.sock_connect(sock, peer.address))
                await turns()
            return await self.outcome(waiting, sock, lambda: None)

        assert is_bad_descriptor(run(main()))


@pytest.mark.asyncio_wrong((3, 0), (4, 0))  # the one never wakes, and the other one not always
class TestWithTheNextUser:
    """Nobody reports the closed socket, until its number is waited for again."""

    @pytest.mark.parametrize("method", RECEIVING)
    def test_receiving(self, loop, run, method):
        async def main():
            near, far = unix_pair()
            waiting = asyncio.ensure_future(RECEIVING[method](loop, near))
            await turns()
            with Stranger(near) as stranger:
                second = asyncio.ensure_future(loop.sock_recv(stranger.sock, 100))
                await asyncio.sleep(0.01)
                stranger.peer.send(b"for the stranger")
                assert await second == b"for the stranger"
                await asyncio.wait([waiting], timeout=15)
            far.close()
            return waiting.exception()

        assert is_bad_descriptor(run(main()))

    def test_connecting_is_no_success_because_the_stranger_is_connected(self, loop, run):
        async def main():
            sock = socket.socket()
            sock.setblocking(False)
            with Unresponsive() as peer:
                waiting = asyncio.ensure_future(loop.sock_connect(sock, peer.address))
                await turns()
                with Stranger(sock) as stranger:
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            stranger.sock.send(bytes(10_000))
                    second = asyncio.ensure_future(loop.sock_sendall(stranger.sock, b"data"))
                    await asyncio.sleep(0.01)
                    drain(stranger.peer)
                    await second
                    await asyncio.wait([waiting], timeout=15)
            return waiting.exception()

        assert is_bad_descriptor(run(main()))


def test_a_wait_that_is_cancelled_leaves_the_next_user_alone(loop, run):
    async def main():
        near, far = unix_pair()
        waiting = asyncio.ensure_future(loop.sock_recv(near, 100))
        await turns()
        with Stranger(near) as stranger:
            waiting.cancel()
            await turns()
            second = asyncio.ensure_future(loop.sock_recv(stranger.sock, 100))
            await turns()
            stranger.peer.send(b"for the stranger")
            assert await second == b"for the stranger"
        far.close()

    run(main())
