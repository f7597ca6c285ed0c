"""A stand-in for AWS: moto's server in a process of its own, on a port of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
from botocore.config import Config
from template import REGION

# The programs of this environment, such as `aws` and `cfn-lint`.
PROGRAMS = Path(sys.executable).parent


class Cloud:
    """An account of its own. `settings` are environment variables for moto, such as INITIAL_NO_AUTH_ACTION_COUNT."""

    def __init__(self, **settings):
        self._said = tempfile.NamedTemporaryFile("w")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", sys.executable, Path(__file__).with_name("aws_server.py"), "-H", "127.0.0.1", "-p", "0"],
            stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said,
            env=environment | {"PYTHONUNBUFFERED": "1"} | settings)
        self.url = self._listens()

    def _listens(self):
        end = time.monotonic() + 120
        while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", self.log())):
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise RuntimeError(f"moto does not start: {self.log()}")
            time.sleep(0.05)
        return found[1]

    def log(self):
        """What moto said so far: its requests and its errors."""
        return Path(self._said.name).read_text()

    @property
    def environment(self):
        """For programs that are to use this account: the tests' own environment without any other account's settings."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        return environment | {
            "PATH": f"{PROGRAMS}:{environment['PATH']}",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url, "AWS_PAGER": "", "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        }

    def client(self, service, key="test", secret="test"):
        """A client of one of the account's services."""
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret,
            config=Config(retries={"max_attempts": 1}, read_timeout=120, proxies={}))

    def close(self):
        """Ends it, with all that was made in it."""
        self._process.kill()
        self._process.wait()
