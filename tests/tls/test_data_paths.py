"""Which way oxloop's data takes through OpenSSL: told, and forced by OXLOOP_TLS."""

import os
import subprocess
import sys

import pytest

import oxloop

PATHS = ("direct", "memorybio")


TELL = "import oxloop; print(oxloop.tls_data_path, oxloop.tls_fallback_reason, sep='\\n')"

# What a Python with OpenSSL built in looks like: there is no libssl to find.
WITHOUT = "import _ssl; _ssl.__file__ = '/nowhere/_ssl.so'; "


def import_with(forced, before=""):
    env = {**os.environ, "OXLOOP_TLS": forced}
    if not forced:
        del env["OXLOOP_TLS"]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {before}{TELL}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("path", PATHS)
def test_is_forced_by_the_environment(path):
    done = import_with(path)
    assert done.returncode == 0, done.stderr
    reason = "OXLOOP_TLS=memorybio" if path == "memorybio" else None
    assert done.stdout.splitlines() == [path, str(reason)]


def test_why_it_is_the_slower_one():
    done = import_with("", before=WITHOUT)
    assert done.returncode == 0, done.stderr
    path, reason = done.stdout.splitlines()
    assert path == "memorybio"
    forced = import_with("direct", before=WITHOUT)
    assert forced.returncode == 1
    assert f"ImportError: OXLOOP_TLS=direct, but {reason}" in forced.stderr


def test_that_there_is_not():
    done = import_with("nonsense")
    assert done.returncode == 1
    assert "ImportError: " in done.stderr


def test_of_this_run():
    """What the other tests of this folder have tested."""
    assert oxloop.tls_data_path == os.environ.get("OXLOOP_TLS", oxloop.tls_data_path)
    assert oxloop.tls_data_path in PATHS
    assert (oxloop.tls_fallback_reason is None) == (oxloop.tls_data_path == "direct")
