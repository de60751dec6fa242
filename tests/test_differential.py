"""Random programs of transport operations have the same trace on asyncio and on this loop.

What a fixed list of scenarios does not think of: hypothesis makes up the operations, their order,
those inside callbacks and what the peer does meanwhile, and shrinks a program that tells the loops
apart. On stock asyncio the same test shows that the traces are repeatable.
"""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings

from support.reentrancy import flaws
from support.transport_programs import LARGE, Program, programs, trace_of

EXAMPLES = 400


def reference(program):
    """asyncio's trace, on a loop of its own: older ones leave a writer on a closed descriptor."""
    loop = asyncio.SelectorEventLoop()
    try:
        return trace_of(loop, program)
    finally:
        loop.close()


@pytest.fixture
def subject(loop_factory):
    """One loop for all programs."""
    loop = loop_factory()
    yield loop
    loop.close()


# Hypothesis looks at how often its own random generator is referred to, which differs from 3.14 on.
@pytest.mark.filterwarnings("ignore:It looks like `register_random`")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs())
def test_streams(loop_name, subject, program):
    expected = reference(program)
    got = reference(program) if loop_name == "asyncio" else trace_of(subject, program)
    if flaws(expected):
        assert loop_name == "asyncio" or not flaws(got)
    else:
        assert got == expected


def test_the_trace_of_a_program(subject):
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
    trace = trace_of(subject, program)
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
