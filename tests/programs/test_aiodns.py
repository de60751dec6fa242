"""aiodns, c-ares on the loop, against a DNS server on the same loop."""

import asyncio

import aiodns
import pycares
import pytest

from support.name_server import NameServer
from support.peers import until

RECORDS = {
    ("host.test", "A"): ["192.0.2.1", "192.0.2.2"],
    ("host.test", "AAAA"): ["2001:db8::1"],
    ("large.test", "TXT"): [f"{number:03} " + "x" * 200 for number in range(50)],
    **{(f"host{number}.test", "A"): [f"10.0.0.{number}"] for number in range(200)},
}


def threadless_channel(*args, channel=pycares.Channel, **options):
    if "sock_state_cb" not in options:
        raise pycares.AresError("no event thread")
    return channel(*args, **options)


@pytest.fixture(params=["add_reader", "event_thread"])
def resolver(request, monkeypatch):
    """Makes resolvers that watch c-ares' sockets by the loop, or leave them to c-ares' thread."""
    if request.param == "add_reader":
        # As where c-ares was built without threads: aiodns falls back to the loop.
        monkeypatch.setattr(pycares, "Channel", threadless_channel)

    def make(server, timeout=15, **options):
        made = aiodns.DNSResolver(
            ["127.0.0.1"],
            udp_port=server.port,
            tcp_port=server.port,
            lookups="b",
            timeout=timeout,
            **options,
        )
        assert made._event_thread is (request.param == "event_thread")
        return made

    return make


def addresses(result):
    return sorted(record.data.addr for record in result.answer)


def test_answers(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server) as dns:
            result = await dns.query_dns("host.test", "A")
            assert addresses(result) == ["192.0.2.1", "192.0.2.2"]
            result = await dns.query_dns("host.test", "AAAA")
            assert addresses(result) == ["2001:db8::1"]
            with pytest.raises(aiodns.error.DNSError) as caught:
                await dns.query_dns("nobody.test", "A")
            assert caught.value.args[0] == aiodns.error.ARES_ENOTFOUND
            assert {way for _, _, way in server.asked} == {"UDP"}

    run(main())


def test_a_truncated_answer_is_asked_for_by_tcp(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server) as dns:
            result = await dns.query_dns("large.test", "TXT")
            texts = sorted(record.data.data.decode() for record in result.answer)
            assert texts == RECORDS["large.test", "TXT"]
            assert server.asked == [("large.test", "TXT", "UDP"), ("large.test", "TXT", "TCP")]

    run(main())


def test_many_at_once(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server) as dns:
            names = [f"host{number}.test" for number in range(200)]
            results = await asyncio.gather(*(dns.query_dns(name, "A") for name in names))
            return [addresses(result) for result in results]

    assert run(main()) == [[f"10.0.0.{number}"] for number in range(200)]


def test_both_families(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server) as dns:
            found = await dns.getaddrinfo("host.test", port=80)
            return sorted(node.addr[0] for node in found.nodes)

    assert run(main()) == [b"192.0.2.1", b"192.0.2.2", b"2001:db8::1"]


def test_no_answer(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server, timeout=0.1, tries=2) as dns:
            server.silent.add("host.test")
            with pytest.raises(aiodns.error.DNSError) as caught:
                await dns.query_dns("host.test", "A")
            assert caught.value.args[0] == aiodns.error.ARES_ETIMEOUT
            await until(lambda: len(server.asked) == 2)  # c-ares may be ahead of the server
            assert server.asked == [("host.test", "A", "UDP")] * 2

    run(main())


def test_cancelled_and_closed(loop, run, resolver):
    async def main():
        async with NameServer(RECORDS) as server, resolver(server) as dns:
            server.silent.add("host.test")
            task = asyncio.ensure_future(dns.query_dns("host.test", "A"))
            while not server.asked:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            waiting = asyncio.ensure_future(dns.query_dns("host.test", "AAAA"))
            while len(server.asked) < 2:
                await asyncio.sleep(0.001)
            dns.cancel()
            with pytest.raises(aiodns.error.DNSError) as caught:
                await waiting
            assert caught.value.args[0] == aiodns.error.ARES_ECANCELLED

    run(main())
