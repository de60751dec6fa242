"""subprocess_exec, subprocess_shell, and asyncio.create_subprocess_* on top of them."""

import asyncio
import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import warnings
from unittest import mock

import pytest

from support.descriptors import open_channels
from support.peers import pattern, turns, until

PIPE = subprocess.PIPE


class Recorder(asyncio.SubprocessProtocol):
    """Writes down the callbacks; pipe data by descriptor."""

    def __init__(self):
        self.calls = []
        self.data = {1: bytearray(), 2: bytearray()}
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def pipe_data_received(self, fd, data):
        self.data[fd] += data
        if self.calls[-1:] != [f"data {fd}"]:
            self.calls.append(f"data {fd}")

    def pipe_connection_lost(self, fd, exc):
        self.calls.append(f"end {fd}")

    def process_exited(self):
        self.calls.append("exited")

    def connection_lost(self, exc):
        assert exc is None
        self.calls.append("lost")

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    @property
    def is_lost(self):
        return self.calls[-1:] == ["lost"]


def python(code):
    return sys.executable, "-S", "-c", code


@pytest.fixture
def pidfds_of_asyncio_closed(loop_name):
    """Stock asyncio forgets the pidfd of a child that outlives the loop."""
    yield
    for fd, name in open_channels().items():
        if loop_name == "asyncio" and "pidfd" in name:
            os.close(fd)


class TestProtocols:
    def test_subprocess_exec_calls_back_in_order(self, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(
                Recorder, "/bin/sh", "-c", "cat; echo problem >&2; exit 7"
            )
            assert isinstance(transport, asyncio.SubprocessTransport)
            assert protocol.transport is transport or protocol.transport is None
            assert transport.get_protocol() is protocol
            assert transport.get_returncode() is None
            assert isinstance(transport.get_extra_info("subprocess"), subprocess.Popen)
            assert transport.get_extra_info("subprocess").pid == transport.get_pid()
            assert transport.get_pipe_transport(5) is None
            stdin = transport.get_pipe_transport(0)
            assert isinstance(stdin, asyncio.WriteTransport)
            assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
            assert isinstance(transport.get_pipe_transport(2), asyncio.ReadTransport)
            stdin.write(b"hello")
            stdin.close()
            await until(lambda: protocol.is_lost)
            assert protocol.data == {1: b"hello", 2: b"problem\n"}
            assert transport.get_returncode() == 7
            calls = protocol.calls
            assert calls[0] == "made"
            assert calls[-1] == "lost"
            assert sorted(calls[1:-1]) == ["data 1", "data 2", "end 0", "end 1", "end 2", "exited"]
            assert calls.index("data 1") < calls.index("end 1")
            assert calls.index("data 2") < calls.index("end 2")
            transport.close()

        run(main())

    @pytest.mark.parametrize("command", ["exit 3", b"exit 3"])
    def test_subprocess_shell(self, loop, run, command):
        async def main():
            transport, protocol = await loop.subprocess_shell(Recorder, command)
            await until(lambda: protocol.is_lost)
            assert transport.get_returncode() == 3
            transport.close()

        run(main())

    def test_streams_that_are_no_pipes(self, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(
                Recorder, "true", stdin=None, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
            )
            assert [transport.get_pipe_transport(fd) for fd in range(3)] == [None] * 3
            await until(lambda: protocol.is_lost)
            assert protocol.calls == ["made", "exited", "lost"]
            transport.close()

        run(main())

    def test_set_protocol(self, loop, run):
        async def main():
            transport, _ = await loop.subprocess_exec(Recorder, "cat")
            other = Recorder()
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            transport.get_pipe_transport(0).close()
            await until(lambda: other.is_lost)
            assert "exited" in other.calls
            transport.close()

        run(main())

    def test_flow_control_of_stdin(self, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(Recorder, "cat")
            stdin = transport.get_pipe_transport(0)
            sent = pattern(1_000_000)
            stdin.write(sent)
            assert "pause" in protocol.calls
            await until(lambda: "resume" in protocol.calls)
            stdin.close()
            await until(lambda: protocol.is_lost)
            assert protocol.data[1] == sent
            transport.close()

        run(main())

    @pytest.mark.parametrize(
        ("keywords", "text"),
        [
            ({"universal_newlines": True}, "universal_newlines must be False"),
            ({"bufsize": 4096}, "bufsize must be 0"),
            ({"text": True}, "text must be False"),
            ({"encoding": "utf-8"}, "encoding must be None"),
            ({"errors": "strict"}, "errors must be None"),
        ],
    )
    def test_refused_keywords(self, loop, run, keywords, text):
        for starting in (
            loop.subprocess_exec(Recorder, "true", **keywords),
            loop.subprocess_shell(Recorder, "true", **keywords),
        ):
            with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
                run(starting)

    def test_refused_shell_keyword_and_command(self, loop, run):
        with pytest.raises(ValueError, match=r"^shell must be False$"):
            run(loop.subprocess_exec(Recorder, "true", shell=True))
        with pytest.raises(ValueError, match=r"^shell must be True$"):
            run(loop.subprocess_shell(Recorder, "true", shell=False))
        with pytest.raises(ValueError, match=r"^cmd must be a string$"):
            run(loop.subprocess_shell(Recorder, ["true"]))

    def test_program_that_is_not_there(self, loop, run):
        with pytest.raises(FileNotFoundError):
            run(loop.subprocess_exec(Recorder, "/nonexistent/program"))
        with pytest.raises(TypeError):
            run(loop.subprocess_exec(Recorder, "true", no_such_keyword=1))

    def test_factory_that_raises(self, loop, run):
        def factory():
            raise LookupError("from the factory")

        with pytest.raises(LookupError):
            run(loop.subprocess_exec(factory, "true"))


class TestEnding:
    def test_no_signal_after_the_program_reaped_the_child(self, loop_name, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(Recorder, "sleep", "0.1")
            process = transport.get_extra_info("subprocess")
            # The loop cannot see the exit before this returns.
            assert process.wait() == 0
            with mock.patch("os.kill") as kill:
                transport.send_signal(signal.SIGTERM)
                assert not [call for call in kill.mock_calls if call.args[1] != 0]
            await until(lambda: protocol.is_lost)
            # A thread of asyncio's may have been the one that lost the race.
            possible = (0, 255) if loop_name == "asyncio" else (0,)
            assert transport.get_returncode() in possible
            transport.close()

        if loop_name == "asyncio" and sys.version_info >= (3, 13):
            pytest.skip("asyncio sends it from 3.13 on, to whoever has the number by then")
        run(main())

    def test_reaped_by_a_thread_that_waits(self, loop_name, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(Recorder, "cat")
            process = transport.get_extra_info("subprocess")
            waiting = loop.run_in_executor(None, process.wait)
            await asyncio.sleep(0.05)
            transport.get_pipe_transport(0).close()
            assert await waiting == 0
            await until(lambda: protocol.is_lost)
            # asyncio does not ask Popen: it knows the status only if it was quicker.
            possible = (0, 255) if loop_name == "asyncio" else (0,)
            assert transport.get_returncode() in possible
            transport.close()

        run(main())

    @pytest.mark.asyncio_since(3, 12)
    def test_reaped_by_nobody_knows_whom(self, loop, run, caplog):
        async def main():
            transport, protocol = await loop.subprocess_exec(Recorder, "sleep", "0.1")
            os.waitpid(transport.get_pid(), 0)
            await until(lambda: protocol.is_lost)
            assert transport.get_returncode() == 255
            transport.close()

        run(main())
        assert "exit status already read" in caplog.text

    @pytest.mark.asyncio_since(3, 12)
    def test_unclosed_warns(self, pidfds_of_asyncio_closed, loop, run):
        async def main():
            transport, _ = await loop.subprocess_exec(
                Recorder, "sleep", "60", stdin=None, stdout=None, stderr=None
            )
            return transport.get_pid()

        pid = run(main())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loop.close()
            gc.collect()
        texts = [str(warning.message) for warning in caught]
        assert any(t.startswith("unclosed transport <") and f"pid={pid}" in t for t in texts)
        # Killed by the transport's end; Popen's own list or we reap it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    @pytest.mark.asyncio_since(3, 14)
    def test_loop_closed_with_a_child_alive(self, pidfds_of_asyncio_closed, loop, run):
        async def main():
            transport, _ = await loop.subprocess_exec(Recorder, "sleep", "60")
            return transport

        transport = run(main())
        process = transport.get_extra_info("subprocess")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop.close()
            transport.close()
            assert process.wait() == -signal.SIGKILL
            del transport, process
            gc.collect()

    def test_repr(self, loop, run):
        async def main():
            transport, protocol = await loop.subprocess_exec(Recorder, "cat", stderr=None)
            text = repr(transport)
            assert f" pid={transport.get_pid()} running stdin=<" in text
            assert " stdout=<" in text
            assert "stderr" not in text
            transport.get_pipe_transport(0).close()
            await until(lambda: protocol.is_lost)
            assert " returncode=0 " in repr(transport)
            transport.close()
            assert " closed " in repr(transport)

        run(main())


class TestCreateSubprocess:
    def test_create_subprocess_exec_communicates(self, loop, run):
        sent = pattern(4 << 20)

        async def main():
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
            out, err = await process.communicate(sent)
            assert out == sent
            assert err is None
            assert process.returncode == 0

        run(main())

    def test_create_subprocess_shell_streams(self, loop, run):
        async def main():
            process = await asyncio.create_subprocess_shell(
                "read line; echo got $line; read line || echo end", stdin=PIPE, stdout=PIPE
            )
            process.stdin.write(b"this\n")
            await process.stdin.drain()
            assert await process.stdout.readline() == b"got this\n"
            process.stdin.close()
            await process.stdin.wait_closed()
            assert await process.stdout.read() == b"end\n"
            assert await process.wait() == 0

        run(main())

    def test_many_wait(self, loop, run):
        async def main():
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
            waits = [asyncio.ensure_future(process.wait()) for _ in range(5)]
            await turns()
            waits[0].cancel()
            process.stdin.close()
            results = await asyncio.gather(*waits, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            assert results[1:] == [0] * 4
            assert await process.wait() == 0

        run(main())

    def test_wait_that_times_out(self, loop, run):
        async def main():
            process = await asyncio.create_subprocess_exec("sleep", "60")
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 0.02)
            process.kill()
            assert await process.wait() == -signal.SIGKILL

        run(main())

    def test_cancelled_during_creation(self, loop, run):
        spawned = []
        popen = subprocess.Popen

        def spawning(*args, **kwargs):
            spawned.append(popen(*args, **kwargs))
            return spawned[-1]

        async def main():
            with mock.patch("subprocess.Popen", spawning):
                creating = loop.create_task(
                    asyncio.create_subprocess_exec("sleep", "60", stdin=PIPE, stdout=PIPE)
                )
                await asyncio.sleep(0)
                creating.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await creating
            (process,) = spawned
            assert process.returncode == -signal.SIGKILL
            await turns(10)

        run(main())

    def test_a_hundred_at_once(self, loop, run):
        async def one(number):
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", f"echo {number}; exit {number % 7}", stdout=PIPE
            )
            out, _ = await process.communicate()
            return int(out), process.returncode

        async def main():
            return await asyncio.gather(*map(one, range(100)))

        assert run(main()) == [(n, n % 7) for n in range(100)]

    def test_from_a_thread(self, loop_factory):
        async def main():
            process = await asyncio.create_subprocess_exec("true")
            return await process.wait()

        def in_thread():
            loop = loop_factory()
            try:
                results.append(loop.run_until_complete(main()))
            finally:
                loop.close()

        results = []
        thread = threading.Thread(target=in_thread)
        thread.start()
        thread.join(20)
        assert results == [0]

    def test_under_a_terminal(self, loop, run):
        main_fd, side = os.openpty()

        async def main():
            process = await asyncio.create_subprocess_exec(
                *python(
                    "import sys; print(all(map(lambda f: f.isatty(), (sys.stdin, sys.stdout))))"
                ),
                stdin=side,
                stdout=side,
                stderr=side,
                start_new_session=True,
            )
            os.close(side)
            stream = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(main_fd, "rb", 0)
            )
            assert await stream.readline() == b"True\r\n"
            assert await process.wait() == 0
            transport.close()
            await turns()

        run(main())

    def test_debug_log_keeps_arguments_to_itself(self, loop, run, caplog):
        caplog.set_level("DEBUG", "asyncio")
        loop.set_debug(True)

        async def main():
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", ": secret", stdin=PIPE, stderr=subprocess.STDOUT, stdout=PIPE
            )
            await process.communicate()

        run(main())
        lines = [record.getMessage() for record in caplog.records]
        assert "execute program '/bin/sh' stdin=<pipe> stdout=stderr=<pipe>" in lines
        assert any(line.startswith("process '/bin/sh' created: pid ") for line in lines)
        assert any(line.startswith("execute program '/bin/sh': <") for line in lines)
        assert any(line.endswith("exited with return code 0") for line in lines)
        assert "secret" not in "".join(lines)

    def test_without_pidfd(self, loop_name, loop, run):
        async def main():
            with mock.patch("os.pidfd_open", side_effect=PermissionError):
                process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 5")
                assert await process.wait() == 5
                process = await asyncio.create_subprocess_exec("sleep", "60")
                process.terminate()
                assert await process.wait() == -signal.SIGTERM

        if loop_name == "asyncio" and sys.version_info >= (3, 12):
            pytest.skip("asyncio finds out about pidfd_open once, at import")
        run(main())

    def test_sigchld_ignored(self, loop, run, caplog):
        async def main():
            # It waits: asyncio does not find a child that the kernel has reaped already.
            process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
            process.stdin.close()
            assert await process.wait() in (0, 255)

        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            run(main())
        finally:
            signal.signal(signal.SIGCHLD, before)
