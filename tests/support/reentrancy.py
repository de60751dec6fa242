"""Programs of re-entrant protocols: what each callback does, and the trace of it.

A program maps callback names to actions. It runs on one connection through a fixed course
of events, and writes down every callback, what the action in it gave, and what reached the
exception handler. Two loops are alike when they write the same trace.
"""

import asyncio
import re
import socket

from .peers import PAIRS

PROTOCOL_CALLBACKS = (
    "connection_made",
    "data_received",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
)
BUFFERED_CALLBACKS = (
    "connection_made",
    "get_buffer",
    "buffer_updated",
    "eof_received",
    "pause_writing",
    "resume_writing",
    "connection_lost",
)
CALLBACKS = {"protocol": PROTOCOL_CALLBACKS, "buffered": BUFFERED_CALLBACKS}
FLOOD = b"f" * 600_000
STUCK_POLLS = 300  # without a byte, until a queue counts as one that nobody will write
# After these, how much of the queue still reached the kernel is nobody's contract.
LOSING_ACTIONS = {"abort", "raise", "raise_os_error"}


class CallbackError(Exception):
    """What a callback raises when its action is to raise."""


def _raise():
    raise CallbackError("raised by the program")


def _raise_os_error():
    raise OSError(5, "raised by the program")


ACTIONS = {
    "close": lambda subject, transport: transport.close(),
    "abort": lambda subject, transport: transport.abort(),
    "write": lambda subject, transport: transport.write(b"written"),
    "writelines": lambda subject, transport: transport.writelines([b"two", b"lines"]),
    "flood": lambda subject, transport: transport.write(FLOOD),
    "write_eof": lambda subject, transport: transport.write_eof(),
    "pause_reading": lambda subject, transport: transport.pause_reading(),
    "resume_reading": lambda subject, transport: transport.resume_reading(),
    "limits": lambda subject, transport: transport.set_write_buffer_limits(high=0),
    "switch": lambda subject, transport: transport.set_protocol(subject.successor()),
    "raise": lambda subject, transport: _raise(),
    "raise_os_error": lambda subject, transport: _raise_os_error(),
}
RAISING = {"raise", "raise_os_error"}


class Course:
    """One run of one program: the trace, and which actions are still to be done."""

    def __init__(self, program):
        self.trace = []
        self.transport = None
        self.is_lost = False
        self._left = dict(program)

    def note(self, *entry):
        if self.trace[-1:] != [entry]:  # how the kernel cuts data is not compared
            self.trace.append(entry)

    def enter(self, subject, callback, *details):
        action = self._left.pop(callback, None)
        if callback != "get_buffer" or action:
            self.note(subject.name, callback, *details)
        if action is None:
            return
        self.attempt(callback, action, lambda: ACTIONS[action](subject, self.transport))
        if action in RAISING:
            ACTIONS[action](subject, self.transport)

    def attempt(self, where, name, call):
        try:
            result = call()
        except Exception as exc:
            result = f"{type(exc).__name__}: {exc}"
        transport = self.transport
        self.note(
            "did",
            where,
            name,
            result,
            f"closing={transport.is_closing()}",
            f"reading={transport.is_reading()}",
            f"high={transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]}",
            f"protocol={getattr(transport.get_protocol(), 'name', None)}",
        )

    def report(self, loop, context):
        exception = context.get("exception")
        message = re.sub(r"^Exception in callback .*", "Exception in callback", context["message"])
        keys = sorted(set(context) - {"source_traceback", "handle_traceback"})
        self.note("handler", message, type(exception).__name__, str(exception), *keys)


class _Subject:
    """The callbacks that both kinds of protocol have."""

    def __init__(self, course, name="first"):
        self.course = course
        self.name = name

    def successor(self):
        return type(self)(self.course, "second")

    def connection_made(self, transport):
        self.course.transport = transport
        self.course.enter(self, "connection_made")

    def eof_received(self):
        self.course.enter(self, "eof_received")

    def pause_writing(self):
        self.course.enter(self, "pause_writing")

    def resume_writing(self):
        self.course.enter(self, "resume_writing")

    def connection_lost(self, exc):
        self.course.is_lost = True
        self.course.enter(self, "connection_lost", type(exc).__name__)


class ProtocolSubject(_Subject, asyncio.Protocol):
    """A Protocol driven by a program."""

    def data_received(self, data):
        self.course.enter(self, "data_received")


class BufferedSubject(_Subject, asyncio.BufferedProtocol):
    """A BufferedProtocol driven by a program."""

    def get_buffer(self, sizehint):
        self.course.enter(self, "get_buffer")
        return bytearray(4096)

    def buffer_updated(self, nbytes):
        self.course.enter(self, "buffer_updated")


SUBJECTS = {"protocol": ProtocolSubject, "buffered": BufferedSubject}


class Polled:
    """Waits until the loop has polled: a byte through a watched socket of its own."""

    def __init__(self, loop):
        self._loop = loop
        self._near, self._far = socket.socketpair()

    def close(self):
        self._near.close()
        self._far.close()

    async def __call__(self, times=4):
        for _ in range(times):
            future = self._loop.create_future()
            self._loop.add_reader(self._near, self._readable, future)
            self._far.send(b"x")
            await future
            self._loop.remove_reader(self._near)

    def _readable(self, future):
        self._near.recv(1)
        future.set_result(None)


def flaws(trace):
    """What no loop may do, and some versions of asyncio do."""
    lost = [entry for entry in trace if "connection_lost" in entry[:2] and entry[0] != "did"]
    text = str(trace)
    found = [f"connection_lost {len(lost)} times"] if len(lost) != 1 else []
    found += [
        word
        for word in ("AttributeError: 'NoneType'", "'NoneType' object", "AssertionError", "stuck")
        if word in text
    ]
    return found


def trace_of(loop, program, kind, family):
    """Runs ``program`` on ``loop`` and returns what happened."""
    course = Course(program)
    loop.set_exception_handler(course.report)
    loop.run_until_complete(_run(loop, course, program, kind, family))
    loop.set_exception_handler(None)
    return course.trace


async def _run(loop, course, program, kind, family):
    near, far = _pair(family)
    far.setblocking(False)
    polled = Polled(loop)
    try:
        await loop.connect_accepted_socket(lambda: SUBJECTS[kind](course), near)
        received = await _events(loop, course, far, polled)
        if not LOSING_ACTIONS & set(program.values()):
            course.note("peer received", received)
    finally:
        if course.transport is not None and not course.is_lost:
            course.transport.abort()
        await polled()
        polled.close()
        far.close()
        near.close()


def _pair(family):
    if family == "tcp":
        return PAIRS["tcp"](sndbuf=32768, rcvbuf=32768)
    return PAIRS["unix"](sndbuf=32768)


async def _events(loop, course, far, polled):
    """What happens to the connection; returns how many bytes the peer got, and its EOF."""
    received = 0
    await polled()
    course.note("-- peer sends")
    course.note(_attempt(far.send, b"data"))
    await polled()
    course.note("-- program writes much")
    loop.call_soon(course.attempt, "event", "flood", lambda: course.transport.write(FLOOD))
    await polled()
    course.note("-- peer reads")
    received += (await _drain(course, far, polled))[0]
    course.note("-- peer sends again")
    course.note(_attempt(far.send, b"more"))
    await polled()
    course.note("-- peer half-closes")
    course.note(_attempt(far.shutdown, socket.SHUT_WR))
    await polled()
    course.note("-- peer reads")
    count, eof = await _drain(course, far, polled)
    return received + count, eof


def _attempt(call, *args):
    try:
        return call(*args)
    except OSError as exc:
        return type(exc).__name__


async def _drain(course, far, polled):
    received = idle = 0
    while True:
        try:
            chunk = far.recv(65536)
        except BlockingIOError:
            idle += 1
            if idle >= 2 and (course.is_lost or not course.transport.get_write_buffer_size()):
                return received, "open"
            if idle >= STUCK_POLLS:
                course.note("stuck")
                return received, "stuck"
            await polled(1)
            continue
        except ConnectionResetError:
            return received, "reset"
        if not chunk:
            return received, "eof"
        received += len(chunk)
        idle = 0
