"""ECS on one host: runs task definitions as the ECS agent does, on an engine of its own.

It knows what the shipped templates use. Anything else in a definition is an error, so that nothing is quietly left out.

What differs from a host of the compute stack is here, and only here:
- the paths of the host are those of the engine's own mount name space, where `ECS_PATHS` lie on directories of the test;
- cgroups of tasks lie below one of the test's, so that nothing of it stays;
- logs go to the engine instead of CloudWatch;
- images come from no registry, so the engine knows no digests of them;
- it does not go on by itself: each `Task.step()` does what ECS would do next.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import agents
import harness
from agents import Agent
from harness import REPO, raw, until
from stack import ecs_agent

sys.path.append(str(REPO / "tests/stack"))

from template import ACCOUNT, REGION  # noqa: E402

CLUSTER = "ci"

# Where a host has what the tasks mount: the directory that takes its place, and its mode.
ECS_PATHS = {
    "/var/lib/docker": ("data", "0710"),
    "/var/lib/sockguard": ("sockguard", "0700"),
    "/run/sockguard": ("guarded", "0755"),
}


class EcsHost(harness.Engine):
    """An engine at its usual paths, on a host as the compute stack makes it."""

    def __init__(self):
        self._prepared = False
        super().__init__("--data-root", "/var/lib/docker", "--host", "unix:///var/run/docker.sock")

    def start(self):
        if not self._prepared:
            self._prepare()
        super().start()

    def _prepare(self):
        """Nothing of this is seen outside of the engine's own name spaces."""
        self._prepared = True
        script = ["mount -t tmpfs -o mode=755 tmpfs /run", "mount -t tmpfs -o mode=755 tmpfs /var/lib"]
        for path, (directory, mode) in ECS_PATHS.items():
            ours = self.root / directory
            script.append(f"mkdir -p {path} {ours} && chmod {mode} {ours} && mount --bind {ours} {path}")
        script.append(f"ip address add {ecs_agent.ADDRESS}/32 dev lo")
        done = subprocess.run(self.inside("sh", "-ec", "\n".join(script)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Fields:
    """A part of a definition, of which every property has to be taken."""

    def __init__(self, where, properties):
        self.where, self._left = where, dict(properties)

    def take(self, name, default=None):
        return self._left.pop(name, default)

    def need(self, name):
        assert name in self._left, f"{self.where} has no {name}"
        return self._left.pop(name)

    def only(self, name, *values):
        """Takes a property that may only have one of these values, None where it is missing."""
        value = self._left.pop(name, None)
        assert value in values, f"{self.where}.{name} is {value!r}, which this ECS does not know"
        return value

    def part(self, name):
        return Fields(f"{self.where}.{name}", self._left.pop(name, {}))

    def parts(self, name):
        return [Fields(f"{self.where}.{name}[{i}]", part) for i, part in enumerate(self._left.pop(name, []))]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        assert kind or not self._left, f"{self.where} has what this ECS does not know: {sorted(self._left)}"


class Status(Enum):
    """Of a task, in ECS's words."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


class Met(Enum):
    """Has another container come to where this one waits for it?"""

    YES = "yes"
    NOT_YET = "not yet"
    NEVER = "never"


def condition(name, state):
    """A condition of `DependsOn`, by the engine's word about the other container; None before it was started."""
    if state is None:
        return Met.NOT_YET
    ended = state["Status"] == "exited"
    match name:
        case "START":
            return Met.YES
        case "COMPLETE":
            return Met.YES if ended else Met.NOT_YET
        case "SUCCESS":
            return Met.NOT_YET if not ended else Met.YES if state["ExitCode"] == 0 else Met.NEVER
        case "HEALTHY":
            healthy = state["Health"]["Status"]
            return Met.YES if healthy == "healthy" else Met.NEVER if ended or healthy == "unhealthy" else Met.NOT_YET
    raise AssertionError(f"no condition: {name}")


@dataclass
class Container:
    """A container of a task. It is made when what it depends on is there."""

    name: str
    essential: bool
    depends: list[tuple[str, str]]
    restarts_after: int | None
    stop_timeout: int
    engine_name: str
    body: dict
    id: str | None = None
    started: int = 0


class Ecs(agents.Host):
    """An ECS host with an engine, ECS's agent, and a store for secrets."""

    def __init__(self):
        self.engine = EcsHost()
        self.container = None
        self.secrets = {}
        self.tasks = []
        self.clock = 0
        self._agent = subprocess.Popen(
            self.engine.in_network(sys.executable, ecs_agent.__file__, self.engine.root), stdin=subprocess.DEVNULL)
        until(lambda: self.engine.connects(80, ecs_agent.ADDRESS), what="the ECS agent's address")

    def put_secret(self, name, value):
        """An SSM parameter."""
        self.secrets[f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{name}"] = value

    def run(self, definition):
        """A new task of a definition. Call its `step` for it to go on."""
        task = Task(self, definition)
        self.tasks.append(task)
        known = {task.arn: task.known for task in self.tasks}
        new = self.engine.root / "tasks.new"
        new.write_text(json.dumps(known))
        new.rename(self.engine.root / "tasks.json")
        return task

    def later(self, seconds):
        """Lets so much time go by on ECS's clock, which does not go by itself."""
        self.clock += seconds

    def protection(self, task):
        """What a task said about its protection, in order."""
        log = self.engine.root / "protection.log"
        said = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [{key: value for key, value in line.items() if key != "task"} for line in said if line["task"] == task.arn]

    def close(self):
        self._agent.kill()
        self._agent.wait(60)
        self.engine.stop()


class Task:
    """A task: its `containers` by name, its `volumes`, and its `status` with the `reason` for which it was stopped."""

    def __init__(self, ecs, definition):
        self.ecs = ecs
        self.id = uuid.uuid4().hex
        self.arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER}/{self.id}"
        self.cgroup = f"/{ecs.engine.name}/ecs/{self.id}"
        self.reason = None
        self.containers = {}
        self._sources, self.volumes = {}, []
        with Fields("TaskDefinition", definition) as fields:
            fields.only("RequiresCompatibilities", ["EC2"])
            fields.need("ExecutionRoleArn")
            self.family = fields.need("Family")
            self._role = fields.take("TaskRoleArn")
            self._network = fields.only("NetworkMode", "bridge", "none")
            self._pid = fields.only("PidMode", "host", None)
            self._cpu, self._memory = fields.take("Cpu"), fields.take("Memory")
            for volume in fields.parts("Volumes"):
                self._volume(volume)
            for container in fields.parts("ContainerDefinitions"):
                made = self._container(container)
                self.containers[made.name] = made
        known = {other for container in self.containers.values() for other, _ in container.depends}
        assert known <= set(self.containers), known

    def _limit(self):
        """Sets the limits of the task, which hold for all that is in its cgroup."""
        top = Path("/sys/fs/cgroup")
        unified = (top / "cgroup.controllers").exists()
        memory, quota = str(int(self._memory or 0) << 20), int(self._cpu or 0) * 100_000 // 1024
        limits = []
        if self._memory:
            limits.append(("", "memory.max", memory) if unified else ("memory", "memory.limit_in_bytes", memory))
        if self._cpu:
            limits.append(("", "cpu.max", f"{quota} 100000") if unified else ("cpu", "cpu.cfs_quota_us", str(quota)))
        for hierarchy, file, value in limits:
            (top / hierarchy / self.cgroup.lstrip("/") / file).write_text(value)

    def _volume(self, fields):
        with fields:
            name = fields.need("Name")
            with fields.part("Host") as host, fields.part("DockerVolumeConfiguration") as docker:
                path = host.take("SourcePath")
                docker.only("Scope", "task", None)
                docker.only("Driver", "local", None)
        if path is None:
            # ECS gives it a new name for each task, so that it belongs to one.
            path = self._unique(name)
            answer = self.ecs.god("POST", "/volumes/create", {"Name": path, "Driver": "local"})
            assert answer.status == 201, answer.text
            self.volumes.append(path)
        self._sources[name] = path

    def _unique(self, name):
        return f"ecs-{self.family}-1-{name}-{uuid.uuid4().hex[:20]}"

    def _container(self, fields):
        with fields:
            name = fields.need("Name")
            with fields.part("LinuxParameters") as linux, linux.part("Capabilities") as capabilities:
                host = {"CapAdd": capabilities.take("Add", []), "CapDrop": capabilities.take("Drop", [])}
            host |= {
                "NetworkMode": self._network,
                "PidMode": self._pid or "",
                "CgroupParent": self.cgroup,
                "ReadonlyRootfs": fields.take("ReadonlyRootFilesystem", False),
                # The agent is told to refuse it: ECS_DISABLE_PRIVILEGED.
                "Privileged": fields.only("Privileged", False, None) or False,
                "SecurityOpt": fields.take("DockerSecurityOptions", []),
                "CpuShares": max(int(fields.take("Cpu", 0)), 2),
                "Memory": int(fields.take("Memory", 0)) << 20,
                "Binds": [self._mount(mount) for mount in fields.parts("MountPoints")],
                "LogConfig": self._log(fields.part("LogConfiguration")),
            }
            body = {
                "Image": fields.need("Image").partition("@")[0],
                "User": fields.take("User", ""),
                "Env": self._environment(fields),
                # ECS's own come last, so they win.
                "Labels": {f"com.amazonaws.ecs.{key}": value for key, value in {
                    "cluster": CLUSTER, "container-name": name, "task-arn": self.arn,
                    "task-definition-family": self.family, "task-definition-version": "1",
                }.items()},
                "HostConfig": host,
            }
            for key, value in (("Cmd", fields.take("Command")), ("Entrypoint", fields.take("EntryPoint"))):
                if value is not None:
                    body[key] = value
            check = self._health(fields.part("HealthCheck"))
            if check:
                body["Healthcheck"] = check
            with fields.part("RestartPolicy") as policy:
                restarts = policy.take("RestartAttemptPeriod", 300) if policy.take("Enabled", False) else None
            depends = []
            for dependency in fields.parts("DependsOn"):
                with dependency:
                    depends.append((dependency.need("ContainerName"), dependency.need("Condition")))
            return Container(name, fields.take("Essential", True), depends, restarts, fields.take("StopTimeout", 30),
                             self._unique(name), body)

    def _mount(self, fields):
        with fields:
            access = ":ro" if fields.take("ReadOnly", False) else ""
            return f"{self._sources[fields.need('SourceVolume')]}:{fields.need('ContainerPath')}{access}"

    def _log(self, fields):
        with fields, fields.part("Options") as options:
            fields.only("LogDriver", "awslogs")
            options.only("awslogs-region", REGION)
            for needed in ("awslogs-group", "awslogs-stream-prefix"):
                assert options.need(needed)
            how = {key: options.take(key) for key in ("mode", "max-buffer-size")}
            return {"Type": "json-file", "Config": {key: value for key, value in how.items() if value}}

    def _health(self, fields):
        with fields:
            command = fields.take("Command")
            seconds = {key: fields.take(key, 0) * 1_000_000_000 for key in ("Interval", "Timeout", "StartPeriod")}
            return command and {"Test": command, "Retries": fields.take("Retries", 3), **seconds}

    def _environment(self, fields):
        variables = {}
        for variable in fields.parts("Environment"):
            with variable:
                variables[variable.need("Name")] = variable.need("Value")
        for secret in fields.parts("Secrets"):
            with secret:
                variables[secret.need("Name")] = self.ecs.secrets[secret.need("ValueFrom")]
        variables |= {"AWS_EXECUTION_ENV": "AWS_ECS_EC2"}
        at = f"http://{ecs_agent.ADDRESS}"
        container = str(uuid.uuid4())
        variables |= {
            "ECS_AGENT_URI": f"{at}{self.known['agent']}",
            "ECS_CONTAINER_METADATA_URI": f"{at}/v3/{container}",
            "ECS_CONTAINER_METADATA_URI_V4": f"{at}/v4/{container}",
        }
        if self._role:
            variables["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] = self.known["credentials"]
        return [f"{name}={value}" for name, value in variables.items()]

    @property
    def known(self):
        """What the ECS agent knows of it. Who knows the paths has what is there."""
        secret = {kind: str(uuid.uuid5(uuid.NAMESPACE_URL, self.arn + kind)) for kind in ("api", "credentials")}
        return {"agent": f"/api/{secret['api']}", "credentials": f"/v2/credentials/{secret['credentials']}", "role": self._role}

    # What ECS does with it.

    def state(self, name):
        """The engine's word about a container; None before it was started."""
        container = self.containers[name]
        return self.ecs.inspect(container.id)["State"] if container.id else None

    @property
    def status(self):
        if self.reason:
            return Status.STOPPED
        states = [self.state(container.name) for container in self.containers.values() if container.essential]
        return Status.RUNNING if all(state and state["Running"] for state in states) else Status.PENDING

    def step(self):
        """Does what is to be done now, and returns the task's status."""
        for container in self.containers.values():
            if self.reason:
                break
            state = self.state(container.name)
            if state is None:
                self._begin(container)
            elif state["Status"] == "exited":
                self._ended(container)
            elif container.essential and state.get("Health", {}).get("Status") == "unhealthy":
                self.stop(f"Task failed container health checks: {container.name}")
        return self.status

    def _begin(self, container):
        met = [condition(name, self.state(other)) for other, name in container.depends]
        if Met.NEVER in met:
            self.stop(f"{container.name} waits for what does not come: {container.depends}")
        elif Met.NOT_YET not in met:
            answer = self.ecs.god("POST", f"/containers/create?name={container.engine_name}", container.body)
            assert answer.status == 201, answer.text
            container.id = answer.json()["Id"]
            self._start(container)

    def _start(self, container):
        answer = self.ecs.god("POST", f"/containers/{container.id}/start")
        assert answer.status == 204, answer.text
        container.started = self.ecs.clock
        # The engine makes the task's cgroup with the first container.
        self._limit()

    def _ended(self, container):
        ran = self.ecs.clock - container.started
        if container.restarts_after is not None and ran >= container.restarts_after:
            self._start(container)
        elif container.essential:
            self.stop(f"Essential container in task exited: {container.name}")

    def runs(self):
        """Steps until the task runs."""
        until(lambda: self.step() is not Status.PENDING, 180, what=lambda: f"{self.family}: {self.said()}")
        assert self.status is Status.RUNNING, (self.reason, self.said())

    def ends(self):
        """Steps until the task is stopped."""
        until(lambda: self.step() is Status.STOPPED, 180, what=lambda: f"the end of {self.family}: {self.said()}")

    def stop(self, reason="Task stopped"):
        """Stops all containers, first those that depend on others."""
        self.reason = reason
        left = {name: container for name, container in self.containers.items() if container.id}
        while left:
            needed = {other for container in left.values() for other, _ in container.depends}
            for name in [name for name in left if name not in needed]:
                container = left.pop(name)
                limit = container.stop_timeout
                answer = self.ecs.god("POST", f"/containers/{container.id}/stop?t={limit}", timeout=limit + 60)
                assert answer.status in (204, 304), answer.text

    def clean(self):
        """Removes what is left of a stopped task, as ECS does some minutes later. False if a volume is still used."""
        for container in self.containers.values():
            if container.id:
                self.ecs.god("DELETE", f"/containers/{container.id}?force=1&v=1")
        return all([self.ecs.god("DELETE", f"/volumes/{name}").status in (204, 404) for name in self.volumes])

    def said(self):
        """What its containers wrote, and their states."""
        out = []
        for name, container in self.containers.items():
            log = raw(self.ecs.engine.socket, "GET", f"/containers/{container.id}/logs?stdout=1&stderr=1").body if container.id else b""
            out.append((name, self.state(name), b"".join(harness.demux(log)).decode(errors="replace")))
        return out

    def agent(self):
        """Its main container, to try things in."""
        container = self.containers["buildkite-agent"]
        return Agent(self.ecs, container.engine_name, container.id, self.id, self.arn, self.cgroup)
