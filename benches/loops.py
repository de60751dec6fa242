"""Loops: how each event loop that is compared is made.

A loop's package is imported only when that loop is asked for: some packages change
asyncio as they are imported, and every measurement is a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = (
    "asyncio",
    "uvloop",
    "zuvloop",
    "rloop",
    "rsloop",
    "aiofastnet-asyncio",
    "aiofastnet-uvloop",
    "blazio",
    "loopmini",
    "zloop",
    "talyn",
    "oxloop",
)
SUBJECT = "oxloop"
# What makes a loop in a package, and where it is called otherwise.
MAKER = "new_event_loop"
MAKERS = {"talyn": "Loop"}

# Data paths of the project's TLS; `oxloop` alone takes the one that it finds to be right.
TLS_VARIANTS = ("direct", "memorybio")


def base_name(spec: str) -> str:
    """Return the loop's name in NAME[+VARIANT][@DIRECTORY]."""
    return spec.partition("@")[0].partition("+")[0]


def variant(spec: str) -> str:
    """Return the variant in NAME[+VARIANT][@DIRECTORY], or nothing."""
    return spec.partition("@")[0].partition("+")[2]


def mistake(spec: str) -> str | None:
    """Say what is wrong with a specification, if anything is."""
    if base_name(spec) not in NAMES:
        return f"unknown loop {spec!r}; there are {', '.join(NAMES)}"
    if variant(spec) and not (is_subject(spec) and variant(spec) in TLS_VARIANTS):
        known = " and ".join(f"{SUBJECT}+{each}" for each in TLS_VARIANTS)
        return f"unknown variant {spec!r}; there are {known}"
    return None


def is_subject(spec: str) -> bool:
    """Tell the measured project's loop from its peers."""
    return base_name(spec) == SUBJECT


def is_wrapper(spec: str) -> bool:
    """Tell a package with transports of its own for another loop, which is measured as well."""
    return "-" in base_name(spec)


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of that name; ImportError when it is not installed."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    package, _, base = name.partition("-")
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(f"{package} is not there for this version of Python") from None
    if base:
        wrapped: Callable[[], asyncio.AbstractEventLoop] = module.loop_factory(factory(base))
        return wrapped
    made: Callable[[], asyncio.AbstractEventLoop] = getattr(module, MAKERS.get(name, MAKER))
    return made


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    """Make a loop of that name and set it as the thread's current loop."""
    loop = factory(name)()
    asyncio.set_event_loop(loop)
    return loop
