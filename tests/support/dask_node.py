"""A dask.distributed node as a program: ``python -m support.dask_node LOOP scheduler|worker ...``.

distributed stands on Tornado, whose IOLoop takes the running loop: so the loop under test has only
to be running when the node is made. The node says its address, and ends when its standard input
does.
"""

import asyncio
import contextlib
import os
import sys

import dask
import distributed

from support.loops import factory_of

dask.config.set(
    {
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.scheduler.dashboard.status.task-stream-length": 1,
        "distributed.worker.memory.spill": False,
    }
)


async def where(**options):
    """What the node runs on, for ``Client.run``: its process and its loop's module."""
    loop = asyncio.get_running_loop()
    return os.getpid(), type(loop).__module__


def make(role, *arguments):
    if role == "scheduler":
        return distributed.Scheduler(host="127.0.0.1", port=0, dashboard=False)
    return distributed.Worker(*arguments, host="127.0.0.1", nthreads=2, dashboard=False)


async def serve(role, *arguments):
    async with make(role, *arguments) as node:
        print(node.address, flush=True)
        reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        finished = asyncio.create_task(node.finished())
        await asyncio.wait([reading, finished], return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await finished
    print("closed", flush=True)


def main():
    name, *arguments = sys.argv[1:]
    with asyncio.Runner(loop_factory=factory_of(name)) as runner:
        runner.run(serve(*arguments))


if __name__ == "__main__":
    main()
