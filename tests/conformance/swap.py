"""Puts another event loop where a program would find asyncio's own.

Only names are changed, and only those through which a program asks for a loop. What asyncio
is built from (`BaseEventLoop`, `_UnixSelectorEventLoop`, the transports) stays as it is, so a
test that builds a loop from these parts still runs on stock asyncio.
"""

import asyncio
import asyncio.unix_events
import importlib

STOCK = "stock"


class LoopName:
    """Stands for a loop class under a name of asyncio's.

    It is no subclass of the loop, because the loop must be tested as users get it. Its calls
    take asyncio's `selector` argument, which a foreign loop has no use for.
    """

    def __init__(self, loop_class, factory):
        self._loop_class = loop_class
        self._factory = factory

    def __call__(self, selector=None):
        if selector is not None:
            selector.close()
        return self._factory()

    def __instancecheck__(self, instance):
        return isinstance(instance, self._loop_class)

    def __subclasscheck__(self, cls):
        return issubclass(cls, self._loop_class)

    def __mro_entries__(self, bases):
        return (self._loop_class,)

    def __getattr__(self, name):
        return getattr(self._loop_class, name)

    def __repr__(self):
        return f"<{self._loop_class.__module__}.{self._loop_class.__qualname__}, swapped in>"


def find_loop(spec):
    """Return the loop class and the factory that `spec` names.

    `spec` is "oxloop", "asyncio", or "module:attribute" for a class or a factory.
    """
    if spec == "asyncio":
        loop_class = asyncio.unix_events._UnixSelectorEventLoop
        return loop_class, loop_class
    module_name, _, attribute = spec.partition(":")
    module = importlib.import_module(module_name)
    if attribute:
        factory = getattr(module, attribute)
        return _class_of(factory), factory
    return module.EventLoop, module.new_event_loop


def _class_of(factory):
    if isinstance(factory, type):
        return factory
    loop = factory()
    loop.close()
    return type(loop)


def swap_loop(spec):
    """Make asyncio's names for a loop give the one that `spec` names; "stock" changes nothing."""
    if spec == STOCK:
        return
    name = LoopName(*find_loop(spec))
    asyncio.SelectorEventLoop = name
    asyncio.unix_events.SelectorEventLoop = name
    if hasattr(asyncio, "EventLoop"):
        asyncio.EventLoop = name
        asyncio.unix_events.EventLoop = name
    # new_event_loop() and Runner ask the policy. staticmethod: a factory that is a plain
    # function must not become a method of the policy.
    policy = asyncio.unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = staticmethod(name)


def spare_private_executor(test_case):
    """Let the clean-up of asyncio's test base class work on a loop without asyncio's privates.

    `test_case.close_loop` reads `loop._default_executor`; a loop that has no such attribute is
    closed through the public calls instead.
    """
    stock_close_loop = test_case.close_loop

    def close_loop(loop):
        if hasattr(loop, "_default_executor"):
            stock_close_loop(loop)
            return
        if not loop.is_closed():
            loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    test_case.close_loop = staticmethod(close_loop)
