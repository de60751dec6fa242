"""The class statement of a server: native server first, asyncio's class, for isinstance."""

import asyncio
from typing import Self

from oxloop import _oxloop


class Server(_oxloop.Server, asyncio.Server):
    """What `loop.create_server()` returns."""

    __module__ = "oxloop"

    def __init__(self) -> None:
        """Do nothing: the native server has its own state, so asyncio's is not made."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()
