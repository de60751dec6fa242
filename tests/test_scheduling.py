"""call_soon, call_later, call_at and the handles they return: order, contexts, cancellation."""

import asyncio
import contextlib
import contextvars
import functools
import sys
import threading
import time
import weakref

import pytest

pytestmark = pytest.mark.both_modes

VAR = contextvars.ContextVar("VAR", default="default")


def run_once(loop):
    """One iteration: what is ready now runs, what it adds does not."""
    loop.stop()
    loop.run_forever()


def test_call_soon_runs_in_order_of_registration(loop):
    ran = []
    for number in range(1000):
        loop.call_soon(ran.append, number)
    run_once(loop)
    assert ran == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 20])
def test_call_soon_passes_all_arguments(loop, count):
    got = []
    args = tuple(object() for _ in range(count))
    loop.call_soon(lambda *a: got.append(a), *args)
    run_once(loop)
    assert got == [args]


def test_callbacks_added_while_running_run_in_the_next_iteration(loop):
    ran = []

    def first():
        ran.append("first")
        loop.call_soon(ran.append, "added")

    loop.call_soon(first)
    loop.call_soon(ran.append, "second")
    run_once(loop)
    assert ran == ["first", "second"]
    run_once(loop)
    assert ran == ["first", "second", "added"]


def test_stop_inside_a_callback_lets_the_iteration_end(loop):
    ran = []
    loop.call_soon(loop.stop)
    loop.call_soon(ran.append, "same iteration")
    loop.call_soon(lambda: loop.call_soon(ran.append, "next iteration"))
    loop.run_forever()
    assert ran == ["same iteration"]
    run_once(loop)
    assert ran == ["same iteration", "next iteration"]


def test_stop_twice_stops_once(loop):
    ran = []
    loop.stop()
    loop.stop()
    loop.run_forever()
    loop.call_soon(ran.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1]


def test_long_chains_of_call_soon_do_not_starve_timers(loop):
    fired = []

    def spin():
        if not fired:
            loop.call_soon(spin)

    loop.call_later(0.02, fired.append, True)
    loop.call_later(5, loop.stop)
    loop.call_soon(spin)
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert fired == [True]


def test_long_chains_of_call_soon_do_not_starve_readers(loop):
    import socket

    near, far = socket.socketpair()
    with near, far:
        seen = []

        def readable():
            seen.append(near.recv(10))
            loop.remove_reader(near)
            loop.stop()

        def spin():
            if not seen:
                loop.call_soon(spin)

        loop.add_reader(near, readable)
        loop.call_soon(spin)
        far.send(b"x")
        loop.run_forever()
    assert seen == [b"x"]


def test_handle_is_asyncios(loop):
    handle = loop.call_soon(int)
    timer = loop.call_later(1, int)
    at = loop.call_at(loop.time(), int)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.TimerHandle)
    assert isinstance(at, asyncio.TimerHandle)
    for one in (handle, timer, at):
        one.cancel()


def test_cancelled_handle_does_not_run(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    run_once(loop)
    assert ran == []


def test_handle_cancelled_by_an_earlier_callback_of_the_same_iteration(loop):
    ran = []
    loop.call_soon(lambda: later.cancel())  # noqa: PLW0108 - bound below
    later = loop.call_soon(ran.append, 1)
    run_once(loop)
    assert ran == []


def test_cancelling_after_the_run_changes_nothing(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    run_once(loop)
    handle.cancel()
    assert handle.cancelled()
    assert ran == [1]


def test_handle_cancelling_itself_while_it_runs(loop):
    ran = []

    def callback():
        handle.cancel()
        ran.append(handle.cancelled())

    handle = loop.call_soon(callback)
    run_once(loop)
    assert ran == [True]


def test_cancelled_handle_lets_go_of_callback_and_arguments(loop):
    class Thing:
        def method(self):
            pass

    thing, arg = Thing(), Thing()
    handle = loop.call_soon(thing.method, arg)
    timer = loop.call_later(60, thing.method, arg)
    refs = [weakref.ref(thing), weakref.ref(arg)]
    handle.cancel()
    timer.cancel()
    del thing, arg
    assert [ref() for ref in refs] == [None, None]


def test_repr_of_handles(loop):
    def callback():
        pass

    handle = loop.call_soon(callback)
    text = repr(handle)
    assert text.startswith("<Handle ")
    assert "test_repr_of_handles.<locals>.callback" in text
    assert "test_scheduling.py" in text
    handle.cancel()
    cancelled = repr(handle)
    assert cancelled.startswith("<Handle cancelled")
    timer = loop.call_later(10, callback)
    text = repr(timer)
    assert text.startswith("<TimerHandle when=")
    assert "test_repr_of_handles.<locals>.callback" in text
    timer.cancel()
    assert repr(timer).startswith("<TimerHandle cancelled when=")


def test_repr_of_a_handle_of_partials_and_arguments(loop):
    handle = loop.call_soon(functools.partial(print, 1), 2)
    text = repr(handle)
    handle.cancel()
    assert "print" in text
    assert text.startswith("<Handle ")


def test_repr_of_a_handle_names_the_place_in_debug_mode(loop, debug_mode):
    handle = loop.call_soon(int)
    text = repr(handle)
    handle.cancel()
    assert ("created at" in text) is debug_mode


def test_timer_when(loop):
    now = loop.time()
    timer = loop.call_at(now + 5, int)
    assert timer.when() == now + 5
    timer.cancel()
    before = loop.time()
    timer = loop.call_later(5, int)
    assert before + 5 <= timer.when() <= loop.time() + 5
    timer.cancel()


def test_timer_handles_compare_by_deadline(loop):
    now = loop.time()
    early = loop.call_at(now + 1, int)
    late = loop.call_at(now + 2, int)
    twin = loop.call_at(now + 1, int)
    assert early < late
    assert late > early
    assert early <= late
    assert late >= early
    assert early <= twin
    assert early >= twin
    assert early == twin
    assert early != late
    assert not early < twin
    assert not early > twin
    assert hash(early) == hash(twin)
    assert sorted([late, early]) == [early, late]
    assert early != 5
    assert early.__lt__(5) is NotImplemented
    assert early.__eq__(5) is NotImplemented
    with pytest.raises(TypeError):
        early < 5  # noqa: B015
    for one in (early, late, twin):
        one.cancel()


def test_timers_fire_in_order_of_deadline(loop):
    fired = []
    now = loop.time()
    for delay in (0.03, 0.01, 0.02, 0.0):
        loop.call_at(now + delay, fired.append, delay)
    loop.call_at(now + 0.04, loop.stop)
    loop.run_forever()
    assert fired == [0.0, 0.01, 0.02, 0.03]


def test_due_timers_run_behind_what_is_ready(loop):
    order = []
    loop.call_later(0, order.append, "timer")
    loop.call_soon(order.append, "soon 1")
    loop.call_soon(order.append, "soon 2")
    time.sleep(0.002)
    run_once(loop)
    assert order == ["soon 1", "soon 2", "timer"]


def test_timer_cancelled_in_the_iteration_it_is_due(loop):
    ran = []
    when = loop.time()
    first = loop.call_at(when, lambda: second.cancel())  # noqa: PLW0108 - bound below
    second = loop.call_at(when + 1e-6, ran.append, 1)
    time.sleep(0.002)
    run_once(loop)
    assert ran == []
    assert second.cancelled()
    assert not first.cancelled()


def test_call_at_takes_integers_and_float_subclasses(loop):
    class Seconds(float):
        pass

    fired = []
    loop.call_at(0, fired.append, "int")
    loop.call_at(Seconds(1), fired.append, "subclass")
    loop.call_later(Seconds(0), fired.append, "later")
    loop.call_later(True, int).cancel()
    time.sleep(0.001)
    run_once(loop)
    assert sorted(fired) == ["int", "later", "subclass"]


def test_timer_cancelled_while_it_sleeps_and_the_queue_is_empty(loop):
    handle = loop.call_later(3600, int)
    assert not handle.cancelled()
    loop.call_later(0.005, handle.cancel)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert handle.cancelled()


def test_many_timers_scheduled_and_cancelled_at_random(loop):
    import random

    chance = random.Random(7)
    fired, expected = [], []
    now = loop.time()
    for number in range(3000):
        when = now + chance.random() * 0.03
        handle = loop.call_at(when, fired.append, (when, number))
        if chance.random() < 0.6:
            handle.cancel()
        else:
            expected.append((when, number))
    loop.call_at(now + 0.031, loop.stop)
    loop.run_forever()
    assert fired == sorted(expected)


def test_time_is_monotonic_time(loop):
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()
    assert isinstance(now, float)


class TestContext:
    def test_callback_runs_in_a_copy_of_the_current_context(self, loop):
        seen = []

        def callback():
            seen.append(VAR.get())
            VAR.set("inside")

        token = VAR.set("caller")
        loop.call_soon(callback)
        loop.call_later(0, callback)
        loop.call_at(0, callback)
        VAR.reset(token)
        VAR.set("changed later")
        time.sleep(0.001)
        run_once(loop)
        assert seen == ["caller"] * 3
        assert VAR.get() == "changed later"

    def test_given_context_is_used_itself(self, loop):
        context = contextvars.Context()
        loop.call_soon(VAR.set, "soon", context=context)
        run_once(loop)
        assert context[VAR] == "soon"
        loop.call_later(0, VAR.set, "later", context=context)
        time.sleep(0.001)
        run_once(loop)
        assert context[VAR] == "later"
        loop.call_at(0, VAR.set, "at", context=context)
        run_once(loop)
        assert context[VAR] == "at"
        loop.call_soon_threadsafe(VAR.set, "threadsafe", context=context)
        run_once(loop)
        assert context[VAR] == "threadsafe"

    def test_context_none_is_the_current_one(self, loop):
        seen = []
        VAR.set("current")
        loop.call_soon(lambda: seen.append(VAR.get()), context=None)
        run_once(loop)
        assert seen == ["current"]

    def test_values_set_in_one_callback_do_not_reach_the_next(self, loop):
        seen = []

        def scheduled_from_empty_context():
            loop.call_soon(VAR.set, "leaked")
            loop.call_soon(lambda: seen.append(VAR.get()))
            loop.call_soon(VAR.set, "leaked again")
            loop.call_soon(lambda: seen.append(VAR.get()))

        contextvars.Context().run(scheduled_from_empty_context)
        run_once(loop)
        assert seen == ["default", "default"]

    def test_copies_made_in_a_callback_survive_it(self, loop):
        kept = []

        def callback():
            VAR.set("kept")
            kept.append(contextvars.copy_context())

        contextvars.Context().run(loop.call_soon, callback)
        contextvars.Context().run(loop.call_soon, VAR.set, "other")
        run_once(loop)
        assert kept[0][VAR] == "kept"

    def test_callback_scheduled_from_a_callback_inherits_its_context(self, loop):
        seen = []

        def outer():
            VAR.set("outer")
            loop.call_soon(lambda: seen.append(VAR.get()))

        loop.call_soon(outer)
        run_once(loop)
        run_once(loop)
        assert seen == ["outer"]

    @pytest.mark.asyncio_since(3, 12)
    def test_get_context(self, loop):
        context = contextvars.Context()
        handle = loop.call_soon(int, context=context)
        timer = loop.call_later(5, int, context=context)
        assert handle.get_context() is context
        assert timer.get_context() is context
        own = loop.call_soon(int)
        assert isinstance(own.get_context(), contextvars.Context)
        timer.cancel()
        run_once(loop)

    def test_context_already_entered_is_an_error_in_the_callback(self, loop, unhandled, caplog):
        context = contextvars.copy_context()
        ran = []

        def inside():
            loop.call_soon(ran.append, 1, context=context)
            run_once(loop)

        context.run(inside)
        # From 3.12 on the handler itself is to run in that context, and cannot either.
        reports = [report["exception"] for report in unhandled.take()]
        reports += [record.exc_info[1] for record in caplog.records if record.exc_info]
        assert reports
        assert all("cannot enter context" in str(exc) for exc in reports)
        assert ran == []

    @pytest.mark.parametrize("wrong", [1, "context", {}])
    def test_wrong_context_does_not_crash(self, loop, unhandled, wrong):
        ran = []
        try:
            loop.call_soon(ran.append, 1, context=wrong)
        except TypeError:
            pass  # refused when it was given, rather than when it ran
        else:
            run_once(loop)
            report = unhandled.take_one()
            assert isinstance(report["exception"], AttributeError | TypeError)
        assert ran == []


class TestRefusals:
    @pytest.mark.parametrize("wrong", [None, 1, "text", object()])
    def test_not_callable(self, loop, debug_mode, unhandled, wrong):
        calls = [
            lambda: loop.call_soon(wrong),
            lambda: loop.call_soon_threadsafe(wrong),
            lambda: loop.call_later(0, wrong),
            lambda: loop.call_at(0, wrong),
        ]
        if debug_mode:
            for call in calls:
                with pytest.raises(TypeError, match="a callable object was expected by"):
                    call()
            return
        for call in calls:
            call()
        time.sleep(0.001)
        run_once(loop)
        reports = unhandled.take()
        assert len(reports) == 4
        assert all(isinstance(report["exception"], TypeError) for report in reports)

    def test_when_or_delay_of_none(self, loop):
        with pytest.raises(TypeError, match="delay must not be None"):
            loop.call_later(None, int)
        with pytest.raises(TypeError, match="when cannot be None"):
            loop.call_at(None, int)

    @pytest.mark.parametrize("wrong", ["1", object(), [], b"1"])
    def test_delay_of_a_wrong_type(self, loop, wrong):
        with pytest.raises(TypeError):
            loop.call_later(wrong, int)

    def test_missing_arguments(self, loop):
        for call in (loop.call_soon, loop.call_soon_threadsafe, loop.call_later, loop.call_at):
            with pytest.raises(TypeError):
                call()
        with pytest.raises(TypeError):
            loop.call_later(1)
        with pytest.raises(TypeError):
            loop.call_at(1)

    def test_unknown_keyword(self, loop):
        with pytest.raises(TypeError):
            loop.call_soon(int, contxt=None)
        with pytest.raises(TypeError):
            loop.call_later(1, int, loop=None)


def test_keyword_callback_and_when(loop):
    """asyncio names these parameters; programs that name them must go on working."""
    ran = []
    loop.call_soon(callback=lambda: ran.append("soon"))
    loop.call_later(delay=0, callback=lambda: ran.append("later"))
    loop.call_at(when=0, callback=lambda: ran.append("at"))
    loop.call_soon_threadsafe(callback=lambda: ran.append("threadsafe"))
    time.sleep(0.001)
    run_once(loop)
    assert sorted(ran) == ["at", "later", "soon", "threadsafe"]


@pytest.mark.parametrize("when", ["before the loop was made", "after"])
@pytest.mark.parametrize("name", ["Handle", "TimerHandle"])
def test_a_replaced_run_of_one_class(loop_factory, monkeypatch, name, when):
    """A timer handle's is its own, or else the one of all handles."""

    def _run(handle):
        seen.append(handle)
        return original(handle)

    def replace(kind):
        monkeypatch.setattr(kind, "_run", _run)

    def run_both(loop):
        seen.clear()
        handles = [loop.call_soon(ran.append, "soon"), loop.call_later(0, ran.append, "timer")]
        time.sleep(0.001)
        run_once(loop)
        return [handle in seen for handle in handles]

    seen, ran = [], []
    original, kind = asyncio.Handle._run, getattr(asyncio, name)
    if when != "after":
        replace(kind)
    with contextlib.closing(loop_factory()) as loop:
        replace(kind)
        assert run_both(loop) == [name == "Handle", True]
        monkeypatch.undo()
        assert run_both(loop) == [False, False]
        # As a profiler puts it back: it is the timer handle's own from here on.
        monkeypatch.setattr(asyncio.TimerHandle, "_run", original)
        assert run_both(loop) == [False, False]
        replace(asyncio.Handle)
        assert run_both(loop) == [True, False]
    assert sorted(ran) == ["soon"] * 4 + ["timer"] * 4


def test_handle_run_can_be_called_by_hand(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    handle._run()
    assert ran == [1]
    run_once(loop)
    assert ran == [1, 1]


def test_handles_have_no_dict_and_can_be_weakly_referenced(loop):
    handle = loop.call_soon(int)
    timer = loop.call_later(9, int)
    assert weakref.ref(handle)() is handle
    assert weakref.ref(timer)() is timer
    timer.cancel()


def test_bound_methods_builtins_and_partials(loop):
    class Counter:
        count = 0

        def __call__(self):
            self.count += 1

        def method(self, by):
            self.count += by

    counter = Counter()
    loop.call_soon(counter)
    loop.call_soon(counter.method, 10)
    loop.call_soon(functools.partial(counter.method, by=100))
    loop.call_soon(setattr, counter, "name", "set")
    run_once(loop)
    assert (counter.count, counter.name) == (111, "set")


def test_callbacks_run_on_the_thread_of_the_loop(loop):
    idents = []
    loop.call_soon(lambda: idents.append(threading.get_ident()))
    loop.call_later(0, lambda: idents.append(threading.get_ident()))
    time.sleep(0.001)
    run_once(loop)
    assert set(idents) == {threading.get_ident()}


def test_recursion_depth_does_not_grow(loop):
    depths = []

    def chain(left):
        depths.append(len(_frames()))
        if left:
            loop.call_soon(chain, left - 1)
        else:
            loop.stop()

    loop.call_soon(chain, 300)
    loop.run_forever()
    assert len(set(depths)) == 1


def _frames():
    frame, frames = sys._getframe(), []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames
