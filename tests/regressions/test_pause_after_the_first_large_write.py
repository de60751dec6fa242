"""Four writes of 4 MiB in one callback: pause_writing comes after the first, not the fifth.

Must hold: whether the queue is above the high-water mark is decided inside write(), before it
returns, also when a loop gathers the writes of one callback.
"""

import asyncio

from support.peers import read_exactly, tcp_pair, until
from support.protocols import Recorder

PIECE = b"x" * (4 << 20)


def test_is_called_inside_the_first_write(loop, run):
    near, far = tcp_pair()
    paused_after = []

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)

        def write_four():
            for _ in range(4):
                transport.write(PIECE)
                paused_after.append(protocol.calls.count("pause"))

        loop.call_soon(write_four)
        await until(lambda: len(paused_after) == 4)
        await asyncio.to_thread(read_exactly, far, 4 * len(PIECE))
        await until(lambda: not protocol.paused)
        transport.close()
        await until(lambda: protocol.is_lost)
        return protocol.calls

    calls = run(main())
    far.close()
    # A first piece that fits the kernel's buffers leaves nothing to wait for.
    assert paused_after in ([1, 1, 1, 1], [0, 1, 1, 1])
    assert calls == ["made", "pause", "resume", "lost"]


def test_with_buffers_of_the_kernel_that_take_little(loop, run):
    near, far = tcp_pair(sndbuf=65536, rcvbuf=65536)

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        transport.write(PIECE)
        assert protocol.calls == ["made", "pause"]
        for _ in range(3):
            transport.write(PIECE)
        assert protocol.calls == ["made", "pause"]
        transport.abort()
        await until(lambda: protocol.is_lost)

    run(main())
    far.close()


def test_many_small_writes_pause_as_well(loop, run):
    near, far = tcp_pair(sndbuf=65536, rcvbuf=65536)

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        written = 0
        while not protocol.paused:
            transport.write(b"x" * 1000)
            written += 1000
            assert written < 50_000_000
        assert transport.get_write_buffer_size() > 65536
        assert transport.get_write_buffer_size() <= 65536 + 1000
        transport.abort()
        await until(lambda: protocol.is_lost)

    run(main())
    far.close()
