"""Datagram sockets and protocols for tests."""

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path

from support.peers import PATIENCE_S


class Recorder(asyncio.DatagramProtocol):
    """Keeps every datagram with its sender, every error, and the order of the callbacks."""

    def __init__(self):
        self.calls = []
        self.received = []
        self.errors = []
        self.lost_with = []
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def datagram_received(self, data, addr):
        assert type(data) is bytes
        self.received.append((data, addr))
        self.calls.append("datagram")

    def error_received(self, exc):
        self.errors.append(exc)
        self.calls.append("error")

    def connection_lost(self, exc):
        self.lost_with.append(exc)
        self.calls.append("lost")

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    @property
    def payloads(self):
        return [data for data, _ in self.received]


class Echo(asyncio.DatagramProtocol):
    """Sends back what it receives."""

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


@contextlib.contextmanager
def bound(family=socket.AF_INET, address=None):
    """A bound plain socket with a timeout, to talk to an endpoint."""
    if address is None:
        address = ("::1", 0) if family == socket.AF_INET6 else ("127.0.0.1", 0)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        sock.settimeout(PATIENCE_S)
        yield sock


@contextlib.contextmanager
def unix_paths(*names):
    """Paths for Unix sockets in a directory of their own, short enough for a socket name."""
    with tempfile.TemporaryDirectory(prefix="dg", dir="/tmp") as directory:
        yield [str(Path(directory, name)) for name in names]


def address_of(transport):
    return transport.get_extra_info("sockname")
