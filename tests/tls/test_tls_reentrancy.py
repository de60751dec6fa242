"""Every callback of a TLS transport that closes, writes, pauses, switches or raises.

What each combination does to the data is its own business; what must hold for all of them is
checked: connection_made first, connection_lost once and last, the peer comes to an end, nothing
is reported but what the program raised.
"""

import asyncio
import contextlib
import socket

import pytest

from support.certificates import client_context, server_context
from support.peers import until
from support.protocols import Recorder
from support.tls import ViewRecorder, peer_of, secured, tcp_streams, wrapped

FLOOD = bytes(550_000)
END = b"the end of it"
COMMON = ("connection_made", "eof_received", "pause_writing", "resume_writing", "connection_lost")
CALLBACKS = {
    "protocol": (Recorder, ("data_received", *COMMON)),
    "buffered": (ViewRecorder, ("get_buffer", "buffer_updated", *COMMON)),
}
CASES = [(kind, callback) for kind, (_, names) in CALLBACKS.items() for callback in names]


class ProgramError(Exception):
    """What a callback raises when its action is to raise."""


def raises(error):
    def action(transport, protocol):
        raise error

    return action


ACTIONS = {
    "close": lambda transport, protocol: transport.close(),
    "abort": lambda transport, protocol: transport.abort(),
    "close and abort": lambda transport, protocol: (transport.close(), transport.abort()),
    "write": lambda transport, protocol: transport.write(b"written"),
    "writelines": lambda transport, protocol: transport.writelines([b"two", b"lines"]),
    "flood": lambda transport, protocol: transport.write(FLOOD),
    "write and close": lambda transport, protocol: (transport.write(FLOOD), transport.close()),
    "pause reading": lambda transport, protocol: transport.pause_reading(),
    "resume reading": lambda transport, protocol: transport.resume_reading(),
    "limits": lambda transport, protocol: transport.set_write_buffer_limits(high=1000),
    "switch": lambda transport, protocol: transport.set_protocol(protocol.successor()),
    "ask": lambda transport, protocol: transport.get_extra_info("ssl_object").getpeercert(),
    "raise": raises(ProgramError("raised by the program")),
}


def programmed(base, callback, action):
    """A class of protocols that do ``action`` in ``callback``, once."""

    class Programmed(base):
        done = False

        def successor(self):
            following = type(self)()
            following.done, following.calls = True, self.calls
            following.lost_with = self.lost_with
            following.transport = self.transport
            return following

        def _note_data(self):
            self.calls.append("data")

    inherited = getattr(base, callback)

    def acting(self, *args):
        result = inherited(self, *args)
        if not self.done:
            self.done = True
            ACTIONS[action](self.transport, self)
        return result

    setattr(Programmed, callback, acting)
    return Programmed


def converse(peer):
    """The peer's part: it goes on until it is told of an end, then ends its own side."""
    with contextlib.suppress(OSError):
        peer.send(b"data")
        tail = b""
        while not tail.endswith(END):
            chunk = peer.receive()
            if not chunk:
                break
            tail = (tail + chunk)[-len(END) :]
        if tail.endswith(END):
            peer.send(b"more data")
        peer.close_notify()
        while peer.receive():
            pass
    with contextlib.suppress(OSError):
        peer.sock.shutdown(socket.SHUT_WR)


async def course(loop, protocol, contexts):
    with tcp_streams() as pair:
        transport, peer = await secured(
            loop, pair, protocol, "server", contexts, ssl_shutdown_timeout=5
        )
        conversation = asyncio.ensure_future(asyncio.to_thread(converse, peer))
        await asyncio.sleep(0.002)
        for data in (FLOOD, FLOOD, END):
            transport.write(data)
        await until(lambda: protocol.lost_with or transport.resume_reading())
        await conversation


def check(protocol, action, reported):
    assert protocol.calls[0] == "made", action
    assert len(protocol.lost_with) == 1, action
    assert protocol.calls.index("lost") == len(protocol.calls) - 1, action
    assert all(isinstance(context["exception"], ProgramError) for context in reported), action
    assert len(reported) <= (1 if action == "raise" and protocol.done else 0), action


@pytest.mark.parametrize(("kind", "callback"), CASES, ids=map("-".join, CASES))
def test_one_action_in_one_callback(loop, run, unhandled, kind, callback):
    contexts = server_context(), client_context()
    for action in ACTIONS:
        if (callback, action) == ("connection_made", "raise"):
            continue  # there is no connection then: the next test
        protocol = programmed(CALLBACKS[kind][0], callback, action)()
        run(course(loop, protocol, contexts), timeout=15)
        check(protocol, action, unhandled.take())


@pytest.mark.parametrize("kind", CALLBACKS)
def test_connection_made_that_raises(loop, run, pair, unhandled, kind, side):
    """It is reported, ends the connection, and is what the opener gets."""
    protocol = programmed(CALLBACKS[kind][0], "connection_made", "raise")()
    peer = peer_of(pair[1], side)

    async def main():
        ours, _ = await asyncio.gather(
            wrapped(loop, pair[0], lambda: protocol, side),
            asyncio.to_thread(peer.handshake),
            return_exceptions=True,
        )
        assert isinstance(ours, ProgramError)
        await until(lambda: pair[0].fileno() == -1)
        await until(lambda: protocol.lost_with)

    run(main())
    assert unhandled.take_one()["exception"].args == ("raised by the program",)
    assert protocol.calls == ["made", "lost"]
