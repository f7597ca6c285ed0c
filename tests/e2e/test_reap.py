"""What ended agents and owners leave is removed, and nothing else."""

import hashlib
import hmac
import subprocess

import pytest

from harness import OWNER_LABEL, Engine, create, raw, sockguard_binary, unique, until

AGENT_LABEL = "com.buildkite.sockguard.agent"
SEAL_LABEL = "com.buildkite.sockguard.seal"


@pytest.fixture(scope="module")
def own_engine():
    """An engine of its own: it is restarted."""
    engine = Engine()
    yield engine
    engine.stop()


def seal(owner, key=b"sockguard"):
    return hmac.new(key, b"container\0" + owner.encode(), hashlib.sha256).hexdigest()[:32]


class Owned:
    """Objects as sockguard makes them for this owner, by the given agent: by hand on the bare engine."""

    def __init__(self, engine, owner, agent=None):
        self.socket = engine.socket
        self.owner = owner
        self.labels = {OWNER_LABEL: owner, **({AGENT_LABEL: agent} if agent else {})}

    def container(self, running=True, **body):
        labels = {**self.labels, SEAL_LABEL: seal(self.owner)}
        container = create(self.socket, Labels=labels, Cmd=["sleep", "600"], StopTimeout=0, **body)
        if running:
            assert raw(self.socket, "POST", f"/containers/{container}/start").status == 204
        return container

    def network(self, name=None):
        answer = raw(self.socket, "POST", "/networks/create", {"Name": name or unique("net"), "Labels": self.labels})
        assert answer.status == 201, answer.text
        return answer.json()["Id"]

    def volume(self, name=None):
        answer = raw(self.socket, "POST", "/volumes/create", {"Name": name or unique("vol"), "Labels": self.labels})
        assert answer.status == 201, answer.text
        return answer.json()["Name"]

    def image(self, *names):
        name, *more = names or [unique("img") + ":1"]
        body = {"Labels": {OWNER_LABEL: self.owner}}
        repo, tag = name.split(":")
        container = create(self.socket)
        answer = raw(self.socket, "POST", f"/commit?container={container}&repo={repo}&tag={tag}", body)
        assert answer.status == 201, answer.text
        raw(self.socket, "DELETE", f"/containers/{container}")
        for other in more:
            repo, tag = other.split(":")
            assert raw(self.socket, "POST", f"/images/{name}/tag?repo={repo}&tag={tag}").status == 201
        return answer.json()["Id"]


def is_there(engine, kind, name):
    path = f"/{kind}/{name}" + ("/json" if kind in ("containers", "images") else "")
    status = raw(engine.socket, "GET", path).status
    assert status in (200, 404), status
    return status == 200


def reap(engine, owner, *flags):
    command = [sockguard_binary(), "reap", "--owner", owner, "--upstream-socket", engine.socket, *flags]
    done = subprocess.run(command, capture_output=True, timeout=120, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_by_hand_all_of_an_owner_is_listed_and_then_removed(own_engine):
    mine, other = Owned(own_engine, unique("mine")), Owned(own_engine, unique("other"))
    network, volume = mine.network(), mine.volume()
    image = mine.image(unique("one") + ":1", unique("two") + ":1")
    bound = {"HostConfig": {"NetworkMode": network, "Binds": [f"{volume}:/v"]}}
    containers = [mine.container(**bound), mine.container(running=False, image=image)]
    kept = [("containers", other.container()), ("networks", other.network()), ("volumes", other.volume()), ("images", other.image())]
    # What the host starts from the owner's image inherits its label.
    inherited = create(own_engine.socket, image=image, Labels={SEAL_LABEL: seal("someone")})
    mixed = {"containers": [inherited], "images": [image]}
    gone = {"containers": containers, "networks": [network], "volumes": [volume]}

    status, lines, _ = reap(own_engine, mine.owner, "--dry-run")
    assert status == 0
    assert sorted(line.split()[2] for line in lines if line.startswith("would remove")) == ["container"] * 2 + ["image", "network", "volume"]
    assert all(is_there(own_engine, kind, name) for objects in (gone, mixed) for kind, names in objects.items() for name in names)

    # The image is in use by what is not the owner's: it stays, and so does that.
    status, lines, err = reap(own_engine, mine.owner)
    assert status == 1 and "1 objects" in err, (lines, err)
    assert [line.split()[1] for line in lines if line.startswith("removed")] == ["container", "container", "network", "volume"]
    assert not any(is_there(own_engine, kind, name) for kind, names in gone.items() for name in names)
    assert all(is_there(own_engine, kind, name) for kind, names in mixed.items() for name in names)

    raw(own_engine.socket, "DELETE", f"/containers/{inherited}")
    status, lines, err = reap(own_engine, mine.owner)
    assert (status, [line.split()[:2] for line in lines]) == (0, [["removed", "image"]]), (lines, err)
    assert not is_there(own_engine, "images", image)
    assert reap(own_engine, mine.owner)[:2] == (0, [])
    assert all(is_there(own_engine, kind, name) for kind, name in kept)


def test_by_hand_without_an_engine_or_an_owner(tmp_path):
    def status(*flags):
        return subprocess.run([sockguard_binary(), "reap", *flags], capture_output=True, timeout=60).returncode
    assert status("--owner", "x", "--upstream-socket", tmp_path / "absent.sock") == 3
    assert status("--owner", "a b") == status("--dry-run") == status("--nope") == 2
