"""Subclasses of socket.socket given as sock=: their own methods carry the bytes."""

import asyncio
import socket

import pytest

from support.peers import until
from support.protocols import BufferedRecorder, Recorder


class Traced(socket.socket):
    """Notes which of its methods are called."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.used = []

    def recv(self, *args):
        self.used.append("recv")
        return super().recv(*args)

    def recv_into(self, *args):
        self.used.append("recv_into")
        return super().recv_into(*args)

    def send(self, *args):
        self.used.append("send")
        return super().send(*args)

    def sendmsg(self, *args):
        self.used.append("sendmsg")
        return super().sendmsg(*args)


@pytest.fixture
def traced(pair):
    near, far = pair
    with Traced(fileno=near.detach()) as sock:
        sock.setblocking(False)
        yield sock, far


@pytest.mark.parametrize(
    ("factory", "method"), [(Recorder, "recv"), (BufferedRecorder, "recv_into")]
)
def test_protocols(loop, run, traced, factory, method):
    sock, far = traced

    async def main():
        transport, protocol = await loop.create_connection(factory, sock=sock)
        far.send(b"in")
        await until(lambda: protocol.received)
        transport.write(b"out")
        await until(lambda: not transport.get_write_buffer_size())
        assert far.recv(10) == b"out"
        far.close()
        await until(lambda: protocol.is_lost)
        assert bytes(protocol.received) == b"in"
        assert protocol.calls[-2:] == ["eof", "lost"]

    run(main())
    assert {method, "send"} <= set(sock.used)


def test_streams(run, traced):
    sock, far = traced

    async def main():
        reader, writer = await asyncio.open_connection(sock=sock)
        far.send(b"line\n")
        assert await reader.readline() == b"line\n"
        writer.write(b"out")
        await writer.drain()
        assert far.recv(10) == b"out"
        writer.close()
        await writer.wait_closed()

    run(main())
    assert {"recv", "send"} <= set(sock.used)


def test_a_socket_that_takes_little(loop, run, pair):
    """What its send() did not take is sent when it is writable."""
    near, far = pair

    class Slow(socket.socket):
        def send(self, data, *flags):
            return super().send(bytes(data)[:3], *flags)

        def sendmsg(self, buffers, *rest):
            return super().sendmsg([b"".join(buffers)[:3]], *rest)

    async def main():
        transport, protocol = await loop.create_connection(
            Recorder, sock=Slow(fileno=near.detach())
        )
        for _ in range(5):
            transport.write(b"0123456789")
        transport.close()
        await until(lambda: protocol.is_lost)
        return protocol.lost_with

    assert run(main()) == [None]
    assert far.recv(100) == b"0123456789" * 5


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_what_its_methods_raise_ends_the_connection(loop, run, pair, kind):
    near, far = pair

    class Broken(socket.socket):
        def recv(self, *args):
            raise kind("broken")

    async def main():
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        _, protocol = await loop.create_connection(Recorder, sock=Broken(fileno=near.detach()))
        far.send(b"x")
        await until(lambda: protocol.is_lost)
        return protocol.lost_with

    reported = []
    (error,) = run(main())
    assert isinstance(error, kind)
    assert [type(context["exception"]) for context in reported] == (
        [] if kind is OSError else [kind]
    )


class Listening(socket.socket):
    """Accepts connections of a class of its own, from peers of whom it knows more."""

    def __init__(self):
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.accepted = []

    def accept(self):
        fd, address = self._accept()
        self.accepted.append(address)
        return Traced(fileno=fd), ("behind a proxy", 1)


class TestListeners:
    @pytest.mark.both_modes
    def test_accept(self, loop, run):
        async def main():
            server = await loop.create_server(lambda: protocol, sock=sock)
            with socket.create_connection(sock.getsockname()) as client:
                client.send(b"in")
                await until(lambda: protocol.received)
                transport = protocol.transport
                assert transport.get_extra_info("peername") == ("behind a proxy", 1)
                assert transport.get_extra_info("sockname") == sock.getsockname()
                transport.write(b"out")
                assert client.recv(10) == b"out"
                accepted = transport.get_extra_info("socket")._sock
                assert type(accepted) is Traced
                assert {"recv", "send"} <= set(accepted.used)
                assert sock.accepted == [client.getsockname()]
            await until(lambda: protocol.is_lost)
            server.close()
            await server.wait_closed()

        protocol, sock = Recorder(), Listening()
        run(main())

    def test_plain_connections_with_a_name_of_their_own(self, loop, run):
        class Proxied(Listening):
            def accept(self):
                connection, _ = socket.socket.accept(self)
                return connection, "somebody"

        async def main():
            server = await loop.create_server(lambda: protocol, sock=sock)
            with socket.create_connection(sock.getsockname()) as client:
                client.send(b"data")
                await until(lambda: protocol.received)
            await until(lambda: protocol.is_lost)
            server.close()
            return protocol.transport.get_extra_info("peername")

        protocol, sock = Recorder(), Proxied()
        assert run(main()) == "somebody"

    async def one_client(self, loop, sock):
        protocol = Recorder()
        server = await loop.create_server(lambda: protocol, sock=sock)
        with socket.create_connection(sock.getsockname()):
            await until(lambda: protocol.transport)
        await until(lambda: protocol.is_lost)
        server.close()

    @pytest.mark.parametrize("error", [BlockingIOError, InterruptedError, ConnectionAbortedError])
    def test_nothing_to_accept(self, loop, run, error):
        class Hesitant(Listening):
            asked = 0

            def accept(self):
                self.asked += 1
                if self.asked < 3:
                    raise error("not yet")
                return super().accept()

        sock = Hesitant()
        run(self.one_client(loop, sock))
        assert len(sock.accepted) == 1

    @pytest.mark.parametrize("error", [OSError(5, "broken"), RuntimeError("broken")])
    def test_what_accept_raises_is_reported(self, loop, run, unhandled, error):
        class Broken(Listening):
            asked = 0

            def accept(self):
                self.asked += 1
                if self.asked == 1:
                    raise error
                return super().accept()

        run(self.one_client(loop, Broken()))
        assert unhandled.take_one()["exception"] is error

    def test_a_keyboard_interrupt_leaves_the_run(self, loop, run):
        class Interrupted(Listening):
            def accept(self):
                raise KeyboardInterrupt

        async def main():
            server = await loop.create_server(Recorder, sock=sock)
            servers.append(server)
            clients.append(socket.create_connection(sock.getsockname()))
            await until(lambda: False)

        servers, clients, sock = [], [], Interrupted()
        with pytest.raises(KeyboardInterrupt):
            run(main())
        clients[0].close()
        servers[0].close()


def test_a_bytes_subclass_with_a_destructor_that_writes(loop, run, pair):
    near, far = pair

    class Chunk(bytes):
        def __del__(self):
            later.pop()()

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=near)
        later.append(lambda: transport.write(b" more"))
        transport.write(Chunk(b"data"))
        await until(lambda: not later)
        transport.close()
        await until(lambda: protocol.is_lost)

    later = []
    run(main())
    assert far.recv(100) == b"data more"


@pytest.mark.parametrize(
    "limits", [{"high": 1.5 * 65536}, {"low": 2**62}, {"high": 2**70}, {"low": 0.5, "high": 7}]
)
def test_water_marks_are_any_numbers(loop, run, pair, limits):
    near, _far = pair
    low, high = limits.get("low"), limits.get("high")
    high = 4 * low if high is None else high
    low = high // 4 if low is None else low

    async def main():
        transport, protocol = await loop.create_connection(Recorder, sock=near)
        transport.set_write_buffer_limits(**limits)
        assert transport.get_write_buffer_limits() == (low, high)
        with pytest.raises(ValueError, match=r"high \(1.5\) must be >= low \(2\) must be >= 0"):
            transport.set_write_buffer_limits(high=1.5, low=2)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="much")
        transport.abort()
        await until(lambda: protocol.is_lost)

    run(main())
