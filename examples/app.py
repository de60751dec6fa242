"""An ASGI application without a framework: what a server does with an event loop, in one file.

    uvicorn --app-dir examples app:app --loop oxloop:new_event_loop

It answers `/` (text), `/json`, `/stream` (a chunked body, one chunk every few milliseconds),
`/echo` (the request's body), and echoes the messages of a WebSocket on `/ws`.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Endpoint = Callable[[Receive, Send], Awaitable[None]]

CHUNKS = 5
CHUNK_INTERVAL_S = 0.002


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Route one connection, request or lifespan."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket_echo(scope, receive, send)
    else:
        endpoint = ENDPOINTS.get(scope["path"], not_found)
        await endpoint(receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Say at start-up what is served, and on which loop."""
    await receive()
    loop = type(asyncio.get_running_loop())
    paths = " ".join(ENDPOINTS)
    print(
        f"Serving {paths} and WebSocket /ws on {loop.__module__}.{loop.__qualname__},"
        f" Python {sys.version.split()[0]}",
        flush=True,
    )
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def plaintext(_receive: Receive, send: Send) -> None:
    """Answer with a line of text."""
    await respond(send, 200, b"text/plain; charset=utf-8", b"Hello from oxloop\n")


async def as_json(_receive: Receive, send: Send) -> None:
    """Answer with a JSON object that names the loop's class."""
    loop = type(asyncio.get_running_loop())
    body = json.dumps({"message": "hello", "loop": f"{loop.__module__}.{loop.__qualname__}"})
    await respond(send, 200, b"application/json", body.encode())


async def stream(_receive: Receive, send: Send) -> None:
    """Answer with a body whose length nobody knows in advance."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for number in range(CHUNKS):
        await asyncio.sleep(CHUNK_INTERVAL_S)
        line = b"chunk %d\n" % number
        await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body"})


async def echo(receive: Receive, send: Send) -> None:
    """Answer with the request's own body."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    await respond(send, 200, b"application/octet-stream", bytes(body))


async def not_found(_receive: Receive, send: Send) -> None:
    """Answer for every other path."""
    await respond(send, 404, b"text/plain; charset=utf-8", b"no such path\n")


async def websocket_echo(scope: Message, receive: Receive, send: Send) -> None:
    """Send every message back, until the client leaves."""
    await receive()
    if scope["path"] != "/ws":
        await send({"type": "websocket.close", "code": 4004})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        payload = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **payload})


async def respond(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    """Send a whole response."""
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


ENDPOINTS: dict[str, Endpoint] = {
    "/": plaintext,
    "/json": as_json,
    "/stream": stream,
    "/echo": echo,
}
