"""Files that TLS needs: a certificate of its own for each measurement, the floor's OpenSSL."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

MAPPED_FILES = """
import _ssl
with open("/proc/self/maps") as maps:
    fields = [line.split(maxsplit=5) for line in maps]
print(*{each[5].rstrip() for each in fields if len(each) == 6}, sep="\\n")
"""


def make_certificate(programs: Path, directory: Path) -> None:
    """Write `certificate.pem` and `key.pem`; they are good for as long as the directory is."""
    subprocess.run([programs / "load", "--make-certificate", directory], check=True)


def client_options(directory: Path) -> list[str | Path]:
    """Return what tells the load generator to speak TLS with the server of that certificate."""
    return ["--tls", directory / "certificate.pem"]


@functools.cache
def interpreter_files(python: Path) -> dict[str, Path]:
    """Return the shared libraries that an interpreter uses for TLS, by the start of their names.

    One that has OpenSSL compiled in has none to show.
    """
    done = subprocess.run([python, "-c", MAPPED_FILES], check=True, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        path = Path(line)
        for start in ("ld-", "libc.so", "libcrypto.so", "libssl.so"):
            if path.name.startswith(start):
                found[start] = path
    return found


def floor_command(programs: Path, python: Path, directory: Path) -> list[str | Path]:
    """Return the command of a floor that speaks TLS by the interpreter's own OpenSSL.

    An interpreter may have brought its C library along, which its OpenSSL then needs. So the
    floor is started by the same loader.
    """
    floor: list[str | Path] = [programs / "floor", "--tls", directory]
    files = interpreter_files(python)
    if "libssl.so" not in files or "libcrypto.so" not in files:
        return floor
    floor += ["--openssl", f"{files['libcrypto.so']}:{files['libssl.so']}"]
    if "ld-" not in files or "libc.so" not in files:
        return floor
    directories = dict.fromkeys(
        str(files[each].parent) for each in ("libc.so", "libcrypto.so", "libssl.so")
    )
    return [files["ld-"], "--library-path", ":".join(directories), *floor]
