"""Fixtures: one engine for the whole session, guards per module. See harness.py.

A missing engine, CLI or binary is a failure, never a skip.
"""

import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
import parity  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "last: run after all others")
    # So that fixtures are torn down on SIGTERM as they are on SIGINT.
    def interrupted(signum, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session", autouse=True)
def patient(request):
    """Connections that are quiet for as long as the session lasts: a head that never ends, and an event stream."""
    if not any("patient" in item.function.__code__.co_varnames for item in request.session.items):
        yield
        return
    guard = harness.Guard(request.getfixturevalue("engine"))
    quiet, _ = harness.open_stream(guard.socket, "GET", "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D", timeout=120)
    slow = harness.Conn(guard.socket, timeout=120)
    slow.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n")
    yield guard, slow, quiet, time.monotonic()
    guard.close()


@pytest.fixture(scope="session")
def engine():
    engine = harness.Engine()
    yield engine
    engine.stop()


@pytest.fixture
def own_engine():
    """An engine that may be stopped and broken without disturbing other tests."""
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
