"""A host as ECS makes it: one sockguard in a container, which guards one socket for all, and agents in containers that
mount that socket's directory read-only. What runs in the agents runs the real docker CLI."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import raw, unique, until

SOCKET = "/run/sockguard/docker.sock"
TASK, FAMILY, NAME = (f"com.amazonaws.ecs.{key}" for key in ("task-arn", "task-definition-family", "container-name"))

CONFIG = """
upstream = "/var/run/docker.sock"
seal-key = "/var/lib/sockguard/seal.key"
log-format = "json"

[reap]
grace = "{grace}"
images = true

[[listener]]
socket = "/run/sockguard/docker.sock"
socket-on-host = "{run}/docker.sock"
mode = "0666"
identity = "peer"

[[agent]]
labels = {{ "com.amazonaws.ecs.task-definition-family" = "agent-linux", "com.amazonaws.ecs.container-name" = "agent" }}
owner = "{{label:com.amazonaws.ecs.task-arn}}"
policy = "{policy}"

[[agent]]
labels = {{ "com.amazonaws.ecs.task-definition-family" = "agent-readers", "com.amazonaws.ecs.container-name" = "agent" }}
owner = "{{label:com.amazonaws.ecs.task-arn}}"
policy = "read-only"
"""


def with_libraries(*programs):
    """The programs and the libraries they need, as the files of an image: {path: bytes}."""
    files = {}
    for program, path in programs:
        files[path] = Path(program).read_bytes()
        needed = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            files[library] = Path(library).read_bytes()
    return files


@dataclass
class Agent:
    """An agent's container."""

    host: Host
    name: str
    id: str
    task: str
    owner: str
    cgroup: str

    def sh(self, script, timeout=120, user="0"):
        """Runs a script in the agent's container: (rc, out, err)."""
        return harness.docker(self.host.engine.socket, "exec", "-u", user, self.name, "sh", "-c", script, timeout=timeout)

    def docker(self, *words, timeout=120, input=None):
        """Runs the docker CLI in the agent's container, at the guarded socket: (rc, out, err)."""
        stdin = ["-i"] if input is not None else []
        return harness.docker(self.host.engine.socket, "exec", *stdin, self.name, "docker", *words, timeout=timeout,
                              input=input)

    def ok(self, *words, timeout=120, input=None):
        """The output of a docker command that has to succeed."""
        rc, out, err = self.docker(*words, timeout=timeout, input=input)
        assert rc == 0, (self.name, words, rc, out, err, self.host.log())
        return out.strip()

    def refused(self, *words, timeout=120):
        """What a docker command that has to fail says."""
        rc, out, err = self.docker(*words, timeout=timeout)
        assert rc != 0, (self.name, words, out, err)
        return err

    def each(self, commands):
        """Runs several docker commands, at once in one go: (rc, all that it says) of each."""
        script = "; ".join(
            f"{{ timeout 60 docker {shlex.join(words)}; echo \"$?\"; }} >/tmp/each-{i} 2>&1 </dev/null"
            for i, words in enumerate(commands)
        )
        rc, out, err = self.sh(f"{script}; for i in $(seq 0 {len(commands) - 1}); do cat /tmp/each-$i; echo ---; done", timeout=600)
        assert rc == 0, (out, err)
        results = []
        for said in out.split("---\n")[:-1]:
            text, _, status = said.rstrip("\n").rpartition("\n")
            results.append((int(status), text))
        return results

    def stop(self):
        """Ends the agent as ECS does."""
        self.host.god("POST", f"/containers/{self.id}/stop?t=0")

    def remove(self):
        """Takes its container away."""
        self.host.god("DELETE", f"/containers/{self.id}?force=1&v=1")


class Host:
    """An engine, its sockguard, and the agents on it."""

    def __init__(self, policy="ci-agent", policy_text=None, grace="1s", config=None, caps=("DAC_READ_SEARCH",), pid="host", engine=None):
        self.engine = engine or harness.Engine()
        self.dir = harness.own_directory("host-")
        self.run = self.dir / "run"
        self.state = self.dir / "state"
        for directory in (self.run, self.state):
            directory.mkdir(mode=0o755)
        config = config or CONFIG
        if policy_text is not None:
            policy = "/etc/agent.toml"
        (self.dir / "agent.toml").write_text(policy_text or "")
        self.config = config.format(run=self.run, policy=policy, grace=grace)
        (self.dir / "sockguard.toml").write_text(self.config)
        self.caps, self.pid = caps, pid
        self.image = unique("sockguard") + ":test"
        self.engine.image(self.image, with_libraries((harness.sockguard_binary(), "/sockguard")))
        self.agent_image = "agent:test"
        if raw(self.engine.socket, "GET", f"/images/{self.agent_image}/json").status != 200:
            programs = [(harness.docker_program(), "/bin/docker"),
                        (harness.compose_program(), "/root/.docker/cli-plugins/docker-compose")]
            files = with_libraries(*programs) | {"/usr/local/bin/buildkite-agent": "#!/bin/sh\necho buildkite-agent 3\n"}
            self.engine.image(self.agent_image, files)
        self.container = None
        self.start()

    # The engine, asked directly.

    def god(self, method, path, body=None, timeout=60):
        return raw(self.engine.socket, method, path, body, timeout=timeout)

    def inspect(self, container):
        answer = self.god("GET", f"/containers/{container}/json")
        assert answer.status == 200, answer.text
        return answer.json()

    def make(self, name, body):
        """Creates and starts a container on the bare engine; returns its ID."""
        answer = self.god("POST", f"/containers/create?name={name}", body)
        assert answer.status == 201, answer.text
        started = self.god("POST", f"/containers/{answer.json()['Id']}/start")
        assert started.status == 204, started.text
        return answer.json()["Id"]

    # sockguard

    def start(self):
        """Starts sockguard in a container, as its task definition says."""
        self.container = self.make(unique("sockguard"), {
            "Image": self.image,
            "Entrypoint": ["/sockguard"],
            "Cmd": ["--config", "/etc/sockguard.toml"],
            "User": "0",
            "HostConfig": {
                "PidMode": self.pid, "NetworkMode": "none", "ReadonlyRootfs": True,
                "CapDrop": ["ALL"], "CapAdd": list(self.caps), "SecurityOpt": ["no-new-privileges"],
                "Binds": [
                    f"{self.engine.socket}:/var/run/docker.sock",
                    f"{self.run}:/run/sockguard",
                    f"{self.state}:/var/lib/sockguard",
                    f"{self.dir}/sockguard.toml:/etc/sockguard.toml:ro",
                    f"{self.dir}/agent.toml:/etc/agent.toml:ro",
                    f"{self.engine.root}/data/volumes:{self.engine.root}/data/volumes:ro",
                ],
            },
        })
        until(self.listens, what=lambda: f"the guarded socket: {self.log()}")

    def listens(self):
        state = self.inspect(self.container)["State"]
        assert state["Running"], (state, self.log())
        try:
            with harness.Conn(self.run / "docker.sock", 5):
                return True
        except OSError:
            return False

    def log(self):
        """What sockguard wrote."""
        answer = self.god("GET", f"/containers/{self.container}/logs?stdout=1&stderr=1")
        out, err = harness.demux(answer.body)
        return (out + err).decode(errors="replace")

    def decisions(self):
        """The audit's lines, parsed."""
        lines = []
        for line in self.log().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                pass
        return [line for line in lines if "verdict" in line]

    def restart(self, kill=False):
        """Ends sockguard and starts it anew, as a new container."""
        self.god("POST", f"/containers/{self.container}/{'kill' if kill else 'stop?t=20'}")
        until(lambda: not self.inspect(self.container)["State"]["Running"], what="sockguard's end")
        self.god("DELETE", f"/containers/{self.container}?v=1")
        self.start()

    # Agents

    def agent(self, name, family="agent-linux", labels=None, volumes=(), task=None, image=None, **host_config):
        """Starts an agent's container, with ECS's labels, cgroup and a builds volume of its own."""
        name = unique(name)
        task = task or unique("task")
        owner = f"arn:aws:ecs:eu-west-1:1:task/{task}"
        cgroup = f"/{self.engine.name}/ecs/{task}"
        identity = {TASK: owner, FAMILY: family, NAME: "agent"}
        container = self.make(name, {
            "Image": image or self.agent_image,
            "Cmd": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"],
            "Env": [f"DOCKER_HOST=unix://{SOCKET}", "DOCKER_BUILDKIT=0", f"BUILDKITE_AGENT_TOKEN=token-of-{name}"],
            "WorkingDir": "/buildkite/builds",
            "Labels": identity if labels is None else labels,
            "HostConfig": {
                "CgroupParent": cgroup,
                "NetworkMode": "none",
                "Binds": [f"{self.run}:/run/sockguard:ro", f"builds-{name}:/buildkite/builds", *volumes],
                **host_config,
            },
        })
        return Agent(self, name, container, task, owner, cgroup)

    def close(self):
        self.engine.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
