"""What `asyncio.all_tasks()` has of the connections that a server is accepting.

asyncio accepts each connection in a task, which ends once its protocol was told of it, or once the
TLS handshake is over. A program that cancels all tasks (`asyncio.run` does, at its end) closes the
connections that are on their way with it. oxloop makes no tasks for them; an `Accepting` of each
server stands among the tasks, and becomes one of them when somebody looks and something is there.
"""

import asyncio
import contextlib
import contextvars
import types
import weakref
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from oxloop import _oxloop


class Accepting:
    """Done, unless the server accepts connections when it is first asked: then their task."""

    def __init__(self, server: _oxloop.Server) -> None:
        self._server = weakref.ref(server)
        self._event_loop = server.get_loop()
        self._task: AcceptTask | None = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._event_loop

    def done(self) -> bool:
        """Tell whether nothing is being accepted; `all_tasks()` asks it of each task."""
        if self._task is None:
            self._look()
        return self._task is None or self._task.done()

    def _look(self) -> None:
        server = self._server()
        watched = [] if server is None else server._watch_accepting()
        if watched:
            self._task = AcceptTask(watched, self._event_loop)
            self._task.add_done_callback(self._end)  # keeps this object until then
            # This object is among the tasks, and one is enough.
            asyncio.tasks._unregister_task(self._task)

    def _end(self, task: asyncio.Task[None]) -> None:
        """Nothing is left to do: what is done is not listed."""

    def add_done_callback(
        self, callback: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Call back with this object: it is the task that the program knows."""
        self._begun().add_done_callback(_Callback(callback, self), context=context)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        return self._begun().remove_done_callback(_Callback(callback, self))

    def _begun(self) -> "AcceptTask":
        if self._task is None:
            raise AttributeError("nothing is being accepted")
        return self._task

    # isinstance(..., asyncio.Task), and asyncio.isfuture(), which gather() and wait() rely on.
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self) if self._task is None else AcceptTask

    def __getattr__(self, name: str) -> Any:
        task = self.__dict__.get("_task")
        if task is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(task, name)

    def __await__(self) -> Generator[Any, None, None]:
        return self._begun().__await__()

    def __repr__(self) -> str:
        return object.__repr__(self) if self._task is None else repr(self._task)


class _Callback:
    """Hands on the task that is listed, and is equal to what it calls."""

    def __init__(self, callback: Callable[[Any], object], listed: Accepting) -> None:
        self._callback = callback
        self._listed = listed

    def __call__(self, _task: asyncio.Task[None]) -> None:
        self._callback(self._listed)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Callback) and self._callback == other._callback

    __hash__ = None  # type: ignore[assignment]


class AcceptTask(asyncio.Task[None]):
    """Ends when its connections are accepted; cancelling it closes those that are not.

    As asyncio's, it is cancelled only if no factory was called yet, and ends with None otherwise.
    """

    def __init__(
        self,
        watched: list[tuple[asyncio.Transport | None, asyncio.Future[None]]],
        event_loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ends = [end for _, end in watched]
        for transport, end in watched:
            if transport is not None:
                follow(transport, end)
        waiting = _wait_for_all(self._ends)
        if any(transport is not None for transport, _ in watched):
            waiting.send(None)
        super().__init__(waiting, loop=event_loop)

    def cancel(self, msg: Any = None) -> bool:
        """Close what is not accepted now, as each of asyncio's tasks does."""
        for end in self._ends:
            end.cancel()
        return super().cancel(msg)


@types.coroutine
def _begin() -> Generator[None, None, None]:
    yield


async def _wait_for_all(ends: list[asyncio.Future[None]]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await _begin()
        for end in ends:
            await end


def follow(transport: asyncio.Transport, end: asyncio.Future[None]) -> None:
    """Close the transport when `end` is cancelled, which waits for the end of its accept."""
    end.add_done_callback(partial(_close_if_cancelled, transport))


def _close_if_cancelled(transport: asyncio.Transport, end: asyncio.Future[None]) -> None:
    if end.cancelled():
        transport.close()
