"""The descriptors of this process, by what the kernel says of them."""

import contextlib
from pathlib import Path


def open_descriptors():
    """fd -> target of everything open, as /proc tells it."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
            found[int(link.name)] = str(link.readlink())
    return found


def open_channels():
    """Those that are sockets, pipes and anonymous inodes, not files."""
    return {fd: target for fd, target in open_descriptors().items() if target[0] != "/"}


def watched_descriptors():
    """The numbers that an epoll instance of this process watches."""
    numbers = set()
    for path in Path("/proc/self/fdinfo").iterdir():
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue  # it was closed meanwhile
        numbers.update(int(line.split()[1]) for line in lines if line.startswith("tfd:"))
    return numbers
