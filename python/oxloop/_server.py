"""The class statement of a server: native server first, asyncio's abstract class."""

import asyncio
from typing import Self

from oxloop import _oxloop


class Server(_oxloop.Server, asyncio.AbstractServer):
    """What `loop.create_server()` returns."""

    __module__ = "oxloop"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
        await self.wait_closed()
