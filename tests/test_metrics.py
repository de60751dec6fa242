"""`EventLoop.metrics()`: what a loop counts is what it did, and looking disturbs nothing."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

import oxloop
from support.certificates import NAME, client_context, server_context
from support.peers import PATIENCE_S, until
from support.protocols import Recorder


@pytest.fixture
def loop():
    event_loop = oxloop.new_event_loop()
    yield event_loop
    event_loop.close()


def difference(loop, coroutine):
    """What happened while the coroutine ran, and its result."""
    before = loop.metrics()
    result = loop.run_until_complete(coroutine)
    return loop.metrics() - before, result


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def exchange(loop, reader, writer, size):
    writer.write(b"x" * size)
    return await reader.readexactly(size)


# Time


def test_a_new_loop_has_done_nothing(loop):
    found = loop.metrics()
    assert found.running_seconds == 0
    assert found.utilization == 0
    assert (found.turns, found.callbacks, found.ready, found.turn_lengths.count) == (0, 0, 0, 0)
    assert found.turn_lengths.p99_seconds == 0


def test_waiting_is_no_work(loop):
    found, _ = difference(loop, asyncio.sleep(0.2))
    assert found.waiting_seconds > 0.19
    assert found.busy_seconds > 0
    assert found.utilization == pytest.approx(1 - found.waiting_seconds / found.running_seconds)


def test_a_callback_is_work(loop):
    async def main():
        time.sleep(0.2)

    found, _ = difference(loop, main())
    assert found.busy_seconds > 0.19
    assert found.turn_lengths.max_seconds > 0.19


def test_time_between_runs_does_not_count(loop):
    loop.run_until_complete(asyncio.sleep(0))
    before = loop.metrics()
    time.sleep(0.1)
    assert (loop.metrics() - before).running_seconds == 0


def test_the_wait_for_the_gil_is_counted_apart(loop):
    is_over = False

    def compute():
        while not is_over:
            pass

    async def main():
        for _ in range(50):
            await asyncio.sleep(0.001)

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=compute)
    thread.start()
    try:
        sys.setswitchinterval(0.01)
        found, _ = difference(loop, main())
    finally:
        sys.setswitchinterval(interval)
        is_over = True
        thread.join()
    # Each wait ends while the thread computes, which gives the GIL up after the interval.
    assert found.gil_wait_seconds > 0.1


def test_is_the_same_in_another_thread_while_the_loop_waits(loop):
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while not (before := loop.metrics()).waiting_seconds and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    later = loop.metrics()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert (later - before).waiting_seconds > 0.19
    assert (later - before).busy_seconds == pytest.approx(0, abs=1e-6)
    end = loop.metrics()
    assert end.waiting_seconds >= later.waiting_seconds
    assert end.wakeups - later.wakeups == 1


def test_sees_the_present_callback_from_another_thread(loop):
    seen = []

    def look():
        before = loop.metrics()
        time.sleep(0.1)
        seen.append(loop.metrics() - before)

    async def main():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    loop.run_until_complete(main())
    assert seen[0].busy_seconds > 0.09
    assert seen[0].turns == 0


def test_counts_never_go_back(loop):
    seen = []
    is_over = threading.Event()

    def look():
        while not is_over.is_set():
            seen.append(loop.metrics())
            time.sleep(0.0005)

    async def main():
        for _ in range(200):
            await asyncio.sleep(0.0003)

    thread = threading.Thread(target=look)
    thread.start()
    loop.run_until_complete(main())
    is_over.set()
    thread.join()
    for earlier, later in itertools.pairwise(seen):
        found = later - earlier
        assert found.waiting_seconds >= 0
        assert found.gil_wait_seconds >= 0
        assert found.busy_seconds > -1e-9
        assert found.turns >= 0
        assert 0 <= found.utilization <= 1


# Work


def test_turns_and_callbacks(loop):
    async def main():
        for _ in range(100):
            await asyncio.sleep(0)

    found, _ = difference(loop, main())
    assert 100 <= found.turns <= 104
    assert 100 <= found.callbacks <= 106


def test_what_is_queued(loop):
    async def main():
        for _ in range(300):
            loop.call_soon(int)
        queued = loop.metrics().ready
        await asyncio.sleep(0)
        return queued

    _, queued = difference(loop, main())
    assert queued == 300
    assert 300 <= loop.metrics().ready_max <= 303


def test_timers(loop):
    async def main():
        timers = [loop.call_later(3600, int) for _ in range(5)]
        timers[0].cancel()
        pending = loop.metrics().timers_pending
        loop.call_later(0.01, time.sleep, 0.1)
        loop.call_later(0.02, int)
        await asyncio.sleep(0.05)
        for timer in timers:
            timer.cancel()
        return pending

    found, pending = difference(loop, main())
    assert pending == 4
    assert found.timers_cancelled == 5
    assert found.timer_lags.count == 3
    # The second timer had to wait for the first one's callback.
    assert found.timer_lags.max_seconds > 0.05


def test_the_kernel_is_polled_and_has_events(loop, pair):
    ours, theirs = pair

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        theirs.send(b"hello")
        await until(lambda: protocol.received)
        transport.close()
        await asyncio.sleep(0)

    found, _ = difference(loop, main())
    assert found.events >= 1
    assert found.turn_lengths.count >= 2


def test_exceptions(loop):
    loop.set_exception_handler(lambda loop, context: None)

    async def main():
        loop.call_soon(lambda: 1 / 0)
        loop.call_exception_handler({"message": "?"})
        await asyncio.sleep(0)

    assert difference(loop, main())[0].exceptions == 2


def test_signals(loop):
    async def main():
        seen = []
        loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        await until(lambda: seen)
        loop.remove_signal_handler(signal.SIGUSR1)

    assert difference(loop, main())[0].signals == 1


# Connections and what they carry


def test_a_server_of_tcp(loop):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await exchange(loop, reader, writer, 1000)
        present = loop.metrics()
        writer.close()
        await writer.wait_closed()
        await until(lambda: loop.metrics().connections["tcp"].lost == 2)
        server.close()
        await server.wait_closed()
        return present

    found, present = difference(loop, main())
    assert present.connections["tcp"].open == 2
    tcp = found.connections["tcp"]
    assert dataclasses.astuple(tcp) == (2, 1, 2, 0, 0)
    assert (found.bytes_sent, found.bytes_received) == (2000, 2000)
    assert dataclasses.astuple(found.connections["unix"]) == (0, 0, 0, 0, 0)


def test_a_reset_is_a_failure(loop):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        peer = socket.create_connection(server.sockets[0].getsockname())
        await until(lambda: loop.metrics().connections["tcp"].made == 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        await until(lambda: loop.metrics().connections["tcp"].lost == 1)
        server.close()

    found, _ = difference(loop, main())
    assert found.connections["tcp"].failed == 1


def test_unix_sockets_and_pipes(loop, pair):
    ours, theirs = pair

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        theirs.send(b"four")
        await until(lambda: protocol.received)
        read, write = os.pipe()
        reader = os.fdopen(read, "rb", 0)
        piped, received = await loop.connect_read_pipe(Recorder, reader)
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(write, "wb", 0))
        writing.write(b"seven..")
        await until(lambda: received.received)
        opened = loop.metrics()
        for each in (transport, piped, writing):
            each.close()
        await asyncio.sleep(0.01)
        return opened

    found, opened = difference(loop, main())
    assert (opened.connections["unix"].open, opened.connections["pipe"].open) == (1, 2)
    assert (found.connections["unix"].lost, found.connections["pipe"].lost) == (1, 2)
    assert (found.bytes_received, found.bytes_sent) == (11, 7)


def test_datagrams(loop):
    class Peer(asyncio.DatagramProtocol):
        received = 0

        def datagram_received(self, data, addr):
            self.received += 1

    async def main():
        there, protocol = await loop.create_datagram_endpoint(Peer, ("127.0.0.1", 0))
        address = there.get_extra_info("sockname")
        here, _ = await loop.create_datagram_endpoint(Peer, remote_addr=address)
        for _ in range(10):
            here.sendto(b"x" * 100)
        await until(lambda: protocol.received == 10)
        here.close()
        there.close()
        await asyncio.sleep(0)

    found, _ = difference(loop, main())
    assert (found.datagrams_sent, found.datagrams_received) == (10, 10)
    assert (found.bytes_sent, found.bytes_received) == (1000, 1000)
    assert found.connections["datagram"].made == 2


def test_what_waits_to_be_sent(loop, pair):
    ours, _ = pair

    async def main():
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        size = 1 << 22
        transport.write(b"x" * size)
        await asyncio.sleep(0.01)
        found = loop.metrics()
        assert found.bytes_queued == transport.get_write_buffer_size()
        transport.abort()
        await asyncio.sleep(0)
        return found

    _, found = difference(loop, main())
    assert found.bytes_queued > 0
    assert found.writes_paused == 1
    assert (loop.metrics().bytes_queued, loop.metrics().writes_paused) == (0, 0)


def test_tls_handshakes(loop):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context(), server_hostname=NAME
        )
        await exchange(loop, reader, writer, 1000)
        opened = loop.metrics()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        loop.set_exception_handler(lambda loop, context: None)
        _, plain = await asyncio.open_connection("127.0.0.1", port)
        plain.write(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: loop.metrics().tls_handshakes_failed == 1)
        plain.close()
        server.close()
        return opened

    found, opened = difference(loop, main())
    assert opened.connections["tls"].open == 2
    assert (opened.connections["tls"].accepted, opened.connections["tcp"].open) == (1, 2)
    assert (found.tls_handshakes, found.tls_handshakes_failed) == (2, 1)
    assert found.tls_handshake_seconds > 0
    assert found.bytes_received > 2000


# What others do


def test_calls_in_an_executor(loop):
    event = threading.Event()

    async def main():
        call = loop.run_in_executor(None, event.wait)
        running = loop.metrics().executor_calls_running
        event.set()
        await call
        await until(lambda: loop.metrics().executor_calls_running == 0)
        await loop.shutdown_default_executor()
        return running

    found, running = difference(loop, main())
    assert (running, found.executor_calls, found.executor_calls_running) == (1, 1, 0)


def test_lookups(loop):
    async def main():
        lookup = asyncio.ensure_future(loop.getaddrinfo("localhost", 80))
        await asyncio.sleep(0)
        begun = loop.metrics()
        await lookup
        return begun

    found, begun = difference(loop, main())
    assert begun.lookups + begun.lookups_running == 1
    assert (found.lookups, found.lookups_running) == (1, 0)


def test_children(loop):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE)
        running = loop.metrics().children_running
        process.stdin.close()
        await process.wait()
        return running

    found, running = difference(loop, main())
    assert (running, found.children, found.children_running) == (1, 1, 0)


# The classes


def test_a_histogram_tells_no_less_than_there_was():
    bounds = (0.001, 0.002, 0.004)
    found = oxloop.Histogram((90, 9, 0, 1), bounds, 0.2, 5.0)
    assert found.count == 100
    assert found.mean_seconds == pytest.approx(0.002)
    assert (found.p50_seconds, found.quantile(0.95), found.quantile(1)) == (0.001, 0.002, 5.0)
    assert found.quantile(0) == 0.001
    for part in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            found.quantile(part)


def test_a_difference_of_histograms():
    bounds = (0.001, 0.002)
    earlier = oxloop.Histogram((1, 0, 1), bounds, 5.0, 4.9)
    later = oxloop.Histogram((1, 3, 1), bounds, 5.005, 4.9)
    found = later - earlier
    assert (found.counts, found.max_seconds) == ((0, 3, 0), 0.002)
    assert found.sum_seconds == pytest.approx(0.005)
    assert (later - later).max_seconds == 0


def test_is_frozen_and_of_one_kind(loop):
    found = loop.metrics()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.turns = 5
    with pytest.raises(TypeError):
        found - 3
    with pytest.raises(TypeError):
        found.turn_lengths - 3
    assert isinstance(found, oxloop.LoopMetrics)


def test_a_closed_loop_keeps_its_counts():
    loop = oxloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert loop.metrics().turns >= 1
    assert loop.metrics().bytes_queued == 0
