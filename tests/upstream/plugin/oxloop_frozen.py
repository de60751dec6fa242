"""Hides what pytest has collected from the garbage collector.

For a suite that collects garbage behind each test: most of what is looked at each time are the
tests themselves, which are there to the end.

PYTEST_DONT_REWRITE: there is no assertion in here.
"""

import gc


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()
