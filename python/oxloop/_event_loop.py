"""The class statement: native loop first, asyncio's abstract class for `isinstance`."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any

from oxloop import _oxloop
from oxloop._sendfile import SendfileMethods


# typeshed's abstract create_datagram_endpoint still has reuse_address, which 3.11 removed.
class EventLoop(  # type: ignore[misc]
    _oxloop.EventLoop, SendfileMethods, asyncio.AbstractEventLoop
):
    """A drop-in replacement for `asyncio.SelectorEventLoop`."""

    __module__ = "oxloop"

    def __del__(self, _warn: Callable[..., Any] = warnings.warn) -> None:
        """Close the loop, with a warning, if the program did not."""
        if not self.is_closed():
            _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
            if not self.is_running():
                self.close()
