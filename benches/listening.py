"""Listening: what the servers under test share, of whatever kind they are."""

from __future__ import annotations

import asyncio

BACKLOG = 1024


def announce(address: str) -> None:
    print("ready", address, flush=True)


def split_tcp(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def bound_tcp(server: asyncio.AbstractServer) -> str:
    """Return the address of a server with the port that the kernel picked."""
    host, port = server.sockets[0].getsockname()  # type: ignore[attr-defined]
    return f"{host}:{port}"


async def until_killed() -> None:
    """Wait for ever; not by serve_forever, which fails on rloop once the server listens."""
    await asyncio.get_running_loop().create_future()
