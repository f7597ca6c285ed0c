"""Configuration files: several sockets in one process, and what is said about mistakes."""

import os
import subprocess

import pytest

import harness
from harness import OWNER_LABEL, create, raw, sockguard_binary, unique


class Configured(harness.Guard):
    """A sockguard with a configuration file, which stands in its directory."""

    def __init__(self, engine, listeners):
        self.listeners = listeners
        super().__init__(engine)

    def path(self, name):
        return str(self.dir / "sockets" / f"{name}.sock")

    def command(self):
        lines = [f'upstream = "{self.upstream}"', f'seal-key = "{self.dir}/state/seal.key"', 'log-format = "json"']
        for name, more in self.listeners.items():
            lines += ["[[listener]]", f'socket = "{self.path(name)}"', *more]
        for directory, mode in (("state", 0o700), ("sockets", 0o755)):
            (self.dir / directory).mkdir(mode=mode, exist_ok=True)
        (self.dir / "c.toml").write_text("\n".join(lines) + "\n")
        return [sockguard_binary(), "--config", str(self.dir / "c.toml")]

    def run(self, command):
        """What a command says about the same file: (rc, out, err)."""
        done = subprocess.run([sockguard_binary(), command, "--config", str(self.dir / "c.toml")], capture_output=True,
                              text=True, timeout=60, env={k: v for k, v in os.environ.items() if k[:10] != "SOCKGUARD_"})
        return done.returncode, done.stdout, done.stderr


def fixed(owner, policy="ci-agent"):
    return ['identity = "fixed"', f'owner = "{owner}"', f'policy = "{policy}"']


@pytest.fixture(scope="module")
def pair(engine):
    owners = unique("one"), unique("two")
    guard = Configured(engine, {"one": fixed(owners[0]), "two": fixed(owners[1]), "look": fixed(owners[0], "read-only")})
    guard.owners = owners
    yield guard
    guard.close()


def test_each_socket_has_its_owner_and_policy(pair, engine):
    one, two, look = (pair.path(name) for name in ("one", "two", "look"))
    container = create(one)
    try:
        assert raw(engine.socket, "GET", f"/containers/{container}/json").json()["Config"]["Labels"][OWNER_LABEL] == pair.owners[0]
        assert raw(two, "GET", f"/containers/{container}/json").status == 404
        assert raw(two, "DELETE", f"/containers/{container}?force=1").status == 404
        # The same owner under another policy: the seals are made with one key.
        assert raw(look, "GET", f"/containers/{container}/json").status == 200
        assert raw(look, "DELETE", f"/containers/{container}").status == 403
    finally:
        assert raw(one, "DELETE", f"/containers/{container}?force=1").status == 204


def test_check_and_health_look_at_every_socket(pair):
    rc, out, err = pair.run("check")
    assert (rc, err) == (0, "") and [line.split(":")[0] for line in out.splitlines()] == ["ok"] * 3, out + err
    assert pair.run("health") == (0, "", "")


def test_what_a_seal_is_made_with_stays(engine):
    """A container is own after a restart, and nobody's under another key."""
    guard = Configured(engine, {"one": fixed(unique("sealed"))})
    try:
        container = create(guard.path("one"))
        guard.restart()
        assert raw(guard.path("one"), "GET", f"/containers/{container}/json").status == 200
        guard.stop()
        (guard.dir / "state" / "seal.key").unlink()
        guard.start()
        assert raw(guard.path("one"), "GET", f"/containers/{container}/json").status == 404
    finally:
        raw(engine.socket, "DELETE", f"/containers/{container}?force=1")
        guard.close()


def test_processes_of_the_host_are_agents_by_their_user(engine):
    """A listener for peers, without containers: each user of the host is an agent, and others are strangers."""
    guard = Configured(engine, {"peer": ['identity = "peer"', 'mode = "0666"', "[[agent]]", "uid = 4321",
                                         'owner = "user-{uid}"', 'policy = "ci-agent"']})
    try:
        refused = raw(guard.path("peer"), "GET", "/_ping")
        assert refused.status == 403 and refused.json()["message"].startswith("sockguard: no agent rule matches"), refused.text
        # That it refuses who asks is a sign of life, if the engine lives, too.
        assert guard.run("health") == (0, "", "")
        rc, out, err = guard.run("check")
        assert rc == 0 and "processes of user 4321: owner user-{uid}, policy ci-agent" in out, out + err
    finally:
        guard.close()
