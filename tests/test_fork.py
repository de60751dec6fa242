"""os.fork() and multiprocessing beside a loop, running or not."""

import subprocess
import sys

import pytest

from support.programs import output_of


def test_child_of_a_process_with_a_running_loop_runs_its_own(loop_name):
    output = output_of(
        loop_name,
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")

        async def child():
            await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"from the child")
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        async def serve(reader, writer):
            writer.write(await reader.read())
            writer.close()

        async def main():
            global address
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            address = server.sockets[0].getsockname()
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                loop = new_event_loop()
                answer = loop.run_until_complete(child())
                loop.close()
                os._exit(0 if answer == b"from the child" else 1)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            print("status", status)
            await asyncio.sleep(0.01)
            server.close()

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
    )
    assert output == "status 0\n"


def test_the_running_loop_is_reset_in_the_child(loop_name):
    output = output_of(
        loop_name,
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")

        async def main():
            pid = os.fork()
            if pid == 0:
                os._exit(0 if asyncio._get_running_loop() is None else 1)
            print(os.waitpid(pid, 0)[1])

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )
    assert output == "0\n"


def test_the_parents_loop_goes_on_when_the_child_exits(loop_name):
    """A child that ends, and collects its copy of the loop, takes nothing from the parent."""
    output = output_of(
        loop_name,
        """
        import gc, os, socket, sys, warnings
        warnings.simplefilter("ignore")

        async def main():
            loop = asyncio.get_running_loop()
            near, far = socket.socketpair()
            near.setblocking(False)
            got = []
            loop.add_reader(near, lambda: got.append(near.recv(10)))
            loop.call_later(0.02, got.append, "timer")
            pid = os.fork()
            if pid == 0:
                gc.collect()
                os._exit(0)
            os.waitpid(pid, 0)
            far.send(b"read")
            await asyncio.sleep(0.05)
            loop.remove_reader(near)
            future = loop.create_future()
            await asyncio.to_thread(loop.call_soon_threadsafe, future.set_result, 1)
            await future
            print(sorted(map(str, got)))
            near.close(); far.close()

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        """,
    )
    assert output == "[\"b'read'\", 'timer']\n"


def test_fork_before_the_loop(loop_name):
    output = output_of(
        loop_name,
        """
        import os, sys

        def work():
            loop = new_event_loop()
            result = loop.run_until_complete(asyncio.sleep(0.01, 7))
            loop.close()
            return result

        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(work())
            pids.append(pid)
        print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids], work())
        """,
    )
    assert output == "[7, 7, 7] 7\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(loop_name, tmp_path, method):
    """Each start method, with the loop running in the parent meanwhile."""
    factory = {
        "asyncio": "from asyncio import SelectorEventLoop as new_event_loop",
        "oxloop": "from oxloop import new_event_loop",
    }[loop_name]
    program = tmp_path / "program.py"
    program.write_text(
        f"""\
import asyncio, multiprocessing, warnings
{factory}
warnings.simplefilter("ignore")

async def double(number):
    await asyncio.sleep(0.001)
    return number * 2

def work(number):
    asyncio._set_running_loop(None)
    loop = new_event_loop()
    result = loop.run_until_complete(double(number))
    loop.close()
    return result

async def main():
    context = multiprocessing.get_context({method!r})
    with context.Pool(2) as pool:
        print(await asyncio.to_thread(pool.map, work, range(4)))

if __name__ == "__main__":
    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0, 2, 4, 6]\n"


@pytest.mark.asyncio_since(3, 12)
def test_signals_in_the_child_do_not_reach_the_parents_loop(loop_name):
    """The wakeup descriptor is shared after a fork: a child's signal must not wake the parent."""
    output = output_of(
        loop_name,
        """
        import os, signal, warnings
        warnings.simplefilter("ignore")
        got = []

        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, got.append, "handled in the parent")
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGUSR1, lambda number, frame: None)
                os.kill(os.getpid(), signal.SIGUSR1)
                os._exit(0)
            os.waitpid(pid, 0)
            await asyncio.sleep(0.02)
            print(got)
            loop.remove_signal_handler(signal.SIGUSR1)

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )
    assert output == "[]\n"
