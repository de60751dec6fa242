"""Services: PostgreSQL and Redis, started by scripts/services when the first row needs one."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "services"
START_TIMEOUT = 180.0  # they may have to be installed
# What the script names them, by the kind of the client.
VARIABLES = {
    "redis": "OXLOOP_TEST_REDIS",
    "asyncpg": "OXLOOP_TEST_POSTGRES",
    "psycopg": "OXLOOP_TEST_POSTGRES",
}


class ServicesError(Exception):
    """The services cannot be had here; its text says why."""


def address(kind: str, core: int) -> str:
    """Return the URL of the service that a kind of client needs; it runs on that core."""
    found = environment(core)
    if isinstance(found, str):
        raise ServicesError(found)
    return found[VARIABLES[kind]]


@functools.cache
def environment(core: int) -> dict[str, str] | str:
    """Start the services; return what the script says of them, or why it failed."""
    directory = tempfile.mkdtemp(prefix="bench-services-")
    atexit.register(stop, directory)
    try:
        started = subprocess.run(
            [SCRIPT, "start", directory],
            check=False,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    except subprocess.TimeoutExpired:
        return f"services: not ready after {START_TIMEOUT:.0f} s"
    if started.returncode:
        words = started.stderr.strip().splitlines()
        return words[-1] if words else f"services: status {started.returncode}"
    lines = [line.removeprefix("export ") for line in started.stdout.splitlines()]
    return dict(line.split("=", 1) for line in lines)


def stop(directory: str) -> None:
    subprocess.run([SCRIPT, "stop", directory], check=False, capture_output=True)
    shutil.rmtree(directory, ignore_errors=True)
