"""Swarm, plug-ins and what else changes the engine for everybody."""

import io
import json
import tarfile

from . import attack, harmless, refused, rejected
from .world import archive


@attack("the engine is made a swarm manager", refused())
def _(w):
    made = w.call("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"})
    try:
        return made.status == 200
    finally:
        if made.status == 200:
            w.god("POST", "/swarm/leave?force=1")


def in_a_swarm(label, method, path, body, proof=lambda w, answer: answer.status in (200, 201), expect=refused()):
    """The host is a swarm manager already: what would answer 503 anyway does not count."""
    @attack(label, expect)
    def _(w):
        started = w.god("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1:2377"})
        assert started.status == 200, started.text
        try:
            return proof(w, w.call(method, path, body))
        finally:
            w.god("POST", "/swarm/leave?force=1")


in_a_swarm("a service binds a host path", "POST", "/services/create", {
    "Name": "evil", "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]}}})
in_a_swarm("a secret is stored in a swarm", "POST", "/secrets/create", {"Name": "s", "Data": "eA=="})
in_a_swarm("a configuration is stored in a swarm", "POST", "/configs/create", {"Name": "c", "Data": "eA=="})
in_a_swarm("the swarm's join tokens are read", "GET", "/swarm", None, lambda w, a: "JoinTokens" in a.text, harmless)
in_a_swarm("the swarm's nodes are listed", "GET", "/nodes", None, lambda w, a: "Hostname" in a.text, harmless)
in_a_swarm("the swarm's unlock key is read", "GET", "/swarm/unlockkey", None, lambda w, a: a.status == 200, harmless)
in_a_swarm("an overlay network is made", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "overlay", "Attachable": True})
in_a_swarm("the engine leaves its swarm", "POST", "/swarm/leave?force=1", None, expect=harmless)


@attack("a plug-in of the host's privileges is made", refused())
def _(w):
    config = json.dumps({"Description": "evil", "Interface": {"Socket": "p.sock", "Types": ["docker.volumedriver/1.0"]},
                         "Entrypoint": ["/bin/true"], "PidHost": True, "Network": {"Type": "host"},
                         "Linux": {"Capabilities": ["CAP_SYS_ADMIN"], "AllowAllDevices": True}})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("config.json", config), ("rootfs", None), ("rootfs/x", "x")):
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data.encode()))
    made = w.call("POST", "/plugins/create?name=evil/plugin", out.getvalue(), {"Content-Type": "application/x-tar"})
    if made.status < 300:
        w.god("DELETE", "/plugins/evil/plugin?force=1")
    return made.status < 300


@attack("the privileges that a plug-in asks for are fetched from the host's loopback", harmless)
def _(w):
    w.call("GET", f"/plugins/privileges?remote=127.0.0.1:{w.loopback.port}/evil/plugin")
    return w.reached("/v2/")


@attack("the engine's memory is profiled", rejected)
def _(w):
    return w.call("GET", "/debug/pprof/heap").status == 200


@attack("the engine's variables are read", rejected)
def _(w):
    return w.call("GET", "/debug/vars").status == 200


@attack("the engine is asked for its checkpoints", rejected)
def _(w):
    box = w.own()
    return w.call("GET", f"/containers/{box}/checkpoints").status == 200
