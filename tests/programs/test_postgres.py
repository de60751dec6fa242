"""PostgreSQL by psycopg, whose libpq waits in add_reader, and by asyncpg, a protocol of its own."""

import asyncio
import contextlib
import datetime
import hashlib
import ssl
import uuid

import asyncpg
import psycopg
import pytest

from support.peers import pattern

SLOW = "SELECT pg_sleep(3600)"


async def until_slow(connection, pid, expected=True):
    """Waits until that session is at the slow query, or no longer is."""
    is_slow = (
        "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query = %s AND state = 'active'"
    )
    while True:
        cursor = await connection.execute(is_slow, [pid, SLOW])
        if (await cursor.fetchone())[0] == expected:
            return
        await asyncio.sleep(0.005)


@pytest.fixture
def channel():
    """A name that no other test, and no other run, notifies by."""
    return f"news_{uuid.uuid4().hex}"


class TestPsycopg:
    def test_queries_and_transactions(self, loop, run, postgres):
        async def main():
            async with await psycopg.AsyncConnection.connect(postgres) as connection:
                await connection.execute("CREATE TEMP TABLE item (id int PRIMARY KEY, name text)")
                async with connection.cursor() as cursor:
                    rows = [(number, f"name {number}") for number in range(500)]
                    await cursor.executemany("INSERT INTO item VALUES (%s, %s)", rows)
                    await cursor.execute("SELECT * FROM item ORDER BY id")
                    assert await cursor.fetchall() == rows
                with pytest.raises(psycopg.errors.UniqueViolation):
                    await self.fail_in_a_transaction(connection)
                cursor = await connection.execute("SELECT count(*) FROM item")
                assert await cursor.fetchone() == (500,)

        run(main())

    async def fail_in_a_transaction(self, connection):
        async with connection.transaction():
            await connection.execute("DELETE FROM item WHERE id > 10")
            await connection.execute("INSERT INTO item VALUES (1)")

    def test_over_a_unix_socket(self, loop, run, postgres, postgres_socket):
        port = psycopg.conninfo.conninfo_to_dict(postgres)["port"]

        async def main():
            connection = await psycopg.AsyncConnection.connect(
                host=postgres_socket, port=port, user="oxloop", dbname="postgres"
            )
            async with connection:
                cursor = await connection.execute("SELECT inet_client_addr()")
                assert await cursor.fetchone() == (None,)

        run(main())

    def test_copy_in_and_out(self, loop, run, postgres):
        body = pattern(4_000_000).hex().encode()
        lines = [body[start : start + 1000] for start in range(0, len(body), 1000)]

        async def main():
            async with await psycopg.AsyncConnection.connect(postgres) as connection:
                cursor = connection.cursor()
                await cursor.execute("CREATE TEMP TABLE line (number serial, text text)")
                async with cursor.copy("COPY line (text) FROM STDIN") as copy:
                    for start in range(0, len(lines), 100):
                        await copy.write(b"\n".join(lines[start : start + 100]) + b"\n")
                received = hashlib.sha256()
                query = "COPY (SELECT text FROM line ORDER BY number) TO STDOUT"
                async with cursor.copy(query) as copy:
                    async for data in copy:
                        received.update(bytes(data).rstrip(b"\n"))
                return received.digest()

        assert run(main()) == hashlib.sha256(body).digest()

    def test_notify(self, loop, run, postgres, channel):
        async def listen(ready):
            connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
            async with connection:
                await connection.execute(f"LISTEN {channel}")
                ready.set()
                return [n.payload async for n in connection.notifies(timeout=15, stop_after=3)]

        async def main():
            ready = asyncio.Event()
            listening = asyncio.create_task(listen(ready))
            await ready.wait()
            connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
            async with connection:
                for payload in ("one", "two", "three"):
                    await connection.execute("SELECT pg_notify(%s, %s)", [channel, payload])
                    await asyncio.sleep(0.01)
            return await listening

        assert run(main()) == ["one", "two", "three"]

    def test_pipeline(self, loop, run, postgres):
        async def main():
            async with await psycopg.AsyncConnection.connect(postgres) as connection:
                async with connection.pipeline() as pipeline:
                    cursors = [
                        await connection.execute("SELECT %s::int", [number])
                        for number in range(300)
                    ]
                    await pipeline.sync()
                    answers = [await cursor.fetchone() for cursor in cursors]
                assert answers == [(number,) for number in range(300)]
                with pytest.raises(psycopg.errors.DivisionByZero):
                    async with connection.pipeline():
                        await connection.execute("SELECT 1 / 0")
                await connection.rollback()
                cursor = await connection.execute("SELECT 'in step'")
                assert await cursor.fetchone() == ("in step",)

        run(main())

    def test_large_answers_on_many_connections(self, loop, run, postgres):
        async def work(number):
            async with await psycopg.AsyncConnection.connect(postgres) as connection:
                for _ in range(10):
                    cursor = await connection.execute(
                        "SELECT repeat(%s, 200000)", [str(number)], binary=True
                    )
                    (text,) = await cursor.fetchone()
                    assert text == str(number) * 200_000
            return number

        async def main():
            return await asyncio.gather(*(work(number) for number in range(10)))

        assert run(main()) == list(range(10))

    def test_cancellation_reaches_the_server(self, loop, run, postgres):
        async def main():
            watching = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
            async with watching:
                connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
                task = asyncio.create_task(connection.execute(SLOW))
                await until_slow(watching, connection.info.backend_pid)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until_slow(watching, connection.info.backend_pid, False)
                cursor = await connection.execute("SELECT 'still of use'")
                assert await cursor.fetchone() == ("still of use",)
                await connection.close()

        run(main())

    def test_a_session_that_the_server_ends(self, loop, run, postgres):
        async def main():
            watching = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
            async with watching:
                connection = await psycopg.AsyncConnection.connect(postgres, autocommit=True)
                task = asyncio.create_task(connection.execute(SLOW))
                await until_slow(watching, connection.info.backend_pid)
                await watching.execute(
                    "SELECT pg_terminate_backend(%s)", [connection.info.backend_pid]
                )
                with pytest.raises(psycopg.errors.AdminShutdown):
                    await task
                assert connection.broken
                await connection.close()

        run(main())

    def test_tls(self, loop, run, postgres, servers_certificate):
        options = {"sslmode": "verify-full", "sslrootcert": servers_certificate}

        async def main():
            connection = await psycopg.AsyncConnection.connect(
                postgres, host="localhost", hostaddr="127.0.0.1", **options
            )
            async with connection:
                cursor = await connection.execute(
                    "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
                assert await cursor.fetchone() == ("TLSv1.3",)
                cursor = await connection.execute("SELECT repeat('long', 1000000)", binary=True)
                assert await cursor.fetchone() == ("long" * 1_000_000,)

        run(main())

    def test_refused(self, loop, run, unused_port):
        async def main():
            with pytest.raises(psycopg.OperationalError):
                await psycopg.AsyncConnection.connect(f"host=127.0.0.1 port={unused_port}")

        run(main())


@contextlib.asynccontextmanager
async def asyncpg_connection(url, **options):
    connection = await asyncpg.connect(url, **options)
    try:
        yield connection
    finally:
        await connection.close()


async def copy_in_and_out(connection, size):
    """Sends twice as many bytes to a table, in lines, and takes them from there."""
    body = pattern(size).hex().encode()
    lines = [body[start : start + 1000] for start in range(0, len(body), 1000)]
    received = hashlib.sha256()

    async def chunks():
        for start in range(0, len(lines), 100):
            yield b"\n".join(lines[start : start + 100]) + b"\n"

    async def sink(data):
        received.update(data.replace(b"\n", b""))
        await asyncio.sleep(0)  # slower than the server: reading is paused meanwhile

    await connection.execute("CREATE TEMP TABLE line (number serial, text text)")
    done = await connection.copy_to_table("line", columns=["text"], source=chunks())
    assert done == f"COPY {len(lines)}"
    await connection.copy_from_query("SELECT text FROM line ORDER BY number", output=sink)
    assert received.digest() == hashlib.sha256(body).digest()


class TestAsyncpg:
    def test_queries_and_transactions(self, loop, run, postgres):
        async def main():
            async with asyncpg_connection(postgres, ssl=False) as connection:
                await connection.execute("CREATE TEMP TABLE item (id int PRIMARY KEY, at date)")
                day = datetime.date(2026, 1, 1)
                rows = [(number, day + datetime.timedelta(number)) for number in range(500)]
                await connection.executemany("INSERT INTO item VALUES ($1, $2)", rows)
                found = await connection.fetch("SELECT * FROM item ORDER BY id")
                assert [tuple(record) for record in found] == rows
                with pytest.raises(asyncpg.UniqueViolationError):
                    await self.fail_in_a_transaction(connection)
                assert await connection.fetchval("SELECT count(*) FROM item") == 500

        run(main())

    async def fail_in_a_transaction(self, connection):
        async with connection.transaction():
            await connection.execute("DELETE FROM item WHERE id > 10")
            await connection.execute("INSERT INTO item VALUES (1)")

    def test_over_a_unix_socket(self, loop, run, postgres, postgres_socket):
        port = int(psycopg.conninfo.conninfo_to_dict(postgres)["port"])

        async def main():
            async with asyncpg_connection(
                None, host=postgres_socket, port=port, user="oxloop", database="postgres"
            ) as connection:
                assert await connection.fetchval("SELECT inet_client_addr()") is None

        run(main())

    def test_copy_in_and_out(self, loop, run, postgres):
        async def main():
            async with asyncpg_connection(postgres, ssl=False) as connection:
                await copy_in_and_out(connection, 4_000_000)

        run(main())

    def test_notify(self, loop, run, postgres, channel):
        async def main():
            heard = asyncio.Queue()
            async with (
                asyncpg_connection(postgres, ssl=False) as listening,
                asyncpg_connection(postgres, ssl=False) as speaking,
            ):
                await listening.add_listener(channel, lambda *call: heard.put_nowait(call[3]))
                for payload in ("one", "two", "three"):
                    await speaking.execute("SELECT pg_notify($1, $2)", channel, payload)
                return [await heard.get() for _ in range(3)]

        assert run(main()) == ["one", "two", "three"]

    def test_pool(self, loop, run, postgres):
        async def work(pool, number):
            async with pool.acquire() as connection, connection.transaction():
                text = await connection.fetchval("SELECT repeat($1, 100000)", str(number))
                assert text == str(number) * 100_000
                return await connection.fetchval("SELECT $1::int", number)

        async def main():
            async with asyncpg.create_pool(postgres, min_size=2, max_size=8, ssl=False) as pool:
                return await asyncio.gather(*(work(pool, number) for number in range(100)))

        assert run(main()) == list(range(100))

    def test_timeout_and_cancellation(self, loop, run, postgres):
        async def main():
            async with asyncpg_connection(postgres, ssl=False) as connection:
                with pytest.raises(TimeoutError):
                    await connection.execute(SLOW, timeout=0.2)
                assert await connection.fetchval("SELECT 'after a timeout'") == "after a timeout"
                task = asyncio.create_task(connection.execute(SLOW))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await connection.fetchval("SELECT 'after that'") == "after that"

        run(main())

    def test_a_session_that_the_server_ends(self, loop, run, postgres):
        async def main():
            async with asyncpg_connection(postgres, ssl=False) as watching:
                connection = await asyncpg.connect(postgres, ssl=False)
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _: ended.set())
                await watching.execute(
                    "SELECT pg_terminate_backend($1)", connection.get_server_pid()
                )
                await ended.wait()
                assert connection.is_closed()
                with pytest.raises(asyncpg.InterfaceError):
                    await connection.execute("SELECT 1")

        run(main())


class TestAsyncpgOverTls:
    """PostgreSQL upgrades a connection that began in plain text: asyncpg calls start_tls."""

    @pytest.fixture
    def context(self, servers_certificate):
        return ssl.create_default_context(cafile=servers_certificate)

    def test_queries(self, loop, run, postgres, context):
        async def main():
            async with asyncpg_connection(postgres, ssl=context) as connection:
                version = await connection.fetchval(
                    "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
                )
                assert version == "TLSv1.3"
                for number in range(100):
                    assert await connection.fetchval("SELECT $1::int", number) == number
                text = await connection.fetchval("SELECT repeat('long', 1000000)")
                assert text == "long" * 1_000_000

        run(main())

    def test_copy_in_and_out(self, loop, run, postgres, context):
        async def main():
            async with asyncpg_connection(postgres, ssl=context) as connection:
                await copy_in_and_out(connection, 2_000_000)

        run(main())

    def test_pool(self, loop, run, postgres, context):
        async def work(pool, number):
            return await pool.fetchval("SELECT $1::int", number)

        async def main():
            async with asyncpg.create_pool(postgres, ssl=context, min_size=2, max_size=8) as pool:
                return await asyncio.gather(*(work(pool, number) for number in range(100)))

        assert run(main()) == list(range(100))

    def test_timeout_and_cancellation(self, loop, run, postgres, context):
        """A cancellation is a second connection, which is upgraded as well."""

        async def main():
            async with asyncpg_connection(postgres, ssl=context) as connection:
                with pytest.raises(TimeoutError):
                    await connection.execute(SLOW, timeout=0.2)
                task = asyncio.create_task(connection.execute(SLOW))
                await asyncio.sleep(0.2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await connection.fetchval("SELECT 'after that'") == "after that"

        run(main())

    def test_certificate_of_nobody(self, loop, run, postgres, servers_certificate):
        async def main():
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncpg.connect(postgres, ssl=ssl.create_default_context())

        run(main())
