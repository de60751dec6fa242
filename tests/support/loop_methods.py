"""A use of every method of the loop that may ask the kernel for something: no more than needed.

Both ends are in the loop, so that nothing here blocks by itself. Each is an async function of a
directory to put files in.
"""

import asyncio
import contextlib
import io
import os
import signal
import socket

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import pattern, until

DATA = pattern(300_000)
USES = {}


def use(function):
    USES[function.__name__] = function
    return function


class Keeper(asyncio.Protocol):
    """Keeps what it gets."""

    def __init__(self):
        self.data = b""
        self.lost = False

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def datagram_received(self, data, address):
        self.data += data

    def connection_lost(self, error):
        self.lost = True


class Echo(Keeper):
    def data_received(self, data):
        self.transport.write(data)

    def datagram_received(self, data, address):
        self.transport.sendto(data, address)


async def echoed(transport, protocol):
    """Writes to a connection whose other end echoes, and closes it."""
    transport.write(DATA)
    await until(lambda: len(protocol.data) == len(DATA))
    transport.close()
    await until(lambda: protocol.lost)


@contextlib.asynccontextmanager
async def serving(server):
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        await server.wait_closed()


@use
async def connections(directory):
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, "localhost", 0)) as (_, port):
        await echoed(*await loop.create_connection(Keeper, "localhost", port))
        local = ("127.0.0.1", 0)
        await echoed(*await loop.create_connection(Keeper, "localhost", port, local_addr=local))


@use
async def accepted_sockets(directory):
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    await loop.connect_accepted_socket(Echo, far)
    await echoed(*await loop.create_connection(Keeper, sock=near))


@use
async def tls(directory):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
    async with serving(server) as address:
        connected = await loop.create_connection(
            Keeper, *address, ssl=client_context(), server_hostname=NAME
        )
        await echoed(*connected)


@use
async def start_tls(directory):
    loop = asyncio.get_running_loop()

    class Upgrading(Echo):
        upgrade = None

        def data_received(self, data):
            if self.upgrade is None:
                self.upgrade = asyncio.ensure_future(self.begin())
            else:
                super().data_received(data)

        async def begin(self):
            self.transport.write(b"go")
            self.transport = await loop.start_tls(
                self.transport, self, server_context(), server_side=True
            )

    upgrading = Upgrading()
    async with serving(await loop.create_server(lambda: upgrading, "127.0.0.1", 0)) as address:
        plain, protocol = await loop.create_connection(Keeper, *address)
        plain.write(b"begin")
        await until(lambda: protocol.data == b"go")
        protocol.data = b""
        context = client_context()
        upgraded = await loop.start_tls(plain, protocol, context, server_hostname=NAME)
        await upgrading.upgrade
        await echoed(upgraded, protocol)


def leave_socket(path, kind):
    """What a process that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(path)


@use
async def unix_servers(directory):
    loop = asyncio.get_running_loop()
    path = str(directory / "listening")
    server = await loop.create_unix_server(Echo, path)
    await echoed(*await loop.create_unix_connection(Keeper, path))
    server.close()
    await server.wait_closed()


@use
async def stale_unix_sockets(directory):
    loop = asyncio.get_running_loop()
    path = str(directory / "listening")
    await asyncio.to_thread(leave_socket, path, socket.SOCK_STREAM)
    async with serving(await loop.create_unix_server(Echo, path)):
        pass
    path = str(directory / "bound")
    await asyncio.to_thread(leave_socket, path, socket.SOCK_DGRAM)
    transport, _ = await loop.create_datagram_endpoint(Keeper, path, family=socket.AF_UNIX)
    transport.close()


@use
async def unix_tls(directory):
    loop = asyncio.get_running_loop()
    path = str(directory / "listening")
    async with serving(await loop.create_unix_server(Echo, path, ssl=server_context())):
        connected = await loop.create_unix_connection(
            Keeper, path, ssl=client_context(), server_hostname=NAME
        )
        await echoed(*connected)


@use
async def datagrams(directory):
    loop = asyncio.get_running_loop()
    far, _ = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    address = far.get_extra_info("sockname")
    near, protocol = await loop.create_datagram_endpoint(Keeper, remote_addr=address)
    near.sendto(b"data")
    await until(lambda: protocol.data == b"data")
    near.close()
    far.close()


@use
async def unix_datagrams(directory):
    loop = asyncio.get_running_loop()
    path = str(directory / "bound")
    far, keeper = await loop.create_datagram_endpoint(Keeper, path, family=socket.AF_UNIX)
    near, _ = await loop.create_datagram_endpoint(Keeper, remote_addr=path, family=socket.AF_UNIX)
    near.sendto(b"data")
    await until(lambda: keeper.data == b"data")
    near.close()
    far.close()
    await until(lambda: keeper.lost)


@use
async def names(directory):
    loop = asyncio.get_running_loop()
    assert await loop.getaddrinfo("localhost", 80)
    assert await loop.getaddrinfo("127.0.0.1", 80)
    assert await loop.getnameinfo(("127.0.0.1", 80))


@use
async def sockets(directory):
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as near:
        listener.setblocking(False)
        near.setblocking(False)
        _, (far, _) = await asyncio.gather(
            loop.sock_connect(near, listener.getsockname()), loop.sock_accept(listener)
        )
        with far:
            await loop.sock_sendall(near, b"data" * 2)
            assert await loop.sock_recv(far, 4) == b"data"
            assert await loop.sock_recv_into(far, bytearray(4)) == 4
    first, second = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    with first, second:
        for sock in (first, second):
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
        for _ in range(2):
            await loop.sock_sendto(first, b"data", second.getsockname())
        assert (await loop.sock_recvfrom(second, 4))[0] == b"data"
        assert (await loop.sock_recvfrom_into(second, bytearray(4)))[0] == 4


def a_file(directory):
    path = directory / "file"
    path.write_bytes(DATA)
    return path


@contextlib.asynccontextmanager
async def opened(directory):
    """A file, opened where it is not in the way of the loop."""
    to_thread = asyncio.to_thread
    file = await to_thread(lambda: a_file(directory).open("rb"))
    try:
        yield file
    finally:
        await to_thread(file.close)


@use
async def sendfile(directory):
    loop = asyncio.get_running_loop()
    async with serving(await loop.create_server(Echo, "127.0.0.1", 0)) as address:
        transport, protocol = await loop.create_connection(Keeper, *address)
        async with opened(directory) as file:
            assert await loop.sendfile(transport, file, 1000) == len(DATA) - 1000
            assert await loop.sendfile(transport, file, 0, 1000) == 1000
            assert file.tell() == 1000
        await until(lambda: len(protocol.data) == len(DATA))
        transport.close()


@use
async def sendfile_in_pieces(directory):
    """Where sendfile(2) cannot be used: a file of Python's, and TLS."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
    async with serving(server) as address:
        transport, protocol = await loop.create_connection(
            Keeper, *address, ssl=client_context(), server_hostname=NAME
        )
        async with opened(directory) as file:
            assert await loop.sendfile(transport, file) == len(DATA)
        assert await loop.sendfile(transport, io.BytesIO(DATA)) == len(DATA)
        await until(lambda: len(protocol.data) == 2 * len(DATA))
        transport.close()


@use
async def sock_sendfile(directory):
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    _, protocol = await loop.create_connection(Keeper, sock=far)
    with near:
        async with opened(directory) as file:
            assert await loop.sock_sendfile(near, file) == len(DATA)
            assert await loop.sock_sendfile(near, io.BytesIO(DATA), 5, 100) == 100
    await until(lambda: protocol.lost)
    assert protocol.data == DATA + DATA[5:105]


@use
async def pipes(directory):
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    writer, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write, "wb", 0))
    _, protocol = await loop.connect_read_pipe(Keeper, os.fdopen(read, "rb", 0))
    writer.write(DATA)
    writer.close()
    await until(lambda: protocol.lost)
    assert protocol.data == DATA


@use
async def watched_descriptors(directory):
    loop = asyncio.get_running_loop()
    read, write = os.pipe()
    ready = set()
    loop.add_reader(read, ready.add, "read")
    loop.add_writer(write, ready.add, "write")
    await until(lambda: "write" in ready)
    loop.remove_writer(write)
    os.close(write)
    await until(lambda: "read" in ready)
    loop.remove_reader(read)
    os.close(read)


@use
async def executors(directory):
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(None, os.getpid) == os.getpid()
    assert await asyncio.gather(*(asyncio.to_thread(abs, -n) for n in range(20)))
    await loop.shutdown_default_executor()


@use
async def threadsafe_calls(directory):
    loop = asyncio.get_running_loop()
    called = asyncio.Event()
    with_thread = asyncio.to_thread(loop.call_soon_threadsafe, called.set)
    await asyncio.gather(with_thread, called.wait())


@use
async def signals(directory):
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, came.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await came.wait()
    assert loop.remove_signal_handler(signal.SIGUSR1)


PIPE, DEVNULL, STDOUT = (
    asyncio.subprocess.PIPE,
    asyncio.subprocess.DEVNULL,
    asyncio.subprocess.STDOUT,
)
STREAMS = [
    {},
    {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE},
    {"stdin": DEVNULL, "stdout": PIPE, "stderr": STDOUT},
    {"stdin": PIPE, "stdout": DEVNULL, "stderr": DEVNULL},
]


@use
async def processes(directory):
    for streams in STREAMS:
        process = await asyncio.create_subprocess_exec("cat", os.devnull, cwd=directory, **streams)
        await process.communicate(b"data" if streams.get("stdin") == PIPE else None)
        assert process.returncode == 0
        process = await asyncio.create_subprocess_shell("exit 3", **streams)
        await process.communicate()
        assert process.returncode == 3


@use
async def processes_with_a_function_before(directory):
    process = await asyncio.create_subprocess_exec("true", preexec_fn=os.getpid)
    assert await process.wait() == 0


@use
async def processes_with_a_file(directory):
    async with opened(directory) as file:
        process = await asyncio.create_subprocess_exec("cat", stdin=file, stdout=PIPE)
        assert await process.communicate() == (DATA, None)


@use
async def processes_that_are_killed(directory):
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    process.terminate()
    assert await process.wait() == -signal.SIGTERM
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    process._transport.close()
    assert await process.wait() == -signal.SIGKILL


@use
async def programs_that_are_not_there(directory):
    with pytest.raises(FileNotFoundError) as error:
        await asyncio.create_subprocess_exec(directory / "nothing", cwd=directory)
    assert error.value.filename == directory / "nothing"


@use
async def debug_mode(directory):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        await connections(directory)
        await processes(directory)
    finally:
        loop.set_debug(False)
