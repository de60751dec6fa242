"""Web servers of other projects on the loop that runs: aiohttp's and uvicorn."""

import asyncio
import contextlib
import socket

import uvicorn
from aiohttp import web

from support.peers import until


@contextlib.asynccontextmanager
async def aiohttp_served(application, context=None):
    """The port on 127.0.0.1 of an aiohttp application; with a context it is one of HTTPS."""
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def uvicorn_served(application, log_level="warning", **options):
    """The port on 127.0.0.1 of an ASGI application under uvicorn."""
    # asyncio sets TCP_NODELAY on what a socket of this very proto accepts.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(application, lifespan="off", log_level=log_level, **options)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[sock]))
    await until(lambda: server.started or serving.done())
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
        sock.close()
