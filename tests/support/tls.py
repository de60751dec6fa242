"""TLS at the other end: a blocking peer that is in charge of each byte on the wire."""

import asyncio
import contextlib
import ssl

from support.certificates import NAME, client_context, server_context
from support.peers import tcp_pair
from support.protocols import BufferedRecorder, Recorder

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
SIDES = ("server", "client")


class ViewRecorder(BufferedRecorder):
    """Hands out a view: asyncio slices what it gets, and a slice of a bytearray is a copy."""

    def get_buffer(self, sizehint):
        return memoryview(super().get_buffer(sizehint))


RECORDERS = {"protocol": Recorder, "buffered": ViewRecorder}


class Peer:
    """TLS over a blocking socket, through memory: what goes out can be held back or changed."""

    def __init__(self, sock, context, *, server_side=False, server_hostname=None, session=None):
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )

    def handshake(self, flush=True):
        """Up to its end; ``flush=False`` holds this side's last flight back, if it is the last."""
        self._carry_out(self.tls.do_handshake, flush=flush)

    def send(self, data):
        self._carry_out(self.tls.write, data)

    def receive(self, most=65536):
        """Some data; nothing at the end that close_notify tells of, SSLEOFError at another."""
        try:
            return self._carry_out(self.tls.read, most)
        except ssl.SSLZeroReturnError:  # after a close_notify of this side's
            return b""

    def receive_exactly(self, count):
        data = bytearray()
        while len(data) < count:
            chunk = self.receive(min(65536, count - len(data)))
            if not chunk:
                break
            data += chunk
        return bytes(data)

    def receive_all(self):
        """All data up to close_notify."""
        data = bytearray()
        while chunk := self.receive():
            data += chunk
        return bytes(data)

    def unwrap(self):
        """Sends close_notify and waits for the other one; there must be no more data."""
        self._carry_out(self.tls.unwrap)

    def close_notify(self):
        """Sends close_notify and does not wait."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def say_all_at_once(self, data):
        """The last flight of a client's handshake, data and close_notify, in one segment."""
        self.handshake(flush=False)
        self.tls.write(data)
        self.close_notify()

    def sealed(self, data):
        """The records that carry ``data``, not sent."""
        self.tls.write(data)
        return self.outgoing.read()

    def flush(self):
        if data := self.outgoing.read():
            self.sock.sendall(data)

    def close(self):
        self.sock.close()

    def _carry_out(self, call, *args, flush=True):
        while True:
            try:
                result = call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                self._fill()
            except ssl.SSLError:
                self.flush()  # the alert
                raise
            else:
                if flush:
                    self.flush()
                return result

    def _fill(self):
        if data := self.sock.recv(65536):
            self.incoming.write(data)
        else:
            self.incoming.write_eof()


class Tunnel:
    """A peer as a socket for another peer: TLS over TLS."""

    def __init__(self, peer):
        self.sendall, self.recv = peer.send, peer.receive


@contextlib.contextmanager
def tcp_streams():
    """(near, far) sockets over loopback, closed at the end."""
    near, far = tcp_pair()
    try:
        yield near, far
    finally:
        near.close()
        far.close()


def peer_of(far, side, contexts=None):
    """The peer on ``far`` of a loop that has the ``side``."""
    server, client = contexts or (server_context(), client_context())
    if side == "server":
        return Peer(far, client, server_hostname=NAME)
    return Peer(far, server, server_side=True)


async def wrapped(loop, near, factory, side, contexts=None, **options):
    """(transport, protocol) with TLS on ``near``, once the handshake is done."""
    server, client = contexts or (server_context(), client_context())
    if side == "server":
        return await loop.connect_accepted_socket(factory, near, ssl=server, **options)
    return await loop.create_connection(
        factory, sock=near, ssl=client, server_hostname=NAME, **options
    )


async def secured(loop, pair, protocol, side="server", contexts=None, **options):
    """(transport, peer): TLS between the loop's end and the far one, handshake done."""
    contexts = contexts or (server_context(), client_context())
    near, far = pair
    peer = peer_of(far, side, contexts)
    (transport, _), _ = await asyncio.gather(
        wrapped(loop, near, lambda: protocol, side, contexts, **options),
        asyncio.to_thread(peer.handshake),
    )
    return transport, peer
