"""HTTP/3 by aioquic: both ends on the loop, over loopback, with a certificate that is verified."""

import asyncio
import contextlib
import hashlib

import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated

from support.peers import pattern

PIECE = 50_000


class ServerProtocol(QuicConnectionProtocol):
    """GET /bytes/N answers N bytes, POST the digest of what it got."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = None
        self.requests = {}

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
        if self.http is None:
            return
        for http_event in self.http.handle_event(event):
            if isinstance(http_event, HeadersReceived):
                self.requests[http_event.stream_id] = (dict(http_event.headers), hashlib.sha256())
            elif isinstance(http_event, DataReceived):
                self.requests[http_event.stream_id][1].update(http_event.data)
            if http_event.stream_ended:
                self.answer(http_event.stream_id, *self.requests.pop(http_event.stream_id))
        self.transmit()

    def answer(self, stream, headers, digest):
        if headers[b":method"] == b"POST":
            body = digest.hexdigest().encode()
        else:
            body = pattern(int(headers[b":path"].rpartition(b"/")[2]))
        head = [(b":status", b"200"), (b"content-length", b"%d" % len(body))]
        self.http.send_headers(stream, head)
        self.http.send_data(stream, body, end_stream=True)


class ClientProtocol(QuicConnectionProtocol):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.http = H3Connection(self._quic)
        self.answers = {}
        self.terminated = None

    async def request(self, method, path, body=b""):
        """(status, body) of the answer."""
        stream = self._quic.get_next_available_stream_id()
        answer = self.answers[stream] = [None, bytearray(), self._loop.create_future()]
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", b"localhost")]
        self.http.send_headers(stream, [*head, (b":path", path)], end_stream=not body)
        for start in range(0, len(body), PIECE):
            self.http.send_data(stream, body[start : start + PIECE], start + PIECE >= len(body))
        self.transmit()
        await answer[2]
        return int(answer[0][b":status"]), bytes(answer[1])

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        for http_event in self.http.handle_event(event):
            answer = self.answers[http_event.stream_id]
            if isinstance(http_event, HeadersReceived):
                answer[0] = dict(http_event.headers)
            elif isinstance(http_event, DataReceived):
                answer[1] += http_event.data
            if http_event.stream_ended:
                answer[2].set_result(None)


@pytest.fixture
def served(certificates):
    """The context of a server on loopback, entered with its port."""

    @contextlib.asynccontextmanager
    async def server():
        configuration = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        configuration.load_cert_chain(certificates.chain, certificates.key)
        running = await serve(
            "127.0.0.1", 0, configuration=configuration, create_protocol=ServerProtocol
        )
        try:
            yield running._transport.get_extra_info("sockname")[1]
        finally:
            running.close()
            await asyncio.sleep(0)

    return server


@pytest.fixture
def client_of(certificates):
    def client(port, *, trusted=True):
        configuration = QuicConfiguration(
            alpn_protocols=H3_ALPN,
            server_name="localhost",
            cafile=str(certificates.authority) if trusted else None,
        )
        # aioquic's client sends from a socket of both families, to ::ffff:127.0.0.1.
        return connect(
            "127.0.0.1", port, configuration=configuration, create_protocol=ClientProtocol
        )

    return client


def test_request(loop, run, served, client_of):
    async def main():
        async with served() as port, client_of(port) as client:
            return await client.request(b"GET", b"/bytes/1000")

    assert run(main()) == (200, pattern(1000))


def test_large_bodies(loop, run, served, client_of):
    body = pattern(2_000_000)

    async def main():
        async with served() as port, client_of(port) as client:
            status, answer = await client.request(b"POST", b"/", body)
            assert (status, answer.decode()) == (200, hashlib.sha256(body).hexdigest())
            assert await client.request(b"GET", b"/bytes/2000000") == (200, body)

    run(main())


def test_streams_side_by_side(loop, run, served, client_of):
    async def main():
        async with served() as port, client_of(port) as client:
            sizes = range(0, 60_000, 1000)
            answers = await asyncio.gather(
                *(client.request(b"GET", b"/bytes/%d" % size) for size in sizes)
            )
            assert answers == [(200, pattern(size)) for size in sizes]

    run(main())


def test_many_connections(loop, run, served, client_of):
    async def work(port, size):
        async with client_of(port) as client:
            return await client.request(b"GET", b"/bytes/%d" % size)

    async def main():
        async with served() as port:
            return await asyncio.gather(*(work(port, size) for size in range(1000, 1010)))

    assert run(main()) == [(200, pattern(size)) for size in range(1000, 1010)]


def test_closing_reaches_the_other_end(loop, run, served, client_of):
    async def main():
        async with served() as port:
            async with client_of(port) as client:
                await client.request(b"GET", b"/bytes/1")
                client.close(error_code=ErrorCode.H3_NO_ERROR, reason_phrase="enough")
                await client.wait_closed()
            assert client.terminated.reason_phrase == "enough"

    run(main())


def test_a_certificate_of_nobody(loop, run, served, client_of):
    async def main():
        async with served() as port:
            with pytest.raises(ConnectionError):
                async with client_of(port, trusted=False):
                    pass

    run(main())
