"""connect_accepted_socket(ssl=...) returns the application's protocol.

Must hold: the pair is (the TLS transport, what the factory made), as for create_connection.
"""

import asyncio

from support.certificates import server_context
from support.peers import until
from support.protocols import Recorder
from support.tls import peer_of, tcp_streams


def test_returns_the_protocol_of_the_factory(loop, run):
    made = []

    def factory():
        made.append(Recorder())
        return made[-1]

    async def main():
        with tcp_streams() as (near, far):
            peer = peer_of(far, "server")
            (transport, protocol), _ = await asyncio.gather(
                loop.connect_accepted_socket(factory, near, ssl=server_context()),
                asyncio.to_thread(peer.handshake),
            )
            assert made == [protocol]
            assert protocol.transport is transport
            assert transport.get_protocol() is protocol
            assert transport.get_extra_info("ssl_object").server_side
            transport.abort()
            await until(lambda: protocol.is_lost)

    run(main())
