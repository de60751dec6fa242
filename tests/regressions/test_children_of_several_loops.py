"""Loops in several threads have children at the same time, without a SIGCHLD handler.

Must hold: two loops in two threads spawn at once and each hears of its own children only; neither
takes the program's SIGCHLD handler; closing a loop puts signal handlers back as they were.
"""

import asyncio
import signal
import subprocess
import threading

import pytest

ROUNDS = 25


async def children(offset):
    """Spawns one child after the other, two at a time; the statuses must be each child's own."""
    statuses = []
    for number in range(ROUNDS):
        status = (offset + number) % 100
        both = [
            await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", f"read line; exit {status}", stdin=subprocess.PIPE
            )
            for _ in range(2)
        ]
        for process in both:
            process.stdin.close()
        statuses += await asyncio.gather(*(process.wait() for process in both))
    return statuses


def test_two_loops_in_two_threads(loop_factory):
    handler = signal.getsignal(signal.SIGCHLD)
    statuses = {}

    def work(offset):
        loop = loop_factory()
        try:
            statuses[offset] = loop.run_until_complete(children(offset))
        finally:
            loop.close()

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    for offset in (0, 50):
        expected = [(offset + n) % 100 for n in range(ROUNDS) for _ in range(2)]
        assert statuses[offset] == expected
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_program_s_own_sigchld_handler_stays(loop_factory):
    heard = []
    before = signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
    try:
        loop = loop_factory()
        try:
            assert loop.run_until_complete(children(3))[0] == 3
            assert signal.getsignal(signal.SIGCHLD) is not before
        finally:
            loop.close()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert heard


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM], ids=lambda n: n.name)
def test_closing_restores_signal_handlers(loop_factory, number):
    before = signal.getsignal(number)
    loop = loop_factory()
    loop.add_signal_handler(number, lambda: None)
    assert signal.getsignal(number) is not before
    loop.run_until_complete(children(1))
    loop.close()
    assert signal.getsignal(number) == before
