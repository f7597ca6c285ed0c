"""A victim's containers and execs, by every endpoint and every form of a name."""

import io
import tarfile

from . import absent, attack, harmless, hidden
from .world import UPGRADE, query


def by(label, method, path, proof, ref=lambda w: "victim-box", body=None, headers=None, expect=absent):
    @attack(label, expect)
    def _(w):
        return proof(w, w.foreign(method, path, ref(w), body, headers))


def shown(w, answer):
    return w.victim_secret in answer.text


def done(w, answer):
    return answer.status in (101, 200, 201, 204)


def short(w):
    return w.box[:12]


INSPECT = "/containers/{}/json"
by("a victim's container is inspected by name", "GET", INSPECT, shown)
by("a victim's container is inspected by ID", "GET", INSPECT, shown, lambda w: w.box)
by("a victim's container is inspected by short ID", "GET", INSPECT, shown, short)
by("a victim's container is inspected by the shortest prefix of its ID", "GET", INSPECT, shown, lambda w: w.box[:5])
by("a victim's container is inspected with a version in front", "GET", "/v1.41/containers/{}/json", shown)
by("a victim's container is inspected with its size", "GET", "/containers/{}/json?size=1", shown)
by("a victim's processes are listed", "GET", "/containers/{}/top", done)
by("a victim's log is read", "GET", "/containers/{}/logs?stdout=1", shown)
by("a victim's log is read by short ID", "GET", "/containers/{}/logs?stdout=1&tail=1", shown, short)
by("a victim's changes are listed", "GET", "/containers/{}/changes", lambda w, a: "/secret" in a.text)
by("a victim's file system is exported", "GET", "/containers/{}/export", shown)
by("a victim's counters are read", "GET", "/containers/{}/stats?stream=0&one-shot=1", done)
by("a victim's counters are read by short ID", "GET", "/containers/{}/stats?stream=false&one-shot=1", done, short)
by("a file of a victim is read from its archive", "GET", "/containers/{}/archive?path=/secret", shown)
by("a file of a victim's volume is read from its archive", "GET", "/containers/{}/archive?path=/data/secret", shown, lambda w: w.box)
by("a file of a victim is asked about", "HEAD", "/containers/{}/archive?path=/secret", lambda w, a: "x-docker-container-path-stat" in a.headers, expect=harmless)


def _tar():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("planted")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    return out.getvalue()


by("a file is planted in a victim", "PUT", "/containers/{}/archive?path=/", done, body=_tar(), headers={"Content-Type": "application/x-tar"})
by("a file is planted in a victim's volume by short ID", "PUT", "/containers/{}/archive?path=/data", done, short, body=_tar())
by("a victim's terminal is resized", "POST", "/containers/{}/resize?h=10&w=10", done)
by("a victim's stopped container is started", "POST", "/containers/{}/start", done, lambda w: "victim-stopped")
by("a victim's stopped container is started by ID", "POST", "/containers/{}/start", done, lambda w: w.stage.stopped)
by("a victim is stopped", "POST", "/containers/{}/stop?t=0", done)
by("a victim is restarted", "POST", "/containers/{}/restart?t=0", done, short)
by("a victim is killed", "POST", "/containers/{}/kill", done, lambda w: w.box[:10])
by("a victim gets a signal", "POST", "/containers/{}/kill?signal=CONT", done)
by("a victim is paused", "POST", "/containers/{}/pause", done)
by("a victim's limits are changed", "POST", "/containers/{}/update", done, body={"CpuShares": 2})
by("a victim's restart policy is changed", "POST", "/containers/{}/update", done, short, body={"RestartPolicy": {"Name": "no"}, "PidsLimit": 9})
by("a victim is renamed", "POST", "/containers/{}/rename?name=stolen", done)
by("a victim is attached to", "POST", "/containers/{}/attach?logs=1&stream=0&stdout=1", shown)
by("a victim is attached to with an upgrade", "POST", "/containers/{}/attach?stream=1&stdin=1&stdout=1", done, headers=UPGRADE)
by("a victim is attached to over a websocket", "GET", "/containers/{}/attach/ws?stream=1&stdout=1", done, headers={
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Origin": "http://x",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
by("a victim's end is waited for", "POST", "/containers/{}/wait", done, lambda w: "victim-stopped")
by("a victim's container is removed", "DELETE", "/containers/{}?force=1", done)
by("a victim's stopped container is removed by ID with its volumes", "DELETE", "/containers/{}?v=1", done, lambda w: w.stage.stopped)
by("a victim's stopped container is removed with force", "DELETE", "/containers/{}?force=true&v=true", done, lambda w: "victim-stopped")
by("a command is prepared in a victim", "POST", "/containers/{}/exec", done, body={"Cmd": ["cat", "/secret"], "AttachStdout": True})
by("a command is prepared in a victim by short ID", "POST", "/containers/{}/exec", done, short, body={"Cmd": ["cat", "/secret"]})
by("a victim's exec is inspected", "GET", "/exec/{}/json", done, lambda w: w.stage.exec)
by("a victim's exec is started", "POST", "/exec/{}/start", shown, lambda w: w.stage.exec, body={})
by("a victim's exec is started with an upgrade", "POST", "/exec/{}/start", done, lambda w: w.stage.exec, body={}, headers=UPGRADE)
by("a victim's exec is started detached", "POST", "/exec/{}/start", done, lambda w: w.stage.exec, body={"Detach": True})
by("a victim's container is committed to an image", "POST", "/commit?container={}&repo=attacker/out", done, body={})
by("a victim's container is committed by short ID and paused for it", "POST", "/commit?container={}&pause=1", done, short, body={})


@attack("a victim's exec is resized", absent)
def _(w):
    started = w.victims_exec(["sleep", "20"])
    return done(w, w.foreign("POST", "/exec/{}/resize?h=5&w=5", started))


@attack("a victim that is paused is set going", absent)
def _(w):
    w.god("POST", "/containers/victim-box/pause")
    try:
        return done(w, w.foreign("POST", "/containers/{}/unpause", "victim-box"))
    finally:
        w.god("POST", "/containers/victim-box/unpause")


def linked(label, ref):
    @attack(f"a victim's environment is read through a link by {label}", hidden)
    def _(w):
        name = ref(w)
        if not w.bare:
            w.foreign("POST", "/containers/create", name, {"Image": "busybox", "HostConfig": {"Links": ["{}:v"]}})
        return w.victim_secret in w.output("env", {"Links": [f"{name}:v"], "NetworkMode": "default"})


linked("name", lambda w: "victim-box")
linked("ID", lambda w: w.box)


@attack("the victims' stopped containers are pruned", harmless)
def _(w):
    w.call("POST", "/containers/prune")
    return w.inspect("containers", "victim-stopped") is None


@attack("the victims' stopped containers are pruned by their own label", harmless)
def _(w):
    w.call("POST", "/containers/prune?" + query(filters={"label": ["com.buildkite.sockguard.owner=victim"]}))
    return w.inspect("containers", "victim-stopped") is None


@attack("stopped containers that lack the attacker's label are pruned", harmless)
def _(w):
    w.call("POST", "/containers/prune?" + query(filters={"label!": ["com.buildkite.sockguard.owner=attacker"]}))
    return w.inspect("containers", "victim-stopped") is None
