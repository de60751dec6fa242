"""Low-level API Index: obtaining the event loop, and event loop policies."""

import asyncio
import sys
import threading

import pytest

from support.loops import factory_of
from support.low_level_api import entry
from support.programs import output_of

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 16), reason="Python 3.16 has no event loop policies"
)
HAS_CHILD_WATCHERS = sys.version_info < (3, 14)
NO_CURRENT_LOOP = "There is no current event loop in thread"
# The policy of the loop under test; reading these names warns from 3.14 on.
POLICY = {
    "asyncio": "policy_class = asyncio.DefaultEventLoopPolicy\n",
    "oxloop": "policy_class = oxloop.EventLoopPolicy\n",
}
PROLOGUE = """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)
"""


@pytest.fixture
def program(loop_name):
    """Runs a program where ``policy_class`` is the policy under test; gives its output."""

    def program(source):
        return output_of(loop_name, PROLOGUE + POLICY[loop_name] + source)

    return program


@pytest.mark.both_modes
@entry("asyncio.get_running_loop")
def test_inside_and_outside_of_a_run(loop, run):
    async def main():
        seen.append(asyncio.get_running_loop())
        loop.call_soon(lambda: seen.append(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        seen.append(await asyncio.to_thread(no_loop_here))

    seen = []
    run(main())
    assert seen == [loop, loop, "no running event loop"]
    assert no_loop_here() == "no running event loop"


def no_loop_here():
    with pytest.raises(RuntimeError) as caught:
        asyncio.get_running_loop()
    return str(caught.value)


@entry("asyncio.get_running_loop")
def test_a_loop_for_each_thread(loop_factory):
    async def main():
        await asyncio.sleep(0)
        barrier.wait(10)  # all of them run at the same time
        return asyncio.get_running_loop()

    def work():
        loop = loop_factory()
        try:
            alike.append(loop.run_until_complete(main()) is loop)
        finally:
            loop.close()

    alike, barrier = [], threading.Barrier(3)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert alike == [True] * 3


@entry("asyncio.get_event_loop")
def test_inside_a_run_it_is_the_running_one(loop, run):
    async def main():
        other = factory_of("asyncio")()
        asyncio.set_event_loop(other)
        try:
            return asyncio.get_event_loop()
        finally:
            asyncio.set_event_loop(None)
            other.close()

    assert run(main()) is loop


@entry("asyncio.get_event_loop")
def test_without_a_current_loop(program):
    """Up to 3.13 the main thread's first call makes one by the policy; from 3.14 on it raises."""
    source = """
asyncio.set_event_loop_policy(policy_class())
probe = new_event_loop()
probe.close()
try:
    loop = asyncio.get_event_loop()
except RuntimeError as exc:
    print(str(exc))
else:
    print(type(loop) is type(probe), asyncio.get_event_loop() is loop)
    loop.close()
"""
    expected = "True True\n" if sys.version_info < (3, 14) else f"{NO_CURRENT_LOOP} 'MainThread'.\n"
    assert program(source) == expected


@entry("asyncio.set_event_loop")
def test_is_current_until_it_is_taken_away(loop):
    asyncio.set_event_loop(loop)
    try:
        assert asyncio.get_event_loop() is loop
        assert loop.run_until_complete(asyncio.sleep(0, "on it")) == "on it"
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
    with pytest.raises(RuntimeError, match=NO_CURRENT_LOOP):
        asyncio.get_event_loop()


@entry("asyncio.set_event_loop")
def test_of_this_thread_only(loop):
    def elsewhere():
        with pytest.raises(RuntimeError, match=NO_CURRENT_LOOP):
            asyncio.get_event_loop()
        checked.append(True)

    checked = []
    asyncio.set_event_loop(loop)
    try:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(10)
    finally:
        asyncio.set_event_loop(None)
    assert checked == [True]
    with pytest.raises(TypeError, match="must be an instance of AbstractEventLoop or None"):
        asyncio.set_event_loop("a loop")


@entry("asyncio.new_event_loop")
def test_two_loops_are_independent(program):
    source = """
asyncio.set_event_loop_policy(policy_class())
one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
reference = new_event_loop()
print(type(one) is type(other) is type(reference), one is other)
reference.close()
one.call_soon(print, "never")
print(other.run_until_complete(asyncio.sleep(0.001, "slept")))
one.close()
print(other.is_closed(), one.is_closed(), other.run_until_complete(asyncio.sleep(0, "alive")))
other.close()
"""
    assert program(source) == "True False\nslept\nFalse True alive\n"


@entry("asyncio.get_event_loop_policy")
def test_default_and_own_policy(program):
    source = """
first = asyncio.get_event_loop_policy()
print(isinstance(first, asyncio.AbstractEventLoopPolicy), asyncio.get_event_loop_policy() is first)
mine = policy_class()
asyncio.set_event_loop_policy(mine)
print(asyncio.get_event_loop_policy() is mine)
"""
    assert program(source) == "True True\nTrue\n"


@entry("asyncio.set_event_loop_policy")
def test_decides_whose_loops_run(program):
    source = """
probe = new_event_loop()
probe.close()
async def main():
    return type(asyncio.get_running_loop()) is type(probe)
asyncio.set_event_loop_policy(policy_class())
print(asyncio.run(main()))
asyncio.set_event_loop_policy(None)
print(type(asyncio.get_event_loop_policy()) is type(policy_class()) or policy_class.__module__)
try:
    asyncio.set_event_loop_policy("policy")
except TypeError as exc:
    print(exc)
"""
    lines = program(source).splitlines()
    assert lines[0] == "True"
    assert lines[1] in {"True", "oxloop._policy"}
    assert lines[2] == ("policy must be an instance of AbstractEventLoopPolicy or None, not 'str'")


@entry("asyncio.get_event_loop_policy", "asyncio.set_event_loop_policy")
def test_deprecated_from_3_14_on(loop_name):
    source = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    asyncio.set_event_loop_policy(asyncio.get_event_loop_policy())
print(sorted({str(warning.message) for warning in caught}))
"""
    names = ("get", "set") if sys.version_info >= (3, 14) else ()
    expected = [
        f"'asyncio.{name}_event_loop_policy' is deprecated and slated for removal in Python 3.16"
        for name in names
    ]
    assert output_of(loop_name, source) == f"{expected}\n"


@entry("AbstractEventLoopPolicy")
def test_subclass_of_the_policy(program):
    source = """
class Policy(policy_class):
    def new_event_loop(self):
        loop = super().new_event_loop()
        loop.label = "from my policy"
        return loop

print(issubclass(policy_class, asyncio.AbstractEventLoopPolicy))
async def main():
    return asyncio.get_running_loop().label
asyncio.set_event_loop_policy(Policy())
print(asyncio.run(main()))
"""
    assert program(source) == "True\nfrom my policy\n"


@entry("AbstractEventLoopPolicy")
def test_the_base_class_promises_and_does_nothing(program):
    source = """
policy = asyncio.AbstractEventLoopPolicy()
for call in (policy.get_event_loop, policy.new_event_loop, lambda: policy.set_event_loop(None)):
    try:
        call()
    except NotImplementedError:
        print("not implemented")
"""
    assert program(source) == "not implemented\n" * 3


@pytest.mark.skipif(not HAS_CHILD_WATCHERS, reason="Python 3.14 has no child watchers")
@entry("AbstractEventLoopPolicy")
def test_child_watchers_up_to_3_13(program):
    source = """
asyncio.set_event_loop_policy(policy_class())
print(isinstance(asyncio.get_child_watcher(), asyncio.AbstractChildWatcher))
async def main():
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "exit 7")
    return await process.wait()
print(asyncio.run(main()))
"""
    assert program(source) == "True\n7\n"
