"""The example application under its self-test, which must also notice when something is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(180)  # 2,200 exchanges, maybe on a busy machine
SELFTEST = Path(__file__).parent.parent / "examples" / "selftest.py"
UVICORN_NAMES = {"asyncio": "asyncio", "oxloop": "oxloop:new_event_loop"}
LOOP_CLASSES = {"asyncio": "_UnixSelectorEventLoop", "oxloop": "oxloop."}

BROKEN_LOOP = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    "Its connections lose a part of what is written."

    async def create_server(self, factory, *args, **kwargs):
        def lossy_factory():
            protocol = factory()
            connection_made = protocol.connection_made

            def made(transport):
                connection_made(transport)
                write = transport.write
                transport.write = lambda data: write(bytes(data).replace(b"hello", b"HELLO"))

            protocol.connection_made = made
            return protocol

        return await super().create_server(lossy_factory, *args, **kwargs)
"""


def selftest(loop, **environment):
    return subprocess.run(
        [sys.executable, str(SELFTEST), "--loop", loop],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_selftest_passes(loop_name):
    done = selftest(UVICORN_NAMES[loop_name])
    assert done.returncode == 0, done.stdout + done.stderr
    assert LOOP_CLASSES[loop_name] in done.stdout
    assert done.stdout.endswith("PASSED: 2200 exchanges, 0 failures\n")


def test_selftest_fails_when_answers_are_wrong(tmp_path):
    (tmp_path / "broken_loop.py").write_text(BROKEN_LOOP)
    done = selftest("broken_loop:Loop", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "/json answered" in done.stdout
    assert "FAILED: " in done.stdout.splitlines()[-1]


def test_selftest_fails_when_the_server_does_not_start(tmp_path):
    (tmp_path / "broken_loop.py").write_text("def Loop():\n    raise OSError('no loop today')\n")
    done = selftest("broken_loop:Loop", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "no loop today" in done.stdout
    assert "FAILED: the server" in done.stdout.splitlines()[-1]
