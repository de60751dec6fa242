"""Ports that nobody has, and that nobody gets while a test counts on that."""

import random
import socket
from pathlib import Path

# Those that the kernel hands out by itself: any of them may be another process's a moment later.
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
FIRST, LAST = 10_000, 65_535
KINDS = (socket.SOCK_STREAM, socket.SOCK_DGRAM)
chance = random.SystemRandom()  # not seeded: several processes run tests at once


def _candidates():
    first, last = map(int, EPHEMERAL.read_text().split())
    return max(range(FIRST, first), range(last + 1, LAST + 1), key=len)


def _is_free(port):
    for kind in KINDS:
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("0.0.0.0", port))
            except OSError:
                return False
    return True


def unused_port():
    """A port that nothing is bound to, neither for TCP nor for UDP."""
    candidates = _candidates()
    while not _is_free(port := chance.choice(candidates)):
        pass
    return port
