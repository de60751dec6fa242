"""Default write limits are (16384, 65536).

Must hold: for TCP and Unix transports, of clients and of servers.
"""

import pytest

from support.peers import PAIRS, until
from support.protocols import Recorder


@pytest.mark.parametrize("family", PAIRS)
def test_of_an_accepted_socket(loop, run, family):
    near, far = PAIRS[family]()

    async def main():
        transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.close()
        await until(lambda: protocol.is_lost)

    run(main())
    far.close()


def test_of_client_and_server(loop, run):
    accepted = []

    def factory():
        accepted.append(Recorder())
        return accepted[-1]

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0)
        transport, protocol = await loop.create_connection(
            Recorder, *server.sockets[0].getsockname()
        )
        await until(lambda: accepted and accepted[0].transport)
        for one in (transport, accepted[0].transport):
            assert one.get_write_buffer_limits() == (16384, 65536)
        transport.close()
        await until(lambda: protocol.is_lost and accepted[0].is_lost)
        server.close()
        await server.wait_closed()

    run(main())
