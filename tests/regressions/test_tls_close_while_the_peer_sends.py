"""close() of a TLS transport while the peer keeps sending ends, and stops delivering.

Must hold: connection_lost comes within the shutdown timeout, whatever the peer goes on to do,
and not a byte reaches the protocol after close().
"""

import asyncio
import contextlib
import ssl
import threading

import pytest

from support.peers import until
from support.protocols import Recorder
from support.tls import SIDES, secured, tcp_streams

SHUTDOWN_TIMEOUT_S = 0.3


class Sender(threading.Thread):
    """Sends as fast as the connection takes it, until that is gone."""

    def __init__(self, peer):
        super().__init__(daemon=True)
        self.peer, self.sent = peer, 0

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                self.peer.send(bytes(16_000))
                self.sent += 16_000


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_ends_and_delivers_nothing(loop, run, side, paused):
    protocol = Recorder()

    async def main():
        with tcp_streams() as pair:
            transport, peer = await secured(
                loop, pair, protocol, side, ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S
            )
            sender = Sender(peer)
            sender.start()
            await until(lambda: len(protocol.received) > 100_000)
            if paused:
                transport.pause_reading()
                await asyncio.sleep(0.01)
            transport.close()
            delivered = len(protocol.received)
            await until(lambda: protocol.is_lost)
            assert len(protocol.received) == delivered
            pair[1].close()
            await asyncio.to_thread(sender.join)

    run(main())
    (exc,) = protocol.lost_with
    assert exc is None or isinstance(exc, ssl.SSLError | TimeoutError | ConnectionError)
