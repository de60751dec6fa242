"""Servers and clients that people run, over TLS: aiohttp, uvicorn, httpx, websockets."""

import asyncio
import contextlib
import hashlib
import socket

import aiohttp
import httpx
import pytest
import websockets
from aiohttp import web

from support.certificates import OTHER_NAME, authority, client_context, server_context
from support.peers import pattern
from support.web import aiohttp_served, uvicorn_served

HOST = "localhost"
BODY = pattern(700_000)


def digest(data):
    return hashlib.sha256(data).hexdigest()


@contextlib.asynccontextmanager
async def aiohttp_server(context):
    """The base URL of a server that answers with the digest of what it was sent."""

    async def answer(request):
        body = await request.read()
        tls = request.transport.get_extra_info("ssl_object")
        return web.json_response({"digest": digest(body), "version": tls.version()})

    async def echo(request):
        channel = web.WebSocketResponse()
        await channel.prepare(request)
        async for message in channel:
            await channel.send_bytes(message.data)
        return channel

    application = web.Application(client_max_size=1 << 22)
    application.router.add_post("/", answer)
    application.router.add_get("/echo", echo)
    async with aiohttp_served(application, context) as port:
        yield f"https://{HOST}:{port}"


async def application(scope, receive, send):
    """An ASGI application with the same answer."""
    assert scope["scheme"] == "https"
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": digest(body).encode()})


@contextlib.asynccontextmanager
async def uvicorn_server():
    certificate = authority().issue(HOST)
    files = {"ssl_certfile": certificate.chain, "ssl_keyfile": certificate.key}
    async with uvicorn_served(application, log_level="error", **files) as port:
        yield f"https://{HOST}:{port}"


class TestHttp:
    def test_aiohttp(self, loop, run):
        async def main():
            async with (
                aiohttp_server(server_context(HOST)) as url,
                aiohttp.TCPConnector(ssl=client_context(), family=socket.AF_INET) as connector,
                aiohttp.ClientSession(connector=connector) as session,
            ):
                for body in (b"", b"small", BODY):
                    async with session.post(url, data=body) as response:
                        answer = await response.json()
                        assert answer == {"digest": digest(body), "version": "TLSv1.3"}
            await asyncio.sleep(0.01)

        run(main())

    def test_aiohttp_refuses_another_host(self, loop, run):
        async def main():
            async with (
                aiohttp_server(server_context(OTHER_NAME)) as url,
                aiohttp.TCPConnector(ssl=client_context(), family=socket.AF_INET) as connector,
                aiohttp.ClientSession(connector=connector) as session,
            ):
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.post(url)

        run(main())

    def test_many_requests_at_once(self, loop, run):
        async def main():
            async with (
                aiohttp_server(server_context(HOST)) as url,
                aiohttp.TCPConnector(ssl=client_context(), family=socket.AF_INET) as connector,
                aiohttp.ClientSession(connector=connector) as session,
            ):

                async def one(number):
                    body = pattern(10_000, b"%d" % number)
                    async with session.post(url, data=body) as response:
                        assert (await response.json())["digest"] == digest(body)

                await asyncio.gather(*[one(number) for number in range(60)])

        run(main())

    def test_uvicorn_and_httpx(self, loop, run):
        async def main():
            async with (
                uvicorn_server() as url,
                httpx.AsyncClient(verify=client_context(), timeout=30, trust_env=False) as client,
            ):
                for body in (b"small", BODY):
                    response = await client.post(url, content=body)
                    assert response.text == digest(body)

        run(main())

    def test_websockets(self, loop, run):
        async def main():
            async with (
                aiohttp_server(server_context(HOST)) as url,
                websockets.connect(
                    url.replace("https", "wss") + "/echo",
                    ssl=client_context(),
                    proxy=None,
                    max_size=None,
                ) as channel,
            ):
                for data in (b"small", BODY):
                    await channel.send(data)
                    assert await channel.recv() == data

        run(main())
