"""The stage on which attacks are tried (a victim's objects, a host with secrets) and the attacker's view of it."""

import gzip
import http.server
import io
import json
import os
import shutil
import socket as sockets
import socketserver
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

import harness
from harness import Answer, Conn, OWNER_LABEL, demux, raw, request_bytes, sealed

OWNER = OWNER_LABEL
UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}
VICTIMS = ("victim/app:1", "victim/idle:1")
SHARED = ("busybox:latest", "alpine:latest", "acme/tool:1")
BUILT = "attacker/host:1"  # The attacker's, and the host runs it.


def archive(entries, **options):
    """A tar archive of (name, content) pairs in the given order; names may repeat. A tuple is a link's target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[0]
                tar.addfile(info)
            elif isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                content = content.encode() if isinstance(content, str) else content
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def query(**parameters):
    """A query string; dicts and lists become JSON."""
    return urllib.parse.urlencode({
        k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in parameters.items()
    })


# --- the stage -------------------------------------------------------------------------------


class Stage:
    """One engine with a victim's objects, host files, listeners on the host, and two guards."""

    def __init__(self, guarded=True):
        # An engine of its own: attacks on the bare one leave no stone on another.
        self.engine = engine = harness.Engine("--experimental")
        self.root = Path(tempfile.mkdtemp(prefix=harness.PREFIX + "stage-"))
        (self.root / "owner").write_text(str(os.getpid()))
        self.host_secret = "host-" + uuid.uuid4().hex
        self.victim_secret = "victim-" + uuid.uuid4().hex
        self.outside = self.root / "host"
        self.builds = self.root / "builds"
        for directory in (self.outside, self.builds, self.root / "builds-private"):
            directory.mkdir()
            (directory / "secret").write_text((self.host_secret if directory != self.builds else "nothing") + "\n")
        self.device = _a_device()
        kind, major, minor = self.device
        os.mknod(self.outside / "device", (0o60000 if kind == "b" else 0o20000) | 0o600, os.makedev(major, minor))
        self._dress_host()
        self.loopback = Loopback(self)
        engine.image("alpine:latest", {"/release": "alpine"})
        engine.image("acme/tool:1", {"/release": "tool"})
        for name in VICTIMS:
            engine.image(name, {"/image-secret": self.victim_secret + "\n", "/which": name},
                         [f"LABEL {OWNER}=victim", f"ENV IMAGE_TOKEN={self.victim_secret}"])
        engine.image(BUILT, {"/which": "host"}, [f"LABEL {OWNER}=attacker"])
        self.images = {name: self.image_id(name) for name in (*VICTIMS, *SHARED, BUILT)}
        self.saved = self.god("GET", "/images/get?" + "&".join(f"names={name}" for name in self.images)).body
        self.box = self.stopped = self.exec = self.host = None
        self.guard = self.victim_guard = None
        self.networks = {}
        self.built_in = set(self.census()["networks"])
        self.restore()
        if guarded:
            self.guard = harness.Guard(engine, owner="attacker", flags=["--allow-bind", str(self.builds)])
            self.victim_guard = harness.Guard(engine, owner="victim", flags=["--allow-bind", str(self.builds)])

    def _dress_host(self):
        # The engine's mount namespace gets the usual paths: its socket, and a volume plug-in that gives away host files.
        self.plugin = Plugin(self.outside / "plugin.sock", self.outside)
        done = subprocess.run(self.engine.inside("sh", "-ec", f"""
            mount -t tmpfs tmpfs /run
            : > /run/docker.sock
            mount --bind {self.engine.socket} /run/docker.sock
            mkdir -p /run/docker/plugins
            ln -s {self.outside}/plugin.sock /run/docker/plugins/giveaway.sock
        """), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def close(self):
        for guard in (self.guard, self.victim_guard):
            if guard:
                guard.close()
        self.engine.stop()
        self.loopback.close()
        self.plugin.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # The engine, asked directly.

    def god(self, method, path, body=None, headers=None, timeout=120):
        return raw(self.engine.socket, method, path, body, headers, timeout)

    def must(self, method, path, body=None, headers=None):
        answer = self.god(method, path, body, headers)
        assert answer.status < 400, (method, path, answer.status, answer.text)
        return _parsed(answer)

    def inspect(self, kind, ref):
        answer = self.god("GET", f"/{kind}/{ref}" + ("/json" if kind in ("containers", "images", "exec") else ""))
        return answer.json() if answer.status == 200 else None

    def image_id(self, ref):
        found = self.inspect("images", ref)
        return found and found["Id"]

    def inside(self, *command):
        """Output of a command in the engine's namespaces."""
        return subprocess.run(self.engine.inside(*command), capture_output=True, text=True).stdout.strip()

    def namespace(self, kind, container=None):
        """The name of a namespace of the host, or of a running container."""
        if container is None:
            return os.readlink(f"/proc/{self.engine.pid}/ns/{kind}")
        return self.inside("readlink", f"/proc/{self.inspect('containers', container)['State']['Pid']}/ns/{kind}")

    def logs(self, container):
        return b"".join(demux(self.god("GET", f"/containers/{container}/logs?stdout=1&stderr=1").body)).decode(errors="replace")

    # The victim's objects, and what is shared.

    def restore(self):
        """Puts the victim's objects and the shared images back to what they were."""
        labels = {OWNER: "victim"}
        for name in (*VICTIMS, *SHARED, BUILT):
            wanted = self.images[name]
            if self.image_id(name) != wanted:
                if self.inspect("images", wanted):
                    self._tag(wanted, name)
                else:
                    self.must("POST", "/images/load?quiet=1", self.saved, {"Content-Type": "application/x-tar"})
        for name in ("victim-net", "victim-idle"):
            if not self._same("networks", name):
                for network in self.must("GET", "/networks?" + query(filters={"name": [name]})):
                    if network["Name"] == name:
                        for container in self.inspect("networks", network["Id"])["Containers"]:
                            self.god("POST", f"/networks/{network['Id']}/disconnect", {"Container": container, "Force": True})
                        self.must("DELETE", "/networks/" + network["Id"])
                self.networks[name] = self.must("POST", "/networks/create", {"Name": name, "Labels": labels})["Id"]
                if name == "victim-net":
                    self._remove("victim-box")
        for name in ("victim-data", "victim-idle"):
            if not self._same("volumes", name):
                if name == "victim-data":
                    self._remove("victim-box", "victim-stopped")
                self.must("DELETE", f"/volumes/{name}?force=1")
                made = self.must("POST", "/volumes/create", {"Name": name, "Labels": labels, "DriverOpts": {}})
                (Path(made["Mountpoint"]) / "secret").write_text(self.victim_secret + "\n")
        if not self._same("box", "victim-box"):
            self._remove("victim-box")
            self.box = self.must("POST", "/containers/create?name=victim-box", {
                "Image": "victim/app:1", "Labels": sealed("victim"), "Env": [f"TOKEN={self.victim_secret}"], "StopSignal": "KILL",
                "OpenStdin": True,
                "Cmd": ["sh", "-c", 'echo "$TOKEN" | tee /secret; while :; do sleep 1000; done'],
                "HostConfig": {"Binds": ["victim-data:/data"], "IpcMode": "shareable"},
            })["Id"]
            self.must("POST", "/networks/victim-net/connect", {"Container": self.box})
            self.must("POST", f"/containers/{self.box}/start")
            harness.until(lambda: self.victim_secret in self.logs(self.box), what="the victim's output")
            self.exec = None
        if not self.exec or not self._same("exec", self.exec):
            self.exec = self.must("POST", f"/containers/{self.box}/exec",
                                  {"Cmd": ["sh", "-c", "cat /secret"], "AttachStdout": True})["Id"]
        if not self._same("stopped", "victim-stopped"):
            self._remove("victim-stopped")
            self.stopped = self.must("POST", "/containers/create?name=victim-stopped", {
                "Image": "victim/app:1", "Labels": sealed("victim"), "Cmd": ["sleep", "1000"], "StopSignal": "KILL",
                "HostConfig": {"Binds": ["victim-data:/data"], "NetworkMode": "none"},
            })["Id"]
        if not self._same("host", "victim-host"):
            self._remove("victim-host")
            # It inherits its image's owner label.
            self.host = self.must("POST", "/containers/create?name=victim-host", {
                "Image": BUILT, "Env": [f"TOKEN={self.host_secret}"], "StopSignal": "KILL", "OpenStdin": True,
                "Cmd": ["sh", "-c", "echo x > /secret; cat /host/secret; while :; do sleep 1000; done"],
                "HostConfig": {"Binds": [f"{self.outside}:/host:ro"]},
            })["Id"]
            assert self.inspect("containers", self.host)["Config"]["Labels"] == {OWNER: "attacker"}
            self.must("POST", f"/containers/{self.host}/start")
            harness.until(lambda: self.host_secret in self.logs(self.host), what="the output of the host's container")
        self.known = self.fingerprint()

    def _same(self, part, name):
        return hasattr(self, "known") and self.known[part][name] and self._look(part, name) == self.known[part][name]

    def _tag(self, image, name):
        repo, tag = name.rsplit(":", 1)
        self.must("POST", f"/images/{image}/tag?repo={repo}&tag={tag}")

    def _remove(self, *names):
        for name in names:
            self.god("DELETE", f"/containers/{name}?force=1")
        known = {"victim-box": self.box, "victim-stopped": self.stopped, "victim-host": self.host}
        for name in names:
            if known[name]:
                self.god("DELETE", f"/containers/{known[name]}?force=1")

    def _look(self, part, name):
        if part in ("box", "stopped", "host"):
            found = self.inspect("containers", name)
            if not found:
                return None
            # A check of binds lets all stand still that an agent's code runs in, this one, too, and then go on.
            end = time.monotonic() + 30
            while part == "host" and self.guard and found["State"]["Paused"] and time.monotonic() < end:
                time.sleep(0.02)
                found = self.inspect("containers", name) or found
            host = found["HostConfig"]
            return (found["Id"], found["State"]["Status"], found["State"]["StartedAt"], found["RestartCount"],
                    [host[k] for k in ("Memory", "CpuShares", "PidsLimit", "RestartPolicy")],
                    sorted(found["NetworkSettings"]["Networks"]), sorted(found["ExecIDs"] or []),
                    self.engine.changed(found))
        if part == "exec":
            found = self.inspect("exec", name)
            return found and (found["Running"], found["ExitCode"], found["Pid"])
        if part == "networks":
            # By ID: a name may have been made ambiguous.
            found = self.networks.get(name) and self.inspect("networks", self.networks[name])
            return found and (found["Id"], sorted(found["Containers"]), found["Labels"])
        found = self.inspect("volumes", name)
        place = found and Path(found["Mountpoint"])
        return found and (found["Labels"], found["CreatedAt"], sorted(p.name for p in place.iterdir()),
                          (place / "secret").exists() and (place / "secret").read_text())

    def fingerprint(self):
        """Everything about the victim's objects that an attack could change."""
        tags = {tag: i["Id"] for i in self.god("GET", "/images/json?all=1").json() for tag in i["RepoTags"] or []}
        return {
            "box": {"victim-box": self._look("box", "victim-box")},
            "stopped": {"victim-stopped": self._look("stopped", "victim-stopped")},
            "host": {"victim-host": self._look("host", "victim-host")},
            "exec": {self.exec: self._look("exec", self.exec)},
            "networks": {name: self._look("networks", name) for name in ("victim-net", "victim-idle")},
            "volumes": {name: self._look("volumes", name) for name in ("victim-data", "victim-idle")},
            "images": {name: tags.get(name) for name in self.images},
        }

    def ids(self):
        """The identifiers by which a leak is recognised."""
        return {"victim-box": self.box, "victim-stopped": self.stopped, "victim-host": self.host, "victim's exec": self.exec,
                **{"network " + n: v for n, v in self.networks.items()},
                **{"image " + n: v.removeprefix("sha256:") for n, v in self.known["images"].items() if n.startswith("victim")}}

    # What is there at all, and the way back.

    def census(self):
        images = self.god("GET", "/images/json?all=1").json()
        return {
            "containers": {c["Id"]: c["Labels"] for c in self.god("GET", "/containers/json?all=1").json()},
            "networks": {n["Id"]: n["Labels"] for n in self.god("GET", "/networks").json()
                         if n["Name"] not in ("docker_gwbridge", "ingress")},  # what a swarm leaves behind
            "volumes": {v["Name"]: v["Labels"] for v in self.god("GET", "/volumes").json()["Volumes"] or []},
            "images": {i["Id"]: i["Labels"] for i in images},
            "tags": {tag: i["Id"] for i in images for tag in i["RepoTags"] or [] if tag != "<none>:<none>"},
        }

    def made(self):
        """What is there that is neither the victim's nor everybody's, by kind."""
        now = self.census()
        keep = {
            "containers": {self.box, self.stopped, self.host},
            "networks": {*self.built_in, *self.networks.values()},
            "volumes": {"victim-data", "victim-idle"},
            "images": set(self.images.values()),
            "tags": set(self.images),
        }
        return {kind: {k: v for k, v in things.items() if k not in keep[kind]} for kind, things in now.items()}

    def tidy(self):
        """Removes what an attack made and restores what it broke."""
        for _ in range(20):
            made = self.made()
            if not any(made.values()):
                break
            self._remove_made(made)
        else:
            raise RuntimeError(f"the stage cannot be tidied: {made}")
        if self.fingerprint() != self.known:
            self.restore()
        for entry in self.builds.iterdir():
            if entry.name != "secret":
                entry.unlink() if entry.is_symlink() or entry.is_file() else shutil.rmtree(entry)

    def _remove_made(self, made):
        for container in made["containers"]:
            self.god("DELETE", f"/containers/{container}?force=1&v=1")
        for network in made["networks"]:
            for container in (self.inspect("networks", network) or {}).get("Containers", {}):
                self.god("POST", f"/networks/{network}/disconnect", {"Container": container, "Force": True})
            self.god("DELETE", "/networks/" + network)
        for tag in made["tags"]:
            self.god("DELETE", f"/images/{tag}?force=1&noprune=1")
        for name in SHARED:
            if self.image_id(name) != self.images[name] and self.inspect("images", self.images[name]):
                self._tag(self.images[name], name)
        for image in made["images"]:
            self.god("DELETE", f"/images/{image}?force=1")
        for volume in made["volumes"]:
            self.god("DELETE", f"/volumes/{volume}?force=1")


def _a_device():
    """A device of this machine that no container gets by itself, and that can be opened at all: (b or c, major, minor)."""
    candidates = ["/dev/" + line.split()[3] for line in Path("/proc/partitions").read_text().split("\n")[2:] if line]
    for path in [*candidates, "/dev/fuse", "/dev/loop-control", "/dev/net/tun", "/dev/kmsg"]:
        try:
            os.close(os.open(path, os.O_RDONLY))
            found = os.stat(path)
            return "b" if path in candidates else "c", os.major(found.st_rdev), os.minor(found.st_rdev)
        except OSError:
            pass
    raise RuntimeError("this machine has no device that could be stolen")


class Plugin:
    """A volume plug-in of the host whose volumes are a directory of the host."""

    def __init__(self, path, directory):
        names = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                name = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}").get("Name", "")
                method = self.path.rpartition(".")[2]
                if method == "Create":
                    names.add(name)
                answer = {
                    "Activate": {"Implements": ["VolumeDriver"]},
                    "Capabilities": {"Capabilities": {"Scope": "local"}},
                    "List": {"Volumes": [{"Name": n, "Mountpoint": str(directory)} for n in names]},
                }.get(method, {"Mountpoint": str(directory), "Volume": {"Name": name, "Mountpoint": str(directory)}})
                if name not in names and "Volume" in answer:
                    answer = {"Err": "no such volume"}
                if method == "Remove":
                    names.discard(name)
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self):
                return "engine"

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Loopback:
    """Services on the host's own 127.0.0.1 and on a unix socket of the host, which no agent should reach."""

    def __init__(self, stage):
        self.secret = "loopback-" + uuid.uuid4().hex
        self.hits = []
        self.heard = b""
        loopback = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                size = int(self.headers.get("content-length") or 0)
                self.rfile.read(size)
                loopback.hits.append(f"{self.command} {self.path}")
                status, headers, body = 200, {}, loopback.secret.encode()
                if self.path == "/Dockerfile":
                    body = b"FROM busybox\nRUN echo from-the-loopback\n"
                elif self.path == "/layer.tar":
                    body = archive([("stolen", loopback.secret)])
                elif self.path == "/v2/":
                    body = b"{}"
                elif self.path.startswith("/v2/") and self.command == "POST":
                    status, body = 403, b"{}"
                elif self.path.startswith("/v2/"):
                    status, body = 404, b"{}"
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_OPTIONS = answer

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def server_bind(self):
                socketserver.TCPServer.server_bind(self)
                self.server_name, self.server_port = self.server_address[:2]

        with _network_of(stage.engine.pid):
            self.http = Server(("127.0.0.1", 0), Handler)
            self.sink = sockets.create_server(("127.0.0.1", 0))
        self.port = self.http.server_port
        self.sink_port = self.sink.getsockname()[1]
        self.log_socket = stage.outside / "log.sock"
        self.unix = sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM)
        self.unix.bind(str(self.log_socket))
        for work in (lambda: self.http.serve_forever(0.1), self._listen, self._read_unix):
            threading.Thread(target=work, daemon=True).start()

    def _listen(self):
        try:
            while True:
                connection, _ = self.sink.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def _read(self, connection):
        try:
            while data := connection.recv(65536):
                self.heard += data
        except OSError:
            pass

    def _read_unix(self):
        try:
            while True:
                self.heard += self.unix.recv(65536)
        except OSError:
            pass

    def reached(self, what):
        """True if a request for that path came, or that text was heard."""
        return any(what in hit for hit in self.hits) or what.encode() in self.heard

    def forget(self):
        self.hits.clear()
        self.heard = b""

    def close(self):
        self.http.shutdown()
        for listener in (self.http.socket, self.sink, self.unix):
            listener.close()


class _network_of:
    """Sockets made in this block belong to the network of that process."""

    def __init__(self, pid):
        self.pid = pid

    def _enter(self, path):
        import ctypes
        with open(path) as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def __enter__(self):
        self.own = open(f"/proc/thread-self/ns/net")
        self._enter(f"/proc/{self.pid}/ns/net")

    def __exit__(self, *_):
        self._enter(f"/proc/self/fd/{self.own.fileno()}")
        self.own.close()


# --- the attacker ----------------------------------------------------------------------------


class SetUpFailed(AssertionError):
    """A step that is no attack was not done: the attempt says nothing."""


class World:
    """What the attacker has: a socket, its own files under `builds`, and what it knows of the victim."""

    def __init__(self, stage, socket, victim_socket, bare, patience=1):
        self.stage = stage
        self.patience = patience  # for what may come a little later
        self.socket = socket
        self.victim_socket = victim_socket
        self.bare = bare
        self.builds = stage.builds
        self.outside = stage.outside
        self.host_secret = stage.host_secret
        self.victim_secret = stage.victim_secret
        self.box = stage.box
        self.loopback = stage.loopback
        self.god = stage.god
        self.inspect = stage.inspect
        self.transcript = []   # (request, answer) of the attack itself
        self.before = stage.known
        stage.loopback.forget()
        self.set_up = set()    # objects of others that an attempt needs
        self.said = ""         # all that the attacker has sent
        self.pairs = []        # (answer, name, answer for the absent name, absent name)

    def comes(self, look, seconds):
        """True if look() comes true. An engine without a guard is given all the time it may need."""
        end = time.monotonic() + (60 if self.bare else seconds)
        while not look():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def reached(self, what):
        """True if the host's loopback was reached: see Loopback."""
        return self.comes(lambda: self.loopback.reached(what), 0.3)

    # Requests.

    def call(self, method, path, body=None, headers=None, timeout=120):
        """One step of the attack. A connection that is cut or hangs is an answer of status 0."""
        try:
            answer = raw(self.socket, method, path, body, headers, timeout)
        except TimeoutError:
            answer = Answer(0, {}, reason="hangs")
        except (OSError, EOFError, ValueError) as error:
            answer = Answer(0, {}, reason=f"cut: {error}")
        self.said += f"{path} {body!r}"
        self._note(f"{method} {path} {_short(body)}", answer)
        return answer

    def json(self, text, path="/containers/create"):
        """A POST of a JSON text as it is."""
        return self.call("POST", path, text.encode("utf-8", "surrogateescape"), {"Content-Type": "application/json"})

    def bytes(self, data, wait=60.0):
        """Raw bytes; all that comes back until the other side closes or is silent for a while."""
        quiet = 0.4 * self.patience
        data = data.encode("latin-1") if isinstance(data, str) else data
        reply = b""
        with Conn(self.socket, wait) as conn:
            try:
                conn.send(data)
                while part := conn.socket.recv(65536):
                    reply += part
                    conn.socket.settimeout(quiet)
            except (TimeoutError, OSError):
                pass
        self.said += repr(data)
        self._note(repr(data[:300]), _first_answer(reply))
        return reply.decode(errors="replace")

    def _note(self, request, answer):
        self.transcript.append((request, answer))

    def must(self, method, path, body=None, headers=None):
        """A step that any agent may do; the attempt is void if it fails."""
        answer = raw(self.socket, method, path, body, headers, 120)
        if answer.status >= 400:
            raise SetUpFailed(f"{method} {path} {_short(body)}: {answer.status} {answer.text[:300]}")
        return _parsed(answer)

    def foreign(self, method, path, name, body=None, headers=None):
        """A request about an object of the victim. Through a guard it must answer as for an absent one."""
        def fill(value, ref):
            if isinstance(value, dict):
                return {k: fill(v, ref) for k, v in value.items()}
            if isinstance(value, list):
                return [fill(v, ref) for v in value]
            return value.replace("{}", ref) if isinstance(value, str) else value
        answer = self.call(method, path.replace("{}", name), fill(body, name), headers)
        if not self.bare:
            other = absent_name(name)
            direct = self.god(method, path.replace("{}", other), fill(body, other), headers)
            if direct.status == 201 and "Id" in direct.text:
                self.set_up.add(direct.json()["Id"])
            try:
                here = raw(self.socket, method, path.replace("{}", other), fill(body, other), headers)
            except (OSError, EOFError, ValueError) as error:
                here = Answer(0, {}, reason=str(error))
            self.pairs.append((answer, name, direct, here, other))
        return answer

    # The attacker's own objects, made through the socket under attack.

    def own(self, image="busybox", command="while :; do sleep 1000; done", start=True, name=None, **body):
        host = {"NetworkMode": "none", **body.pop("HostConfig", {})}
        made = self.must("POST", "/containers/create" + (f"?name={name}" if name else ""), {
            "Image": image, "Cmd": ["sh", "-c", command], "StopSignal": "KILL", "HostConfig": host, **body})["Id"]
        if start:
            self.must("POST", f"/containers/{made}/start")
        return made

    def network(self, name="attacker-net", **body):
        return self.must("POST", "/networks/create", {"Name": name, **body})["Id"]

    def own_image(self, name="attacker/app:1", dockerfile="FROM busybox\nCMD true\n"):
        answer = raw(self.socket, "POST", f"/build?t={name}", archive([("Dockerfile", dockerfile)]),
                     {"Content-Type": "application/x-tar"}, 180)
        found = self.stage.image_id(name)
        if answer.status != 200 or not found:
            raise SetUpFailed(f"build of {name}: {answer.status} {answer.text[-300:]}")
        return found

    def held(self, field, value):
        """True if the engine has taken a container with that HostConfig, whether or not this machine can run it."""
        return any(str(self.inspect("containers", c)["HostConfig"].get(field)).upper() == str(value).upper()
                   for c in self.stage.made()["containers"])

    def victims_exec(self, command):
        """An exec that the victim has running."""
        made = self.stage.must("POST", f"/containers/{self.box}/exec", {"Cmd": command, "Tty": True})["Id"]
        self.stage.must("POST", f"/exec/{made}/start", {"Detach": True, "Tty": True})
        self.before = self.stage.fingerprint()
        return made

    def others(self, kind, body, name=None, owner="victim", labels=None):
        """Something that another owner (or nobody, with owner None) makes for this attempt, or that has these labels."""
        if labels is None:
            labels = {} if owner is None else sealed(owner) if kind == "containers" else {OWNER: owner}
        path = f"/{kind}/create" + (f"?name={name}" if name else "")
        made = self.stage.must("POST", path, {**body, "Labels": labels})
        self.set_up.add(made.get("Id") or made["Name"])
        return made.get("Id") or made["Name"]

    # Attacks in one step.

    def output(self, command, host=None, **body):
        """What a container prints that is created as told; empty if it does not come to that."""
        created = self.call("POST", "/containers/create", {
            "Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": {"NetworkMode": "none", **(host or {})}, **body})
        return self.finish(created)

    def finish(self, created):
        """Starts a container that was just created, and gives what it printed."""
        if created.status != 201:
            return ""
        container = created.json()["Id"]
        if self.call("POST", f"/containers/{container}/start").status not in (204, 304):
            return ""
        self.god("POST", f"/containers/{container}/wait")
        return self.stage.logs(container).strip()

    def kept(self, field, value, **body):
        """True if a container runs for which the engine has that HostConfig."""
        created = self.call("POST", "/containers/create", {
            "Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", field: value}, **body})
        if created.status != 201:
            return False
        return self.inspect("containers", created.json()["Id"])["HostConfig"].get(field) == value

    def build(self, dockerfile, query="t=attacker/out", files=(), context=None, headers=None):
        """Builds; gives the output. `built()` tells what came of it."""
        context = context if context is not None else archive([("Dockerfile", dockerfile), *files])
        answer = self.call("POST", f"/build?{query}", context, {"Content-Type": "application/x-tar", **(headers or {})}, 180)
        return "".join(json.loads(line).get("stream", "") for line in answer.text.splitlines()
                       if line.startswith("{")) if answer.status == 200 else ""

    def built(self, name="attacker/out"):
        return self.inspect("images", name)

    def labels(self, kind, name):
        """The labels that the engine holds for something."""
        found = self.inspect(kind, name) or {}
        return found.get("Labels") or (found.get("Config") or {}).get("Labels") or {}


def _parsed(answer):
    try:
        return answer.json()
    except ValueError:
        return answer


def _short(body):
    if body is None:
        return ""
    if isinstance(body, bytes) and b"\0" in body:
        return f"<{len(body)} bytes>"
    return (json.dumps(body) if isinstance(body, (dict, list)) else repr(body))[:400]


def _first_answer(reply):
    head, _, body = reply.partition(b"\r\n\r\n")
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
        elif "content-length" in headers:
            body = body[:int(headers["content-length"])]
        return Answer(int(first.split()[1]), headers, body)
    except (IndexError, ValueError):
        return Answer(0, {}, reason="no answer" if not reply else f"not HTTP: {reply[:80]!r}")


def absent_name(name):
    """A name of the same form that nothing has."""
    prefix = ""
    for known in ("sha256:", "/", "%2F"):
        if name.startswith(known):
            prefix, name = known, name[len(known):]
    if all(c in "0123456789abcdef" for c in name):
        return prefix + ("d15a99ea2ed0" * 6)[:len(name)]
    return prefix + name.replace("victim", "vanish")


def gzipped(data):
    return gzip.compress(data, 1)
