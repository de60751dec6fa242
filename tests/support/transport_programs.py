"""Random programs of transport operations, and the trace that a loop writes of one.

A program is a course of steps on one connection. A step is either what the peer does, or some
operations on the transport in one callback; besides, operations wait inside callbacks of the
protocol. After each step everything comes to rest, so that only what asyncio promises is in the
trace: every callback, every result and error, the state at rest, and all data in both directions,
joined as the kernel may cut it anywhere.

Sizes are such that no loop's way of cutting shows: the kernel takes all small writes of a program
at once, and nothing like the whole of a large one.
"""

import asyncio
import hashlib
import itertools
import socket
from dataclasses import dataclass, field

from hypothesis import strategies as st

from .peers import unix_pair
from .reentrancy import Polled

KERNEL_BUFFER = 65536
LARGE = 1_000_000
STUCK_POLLS = 300
CALLBACKS = (
    "connection_made",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
)


class ProgramError(Exception):
    """What a callback of a program raises."""


@dataclass(frozen=True)
class Program:
    """What happens on one connection."""

    steps: tuple
    reactions: dict = field(default_factory=dict)
    buffered: bool = False
    keep_open: bool = False


def programs():
    """The strategy of all programs."""
    size = st.sampled_from([0, 1, 100, 200, LARGE])
    limit = st.sampled_from([None, 0, 50, 10_000, 2_000_000])
    operation = st.one_of(
        st.tuples(st.just("write"), size),
        st.tuples(st.just("writelines"), st.lists(size, max_size=3).map(tuple)),
        st.tuples(st.just("set_write_buffer_limits"), limit, limit),
        st.sampled_from(
            [
                ("pause_reading",),
                ("resume_reading",),
                ("write_eof",),
                ("close",),
                ("abort",),
                ("set_protocol",),
            ]
        ),
    )
    # Never behind a write: that would fail first in asyncio, but leaves at the callback's end here.
    reaction = st.one_of(st.lists(operation, min_size=1, max_size=2), st.just([("raise",)]))
    peer = st.one_of(
        st.tuples(st.just("peer sends"), st.sampled_from([1, 100, 5000])),
        st.sampled_from([("peer reads",), ("peer half-closes",), ("peer closes",)]),
    )
    own = st.lists(operation, min_size=1, max_size=4).map(lambda ops: ("own", *ops))
    return st.builds(
        Program,
        steps=st.lists(st.one_of(own, peer), min_size=1, max_size=7).map(tuple),
        reactions=st.dictionaries(st.sampled_from(CALLBACKS), reaction, max_size=3),
        buffered=st.booleans(),
        keep_open=st.booleans(),
    )


class Stream:
    """Data in one direction: where it was made, or what came of it."""

    def __init__(self):
        self.length = 0
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._numbers = itertools.count()

    def make(self, size):
        """Bytes that tell where in the stream they are."""
        block = next(self._numbers).to_bytes(4, "big") * (size // 4 + 1)
        return block[:size]

    def take(self, data):
        self.length += len(data)
        self._digest.update(data)

    def summary(self):
        return self.length, self._digest.hexdigest()[:8]


class Run:
    """One run of one program on one loop."""

    def __init__(self, loop, program):
        self.loop = loop
        self.program = program
        self.trace = []
        self.transport = None
        self.is_lost = False
        self.loses_data = False
        self.peer_is_gone = False
        self.sent, self.received = Stream(), Stream()
        self._reactions = dict(program.reactions)
        self._protocols = itertools.count(1)

    def note(self, *entry):
        if self.trace[-1:] != [entry]:  # how the kernel cuts data is not compared
            self.trace.append(entry)

    def new_protocol(self):
        kind = BufferedSubject if self.program.buffered else Subject
        return kind(self, next(self._protocols))

    def react(self, callback):
        for operation in self._reactions.pop(callback, ()):
            if operation == ("raise",):
                self.loses_data = True
                raise ProgramError(callback)
            self.perform(operation)

    def perform(self, operation):
        """Calls a method of the transport; what it says belongs to the trace."""
        name, *arguments = operation
        method = getattr(self.transport, name)
        if name == "write":
            arguments = [self.sent.make(*arguments)]
        elif name == "writelines":
            arguments = [[self.sent.make(size) for size in arguments[0]]]
        elif name == "set_protocol":
            arguments = [self.new_protocol()]
        elif name == "abort":
            self.loses_data = True
        try:
            result = method(*arguments)
        except (RuntimeError, ValueError, TypeError, AttributeError) as exc:
            result = f"{type(exc).__name__}: {exc}"
        self.note(operation, result)

    def report(self, loop, context):
        exception = context.get("exception")
        message = context["message"].partition(" Subject.")[0]
        message = message.partition("Exception in callback ")[1] or message
        self.note("handler", message, type(exception).__name__, str(exception))

    def rest(self):
        """The state when nothing happens any more."""
        transport = self.transport
        number = getattr(transport.get_protocol(), "number", None)
        self.note(
            "at rest",
            f"closing={transport.is_closing()}",
            f"reading={transport.is_reading()}",
            f"queued={transport.get_write_buffer_size() > KERNEL_BUFFER}",
            f"limits={transport.get_write_buffer_limits()}",
            f"protocol={number}",
            self.received.summary(),
        )


class _Subject:
    """The callbacks that both kinds of protocol have."""

    def __init__(self, run, number):
        self.run = run
        self.number = number

    def called(self, callback, *details):
        self.run.note(self.number, callback, *details)
        self.run.react(callback)

    def connection_made(self, transport):
        self.run.transport = transport
        self.called("connection_made")

    def eof_received(self):
        self.called("eof_received")
        return self.run.program.keep_open

    def pause_writing(self):
        self.called("pause_writing")

    def resume_writing(self):
        self.called("resume_writing")

    def connection_lost(self, exc):
        self.run.is_lost = True
        self.called("connection_lost", type(exc).__name__)


class Subject(_Subject, asyncio.Protocol):
    """A Protocol of a program."""

    def data_received(self, data):
        self.run.received.take(data)
        self.called("data_received")


class BufferedSubject(_Subject, asyncio.BufferedProtocol):
    """A BufferedProtocol of a program."""

    def get_buffer(self, sizehint):
        self.buffer = bytearray(4096)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.run.received.take(self.buffer[:nbytes])
        self.called("data_received")


class Peer:
    """The plain socket at the other end, in step with the loop."""

    def __init__(self, run, sock, polled):
        self.run = run
        self.sock = sock
        self.polled = polled
        self.made, self.received = Stream(), Stream()

    async def act(self, name, *arguments):
        if self.run.peer_is_gone:
            return
        actions = {
            "peer sends": self.sends,
            "peer reads": self.reads,
            "peer half-closes": self.half_closes,
            "peer closes": self.closes,
        }
        await actions[name](*arguments)

    async def sends(self, size):
        self._attempt(self.sock.sendall, self.made.make(size))

    async def half_closes(self):
        self._attempt(self.sock.shutdown, socket.SHUT_WR)

    async def closes(self):
        """After it has read everything: unread data would turn the end into a reset."""
        await self.reads()
        self.run.peer_is_gone = True
        self.sock.close()

    def _attempt(self, call, *arguments):
        try:
            call(*arguments)
        except OSError as exc:
            self.run.note("peer", type(exc).__name__)

    async def reads(self):
        """Reads until nothing is queued at the other end any more."""
        end, idle = "open", 0
        while idle < 2 or not self._all_came():
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                idle += 1
                if idle > STUCK_POLLS:
                    end = "stuck"
                    break
                await self.polled(1)
                continue
            except ConnectionResetError:
                end = "reset"
                break
            if not data:
                end = "end"
                break
            self.received.take(data)
            idle = 0
        if not self.run.loses_data:
            self.run.note("peer read", end, self.received.summary())

    def _all_came(self):
        return self.run.is_lost or not self.run.transport.get_write_buffer_size()


def trace_of(loop, program):
    """Runs ``program`` on ``loop``; gives what happened."""
    run = Run(loop, program)
    loop.set_exception_handler(run.report)
    loop.run_until_complete(_course(run))
    loop.set_exception_handler(None)
    return run.trace


async def _course(run):
    # Not TCP: what is sent there arrives when the kernel finds the time.
    near, far = unix_pair(sndbuf=KERNEL_BUFFER)
    far.setblocking(False)
    polled = Polled(run.loop)
    peer = Peer(run, far, polled)
    try:
        await run.loop.connect_accepted_socket(run.new_protocol, near)
        for step in run.program.steps:
            if step[0] == "own":
                run.loop.call_soon(_perform_all, run, step[1:])
            else:
                await peer.act(*step)
            await polled()
            run.rest()
        run.note("-- end")
        await peer.act("peer reads")
        if not run.is_lost:
            run.transport.abort()
        await polled()
    finally:
        polled.close()
        far.close()
        near.close()


def _perform_all(run, operations):
    for operation in operations:
        run.perform(operation)
