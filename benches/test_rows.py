"""That each row names programs that exist, and that its answers can be told from wrong ones."""

import asyncio
import itertools
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bulk
import clients
import endpoints
import frameworks
import micro
import rows
import servers
import services


def test_each_name_is_there_once() -> None:
    names = [row.name for row in rows.ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_a_row_names_what_there_is(row: rows.Row) -> None:
    if row.server is not None:
        assert row.server.kind in servers.NAMES
    elif row.endpoints is not None:
        assert row.endpoints.kind in endpoints.SERVERS
    elif row.client is not None:
        assert row.client.kind in clients.KINDS
        asked = {"floor": ("aiohttp", "httpx"), "service": services.VARIABLES}
        assert row.client.kind in asked.get(row.client.asked, frameworks.KINDS)
    else:
        assert row.name in micro.NAMES


def test_the_floor_is_a_server() -> None:
    names = {row.name for row in rows.ROWS if row.has_floor}
    assert {"echo-protocol-tcp-1k-x20", "http-uvicorn-x32", "bulk-tls-send"} <= names
    assert not {"bulk-tcp-within", "client-redis-x32", "sleep-0"} & names


def test_messages_are_numbered_and_filled_as_the_load_generator_does() -> None:
    first, second, *rest = itertools.islice(bulk.messages_of(20), 17)
    assert (first, second) == (b"0000000000000000" + b"1234", b"0000000000000001" + b"1234")
    assert (rest[13], rest[14]) == (b"000000000000000f" + b"1234", first)


@pytest.mark.parametrize("name", ["bulk-tcp-within", "bulk-unix-within", "bulk-pipe-within"])
def test_bulk_within_a_loop_arrives_whole(name: str) -> None:
    run, _ = bulk.BENCHMARKS[name]

    async def main() -> float:
        return await run(40)

    assert asyncio.run(main()) > 0


def test_a_wrong_answer_ends_a_client() -> None:
    clients.check(b"right", b"right")
    with pytest.raises(AssertionError, match="is not the answer"):
        clients.check(b"wrong", b"right")


def test_services_that_cannot_be_had_are_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "services"
    script.write_text('#!/bin/sh\n[ "$1" = stop ] || { echo "services: not root" >&2; exit 1; }\n')
    script.chmod(0o700)
    monkeypatch.setattr(services, "SCRIPT", script)
    services.environment.cache_clear()
    with pytest.raises(services.ServicesError, match=r"\Aservices: not root\Z"):
        services.address("redis", min(os.sched_getaffinity(0)))
    services.environment.cache_clear()
