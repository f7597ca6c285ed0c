"""Fixtures: one engine for the whole session, guards per module. See harness.py.

A missing engine, CLI or binary is a failure, never a skip.

A test that fails is run a second time, after every fixture has been set up anew, and counts by what happens then: the
machine may have been busy with other things. The summary names each test that needed it, with what failed at first.
A test marked `security` never gets that: an escape that is seen once is an escape. Only when its fixtures could not be
set up, so that it was not run at all, is it begun again.
"""

import signal
import sys
import time
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

sys.path.insert(0, str(Path(__file__).parent))

import harness  # noqa: E402
import parity  # noqa: E402

# A test that takes longer than this hangs.
LONGEST = 600

# If more tests than this fail, it is no noise, and nobody has to wait for all to fail twice.
MOST_TWICE = 20
run_twice = []


def pytest_configure(config):
    config.addinivalue_line("markers", "last: run after all others")
    config.addinivalue_line("markers", "security: never run a second time")
    # So that fixtures are torn down on SIGTERM as they are on SIGINT.
    def interrupted(signum, frame):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, interrupted)

    def hangs(signum, frame):
        raise TimeoutError(f"the test hangs: it took more than {LONGEST} s")
    signal.signal(signal.SIGALRM, hangs)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from _in_time())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    return (yield from _in_time())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    return (yield from _in_time())


def _in_time():
    signal.alarm(LONGEST)
    try:
        return (yield)
    finally:
        signal.alarm(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    failed = [report for report in reports if report.failed]
    once = item.get_closest_marker("security") and any(report.when != "setup" for report in failed)
    if failed and not once and len(run_twice) < MOST_TWICE:
        run_twice.append(item.nodeid)
        first = failed[0]
        first.sections += [(report.when, report.longreprtext) for report in failed[1:]]
        first.outcome = "rerun"
        # All fixtures go, those of the session too: what failed may be their fault.
        try:
            item.session._setupstate.teardown_exact(None)
        except Exception as error:
            first.sections.append(("the end of all fixtures", repr(error)))
        item.ihook.pytest_runtest_logreport(report=first)
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_report_teststatus(report):
    if report.outcome == "rerun":
        return "run twice", "R", ("RUN TWICE", {"yellow": True})
    return None


def pytest_terminal_summary(terminalreporter):
    first = terminalreporter.stats.get("run twice", [])
    if not first:
        return
    terminalreporter.write_sep("=", "run twice: what failed at first", yellow=True, bold=True)
    for report in first:
        terminalreporter.write_sep("_", f"{report.nodeid} ({report.when})", yellow=True)
        terminalreporter.write_line(report.longreprtext)
        for name, text in report.sections:
            terminalreporter.write_sep("-", name)
            terminalreporter.write_line(text)
    for report in first:
        terminalreporter.write_line(f"RUN TWICE {report.nodeid}", yellow=True)


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
