"""Files that have the number of one that was just closed."""

import errno
import os
import socket

import pytest

from support.peers import turns


def is_bad_descriptor(error):
    return isinstance(error, OSError) and error.errno == errno.EBADF


async def refused_to_resume(transport, protocol):
    """Its file is closed: the caller of ``resume_reading()`` is told, and nobody else."""
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        transport.resume_reading()
    await turns()
    assert is_bad_descriptor(caught.value)
    assert not protocol.is_lost


def renumbered(file, number):
    """Moves a socket or a pipe's end to ``number``, which nobody has."""
    if file.fileno() == number:
        return file
    os.dup2(file.fileno(), number, inheritable=False)
    if isinstance(file, socket.socket):
        moved = socket.socket(fileno=number)
    else:
        moved = os.fdopen(number, file.mode, 0)
    file.close()
    return moved


class Stranger:
    """A connection whose socket has the number of a file that is closed here."""

    def __init__(self, closed, kind=socket.SOCK_STREAM):
        number = closed.fileno()
        closed.close()
        near, self.peer = socket.socketpair(type=kind)
        if self.peer.fileno() == number:
            near, self.peer = self.peer, near
        self.sock = renumbered(near, number)
        for sock in (self.sock, self.peer):
            sock.setblocking(False)

    def got(self):
        """What came out of the stranger's own connection, on both ends."""
        received = []
        for sock in (self.peer, self.sock):
            try:
                received.append(sock.recv(100))
            except BlockingIOError:
                received.append(None)
        return received

    def close(self):
        self.sock.close()
        self.peer.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
