"""Peers that break the rules: an error or a timeout, told once, and nobody else is harmed."""

import asyncio
import contextlib
import logging
import socket
import ssl

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import Listener, pattern, read_all, reset, turns, until
from support.protocols import Echo, Recorder
from support.tls import SIDES, peer_of, secured, wrapped

HTTP = b"GET / HTTP/1.1\r\nHost: oxloop.test\r\n\r\n"


def client_hello():
    """The bytes that a client begins with."""
    outgoing = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


OPENINGS = {
    "garbage": lambda: pattern(3000),
    "zeros": lambda: bytes(3000),
    "http": lambda: HTTP,
    "proxy": lambda: b"CONNECT oxloop.test:443 HTTP/1.1\r\n\r\n",
    "ssl 2": lambda: b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + pattern(40),
    "oversized": lambda: b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "data": lambda: b"\x17\x03\x03\x00\x10" + bytes(16),
    "alert": lambda: b"\x15\x03\x01\x00\x02\x02\x28",
    "empty records": lambda: b"\x16\x03\x01\x00\x00" * 2000,
    "hello and garbage": lambda: client_hello() + pattern(500),
    "hello twice": lambda: client_hello() * 2,
}
ENDINGS = ("fin", "reset")


class Watched(Echo):
    """An echo that notes who comes."""

    made = ()

    def connection_made(self, transport):
        super().connection_made(transport)
        self.made.append(transport)


@contextlib.asynccontextmanager
async def besieged(loop, **options):
    """The address of an echo server; a connection from before must work afterwards too."""
    made = []

    def factory():
        protocol = Watched()
        protocol.made = made
        return protocol

    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context(), **options)
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(
        Recorder, *address, ssl=client_context(), server_hostname=NAME
    )
    await until(lambda: made)
    try:
        yield address
    finally:
        transport.write(b"still here")
        await until(lambda: protocol.received == b"still here")
        transport.close()
        await until(lambda: protocol.is_lost)
        server.close()
        assert len(made) == 1, "a protocol was told of a connection without handshake"


def until_closed(sock):
    """Waits for the other end to close; what came is of no interest."""
    with contextlib.suppress(ConnectionError):
        read_all(sock)


class TestOpenings:
    @pytest.mark.parametrize("opening", OPENINGS)
    def test_of_a_client(self, loop, run, opening, caplog):
        """Without debug mode nothing is logged."""

        def attack(address):
            with socket.create_connection(address, timeout=10) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(OPENINGS[opening]())
                until_closed(sock)

        async def main():
            async with besieged(loop) as address:
                await asyncio.to_thread(attack, address)
                await turns()

        with caplog.at_level(logging.WARNING, "asyncio"):
            run(main(), timeout=15)
        assert caplog.records == []

    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize("share", [0, 1, 5, 100, -1])
    def test_cut_short(self, loop, run, ending, share):
        """A ClientHello of which only a part arrives."""
        hello = client_hello()

        def attack(address):
            sock = socket.create_connection(address, timeout=10)
            sock.sendall(hello[:share])
            if ending == "reset":
                reset(sock)
                return
            sock.shutdown(socket.SHUT_WR)
            until_closed(sock)
            sock.close()

        async def main():
            async with besieged(loop) as address:
                await asyncio.to_thread(attack, address)
                await asyncio.sleep(0.02)

        run(main())

    @pytest.mark.parametrize("opening", ["garbage", "http", "oversized", "alert"])
    def test_of_a_server(self, loop, run, opening):
        def serve(conn):
            conn.sendall(OPENINGS[opening]())
            until_closed(conn)

        async def main(address):
            with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
                await loop.create_connection(
                    Recorder, *address, ssl=client_context(), server_hostname=NAME
                )
            if opening != "oversized":
                assert isinstance(caught.value, ssl.SSLError)
            await turns()

        with Listener(serve) as listener:
            run(main(listener.address))

    @pytest.mark.parametrize("ending", ENDINGS)
    @pytest.mark.parametrize("flight", [False, True], ids=["at once", "after hello"])
    def test_a_server_that_hangs_up(self, loop, run, ending, flight):
        def serve(conn):
            if flight:
                conn.recv(65536)
            if ending == "reset":
                reset(conn)
            else:
                conn.shutdown(socket.SHUT_WR)
                until_closed(conn)

        async def main(address):
            with pytest.raises(ConnectionResetError):
                await loop.create_connection(
                    Recorder, *address, ssl=client_context(), server_hostname=NAME
                )
            await turns()

        with Listener(serve) as listener:
            run(main(listener.address))

    def test_a_slow_handshake_is_cut_off(self, loop, run):
        """A byte now and then does not extend the timeout."""

        def attack(address):
            with socket.create_connection(address, timeout=10) as sock:
                sock.settimeout(0.02)
                sent = 0
                for byte in client_hello():
                    try:
                        sock.sendall(bytes([byte]))
                        sent += 1
                        if sock.recv(1) == b"":
                            break
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
                return sent

        async def main():
            async with besieged(loop, ssl_handshake_timeout=2) as address:
                sent = await asyncio.to_thread(attack, address)
                assert 0 < sent < len(client_hello())

        run(main())

    def test_many_at_once(self, loop, run):
        def attack(address, opening):
            with socket.create_connection(address, timeout=10) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(OPENINGS[opening]())
                until_closed(sock)

        async def main():
            async with besieged(loop) as address:
                attacks = [asyncio.to_thread(attack, address, name) for name in list(OPENINGS) * 5]
                await asyncio.gather(*attacks)

        run(main())


def flip(record):
    return record[:-1] + bytes([record[-1] ^ 1])


def out_of_order(peer):
    first, second = peer.sealed(b"first"), peer.sealed(b"second")
    return second + first


RECORDS = {
    "garbage": lambda peer: pattern(3000),
    "http": lambda peer: HTTP,
    "tampered": lambda peer: flip(peer.sealed(b"data")),
    "tampered length": lambda peer: b"\x17\x03\x03\x00\x10" + peer.sealed(b"data")[5:],
    "oversized": lambda peer: b"\x17\x03\x03\xff\xff" + bytes(70_000),
    "out of order": out_of_order,
    "in clear": lambda peer: b"\x17\x03\x03\x00\x10" + bytes(16),
    "alert in clear": lambda peer: b"\x15\x03\x03\x00\x02\x02\x28",
    "handshake in clear": lambda peer: client_hello(),
    "empty records": lambda peer: b"\x17\x03\x03\x00\x00" * 2000,
}


class TestRecords:
    @pytest.mark.parametrize("name", RECORDS)
    def test_end_the_connection(self, loop, run, pair, side, version, name, caplog):
        """connection_lost has the SSLError; what came before was delivered."""
        contexts = server_context(version=version), client_context(version=version)
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side, contexts)
            await asyncio.to_thread(peer.send, b"before")
            await until(lambda: protocol.received == b"before")
            with contextlib.suppress(ConnectionError):
                await asyncio.to_thread(pair[1].sendall, RECORDS[name](peer))
            await until(lambda: protocol.is_lost)
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0

        with caplog.at_level(logging.WARNING, "asyncio"):
            run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, ssl.SSLError)
        assert protocol.calls == ["made", "data", "lost"]
        assert protocol.received == b"before"
        assert caplog.records == []

    def test_reason(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            await asyncio.to_thread(pair[1].sendall, flip(peer.sealed(b"data")))
            await until(lambda: protocol.is_lost)

        run(main())
        (exc,) = protocol.lost_with
        assert type(exc) is ssl.SSLError
        assert exc.library == "SSL"
        # OpenSSL 3.2 and later puts an error of the record layer on top.
        assert exc.reason in {"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE"}

    def test_behind_good_ones(self, loop, run, pair):
        """In one segment: the connection ends with the error, whatever was delivered is true."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            good = peer.sealed(b"good")
            await asyncio.to_thread(pair[1].sendall, good + flip(peer.sealed(b"bad")))
            await until(lambda: protocol.is_lost)

        run(main())
        assert isinstance(protocol.lost_with[0], ssl.SSLError)
        assert bytes(protocol.received) in {b"good", b""}

    def test_replayed(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol)
            record = peer.sealed(b"pay 10")
            await asyncio.to_thread(pair[1].sendall, record)
            await until(lambda: protocol.received)
            await asyncio.to_thread(pair[1].sendall, record)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.received == b"pay 10"
        assert isinstance(protocol.lost_with[0], ssl.SSLError)

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_cut_short(self, loop, run, pair, side, ending):
        """Half a record is not delivered. Its FIN is an ordinary end, as asyncio sees it."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            await asyncio.to_thread(peer.send, b"whole")
            await until(lambda: protocol.received)
            pair[1].sendall(peer.sealed(pattern(10_000))[:5000])
            await asyncio.sleep(0.01)
            if ending == "reset":
                reset(pair[1])
            else:
                pair[1].shutdown(socket.SHUT_WR)
            await until(lambda: protocol.is_lost)

        run(main())
        assert protocol.received == b"whole"
        (exc,) = protocol.lost_with
        assert exc is None if ending == "fin" else isinstance(exc, ConnectionResetError)

    def test_while_much_is_queued(self, loop, run, pair):
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol)
            for _ in range(3):
                transport.write(bytes(4_000_000))
            pair[1].sendall(HTTP)
            await until(lambda: protocol.is_lost)
            assert transport.get_write_buffer_size() == 0

        run(main())
        assert isinstance(protocol.lost_with[0], ssl.SSLError)

    def test_inside_the_shutdown(self, loop, run, pair, side):
        protocol = Recorder()

        async def main():
            transport, peer = await secured(loop, pair, protocol, side)
            transport.close()
            assert await asyncio.to_thread(peer.receive_all) == b""
            pair[1].sendall(HTTP)
            await until(lambda: protocol.is_lost)

        run(main())
        assert isinstance(protocol.lost_with[0], ssl.SSLError)

    def test_a_fatal_alert(self, loop, run, pair, side):
        """A peer that was told nonsense says so, sealed."""
        protocol = Recorder()

        async def main():
            _, peer = await secured(loop, pair, protocol, side)
            peer.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
            with pytest.raises(ssl.SSLError):
                await asyncio.to_thread(peer.receive)
            await until(lambda: protocol.is_lost)

        run(main())
        (exc,) = protocol.lost_with
        assert isinstance(exc, ssl.SSLError)
        assert "ALERT_BAD_RECORD_MAC" in exc.reason


class TestResets:
    """The peer resets the connection after each of its steps."""

    STEPS = ("nothing", "first flight", "handshake", "data", "close_notify")

    @pytest.mark.parametrize("step", STEPS)
    def test_in_each_state(self, loop, run, pair, side, step):
        near, far = pair
        peer = peer_of(far, side)
        protocol = Recorder()

        def misbehave():
            if step == "first flight":
                with contextlib.suppress(ssl.SSLWantReadError):
                    if side == "client":
                        peer._fill()
                    peer.tls.do_handshake()
                peer.flush()
            elif step != "nothing":
                peer.handshake()
            if step == "data":
                peer.send(b"data")
            if step == "close_notify":
                peer.close_notify()
            reset(far)

        async def main():
            ours, _ = await asyncio.gather(
                wrapped(loop, near, lambda: protocol, side),
                asyncio.to_thread(misbehave),
                return_exceptions=True,
            )
            if isinstance(ours, BaseException):
                assert isinstance(ours, ConnectionError)
                assert protocol.calls == []
            else:
                await until(lambda: protocol.is_lost)
                assert protocol.calls[0] == "made"
            await until(lambda: near.fileno() == -1)

        run(main())

    @pytest.mark.parametrize("side", SIDES)
    def test_while_reading_is_paused(self, loop, run, pair, side):
        """Noticed at the latest when reading goes on, or with a write."""
        protocol = Recorder()

        async def main():
            transport, _ = await secured(loop, pair, protocol, side)
            transport.pause_reading()
            reset(pair[1])
            await asyncio.sleep(0.01)
            transport.resume_reading()
            await until(lambda: protocol.is_lost)

        run(main())
        assert isinstance(protocol.lost_with[0], ConnectionResetError)
