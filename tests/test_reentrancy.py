"""Every callback that closes, aborts, writes, pauses, switches or raises, inside every other.

The matrix is generated: one action in one callback, and every pair of actions in every pair
of callbacks. A program's trace on the loop under test must be the one stock asyncio writes.
"""

import asyncio
import itertools
import sys

import pytest

from support.reentrancy import ACTIONS, CALLBACKS, flaws, trace_of

PAIRS_OF_CALLBACKS = [
    (kind, first, second)
    for kind, callbacks in CALLBACKS.items()
    for first, second in itertools.combinations(callbacks, 2)
]


def ends_in_get_buffer(program):
    """Whether get_buffer closes or switches: asyncio then still reads, into whose protocol?"""
    action = program.get("get_buffer")
    if action == "flood":
        action = program.get("pause_writing")
    return action in {"close", "abort", "switch"}


def writes_when_lost(program):
    """Whether connection_lost writes: older asyncios send that, if the queue just emptied."""
    writes = program.get("connection_lost") in {"write", "writelines", "flood"}
    return writes and sys.version_info < (3, 14)


def reference_trace(program, kind, family):
    """asyncio's, on a loop of its own: older ones leave a writer on a descriptor they closed."""
    loop = asyncio.SelectorEventLoop()
    try:
        return trace_of(loop, program, kind, family)
    finally:
        loop.close()


@pytest.fixture
def compare(loop_name, loop_factory):
    """Runs a program on stock asyncio and on the loop under test, and compares the traces."""
    subject = loop_factory()

    def compare(program, kind, family):
        expected = reference_trace(program, kind, family)
        if loop_name == "asyncio":
            got = reference_trace(program, kind, family)
        else:
            got = trace_of(subject, program, kind, family)
        if flaws(expected) or ends_in_get_buffer(program) or writes_when_lost(program):
            # There is nothing to follow: this asyncio trips over itself, or nobody promised it.
            alike = loop_name == "asyncio" or not flaws(got)
        else:
            alike = got == expected
        return (
            None
            if alike
            else f"{program} ({kind}, {family})\n  asyncio: {expected}\n  here:    {got}"
        )

    yield compare
    subject.close()


def differences(compare, programs, kind, family="unix"):
    found = [compare(program, kind, family) for program in programs]
    return "\n".join(difference for difference in found if difference)


@pytest.mark.parametrize("family", ["unix", "tcp"])
@pytest.mark.parametrize("kind", CALLBACKS)
def test_one_action_in_one_callback(compare, kind, family):
    programs = [{}]
    programs += [{callback: action} for callback in CALLBACKS[kind] for action in ACTIONS]
    if family == "tcp":
        # A limit of zero pauses again if anything is left then: that is up to the kernel.
        programs.remove({"resume_writing": "limits"})
    assert differences(compare, programs, kind, family) == ""


@pytest.mark.parametrize(("kind", "first", "second"), PAIRS_OF_CALLBACKS)
def test_two_actions_in_two_callbacks(compare, kind, first, second):
    programs = [{first: one, second: other} for one, other in itertools.product(ACTIONS, repeat=2)]
    assert differences(compare, programs, kind) == ""


@pytest.mark.parametrize("kind", CALLBACKS)
def test_the_trace_of_a_plain_connection(loop_factory, kind):
    """What the traces are made of, so that no comparison can be one of two empty lists."""
    loop = loop_factory()
    trace = trace_of(loop, {}, kind, "unix")
    loop.close()
    names = [entry[1] for entry in trace if entry[0] == "first"]
    data = "data_received" if kind == "protocol" else "buffer_updated"
    assert names == [
        "connection_made",
        data,
        "pause_writing",
        "resume_writing",
        data,
        "eof_received",
        "connection_lost",
    ]
    assert ("peer received", (600_000, "eof")) in trace


def test_the_trace_of_a_raising_callback(loop_factory):
    loop = loop_factory()
    trace = trace_of(loop, {"data_received": "raise"}, "protocol", "unix")
    loop.close()
    message = "Fatal error: protocol.data_received() call failed."
    keys = ("exception", "message", "protocol", "transport")
    assert ("handler", message, "CallbackError", "raised by the program", *keys) in trace
    assert ("first", "connection_lost", "CallbackError") in trace
