"""A peer's RST is noticed without a write.

Must hold: connection_lost gets a ConnectionResetError as soon as the RST came, whether the
protocol reads, has just been given data, or has a full write queue. Streams are in
test_streams.py, TLS in tls/test_shutdowns.py.
"""

import pytest

from support.peers import reset, tcp_pair, until
from support.protocols import RECORDERS


@pytest.mark.both_modes
@pytest.mark.parametrize("kind", RECORDERS)
def test_while_idle(loop, run, kind):
    near, far = tcp_pair()

    async def main():
        _, protocol = await loop.connect_accepted_socket(RECORDERS[kind], near)
        reset(far)
        await until(lambda: protocol.is_lost)
        return protocol

    protocol = run(main())
    (exc,) = protocol.lost_with
    assert isinstance(exc, ConnectionResetError)
    assert protocol.calls == ["made", "lost"]


def test_after_data(loop, run):
    near, far = tcp_pair()

    async def main():
        _, protocol = await loop.connect_accepted_socket(RECORDERS["protocol"], near)
        far.sendall(b"data")
        await until(lambda: protocol.received == b"data")
        reset(far)
        await until(lambda: protocol.is_lost)
        return protocol

    (exc,) = run(main()).lost_with
    assert isinstance(exc, ConnectionResetError)


def test_with_a_full_write_queue(loop, run):
    near, far = tcp_pair()

    async def main():
        transport, protocol = await loop.connect_accepted_socket(RECORDERS["protocol"], near)
        transport.write(b"x" * 10_000_000)
        assert transport.get_write_buffer_size() > 0
        reset(far)
        await until(lambda: protocol.is_lost)
        return protocol

    (exc,) = run(main()).lost_with
    assert isinstance(exc, ConnectionResetError | BrokenPipeError)


def test_the_client_of_a_server_that_resets(loop, run):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def main():
            _, protocol = await loop.create_connection(
                RECORDERS["protocol"], *listener.getsockname()
            )
            reset(listener.accept()[0])
            await until(lambda: protocol.is_lost)
            return protocol

        (exc,) = run(main()).lost_with
    assert isinstance(exc, ConnectionResetError)
