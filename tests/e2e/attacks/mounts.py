"""Binds: every spelling of a host path, links, and the engine's socket."""

import os
import re
import threading

import harness

from . import attack, harmless, refused, rejected
from .world import archive

READ = "cat /x/secret"


def _bind(label, spell, command=READ, words=("bind",)):
    @attack(f"a bind of {label} shows a file of the host", refused(*words))
    def _(w):
        return w.host_secret in w.output(command, {"Binds": spell(w)})


_bind("a directory outside the allowed ones", lambda w: [f"{w.outside}:/x"])
_bind("a single file", lambda w: [f"{w.outside}/secret:/x/secret:ro"])
_bind("the root of the file system", lambda w: ["/:/host:ro"], "cat /host/tmp/sockguard-e2e-stage-*/host/secret")
_bind("a path with two slashes in front", lambda w: [f"/{w.outside}:/x"])
_bind("a path with dots", lambda w: [f"/.{w.outside}/.:/x"])
_bind("a path that climbs out of an allowed one", lambda w: [f"{w.builds}/../host:/x"])
_bind("a path that climbs to the root first", lambda w: [f"{w.builds}/../../../../../../..{w.outside}:/x"])
_bind("a sibling whose name begins like an allowed one", lambda w: [f"{w.builds}-private:/x"])
_bind("a directory above the allowed one", lambda w: [f"{w.stage.root}:/x"], "cat /x/host/secret")
_bind("a second path behind an allowed one", lambda w: [f"{w.builds}:/fine", f"{w.outside}:/x"])
_bind("a path with relabelling and propagation options", lambda w: [f"{w.outside}:/x:ro,rprivate"])
_bind("a path with a slash at its end", lambda w: [f"{w.outside}/:/x/"])
_bind("a process's view of the root", lambda w: [f"/proc/self/root{w.outside}:/x"])


@attack("the host's processes are seen through a bind of /proc", refused("bind"))
def _(w):
    return w.output("cat /hostproc/1/cmdline", {"Binds": ["/proc:/hostproc:ro"]}).startswith("sh")


def _mount(label, make, expect=refused()):
    @attack(f"a mount {label} shows a file of the host", expect)
    def _(w):
        return w.host_secret in w.output(READ, {"Mounts": [make(w)]})


_mount("of type bind", lambda w: {"Type": "bind", "Source": str(w.outside), "Target": "/x"})
_mount("of type bind, read-only", lambda w: {"Type": "bind", "Source": str(w.outside), "Target": "/x", "ReadOnly": True})
_mount("that climbs out", lambda w: {"Type": "bind", "Source": f"{w.builds}/../host", "Target": "/x"})
_mount("with keys in lower case", lambda w: {"type": "bind", "source": str(w.outside), "target": "/x"})
_mount("with a long s in its key", lambda w: {"Type": "bind", "ſource": str(w.outside), "Target": "/x"})
_mount("with a second source", lambda w: {"Type": "bind", "Source": str(w.builds), "source": str(w.outside), "Target": "/x"}, rejected)
_mount("with propagation options", lambda w: {"Type": "bind", "Source": str(w.outside), "Target": "/x",
                                             "BindOptions": {"Propagation": "rprivate", "NonRecursive": True}})


@attack("a bind with shared propagation sees and spreads mounts", refused("propagation"))
def _(w):
    place = w.builds / "shared"
    place.mkdir()
    w.stage.inside("sh", "-ec", f"mount -t tmpfs tmpfs {place}; mount --make-rshared {place}")
    try:
        return "shared:" in w.output("grep ' /x ' /proc/self/mountinfo", {"Binds": [f"{place}:/x:rshared"]})
    finally:
        w.stage.inside("umount", "-l", place)


@attack("a mount with slave propagation receives the host's later mounts", refused("propagation"))
def _(w):
    place = w.builds / "shared"
    place.mkdir()
    w.stage.inside("sh", "-ec", f"mount -t tmpfs tmpfs {place}; mount --make-rshared {place}")
    try:
        mount = {"Type": "bind", "Source": str(place), "Target": "/x", "BindOptions": {"Propagation": "rslave"}}
        return "master:" in w.output("grep ' /x ' /proc/self/mountinfo", {"Mounts": [mount]})
    finally:
        w.stage.inside("umount", "-l", place)


@attack("the existence of host files is read from the errors of a mount", refused())
def _(w):
    def answer(path):
        return w.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [
            {"Type": "bind", "Source": str(path), "Target": "/x"}]}}).text.replace(str(path), "")[:60]
    return answer(w.outside / "secret") != answer(w.outside / "missing")


@attack("a bind makes a directory on the host", refused("bind"))
def _(w):
    w.output("true", {"Binds": [f"{w.outside}/made-by-a-bind:/x"]})
    made = w.outside / "made-by-a-bind"
    return made.exists() and (made.rmdir() or True)


# --- links


def _link(label, make, source, expect=refused("link"), command=READ):
    @attack(f"a bind follows a link {label}", expect)
    def _(w):
        make(w)
        return w.host_secret in w.output(command, {"Binds": [source(w)]})


_link("in an allowed directory to the outside", lambda w: (w.builds / "l").symlink_to(w.outside), lambda w: f"{w.builds}/l:/x", refused())
_link("to a single file", lambda w: (w.builds / "l").symlink_to(w.outside / "secret"), lambda w: f"{w.builds}/l:/x/secret", refused())
_link("in the middle of its path", lambda w: (w.builds / "l").symlink_to(w.stage.root), lambda w: f"{w.builds}/l/host:/x", refused())
_link("that is relative", lambda w: (w.builds / "l").symlink_to("../host"), lambda w: f"{w.builds}/l:/x", refused())
_link("to the root", lambda w: (w.builds / "l").symlink_to("/"), lambda w: f"{w.builds}/l{w.outside}:/x", refused())
_link("to a link", lambda w: ((w.builds / "l").symlink_to("m"), (w.builds / "m").symlink_to(w.outside)), lambda w: f"{w.builds}/l:/x", refused())
_link("to a process's root", lambda w: (w.builds / "l").symlink_to("/proc/self/root"), lambda w: f"{w.builds}/l{w.outside}:/x", refused())

@attack("a mount of type bind follows a link to the outside", refused())
def _(w):
    (w.builds / "l").symlink_to(w.outside)
    return w.host_secret in w.output(READ, {"Mounts": [{"Type": "bind", "Source": f"{w.builds}/l", "Target": "/x"}]})


def swap(w, name="d"):
    (w.builds / name).rename(w.builds / "old") if (w.builds / name).exists() else None
    (w.builds / name).symlink_to(w.outside)


def _starts(w, box):
    w.call("POST", f"/containers/{box}/start")
    w.god("POST", f"/containers/{box}/wait")
    return w.host_secret in w.stage.logs(box)


@attack("a directory becomes a link between create and start", harmless)
def _(w):
    (w.builds / "d").mkdir()
    box = w.own(command=READ, start=False, HostConfig={"Binds": [f"{w.builds}/d:/x"]})
    swap(w)
    return _starts(w, box)


@attack("a directory becomes a link between create and start, by a mount", harmless)
def _(w):
    (w.builds / "d").mkdir()
    box = w.own(command=READ, start=False,
                HostConfig={"Mounts": [{"Type": "bind", "Source": f"{w.builds}/d", "Target": "/x"}]})
    swap(w)
    return _starts(w, box)


@attack("a directory above the bind becomes a link between create and start", harmless)
def _(w):
    (w.builds / "d/host").mkdir(parents=True)
    box = w.own(command=READ, start=False, HostConfig={"Binds": [f"{w.builds}/d/host:/x"]})
    (w.builds / "d").rename(w.builds / "old")
    (w.builds / "d").symlink_to(w.stage.root)
    return _starts(w, box)


@attack("a directory becomes a link before a restart", harmless)
def _(w):
    (w.builds / "d").mkdir()
    box = w.own(command=READ + "; sleep 1000", HostConfig={"Binds": [f"{w.builds}/d:/x"]})
    swap(w)
    w.call("POST", f"/containers/{box}/restart?t=0")
    return _shows(w, box)


@attack("a directory becomes a link before a second start", harmless)
def _(w):
    (w.builds / "d").mkdir()
    box = w.own(command=READ, HostConfig={"Binds": [f"{w.builds}/d:/x"]})
    w.god("POST", f"/containers/{box}/wait")
    swap(w)
    w.call("POST", f"/containers/{box}/start")
    return _shows(w, box)


def _shows(w, box, seconds=1.0):
    return w.comes(lambda: w.host_secret in w.stage.logs(box), seconds)


def _restarting(label, policy):
    @attack(f"a directory becomes a link and {label} starts the container again", harmless)
    def _(w):
        (w.builds / "d").mkdir()
        box = w.own(command=READ + " ; sleep 0.3; exit 1",
                    HostConfig={"Binds": [f"{w.builds}/d:/x"], "RestartPolicy": policy})
        swap(w)
        return _shows(w, box, 2.0)


_restarting("the restart policy always", {"Name": "always"})
_restarting("the restart policy on-failure", {"Name": "on-failure", "MaximumRetryCount": 5})


@attack("a directory becomes a link and a restart policy set by an update starts the container again", harmless)
def _(w):
    (w.builds / "d").mkdir()
    box = w.own(command=READ + " ; sleep 0.5; exit 1", HostConfig={"Binds": [f"{w.builds}/d:/x"]})
    w.call("POST", f"/containers/{box}/update", {"RestartPolicy": {"Name": "always"}})
    swap(w)
    return _shows(w, box, 2.5)


def _borrowed(label, **host):
    @attack(f"a directory becomes a link under a container that took the bind over with VolumesFrom{label}", harmless)
    def _(w):
        (w.builds / "d").mkdir()
        lender = w.own(start=False, HostConfig={"Binds": [f"{w.builds}/d:/x"]})
        created = w.call("POST", "/containers/create", {
            "Image": "busybox", "Cmd": ["sh", "-c", READ + "; sleep 0.3; exit 1"],
            "HostConfig": {"NetworkMode": "none", "VolumesFrom": [lender], **host}})
        if created.status != 201:
            return False
        box = created.json()["Id"]
        if host:
            w.call("POST", f"/containers/{box}/start")
        swap(w)
        if not host:
            w.call("POST", f"/containers/{box}/start")
        return _shows(w, box, 2.0)


_borrowed("")
_borrowed(" and has a restart policy", RestartPolicy={"Name": "always"})


def _race(w):
    race = w.builds / "race"
    if not race.exists():
        (race / "d").mkdir(parents=True)
        (race / "out").symlink_to(w.outside)
    return race


def swapped(w):
    """A directory in which `d` is now a directory and now a link to the outside, and the container that does it."""
    race = _race(w)
    swapper = w.own(command="cd /w; while :; do mv d e; mv -T out d; sleep 0.01; mv -T d out; mv e d; done",
                    HostConfig={"Binds": [f"{race}:/w"]})
    return race, swapper


def rounds(w):
    """The bare engine may need some tries too."""
    return 100 if w.bare else 25


@attack("a container of the attacker swaps directory and link while others are started", harmless)
def _(w):
    race = swapped(w)[0]
    return any(w.host_secret in w.output(READ, {"Binds": [f"{race}/d:/x"]}) for _ in range(rounds(w)))


@attack("a container without mounts swaps directory and link through another's process name space", harmless)
def _(w):
    race = _race(w)
    holder = w.own(HostConfig={"Binds": [f"{race}:/w"]})
    w.own(command="cd /proc/1/root/w; while :; do mv d e; mv -T out d; sleep 0.01; mv -T d out; mv e d; done",
          HostConfig={"PidMode": f"container:{holder}"})
    return any(w.host_secret in w.output(READ, {"Binds": [f"{race}/d:/x"]}) for _ in range(rounds(w)))


@attack("a container of the attacker swaps directory and link under a container that is started again and again", harmless)
def _(w):
    box = w.own(command=READ, start=False, HostConfig={"Binds": [f"{_race(w)}/d:/x"]})
    swapped(w)
    return any(_starts(w, box) for _ in range(rounds(w)))


@attack("a commit sets the swapping container going while a bind is checked", harmless)
def _(w):
    box = w.own(command=READ, start=False, HostConfig={"Binds": [f"{_race(w)}/d:/x"]})
    _, swapper = swapped(w)
    going = True

    def commits():
        while going:
            harness.raw(w.socket, "POST", f"/commit?container={swapper}&pause=1", {})
    threads = [threading.Thread(target=commits) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        return any(_starts(w, box) for _ in range(rounds(w)))
    finally:
        going = False
        for thread in threads:
            thread.join()


# The engine mounts a container's binds again for every copy from or to it.


def _copied(label, start, source=lambda w: f"{w.builds}/d"):
    def prepared(w):
        (w.builds / "d").mkdir()
        box = w.own(start=start, HostConfig={"Binds": [f"{source(w)}:/x"]})
        swap(w)
        return box

    @attack(f"a directory becomes a link before a file is copied out of a container that {label}", harmless)
    def _(w):
        return w.host_secret in w.call("GET", f"/containers/{prepared(w)}/archive?path=/x/secret").text

    @attack(f"a directory becomes a link before a file is looked at in a container that {label}", harmless)
    def _(w):
        answer = w.call("HEAD", f"/containers/{prepared(w)}/archive?path=/x/device")
        return "x-docker-container-path-stat" in answer.headers

    @attack(f"a directory becomes a link before a file is copied into a container that {label}", harmless)
    def _(w):
        w.call("PUT", f"/containers/{prepared(w)}/archive?path=/x", archive([("planted", "by the attacker")]), {"Content-Type": "application/x-tar"})
        planted = w.outside / "planted"
        return planted.exists() and (planted.unlink() or True)


_copied("does not run", False)
_copied("runs", True)


@attack("a container of the attacker swaps directory and link while files are copied out of another", harmless)
def _(w):
    box = w.own(start=False, HostConfig={"Binds": [f"{_race(w)}/d:/x"]})
    swapped(w)
    return any(w.host_secret in w.call("GET", f"/containers/{box}/archive?path=/x/secret").text for _ in range(rounds(w)))


# --- the engine's socket


def _socket(label, make, place="/s", expect=harmless):
    @attack(f"a container gets the engine's socket {label}", expect)
    def _(w):
        real = os.stat(w.stage.engine.socket).st_ino
        found = w.output(f"ls -i {place} 2>/dev/null; ls -i {place}/docker.sock 2>/dev/null", make(w))
        return str(real) in re.findall(r"\d+", found)


_socket("by /var/run/docker.sock", lambda w: {"Binds": ["/var/run/docker.sock:/s"]})
_socket("by /run/docker.sock", lambda w: {"Binds": ["/run/docker.sock:/s"]})
_socket("by //var//run/docker.sock", lambda w: {"Binds": ["//var//run/docker.sock:/s"]})
_socket("by /var/run/../run/docker.sock", lambda w: {"Binds": ["/var/run/../run/docker.sock:/s"]})
_socket("by the path that the engine was started with", lambda w: {"Binds": [f"{w.stage.engine.socket}:/s"]})
_socket("by the directory /var/run", lambda w: {"Binds": ["/var/run:/s"]}, expect=refused("bind"))
_socket("by the directory it lies in", lambda w: {"Binds": [f"{w.stage.engine.root}:/s"]}, expect=refused("bind"))
_socket("by a mount", lambda w: {"Mounts": [{"Type": "bind", "Source": "/var/run/docker.sock", "Target": "/s"}]})
_socket("by a mount of its private path", lambda w: {
    "Mounts": [{"Type": "bind", "Source": w.stage.engine.socket, "Target": "/s"}]})
_socket("by a link in an allowed directory", lambda w: (
    (w.builds / "sock").symlink_to(w.stage.engine.socket), {"Binds": [f"{w.builds}/sock:/s"]})[1])
_socket("by a link to the usual path", lambda w: (
    (w.builds / "sock").symlink_to("/var/run/docker.sock"), {"Binds": [f"{w.builds}/sock:/s"]})[1])
_socket("by a link to its directory", lambda w: (
    (w.builds / "dir").symlink_to(w.stage.engine.root), {"Binds": [f"{w.builds}/dir/docker.sock:/s"]})[1])
_socket("by containerd's neighbour directory", lambda w: {"Binds": [f"{w.stage.engine.root}/exec/../:/s"]}, expect=refused("bind"))
