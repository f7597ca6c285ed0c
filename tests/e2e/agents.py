"""What talks to the guarded socket from within a container, as agents do: the real docker CLI."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import harness
from harness import raw


def with_libraries(*programs):
    """The programs and the libraries they need, as the files of an image: {path: bytes}."""
    files = {}
    for program, path in programs:
        files[path] = Path(program).read_bytes()
        needed = subprocess.run(["ldd", str(program)], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needed):
            files[library] = Path(library).read_bytes()
    return files


def clients():
    """The docker CLI and compose, as the files of an image."""
    return with_libraries((harness.docker_program(), "/bin/docker"),
                          (harness.compose_program(), "/root/.docker/cli-plugins/docker-compose"))


class Host:
    """A host with an `engine`, and sockguard in a `container` on it."""

    engine: harness.Engine
    container: str

    def god(self, method, path, body=None, timeout=60):
        """Asks the bare engine."""
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

    def log(self):
        """What sockguard wrote."""
        answer = self.god("GET", f"/containers/{self.container}/logs?stdout=1&stderr=1")
        out, err = harness.demux(answer.body)
        return (out + err).decode(errors="replace")

    def lines(self):
        """What it wrote, without what is only for people."""
        return harness.json_lines(self.log())

    def decisions(self):
        """The audit's lines."""
        return [line for line in self.lines() if "verdict" in line]


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
