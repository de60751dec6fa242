"""Low-level API Index: what protocols are called with, and when."""

import asyncio
import functools
import socket

import pytest

from support.datagrams import Recorder as DatagramRecorder
from support.datagrams import bound
from support.low_level_api import entry
from support.peers import pattern, read_all, read_exactly, reset, tcp_pair, turns, unix_pair, until
from support.protocols import RECORDERS, BufferedRecorder, Recorder


@entry("protocol connection_made")
def test_first_of_all_and_once(loop, run):
    near, far = unix_pair()
    far.send(b"already there")

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        assert protocol.calls[0] == "made"
        assert protocol.transport is transport
        await until(lambda: protocol.received == b"already there")
        assert protocol.calls == ["made", "data"]
        transport.close()
        await until(lambda: protocol.is_lost)
        far.close()

    run(main())


@entry("protocol connection_made")
def test_what_it_writes_is_sent(on_connection):
    class Greets(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.write(b"welcome")

    async def body(transport, protocol, far):
        assert await asyncio.to_thread(read_exactly, far, 7) == b"welcome"

    on_connection(body, Greets)


@entry("protocol connection_lost")
def test_none_after_an_end_and_the_error_after_a_reset(on_connection):
    async def ended(transport, protocol, far):
        far.close()
        await until(lambda: protocol.is_lost)
        return protocol

    async def was_reset(transport, protocol, far):
        reset(far)
        await until(lambda: protocol.is_lost)
        return protocol

    protocol = on_connection(ended)
    assert (protocol.calls, protocol.lost_with) == (["made", "eof", "lost"], [None])
    protocol = on_connection(was_reset, pair=tcp_pair)
    assert protocol.calls == ["made", "lost"]
    assert type(protocol.lost_with[0]) is ConnectionResetError


@entry("protocol pause_writing", "protocol resume_writing")
def test_once_over_the_high_mark_once_under_the_low_one(on_connection):
    async def body(transport, protocol, far):
        transport.write(bytes(1000))
        assert protocol.calls == ["made"]
        for _ in range(3):
            transport.write(bytes(1_000_000))
        assert protocol.calls == ["made", "pause"]
        await asyncio.to_thread(read_exactly, far, 3_001_000)
        await until(lambda: not protocol.paused)
        assert protocol.calls == ["made", "pause", "resume"]

    on_connection(body)


@entry("protocol resume_writing")
def test_a_writer_that_waits_for_it_sends_everything(on_connection):
    data = pattern(3_000_000)

    class Sends(Recorder):
        position = 0

        def resume_writing(self):
            super().resume_writing()
            self.send()

        def send(self):
            while self.position < len(data) and not self.paused:
                self.transport.write(data[self.position : self.position + 10_000])
                self.position += 10_000
            if self.position >= len(data):
                # Not here: in older asyncios connection_lost would be called twice.
                self.loop.call_soon(self.transport.close)

    async def body(transport, protocol, far):
        protocol.send()
        assert await asyncio.to_thread(read_all, far) == data

    on_connection(body, Sends)


async def half_closed_by_the_peer(transport, protocol, far, keep_open):
    protocol.keep_open = keep_open
    far.sendall(b"last words")
    far.shutdown(socket.SHUT_WR)
    await until(lambda: "eof" in protocol.calls)
    if keep_open:
        await turns(10)
        assert protocol.calls == ["made", "data", "eof"]
        assert not transport.is_closing()
        transport.write(b"answer")
        transport.close()
    await until(lambda: protocol.is_lost)
    assert protocol.received == b"last words"
    assert protocol.calls == ["made", "data", "eof", "lost"]
    assert await asyncio.to_thread(read_all, far) == (b"answer" if keep_open else b"")


@pytest.mark.parametrize("keep_open", [None, False, True])
@entry("streaming protocol eof_received")
def test_its_result_keeps_the_connection_open(on_connection, keep_open):
    on_connection(functools.partial(half_closed_by_the_peer, keep_open=keep_open))


@pytest.mark.parametrize("keep_open", [None, False, True])
@entry("buffered protocol eof_received")
def test_its_result_keeps_a_buffered_connection_open(on_connection, keep_open):
    body = functools.partial(half_closed_by_the_peer, keep_open=keep_open)
    on_connection(body, BufferedRecorder)


@entry("buffered protocol get_buffer", "buffered protocol buffer_updated")
def test_data_lands_in_the_given_buffer(on_connection):
    data = pattern(200_000)

    async def body(transport, protocol, far):
        await asyncio.gather(
            asyncio.to_thread(far.sendall, data), until(lambda: len(protocol.received) == len(data))
        )
        assert protocol.received == data
        assert set(map(type, protocol.hints)) == {int}
        assert bytes(protocol.buffer[:1]) in data

    on_connection(body, lambda: BufferedRecorder(1000))


@entry("buffered protocol buffer_updated")
def test_pause_between_two_updates(on_connection):
    class OneAtATime(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def body(transport, protocol, far):
        far.send(b"abcdefgh")
        for count in (3, 6, 8):
            await until(lambda count=count: len(protocol.received) == count)
            await turns()
            assert len(protocol.received) == count
            transport.resume_reading()
        assert protocol.received == b"abcdefgh"

    on_connection(body, lambda: OneAtATime(3))


@entry("datagram protocol datagram_received")
def test_one_call_for_each_datagram(loop, run):
    sent = [b"one", b"", b"x" * 9000, b"last"]

    async def main():
        transport, protocol = await loop.create_datagram_endpoint(
            DatagramRecorder, local_addr=("127.0.0.1", 0)
        )
        with bound() as peer:
            for data in sent:
                peer.sendto(data, transport.get_extra_info("sockname"))
            await until(lambda: len(protocol.received) == len(sent))
            assert protocol.received == [(data, peer.getsockname()) for data in sent]
        transport.close()
        await until(lambda: protocol.lost_with)

    run(main())


@pytest.mark.both_modes
@entry("datagram protocol error_received")
def test_nobody_listens_and_the_endpoint_goes_on(loop, run):
    async def main():
        with bound() as peer:
            address = peer.getsockname()
            transport, protocol = await loop.create_datagram_endpoint(
                DatagramRecorder, remote_addr=address
            )
        transport.sendto(b"to nobody")
        await until(lambda: protocol.errors)
        assert type(protocol.errors[0]) is ConnectionRefusedError
        assert not transport.is_closing()
        with bound(address=address) as peer:
            transport.sendto(b"to somebody")
            await turns(2)
            assert peer.recv(100) == b"to somebody"
        transport.close()
        await until(lambda: protocol.lost_with)
        assert protocol.lost_with == [None]

    run(main())


@entry("streaming protocol data_received", "protocol connection_made", "protocol connection_lost")
@pytest.mark.parametrize("kind", RECORDERS)
def test_a_whole_connection(on_connection, kind):
    async def body(transport, protocol, far):
        far.sendall(b"hello")
        far.close()
        await until(lambda: protocol.is_lost)
        return protocol

    protocol = on_connection(body, RECORDERS[kind])
    assert protocol.calls == ["made", "data", "eof", "lost"]
