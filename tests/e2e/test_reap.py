"""What ended agents and owners leave is removed, and nothing else."""

import hashlib
import hmac
import shutil
import subprocess
import time

import pytest

from harness import IMAGE_LABEL, OWNER_LABEL, Engine, Guard, create, own_directory, raw, sockguard_binary, unique, until

AGENT_LABEL = "com.buildkite.sockguard.agent"
SEAL_LABEL = "com.buildkite.sockguard.seal"

# Objects are made by hand on the bare engine, as sockguard makes them, so the key has to be known.
KEY = b"k" * 32
CONFIG = """
upstream = "{upstream}"
seal-key = "{directory}/seal.key"
log-format = "json"

[reap]
grace = "{grace}"
images = {images}

[[listener]]
socket = "{socket}"
identity = "peer"

[[agent]]
labels = {{ "agent" = "*" }}
owner = "{{label:agent}}"
policy = "ci-agent"
"""


@pytest.fixture(scope="module")
def own_engine():
    """An engine of its own: it is restarted."""
    engine = Engine()
    yield engine
    engine.stop()


class Watcher(Guard):
    """A sockguard that serves agents in containers, and cleans up after them."""

    def __init__(self, engine, grace="1s", images=False):
        self.grace, self.images = grace, images
        self.state = own_directory("state-")
        super().__init__(engine)

    def command(self):
        (self.state / "seal.key").write_bytes(KEY)
        (self.state / "seal.key").chmod(0o600)
        self.config = self.state / "sockguard.toml"
        self.config.write_text(CONFIG.format(upstream=self.upstream, directory=self.state, socket=self.socket,
                                             grace=self.grace, images=str(self.images).lower()))
        return [sockguard_binary(), "--config", str(self.config)]

    def close(self):
        super().close()
        shutil.rmtree(self.state, ignore_errors=True)

    def removed(self, owner):
        """The kinds of what was removed of this owner, as the log says."""
        return sorted(line["kind"] for line in self.log() if line.get("message") == "removed" and line["owner"] == owner)


@pytest.fixture
def watcher(own_engine):
    made = []

    def make(**settings):
        made.append(Watcher(own_engine, **settings))
        return made[-1]
    yield make
    for guard in made:
        guard.close()


class Agent:
    """An agent's container, as the host starts it."""

    def __init__(self, engine):
        self.engine = engine
        self.id = create(engine.socket, Cmd=["sleep", "600"], StopTimeout=0, Labels={"agent": unique("task")})
        self.start()

    def do(self, action):
        answer = raw(self.engine.socket, "POST", f"/containers/{self.id}/{action}")
        assert answer.status in (204, 304), answer.text

    def start(self):
        self.do("start")

    def stop(self):
        self.do("stop?t=0")

    def remove(self):
        assert raw(self.engine.socket, "DELETE", f"/containers/{self.id}?force=1").status == 204


def seal(owner, key=KEY):
    return hmac.new(key, b"container\0" + owner.encode(), hashlib.sha256).hexdigest()[:32]


class Owned:
    """Objects as sockguard makes them for this owner, by the given agent: by hand on the bare engine."""

    def __init__(self, engine, owner, agent=None, key=KEY):
        self.engine = engine
        self.socket = engine.socket
        self.owner = owner
        self.key = key
        self.labels = {OWNER_LABEL: owner, **({AGENT_LABEL: agent} if agent else {})}

    def container(self, running=True, **body):
        labels = {**self.labels, SEAL_LABEL: seal(self.owner, self.key)}
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


    def some(self):
        """One of each kind that tells its agent: [(kind, name)]; the container uses the others."""
        network, volume = self.network(), self.volume()
        container = self.container(HostConfig={"NetworkMode": network, "Binds": [f"{volume}:/v"]})
        return [("containers", container), ("networks", network), ("volumes", volume)]


def is_there(engine, kind, name):
    path = f"/{kind}/{name}" + ("/json" if kind in ("containers", "images") else "")
    status = raw(engine.socket, "GET", path).status
    assert status in (200, 404), status
    return status == 200


def there(engine, objects):
    return [kind for kind, name in objects if is_there(engine, kind, name)]


ALL = ["containers", "networks", "volumes"]


def reap(engine, owner, *flags):
    command = [sockguard_binary(), "reap", "--owner", owner, "--upstream-socket", engine.socket, *flags]
    done = subprocess.run(command, capture_output=True, timeout=120, text=True)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_the_engine_comes_back_without_its_agents(own_engine, watcher):
    """When it starts, it ends what still runs, and starts one of it again."""
    a = Agent(own_engine)
    ours = Owned(own_engine, unique("gone"), a.id).some()
    stays = create(own_engine.socket, Cmd=["sleep", "600"], StopTimeout=0, Labels={"agent": "stays"},
                   HostConfig={"RestartPolicy": {"Name": "always"}})
    assert raw(own_engine.socket, "POST", f"/containers/{stays}/start").status == 204
    kept = Owned(own_engine, unique("stays"), stays).some()
    guard = watcher(grace="3s")
    own_engine.kill()
    own_engine.start()
    until(lambda: not there(own_engine, ours), 90, "the end of what the agent left")
    assert there(own_engine, kept) == ALL
    assert guard.process.poll() is None


def test_by_hand_all_of_an_owner_is_listed_and_then_removed(own_engine):
    usual = {"key": b"sockguard"}
    mine, other = Owned(own_engine, unique("mine"), **usual), Owned(own_engine, unique("other"), **usual)
    network, volume = mine.network(), mine.volume()
    image = mine.image(unique("one") + ":1", unique("two") + ":1")
    bound = {"HostConfig": {"NetworkMode": network, "Binds": [f"{volume}:/v"]}}
    containers = [mine.container(**bound), mine.container(running=False, image=image)]
    kept = [("containers", other.container()), ("networks", other.network()), ("volumes", other.volume()), ("images", other.image())]
    # What the host starts from the owner's image inherits its label.
    inherited = create(own_engine.socket, image=image)
    mixed = {"containers": [inherited], "images": [image]}
    gone = {"containers": containers, "networks": [network], "volumes": [volume]}

    status, lines, _ = reap(own_engine, mine.owner, "--dry-run")
    assert status == 0
    assert sorted(line.split()[2] for line in lines if line.startswith("would remove")) == ["container"] * 2 + ["image", "network", "volume"]
    assert all(is_there(own_engine, kind, name) for objects in (gone, mixed) for kind, names in objects.items() for name in names)

    # Under another key: whose the rest is cannot be told.
    foreign = Owned(own_engine, mine.owner, key=b"another key").container()
    for flags in (["--dry-run"], []):
        status, lines, err = reap(own_engine, mine.owner, *flags)
        assert status == 1 and "another key" in err, (lines, err)
        assert all(line.startswith("left container") for line in lines), lines
    assert all(is_there(own_engine, kind, name) for objects in (gone, mixed) for kind, names in objects.items() for name in names)
    raw(own_engine.socket, "DELETE", f"/containers/{foreign}?force=1")

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


def test_what_has_its_seal_from_its_image_stays(own_engine):
    owner, name = unique("sealed"), unique("elsewhere") + ":1"
    labels = {OWNER_LABEL: owner, SEAL_LABEL: seal(owner, b"sockguard")}
    # Made elsewhere, by who knows the seal; the host starts a container of it.
    own_engine.image(name, changes=[f"LABEL {key}={value}" for key, value in labels.items()])
    hosts = create(own_engine.socket, name)
    # One of the owner's, whose image's name stood for another when it was made.
    raced = create(own_engine.socket, Labels={**labels, IMAGE_LABEL: "sha256:" + "0" * 64})
    status, lines, err = reap(own_engine, owner)
    assert status == 1 and "2 objects" in err, (lines, err)
    assert sorted(line.split()[:2] for line in lines) == [["left", "container"], ["left", "image"], ["removed", "container"]], lines
    assert is_there(own_engine, "containers", hosts) and not is_there(own_engine, "containers", raced)


def test_by_hand_without_an_engine_or_an_owner(tmp_path):
    def status(*flags):
        return subprocess.run([sockguard_binary(), "reap", *flags], capture_output=True, timeout=60).returncode
    assert status("--owner", "x", "--upstream-socket", tmp_path / "absent.sock") == 3
    assert status("--owner", "a b") == status("--dry-run") == status("--nope") == 2


def test_what_a_stopped_agent_left_goes_and_others_stay(own_engine, watcher):
    a, b = Agent(own_engine), Agent(own_engine)
    left, other = Owned(own_engine, unique("a"), a.id), Owned(own_engine, unique("b"), b.id)
    # Another sockguard serves these: they name no agent, or carry another's seal.
    fixed = Owned(own_engine, left.owner)
    forged = Owned(own_engine, left.owner, a.id, key=b"another key")
    theirs = [*other.some(), *fixed.some(), ("containers", forged.container())]
    ours = left.some()
    guard = watcher()
    a.stop()
    until(lambda: not there(own_engine, ours), 60, "the end of what the agent left")
    until(lambda: guard.removed(left.owner) == ["container", "network", "volume"], 20, "the log's lines")
    assert len(there(own_engine, theirs)) == len(theirs)
    assert is_there(own_engine, "containers", a.id), "the agent's own container is the host's"

    # It began while nobody watched, and its name is another's by now.
    kept = other.volume()
    gone = other.volume()
    guard.stop()
    b.remove()
    raw(own_engine.socket, "DELETE", f"/volumes/{kept}")
    new = Agent(own_engine)
    newer = Owned(own_engine, unique("new"), new.id)
    assert newer.volume(kept) == kept
    guard.start()
    until(lambda: not there(own_engine, [*theirs[:3], ("volumes", gone)]), 60, "the end of what was left meanwhile")
    assert is_there(own_engine, "volumes", kept) and len(there(own_engine, theirs[3:])) == 4
    assert guard.removed(newer.owner) == []


def test_an_agent_that_starts_again_finds_everything(own_engine, watcher):
    watcher(grace="3s")
    for _ in range(5):
        a, marker = Agent(own_engine), Agent(own_engine)
        kept = Owned(own_engine, unique("again"), a.id).some()
        ends_later = [("volumes", Owned(own_engine, unique("signal"), marker.id).volume())]
        began = time.monotonic()
        a.stop()
        a.start()
        in_time = time.monotonic() - began < 2.5
        # When what ended later is gone, the other's grace period is over, too.
        marker.stop()
        until(lambda: not there(own_engine, ends_later), 60, "the end of what ended later")
        if in_time:
            break
    else:
        pytest.fail("this machine is too slow to start a container within the grace period")
    assert there(own_engine, kept) == ALL


def test_an_owner_lives_as_long_as_one_of_its_agents(own_engine, watcher):
    first, second, marker = (Agent(own_engine) for _ in range(3))
    owner = unique("two")
    ours = Owned(own_engine, owner, first.id).some()
    volume = [("volumes", Owned(own_engine, owner, second.id).volume())]
    ends_later = [("volumes", Owned(own_engine, unique("signal"), marker.id).volume())]
    watcher()
    first.remove()
    marker.stop()
    until(lambda: not there(own_engine, ends_later), 60, "the end of what ended later")
    assert there(own_engine, ours + volume) == [*ALL, "volumes"]
    # Nothing of its own is left when it ends: the other's objects are known to wait for it.
    raw(own_engine.socket, "DELETE", f"/volumes/{volume[0][1]}")
    second.stop()
    until(lambda: not there(own_engine, ours), 60, "the end of what both left")


def test_what_is_in_use_is_tried_again(own_engine, watcher):
    a = Agent(own_engine)
    left = Owned(own_engine, unique("used"), a.id)
    volume = left.volume()
    user = create(own_engine.socket, HostConfig={"Binds": [f"{volume}:/v"]})
    goes = [("networks", left.network())]
    watcher()
    a.remove()
    until(lambda: not there(own_engine, goes), 60, "the end of what nobody uses")
    assert is_there(own_engine, "volumes", volume) and is_there(own_engine, "containers", user)
    assert raw(own_engine.socket, "DELETE", f"/containers/{user}").status == 204
    until(lambda: not is_there(own_engine, "volumes", volume), 60, "the end of what nobody uses any more")


def test_images_go_where_it_is_set(own_engine, watcher):
    agents = [Agent(own_engine), Agent(own_engine)]
    left = [Owned(own_engine, unique("images"), agent.id) for agent in agents]
    images = [owned.image(unique("x") + ":1", unique("y") + ":1") for owned in left]
    volumes = [("volumes", owned.volume()) for owned in left]
    guard = watcher()
    agents[0].stop()
    until(lambda: not there(own_engine, volumes[:1]), 60, "the end of what is no image")
    guard.stop()
    watcher(images=True)
    agents[1].stop()
    until(lambda: not is_there(own_engine, "images", images[1]), 60, "the image's end")
    assert is_there(own_engine, "images", images[0])
