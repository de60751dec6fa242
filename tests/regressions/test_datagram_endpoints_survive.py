"""A datagram endpoint survives what happens to single datagrams.

Must hold: a host name in ``sendto`` is resolved or is ``error_received``, as in asyncio; an
ICMP error is ``error_received`` and not a close; empty datagrams are sent; nothing is printed.
"""

import socket

import pytest

from support.datagrams import Recorder, address_of, bound
from support.peers import turns, until


async def endpoint(loop, **kwargs):
    kwargs = kwargs or {"local_addr": ("127.0.0.1", 0)}
    return await loop.create_datagram_endpoint(Recorder, **kwargs)


async def closed(protocol):
    assert not protocol.transport.is_closing()
    protocol.transport.close()
    await until(lambda: protocol.lost_with)
    assert protocol.lost_with == [None]


@pytest.fixture(autouse=True)
def silence(capfd):
    yield
    assert capfd.readouterr() == ("", "")


def test_host_name(loop, run):
    async def main():
        with bound() as peer:
            transport, protocol = await endpoint(loop)
            port = peer.getsockname()[1]
            transport.sendto(b"by name", ("localhost", port))
            transport.sendto(b"nowhere", ("no such host", port))
            await until(lambda: protocol.errors)
            assert isinstance(protocol.errors[0], socket.gaierror)
            transport.sendto(b"by number", ("127.0.0.1", port))
            await turns(1)
            assert [peer.recv(100), peer.recv(100)] == [b"by name", b"by number"]
            await closed(protocol)

    run(main())


def test_icmp_error(loop, run, unused_port):
    async def main():
        transport, protocol = await endpoint(loop, remote_addr=("127.0.0.1", unused_port))
        for count in range(1, 4):
            transport.sendto(b"x")
            await until(lambda count=count: len(protocol.errors) >= count)
        assert {type(error) for error in protocol.errors} == {ConnectionRefusedError}
        await closed(protocol)

    run(main())


@pytest.mark.both_modes
@pytest.mark.asyncio_since(3, 13)
def test_empty_datagrams(loop, run):
    async def main():
        one, first = await endpoint(loop)
        other, second = await endpoint(loop)
        for data in (b"", b"x", b"", b"y", bytearray(), b""):
            one.sendto(data, address_of(other))
        await until(lambda: len(second.received) == 6)
        assert second.payloads == [b"", b"x", b"", b"y", b"", b""]
        await closed(first)
        await closed(second)

    run(main())
