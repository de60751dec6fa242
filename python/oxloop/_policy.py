"""The event loop policy, for Python up to 3.15: programs that choose their loop globally.

Python 3.14 deprecated policies and 3.16 has none, so `oxloop` imports this module only when one
of its names is asked for. Whoever calls `install()` knows what a policy is: there are no warnings.
"""

import asyncio
import sys

from oxloop._runner import new_event_loop

if sys.version_info >= (3, 14):
    # The public names warn when they are looked up; these are the same objects.
    from asyncio.events import _get_event_loop_policy as _get_policy
    from asyncio.events import _set_event_loop_policy as _set_policy
    from asyncio.unix_events import _DefaultEventLoopPolicy as _DefaultPolicy
else:
    from asyncio import DefaultEventLoopPolicy as _DefaultPolicy
    from asyncio import get_event_loop_policy as _get_policy
    from asyncio import set_event_loop_policy as _set_policy


class EventLoopPolicy(_DefaultPolicy):
    """asyncio's default policy with another `new_event_loop`.

    What `get_event_loop` does without a current loop (make one, warn, or raise) is inherited, so
    it is the running Python's rule; so are child watchers where that Python has them.
    """

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Make an event loop; it does not become the current one."""
        return new_event_loop()


def install() -> None:
    """Make oxloop's the event loop policy of this process, if it is not yet."""
    if not isinstance(_get_policy(), EventLoopPolicy):
        _set_policy(EventLoopPolicy())


def uninstall() -> None:
    """Go back to asyncio's default policy, if oxloop's is the one in force."""
    if isinstance(_get_policy(), EventLoopPolicy):
        _set_policy(None)
