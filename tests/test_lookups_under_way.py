"""Lookups in the C library that are under way: many at once, cancelled, failing, left behind.

Nothing is replaced here, so that oxloop's threads look up without Python. A thread of asyncio's
executor may have ended a lookup before the loop's thread runs again, and from 3.14 on such a one
never waits: the tests then ask for no more of it.
"""

import asyncio
import contextlib
import socket
import threading
import time

import pytest

from support.programs import output_of, run_program

STREAM = socket.SOCK_STREAM
MANY = 1_000
# A name that the C library refuses without asking anybody.
NUMERIC = socket.AI_NUMERICHOST


def look_up(loop, port, **kwargs):
    return loop.getaddrinfo("localhost", port, type=STREAM, **kwargs)


def error_of(call):
    with pytest.raises(socket.gaierror) as caught:
        call()
    return caught.value.args


@pytest.mark.both_modes
def test_each_of_many_gets_its_own_result(loop, run):
    async def main():
        return await asyncio.gather(*[look_up(loop, port) for port in range(MANY)])

    expected = socket.getaddrinfo("localhost", 0, type=STREAM)
    hosts = [address[0] for *_, address in expected]
    for port, found in enumerate(run(main())):
        assert [address[:2] for *_, address in found] == [(host, port) for host in hosts]
        assert [info[:4] for info in found] == [info[:4] for info in expected]


@pytest.mark.both_modes
def test_errors_are_those_of_the_socket_module(loop, run):
    async def main():
        lookups = [look_up(loop, port, flags=NUMERIC * (port % 2)) for port in range(100)]
        return await asyncio.gather(*lookups, return_exceptions=True)

    expected = error_of(lambda: socket.getaddrinfo("localhost", 1, flags=NUMERIC))
    found = run(main())
    assert [type(each) for each in found[1::2]] == [socket.gaierror] * 50
    assert {each.args for each in found[1::2]} == {expected}
    assert [each[0][4][1] for each in found[::2]] == list(range(0, 100, 2))


@pytest.mark.both_modes
def test_cancelled_ones_stay_cancelled_and_the_others_end(loop, run, unhandled):
    async def main():
        lookups = [asyncio.ensure_future(look_up(loop, port)) for port in range(MANY)]
        await asyncio.sleep(0)
        asked = [lookup for lookup in lookups[::2] if lookup.cancel()]
        results = await asyncio.gather(*lookups, return_exceptions=True)
        await asyncio.sleep(0.02)
        return asked, results

    asked, results = run(main())
    assert asked
    assert all(lookup.cancelled() for lookup in asked)
    assert [each[0][4][1] for each in results[1::2]] == list(range(1, MANY, 2))
    assert unhandled == []


def test_cancelled_when_the_results_have_arrived(loop, run, unhandled):
    async def main():
        lookups = [asyncio.ensure_future(look_up(loop, port)) for port in range(200)]
        await asyncio.sleep(0)
        time.sleep(0.05)
        asked = [lookup for lookup in lookups if lookup.cancel()]
        results = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(0.01)
        return results

    assert {type(each) for each in run(main())} == {asyncio.CancelledError}
    assert unhandled == []


def test_a_coroutine_that_is_closed_forgets_its_lookup(loop, run):
    async def main():
        for _ in range(20):
            lookup = look_up(loop, 1)
            with contextlib.suppress(StopIteration):
                lookup.send(None)
            lookup.close()
        return await look_up(loop, 2)

    assert run(main())[0][4][1] == 2


def test_results_are_for_a_later_turn(loop, run):
    """A future ends in a callback, and its task goes on in the turn behind that."""

    async def main():
        order = []
        lookup = asyncio.ensure_future(look_up(loop, 1))
        await asyncio.sleep(0)
        while lookup.done():
            lookup = asyncio.ensure_future(look_up(loop, 1))
            await asyncio.sleep(0)
        lookup.add_done_callback(lambda lookup: order.append("done"))
        time.sleep(0.05)
        loop.call_soon(order.append, "this turn")
        await asyncio.sleep(0)
        order.append("next turn")
        await lookup
        await asyncio.sleep(0)
        return order

    assert run(main()) == ["this turn", "next turn", "done"]


def test_results_come_before_calls_from_threads_that_were_later(loop, run):
    async def order(seconds):
        order = []

        async def wait():
            await look_up(loop, 1)
            order.append("lookup")

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        time.sleep(seconds)
        # A result takes one turn more, and so does this.
        loop.call_soon_threadsafe(loop.call_soon, order.append, "call")
        await waiting
        await asyncio.sleep(0.01)
        return order

    # On a busy machine the result may come later.
    assert any(run(order(seconds)) == ["lookup", "call"] for seconds in (0.02, 0.2, 2))


def test_results_wake_a_loop_that_waits(loop, run):
    async def main():
        for _ in range(200):
            await asyncio.wait_for(look_up(loop, 1), 20)

    run(main())


def test_results_arrive_while_the_loop_never_waits(loop, run):
    async def main():
        lookup = asyncio.ensure_future(look_up(loop, 1))
        while not lookup.done():
            await asyncio.sleep(0)
        return await lookup

    assert run(main())[0][4][1] == 1


def test_results_wait_for_the_next_run_in_any_thread(loop):
    lookups = [loop.create_task(look_up(loop, port)) for port in range(50)]
    loop.call_soon(loop.stop)
    loop.run_forever()
    time.sleep(0.05)
    found = []

    async def gathered():
        return await asyncio.gather(*lookups)

    def main():
        found.extend(loop.run_until_complete(gathered()))

    thread = threading.Thread(target=main)
    thread.start()
    thread.join()
    assert [each[0][4][1] for each in found] == list(range(50))


def test_a_loop_that_is_closed_meanwhile(loop_name):
    """Nothing is said but what asyncio says of tasks, and the futures are let go."""
    program = """
        import gc, socket, time, weakref
        for wait in (0, 0.05):
            loop = new_event_loop()
            tasks = [loop.create_task(loop.getaddrinfo("localhost", n)) for n in range(200)]
            loop.call_soon(loop.stop)
            loop.run_forever()
            time.sleep(wait)
            for task in tasks:
                task._log_destroy_pending = False
            refs = [weakref.ref(task) for task in tasks]
            loop.close()
            del tasks, task, loop
            time.sleep(0.3)
            gc.collect()
            print(sum(ref() is not None for ref in refs))
    """
    done = run_program(loop_name, program)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n0\n", "", 0)


def test_the_interpreter_ends_meanwhile(loop_name):
    program = """
        loop = new_event_loop()
        tasks = [loop.create_task(loop.getaddrinfo("localhost", n)) for n in range(200)]
        for task in tasks:
            task._log_destroy_pending = False
        loop.call_soon(loop.stop)
        loop.run_forever()
        print("ends")
    """
    done = run_program(loop_name, program, "-W", "ignore::ResourceWarning")
    assert (done.stdout, done.stderr, done.returncode) == ("ends\n", "", 0)


# asyncio's child waits for threads of the default executor that it does not have.
@pytest.mark.asyncio_wrong((3, 11), (4, 0))
def test_the_child_of_a_fork_looks_up_by_itself(loop_name):
    """Results that arrived before the fork arrive in both."""
    output = output_of(
        loop_name,
        """
        import os, time, warnings
        warnings.simplefilter("ignore")

        async def begin():
            lookups = [asyncio.ensure_future(loop.getaddrinfo("localhost", n)) for n in range(20)]
            await asyncio.sleep(0)
            return lookups

        async def main():
            found = await loop.getaddrinfo("localhost", 7)
            line = f"{found[0][4][1]} {len(await asyncio.gather(*arrived))}\\n"
            os.write(1, line.encode())

        loop = new_event_loop()
        arrived = loop.run_until_complete(begin())
        # None may be under way: glibc does not free its locks in the child.
        time.sleep(0.5)
        pid = os.fork()
        loop.run_until_complete(main())
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        loop.close()
        """,
    )
    assert output == "7 20\n" * 2


# As above.
@pytest.mark.asyncio_wrong((3, 11), (4, 0))
def test_the_child_of_a_fork_closes_the_loop(loop_name):
    output = output_of(
        loop_name,
        """
        import os, warnings
        warnings.simplefilter("ignore")
        for _ in range(5):
            loop = new_event_loop()
            tasks = [loop.create_task(loop.getaddrinfo("localhost", n)) for n in range(300)]
            for task in tasks:
                task._log_destroy_pending = False
            loop.call_soon(loop.stop)
            loop.run_forever()
            pid = os.fork()
            if pid == 0:
                loop.close()
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            loop.close()
        """,
    )
    assert output == "7\n" * 5


def test_results_that_nobody_wants_do_not_keep_the_loop_busy(loop, run):
    read = []
    clock = loop.time

    def read_clock():
        read.append(1)
        return clock()

    # Each turn that waits for a timer asks for the time.
    loop.time = read_clock

    async def main():
        for _ in range(20):
            lookups = [asyncio.ensure_future(look_up(loop, port)) for port in range(10)]
            await asyncio.sleep(0)
            time.sleep(0.002)
            for lookup in lookups:
                lookup.cancel()
            await asyncio.wait(lookups)
        await asyncio.sleep(0.05)
        read.clear()
        await asyncio.sleep(0.05)
        return len(read)

    assert run(main()) < 20
