"""Fixtures: one engine for the whole session, guards per module. See harness.py.

A missing engine, CLI or binary is a failure, never a skip.
"""

import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
import parity  # noqa: E402


def pytest_configure(config):
    # So that fixtures are torn down on SIGTERM as they are on SIGINT.
    def interrupted(signum, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)


@pytest.fixture(scope="session")
def engine():
    engine = harness.Engine()
    yield engine
    engine.stop()


@pytest.fixture(scope="session")
def plain_engine():
    """An engine without a guard, to compare with."""
    engine = harness.Engine()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def sides(engine, plain_engine, tmp_path_factory):
    """The same commands directly and guarded: see parity.py. Binds of each side's directory are allowed."""
    engine.wipe()
    plain_engine.wipe()
    direct = parity.Side(plain_engine, plain_engine.socket, tmp_path_factory.mktemp("direct"))
    work = tmp_path_factory.mktemp("guarded")
    guard = harness.Guard(engine, flags=["--allow-bind", work])
    yield direct, parity.Side(engine, guard.socket, work)
    guard.close()
    engine.wipe()
    plain_engine.wipe()


@pytest.fixture(scope="module")
def guard(engine):
    """One guard with the default policy; the engine is emptied after the module."""
    guard = harness.Guard(engine)
    yield guard
    guard.close()
    engine.wipe()


@pytest.fixture(scope="module")
def two_guards(engine):
    """Two guards with different owners on one engine."""
    guards = harness.Guard(engine, owner=harness.unique("alice")), harness.Guard(engine, owner=harness.unique("bob"))
    yield guards
    for guard in guards:
        guard.close()
    engine.wipe()


@pytest.fixture
def make_guard(engine):
    """A factory for guards with other settings, closed after the test."""
    made = []

    def make(**settings):
        made.append(harness.Guard(settings.pop("upstream", engine), **settings))
        return made[-1]
    yield make
    for guard in made:
        guard.close()
