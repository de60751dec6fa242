"""create_connection and create_unix_connection: every keyword, every refusal."""

import asyncio
import errno
import os
import pathlib
import socket

import pytest

from support.peers import Listener, Unresponsive, echo, turns, unix_pair, until
from support.protocols import Recorder

STREAM = socket.SOCK_STREAM


@pytest.fixture
def listener():
    with Listener(echo) as listener:
        yield listener


@pytest.fixture
def listener6():
    with Listener(echo, socket.AF_INET6, ("::1", 0)) as listener:
        yield listener


async def closed(transport, protocol):
    transport.close()
    await until(lambda: protocol.is_lost)


def resolve_to(loop, *addresses):
    """Makes the loop resolve every name to ``addresses``, in that order."""

    async def getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0):
        return [
            (
                socket.AF_INET6 if ":" in address[0] else socket.AF_INET,
                STREAM,
                socket.IPPROTO_TCP,
                "",
                address,
            )
            for address in addresses
        ]

    loop.getaddrinfo = getaddrinfo


class TestTcp:
    @pytest.mark.both_modes
    def test_connects_and_talks(self, loop, run, listener):
        async def main():
            transport, protocol = await loop.create_connection(Recorder, *listener.address)
            assert protocol.transport is transport
            assert protocol.calls == ["made"]
            transport.write(b"to be echoed")
            await until(lambda: protocol.received == b"to be echoed")
            await closed(transport, protocol)
            assert protocol.lost_with == [None]

        run(main())

    def test_the_factory_is_called_once_and_its_protocol_returned(self, loop, run, listener):
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        async def main():
            transport, protocol = await loop.create_connection(factory, *listener.address)
            assert [protocol] == made
            assert transport.get_protocol() is protocol
            await closed(transport, protocol)

        run(main())

    def test_by_name(self, loop, run, listener):
        async def main():
            transport, protocol = await loop.create_connection(
                Recorder, "localhost", listener.address[1]
            )
            assert transport.get_extra_info("peername") == listener.address
            await closed(transport, protocol)

        run(main())

    def test_port_as_text_and_host_as_bytes(self, loop, run, listener):
        async def main():
            port = str(listener.address[1])
            transport, protocol = await loop.create_connection(Recorder, b"127.0.0.1", port)
            await closed(transport, protocol)

        run(main())

    def test_ipv6(self, loop, run, listener6):
        async def main():
            transport, protocol = await loop.create_connection(Recorder, *listener6.address[:2])
            assert transport.get_extra_info("peername")[:2] == listener6.address[:2]
            assert len(transport.get_extra_info("sockname")) == 4
            await closed(transport, protocol)

        run(main())

    def test_keywords_host_port_family_proto_flags(self, loop, run, listener):
        host, port = listener.address

        async def main():
            transport, protocol = await loop.create_connection(
                protocol_factory=Recorder,
                host=host,
                port=port,
                family=socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            await closed(transport, protocol)

        run(main())

    def test_nodelay_is_set(self, loop, run, listener):
        async def main():
            transport, protocol = await loop.create_connection(Recorder, *listener.address)
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            await closed(transport, protocol)

        run(main())

    def test_many_at_once(self, loop, run, listener):
        async def one(number):
            transport, protocol = await loop.create_connection(Recorder, *listener.address)
            transport.write(b"%d" % number)
            await until(lambda: protocol.received == b"%d" % number)
            await closed(transport, protocol)

        async def main():
            await asyncio.gather(*(one(number) for number in range(50)))

        run(main())


class TestSock:
    def test_connected_socket(self, loop, run, listener):
        sock = socket.create_connection(listener.address)

        async def main():
            transport, protocol = await loop.create_connection(Recorder, sock=sock)
            assert sock.gettimeout() == 0
            assert transport.get_extra_info("socket").fileno() == sock.fileno()
            transport.write(b"x")
            await until(lambda: protocol.received == b"x")
            await closed(transport, protocol)
            assert sock.fileno() == -1

        run(main())

    def test_unix_socket(self, loop, run):
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.create_connection(Recorder, sock=near)
            far.send(b"x")
            await until(lambda: protocol.received == b"x")
            await closed(transport, protocol)

        run(main())
        far.close()

    def test_with_host_and_port(self, loop, run, listener):
        with socket.socket() as sock:
            expected = r"^host/port and sock can not be specified at the same time$"
            for where in ({"host": "127.0.0.1"}, {"port": 1}, {"host": "x", "port": 1}):
                with pytest.raises(ValueError, match=expected):
                    run(loop.create_connection(Recorder, sock=sock, **where))

    def test_datagram_socket(self, loop, run):
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError, match=r"^A Stream Socket was expected, got <socket"):
                run(loop.create_connection(Recorder, sock=sock))
            assert sock.fileno() != -1

    def test_nothing_at_all(self, loop, run):
        expected = r"^host and port was not specified and no sock specified$"
        with pytest.raises(ValueError, match=expected):
            run(loop.create_connection(Recorder))


class TestRefusals:
    def test_refused(self, loop, run, unused_port):
        with pytest.raises(ConnectionRefusedError) as caught:
            run(loop.create_connection(Recorder, "127.0.0.1", unused_port))
        assert caught.value.errno == errno.ECONNREFUSED
        expected = f"[Errno 111] Connect call failed ('127.0.0.1', {unused_port})"
        assert str(caught.value) == expected

    def test_name_that_does_not_resolve(self, loop, run):
        with pytest.raises(socket.gaierror) as caught:
            run(loop.create_connection(Recorder, "no-such-host.invalid", 80))
        with pytest.raises(socket.gaierror) as expected:
            socket.getaddrinfo("no-such-host.invalid", 80, type=STREAM)
        assert caught.value.args == expected.value.args

    def test_family_that_does_not_fit(self, loop, run):
        with pytest.raises(socket.gaierror):
            run(loop.create_connection(Recorder, "127.0.0.1", 80, family=socket.AF_INET6))

    def test_resolver_that_finds_nothing(self, loop, run):
        resolve_to(loop)
        with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
            run(loop.create_connection(Recorder, "faked.example", 1))

    @pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
    def test_tls_timeouts_without_tls(self, loop, run, name):
        with pytest.raises(ValueError, match=rf"^{name} is only meaningful with ssl$"):
            run(loop.create_connection(Recorder, "127.0.0.1", 1, **{name: 1}))

    def test_server_hostname_without_tls(self, loop, run):
        expected = r"^server_hostname is only meaningful with ssl$"
        with pytest.raises(ValueError, match=expected):
            run(loop.create_connection(Recorder, "127.0.0.1", 1, server_hostname="name"))

    def test_tls_without_a_host(self, loop, run):
        expected = r"^You must set server_hostname when using ssl without a host$"
        with socket.socket() as sock, pytest.raises(ValueError, match=expected):
            run(loop.create_connection(Recorder, sock=sock, ssl=True))

    def test_unknown_keyword(self, loop):
        with pytest.raises(TypeError):
            loop.create_connection(Recorder, "127.0.0.1", 1, hostname="x")
        with pytest.raises(TypeError):
            loop.create_connection(Recorder, "127.0.0.1", 1, None)
        with pytest.raises(TypeError):
            loop.create_connection()

    def test_not_a_factory(self, loop, run, listener):
        with pytest.raises(TypeError, match="not callable"):
            self._closing(run, listener, loop, None)

    def test_factory_that_raises(self, loop, run, listener):
        def factory():
            raise LookupError("no protocol today")

        with pytest.raises(LookupError, match="no protocol today"):
            self._closing(run, listener, loop, factory)

    def _closing(self, run, listener, loop, factory):
        """Older Pythons leave the socket to its caller, so the caller closes it."""
        sock = socket.create_connection(listener.address)
        try:
            run(loop.create_connection(factory, sock=sock))
        finally:
            sock.close()


class TestSeveralAddresses:
    def test_the_next_is_tried(self, loop, run, listener, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), listener.address)

        async def main():
            transport, protocol = await loop.create_connection(Recorder, "faked.example", 1)
            assert transport.get_extra_info("peername") == listener.address
            await closed(transport, protocol)

        run(main())

    def test_all_fail_alike(self, loop, run, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), ("127.0.0.1", unused_port))
        with pytest.raises(ConnectionRefusedError) as caught:
            run(loop.create_connection(Recorder, "faked.example", 1))
        expected = f"[Errno 111] Connect call failed ('127.0.0.1', {unused_port})"
        assert str(caught.value) == expected

    def test_all_fail_differently(self, loop, run, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), ("127.0.0.2", unused_port))
        with pytest.raises(OSError, match=r"^Multiple exceptions: ") as caught:
            run(loop.create_connection(Recorder, "faked.example", 1))
        assert type(caught.value) is OSError
        assert str(caught.value) == (
            f"Multiple exceptions: [Errno 111] Connect call failed ('127.0.0.1', {unused_port}),"
            f" [Errno 111] Connect call failed ('127.0.0.2', {unused_port})"
        )

    @pytest.mark.asyncio_since(3, 12)
    def test_all_errors(self, loop, run, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), ("127.0.0.2", unused_port))
        with pytest.raises(ExceptionGroup) as caught:
            run(loop.create_connection(Recorder, "faked.example", 1, all_errors=True))
        assert caught.value.message == "create_connection failed"
        assert [type(exc) for exc in caught.value.exceptions] == [ConnectionRefusedError] * 2

    @pytest.mark.asyncio_since(3, 12)
    def test_all_errors_of_one(self, loop, run, unused_port):
        with pytest.raises(ExceptionGroup) as caught:
            run(loop.create_connection(Recorder, "127.0.0.1", unused_port, all_errors=True))
        (exception,) = caught.value.exceptions
        assert isinstance(exception, ConnectionRefusedError)

    def test_interleave(self, loop, run, unused_port):
        """With interleave=1 the families take turns; the errors tell the order."""
        four = [(f"127.0.0.{n}", unused_port) for n in (1, 2, 3)]
        six = [("::1", unused_port, 0, 0)]
        resolve_to(loop, *four, *six)
        with pytest.raises(OSError, match="Multiple exceptions") as caught:
            run(loop.create_connection(Recorder, "faked.example", 1, interleave=1))
        text = str(caught.value)
        places = [text.index(f"('{host}'") for host in ("127.0.0.1", "::1", "127.0.0.2")]
        assert places == sorted(places)

    def test_interleave_with_two_of_the_first_family(self, loop, run, unused_port):
        four = [(f"127.0.0.{n}", unused_port) for n in (1, 2, 3)]
        resolve_to(loop, *four, ("::1", unused_port, 0, 0))
        with pytest.raises(OSError, match="Multiple exceptions") as caught:
            run(loop.create_connection(Recorder, "faked.example", 1, interleave=2))
        text = str(caught.value)
        hosts = ("127.0.0.1", "127.0.0.2", "::1", "127.0.0.3")
        places = [text.index(f"('{host}'") for host in hosts]
        assert places == sorted(places)


class TestHappyEyeballs:
    def test_the_second_wins_when_the_first_hangs(self, loop, run, listener):
        with Unresponsive() as hanging:
            resolve_to(loop, hanging.address, listener.address)

            async def main():
                transport, protocol = await loop.create_connection(
                    Recorder, "faked.example", 1, happy_eyeballs_delay=0.02
                )
                assert transport.get_extra_info("peername") == listener.address
                await closed(transport, protocol)

            run(main())

    def test_a_failure_starts_the_next_at_once(self, loop, run, listener, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), listener.address)

        async def main():
            started = loop.time()
            transport, protocol = await loop.create_connection(
                Recorder, "faked.example", 1, happy_eyeballs_delay=15
            )
            assert loop.time() - started < 10
            await closed(transport, protocol)

        run(main())

    def test_the_first_wins_when_it_answers(self, loop, run, listener, unused_port):
        resolve_to(loop, listener.address, ("127.0.0.1", unused_port))

        async def main():
            transport, protocol = await loop.create_connection(
                Recorder, "faked.example", 1, happy_eyeballs_delay=5
            )
            assert transport.get_extra_info("peername") == listener.address
            await closed(transport, protocol)

        run(main())

    def test_all_fail(self, loop, run, unused_port):
        resolve_to(loop, ("127.0.0.1", unused_port), ("127.0.0.2", unused_port))
        with pytest.raises(OSError, match="Multiple exceptions"):
            run(loop.create_connection(Recorder, "faked", 1, happy_eyeballs_delay=0.01))

    def test_families_take_turns_by_default(self, loop, run, listener6):
        """The IPv6 address comes second although it was resolved third: the second answers too."""
        with Unresponsive() as one, Listener(echo, address=("127.0.0.2", 0)) as two:
            resolve_to(loop, one.address, two.address, listener6.address)

            async def main():
                transport, protocol = await loop.create_connection(
                    Recorder, "faked.example", 1, happy_eyeballs_delay=0.5
                )
                assert transport.get_extra_info("peername")[0] == "::1"
                await closed(transport, protocol)

            run(main())

    def test_cancelled(self, loop, run):
        with Unresponsive() as one, Unresponsive(host="127.0.0.2") as two:
            resolve_to(loop, one.address, two.address)

            async def main():
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(
                        loop.create_connection(
                            Recorder, "faked.example", 1, happy_eyeballs_delay=0.01
                        ),
                        0.05,
                    )

            run(main())


class TestLocalAddress:
    def test_is_bound(self, loop, run, listener):
        async def main():
            transport, protocol = await loop.create_connection(
                Recorder, *listener.address, local_addr=("127.0.0.3", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.3"
            await closed(transport, protocol)

        run(main())

    def test_by_name(self, loop, run, listener):
        async def main():
            transport, protocol = await loop.create_connection(
                Recorder, *listener.address, local_addr=("localhost", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.1"
            await closed(transport, protocol)

        run(main())

    def test_in_use(self, loop, run, listener):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = taken.getsockname()
            with pytest.raises(
                OSError, match="error while attempting to bind on address"
            ) as caught:
                run(loop.create_connection(Recorder, *listener.address, local_addr=address))
        assert caught.value.errno == errno.EADDRINUSE
        assert f"{address!r}" in str(caught.value)
        assert "address already in use" in str(caught.value)

    def test_not_of_this_machine(self, loop, run, listener):
        with pytest.raises(OSError, match="error while attempting to bind on address") as caught:
            run(loop.create_connection(Recorder, *listener.address, local_addr=("192.0.2.1", 0)))
        assert caught.value.errno == errno.EADDRNOTAVAIL

    def test_of_another_family(self, loop, run, listener):
        with pytest.raises(OSError, match="no matching local address with family="):
            run(loop.create_connection(Recorder, *listener.address, local_addr=("::1", 0)))

    def test_that_does_not_resolve(self, loop, run, listener):
        with pytest.raises(socket.gaierror):
            run(
                loop.create_connection(
                    Recorder, *listener.address, local_addr=("no-such-host.invalid", 0)
                )
            )


class TestOwnSockConnect:
    """A sock_connect that a program put on its loop makes the connections."""

    @pytest.fixture
    def seen(self, loop):
        """The addresses that the loop's sock_connect was called with."""
        seen, connect = [], loop.sock_connect

        async def sock_connect(sock, address):
            assert sock.gettimeout() == 0
            seen.append(address)
            await connect(sock, address)

        loop.sock_connect = sock_connect
        return seen

    @pytest.mark.parametrize("delay", [None, 5], ids=["in turn", "staggered"])
    def test_on_the_instance(self, loop, run, listener, unused_port, seen, delay):
        refused = ("127.0.0.1", unused_port)
        resolve_to(loop, refused, listener.address)

        async def main():
            transport, protocol = await loop.create_connection(
                Recorder, "faked.example", 1, happy_eyeballs_delay=delay
            )
            transport.write(b"to be echoed")
            await until(lambda: protocol.received == b"to be echoed")
            await closed(transport, protocol)

        run(main())
        assert seen == [refused, listener.address]

    def test_to_a_path(self, loop, run, tmp_path, seen):
        path = str(tmp_path / "socket")

        async def main():
            with Listener(echo, socket.AF_UNIX, path):
                await closed(*await loop.create_unix_connection(Recorder, path))

        run(main())
        assert seen == [path]

    def test_of_a_datagram_endpoint(self, loop, run, seen):
        async def main():
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=("127.0.0.1", 9)
            )
            transport.close()
            await turns()

        run(main())
        assert seen == [("127.0.0.1", 9)]

    @pytest.mark.parametrize("error", [ConnectionAbortedError("by policy"), LookupError("policy")])
    def test_what_it_raises(self, loop, run, listener, error):
        def sock_connect(sock, address):
            raise error

        loop.sock_connect = sock_connect
        with pytest.raises(type(error), match="policy"):
            run(loop.create_connection(Recorder, *listener.address))

    def test_taken_away_again(self, loop, run, listener, seen):
        del loop.sock_connect

        async def main():
            await closed(*await loop.create_connection(Recorder, *listener.address))

        run(main())
        assert seen == []

    def test_of_a_subclass(self, loop, listener):
        seen = []

        class Tracing(type(loop)):
            async def sock_connect(self, sock, address):
                seen.append(address)
                await super().sock_connect(sock, address)

        async def main():
            loop = asyncio.get_running_loop()
            await closed(*await loop.create_connection(Recorder, *listener.address))

        with asyncio.Runner(loop_factory=Tracing) as runner:
            runner.run(main())
        assert seen == [listener.address]


class TestCancellation:
    def test_before_its_first_step(self, loop, run, listener):
        async def main():
            task = loop.create_task(loop.create_connection(Recorder, *listener.address))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        run(main())


class TestUnix:
    @pytest.fixture
    def path(self, tmp_path):
        return str(tmp_path / "socket")

    @pytest.fixture
    def unix_listener(self, path):
        with Listener(echo, socket.AF_UNIX, path) as listener:
            yield listener

    @pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "path"])
    def test_path(self, loop, run, path, unix_listener, kind):
        async def main():
            transport, protocol = await loop.create_unix_connection(Recorder, kind(path))
            assert transport.get_extra_info("peername") == path
            transport.write(b"x")
            await until(lambda: protocol.received == b"x")
            await closed(transport, protocol)

        run(main())

    def test_sock(self, loop, run):
        near, far = unix_pair()

        async def main():
            transport, protocol = await loop.create_unix_connection(Recorder, sock=near)
            far.send(b"x")
            await until(lambda: protocol.received == b"x")
            await closed(transport, protocol)

        run(main())
        far.close()

    def test_nobody_there(self, loop, run, path):
        with pytest.raises(FileNotFoundError):
            run(loop.create_unix_connection(Recorder, path))

    def test_refused(self, loop, run, path):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with pytest.raises(ConnectionRefusedError):
            run(loop.create_unix_connection(Recorder, path))

    def test_path_too_long(self, loop, run):
        with pytest.raises(OSError, match="AF_UNIX path too long"):
            run(loop.create_unix_connection(Recorder, "/" + "x" * 200))

    def test_path_of_a_wrong_type(self, loop, run):
        with pytest.raises(TypeError):
            run(loop.create_unix_connection(Recorder, 5))

    def test_arguments_that_exclude_each_other(self, loop, run, path):
        near, far = unix_pair()
        with near, far:
            expected = r"^path and sock can not be specified at the same time$"
            with pytest.raises(ValueError, match=expected):
                run(loop.create_unix_connection(Recorder, path, sock=near))
        with pytest.raises(ValueError, match=r"^no path and sock were specified$"):
            run(loop.create_unix_connection(Recorder))
        with pytest.raises(ValueError, match=r"^server_hostname is only meaningful with ssl$"):
            run(loop.create_unix_connection(Recorder, path, server_hostname="x"))
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=rf"^{name} is only meaningful with ssl$"):
                run(loop.create_unix_connection(Recorder, path, **{name: 1}))
        expected = r"^you have to pass server_hostname when using ssl$"
        with pytest.raises(ValueError, match=expected):
            run(loop.create_unix_connection(Recorder, path, ssl=True))

    @pytest.mark.parametrize(
        ("family", "kind"),
        [(socket.AF_INET, STREAM), (socket.AF_UNIX, socket.SOCK_DGRAM)],
        ids=["inet", "datagram"],
    )
    def test_socket_of_a_wrong_kind(self, loop, run, family, kind):
        expected = r"^A UNIX Domain Stream Socket was expected, got <socket"
        with socket.socket(family, kind) as sock, pytest.raises(ValueError, match=expected):
            run(loop.create_unix_connection(Recorder, sock=sock))


class TestAcceptedSocket:
    @pytest.mark.both_modes
    def test_tcp(self, loop, run):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            conn, _ = listener.accept()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(Recorder, conn)
            assert type(protocol) is Recorder
            client.send(b"x")
            await until(lambda: protocol.received == b"x")
            assert transport.get_extra_info("peername") == client.getsockname()
            await closed(transport, protocol)

        run(main())
        client.close()

    def test_datagram_socket(self, loop, run):
        expected = r"^A Stream Socket was expected, got <socket"
        with (
            socket.socket(type=socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match=expected),
        ):
            run(loop.connect_accepted_socket(Recorder, sock))

    @pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
    def test_tls_timeouts_without_tls(self, loop, run, name):
        near, far = unix_pair()
        with near, far, pytest.raises(ValueError, match=rf"^{name} is only meaningful with ssl$"):
            run(loop.connect_accepted_socket(Recorder, near, **{name: 1}))


def test_coroutine_never_awaited_does_nothing(loop):
    """The work begins with the first step, not with the call."""
    made = []
    coro = loop.create_connection(lambda: made.append(1), "127.0.0.1", 1)
    coro.close()
    assert made == []


class Noting(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes that something came."""

    def __init__(self, order):
        self.order = order

    def data_received(self, data):
        self.order.append("data")

    def datagram_received(self, data, address):
        self.order.append("data")


def over_a_socket(method):
    async def connect(loop, factory):
        ours, theirs = unix_pair()
        theirs.send(b"first")
        transport, _ = await getattr(loop, method)(factory, sock=ours)
        return transport, theirs

    return connect


async def over_datagrams(loop, factory):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    theirs.send(b"first")
    transport, _ = await loop.create_datagram_endpoint(factory, sock=ours)
    return transport, theirs


async def over_a_pipe(loop, factory):
    reading, writing = os.pipe()
    os.write(writing, b"first")
    transport, _ = await loop.connect_read_pipe(factory, os.fdopen(reading, "rb", 0))
    return transport, os.fdopen(writing, "wb", 0)


@pytest.mark.parametrize(
    "connect",
    [
        over_a_socket("create_connection"),
        over_a_socket("create_unix_connection"),
        over_a_socket("connect_accepted_socket"),
        over_datagrams,
        over_a_pipe,
    ],
    ids=["socket", "Unix socket", "accepted socket", "datagrams", "pipe"],
)
def test_data_does_not_overtake_the_connecting_coroutine(loop, run, connect):
    async def main():
        order = []
        transport, peer = await connect(loop, lambda: Noting(order))
        order.append("returned")
        await until(lambda: "data" in order)
        transport.close()
        peer.close()
        return order

    assert run(main()) == ["returned", "data"]


def test_data_of_a_server_on_the_same_loop_does_not_overtake_it(loop, run):
    class Speaks(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"first")

    async def main():
        order = []
        server = await loop.create_server(Speaks, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(lambda: Noting(order), *address)
        order.append("returned")
        await until(lambda: "data" in order)
        transport.abort()
        server.close()
        return order

    assert run(main()) == ["returned", "data"]
