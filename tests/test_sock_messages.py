"""sock_recvmsg and sock_sendmsg, which asyncio has not: descriptors between processes."""

import array
import asyncio
import os
import socket
import subprocess
import sys

import pytest

from support.loops import factory_of

CHILD = """
import array, os, socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
data, ancillary, flags, address = sock.recvmsg(100, socket.CMSG_SPACE(4))
(level, kind, numbers), = ancillary
fd, = array.array("i", numbers)
os.write(fd, b"written by the child: " + data)
os.close(fd)
read, write = os.pipe()
sock.sendmsg([b"an", b"swer"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read]))])
os.write(write, b"from the child's pipe")
"""


@pytest.fixture
def loop_factory():
    # Not parametrized: asyncio has no such methods.
    return factory_of("oxloop")


def rights(*fds):
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def test_a_descriptor_comes_over(loop, run, pair):
    near, far = pair

    async def main():
        task = asyncio.create_task(loop.sock_recvmsg(near, 100, socket.CMSG_SPACE(4)))
        await asyncio.sleep(0.01)
        assert not task.done()
        read, write = os.pipe()
        buffers = iter([b"pi", bytearray(b"pe")])
        assert await loop.sock_sendmsg(far, buffers, iter(rights(read))) == 4
        os.close(read)
        data, ancillary, flags, _ = await task
        assert (data, flags) == (b"pipe", 0)
        ((level, kind, numbers),) = ancillary
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        (received,) = array.array("i", numbers)
        os.write(write, b"x")
        os.close(write)
        assert os.read(received, 10) == b"x"
        os.close(received)

    run(main())


def test_between_two_processes(loop, run, pair, tmp_path):
    near, far = pair
    far.setblocking(True)

    async def main():
        arguments = [sys.executable, "-c", CHILD, str(far.fileno())]
        child = subprocess.Popen(arguments, pass_fds=[far.fileno()])
        with child, (tmp_path / "out").open("w+b") as out:
            await loop.sock_sendmsg(near, [b"hello"], rights(out.fileno()))
            data, ancillary, _, _ = await loop.sock_recvmsg(near, 100, socket.CMSG_SPACE(4))
            assert data == b"answer"
            (received,) = array.array("i", ancillary[0][2])
            with os.fdopen(received, "rb") as pipe:
                assert await loop.run_in_executor(None, pipe.read) == b"from the child's pipe"
            assert await loop.run_in_executor(None, child.wait) == 0
            out.seek(0)
            assert out.read() == b"written by the child: hello"

    run(main())


def test_sendmsg_waits_for_room(loop, run, pair):
    near, far = pair

    async def main():
        while True:
            task = asyncio.create_task(loop.sock_sendmsg(near, [b"x" * 30_000, b"y" * 30_000]))
            done, _ = await asyncio.wait([task], timeout=0.05)
            if not done:
                break
        received = bytearray()
        while not task.done():
            received += await loop.sock_recv(far, 1 << 18)
            await asyncio.sleep(0)
        assert 0 < await task <= 60_000

    run(main())


def test_to_an_address(loop, run):
    async def main():
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
        ):
            for sock in (near, far):
                sock.bind(("127.0.0.1", 0))
                sock.setblocking(False)
            sent = await loop.sock_sendmsg(near, [b"a", b"b"], address=far.getsockname())
            assert sent == 2
            assert await loop.sock_recvmsg(far, 1) == (
                b"a",
                [],
                socket.MSG_TRUNC,
                near.getsockname(),
            )

    run(main())


def test_flags(loop, run, pair):
    near, far = pair

    async def main():
        await loop.sock_sendmsg(far, [b"data"], (), socket.MSG_NOSIGNAL)
        data, *_ = await loop.sock_recvmsg(near, 4, 0, socket.MSG_PEEK)
        assert data == b"data"
        assert await loop.sock_recv(near, 10) == b"data"

    run(main())


def test_cancellation_keeps_the_message(loop, run, pair):
    near, far = pair

    async def main():
        task = asyncio.create_task(loop.sock_recvmsg(near, 10))
        await asyncio.sleep(0.01)
        far.send(b"kept")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        data, *_ = await loop.sock_recvmsg(near, 10)
        assert data == b"kept"

    run(main())


def test_refusals(loop, run, pair):
    near, _ = pair
    with pytest.raises(TypeError):
        run(loop.sock_sendmsg(near, ["text"]))
    loop.set_debug(True)
    near.setblocking(True)
    with pytest.raises(ValueError, match="the socket must be non-blocking"):
        run(loop.sock_recvmsg(near, 10))
