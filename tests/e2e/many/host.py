"""A host as ECS makes it: one sockguard in a container, which guards one socket for all, and agents in containers that
mount that socket's directory read-only. What runs in the agents runs the real docker CLI."""

from __future__ import annotations

import shutil

import agents
import harness
from agents import Agent, clients, with_libraries
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


class Host(agents.Host):
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
            files = clients() | {"/usr/local/bin/buildkite-agent": "#!/bin/sh\necho buildkite-agent 3\n"}
            self.engine.image(self.agent_image, files)
        self.container = None
        self.start()

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
