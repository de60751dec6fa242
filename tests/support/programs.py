"""Programs that run in an interpreter of their own, with the loop under test made there."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from support.peers import PATIENCE_S, SLOWNESS

PRELUDE = {
    "asyncio": "import asyncio\nnew_event_loop = asyncio.SelectorEventLoop\n",
    "oxloop": "import asyncio\nimport oxloop\nnew_event_loop = oxloop.new_event_loop\n",
}


def command(loop_name, source, *options):
    """argv of a program that begins with ``asyncio`` and ``new_event_loop`` defined."""
    return [sys.executable, *options, "-c", PRELUDE[loop_name] + textwrap.dedent(source)]


def run_program(loop_name, source, *options, env=None, timeout=30):
    """Runs the program to its end; its CompletedProcess has text output."""
    return subprocess.run(
        command(loop_name, source, *options),
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout * SLOWNESS,
        check=False,
    )


def start_program(loop_name, source, *options, env=None):
    """Starts the program with its stdin and stdout as text pipes."""
    return subprocess.Popen(
        command(loop_name, source, *options),
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_asleep(program):
    """Waits until a program of one thread sleeps in a system call.

    A signal that arrives just before one, after the interpreter's last look for signals, is not
    heard of before that call ends: so stock asyncio may sleep on.
    """
    deadline = time.monotonic() + PATIENCE_S
    before = None
    while program.poll() is None:
        now = _sleeps_so_far(program.pid)
        if now is not None and now == before:
            return
        if time.monotonic() > deadline:
            raise TimeoutError("the program never sleeps")
        before = now
        time.sleep(0.01)


def _sleeps_so_far(pid):
    """How often the process has gone to sleep, if it sleeps just now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    is_asleep = fields["State"].split()[0] == "S"
    return int(fields["voluntary_ctxt_switches"]) if is_asleep else None


def output_of(loop_name, source, *options, env=None, timeout=30):
    """The standard output of a program that must end well and say nothing on stderr."""
    done = run_program(loop_name, source, *options, env=env, timeout=timeout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", done.stderr
    return done.stdout
