"""Loops by name, in this process and in a program that runs in another one."""

import asyncio

LOOP_NAMES = ("asyncio", "oxloop")


def factory_of(name):
    """The loop factory called ``name``; an ImportError when it is not installed."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    import oxloop

    return oxloop.new_event_loop
