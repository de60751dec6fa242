"""Servers of real frameworks and libraries, as their users run them, on one event loop.

Each announces its address once it listens, and serves until it is killed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from listening import BACKLOG, announce, bound_tcp, split_tcp, until_killed

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable
    from pathlib import Path

# Each server pays for the import of its own library only, and not all are typed.
library = importlib.import_module

BODY = b"Hello, world!"
GRPC_SERVICE = "bench.Echo"


async def plaintext(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with the same plaintext: the ASGI application of uvicorn's rows."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


async def hello() -> dict[str, str]:
    """Answer with JSON: the endpoint of FastAPI's row."""
    return {"message": BODY.decode()}


async def serve_uvicorn(address: str, http: str, application: Any = plaintext) -> None:
    import uvicorn  # noqa: PLC0415 - see `library`; this one is a base class

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce(bound_tcp(self.servers[0]))

    host, port = split_tcp(address)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=http,
        backlog=BACKLOG,
        lifespan="off",
        access_log=False,
        log_level="error",
    )
    await Server(config).serve()


async def serve_fastapi(address: str) -> None:
    application = library("fastapi").FastAPI()
    application.add_api_route("/", hello)
    await serve_uvicorn(address, "httptools", application)


async def serve_aiohttp(address: str) -> None:
    web = library("aiohttp.web")

    async def handle(request: Any) -> Any:
        return web.Response(body=BODY, content_type="text/plain")

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, *split_tcp(address), backlog=BACKLOG).start()
    host, port = runner.addresses[0]
    announce(f"{host}:{port}")
    await until_killed()


async def serve_websockets(address: str) -> None:
    """Send back each message; not compressed, or zlib would be measured."""

    async def echo(connection: Any) -> None:
        async for message in connection:
            await connection.send(message)

    serve = library("websockets.asyncio.server").serve
    server = await serve(echo, *split_tcp(address), compression=None, backlog=BACKLOG)
    announce(bound_tcp(server))
    await until_killed()


async def serve_grpc(address: str) -> None:
    grpc = library("grpc")

    async def echo(request: bytes, context: Any) -> bytes:
        return request

    methods = {"Unary": grpc.unary_unary_rpc_method_handler(echo)}
    server = library("grpc.aio").server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(GRPC_SERVICE, methods),))
    port = server.add_insecure_port(address)
    await server.start()
    announce(f"{split_tcp(address)[0]}:{port}")
    await until_killed()


async def serve_http3(address: str, directory: Path) -> None:
    """Answer GETs by aioquic with the certificate in a directory."""
    quic, h3 = library("aioquic.asyncio"), library("aioquic.h3.connection")
    events = library("aioquic.h3.events")
    head = [(b":status", b"200"), (b"content-length", b"%d" % len(BODY))]

    class Protocol(quic.QuicConnectionProtocol):  # type: ignore[misc, name-defined]
        http: Any = None

        def quic_event_received(self, event: Any) -> None:
            if self.http is None:
                self.http = h3.H3Connection(self._quic)
            for each in self.http.handle_event(event):
                if isinstance(each, events.HeadersReceived):
                    self.http.send_headers(each.stream_id, head)
                    self.http.send_data(each.stream_id, BODY, end_stream=True)
            self.transmit()

    configuration = library("aioquic.quic.configuration").QuicConfiguration(
        is_client=False, alpn_protocols=h3.H3_ALPN
    )
    configuration.load_cert_chain(directory / "certificate.pem", directory / "key.pem")
    server = await quic.serve(
        *split_tcp(address), configuration=configuration, create_protocol=Protocol
    )
    host, port = server._transport.get_extra_info("sockname")
    announce(f"{host}:{port}")
    await until_killed()


KINDS: dict[str, Callable[[str, Path | None], Awaitable[None]]] = {
    "uvicorn": lambda address, directory: serve_uvicorn(address, "httptools"),
    "uvicorn-h11": lambda address, directory: serve_uvicorn(address, "h11"),
    "fastapi": lambda address, directory: serve_fastapi(address),
    "aiohttp": lambda address, directory: serve_aiohttp(address),
    "websockets": lambda address, directory: serve_websockets(address),
    "grpc": lambda address, directory: serve_grpc(address),
    "http3": lambda address, directory: serve_http3(address, required(directory)),
}


def required(directory: Path | None) -> Path:
    assert directory is not None, "HTTP/3 needs a certificate"
    return directory
