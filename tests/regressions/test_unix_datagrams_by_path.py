"""Unix datagram endpoints by path and by abstract name.

Must hold: an endpoint is bound to a path or to an abstract name (with its NUL), sends to
either by ``sendto`` or as its remote address, and replaces the socket that an earlier
process left at its path.
"""

import os
import socket
from pathlib import Path

import pytest

from support.datagrams import Recorder, address_of, bound, unix_paths
from support.peers import until


@pytest.fixture(params=["path", "abstract"])
def names(request):
    if request.param == "abstract":
        yield [f"\0oxloop-{os.getpid()}-{which}" for which in ("one", "other")]
        return
    with unix_paths("one", "other") as paths:
        yield paths


@pytest.mark.both_modes
def test_both_ways(loop, run, names):
    shown = [name.encode() if name.startswith("\0") else name for name in names]

    async def main():
        def endpoint(**kwargs):
            return loop.create_datagram_endpoint(Recorder, family=socket.AF_UNIX, **kwargs)

        server, first = await endpoint(local_addr=names[0])
        client, second = await endpoint(local_addr=names[1], remote_addr=names[0])
        assert [address_of(server), address_of(client)] == shown
        client.sendto(b"ping")
        await until(lambda: first.received)
        assert first.received == [(b"ping", shown[1])]
        for address in (shown[1], names[1], names[1].encode()):
            server.sendto(b"pong", address)
        await until(lambda: len(second.received) == 3)
        assert second.received == [(b"pong", shown[0])] * 3
        unnamed, third = await endpoint(remote_addr=names[0])
        unnamed.sendto(b"from nowhere")
        await until(lambda: len(first.received) == 2)
        assert first.received[1] == (b"from nowhere", None)
        for protocol in (first, second, third):
            protocol.transport.close()
            await until(lambda protocol=protocol: protocol.lost_with)

    run(main())


@pytest.mark.both_modes
def test_stale_socket(loop, run):
    async def main():
        with unix_paths("name") as [path]:
            with bound(socket.AF_UNIX, path):
                pass  # closing it leaves the path behind
            assert Path(path).exists()
            transport, protocol = await loop.create_datagram_endpoint(
                Recorder, family=socket.AF_UNIX, local_addr=path
            )
            assert address_of(transport) == path
            with bound(socket.AF_UNIX, path + ".peer") as peer:
                peer.sendto(b"hello", path)
                await until(lambda: protocol.received)
            assert protocol.received == [(b"hello", path + ".peer")]
            transport.close()
            await until(lambda: protocol.lost_with)

    run(main())
