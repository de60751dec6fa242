"""os.fork() of a process with a running loop.

Must hold: the child can make and run a loop of its own, with sockets, threads and signals,
and the parent's loop goes on undisturbed.
"""

from support.programs import output_of


def test_child_makes_and_runs_its_own_loop(loop_name):
    output = output_of(
        loop_name,
        """
        import os, signal, socket, warnings
        warnings.simplefilter("ignore")

        async def work():
            loop = asyncio.get_running_loop()
            got = []
            loop.add_signal_handler(signal.SIGUSR1, got.append, "signal")
            os.kill(os.getpid(), signal.SIGUSR1)
            near, far = socket.socketpair()
            loop.add_reader(near, lambda: got.append(near.recv(10)))
            far.send(b"x")
            got.append(await asyncio.to_thread(int, "5"))
            got.append((await loop.getaddrinfo("localhost", 80))[0][4][1])
            await asyncio.sleep(0.01)
            loop.remove_reader(near)
            loop.remove_signal_handler(signal.SIGUSR1)
            near.close(); far.close()
            await loop.shutdown_default_executor()
            return sorted(map(str, got))

        async def main():
            ticks = []

            async def tick():
                while True:
                    ticks.append(1)
                    await asyncio.sleep(0.001)

            ticking = asyncio.ensure_future(tick())
            for _ in range(3):
                read, write = os.pipe()
                pid = os.fork()
                if pid == 0:
                    asyncio._set_running_loop(None)
                    loop = new_event_loop()
                    os.write(write, repr(loop.run_until_complete(work())).encode())
                    loop.close()
                    os._exit(0)
                os.close(write)
                while os.waitpid(pid, os.WNOHANG) == (0, 0):
                    await asyncio.sleep(0.001)
                print(os.read(read, 1000).decode())
                os.close(read)
            ticking.cancel()
            print(len(ticks) > 3, (await work()))

        loop = new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    )
    expected = "['5', '80', \"b'x'\", 'signal']"
    assert output == f"{expected}\n" * 3 + f"True {expected}\n"
