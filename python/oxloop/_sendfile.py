"""`loop.sendfile` and `loop.sock_sendfile`: sendfile(2), or reading and writing where it fails.

The kernel copies; what remains is to wait between its calls, which no compiled code makes faster.
The calls themselves are compiled: what looks for calls that block the loop knows `os.sendfile`.
"""

import asyncio
import errno
import io
import socket
import sys
from asyncio import constants, unix_events
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from oxloop._oxloop import _file_size, _send_file, _set_position

if TYPE_CHECKING:
    from oxloop import EventLoop

#: Most that one sendfile(2) may send: a peer that reads as fast must not keep the loop from others.
_CALL_MOST = 4 << 20
#: What one write to a transport takes when the program does the copying.
_WRITE_MOST = 16 << 10


def _position_always_moves() -> bool:
    """Tell whether the running asyncio moves the file's position even when nothing was sent.

    The change came to several versions with their patch releases.
    """
    update = getattr(unix_events.SelectorEventLoop, "_sock_sendfile_update_filepos", None)
    code = getattr(update, "__code__", None)
    return code is None or code.co_argcount == len(("self", "fileno", "offset"))


def _takes_any_count() -> bool:
    """Tell whether the running asyncio cuts a count that no sendfile(2) can take."""
    send = getattr(unix_events.SelectorEventLoop, "_sock_sendfile_native_impl", None)
    code = getattr(send, "__code__", None)
    return code is None or "maxsize" in code.co_names


_ALWAYS_MOVES = _position_always_moves()
_TAKES_ANY_COUNT = _takes_any_count()


class SendfileMethods:
    """The part of the event loop that sends files."""

    __slots__ = ()

    async def sendfile(
        self,
        transport: Any,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int:
        """Send a file through a transport; return the number of bytes sent."""
        if transport.is_closing():
            raise RuntimeError("Transport is closing")
        modes = constants._SendfileMode
        mode = getattr(transport, "_sendfile_compatible", modes.UNSUPPORTED)
        if mode is modes.UNSUPPORTED:
            raise RuntimeError(f"sendfile is not supported for transport {transport!r}")
        if mode is modes.TRY_NATIVE:
            try:
                return await self._sendfile_native(transport, file, offset, count)
            except asyncio.SendfileNotAvailableError:
                if not fallback:
                    raise
        if not fallback:
            raise RuntimeError(
                "fallback is disabled and native sendfile is not supported"
                f" for transport {transport!r}"
            )
        return await self._sendfile_fallback(transport, file, offset, count)

    async def _sendfile_native(
        self, transport: Any, file: Any, offset: int, count: int | None
    ) -> int:
        sock = transport.get_extra_info("socket")
        empty = transport._make_empty_waiter()
        reading = transport.is_reading()
        try:
            transport.pause_reading()
            await empty
            _check_parameters(sock, file, offset, count)
            return await _send_by_kernel(sock, file, offset, count, transport._writable)
        finally:
            transport._reset_empty_waiter()
            if reading:
                transport.resume_reading()

    async def _sendfile_fallback(
        self, transport: Any, file: Any, offset: int, count: int | None
    ) -> int:
        substitute = _Substitute(transport, cast("EventLoop", self))

        async def write(data: memoryview) -> None:
            transport.write(bytes(data))  # a copy: the transport may keep it
            await substitute.drain()

        try:
            return await self._copy(file, offset, count, _WRITE_MOST, write)
        finally:
            substitute.restore()

    async def sock_sendfile(
        self,
        sock: socket.socket,
        file: Any,
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int:
        """Send a file through a socket; return the number of bytes sent."""
        if cast("EventLoop", self).get_debug() and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        ssl = sys.modules.get("ssl")
        if ssl is not None and isinstance(sock, ssl.SSLSocket):
            raise TypeError("Socket cannot be of type SSLSocket")
        _check_parameters(sock, file, offset, count)
        try:
            return await self._sock_sendfile_native(sock, file, offset, count)
        except asyncio.SendfileNotAvailableError:
            if not fallback:
                raise
        return await self._sock_sendfile_fallback(sock, file, offset, count)

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        def writable() -> Awaitable[None]:
            return cast("EventLoop", self)._sock_writable(sock)

        return await _send_by_kernel(sock, file, offset, count, writable)

    async def _sock_sendfile_fallback(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        async def write(data: memoryview) -> None:
            await cast("EventLoop", self).sock_sendall(sock, data)

        most = constants.SENDFILE_FALLBACK_READBUFFER_SIZE
        return await self._copy(file, offset, count, most, write)

    async def _copy(
        self,
        file: Any,
        offset: int,
        count: int | None,
        most: int,
        write: Callable[[memoryview], Awaitable[None]],
    ) -> int:
        """Read the file in the executor and write what was read."""
        if hasattr(file, "seek") if _ALWAYS_MOVES else offset:
            file.seek(offset)
        run_in_executor = cast("EventLoop", self).run_in_executor
        memory = memoryview(bytearray(min(count, most) if count else most))
        total = 0
        try:
            while not count or total < count:
                block = memory[: count - total] if count else memory
                read = await run_in_executor(None, file.readinto, block)
                if not read:
                    break
                await write(block[:read])
                total += read
        finally:
            if total > 0 and hasattr(file, "seek"):
                file.seek(offset + total)
        return total


def _check_parameters(sock: Any, file: Any, offset: Any, count: Any) -> None:
    if "b" not in getattr(file, "mode", "b"):
        raise ValueError("file should be opened in binary mode")
    if sock.type != socket.SOCK_STREAM:
        raise ValueError("only SOCK_STREAM type sockets are supported")
    if count is not None:
        text = f"count must be a positive integer (got {count!r})"
        if not isinstance(count, int):
            raise TypeError(text)
        if count <= 0:
            raise ValueError(text)
    text = f"offset must be a non-negative integer (got {offset!r})"
    if not isinstance(offset, int):
        raise TypeError(text)
    if offset < 0:
        raise ValueError(text)


async def _send_by_kernel(
    sock: Any,
    file: Any,
    offset: int,
    count: int | None,
    writable: Callable[[], Awaitable[None]],
) -> int:
    """Call sendfile(2) until the end; the file's position tells afterwards how far it came."""
    try:
        source = file.fileno()
        size = _file_size(source)
    except (AttributeError, io.UnsupportedOperation, OSError) as error:
        raise asyncio.SendfileNotAvailableError("not a regular file") from error
    if not (count or size):
        return 0
    total = 0
    try:
        # Without a count until the end of the file, wherever that is by then.
        while not count or total < count:
            left = count - total if count else size
            if left > sys.maxsize and not _TAKES_ANY_COUNT:
                raise OverflowError("Python int too large to convert to C ssize_t")
            most = min(left, _CALL_MOST)
            sent = _sendfile(sock, source, offset, most, total)
            if sent == 0:
                break
            total += sent or 0
            offset += sent or 0
            if total != count:
                await writable()
    finally:
        if _ALWAYS_MOVES or total > 0:
            _set_position(source, offset)
    return total


def _sendfile(sock: Any, source: int, offset: int, most: int, total: int) -> int | None:
    """One call; None if the socket takes nothing now."""
    try:
        # The descriptor is asked for each time: the socket may have been closed meanwhile.
        return _send_file(sock.fileno(), source, offset, most)
    except OSError as error:
        if total == 0:
            raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from error
        if error.errno == errno.ENOTCONN and type(error) is not ConnectionError:
            raise ConnectionError("socket is not connected", errno.ENOTCONN) from error
        raise


class _Substitute(asyncio.Protocol):
    """Stands in for a transport's protocol while a file is written through the transport."""

    def __init__(self, transport: Any, event_loop: "EventLoop") -> None:
        self._transport = transport
        self._loop = event_loop
        self._protocol = transport.get_protocol()
        self._reading = transport.is_reading()
        self._paused = transport._protocol_paused
        self._drained: asyncio.Future[None] | None = None
        if self._paused:
            self.pause_writing()
        transport.pause_reading()
        transport.set_protocol(self)

    async def drain(self) -> None:
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._drained is not None:
            await self._drained

    def pause_writing(self) -> None:
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(exc or ConnectionError("Connection is closed by peer"))
        self._protocol.connection_lost(exc)

    def restore(self) -> None:
        """Give the transport its protocol back, which hears of pauses that it missed."""
        self._transport.set_protocol(self._protocol)
        if self._reading:
            self._transport.resume_reading()
        paused = self._drained is not None
        if self._drained is not None:
            self._drained.cancel()
        if self._transport.is_closing() or paused == self._paused:
            return
        if paused:
            self._protocol.pause_writing()
        else:
            self._protocol.resume_writing()
