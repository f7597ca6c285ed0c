"""Volumes that are ways to the host, and volumes that belong to others or to nobody."""

from harness import OWNER_LABEL as OWNER

from . import attack, harmless, hidden, refused, rejected

READ = "cat /x/secret"


def host_volume(label, options, command=READ, proof=None, driver="local"):
    """The same volume, made by its own call and through a mount of a container."""
    def shown(w, text):
        return proof(w, text) if proof else w.host_secret in text

    @attack(f"a volume {label} leads to the host", refused())
    def _(w):
        made = w.call("POST", "/volumes/create", {"Name": "attacker-v", "Driver": driver, "DriverOpts": options(w)})
        return made.status == 201 and shown(w, w.output(command, {"Binds": ["attacker-v:/x"]}))

    @attack(f"a container's mount of a volume {label} leads to the host", refused())
    def _(w):
        mount = {"Type": "volume", "Source": "attacker-m", "Target": "/x", "VolumeOptions": {
            "DriverConfig": {"Name": driver, "Options": options(w)}}}
        return shown(w, w.output(command, {"Mounts": [mount]}))


host_volume("with o=bind", lambda w: {"type": "none", "o": "bind", "device": str(w.outside)})
host_volume("with o=ro,rbind", lambda w: {"type": "none", "o": "ro,rbind", "device": str(w.outside)})
host_volume("that is an overlay of host directories", lambda w: {
    "type": "overlay", "device": "overlay", "o": f"lowerdir={w.outside}:{w.builds}"})
host_volume("of the host's control groups", lambda w: {"type": "cgroup2", "device": "cgroup2"},
            "test -w /x/cgroup.procs && echo out", lambda w, text: text == "out")
host_volume("of type proc", lambda w: {"type": "proc", "device": "proc"}, "cat /x/1/cmdline",
            lambda w, text: text.startswith("sh"))
host_volume("of type sysfs", lambda w: {"type": "sysfs", "device": "sysfs"}, "test -w /x/kernel && echo out",
            lambda w, text: text == "out")
host_volume("of type devtmpfs", lambda w: {"type": "devtmpfs", "device": "devtmpfs"}, "test -e /x/kmsg && echo out",
            lambda w, text: text == "out")
host_volume("of a driver of the host", lambda w: {}, driver="giveaway")


@attack("a bind volume hides behind the case of its keys", refused())
def _(w):
    made = w.json('{"name":"attacker-v","dRiver":"local","driveropts":{"type":"none","o":"bind","device":"%s"}}' % w.outside,
                  "/volumes/create")
    return made.status == 201 and w.host_secret in w.output(READ, {"Binds": ["attacker-v:/x"]})


@attack("a bind volume hides behind a second DriverOpts", rejected)
def _(w):
    made = w.json('{"Name":"attacker-v","DriverOpts":{"type":"none","o":"bind","device":"%s"},"DriverOpts":{}}' % w.outside,
                  "/volumes/create")
    return made.status == 201 and w.host_secret in w.output(READ, {"Binds": ["attacker-v:/x"]})


@attack("a volume mounts a network file system from wherever it is told", refused())
def _(w):
    return w.call("POST", "/volumes/create", {"Name": "attacker-v", "DriverOpts": {
        "type": "nfs", "o": "addr=127.0.0.1", "device": ":/"}}).status == 201


@attack("a volume driver of the host gives host files to an anonymous volume", refused("VolumeDriver"))
def _(w):
    return w.host_secret in w.output(READ, {"VolumeDriver": "giveaway"}, Volumes={"/x": {}})


@attack("a mount without a name carries a bind in its driver options", refused())
def _(w):
    mount = {"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {
        "Options": {"type": "none", "o": "bind", "device": str(w.outside)}}}}
    return w.host_secret in w.output(READ, {"Mounts": [mount]})


# --- volumes of others


def foreign_volume(label, make, volume="victim-data"):
    @attack(f"a victim's volume is read {label}", harmless)
    def _(w):
        # A volume of that name which is not there would be made, so there is no text to compare; the victim's must stay unread.
        return w.victim_secret in w.output(READ, make(volume))


foreign_volume("by a bind of its name", lambda v: {"Binds": [f"{v}:/x"]})
foreign_volume("by a read-only bind of its name", lambda v: {"Binds": [f"{v}:/x:ro"]})
foreign_volume("by a bind of its name without copying", lambda v: {"Binds": [f"{v}:/x:nocopy"]})
foreign_volume("by a mount", lambda v: {"Mounts": [{"Type": "volume", "Source": v, "Target": "/x"}]})
foreign_volume("by a mount that also sets labels", lambda v: {"Mounts": [{
    "Type": "volume", "Source": v, "Target": "/x", "VolumeOptions": {"Labels": {OWNER: "attacker"}}}]})
foreign_volume("by a mount in lower case", lambda v: {"Mounts": [{"type": "volume", "ſource": v, "target": "/x"}]})


@attack("a victim's volume is made again under its name and so taken over", harmless)
def _(w):
    made = w.call("POST", "/volumes/create", {"Name": "victim-data", "Labels": {OWNER: "attacker"}})
    return made.status == 201 and "Mountpoint" in made.text


@attack("a victim's volume is told apart by the answer to making it", harmless)
def _(w):
    made = w.call("POST", "/volumes/create", {"Name": "victim-data"})
    return made.status == 201 and made.json()["CreatedAt"] == w.inspect("volumes", "victim-data")["CreatedAt"]


def volumes_from(label, ref):
    @attack(f"a victim's volumes are taken with VolumesFrom, by {label}", hidden)
    def _(w):
        name = ref(w)
        if not w.bare:
            w.foreign("POST", "/containers/create", name, {"Image": "busybox", "HostConfig": {"VolumesFrom": ["{}"]}})
        return w.victim_secret in w.output("cat /data/secret", {"VolumesFrom": [name]})


volumes_from("name", lambda w: "victim-box")
volumes_from("name with a mode", lambda w: "victim-box:ro")
volumes_from("ID", lambda w: w.box)
volumes_from("short ID", lambda w: w.box[:12])
volumes_from("a stopped container", lambda w: "victim-stopped")


# --- volumes of nobody


def unowned(label, host=None, **body):
    @attack(f"a volume that {label} makes belongs to nobody", harmless)
    def _(w):
        created = w.call("POST", "/containers/create", {
            "Image": body.pop("Image", "busybox"), "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", **(host or {})}, **body})
        if created.status == 201:
            w.call("POST", f"/containers/{created.json()['Id']}/start")
        return [v for v, labels in w.stage.made()["volumes"].items() if OWNER not in (labels or {})]


unowned("a bind of a new name", {"Binds": ["attacker-new:/x"]})
unowned("a mount of a new name", {"Mounts": [{"Type": "volume", "Source": "attacker-new", "Target": "/x"}]})
unowned("a mount without a name", {"Mounts": [{"Type": "volume", "Target": "/x"}]})
unowned("a bind of a new name behind a host path's root", {"Binds": ["attacker-new:/x:ro"]})


@attack("a forged owner on a mount's volume gives it to the victim", harmless)
def _(w):
    w.output("true", {"Mounts": [{"Type": "volume", "Source": "attacker-new", "Target": "/x",
                                  "VolumeOptions": {"Labels": {OWNER: "victim"}}}]})
    return w.labels("volumes", "attacker-new").get(OWNER) == "victim"


@attack("a volume that an anonymous path makes belongs to nobody", harmless)
def _(w):
    w.output("true", Volumes={"/x": {}})
    return [v for v, labels in w.stage.made()["volumes"].items() if OWNER not in (labels or {})]


@attack("a volume that an image asks for belongs to nobody", harmless)
def _(w):
    w.own_image(dockerfile="FROM busybox\nVOLUME /x\nCMD true\n")
    w.output("true", Image="attacker/app:1")
    return [v for v, labels in w.stage.made()["volumes"].items() if OWNER not in (labels or {})]
