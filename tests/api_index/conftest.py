"""What the tests of the index share: the entry in their ids, and connections that end well."""

import pytest

from support.peers import turns, unix_pair
from support.protocols import Recorder


@pytest.fixture
def entry(request):
    """The entries that the test is about; only its id needs them."""
    return request.param


@pytest.fixture
def on_connection(loop, run):
    """Runs ``body(transport, protocol, far)`` on a connected pair, and ends the connection."""

    def on_connection(body, protocol_factory=Recorder, pair=unix_pair):
        near, far = pair()

        async def main():
            transport, protocol = await loop.connect_accepted_socket(protocol_factory, near)
            try:
                return await body(transport, protocol, far)
            finally:
                if not transport.is_closing():
                    transport.abort()
                await turns()

        with near, far:
            return run(main())

    return on_connection
