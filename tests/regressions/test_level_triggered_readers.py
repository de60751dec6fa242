"""Readers are level-triggered.

Must hold: a callback that takes one byte of ten is called again until there is nothing left,
as grpc and others rely on; a writer is called for as long as there is room.
"""

import os
import socket

import pytest

from support.peers import until


@pytest.mark.both_modes
@pytest.mark.parametrize("kind", ["socket", "pipe"])
def test_one_byte_of_ten_at_a_time(loop, run, kind):
    if kind == "socket":
        near, far = socket.socketpair()
        read, write = near.fileno(), far.fileno()
    else:
        read, write = os.pipe()
    got = []

    async def main():
        loop.add_reader(read, lambda: got.append(os.read(read, 1)))
        os.write(write, b"0123456789")
        await until(lambda: len(got) == 10)
        assert loop.remove_reader(read)

    run(main())
    if kind == "socket":
        near.close()
        far.close()
    else:
        os.close(read)
        os.close(write)
    assert b"".join(got) == b"0123456789"


@pytest.mark.both_modes
def test_a_callback_that_takes_nothing_is_called_on(loop, run):
    near, far = socket.socketpair()
    calls = []

    async def main():
        loop.add_reader(near, calls.append, 1)
        far.send(b"x")
        await until(lambda: len(calls) > 20)
        loop.remove_reader(near)

    run(main())
    near.close()
    far.close()


def test_registered_again_with_data_left(loop, run):
    near, far = socket.socketpair()
    far.send(b"0123456789")
    got = []

    async def main():
        for _ in range(10):
            future = loop.create_future()
            loop.add_reader(near, future.set_result, None)
            await future
            loop.remove_reader(near)
            got.append(near.recv(1))

    run(main())
    near.close()
    far.close()
    assert b"".join(got) == b"0123456789"
