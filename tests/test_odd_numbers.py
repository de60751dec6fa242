"""Numbers that a program may give by mistake, and what refuses them, when, and in which words."""

import array
import asyncio
import socket
import sys
from decimal import Decimal

import pytest

from support.peers import shut
from support.protocols import Echo

HUGE = [2**31, 2**40, 2**63, 2**70, -(2**31) - 1, -(2**63), -(2**70)]
NO_NUMBERS = [1.0, float("nan"), "1", b"1", None, Decimal(1), [], ()]
NO_INTEGER = "'NoneType' object cannot be interpreted as an integer"

# The one that would be cleaned up is in the hands of asyncio's loop, for good.
NO_CLEANUP = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

# asyncio leaves the socket whose listen() failed to the collector.
abandons_a_socket = pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


class Index:
    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number

    def __repr__(self):
        return f"Index({self.number})"


class Unusable:
    def __index__(self):
        raise ZeroDivisionError("no index")

    def __repr__(self):
        return "Unusable()"


def refusal(call, *arguments):
    """The class and the words of what the call raises."""
    try:
        call(*arguments)
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("it was not refused")


async def refusal_of(coroutine):
    try:
        await coroutine
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("it was not refused")


@pytest.mark.parametrize("backlog", [*HUGE, *NO_NUMBERS, Index(2**40), Unusable()], ids=repr)
class TestBacklog:
    @pytest.fixture
    def refused(self, backlog):
        """What listen() says of it."""
        with socket.socket() as sock:
            return refusal(sock.listen, backlog)

    @abandons_a_socket
    def test_of_an_address(self, loop, run, backlog, refused):
        async def main():
            listening = loop.create_server(Echo, "127.0.0.1", 0, backlog=backlog)
            assert await refusal_of(listening) == refused

        run(main())

    def test_of_a_socket(self, loop, run, backlog, refused):
        async def main():
            with socket.socket() as sock:
                listening = loop.create_server(Echo, sock=sock, backlog=backlog)
                assert await refusal_of(listening) == refused
                assert sock.fileno() != -1

        run(main())

    @abandons_a_socket
    def test_of_a_path(self, loop, run, tmp_path, backlog, refused):
        async def main():
            path = str(tmp_path / "socket")
            listening = loop.create_unix_server(Echo, path, backlog=backlog, **NO_CLEANUP)
            assert await refusal_of(listening) == refused

        run(main())

    def test_of_a_server_that_serves_later(self, loop, run, backlog, refused):
        async def main():
            server = await loop.create_server(
                Echo, "127.0.0.1", 0, backlog=backlog, start_serving=False
            )
            assert server._backlog is backlog
            assert await refusal_of(server.start_serving()) == refused
            await shut(server)

        run(main())

    def test_is_looked_at_last(self, loop, run, tmp_path, backlog):
        async def main():
            path = str(tmp_path / "no directory" / "socket")
            with pytest.raises(FileNotFoundError):
                await loop.create_unix_server(Echo, path, backlog=backlog)
            with pytest.raises(ValueError, match="path was not specified"):
                await loop.create_unix_server(Echo, backlog=backlog)
            with pytest.raises(ValueError, match="Neither host/port nor sock"):
                await loop.create_server(Echo, backlog=backlog)
            with pytest.raises(TypeError, match="ssl argument must be an SSLContext"):
                await loop.create_server(Echo, "127.0.0.1", 0, ssl=True, backlog=backlog)

        run(main())


@pytest.mark.parametrize("backlog", [True, 2**31 - 1], ids=repr)
def test_backlogs_that_are_numbers(loop, run, backlog):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=backlog)
        assert server._backlog is backlog
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()
        await shut(server)

    run(main())


class TestNone:
    """It is no default of a number."""

    @pytest.mark.parametrize("name", ["family", "type", "proto", "flags"])
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_getaddrinfo(self, loop, run, host, name):
        async def main():
            await loop.getaddrinfo(host, 80, **{name: None})

        with pytest.raises(TypeError, match=NO_INTEGER):
            run(main())

    def test_getnameinfo(self, loop, run):
        with pytest.raises(TypeError, match=NO_INTEGER):
            run(loop.getnameinfo(("127.0.0.1", 80), None))

    @pytest.mark.parametrize("name", ["family", "proto", "flags"])
    def test_create_connection(self, loop, run, name):
        async def main():
            await loop.create_connection(Echo, "localhost", 1, **{name: None})

        with pytest.raises(TypeError, match=NO_INTEGER):
            run(main())

    @pytest.mark.parametrize("name", ["family", "flags"])
    def test_create_server(self, loop, run, name):
        async def main():
            await loop.create_server(Echo, "localhost", 0, **{name: None})

        with pytest.raises(TypeError, match=NO_INTEGER):
            run(main())

    @pytest.mark.parametrize("name", ["family", "proto", "flags"])
    def test_create_datagram_endpoint(self, loop, run, name):
        async def main():
            await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("localhost", 0), **{name: None}
            )

        with pytest.raises(TypeError, match=NO_INTEGER):
            run(main())

    def test_create_datagram_endpoint_without_an_address(self, loop, run):
        with pytest.raises(TypeError, match=NO_INTEGER):
            run(loop.create_datagram_endpoint(asyncio.DatagramProtocol, family=None))


@pytest.mark.parametrize("family", [1.0, True, Decimal(1)], ids=repr)
def test_a_family_that_equals_af_unix(loop, run, family):
    async def main():
        await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", 0), family=family
        )

    with pytest.raises(TypeError, match="string is expected"):
        run(main())


class TestProtocols:
    """A numeric host is not looked up if its protocol is among those that asyncio knows."""

    @pytest.fixture
    def listener(self):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener

    @pytest.mark.parametrize("proto", [6.0, Decimal(0), False], ids=repr)
    def test_equal_to_one(self, loop, run, listener, proto):
        async def main():
            address = listener.getsockname()
            transport, _ = await loop.create_connection(asyncio.Protocol, *address, proto=proto)
            transport.close()

        run(main())

    def test_that_cannot_be_looked_for(self, loop, run, listener):
        async def main():
            await loop.create_connection(asyncio.Protocol, *listener.getsockname(), proto=[])

        with pytest.raises(TypeError, match="unhashable"):
            run(main())


FOUR = [(socket.AF_INET, ("127.0.0.1", number)) for number in (1, 2, 3)]
SIX = [(socket.AF_INET6, ("::1", number, 0, 0)) for number in (4, 5)]


class TestInterleave:
    @pytest.fixture
    def order(self, loop):
        """Goes through the addresses of a host, and returns their numbers in the order."""
        tried = []

        async def getaddrinfo(*arguments, **keywords):
            return [
                (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
                for family, address in FOUR + SIX
            ]

        async def sock_connect(sock, address):
            tried.append(address[1])
            raise ConnectionRefusedError("not today")

        loop.getaddrinfo, loop.sock_connect = getaddrinfo, sock_connect

        async def order(interleave):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(Echo, "host", 80, interleave=interleave)
            return tried

        yield order
        del loop.getaddrinfo, loop.sock_connect

    @pytest.mark.parametrize(
        ("interleave", "expected"),
        [
            (0, [1, 2, 3, 4, 5]),
            (0.0, [1, 2, 3, 4, 5]),
            (1, [1, 4, 2, 5, 3]),
            (1.0, [1, 4, 2, 5, 3]),
            (0.5, [1, 4, 2, 5, 3]),
            (-1, [1, 4, 2, 5, 3]),
            (-(2**63), [1, 4, 2, 5, 3]),
            (-(2**70), [1, 4, 2, 5, 3]),
            (float("nan"), [1, 4, 2, 5, 3]),
            (Decimal(1), [1, 4, 2, 5, 3]),
            (2, [1, 2, 4, 3, 5]),
            (3, [1, 2, 3, 4, 5]),
            (4, [1, 2, 3, 4, 5]),
            (2**63 - 1, [1, 2, 3, 4, 5]),
            (2**63, [1, 2, 3, 4, 5]),
            (2**70, [1, 2, 3, 4, 5]),
        ],
        ids=repr,
    )
    def test_order(self, run, order, interleave, expected):
        assert run(order(interleave)) == expected

    @pytest.mark.parametrize("interleave", [1.5, float("inf"), Decimal(2)], ids=repr)
    def test_what_cannot_end_a_slice(self, run, order, interleave):
        with pytest.raises(TypeError, match="slice indices must be integers"):
            run(order(interleave))

    @pytest.mark.parametrize("interleave", ["1", Index(1), Unusable()], ids=repr)
    def test_what_cannot_be_compared(self, run, order, interleave):
        with pytest.raises(TypeError, match=r"^'>' not supported between instances of"):
            run(order(interleave))


class TestSendfile:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"some data")
        with path.open("rb") as file:
            yield file

    async def of_socket(self, loop, sock, file, count):
        return await loop.sock_sendfile(sock, file, 0, count)

    async def of_transport(self, loop, sock, file, count):
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        try:
            return await loop.sendfile(transport, file, 0, count)
        finally:
            transport.close()

    @pytest.mark.parametrize("count", [2**63 - 1, 2**63, 2**70], ids=repr)
    @pytest.mark.parametrize("way", ["of_socket", "of_transport"])
    def test_counts_past_any_file(self, loop, run, file, way, count):
        """Old versions of asyncio pass the count on to sendfile(2), which cannot take it."""

        async def outcome(loop):
            near, far = socket.socketpair()
            near.setblocking(False)
            file.seek(3)
            with near, far:
                try:
                    sent = await getattr(self, way)(loop, near, file, count)
                except OverflowError as error:
                    return str(error), file.tell()
                return sent, far.recv(100), file.tell()

        stock = asyncio.SelectorEventLoop()
        expected = stock.run_until_complete(outcome(stock))
        stock.run_until_complete(asyncio.sleep(0))
        stock.close()
        assert run(outcome(loop)) == expected


class TestSockMethods:
    @pytest.mark.parametrize("size", [0, None, False, 0.0, [], ()], ids=repr)
    def test_recvfrom_into_as_much_as_fits(self, loop, run, size):
        near, far = socket.socketpair(type=socket.SOCK_DGRAM)
        near.setblocking(False)

        async def main():
            buffer = bytearray(3)
            far.send(b"hello")
            assert (await loop.sock_recvfrom_into(near, buffer, size))[0] == 3
            assert buffer == b"hel"

        with near, far:
            run(main())

    def test_recvfrom_into_larger_items(self, loop, run):
        """As many bytes as there are items."""
        near, far = socket.socketpair(type=socket.SOCK_DGRAM)
        near.setblocking(False)

        async def main():
            buffer = array.array("i", [-1, -1, -1])
            far.send(b"\0" * 12)
            assert (await loop.sock_recvfrom_into(near, buffer))[0] == 3
            assert buffer[1:] == array.array("i", [-1, -1])

        with near, far:
            run(main())

    @pytest.mark.parametrize("other", [1, 1.0, "1", None], ids=repr)
    def test_accept_of_what_is_no_socket(self, loop, run, other):
        with pytest.raises(AttributeError, match="has no attribute 'fileno'"):
            run(loop.sock_accept(other))

    def test_what_fileno_raises_in_accept(self, loop, run):
        class Socket(socket.socket):
            def fileno(self):
                raise BlockingIOError("of fileno")

        with Socket() as sock:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError, match="of fileno"):
                run(loop.sock_accept(sock))
