"""Database protocols as their clients write them: one on transports, one on streams."""

import asyncio
import contextlib

import pytest

from support.binary_database import Client, Database, QueryError
from support.key_value_store import Connection, Store, StoreError
from support.peers import pattern, turns


class TestBinaryDatabase:
    @contextlib.asynccontextmanager
    async def connected(self, loop):
        server = await loop.create_server(Database, "127.0.0.1", 0)
        _, client = await loop.create_connection(Client, *server.sockets[0].getsockname())
        try:
            yield client
        finally:
            await client.close()
            server.close()
            await server.wait_closed()

    def test_queries(self, loop, run):
        async def main():
            async with self.connected(loop) as client:
                assert await client.query(b"ECHO one") == [b"one"]
                assert await client.query(b"COUNT 1000") == [b"%d" % n for n in range(1000)]
                with pytest.raises(QueryError, match="unknown verb DROP"):
                    await client.query(b"DROP table")
                await client.sync()
                assert await client.query(b"ECHO again") == [b"again"]

        run(main())

    def test_pipelined_queries_get_their_own_answers(self, loop, run):
        async def main():
            async with self.connected(loop) as client:
                queries = [client.query(b"ECHO %d" % number) for number in range(2000)]
                return await asyncio.gather(*queries)

        assert run(main()) == [[b"%d" % number] for number in range(2000)]

    def test_large_rows_and_flow_control(self, loop, run):
        async def main():
            async with self.connected(loop) as client:
                rows = await client.query(b"COPY 100000 60")
                assert [len(row) for row in rows] == [100_000] * 60
                assert all(row == bytes([number]) * 100_000 for number, row in enumerate(rows))
                text = pattern(6_000_000)
                assert await client.query(b"ECHO " + text) == [text]
                assert client.times_paused >= 1

        run(main())

    def test_cancelled_and_timed_out_queries(self, loop, run):
        async def main():
            async with self.connected(loop) as client:
                task = asyncio.ensure_future(client.query(b"COUNT 10"))
                await turns(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with pytest.raises(TimeoutError, match="the query timed out"):
                    await client.query(b"COUNT 20000", timeout=0)
                assert await client.query(b"ECHO in step") == [b"in step"]

        run(main())

    def test_lost_connection_fails_what_waits(self, loop, run):
        async def main():
            server = await loop.create_server(Database, "127.0.0.1", 0)
            _, client = await loop.create_connection(Client, *server.sockets[0].getsockname())
            waiting = [asyncio.ensure_future(client.query(b"ECHO x")) for _ in range(3)]
            await turns(1)
            client.transport.abort()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(result, ConnectionError) for result in results)
            server.close()
            await server.wait_closed()

        run(main())


class TestKeyValueStore:
    @contextlib.asynccontextmanager
    async def served(self):
        server = await asyncio.start_server(Store().serve, "127.0.0.1", 0)
        connections = []

        async def connect():
            connections.append(await Connection.open(*server.sockets[0].getsockname()))
            return connections[-1]

        try:
            yield connect
        finally:
            for connection in connections:
                await connection.close()
            server.close()
            await server.wait_closed()

    def test_commands(self, loop, run):
        async def main():
            async with self.served() as connect:
                client = await connect()
                assert await client.command("PING") == b"PONG"
                assert await client.command("SET", "key", "value") == b"OK"
                assert await client.command("GET", "key") == b"value"
                assert await client.command("GET", "other") is None
                with pytest.raises(StoreError, match="unknown command NONSENSE"):
                    await client.command("NONSENSE")
                large = pattern(3_000_000)
                assert await client.command("SET", "large", large) == b"OK"
                assert await client.command("GET", "large") == large

        run(main())

    def test_pipeline(self, loop, run):
        async def main():
            async with self.served() as connect:
                client = await connect()
                answers = await client.pipeline([("INCR", "counter")] * 5000)
                assert answers == list(range(1, 5001))

        run(main())

    def test_many_clients(self, loop, run):
        async def work(connect):
            client = await connect()
            for _ in range(50):
                await client.command("INCR", "counter")

        async def main():
            async with self.served() as connect:
                await asyncio.gather(*(work(connect) for _ in range(30)))
                client = await connect()
                return await client.command("GET", "counter")

        assert run(main()) == b"1500"

    def test_blocking_pop(self, loop, run):
        async def main():
            async with self.served() as connect:
                consumer, producer = await connect(), await connect()
                popping = asyncio.ensure_future(consumer.command("BLPOP", "queue", 15))
                await turns(10)
                assert not popping.done()
                await producer.command("RPUSH", "queue", "job")
                assert await popping == [b"queue", b"job"]
                assert await consumer.command("BLPOP", "queue", 0.02) is None

        run(main())

    def test_publish_and_subscribe(self, loop, run):
        async def main():
            async with self.served() as connect:
                subscribers = [await connect() for _ in range(5)]
                for client in subscribers:
                    await client.command("SUBSCRIBE", "news")
                publisher = await connect()
                for number in range(100):
                    assert await publisher.command("PUBLISH", "news", f"item {number}") == 5
                for client in subscribers:
                    items = [(await client.receive())[2] for _ in range(100)]
                    assert items == [b"item %d" % number for number in range(100)]

        run(main())
