"""Plain HTTP sent to a TLS port closes that connection, and is logged in debug mode only.

Must hold: no protocol hears of it, and the next client is served.
"""

import asyncio
import contextlib
import logging
import socket

from support.certificates import NAME, client_context, server_context
from support.peers import read_all, turns, until
from support.protocols import Echo, Recorder

REQUEST = b"GET / HTTP/1.1\r\nHost: oxloop.test\r\n\r\n"


def speak(address):
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(REQUEST)
        with contextlib.suppress(ConnectionResetError):
            return read_all(sock)


def test_is_closed_and_not_logged(loop, run, caplog):
    made = []

    class Noting(Echo):
        def connection_made(self, transport):
            super().connection_made(transport)
            made.append(transport)

    async def main():
        server = await loop.create_server(Noting, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        for _ in range(3):
            answer = await asyncio.to_thread(speak, address)
            assert not answer or answer.startswith(b"\x15")  # an alert, if anything
        assert made == []
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=client_context(), server_hostname=NAME
        )
        transport.write(b"served")
        await until(lambda: protocol.received == b"served")
        transport.close()
        await until(lambda: protocol.is_lost)
        server.close()
        await turns()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main())
    assert caplog.records == []
