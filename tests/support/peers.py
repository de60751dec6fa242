"""Real sockets at the other end: connected pairs, listeners, and patient waiting."""

import asyncio
import contextlib
import hashlib
import socket
import struct
import sys
import threading
import time

#: A CPython built with Py_DEBUG takes that much longer.
SLOWNESS = 5 if hasattr(sys, "gettotalrefcount") else 1
PATIENCE_S = 15 * SLOWNESS
#: Whether asyncio's servers go on with the next address if one cannot be bound.
SKIPS_ADDRESSES = sys.version_info >= (3, 12, 2) or (3, 11, 8) <= sys.version_info < (3, 12)


def tcp_pair(sndbuf=None, rcvbuf=None):
    """(near, far): connected TCP sockets over loopback, both with a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if rcvbuf is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        near = socket.socket()
        if sndbuf is not None:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
    return _patient(near, far)


def unix_pair(sndbuf=None):
    """(near, far): connected Unix stream sockets, both with a timeout."""
    near, far = socket.socketpair()
    if sndbuf is not None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
    return _patient(near, far)


PAIRS = {"tcp": tcp_pair, "unix": unix_pair}


def _patient(near, far):
    near.setblocking(False)
    far.settimeout(PATIENCE_S)
    return near, far


def reset(sock):
    """Closes ``sock`` so that the other end sees a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def accepted(loop, factory, pair=unix_pair):
    """(transport, protocol, far): a transport on one end of a pair, and the other end."""
    near, far = pair()
    return *await loop.connect_accepted_socket(factory, near), far


async def until(predicate, patience=PATIENCE_S):
    """Lets the loop run until ``predicate()`` is true."""
    deadline = time.monotonic() + patience
    while not predicate():
        if time.monotonic() > deadline:
            raise TimeoutError(f"never true: {predicate}")
        await asyncio.sleep(0.001)


async def shut(server):
    """Closes a server, and waits until its connections are gone (from Python 3.12 on)."""
    server.close()
    await server.wait_closed()


async def turns(count=5):
    """Lets the loop run that many iterations."""
    for _ in range(count):
        await asyncio.sleep(0)


def read_exactly(sock, count):
    """Blocking read of ``count`` bytes."""
    data = bytearray()
    while len(data) < count:
        chunk = sock.recv(min(65536, count - len(data)))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def read_all(sock):
    """Blocking read up to EOF."""
    data = bytearray()
    while chunk := sock.recv(65536):
        data += chunk
    return bytes(data)


def pattern(size, seed=b"oxloop"):
    """``size`` bytes that do not repeat in a way that would hide a reordering."""
    block, blocks = hashlib.sha512(seed).digest(), []
    for _ in range(-(-size // 64)):
        blocks.append(block)
        block = hashlib.sha512(block).digest()
    return b"".join(blocks)[:size]


class Listener:
    """A thread that accepts on loopback and hands every connection to ``serve``."""

    def __init__(self, serve, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.sock = socket.socket(family)
        self.sock.bind(address)
        self.sock.listen(64)
        self.sock.settimeout(PATIENCE_S)
        self.address = self.sock.getsockname()
        self._serve = serve
        self._conns = []
        self._closing = False
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._closing = True
        with contextlib.suppress(OSError), socket.socket(self.sock.family) as knock:
            knock.settimeout(1)
            knock.connect(self.address)  # accept returns for nothing less
        self._thread.join()
        self.sock.close()
        for thread, conn in self._conns:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
            thread.join()
            conn.close()

    def _accept(self):
        while not self._closing:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            if self._closing:
                conn.close()
                return
            conn.settimeout(PATIENCE_S)
            thread = threading.Thread(target=self._one, args=(conn,), daemon=True)
            self._conns.append((thread, conn))
            thread.start()

    def _one(self, conn):
        with contextlib.suppress(OSError):
            self._serve(conn)


def echo(conn):
    """Serves one connection: sends back what it reads, then closes."""
    with conn:
        while data := conn.recv(65536):
            conn.sendall(data)


class Unresponsive:
    """A listening address whose accept queue is full: connecting to it hangs."""

    def __init__(self, family=socket.AF_INET, host="127.0.0.1"):
        self._listener = socket.socket(family)
        self._listener.bind((host, 0))
        self._listener.listen(0)
        self.address = self._listener.getsockname()
        self._fillers = []
        while self._takes_one_more():
            pass

    def _takes_one_more(self):
        sock = socket.socket(self._listener.family)
        sock.settimeout(0.05)
        self._fillers.append(sock)
        try:
            sock.connect(self.address)
        except TimeoutError:
            return False
        return True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        for sock in (*self._fillers, self._listener):
            sock.close()
