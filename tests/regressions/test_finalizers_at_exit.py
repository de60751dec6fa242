"""A finalizer that runs while the interpreter ends may still use a transport."""

import pytest

from support.programs import run_program

PROGRAM = """
import asyncio
import socket

class Owner:
    def __del__(self, error=RuntimeError):
        try:
            self.transport.write(b"x" * 100)
            self.transport.write(b"x" * 100_000)
            self.transport.close()
        except error as raised:
            print("refused:", raised, flush=True)
        print("finalized", flush=True)

async def main():
    near, far = socket.socketpair()
    owner.transport, _ = await owner.loop.create_connection(asyncio.Protocol, sock=near)
    return far

owner = Owner()
owner.loop = new_event_loop()
owner.loop.run_until_complete(main()).close()
if closes:
    owner.loop.close()
owner.itself = owner  # freed by the last collection
"""


@pytest.mark.parametrize("closes", [False, True])
def test_a_write_to_a_peer_that_is_gone(loop_name, closes):
    done = run_program(loop_name, f"closes = {closes}\n{PROGRAM}", "-W", "ignore::ResourceWarning")
    assert "finalized" in done.stdout
    assert "panic" not in done.stderr
    assert done.returncode == 0
