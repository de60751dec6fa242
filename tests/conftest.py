"""Fixtures every behaviour test stands on: one body, run on stock asyncio and on oxloop.

``--loop asyncio|oxloop|both`` chooses the loops. A loop that cannot be imported fails its
tests; it never skips them.
"""

import asyncio
import gc
import importlib.util
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.descriptors import open_channels
from support.loops import LOOP_NAMES, factory_of
from support.peers import PATIENCE_S, SLOWNESS
from support.ports import unused_port as find_unused_port

pytest_plugins = ["pytester"]

REQUIRED = (
    "aiocop",
    "aiodns",
    "aiofastnet",
    "aiohttp",
    "aioquic",
    "aiosmtpd",
    "aiosmtplib",
    "asyncpg",
    "blockbuster",
    "cryptography",
    "distributed",
    "grpc",
    "h11",
    "httptools",
    "httpx",
    "hypothesis",
    "ipykernel",
    "jupyter_client",
    "psycopg",
    "pytest_asyncio",
    "pytest_timeout",
    "redis",
    "trustme",
    "uvicorn",
    "websockets",
    "zmq",
)
TIMEOUT_S = 60 * SLOWNESS
SLOW_CALLBACK_S = 60
TESTS_BETWEEN_FREEZES = 20
REPORTS_KEPT = 100
tests_done = []


def pytest_addoption(parser):
    parser.addoption(
        "--loop",
        choices=(*LOOP_NAMES, "both"),
        default="both",
        help="the event loop to run the behaviour tests on (default: both)",
    )


def pytest_configure(config):
    # A shell's background job ignores both, and so would every program that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        raise pytest.UsageError(f"install tests/requirements.txt, missing: {', '.join(missing)}")
    config.addinivalue_line("markers", "both_modes: also run with loop.set_debug(True)")
    config.addinivalue_line(
        "markers",
        "asyncio_since(major, minor): stock asyncio has the behaviour from this Python on,"
        " oxloop on every version",
    )
    config.addinivalue_line(
        "markers",
        "asyncio_wrong(since, until): stock asyncio has a bug there from one version on and"
        " before another",
    )
    config.addinivalue_line("filterwarnings", "error")
    # The policy API is deprecated from 3.14 on, and third parties still touch it.
    config.addinivalue_line("filterwarnings", "ignore:.*[Ee]vent.?[Ll]oop.?[Pp]olicy.*")


def pytest_generate_tests(metafunc):
    if "loop_name" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--loop")
        names = LOOP_NAMES if chosen == "both" else (chosen,)
        metafunc.parametrize("loop_name", names, indirect=True, scope="session")
    both_modes = metafunc.definition.get_closest_marker("both_modes")
    if both_modes and "debug_mode" in metafunc.fixturenames:
        metafunc.parametrize("debug_mode", [False, True], ids=["plain", "debug"], indirect=True)


def pytest_collection_modifyitems(config, items):
    kept, deselected = [], []
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
        (deselected if _lacked_by_asyncio(item) else kept).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = kept


def _lacked_by_asyncio(item):
    callspec = getattr(item, "callspec", None)
    if callspec is None or callspec.params.get("loop_name") != "asyncio":
        return False
    since = item.get_closest_marker("asyncio_since")
    wrong = item.get_closest_marker("asyncio_wrong")
    too_old = since is not None and sys.version_info < since.args
    return too_old or (wrong is not None and wrong.args[0] <= sys.version_info < wrong.args[1])


def pytest_collection_finish():
    _set_aside()


def pytest_runtest_logfinish(nodeid, location):
    tests_done.append(nodeid)
    if len(tests_done) % TESTS_BETWEEN_FREEZES == 0:
        _set_aside()


def _set_aside():
    """Takes what pytest keeps out of the collector's way: every test collects, twice."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def loop_name(request):
    return request.param


@pytest.fixture
def loop_factory(loop_name):
    """The zero-argument callable that makes a loop of the kind under test."""
    return factory_of(loop_name)


@pytest.fixture
def debug_mode(request):
    return getattr(request, "param", False)


class Unhandled(list):
    """Contexts that reached the loop's exception handler; a test takes those it expects."""

    def __call__(self, loop, context):
        if len(self) < REPORTS_KEPT:  # a loop that spins reports without end
            self.append(context)

    def take(self):
        taken = list(self)
        self.clear()
        return taken

    def take_one(self):
        (context,) = self.take()
        return context


@pytest.fixture
def unhandled():
    return Unhandled()


@pytest.fixture
def loop(loop_factory, debug_mode, unhandled):
    """A new loop; after the test it is drained, closed, and must have reported no error."""
    loop = loop_factory()
    loop.set_debug(debug_mode)
    # A busy machine makes any callback a slow one, and tests count what is logged.
    loop.slow_callback_duration = SLOW_CALLBACK_S
    loop.set_exception_handler(unhandled)
    try:
        yield loop
    finally:
        drain_and_close(loop)
    gc.collect()
    unexpected = unhandled.take()
    assert not unexpected, f"the exception handler was called: {unexpected[:2]}"


def drain_and_close(loop):
    if loop.is_closed():
        return
    loop.set_task_factory(None)
    try:
        for _ in range(4):
            loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


@pytest.fixture
def run(loop):
    """Runs a coroutine to its end on ``loop``, under a deadline."""

    def run(coro, timeout=20):
        async def main():
            async with asyncio.timeout(timeout * SLOWNESS):
                return await coro

        return loop.run_until_complete(main())

    return run


@pytest.fixture(autouse=True)
def process_as_before():
    """No test leaves a descriptor, a running loop, a hook or a signal handler behind."""
    before = open_channels()
    sigint = signal.getsignal(signal.SIGINT)
    yield
    deadline = time.monotonic() + PATIENCE_S
    while True:
        gc.collect()
        leaked = dict(open_channels().items() - before.items())
        if not leaked or time.monotonic() > deadline:
            break
        time.sleep(0.01)  # a thread of an executor may be closing its socket
    assert not leaked, f"descriptors left open: {leaked}"
    assert asyncio._get_running_loop() is None
    assert signal.set_wakeup_fd(-1) == -1, "the signal wakeup fd was left set"
    assert signal.getsignal(signal.SIGINT) is sigint
    assert sys.get_asyncgen_hooks() == (None, None)
    assert sys.get_coroutine_origin_tracking_depth() == 0


@pytest.fixture
def pair():
    """Two connected sockets that do not block."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def unused_port():
    """A port that nothing is bound to, on any address, and that the kernel gives to nobody."""
    return find_unused_port()
