"""A drop-in asyncio event loop in Rust.

`oxloop.run(main())` runs a program on it. Everything else that takes a loop factory takes
`oxloop.new_event_loop`: `asyncio.Runner(loop_factory=...)`, `uvicorn --loop oxloop:new_event_loop`.
"""

import importlib
import sys
from typing import TYPE_CHECKING

from oxloop._event_loop import EventLoop
from oxloop._oxloop import __version__, tls_data_path, tls_fallback_reason
from oxloop._runner import new_event_loop, run

if TYPE_CHECKING:
    from oxloop._metrics import Connections, Histogram, LoopMetrics

__all__ = [
    "Connections",
    "EventLoop",
    "Histogram",
    "LoopMetrics",
    "__version__",
    "new_event_loop",
    "run",
    "tls_data_path",
    "tls_fallback_reason",
]

# Names by the modules that are imported when one of theirs is asked for.
_LAZY = {"_metrics": ("Connections", "Histogram", "LoopMetrics")}

if sys.version_info < (3, 16):  # which has no event loop policies any more
    __all__ += ["EventLoopPolicy", "install", "uninstall"]
    _LAZY["_policy"] = ("EventLoopPolicy", "install", "uninstall")

    if TYPE_CHECKING:
        from oxloop._policy import EventLoopPolicy, install, uninstall


def __getattr__(name: str) -> object:
    """Import on first use what most programs have no business with."""
    for module, names in _LAZY.items():
        if name in names:
            found = importlib.import_module(f"oxloop.{module}")
            value: object = getattr(found, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
