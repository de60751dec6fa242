"""Machine: what a reader has to know of where and when the numbers were measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers

if TYPE_CHECKING:
    from collections.abc import Iterable

ASK = "import ssl, sys; print(sys.version.split()[0], ssl.OPENSSL_VERSION)"
# Options of compare.py that say where something is, and nothing of what is measured.
PLACES = ("--json", "--programs", "--venv", "--python", "--oxloop", "--document")
SWITCHES = ("--setup",)


def cpu_model(cpuinfo: str) -> str:
    """Return the processor that /proc/cpuinfo names, and whether it is a virtual machine's."""
    rows = [line.partition(":") for line in cpuinfo.splitlines()]
    known = {name.strip(): value.strip() for name, _, value in rows}
    model = known.get("model name", platform.machine())
    is_virtual = "hypervisor" in known.get("flags", "").split()
    return f"{model} (virtual machine)" if is_virtual else model


def memory_gib() -> float:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return round(pages / (1 << 30), 1)


def output(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit() -> str | None:
    """Return the project's commit, if this is a clone of it."""
    try:
        return output("git", "-C", peers.ROOT, "describe", "--always", "--dirty")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line(program: str, arguments: Iterable[str]) -> str:
    """Return a command without what only says where something is."""
    kept = [Path(program).name]
    is_place = False
    for argument in arguments:
        if is_place:
            is_place = False
        elif argument in PLACES:
            is_place = True
        elif argument.partition("=")[0] not in {*PLACES, *SWITCHES}:
            kept.append(f"'{argument}'" if set(argument) & set("*?, ") else argument)
    return " ".join(kept)


def describe(python: Path) -> dict[str, Any]:
    """Return the machine, the versions of what is measured, and the time."""
    version, _, openssl = output(python, "-c", ASK).partition(" ")
    packages = json.loads(output(python, "-m", "pip", "list", "--format", "json"))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": commit(),
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "memory_gib": memory_gib(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": version,
        "openssl": openssl,
        "packages": {each["name"]: each["version"] for each in packages},
        "load_average": round(os.getloadavg()[0], 2),
    }
