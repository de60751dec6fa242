"""A thousand handshakes leave memory where it was.

Must hold: successful ones, with data and orderly ends, and refused ones. An allocator may keep
what is free, once; a leak grows in each round. What OpenSSL holds for one connection is more than
ten times the growth that is let pass.
"""

import asyncio
import gc
import itertools
import os
import ssl
from pathlib import Path

import pytest

from support.certificates import NAME, client_context, server_context
from support.peers import until
from support.protocols import Echo, Recorder

BATCH = 20
ROUND = 10  # batches
GROWTH_MAX = 1024  # bytes a connection


def resident():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def dialogue(loop, address, context):
    transport, protocol = await loop.create_connection(
        Recorder, *address, ssl=context, server_hostname=NAME
    )
    transport.write(b"ping")
    await until(lambda: protocol.received)
    transport.close()
    await until(lambda: protocol.is_lost)
    protocol.transport = None


async def refusal(loop, address, context):
    with pytest.raises(ssl.SSLCertVerificationError):
        await loop.create_connection(Recorder, *address, ssl=context, server_hostname=NAME)


@pytest.mark.parametrize(
    ("visit", "trust", "rounds"),
    [(dialogue, True, 5), (refusal, False, 3)],
    ids=["successful", "refused"],
)
@pytest.mark.timeout(120)
def test_is_given_back(loop, run, visit, trust, rounds):
    async def main():
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
        address = server.sockets[0].getsockname()
        context = client_context(trust=trust)

        async def one_round():
            for _ in range(ROUND):
                await asyncio.gather(*[visit(loop, address, context) for _ in range(BATCH)])
            return resident()

        sizes = [await one_round() for _ in range(1 + rounds)]
        server.close()
        await asyncio.sleep(0.01)
        return [after - before for before, after in itertools.pairwise(sizes)]

    assert min(run(main(), timeout=100)) < ROUND * BATCH * GROWTH_MAX
