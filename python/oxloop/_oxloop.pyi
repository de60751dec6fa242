"""The extension module: what the class statement in `_event_loop.py` builds upon.

Signatures are supersets of typeshed's for `asyncio.AbstractEventLoop`: keywords that asyncio has
from some version on are there on every version.
"""

import asyncio
import asyncio.trsock
import ssl as ssl_module
import sys
from _socket import _CMSG, _CMSGArg
from asyncio.events import _Context, _ExceptionHandler, _SSLContext, _TaskFactory
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Executor
from contextvars import Context
from socket import (
    AddressFamily,
    AddressInfo,
    _Address,
    _GetAddrInfoResult,
    _RetAddress,
    socket,
)
from typing import IO, Any, Literal, Self, TypeVar, TypeVarTuple, final

from _typeshed import FileDescriptorLike, ReadableBuffer, StrPath, WriteableBuffer
from typing_extensions import disjoint_base

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_ProtocolT = TypeVar("_ProtocolT", bound=asyncio.BaseProtocol)

__version__: str
#: How application data gets through OpenSSL: by the libssl that `_ssl` has loaded, or, where that
#: cannot be reached, by the `ssl` module. OXLOOP_TLS forces one of them.
tls_data_path: Literal["direct", "memorybio"]

#: Why it is not "direct"; None if it is.
tls_fallback_reason: str | None

def _file_size(file: int) -> int: ...
def _send_file(sock: int, file: int, offset: int, count: int) -> int | None: ...
def _set_position(file: int, offset: int) -> None: ...

@disjoint_base
class EventLoop:
    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Self: ...

    slow_callback_duration: float
    busy_poll: int

    def _metrics(self) -> dict[str, Any]: ...
    def run_forever(self) -> None: ...
    def run_until_complete(self, future: Generator[Any, None, _T] | Awaitable[_T]) -> _T: ...
    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...
    def time(self) -> float: ...
    def get_debug(self) -> bool: ...
    def set_debug(self, enabled: bool) -> None: ...
    async def shutdown_asyncgens(self) -> None: ...
    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 (asyncio's keyword)
    ) -> None: ...

    # Scheduling
    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    if sys.version_info >= (3, 13):
        def create_task(
            self,
            coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
            eager_start: bool | None = None,
            **kwargs: Any,
        ) -> asyncio.Task[_T]: ...
    else:
        def create_task(
            self,
            coro: Generator[Any, None, _T] | Coroutine[Any, Any, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
        ) -> asyncio.Task[_T]: ...
    def set_task_factory(self, factory: _TaskFactory | None) -> None: ...
    def get_task_factory(self) -> _TaskFactory | None: ...
    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*_Ts], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]: ...
    def set_default_executor(self, executor: Executor) -> None: ...

    # Errors
    def set_exception_handler(self, handler: _ExceptionHandler | None) -> None: ...
    def get_exception_handler(self) -> _ExceptionHandler | None: ...
    def default_exception_handler(self, context: _Context) -> None: ...
    def call_exception_handler(self, context: _Context) -> None: ...

    # Descriptors and signals
    def add_reader(
        self,
        fd: FileDescriptorLike,
        callback: Callable[[*_Ts], Any],
        *args: *_Ts,
    ) -> None: ...
    def remove_reader(self, fd: FileDescriptorLike) -> bool: ...
    def add_writer(
        self,
        fd: FileDescriptorLike,
        callback: Callable[[*_Ts], Any],
        *args: *_Ts,
    ) -> None: ...
    def remove_writer(self, fd: FileDescriptorLike) -> bool: ...
    def add_signal_handler(
        self,
        sig: int,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
    ) -> None: ...
    def remove_signal_handler(self, sig: int) -> bool: ...

    # Names
    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> _GetAddrInfoResult: ...
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int = 0
    ) -> tuple[str, str]: ...

    # Connections and servers
    async def create_connection(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: _SSLContext | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        family: int = AddressFamily.AF_UNSPEC,
        flags: int = AddressInfo.AI_PASSIVE,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSLContext | None = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> asyncio.Server: ...
    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        path: StrPath | None = None,
        *,
        ssl: _SSLContext | None = None,
        sock: socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: StrPath | None = None,
        *,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = ...,  # True from 3.13 on, as in asyncio
    ) -> asyncio.Server: ...
    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        sock: socket,
        *,
        ssl: _SSLContext | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def start_tls(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: ssl_module.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None: ...

    # Datagrams
    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, _ProtocolT]: ...

    # Sockets without a transport
    async def _sock_writable(self, sock: socket) -> None: ...
    async def sock_recv(self, sock: socket, n: int) -> bytes: ...
    async def sock_recv_into(self, sock: socket, buf: WriteableBuffer) -> int: ...
    async def sock_recvfrom(self, sock: socket, bufsize: int) -> tuple[bytes, _RetAddress]: ...
    async def sock_recvfrom_into(
        self, sock: socket, buf: WriteableBuffer, nbytes: int = 0
    ) -> tuple[int, _RetAddress]: ...
    async def sock_sendall(self, sock: socket, data: ReadableBuffer) -> None: ...
    async def sock_sendto(self, sock: socket, data: ReadableBuffer, address: _Address) -> int: ...
    async def sock_accept(self, sock: socket) -> tuple[socket, _RetAddress]: ...
    async def sock_recvmsg(
        self, sock: socket, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[_CMSG], int, _RetAddress]: ...
    async def sock_sendmsg(
        self,
        sock: socket,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[_CMSGArg] = (),
        flags: int = 0,
        address: _Address | None = None,
    ) -> int: ...
    async def sock_connect(self, sock: socket, address: _Address) -> None: ...

    # Pipes and processes
    async def connect_read_pipe(
        self, protocol_factory: Callable[[], _ProtocolT], pipe: Any
    ) -> tuple[asyncio.ReadTransport, _ProtocolT]: ...
    async def connect_write_pipe(
        self, protocol_factory: Callable[[], _ProtocolT], pipe: Any
    ) -> tuple[asyncio.WriteTransport, _ProtocolT]: ...
    @property
    def _debug(self) -> bool: ...
    async def _make_subprocess_transport(
        self,
        protocol: asyncio.BaseProtocol,
        args: Any,
        shell: bool,
        stdin: int | IO[Any] | None,
        stdout: int | IO[Any] | None,
        stderr: int | IO[Any] | None,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> asyncio.SubprocessTransport: ...

@final
class Handle(asyncio.Handle):
    def get_context(self) -> Context: ...

@final
class TimerHandle(asyncio.TimerHandle):
    def get_context(self) -> Context: ...

@final
class StreamTransport(asyncio.Transport): ...

@final
class SSLTransport(asyncio.Transport):
    """A TLS connection; its ssl_object is an ssl.SSLObject of the program's SSLContext."""

    def set_read_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def get_read_buffer_limits(self) -> tuple[int, int]: ...
    def get_read_buffer_size(self) -> int: ...

@final
class ReadPipeTransport(asyncio.ReadTransport): ...

@final
class WritePipeTransport(asyncio.Transport): ...

@final
class SubprocessTransport(asyncio.SubprocessTransport): ...

@final
class DatagramTransport(asyncio.Transport, asyncio.DatagramTransport): ...

@disjoint_base
class Server:
    """The native part of a server; made by the loop only."""

    @property
    def sockets(self) -> tuple[socket, ...]: ...  # TransportSocket, as typeshed has it
    @property
    def _sockets(self) -> list[socket] | None: ...
    @property
    def _loop(self) -> EventLoop: ...
    @property
    def _protocol_factory(self) -> Callable[[], asyncio.BaseProtocol]: ...
    @property
    def _backlog(self) -> int: ...
    @property
    def _ssl_context(self) -> ssl_module.SSLContext | None: ...
    @property
    def _ssl_handshake_timeout(self) -> float | None: ...
    @property
    def _ssl_shutdown_timeout(self) -> float | None: ...
    @property
    def _serving(self) -> bool: ...
    @property
    def _active_count(self) -> int: ...
    @property
    def _waiters(self) -> list[asyncio.Future[None]] | None: ...
    @property
    def _serving_forever_fut(self) -> asyncio.Future[None] | None: ...
    def _attach(self, transport: asyncio.BaseTransport | None = None) -> None: ...
    def _detach(self, transport: asyncio.BaseTransport | None = None) -> None: ...
    def _wakeup(self) -> None: ...
    def _watch_accepting(self) -> list[tuple[asyncio.Transport | None, asyncio.Future[None]]]: ...
    def _start_serving(self) -> None: ...
    def get_loop(self) -> asyncio.AbstractEventLoop: ...
    def is_serving(self) -> bool: ...
    def close(self) -> None: ...
    def close_clients(self) -> None: ...
    def abort_clients(self) -> None: ...
    async def start_serving(self) -> None: ...
    async def serve_forever(self) -> None: ...
    async def wait_closed(self) -> None: ...
