"""A protocol that raises costs its own connection and nothing else.

Must hold: an exception of the factory, of data_received, or of get_buffer, and a buffer that
is read-only, empty, shrinking or no buffer at all, reach the exception handler with asyncio's
context keys; that connection closes, others go on, the process lives.
"""

import asyncio

import pytest

from support.peers import PAIRS, until
from support.protocols import BufferedRecorder, Recorder

KEYS = {"message", "exception", "transport", "protocol"}


@pytest.fixture(params=PAIRS)
def pairs(request):
    make = PAIRS[request.param]
    pairs = [make(), make()]
    yield pairs
    for near, far in pairs:
        near.close()
        far.close()


def failure_of(loop, run, unhandled, pairs, protocol, last_words=b"x"):
    """What the handler got when ``protocol`` was sent a byte; a neighbour must be unharmed."""
    (near, far), (other_near, other_far) = pairs

    async def main():
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, near)
        _, neighbour = await loop.connect_accepted_socket(Recorder, other_near)
        far.sendall(last_words)
        await until(lambda: protocol.is_lost)
        assert transport.is_closing()
        await until(lambda: near.fileno() == -1)
        other_far.sendall(b"unharmed")
        await until(lambda: neighbour.received == b"unharmed")
        neighbour.transport.close()
        await until(lambda: neighbour.is_lost)
        return transport

    transport = run(main())
    context = unhandled.take_one()
    assert set(context) - {"source_traceback"} == KEYS
    assert context["transport"] is transport
    assert context["protocol"] is protocol
    assert protocol.lost_with == [context["exception"]]
    return context


def test_data_received(loop, run, unhandled, pairs):
    class Failing(Recorder):
        def data_received(self, data):
            raise LookupError("from data_received")

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.data_received() call failed."
    assert str(context["exception"]) == "from data_received"


def test_eof_received(loop, run, unhandled, pairs):
    class Failing(Recorder):
        def data_received(self, data):
            pairs[0][1].shutdown(1)

        def eof_received(self):
            raise LookupError("from eof_received")

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.eof_received() call failed."


def test_get_buffer(loop, run, unhandled, pairs):
    class Failing(BufferedRecorder):
        def get_buffer(self, sizehint):
            raise LookupError("from get_buffer")

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.get_buffer() call failed."
    assert str(context["exception"]) == "from get_buffer"


def test_buffer_updated(loop, run, unhandled, pairs):
    class Failing(BufferedRecorder):
        def buffer_updated(self, nbytes):
            raise LookupError("from buffer_updated")

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.buffer_updated() call failed."


@pytest.mark.parametrize(
    "empty", [b"", bytearray(), memoryview(b"")], ids=lambda b: type(b).__name__
)
def test_empty_buffer(loop, run, unhandled, pairs, empty):
    class Failing(BufferedRecorder):
        def get_buffer(self, sizehint):
            return empty

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.get_buffer() call failed."
    assert isinstance(context["exception"], RuntimeError)
    assert str(context["exception"]) == "get_buffer() returned an empty buffer"


@pytest.mark.parametrize(
    "wrong", [b"read-only", memoryview(b"read-only"), "text"], ids=["bytes", "view", "text"]
)
def test_buffer_that_cannot_be_written(loop, run, unhandled, pairs, wrong):
    class Failing(BufferedRecorder):
        def get_buffer(self, sizehint):
            return wrong

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] in {
        "Fatal read error on socket transport",
        "Fatal error: protocol.get_buffer() call failed.",
    }
    assert isinstance(context["exception"], TypeError | BufferError)


@pytest.mark.parametrize("wrong", [None, 5, object()], ids=["none", "number", "object"])
def test_no_buffer_at_all(loop, run, unhandled, pairs, wrong):
    class Failing(BufferedRecorder):
        def get_buffer(self, sizehint):
            return wrong

    context = failure_of(loop, run, unhandled, pairs, Failing())
    assert context["message"] == "Fatal error: protocol.get_buffer() call failed."
    assert isinstance(context["exception"], TypeError)


def test_buffer_that_shrinks(loop, run, pairs):
    """The protocol shortens its bytearray between get_buffer and the next one."""
    (near, far), _ = pairs

    class Shrinking(BufferedRecorder):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            del self.buffer[max(1, len(self.buffer) // 2) :]

    protocol = Shrinking(size=64)
    data = bytes(range(200))

    async def main():
        await loop.connect_accepted_socket(lambda: protocol, near)
        far.sendall(data)
        await until(lambda: len(protocol.received) == len(data))
        protocol.transport.abort()
        await until(lambda: protocol.is_lost)

    run(main())
    assert protocol.received == data


def test_factory_of_create_connection(loop, run, unhandled):
    """The exception is the caller's; nothing is left open (3.14 on: the given socket neither)."""
    import socket

    def factory():
        raise LookupError("from the factory")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())

        async def main():
            with pytest.raises(LookupError, match="from the factory"):
                await loop.create_connection(factory, sock=sock)
            return await asyncio.sleep(0, "goes on")

        assert run(main()) == "goes on"
        sock.close()


def test_connection_made(loop, run, unhandled, pairs):
    """Only the callback fails; the connection stands, as in asyncio."""
    (near, far), _ = pairs

    class Failing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            raise LookupError("from connection_made")

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Failing, near)
        far.sendall(b"data")
        await until(lambda: protocol.received == b"data")
        transport.close()
        await until(lambda: protocol.is_lost)

    run(main())
    context = unhandled.take_one()
    assert context["message"].startswith("Exception in callback ")
    assert str(context["exception"]) == "from connection_made"


def test_connection_lost(loop, run, unhandled, pairs):
    """The descriptor is closed although connection_lost raised."""
    (near, far), _ = pairs

    class Failing(Recorder):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise LookupError("from connection_lost")

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Failing, near)
        transport.close()
        await until(lambda: protocol.is_lost)
        await until(lambda: near.fileno() == -1)
        assert await asyncio.to_thread(far.recv, 1) == b""

    run(main())
    context = unhandled.take_one()
    assert context["message"].startswith("Exception in callback ")
    assert str(context["exception"]) == "from connection_lost"
