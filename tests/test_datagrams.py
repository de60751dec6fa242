"""create_datagram_endpoint and the datagram transport, over UDP and Unix sockets."""

import asyncio
import contextvars
import logging
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from support.datagrams import Echo, Recorder, address_of, bound, unix_paths
from support.peers import PATIENCE_S, turns, until
from support.protocols import noting_resumes

pytestmark = pytest.mark.both_modes

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=LOOPBACK, ids=lambda family: family.name)
def family(request):
    return request.param


@pytest.fixture
def host(family):
    return LOOPBACK[family]


async def endpoint(loop, host="127.0.0.1", **kwargs):
    """(transport, protocol) of a Recorder, bound to ``host`` unless told otherwise."""
    if not kwargs.keys() & {"local_addr", "remote_addr", "sock", "family"}:
        kwargs["local_addr"] = (host, 0)
    return await loop.create_datagram_endpoint(Recorder, **kwargs)


async def closed(*protocols):
    for protocol in protocols:
        protocol.transport.close()
    await until(lambda: all(protocol.lost_with for protocol in protocols))
    await turns(2)


class TestEndpoints:
    def test_both_ways(self, loop, run, family, host):
        async def main():
            one, first = await endpoint(loop, host)
            other, second = await endpoint(loop, host)
            assert first.calls == ["made"]
            one.sendto(b"ping", address_of(other))
            await until(lambda: second.received)
            assert second.received == [(b"ping", address_of(one))]
            other.sendto(b"pong", second.received[0][1])
            await until(lambda: first.received)
            assert first.received == [(b"pong", address_of(other))]
            await closed(first, second)
            assert first.lost_with == [None]

        run(main())

    def test_connected(self, loop, run, family, host):
        async def main():
            server, _ = await loop.create_datagram_endpoint(Echo, local_addr=(host, 0))
            client, protocol = await endpoint(loop, remote_addr=address_of(server)[:2])
            assert client.get_extra_info("peername") == address_of(server)
            assert server.get_extra_info("peername") is None
            client.sendto(b"one")
            client.sendto(b"two", None)
            client.sendto(b"three", address_of(server))
            await until(lambda: len(protocol.received) == 3)
            assert protocol.payloads == [b"one", b"two", b"three"]
            with pytest.raises(ValueError, match="Invalid address: must be None or"):
                client.sendto(b"x", (host, 9))
            await closed(protocol)
            server.close()
            await turns()

        run(main())

    def test_local_and_remote(self, loop, run, unused_port):
        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(
                    loop, local_addr=("127.0.0.1", unused_port), remote_addr=peer.getsockname()
                )
                assert address_of(transport) == ("127.0.0.1", unused_port)
                transport.sendto(b"hello")
                await turns(1)
                assert peer.recvfrom(100) == (b"hello", ("127.0.0.1", unused_port))
                await closed(protocol)

        run(main())

    def test_transport_is_asyncios(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            assert isinstance(transport, asyncio.Transport)
            if sys.version_info >= (3, 12):
                assert isinstance(transport, asyncio.DatagramTransport)
            assert transport.get_protocol() is protocol
            other = Recorder()
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            with bound() as peer:
                peer.sendto(b"x", address_of(transport))
                await until(lambda: other.received)
            transport.close()
            await until(lambda: other.lost_with)
            assert protocol.calls == ["made"]

        run(main())

    def test_extra_info(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            sock = transport.get_extra_info("socket")
            assert sock.getsockname() == address_of(transport)
            assert sock.type == socket.SOCK_DGRAM
            assert transport.get_extra_info("nothing") is None
            assert transport.get_extra_info("nothing", 5) == 5
            fd = sock.fileno()
            assert f"fd={fd} read=polling write=<idle, bufsize=0>" in repr(transport)
            transport.close()
            assert "closing" in repr(transport)
            await until(lambda: protocol.lost_with)
            await turns(1)
            assert "closed" in repr(transport)

        run(main())

    def test_name_of_a_host(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop, "localhost")
            assert address_of(transport)[0] in LOOPBACK.values()
            await closed(protocol)

        run(main())

    def test_first_place_that_can_be_had(self, loop, run):
        """Several addresses are tried in turn; the first error counts if none can be had."""
        answers = [("203.0.113.1", 0), ("127.0.0.1", 0)]

        async def getaddrinfo(host, port, **kwargs):
            return [
                (socket.AF_INET, socket.SOCK_DGRAM, proto, "", address)
                for proto, address in zip((17, 0), answers, strict=False)
            ]

        async def main():
            loop.getaddrinfo = getaddrinfo
            transport, protocol = await endpoint(loop, "many.invalid")
            assert address_of(transport)[0] == "127.0.0.1"
            await closed(protocol)
            answers[1] = ("203.0.113.2", 0)
            with pytest.raises(OSError, match="Cannot assign requested address"):
                await endpoint(loop, "many.invalid")
            answers.clear()
            with pytest.raises(OSError, match="returned empty list"):
                await endpoint(loop, "many.invalid")

        run(main())

    def test_reuse_port(self, loop, run):
        async def main():
            one, first = await endpoint(loop, reuse_port=True)
            other, second = await endpoint(loop, local_addr=address_of(one), reuse_port=True)
            assert address_of(one) == address_of(other)
            with pytest.raises(OSError, match="in use"):
                await endpoint(loop, local_addr=address_of(one))
            await closed(first, second)

        run(main())

    def test_allow_broadcast(self, loop, run):
        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(
                    loop, remote_addr=peer.getsockname(), allow_broadcast=True
                )
                sock = transport.get_extra_info("socket")
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
                assert transport.get_extra_info("peername") is None
                transport.sendto(b"to the remote address")
                await turns(1)
                data, sender = peer.recvfrom(100)
                assert data == b"to the remote address"
                # Not connected: anybody may answer.
                with bound() as stranger:
                    stranger.sendto(b"hello", ("127.0.0.1", sender[1]))
                    await until(lambda: protocol.received)
                with pytest.raises(ValueError, match="Invalid address"):
                    transport.sendto(b"x", ("127.0.0.1", 1))
                await closed(protocol)

        run(main())

    def test_given_socket(self, loop, run):
        async def main():
            with bound() as sock:
                transport, protocol = await endpoint(loop, sock=sock)
                assert sock.gettimeout() == 0
                assert address_of(transport) == sock.getsockname()
                with bound() as peer:
                    peer.sendto(b"x", sock.getsockname())
                    await until(lambda: protocol.received)
                    transport.sendto(b"y", peer.getsockname())
                    await turns(1)
                    assert peer.recv(10) == b"y"
                await closed(protocol)
                assert sock.fileno() == -1

        run(main())

    def test_given_connected_socket_ignores_the_address(self, loop, run):
        async def main():
            with bound() as peer, bound() as sock:
                sock.connect(peer.getsockname())
                transport, protocol = await endpoint(loop, sock=sock)
                transport.sendto(b"one")
                transport.sendto(b"two", ("127.0.0.1", 9))
                await turns(1)
                assert [peer.recv(10), peer.recv(10)] == [b"one", b"two"]
                await closed(protocol)

        run(main())

    def test_subclass_of_socket(self, loop, run):
        """A socket's own methods are used, as they are for one behind a proxy."""

        class Shouting(socket.socket):
            def sendto(self, data, address):
                return super().sendto(bytes(data).upper(), address)

            def recvfrom(self, size):
                data, address = super().recvfrom(size)
                return data + b"!", address

        async def main():
            with bound() as peer:
                sock = Shouting(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("127.0.0.1", 0))
                transport, protocol = await endpoint(loop, sock=sock)
                transport.sendto(b"quiet", peer.getsockname())
                await turns(1)
                assert peer.recv(100) == b"QUIET"
                peer.sendto(b"hello", address_of(transport))
                await until(lambda: protocol.received)
                assert protocol.received == [(b"hello!", peer.getsockname())]
                await closed(protocol)

        run(main())

    def test_watching_its_descriptor_is_refused(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            fd = transport.get_extra_info("socket").fileno()
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)
            await closed(protocol)

        run(main())

    def test_context(self, loop, run):
        """Callbacks run in the context that was current when the endpoint was made."""
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []

        class Protocol(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                seen.append(variable.get())

            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                seen.append(variable.get())

        async def main():
            variable.set("ours")
            transport, protocol = await loop.create_datagram_endpoint(
                Protocol, local_addr=("127.0.0.1", 0)
            )
            variable.set("later")
            with bound() as peer:
                peer.sendto(b"x", address_of(transport))
                await until(lambda: protocol.received)
            assert seen == ["ours", "ours"]
            await closed(protocol)

        run(main())

    def test_exception_of_a_callback(self, loop, run, unhandled):
        """It is reported as that of a callback; the endpoint goes on."""

        class Protocol(Recorder):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                if data == b"bad":
                    raise LookupError(data)

        async def main():
            transport, protocol = await loop.create_datagram_endpoint(
                Protocol, local_addr=("127.0.0.1", 0)
            )
            with bound() as peer:
                for data in (b"before", b"bad", b"good"):
                    peer.sendto(data, address_of(transport))
                await until(lambda: b"good" in protocol.payloads)
            context = unhandled.take_one()
            assert context["message"].startswith("Exception in callback ")
            assert type(context["exception"]) is LookupError
            assert protocol.payloads == [b"before", b"bad", b"good"]
            assert not transport.is_closing()
            await closed(protocol)

        run(main())

    def test_log(self, loop, run, debug_mode, caplog):
        async def main():
            with caplog.at_level(logging.DEBUG, logger="asyncio"):
                transport, protocol = await endpoint(loop)
                _, other = await endpoint(loop, remote_addr=address_of(transport))
                await closed(protocol, other)

        run(main())
        texts = [record.getMessage() for record in caplog.records]
        created = [text for text in texts if text.startswith("Datagram endpoint")]
        assert len(created) == (2 if debug_mode else 0)


class TestRefusals:
    @pytest.mark.parametrize(
        ("kwargs", "error", "text"),
        [
            ({}, ValueError, "unexpected address family"),
            ({"local_addr": "localhost"}, TypeError, "2-tuple is expected"),
            ({"local_addr": ("127.0.0.1", 0, 0)}, TypeError, "2-tuple is expected"),
            ({"local_addr": ["127.0.0.1", 0]}, TypeError, "2-tuple is expected"),
            (
                {"local_addr": ("127.0.0.1", 0), "family": socket.AF_UNIX},
                TypeError,
                "string is expected",
            ),
            (
                {"local_addr": ("127.0.0.1", 0), "remote_addr": ("::1", 9)},
                ValueError,
                "can not get address information",
            ),
            ({"local_addr": ("203.0.113.1", 0)}, OSError, "Cannot assign requested address"),
        ],
    )
    def test_arguments(self, loop, run, kwargs, error, text):
        with pytest.raises(error, match=text):
            run(loop.create_datagram_endpoint(Recorder, **kwargs))

    def test_stream_socket(self, loop, run):
        with socket.socket() as sock, pytest.raises(ValueError, match="ocket was expected, got"):
            run(endpoint(loop, sock=sock))

    @pytest.mark.parametrize(
        ("kwargs", "text"),
        [
            ({"local_addr": ("h", 1)}, r"\(local_addr=\('h', 1\)\)"),
            ({"family": 1, "proto": 1, "flags": 1}, r"\(family=1, proto=1, flags=1\)"),
            ({"reuse_port": True}, r"\(reuse_port=True\)"),
            ({"allow_broadcast": True}, r"\(allow_broadcast=True\)"),
        ],
    )
    def test_given_socket_and_keywords(self, loop, run, kwargs, text):
        expected = (
            f"socket modifier keyword arguments can not be used when sock is specified. {text}"
        )
        with bound() as sock, pytest.raises(ValueError, match=expected):
            run(loop.create_datagram_endpoint(Recorder, sock=sock, **kwargs))

    def test_raising_factory(self, loop, run):
        with bound() as sock:
            with pytest.raises(ZeroDivisionError):
                run(loop.create_datagram_endpoint(lambda: 1 / 0, sock=sock))
            assert sock.fileno() >= 0

    @pytest.mark.parametrize("data", ["text", None, 5, [1]])
    def test_what_is_no_bytes(self, loop, run, data):
        async def main():
            transport, protocol = await endpoint(loop)
            with pytest.raises(TypeError, match="data argument must be a bytes-like object, not"):
                transport.sendto(data, address_of(transport))
            await closed(protocol)

        run(main())


class TestSending:
    def test_order_and_boundaries(self, loop, run, family, host):
        """What a callback sends arrives as it was sent: any sizes, and to several peers."""
        sizes = [1200] * 70 + [5, 0, 1200, 1300, 900, 900, 900, 40, 65_000, 1, 1]

        async def main():
            one, first = await endpoint(loop, host)
            other, second = await endpoint(loop, host)
            sender, _ = await endpoint(loop, host)
            for one_of in (one, other):
                sock = one_of.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            payloads = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
            for batch in range(0, len(payloads), 20):
                for index, payload in enumerate(payloads[batch : batch + 20], batch):
                    if sys.version_info < (3, 13) and not payload:
                        continue
                    sender.sendto(payload, address_of(one))
                    if index % 3 == 0:
                        sender.sendto(payload, address_of(other))
                await asyncio.sleep(0.005)
            sent = [p for p in payloads if p or sys.version_info >= (3, 13)]
            some = [
                p
                for index, p in enumerate(payloads)
                if index % 3 == 0 and (p or sys.version_info >= (3, 13))
            ]
            await until(lambda: len(first.received) == len(sent))
            await until(lambda: len(second.received) == len(some))
            assert first.payloads == sent
            assert second.payloads == some
            assert {addr for _, addr in first.received} == {address_of(sender)}
            sender.close()
            await closed(first, second)

        run(main())

    def test_plain_receiver_sees_single_datagrams(self, loop, run):
        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(loop)
                for size in (100, 100, 100, 30, 100):
                    transport.sendto(bytes(size), peer.getsockname())
                await turns(1)
                assert [len(peer.recv(1000)) for _ in range(5)] == [100, 100, 100, 30, 100]
                await closed(protocol)

        run(main())

    def test_mutable_data_is_taken_as_it_is(self, loop, run):
        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(loop)
                data = bytearray(b"first")
                transport.sendto(data, peer.getsockname())
                data[:] = b"other"
                transport.sendto(memoryview(data)[1:3], peer.getsockname())
                data[:] = b"wrong"
                await turns(1)
                assert [peer.recv(10), peer.recv(10)] == [b"first", b"th"]
                await closed(protocol)

        run(main())

    def test_outside_of_the_run(self, loop, run):
        transport, protocol = run(endpoint(loop))
        with bound() as peer:
            transport.sendto(b"now", peer.getsockname())
            assert peer.recv(10) == b"now"
        run(closed(protocol))

    def test_name_of_a_host(self, loop, run):
        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(loop)
                transport.sendto(b"one", ("127.0.0.1", peer.getsockname()[1]))
                transport.sendto(b"two", ("localhost", peer.getsockname()[1]))
                transport.sendto(b"three", ("127.0.0.1", peer.getsockname()[1]))
                await turns(1)
                assert [peer.recv(10) for _ in range(3)] == [b"one", b"two", b"three"]
                await closed(protocol)

        run(main())

    @pytest.mark.parametrize(
        ("address", "error"),
        [
            (None, TypeError),
            (("127.0.0.1",), TypeError),
            (("127.0.0.1", "http"), TypeError),
            (("127.0.0.1", 70000), OverflowError),
            ("127.0.0.1", TypeError),
        ],
    )
    def test_what_is_no_address_is_fatal(self, loop, run, unhandled, address, error):
        async def main():
            transport, protocol = await endpoint(loop)
            transport.sendto(b"x", address)
            assert transport.is_closing()
            await until(lambda: protocol.lost_with)
            assert isinstance(protocol.lost_with[0], error)
            context = unhandled.take_one()
            assert context["message"] == "Fatal write error on datagram transport"
            assert context["transport"] is transport

        run(main())

    def test_too_long(self, loop, run):
        """An error concerns its datagram alone."""

        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(loop)
                for data in (b"one", bytes(70_000), b"two"):
                    transport.sendto(data, peer.getsockname())
                await until(lambda: protocol.errors)
                assert [await take(peer), await take(peer)] == [b"one", b"two"]
                assert [error.errno for error in protocol.errors] == [90]
                assert not transport.is_closing()
                await closed(protocol)

        run(main())

    def test_more_than_a_packet_of_one_size(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            sender, other = await endpoint(loop)
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for index in range(5):
                sender.sendto(bytes([index]) * 30_000, address_of(transport))
            await until(lambda: len(protocol.received) == 5)
            assert protocol.payloads == [bytes([index]) * 30_000 for index in range(5)]
            await closed(protocol, other)

        run(main())


class TestFlowControl:
    """A Unix socket whose peer does not read blocks, unlike UDP."""

    @staticmethod
    def blocked(loop, path):
        return loop.create_datagram_endpoint(Recorder, family=socket.AF_UNIX, remote_addr=path)

    # 3.13 counts a header for each queued datagram and does not take it off again.
    @pytest.mark.asyncio_wrong((3, 13), (3, 14))
    def test_pause_and_resume(self, loop, run):
        async def main():
            with unix_paths("peer") as [path], bound(socket.AF_UNIX, path) as peer:
                transport, protocol = await self.blocked(loop, path)
                assert transport.get_write_buffer_limits() == (16384, 65536)
                sent = 0
                while "pause" not in protocol.calls:
                    transport.sendto(b"%08d" % sent + bytes(992))
                    sent += 1
                    if sent % 16 == 0:
                        await turns(1)
                    assert sent < 10_000
                queued = transport.get_write_buffer_size()
                assert queued > 65536
                for index in range(sent):
                    assert int((await take(peer))[:8]) == index
                await until(lambda: transport.get_write_buffer_size() == 0)
                assert protocol.calls == ["made", "pause", "resume"]
                await closed(protocol)

        run(main())

    @pytest.mark.asyncio_wrong((3, 13), (3, 14))
    def test_context(self, loop):
        """What resume_writing sets is not seen by the code that runs the loop."""
        variable = contextvars.ContextVar("variable", default="unset")
        seen = []

        factory = noting_resumes(Recorder, variable, seen)

        async def main():
            variable.set("ours")
            with unix_paths("peer") as [path], bound(socket.AF_UNIX, path) as peer:
                transport, protocol = await loop.create_datagram_endpoint(
                    factory, family=socket.AF_UNIX, remote_addr=path
                )
                while "pause" not in protocol.calls:
                    transport.sendto(bytes(1000))
                while not seen:
                    await take(peer)
                transport.abort()
                await until(lambda: protocol.lost_with)

        loop.run_until_complete(main())
        assert seen == ["ours"]
        assert variable.get() == "unset"

    # 3.13 counts a header for each queued datagram and does not take it off again.
    @pytest.mark.asyncio_wrong((3, 13), (3, 14))
    def test_accounting(self, loop, run):
        header = getattr(asyncio.selector_events._SelectorDatagramTransport, "_header_size", 0)

        async def main():
            with unix_paths("peer") as [path], bound(socket.AF_UNIX, path) as peer:
                transport, protocol = await self.blocked(loop, path)
                transport.set_write_buffer_limits(high=1000, low=100)
                assert transport.get_write_buffer_limits() == (100, 1000)
                while not transport.get_write_buffer_size():
                    transport.sendto(b"x" * 10)
                assert transport.get_write_buffer_size() == 10 + header
                transport.sendto(b"x" * 200)
                assert transport.get_write_buffer_size() == 210 + 2 * header
                assert "pause" not in protocol.calls
                transport.sendto(b"x" * 900)
                assert protocol.calls[-1] == "pause"
                with pytest.raises(ValueError, match="must be >="):
                    transport.set_write_buffer_limits(high=1, low=2)
                transport.abort()
                await until(lambda: protocol.lost_with)
                while has_data(peer):
                    assert peer.recv(2000) == b"x" * 10

        run(main())

    def test_close_sends_what_is_queued(self, loop, run):
        async def main():
            with unix_paths("peer") as [path], bound(socket.AF_UNIX, path) as peer:
                transport, protocol = await self.blocked(loop, path)
                sent = 0
                while transport.get_write_buffer_size() < 3000:
                    transport.sendto(b"%08d" % sent)
                    sent += 1
                transport.close()
                assert transport.is_closing()
                await turns()
                assert not protocol.lost_with
                for index in range(sent):
                    assert await take(peer) == b"%08d" % index
                await until(lambda: protocol.lost_with == [None])

        run(main())


async def take(sock):
    """The next datagram, while the loop runs."""
    await until(lambda: has_data(sock))
    return sock.recv(70_000)


def has_data(sock):
    sock.setblocking(False)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        sock.settimeout(PATIENCE_S)
    return True


class TestReading:
    def test_pause_and_resume(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            with bound() as peer:
                assert transport.is_reading()
                transport.pause_reading()
                transport.pause_reading()
                assert not transport.is_reading()
                for index in range(3):
                    peer.sendto(b"%d" % index, address_of(transport))
                await asyncio.sleep(0.02)
                assert protocol.received == []
                transport.resume_reading()
                transport.resume_reading()
                assert transport.is_reading()
                await until(lambda: len(protocol.received) == 3)
                assert protocol.payloads == [b"0", b"1", b"2"]
            await closed(protocol)
            assert not transport.is_reading()

        run(main())

    def test_pause_in_the_callback(self, loop, run):
        """Not one datagram more is delivered, though a run of them was received."""

        class Pausing(Recorder):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                self.transport.pause_reading()

        async def main():
            transport, protocol = await loop.create_datagram_endpoint(
                Pausing, local_addr=("127.0.0.1", 0)
            )
            sender, other = await endpoint(loop)
            for index in range(20):
                sender.sendto(b"%02d" % index, address_of(transport))
            for count in range(1, 21):
                await until(lambda count=count: len(protocol.received) == count)
                await asyncio.sleep(0.002)
                assert len(protocol.received) == count
                transport.resume_reading()
            assert protocol.payloads == [b"%02d" % index for index in range(20)]
            await closed(protocol, other)

        run(main())

    @pytest.mark.parametrize("how", ["close", "abort"])
    def test_close_in_the_callback(self, loop, run, how):
        class Closing(Recorder):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                getattr(self.transport, how)()

        async def main():
            transport, protocol = await loop.create_datagram_endpoint(
                Closing, local_addr=("127.0.0.1", 0)
            )
            sender, other = await endpoint(loop)
            for index in range(20):
                sender.sendto(b"%02d" % index, address_of(transport))
            await until(lambda: protocol.lost_with)
            await turns()
            assert protocol.payloads == [b"00"]
            assert protocol.calls == ["made", "datagram", "lost"]
            await closed(other)

        run(main())

    def test_keyboard_interrupt_leaves_the_loop(self, loop, run):
        """And the datagrams behind it are there when the loop runs again."""

        class Interrupting(Recorder):
            def datagram_received(self, data, addr):
                super().datagram_received(data, addr)
                if data == b"1":
                    raise KeyboardInterrupt

        transport, protocol = run(
            loop.create_datagram_endpoint(Interrupting, local_addr=("127.0.0.1", 0))
        )
        sender, other = run(endpoint(loop))

        def send():
            for index in range(4):
                sender.sendto(b"%d" % index, address_of(transport))

        loop.call_soon(send)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()

        async def main():
            await until(lambda: len(protocol.received) == 4)
            assert protocol.payloads == [b"0", b"1", b"2", b"3"]
            await closed(protocol, other)

        run(main())

    def test_who_waits_goes_first(self, loop, run):
        """A task that is already scheduled runs before a datagram that waits in the socket."""
        transport, protocol = run(endpoint(loop))
        with bound() as peer:
            peer.sendto(b"x", address_of(transport))
        order = []
        protocol.datagram_received = lambda data, addr: order.append("datagram")
        loop.call_soon(order.append, "scheduled")

        async def main():
            await until(lambda: len(order) == 2)
            assert order == ["scheduled", "datagram"]
            await closed(protocol)

        run(main())

    def test_a_flood_leaves_timers_their_turn(self, loop, run):
        class PingPong(asyncio.DatagramProtocol):
            """Answers each datagram: eight are in flight for ever."""

            count = 0

            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.count += 1
                self.transport.sendto(data, addr)

        async def main():
            one, first = await loop.create_datagram_endpoint(PingPong, local_addr=("127.0.0.1", 0))
            other, _ = await loop.create_datagram_endpoint(PingPong, local_addr=("127.0.0.1", 0))
            for _ in range(8):
                one.sendto(b"x" * 100, address_of(other))
            begun = time.monotonic()
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert time.monotonic() - begun < 10
            assert first.count > 0
            one.abort()
            other.abort()
            await turns()

        run(main())

    def test_many_peers(self, loop, run):
        """Each datagram has its own sender's address, and each answer finds its way."""

        async def main():
            server, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
            clients = [await endpoint(loop) for _ in range(40)]
            for _ in range(3):
                for transport, _ in clients:
                    data = str(address_of(transport)).encode()
                    transport.sendto(data, address_of(server))
                await turns(2)
            await until(lambda: all(len(p.received) == 3 for _, p in clients))
            for transport, protocol in clients:
                data = str(address_of(transport)).encode()
                assert protocol.received == [(data, address_of(server))] * 3
            server.close()
            await closed(*(protocol for _, protocol in clients))

        run(main())


class TestClosing:
    def test_close_is_idempotent(self, loop, run):
        async def main():
            transport, protocol = await endpoint(loop)
            transport.close()
            transport.close()
            transport.abort()
            assert protocol.calls == ["made"]
            await turns(3)
            assert protocol.calls == ["made", "lost"]
            transport.close()
            await turns(2)
            assert protocol.lost_with == [None]

        run(main())

    def test_sent_before_close_arrives(self, loop, run):
        async def main():
            with bound() as peer:
                for end in ("close", "abort"):
                    transport, protocol = await endpoint(loop)
                    for data in (b"1", b"2", b"3"):
                        transport.sendto(data, peer.getsockname())
                    getattr(transport, end)()
                    assert [peer.recv(10) for _ in range(3)] == [b"1", b"2", b"3"]
                    await until(lambda protocol=protocol: protocol.lost_with)

        run(main())

    def test_connected_after_close(self, loop, run, caplog):
        """Datagrams of a closed endpoint are dropped, with a warning in the end."""

        async def main():
            with bound() as peer:
                transport, protocol = await endpoint(loop, remote_addr=peer.getsockname())
                transport.close()
                await until(lambda: protocol.lost_with)
                await turns(1)
                for _ in range(10):
                    transport.sendto(b"late")
                assert not has_data(peer)

        run(main())
        assert "socket.send() raised exception." in caplog.text

    def test_raising_connection_lost(self, loop, run, unhandled):
        class Raising(Recorder):
            def connection_lost(self, exc):
                super().connection_lost(exc)
                raise ZeroDivisionError

        async def main():
            transport, protocol = await loop.create_datagram_endpoint(
                Raising, local_addr=("127.0.0.1", 0)
            )
            fd = transport.get_extra_info("socket").fileno()
            await closed(protocol)
            assert isinstance(unhandled.take_one()["exception"], ZeroDivisionError)
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)

        run(main())

    def test_cancelled_before_connection_made(self, loop, run):
        async def main():
            with bound() as sock:
                task = loop.create_task(endpoint(loop, sock=sock))
                await turns(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await turns()
                assert sock.fileno() == -1

        run(main())


class TestErrors:
    def test_while_paused(self, loop, run, unused_port):
        """An error that nobody reads does not keep the loop busy."""

        async def main():
            transport, protocol = await endpoint(loop, remote_addr=("127.0.0.1", unused_port))
            transport.pause_reading()
            transport.sendto(b"into the void")
            begun = time.process_time()
            await asyncio.sleep(0.3)
            assert time.process_time() - begun < 0.25
            assert protocol.errors == []
            transport.resume_reading()
            await until(lambda: protocol.errors)
            await closed(protocol)

        run(main())

    def test_a_write_in_error_received_leaves_before_the_loop_waits(self, loop, run, unused_port):
        async def main():
            ours, theirs = socket.socketpair()
            theirs.settimeout(PATIENCE_S)
            stream, _ = await loop.create_connection(asyncio.Protocol, sock=ours)

            class Writing(Recorder):
                def error_received(self, exc):
                    super().error_received(exc)
                    stream.write(b"heard")

            transport, protocol = await loop.create_datagram_endpoint(
                Writing, remote_addr=("127.0.0.1", unused_port)
            )
            transport.pause_reading()  # the error comes with the second send, and by no event
            received = loop.run_in_executor(None, theirs.recv, 5)
            await turns()
            transport.sendto(b"into the void")
            await turns()
            transport.sendto(b"and again")
            assert await received == b"heard"
            assert protocol.errors
            stream.close()
            theirs.close()
            await closed(protocol)

        run(main())

    def test_raising_error_received(self, loop, run, unhandled, unused_port):
        class Raising(Recorder):
            def error_received(self, exc):
                super().error_received(exc)
                raise ZeroDivisionError

        async def main():
            transport, protocol = await loop.create_datagram_endpoint(
                Raising, remote_addr=("127.0.0.1", unused_port)
            )
            transport.sendto(b"x")
            await until(lambda: protocol.errors)
            await turns(1)
            assert isinstance(unhandled.take_one()["exception"], ZeroDivisionError)
            assert not transport.is_closing()
            await closed(protocol)

        run(main())


class TestUnix:
    def test_file_is_not_replaced(self, loop, run):
        async def main():
            with unix_paths("name") as [path]:
                Path(path).write_text("precious")
                with pytest.raises(OSError, match="in use"):
                    await endpoint(loop, family=socket.AF_UNIX, local_addr=path)
                assert Path(path).read_text() == "precious"

        run(main())

    def test_nobody_there(self, loop, run):
        async def main():
            with unix_paths("one", "nothing") as [path, nothing]:
                transport, protocol = await endpoint(loop, family=socket.AF_UNIX, local_addr=path)
                transport.sendto(b"x", nothing)
                await until(lambda: protocol.errors)
                assert isinstance(protocol.errors[0], FileNotFoundError)
                with pytest.raises(FileNotFoundError):
                    await endpoint(loop, family=socket.AF_UNIX, remote_addr=nothing)
                await closed(protocol)

        run(main())

    # Stock asyncio's sendto() takes an empty name for no peer, and fails for want of an address.
    @pytest.mark.asyncio_wrong((3, 11), (4, 0))
    @pytest.mark.parametrize("kind", [socket.socket, type("Subclass", (socket.socket,), {})])
    def test_unnamed_pair(self, loop, run, kind):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near, far = (kind(fileno=sock.detach()) for sock in (near, far))
        near.setblocking(False)
        far.setblocking(False)

        async def main():
            one, first = await endpoint(loop, sock=near)
            other, second = await endpoint(loop, sock=far)
            assert one.get_extra_info("peername") == ""
            for number in range(3):
                one.sendto(b"%d" % number)
            one.sendto(b"address", None)
            loop.call_soon(other.sendto, b"back")
            await until(lambda: len(second.received) == 4 and first.received)
            assert [data for data, _ in second.received] == [b"0", b"1", b"2", b"address"]
            assert [data for data, _ in first.received] == [b"back"]
            await closed(first, second)

        run(main())

    def test_unconnected_needs_an_address(self, loop, run, unhandled):
        async def main():
            transport, protocol = await endpoint(loop, family=socket.AF_UNIX)
            transport.sendto(b"data")
            await until(lambda: protocol.lost_with)
            assert type(unhandled.take_one()["exception"]) is TypeError

        run(main())

    def test_unbound(self, loop, run):
        async def main():
            with unix_paths("peer") as [path], bound(socket.AF_UNIX, path) as peer:
                transport, protocol = await endpoint(loop, family=socket.AF_UNIX)
                transport.sendto(b"hello", path)
                await turns(1)
                assert peer.recv(10) == b"hello"
                await closed(protocol)

        run(main())
