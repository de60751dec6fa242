"""Low-level API Index: DNS, networking, pipes, sockets, watched descriptors."""

import asyncio
import os
import socket
import ssl

import pytest
import trustme

from support.datagrams import Recorder as DatagramRecorder
from support.datagrams import address_of
from support.low_level_api import entry
from support.peers import Listener, echo, pattern, read_all, read_exactly, turns, unix_pair, until
from support.protocols import Echo, Recorder


@pytest.fixture
def echo_server():
    """The address of a plain server that sends back what it reads."""
    with Listener(echo) as listener:
        yield listener.address


async def closed(protocol):
    protocol.transport.close()
    await until(lambda: protocol.is_lost)


@entry("loop.getaddrinfo")
def test_what_the_socket_module_finds(loop, run):
    for host, port, keywords in (
        ("127.0.0.1", 80, {"type": socket.SOCK_STREAM}),
        ("::1", "80", {"type": socket.SOCK_DGRAM}),
        ("localhost", 443, {"family": socket.AF_INET, "type": socket.SOCK_STREAM}),
        (None, 8080, {"flags": socket.AI_PASSIVE, "type": socket.SOCK_STREAM}),
    ):
        found = run(loop.getaddrinfo(host, port, **keywords))
        assert sorted(found) == sorted(socket.getaddrinfo(host, port, **keywords))
    with pytest.raises(socket.gaierror) as caught:
        run(loop.getaddrinfo("no.such.host.invalid", 80, flags=socket.AI_NUMERICHOST))
    assert caught.value.errno == socket.EAI_NONAME


@entry("loop.getnameinfo")
def test_name_and_service_of_an_address(loop, run):
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    assert run(loop.getnameinfo(("127.0.0.1", 80), numeric)) == ("127.0.0.1", "80")
    assert run(loop.getnameinfo(("::1", 443), numeric)) == ("::1", "443")
    flags = socket.NI_NUMERICHOST
    expected = socket.getnameinfo(("127.0.0.1", 22), flags)
    assert run(loop.getnameinfo(("127.0.0.1", 22), flags)) == expected


@entry("loop.create_connection")
def test_connects_by_name_and_by_socket(loop, run, echo_server):
    async def main():
        transport, protocol = await loop.create_connection(
            Recorder, "localhost", echo_server[1], family=socket.AF_INET
        )
        transport.write(b"by name")
        await until(lambda: protocol.received == b"by name")
        assert transport.get_extra_info("peername") == echo_server
        await closed(protocol)
        sock = socket.create_connection(echo_server)
        transport, protocol = await loop.create_connection(Recorder, sock=sock)
        transport.write(b"by socket")
        await until(lambda: protocol.received == b"by socket")
        await closed(protocol)

    run(main())


@entry("loop.create_server")
def test_serves_until_it_is_closed(loop, run):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        assert server.is_serving()
        for number in range(3):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"client %d" % number)
            assert await reader.readexactly(8) == b"client %d" % number
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    run(main())


@entry("loop.create_unix_server", "loop.create_unix_connection")
def test_unix_sockets_by_path(loop, run, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        server = await loop.create_unix_server(Echo, path)
        transport, protocol = await loop.create_unix_connection(Recorder, path)
        assert transport.get_extra_info("peername") == path
        transport.write(b"over a path")
        await until(lambda: protocol.received == b"over a path")
        await closed(protocol)
        server.close()
        await server.wait_closed()

    run(main())
    with pytest.raises(OSError, match=r"refused|No such file"):
        run(loop.create_unix_connection(Recorder, path))


@entry("loop.connect_accepted_socket")
def test_wraps_what_somebody_else_accepted(loop, run):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, address = listener.accept()
        transport, _ = await loop.connect_accepted_socket(Echo, accepted)
        assert transport.get_extra_info("peername") == address
        client.sendall(b"hello")
        assert await asyncio.to_thread(read_exactly, client, 5) == b"hello"
        transport.close()
        assert await asyncio.to_thread(client.recv, 1) == b""
        client.close()

    run(main())


@entry("loop.create_datagram_endpoint")
def test_endpoints_talk(loop, run):
    async def main():
        server, served = await loop.create_datagram_endpoint(
            DatagramRecorder, local_addr=("127.0.0.1", 0)
        )
        client, answered = await loop.create_datagram_endpoint(
            DatagramRecorder, remote_addr=address_of(server)
        )
        client.sendto(b"question")
        await until(lambda: served.received)
        assert served.received == [(b"question", address_of(client))]
        server.sendto(b"answer", address_of(client))
        await until(lambda: answered.received)
        assert answered.payloads == [b"answer"]
        for protocol in (served, answered):
            protocol.transport.close()
            await until(lambda protocol=protocol: protocol.lost_with)

    run(main())
    with pytest.raises(ValueError, match="unexpected address family"):
        run(loop.create_datagram_endpoint(DatagramRecorder))


@entry("loop.sendfile")
def test_a_part_of_a_file_behind_what_was_written(on_connection, loop, tmp_path):
    content = pattern(300_000)
    (tmp_path / "file").write_bytes(content)

    async def body(transport, protocol, far):
        reading = asyncio.ensure_future(asyncio.to_thread(read_all, far))
        transport.write(b"header")
        with (tmp_path / "file").open("rb") as file:
            assert await loop.sendfile(transport, file, 1000, 200_000) == 200_000
            assert file.tell() == 201_000
        transport.write(b"trailer")
        transport.close()
        assert await reading == b"header" + content[1000:201_000] + b"trailer"

    on_connection(body)


@pytest.fixture
def contexts():
    """(server's, client's) SSL contexts that trust each other's authority."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@entry("loop.start_tls")
def test_an_open_connection_becomes_tls(loop, run, contexts):
    near, far = unix_pair()

    async def upgraded(protocol, context, **keywords):
        old = protocol.transport
        new = await loop.start_tls(old, protocol, context, **keywords)
        protocol.transport = new
        return new

    async def main():
        _, client = await loop.connect_accepted_socket(Recorder, near)
        far.setblocking(False)
        _, server = await loop.connect_accepted_socket(Recorder, far)
        client.transport.write(b"STARTTLS")
        await until(lambda: server.received == b"STARTTLS")
        await asyncio.gather(
            upgraded(server, contexts[0], server_side=True),
            upgraded(client, contexts[1], server_hostname="localhost"),
        )
        client.transport.write(b" secret")
        await until(lambda: server.received == b"STARTTLS secret")
        server.transport.write(b"answer")
        await until(lambda: client.received == b"answer")
        session = client.transport.get_extra_info("ssl_object")
        assert isinstance(session, ssl.SSLObject)
        assert ("DNS", "localhost") in session.getpeercert()["subjectAltName"]
        client.transport.close()
        await until(lambda: server.is_lost and client.is_lost)

    run(main())


@entry("loop.connect_read_pipe")
def test_reads_to_the_end(loop, run):
    async def main():
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb", 0) as file, os.fdopen(write_end, "wb", 0) as writer:
            transport, protocol = await loop.connect_read_pipe(Recorder, file)
            assert transport.get_extra_info("pipe") is file
            writer.write(b"through the pipe")
            await until(lambda: protocol.received == b"through the pipe")
            writer.close()
            await until(lambda: protocol.is_lost)
            assert protocol.calls == ["made", "data", "eof", "lost"]
            assert transport.is_closing()

    run(main())


@entry("loop.connect_write_pipe")
def test_writes_more_than_the_pipe_takes(loop, run):
    data = pattern(300_000)

    async def main():
        read_end, write_end = os.pipe()
        with os.fdopen(read_end, "rb") as reader, os.fdopen(write_end, "wb", 0) as file:
            transport, protocol = await loop.connect_write_pipe(Recorder, file)
            transport.write(data)
            assert protocol.paused
            assert await asyncio.to_thread(reader.read, len(data)) == data
            await until(lambda: not protocol.paused)
            reader.close()  # the other end sees it without a write
            await until(lambda: protocol.is_lost)

    run(main())


@pytest.mark.both_modes
@entry("loop.sock_recv")
def test_waits_for_data_and_for_the_end(loop, run):
    async def main():
        near, far = unix_pair()
        with near, far:
            waiting = asyncio.ensure_future(loop.sock_recv(near, 100))
            await turns()
            assert not waiting.done()
            far.send(b"data")
            assert await waiting == b"data"
            far.close()
            assert await loop.sock_recv(near, 100) == b""

    run(main())


@entry("loop.sock_recv_into")
def test_fills_a_part_of_a_buffer(loop, run):
    async def main():
        near, far = unix_pair()
        with near, far:
            buffer = bytearray(b"........")
            far.send(b"data and more")
            assert await loop.sock_recv_into(near, memoryview(buffer)[2:6]) == 4
            assert buffer == b"..data.."
            assert await loop.sock_recv(near, 100) == b" and more"

    run(main())


@entry("loop.sock_sendall")
def test_sends_more_than_the_kernel_takes(loop, run):
    data = pattern(1_000_000)

    async def main():
        near, far = unix_pair(sndbuf=8192)
        with near, far:
            reading = asyncio.ensure_future(asyncio.to_thread(read_exactly, far, len(data)))
            assert await loop.sock_sendall(near, memoryview(data)) is None
            assert await reading == data
            far.close()
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                await loop.sock_sendall(near, b"to nobody")

    run(main())


@pytest.mark.both_modes
@entry("loop.sock_connect", "loop.sock_accept")
def test_a_client_and_a_server_of_sockets(loop, run, unused_port):
    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            accepting = asyncio.ensure_future(loop.sock_accept(listener))
            await turns()
            assert not accepting.done()
            await loop.sock_connect(client, listener.getsockname())
            accepted, address = await accepting
            with accepted:
                assert address == client.getsockname()
                assert accepted.gettimeout() == 0
                await loop.sock_sendall(accepted, b"welcome")
                assert await loop.sock_recv(client, 100) == b"welcome"
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError):
                await loop.sock_connect(client, ("127.0.0.1", unused_port))

    run(main())


@entry("loop.sock_sendfile")
def test_a_part_of_a_file_over_a_socket(loop, run, tmp_path):
    content = pattern(300_000)
    (tmp_path / "file").write_bytes(content)

    async def main():
        near, far = unix_pair()
        with near, far, (tmp_path / "file").open("rb") as file:
            reading = asyncio.ensure_future(asyncio.to_thread(read_all, far))
            assert await loop.sock_sendfile(near, file, 100, 250_000) == 250_000
            assert file.tell() == 250_100
            near.shutdown(socket.SHUT_WR)
            assert await reading == content[100:250_100]

    run(main())


@entry("loop.add_reader", "loop.remove_reader")
def test_readers_are_called_while_there_is_data(loop, run):
    async def main():
        near, far = unix_pair()
        with near, far:
            taken = []
            loop.add_reader(near, lambda: taken.append(near.recv(1)))
            far.send(b"three")
            await until(lambda: len(taken) == 5)
            assert b"".join(taken) == b"three"
            assert loop.remove_reader(near) is True
            assert loop.remove_reader(near) is False
            far.send(b"unread")
            await turns(10)
            assert len(taken) == 5

    run(main())


@entry("loop.add_writer", "loop.remove_writer")
def test_writers_are_called_once_there_is_room(loop, run):
    async def main():
        near, far = unix_pair(sndbuf=8192)
        with near, far:
            called = []
            filled = 0
            while True:
                try:
                    filled += near.send(bytes(4096))
                except BlockingIOError:
                    break
            loop.add_writer(near, called.append, "room")
            await turns(10)
            assert called == []
            await asyncio.to_thread(read_exactly, far, filled)
            await until(lambda: called)
            assert loop.remove_writer(near) is True
            assert loop.remove_writer(near) is False
            count = len(called)
            await turns(10)
            assert len(called) == count

    run(main())
