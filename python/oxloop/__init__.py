"""A drop-in asyncio event loop in Rust.

`oxloop.run(main())` runs a program on it. Everything else that takes a loop factory takes
`oxloop.new_event_loop`: `asyncio.Runner(loop_factory=...)`, `uvicorn --loop oxloop:new_event_loop`.
"""

import sys
from typing import TYPE_CHECKING

from oxloop._event_loop import EventLoop
from oxloop._oxloop import __version__, tls_data_path, tls_fallback_reason
from oxloop._runner import new_event_loop, run

__all__ = [
    "EventLoop",
    "__version__",
    "new_event_loop",
    "run",
    "tls_data_path",
    "tls_fallback_reason",
]

if sys.version_info < (3, 16):  # which has no event loop policies any more
    __all__ += ["EventLoopPolicy", "install", "uninstall"]

    if TYPE_CHECKING:
        from oxloop._policy import EventLoopPolicy, install, uninstall


def __getattr__(name: str) -> object:
    """Import what concerns policies on first use: most programs have no business with them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from oxloop import _policy  # noqa: PLC0415 (lazy on purpose)

    value: object = getattr(_policy, name)
    globals()[name] = value
    return value
