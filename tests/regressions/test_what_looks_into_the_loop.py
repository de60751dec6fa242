"""Libraries and debuggers that look into a loop, or replace its methods, find what they look for.

Must hold: asyncio.all_tasks, ``python -m asyncio ps`` (from 3.14), anyio's search for the root
task, aiofastnet's patch_loop and a ``close`` assigned on the instance, as error reporters do it,
work; IsolatedAsyncioTestCase too, see programs/test_frameworks.py.
"""

import asyncio
import subprocess
import sys

import aiofastnet
import anyio
import anyio.lowlevel
import pytest

from support.peers import pattern, turns, until
from support.programs import start_program
from support.protocols import Recorder


def test_all_tasks(loop, run):
    async def waits():
        await asyncio.sleep(3600)

    async def main():
        tasks = {asyncio.create_task(waits(), name=f"waits {n}") for n in range(3)}
        await turns(2)
        assert asyncio.all_tasks() == tasks | {asyncio.current_task()}
        seen_elsewhere = await asyncio.to_thread(asyncio.all_tasks, loop)
        assert tasks < seen_elsewhere
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert asyncio.all_tasks(loop) == set()


def test_current_task(loop, run):
    async def main():
        seen = [asyncio.current_task(loop)]
        loop.call_soon(lambda: seen.append(asyncio.current_task(loop)))
        await turns(2)
        return asyncio.current_task(), seen

    task, seen = run(main())
    assert seen == [task, None]
    assert asyncio.current_task(loop) is None


SLEEPING = """
    import sys
    async def innermost():
        await asyncio.sleep(60)
    async def middle():
        async with asyncio.TaskGroup() as group:
            group.create_task(innermost(), name="a task with a name")
            print("ready", flush=True)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(middle())
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python before 3.14 has no asyncio ps")
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_asyncio_ps(loop_name, command):
    program = start_program(loop_name, SLEEPING)
    try:
        assert program.stdout.readline() == "ready\n"
        shown = ""
        for _ in range(20):  # what a running interpreter shows may be half done
            shown = inspected(command, program.pid)
            if "innermost" in shown:
                break
    finally:
        program.kill()
        program.communicate()
    for name in ("a task with a name", "innermost", "sleep", "middle"):
        assert name in shown


def inspected(command, pid):
    """What ``python -m asyncio ps`` or ``pstree`` says about a process."""
    done = subprocess.run(
        [sys.executable, "-m", "asyncio", command, str(pid)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if "ermission" in done.stderr:
        pytest.skip("this kernel lets nobody read another process's memory")
    return done.stdout


def test_anyio_finds_the_root_task(loop, run):
    """Its run variables live as long as the root task, which it has to find from a child."""
    variable = anyio.lowlevel.RunVar("variable")

    async def child(found):
        from anyio._backends._asyncio import find_root_task

        found.append(find_root_task())
        variable.set("set by the child")

    async def main():
        found = []
        async with anyio.create_task_group() as group:
            group.start_soon(child, found)
        assert variable.get() == "set by the child"
        assert await anyio.to_thread.run_sync(lambda: "worker") == "worker"
        return found, asyncio.current_task()

    found, root = run(main())
    assert found == [root]


@pytest.fixture
def patched(loop):
    assert aiofastnet.patch_loop(loop) is loop
    assert loop.create_connection.func is aiofastnet.create_connection
    return loop


def test_aiofastnet_streams(patched, run):
    data = pattern(500_000)

    async def serve(reader, writer):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        assert type(writer.transport).__module__.startswith("aiofastnet")
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        await turns()

    run(main())


def test_aiofastnet_beside_native_transports(loop, run, patched, tmp_path):
    """What it took from the loop keeps working under it."""

    async def main():
        path = str(tmp_path / "socket")
        server = await loop.create_unix_server(Recorder, path)
        native = type(loop).create_unix_connection(loop, Recorder, path)
        transport, protocol = await native
        assert not type(transport).__module__.startswith("aiofastnet")
        transport.close()
        await until(lambda: protocol.is_lost)
        server.close()
        await server.wait_closed()
        await turns()

    run(main())


def test_close_assigned_on_the_instance(loop_factory):
    """An error reporter flushes when the loop is closed, then closes it."""
    flushed = []
    loop = loop_factory()
    original = loop.close

    def close():
        flushed.append(loop.run_until_complete(asyncio.sleep(0, "flushed")))
        original()

    loop.close = close

    async def main():
        return "result"

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(main()) == "result"
    assert flushed == ["flushed"]
    assert loop.is_closed()


def test_task_factory_wrapped(loop, run):
    """Error reporters put a factory of their own around the one they find."""
    names = []
    previous = loop.get_task_factory()

    def factory(loop, coro, **kwargs):
        names.append(coro.__qualname__.rpartition(".")[2])
        if previous is not None:
            return previous(loop, coro, **kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def child():
        return "result"

    async def main():
        return await asyncio.gather(child(), child())

    loop.set_task_factory(factory)
    assert run(main()) == ["result", "result"]
    assert names == ["main", "child", "child"]
