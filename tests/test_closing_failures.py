"""What close() raises does not replace what led to it; an interruption gets out all the same."""

import asyncio
import os
import socket
import ssl
import sys

import pytest

from support.peers import until

# Stock asyncio lets the exception of close() replace the other.
pytestmark = [pytest.mark.both_modes, pytest.mark.asyncio_wrong((3, 11), (4, 0))]

FAILURES = [OSError, LookupError, KeyboardInterrupt, SystemExit]


class FirstError(Exception):
    """What led to close()."""


@pytest.fixture(params=FAILURES, ids=lambda failure: failure.__name__)
def failure(request):
    return request.param


@pytest.fixture
def closing(monkeypatch, failure):
    """A class of sockets whose close() raises, and the exceptions that nobody could get."""

    class Closing(socket.socket):
        closed = 0

        def close(self):
            super().close()
            Closing.closed += 1
            raise failure

    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_type))
    yield Closing
    # An OSError of close() is nothing to know of.
    assert unraisable == ([LookupError] * Closing.closed if failure is LookupError else [])


def outcome_of(run, coroutine, failure, expected):
    """Runs what fails with ``expected``, and whose close() fails with ``failure``."""
    if failure in (KeyboardInterrupt, SystemExit):
        expected = failure
    with pytest.raises(expected):
        run(coroutine)


def raising(*args):
    raise FirstError


def test_refused_connection(loop, run, closing, failure, unused_port, monkeypatch):
    monkeypatch.setattr(socket, "socket", closing)
    connecting = loop.create_connection(asyncio.Protocol, "127.0.0.1", unused_port)
    outcome_of(run, connecting, failure, ConnectionRefusedError)
    assert closing.closed == 1


def test_refused_datagrams(loop, run, closing, failure, monkeypatch):
    monkeypatch.setattr(socket, "socket", closing)
    making = loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("203.0.113.1", 0))
    outcome_of(run, making, failure, OSError)
    assert closing.closed == 1


@pytest.mark.asyncio_since(3, 14)
def test_failing_factory(loop, run, closing, failure, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(socket, "socket", closing)
        connecting = loop.create_connection(raising, *listener.getsockname())
        outcome_of(run, connecting, failure, FirstError)
        assert closing.closed == 1


def test_server_that_cannot_bind(loop, run, closing, failure, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        monkeypatch.setattr(socket, "socket", closing)
        outcome_of(run, loop.create_server(asyncio.Protocol, "127.0.0.1", port), failure, OSError)
        assert closing.closed == 1


@pytest.mark.parametrize("failure", [OSError, LookupError])
def test_interrupted_accept(loop, run, closing, failure):
    """The listener makes the connection, and the server's factory is interrupted."""

    class Listening(socket.socket):
        def accept(self):
            connection, peer = super().accept()
            return closing(fileno=connection.detach()), peer

    def interrupted():
        raise KeyboardInterrupt

    async def main():
        await loop.create_server(interrupted, sock=listener)
        client.connect(listener.getsockname())
        await asyncio.sleep(15)

    with Listening() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        with pytest.raises(KeyboardInterrupt):
            run(main())
        assert closing.closed == 1


class Failing(asyncio.Protocol):
    """Its ``connection_lost`` is what leads to close()."""

    lost = False

    def connection_lost(self, error):
        self.lost = True
        raising()


def reported(run, coroutine, failure, unhandled):
    """Runs what has a failing protocol, and whose close() fails with ``failure``."""
    if failure in (KeyboardInterrupt, SystemExit):
        with pytest.raises(failure):
            run(coroutine)
    else:
        run(coroutine)
        assert type(unhandled.take_one()["exception"]) is FirstError


def test_connection_lost(loop, run, closing, failure, unhandled):
    near, far = socket.socketpair()
    near = closing(fileno=near.detach())
    near.setblocking(False)
    protocol = Failing()

    async def main():
        transport, _ = await loop.create_connection(lambda: protocol, sock=near)
        transport.close()
        await until(lambda: protocol.lost)

    with far:
        reported(run, main(), failure, unhandled)
        assert closing.closed == 1


def test_connection_lost_of_a_pipe(loop, run, closing, failure, unhandled):
    class File:
        def __init__(self, fd):
            self.fd = fd

        def fileno(self):
            return self.fd

        def close(self):
            os.close(self.fd)
            closing.closed += 1
            raise failure

    read, write = os.pipe()
    protocol = Failing()

    async def main():
        transport, _ = await loop.connect_read_pipe(lambda: protocol, File(read))
        transport.close()
        await until(lambda: protocol.lost)

    try:
        reported(run, main(), failure, unhandled)
        assert closing.closed == 1
    finally:
        os.close(write)


def test_start_tls_on_a_transport_of_the_programs(loop, run, closing, failure):
    class Foreign(asyncio.Transport):
        _start_tls_compatible = True

        def pause_reading(self):
            pass

        def resume_reading(self):
            pass

        def set_protocol(self, protocol):
            self.protocol = protocol

        def write(self, data):
            pass

        def get_write_buffer_size(self):
            return 0

        def _force_close(self, error):
            loop.call_soon(self.protocol.connection_lost, error)

        def close(self):
            closing.closed += 1
            raise failure

    async def main():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with_timeout = loop.start_tls(
            Foreign(),
            asyncio.Protocol(),
            context,
            server_hostname="name",
            ssl_handshake_timeout=0.01,
        )
        await with_timeout

    outcome_of(run, main(), failure, ConnectionAbortedError)
    assert closing.closed == 1
