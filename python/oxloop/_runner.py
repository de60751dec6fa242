"""`oxloop.run`: `asyncio.run` with this loop as the default factory, on every supported Python."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from oxloop._event_loop import EventLoop

_T = TypeVar("_T")
_LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def new_event_loop(*, busy_poll: int = 0) -> EventLoop:
    """Make an event loop. It does not become the current one.

    With `busy_poll`, the loop asks the kernel for events again and again for that many microseconds
    before it waits, as long as events have come that soon lately. They are seen some microseconds
    earlier; the price is a core that is busy meanwhile. A loop whose waits are longer stops asking.
    ValueError if it is negative. `EventLoop.busy_poll` reads and changes it.
    """
    return EventLoop(busy_poll=busy_poll)


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: _LoopFactory | None = new_event_loop,
) -> _T:
    """Run `main` on a new event loop, close the loop and return the result.

    Checks, errors and clean-up are those of the running Python's `asyncio.run`. A `loop_factory`
    of None means what it means there: the loop that the event loop policy makes.
    """
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=loop_factory)
    if loop_factory is None:
        return asyncio.run(main, debug=debug)
    # Python 3.11's asyncio.run has no loop_factory, but its Runner has.
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)
