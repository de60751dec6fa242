"""The class statement: native loop first, asyncio's abstract class for `isinstance`."""

import asyncio
import functools
import warnings
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from oxloop import (
    _oxloop,
    _server,  # noqa: F401 (the native loop would import it while it runs)
)
from oxloop._sendfile import SendfileMethods

if TYPE_CHECKING:
    from oxloop._metrics import LoopMetrics

_FunctionT = TypeVar("_FunctionT")


def _documented(function: _FunctionT, text: str) -> _FunctionT:
    """Make a copy of a function of asyncio's, which has no docstring."""
    original = cast("FunctionType", function)
    made = FunctionType(original.__code__, original.__globals__, argdefs=original.__defaults__)
    made.__kwdefaults__ = original.__kwdefaults__
    functools.update_wrapper(made, original).__doc__ = text
    del made.__wrapped__  # type: ignore[attr-defined]
    return cast("_FunctionT", made)


# typeshed's abstract create_datagram_endpoint still has reuse_address, which 3.11 removed.
class EventLoop(  # type: ignore[misc]
    _oxloop.EventLoop, SendfileMethods, asyncio.AbstractEventLoop
):
    """A drop-in replacement for `asyncio.SelectorEventLoop`."""

    __module__ = "oxloop"

    def __init__(self, *, busy_poll: int = 0) -> None:
        """Make a loop; unlike asyncio's it takes no selector. See `new_event_loop`."""
        super().__init__()
        try:
            self.busy_poll = busy_poll
        except BaseException:
            self.close()
            raise

    def metrics(self) -> "LoopMetrics":
        """Return what the loop has counted, from any thread, while it runs or waits.

        It never waits for the loop. It costs a look at each transport of the loop.
        """
        from oxloop import _metrics  # noqa: PLC0415 (most programs never ask)

        return _metrics.of_numbers(self._metrics())

    # Both check the arguments, log, and call _make_subprocess_transport, which is ours.
    subprocess_exec = _documented(
        asyncio.BaseEventLoop.subprocess_exec,
        "Run a program; its pipes and its end are told to a SubprocessProtocol.",
    )
    subprocess_shell = _documented(
        asyncio.BaseEventLoop.subprocess_shell,
        "Run a shell command; its pipes and its end are told to a SubprocessProtocol.",
    )
    _log_subprocess = _documented(
        asyncio.BaseEventLoop._log_subprocess,  # type: ignore[attr-defined]
        "Log in debug mode what is run.",
    )

    def __del__(self, _warn: Callable[..., Any] = warnings.warn) -> None:
        """Close the loop, with a warning, if the program did not."""
        if not self.is_closed():
            _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
            if not self.is_running():
                self.close()
