"""A program closes its own socket under a TLS transport, and the number gets another file.

Must hold: not a byte, be it of a record or of the closing alert, is sent to the other file or read
from it; the connection ends.
"""

import pytest

from support.peers import turns, until
from support.protocols import Recorder
from support.strangers import Stranger, is_bad_descriptor
from support.tls import secured


async def closed_under(loop, pair, protocol, side):
    transport, _ = await secured(loop, pair, protocol, side)
    await turns()
    return transport, Stranger(pair[0])


def test_a_write_ends_the_transport(loop, run, pair, side):
    protocol = Recorder()

    async def main():
        transport, stranger = await closed_under(loop, pair, protocol, side)
        stranger.peer.send(b"for the stranger")
        transport.write(b"not for the stranger")
        await until(lambda: protocol.is_lost)
        await turns()
        assert stranger.got() == [None, b"for the stranger"]
        stranger.close()

    run(main())
    assert bytes(protocol.received) == b""
    assert is_bad_descriptor(protocol.lost_with[0])


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_an_end_leaves_the_stranger_alone(loop, run, pair, side, ending):
    protocol = Recorder()

    async def main():
        transport, stranger = await closed_under(loop, pair, protocol, side)
        stranger.peer.send(b"for the stranger")
        getattr(transport, ending)()
        await until(lambda: protocol.is_lost)
        assert stranger.got() == [None, b"for the stranger"]
        stranger.sock.send(b"still open")
        assert stranger.got() == [b"still open", None]
        stranger.close()

    run(main())
    assert bytes(protocol.received) == b""


def test_a_resumed_transport_does_not_watch_the_stranger(loop, run, pair, side):
    protocol = Recorder()

    async def main():
        transport, peer = await secured(loop, pair, protocol, side)
        transport.pause_reading()
        peer.send(b"data")
        await turns()
        stranger = Stranger(pair[0])
        stranger.peer.send(b"for the stranger")
        transport.resume_reading()
        await turns()
        assert stranger.got() == [None, b"for the stranger"]
        transport.abort()
        await until(lambda: protocol.is_lost)
        stranger.close()

    run(main())
    assert bytes(protocol.received) in (b"", b"data")
