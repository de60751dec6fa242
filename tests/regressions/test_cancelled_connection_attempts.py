"""A connection attempt cancelled in any state closes its descriptor once and no other.

Must hold: in the lookup, while connecting, in the TLS handshake, right after it stands; descriptors
that others open in the same moment, under the same numbers, are not closed in their place.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
import threading

import pytest

from support.descriptors import open_channels
from support.peers import Listener, Unresponsive, echo, turns, until
from support.protocols import Recorder


class Bystanders:
    """Socket pairs that take every descriptor number as soon as it is free."""

    def __init__(self):
        self.pairs = []

    def grab(self, count=4):
        self.pairs += [socket.socketpair() for _ in range(count)]

    def check_and_close(self):
        for near, far in self.pairs:
            near.send(b"mine")
            assert far.recv(4) == b"mine"
            near.close()
            far.close()


async def attempt(loop, address, prepare, bystanders, **kwargs):
    """Starts to connect, lets ``prepare`` run, cancels, and grabs what became free."""
    task = loop.create_task(loop.create_connection(Recorder, *address, **kwargs))
    await prepare(task)
    task.cancel()
    bystanders.grab()
    try:
        transport, _ = await task
    except asyncio.CancelledError:
        pass
    else:
        transport.abort()
    bystanders.grab()
    await turns(3)
    bystanders.grab()


@pytest.fixture
def unharmed(loop, run):
    def unharmed(address, prepare, times=10, **kwargs):
        async def main():
            await attempt(loop, address, prepare, bystanders := Bystanders(), **kwargs)
            bystanders.check_and_close()
            before = len(open_channels())
            for _ in range(times):
                await attempt(loop, address, prepare, bystanders := Bystanders(), **kwargs)
                bystanders.check_and_close()
            await until(lambda: (gc.collect(), len(open_channels()) <= before)[1])

        run(main())

    return unharmed


def test_while_connecting(unharmed):
    async def prepare(task):
        await asyncio.sleep(0.002)
        assert not task.done()

    with Unresponsive() as hanging:
        unharmed(hanging.address, prepare)


def test_with_happy_eyeballs(loop, unharmed):
    async def prepare(task):
        await asyncio.sleep(0.01)
        assert not task.done()

    with Unresponsive() as one, Unresponsive(host="127.0.0.2") as two:

        async def getaddrinfo(*args, **kwargs):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a.address) for a in (one, two)]

        loop.getaddrinfo = getaddrinfo
        unharmed(("faked.example", 1), prepare, happy_eyeballs_delay=0.002)


@pytest.mark.parametrize("steps", range(10))
def test_after_so_many_turns(loop, run, steps):
    """The server's ends are closed by the listener, in a thread, so only ours are counted."""

    async def prepare(task):
        await turns(steps)

    async def main(address):
        for _ in range(5):
            bystanders = Bystanders()
            await attempt(loop, address, prepare, bystanders)
            bystanders.check_and_close()

    with Listener(echo) as listener:
        run(main(listener.address))


def test_in_the_lookup(loop, run, monkeypatch):
    release, entered = threading.Event(), threading.Semaphore(0)

    def getaddrinfo(*args, **kwargs):
        entered.release()
        release.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 9))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def main():
        before = len(open_channels())
        for _ in range(3):
            task = loop.create_task(loop.create_connection(Recorder, "slow.example", 9))
            await until(lambda: entered.acquire(blocking=False))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        release.set()
        await asyncio.sleep(0.02)
        assert len(open_channels()) <= before

    try:
        run(main())
    finally:
        release.set()


def test_in_the_handshake(loop, unharmed):
    """The peer takes the connection and never says a word."""

    async def prepare(task):
        await asyncio.sleep(0.005)
        assert not task.done()

    def silent(conn):
        with conn:
            while conn.recv(65536):
                pass

    with Listener(silent) as listener:
        context = ssl.create_default_context()
        unharmed(listener.address, prepare, times=5, ssl=context, server_hostname="localhost")


def test_unix_connection(loop, run, tmp_path):
    path = str(tmp_path / "socket")

    async def main(steps):
        task = loop.create_task(loop.create_unix_connection(Recorder, path))
        await turns(steps)
        task.cancel()
        bystanders = Bystanders()
        bystanders.grab()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.abort()
        bystanders.grab()
        await turns(3)
        bystanders.check_and_close()

    with Listener(echo, socket.AF_UNIX, path):
        for steps in range(8):
            run(main(steps))
