"""Two owners on one engine: neither sees nor touches anything of the other.

Alice has one of everything; every way to name it is tried through Bob's guard, and each answer
must be what the engine says of an object that does not exist.
"""

import io
import json
import tarfile
import time
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from harness import Conn, create, docker, open_stream, raw, tar_of, unique, until

pytestmark = pytest.mark.security


@dataclass
class World:
    """What Alice has."""
    name: str
    container: str
    stopped: str
    network: str
    image: str
    tag: str
    volume: str
    exec: str

    def secrets(self):
        """Texts of which none may ever reach Bob."""
        return [self.name, self.container[:12], self.stopped[:12], self.network[:12], self.image.removeprefix("sha256:")[:12], self.exec]


@pytest.fixture(scope="module")
def world(two_guards, engine):
    alice, bob = two_guards
    name = unique("alices")
    network = raw(alice.socket, "POST", "/networks/create", {"Name": f"{name}-net"}).json()["Id"]
    assert raw(alice.socket, "POST", "/volumes/create", {"Name": f"{name}-vol"}).status == 201
    container = create(
        alice.socket, name=f"{name}-box", Cmd=["sleep", "100000"], Labels={"secret-label": name}, Env=[f"SECRET={name}"],
        HostConfig={"Binds": [f"{name}-vol:/v"], "NetworkMode": f"{name}-net"},
    )
    assert raw(alice.socket, "POST", f"/containers/{container}/start").status == 204
    bridged = create(alice.socket, name=f"{name}-bridged", Cmd=["sleep", "100000"])
    assert raw(alice.socket, "POST", f"/containers/{bridged}/start").status == 204
    stopped = create(alice.socket, name=f"{name}-stopped", Cmd=["true"])
    made = raw(alice.socket, "POST", f"/commit?container={container}&repo=alice/{name}&tag=1")
    assert made.status == 201, made.text
    execution = raw(alice.socket, "POST", f"/containers/{container}/exec", {"Cmd": ["cat"], "AttachStdout": True, "AttachStdin": True})
    return World(name, container, stopped, network, made.json()["Id"], f"alice/{name}:1", f"{name}-vol", execution.json()["Id"])


@pytest.fixture
def alice(two_guards, world, engine):
    """Alice's guard; afterwards all of hers must be as it was."""
    before = state_of(engine, world)
    yield two_guards[0]
    assert state_of(engine, world) == before


@pytest.fixture
def bob(two_guards, alice):
    return two_guards[1]


def state_of(engine, world):
    """What an attack could have changed, from the engine itself."""
    container = raw(engine.socket, "GET", f"/containers/{world.container}/json").json()
    return (
        container["Name"], container["State"]["Status"], container["State"]["StartedAt"], container["HostConfig"]["Memory"], container["Config"]["Labels"],
        sorted(container["NetworkSettings"]["Networks"]), raw(engine.socket, "GET", f"/containers/{world.stopped}/json").status,
        engine.changed(container),
        raw(engine.socket, "GET", f"/volumes/{world.volume}").status, raw(engine.socket, "GET", f"/networks/{world.network}").json()["Name"],
        sorted(raw(engine.socket, "GET", f"/networks/{world.network}").json()["Containers"]), raw(engine.socket, "GET", f"/images/{world.tag}/json").json()["Id"],
        raw(engine.socket, "GET", f"/images/{world.image}/json").json()["RepoTags"], raw(engine.socket, "GET", f"/exec/{world.exec}/json").json()["Running"],
    )


def clean(answer, world, sent=""):
    """Nothing of Alice's in the answer, but for what Bob sent himself."""
    text = answer.text + " ".join(answer.headers.values())
    for secret in world.secrets():
        if secret not in sent:
            assert secret not in text, (secret, sent, text[:500])


def names_of(world):
    return [world.container, world.container[:12], world.container[:4], f"{world.name}-box"]


# --- by every endpoint and name form, as absent

CONTAINER_CALLS = [
    ("GET", "/json"), ("GET", "/json?size=1"), ("GET", "/top"), ("GET", "/logs?stdout=1"), ("GET", "/logs?stdout=1&follow=1"), ("GET", "/changes"), ("GET", "/export"),
    ("GET", "/stats?stream=0"), ("GET", "/stats?stream=0&one-shot=1"), ("GET", "/stats"), ("POST", "/resize?h=1&w=1"), ("POST", "/start"), ("POST", "/stop?t=0"), ("POST", "/restart?t=0"),
    ("POST", "/kill"), ("POST", "/kill?signal=0"), ("POST", "/update", {"Memory": 33554432}), ("POST", "/rename?name=stolen-NAME"), ("POST", "/pause"), ("POST", "/unpause"),
    ("POST", "/attach?stream=1&stdout=1"), ("GET", "/attach/ws?stream=1"), ("POST", "/wait"), ("POST", "/wait?condition=next-exit"), ("DELETE", ""), ("DELETE", "?force=1&v=1"), ("HEAD", "/archive?path=/"),
    ("GET", "/archive?path=/etc/passwd"), ("PUT", "/archive?path=/"), ("POST", "/exec", {"Cmd": ["id"]}), ("GET", "/checkpoints"),
]


@pytest.mark.parametrize("call", CONTAINER_CALLS, ids=lambda call: f"{call[0]} {call[1]}")
def test_container_calls(bob, world, call):
    method, suffix, *body = call
    body = body[0] if body else (tar_of({"x": "y"}) if method == "PUT" else None)
    headers = {"Connection": "Upgrade", "Upgrade": "tcp"} if "/attach?" in suffix else {}
    if "/ws" in suffix:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Version": "13", "Origin": "http://x"}
    absent = raw(bob.socket, method, f"/containers/no-such-thing{suffix}", body, headers)
    assert absent.status in (404, 400) or "checkpoints" in suffix, absent
    for name in names_of(world):
        answer = raw(bob.socket, method, f"/v1.41/containers/{name}{suffix}", body, headers)
        assert (answer.status, answer.text.replace(name, "no-such-thing")) == (absent.status, absent.text), (name, answer)
        clean(answer, world, name)


@pytest.mark.parametrize("call", [
    ("GET", "/json"), ("POST", "/start", {"Detach": True}), ("POST", "/start", {}), ("POST", "/resize?h=1&w=1"),
], ids=lambda call: f"{call[0]} {call[1]}")
def test_exec_ids(bob, world, call):
    method, suffix, *body = call
    absent = raw(bob.socket, method, f"/exec/{'0' * 64}{suffix}", *body)
    assert absent.status == 404
    answer = raw(bob.socket, method, f"/exec/{world.exec}{suffix}", *body)
    assert (answer.status, answer.text.replace(world.exec, "0" * 64)) == (404, absent.text)


@pytest.mark.parametrize("call", [
    ("GET", ""), ("GET", "?verbose=1"), ("DELETE", ""), ("POST", "/connect", {"Container": "BOBS"}), ("POST", "/disconnect", {"Container": "BOBS", "Force": True}),
], ids=lambda call: f"{call[0]} {call[1]}")
def test_networks(bob, world, call):
    method, suffix, *body = call
    if body:
        body = [{**body[0], "Container": create(bob.socket)}]
    absent = raw(bob.socket, method, f"/networks/no-such-thing{suffix}", *body)
    assert absent.status == 404
    for name in (world.network, world.network[:12], world.network[:4], f"{world.name}-net"):
        answer = raw(bob.socket, method, f"/networks/{name}{suffix}", *body)
        assert (answer.status, answer.text.replace(name, "no-such-thing")) == (404, absent.text), (name, answer)


def test_alices_container_cannot_be_put_on_bobs_network(bob, world):
    network = raw(bob.socket, "POST", "/networks/create", {"Name": unique("bobs")}).json()["Id"]
    for call in ("connect", "disconnect"):
        for target in (network, "bridge"):
            for name in (*names_of(world), f"{world.name}-bridged"):
                answer = raw(bob.socket, "POST", f"/networks/{target}/{call}", {"Container": name, "Force": True} if call == "disconnect" else {"Container": name})
                assert answer.status in (404, 403), answer
                clean(answer, world, name)


@pytest.mark.parametrize("call", [("GET", ""), ("DELETE", ""), ("DELETE", "?force=1")], ids=lambda call: f"{call[0]} {call[1]}")
def test_volumes(bob, world, call):
    method, suffix = call
    absent = raw(bob.socket, method, f"/volumes/no-such-thing{suffix}")
    answer = raw(bob.socket, method, f"/volumes/{world.volume}{suffix}")
    assert (answer.status, answer.text.replace(world.volume, "no-such-thing")) == (absent.status, absent.text)


def test_a_foreign_volume_cannot_be_taken_over_by_create(bob, world):
    """The engine answers a create of an existing volume with that volume."""
    answer = raw(bob.socket, "POST", "/volumes/create", {"Name": world.volume})
    assert answer.status in (403, 409), answer
    assert "Mountpoint" not in answer.text


IMAGE_CALLS = [("GET", "/json"), ("GET", "/history"), ("GET", "/get"), ("POST", "/tag?repo=bob/own&tag=1"), ("POST", "/push"), ("DELETE", ""), ("DELETE", "?force=1")]


@pytest.mark.parametrize("call", IMAGE_CALLS, ids=lambda call: f"{call[0]} {call[1]}")
def test_images(bob, world, call):
    method, suffix = call
    headers = {"X-Registry-Auth": "e30="}
    short = world.image.removeprefix("sha256:")
    for name, stranger in (
        (world.tag, f"alice/{'x' * len(world.name)}:1"), (world.image, "sha256:" + "0" * 64), (short[:12], "0" * 12), (short[:5], "0" * 5), (short, "0" * 64),
    ):
        absent = raw(bob.socket, method, f"/images/{stranger}{suffix}", None, headers)
        answer = raw(bob.socket, method, f"/images/{name}{suffix}", None, headers)
        if suffix == "/push" and answer.status == 403:
            continue  # a push of what cannot be a reference in a registry may be refused as such
        plain = lambda text, word: text.replace(word, "@").replace(word.split(":")[0], "@")  # noqa: E731
        assert (answer.status, plain(answer.text, name)) == (absent.status, plain(absent.text, stranger)), (name, answer)


def test_images_in_a_save_of_several(bob, world):
    for query in (f"names={quote(world.tag)}", f"names=busybox&names={quote(world.tag)}", f"names={world.image}", f"names=alice/{world.name}"):
        answer = raw(bob.socket, "GET", f"/images/get?{query}")
        assert answer.status in (403, 404), answer.status
        assert len(answer.body) < 5000


def test_a_foreign_image_cannot_be_run(bob, world):
    for name in (world.tag, f"alice/{world.name}:1", world.image, world.image.removeprefix("sha256:")[:12]):
        answer = raw(bob.socket, "POST", "/containers/create", {"Image": name})
        assert answer.status == 404 and "o such image" in answer.text, answer


@pytest.mark.parametrize("dockerfile", [
    "FROM {tag}\n", "FROM {image}\n", "FROM busybox\nCOPY --from={tag} /bin/busybox /x\n", "FROM busybox AS a\nFROM {tag}\n", "ARG B={tag}\nFROM $B\n", "ARG B\nFROM ${{B:-{tag}}}\n",
    "FROM busybox\nCOPY --from={image} /bin/busybox /x\n", "from {tag}\n", "FROM --platform=linux/amd64 {tag} AS x\n", "# escape=`\nFROM `\n{tag}\n", "FROM \\\n  {tag}\n",
])
def test_a_foreign_image_cannot_be_built_from(bob, world, dockerfile):
    text = dockerfile.format(tag=world.tag, image=world.image.removeprefix("sha256:")[:12])
    answer = raw(bob.socket, "POST", "/build?t=bob/stolen", tar_of({"Dockerfile": text}), {"Content-Type": "application/x-tar"}, timeout=180)
    assert answer.status != 200 or "Successfully built" not in answer.text, answer.text
    assert raw(bob.socket, "GET", "/images/bob/stolen/json").status == 404


def test_a_foreign_image_cannot_be_built_from_by_build_argument(bob, world):
    args = quote(json.dumps({"B": world.tag}))
    answer = raw(bob.socket, "POST", f"/build?buildargs={args}&t=bob/stolen", tar_of({"Dockerfile": "ARG B=busybox\nFROM $B\n"}), {"Content-Type": "application/x-tar"}, timeout=180)
    assert answer.status != 200 or "Successfully built" not in answer.text, answer.text


def test_one_job_pushes_an_image_and_anothers_pulls_it(make_guard, engine):
    """The image is here as Alice's already. Bob's pull changes nothing, so it goes, and he may use what he could pull."""
    alice, bob, carol = (make_guard(owner=unique(name)) for name in ("alice", "bob", "carol"))
    name = f"{engine.registry}/team/{unique('app')}"
    build = "FROM busybox\nRUN echo of alice > /made\nCMD cat /made\n"
    for command, data in ((["build", "-t", f"{name}:sha", "-"], build), (["push", f"{name}:sha"], None)):
        rc, _, err = docker(alice.socket, *command, input=data)
        assert rc == 0, err

    def alices():
        image = raw(engine.socket, "GET", f"/images/{name}:sha/json").json()
        return image["Id"], image["RepoTags"]
    before = alices()
    assert raw(bob.socket, "GET", f"/images/{name}:sha/json").status == 404
    rc, out, err = docker(bob.socket, "pull", f"{name}:sha")
    assert rc == 0 and f"Status: Image is up to date for {name}:sha" in out, out + err
    digest = out.split("Digest: ")[1].split()[0]
    assert docker(bob.socket, "run", "--rm", f"{name}:sha")[:2] == (0, "of alice\n")
    assert raw(carol.socket, "GET", f"/images/{name}:sha/json").status == 404
    # A run pulls by itself what is not there, a build too, and a digest says the same.
    assert docker(carol.socket, "run", "--rm", f"{name}:sha")[:2] == (0, "of alice\n")
    dave = make_guard(owner=unique("dave"))
    rc, out, err = docker(dave.socket, "build", "-t", "dave/own", "-", input=f"FROM {name}:sha\nRUN cat /made\n")
    assert rc == 0 and "of alice" in out, out + err
    assert raw(dave.socket, "GET", "/images/dave/own/json").status == 200
    assert docker(dave.socket, "pull", f"{name}@{digest}")[0] == 0
    # What it may not: take the name away, or give it to another image.
    for guard in (bob, carol, dave):
        for call in (("DELETE", f"/images/{name}:sha"), ("DELETE", f"/images/{name}:sha?force=1"), ("POST", f"/images/busybox/tag?repo={name}&tag=sha")):
            assert raw(guard.socket, *call).status == 403, call
    assert alices() == before
    # When the registry has another image under the name, a pull would move it.
    for command in (["tag", "busybox", f"{name}:new"], ["push", f"{name}:new"]):
        assert docker(bob.socket, *command)[0] == 0
    with_new = raw(engine.socket, "POST", f"/images/busybox/tag?repo={name}&tag=sha")
    assert with_new.status == 201
    assert raw(engine.socket, "POST", f"/images/{name}/push?tag=sha", headers={"X-Registry-Auth": "e30="}).status == 200
    assert raw(engine.socket, "POST", f"/images/{before[0]}/tag?repo={name}&tag=sha").status == 201
    for guard in (bob, make_guard(owner=unique("eve"))):
        rc, _, err = docker(guard.socket, "pull", f"{name}:sha")
        assert rc == 1 and "the tag is in use" in err, err
    assert alices()[0] == before[0]


@pytest.mark.parametrize("what", ["tag", "commit", "build", "import", "load", "pull"])
def test_a_foreign_tag_cannot_be_taken(bob, world, what):
    repo = world.tag.removesuffix(":1")
    if what == "tag":
        answer = raw(bob.socket, "POST", f"/images/busybox/tag?repo={repo}&tag=1")
    elif what == "commit":
        answer = raw(bob.socket, "POST", f"/commit?container={create(bob.socket)}&repo={repo}&tag=1")
    elif what == "build":
        answer = raw(bob.socket, "POST", f"/build?t={world.tag}", tar_of({"Dockerfile": "FROM busybox\nCMD x\n"}), {"Content-Type": "application/x-tar"}, timeout=180)
    elif what == "import":
        answer = raw(bob.socket, "POST", f"/images/create?fromSrc=-&repo={repo}&tag=1", tar_of({"x": "y"}), {"Content-Type": "application/x-tar"})
    elif what == "load":
        saved = raw(bob.socket, "GET", "/images/busybox/get", timeout=180).body
        answer = raw(bob.socket, "POST", "/images/load", renamed_archive(saved, world.tag), {"Content-Type": "application/x-tar"}, timeout=180)
    else:
        answer = raw(bob.socket, "POST", f"/images/create?fromImage={repo}&tag=1", timeout=180)
    if what != "pull":  # a pull that fails in the registry is as good as a refusal
        assert answer.status in (403, 404, 409), answer


def renamed_archive(data, tag):
    """A saved image with other tags in its manifest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else None
            if member.name == "manifest.json":
                content = json.dumps([{**entry, "RepoTags": [tag]} for entry in json.loads(content)]).encode()
            elif member.name == "repositories":
                continue
            if content is not None:
                member.size = len(content)
            new.addfile(member, io.BytesIO(content) if content is not None else None)
    return out.getvalue()


# --- by reference from a container of one's own

REFERENCES = {
    "volume by bind": lambda w: {"Binds": [f"{w.volume}:/v"]},
    "volume by bind, read-only": lambda w: {"Binds": [f"{w.volume}:/v:ro"]},
    "volume by mount": lambda w: {"Mounts": [{"Type": "volume", "Source": w.volume, "Target": "/v"}]},
    "volumes from": lambda w: {"VolumesFrom": [f"{w.name}-box"]},
    "volumes from an id": lambda w: {"VolumesFrom": [f"{w.container[:12]}:ro"]},
    "network by name": lambda w: {"NetworkMode": f"{w.name}-net"},
    "network by id": lambda w: {"NetworkMode": w.network},
    "network of a container": lambda w: {"NetworkMode": f"container:{w.name}-box"},
    "network of a container by id": lambda w: {"NetworkMode": f"container:{w.container[:6]}"},
    "processes of a container": lambda w: {"PidMode": f"container:{w.container}"},
    "ipc of a container": lambda w: {"IpcMode": f"container:{w.name}-box"},
    "link": lambda w: {"Links": [f"{w.name}-bridged:x"]},
    "cgroup of a container": lambda w: {"Cgroup": f"container:{w.container}"},
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_references_from_a_container(bob, world, kind):
    host_config = REFERENCES[kind](world)
    answer = raw(bob.socket, "POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": host_config})
    if answer.status == 201:  # some name forms could only be found out at start
        started = raw(bob.socket, "POST", f"/containers/{answer.json()['Id']}/start")
        raw(bob.socket, "DELETE", f"/containers/{answer.json()['Id']}?force=1")
        answer = started
    assert answer.status in (403, 404, 409), (kind, answer)
    clean(answer, world, json.dumps(host_config))


def test_references_in_the_networking_config(bob, world):
    for name in (f"{world.name}-net", world.network, world.network[:12]):
        answer = raw(bob.socket, "POST", "/containers/create", {"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {name: {}}}})
        assert answer.status in (403, 404, 409), answer


def test_a_name_in_use_tells_nothing_but_that(bob, world):
    """Names are one space for all; the conflict may be told, the foreign ID may not."""
    answer = raw(bob.socket, "POST", f"/containers/create?name={world.name}-box", {"Image": "busybox"})
    assert answer.status == 409, answer
    clean(answer, world, f"{world.name}-box")
    mine = create(bob.socket)
    answer = raw(bob.socket, "POST", f"/containers/{mine}/rename?name={world.name}-box")
    assert answer.status == 409
    clean(answer, world, f"{world.name}-box")
    answer = raw(bob.socket, "POST", "/networks/create", {"Name": f"{world.name}-net", "CheckDuplicate": True})
    assert answer.status in (201, 403, 409)
    clean(answer, world, f"{world.name}-net")


# --- lists, usage, events

def test_lists_show_only_ones_own(two_guards, alice, bob, world):
    mine = create(bob.socket, name=unique("bobs"))
    for path in (
        "/containers/json?all=1", "/containers/json", "/containers/json?all=1&size=1", "/containers/json?limit=100", "/images/json", "/images/json?all=1", "/images/json?digests=1", "/networks", "/volumes",
        "/system/df", "/info", "/version", "/events?since=1&until=" + str(int(time.time())),
    ):
        clean(raw(bob.socket, "GET", path), world)
    assert [c["Id"] for c in raw(bob.socket, "GET", "/containers/json?all=1").json() if c["Id"] == mine]
    assert world.container in raw(alice.socket, "GET", "/containers/json?all=1").text


def test_filters_cannot_widen_a_list(bob, world, two_guards):
    owner = two_guards[0].owner
    label = f"com.buildkite.sockguard.owner={owner}"
    for path, filters in (
        ("/containers/json?all=1&", {"label": [label]}), ("/containers/json?all=1&", {"label": {label: True}}), ("/containers/json?all=1&", {"name": [world.name]}),
        ("/containers/json?all=1&", {"id": [world.container]}), ("/containers/json?all=1&", {"network": [world.network]}), ("/containers/json?all=1&", {"volume": [world.volume]}),
        ("/containers/json?all=1&", {"ancestor": [world.image]}), ("/containers/json?all=1&", {"since": [f"{world.name}-box"]}), ("/containers/json?all=1&", {"before": [f"{world.name}-box"]}),
        ("/images/json?", {"reference": [world.tag]}), ("/images/json?", {"label": [label]}), ("/images/json?", {"since": [world.tag]}), ("/images/json?", {"before": [world.tag]}),
        ("/networks?", {"name": [f"{world.name}-net"]}), ("/networks?", {"id": [world.network]}), ("/networks?", {"label": [label]}), ("/volumes?", {"name": [world.volume]}), ("/volumes?", {"dangling": ["false"]}),
    ):
        sent = json.dumps(filters)
        for quoted in (quote(sent), sent.replace(" ", "").replace('"', "%22").replace("{", "%7B").replace("}", "%7D")):
            answer = raw(bob.socket, "GET", f"{path}filters={quoted}")
            clean(answer, world, sent)


def test_a_filter_by_a_foreign_object_answers_as_by_an_absent_one(bob, world):
    for path, key, name, stranger in (
        ("/containers/json?all=1&", "since", f"{world.name}-box", "no-such-thing"), ("/containers/json?all=1&", "before", world.container[:12], "0" * 12),
        ("/images/json?", "since", world.tag, "alice/no-such-thing:1"), ("/images/json?", "before", world.tag, "alice/no-such-thing:1"),
    ):
        foreign = raw(bob.socket, "GET", f"{path}filters={quote(json.dumps({key: [name]}))}")
        absent = raw(bob.socket, "GET", f"{path}filters={quote(json.dumps({key: [stranger]}))}")
        assert (foreign.status, foreign.text.replace(name, "@")) == (absent.status, absent.text.replace(stranger, "@"))


def test_bridge_shows_only_ones_own_containers(two_guards, alice, bob, world):
    mine = create(bob.socket, Cmd=["sleep", "60"])
    raw(bob.socket, "POST", f"/containers/{mine}/start")
    answer = raw(bob.socket, "GET", "/networks/bridge")
    assert list(answer.json()["Containers"]) == [mine]
    clean(answer, world)
    clean(raw(bob.socket, "GET", "/networks/bridge?verbose=1"), world)
    theirs = raw(alice.socket, "GET", "/networks/bridge").json()["Containers"]
    assert [c["Name"] for c in theirs.values()] == [f"{world.name}-bridged"]
    raw(bob.socket, "DELETE", f"/containers/{mine}?force=1")


def test_usage_counts_only_ones_own(bob, world):
    usage = raw(bob.socket, "GET", "/system/df").json()
    own = {c["Id"] for c in raw(bob.socket, "GET", "/containers/json?all=1").json()}
    assert {c["Id"] for c in usage["Containers"] or []} <= own
    clean(raw(bob.socket, "GET", "/system/df?type=container&type=volume&type=image"), world)
    facts = raw(bob.socket, "GET", "/info").json()
    assert facts["Containers"] == len(own)


def test_events_show_only_ones_own(two_guards, engine):
    """Live and from the past, of every type, also those that carry no owner label."""
    alice, bob = two_guards
    since = time.time()
    live, _ = open_stream(bob.socket, "GET", "/events")
    name = unique("evalice")
    for command in (
        ["run", "--rm", "--name", name, "-v", f"{name}:/v", "busybox", "true"], ["network", "create", f"{name}-n"], ["run", "--rm", "--name", f"{name}2", "--network", f"{name}-n", "busybox", "true"],
        ["network", "rm", f"{name}-n"], ["volume", "rm", name], ["create", "--name", f"{name}3", "busybox"], ["commit", f"{name}3", f"al/{name}:1"], ["rmi", f"al/{name}:1"],
    ):
        rc, _, err = docker(alice.socket, *command)
        assert rc == 0, err
    mine = create(bob.socket, name=unique("evbob"))
    seen = b""
    while mine.encode() not in seen:
        seen += live.read_chunk()
    assert name.encode() not in seen
    types = {json.loads(line)["Type"] for line in seen.splitlines()}
    assert types == {"container"}, seen
    until_ = time.time()
    for extra in ("", "&filters=" + quote(json.dumps({"type": ["network", "volume", "image"]})), "&filters=" + quote(json.dumps({"container": [name]})), "&filters=" + quote(json.dumps({"label": [f"com.buildkite.sockguard.owner={alice.owner}"]}))):
        past = raw(bob.socket, "GET", f"/events?since={since}&until={until_}{extra}")
        assert name not in past.text, past.text
    hers = raw(alice.socket, "GET", f"/events?since={since}&until={until_}").text
    for kind in ("container", "network", "volume", "image"):
        assert f'"Type":"{kind}"' in hers, kind
    assert mine not in hers


# --- destruction

@pytest.mark.parametrize("path", ["/containers/prune", "/images/prune", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", "/networks/prune", "/volumes/prune",
                                  "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", "/build/prune", "/build/prune?all=1"])
def test_prune_takes_only_ones_own(bob, world, engine, path, two_guards):
    spare = {"network": raw(two_guards[0].socket, "POST", "/networks/create", {"Name": unique("spare")}).json()["Id"]}
    assert raw(two_guards[0].socket, "POST", "/volumes/create", {"Name": spare["network"][:12]}).status == 201
    answer = raw(bob.socket, "POST", path)
    assert answer.status in (200, 400, 403), answer
    clean(answer, world)
    assert raw(engine.socket, "GET", f"/networks/{spare['network']}").status == 200
    assert raw(engine.socket, "GET", f"/volumes/{spare['network'][:12]}").status == 200
    assert raw(engine.socket, "GET", "/images/busybox/json").status == 200


def test_prune_filters_cannot_widen(bob, world, two_guards):
    label = f"com.buildkite.sockguard.owner={two_guards[0].owner}"
    for filters in ({"label": [label]}, {"label": {label: True}}, {"label!": ["nope"]}, {"label!": [f"com.buildkite.sockguard.owner={two_guards[1].owner}"]}):
        for kind in ("containers", "images", "networks", "volumes"):
            answer = raw(bob.socket, "POST", f"/{kind}/prune?filters={quote(json.dumps(filters))}")
            assert answer.status in (200, 400, 403)
            clean(answer, world)


def test_unlabelled_containers_of_the_host_are_foreign_too(bob, engine, world):
    """What was not made through a guard belongs to nobody here."""
    name = unique("hosts")
    container = create(engine.socket, name=name)
    raw(engine.socket, "POST", "/volumes/create", {"Name": name})
    network = raw(engine.socket, "POST", "/networks/create", {"Name": name}).json()["Id"]
    for path in (f"/containers/{container}/json", f"/containers/{name}/json", f"/volumes/{name}", f"/networks/{network}", f"/networks/{name}"):
        assert raw(bob.socket, "GET", path).status == 404, path
    for path in ("/containers/json?all=1", "/volumes", "/networks"):
        assert name not in raw(bob.socket, "GET", path).text
    assert raw(bob.socket, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": [f"{name}:/v"]}}).status in (403, 404, 409)


def test_shared_images_are_read_only(bob, engine, world):
    """`busybox` is nobody's: usable, not removable, its tag not to be taken."""
    assert "busybox:latest" in raw(bob.socket, "GET", "/images/json").text
    assert raw(bob.socket, "GET", "/images/busybox/json").status == 200
    for call in (("DELETE", "/images/busybox"), ("DELETE", "/images/busybox?force=1"), ("DELETE", f"/images/{engine.base_id}?force=1")):
        assert raw(bob.socket, *call).status in (403, 409), call
    built = raw(bob.socket, "POST", "/build?t=busybox:latest", tar_of({"Dockerfile": "FROM busybox\nCMD evil\n"}), {"Content-Type": "application/x-tar"})
    assert built.status == 403, built
    assert raw(bob.socket, "POST", f"/commit?container={create(bob.socket)}&repo=busybox&tag=latest").status == 403
    assert raw(engine.socket, "GET", "/images/busybox/json").json()["Id"] == engine.base_id


def test_the_owner_label_cannot_be_forged(bob, engine, world, two_guards):
    """Not in a body; and what Bob makes is Bob's whatever its image says."""
    alices = two_guards[0].owner
    label = {"com.buildkite.sockguard.owner": alices}
    for path, body in (("/containers/create", {"Image": "busybox", "Labels": label}), ("/networks/create", {"Name": unique("f"), "Labels": label}), ("/volumes/create", {"Name": unique("f"), "Labels": label})):
        answer = raw(bob.socket, "POST", path, body)
        assert answer.status == 403, (path, answer)
    dockerfile = f"FROM busybox\nLABEL com.buildkite.sockguard.owner={alices}\n"
    answer = raw(bob.socket, "POST", "/build?t=bob/forged", tar_of({"Dockerfile": dockerfile}), {"Content-Type": "application/x-tar"})
    if answer.status == 200 and "Successfully built" in answer.text:
        labels = raw(engine.socket, "GET", "/images/bob/forged/json").json()["Config"]["Labels"]
        assert alices not in labels.values(), labels
        container = create(bob.socket, image="bob/forged")
        assert alices not in raw(engine.socket, "GET", f"/containers/{container}/json").json()["Config"]["Labels"].values()


def test_connections_are_judged_request_by_request(bob, world):
    """An allowed request does not open the door for the next on its connection."""
    mine = create(bob.socket)
    with Conn(bob.socket) as conn:
        for _ in range(3):
            conn.request("GET", f"/containers/{mine}/json")
            assert conn.answer().status == 200
            conn.request("GET", f"/containers/{world.container}/json")
            assert conn.answer().status == 404


def test_a_name_that_changes_hands(two_guards, engine):
    """Ownership is not remembered by name."""
    alice, bob = two_guards
    name = unique("moves")
    mine = create(bob.socket, name=name)
    assert raw(bob.socket, "GET", f"/containers/{name}/json").status == 200
    raw(bob.socket, "DELETE", f"/containers/{mine}")
    create(alice.socket, name=name)
    assert raw(bob.socket, "GET", f"/containers/{name}/json").status == 404
    assert raw(bob.socket, "DELETE", f"/containers/{name}").status == 404
    assert raw(alice.socket, "GET", f"/containers/{name}/json").status == 200


def test_an_owner_who_makes_something_huge_breaks_no_lists(two_guards, engine):
    """Elements that are larger than any honest one: another's lists and events go on without them."""
    alice, bob = two_guards
    name = unique("huge")
    escapes = b"\\b" * 2_000_000
    kind = {"Content-Type": "application/json"}
    container = create(bob.socket)
    network = b'{"Name":"%s","Labels":{"com.buildkite.sockguard.owner":"%s","a":"%s"}}' % (name.encode(), bob.owner.encode(), escapes)
    config = b'{"Labels":{"com.buildkite.sockguard.owner":"%s","a":"%s"}}' % (bob.owner.encode(), escapes)
    commit = f"/commit?container={container}&repo=bob/{name}"
    # Through a guard labels have a size.
    for path, body in (("/networks/create", network), (commit, config), ("/volumes/create", network)):
        assert raw(bob.socket, "POST", path, body.replace(b'"com.buildkite.sockguard.owner":"%s",' % bob.owner.encode(), b""), kind).status == 413
    assert raw(engine.socket, "POST", "/networks/create", network, kind).status == 201
    assert raw(engine.socket, "POST", commit, config, kind).status == 201
    assert raw(bob.socket, "DELETE", f"/containers/{container}").status == 204
    mine = raw(alice.socket, "POST", "/networks/create", {"Name": f"{name}-mine"}).json()["Id"]
    box = create(alice.socket, HostConfig={"NetworkMode": f"{name}-mine"})
    assert mine in [each["Id"] for each in raw(alice.socket, "GET", "/networks").json()]
    assert "busybox:latest" in [tag for each in raw(alice.socket, "GET", "/images/json").json() for tag in each["RepoTags"] or []]
    assert raw(alice.socket, "GET", "/info").json()["Containers"] >= 1
    assert raw(alice.socket, "GET", "/system/df").json()["Images"]
    until_now = int(time.time()) + 1
    events = raw(alice.socket, "GET", f"/events?since={until_now - 60}&until={until_now}").text
    assert box in events
    for path in (f"/containers/{box}", f"/networks/{mine}"):
        assert raw(alice.socket, "DELETE", path).status == 204
    assert raw(bob.socket, "DELETE", f"/networks/{name}").status == 204
    assert raw(bob.socket, "DELETE", f"/images/bob/{name}").status == 200
