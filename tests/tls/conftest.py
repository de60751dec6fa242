"""Fixtures of the TLS tests.

oxloop has two data paths for TLS and chooses one when it is imported, so a process tests one of
them: ``OXLOOP_TLS=memorybio pytest tests/tls --loop oxloop`` is the run on the other one.
"""

import os

import pytest

from support.peers import PAIRS
from support.tls import SIDES, VERSIONS


def pytest_report_header():
    return f"oxloop's TLS: {os.environ.get('OXLOOP_TLS', 'as it chooses')}"


@pytest.fixture(params=SIDES)
def side(request):
    """Which side of the handshake the loop has."""
    return request.param


@pytest.fixture(params=VERSIONS)
def version(request):
    return VERSIONS[request.param]


@pytest.fixture
def pair():
    near, far = PAIRS["tcp"]()
    yield near, far
    near.close()
    far.close()
