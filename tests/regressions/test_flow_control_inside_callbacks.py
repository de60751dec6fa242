"""Flow-control methods called inside callbacks behave as in asyncio.

Must hold: get_write_buffer_size, set_write_buffer_limits, close, write and abort may be called
in pause_writing, resume_writing, data_received and connection_lost, and tell the truth there.
"""

import asyncio

import pytest

from support.peers import read_exactly, turns, unix_pair, until
from support.protocols import Recorder

MUCH = b"x" * 4_000_000


@pytest.fixture
def pair():
    near, far = unix_pair()
    yield near, far
    near.close()
    far.close()


def connected(loop, run, pair, kind, body):
    """Runs ``body(transport, protocol, far)`` on a connection with a ``kind`` protocol."""
    near, far = pair

    async def main():
        transport, protocol = await loop.connect_accepted_socket(kind, near)
        await body(transport, protocol, far)
        if not protocol.is_lost:
            transport.abort()
        await until(lambda: protocol.is_lost)
        return protocol

    return run(main())


def test_sizes_are_those_that_led_to_the_callback(loop, run, pair):
    sizes = {}

    class Protocol(Recorder):
        def pause_writing(self):
            sizes["pause"] = self.transport.get_write_buffer_size()

        def resume_writing(self):
            super().resume_writing()
            sizes["resume"] = self.transport.get_write_buffer_size()

        def connection_lost(self, exc):
            super().connection_lost(exc)
            sizes["lost"] = self.transport.get_write_buffer_size()

    async def body(transport, protocol, far):
        transport.write(MUCH)
        assert transport.get_write_buffer_size() == sizes["pause"]
        await asyncio.to_thread(read_exactly, far, len(MUCH))
        await until(lambda: "resume" in sizes)

    connected(loop, run, pair, Protocol, body)
    low, high = 16384, 65536
    assert high < sizes["pause"] <= len(MUCH)
    assert sizes["resume"] <= low
    assert sizes["lost"] == 0


def test_write_inside_pause_writing_is_queued_and_pauses_no_more(loop, run, pair):
    class Protocol(Recorder):
        def pause_writing(self):
            super().pause_writing()
            before = self.transport.get_write_buffer_size()
            self.transport.write(b"more")
            assert self.transport.get_write_buffer_size() == before + 4

    async def body(transport, protocol, far):
        transport.write(MUCH)
        data = await asyncio.to_thread(read_exactly, far, len(MUCH) + 4)
        assert data.endswith(b"more")

    protocol = connected(loop, run, pair, Protocol, body)
    assert protocol.calls[:2] == ["made", "pause"]


def test_write_inside_resume_writing_can_pause_again(loop, run, pair):
    class Protocol(Recorder):
        def resume_writing(self):
            super().resume_writing()
            if self.calls.count("resume") < 3:
                self.transport.write(MUCH)

    async def body(transport, protocol, far):
        transport.write(MUCH)
        await asyncio.to_thread(read_exactly, far, 3 * len(MUCH))
        await until(lambda: protocol.calls.count("resume") == 3)
        assert transport.get_write_buffer_size() == 0

    protocol = connected(loop, run, pair, Protocol, body)
    assert protocol.calls == ["made"] + ["pause", "resume"] * 3 + ["lost"]


def ending_in(callback, action):
    """A protocol class whose ``callback`` closes or aborts the transport, once."""
    ended = []

    def method(self, *args):
        getattr(super(kind, self), callback)(*args)
        if not ended:
            ended.append(True)
            getattr(self.transport, action)()
            assert self.transport.is_closing()
            assert not self.is_lost

    kind = type("Ending", (Recorder,), {callback: method})
    return kind


@pytest.mark.parametrize(
    "callback",
    [
        "pause_writing",
        # Older versions of asyncio call connection_lost twice here.
        pytest.param("resume_writing", marks=pytest.mark.asyncio_since(3, 14)),
        "data_received",
    ],
)
@pytest.mark.parametrize("action", ["close", "abort"])
def test_ending_inside_a_callback(loop, run, pair, callback, action):
    async def body(transport, protocol, far):
        if callback == "data_received":
            far.send(b"x")
        else:
            transport.write(MUCH)
            if (callback, action) != ("pause_writing", "abort"):
                await asyncio.to_thread(read_exactly, far, len(MUCH))
        await until(lambda: protocol.is_lost)
        await turns()

    protocol = connected(loop, run, pair, ending_in(callback, action), body)
    assert protocol.lost_with == [None]
    assert protocol.calls[-1] == "lost"


def test_limits_set_inside_callbacks(loop, run, pair):
    class Protocol(Recorder):
        def data_received(self, data):
            super().data_received(data)
            self.transport.set_write_buffer_limits(high=0)
            assert self.transport.get_write_buffer_limits() == (0, 0)
            self.transport.write(MUCH)

        def pause_writing(self):
            super().pause_writing()
            self.transport.set_write_buffer_limits(high=10_000_000, low=5_000_000)

    async def body(transport, protocol, far):
        far.send(b"go")
        await until(lambda: protocol.paused)
        assert transport.get_write_buffer_limits() == (5_000_000, 10_000_000)
        await asyncio.to_thread(read_exactly, far, len(MUCH))
        await until(lambda: not protocol.paused)

    connected(loop, run, pair, Protocol, body)


def test_lowering_the_limit_below_the_queue_pauses_at_once(loop, run, pair):
    async def body(transport, protocol, far):
        transport.set_write_buffer_limits(high=20_000_000)
        transport.write(MUCH)
        assert not protocol.paused
        transport.set_write_buffer_limits(high=1000)
        transport.write(b"x")
        assert protocol.paused
        await asyncio.to_thread(read_exactly, far, len(MUCH) + 1)
        await until(lambda: not protocol.paused)

    connected(loop, run, pair, Recorder, body)


def test_everything_inside_connection_lost(loop, run, pair):
    class Protocol(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            transport = self.transport
            transport.write(b"ignored")
            transport.close()
            transport.abort()
            transport.pause_reading()
            transport.resume_reading()
            transport.set_write_buffer_limits(high=10)
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0
            assert transport.get_protocol() is self

    async def body(transport, protocol, far):
        transport.write(MUCH)
        transport.abort()
        await until(lambda: protocol.is_lost)
        await turns()

    protocol = connected(loop, run, pair, Protocol, body)
    assert protocol.lost_with == [None]
