"""write() after close is ignored, with a warning after five, and never raises.

Must hold: that goes for a transport that is closing, aborted, lost, or whose peer is gone;
write(None) and write("str") raise TypeError at any time.
"""

import array
import asyncio
import logging
import sys

import pytest

from support.peers import PAIRS, read_exactly, turns, until
from support.protocols import Recorder

ENDINGS = ["close", "abort", "peer gone"]
THRESHOLD = 5


@pytest.fixture(params=PAIRS)
def pair(request):
    near, far = PAIRS[request.param]()
    yield near, far
    near.close()
    far.close()


@pytest.mark.both_modes
@pytest.mark.parametrize("ending", ENDINGS)
def test_is_ignored_and_warned_of(loop, run, pair, caplog, ending):
    near, far = pair
    caplog.set_level(logging.WARNING, "asyncio")

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        if ending == "peer gone":
            far.close()
            await until(lambda: protocol.is_lost)
        else:
            getattr(transport, ending)()
        for count in range(THRESHOLD + 3):
            transport.write(b"ignored")
            if count < THRESHOLD - 1:
                assert caplog.records == []
        await until(lambda: protocol.is_lost)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"ignored")

    run(main())
    assert len(caplog.records) >= 3
    assert {record.getMessage() for record in caplog.records} == {"socket.send() raised exception."}


@pytest.mark.both_modes
@pytest.mark.parametrize(
    "wrong",
    [None, "str", 5, [b"x"], array.array("B", b"x")],
    ids=["none", "str", "int", "list", "array"],
)
@pytest.mark.parametrize("state", ["open", "closing", "lost"])
def test_wrong_types_raise(loop, run, pair, wrong, state):
    near, far = pair
    expected = "bytes-like object"
    if sys.version_info >= (3, 14):
        expected = "bytes, bytearray, or memoryview object"

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        if state != "open":
            transport.close()
        if state == "lost":
            await until(lambda: protocol.is_lost)
            await turns()
        with pytest.raises(TypeError) as caught:
            transport.write(wrong)
        kind = type(wrong).__name__
        assert str(caught.value) == f"data argument must be a {expected}, not {kind!r}"
        if state == "open":
            transport.write(b"unharmed")
            assert await asyncio.to_thread(read_exactly, far, 8) == b"unharmed"
        transport.abort()
        await until(lambda: protocol.is_lost)

    run(main())


def test_through_a_stream_writer(loop, run, pair):
    near, _ = pair

    async def main():
        _, writer = await asyncio.open_connection(sock=near)
        writer.close()
        for _ in range(3):
            writer.write(b"ignored")
        await writer.wait_closed()
        writer.write(b"ignored")

    run(main())
