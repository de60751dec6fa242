"""A loop that is dropped while a task waits: all of it is collected, and says so.

What the loop leads to (a reader, a timer, a transport) leads to the future that the task waits
for, the task to the coroutine that it runs, and that to the loop again and to what the program gave
it. The collector finds that cycle only if it sees every step of it.
"""

import asyncio
import gc
import socket
import sys
import tempfile
import warnings
import weakref

import pytest

from support.certificates import client_context, server_context
from support.peers import turns, unix_pair

BULK = bytes(5_000_000)
PENDING = "Task was destroyed but it is pending!"


class Owner:
    """A protocol factory that leads to the loop, as applications do."""

    def __init__(self, loop):
        self.loop = loop

    def __call__(self):
        return asyncio.Protocol()


def pending_for_ever(loop):
    async def wait(*args, **kwargs):
        await loop.create_future()

    return wait


def two_addresses(loop):
    async def getaddrinfo(host, port, **kwargs):
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (f"127.0.0.{number}", 1)) for number in (1, 2)]

    loop.getaddrinfo = getaddrinfo
    loop.sock_connect = pending_for_ever(loop)


def sock_recv(loop, owner, near):
    return loop.sock_recv(near, 10)


def sock_recv_into(loop, owner, near):
    return loop.sock_recv_into(near, bytearray(10))


def sock_recvfrom(loop, owner, near):
    return loop.sock_recvfrom(near, 10)


def sock_sendall(loop, owner, near):
    return loop.sock_sendall(near, BULK)


async def sock_accept(loop, owner, near):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        await loop.sock_accept(listener)


async def sock_sendfile(loop, owner, near):
    with tempfile.TemporaryFile() as file:
        file.write(BULK)
        await loop.sock_sendfile(near, file)


async def sendfile(loop, owner, near):
    with tempfile.TemporaryFile() as file:
        file.write(BULK)
        transport, _ = await loop.connect_accepted_socket(owner, near)
        await loop.sendfile(transport, file)


def lookup_of_a_connection(loop, owner, near):
    loop.getaddrinfo = pending_for_ever(loop)
    return loop.create_connection(owner, "host.test", 1)


def lookup_of_a_server(loop, owner, near):
    loop.getaddrinfo = pending_for_ever(loop)
    return loop.create_server(owner, "host.test", 1)


def lookups_of_a_server(loop, owner, near):
    loop.getaddrinfo = pending_for_ever(loop)
    return loop.create_server(owner, ["one.test", "other.test"], 1)


def lookup_of_an_endpoint(loop, owner, near):
    loop.getaddrinfo = pending_for_ever(loop)
    return loop.create_datagram_endpoint(owner, ("host.test", 1))


def connection(loop, owner, near):
    loop.sock_connect = pending_for_ever(loop)
    return loop.create_connection(owner, "127.0.0.1", 1)


def unix_connection(loop, owner, near):
    loop.sock_connect = pending_for_ever(loop)
    return loop.create_unix_connection(owner, "/nonexistent")


def connections_before_the_delay(loop, owner, near):
    two_addresses(loop)
    return loop.create_connection(owner, "host.test", 1, happy_eyeballs_delay=3600)


def connections_after_the_delay(loop, owner, near):
    two_addresses(loop)
    return loop.create_connection(owner, "host.test", 1, happy_eyeballs_delay=0)


def handshake_of_a_client(loop, owner, near):
    tls = {"ssl": client_context(), "server_hostname": "localhost"}
    return loop.create_connection(owner, sock=near, **tls)


def handshake_of_a_server(loop, owner, near):
    return loop.connect_accepted_socket(owner, near, ssl=server_context())


async def start_tls(loop, owner, near):
    transport, _ = await loop.connect_accepted_socket(owner, near)
    tls = {"sslcontext": client_context(), "server_hostname": "localhost"}
    await loop.start_tls(transport, owner(), **tls)


async def serve_forever(loop, owner, near):
    server = await loop.create_server(owner, "127.0.0.1", 0)
    await server.serve_forever()


async def shutdown_asyncgens(loop, owner, near):
    async def endless():
        try:
            yield
        finally:
            await loop.create_future()

    loop.generator = endless()
    await anext(loop.generator)
    await loop.shutdown_asyncgens()


@pytest.mark.parametrize(
    "waiting",
    [
        sock_recv,
        sock_recv_into,
        sock_recvfrom,
        sock_sendall,
        sock_accept,
        sock_sendfile,
        sendfile,
        lookup_of_a_connection,
        lookup_of_a_server,
        lookups_of_a_server,
        lookup_of_an_endpoint,
        connection,
        unix_connection,
        connections_before_the_delay,
        connections_after_the_delay,
        handshake_of_a_client,
        handshake_of_a_server,
        start_tls,
        serve_forever,
        shutdown_asyncgens,
    ],
    ids=lambda waiting: waiting.__name__,
)
def test_is_collected(loop_factory, waiting, monkeypatch):
    # Some coroutines' clean-up calls the loop, which the collector may have closed before. The
    # exception is nobody's, and holds what it went through.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    async def main(loop, near):
        owner = Owner(loop)
        task = loop.create_task(waiting(loop, owner, near))
        await turns(10)
        assert not task.done()
        return [weakref.ref(thing) for thing in (loop, owner, task)]

    loop = loop_factory()
    messages = []  # not the contexts: they hold the task
    loop.set_exception_handler(lambda loop, context: messages.append(context["message"]))
    near, far = unix_pair()
    with far, near, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        refs = loop.run_until_complete(main(loop, near))
        del loop
        gc.collect()
        texts = [str(warning.message) for warning in warned]
        warned.clear()  # a warning keeps its source
        gc.collect()
        assert [ref() for ref in refs] == [None] * 3
    assert any(text.startswith("unclosed event loop") for text in texts)
    assert set(messages) == {PENDING}
