"""remove_reader and remove_writer return bool; a number that was given out again is a new one.

Must hold: that goes for closed descriptors, for sockets and for transports. What add_* refuse at
once is in test_watchers.py.
"""

import asyncio
import os
import socket

import pytest

from support.peers import until

REMOVERS = ["remove_reader", "remove_writer"]


@pytest.mark.both_modes
@pytest.mark.parametrize("remove", REMOVERS)
def test_removal_returns_bool(loop, remove):
    near, far = socket.socketpair()
    assert getattr(loop, remove)(near) is False
    getattr(loop, remove.replace("remove", "add"))(near, int)
    assert getattr(loop, remove)(near) is True
    assert getattr(loop, remove)(near) is False
    near.close()
    far.close()


@pytest.mark.both_modes
@pytest.mark.parametrize("remove", REMOVERS)
def test_removal_of_a_closed_descriptor(loop, remove):
    near, far = socket.socketpair()
    fd = near.fileno()
    getattr(loop, remove.replace("remove", "add"))(fd, int)
    near.close()
    assert getattr(loop, remove)(fd) is True
    assert getattr(loop, remove)(fd) is False
    far.close()


def test_reused_number_of_a_socket_closed_while_watched(loop, run):
    """Closed without remove_reader, the kernel gives the number to the next socket."""
    old, new = [], []
    first, first_far = socket.socketpair()
    fd = first.fileno()

    async def main():
        loop.add_reader(fd, old.append, 1)
        await asyncio.sleep(0)
        first.close()
        second, second_far = socket.socketpair()
        if second.fileno() != fd:
            os.dup2(second.fileno(), fd)
            second.close()
            second = socket.socket(fileno=fd)
        second.setblocking(False)
        loop.remove_reader(fd)
        loop.add_reader(fd, lambda: new.append(second.recv(100)))
        second_far.send(b"for the new one")
        await until(lambda: new)
        assert loop.remove_reader(fd) is True
        second.close()
        second_far.close()

    run(main())
    first_far.close()
    assert old == []
    assert new == [b"for the new one"]


def test_reused_number_of_a_transport(loop, run):
    """The descriptor of a closed transport comes back as a watched socket, and the reverse."""

    async def main():
        for _ in range(20):
            near, far = socket.socketpair()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            fd = near.fileno()
            far.send(b"unread")
            transport.abort()
            await until(lambda near=near: near.fileno() == -1)
            far.close()
            watched, far = socket.socketpair()
            got = []
            loop.add_reader(watched, lambda w=watched, g=got: g.append(w.recv(10)))
            far.send(b"x")
            await until(lambda got=got: got)
            assert loop.remove_reader(watched)
            watched.close()
            far.close()
        return fd

    run(main())
