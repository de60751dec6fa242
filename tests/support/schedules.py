"""The ways to have a loop call a function once."""

import pytest

SCHEDULES = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(0, callback),
    "call_at": lambda loop, callback: loop.call_at(0, callback),
}

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
