"""grpc.aio: a thread of gRPC writes a byte for each event, and a reader takes one at a time."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PATIENCE_S = 30


def command(loop_name, *arguments):
    return [sys.executable, "-m", "support.grpc_echo", loop_name, *arguments]


@pytest.fixture
def server(loop_name):
    """A server in a process of its own; its port."""
    process = subprocess.Popen(
        command(loop_name, "server"),
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process.stdout.readline().strip()
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert (output, errors, process.returncode) == ("stopped\n", "", 0)


@pytest.mark.parametrize("check", ["unary", "streams", "bidirectional", "failures", "loop_name"])
def test_calls(loop_name, server, check):
    client = subprocess.run(
        command(loop_name, "client", server, check),
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (client.returncode, client.stderr) == (0, "")
    *said, last = client.stdout.splitlines()
    assert last == "done"
    if check == "loop_name":
        assert said[0].startswith(loop_name)
