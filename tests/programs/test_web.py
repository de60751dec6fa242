"""HTTP and WebSocket servers and clients: uvicorn, aiohttp, httpx, websockets."""

import asyncio
import contextlib
import hashlib
import http.client
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import aiohttp
import httpx
import pytest
import websockets
from aiohttp import web

from support.peers import pattern, until
from support.programs import output_of
from support.web import aiohttp_served, uvicorn_served

FACTORIES = {"asyncio": "asyncio:SelectorEventLoop", "oxloop": "oxloop:new_event_loop"}


async def body_of(receive):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def application(scope, receive, send):
    """An ASGI application with what the tests below ask for."""
    if scope["type"] == "websocket":
        await echo_websocket(receive, send)
        return
    body = await body_of(receive)
    headers = [(b"content-type", b"application/octet-stream")]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(50):
            chunk = b"%d," % number * 1000
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})
        return
    if scope["path"] == "/fail":
        raise LookupError("the application failed")
    answer = json.dumps(
        {
            "method": scope["method"],
            "path": scope["path"],
            "client": scope["client"][0],
            "loop": type(asyncio.get_running_loop()).__name__,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
    ).encode()
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def echo_websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: message.get(k) for k in ("text", "bytes")}})


@contextlib.asynccontextmanager
async def uvicorn_server(**options):
    """(host, port) of a uvicorn that runs on this loop."""
    async with uvicorn_served(application, **options) as port:
        yield "127.0.0.1", port


@pytest.mark.parametrize("parser", ["httptools", "h11"])
class TestUvicorn:
    def test_requests_on_kept_and_on_new_connections(self, loop, run, parser):
        async def main():
            async with uvicorn_server(http=parser) as (host, port):
                async with httpx.AsyncClient(
                    base_url=f"http://{host}:{port}", timeout=30, verify=False
                ) as client:
                    for number in range(50):
                        answer = await client.get(f"/path/{number}")
                        assert answer.status_code == 200
                        assert answer.json()["path"] == f"/path/{number}"
                        assert answer.json()["loop"] == type(loop).__name__
                for _ in range(20):
                    status, _ = await asyncio.to_thread(self.request, host, port)
                    assert status == 200

        run(main())

    def request(self, host, port, method="GET", path="/", body=None):
        connection = http.client.HTTPConnection(host, port, timeout=20)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def test_large_bodies(self, loop, run, parser):
        body = pattern(5_000_000)

        async def main():
            async with uvicorn_server(http=parser) as address:
                status, answer = await asyncio.to_thread(
                    self.request, *address, "POST", "/upload", body
                )
                assert status == 200
                assert json.loads(answer)["sha256"] == hashlib.sha256(body).hexdigest()
                status, answer = await asyncio.to_thread(self.request, *address, "GET", "/stream")
                expected = b"".join(b"%d," % number * 1000 for number in range(50)) + b"end"
                assert answer == expected

        run(main())

    def test_pipelined_requests(self, loop, run, parser):
        async def main():
            async with uvicorn_server(http=parser) as address:
                reader, writer = await asyncio.open_connection(*address)
                requests = b"".join(
                    b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)
                )
                writer.write(requests[:-40])
                await asyncio.sleep(0.01)
                writer.write(requests[-40:])
                paths = []
                for _ in range(20):
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b"chunked" in head.lower():
                        size = int(await reader.readline(), 16)
                        body = await reader.readexactly(size)
                        await reader.readexactly(len(b"\r\n0\r\n\r\n"))
                    else:
                        length = re.search(rb"content-length: (\d+)", head.lower())
                        body = await reader.readexactly(int(length[1]))
                    paths.append(json.loads(body)["path"])
                writer.close()
                await writer.wait_closed()
                return paths

        assert run(main()) == [f"/{number}" for number in range(20)]

    def test_many_clients_at_once(self, loop, run, parser):
        async def main():
            async with uvicorn_server(http=parser) as (host, port):
                limits = httpx.Limits(max_connections=40)
                async with httpx.AsyncClient(
                    base_url=f"http://{host}:{port}", limits=limits, timeout=30, verify=False
                ) as client:
                    answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(200)))
                return [answer.json()["path"] for answer in answers]

        assert run(main()) == [f"/{number}" for number in range(200)]

    def test_failing_application(self, loop, run, parser, caplog):
        async def main():
            async with uvicorn_server(http=parser) as address:
                status, _ = await asyncio.to_thread(self.request, *address, "GET", "/fail")
                assert status == 500
                status, _ = await asyncio.to_thread(self.request, *address)
                assert status == 200

        logging.getLogger("uvicorn.error").propagate = False
        run(main())

    def test_client_that_speaks_no_http(self, loop, run, parser):
        async def main():
            async with uvicorn_server(http=parser) as address:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                answer = await reader.read()
                assert b"400" in answer.splitlines()[0]
                writer.close()
                await writer.wait_closed()

        logging.getLogger("uvicorn.error").propagate = False
        run(main())

    def test_websocket(self, loop, run, parser):
        async def main():
            # The sans-I/O implementation is uvicorn's own on websockets' parser.
            async with (
                uvicorn_server(http=parser, ws="websockets-sansio") as (host, port),
                websockets.connect(f"ws://{host}:{port}/") as client,
            ):
                for number in range(50):
                    await client.send(f"text {number}")
                    assert await client.recv() == f"text {number}"
                await client.send(pattern(300_000))
                assert await client.recv() == pattern(300_000)

        run(main())

    def test_command_line(self, loop_name, tmp_path, parser):
        """The way users choose a loop: --loop package:factory; Ctrl-C ends it well."""
        (tmp_path / "app.py").write_text(
            "import asyncio\n"
            "async def app(scope, receive, send):\n"
            "    name = type(asyncio.get_running_loop()).__module__.encode()\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': name})\n"
        )
        command = [sys.executable, "-m", "uvicorn", "app:app", "--loop", FACTORIES[loop_name]]
        command += ["--http", parser, "--port", "0", "--lifespan", "off"]
        server = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            for line in server.stdout:
                if found := re.search(r"Uvicorn running on (http://127\.0\.0\.1:\d+)", line):
                    break
            with urllib.request.urlopen(f"{found[1]}/", timeout=20) as answer:
                assert answer.read().decode().startswith(loop_name)
        finally:
            server.send_signal(signal.SIGINT)
            output, _ = server.communicate(timeout=20)
        assert "Finished server process" in output
        assert "Traceback" not in output.replace("KeyboardInterrupt", "")


class TestAiohttp:
    @contextlib.asynccontextmanager
    async def served(self):
        async def index(request):
            return web.json_response({"query": dict(request.query), "remote": request.remote})

        async def upload(request):
            digest = hashlib.sha256()
            async for chunk in request.content.iter_chunked(65536):
                digest.update(chunk)
            return web.Response(text=digest.hexdigest())

        async def stream(request):
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(100):
                await response.write(b"%d," % number * 500)
            await response.write_eof()
            return response

        async def socket_handler(request):
            ws = web.WebSocketResponse()
            await ws.prepare(request)
            async for message in ws:
                await (ws.send_str if isinstance(message.data, str) else ws.send_bytes)(
                    message.data
                )
            return ws

        app = web.Application(client_max_size=2**30)
        app.router.add_get("/", index)
        app.router.add_post("/upload", upload)
        app.router.add_get("/stream", stream)
        app.router.add_get("/socket", socket_handler)
        async with aiohttp_served(app) as port:
            yield f"http://127.0.0.1:{port}"

    def test_requests(self, loop, run):
        async def main():
            async with self.served() as url, aiohttp.ClientSession() as session:
                for number in range(50):
                    async with session.get(url, params={"n": str(number)}) as answer:
                        assert answer.status == 200
                        assert (await answer.json())["query"] == {"n": str(number)}
                answers = await asyncio.gather(*(self.get(session, url, n) for n in range(150)))
                assert answers == list(range(150))
            await asyncio.sleep(0.01)

        run(main())

    async def get(self, session, url, number):
        async with session.get(url, params={"n": str(number)}) as answer:
            return int((await answer.json())["query"]["n"])

    def test_uploads_and_streams(self, loop, run):
        body = pattern(6_000_000)

        async def chunks():
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        async def main():
            async with self.served() as url, aiohttp.ClientSession() as session:
                for data in (io.BytesIO(body), chunks()):
                    async with session.post(f"{url}/upload", data=data) as answer:
                        assert await answer.text() == hashlib.sha256(body).hexdigest()
                async with session.get(f"{url}/stream") as answer:
                    expected = b"".join(b"%d," % number * 500 for number in range(100))
                    assert await answer.read() == expected
            await asyncio.sleep(0.01)

        run(main())

    def test_websocket(self, loop, run):
        async def main():
            async with (
                self.served() as url,
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{url}/socket") as ws,
            ):
                for number in range(50):
                    await ws.send_str(f"text {number}")
                    assert await ws.receive_str() == f"text {number}"
                await ws.send_bytes(pattern(200_000))
                assert await ws.receive_bytes() == pattern(200_000)
            await asyncio.sleep(0.01)

        run(main())

    def test_refused_and_timed_out(self, loop, run, unused_port):
        async def main():
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.get(f"http://127.0.0.1:{unused_port}/")
                with socket.create_server(("127.0.0.1", 0)) as silent:
                    url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
                    with pytest.raises(TimeoutError):
                        await session.get(url, timeout=aiohttp.ClientTimeout(total=0.05))
            await asyncio.sleep(0.01)

        run(main())

    def test_run_app(self, loop_name):
        """web.run_app(loop=...) drives the loop itself, and ends at Ctrl-C."""
        output = output_of(
            loop_name,
            """
            import os, signal, threading
            from aiohttp import web

            async def started(app):
                asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)

            app = web.Application()
            app.on_startup.append(started)
            loop = new_event_loop()
            web.run_app(app, host="127.0.0.1", port=0, loop=loop, print=lambda text: None)
            print("ended", loop.is_closed())
            """,
        )
        assert output == "ended True\n"


class TestWebsockets:
    def test_server_and_client(self, loop, run):
        async def echo(connection):
            async for message in connection:
                await connection.send(message)

        async def client(uri, number):
            async with websockets.connect(uri) as connection:
                for count in range(20):
                    await connection.send(f"{number}:{count}")
                    assert await connection.recv() == f"{number}:{count}"

        async def main():
            async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
                uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
                await asyncio.gather(*(client(uri, number) for number in range(20)))
                async with websockets.connect(uri, compression=None, max_size=None) as connection:
                    await connection.send(pattern(2_000_000))
                    assert await connection.recv() == pattern(2_000_000)
                    pong = await connection.ping()
                    await pong

        run(main())

    def test_closing_handshake_and_lost_peer(self, loop, run):
        closed = []

        async def handler(connection):
            try:
                async for _ in connection:
                    pass
            finally:
                closed.append(connection.close_code)

        async def main():
            async with websockets.serve(handler, "127.0.0.1", 0) as server:
                uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
                connection = await websockets.connect(uri)
                await connection.close(code=4000)
                await until(lambda: closed == [4000])
                connection = await websockets.connect(uri)
                connection.transport.abort()
                await until(lambda: closed == [4000, 1006])
                await connection.wait_closed()

        run(main())
