"""Redis by redis-py, which stands on asyncio's streams."""

import asyncio
import contextlib
import uuid

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from support.peers import pattern


@contextlib.asynccontextmanager
async def connected(url, **options):
    client = redis.asyncio.from_url(url, **options)
    try:
        yield client
    finally:
        await client.aclose()


@pytest.fixture
def key():
    """A name that no other test, and no other run, has used."""
    return f"oxloop:{uuid.uuid4()}"


def test_commands(loop, run, redis_url, key):
    large = pattern(5_000_000)

    async def main():
        async with connected(redis_url) as client:
            assert await client.ping()
            assert await client.set(key, large)
            assert await client.get(key) == large
            with pytest.raises(ResponseError, match="not an integer"):
                await client.incr(key)
            assert await client.delete(key) == 1
            assert await client.get(key) is None

    run(main())


def test_pipeline(loop, run, redis_url, key):
    async def main():
        async with connected(redis_url) as client:
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(5000):
                    pipeline.incr(key)
                assert await pipeline.execute() == list(range(1, 5001))
            async with client.pipeline(transaction=True) as pipeline:
                pipeline.get(key).delete(key).exists(key)
                assert await pipeline.execute() == [b"5000", 1, 0]

    run(main())


def test_many_clients(loop, run, redis_url, key):
    async def work():
        async with connected(redis_url) as client:
            for _ in range(50):
                await client.incr(key)

    async def main():
        await asyncio.gather(*(work() for _ in range(30)))
        async with connected(redis_url) as client:
            return await client.getdel(key)

    assert run(main()) == b"1500"


def test_publish_and_subscribe(loop, run, redis_url, key):
    async def main():
        async with connected(redis_url) as client, client.pubsub() as pubsub:
            await pubsub.subscribe(key)
            heard = pubsub.listen()
            assert (await anext(heard))["type"] == "subscribe"
            for number in range(100):
                assert await client.publish(key, b"%d" % number) == 1
            messages = [(await anext(heard))["data"] for _ in range(100)]
            assert messages == [b"%d" % number for number in range(100)]
            waiting = asyncio.ensure_future(anext(heard))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await client.publish(key, b"late")
            assert (await waiting)["data"] == b"late"
            await heard.aclose()

    run(main())


def test_blocking_pop(loop, run, redis_url, key):
    async def main():
        async with (
            connected(redis_url, client_name=key) as consumer,
            connected(redis_url) as producer,
        ):
            popping = asyncio.ensure_future(consumer.blpop([key], timeout=15))
            await blocked(producer, key, 1)
            assert await producer.rpush(key, b"one", b"two") == 2
            assert await popping == (key.encode(), b"one")
            assert await consumer.blpop([key], timeout=15) == (key.encode(), b"two")

    run(main())


async def blocked_ones(client, key):
    """The server's clients of that name that wait in a blocking command."""
    return [
        other
        for other in await client.client_list()
        if other["name"] == key and "b" in other["flags"]
    ]


async def blocked(client, key, count):
    """Waits until there are so many of them."""
    while len(await blocked_ones(client, key)) != count:
        await asyncio.sleep(0.005)


def test_cancelled_blocking_pop(loop, run, redis_url, key):
    """The server forgets the client, and so the element goes to who asks next."""

    async def main():
        async with (
            connected(redis_url, client_name=key) as consumer,
            connected(redis_url) as producer,
        ):
            popping = asyncio.ensure_future(consumer.blpop([key], timeout=15))
            await blocked(producer, key, 1)
            popping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await popping
            await blocked(producer, key, 0)
            await producer.rpush(key, b"kept")
            assert await consumer.blpop([key], timeout=15) == (key.encode(), b"kept")

    run(main())


def test_a_connection_that_the_server_ends(loop, run, redis_url, key):
    async def main():
        async with connected(redis_url) as killer, connected(redis_url, client_name=key) as client:
            popping = asyncio.ensure_future(client.execute_command("BLPOP", key, 15))
            await blocked(killer, key, 1)
            for other in await blocked_ones(killer, key):
                await killer.client_kill_filter(_id=other["id"])
            with pytest.raises(RedisConnectionError):
                await popping
            assert await client.ping()

    run(main())


def test_tls(loop, run, redis_tls_url, servers_certificate, key):
    large = pattern(3_000_000)

    async def main():
        url = redis_tls_url.replace("127.0.0.1", "localhost")
        async with connected(url, ssl_ca_certs=servers_certificate) as client:
            assert await client.set(key, large)
            assert await client.getdel(key) == large
            async with client.pipeline(transaction=False) as pipeline:
                for _ in range(2000):
                    pipeline.incr(key)
                pipeline.delete(key)
                assert await pipeline.execute() == [*range(1, 2001), 1]

    run(main())


def test_refused(loop, run, unused_port):
    async def main():
        async with connected(f"redis://127.0.0.1:{unused_port}") as client:
            with pytest.raises(RedisConnectionError):
                await client.ping()

    run(main())
