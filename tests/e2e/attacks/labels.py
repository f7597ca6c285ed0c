"""Forged labels: what an attacker makes must be the attacker's, whatever it says about itself."""

import io
import json
import tarfile
import hashlib

from harness import OWNER_LABEL as OWNER

from . import attack, harmless, rejected
from .world import archive, query

ECS = "com.amazonaws.ecs.task-arn"
FORGED = {OWNER: "victim"}


def forged(label, kind, name, attempt, expect=harmless, key=OWNER, value="victim"):
    @attack(label, expect)
    def _(w):
        attempt(w)
        found = w.labels(kind, name(w) if callable(name) else name)
        return found.get(key) == value


def last_made(w):
    return next(iter(w.stage.made()["containers"]), "none")


def create(labels, **body):
    return lambda w: w.call("POST", "/containers/create", {"Image": "busybox", "Labels": labels, **body})


forged("a container is created with a victim's label", "containers", last_made, create(FORGED))
forged("a container is created with a victim's label in a key of lower case", "containers", last_made,
       lambda w: w.json('{"Image":"busybox","labels":{"%s":"victim"}}' % OWNER))
forged("a container's label is said twice", "containers", last_made,
       lambda w: w.json('{"Image":"busybox","Labels":{"%s":"attacker","%s":"victim"}}' % (OWNER, OWNER)), rejected)
forged("a container's labels are said twice", "containers", last_made,
       lambda w: w.json('{"Image":"busybox","Labels":{"%s":"attacker"},"labels":{"%s":"victim"}}' % (OWNER, OWNER)), rejected)
forged("a container's label is spelt with escapes", "containers", last_made,
       lambda w: w.json('{"Image":"busybox","Labels":{"com\\u002ebuildkite.sockguard.owner":"victim"}}'))
forged("a container claims to be an agent of ECS", "containers", last_made, create({ECS: "arn:victim"}), key=ECS, value="arn:victim")
forged("a container claims an agent's family and container name", "containers", last_made,
       create({"com.amazonaws.ecs.task-definition-family": "agent", "com.amazonaws.ecs.container-name": "agent"}),
       key="com.amazonaws.ecs.task-definition-family", value="agent")
forged("a network is created with a victim's label", "networks", "attacker-net",
       lambda w: w.call("POST", "/networks/create", {"Name": "attacker-net", "Labels": FORGED}))
forged("a network's labels are said twice", "networks", "attacker-net",
       lambda w: w.json('{"Name":"attacker-net","Labels":{},"labels":{"%s":"victim"}}' % OWNER, "/networks/create"), rejected)
forged("a volume is created with a victim's label", "volumes", "attacker-v",
       lambda w: w.call("POST", "/volumes/create", {"Name": "attacker-v", "Labels": FORGED}))
forged("a volume's labels are said twice", "volumes", "attacker-v",
       lambda w: w.json('{"Name":"attacker-v","Labels":{"%s":"attacker"},"labelſ":{"%s":"victim"}}' % (OWNER, OWNER), "/volumes/create"), rejected)
forged("a volume claims to be an agent's", "volumes", "attacker-v",
       lambda w: w.call("POST", "/volumes/create", {"Name": "attacker-v", "Labels": {ECS: "arn:victim"}}), key=ECS, value="arn:victim")

# Images.


def build(dockerfile, query_string="t=attacker/out"):
    return lambda w: w.build(dockerfile, query_string)


def image(label, attempt, expect=harmless, **options):
    forged(label, "images", "attacker/out", attempt, expect, **options)


image("a build is told a victim's label by its parameter", build("FROM busybox\n", "t=attacker/out&" + query(labels=FORGED)))
image("a build's label parameter says it twice",
      build("FROM busybox\n", f"t=attacker/out&labels=%7B%22{OWNER}%22:%22attacker%22,%22{OWNER}%22:%22victim%22%7D"), rejected)
image("a build's label parameter is given twice",
      build("FROM busybox\n", "t=attacker/out&" + query(labels=FORGED) + "&" + query(labels={OWNER: "attacker"})), rejected)
image("a Dockerfile sets a victim's label", build(f"FROM busybox\nLABEL {OWNER}=victim\n"))
image("a Dockerfile sets a victim's label in quotes", build(f'FROM busybox\nLABEL "{OWNER}"="victim" "a"="b"\n'))
image("a Dockerfile sets a victim's label by a variable", build(f"FROM busybox\nENV K={OWNER}\nLABEL $K=victim\n"))
image("a Dockerfile sets a victim's label by a build argument",
      build("FROM busybox\nARG K\nLABEL $K=victim\n", "t=attacker/out&" + query(buildargs={"K": OWNER})))
image("a Dockerfile sets a victim's label over two lines", build(f"FROM busybox\nLABEL com.buildkite.\\\nsockguard.owner=victim\n"))
image("a Dockerfile sets a victim's label in another stage", build(f"FROM busybox AS a\nLABEL {OWNER}=victim\nFROM a\nENV x=y\n"))
image("a build of one target sets a victim's label",
      build(f"FROM busybox AS a\nLABEL {OWNER}=victim\nFROM busybox\nLABEL a=b\n", "t=attacker/out&target=a"))
image("a Dockerfile claims to be an agent of ECS", build(f"FROM busybox\nLABEL {ECS}=arn:victim\nRUN true\n"), key=ECS, value="arn:victim")


@attack("a trigger in an own image sets a victim's label in the next build", harmless)
def _(w):
    w.build(f"FROM busybox\nONBUILD LABEL {OWNER}=victim\n", "t=attacker/base:1")
    w.build("FROM attacker/base:1\n")
    return w.labels("images", "attacker/out").get(OWNER) == "victim"


@attack("a container inherits an agent's labels from an image", harmless)
def _(w):
    w.build(f"FROM busybox\nLABEL {ECS}=arn:victim\nCMD true\n")
    created = w.call("POST", "/containers/create", {"Image": "attacker/out"})
    return created.status == 201 and w.labels("containers", created.json()["Id"]).get(ECS) == "arn:victim"


@attack("an image that is built without labels belongs to nobody", harmless)
def _(w):
    w.build("FROM busybox\nENV a=b\n")
    return w.built() and OWNER not in w.labels("images", "attacker/out")


def commit(query_string, body=None):
    def attempt(w):
        box = w.own(start=False)
        w.call("POST", f"/commit?container={box}&repo=attacker/out&{query_string}", body if body is not None else {})
    return attempt


image("a commit's changes set a victim's label", commit(query(changes=f"LABEL {OWNER}=victim")))
image("a commit's second change sets a victim's label", commit(query(changes=f"ENV a=b\nLABEL {OWNER}=victim")))
image("a commit's changes are given twice", commit(query(changes="ENV a=b") + "&" + query(changes=f"LABEL {OWNER}=victim")))
image("a commit's body sets a victim's label", commit("", {"Labels": FORGED}))
image("a commit's body sets a victim's label in lower case", commit("", {"labelſ": FORGED}))
image("a commit's changes claim to be an agent of ECS", commit(query(changes=f"LABEL {ECS}=arn:victim")), key=ECS, value="arn:victim")


@attack("a committed image belongs to nobody", harmless)
def _(w):
    box = w.own(start=False)
    w.call("POST", f"/commit?container={box}&repo=attacker/out", {})
    return w.built() and OWNER not in w.labels("images", "attacker/out")


def imported(query_string):
    return lambda w: w.call("POST", "/images/create?fromSrc=-&repo=attacker/out&" + query_string,
                            archive([("file", "x")]), {"Content-Type": "application/x-tar"})


image("an import's changes set a victim's label", imported(query(changes=f"LABEL {OWNER}=victim")))
image("an import's second change sets a victim's label", imported(query(changes="ENV a=b") + "&" + query(changes=f"LABEL {OWNER}=victim")))
image("an import's changes claim to be an agent of ECS", imported(query(changes=f"LABEL {ECS}=arn:victim")), key=ECS, value="arn:victim")


def saved(tags=("attacker/out:latest",), labels=None, entries=None, manifest=None):
    """An archive as `docker save` makes it, of one small image."""
    layer = archive([("file", json.dumps([tags, labels]))])
    config = json.dumps({
        "architecture": "amd64", "os": "linux", "config": {"Labels": labels or {}, "Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}, "history": [],
    })
    manifest = manifest or json.dumps([{"Config": "config.json", "RepoTags": list(tags), "Layers": ["layer.tar"]}])
    return archive([("config.json", config), ("layer.tar", layer), *(entries or []), ("manifest.json", manifest)])


def load(data):
    return lambda w: w.call("POST", "/images/load?quiet=1", data(w) if callable(data) else data, {"Content-Type": "application/x-tar"})


image("a loaded archive carries a victim's label", load(saved(labels=FORGED)))
image("a loaded archive claims to be an agent of ECS", load(saved(labels={ECS: "arn:victim"})), key=ECS, value="arn:victim")
