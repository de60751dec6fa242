"""The openssl program at the other end of a TLS connection, as server and as client."""

import asyncio
import contextlib
import re
import shutil

import pytest

from support.peers import pattern

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl: scripts/services installs it"
)
VERSIONS = {"-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@contextlib.asynccontextmanager
async def openssl(*arguments):
    process = await asyncio.create_subprocess_exec(
        # Line by line: some of what openssl says waits in stdio's buffer otherwise.
        *("stdbuf", "-oL", "openssl", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        process.stdin.close()
        await process.stdout.read()
        await process.wait()


class TestServer:
    """openssl s_server, which says on which port it accepts, and the loop's client."""

    @contextlib.asynccontextmanager
    async def running(self, certificates, *options):
        async with openssl(
            *("s_server", "-accept", "127.0.0.1:0", "-naccept", "1"),
            *("-cert", certificates.chain, "-key", certificates.key, *options),
        ) as process:
            while not (found := re.match(rb"ACCEPT .*:(\d+)", await process.stdout.readline())):
                pass
            yield process, int(found[1])

    def test_lines(self, loop, run, certificates, version):
        async def main():
            async with self.running(certificates, version, "-rev") as (_, port):
                reader, writer = await asyncio.open_connection(
                    "localhost", port, ssl=certificates.client_context()
                )
                assert writer.get_extra_info("ssl_object").version() == VERSIONS[version]
                for number in range(50):
                    writer.write(b"line %03d\n" % number)
                    assert await reader.readline() == (b"line %03d" % number)[::-1] + b"\n"
                writer.close()
                await writer.wait_closed()

        run(main())

    def test_the_server_ends(self, loop, run, certificates, version):
        """Q at the server's terminal: close_notify, then the end."""

        async def main():
            async with self.running(certificates, version) as (process, port):
                reader, writer = await asyncio.open_connection(
                    "localhost", port, ssl=certificates.client_context()
                )
                process.stdin.write(b"last words\n")
                assert await reader.readline() == b"last words\n"
                process.stdin.write(b"Q\n")
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()

        run(main())

    def test_key_update(self, loop, run, certificates):
        """K at the server's terminal: new keys for both directions."""

        async def main():
            async with self.running(certificates, "-tls1_3") as (process, port):
                reader, writer = await asyncio.open_connection(
                    "localhost", port, ssl=certificates.client_context()
                )
                for number in range(5):
                    process.stdin.write(b"K\n")
                    while b"SSL_do_handshake" not in await process.stdout.readline():
                        pass
                    process.stdin.write(b"down %d\n" % number)
                    assert await reader.readline() == b"down %d\n" % number
                    writer.write(b"up %d\n" % number)
                    while await process.stdout.readline() != b"up %d\n" % number:
                        pass
                writer.close()
                await writer.wait_closed()

        run(main())


class TestClient:
    """openssl s_client and the loop's server."""

    @contextlib.asynccontextmanager
    async def served(self, certificates, serve):
        ended = asyncio.get_running_loop().create_future()

        async def handle(reader, writer):
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                ended.set_result(None)

        server = await asyncio.start_server(
            handle, "127.0.0.1", 0, ssl=certificates.server_context()
        )
        try:
            yield server.sockets[0].getsockname()[1]
            await ended
        finally:
            server.close()
            await server.wait_closed()

    def command(self, certificates, port, *options):
        return (
            *("s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost"),
            *("-CAfile", certificates.authority, "-verify_hostname", "localhost"),
            *("-verify_return_error", *options),
        )

    def test_echo(self, loop, run, certificates, version):
        async def upper(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())

        async def main():
            async with (
                self.served(certificates, upper) as port,
                openssl(*self.command(certificates, port, version, "-quiet")) as process,
            ):
                for number in range(50):
                    process.stdin.write(b"line %d\n" % number)
                    answer = b"LINE %d\n" % number
                    while (line := await process.stdout.readline()) != answer:
                        assert number == 0, line  # what s_client says of the certificates
                process.kill()

        run(main())

    def test_large_answer(self, loop, run, certificates, version):
        text = pattern(1_500_000).hex().encode()

        async def serve(reader, writer):
            writer.write(text)
            await writer.drain()

        async def main():
            async with (
                self.served(certificates, serve) as port,
                openssl(*self.command(certificates, port, version, "-quiet")) as process,
            ):
                assert (await process.stdout.read()).endswith(text)
                assert await process.wait() == 0

        run(main())

    def test_a_session_is_resumed(self, loop, run, certificates, version, tmp_path):
        async def main():
            context = certificates.server_context()

            async def handle(reader, writer):
                ssl_object = writer.get_extra_info("ssl_object")
                writer.write(b"session reused: %r\n" % ssl_object.session_reused)
                await reader.read()
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            answers = []
            for option in ("-sess_out", "-sess_in"):
                command = self.command(
                    certificates, port, version, option, tmp_path / "session", "-ign_eof"
                )
                async with openssl(*command) as process:
                    while not (line := await process.stdout.readline()).startswith(b"session re"):
                        pass
                    answers.append(line)
            server.close()
            await server.wait_closed()
            return answers

        assert run(main()) == [b"session reused: False\n", b"session reused: True\n"]
