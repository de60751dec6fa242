"""The package: what importing it does, `run()`, and the event loop policy."""

import asyncio
import contextvars
import importlib.metadata
import importlib.resources
import signal
import socket
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import oxloop
from support.programs import output_of, run_program

ROOT = Path(__file__).parent.parent
HAS_POLICIES = sys.version_info < (3, 16)
# SMALL_REQUEST_THRESHOLD of CPython's Objects/obmalloc.c.
SMALL_OBJECT_BYTES_MAX = 512


@pytest.fixture
def run_main(loop_name):
    """`asyncio.run`, or `oxloop.run` in its place."""
    return {"asyncio": asyncio.run, "oxloop": oxloop.run}[loop_name]


def error_of(function, *args, **kwargs):
    with pytest.raises(Exception) as caught:  # noqa: PT011 (compared with asyncio's own)
        function(*args, **kwargs)
    return type(caught.value), str(caught.value)


class TestImport:
    def test_warns_of_nothing(self):
        assert output_of("asyncio", "import oxloop; from oxloop import *", "-W", "error") == ""

    def test_leaves_policies_alone(self):
        source = """
            import sys, oxloop
            print("oxloop._policy" in sys.modules, hasattr(oxloop, "nothing"))
        """
        assert output_of("asyncio", source) == "False False\n"

    def test_all_names_exist(self):
        for name in oxloop.__all__:
            assert hasattr(oxloop, name)
        assert ("install" in oxloop.__all__) == HAS_POLICIES

    def test_sub_interpreters_are_refused(self):
        """Before and after the main interpreter imports it, which goes on working."""
        kinds = [{"isolated": True}, {"isolated": False}]
        if sys.version_info >= (3, 13):
            kinds = [{"config": "isolated"}, {"config": "legacy"}]
        source = """
            try:
                import _interpreters as interpreters
            except ImportError:
                import _xxsubinterpreters as interpreters

            IMPORT = "try:\\n import oxloop\\nexcept ImportError as e:\\n print(e, flush=True)"

            def attempt():
                for kind in KINDS:
                    interpreter = interpreters.create(**kind)
                    interpreters.run_string(interpreter, IMPORT)
                    interpreters.destroy(interpreter)

            attempt()
            import oxloop
            attempt()
            print(oxloop.run(asyncio.sleep(0, "the main one")))
        """
        refusal = "module oxloop._oxloop does not support loading in subinterpreters\n"
        output = output_of("asyncio", source.replace("KINDS", repr(kinds)))
        assert output == 4 * refusal + "the main one\n"

    def test_unknown_name_is_an_attribute_error(self):
        with pytest.raises(AttributeError, match=r"^module 'oxloop' has no attribute 'uvloop'$"):
            _ = oxloop.uvloop

    def test_version_is_the_manifests(self):
        manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
        assert oxloop.__version__ == manifest["workspace"]["package"]["version"]
        assert oxloop.__version__ == importlib.metadata.version("oxloop")

    def test_type_information_is_installed(self):
        files = importlib.resources.files("oxloop")
        assert (files / "py.typed").is_file()
        assert "class EventLoop" in (files / "_oxloop.pyi").read_text()


class TestSizes:
    def test_a_connection_fits_the_allocator_of_small_objects(self):
        """Beyond its limit an object is malloc's, which costs time for each connection."""

        async def main():
            near, far = socket.socketpair()
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, near)
            transport.close()
            far.close()
            return sys.getsizeof(transport)

        assert oxloop.run(main()) <= SMALL_OBJECT_BYTES_MAX


class TestNewEventLoop:
    def test_makes_an_asyncio_event_loop(self):
        loop = oxloop.new_event_loop()
        try:
            assert type(loop) is oxloop.EventLoop
            assert isinstance(loop, asyncio.AbstractEventLoop)
        finally:
            loop.close()

    def test_does_not_become_current(self, loop_factory):
        marker = loop_factory()
        asyncio.set_event_loop(marker)
        try:
            loop_factory().close()
            assert asyncio.get_event_loop() is marker
        finally:
            asyncio.set_event_loop(None)
            marker.close()


class TestRun:
    def test_returns_the_result(self, run_main):
        async def main():
            await asyncio.sleep(0)
            return "result"

        assert run_main(main()) == "result"

    def test_raises_the_exception(self, run_main):
        async def main():
            raise LookupError("from main")

        with pytest.raises(LookupError, match=r"^from main$"):
            run_main(main())

    @pytest.mark.parametrize("wrong", [None, 1, lambda: None, print])
    def test_refuses_what_is_no_coroutine_in_asyncios_words(self, run_main, wrong):
        assert error_of(run_main, wrong) == error_of(asyncio.run, wrong)

    def test_refuses_to_run_inside_a_loop_in_asyncios_words(self, run_main):
        async def inner():
            raise AssertionError("must not run")

        async def main():
            coro = inner()
            try:
                return error_of(run_main, coro), error_of(asyncio.run, coro)
            finally:
                coro.close()

        ours, stock = run_main(main())
        assert ours == stock
        assert ours[0] is RuntimeError

    @pytest.mark.parametrize("debug", [None, False, True])
    def test_debug_is_handed_to_the_loop(self, run_main, loop_factory, debug):
        async def main():
            return asyncio.get_running_loop().get_debug()

        probe = loop_factory()
        default = probe.get_debug()
        probe.close()
        assert run_main(main(), debug=debug) is (default if debug is None else debug)

    def test_every_call_has_a_loop_of_its_own_and_closes_it(self, run_main):
        async def main():
            return asyncio.get_running_loop()

        first, second = run_main(main()), run_main(main())
        assert first is not second
        assert first.is_closed()
        assert second.is_closed()

    def test_cancels_the_tasks_that_are_left(self, run_main):
        seen = []

        async def endless():
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        async def main():
            task = asyncio.create_task(endless())
            await asyncio.sleep(0)
            return task

        assert run_main(main()).cancelled()
        assert seen == ["cancelled"]

    def test_closes_the_async_generators_that_are_left(self, run_main):
        seen = []

        async def numbers():
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                seen.append("closed")

        async def main():
            generator = numbers()
            await anext(generator)
            return generator

        generator = run_main(main())
        assert seen == ["closed"]
        assert generator.ag_frame is None

    def test_joins_the_threads_of_the_default_executor(self, run_main):
        async def main():
            return await asyncio.to_thread(threading.current_thread)

        assert not run_main(main()).is_alive()

    def test_context_of_the_caller_is_seen_but_not_changed(self, run_main):
        variable = contextvars.ContextVar("variable", default="unset")

        async def main():
            before = variable.get()
            variable.set("inside")
            return before

        variable.set("outside")
        assert run_main(main()) == "outside"
        assert variable.get() == "outside"

    def test_interrupt_cancels_the_main_task(self, run_main):
        seen = []

        async def main():
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        with pytest.raises(KeyboardInterrupt):
            run_main(main())
        assert seen == ["cancelled"]

    def test_default_factory_makes_this_loop(self):
        async def main():
            return asyncio.get_running_loop()

        assert type(oxloop.run(main())) is oxloop.EventLoop

    def test_loop_factory_is_used(self, loop_factory):
        made = []

        def factory():
            made.append(loop_factory())
            return made[-1]

        async def main():
            return asyncio.get_running_loop()

        assert oxloop.run(main(), loop_factory=factory) is made[0]
        assert made[0].is_closed()

    def test_no_factory_means_the_policys_loop(self):
        async def main():
            return type(asyncio.get_running_loop())

        assert oxloop.run(main(), loop_factory=None) is asyncio.SelectorEventLoop


# One program for both policies: `policy()` makes the one under test, `use()` sets one.
POLICY = {
    "asyncio": """
        if sys.version_info >= (3, 14):
            from asyncio.unix_events import _DefaultEventLoopPolicy as policy
        else:
            policy = asyncio.DefaultEventLoopPolicy
        loop_class = asyncio.SelectorEventLoop
    """,
    "oxloop": """
        import oxloop
        policy = oxloop.EventLoopPolicy
        loop_class = oxloop.EventLoop
    """,
}
POLICY_PRELUDE = """
        import sys, threading
        use = getattr(asyncio.events, "_set_event_loop_policy", asyncio.set_event_loop_policy)
        get = getattr(asyncio.events, "_get_event_loop_policy", asyncio.get_event_loop_policy)
"""


@pytest.fixture
def under_policy(loop_name):
    """Runs a program that has the policy under test, with warnings as errors; gives its output."""

    def under_policy(source):
        program = PRELUDE_WITHOUT_WARNING + POLICY_PRELUDE + POLICY[loop_name] + source
        return output_of("asyncio", program, "-W", "error")

    return under_policy


# Looking the public functions up warns from 3.14 on; there are private ones of the same effect.
PRELUDE_WITHOUT_WARNING = """
        import asyncio, warnings
        warnings.filterwarnings("ignore", message=".*event_loop_policy.*")
"""


@pytest.mark.skipif(not HAS_POLICIES, reason="Python 3.16 has no event loop policies")
class TestPolicy:
    def test_new_event_loop_is_of_its_class(self, under_policy):
        source = """
        use(policy())
        loop = asyncio.new_event_loop()
        print(type(loop) is loop_class)
        loop.close()
        """
        assert under_policy(source) == "True\n"

    def test_asyncio_run_runs_on_it(self, under_policy):
        source = """
        use(policy())
        async def main():
            return type(asyncio.get_running_loop())
        print(asyncio.run(main()) is loop_class)
        """
        assert under_policy(source) == "True\n"

    def test_current_loop_is_kept_per_thread(self, under_policy):
        source = """
        use(policy())
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        def elsewhere():
            try:
                asyncio.get_event_loop()
            except RuntimeError as exc:
                print(str(exc).partition("'")[0])
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        print(asyncio.get_event_loop() is loop)
        asyncio.set_event_loop(None)
        loop.close()
        """
        assert under_policy(source) == "There is no current event loop in thread \nTrue\n"

    def test_set_event_loop_refuses_what_is_no_loop(self, under_policy):
        source = """
        use(policy())
        try:
            asyncio.set_event_loop("loop")
        except TypeError as exc:
            print(exc)
        """
        expected = "loop must be an instance of AbstractEventLoop or None, not 'str'\n"
        assert under_policy(source) == expected

    def test_without_a_current_loop_does_what_this_python_does(self, loop_name):
        source = """
        use(policy())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                loop = asyncio.get_event_loop()
            except RuntimeError as exc:
                print("raised", exc)
            else:
                print("made one", type(loop) is loop_class)
                loop.close()
        print([str(warning.message) for warning in caught])
        """
        outcome = {
            name: output_of("asyncio", PRELUDE_WITHOUT_WARNING + POLICY_PRELUDE + code + source)
            for name, code in POLICY.items()
        }
        assert outcome[loop_name] == outcome["asyncio"]
        expected = "raised There is" if sys.version_info >= (3, 14) else "made one True"
        assert outcome[loop_name].startswith(expected)


@pytest.mark.skipif(not HAS_POLICIES, reason="Python 3.16 has no event loop policies")
class TestInstall:
    SOURCE = """
        import asyncio, oxloop
        async def main():
            return type(asyncio.get_running_loop()) is oxloop.EventLoop
        {actions}
        print(asyncio.run(main()))
    """

    @pytest.mark.parametrize(
        ("actions", "on_oxloop"),
        [
            ("", False),
            ("oxloop.install()", True),
            ("oxloop.install(); oxloop.install()", True),
            ("oxloop.install(); oxloop.uninstall()", False),
            ("oxloop.install(); oxloop.uninstall(); oxloop.install()", True),
            ("oxloop.uninstall()", False),
        ],
    )
    def test_decides_what_asyncio_run_runs_on(self, actions, on_oxloop):
        output = output_of("asyncio", self.SOURCE.format(actions=actions), "-W", "error")
        assert output == f"{on_oxloop}\n"

    def test_second_install_keeps_the_current_loop(self):
        source = """
            import oxloop
            oxloop.install()
            loop = asyncio.new_event_loop()
            asyncio.set_event_loop(loop)
            oxloop.install()
            print(asyncio.get_event_loop() is loop)
            asyncio.set_event_loop(None)
            loop.close()
        """
        assert output_of("asyncio", source, "-W", "error") == "True\n"

    def test_uninstall_leaves_another_policy_alone(self):
        source = """
            import oxloop
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            class Mine(asyncio.DefaultEventLoopPolicy):
                pass
            asyncio.set_event_loop_policy(Mine())
            oxloop.uninstall()
            print(type(asyncio.get_event_loop_policy()).__name__)
        """
        assert output_of("asyncio", source) == "Mine\n"


def test_stand_alone_program_says_nothing(loop_name):
    source = """
        async def main():
            reader = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.01, reader.set_result, "done")
            print(await reader)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main())
    """
    done = run_program(loop_name, source, "-X", "dev", "-W", "error")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
