"""getaddrinfo and getnameinfo: the results, errors and texts of the socket module's own."""

import asyncio
import socket
import threading

import pytest

from support.programs import output_of

pytestmark = pytest.mark.both_modes

STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def outcome(call, *args, **kwargs):
    """What a call gives, in a form that two calls can be compared by."""
    try:
        return call(*args, **kwargs)
    except Exception as exc:
        return type(exc), exc.args


CASES = {
    "ipv4": (("127.0.0.1", 80), {}),
    "ipv4 stream": (("127.0.0.1", 80), {"type": STREAM}),
    "ipv4 datagram": (("127.0.0.1", 80), {"type": DGRAM}),
    "ipv4 tcp": (("127.0.0.1", 80), {"proto": socket.IPPROTO_TCP}),
    "ipv4 udp stream": (("127.0.0.1", 80), {"proto": socket.IPPROTO_UDP, "type": STREAM}),
    "ipv4 raw": (("127.0.0.1", 0), {"type": socket.SOCK_RAW}),
    "ipv6": (("::1", 80), {"type": STREAM}),
    "ipv6 long form": (("0:0:0:0:0:0:0:1", 80), {"type": STREAM}),
    "ipv6 mapped": (("::ffff:127.0.0.1", 80), {"type": STREAM}),
    "ipv6 in brackets": (("[::1]", 80), {"type": STREAM}),
    "scope by name": (("fe80::1%lo", 80), {"type": STREAM}),
    "scope by number": (("fe80::1%1", 80), {"type": STREAM}),
    "scope that is none": (("fe80::1%nosuchdev", 80), {"type": STREAM}),
    "family 4 of address 4": (("127.0.0.1", 80), {"family": socket.AF_INET, "type": STREAM}),
    "family 6 of address 4": (("127.0.0.1", 80), {"family": socket.AF_INET6, "type": STREAM}),
    "family 4 of address 6": (("::1", 80), {"family": socket.AF_INET, "type": STREAM}),
    "family unix": (("127.0.0.1", 80), {"family": socket.AF_UNIX}),
    "short ipv4": (("127.1", 80), {"type": STREAM}),
    "integer ipv4": (("2130706433", 80), {"type": STREAM}),
    "hexadecimal ipv4": (("0x7f.1", 80), {"type": STREAM}),
    "octal ipv4": (("0177.0.0.1", 80), {"type": STREAM}),
    "leading zeros": (("127.0.0.01", 80), {"type": STREAM}),
    "too large ipv4": (("256.0.0.1", 80), {"type": STREAM, "flags": socket.AI_NUMERICHOST}),
    "numeric only": (("localhost", 80), {"flags": socket.AI_NUMERICHOST}),
    "numeric service only": (("127.0.0.1", "http"), {"flags": socket.AI_NUMERICSERV}),
    "localhost": (("localhost", 80), {"type": STREAM}),
    "localhost 4": (("localhost", 80), {"family": socket.AF_INET, "type": STREAM}),
    "localhost bytes": ((b"localhost", 80), {"type": STREAM}),
    "ipv4 bytes": ((b"127.0.0.1", 80), {"type": STREAM}),
    "nobody": ((None, 80), {"type": STREAM}),
    "nobody passive": ((None, 80), {"type": STREAM, "flags": socket.AI_PASSIVE}),
    "empty host": (("", 80), {"type": STREAM}),
    "no port": (("127.0.0.1", None), {"type": STREAM}),
    "port as text": (("127.0.0.1", "80"), {"type": STREAM}),
    "port as bytes": (("127.0.0.1", b"80"), {"type": STREAM}),
    "service": (("127.0.0.1", "http"), {"type": STREAM}),
    "service bytes": (("127.0.0.1", b"http"), {"type": STREAM}),
    "service unknown": (("127.0.0.1", "no-such-service"), {"type": STREAM}),
    "empty port": (("127.0.0.1", ""), {"type": STREAM}),
    "negative port": (("127.0.0.1", -1), {"type": STREAM}),
    "large port": (("127.0.0.1", 65536), {"type": STREAM}),
    "huge port": (("127.0.0.1", 2**70), {"type": STREAM}),
    "port of true": (("127.0.0.1", True), {"type": STREAM}),
    "canonical name": (("127.0.0.1", 80), {"type": STREAM, "flags": socket.AI_CANONNAME}),
    "bad flags": (("127.0.0.1", 80), {"type": STREAM, "flags": 1 << 30}),
    "bad type": (("127.0.0.1", 80), {"type": 77}),
    "bad proto": (("127.0.0.1", 80), {"type": STREAM, "proto": 255}),
    "neither": ((None, None), {}),
    "host of number": ((1, 80), {}),
    "host of list": (([], 80), {}),
    "port of float": (("127.0.0.1", 1.5), {}),
    "port of list": (("127.0.0.1", []), {}),
    "nul in host": (("127.0.0.1\0", 80), {"type": STREAM}),
    "nul in port": (("127.0.0.1", "80\0"), {"type": STREAM}),
    "surrogate": (("\udcff", 80), {"type": STREAM}),
    "long label": (("a" * 70, 80), {"type": STREAM}),
    "space": (("127.0.0.1 ", 80), {"type": STREAM}),
    "reserved top domain": (("no-such-host.invalid", 80), {"type": STREAM}),
}


@pytest.mark.parametrize("case", CASES)
def test_getaddrinfo_is_that_of_the_socket_module(loop, run, case):
    args, kwargs = CASES[case]

    async def main():
        try:
            return await loop.getaddrinfo(*args, **kwargs)
        except Exception as exc:
            return type(exc), exc.args

    assert run(main()) == outcome(socket.getaddrinfo, *args, **kwargs)


def test_types_of_the_result(loop, run):
    """Families and types are the enums that programs print and compare by identity."""
    ((family, kind, proto, name, address),) = run(
        loop.getaddrinfo("127.0.0.1", 80, type=STREAM, proto=socket.IPPROTO_TCP)
    )
    assert family is socket.AF_INET
    assert kind is socket.SOCK_STREAM
    assert type(proto) is int
    assert type(name) is str
    assert type(address) is tuple
    assert address == ("127.0.0.1", 80)


NAME_CASES = {
    "ipv4 numeric": ((("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV), {}),
    "ipv4 service": ((("127.0.0.1", 80), socket.NI_NUMERICHOST), {}),
    "ipv4 datagram service": ((("127.0.0.1", 53), socket.NI_NUMERICHOST | socket.NI_DGRAM), {}),
    "ipv6": ((("::1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV), {}),
    "ipv6 of four": ((("::1", 80, 0, 0), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV), {}),
    "scope": ((("fe80::1", 80, 0, 1), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV), {}),
    "host name": ((("localhost", 80), socket.NI_NUMERICHOST), {}),
    "by name": ((("127.0.0.1", 80), 0), {}),
    "not a tuple": (("127.0.0.1", 0), {}),
    "one too few": ((("127.0.0.1",), 0), {}),
    "port of text": ((("127.0.0.1", "80"), 0), {}),
    "none": ((None, 0), {}),
}


@pytest.mark.parametrize("case", NAME_CASES)
def test_getnameinfo_is_that_of_the_socket_module(loop, run, case):
    args, kwargs = NAME_CASES[case]

    async def main():
        try:
            return await loop.getnameinfo(*args, **kwargs)
        except Exception as exc:
            return type(exc), exc.args

    assert run(main()) == outcome(socket.getnameinfo, *args)


def test_flags_have_a_default(loop, run):
    assert run(loop.getnameinfo(("127.0.0.1", 80)))[1] == socket.getservbyport(80)
    assert run(loop.getnameinfo(("127.0.0.1", 80), flags=socket.NI_NUMERICSERV))[1] == "80"


def test_family_and_the_rest_are_keywords_only(loop):
    with pytest.raises(TypeError):
        loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET).send(None)
    with pytest.raises(TypeError):
        loop.getaddrinfo("127.0.0.1")


def test_host_and_port_are_keywords_too(loop, run):
    assert run(loop.getaddrinfo(host="127.0.0.1", port=1, type=STREAM))[0][4] == ("127.0.0.1", 1)


class TestReplacedByTheProgram:
    """Test suites and proxies put their own function in the place of socket.getaddrinfo."""

    def test_getaddrinfo(self, loop, run, monkeypatch):
        calls = []

        def fake(*args, **kwargs):
            calls.append((args, kwargs))
            return [(socket.AF_INET, STREAM, 6, "", ("127.0.0.9", 9))]

        monkeypatch.setattr(socket, "getaddrinfo", fake)
        result = run(loop.getaddrinfo("faked.example", 9, type=STREAM))
        assert result == [(socket.AF_INET, STREAM, 6, "", ("127.0.0.9", 9))]
        ((args, kwargs),) = calls
        assert args[:2] == ("faked.example", 9)
        assert STREAM in (*args, *kwargs.values())

    def test_before_oxloop_is_imported(self, loop_name, tmp_path):
        """It looks like the one that it replaces."""
        (tmp_path / "sitecustomize.py").write_text("""
import functools
import socket

original = socket.getaddrinfo

@functools.wraps(original)
def getaddrinfo(*args, **kwargs):
    print(args[0])
    return original(*args, **kwargs)

socket.getaddrinfo = getaddrinfo
""")
        program = """
            loop = new_event_loop()
            loop.run_until_complete(loop.getaddrinfo("127.0.0.9", 9))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        """
        output = output_of(loop_name, program, env={"PYTHONPATH": str(tmp_path)})
        assert output == "127.0.0.9\n"

    def test_its_exception(self, loop, run, monkeypatch):
        def fake(*args, **kwargs):
            raise LookupError("no names today")

        monkeypatch.setattr(socket, "getaddrinfo", fake)
        with pytest.raises(LookupError, match="no names today"):
            run(loop.getaddrinfo("faked.example", 9))

    def test_getnameinfo(self, loop, run, monkeypatch):
        monkeypatch.setattr(socket, "getnameinfo", lambda address, flags: ("faked", "name"))
        assert run(loop.getnameinfo(("127.0.0.1", 80))) == ("faked", "name")

    def test_create_connection_goes_through_it(self, loop, run, monkeypatch):
        from support.peers import Listener, echo

        with Listener(echo) as listener:

            def fake(host, port, *args, **kwargs):
                assert host == "faked.example"
                return [(socket.AF_INET, STREAM, 6, "", listener.address)]

            monkeypatch.setattr(socket, "getaddrinfo", fake)

            async def main():
                transport, _ = await loop.create_connection(asyncio.Protocol, "faked.example", 9)
                assert transport.get_extra_info("peername") == listener.address
                transport.close()
                await asyncio.sleep(0.001)

            run(main())

    def test_getaddrinfo_of_the_loop_replaced_on_the_instance(self, loop, run):
        from support.peers import Listener, echo

        with Listener(echo) as listener:

            async def fake(host, port, *, family=0, type=0, proto=0, flags=0):
                return [(socket.AF_INET, STREAM, 6, "", listener.address)]

            loop.getaddrinfo = fake

            async def main():
                transport, _ = await loop.create_connection(asyncio.Protocol, "faked.example", 9)
                assert transport.get_extra_info("peername") == listener.address
                transport.close()
                await asyncio.sleep(0.001)

            run(main())


class TestWaiting:
    @pytest.fixture
    def slow(self, monkeypatch):
        """A resolver that answers when it is released."""
        release, entered = threading.Event(), threading.Semaphore(0)

        def getaddrinfo(*args, **kwargs):
            entered.release()
            release.wait(20)
            return [(socket.AF_INET, STREAM, 6, "", ("127.0.0.1", args[1]))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield release, entered
        release.set()

    def test_the_loop_runs_meanwhile(self, loop, run, slow):
        release, _ = slow

        async def main():
            lookup = asyncio.ensure_future(loop.getaddrinfo("slow.example", 1))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not lookup.done()
            release.set()
            assert (await lookup)[0][4] == ("127.0.0.1", 1)

        run(main())

    def test_cancelled(self, loop, run, slow):
        release, entered = slow

        async def main():
            lookup = asyncio.ensure_future(loop.getaddrinfo("slow.example", 1))
            while not entered.acquire(blocking=False):
                await asyncio.sleep(0.001)
            lookup.cancel()
            with pytest.raises(asyncio.CancelledError):
                await lookup
            release.set()
            await asyncio.sleep(0.02)
            assert lookup.cancelled()

        run(main())

    def test_timed_out(self, loop, run, slow):
        async def main():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.getaddrinfo("slow.example", 1), 0.01)

        try:
            run(main())
        finally:
            slow[0].set()

    def test_connection_timed_out_in_the_lookup(self, loop, run, slow):
        async def main():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(
                    loop.create_connection(asyncio.Protocol, "slow.example", 1), 0.01
                )

        try:
            run(main())
        finally:
            slow[0].set()

    def test_loop_closed_during_the_lookup(self, loop_factory, slow):
        release, entered = slow
        loop = loop_factory()
        task = loop.create_task(loop.getaddrinfo("slow.example", 1))
        task._log_destroy_pending = False
        for _ in range(100):
            loop.run_until_complete(asyncio.sleep(0.001))
            if entered.acquire(blocking=False):
                break
        timer = threading.Timer(0.02, release.set)
        timer.start()
        loop.close()
        assert not task.done()
        timer.join()

    def test_several_at_once(self, loop, run):
        async def main():
            lookups = [loop.getaddrinfo("localhost", port, type=STREAM) for port in range(60)]
            return await asyncio.gather(*lookups)

        results = run(main())
        assert [result[0][4][1] for result in results] == list(range(60))
