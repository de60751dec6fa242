"""Low-level API Index: subprocesses, their transports and protocols."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from support.low_level_api import entry
from support.peers import until


class Recorder(asyncio.SubprocessProtocol):
    """Keeps what each pipe said and the order of the callbacks."""

    def __init__(self):
        self.calls = []
        self.data = {1: b"", 2: b""}
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def pipe_data_received(self, fd, data):
        self.data[fd] += data
        if ("data", fd) not in self.calls:
            self.calls.append(("data", fd))

    def pipe_connection_lost(self, fd, exc):
        self.calls.append(("pipe lost", fd, exc))

    def process_exited(self):
        self.calls.append("exited")

    def connection_lost(self, exc):
        self.calls.append(("lost", exc))

    @property
    def is_lost(self):
        return self.calls[-1:] == [("lost", None)]


@pytest.fixture
def with_child(loop, run):
    """Runs ``body(transport, protocol)`` beside a shell command, which ends with it."""

    def with_child(body, command="exec cat", **keywords):
        async def main():
            transport, protocol = await loop.subprocess_shell(Recorder, command, **keywords)
            try:
                await body(transport, protocol)
            finally:
                transport.close()
                await until(lambda: protocol.is_lost)
            return protocol

        return run(main())

    return with_child


def finished(protocol):
    return "exited" in protocol.calls


@entry("loop.subprocess_exec")
def test_arguments_as_they_are(loop, run):
    source = "import sys; print(ascii(sys.argv[1:])); sys.exit(3)"

    async def main():
        transport, protocol = await loop.subprocess_exec(
            Recorder, sys.executable, "-c", source, "a b", "$HOME", "*", stdin=None
        )
        await until(lambda: protocol.is_lost)
        assert protocol.data[1].decode() == "['a b', '$HOME', '*']\n"
        assert transport.get_returncode() == 3
        transport.close()
        with pytest.raises(FileNotFoundError):
            await loop.subprocess_exec(Recorder, "/no/such/program")

    run(main())


@entry("loop.subprocess_shell")
def test_a_shell_interprets_it(with_child):
    async def body(transport, protocol):
        await until(lambda: protocol.is_lost)
        assert protocol.data == {1: b"6\n", 2: b"to stderr\n"}
        assert transport.get_returncode() == 4

    with_child(body, "echo $((2 * 3)); echo to stderr >&2; exit 4", stdin=None)


@entry("subprocess transport.get_pid")
def test_the_childs_own_number(with_child):
    async def body(transport, protocol):
        pid = transport.get_pid()
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
        await until(lambda: protocol.data[1])
        assert int(protocol.data[1]) == pid
        transport.get_pipe_transport(0).close()
        await until(lambda: finished(protocol))
        assert transport.get_pid() == pid

    with_child(body, "echo $$; read line")


@entry("subprocess transport.get_pipe_transport")
def test_a_transport_for_each_pipe(with_child):
    async def body(transport, protocol):
        stdin, stdout = (transport.get_pipe_transport(fd) for fd in (0, 1))
        assert transport.get_pipe_transport(2) is None
        assert transport.get_pipe_transport(3) is None
        assert isinstance(stdin, asyncio.WriteTransport)
        assert isinstance(stdout, asyncio.ReadTransport)
        stdin.write(b"through cat")
        await until(lambda: protocol.data[1] == b"through cat")
        stdin.write_eof()
        await until(lambda: finished(protocol))

    with_child(body, stderr=subprocess.DEVNULL)


@entry("subprocess transport.get_returncode")
def test_none_then_the_status(with_child):
    async def body(transport, protocol):
        assert transport.get_returncode() is None
        transport.get_pipe_transport(0).write(b"\n")
        await until(lambda: finished(protocol))
        assert transport.get_returncode() == 42

    with_child(body, "read line; exit 42")


ENDING = {
    "kill": lambda transport: transport.kill(),
    "send_signal": lambda transport: transport.send_signal(signal.SIGUSR1),
    "terminate": lambda transport: transport.terminate(),
}


def ended_by(name, with_child):
    async def body(transport, protocol):
        ENDING[name](transport)
        await until(lambda: protocol.is_lost)
        codes.append(transport.get_returncode())
        with pytest.raises(ProcessLookupError):
            ENDING[name](transport)

    codes = []
    with_child(body)
    return codes


@entry("subprocess transport.kill")
def test_kill_ends_it(with_child):
    assert ended_by("kill", with_child) == [-signal.SIGKILL]


@entry("subprocess transport.send_signal")
def test_any_signal_ends_it(with_child):
    assert ended_by("send_signal", with_child) == [-signal.SIGUSR1]


@entry("subprocess transport.terminate")
def test_terminate_ends_it(with_child):
    assert ended_by("terminate", with_child) == [-signal.SIGTERM]


@entry("subprocess transport.send_signal")
def test_a_signal_that_the_child_handles(with_child):
    async def body(transport, protocol):
        await until(lambda: b"ready" in protocol.data[1])
        transport.send_signal(signal.SIGTERM)
        await until(lambda: protocol.is_lost)
        assert b"goodbye" in protocol.data[1]
        assert transport.get_returncode() == 5

    with_child(body, "trap 'echo goodbye; exit 5' TERM; echo ready; while :; do sleep 0.01; done")


@entry("subprocess transport.close")
def test_close_kills_and_closes_the_pipes(with_child):
    async def body(transport, protocol):
        pipes = [transport.get_pipe_transport(fd) for fd in range(3)]
        assert not transport.is_closing()
        transport.close()
        transport.close()
        assert transport.is_closing()
        assert all(pipe.is_closing() for pipe in pipes)
        await until(lambda: protocol.is_lost)
        assert transport.get_returncode() == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            os.kill(transport.get_pid(), 0)

    with_child(body)


@entry("subprocess protocol pipe_data_received")
def test_what_is_said_on_each_descriptor(with_child):
    async def body(transport, protocol):
        await until(lambda: protocol.is_lost)
        assert protocol.data == {1: b"x" * 100_000, 2: b"complaint\n"}

    with_child(body, "echo complaint >&2; head -c 100000 /dev/zero | tr '\\0' x", stdin=None)


@entry("subprocess protocol pipe_connection_lost")
def test_each_pipe_that_the_child_closes(with_child):
    async def body(transport, protocol):
        await until(lambda: ("pipe lost", 1, None) in protocol.calls)
        assert ("pipe lost", 2, None) not in protocol.calls
        assert not finished(protocol)
        transport.get_pipe_transport(0).close()
        await until(lambda: protocol.is_lost)
        assert ("pipe lost", 0, None) in protocol.calls
        assert ("pipe lost", 2, None) in protocol.calls

    with_child(body, "exec >&-; read line")


@entry("subprocess protocol process_exited")
def test_once_and_before_connection_lost(with_child):
    async def body(transport, protocol):
        await until(lambda: protocol.is_lost)
        assert protocol.calls.count("exited") == 1
        assert protocol.calls[0] == "made"
        assert protocol.calls.index("exited") < protocol.calls.index(("lost", None))
        assert transport.get_returncode() == 0

    with_child(body, "true")
