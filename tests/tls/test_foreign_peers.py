"""Peers that share no code with Python's ssl module: the openssl program and curl."""

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import threading

import pytest

from support.certificates import NAME, authority, client_context, server_context
from support.peers import pattern, until
from support.protocols import Recorder
from support.tls import VERSIONS
from support.web import aiohttp_served

needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the openssl program is not installed"
)
needs_curl = pytest.mark.skipif(
    shutil.which("curl") is None, reason="the curl program is not installed"
)
STORM = 50


class Lines(Recorder):
    """Answers each line with its length."""

    def data_received(self, data):
        super().data_received(data)
        for line in data.splitlines():
            self.transport.write(b"%d\n" % len(line))


@contextlib.asynccontextmanager
async def listening(loop, context, factory=Lines):
    """(port, protocols so far) of a server on the loop."""
    protocols = []

    def note():
        protocols.append(factory())
        return protocols[-1]

    server = await loop.create_server(note, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], protocols
    finally:
        server.close()


class Program:
    """A running program: its input, and its output so far."""

    def __init__(self, *argv):
        self.output = b""
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        while chunk := self._process.stdout.read1():
            self.output += chunk

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._process.kill()
        self._process.wait()
        self._thread.join()
        self._process.stdout.close()
        self.end_input()

    def say(self, text):
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end_input(self):
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    async def end(self):
        """Lets it come to its own end; returns all output."""
        self.end_input()
        await until(lambda: not self._thread.is_alive())
        return self.output

    async def command(self, text, answer):
        """A command letter, which must come alone, and what the program says to it."""
        before = self.output.count(answer)
        self.say(text)
        await until(lambda: self.output.count(answer) > before)


def s_client(port, *options):
    return Program(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME,
        "-CAfile", authority().file, "-verify_return_error", *options,
    )  # fmt: skip


def s_server(*options):
    """An openssl server on a port of its choice, which its first line tells, unbuffered."""
    certificate = authority().issue(NAME)
    return Program(
        "stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:0",
        "-cert", certificate.chain, "-key", certificate.key, *options,
    )  # fmt: skip


async def port_of(process):
    await until(lambda: re.search(rb"ACCEPT .*:[0-9]+\n", process.output))
    return int(re.search(rb"ACCEPT .*:([0-9]+)\n", process.output)[1])


def received(protocols):
    return protocols[0].received if protocols else None


async def connect(loop, port, context=None):
    return await loop.create_connection(
        Recorder, "127.0.0.1", port, ssl=context or client_context(), server_hostname=NAME
    )


@needs_openssl
class TestOpensslClient:
    def test_dialogue(self, loop, run, version):
        async def main():
            context = server_context(version=version)
            async with listening(loop, context) as (port, protocols):
                with s_client(port) as process:
                    process.say(b"hello\n")
                    await until(lambda: protocols and protocols[0].received == b"hello\n")
                    output = await process.end()
                    await until(lambda: protocols[0].is_lost)
                assert b"Verify return code: 0 (ok)" in output
                assert b"\n5\n" in output
                assert protocols[0].calls == ["made", "data", "eof", "lost"]

        run(main())

    @pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["answered", "one way"])
    def test_key_updates(self, loop, run, command):
        """TLS 1.3, many in a row, data in between."""

        async def main():
            context = server_context(version=VERSIONS["1.3"])
            async with listening(loop, context) as (port, protocols):
                with s_client(port) as process:
                    expected = b""
                    for number in range(STORM):
                        await process.command(command, b"KEYUPDATE")
                        process.say(b"line %d\n" % number)
                        expected += b"line %d\n" % number
                        await until(lambda: received(protocols) == expected)  # noqa: B023
                    protocols[0].transport.write(b"and back\n")
                    await until(lambda: b"and back\n" in process.output)
                    output = await process.end()
                    assert output.count(b"KEYUPDATE") == STORM
                    await until(lambda: protocols[0].is_lost)

        run(main())

    def test_renegotiation_is_refused(self, loop, run):
        """OpenSSL 3 refuses clients that ask for it; the connection ends or goes on, no more."""

        async def main():
            context = server_context(version=VERSIONS["1.2"])
            async with listening(loop, context) as (port, protocols):
                with s_client(port) as process:
                    process.say(b"hello\n")
                    await until(lambda: protocols and protocols[0].received == b"hello\n")
                    with contextlib.suppress(BrokenPipeError):
                        for _ in range(STORM):
                            process.say(b"R\n")
                            await asyncio.sleep(0.001)
                    await process.end()
                    await until(lambda: protocols[0].is_lost)
                transport, protocol = await connect(loop, port)
                transport.write(b"still here\n")
                await until(lambda: protocol.received == b"10\n")
                transport.abort()
                await until(lambda: protocol.is_lost)

        run(main())

    def test_renegotiation_storm(self, loop, run):
        """A server that allows it, as an old program may, stays in order."""

        async def main():
            context = server_context(version=VERSIONS["1.2"])
            context.options |= 1 << 8  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
            async with listening(loop, context) as (port, protocols):
                with s_client(port) as process:
                    expected = b""
                    for number in range(STORM):
                        await process.command(b"R\n", b"RENEGOTIATING")
                        process.say(b"line %d\n" % number)
                        expected += b"line %d\n" % number
                        await until(lambda: received(protocols) == expected)  # noqa: B023
                    output = await process.end()
                    assert output.count(b"RENEGOTIATING") == STORM
                    await until(lambda: protocols[0].is_lost)

        run(main())

    def test_session_reuse(self, loop, run, version, tmp_path):
        session = str(tmp_path / "session")

        async def visit(port, *options):
            with s_client(port, *options) as process:
                process.say(b"hello\n")
                await until(lambda: b"\n5\n" in process.output)
                return await process.end()

        async def main():
            context = server_context(version=version)
            async with listening(loop, context) as (port, _):
                first = await visit(port, "-sess_out", session)
                second = await visit(port, "-sess_in", session)
                assert b"New, TLSv1" in first
                assert b"Reused, TLSv1" in second

        run(main())


@needs_openssl
class TestOpensslServer:
    def test_dialogue(self, loop, run, version):
        async def main():
            with s_server("-rev") as process:
                port = await port_of(process)
                transport, protocol = await connect(loop, port, client_context(version=version))
                transport.write(b"hello\n")
                await until(lambda: protocol.received == b"olleh\n")
                transport.close()
                await until(lambda: protocol.is_lost)

        run(main())

    @pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["answered", "one way"])
    def test_key_updates(self, loop, run, command):
        async def main():
            with s_server("-tls1_3") as process:
                port = await port_of(process)
                transport, protocol = await connect(loop, port)
                expected = b""
                for number in range(10):
                    await process.command(command, b"SSL_do_handshake")
                    process.say(b"line %d\n" % number)
                    expected += b"line %d\n" % number
                    await until(lambda: protocol.received == expected)  # noqa: B023
                    transport.write(b"answer\n")
                transport.abort()
                await until(lambda: protocol.is_lost)

        run(main())

    @pytest.mark.parametrize("command", [b"r\n", b"R\n"], ids=["plain", "with a certificate"])
    def test_renegotiation(self, loop, run, command):
        """TLS 1.2: the server asks, the loop's client does it in the middle of its data."""

        async def main():
            with s_server("-tls1_2") as process:
                port = await port_of(process)
                transport, protocol = await connect(loop, port)
                expected = b""
                for number in range(10):
                    transport.write(pattern(1000))
                    await process.command(command, b"SSL_do_handshake")
                    process.say(b"line %d\n" % number)
                    expected += b"line %d\n" % number
                    await until(lambda: protocol.received == expected)  # noqa: B023
                transport.abort()
                await until(lambda: protocol.is_lost)

        run(main())


@needs_curl
class TestCurl:
    @pytest.mark.parametrize("http", ["--http1.0", "--http1.1"])
    def test_get_and_post(self, loop, run, http, tmp_path):
        from aiohttp import web

        upload = tmp_path / "upload"
        upload.write_bytes(pattern(2_000_000))

        async def answer(request):
            body = await request.read()
            ours = request.transport.get_extra_info("ssl_object")
            return web.json_response({"size": len(body), "version": ours.version()})

        async def main():
            application = web.Application(client_max_size=1 << 23)
            application.router.add_route("*", "/", answer)
            async with aiohttp_served(application, server_context()) as port:
                argv = [
                    "curl", "--silent", "--show-error", http, "--noproxy", "*",
                    "--cacert", authority().file, "--resolve", f"{NAME}:{port}:127.0.0.1",
                    f"https://{NAME}:{port}/",
                ]  # fmt: skip
                for options, size in (([], 0), (["--data-binary", f"@{upload}"], 2_000_000)):
                    done = await asyncio.to_thread(
                        subprocess.run,
                        [*argv, *options],
                        capture_output=True,
                        timeout=15,
                        check=False,
                    )
                    assert done.returncode == 0, done.stderr
                    assert json.loads(done.stdout)["size"] == size

        run(main())

    def test_refuses_an_unknown_authority(self, loop, run):
        async def main():
            async with listening(loop, server_context()) as (port, protocols):
                argv = ["curl", "--silent", "--noproxy", "*", f"https://127.0.0.1:{port}/"]
                done = await asyncio.to_thread(
                    subprocess.run, argv, capture_output=True, timeout=15, check=False
                )
                assert done.returncode == 60
                assert all(protocol.calls == [] for protocol in protocols)

        run(main())
