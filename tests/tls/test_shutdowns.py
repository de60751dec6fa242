"""How TLS connections end: close_notify both ways, half-close, truncation, the timeout."""

import asyncio
import hashlib
import logging
import socket
import ssl

import pytest

from support.peers import PAIRS, pattern, reset, turns, until
from support.protocols import Recorder
from support.tls import RECORDERS, secured


async def lost(protocol):
    await until(lambda: protocol.is_lost)
    await turns(2)


class TestByTheLoop:
    def test_close_notify_is_sent_at_once_and_waited_for(self, loop, run, pair, side, version):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(b"last words")
            transport.close()
            assert await asyncio.to_thread(peer.receive_all) == b"last words"
            await turns(5)
            assert not protocol.is_lost
            await asyncio.to_thread(peer.unwrap)
            await lost(protocol)
            assert await asyncio.to_thread(pair[1].recv, 1) == b""

        run(main())
        assert protocol.lost_with == [None]

    def test_answered_with_fin(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.close()
            assert await asyncio.to_thread(peer.receive_all) == b""
            pair[1].shutdown(socket.SHUT_WR)
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_answered_with_a_reset(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.close()
            assert await asyncio.to_thread(peer.receive_all) == b""
            reset(pair[1])
            await lost(protocol)

        run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, ConnectionResetError)

    def test_not_answered(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side, ssl_shutdown_timeout=0.05)
            transport.close()
            await lost(protocol)
            assert transport.is_closing()

        run(main())
        (exc,) = protocol.lost_with
        assert type(exc) is TimeoutError
        assert str(exc) == "SSL shutdown timed out"

    def test_peer_that_does_not_read(self, loop, run, side):
        """The flush of what is queued counts for the timeout."""
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(
                loop, (near, far), protocol, side, ssl_shutdown_timeout=0.1
            )
            transport.write(bytes(8_000_000))
            transport.close()
            await lost(protocol)

        run(main())
        (exc,) = protocol.lost_with
        assert type(exc) is TimeoutError
        far.close()

    def test_timeout_does_not_outlive_the_connection(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, "server", ssl_shutdown_timeout=1)
            transport.close()
            peer.close_notify()
            await lost(protocol)
            await asyncio.sleep(1.05)

        run(main())
        assert protocol.lost_with == [None]

    def test_crossing_close_notifies(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            peer.close_notify()
            transport.close()
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_data_of_the_peer_after_close(self, loop, run, pair, side):
        """It is not delivered; OpenSSL takes it for an error."""
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.close()
            await turns(2)
            await asyncio.to_thread(peer.send, b"too late")
            await lost(protocol)

        run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, ssl.SSLError)
        assert exc.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
        assert protocol.received == b""

    def test_large_writes_are_flushed_first(self, loop, run, side):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()
        data = pattern(6_000_000)

        async def main():
            transport, peer = await secured(loop, (near, far), protocol, side)
            for start in range(0, len(data), 1_000_000):
                transport.write(data[start : start + 1_000_000])
            transport.close()
            received = await asyncio.to_thread(peer.receive_all)
            assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
            await asyncio.to_thread(peer.unwrap)
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]
        far.close()

    def test_close_while_reading_is_paused(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.pause_reading()
            transport.close()
            assert await asyncio.to_thread(peer.receive_all) == b""
            await asyncio.to_thread(peer.unwrap)
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_abort_says_nothing(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.abort()
            await lost(protocol)
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                await asyncio.to_thread(peer.receive)

        run(main())
        assert protocol.lost_with == [None]


class TestByThePeer:
    @pytest.mark.parametrize("kind", RECORDERS)
    def test_close_notify_is_answered(self, loop, run, pair, side, version, kind):
        protocol = RECORDERS[kind]()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            await asyncio.to_thread(peer.unwrap)
            await lost(protocol)
            assert await asyncio.to_thread(pair[1].recv, 1) == b""

        run(main())
        assert protocol.calls == ["made", "eof", "lost"]
        assert protocol.lost_with == [None]

    @pytest.mark.parametrize("kind", RECORDERS)
    def test_fin_without_close_notify(self, loop, run, pair, side, kind):
        """asyncio takes it for an ordinary end, and delivers what came before."""
        protocol = RECORDERS[kind]()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            await asyncio.to_thread(peer.send, b"data")
            pair[1].shutdown(socket.SHUT_WR)
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"data"
        assert protocol.lost_with == [None]

    def test_fin_while_reading_is_paused(self, loop, run, pair, side):
        """What came before it is delivered when reading goes on."""
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.pause_reading()
            await asyncio.to_thread(peer.send, b"data")
            pair[1].shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.03)
            assert protocol.received == b""
            transport.resume_reading()
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"data"

    def test_close_notify_while_reading_is_paused(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.pause_reading()
            await asyncio.to_thread(peer.send, b"data")
            peer.close_notify()
            await asyncio.sleep(0.03)
            assert protocol.calls == ["made"]
            transport.resume_reading()
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"data"

    def test_staying_open_is_not_possible(self, loop, run, pair, side, caplog):
        class Staying(Recorder):
            keep_open = True

        protocol = Staying()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            with caplog.at_level(logging.WARNING, "asyncio"):
                await asyncio.to_thread(peer.unwrap)
                await lost(protocol)

        run(main())
        messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert messages == ["returning true from eof_received() has no effect when using ssl"]
        assert protocol.calls == ["made", "eof", "lost"]

    def test_writes_inside_eof_received(self, loop, run, pair, side):
        class Answering(Recorder):
            def eof_received(self):
                self.transport.write(b"goodbye")
                return super().eof_received()

        protocol = Answering()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            peer.close_notify()
            assert await asyncio.to_thread(peer.receive_all) == b"goodbye"
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_what_was_written_before_is_flushed(self, loop, run, pair, side):
        protocol = Recorder()
        data = pattern(200_000)

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.write(data)
            peer.close_notify()
            assert await asyncio.to_thread(peer.receive_all) == data
            await lost(protocol)

        run(main())
        assert protocol.lost_with == [None]

    def test_data_and_close_notify_and_fin_in_one_segment(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            sealed = peer.sealed(b"everything")
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.unwrap()
            pair[1].sendall(sealed + peer.outgoing.read())
            pair[1].shutdown(socket.SHUT_WR)
            await lost(protocol)

        run(main())
        assert protocol.calls == ["made", "data", "eof", "lost"]
        assert protocol.received == b"everything"
        assert protocol.lost_with == [None]

    def test_more_records_after_close_notify(self, loop, run, pair):
        """They are not delivered."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, "server")
            sealed = peer.sealed(b"before")
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.unwrap()
            pair[1].sendall(sealed + peer.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
            await lost(protocol)

        run(main())
        assert protocol.received == b"before"

    def test_reset(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            await secured(loop, pair, protocol, side)
            reset(pair[1])
            await lost(protocol)

        run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, ConnectionResetError)
        assert protocol.calls == ["made", "lost"]

    def test_reset_while_much_is_queued(self, loop, run, side):
        near, far = PAIRS["tcp"](sndbuf=1 << 16, rcvbuf=1 << 16)
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, (near, far), protocol, side)
            for _ in range(4):
                transport.write(bytes(4_000_000))
            await turns(3)
            reset(far)
            await lost(protocol)
            assert transport.get_write_buffer_size() == 0

        run(main())
        assert isinstance(protocol.lost_with[0], ConnectionError)
