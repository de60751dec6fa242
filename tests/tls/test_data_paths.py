"""Which way oxloop's data takes through OpenSSL: told, and forced by OXLOOP_TLS."""

import os
import subprocess
import sys

import pytest

import oxloop

PATHS = ("direct", "memorybio")


def import_with(forced):
    return subprocess.run(
        [sys.executable, "-c", "import oxloop; print(oxloop.tls_data_path)"],
        env={**os.environ, "OXLOOP_TLS": forced},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("path", PATHS)
def test_is_forced_by_the_environment(path):
    done = import_with(path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == path


def test_that_there_is_not():
    done = import_with("nonsense")
    assert done.returncode == 1
    assert "ImportError: " in done.stderr


def test_of_this_run():
    """What the other tests of this folder have tested."""
    assert oxloop.tls_data_path == os.environ.get("OXLOOP_TLS", oxloop.tls_data_path)
    assert oxloop.tls_data_path in PATHS
