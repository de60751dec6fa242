"""pyzmq: a descriptor that only says "look again", and level-triggered readers to wait on it."""

import asyncio
import contextlib

import pytest
import zmq
import zmq.asyncio

from support.peers import pattern


@contextlib.contextmanager
def zmq_context():
    context = zmq.asyncio.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def endpoint(request, tmp_path):
    return {
        "tcp": "tcp://127.0.0.1:*",
        "ipc": f"ipc://{tmp_path}/socket",
        "inproc": "inproc://endpoint",
    }[request.param]


def bound(context, kind, endpoint, **options):
    """A bound socket, and where it is."""
    sock = context.socket(kind)
    for name, value in options.items():
        sock.set(getattr(zmq, name), value)
    sock.bind(endpoint)
    return sock, sock.get_string(zmq.LAST_ENDPOINT)


def connected(context, kind, where, **options):
    sock = context.socket(kind)
    for name, value in options.items():
        sock.set(getattr(zmq, name), value)
    sock.connect(where)
    return sock


def test_push_and_pull(loop, run, endpoint):
    """More messages than the queues hold: both sides wait for each other, many times."""

    async def push(sock):
        for number in range(5000):
            await sock.send(b"%d" % number)

    async def main():
        with zmq_context() as context:
            pull, where = bound(context, zmq.PULL, endpoint, RCVHWM=10)
            pushing = asyncio.create_task(push(connected(context, zmq.PUSH, where, SNDHWM=10)))
            received = [await pull.recv() for _ in range(5000)]
            await pushing
        assert received == [b"%d" % number for number in range(5000)]

    run(main())


def test_request_and_reply(loop, run, endpoint):
    async def serve(sock):
        while (parts := await sock.recv_multipart()) != [b"end"]:
            await sock.send_multipart([b"re:", *parts])
        await sock.send(b"ended")

    async def main():
        with zmq_context() as context:
            reply, where = bound(context, zmq.REP, endpoint)
            serving = asyncio.create_task(serve(reply))
            request = connected(context, zmq.REQ, where)
            for number in range(300):
                await request.send_multipart([b"%d" % number, b""])
                assert await request.recv_multipart() == [b"re:", b"%d" % number, b""]
            await request.send(pattern(3_000_000))
            assert await request.recv_multipart() == [b"re:", pattern(3_000_000)]
            await request.send(b"end")
            assert await request.recv() == b"ended"
            await serving

    run(main())


def test_many_clients_of_a_router(loop, run):
    async def serve(router):
        while True:
            identity, body = await router.recv_multipart()
            await router.send_multipart([identity, body.upper()])

    async def work(context, where, number):
        dealer = connected(context, zmq.DEALER, where)
        for count in range(20):
            await dealer.send(b"a%d-%d" % (number, count))
        return [await dealer.recv() for _ in range(20)]

    async def main():
        with zmq_context() as context:
            router, where = bound(context, zmq.ROUTER, "tcp://127.0.0.1:*")
            serving = asyncio.create_task(serve(router))
            answers = await asyncio.gather(*(work(context, where, number) for number in range(20)))
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving
        assert answers == [[b"A%d-%d" % (n, count) for count in range(20)] for n in range(20)]

    run(main())


def test_publish_and_subscribe(loop, run):
    async def main():
        with zmq_context() as context:
            publisher, where = bound(context, zmq.XPUB, "tcp://127.0.0.1:*")
            subscriber = connected(context, zmq.SUB, where)
            subscriber.subscribe(b"news")
            assert await publisher.recv() == b"\x01news"
            for number in range(100):
                await publisher.send_multipart([b"noise", b"%d" % number])
                await publisher.send_multipart([b"news", b"%d" % number])
            received = [await subscriber.recv_multipart() for _ in range(100)]
            assert received == [[b"news", b"%d" % number] for number in range(100)]

    run(main())


def test_cancelled_and_timed_out(loop, run, endpoint):
    async def main():
        with zmq_context() as context:
            pull, where = bound(context, zmq.PULL, endpoint)
            push = connected(context, zmq.PUSH, where)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pull.recv(), 0.01)
            task = asyncio.ensure_future(pull.recv())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await push.send(b"kept")
            assert await pull.recv() == b"kept"
            assert await pull.poll(timeout=0) == 0
            await push.send(b"polled")
            assert await pull.poll(timeout=15_000) == zmq.POLLIN
            assert await pull.recv() == b"polled"

    run(main())
