"""A loop makes itself a new epoll instance, while numbers that it watched have other files by now.

That is so in the child of a fork, and where the kernel reports a closed descriptor without end
because a duplicate of it lives on. Must hold: the new instance watches what the loop still has.
"""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from support.descriptors import watched_descriptors
from support.peers import turns, unix_pair, until
from support.programs import output_of
from support.protocols import Recorder
from support.strangers import Stranger

CLOSED_ELSEWHERE = """
import os, socket, warnings
from support.descriptors import watched_descriptors
from support.strangers import Stranger

warnings.simplefilter("ignore")


class Protocol(asyncio.Protocol):
    def data_received(self, data):
        heard.append(data)


async def watch():
    near, far = socket.socketpair()
    await loop.create_connection(Protocol, sock=near)
    near_datagrams, far_datagrams = socket.socketpair(type=socket.SOCK_DGRAM)
    near_datagrams.setblocking(False)
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=near_datagrams)
    reader, writer = map(os.fdopen, os.pipe(), ("rb", "wb"))
    await loop.connect_read_pipe(Protocol, reader)
    await loop.connect_write_pipe(Protocol, writer)
    listener = socket.create_server(("127.0.0.1", 0))
    await loop.create_server(Protocol, sock=listener)
    watched, far_watched = socket.socketpair()
    loop.add_reader(watched, heard.append, "reader")
    kept, far_kept = socket.socketpair()
    loop.add_reader(kept, lambda: heard.append(kept.recv(10)))
    away.extend([far, far_datagrams, far_watched, far_kept])
    return [near, near_datagrams, reader, writer, listener, watched], far_kept


async def child(strangers, far_kept):
    for stranger in strangers:
        stranger.peer.send(b"for the stranger")
    far_kept.send(b"kept")
    while not heard:
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    numbers = {stranger.sock.fileno() for stranger in strangers}
    return heard == [b"kept"] and not numbers & watched_descriptors()


heard, away = [], []
loop = new_event_loop()
files, far_kept = loop.run_until_complete(watch())
pid = os.fork()
if pid == 0:
    status = 1
    try:
        strangers = [Stranger(file) for file in files]
        status = 0 if loop.run_until_complete(child(strangers, far_kept)) else 2
    finally:
        os._exit(status)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os._exit(0)
"""


@pytest.mark.asyncio_wrong((3, 0), (4, 0))  # the child has the parent's epoll instance
def test_the_child_of_a_fork(loop_name):
    tests = str(Path(__file__).parent.parent)
    output = output_of(loop_name, CLOSED_ELSEWHERE, env={"PYTHONPATH": tests})
    assert output == "0\n"


async def leave_an_orphan(loop):
    """Returns the duplicate of a closed socket that is reported, and the other end."""
    orphan, far = unix_pair()
    loop.add_reader(orphan, print)
    await turns()
    duplicate = orphan.dup()
    orphan.close()
    loop.remove_reader(orphan)
    far.send(b"x")
    return duplicate, far


def test_an_orphan_of_a_closed_descriptor(loop, run):
    async def main():
        near, far = unix_pair()
        transport, protocol = await loop.create_connection(Recorder, sock=near)
        reader, writer = os.pipe()
        reader = os.fdopen(reader, "rb", 0)
        piped, _ = await loop.connect_read_pipe(Recorder, reader)
        watched, far_watched = unix_pair()
        loop.add_reader(watched.fileno(), print)
        strangers = [Stranger(file) for file in (near, reader, watched)]
        duplicate, far_orphan = await leave_an_orphan(loop)
        await asyncio.sleep(0.05)
        numbers = {stranger.sock.fileno() for stranger in strangers}
        assert not numbers & watched_descriptors()
        loop.remove_reader(strangers[2].sock.fileno())
        for user in (transport, piped):
            user.close()
        await turns()
        os.close(writer)
        for file in (duplicate, far, far_watched, far_orphan, *strangers):
            file.close()
        assert bytes(protocol.received) == b""

    run(main())


def test_two_servers_of_one_socket(loop, run):
    """The later one has the number."""
    served = []

    class Serving(asyncio.Protocol):
        def __init__(self, name):
            self.name = name

        def connection_made(self, transport):
            served.append(self.name)
            transport.abort()

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        await loop.create_server(lambda: Serving("first"), sock=listener)
        second = await loop.create_server(lambda: Serving("second"), sock=listener)
        duplicate, far = await leave_an_orphan(loop)
        await asyncio.sleep(0.05)
        with socket.create_connection(listener.getsockname()):
            await until(lambda: served)
        second.close()
        for file in (duplicate, far):
            file.close()
        assert served == ["second"]

    run(main())
