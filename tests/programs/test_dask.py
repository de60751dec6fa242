"""A dask.distributed cluster: one scheduler, two workers, each process on the loop under test."""

import asyncio
import contextlib
import operator
import subprocess
import sys
from pathlib import Path

import dask
import distributed
import pytest

from support.dask_node import where

TESTS = Path(__file__).parents[1]
PATIENCE_S = 30


@contextlib.contextmanager
def node(loop_name, *arguments):
    """(process, address) of a node; it must close well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.dask_node", loop_name, *arguments],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process, process.stdout.readline().strip()
            output, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert (output, process.returncode) == ("closed\n", 0), errors
    assert " - asyncio - " not in errors, errors  # what the loop itself logs


@contextlib.contextmanager
def cluster(loop_name):
    """(address of the scheduler, pid of each node)."""
    with (
        node(loop_name, "scheduler") as (scheduler, address),
        node(loop_name, "worker", address) as (one, _),
        node(loop_name, "worker", address) as (other, _),
    ):
        yield address, [process.pid for process in (scheduler, one, other)]


@dask.delayed
def squares(start, count):
    return [number * number for number in range(start, start + count)]


@dask.delayed
def total(parts):
    return sum(map(sum, parts))


@pytest.mark.timeout(150)  # it starts three nodes, maybe on a busy machine
def test_a_graph(loop, run, loop_name):
    async def main(address, pids):
        async with distributed.Client(address, asynchronous=True) as client:
            await client.wait_for_workers(2)
            nodes = [await client.run_on_scheduler(where)]
            workers = await client.run(where)
            nodes += workers.values()
            assert sorted(pid for pid, _ in nodes) == sorted(pids)
            assert all(module.startswith(loop_name) for _, module in nodes)
            return await compute(client, list(workers))

    with cluster(loop_name) as (address, pids):
        run(main(address, pids), timeout=60)


async def compute(client, workers):
    graph = total([squares(start, 100) for start in range(0, 10_000, 100)])
    assert await client.compute(graph) == sum(number * number for number in range(10_000))
    # Data that has to move between the workers.
    halves = [
        client.submit(bytes, 5_000_000, workers=[worker], key=f"half-{worker}")
        for worker in workers
    ]
    joined = client.submit(operator.add, *halves, workers=workers[:1])
    assert len(await joined) == 10_000_000
    scattered = await client.scatter(list(range(1000)))
    added = client.submit(sum, scattered)
    assert await added == 499_500
    failing = client.submit(operator.truediv, 1, 0)
    assert isinstance(await failing.exception(), ZeroDivisionError)
    await asyncio.gather(*(client.submit(operator.neg, number) for number in range(300)))
