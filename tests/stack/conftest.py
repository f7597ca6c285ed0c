"""Fixtures of the tests of the CloudFormation templates. None needs an engine, an account or the network."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cloud import PROGRAMS, Cloud  # noqa: E402
from template import STACKS  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def lint(request):
    """cfn-lint, which takes its time: it begins with the session, beside the other tests."""
    if not any(item.name == "test_lint" for item in request.session.items):
        yield
        return
    templates = sorted(STACKS.glob("*/template.yaml"))
    lint = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "--", PROGRAMS / "cfn-lint", "--", *templates],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield lint
    lint.kill()
    lint.wait()


@pytest.fixture(scope="session")
def cloud():
    """One account for all tests that only make stacks of their own names in it."""
    cloud = Cloud()
    yield cloud
    cloud.close()


@pytest.fixture
def empty_cloud():
    """An account that nothing was made in."""
    cloud = Cloud()
    yield cloud
    cloud.close()
