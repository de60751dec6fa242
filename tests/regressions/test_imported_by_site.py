"""`sitecustomize` imports and makes a loop; from 3.15 on the interpreter is not up by then.

Profilers and agents are loaded in this way, and so is the plugin of `tests/upstream`.
"""

import sys
import textwrap

import pytest

from support.programs import PRELUDE, run_program

MAIN = """
import socket

async def main():
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, port = listener.getsockname()
    try:
        await loop.create_connection(asyncio.Protocol, "localhost", port, family=socket.AF_INET)
    except OSError as error:
        print(type(error).__name__)
    print(await asyncio.to_thread(str, "in a thread"))
"""
RUN = "loop.run_until_complete(main())\nloop.close()\n"
RAN = "ConnectionRefusedError\nin a thread\n"
POLICY = {
    "asyncio": "loop = asyncio.new_event_loop()\n",
    "oxloop": "oxloop.install()\nloop = asyncio.new_event_loop()\noxloop.uninstall()\n",
}


@pytest.fixture(params=[None, "memorybio"])
def run(request, tmp_path, loop_name):
    """Runs a program behind a `sitecustomize`; its CompletedProcess has text output."""

    def run(site, program):
        source = PRELUDE[loop_name] + textwrap.dedent(site)
        (tmp_path / "sitecustomize.py").write_text(source, encoding="utf-8")
        environment = {"PYTHONPATH": str(tmp_path)}
        if request.param:
            environment["OXLOOP_TLS"] = request.param
        done = run_program(loop_name, program, env=environment)
        assert done.returncode == 0
        return done

    return run


@pytest.mark.parametrize("how", ["made", "policy"])
def test_a_loop_that_site_makes(loop_name, run, how):
    made = POLICY[loop_name] if how == "policy" else "loop = new_event_loop()\n"
    done = run(MAIN + made, f"from sitecustomize import *\n{RUN}")
    assert (done.stdout, done.stderr) == (RAN, "")


def test_a_loop_that_runs_in_site(loop_name, run):
    done = run(f"{MAIN}loop = new_event_loop()\n{RUN}", "print('and on')")
    if loop_name == "oxloop" and sys.version_info >= (3, 15):
        assert "RuntimeError: a loop of oxloop cannot run while" in done.stderr
        assert done.stdout == "and on\n"
    else:
        assert (done.stdout, done.stderr) == (f"{RAN}and on\n", "")
