"""Test frameworks and anyio, which make and drive loops themselves."""

import asyncio

import anyio

from support.programs import output_of


class TestFrameworks:
    def test_isolated_asyncio_test_case(self, loop_name):
        """unittest runs its tests in debug mode; before 3.13 a policy has to bring the loop."""
        output = output_of(
            loop_name,
            """
            import io, sys, unittest, warnings

            if sys.version_info < (3, 13):
                class Policy(asyncio.DefaultEventLoopPolicy):
                    _loop_factory = staticmethod(new_event_loop)
                asyncio.set_event_loop_policy(Policy())

            kind = new_event_loop()
            kind.close()

            class Case(unittest.IsolatedAsyncioTestCase):
                loop_factory = staticmethod(new_event_loop)

                async def asyncSetUp(self):
                    self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
                    self.addAsyncCleanup(self.cleanup)

                async def serve(self, reader, writer):
                    writer.write(await reader.readline())
                    writer.close()
                    await writer.wait_closed()

                async def cleanup(self):
                    self.server.close()
                    await self.server.wait_closed()

                async def test_loop(self):
                    loop = asyncio.get_running_loop()
                    self.assertIs(type(loop), type(kind))
                    self.assertTrue(loop.get_debug())

                async def test_streams(self):
                    address = self.server.sockets[0].getsockname()
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(b"line\\n")
                    self.assertEqual(await reader.read(), b"line\\n")
                    writer.close()
                    await writer.wait_closed()

                async def test_executor(self):
                    self.assertEqual(await asyncio.to_thread(int, "5"), 5)

                def test_plain(self):
                    pass

            with warnings.catch_warnings():
                warnings.simplefilter("error", ResourceWarning)
                result = unittest.TextTestRunner(io.StringIO()).run(
                    unittest.defaultTestLoader.loadTestsFromTestCase(Case)
                )
            print(result.testsRun, result.wasSuccessful())
            for _, text in result.errors + result.failures:
                print(text)
            """,
        )
        assert output == "4 True\n"

    def test_pytest_asyncio(self, loop_name, pytester):
        factory = {
            "asyncio": "asyncio.SelectorEventLoop",
            "oxloop": "__import__('oxloop').new_event_loop",
        }[loop_name]
        pytester.makeconftest(
            f"""
            import asyncio

            def pytest_asyncio_loop_factories(config, item):
                return {{"chosen": {factory}}}
            """
        )
        pytester.makepyfile(
            f"""
            import asyncio, pytest, pytest_asyncio

            @pytest_asyncio.fixture
            async def server():
                async def serve(reader, writer):
                    writer.write(await reader.readline())
                    writer.close()

                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                yield server.sockets[0].getsockname()
                server.close()

            @pytest.mark.asyncio
            async def test_loop():
                assert type(asyncio.get_running_loop()).__module__.startswith({loop_name!r})

            @pytest.mark.asyncio
            async def test_streams(server):
                reader, writer = await asyncio.open_connection(*server)
                writer.write(b"line\\n")
                assert await reader.readline() == b"line\\n"
                writer.close()
                await writer.wait_closed()

            @pytest.mark.asyncio
            @pytest.mark.parametrize("number", range(5))
            async def test_sleep(number):
                await asyncio.sleep(0.001)
                await asyncio.to_thread(int)
            """
        )
        result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider")
        result.assert_outcomes(passed=7)

    def test_anyio(self, loop_factory):
        """anyio finds its root task, keys by the loop, and connects, sleeps and uses threads."""

        async def main():
            kind = type(asyncio.get_running_loop())
            events = []

            async def serve(reader, writer):
                writer.write(await reader.readexactly(13))
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.sleep, 3600)
                port = server.sockets[0].getsockname()[1]
                async with await anyio.connect_tcp("127.0.0.1", port) as stream:
                    await stream.send(b"through anyio")
                    events.append(await stream.receive())
                group.cancel_scope.cancel()
            server.close()
            await server.wait_closed()
            events.append(await anyio.to_thread.run_sync(int, "5"))
            with anyio.move_on_after(0.01) as scope:
                await anyio.sleep(20)
            events.append(scope.cancelled_caught)
            return kind, events

        kind, events = anyio.run(main, backend_options={"loop_factory": loop_factory})
        loop = loop_factory()
        loop.close()
        assert kind is type(loop)
        assert events == [b"through anyio", 5, True]
