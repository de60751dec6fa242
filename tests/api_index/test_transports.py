"""Low-level API Index: transports of streams and datagrams."""

import asyncio
import socket

import pytest

from support.datagrams import Recorder as DatagramRecorder
from support.datagrams import address_of, bound
from support.low_level_api import entry
from support.peers import pattern, read_all, read_exactly, tcp_pair, turns, unix_pair, until
from support.protocols import Recorder

MUCH = pattern(2_000_000)


async def fill(transport, protocol, limit=10_000):
    """Writes until the transport tells its protocol to pause."""
    for _ in range(limit):
        if protocol.paused:
            return
        transport.write(bytes(4096))
        await asyncio.sleep(0)
    raise AssertionError("never paused")


@entry("transport.close")
def test_nothing_is_received_any_more(on_connection):
    async def body(transport, protocol, far):
        far.send(b"before")
        await until(lambda: protocol.received)
        transport.close()
        await until(lambda: protocol.is_lost)
        with pytest.raises(BrokenPipeError):
            far.send(b"after")
        assert protocol.received == b"before"
        assert protocol.calls == ["made", "data", "lost"]

    on_connection(body)


@entry("transport.is_closing")
@pytest.mark.parametrize("end", ["close", "abort", "the peer", "an error"])
def test_from_the_call_that_ends_it_on(on_connection, end):
    async def body(transport, protocol, far):
        assert transport.is_closing() is False
        if end == "the peer":
            far.close()
            await until(transport.is_closing)
        elif end == "an error":
            far.close()
            while not transport.is_closing():
                transport.write(b"to nobody")
                await asyncio.sleep(0)
        else:
            getattr(transport, end)()
            assert transport.is_closing() is True
            assert not protocol.is_lost
        await until(lambda: protocol.is_lost)
        assert transport.is_closing() is True

    on_connection(body)


@entry("transport.get_extra_info")
def test_addresses_socket_and_default(on_connection):
    async def body(transport, protocol, far):
        assert transport.get_extra_info("peername") == far.getsockname()
        assert transport.get_extra_info("sockname") == far.getpeername()
        sock = transport.get_extra_info("socket")
        assert sock.getsockname() == far.getpeername()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert transport.get_extra_info("no such thing") is None
        assert transport.get_extra_info("no such thing", "default") == "default"

    on_connection(body, pair=tcp_pair)


@entry("transport.set_protocol", "transport.get_protocol")
def test_the_next_callback_goes_to_the_new_protocol(on_connection):
    async def body(transport, protocol, far):
        assert transport.get_protocol() is protocol
        successor = Recorder()
        far.send(b"one")
        await until(lambda: protocol.received)
        assert transport.set_protocol(successor) is None
        assert transport.get_protocol() is successor
        far.send(b"two")
        far.close()
        await until(lambda: successor.is_lost)
        assert (protocol.calls, bytes(protocol.received)) == (["made", "data"], b"one")
        assert (successor.calls, bytes(successor.received)) == (["data", "eof", "lost"], b"two")

    on_connection(body)


@entry("transport.is_reading", "transport.pause_reading", "transport.resume_reading")
def test_nothing_arrives_while_paused(on_connection):
    async def body(transport, protocol, far):
        assert transport.is_reading() is True
        transport.pause_reading()
        transport.pause_reading()
        assert transport.is_reading() is False
        far.send(b"waits")
        await asyncio.sleep(0.01)
        assert protocol.calls == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        assert transport.is_reading() is True
        await until(lambda: protocol.received == b"waits")
        transport.close()
        assert transport.is_reading() is False
        transport.resume_reading()  # of no effect: nothing to read from
        assert transport.is_reading() is False

    on_connection(body)


@entry("transport.write")
def test_bytes_of_every_kind_in_order(on_connection):
    async def body(transport, protocol, far):
        transport.write(b"a" * 300_000)
        transport.write(bytearray(b"b" * 300_000))
        transport.write(memoryview(b"-c-")[1:2])
        transport.write(b"")
        data = await asyncio.to_thread(read_exactly, far, 600_001)
        assert data == b"a" * 300_000 + b"b" * 300_000 + b"c"
        for wrong in (None, "text", 1):
            with pytest.raises(TypeError, match="data argument must be a bytes"):
                transport.write(wrong)

    on_connection(body)


@entry("transport.writelines")
def test_many_buffers_from_any_iterable(on_connection):
    async def body(transport, protocol, far):
        transport.writelines([b"list,", bytearray(b"of,"), memoryview(b"three,")])
        transport.writelines(piece for piece in (b"a ", b"generator,"))
        transport.writelines([])
        transport.writelines([MUCH, b"end"])
        expected = b"list,of,three,a generator," + MUCH + b"end"
        assert await asyncio.to_thread(read_exactly, far, len(expected)) == expected

    on_connection(body)


@entry("transport.can_write_eof", "transport.write_eof")
def test_the_peer_sees_the_end_and_can_still_answer(on_connection):
    async def body(transport, protocol, far):
        assert transport.can_write_eof() is True
        transport.write(MUCH)
        transport.write_eof()
        transport.write_eof()
        assert not transport.is_closing()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"more")
        assert await asyncio.to_thread(read_all, far) == MUCH
        far.send(b"answer")
        await until(lambda: protocol.received == b"answer")

    on_connection(body)


@entry("transport.abort")
def test_what_is_queued_is_dropped(on_connection):
    async def body(transport, protocol, far):
        transport.write(MUCH)
        queued = transport.get_write_buffer_size()
        assert queued > 0
        transport.abort()
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert not protocol.is_lost
        await until(lambda: protocol.is_lost)
        assert protocol.lost_with == [None]
        assert len(await asyncio.to_thread(read_all, far)) <= len(MUCH) - queued

    on_connection(body)


@entry("transport.get_write_buffer_size")
def test_counts_what_the_kernel_did_not_take(on_connection):
    async def body(transport, protocol, far):
        assert transport.get_write_buffer_size() == 0
        await fill(transport, protocol)
        before = transport.get_write_buffer_size()
        transport.write(b"x" * 1000)
        transport.writelines([b"y" * 100, b"z" * 10])
        assert transport.get_write_buffer_size() == before + 1110
        far.setblocking(False)
        while transport.get_write_buffer_size():
            try:
                far.recv(65536)
            except BlockingIOError:
                await asyncio.sleep(0)
        await until(lambda: not protocol.paused)

    on_connection(body)


@entry("transport.set_write_buffer_limits")
def test_limits_decide_when_to_pause(on_connection):
    async def body(transport, protocol, far):
        for arguments, limits in (
            ({}, (16384, 65536)),
            ({"high": 4000}, (1000, 4000)),
            ({"low": 100}, (100, 400)),
            ({"high": 50, "low": 20}, (20, 50)),
            ({"high": 0}, (0, 0)),
        ):
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == limits
        for arguments in ({"high": 1, "low": 2}, {"low": -1, "high": 5}):
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(**arguments)
        transport.write(MUCH)
        assert protocol.paused
        await asyncio.to_thread(read_exactly, far, len(MUCH))
        await until(lambda: not protocol.paused)
        transport.set_write_buffer_limits(high=len(MUCH))
        transport.write(MUCH)
        assert not protocol.paused
        await asyncio.to_thread(read_exactly, far, len(MUCH))

    on_connection(body)


@entry("transport.close", "transport.abort")
def test_of_a_pipe_that_is_read(loop, run):
    async def main():
        for end in ("close", "abort"):
            near, far = unix_pair()
            with far, near:
                transport, protocol = await loop.connect_read_pipe(Recorder, near)
                if end == "abort":
                    with pytest.raises(AttributeError):
                        transport.abort()  # a ReadTransport has none
                transport.close()
                await until(lambda protocol=protocol: protocol.is_lost)
                assert protocol.calls == ["made", "lost"]

    run(main())


@entry("datagram transport.sendto")
def test_to_an_address_and_to_the_connected_one(loop, run):
    async def main():
        with bound() as peer:
            free, first = await loop.create_datagram_endpoint(
                DatagramRecorder, local_addr=("127.0.0.1", 0)
            )
            connected, second = await loop.create_datagram_endpoint(
                DatagramRecorder, remote_addr=peer.getsockname()
            )
            free.sendto(b"free", peer.getsockname())
            await turns(2)
            assert peer.recvfrom(100) == (b"free", address_of(free))
            connected.sendto(bytearray(b"connected"))
            connected.sendto(memoryview(b"again"), peer.getsockname())
            await turns(2)
            assert [peer.recvfrom(100) for _ in range(2)] == [
                (b"connected", address_of(connected)),
                (b"again", address_of(connected)),
            ]
            with pytest.raises(ValueError, match=r"Invalid address: must be None or \('127"):
                connected.sendto(b"x", ("127.0.0.1", 1))
            with pytest.raises(TypeError, match="data argument must be a bytes-like object"):
                free.sendto("text", peer.getsockname())
            for protocol in (first, second):
                protocol.transport.close()
                await until(lambda protocol=protocol: protocol.lost_with)

    run(main())


@entry("datagram transport.abort")
def test_abort_of_an_endpoint(loop, run):
    async def main():
        with bound() as peer:
            transport, protocol = await loop.create_datagram_endpoint(
                DatagramRecorder, local_addr=("127.0.0.1", 0)
            )
            address = address_of(transport)
            transport.abort()
            assert transport.is_closing()
            assert protocol.calls == ["made"]
            peer.sendto(b"too late", address)
            await until(lambda: protocol.lost_with)
            assert protocol.lost_with == [None]
            assert protocol.calls == ["made", "lost"]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as successor:
                successor.bind(address)  # its port is free

    run(main())
