"""A child is what ``subprocess.Popen`` makes of the same keywords.

Must hold: every keyword of Popen works (user, group, umask, process_group, pipesize, preexec_fn,
close_fds, pass_fds, restore_signals, ...), ``env=os.environ`` is taken, ``executable=`` leaves
argv[0] alone, the child can open /dev/stdout, no stray descriptor is inherited; the exit is seen
at once and without a thread; ``wait()`` ends with the process even if a grandchild keeps the pipe.
"""

import asyncio
import fcntl
import os
import signal
import statistics
import subprocess
import sys
import threading
import time

import pytest

PIPE = subprocess.PIPE


@pytest.fixture
def output_of(run):
    """What a child that runs Python code prints, started with keywords of Popen."""

    def output_of(code, **keywords):
        async def main():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-c", code, stdout=PIPE, **keywords
            )
            out, _ = await process.communicate()
            assert process.returncode == 0
            return out.decode().strip()

        return run(main())

    return output_of


def test_env_and_cwd(output_of, tmp_path):
    code = "import os; print(os.environ.get('OXLOOP_TEST'), os.getcwd())"
    env = {**os.environ, "OXLOOP_TEST": "here"}
    assert output_of(code, env=env, cwd=tmp_path) == f"here {tmp_path}"
    # The mapping itself, not a dict.
    assert output_of(code, env=os.environ).startswith("None ")


def test_executable_leaves_argv_alone(run):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "pretended-name",
            "-c",
            "echo $0; tr '\\0' ' ' < /proc/$$/cmdline",
            executable="/bin/sh",
            stdout=PIPE,
        )
        out, _ = await process.communicate()
        return out

    assert run(main()).endswith(b"pretended-name -c echo $0; tr '\\0' ' ' < /proc/$$/cmdline ")


def test_umask_and_process_group(output_of):
    assert output_of("import os; print(oct(os.umask(0)))", umask=0o027) == "0o27"
    code = "import os; print(os.getpgrp() == os.getpid())"
    assert output_of(code, process_group=0) == "True"
    code = "import os; print(os.getsid(0) == os.getpid())"
    assert output_of(code, start_new_session=True) == "True"


def test_user_and_group(run):
    if os.geteuid() != 0:
        pytest.skip("only root may change the user")

    async def main():
        process = await asyncio.create_subprocess_exec(
            "id", stdout=PIPE, user=12345, group=23456, extra_groups=[34567], cwd="/"
        )
        out, _ = await process.communicate()
        return out.decode()

    shown = run(main())
    assert "uid=12345" in shown
    assert "gid=23456" in shown
    assert "34567" in shown


def test_preexec_fn(output_of):
    code = "import os; print(os.nice(0))"
    nice = os.nice(0)
    assert output_of(code, preexec_fn=lambda: os.nice(3)) == str(min(nice + 3, 19))


def test_restore_signals(run):
    async def main(restore):
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "grep SigIgn /proc/$$/status", stdout=PIPE, restore_signals=restore
        )
        out, _ = await process.communicate()
        return int(out.split()[1], 16) >> (signal.SIGPIPE - 1) & 1

    assert [run(main(restore)) for restore in (True, False)] == [0, 1]


def test_descriptors(output_of):
    code = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        # The listing's own descriptor is the lowest free one.
        assert output_of(code) == "[0, 1, 2, 3]"
        shown = output_of(code, pass_fds=[writer])
        assert f", {writer}" in shown or f"{writer}]" in shown
        shown = output_of(code, close_fds=False)
        assert str(writer) in shown.strip("[]").split(", ")
        assert str(reader) not in shown.strip("[]").split(", ")
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("start", ["subprocess_exec", "subprocess_shell"])
@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
        ({"bufsize": 1}, "bufsize must be 0"),
    ],
)
def test_pipes_carry_bytes(loop, run, start, keyword, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        run(getattr(loop, start)(asyncio.SubprocessProtocol, "true", **keyword))


def test_pipesize(run):
    async def main():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, pipesize=1 << 14)
        pipe = process._transport.get_pipe_transport(0).get_extra_info("pipe")
        size = fcntl.fcntl(pipe.fileno(), fcntl.F_GETPIPE_SZ)
        await process.communicate(b"")
        return size

    assert run(main()) == 1 << 14


def test_dev_stdout(run):
    async def main():
        process = await asyncio.create_subprocess_shell("echo there > /dev/stdout", stdout=PIPE)
        out, _ = await process.communicate()
        return out

    assert run(main()) == b"there\n"


@pytest.mark.asyncio_since(3, 12)
def test_no_thread_waits(run):
    async def main():
        before = set(threading.enumerate())
        processes = [await asyncio.create_subprocess_exec("cat", stdin=PIPE) for _ in range(5)]
        assert set(threading.enumerate()) <= before
        for process in processes:
            process.stdin.close()
            assert await process.wait() == 0

    run(main())


def test_exit_is_seen_at_once(run):
    """Not at the next of some regular looks: each would be late by half of their distance."""

    def blocking():
        with subprocess.Popen(["cat"], stdin=PIPE) as process:
            time.sleep(0.02)
            began = time.perf_counter()
            process.kill()
            process.wait()
            return time.perf_counter() - began

    async def once():
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        waiting = asyncio.ensure_future(process.wait())
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        process.kill()
        await waiting
        return time.perf_counter() - began

    async def main():
        both = [(await once(), blocking()) for _ in range(15)]
        ours, kernels = zip(*both, strict=True)
        return statistics.median(ours) - statistics.median(kernels)

    differences = []
    for _ in range(10):  # the best of ten, for a busy machine
        differences.append(run(main()))
        if differences[-1] < 0.005:
            return
    pytest.fail(f"differences of medians: {differences} s")


@pytest.mark.asyncio_since(3, 14)
def test_wait_ends_while_a_grandchild_keeps_the_pipe(run):
    async def main():
        process = await asyncio.create_subprocess_shell("sleep 60 & echo $!; exit 4", stdout=PIPE)
        grandchild = int(await process.stdout.readline())
        try:
            async with asyncio.timeout(15):
                assert await process.wait() == 4
            assert not process.stdout.at_eof()
        finally:
            os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.read() == b""

    run(main())
