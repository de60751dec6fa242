"""The sockets that transports and servers show, while they are open and when they are closed."""

import asyncio
import os
import socket
from asyncio.trsock import TransportSocket

import pytest

from support.datagrams import Recorder as DatagramRecorder
from support.peers import PAIRS, shut, until
from support.protocols import Recorder
from support.tls import secured

#: What TransportSocket passes on, and what fails once the socket is closed.
CALLS = {
    "fileno": (),
    "dup": (),
    "get_inheritable": (),
    "getpeername": (),
    "getsockname": (),
    "getsockopt": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "gettimeout": (),
    "setblocking": (False,),
    "setsockopt": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "settimeout": (0,),
    "shutdown": (socket.SHUT_RDWR,),
}


def kind_of(sock):
    return sock.family, sock.type, sock.proto


def look(sock):
    """What one can see of a closed socket."""
    seen = [type(sock), kind_of(sock), repr(sock), sock._sock.gettimeout()]
    for name, arguments in CALLS.items():
        try:
            seen.append((name, getattr(sock, name)(*arguments)))
        except OSError as error:
            seen.append((name, type(error), error.args))
    return seen


def closed(kind):
    """What one sees of a socket of this kind once it was closed."""
    with socket.socket(*kind) as sock:
        sock.setblocking(False)
    return look(TransportSocket(sock))


@pytest.fixture(params=["asked before", "not asked before"])
def asked_before(request):
    """Whether the program has asked for the socket while it was open."""
    return request.param == "asked before"


def ask(transport, asked_before):
    if asked_before:
        assert transport.get_extra_info("socket").fileno() != -1


async def closed_socket(protocol):
    """The socket that a protocol's transport shows once it is closed."""
    transport = protocol.transport
    transport.close()
    await until(lambda: protocol.lost_with)
    sock = transport.get_extra_info("socket")
    assert transport.get_extra_info("socket") is sock
    return sock


class Accepting:
    def __init__(self):
        self.protocols = []

    def __call__(self):
        self.protocols.append(Recorder())
        return self.protocols[-1]

    async def first(self):
        await until(lambda: self.protocols and self.protocols[0].transport)
        return self.protocols[0]


async def look_at_both_ends(accepting, connecting, kind, asked_before):
    """Closes both ends of a connection, and looks at what they show."""
    _, client = await connecting
    ends = [await accepting.first(), client]
    for protocol in ends:
        ask(protocol.transport, asked_before)
    for protocol in ends:
        assert look(await closed_socket(protocol)) == closed(kind)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_of_tcp_connections(loop, run, host, asked_before):
    async def main():
        accepting = Accepting()
        server = await loop.create_server(accepting, host, 0)
        address = server.sockets[0].getsockname()
        kind = kind_of(server.sockets[0])
        connecting = loop.create_connection(Recorder, *address[:2])
        await look_at_both_ends(accepting, connecting, kind, asked_before)
        await shut(server)

    run(main())


def test_of_unix_connections(loop, run, tmp_path, asked_before):
    async def main():
        accepting, path = Accepting(), str(tmp_path / "socket")
        server = await loop.create_unix_server(accepting, path)
        kind = kind_of(server.sockets[0])
        connecting = loop.create_unix_connection(Recorder, path)
        await look_at_both_ends(accepting, connecting, kind, asked_before)
        await shut(server)

    run(main())


@pytest.mark.parametrize("proto", [0, socket.IPPROTO_TCP])
def test_an_accepted_socket_is_what_its_listener_is(loop, run, proto, asked_before):
    """A socket that the program made with protocol 0 says so, and what it accepts too."""

    async def main():
        accepting = Accepting()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, proto)
        listener.bind(("127.0.0.1", 0))
        kind = kind_of(listener)
        server = await loop.create_server(accepting, sock=listener)
        with socket.create_connection(listener.getsockname()):
            protocol = await accepting.first()
            if asked_before:
                assert kind_of(protocol.transport.get_extra_info("socket")) == kind
            assert look(await closed_socket(protocol)) == closed(kind)
        await shut(server)

    run(main())


@pytest.mark.parametrize("family", PAIRS)
def test_of_the_programs_own_socket(loop, run, family, asked_before):
    near, far = PAIRS[family]()
    kind = kind_of(near)

    async def main():
        _, protocol = await loop.create_connection(Recorder, sock=near)
        ask(protocol.transport, asked_before)
        sock = await closed_socket(protocol)
        assert sock._sock is near
        assert look(sock) == closed(kind)

    with far:
        run(main())


def test_of_a_socket_that_the_program_closed_itself(loop, run, asked_before):
    near, far = PAIRS["unix"]()
    kind = kind_of(near)

    async def main():
        _, protocol = await loop.create_connection(Recorder, sock=near)
        if asked_before:
            assert protocol.transport.get_extra_info("socket").fileno() == near.fileno()
        near.close()
        assert look(protocol.transport.get_extra_info("socket")) == closed(kind)
        protocol.transport.abort()
        await until(lambda: protocol.lost_with)
        assert look(protocol.transport.get_extra_info("socket")) == closed(kind)

    with far:
        run(main())


def test_of_a_socket_that_was_detached(loop, run):
    near, far = PAIRS["tcp"]()
    kind = kind_of(near)

    async def main():
        _, protocol = await loop.create_connection(Recorder, sock=near)
        os.close(near.detach())
        protocol.transport.abort()
        await until(lambda: protocol.lost_with)
        assert look(protocol.transport.get_extra_info("socket")) == closed(kind)

    with far:
        run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_of_udp(loop, run, host):
    async def main():
        _, protocol = await loop.create_datagram_endpoint(DatagramRecorder, (host, 0))
        kind = kind_of(protocol.transport.get_extra_info("socket"))
        assert look(await closed_socket(protocol)) == closed(kind)

    run(main())


def test_of_unix_datagrams(loop, run, tmp_path):
    async def main():
        _, protocol = await loop.create_datagram_endpoint(
            DatagramRecorder, str(tmp_path / "socket"), family=socket.AF_UNIX
        )
        kind = (socket.AF_UNIX, socket.SOCK_DGRAM, 0)
        assert look(await closed_socket(protocol)) == closed(kind)

    run(main())


@pytest.mark.parametrize("side", ["server", "client"])
def test_of_tls(loop, run, side):
    """A TLS transport asks the one below, which it has no more once the connection is over."""
    near, far = PAIRS["tcp"]()
    kind = kind_of(near)

    async def main():
        protocol = Recorder()
        transport, _ = await secured(loop, (near, far), protocol, side)
        below = transport._ssl_protocol._transport
        sock = transport.get_extra_info("socket")
        assert sock._sock is near
        transport.abort()
        await until(lambda: protocol.lost_with)
        assert transport.get_extra_info("socket", "none") == "none"
        assert below.get_extra_info("socket") is sock
        assert look(sock) == closed(kind)

    with far:
        run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_of_listeners(loop, run, host):
    async def main():
        server = await loop.create_server(Recorder, host, 0)
        (sock,) = server.sockets
        kind = kind_of(sock)
        await shut(server)
        assert server.sockets == ()
        assert look(sock) == closed(kind)

    run(main())


def test_of_a_unix_listener(loop, run, tmp_path):
    async def main():
        server = await loop.create_unix_server(Recorder, str(tmp_path / "socket"))
        (sock,) = server.sockets
        await shut(server)
        assert look(sock) == closed((socket.AF_UNIX, socket.SOCK_STREAM, 0))

    run(main())


def test_it_cannot_be_made_to_block(loop, run, pair):
    near, _ = pair

    async def main():
        _, protocol = await loop.create_connection(Recorder, sock=near)
        sock = await closed_socket(protocol)
        with pytest.raises(ValueError, match="cannot be blocking"):
            sock.setblocking(True)
        with pytest.raises(TypeError, match="Cannot serialize"):
            sock.__getstate__()

    run(main())


def test_the_transport_keeps_the_programs_socket_and_no_longer(loop, run):
    """asyncio's transport keeps the object in its extra information, as long as it lives."""
    import gc
    import weakref

    class Socket(socket.socket):
        __slots__ = ("around",)

    near, far = socket.socketpair()
    own = Socket(near.family, near.type, near.proto, near.detach())
    own.setblocking(False)

    async def main():
        nonlocal own
        transport, protocol = await loop.create_connection(Recorder, sock=own)
        own.around = transport
        transport.close()
        await until(lambda: protocol.lost_with)
        seen = weakref.ref(own)
        own = None
        gc.collect()
        assert transport.get_extra_info("socket")._sock is seen()
        protocol.transport = transport = None
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None

    with far:
        run(main())
