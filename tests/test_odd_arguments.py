"""What a program may give as a time, a callback or a context, and when it is refused."""

import math
import time
from decimal import Decimal
from fractions import Fraction

import pytest

pytestmark = pytest.mark.both_modes


def run_once(loop):
    """One iteration: what is ready now runs, what it adds does not."""
    loop.stop()
    loop.run_forever()


class Seconds(float):
    """What a library may have instead of a float."""


TIMES = [0, 10**9, True, 10**400, -(10**400), Fraction(1, 100), Decimal("0.01"), Seconds(0.01)]


@pytest.mark.parametrize("when", TIMES, ids=lambda when: f"{type(when).__name__}-{str(when)[:6]}")
def test_call_at_remembers_what_it_was_given(loop, when):
    handle = loop.call_at(when, int)
    assert handle.when() is when
    assert handle._when is when
    assert hash(handle) == hash(when)
    assert f" when={when} " in repr(handle)
    handle.cancel()
    assert handle.when() is when


@pytest.mark.parametrize("when", TIMES, ids=lambda when: f"{type(when).__name__}-{str(when)[:6]}")
def test_call_at_is_due_by_the_number(loop, when):
    fired = []
    loop.call_at(when, fired.append, 1)
    time.sleep(0.001)
    run_once(loop)
    assert fired == ([1] if when < loop.time() else [])


@pytest.mark.parametrize("delay", [2, True, Fraction(3, 2), Seconds(2)], ids=repr)
def test_call_later_adds_to_the_time(loop, delay):
    before = loop.time()
    handle = loop.call_later(delay, int)
    assert type(handle.when()) is float
    assert before + delay <= handle.when() <= loop.time() + delay
    handle.cancel()


def test_call_later_lets_the_delay_add_itself(loop):
    class Delay:
        def __radd__(self, now):
            return Fraction(now) + 60

    handle = loop.call_later(Delay(), int)
    assert type(handle.when()) is Fraction
    handle.cancel()


def test_call_later_asks_the_loop_for_the_time(loop):
    loop.time = lambda: Decimal(5)
    handle = loop.call_later(3, int)
    assert (type(handle.when()), handle.when()) == (Decimal, 8)
    handle.cancel()
    del loop.time


@pytest.mark.parametrize(
    ("delay", "error"),
    [(Decimal("0.1"), "'float' and 'decimal.Decimal'"), ("1", "'float' and 'str'")],
)
def test_call_later_refuses_what_cannot_be_added(loop, delay, error):
    with pytest.raises(TypeError, match=rf"^unsupported operand type\(s\) for \+: {error}$"):
        loop.call_later(delay, int)


def test_call_later_refuses_an_integer_without_a_float(loop):
    with pytest.raises(OverflowError, match=r"^int too large to convert to float$"):
        loop.call_later(10**400, int)


# Stock asyncio's run ends with a TypeError.
@pytest.mark.asyncio_wrong((3, 11), (4, 0))
@pytest.mark.parametrize("when", ["1", 1j, object(), ()], ids=lambda when: type(when).__name__)
def test_what_is_no_time_is_refused_at_once(loop, when):
    with pytest.raises(TypeError):
        loop.call_at(when, int)
    run_once(loop)


@pytest.mark.parametrize("schedule", ["call_later", "call_at"])
def test_nan_is_due(loop, schedule):
    fired = []
    handle = getattr(loop, schedule)(float("nan"), fired.append, 1)
    assert math.isnan(handle.when())
    run_once(loop)
    run_once(loop)
    assert fired == [1]


# Stock asyncio's heap is in no order with one in it, and its run may end with a ValueError.
@pytest.mark.asyncio_wrong((3, 11), (4, 0))
def test_nan_displaces_no_other_timer(loop):
    fired = []
    now = loop.time()
    for number in (3, 1, 2):
        loop.call_at(now + number / 1000, fired.append, number)
        loop.call_later(float("nan"), fired.append, 0)
    loop.call_at(now + 0.004, loop.stop)
    loop.run_forever()
    assert fired.count(0) == 3
    assert [number for number in fired if number] == [1, 2, 3]


@pytest.mark.parametrize("callback", [None, 1, "text"], ids=repr)
@pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later"])
def test_what_cannot_be_called_fails_when_it_is(loop, unhandled, schedule, callback):
    loop.set_debug(False)  # which would refuse it at once
    delay = (0,) if schedule == "call_later" else ()
    getattr(loop, schedule)(*delay, callback, "argument")
    time.sleep(0.001)
    run_once(loop)
    context = unhandled.take_one()
    assert context["message"].startswith(f"Exception in callback {callback!r}(")
    name = type(callback).__name__
    assert repr(context["exception"]) == repr(TypeError(f"'{name}' object is not callable"))


class TestWhatIsNoContext:
    """A handle takes it as it is, and calls its run()."""

    @pytest.mark.parametrize("other", [0, "text", {}], ids=repr)
    @pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later"])
    def test_fails_in_the_run(self, loop, unhandled, schedule, other):
        ran = []
        delay = (0,) if schedule == "call_later" else ()
        handle = getattr(loop, schedule)(*delay, ran.append, 1, context=other)
        assert handle._context is other
        time.sleep(0.001)
        run_once(loop)
        context = unhandled.take_one()
        assert ran == []
        assert context["handle"] is handle
        assert type(context["exception"]) is AttributeError
        assert (
            str(context["exception"]) == f"'{type(other).__name__}' object has no attribute 'run'"
        )

    @pytest.mark.parametrize("schedule", ["call_soon", "call_soon_threadsafe", "call_later"])
    def test_runs_what_it_is_given(self, loop, schedule):
        ran = []

        class Traced:
            def run(self, callback, *args):
                ran.append(args)
                return callback(*args)

        delay = (0,) if schedule == "call_later" else ()
        getattr(loop, schedule)(*delay, ran.append, 1, context=Traced())
        time.sleep(0.001)
        run_once(loop)
        assert ran == [(1,), 1]
