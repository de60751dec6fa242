"""Random programs of operations on a datagram endpoint, and the trace that a loop writes of one.

As ``transport_programs``, over a pair of Unix datagram sockets: the kernel takes a few datagrams
and then no more, so that what waits in the transport is the same on every loop.
"""

import asyncio
import contextlib
import itertools
import os
import socket
from dataclasses import dataclass, field

from hypothesis import strategies as st

from .reentrancy import Polled

CALLBACKS = (
    "connection_made",
    "datagram_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
)


class ProgramError(Exception):
    """What a callback of a program raises."""


@dataclass(frozen=True)
class Program:
    """What happens on one endpoint."""

    steps: tuple
    reactions: dict = field(default_factory=dict)


def programs():
    """The strategy of all programs."""
    size = st.sampled_from([1, 100, 5000])
    limit = st.sampled_from([None, 0, 500, 20_000])
    operation = st.one_of(
        st.tuples(st.just("sendto"), size, st.sampled_from([1, 3, 20])),
        st.tuples(st.just("set_write_buffer_limits"), limit, limit),
        st.sampled_from([("close",), ("abort",), ("get_write_buffer_size",), ("wrong data",)]),
    )
    reaction = st.one_of(st.lists(operation, min_size=1, max_size=2), st.just([("raise",)]))
    peer = st.one_of(
        st.tuples(st.just("peer sends"), size, st.sampled_from([1, 4])),
        st.tuples(st.just("peer reads"), st.sampled_from([1, 5, 100])),
    )
    own = st.lists(operation, min_size=1, max_size=4).map(lambda ops: ("own", *ops))
    return st.builds(
        Program,
        steps=st.lists(st.one_of(own, peer), min_size=1, max_size=8).map(tuple),
        reactions=st.dictionaries(st.sampled_from(CALLBACKS), reaction, max_size=2),
    )


class Run(asyncio.DatagramProtocol):
    """One run of one program on one loop: it is the protocol as well."""

    def __init__(self, program, peer):
        self.trace = []
        self.transport = None
        self.peer = peer
        self.is_lost = False
        self._reactions = dict(program.reactions)
        self._numbers = itertools.count()

    def called(self, callback, *details):
        self.trace.append(("called", callback, *details))
        for operation in self._reactions.pop(callback, ()):
            if operation == ("raise",):
                raise ProgramError(callback)
            self.perform(operation)

    def connection_made(self, transport):
        self.transport = transport
        self.called("connection_made")

    def datagram_received(self, data, addr):
        from_peer = addr == self.peer.getsockname()
        self.called("datagram_received", len(data), data[:2], from_peer)

    def error_received(self, exc):
        self.called("error_received", type(exc).__name__)

    def pause_writing(self):
        self.called("pause_writing")

    def resume_writing(self):
        self.called("resume_writing")

    def connection_lost(self, exc):
        self.is_lost = True
        self.called("connection_lost", type(exc).__name__)

    def make(self, size):
        """A datagram that tells which it is."""
        number = next(self._numbers).to_bytes(2, "big")
        return (number * (size // 2 + 1))[: max(size, 2)]

    def perform(self, operation):
        """Calls a method of the transport; what it says belongs to the trace."""
        name, *arguments = operation
        try:
            if name == "sendto":
                size, count = arguments
                results = {self.transport.sendto(self.make(size)) for _ in range(count)}
                (result,) = results
            elif name == "wrong data":
                result = self.transport.sendto("text")
            else:
                result = getattr(self.transport, name)(*arguments)
        except (RuntimeError, ValueError, TypeError) as exc:
            result = f"{type(exc).__name__}: {exc}"
        if name == "get_write_buffer_size" and self.transport.is_closing():
            result = None  # asyncio goes on to count what an abort dropped
        self.trace.append((operation, result))

    def perform_all(self, operations):
        for operation in operations:
            self.perform(operation)

    def report(self, loop, context):
        exception = context.get("exception")
        # Behind this it names a method: asyncio's one of its transport, which no other loop has.
        message = context["message"].partition("Exception in callback ")[1] or context["message"]
        self.trace.append(("handler", message, type(exception).__name__, str(exception)))

    def peer_sends(self, size, count):
        for number in range(count):
            try:
                self.peer.send(bytes([number]) * size)
            except OSError as exc:
                self.trace.append(("peer", type(exc).__name__))

    def peer_reads(self, most):
        for _ in range(most):
            try:
                data = self.peer.recv(1 << 16)
            except OSError as exc:
                self.trace.append(("peer", type(exc).__name__))
                return
            self.trace.append(("peer read", len(data), data[:2]))

    def rest(self):
        """The state when nothing happens any more."""
        transport = self.transport
        queued = None if self.is_lost else transport.get_write_buffer_size()
        limits = transport.get_write_buffer_limits()
        self.trace.append(("at rest", transport.is_closing(), queued, limits))


def trace_of(loop, program):
    """Runs ``program`` on ``loop``; gives what happened."""
    far = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.setblocking(False)
    far.bind("")  # the kernel finds an abstract name
    run = Run(program, far)
    loop.set_exception_handler(run.report)
    try:
        loop.run_until_complete(_course(loop, run, program))
    finally:
        loop.set_exception_handler(None)
        far.close()
    return run.trace


async def _course(loop, run, program):
    polled = Polled(loop)
    try:
        names = {
            "local_addr": f"\0oxloop-{os.getpid()}",
            "remote_addr": run.peer.getsockname().decode(),
        }
        await loop.create_datagram_endpoint(lambda: run, family=socket.AF_UNIX, **names)
        with contextlib.suppress(ConnectionRefusedError):  # when the program closes at once
            run.peer.connect(names["local_addr"])
        for name, *arguments in program.steps:
            if name == "own":
                loop.call_soon(run.perform_all, arguments)
            elif name == "peer sends":
                run.peer_sends(*arguments)
            else:
                run.peer_reads(*arguments)
            await polled()
            run.rest()
        if not run.is_lost:
            run.transport.abort()
        await polled()
        run.peer_reads(100)
    finally:
        polled.close()
