"""Ways to the host through the fields of create, exec and update."""

import os

from . import attack, harmless, hidden, refused, rejected

CAPABILITIES = {
    "every capability": (["ALL"], 21), "every capability in lower case": (["all"], 21),
    "SYS_ADMIN": (["SYS_ADMIN"], 21), "SYS_ADMIN with its prefix": (["CAP_SYS_ADMIN"], 21),
    "SYS_ADMIN in lower case": (["cap_sys_admin"], 21), "SYS_MODULE behind a harmless one": (["CHOWN", "SYS_MODULE"], 16),
    "DAC_READ_SEARCH, with which files are opened by handle": (["DAC_READ_SEARCH"], 2),
    "SYS_PTRACE": (["SYS_PTRACE"], 19), "NET_ADMIN": (["NET_ADMIN"], 12), "SYS_RAWIO": (["sys_rawio"], 17),
    "SYSLOG": (["SYSLOG"], 34),
}


def effective(text, bit):
    found = [line.split()[1] for line in text.splitlines() if line.startswith("CapEff")]
    return bool(found) and bool(int(found[0], 16) >> bit & 1)


def _capability(label, names, bit):
    @attack(f"a container gets {label}", refused("CapAdd"))
    def _(w):
        return effective(w.output("cat /proc/self/status", {"CapAdd": names}), bit) or w.held("CapAdd", names)


for _label, (_names, _bit) in CAPABILITIES.items():
    _capability(_label, _names, _bit)


@attack("a privileged container can write the kernel's settings", refused("Privileged", "true"))
def _(w):
    return w.output("test -w /proc/sys/kernel/core_pattern && echo out", {"Privileged": True}) == "out" or w.held("Privileged", True)


@attack("all capabilities are added and one is dropped for show", refused("CapAdd"))
def _(w):
    return effective(w.output("cat /proc/self/status", {"CapAdd": ["ALL"], "CapDrop": ["MKNOD"]}), 21) or w.held("CapAdd", ["ALL"])


@attack("a device of the host is given to a container", refused("Devices"))
def _(w):
    device = {"PathOnHost": str(w.outside / "device"), "PathInContainer": "/dev/stolen", "CgroupPermissions": "r"}
    return w.output("(: < /dev/stolen) && echo opened", {"Devices": [device]}) == "opened"


@attack("a whole directory of devices is given to a container", refused("Devices"))
def _(w):
    device = {"PathOnHost": str(w.outside), "PathInContainer": "/dev/host", "CgroupPermissions": "rwm"}
    return w.output("(: < /dev/host/device) && echo opened", {"Devices": [device]}) == "opened"


@attack("a device is named through a link in an allowed directory", refused("Devices"))
def _(w):
    (w.builds / "node").symlink_to(w.outside / "device")
    device = {"PathOnHost": str(w.builds / "node"), "PathInContainer": "/dev/stolen", "CgroupPermissions": "r"}
    return w.output("(: < /dev/stolen) && echo opened", {"Devices": [device]}) == "opened"


@attack("a device rule lets a container make a node for the host's disk", refused("DeviceCgroupRules"))
def _(w):
    kind, major, minor = w.stage.device
    return w.output(f"mknod /d {kind} {major} {minor} && (: < /d) && echo opened",
                    {"DeviceCgroupRules": [f"{kind} {major}:{minor} rmw"]}) == "opened"


@attack("a device rule with stars opens every device", refused("DeviceCgroupRules"))
def _(w):
    kind, major, minor = w.stage.device
    return w.output(f"mknod /d {kind} {major} {minor} && (: < /d) && echo opened",
                    {"DeviceCgroupRules": ["a *:* rwm"]}) == "opened"


@attack("graphics cards are asked for by a device request", refused("DeviceRequests"))
def _(w):
    request = {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    return w.kept("DeviceRequests", [request])


@attack("the existence of host files is read from the errors of a device limit", refused("BlkioDeviceReadBps"))
def _(w):
    def answer(path):
        created = w.call("POST", "/containers/create", {
            "Image": "busybox", "Cmd": ["true"], "HostConfig": {"BlkioDeviceReadBps": [{"Path": str(path), "Rate": 1000}]}})
        if created.status != 201:
            return created.text.replace(str(path), "")
        return w.call("POST", f"/containers/{created.json()['Id']}/start").text.replace(str(path), "")
    return answer(w.outside / "secret") != answer(w.outside / "missing")


NAMESPACES = {"PidMode": "pid", "IpcMode": "ipc", "UTSMode": "uts", "NetworkMode": "net"}


def _host_namespace(field, kind):
    @attack(f"{field} host puts a container into the host's {kind} namespace", refused(field, "host"))
    def _(w):
        return w.output(f"readlink /proc/self/ns/{kind}", {field: "host"}) == w.stage.namespace(kind)


def _foreign_namespace(field, kind, form, name):
    @attack(f"{field} container:<{form}> puts a container into a victim's {kind} namespace", hidden)
    def _(w):
        def start(ref):
            created = w.call("POST", "/containers/create", {
                "Image": "busybox", "Cmd": ["readlink", f"/proc/self/ns/{kind}"],
                "HostConfig": {"NetworkMode": "none", field: f"container:{ref}"}})
            return w.finish(created)
        if not w.bare:
            w.foreign("POST", "/containers/create", name(w), {
                "Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", field: "container:{}"}})
        return start(name(w)) == w.stage.namespace(kind, w.box)


for _field, _kind in NAMESPACES.items():
    _host_namespace(_field, _kind)
    if _kind != "uts":
        _foreign_namespace(_field, _kind, "name", lambda w: "victim-box")
_foreign_namespace("NetworkMode", "net", "ID", lambda w: w.box)
_foreign_namespace("PidMode", "pid", "short ID", lambda w: w.box[:12])


@attack("UsernsMode host leaves the engine's user namespace", refused("UsernsMode", "host"))
def _(w):
    return w.kept("UsernsMode", "host")


@attack("CgroupnsMode host shows the host's control groups", refused("CgroupnsMode", "host"))
def _(w):
    return w.kept("CgroupnsMode", "host")


SECURITY = {
    "without a system call filter": ("seccomp=unconfined", "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
    "without a system call filter, written with a colon": ("seccomp:unconfined", "grep Seccomp: /proc/self/status", "Seccomp:\t0"),
    "with a system call filter of its own that allows everything": (
        'seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}', "unshare -r id -u", "0"),
}
RECORDED = {
    "AppArmor off": "apparmor=unconfined", "AppArmor off, with a colon": "apparmor:unconfined",
    "SELinux labels off": "label=disable", "another SELinux type": "label=type:spc_t",
}


def _security(label, option, command, proof):
    @attack(f"a container runs {label}", refused("SecurityOpt"))
    def _(w):
        return w.output(command, {"SecurityOpt": [option]}) == proof


def _recorded(label, option):
    @attack(f"a container is created with {label}", refused("SecurityOpt"))
    def _(w):
        return w.kept("SecurityOpt", [option])


for _label, (_option, _command, _proof) in SECURITY.items():
    _security(_label, _option, _command, _proof)
for _label, _option in RECORDED.items():
    _recorded(_label, _option)

PEEK = "cat /proc/keys /proc/timer_list /proc/kcore 2>/dev/null | head -c 1 | wc -c"


@attack("an empty list of masked paths uncovers the kernel's files", refused("MaskedPaths"))
def _(w):
    return w.output(PEEK, {"MaskedPaths": []}) == "1"


@attack("a list of masked paths of its own uncovers the kernel's files", refused("MaskedPaths"))
def _(w):
    return w.output(PEEK, {"MaskedPaths": ["/nothing"]}) == "1"


@attack("an empty list of read-only paths makes the kernel's settings writable", refused("ReadonlyPaths"))
def _(w):
    return w.output("test -w /proc/sys/kernel/core_pattern && echo out", {"ReadonlyPaths": []}) == "out"


@attack("a list of read-only paths of its own makes the kernel's settings writable", refused("ReadonlyPaths"))
def _(w):
    return w.output("test -w /proc/sys/kernel/core_pattern && echo out", {"ReadonlyPaths": ["/proc/bus"]}) == "out"


@attack("a container chooses another runtime", refused("Runtime"))
def _(w):
    return w.output("echo ran", {"Runtime": "io.containerd.runc.v2"}) == "ran"


@attack("a container leaves for a control group of its choice", refused("CgroupParent"))
def _(w):
    w.output("true", {"CgroupParent": "/sockguard-e2e-elsewhere"})
    return any(w.inspect("containers", c)["HostConfig"]["CgroupParent"] == "/sockguard-e2e-elsewhere"
               for c in w.stage.made()["containers"])


@attack("a system setting opens the kernel's message queues wide", refused("Sysctls"))
def _(w):
    return w.output("cat /proc/sys/fs/mqueue/msg_max 2>/dev/null || cat /proc/sys/kernel/msgmax",
                    {"Sysctls": {"fs.mqueue.msg_max": "60000", "kernel.msgmax": "60000"}}) == "60000"


@attack("a container makes itself unkillable when memory is short", refused("OomScoreAdj"))
def _(w):
    return w.output("cat /proc/self/oom_score_adj", {"OomScoreAdj": -1000}) == "-1000" or w.held("OomScoreAdj", -1000)


@attack("a container switches the out-of-memory killer off", refused("OomKillDisable"))
def _(w):
    return w.kept("OomKillDisable", True)


@attack("a container is added to the groups that own the host's disks and socket", harmless)
def _(w):
    # Only worth something together with a host file that the group may open.
    gid = 4321
    (w.outside / "group").write_text(w.host_secret)
    os.chown(w.outside / "group", 0, gid)
    os.chmod(w.outside / "group", 0o640)
    return w.output("cat /x/group", {"GroupAdd": [str(gid)], "Binds": [f"{w.outside}:/x:ro"]},
                    User="65534") == w.host_secret


# --- log drivers


def _log_driver(label, make, heard):
    @attack(label, refused("LogConfig"))
    def _(w):
        w.output("echo through-the-log", {"LogConfig": make(w)})
        return w.reached(heard)


_log_driver("a syslog driver writes to a unix socket of the host", lambda w: {
    "Type": "syslog", "Config": {"syslog-address": f"unixgram://{w.loopback.log_socket}"}}, "through-the-log")
_log_driver("a syslog driver reaches the host's loopback", lambda w: {
    "Type": "syslog", "Config": {"syslog-address": f"tcp://127.0.0.1:{w.loopback.sink_port}"}}, "through-the-log")
_log_driver("a gelf driver reaches the host's loopback", lambda w: {
    "Type": "gelf", "Config": {"gelf-address": f"tcp://127.0.0.1:{w.loopback.sink_port}"}}, "through-the-log")
_log_driver("a fluentd driver reaches the host's loopback", lambda w: {
    "Type": "fluentd", "Config": {"fluentd-address": f"tcp://127.0.0.1:{w.loopback.sink_port}"}}, "through-the-log")
_log_driver("a splunk driver sends requests to the host's loopback", lambda w: {
    "Type": "splunk", "Config": {"splunk-url": f"http://127.0.0.1:{w.loopback.port}", "splunk-token": "x"}}, "OPTIONS")


@attack("a splunk driver tells which files of the host exist", refused("LogConfig"))
def _(w):
    def answer(path):
        created = w.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {
            "NetworkMode": "none", "LogConfig": {"Type": "splunk", "Config": {
                "splunk-url": "https://127.0.0.1:1", "splunk-token": "x", "splunk-capath": str(path)}}}})
        if created.status != 201:
            return created.text.replace(str(path), "")
        return w.call("POST", f"/containers/{created.json()['Id']}/start").text.replace(str(path), "")
    return answer(w.outside / "secret") != answer(w.outside / "missing")


@attack("the log goes into a journal that is not the agent's", refused("LogConfig"))
def _(w):
    return w.kept("LogConfig", {"Type": "awslogs", "Config": {"awslogs-group": "x", "awslogs-region": "y"}})


# --- exec and update


def privileged_exec(w, made):
    """The engine has a privileged exec of the attacker's, and starts it where the machine can."""
    if made.status != 201:
        return False
    w.call("POST", f"/exec/{made.json()['Id']}/start", {})
    return w.inspect("exec", made.json()["Id"])["ProcessConfig"]["privileged"]


@attack("an exec is privileged", refused("Privileged"))
def _(w):
    box = w.own()
    return privileged_exec(w, w.call("POST", f"/containers/{box}/exec", {"Privileged": True, "AttachStdout": True, "Cmd": ["true"]}))


@attack("a privileged exec hides behind the spelling of its key", refused("Privileged"))
def _(w):
    box = w.own()
    return privileged_exec(w, w.json('{"privIleged":true,"AttachStdout":true,"Cmd":["true"]}', f"/containers/{box}/exec"))


@attack("an exec is privileged by the second of two keys", rejected)
def _(w):
    box = w.own()
    return privileged_exec(w, w.json('{"Privileged":false,"privileged":true,"Cmd":["true"]}', f"/containers/{box}/exec"))
