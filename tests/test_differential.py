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


@pytest.fixture
def compare(loop_name, loop_factory):
    """Runs a program on stock asyncio and on the loop under test, and compares the traces."""
    subject = loop_factory()

    def compare(kind, program):
        expected = on_asyncio(kind, program)
        got = (
            on_asyncio(kind, program) if loop_name == "asyncio" else kind.trace_of(subject, program)
        )
        if flaws(expected) or writes_when_lost(program):
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
