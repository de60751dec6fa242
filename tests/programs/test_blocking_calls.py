"""BlockBuster and aiocop, which report calls that block the loop and let asyncio's own pass."""

import json
import time
from pathlib import Path

import pytest
from blockbuster import BlockBuster, BlockingError

from support.certificates import client_context, server_context
from support.loop_methods import USES
from support.programs import run_program

# BlockBuster knows that asyncio calls os.stat, but not where else.
REPORTED_OF_ASYNCIO = {"unix_datagrams", "stale_unix_sockets"}

TESTS = Path(__file__).parents[1]

# aiocop hears audit events, and hooks cannot be removed: it has a process of its own.
EVENTS = f"""
import json, sys, tempfile, warnings
from pathlib import Path

sys.path.insert(0, {str(TESTS)!r})
from support.loop_methods import USES
from support.certificates import client_context, server_context
import aiocop

client_context(), server_context()
aiocop.patch_audit_functions()
aiocop.start_blocking_io_detection()
aiocop.detect_slow_tasks(cpu_sampling=False)
events = set()
aiocop.register_slow_task_callback(
    lambda task: events.update(event["event"].partition("(")[0] for event in task.blocking_events)
)

async def main(use):
    aiocop.activate()
    try:
        with tempfile.TemporaryDirectory() as directory:
            await asyncio.create_task(use(Path(directory)))
    finally:
        aiocop.deactivate()

found = {{}}
for _ in range(2):  # only the first time imports modules
    for name, use in USES.items():
        events.clear()
        loop = new_event_loop()
        loop.run_until_complete(main(use))
        loop.close()
        found[name] = sorted(events)
print(json.dumps(found))
"""


@pytest.fixture
def blockbuster():
    client_context(), server_context()
    blockbuster = BlockBuster()
    blockbuster.activate()
    yield blockbuster
    blockbuster.deactivate()


def test_blockbuster_is_awake(loop, run, blockbuster):
    async def main():
        with pytest.raises(BlockingError, match=r"time\.sleep"):
            time.sleep(0)

    run(main())


def blocked(name):
    marks = pytest.mark.asyncio_wrong((3, 11), (4, 0)) if name in REPORTED_OF_ASYNCIO else ()
    return pytest.param(USES[name], id=name, marks=marks)


@pytest.mark.parametrize("use", [blocked(name) for name in USES])
def test_blockbuster_reports_nothing(loop, run, tmp_path, blockbuster, use):
    run(use(tmp_path))


@pytest.fixture(scope="module")
def events_of_asyncio():
    return events_of("asyncio")


def events_of(loop_name):
    program = run_program(loop_name, EVENTS, timeout=60)
    assert program.returncode == 0, program.stderr
    return json.loads(program.stdout)


def test_aiocop_reports_no_more_than_on_asyncio(loop_name, events_of_asyncio):
    """But for names, which are looked up in threads without Python: the loop's tells of them."""
    assert "subprocess.Popen" in events_of_asyncio["processes"]
    events = events_of(loop_name)
    more = {use: set(found) - set(events_of_asyncio[use]) for use, found in events.items()}
    for found in more.values():
        found.discard("socket.getaddrinfo")
        found.discard("socket.getnameinfo")
    assert not {use: found for use, found in more.items() if found}
