"""create_server(backlog=0) accepts; addresses that cannot be bound do not spoil the others.

Must hold: a host name with an address this machine does not have, as on hosts without IPv6,
is served on its other addresses. asyncio: backlog 0 from 3.14, skipped addresses from
3.11.8 and 3.12.2.
"""

import asyncio
import errno
import socket

import pytest

from support.peers import SKIPS_ADDRESSES
from support.protocols import Echo


@pytest.mark.asyncio_since(3, 14)
def test_backlog_of_zero(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=0)
        for _ in range(5):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


ADDRESSES = [
    (socket.AF_INET6, ("2001:db8::1", 0, 0, 0)),
    (socket.AF_INET, ("192.0.2.1", 0)),
    (socket.AF_INET, ("127.0.0.1", 0)),
]


def resolve(loop, addresses):
    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        return [(kin, socket.SOCK_STREAM, 6, "", address) for kin, address in addresses]

    loop.getaddrinfo = getaddrinfo


@pytest.mark.asyncio_since(3, 13)
def test_addresses_of_other_machines_are_left_out(loop, run):
    resolve(loop, ADDRESSES)

    async def main():
        server = await loop.create_server(Echo, "faked.example", 0)
        (sock,) = server.sockets
        assert sock.getsockname()[0] == "127.0.0.1"
        reader, writer = await asyncio.open_connection(sock=connected(sock))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def connected(sock):
    return socket.create_connection(sock.getsockname())


def test_no_address_at_all(loop, run):
    resolve(loop, ADDRESSES[:2])
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the text differs by version
        run(loop.create_server(Echo, "faked.example", 0))
    if SKIPS_ADDRESSES:
        assert str(caught.value).startswith("could not bind on any address out of [")
    else:
        # The first failure is what a program sees.
        assert caught.value.errno == errno.EADDRNOTAVAIL
        assert "while attempting to bind on address" in str(caught.value)


@pytest.mark.asyncio_since(3, 13)
def test_localhost_of_a_machine_whose_ipv6_is_half_there(loop, run, unused_port):
    async def main():
        server = await loop.create_server(Echo, ["127.0.0.1", "2001:db8::2"], unused_port)
        assert [sock.family for sock in server.sockets] == [socket.AF_INET]
        server.close()
        await server.wait_closed()

    run(main())
