"""Starts the example server and puts real clients on it: 2,000 HTTP requests, 200 WebSocket echoes.

    python examples/selftest.py --loop oxloop:new_event_loop

Prints counts, failures and latency percentiles; the exit status is 1 if anything failed.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import websockets

HTTP_REQUESTS = 2000
WEBSOCKET_ECHOES = 200
CLIENTS = 10  # concurrent connections of each kind
NEW_CONNECTION_SHARE = 4  # every fourth request opens a connection of its own
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 15
REQUEST_TIMEOUT_S = 20
FAILURES_SHOWN = 10
CLEAN_EXITS = (0, -signal.SIGINT, 128 + signal.SIGINT)
STREAMED = b"".join(b"chunk %d\n" % number for number in range(5))


@dataclass
class Tally:
    """What one kind of exchange came to."""

    name: str
    latencies_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def measure(self, exchange: Awaitable[None]) -> None:
        """Time one exchange, and note its failure instead of raising it."""
        started = time.perf_counter()
        try:
            await exchange
        except Exception as exc:  # the report is the point, whatever went wrong
            self.failures.append(f"{type(exc).__name__}: {exc}")
        else:
            self.latencies_ms.append((time.perf_counter() - started) * 1000)

    def report(self) -> str:
        """Give one line: how many, how many failed, how long they took."""
        line = f"{self.name:<24} {len(self.latencies_ms):>5} ok {len(self.failures):>3} failed"
        if not self.latencies_ms:
            return line
        ordered = sorted(self.latencies_ms)
        spread = "  ".join(
            f"p{percent} {ordered[(len(ordered) - 1) * percent // 100]:.2f}"
            for percent in (50, 95, 99)
        )
        return f"{line}   ms: {spread}  max {ordered[-1]:.2f}"


def expect(condition: bool, what: str) -> None:
    """Fail the exchange with a reason."""
    if not condition:
        raise AssertionError(what)


async def http_exchange(client: httpx.AsyncClient, number: int) -> None:
    """Send one request, of a kind that its number chooses, and check the answer."""
    kind = number % 10
    if kind == 0:
        answer = await client.get("/stream")
        expect(answer.content == STREAMED, f"/stream answered {answer.content!r}")
    elif kind == 1:
        body = os.urandom(1 + number * 53 % 100_000)
        answer = await client.post("/echo", content=body)
        expect(answer.content == body, f"/echo changed {len(body)} bytes")
    elif kind == 2:
        answer = await client.get("/nowhere")
        expect(answer.status_code == 404, f"/nowhere answered {answer.status_code}")
        return
    elif kind < 5:
        answer = await client.get("/json")
        expect(answer.json()["message"] == "hello", f"/json answered {answer.text}")
    else:
        answer = await client.get("/")
        expect(answer.text == "Hello from oxloop\n", f"/ answered {answer.text!r}")
    expect(answer.status_code == 200, f"status {answer.status_code}")


async def on_new_connection(base: str, number: int) -> None:
    """Do one exchange on a connection that is opened and closed for it."""
    async with http_client(base) as client:
        await http_exchange(client, number)


def http_client(base: str) -> httpx.AsyncClient:
    """Make a client that talks to the example server alone, whatever proxies are configured."""
    return httpx.AsyncClient(
        base_url=base,
        timeout=REQUEST_TIMEOUT_S,
        limits=httpx.Limits(max_connections=1),
        trust_env=False,
        verify=False,  # noqa: S501 (no TLS here; certificates take longer to load than to serve)
    )


async def http_worker(base: str, numbers: Iterator[int], kept: Tally, new: Tally) -> None:
    """Take numbers until none are left; the iterator is shared between the workers."""
    async with http_client(base) as client:
        for number in numbers:
            if number % NEW_CONNECTION_SHARE == 0:
                await new.measure(on_new_connection(base, number // NEW_CONNECTION_SHARE))
            else:
                await kept.measure(http_exchange(client, number))


async def websocket_worker(base: str, numbers: Iterator[int], tally: Tally) -> None:
    """Echo text and binary messages of many sizes on one connection."""

    async def exchange(number: int) -> None:
        message: str | bytes = f"message {number} " * (number % 50)
        if number % 2:
            message = os.urandom(1 + number * 617 % 200_000)
        await socket.send(message)
        answer = await asyncio.wait_for(socket.recv(), REQUEST_TIMEOUT_S)
        expect(answer == message, f"echo {number} came back changed")

    address = base.replace("http://", "ws://") + "/ws"
    async with websockets.connect(address, proxy=None) as socket:
        for number in numbers:
            await tally.measure(exchange(number))


async def exercise(base: str) -> list[Tally]:
    """Run every client against the server at `base`."""
    kept, new, echoes = Tally("HTTP, keep-alive"), Tally("HTTP, new connection"), Tally("WebSocket")
    requests, messages = iter(range(HTTP_REQUESTS)), iter(range(WEBSOCKET_ECHOES))
    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(http_worker(base, requests, kept, new))
            group.create_task(guarded(echoes, websocket_worker, base, messages))
    return [kept, new, echoes]


async def guarded(
    tally: Tally,
    worker: Callable[[str, Iterator[int], Tally], Awaitable[None]],
    base: str,
    numbers: Iterator[int],
) -> None:
    """Count a connection that could not be opened or closed as a failure."""
    try:
        await worker(base, numbers, tally)
    except Exception as exc:  # as above
        tally.failures.append(f"connection: {type(exc).__name__}: {exc}")


def server_command(loop: str) -> list[str]:
    """Give the command that `make run` serves with, on a port of the system's choice."""
    here = str(Path(__file__).parent)
    options = ["--app-dir", here, "--loop", loop, "--port", "0", "--no-access-log"]
    return [sys.executable, "-m", "uvicorn", "app:app", *options]


@contextlib.contextmanager
def serving(loop: str) -> Iterator[str]:
    """Run the server as a process of its own, give its address, and check how it ends."""
    with subprocess.Popen(
        server_command(loop), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
        watchdog.start()
        try:
            address = read_address(process)
            watchdog.cancel()
            yield address
        finally:
            watchdog.cancel()
            stop(process)


def read_address(process: subprocess.Popen[str]) -> str:
    """Copy the server's output until it names its address."""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        if match := re.search(r"running on (http://[\d.]+:\d+)", line):
            return match[1]
    raise RuntimeError("the server ended before it served")


def stop(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C on the server: it must end by itself, and without a traceback."""
    process.send_signal(signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if "Traceback" in output or process.returncode not in CLEAN_EXITS:
        print(output, end="", flush=True)
        raise RuntimeError(f"the server did not end well, status {process.returncode}")


def main() -> int:
    """Run the self-test and report."""
    parser = argparse.ArgumentParser(description="Put real clients on the example server.")
    parser.add_argument(
        "--loop", default="oxloop:new_event_loop", help="what to give to uvicorn's --loop"
    )
    loop = parser.parse_args().loop
    try:
        with serving(loop) as base:
            tallies = asyncio.run(exercise(base))
    except (RuntimeError, subprocess.TimeoutExpired) as exc:
        print(f"FAILED: {exc}")
        return 1
    for tally in tallies:
        print(tally.report())
    failures = [failure for tally in tallies for failure in tally.failures]
    done = sum(len(tally.latencies_ms) for tally in tallies)
    for failure in failures[:FAILURES_SHOWN]:
        print(f"  {failure}")
    complete = done == HTTP_REQUESTS + WEBSOCKET_ECHOES and not failures
    print(f"{'PASSED' if complete else 'FAILED'}: {done} exchanges, {len(failures)} failures")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
