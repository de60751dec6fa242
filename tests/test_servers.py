"""create_server, create_unix_server and Server: serving, closing, waiting, refusing."""

import asyncio
import contextlib
import errno
import gc
import os
import pathlib
import socket
import stat
import sys

import pytest

from support.peers import SKIPS_ADDRESSES, read_exactly, shut, turns, until
from support.protocols import Echo, Recorder


class Accepting:
    """A protocol factory that keeps the protocols it makes."""

    def __init__(self, kind=Recorder):
        self.protocols = []
        self._kind = kind

    def __call__(self):
        self.protocols.append(self._kind())
        return self.protocols[-1]


@pytest.fixture
def accepting():
    return Accepting()


def client_of(server, index=0):
    sock = socket.create_connection(server.sockets[index].getsockname()[:2])
    sock.settimeout(15)
    return sock


async def gone(server, accepting):
    """Closes the server and every connection it accepted."""
    server.close()
    for protocol in accepting.protocols:
        protocol.transport.abort()
    await until(lambda: all(protocol.is_lost for protocol in accepting.protocols))
    await server.wait_closed()


class TestTcp:
    @pytest.mark.both_modes
    def test_serves(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            with client_of(server) as client:
                client.sendall(b"echo this")
                assert await asyncio.to_thread(read_exactly, client, 9) == b"echo this"
                client.shutdown(socket.SHUT_WR)
                assert await asyncio.to_thread(client.recv, 10) == b""
            await shut(server)

        run(main())

    def test_the_object(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            assert isinstance(server, asyncio.AbstractServer)
            assert server.get_loop() is loop
            assert server.is_serving()
            assert type(server.sockets) is tuple
            (sock,) = server.sockets
            assert type(sock) is asyncio.trsock.TransportSocket
            assert sock.family == socket.AF_INET
            assert sock.gettimeout() == 0
            assert repr(server) == f"<Server sockets={server.sockets!r}>"
            server.close()
            assert server.sockets == ()
            assert not server.is_serving()
            assert repr(server) == "<Server sockets=()>"
            await server.wait_closed()

        run(main())

    def test_many_clients(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0, backlog=200)
            clients = [client_of(server) for _ in range(150)]
            await until(lambda: len(accepting.protocols) == 150)
            for number, client in enumerate(clients):
                client.sendall(b"%03d" % number)
            await until(lambda: all(len(p.received) == 3 for p in accepting.protocols))
            got = sorted(bytes(protocol.received) for protocol in accepting.protocols)
            assert got == [b"%03d" % number for number in range(150)]
            for client in clients:
                client.close()
            await until(lambda: all(p.is_lost for p in accepting.protocols))
            await gone(server, accepting)

        run(main())

    def test_addresses_of_an_accepted_connection(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            with client_of(server) as client:
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                transport = accepting.protocols[0].transport
                assert transport.get_extra_info("peername") == client.getsockname()
                assert transport.get_extra_info("sockname") == client.getpeername()
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert not os.get_inheritable(sock.fileno())
            await gone(server, accepting)

        run(main())

    @pytest.mark.parametrize("host", [None, ""])
    def test_every_interface(self, loop, run, host):
        async def main():
            server = await loop.create_server(Echo, host, 0, family=socket.AF_INET)
            assert server.sockets[0].getsockname()[0] == "0.0.0.0"
            with client_of(server) as client:
                client.sendall(b"x")
                assert await asyncio.to_thread(client.recv, 1) == b"x"
            await shut(server)

        run(main())

    def test_every_interface_of_both_families(self, loop, run, unused_port):
        async def main():
            server = await loop.create_server(Echo, None, unused_port)
            families = {sock.family for sock in server.sockets}
            assert families == {socket.AF_INET, socket.AF_INET6}
            for sock in server.sockets:
                assert sock.getsockname()[1] == unused_port
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
            await shut(server)

        run(main())

    def test_several_hosts(self, loop, run, unused_port):
        async def main():
            hosts = ["127.0.0.1", "127.0.0.2", "::1"]
            server = await loop.create_server(Echo, hosts, unused_port)
            bound = {sock.getsockname()[0] for sock in server.sockets}
            assert bound == set(hosts)
            for host in hosts:
                with socket.create_connection((host, unused_port), 10) as client:
                    client.sendall(b"x")
                    assert await asyncio.to_thread(client.recv, 1) == b"x"
            await shut(server)

        run(main())

    def test_the_same_host_twice(self, loop, run, unused_port):
        async def main():
            server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.1"], unused_port)
            assert len(server.sockets) == 1
            await shut(server)

        run(main())

    def test_host_name(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "localhost", 0, family=socket.AF_INET)
            assert server.sockets[0].getsockname()[0] == "127.0.0.1"
            await shut(server)

        run(main())

    def test_ipv6(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "::1", 0)
            with client_of(server) as client:
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                transport = accepting.protocols[0].transport
                assert transport.get_extra_info("peername") == client.getsockname()
                assert len(transport.get_extra_info("sockname")) == 4
            await gone(server, accepting)

        run(main())

    # asyncio accepts nobody with a backlog of 0 before 3.14.
    @pytest.mark.parametrize(
        "backlog", [1, 5, pytest.param(0, marks=pytest.mark.asyncio_since(3, 14))]
    )
    def test_backlog(self, loop, run, backlog):
        async def main():
            for _ in range(2):
                server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=backlog)
                with client_of(server) as client:
                    client.sendall(b"x")
                    assert await asyncio.to_thread(client.recv, 1) == b"x"
                await shut(server)

        run(main())


class TestOptions:
    def option(self, loop, run, name, **kwargs):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, **kwargs)
            value = server.sockets[0].getsockopt(socket.SOL_SOCKET, name)
            await shut(server)
            return value

        return run(main())

    def test_reuse_address(self, loop, run):
        assert self.option(loop, run, socket.SO_REUSEADDR) != 0
        assert self.option(loop, run, socket.SO_REUSEADDR, reuse_address=True) != 0
        assert self.option(loop, run, socket.SO_REUSEADDR, reuse_address=False) == 0

    def test_reuse_port(self, loop, run):
        assert self.option(loop, run, socket.SO_REUSEPORT) == 0
        assert self.option(loop, run, socket.SO_REUSEPORT, reuse_port=True) != 0
        assert self.option(loop, run, socket.SO_REUSEPORT, reuse_port=False) == 0

    @pytest.mark.asyncio_since(3, 13)
    def test_keep_alive(self, loop, run):
        assert self.option(loop, run, socket.SO_KEEPALIVE) == 0
        assert self.option(loop, run, socket.SO_KEEPALIVE, keep_alive=True) != 0

    def test_two_servers_on_one_port(self, loop, run, unused_port):
        async def main():
            servers = [
                await loop.create_server(Echo, "127.0.0.1", unused_port, reuse_port=True)
                for _ in range(2)
            ]
            for server in servers:
                await shut(server)

        run(main())

    def test_start_serving_later(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0, start_serving=False)
            assert not server.is_serving()
            address = server.sockets[0].getsockname()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            await server.start_serving()
            await server.start_serving()
            assert server.is_serving()
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
            await gone(server, accepting)

        run(main())

    def test_sock(self, loop, run):
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))

        async def main():
            server = await loop.create_server(Echo, sock=listener)
            assert server.sockets[0].fileno() == listener.fileno()
            with client_of(server) as client:
                client.sendall(b"x")
                assert await asyncio.to_thread(client.recv, 1) == b"x"
            await shut(server)
            assert listener.fileno() == -1

        run(main())

    def test_listening_socket_of_a_parent_process(self, loop, run):
        """What gunicorn and systemd hand over listens already."""
        listener = socket.create_server(("127.0.0.1", 0))
        early = socket.create_connection(listener.getsockname())

        async def main():
            server = await loop.create_server(Echo, sock=listener)
            early.sendall(b"x")
            assert await asyncio.to_thread(early.recv, 1) == b"x"
            server.close()
            early.close()
            await server.wait_closed()

        run(main())


class TestRefusals:
    def test_port_in_use(self, loop, run):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = taken.getsockname()
            with pytest.raises(OSError, match="error while attempting to bind on") as caught:
                run(loop.create_server(Echo, *address))
        assert caught.value.errno == errno.EADDRINUSE
        text = f"[Errno 98] error while attempting to bind on address {address!r}: "
        assert str(caught.value).startswith(text)
        assert str(caught.value).endswith("address already in use")

    def test_port_in_use_for_the_second_host(self, loop, run, unused_port):
        with socket.create_server(("127.0.0.2", unused_port)):
            with pytest.raises(OSError, match="error while attempting to bind on"):
                run(loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], unused_port))
            # The first one was let go of.
            socket.create_server(("127.0.0.1", unused_port)).close()

    def test_address_of_another_machine(self, loop, run):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the text differs by version
            run(loop.create_server(Echo, "192.0.2.1", 0))
        if SKIPS_ADDRESSES:
            expected = "could not bind on any address out of [('192.0.2.1', 0)]"
        else:
            assert caught.value.errno == errno.EADDRNOTAVAIL
            expected = (
                "[Errno 99] error while attempting to bind on address ('192.0.2.1', 0): "
                "cannot assign requested address"
            )
        assert str(caught.value) == expected

    @pytest.mark.parametrize("hosts", [[], (), {}])
    def test_no_host(self, loop, run, hosts):
        if SKIPS_ADDRESSES:
            with pytest.raises(OSError, match=r"^could not bind on any address out of \[\]$"):
                run(loop.create_server(Echo, hosts, 0))
            return
        server = run(loop.create_server(Echo, hosts, 0))
        assert server.sockets == ()
        assert server.is_serving()
        run(shut(server))
        assert not server.is_serving()

    def test_name_that_does_not_resolve(self, loop, run):
        with pytest.raises(socket.gaierror):
            run(loop.create_server(Echo, "no-such-host.invalid", 0))

    def test_privileged_or_impossible_port(self, loop, run):
        with pytest.raises(OverflowError):
            run(loop.create_server(Echo, "127.0.0.1", 65536))

    @pytest.mark.parametrize("ssl", [True, False])
    def test_ssl_of_bool(self, loop, run, ssl):
        expected = r"^ssl argument must be an SSLContext or None$"
        with pytest.raises(TypeError, match=expected):
            run(loop.create_server(Echo, "127.0.0.1", 0, ssl=ssl))

    @pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
    def test_tls_timeouts_without_tls(self, loop, run, name):
        with pytest.raises(ValueError, match=rf"^{name} is only meaningful with ssl$"):
            run(loop.create_server(Echo, "127.0.0.1", 0, **{name: 1}))

    def test_host_or_port_with_a_socket(self, loop, run):
        expected = r"^host/port and sock can not be specified at the same time$"
        with socket.socket() as sock:
            for where in ({"host": "127.0.0.1"}, {"port": 0}):
                with pytest.raises(ValueError, match=expected):
                    run(loop.create_server(Echo, sock=sock, **where))

    def test_nothing_at_all(self, loop, run):
        with pytest.raises(ValueError, match=r"^Neither host/port nor sock were specified$"):
            run(loop.create_server(Echo))

    def test_datagram_socket(self, loop, run):
        expected = r"^A Stream Socket was expected, got <socket"
        with (
            socket.socket(type=socket.SOCK_DGRAM) as sock,
            pytest.raises(ValueError, match=expected),
        ):
            run(loop.create_server(Echo, sock=sock))

    def test_unknown_keyword(self, loop):
        with pytest.raises(TypeError):
            loop.create_server(Echo, "127.0.0.1", 0, hosts=1)
        with pytest.raises(TypeError):
            loop.create_server()

    @pytest.mark.both_modes
    # asyncio leaves the accepted socket to the garbage collector.
    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
    def test_factory_that_raises(self, loop, run, unhandled, debug_mode):
        reports = []

        def factory():
            raise LookupError("no protocol today")

        def dropped(client):
            taken = unhandled.take()
            reports.extend((report["message"], str(report.pop("exception"))) for report in taken)
            if isinstance(loop, asyncio.BaseEventLoop):
                gc.collect()
            try:
                return client.recv(10) == b""
            except BlockingIOError:
                return False

        async def main():
            server = await loop.create_server(factory, "127.0.0.1", 0)
            for _ in range(2):
                with client_of(server) as client:
                    client.setblocking(False)
                    await until(lambda client=client: dropped(client))
            server.close()

        run(main())
        expected = "Error on transport creation for incoming connection"
        if debug_mode:
            assert reports == [(expected, "no protocol today")] * 2
        else:
            # asyncio speaks of it in debug mode alone.
            assert reports in ([], [(expected, "no protocol today")] * 2)


class TestClosing:
    @pytest.mark.both_modes
    def test_new_clients_are_refused_and_old_ones_stay(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            client = client_of(server)
            await until(lambda: accepting.protocols and accepting.protocols[0].transport)
            server.close()
            await turns()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            (protocol,) = accepting.protocols
            for number in range(1, 21):
                client.sendall(b"still here")
                await until(lambda n=number: protocol.received == b"still here" * n)
                protocol.transport.write(b"so am I")
                assert await asyncio.to_thread(read_exactly, client, 7) == b"so am I"
            assert not protocol.is_lost
            client.close()
            await until(lambda: protocol.is_lost)
            await server.wait_closed()

        run(main())

    @pytest.mark.both_modes
    def test_a_queued_close_comes_before_a_client_that_waits(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            loop.call_soon(server.close)
            with client_of(server) as client:
                await server.wait_closed()
                await turns()
                assert not accepting.protocols
                with pytest.raises(ConnectionResetError):
                    client.recv(1)

        run(main())

    def test_twice(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            server.close()
            await shut(server)
            await server.wait_closed()

        run(main())

    def test_before_it_served(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
            await shut(server)

        run(main())

    def test_the_port_is_free_at_once(self, loop, run, unused_port):
        async def main():
            for _ in range(2):
                server = await loop.create_server(Echo, "127.0.0.1", unused_port)
                await shut(server)

        run(main())

    def test_start_serving_of_a_closed_server(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            server.close()
            with pytest.raises(Exception):  # noqa: B017, PT011 - asyncio trips over None
                await server.start_serving()
            await server.wait_closed()

        run(main())

    def test_async_with(self, loop, run):
        async def main():
            async with await loop.create_server(Echo, "127.0.0.1", 0) as server:
                assert server.is_serving()
            assert not server.is_serving()
            assert server.sockets == ()

        run(main())


class TestWaitClosed:
    def test_waits_while_the_server_is_open(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            waiting = asyncio.ensure_future(server.wait_closed())
            await turns()
            assert not waiting.done()
            server.close()
            await waiting

        run(main())

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 returns when it is closed")
    def test_waits_for_the_connections(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                server.close()
                waiting = asyncio.ensure_future(server.wait_closed())
                await turns()
                assert not waiting.done()
            await waiting
            assert accepting.protocols[0].is_lost

        run(main())

    @pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 waits for the connections")
    def test_returns_when_the_server_is_closed(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                await shut(server)
                assert not accepting.protocols[0].is_lost
            await until(lambda: accepting.protocols[0].is_lost)

        run(main())

    def test_several_waiters(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(3)]
            await turns()
            server.close()
            await asyncio.gather(*waiting)

        run(main())

    def test_a_cancelled_waiter_does_not_disturb(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            first = asyncio.ensure_future(server.wait_closed())
            second = asyncio.ensure_future(server.wait_closed())
            await turns()
            first.cancel()
            await turns()
            server.close()
            await second

        run(main())


class TestServeForever:
    def test_serves_until_it_is_cancelled(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0, start_serving=False)
            serving = asyncio.ensure_future(server.serve_forever())
            await turns()
            assert server.is_serving()
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
            await until(lambda: accepting.protocols[0].is_lost)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert not server.is_serving()
            assert server.sockets == ()

        run(main())

    def test_ends_when_the_server_is_closed(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            serving = asyncio.ensure_future(server.serve_forever())
            await turns()
            server.close()
            with pytest.raises(asyncio.CancelledError):
                await serving
            assert serving.cancelled()

        run(main())

    def test_twice_at_once(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            serving = asyncio.ensure_future(server.serve_forever())
            await turns()
            with pytest.raises(RuntimeError) as caught:
                await server.serve_forever()
            expected = f"server {server!r} is already being awaited on serve_forever()"
            assert str(caught.value) == expected
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

        run(main())

    def test_of_a_closed_server(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            server.close()
            with pytest.raises(RuntimeError) as caught:
                await server.serve_forever()
            assert str(caught.value) == f"server {server!r} is closed"
            await server.wait_closed()

        run(main())

    def test_a_close_that_raises_is_a_close_all_the_same(self, loop, run, accepting, monkeypatch):
        class Reluctant(asyncio.Future):
            refused = False

            def cancel(self, msg=None):
                if self.refused:
                    return super().cancel(msg)
                self.refused = True
                raise ZeroDivisionError

        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                with monkeypatch.context() as patched:
                    patched.setattr(loop, "create_future", lambda: Reluctant(loop=loop))
                    serving = asyncio.ensure_future(server.serve_forever())
                    await turns()
                waiting = asyncio.ensure_future(server.wait_closed())
                await turns()
                with pytest.raises(ZeroDivisionError):
                    server.close()
            await asyncio.wait_for(waiting, 15)
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

        run(main())

    def test_cancelled_by_a_timeout(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(server.serve_forever(), 0.02)
            assert server.sockets == ()

        run(main())


@pytest.mark.asyncio_since(3, 13)
class TestClients:
    def test_close_clients(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            clients = [client_of(server) for _ in range(5)]
            await until(lambda: len(accepting.protocols) == 5)
            await until(lambda: all(protocol.transport for protocol in accepting.protocols))
            for protocol in accepting.protocols:
                protocol.transport.write(b"last words")
            server.close()
            server.close_clients()
            await server.wait_closed()
            await until(lambda: all(protocol.is_lost for protocol in accepting.protocols))
            for client in clients:
                assert await asyncio.to_thread(read_exactly, client, 100) == b"last words"
                client.close()
            assert all(protocol.lost_with == [None] for protocol in accepting.protocols)

        run(main())

    def test_abort_clients(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            client = client_of(server)
            await until(lambda: accepting.protocols and accepting.protocols[0].transport)
            (protocol,) = accepting.protocols
            protocol.transport.write(b"x" * 16_000_000)
            assert protocol.transport.get_write_buffer_size() > 0
            server.close()
            server.abort_clients()
            await server.wait_closed()
            await until(lambda: protocol.is_lost)
            assert protocol.lost_with == [None]
            client.close()

        run(main())

    def test_while_the_server_goes_on(self, loop, run, accepting):
        async def main():
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            with client_of(server):
                await until(lambda: accepting.protocols and accepting.protocols[0].transport)
                server.close_clients()
                await until(lambda: accepting.protocols[0].is_lost)
            assert server.is_serving()
            with client_of(server):
                await until(lambda: len(accepting.protocols) == 2)
                await until(lambda: accepting.protocols[1].transport)
            await gone(server, accepting)

        run(main())

    def test_nobody_there(self, loop, run):
        async def main():
            server = await loop.create_server(Echo, "127.0.0.1", 0)
            server.close_clients()
            server.abort_clients()
            server.close()
            server.close_clients()
            await server.wait_closed()

        run(main())


class TestUnix:
    @pytest.fixture
    def path(self, tmp_path):
        return str(tmp_path / "socket")

    def talk(self, address):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(15)
            client.connect(address)
            client.sendall(b"x")
            assert client.recv(1) == b"x"

    @pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path], ids=["str", "bytes", "path"])
    def test_path(self, loop, run, path, kind):
        async def main():
            server = await loop.create_unix_server(Echo, kind(path))
            assert server.sockets[0].getsockname() == path
            assert stat.S_ISSOCK(pathlib.Path(path).stat().st_mode)
            await asyncio.to_thread(self.talk, path)
            await shut(server)

        run(main())

    def test_stale_socket_is_replaced(self, loop, run, path):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)

        async def main():
            server = await loop.create_unix_server(Echo, path)
            await asyncio.to_thread(self.talk, path)
            await shut(server)

        run(main())

    def test_other_files_are_not_replaced(self, loop, run, path):
        pathlib.Path(path).write_text("precious")
        with pytest.raises(OSError, match="is already in use") as caught:
            run(loop.create_unix_server(Echo, path))
        assert caught.value.errno == errno.EADDRINUSE
        assert str(caught.value) == f"[Errno 98] Address {path!r} is already in use"
        assert pathlib.Path(path).read_text() == "precious"

    def test_directory_that_does_not_exist(self, loop, run, path):
        with pytest.raises(FileNotFoundError):
            run(loop.create_unix_server(Echo, path + "/below"))

    @pytest.mark.asyncio_since(3, 13)
    def test_cleanup_socket(self, loop, run, path):
        async def main():
            server = await loop.create_unix_server(Echo, path, cleanup_socket=True)
            assert pathlib.Path(path).exists()
            await shut(server)
            assert not pathlib.Path(path).exists()

        run(main())

    @pytest.mark.asyncio_since(3, 13)
    def test_no_cleanup(self, loop, run, path):
        async def main():
            server = await loop.create_unix_server(Echo, path, cleanup_socket=False)
            await shut(server)
            assert pathlib.Path(path).exists()

        run(main())

    def test_cleanup_by_default_is_that_of_the_python(self, loop, run, path):
        async def main():
            server = await loop.create_unix_server(Echo, path)
            await shut(server)

        run(main())
        assert pathlib.Path(path).exists() is (sys.version_info < (3, 13))

    @pytest.mark.asyncio_since(3, 13)
    def test_cleanup_leaves_a_successor_alone(self, loop, run, path):
        """Another server took the path over: its socket is not ours to remove."""

        async def main():
            first = await loop.create_unix_server(Echo, path, cleanup_socket=True)
            second = await loop.create_unix_server(Echo, path, cleanup_socket=True)
            await shut(first)
            assert pathlib.Path(path).exists()
            await asyncio.to_thread(self.talk, path)
            await shut(second)
            assert not pathlib.Path(path).exists()

        run(main())

    @pytest.mark.asyncio_since(3, 13)
    def test_cleanup_when_the_file_is_gone(self, loop, run, path):
        async def main():
            server = await loop.create_unix_server(Echo, path, cleanup_socket=True)
            pathlib.Path(path).unlink()
            await shut(server)

        run(main())

    def test_sock(self, loop, run, path):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)

        async def main():
            server = await loop.create_unix_server(Echo, sock=listener)
            await asyncio.to_thread(self.talk, path)
            await shut(server)

        run(main())
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(path).unlink()

    def test_start_serving_later(self, loop, run, path):
        async def main():
            server = await loop.create_unix_server(Echo, path, start_serving=False)
            with pytest.raises(ConnectionRefusedError):
                self.talk(path)
            await server.start_serving()
            await asyncio.to_thread(self.talk, path)
            await shut(server)

        run(main())

    def test_refusals(self, loop, run, path):
        with socket.socket(socket.AF_UNIX) as sock:
            expected = r"^path and sock can not be specified at the same time$"
            with pytest.raises(ValueError, match=expected):
                run(loop.create_unix_server(Echo, path, sock=sock))
        with pytest.raises(ValueError, match=r"^path was not specified, and no sock specified$"):
            run(loop.create_unix_server(Echo))
        with pytest.raises(TypeError, match=r"^ssl argument must be an SSLContext or None$"):
            run(loop.create_unix_server(Echo, path, ssl=True))
        for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
            with pytest.raises(ValueError, match=rf"^{name} is only meaningful with ssl$"):
                run(loop.create_unix_server(Echo, path, **{name: 1}))
        expected = r"^A UNIX Domain Stream Socket was expected, got <socket"
        with socket.socket() as sock, pytest.raises(ValueError, match=expected):
            run(loop.create_unix_server(Echo, sock=sock))


class TestContextOfConnections:
    """Every accepted connection has a context of its own; asyncio has that from 3.15 on."""

    @pytest.mark.asyncio_since(3, 15)
    def test_connections_do_not_share_what_they_set(self, loop, run):
        import contextvars

        var = contextvars.ContextVar("var", default="none")
        seen = []

        class Setting(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                seen.append(("made", var.get()))
                var.set("set by a connection")

            def data_received(self, data):
                super().data_received(data)
                seen.append(("data", var.get()))

            def connection_lost(self, exc):
                super().connection_lost(exc)
                seen.append(("lost", var.get()))

        accepting = Accepting(Setting)

        async def main():
            var.set("of the server")
            server = await loop.create_server(accepting, "127.0.0.1", 0)
            var.set("changed afterwards")
            for number in range(2):
                with client_of(server) as client:
                    client.sendall(b"x")
                    await until(lambda n=number: len(accepting.protocols) > n)
                    await until(lambda n=number: accepting.protocols[n].received)
                await until(lambda n=number: accepting.protocols[n].is_lost)
            await gone(server, accepting)
            assert var.get() == "changed afterwards"

        run(main())
        once = [("made", "of the server"), ("data", "set by a connection")]
        once.append(("lost", "set by a connection"))
        assert seen == once * 2
