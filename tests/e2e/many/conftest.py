"""Fixtures: a host with agents, for each module of this folder."""

import pytest

import harness
from many.host import Host


@pytest.fixture(scope="module")
def host():
    """A host with one sockguard and the default policy for its agents; its engine is its own, and tells
    what it is asked."""
    host = Host(engine=harness.Engine("--debug"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def agents(host):
    """Two agents of one queue, and one of another, which may only look."""
    return host.agent("a"), host.agent("b"), host.agent("reader", family="agent-readers")
