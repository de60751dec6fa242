"""Large writes and reads: when the protocol is told to pause, how much it gets at once.

A loop may send what several writes of a callback gave it in one call, and read more at once from a
peer that sends in bulk. A protocol that bounds what it keeps must not see a difference.
"""

import asyncio
import socket

import pytest

from support.peers import PAIRS, accepted, pattern, read_all, read_exactly, tcp_pair, until
from support.protocols import Recorder

HIGH = 64 * 1024
READ_MOST = 256 * 1024
TCP_NOTSENT_LOWAT = 25


async def rest(protocol, far):
    """What arrives at the far end until the connection's end, when both ends are closed."""
    received = await asyncio.to_thread(read_all, far)
    await until(lambda: protocol.is_lost)
    far.close()
    return received


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


@pytest.mark.parametrize("sndbuf", [None, 20_000, 65536, 500_000])
@pytest.mark.parametrize("piece", [3_000, 20_000, 60_000, 66_000, 130_000, 250_000, 300_000])
def test_the_write_that_crosses_the_mark_pauses(loop, run, pair, piece, sndbuf):
    """In one callback, without a turn between the writes and without a peer that reads."""
    data = pattern(piece)

    def write_until_paused(transport, protocol):
        written = 0
        while not protocol.paused:
            transport.write(data)
            written += piece
            assert written < 50_000_000
        return written

    async def main():
        transport, protocol, far = await accepted(loop, Recorder, lambda: pair(sndbuf=sndbuf))
        written = write_until_paused(transport, protocol)
        left = transport.get_write_buffer_size()
        transport.close()
        received = await rest(protocol, far)
        return protocol.calls, left, received == data * (written // piece)

    calls, left, is_complete = run(main())
    assert HIGH < left <= HIGH + piece
    assert is_complete
    assert calls == ["made", "pause", "resume", "lost"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 40])
def test_large_writes_of_a_callback_arrive_in_order(loop, run, pair, count):
    pieces = [pattern(50_000 + 7 * number, b"%d" % number) for number in range(count)]

    async def main():
        transport, protocol, far = await accepted(loop, Recorder, pair)
        for piece in pieces:
            transport.write(piece)
        transport.write_eof()
        received = await asyncio.to_thread(read_all, far)
        transport.abort()
        await until(lambda: protocol.is_lost)
        far.close()
        return received

    assert run(main()) == b"".join(pieces)


def test_a_kernel_that_takes_less_than_it_has_room_for(loop, run):
    """TCP_NOTSENT_LOWAT: the pause comes a little later then, but comes, and nothing is lost."""
    data = pattern(60_000)

    def pair():
        near, far = tcp_pair(rcvbuf=8192)
        near.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1)
        return near, far

    async def main():
        transport, protocol, far = await accepted(loop, Recorder, pair)
        for _ in range(4):
            transport.write(data)
        await asyncio.sleep(0)
        paused = protocol.paused
        written = 4
        while not protocol.paused:
            transport.write(data)
            written += 1
        received = await asyncio.to_thread(read_exactly, far, written * len(data))
        await until(lambda: not protocol.paused)
        transport.write(data)
        transport.close()
        received += await rest(protocol, far)
        return paused, received == data * (written + 1)

    assert run(main()) == (True, True)


def write_small(transport):
    for _ in range(1100):
        transport.write(b"x")


def write_many(transport):
    for _ in range(3000):
        transport.write(b"x" * 100)


def write_lines(transport):
    for _ in range(6):
        transport.writelines([b"x" * 100] * 500)


def write_before_lines(transport):
    for _ in range(1000):
        transport.write(b"x" * 100)
    transport.writelines([b"x" * 100] * 1000)


@pytest.mark.parametrize("write", [write_small, write_many, write_lines, write_before_lines])
@pytest.mark.parametrize("high", [0, 10, None])
def test_what_the_kernel_takes_pauses_nobody(loop, run, write, high):
    """More pieces than one sendmsg takes (1024), and room for all of them."""

    async def main():
        transport, protocol, far = await accepted(loop, Recorder, tcp_pair)
        transport.set_write_buffer_limits(high)
        loop.call_soon(write, transport)
        await asyncio.sleep(0)
        left = transport.get_write_buffer_size()
        transport.close()
        received = await rest(protocol, far)
        return protocol.calls, left, set(received)

    assert run(main()) == (["made", "lost"], 0, set(b"x"))


def test_marks_count_from_when_they_are_set(loop, run):
    async def main():
        transport, protocol, far = await accepted(loop, Recorder, lambda: tcp_pair(sndbuf=20_000))
        transport.write(bytes(240_000))
        transport.set_write_buffer_limits(10_000_000)
        transport.write(bytes(240_000))
        transport.close()
        received = await rest(protocol, far)
        return protocol.calls, len(received)

    assert run(main()) == (["made", "pause", "resume", "lost"], 480_000)


class Producer(Recorder):
    """Writes until it is told to pause, and goes on inside resume_writing; closes at the end."""

    left = 20
    piece = bytes(150_000)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.loop.call_soon(self.produce)

    def produce(self):
        while self.left and not self.paused:
            self.left -= 1
            self.transport.write(self.piece)
        if not self.left:
            # Not inside resume_writing: asyncio would call connection_lost twice.
            self.loop.call_soon(self.transport.close)

    def resume_writing(self):
        super().resume_writing()
        self.produce()


@pytest.mark.parametrize("lowat", [None, 1, 16384])
@pytest.mark.parametrize("rcvbuf", [4096, 65536])
def test_who_writes_when_it_may_go_on_is_told_each_time(loop, run, lowat, rcvbuf):
    def pair():
        near, far = tcp_pair(sndbuf=100_000, rcvbuf=rcvbuf)
        if lowat is not None:
            near.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, lowat)
        return near, far

    async def main():
        _, protocol, far = await accepted(loop, Producer, pair)
        return len(await rest(protocol, far)), protocol.left

    assert run(main()) == (20 * len(Producer.piece), 0)


class Pausing(Recorder):
    """Pauses at each read and resumes in the next turn; keeps the sizes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def data_received(self, data):
        super().data_received(data)
        self.sizes.append(len(data))
        self.transport.pause_reading()
        self.loop.call_soon(self.resume)

    def resume(self):
        if not self.transport.is_closing():
            self.transport.resume_reading()


def send_all(far, data):
    far.sendall(data)
    far.close()


def test_a_protocol_that_pauses_gets_no_more_than_in_asyncio(loop, run):
    data = pattern(16 << 20)

    async def main():
        _, protocol, far = await accepted(loop, Pausing, tcp_pair)
        await asyncio.to_thread(send_all, far, data)
        await until(lambda: protocol.is_lost)
        return protocol.sizes

    sizes = run(main())
    assert sum(sizes) == len(data)
    assert max(sizes) <= READ_MOST


def test_bulk_arrives_whole(loop, run, pair):
    data = pattern(32 << 20)

    async def main():
        _, protocol, far = await accepted(loop, Recorder, pair)
        await asyncio.to_thread(send_all, far, data)
        await until(lambda: protocol.is_lost)
        return protocol

    protocol = run(main())
    assert protocol.received == data
    assert protocol.calls == ["made", "data", "eof", "lost"]
