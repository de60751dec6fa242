"""50 concurrent slow getaddrinfo calls do not queue behind two.

Must hold: many lookups are under way at once (asyncio: as many as its default executor has
threads, at least five); a cancelled one does not set a result later.
"""

import asyncio
import socket
import threading

import pytest

AT_ONCE = 5


class Resolver:
    """A slow socket.getaddrinfo that counts how many callers are inside."""

    def __init__(self):
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.release = threading.Event()
        self.crowded = threading.Event()

    def __call__(self, host, port, *args, **kwargs):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.most >= AT_ONCE:
                self.crowded.set()
        self.release.wait(20)
        with self.lock:
            self.inside -= 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def resolver(monkeypatch):
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.release.set()


def test_many_at_once(loop, run, resolver):
    async def main():
        lookups = [asyncio.ensure_future(loop.getaddrinfo("slow.example", n)) for n in range(50)]
        while not resolver.crowded.is_set():
            await asyncio.sleep(0.001)
        resolver.release.set()
        return await asyncio.gather(*lookups)

    results = run(main())
    assert [result[0][4][1] for result in results] == list(range(50))
    assert resolver.most >= AT_ONCE


def test_cancelled_ones_set_no_result_later(loop, run, resolver, unhandled):
    async def main():
        lookups = [asyncio.ensure_future(loop.getaddrinfo("slow.example", n)) for n in range(50)]
        while not resolver.crowded.is_set():
            await asyncio.sleep(0.001)
        for lookup in lookups[::2]:
            lookup.cancel()
        resolver.release.set()
        results = await asyncio.gather(*lookups, return_exceptions=True)
        await asyncio.sleep(0.02)
        return lookups, results

    lookups, results = run(main())
    assert all(lookup.cancelled() for lookup in lookups[::2])
    assert [result[0][4][1] for result in results[1::2]] == list(range(1, 50, 2))
    assert unhandled == []


def test_numeric_hosts_do_not_wait_for_slow_names(loop, run, resolver, monkeypatch):
    """They need no lookup, so connecting to one is not held up."""
    from support.peers import Listener, echo

    async def main(address):
        lookups = [asyncio.ensure_future(loop.getaddrinfo("slow.example", n)) for n in range(50)]
        while not resolver.crowded.is_set():
            await asyncio.sleep(0.001)
        transport, _ = await asyncio.wait_for(
            loop.create_connection(asyncio.Protocol, *address), 15
        )
        transport.abort()
        resolver.release.set()
        await asyncio.gather(*lookups)

    with Listener(echo) as listener:
        run(main(listener.address))
