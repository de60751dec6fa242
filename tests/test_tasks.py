"""create_task, task factories and create_future, as each Python version has them."""

import asyncio
import contextvars
import sys

import pytest

pytestmark = pytest.mark.both_modes

VAR = contextvars.ContextVar("VAR", default="default")
FORWARDS_KEYWORDS = sys.version_info >= (3, 14)
#: Keywords besides name and context are the task's business from 3.13.3 on, and here in all 3.13.
KNOWS_ITS_KEYWORDS = sys.version_info < (3, 13)


async def value(result=None):
    return result


def test_create_future(loop):
    future = loop.create_future()
    assert isinstance(future, asyncio.Future)
    assert type(future) is asyncio.Future
    assert future.get_loop() is loop


def test_create_task_makes_asyncios_own(loop, run):
    async def main():
        task = loop.create_task(value(5))
        assert type(task) is asyncio.Task
        assert task.get_loop() is loop
        assert await task == 5

    run(main())


def test_name(loop, run):
    async def main():
        named = loop.create_task(value(), name="the name")
        unnamed = loop.create_task(value())
        assert named.get_name() == "the name"
        assert unnamed.get_name().startswith("Task-")
        await asyncio.gather(named, unnamed)

    run(main())


def test_context(loop, run):
    context = contextvars.Context()

    async def setter():
        VAR.set("set in the task")

    async def main():
        await loop.create_task(setter(), context=context)
        assert VAR.get() == "default"

    run(main())
    assert context[VAR] == "set in the task"


def test_context_is_copied_by_default(loop, run):
    async def setter():
        assert VAR.get() == "of the parent"
        VAR.set("of the child")

    async def main():
        VAR.set("of the parent")
        await loop.create_task(setter())
        assert VAR.get() == "of the parent"

    run(main())


def test_tasks_start_in_order_in_a_later_iteration(loop, run):
    order = []

    async def note(number):
        order.append(number)

    async def main():
        tasks = [loop.create_task(note(number)) for number in range(100)]
        assert order == []
        await asyncio.gather(*tasks)
        assert order == list(range(100))

    run(main())


@pytest.mark.parametrize("wrong", [None, 1, value, "text"])
def test_not_a_coroutine(loop, wrong):
    with pytest.raises(TypeError, match="a coroutine was expected"):
        loop.create_task(wrong)


def test_unknown_keyword(loop):
    coro = value()
    with pytest.raises(TypeError):
        loop.create_task(coro, nonsense=1)
    coro.close()


def test_all_tasks_and_current_task(loop, run):
    async def main():
        other = loop.create_task(asyncio.sleep(0), name="other")
        assert asyncio.current_task().get_loop() is loop
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "other" in names
        assert asyncio.all_tasks(loop) == {asyncio.current_task(), other}
        await other
        assert asyncio.all_tasks(loop) == {asyncio.current_task()}

    run(main())
    assert asyncio.all_tasks(loop) == set()


def test_thousand_tasks_gathered(loop, run):
    async def double(number):
        await asyncio.sleep(0)
        return number * 2

    async def main():
        return await asyncio.gather(*(double(number) for number in range(1000)))

    assert run(main()) == [number * 2 for number in range(1000)]


class TestFactory:
    @pytest.mark.parametrize("wrong", [1, "text", object()])
    def test_must_be_callable(self, loop, wrong):
        with pytest.raises(TypeError, match=r"^task factory must be a callable or None$"):
            loop.set_task_factory(wrong)

    def test_is_used_for_all_tasks(self, loop, run):
        class Own(asyncio.Task):
            pass

        def factory(loop, coro, **kwargs):
            return Own(coro, loop=loop, **kwargs)

        async def main():
            assert type(asyncio.current_task()) is Own
            task = asyncio.create_task(value(1))
            assert type(task) is Own
            assert await task == 1
            async with asyncio.TaskGroup() as group:
                assert type(group.create_task(value())) is Own

        loop.set_task_factory(factory)
        run(main())

    def test_what_it_is_given(self, loop, run):
        """A factory sees the loop, the coroutine, and what this Python forwards."""
        given = []

        def factory(loop, coro, **kwargs):
            given.append((loop, coro, kwargs))
            return asyncio.Task(coro, loop=loop, **kwargs)

        context = contextvars.copy_context()
        loop.set_task_factory(factory)

        async def main():
            given.clear()
            plain, named, both = value(), value(), value()
            tasks = [
                loop.create_task(plain),
                loop.create_task(named, name="a name"),
                loop.create_task(both, name="another", context=context),
            ]
            assert [coro for _, coro, _ in given] == [plain, named, both]
            assert all(by is loop for by, _, _ in given)
            keywords = [kwargs for _, _, kwargs in given]
            if FORWARDS_KEYWORDS:
                assert keywords == [
                    {},
                    {"name": "a name"},
                    {"name": "another", "context": context},
                ]
            else:
                for kwargs in keywords:
                    kwargs.pop("name", None)  # 3.13.3 alone forwarded it
                assert keywords == [{}, {}, {"context": context}]
            assert tasks[1].get_name() == "a name"
            assert tasks[2].get_name() == "another"
            await asyncio.gather(*tasks)

        run(main())

    def test_legacy_factory_of_two_arguments(self, loop, run):
        loop.set_task_factory(lambda loop, coro: asyncio.Task(coro, loop=loop))

        async def main():
            task = loop.create_task(value(3))
            assert await task == 3

        # asyncio.timeout and Runner create no task with keywords
        assert run(main()) is None

    def test_error_in_the_factory(self, loop):
        def factory(loop, coro, **kwargs):
            coro.close()
            raise LookupError("no tasks today")

        loop.set_task_factory(factory)
        with pytest.raises(LookupError, match="no tasks today"):
            loop.create_task(value())

    def test_wrapped_as_sentry_does(self, loop, run):
        started = []
        original = loop.get_task_factory()

        def factory(loop, coro, **kwargs):
            async def wrapped():
                started.append(coro.__name__)
                return await coro

            if original is None:
                return asyncio.Task(wrapped(), loop=loop, **kwargs)
            return original(loop, wrapped(), **kwargs)

        async def main():
            return await asyncio.create_task(value("wrapped"))

        loop.set_task_factory(factory)
        assert run(main()) == "wrapped"
        assert started == ["main", "value"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are 3.12's")
class TestEager:
    def test_eager_factory(self, loop, run):
        loop.set_task_factory(asyncio.eager_task_factory)

        async def main():
            order = []

            async def child():
                order.append("child")
                assert asyncio.current_task() is not parent
                await asyncio.sleep(0)
                order.append("child again")

            parent = asyncio.current_task()
            task = asyncio.create_task(child())
            order.append("parent")
            assert asyncio.current_task() is parent
            await task
            return order

        assert run(main()) == ["child", "parent", "child again"]

    def test_eager_task_that_never_blocks_is_done_at_once(self, loop, run):
        loop.set_task_factory(asyncio.eager_task_factory)

        async def main():
            task = asyncio.create_task(value(1))
            assert task.done()
            assert task.result() == 1
            assert asyncio.all_tasks() == {asyncio.current_task()}

        run(main())

    def test_own_eager_factory(self, loop, run):
        class Own(asyncio.Task):
            pass

        loop.set_task_factory(asyncio.create_eager_task_factory(Own))

        async def main():
            task = asyncio.create_task(value(1))
            assert isinstance(task, Own)
            assert await task == 1

        run(main())

    def test_exception_in_an_eager_task(self, loop, run):
        loop.set_task_factory(asyncio.eager_task_factory)

        async def fail():
            raise LookupError("eager")

        async def main():
            task = asyncio.create_task(fail())
            assert task.done()
            with pytest.raises(LookupError, match="eager"):
                await task

        run(main())

    @pytest.mark.parametrize("factory", [None, lambda loop, coro, **_: asyncio.Task(coro)])
    @pytest.mark.parametrize("name", ["unknown", "eager_start", "loop"])
    def test_other_keyword(self, loop, name, factory):
        loop.set_task_factory(factory)
        if not KNOWS_ITS_KEYWORDS and (factory is not None or name == "eager_start"):
            pytest.skip("create_task forwards it")
        coroutine = value(1)
        with pytest.raises(TypeError) as caught:
            loop.create_task(coroutine, **{name: None})
        coroutine.close()
        if KNOWS_ITS_KEYWORDS:
            text = f"create_task() got an unexpected keyword argument {name!r}"
            assert str(caught.value).endswith(text)
        elif FORWARDS_KEYWORDS and name == "loop":
            text = "Task() got multiple values for keyword argument 'loop'"
            assert str(caught.value).endswith(text)

    def test_coroutine_given_twice(self, loop):
        coroutine = value(1)
        with pytest.raises(TypeError, match=r"multiple values for argument 'coro'$"):
            loop.create_task(coroutine, coro=coroutine)
        coroutine.close()

    def test_too_many_arguments(self, loop):
        coroutine = value(1)
        text = r"create_task\(\) takes 2 positional arguments but 3 were given$"
        with pytest.raises(TypeError, match=text):
            loop.create_task(coroutine, "a name")
        coroutine.close()

    @pytest.mark.skipif(not FORWARDS_KEYWORDS, reason="create_task forwards it from 3.14 on")
    def test_eager_start_keyword(self, loop, run):
        async def main():
            eager = loop.create_task(value(1), eager_start=True)
            assert eager.done()
            lazy = loop.create_task(value(2), eager_start=False)
            assert not lazy.done()
            assert await lazy == 2
            assert await eager == 1

        run(main())

    @pytest.mark.skipif(not FORWARDS_KEYWORDS, reason="create_task forwards it from 3.14 on")
    def test_eager_start_keyword_against_an_eager_factory(self, loop, run):
        loop.set_task_factory(asyncio.eager_task_factory)

        async def main():
            lazy = loop.create_task(value(2), eager_start=False)
            assert not lazy.done()
            assert await lazy == 2

        run(main())


class TestCombinators:
    """asyncio's own machinery, which leans on call_soon order and timers."""

    def test_timeout(self, loop, run):
        async def main():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(20)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(20), 0.01)
            assert await asyncio.wait_for(value(1), 20) == 1

        run(main())

    def test_task_group_cancels_its_siblings(self, loop, run):
        cancelled = []

        async def sibling():
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

        async def fail():
            raise LookupError

        async def main():
            async with asyncio.TaskGroup() as group:
                group.create_task(sibling())
                group.create_task(fail())

        with pytest.raises(ExceptionGroup) as caught:
            run(main())
        (exception,) = caught.value.exceptions
        assert isinstance(exception, LookupError)
        assert cancelled == [True]

    def test_queue_between_producer_and_consumer(self, loop, run):
        async def main():
            queue, got = asyncio.Queue(3), []

            async def produce():
                for number in range(200):
                    await queue.put(number)

            async def consume():
                got.extend([await queue.get() for _ in range(200)])

            await asyncio.gather(produce(), consume())
            return got

        assert run(main()) == list(range(200))

    def test_locks_are_fair(self, loop, run):
        async def main():
            lock, order = asyncio.Lock(), []

            async def hold(number):
                async with lock:
                    order.append(number)
                    await asyncio.sleep(0)

            await asyncio.gather(*(hold(number) for number in range(20)))
            return order

        assert run(main()) == list(range(20))

    def test_sleep_zero_alternates(self, loop, run):
        async def main():
            order = []

            async def step(name):
                for _ in range(3):
                    order.append(name)
                    await asyncio.sleep(0)

            await asyncio.gather(step("a"), step("b"))
            return order

        assert run(main()) == ["a", "b"] * 3

    def test_sleeps_overlap(self, loop, run):
        async def main():
            before = loop.time()
            await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(400)))
            return loop.time() - before

        assert 0.05 <= run(main()) < 10
