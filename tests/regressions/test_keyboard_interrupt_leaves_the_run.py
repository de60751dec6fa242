"""KeyboardInterrupt and SystemExit from any callback leave run_forever.

Must hold: they come out of the run wherever they were raised, the exception handler does not
see them, and the loop can run again.
"""

import asyncio
import signal
import socket
import time

import pytest

from support.peers import PATIENCE_S, turns, unix_pair, until
from support.protocols import BufferedRecorder, Recorder

KINDS = [KeyboardInterrupt, SystemExit]
PLACES = [
    "call_soon",
    "call_later",
    "call_soon_threadsafe",
    "task",
    "done callback",
    "reader",
    "writer",
    "signal handler",
    "exception handler",
    "protocol factory",
]
CALLBACKS = [
    "connection_made",
    "data_received",
    "eof_received",
    "connection_lost",
    "pause_writing",
    "resume_writing",
]


def raising(kind):
    def callback(*args):
        raise kind("leave")

    return callback


def arrange(loop, place, kind, resources):
    """Makes the exception come from ``place`` once the loop runs."""
    callback = raising(kind)
    if place == "call_soon":
        loop.call_soon(callback)
    elif place == "call_later":
        loop.call_later(0.001, callback)
    elif place == "call_soon_threadsafe":
        loop.call_soon_threadsafe(callback)
    elif place == "task":

        async def main():
            await asyncio.sleep(0)
            callback()

        task = loop.create_task(main())
        task.add_done_callback(lambda task: task.exception())
    elif place == "done callback":
        future = loop.create_future()
        future.add_done_callback(callback)
        future.set_result(None)
    elif place in {"reader", "writer"}:
        near, far = socket.socketpair()
        resources.extend([near, far])
        far.send(b"x")
        getattr(loop, f"add_{place}")(near, callback)
    elif place == "signal handler":
        loop.add_signal_handler(signal.SIGUSR1, callback)
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    elif place == "exception handler":
        loop.set_exception_handler(callback)
        loop.call_soon(raising(ValueError))
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            resources.extend([near, listener.accept()[0]])
        resources.append(loop.create_task(loop.connect_accepted_socket(callback, near)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
# The task of the factory keeps the exception, and the loop is left in the middle of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_from_a_callback(loop, unhandled, place, kind):
    resources = []
    arrange(loop, place, kind, resources)
    loop.call_later(15, loop.stop)
    with pytest.raises(kind, match="leave"):
        loop.run_forever()
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert unhandled.take() == []
    loop.set_exception_handler(unhandled)
    for sock in resources:
        if isinstance(sock, asyncio.Task):
            assert isinstance(sock.exception(), kind)
        elif sock.fileno() != -1:
            loop.remove_reader(sock)
            loop.remove_writer(sock)
    loop.remove_signal_handler(signal.SIGUSR1)
    assert loop.run_until_complete(asyncio.sleep(0.001, "again")) == "again"
    for sock in resources:
        if not isinstance(sock, asyncio.Task):
            sock.close()
    import gc

    gc.collect()
    assert {context["message"] for context in unhandled.take()} <= {
        "Task exception was never retrieved"
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CALLBACKS)
def test_from_a_protocol(loop, unhandled, name, kind):
    near, far = unix_pair()
    base = Recorder
    protocol = type("Raising", (base,), {name: raising_once(name, base, kind)})()

    async def connect():
        await loop.connect_accepted_socket(lambda: protocol, near)
        transport = protocol.transport
        if name in {"pause_writing", "resume_writing"}:
            loop.call_soon(transport.write, b"x" * 4_000_000)
            if name == "resume_writing":
                await until(lambda: protocol.paused)
                await asyncio.to_thread(far.recv, 10)
                far.setblocking(False)
                loop.add_reader(far, lambda: far.recv(1 << 20))
        else:
            far.send(b"x")
            await asyncio.sleep(0.02)
            far.shutdown(socket.SHUT_WR)
        await asyncio.sleep(15)

    task = loop.create_task(connect())
    with pytest.raises(kind, match="leave"):
        loop.run_forever()
    assert unhandled.take() == []
    loop.remove_reader(far)
    task.cancel()
    assert loop.run_until_complete(asyncio.sleep(0.001, "again")) == "again"
    if not protocol.is_lost:
        protocol.transport.abort()
    loop.run_until_complete(until(lambda: protocol.is_lost))
    loop.run_until_complete(asyncio.wait([task]))
    far.close()
    near.close()


def raising_once(name, base, kind):
    """A callback that does its work and then raises, the first time."""
    raised = []

    def callback(self, *args):
        result = getattr(base, name)(self, *args)
        if not raised:
            raised.append(True)
            raise kind("leave")
        return result

    return callback


@pytest.mark.parametrize("kind", KINDS)
def test_from_get_buffer(loop, unhandled, kind):
    near, far = unix_pair()

    class Raising(BufferedRecorder):
        def get_buffer(self, sizehint):
            raise kind("leave")

    protocol = Raising()
    loop.run_until_complete(loop.connect_accepted_socket(lambda: protocol, near))
    far.send(b"x")
    with pytest.raises(kind, match="leave"):
        loop.run_until_complete(asyncio.sleep(15))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    protocol.transport.abort()
    loop.run_until_complete(until(lambda: protocol.is_lost))
    far.close()
    assert unhandled.take() == []


@pytest.mark.parametrize("kind", KINDS)
def test_error_received_of_what_a_callback_sent(loop, kind, unhandled):
    received = []

    class Endpoint(asyncio.DatagramProtocol):
        error_received = staticmethod(raising(kind))

        def datagram_received(self, data, addr):
            received.append(data)

    def endpoint():
        made = loop.create_datagram_endpoint(Endpoint, local_addr=("127.0.0.1", 0))
        return loop.run_until_complete(made)[0]

    refused, other = endpoint(), endpoint()
    address = other.get_extra_info("sockname")
    # More than a datagram can have, and less than the high-water mark.
    loop.call_soon(refused.sendto, bytes(65_520), address)
    loop.call_soon(refused.sendto, b"behind it", address)
    patience = loop.call_later(PATIENCE_S, loop.stop)
    with pytest.raises(kind, match="leave"):
        loop.run_forever()
    patience.cancel()
    loop.run_until_complete(until(lambda: received))
    assert received == [b"behind it"]
    for transport in (refused, other):
        transport.close()
    loop.run_until_complete(turns())
    assert unhandled.take() == []


def test_what_was_queued_runs_in_the_next_run(loop):
    ran = []
    loop.call_soon(raising(KeyboardInterrupt))
    for number in range(5):
        loop.call_soon(ran.append, number)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert ran == []
    loop.run_until_complete(asyncio.sleep(0))
    assert ran == [0, 1, 2, 3, 4]


def test_ten_times_in_a_row(loop):
    for _ in range(10):
        loop.call_later(0.001, raising(KeyboardInterrupt))
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        assert time.monotonic() - started < 10
