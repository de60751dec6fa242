"""What asyncio's own TLS gets wrong, on all versions or on some, and oxloop on none."""

import asyncio
import hashlib
import logging
import ssl

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import PAIRS, pattern, turns, until
from support.protocols import BufferedRecorder, Recorder
from support.tls import Peer, Tunnel, secured

EVER = (3, 11), (4, 0)


def sha256(data):
    return hashlib.sha256(data).digest()


async def finish(protocol):
    protocol.transport.abort()
    await until(lambda: protocol.is_lost)


class TestBufferedProtocols:
    @pytest.mark.asyncio_wrong(*EVER)
    @pytest.mark.parametrize("size", [1000, 20_000, 100_000])
    def test_buffer_that_is_no_view(self, loop, run, pair, size):
        """asyncio slices a bytearray, and reads into the copy."""
        protocol = BufferedRecorder(size=size)
        data = pattern(200_000)

        async def main():
            _, peer = await secured(loop, pair, protocol)
            await asyncio.to_thread(peer.send, data)
            await until(lambda: len(protocol.received) >= len(data))
            assert sha256(protocol.received) == sha256(data)
            await finish(protocol)

        run(main())


class TestFlowControl:
    @pytest.mark.asyncio_wrong(*EVER)
    def test_all_that_is_queued_counts(self, loop, run, side):
        """asyncio forgets what it handed to the transport below, however much that queues."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            transport.write(bytes(8_000_000))
            await turns(2)
            assert protocol.calls == ["made", "pause"]
            assert 4_000_000 < transport.get_write_buffer_size() < 9_000_000
            await asyncio.to_thread(peer.receive_exactly, 8_000_000)
            await until(lambda: protocol.calls == ["made", "pause", "resume"])
            await finish(protocol)

        run(main())
        far.close()


class TestEnds:
    @pytest.mark.asyncio_wrong((3, 11), (3, 14))
    def test_much_is_queued_when_the_peer_closes(self, loop, run, side):
        """What was written before the peer's close_notify is sent, then ours."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()
        data = pattern(2_000_000)

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            for _ in range(3):
                transport.write(data)
            peer.close_notify()
            await asyncio.sleep(0.02)
            received = await asyncio.to_thread(peer.receive_all)
            assert sha256(received) == sha256(data * 3)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.lost_with == [None]
        far.close()

    @pytest.mark.asyncio_since(3, 14)
    def test_peer_closes_and_does_not_read(self, loop, run, side):
        """The shutdown timeout holds for what is queued then."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(
                loop, (near, far), protocol, side, ssl_shutdown_timeout=0.1
            )
            transport.write(bytes(8_000_000))
            peer.close_notify()
            await until(lambda: protocol.is_lost)

        run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, TimeoutError)
        far.close()

    @pytest.mark.asyncio_wrong(*EVER)
    def test_methods_after_closing_twice(self, loop, run, pair, caplog):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol)
            transport.close()
            transport.close()
            transport.write(b"ignored")
            transport.writelines([b"ignored"])
            transport.pause_reading()
            transport.resume_reading()
            assert transport.is_reading() in {True, False}
            assert transport.is_closing()
            assert transport.get_write_buffer_size() >= 0
            assert transport.get_extra_info("ssl_object").version()
            assert transport.get_protocol() is protocol
            peer.close_notify()
            await until(lambda: protocol.is_lost)
            transport.write(b"ignored")

        with caplog.at_level(logging.ERROR, "asyncio"):
            run(main())
        assert caplog.records == []

    @pytest.mark.asyncio_wrong((3, 11), (3, 13))
    def test_garbage_in_tls_over_tls(self, loop, run, pair, side):
        """asyncio before 3.13 calls its own `_abort` with an argument that it does not take."""
        outer_protocol, protocol = Recorder(), Recorder()

        async def main():
            outer, outer_peer = await secured(loop, pair, outer_protocol, side)
            if side == "server":
                peer = Peer(Tunnel(outer_peer), client_context(), server_hostname=NAME)
                upgrade = loop.start_tls(outer, protocol, server_context(), server_side=True)
            else:
                peer = Peer(Tunnel(outer_peer), server_context(), server_side=True)
                upgrade = loop.start_tls(outer, protocol, client_context(), server_hostname=NAME)
            await asyncio.gather(upgrade, asyncio.to_thread(peer.handshake))
            await asyncio.to_thread(outer_peer.send, b"\x17\x03\x03\x00\x20" + bytes(32))
            await until(lambda: protocol.is_lost)

        run(main())
        assert isinstance(protocol.lost_with[0], ssl.SSLError)
