"""A loop that is closed while something is under way does not hang, does not crash, and says so.

Must hold: with a lookup, a connection attempt, a TLS handshake, a child, a job of the executor, a
server or a waiting socket in flight, ``loop.close()`` returns, the process ends well, and the task
that nobody will wake any more is destroyed with asyncio's message; nothing keeps it alive.
"""

import asyncio
import contextlib
import gc
import socket
import sys
import textwrap
import warnings
import weakref

import pytest

from support.peers import Unresponsive, unix_pair
from support.programs import run_program
from support.protocols import Recorder

# Each starts `task`, which cannot end, and leaves names behind that the interpreter's end destroys.
PROGRAMS = {
    "lookup": """
        import socket, threading
        release, entered = threading.Event(), threading.Event()
        def getaddrinfo(*args, **kwargs):
            entered.set()
            release.wait(20)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        socket.getaddrinfo = getaddrinfo
        task = loop.create_task(loop.create_connection(asyncio.Protocol, "slow.example", 1))
        while not entered.is_set():
            loop.run_until_complete(asyncio.sleep(0.001))
        ending = threading.Timer(0.05, release.set).start
    """,
    "connection": """
        import socket
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued = [socket.socket() for _ in range(3)]
        for sock in queued:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        task = loop.create_task(loop.create_connection(asyncio.Protocol, *listener.getsockname()))
        def ending():
            for sock in [*queued, listener]:
                sock.close()
    """,
    "handshake": """
        import socket, ssl
        listener = socket.create_server(("127.0.0.1", 0))
        context = ssl.create_default_context()
        task = loop.create_task(
            loop.create_connection(asyncio.Protocol, *listener.getsockname(), ssl=context)
        )
        loop.run_until_complete(asyncio.sleep(0.01))
        peer, _ = listener.accept()
        loop.run_until_complete(asyncio.sleep(0.01))
        def ending():
            peer.close()
            listener.close()
    """,
    "child": """
        from subprocess import PIPE
        cat = loop.run_until_complete(asyncio.create_subprocess_exec("cat", stdin=PIPE))
        task = loop.create_task(cat.wait())
        def ending():
            pass
    """,
    "executor": """
        import threading
        release = threading.Event()
        async def waits():
            await loop.run_in_executor(None, release.wait, 20)
        task = loop.create_task(waits())
        ending = threading.Timer(0.05, release.set).start
    """,
    "server": """
        server = loop.run_until_complete(asyncio.start_server(print, "127.0.0.1", 0))
        task = loop.create_task(server.serve_forever())
        def ending():
            pass
    """,
    "socket": """
        import socket
        near, far = socket.socketpair()
        near.setblocking(False)
        task = loop.create_task(loop.sock_recv(near, 10))
        def ending():
            near.close()
            far.close()
    """,
}
# By a thread; up to 3.11 a thread of asyncio's waits for the child as well.
KEPT_ALIVE = {"lookup"} | ({"child"} if sys.version_info < (3, 12) else set())
ENDS_WITH = """
loop.run_until_complete(asyncio.sleep(0.01))
loop.close()
print("closed", task.done(), flush=True)
ending()
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_process_ends_well(loop_name, name):
    source = "loop = new_event_loop()\n" + textwrap.dedent(PROGRAMS[name]) + ENDS_WITH
    done = run_program(loop_name, source)
    assert (done.returncode, done.stdout) == (0, "closed False\n"), done.stderr
    assert "panicked" not in done.stderr
    if name not in KEPT_ALIVE:
        assert done.stderr.startswith("Task was destroyed but it is pending!\n")


class InFlight:
    """Makes tasks that cannot end, on a loop, and closes what they need afterwards."""

    def __init__(self, loop, stack, tmp_path):
        self.loop = loop
        self.stack = stack
        self.path = str(tmp_path / "socket")

    def connection(self):
        hanging = self.stack.enter_context(Unresponsive())
        return self.loop.create_connection(Recorder, *hanging.address)

    def connections(self):
        """Happy eyeballs: several attempts at once, each a task of its own."""
        hosts = ("127.0.0.1", "127.0.0.2")
        hanging = [self.stack.enter_context(Unresponsive(host=host)) for host in hosts]

        async def getaddrinfo(*args, **kwargs):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each.address) for each in hanging]

        self.loop.getaddrinfo = getaddrinfo
        return self.loop.create_connection(Recorder, "faked", 1, happy_eyeballs_delay=0.001)

    def reading(self):
        near, far = unix_pair()
        self.stack.enter_context(near)
        self.stack.enter_context(far)
        return self.loop.sock_recv(near, 10)

    def writing(self):
        near, far = unix_pair(sndbuf=8192)
        self.stack.enter_context(near)
        self.stack.enter_context(far)
        return self.loop.sock_sendall(near, bytes(1_000_000))

    def accepting(self):
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        return self.loop.sock_accept(listener)

    def serving(self):
        server = self.loop.run_until_complete(self.loop.create_unix_server(Recorder, self.path))
        return server.serve_forever()


def begun(loop, kind, stack, tmp_path):
    """A weak reference to a task that waits for something of that kind."""

    async def main(awaitable):
        await awaitable

    task = loop.create_task(main(getattr(InFlight(loop, stack, tmp_path), kind)()), name=kind)
    loop.run_until_complete(asyncio.sleep(0.02))
    assert not task.done()
    return weakref.ref(task)


@pytest.mark.parametrize(
    "kind",
    [
        "connection",
        # What the collector closes of asyncio's race stumbles over names that are gone already.
        pytest.param("connections", marks=pytest.mark.asyncio_wrong((3, 11), (4, 0))),
        "reading",
        "writing",
        "accepting",
        "serving",
    ],
)
def test_nothing_keeps_the_task_alive(loop_factory, kind, tmp_path):
    messages = []  # not the contexts: they hold the task
    with contextlib.ExitStack() as stack:
        loop = loop_factory()
        loop.set_exception_handler(lambda loop, context: messages.append(context["message"]))
        task = begun(loop, kind, stack, tmp_path)
        loop.close()
        reference = weakref.ref(loop)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
            assert task() is None
            assert set(messages) == {"Task was destroyed but it is pending!"}
            del loop
            gc.collect()
            assert reference() is None
