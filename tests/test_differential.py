"""Random programs of transport operations have the same trace on asyncio and on this loop.

What a fixed list of scenarios does not think of: hypothesis makes up the operations, their order,
those inside callbacks and what the peer does meanwhile, and shrinks a program that tells the loops
apart. On stock asyncio the same test shows that the traces are repeatable.
"""

import asyncio
import sys

import pytest
from hypothesis import HealthCheck, given, settings

from support import datagram_programs, transport_programs
from support.reentrancy import flaws
from support.transport_programs import LARGE, Program

EXAMPLES = 400


def generated(test):
    """A test of programs that hypothesis makes, the same ones in every run."""
    # Hypothesis looks at how often its random generator is referred to; 3.14 counts otherwise.
    quiet = pytest.mark.filterwarnings("ignore:It looks like `register_random`")
    fixtures_stay = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    repeated = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=fixtures_stay,
    )
    return quiet(repeated(test))


def on_asyncio(kind, program):
    """asyncio's trace, on a loop of its own: older ones leave a writer on a closed descriptor."""
    loop = asyncio.SelectorEventLoop()
    try:
        return kind.trace_of(loop, program)
    finally:
        loop.close()


def writes_when_lost(program):
    """Whether connection_lost writes: older asyncios send that, if the queue just emptied."""
    names = {operation[0] for operation in program.reactions.get("connection_lost", ())}
    return sys.version_info < (3, 14) and bool(names & {"write", "writelines"})


def operations_of(program):
    """The names of all operations of our side."""
    own = [step[1:] for step in program.steps if step[0] == "own"]
    return {operation[0] for some in (*own, *program.reactions.values()) for operation in some}


def pauses_no_writer(program):
    """Whether writelines() may fill the queue: asyncio 3.12.0-8 and 3.13.0-1 tell no protocol."""
    without_pause = ((3, 12), (3, 12, 9)), ((3, 13), (3, 13, 2))
    concerned = any(since <= sys.version_info < until for since, until in without_pause)
    return concerned and "writelines" in operations_of(program)


def miscounts(trace):
    """Whether datagrams were queued on 3.13: it adds their headers, and never takes them off."""
    counts = [entry[2] for entry in trace if entry[0] == "at rest"]
    counts += [result for name, result in trace_results(trace) if name == "get_write_buffer_size"]
    paused = ("called", "pause_writing") in trace
    return sys.version_info[:2] == (3, 13) and (paused or any(counts))


def trace_results(trace):
    """The operations in the trace of a datagram endpoint, with their results."""
    return [(entry[0][0], entry[1]) for entry in trace if isinstance(entry[0], tuple)]


def untrue(kind, program, trace):
    """Whether this version of asyncio has a bug that the trace shows."""
    if kind is datagram_programs:
        return miscounts(trace)
    return writes_when_lost(program) or pauses_no_writer(program)


@pytest.fixture
def compare(loop_name, loop_factory):
    """Runs a program on stock asyncio and on the loop under test, and compares the traces."""
    subject = loop_factory()

    def compare(kind, program):
        expected = on_asyncio(kind, program)
        got = (
            on_asyncio(kind, program) if loop_name == "asyncio" else kind.trace_of(subject, program)
        )
        if flaws(expected) or untrue(kind, program, expected):
            # There is nothing to follow: this asyncio trips over itself.
            assert loop_name == "asyncio" or not flaws(got)
        else:
            assert got == expected

    yield compare
    subject.close()


@generated
@given(program=transport_programs.programs())
def test_streams(compare, program):
    compare(transport_programs, program)


@generated
@given(program=datagram_programs.programs())
def test_datagrams(compare, program):
    compare(datagram_programs, program)


def test_the_trace_of_a_program(loop):
    """What traces are made of, so that no comparison can be one of two empty lists."""
    program = Program(
        steps=(
            ("peer sends", 100),
            ("own", ("write", LARGE), ("set_protocol",)),
            ("peer reads",),
            ("peer closes",),
        ),
        reactions={"resume_writing": [("write", 1)]},
    )
    trace = transport_programs.trace_of(loop, program)
    assert [entry[:2] for entry in trace if isinstance(entry[0], int)] == [
        (1, "connection_made"),
        (1, "data_received"),
        (1, "pause_writing"),
        (2, "resume_writing"),
        (2, "eof_received"),
        (2, "connection_lost"),
    ]
    received = [entry[2][0] for entry in trace if entry[0] == "peer read"]
    assert received == [LARGE + 1] * 2
    states = [entry for entry in trace if entry[0] == "at rest"]
    assert len(states) == len(program.steps)
    assert states[1][3] == "queued=True"
    assert states[-1][1] == "closing=True"
