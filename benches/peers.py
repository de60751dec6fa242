"""Peers: a virtual environment with the pinned peers and, if given, a build of the project.

It is separate from every other environment, so that what is compared is what
requirements.txt says. A peer that has no wheel for the interpreter is left out here, and
its cells then say so in the report.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".cache" / "bench-venv"
REQUIREMENTS = HERE / "requirements.txt"
STAMP = "bench-requirements.txt"


def default_python() -> str:
    """Return the interpreter that the targets are stated for, if there is one."""
    return shutil.which("python3.14") or sys.executable


def interpreter(venv: Path) -> Path:
    return venv / "bin" / "python"


def pip_install(venv: Path, *arguments: str | Path) -> bool:
    command = [interpreter(venv), "-m", "pip", "install", "--quiet", *arguments]
    return subprocess.run(command, check=False).returncode == 0


def install_peers(venv: Path) -> None:
    """Install all pins at once or, when one of them cannot be had, each by itself."""
    wheels = "--only-binary=:all:"  # a peer is measured as it is shipped, not as built here
    if pip_install(venv, wheels, "--requirement", REQUIREMENTS):
        return
    for line in REQUIREMENTS.read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement and not pip_install(venv, wheels, requirement):
            print(f"peers: {requirement} cannot be installed", file=sys.stderr)


def setup(venv: Path, python: str, project: Path | None) -> None:
    """Make the environment, or bring it up to date; `project` is a wheel or source tree."""
    stamp = venv / STAMP
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version)"], check=True, capture_output=True, text=True
    )
    wanted = version.stdout + REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"peers: making {venv} with {python}", file=sys.stderr)
        subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
        install_peers(venv)
        stamp.write_text(wanted)
    # Not by version: a new build of the same version must replace the old one.
    if project is not None and not pip_install(venv, "--force-reinstall", "--no-deps", project):
        sys.exit(f"peers: {project} cannot be installed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=VENV)
    parser.add_argument("--python", default=default_python(), help="interpreter to measure on")
    parser.add_argument("--oxloop", type=Path, help="wheel or source tree to install as well")
    options = parser.parse_args()
    setup(options.venv, options.python, options.oxloop)


if __name__ == "__main__":
    main()
