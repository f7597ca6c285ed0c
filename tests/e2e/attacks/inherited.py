"""Containers that the host starts from an image that the attacker built: they inherit the image's owner label, and are
not the attacker's all the same. And images that would make such a container the attacker's: none carries a seal.
"""

import time

from harness import IMAGE_LABEL as IMAGE, SEAL_LABEL as SEAL, seal

from . import absent, attack, harmless, hidden
from .containers import _tar, by, done
from .labels import build, commit, image, imported, load, saved
from .world import BUILT, OWNER, UPGRADE, query

NAME = "victim-host"


def shown(w, answer):
    return w.host_secret in answer.text


def one(label, method, path, proof=done, ref=lambda w: NAME, **options):
    by(f"the host's container from an own image {label}", method, path, proof, ref, **options)


one("is inspected by name", "GET", "/containers/{}/json", shown)
one("is inspected by ID", "GET", "/containers/{}/json", shown, lambda w: w.stage.host)
one("is inspected by short ID", "GET", "/containers/{}/json", shown, lambda w: w.stage.host[:12])
one("tells its log", "GET", "/containers/{}/logs?stdout=1", shown)
one("tells its processes", "GET", "/containers/{}/top")
one("tells its counters", "GET", "/containers/{}/stats?stream=0&one-shot=1")
one("tells its changes", "GET", "/containers/{}/changes", lambda w, a: "/secret" in a.text)
one("is attached to", "POST", "/containers/{}/attach?logs=1&stream=0&stdout=1", shown)
one("is attached to with an upgrade", "POST", "/containers/{}/attach?stream=1&stdin=1&stdout=1", headers=UPGRADE)
one("gets a command", "POST", "/containers/{}/exec", body={"Cmd": ["cat", "/host/secret"], "AttachStdout": True})
one("is exported", "GET", "/containers/{}/export")
one("is copied from", "GET", "/containers/{}/archive?path=/host/secret", shown)
one("is copied into", "PUT", "/containers/{}/archive?path=/", body=_tar(), headers={"Content-Type": "application/x-tar"})
one("is committed", "POST", "/commit?container={}&repo=attacker/out", body={})
one("is stopped", "POST", "/containers/{}/stop?t=0")
one("is killed by ID", "POST", "/containers/{}/kill", ref=lambda w: w.stage.host)
one("is restarted", "POST", "/containers/{}/restart?t=0")
one("is paused", "POST", "/containers/{}/pause")
one("is renamed", "POST", "/containers/{}/rename?name=stolen")
one("gets other limits", "POST", "/containers/{}/update", body={"CpuShares": 2})
one("is removed", "DELETE", "/containers/{}?force=1", ref=lambda w: w.stage.host[:12])


@attack("the host's container from an own image is cut from the bridge", hidden)
def _(w):
    return done(w, w.foreign("POST", "/networks/bridge/disconnect", NAME, {"Container": "{}", "Force": True}))


@attack("a command of the host's in its container from an own image is started", absent)
def _(w):
    made = w.stage.must("POST", f"/containers/{NAME}/exec", {"Cmd": ["cat", "/host/secret"], "AttachStdout": True})["Id"]
    w.before = w.stage.fingerprint()
    return shown(w, w.foreign("POST", "/exec/{}/start", made, {}))


def another(w):
    """One more, that does not run."""
    return w.others("containers", {"Image": BUILT, "Cmd": ["true"]}, "victim-other", owner=None)


@attack("a stopped container of the host's from an own image is started", absent)
def _(w):
    return done(w, w.foreign("POST", "/containers/{}/start", another(w)))


@attack("a stopped container of the host's from an own image is pruned", harmless)
def _(w):
    box = another(w)
    w.call("POST", "/containers/prune")
    return w.inspect("containers", box) is None


@attack("a stopped container of the host's from an own image is pruned by its label", harmless)
def _(w):
    box = another(w)
    w.call("POST", "/containers/prune?" + query(filters={"label": [f"{OWNER}=attacker"]}))
    return w.inspect("containers", box) is None


def lent(label, host, command):
    @attack(f"the host's container from an own image lends its {label}", hidden)
    def _(w):
        return w.host_secret in w.output(command, host)


lent("volumes", {"VolumesFrom": [NAME]}, "cat /host/secret")
lent("processes", {"PidMode": f"container:{NAME}"}, "cat /proc/1/root/host/secret")
lent("environment", {"Links": [f"{NAME}:v"], "NetworkMode": "default"}, "env")


def listed(label, path, proof=lambda w, answer: w.stage.host[:12] in answer.text):
    @attack(f"the host's container from an own image is seen in {label}", harmless)
    def _(w):
        return proof(w, w.call("GET", path))


def used(w, answer):
    return [image["Containers"] for image in answer.json()["Images"] if image["RepoTags"] == [BUILT]] != [0]


listed("the list", "/containers/json?all=1")
listed("the list of what runs", "/containers/json")
listed("the list by its image", "/containers/json?" + query(all=1, filters={"ancestor": [BUILT]}))
listed("the list by its label", "/containers/json?" + query(all=1, filters={"label": [f"{OWNER}=attacker"]}))
listed("the list by its name", "/containers/json?" + query(all=1, filters={"name": [NAME]}))
listed("the disk usage", "/system/df")
listed("the disk usage's counts", "/system/df", used)
listed("the shared bridge", "/networks/bridge")
listed("the engine's counts", "/info", lambda w, answer: answer.json().get("Containers") != 0)


@attack("the host's container from an own image is seen in the events", harmless)
def _(w):
    start = int(time.time()) - 1
    w.god("POST", f"/containers/{NAME}/kill?signal=CONT")
    return NAME in w.call("GET", "/events?" + query(since=start, until=int(time.time()) + 1)).text


@attack("the network of the host's container from an own image is seen in the events, once the container was asked for", harmless)
def _(w):
    w.call("GET", f"/containers/{NAME}/json")
    start = int(time.time()) - 1
    for step in ("disconnect", "connect"):
        w.stage.must("POST", f"/networks/bridge/{step}", {"Container": w.stage.host})
    w.before = w.stage.fingerprint()
    return w.stage.host in w.call("GET", "/events?" + query(since=start, until=int(time.time()) + 1)).text


# A container that sockguard lets the attacker make of an image, and whose name is the victim's when the engine makes it.
# The engine's part of that is done by hand here: all labels are as sockguard set them.


def raced(w, name="raced"):
    labels = {OWNER: "attacker", SEAL: seal("attacker"), IMAGE: w.inspect("images", "busybox")["Id"]}
    return w.others("containers", {"Image": "victim/app:1", "Cmd": ["cat", "/image-secret"]}, name, labels=labels)


def secret(w, answer):
    return w.victim_secret in answer.text


def won(label, method, path, proof=done, expect=hidden, **options):
    @attack(f"a container that came to be of the victim's image is {label}", expect)
    def _(w):
        return proof(w, w.foreign(method, path, raced(w), **options))


won("inspected", "GET", "/containers/{}/json", secret)
won("inspected by name", "GET", "/containers/{}/json", lambda w, answer: secret(w, w.call("GET", "/containers/raced/json")), harmless)
won("copied from", "GET", "/containers/{}/archive?path=/image-secret", secret)
won("exported", "GET", "/containers/{}/export", secret)
won("started", "POST", "/containers/{}/start")
won("committed", "POST", "/commit?container={}&repo=attacker/out", body={})
won("renamed", "POST", "/containers/{}/rename?name=stolen")


@attack("a container that came to be of the victim's image is seen in the list", harmless)
def _(w):
    box = raced(w)
    return box in w.call("GET", "/containers/json?all=1").text


@attack("a container that came to be of the victim's image is seen in the disk usage", harmless)
def _(w):
    box = raced(w)
    return box in w.call("GET", "/system/df").text


# Images with a seal, and the seal itself.

SEALED = {"key": SEAL, "value": seal("attacker")}
BOTH = {OWNER: "attacker", SEAL: seal("attacker")}


def carries(label, attempt):
    image(f"an image carries a seal {label}", attempt, **SEALED)


carries("by its Dockerfile", build(f"FROM busybox\nLABEL {SEAL}={seal('attacker')}\n"))
carries("by a variable in its Dockerfile", build(f"FROM busybox\nENV K={SEAL}\nLABEL $K={seal('attacker')}\n"))
carries("by a label of its build", build("FROM busybox\n", "t=attacker/out&" + query(labels=BOTH)))
carries("by a commit's changes", commit(query(changes=f"LABEL {SEAL}={seal('attacker')}")))
carries("by a commit's body", commit("", {"Labels": BOTH}))
carries("by an import's changes", imported(query(changes=f"LABEL {SEAL}={seal('attacker')}")))
carries("in a loaded archive", load(saved(labels=BOTH)))


@attack("an image carries a seal by a trigger", harmless)
def _(w):
    w.build(f"FROM busybox\nONBUILD LABEL {SEAL}={seal('attacker')}\n", "t=attacker/base:1")
    w.build("FROM attacker/base:1\n")
    return w.labels("images", "attacker/out").get(SEAL) == seal("attacker")


def own(w):
    """A container that is the attacker's."""
    box = w.own(start=False, **({"Labels": BOTH} if w.bare else {}))
    assert w.labels("containers", box).get(SEAL) == seal("attacker")
    return box


@attack("a commit hands a container's seal on to an image", harmless)
def _(w):
    w.call("POST", f"/commit?container={own(w)}&repo=attacker/out", {})
    return w.labels("images", "attacker/out").get(SEAL) == seal("attacker")


@attack("a seal is shown to its owner", harmless)
def _(w):
    start = int(time.time()) - 1
    box = own(w)
    paths = (f"/containers/{box}/json", "/containers/json?all=1", "/system/df", "/events?" + query(since=start, until=int(time.time()) + 1))
    return any(seal("attacker") in w.call("GET", path).text for path in paths)
