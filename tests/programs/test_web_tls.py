"""HTTPS and secure WebSockets: aiohttp, uvicorn, websockets, and curl as a foreign client."""

import asyncio
import contextlib
import hashlib
import io
import json
import shutil
import ssl

import aiohttp
import httpx
import pytest
import websockets
from aiohttp import web

from support.peers import pattern
from support.web import aiohttp_served, uvicorn_served


@contextlib.asynccontextmanager
async def aiohttp_server(context):
    """The URL of an application on this loop, by name: certificates have names."""

    async def index(request):
        version = request.transport.get_extra_info("ssl_object").version()
        return web.json_response({"query": dict(request.query), "version": version})

    async def upload(request):
        digest = hashlib.sha256()
        async for chunk in request.content.iter_chunked(65536):
            digest.update(chunk)
        return web.Response(text=digest.hexdigest())

    async def download(request):
        return web.Response(body=pattern(int(request.match_info["size"])))

    async def socket_handler(request):
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    app = web.Application(client_max_size=2**30)
    app.router.add_get("/", index)
    app.router.add_post("/upload", upload)
    app.router.add_get("/bytes/{size}", download)
    app.router.add_get("/socket", socket_handler)
    async with aiohttp_served(app, context) as port:
        yield f"https://localhost:{port}"


async def application(scope, receive, send):
    """An ASGI application: answers what it got, echoes what a WebSocket brings."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        return
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    answer = {"scheme": scope["scheme"], "path": scope["path"], "sha256": digest.hexdigest()}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


@contextlib.asynccontextmanager
async def uvicorn_server(certificates, **options):
    """localhost:port of a uvicorn on this loop that reads its certificate from files."""
    files = {"ssl_certfile": certificates.chain, "ssl_keyfile": certificates.key}
    async with uvicorn_served(application, **files, **options) as port:
        yield f"localhost:{port}"


async def curl(certificates, *arguments, data=None):
    """curl's output; it must end well."""
    if shutil.which("curl") is None:
        pytest.skip("no curl: scripts/services installs it")
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--cacert", certificates.authority, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate(data)
    assert (process.returncode, errors) == (0, b"")
    return output


class TestAiohttp:
    @contextlib.asynccontextmanager
    async def session(self, certificates):
        connector = aiohttp.TCPConnector(ssl=certificates.client_context())
        async with aiohttp.ClientSession(connector=connector) as session:
            yield session

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_requests(self, loop, run, certificates, version):
        context = certificates.server_context()
        context.minimum_version = context.maximum_version = version

        async def get(session, url, number):
            async with session.get(url, params={"n": str(number)}) as answer:
                return await answer.json()

        async def main():
            async with aiohttp_server(context) as url, self.session(certificates) as session:
                one_by_one = [await get(session, url, number) for number in range(30)]
                at_once = await asyncio.gather(*(get(session, url, n) for n in range(60)))
            return one_by_one + at_once

        name = version.name.replace("_", ".")
        answers = [{"query": {"n": str(n)}, "version": name} for n in (*range(30), *range(60))]
        assert run(main()) == answers

    def test_large_bodies(self, loop, run, certificates):
        body = pattern(6_000_000)

        async def main():
            async with (
                aiohttp_server(certificates.server_context()) as url,
                self.session(certificates) as session,
            ):
                async with session.post(f"{url}/upload", data=io.BytesIO(body)) as answer:
                    assert await answer.text() == hashlib.sha256(body).hexdigest()
                async with session.get(f"{url}/bytes/6000000") as answer:
                    assert await answer.read() == body
                async with session.ws_connect(f"{url}/socket", max_msg_size=0) as ws:
                    for size in (0, 1, 20_000, 3_000_000):
                        await ws.send_bytes(body[:size])
                        assert await ws.receive_bytes() == body[:size]

        run(main())

    def test_certificate_of_nobody(self, loop, run, certificates):
        async def main():
            async with (
                aiohttp_server(certificates.server_context()) as url,
                aiohttp.ClientSession() as session,
            ):
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url)

        run(main())

    def test_curl(self, loop, run, certificates, tmp_path):
        body = pattern(3_000_000)
        (tmp_path / "body").write_bytes(body)

        async def main():
            async with aiohttp_server(certificates.server_context()) as url:
                assert await curl(certificates, f"{url}/bytes/3000000") == body
                digest = await curl(
                    certificates, "--data-binary", f"@{tmp_path}/body", f"{url}/upload"
                )
                assert digest.decode() == hashlib.sha256(body).hexdigest()
                # One connection, kept, for all of these.
                output = await curl(certificates, *(f"{url}/bytes/{n}" for n in range(50)))
                assert output == b"".join(pattern(n) for n in range(50))
                older = await curl(certificates, "--tls-max", "1.2", f"{url}/?n=1")
                assert json.loads(older)["version"] == "TLSv1.2"

        run(main())


@pytest.mark.parametrize("parser", ["httptools", "h11"])
class TestUvicorn:
    def test_requests(self, loop, run, certificates, parser):
        async def main():
            async with (
                uvicorn_server(certificates, http=parser) as address,
                httpx.AsyncClient(verify=certificates.client_context(), timeout=30) as client,
            ):
                for number in range(30):
                    answer = await client.get(f"https://{address}/{number}")
                    assert (answer.json()["scheme"], answer.json()["path"]) == (
                        "https",
                        f"/{number}",
                    )
                answers = await asyncio.gather(
                    *(client.get(f"https://{address}/{number}") for number in range(60))
                )
                assert [answer.json()["path"] for answer in answers] == [
                    f"/{number}" for number in range(60)
                ]

        run(main())

    def test_upload_by_curl(self, loop, run, certificates, parser):
        body = pattern(5_000_000)

        async def main():
            async with uvicorn_server(certificates, http=parser) as address:
                options = "--data-binary", "@-", f"https://{address}/"
                answer = await curl(certificates, *options, data=body)
                assert json.loads(answer)["sha256"] == hashlib.sha256(body).hexdigest()

        run(main())

    def test_websocket(self, loop, run, certificates, parser):
        async def main():
            async with (
                uvicorn_server(certificates, http=parser, ws="websockets-sansio") as address,
                websockets.connect(
                    f"wss://{address}/", ssl=certificates.client_context(), max_size=None
                ) as client,
            ):
                for number in range(30):
                    await client.send(b"%d" % number)
                    assert await client.recv() == b"%d" % number
                await client.send(pattern(500_000))
                assert await client.recv() == pattern(500_000)

        run(main())


def test_websockets_server_and_client(loop, run, certificates):
    async def echo(connection):
        async for message in connection:
            await connection.send(message)

    async def work(uri, number):
        context = certificates.client_context()
        async with websockets.connect(uri, ssl=context, max_size=None) as connection:
            for count in range(20):
                await connection.send(f"{number}:{count}")
                assert await connection.recv() == f"{number}:{count}"
            await connection.send(pattern(200_000))
            assert await connection.recv() == pattern(200_000)

    async def main():
        async with websockets.serve(
            echo, "127.0.0.1", 0, ssl=certificates.server_context(), max_size=None
        ) as server:
            uri = f"wss://localhost:{server.sockets[0].getsockname()[1]}/"
            await asyncio.gather(*(work(uri, number) for number in range(10)))

    run(main())
