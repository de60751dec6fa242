"""Where a suite lives: an environment of its own with oxloop in it, and its unpacked tests."""

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "upstream"
PLUGIN = HERE / "plugin"
CONSTRAINTS = HERE / "constraints.txt"
PTH = "oxloop_upstream.pth"
CONFIGURATIONS = {
    "pytest.ini": "[pytest]",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}
INSTALL_SECONDS = 900


class PlaceError(Exception):
    """A suite cannot be set up."""


def run_tool(*command):
    """Run a tool and return nothing; its output is the error's text."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=INSTALL_SECONDS,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)
        raise PlaceError(f"{shown} (status {done.returncode})\n{done.stdout[-3000:]}")


def pip(python, *arguments):
    run_tool(
        *(sys.executable, "-m", "pip", "--python", python, *arguments),
        *("--quiet", "--no-input", "--disable-pip-version-check"),
    )


def make_environment(directory, requirements, stamp):
    """Make a virtual environment, unless the one that is there has been made of the same."""
    python = directory / "bin" / "python"
    mark = directory / "made-of"
    if mark.is_file() and mark.read_text(encoding="utf-8") == stamp:
        return python
    shutil.rmtree(directory, ignore_errors=True)
    run_tool(sys.executable, "-m", "venv", "--without-pip", directory)
    pip(python, "install", *requirements)
    mark.write_text(stamp, encoding="utf-8")
    return python


def newest_wheel():
    """The wheel that `make build` left in the environment that runs this."""
    wheels = sorted(Path(sys.prefix, "wheel").glob("oxloop-*.whl"))
    if not wheels:
        raise PlaceError(f"no wheel of oxloop in {sys.prefix}/wheel: run `make build`")
    return wheels[-1]


def _configures_pytest(directory):
    return any(
        (directory / name).is_file() and section in (directory / name).read_text(encoding="utf-8")
        for name, section in CONFIGURATIONS.items()
    )


class Place:
    """The directories of one suite on this interpreter."""

    def __init__(self, suite, tree=None, cache=CACHE):
        self.suite = suite
        self._tree = tree
        self._cache = cache
        self._directory = cache / f"python-{platform.python_version()}" / suite.name
        self.python = self._directory / "venv" / "bin" / "python"
        self.tests = tree or self._directory / "source"

    def prepare(self, wheel):
        """Install what is not there yet; the wheel whenever it is another one."""
        suite = self.suite
        extras = f"[{suite.extras}]" if suite.extras else ""
        wanted = [f"{suite.name}{extras}=={suite.version}", *suite.requirements]
        venv = self._directory / "venv"
        stamp = json.dumps([sys.version, wanted, CONSTRAINTS.read_text(encoding="utf-8")])
        make_environment(venv, [*wanted, "--constraint", CONSTRAINTS], stamp)
        self._install_wheel(venv, wheel)
        if self._tree is None:
            self._unpack()

    def _install_wheel(self, venv, wheel):
        mark = venv / "oxloop-wheel"
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if not mark.is_file() or mark.read_text(encoding="utf-8") != digest:
            pip(self.python, "install", "--force-reinstall", "--no-deps", wheel)
            mark.write_text(digest, encoding="utf-8")
        (packages,) = venv.glob("lib/python*/site-packages")
        start = (
            "import os; os.environ.get('OXLOOP_UPSTREAM_SWAP') and __import__('oxloop_upstream')"
        )
        (packages / PTH).write_text(f"{PLUGIN}\n{start}\n", encoding="utf-8")

    def _unpack(self):
        """Only the tests and pytest's configuration: the package is imported from the venv."""
        archive = self._source_distribution()
        stamp = f"{archive.name} {self.suite.unpack}"
        mark = self._directory / "unpacked"
        if mark.is_file() and mark.read_text(encoding="utf-8") == stamp:
            return
        shutil.rmtree(self.tests, ignore_errors=True)
        self.tests.mkdir(parents=True)
        with tarfile.open(archive) as packed:
            for member in packed.getmembers():
                _, _, member.name = member.name.partition("/")
                parts = [p for p in self.suite.unpack if f"{member.name}/".startswith(f"{p}/")]
                if parts and member.name:
                    packed.extract(member, self.tests, filter="data")
        if not _configures_pytest(self.tests):
            # Otherwise pytest would go up and find this repository's configuration.
            (self.tests / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        mark.write_text(stamp, encoding="utf-8")

    def _source_distribution(self):
        """Where pip has put it, or puts it now."""
        suite = self.suite
        path = self._cache / "sources" / f"{suite.name}-{suite.version}.tar.gz"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            pip(
                *(self.python, "download", "--no-deps", "--no-binary", suite.name),
                *("--dest", path.parent, f"{suite.name}=={suite.version}"),
            )
        if hashlib.sha256(path.read_bytes()).hexdigest() != suite.sha256:
            raise PlaceError(f"{path} is not what the manifest means: its sha256 differs")
        return path
