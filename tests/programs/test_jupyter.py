"""A Jupyter kernel: ipykernel in a process of its own, and jupyter_client on the loop under test.

Both sides stand on pyzmq, which adds readers from other threads while the loop waits.
"""

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager

from support.peers import PATIENCE_S

TESTS = Path(__file__).parent.parent
KERNEL_PATIENCE_S = 4 * PATIENCE_S  # IPython and all of its history are imported first


@pytest.fixture
def kernels(tmp_path, monkeypatch, loop_name):
    """Where jupyter_client finds a kernel on the loop under test; its files are in tmp_path."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    spec = {
        "argv": [
            *(sys.executable, "-m", "support.jupyter_kernel", loop_name),
            *("-f", "{connection_file}"),
        ],
        "env": {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])},
        "display_name": "the loop under test",
        "language": "python",
    }
    home = tmp_path / "kernels" / "under_test"
    home.mkdir(parents=True)
    (home / "kernel.json").write_text(json.dumps(spec))
    return KernelSpecManager(kernel_dirs=[str(home.parent)])


class Kernel:
    """A kernel that runs, and a client of it."""

    def __init__(self, manager, client):
        self.manager = manager
        self.client = client
        self.outputs = []

    async def execute(self, code, output=None):
        """Runs a cell; its reply, and what it printed and showed in ``outputs``."""
        self.outputs.clear()

        def keep(message):
            content = message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain")
            if text is not None:
                self.outputs.append(text)
                if output is not None:
                    output(text)

        reply = await self.client.execute_interactive(
            code, output_hook=keep, timeout=KERNEL_PATIENCE_S
        )
        return reply["content"]

    async def value(self, code):
        """What the cell's last expression shows."""
        reply = await self.execute(code)
        assert reply["status"] == "ok", reply
        return self.outputs[-1]


@contextlib.asynccontextmanager
async def running(kernels):
    manager = AsyncKernelManager(kernel_name="under_test", kernel_spec_manager=kernels)
    await manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=KERNEL_PATIENCE_S)
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)


@pytest.fixture
def in_kernel(run, kernels):
    """Runs a coroutine function with a kernel."""

    def in_kernel(scenario):
        async def main():
            async with running(kernels) as kernel:
                return await scenario(kernel)

        return run(main(), timeout=2 * KERNEL_PATIENCE_S)

    return in_kernel


pytestmark = pytest.mark.timeout(3 * KERNEL_PATIENCE_S)


def test_cells_await_on_the_loop(in_kernel, loop_name):
    async def scenario(kernel):
        kind = await kernel.value("import asyncio; type(asyncio.get_running_loop()).__module__")
        assert ("oxloop" in kind) is (loop_name == "oxloop")
        assert await kernel.value("await asyncio.sleep(0.01, 'slept')") == "'slept'"
        # What one cell begins goes on between the cells.
        await kernel.execute("task = asyncio.create_task(asyncio.sleep(0.01, 'in between'))")
        assert await kernel.value("await task") == "'in between'"
        echo = """
            async def echo(reader, writer):
                writer.write(await reader.readline())
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"over a connection\\n")
            line = await reader.read()
            writer.close()
            server.close()
            line
        """
        assert await kernel.value(echo) == r"b'over a connection\n'"

    in_kernel(scenario)


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(
            "await asyncio.sleep(1000)",
            # What ipykernel's signal handler does waits for the next event there.
            marks=pytest.mark.asyncio_wrong((3, 11), (4, 0)),
            id="awaiting",
        ),
        # One long sleep would miss a signal that comes just before it, on any loop.
        pytest.param("while True: time.sleep(0.05)", id="blocking"),
        pytest.param("while True: pass", id="computing"),
    ],
)
def test_an_interrupt(in_kernel, wait):
    """It ends the cell, and the kernel goes on."""

    async def scenario(kernel):
        begun = asyncio.Event()
        cell = asyncio.create_task(
            kernel.execute(
                f"import asyncio, time\nprint('begun', flush=True)\n{wait}",
                output=lambda _: begun.set(),
            )
        )
        await begun.wait()
        await kernel.manager.interrupt_kernel()
        reply = await cell
        assert reply["status"] == "error"
        assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
        assert await kernel.value("1 + 1") == "2"

    in_kernel(scenario)


def test_a_request_to_shut_down(in_kernel):
    """The kernel ends by itself."""

    async def scenario(kernel):
        assert await kernel.value("6 * 7") == "42"
        await kernel.manager.request_shutdown()
        process = kernel.manager.provisioner.process
        while process.poll() is None:
            await asyncio.sleep(0.01)
        assert process.returncode == 0

    in_kernel(scenario)
