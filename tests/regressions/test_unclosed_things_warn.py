"""An unclosed loop, transport or server gives asyncio's ResourceWarning.

Must hold: with asyncio's text, once, and the descriptor behind it is closed; a reference
cycle of loop, transport and protocol is collected.
"""

import asyncio
import gc
import socket
import warnings
import weakref

import pytest

from support.peers import unix_pair
from support.protocols import Recorder


def warnings_of(drop):
    """The ResourceWarnings that come up when ``drop`` has run and garbage was collected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drop()
        gc.collect()
    messages = [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]
    caught.clear()  # each record has its source, which the warning brought back to life
    gc.collect()
    return messages


def test_loop(loop_factory):
    kept = [loop_factory()]
    text = repr(kept[0])
    assert warnings_of(kept.clear) == [f"unclosed event loop {text}"]


def test_loop_that_ran(loop_factory):
    kept = [loop_factory()]
    kept[0].run_until_complete(asyncio.sleep(0))
    text = repr(kept[0])
    assert warnings_of(kept.clear) == [f"unclosed event loop {text}"]


@pytest.mark.parametrize("paused", [False, True])
def test_transport_of_a_closed_loop(loop_factory, paused):
    near, far = unix_pair()
    fd = near.fileno()
    kept = [loop_factory()]

    async def main():
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            asyncio.Protocol, near
        )
        if paused:
            transport.pause_reading()
        await asyncio.sleep(0)
        return weakref.ref(transport)

    def run():
        # A loop may let go of the paused transport before it is closed.
        refs.append(kept[0].run_until_complete(main()))
        kept[0].close()
        kept.clear()

    refs = []
    messages = warnings_of(run)
    assert refs[0]() is None
    assert len(messages) == 1
    assert messages[0].startswith("unclosed transport <")
    assert f"fd={fd}" in messages[0]
    assert near.fileno() == -1
    far.close()


def test_closed_transport_does_not_warn(loop_factory):
    near, far = unix_pair()
    kept = [loop_factory()]

    async def main():
        transport, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            Recorder, near
        )
        transport.close()
        while not protocol.is_lost:
            await asyncio.sleep(0.001)

    kept[0].run_until_complete(main())
    kept[0].close()
    assert warnings_of(kept.clear) == []
    far.close()


def test_server_of_a_closed_loop(loop_factory):
    """asyncio's servers themselves say nothing; their listening sockets do."""
    kept = [loop_factory()]

    async def main():
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        return server.sockets[0].getsockname()

    address = kept[0].run_until_complete(main())
    messages = warnings_of(lambda: (kept[0].close(), kept.clear()))
    assert len(messages) == 1
    assert messages[0].startswith("unclosed ")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


@pytest.mark.parametrize("closed", [False, True])
def test_cycle_of_loop_transport_and_protocol(loop_factory, closed):
    near, far = unix_pair()
    kept = [loop_factory()]

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        protocol.loop, loop.transport = loop, transport
        return [weakref.ref(thing) for thing in (loop, transport, protocol)]

    refs = kept[0].run_until_complete(main())
    if closed:
        kept[0].close()
    messages = warnings_of(kept.clear)
    far.close()
    gc.collect()  # the recorded warnings had their sources
    assert [ref() for ref in refs] == [None] * 3
    expected = ["unclosed transport"] if closed else ["unclosed event loop", "unclosed transport"]
    assert sorted(message.split(" <")[0] for message in messages) == expected
