"""What a loop says of itself: `EventLoop.metrics`."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long: a count for each power of two of nanoseconds."""

    #: How many were in each bucket.
    counts: tuple[int, ...]
    #: Where each bucket but the last ends, in seconds.
    bounds_seconds: tuple[float, ...]
    #: The sum of all.
    sum_seconds: float
    #: The longest. Of a difference: at least as long as the longest in it.
    max_seconds: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)

    @property
    def mean_seconds(self) -> float:
        """The mean, or 0 if there were none."""
        return self.sum_seconds / max(self.count, 1)

    @property
    def p50_seconds(self) -> float:
        """The median, see `quantile`."""
        return self.quantile(0.5)

    @property
    def p99_seconds(self) -> float:
        """What one in a hundred exceeded, see `quantile`."""
        return self.quantile(0.99)

    def quantile(self, part: float) -> float:
        """Return the end of the bucket below which that part lies, or 0 if there were none.

        It is never less than the exact value, and less than twice as much.

        Raises:
            ValueError: `part` is not between 0 and 1.
        """
        if not 0 <= part <= 1:
            raise ValueError(f"part must be between 0 and 1, not {part!r}")
        left = part * self.count
        if not self.count:
            return 0.0
        for count, bound in zip(self.counts, self.bounds_seconds, strict=False):
            left -= count
            if left <= 0 and count:
                return min(bound, self.max_seconds)
        return self.max_seconds

    def __sub__(self, earlier: "Histogram") -> "Histogram":
        """Return what came since an earlier one of the same loop."""
        if not isinstance(earlier, Histogram):
            return NotImplemented
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        most = self.max_seconds
        highest = max((index for index, count in enumerate(counts) if count), default=None)
        if highest is None:
            most = 0.0
        elif highest < len(self.bounds_seconds):
            most = min(most, self.bounds_seconds[highest])
        return Histogram(counts, self.bounds_seconds, self.sum_seconds - earlier.sum_seconds, most)


@dataclass(frozen=True, slots=True)
class Connections:
    """The transports of one kind."""

    #: Those for which `connection_made` was scheduled.
    made: int
    #: Those of `made` that a server of this loop accepted.
    accepted: int
    #: Those whose `connection_lost` was called.
    lost: int
    #: Those of `lost` that ended by an exception.
    failed: int
    #: How many there are now.
    open: int

    def __sub__(self, earlier: "Connections") -> "Connections":
        """Return what came since an earlier one of the same loop."""
        if not isinstance(earlier, Connections):
            return NotImplemented
        return Connections(
            self.made - earlier.made,
            self.accepted - earlier.accepted,
            self.lost - earlier.lost,
            self.failed - earlier.failed,
            self.open,
        )


#: What is so now, and not counted from the beginning: a difference shows the later one's.
_GAUGES = frozenset(
    {
        "time_seconds",
        "ready",
        "ready_max",
        "timers_pending",
        "bytes_queued",
        "writes_paused",
        "lookups_running",
        "executor_calls_running",
        "children_running",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopMetrics:
    """What a loop has done, and what it has to do, at one moment.

    Everything counts from the making of the loop. `later - earlier` is what happened between.
    """

    #: When this was taken, by `time.monotonic`.
    time_seconds: float
    #: Time of the loop's runs that was spent neither waiting in the kernel nor for the GIL: in
    #: callbacks, and in the loop itself.
    busy_seconds: float
    #: Time in which the loop waited in the kernel, for an event or a timer.
    waiting_seconds: float
    #: Time in which the loop, back from the kernel, waited for another thread to give up the GIL.
    gil_wait_seconds: float

    #: How long the turns were, from one poll of the kernel to the next; and so how often it was
    #: polled.
    turn_lengths: Histogram
    #: How long after their time the timers ran.
    timer_lags: Histogram

    #: Turns of the loop.
    turns: int
    #: Events that the kernel had.
    events: int
    #: Callbacks that ran, tasks' steps among them; an event of a transport needs none.
    callbacks: int
    #: Callbacks that are queued now.
    ready: int
    #: The most callbacks of one turn.
    ready_max: int
    #: Timers that wait now.
    timers_pending: int
    #: Timers that were cancelled before their time. Those that fired are `timer_lags.count`.
    timers_cancelled: int
    #: How often another thread woke the loop from a wait.
    wakeups: int
    #: Signals for handlers of the loop.
    signals: int
    #: Calls of `call_exception_handler`.
    exceptions: int

    #: Transports by kind: "tcp", "unix", "pipe", "datagram"; and "tls", each of which is beside one
    #: of the first two.
    connections: Mapping[str, Connections]
    #: Bytes that transports received, of TLS as they came from the network.
    bytes_received: int
    #: Bytes that transports gave to the kernel.
    bytes_sent: int
    #: Datagrams that were received.
    datagrams_received: int
    #: Datagrams that were given to the kernel.
    datagrams_sent: int
    #: Bytes that wait for the kernel now.
    bytes_queued: int
    #: Transports whose protocol is told to write no more now.
    writes_paused: int

    #: TLS handshakes that succeeded.
    tls_handshakes: int
    #: TLS handshakes that did not.
    tls_handshakes_failed: int
    #: How long those took that succeeded, the peer's part included.
    tls_handshake_seconds: float

    #: Lookups of names in threads of the loop that have ended, or were cancelled.
    lookups: int
    #: Those that have not.
    lookups_running: int
    #: Calls of `run_in_executor` that have ended.
    executor_calls: int
    #: Those that have not.
    executor_calls_running: int
    #: Child processes that have ended.
    children: int
    #: Those that have not.
    children_running: int

    @property
    def running_seconds(self) -> float:
        """How long the loop ran, whatever it did."""
        return self.busy_seconds + self.waiting_seconds + self.gil_wait_seconds

    @property
    def utilization(self) -> float:
        """The part of that time in which the loop did not wait for something to do.

        It is between 0 and 1. Of a loop at 1 everything waits that it has to do. Ask it of a
        difference: `(later - earlier).utilization`.
        """
        running = self.running_seconds
        return 1 - self.waiting_seconds / running if running else 0.0

    def __sub__(self, earlier: "LoopMetrics") -> "LoopMetrics":
        """Return what happened since an earlier one of the same loop."""
        if not isinstance(earlier, LoopMetrics):
            return NotImplemented
        found: dict[str, Any] = {}
        for field in fields(self):
            now, then = getattr(self, field.name), getattr(earlier, field.name)
            if field.name in _GAUGES:
                found[field.name] = now
            elif isinstance(now, Mapping):
                found[field.name] = {name: each - then[name] for name, each in now.items()}
            else:
                found[field.name] = now - then
        return LoopMetrics(**found)


def of_numbers(numbers: dict[str, Any]) -> LoopMetrics:
    """Make a LoopMetrics of what `_metrics` of a loop returns."""
    for name in ("turn_lengths", "timer_lags"):
        numbers[name] = Histogram(*numbers[name])
    numbers["connections"] = {
        kind: Connections(made, accepted, lost, failed, made - lost)
        for kind, (made, accepted, lost, failed) in numbers["connections"].items()
    }
    return LoopMetrics(**numbers)
