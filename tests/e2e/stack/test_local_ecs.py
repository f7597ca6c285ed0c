"""The shipped stacks on a real engine: one sockguard and agents of several queues, started as ECS starts them.

What runs is what the templates say. The agents' image has the real docker CLI and compose, but stand-ins for
`buildkite-agent` and for `curl`.
"""

import copy
import json
import shlex
from dataclasses import dataclass
from datetime import datetime

import pytest

import harness
from agents import Agent, clients, with_libraries
from harness import OWNER_LABEL, REPO, until
from stack.ecs import Ecs, Fields, Status, Task
from properties import DIGEST
from template import Stack, shipped

# Its program registers with the token that it is given, and then waits, as one whose queue is empty.
PROGRAM = """#!/bin/sh
case "$1" in
    start) read -r token <&3; echo "$2 $3 $token" > /tmp/registered; trap 'exit 0' TERM; while :; do sleep 0.2; done ;;
    *) echo buildkite-agent version 3 ;;
esac
"""

# As much of curl as the hooks need: one request.
CURL = r"""#!/bin/sh
while [ $# -gt 0 ]; do
    case "$1" in
        -X) method=$2; shift ;;
        -H) header=$2; shift ;;
        -d) data=$2; shift ;;
        --max-time | --retry) shift ;;
        -sS) ;;
        http://*) url=${1#http://} ;;
        *) echo "curl: option $1: is unknown" >&2; exit 2 ;;
    esac
    shift
done
host=${url%%/*}
printf '%s /%s HTTP/1.0\r\nHost: %s\r\n%s\r\nContent-Length: %s\r\n\r\n%s' \
    "$method" "${url#*/}" "$host" "$header" "${#data}" "$data" | nc -w 10 "$host" 80 | tr -d '\r' | sed '1,/^$/d'
"""

SOCKGUARD, IMAGE = "sockguard:test", "agent:test"


def images(engine):
    """The images that the stacks name: sockguard's, as its Dockerfile makes it, and an agent's."""
    files = with_libraries((harness.sockguard_binary(), "/sockguard"))
    files["/etc/sockguard/ecs-daemon.toml"] = (REPO / "config/ecs-daemon.toml").read_bytes()
    engine.image(SOCKGUARD, files, changes=["USER 65532:65532", 'ENTRYPOINT ["/sockguard"]'])
    files = clients() | {"/usr/local/bin/buildkite-agent": PROGRAM, "/usr/bin/curl": CURL}
    engine.image(IMAGE, files, changes=['ENTRYPOINT ["buildkite-agent"]', 'CMD ["start"]', "VOLUME /buildkite"])


def definition(stack, **parameters):
    """The task definition of a shipped stack."""
    return Stack(shipped(stack), {"Cluster": "ci", "SockguardImage": f"{SOCKGUARD}@{DIGEST}", **parameters}).one("AWS::ECS::TaskDefinition")


def agent_of(queue):
    return definition("agent", Queue=queue, CapacityProvider="ci", AgentImage=f"{IMAGE}@{DIGEST}", TokenParameter=f"/buildkite/{queue}")


@dataclass
class World:
    ecs: Ecs
    # An agent that did not want to wait for long; it was over before there was a sockguard.
    early: Task
    daemon: Task
    # When the first sockguard started.
    started: datetime
    tasks: dict[str, Task]
    # Was stopped in the middle of its work.
    gone: Task
    a: Agent
    b: Agent

    def labelled(self, kind, owner):
        """What the engine has of an owner."""
        found = self.ecs.god("GET", f'/{kind}?all=1&filters={{"label":["{OWNER_LABEL}={owner}"]}}').json()
        return (found["Volumes"] or []) if kind == "volumes" else found


@pytest.fixture(scope="module")
def world():
    ecs = Ecs()
    try:
        images(ecs.engine)
        queues = ("a", "b", "gone")
        for queue in queues:
            ecs.put_secret(f"/buildkite/{queue}", f"token-of-{queue}")
        hasty = copy.deepcopy(agent_of("a"))
        command = hasty["ContainerDefinitions"][0]["Command"]
        assert command[-2:] == ["-wait", "120s"]
        command[-1] = "1s"
        early = ecs.run(hasty)
        early.ends()
        # Agents that were there before sockguard wait for it.
        tasks = {queue: ecs.run(agent_of(queue)) for queue in queues}
        for task in tasks.values():
            task.step()
        daemon = ecs.run(definition("sockguard"))
        daemon.runs()
        ecs.container = daemon.containers["sockguard"].id
        for task in tasks.values():
            task.runs()
        gone = tasks["gone"].agent()
        gone.ok("network", "create", "left")
        gone.ok("volume", "create", "left")
        gone.ok("run", "-d", "--network", "left", "-v", "left:/left", "-v", "/buildkite/builds:/builds", "busybox", "sleep", "1000")
        tasks["gone"].stop()
        started = when(daemon.state("sockguard"), "StartedAt")
        yield World(ecs, early, daemon, started, tasks, tasks["gone"], tasks["a"].agent(), tasks["b"].agent())
    finally:
        ecs.close()


def when(state, key):
    """A time of a container's state."""
    return datetime.fromisoformat(state[key])


def test_everything_starts_in_its_order(world):
    for queue in ("a", "b"):
        task = world.tasks[queue]
        wait, install, main = (task.state(name) for name in ("wait-for-sockguard", "install-agent", "buildkite-agent"))
        assert (wait["ExitCode"], install["ExitCode"], main["Running"]) == (0, 0, True), task.said()
        assert when(wait, "StartedAt") < world.started < when(wait, "FinishedAt")
        assert when(wait, "FinishedAt") < when(install, "StartedAt") < when(install, "FinishedAt") < when(main, "StartedAt")


def test_without_sockguard_no_agent_starts(world):
    assert world.early.status is Status.STOPPED and "wait-for-sockguard" in world.early.reason
    assert world.early.state("wait-for-sockguard")["ExitCode"] == 1
    assert world.early.state("install-agent") is None and world.early.state("buildkite-agent") is None
    said = world.early.said()[0][2]
    assert "/run/sockguard/docker.sock" in said and "no socket" in said, said


def test_sockguard_has_only_what_it_needs(world):
    shown = world.ecs.inspect(world.daemon.containers["sockguard"].id)
    host = shown["HostConfig"]
    assert (host["PidMode"], host["NetworkMode"], host["Privileged"], host["ReadonlyRootfs"]) == ("host", "none", False, True)
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["DAC_READ_SEARCH"])
    # The engine adds what the host's process IDs need.
    assert "no-new-privileges" in host["SecurityOpt"]
    assert not [variable for variable in shown["Config"]["Env"] if "TOKEN" in variable or "CREDENTIALS" in variable]
    kind, *command = shown["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD"
    until(lambda: harness.docker(world.ecs.engine.socket, "exec", shown["Id"], *command)[0] == 0, what=world.daemon.said)

    def said(words):
        return [line["message"] for line in world.ecs.lines() if "level" in line and words in line["message"]]
    # It sees what builds may mount, and was told no other way to the socket than its own.
    binds, *_ = until(lambda: said("binds below /var/lib/docker/volumes are"), what=world.ecs.log)
    assert "refused" not in binds and not said("socket-on-host"), world.ecs.log()
    with_socket = [name for task in world.tasks.values() for name, container in task.containers.items()
                   if any("/var/run" in bind for bind in container.body["HostConfig"]["Binds"])]
    assert not with_socket


def test_a_build(world):
    compose = "services:\n  web:\n    build: .\n    volumes: ['.:/w']\n    command: sleep 1000\n"
    script = f"""
        set -e
        mkdir -p /buildkite/builds/x && cd /buildkite/builds/x
        echo of {world.a.name} > file
        printf 'FROM busybox\\nCOPY file /copied\\nRUN cat /copied > /built\\n' > Dockerfile
        printf "{compose}" > compose.yaml
        docker build -q -t built . > /dev/null
        docker run --rm built cat /built
        docker run --rm -v $PWD:/w busybox sh -c 'cat /w/file; touch /w/made'
        ls made
        docker compose up -d > /tmp/up 2>&1 || {{ cat /tmp/up >&2; exit 1; }}
        docker compose exec -T web cat /w/file
        docker compose down -t 0 > /dev/null 2>&1
        docker run --rm -v /usr/local/bin/buildkite-agent:/usr/bin/buildkite-agent busybox buildkite-agent --version
        docker ps -aq
    """
    rc, out, err = world.a.sh(script)
    said = f"of {world.a.name}"
    assert (rc, out.split("\n")) == (0, [said, said, "made", said, "buildkite-agent version 3", ""]), (out, err, world.ecs.log())
    # What it started counts as its task's.
    owners = {line["owner"] for line in world.ecs.decisions() if line["agent"] == f"container {world.a.name}"}
    assert owners == {world.a.owner}


def test_a_client_within_a_build_is_the_same_agent(world):
    box = world.a.ok("run", "-d", "busybox", "sleep", "1000")
    inner = ["run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "--entrypoint", "docker", IMAGE]
    assert box in world.a.ok(*inner, "ps", "-q", "--no-trunc").split()
    assert "No such object" in world.a.refused(*inner, "inspect", world.b.name)
    assert world.a.ok(*inner, "run", "--rm", "busybox", "echo", "inner") == "inner"
    world.a.ok("rm", "-f", box)


def test_limits_of_the_task_hold_for_its_builds(world):
    box = world.a.ok("run", "-d", "--cgroup-parent", "/", "busybox", "sleep", "1000")
    assert world.ecs.inspect(box)["HostConfig"]["CgroupParent"] == world.a.cgroup
    lines = world.ecs.god("GET", f"/containers/{box}/top").json()["Processes"]
    [[_, pid, *_]] = lines
    rc, out, _ = harness.run(world.ecs.engine.inside("cat", f"/proc/{pid}/cgroup"), world.ecs.engine.socket)
    assert rc == 0 and f"{world.a.cgroup}/{box}" in out, out
    world.a.ok("rm", "-f", box)


@pytest.mark.security
def test_other_agents_are_out_of_reach(world):
    a, b = world.a, world.b
    volume = world.tasks["b"].volumes[0]
    rc, out, err = b.sh("mkdir -p /buildkite/builds/secret && echo of b > /buildkite/builds/secret/file && "
                        "docker network create b-network && docker volume create b-volume && "
                        "docker run -d --name b-child --network b-network busybox sleep 1000")
    assert rc == 0, err
    child = out.split()[-1]
    commands = [command for name in (b.name, "b-child") for command in (
        ["inspect", name], ["exec", name, "true"], ["logs", name], ["stop", name], ["kill", name], ["rm", "-f", name],
        ["cp", f"{name}:/etc/passwd", "-"], ["commit", name], ["export", name], ["top", name], ["attach", name], ["rename", name, "x"],
        ["run", "--rm", "--volumes-from", name, "busybox", "true"], ["run", "--rm", "--network", f"container:{name}", "busybox", "true"],
        ["run", "--rm", "--pid", f"container:{name}", "busybox", "true"], ["run", "--rm", "--ipc", f"container:{name}", "busybox", "true"],
        ["run", "--rm", "--link", name, "busybox", "true"],
    )]
    for name in (b.id, b.id[:12], child, world.daemon.containers["sockguard"].id):
        commands += [["inspect", name], ["exec", name, "true"], ["rm", "-f", name]]
    path = f"/var/lib/docker/volumes/{volume}/_data"
    for source in (volume, "b-volume", path, f"{path}/secret", "/var/lib/docker/volumes", "/var/lib/docker", f"/proc/1/root{path}"):
        commands.append(["run", "--rm", "-v", f"{source}:/x", "busybox", "ls", "/x"])
        commands.append(["run", "--rm", "-v", f"{source}:/x:ro", "busybox", "ls", "/x"])
    for words in (["volume", "inspect"], ["volume", "rm", "-f"]):
        commands += [[*words, name] for name in (volume, "b-volume")]
    commands += [["network", verb, "b-network"] for verb in ("inspect", "rm")]
    commands += [["run", "--rm", "--network", "b-network", "busybox", "true"], ["network", "connect", "b-network", b.name]]
    for words, (rc, said) in zip(commands, a.each(commands), strict=True):
        # `rm -f` of what is not there is content.
        if words[:1] != ["rm"] and words[:3] != ["volume", "rm", "-f"]:
            assert rc != 0 and ("No such" in said or "no such" in said or "not found" in said or "sockguard: " in said), (words, rc, said)
        assert "of b" not in said and "token" not in said, (words, said)
    # A link in one's own directory leads nowhere.
    rc, out, err = a.sh(f"ln -sfn {path} /buildkite/builds/theirs; docker run --rm -v /buildkite/builds/theirs:/x busybox ls /x")
    assert rc != 0 and "secret" not in out and "sockguard: " in err, (out, err)
    lists = a.each([["ps", "-a", "--no-trunc"], ["network", "ls"], ["volume", "ls"], ["system", "df", "-v"]])
    for rc, said in lists:
        assert rc == 0 and not any(word in said for word in (b.id, "b-child", "b-network", "b-volume", volume)), said
    # And nothing of it has changed.
    for box in (b.id, child):
        assert world.ecs.inspect(box)["State"]["Running"]
    assert b.ok("volume", "ls", "-q") == "b-volume" and b.sh("cat /buildkite/builds/secret/file")[1] == "of b\n"
    b.sh("docker rm -f b-child; docker network rm b-network; docker volume rm b-volume")


@pytest.mark.security
def test_the_host_is_out_of_reach(world):
    flags = [
        "--privileged", "--network host", "--pid host", "--ipc host", "--uts host", "--userns host", "--cgroupns host",
        "--device /dev/kmsg", "--cap-add SYS_ADMIN", "--cap-add ALL", "--security-opt seccomp=unconfined",
        "--security-opt apparmor=unconfined", "--security-opt systempaths=unconfined", "--runtime other",
        "-v /:/host", "-v /etc:/x", "-v /run:/x", "-v /proc:/x", "-v /var/lib/sockguard:/x", "-v /var/lib/sockguard/seal.key:/x",
        "-p 51678:80", "-p 127.0.0.1:51679:80", "-p 51600-51700:80",
        "--mount type=bind,source=/,target=/host", "-v /:/host:rshared", "--device-cgroup-rule 'c *:* rwm'", "--gpus all",
    ]
    commands = [["run", "--rm", *shlex.split(flag), "busybox", "true"] for flag in flags]
    for options in ("type=none", "type=ext4"):
        commands.append(["volume", "create", "-o", options, "-o", "o=bind", "-o", "device=/", "escape"])
    for words, (rc, said) in zip(commands, world.a.each(commands), strict=True):
        assert rc != 0 and "sockguard: " in said, (words, rc, said)
    # What looks like the engine's socket is the guarded one: it knows no container of ECS, and cannot be replaced.
    for path in ("/var/run/docker.sock", "/run/sockguard/docker.sock"):
        mount = f"{path}:/var/run/docker.sock"
        seen = world.a.ok("run", "--rm", "-v", mount, "--entrypoint", "docker", IMAGE, "ps", "-a", "--format", "{{.Names}}")
        assert "ecs-" not in seen, (path, seen)
    said = world.a.refused("run", "--rm", "-v", "/run/sockguard:/s", "busybox", "rm", "/s/docker.sock")
    assert "Read-only file system" in said
    assert world.a.sh("rm /run/sockguard/docker.sock")[0] != 0 and world.a.sh("touch /buildkite/bin/x")[0] != 0


@pytest.mark.security
def test_no_token_of_a_task_is_in_reach(world):
    a = world.a
    # It is there, for the agent's own program.
    env = {**dict(line.split("=", 1) for line in world.ecs.inspect(a.id)["Config"]["Env"])}
    assert env["BUILDKITE_AGENT_TOKEN"] == "token-of-a" and env["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"].startswith("/v2/")
    # Once the program has read it, a job that looks at it finds nothing.
    rc, out, err = a.sh("cat /tmp/registered /proc/1/environ /proc/1/cmdline /proc/1/fd/3")
    registered, shown = out.split("\n", 1)
    assert (rc, registered) == (0, "--token fd://3 token-of-a"), (out, err)
    assert "ECS_AGENT_URI=" in shown and "token-of" not in shown, shown
    credentials = world.tasks["a"].known["credentials"].rpartition("/")[2]
    others = [task.known["credentials"].rpartition("/")[2] for task in world.tasks.values()]
    commands = [command for name in (a.name, a.id, world.b.name) for command in (
        ["inspect", name], ["exec", name, "env"], ["commit", name, "stolen"], ["export", name], ["cp", f"{name}:/proc/1/environ", "-"],
        ["run", "--rm", "--pid", f"container:{name}", "busybox", "cat", "/proc/1/environ"],
        ["run", "--rm", "--volumes-from", name, "busybox", "true"])]
    for words, (rc, said) in zip(commands, a.each(commands), strict=True):
        assert rc != 0 and "token" not in said and not any(secret in said for secret in others), (words, said)
    # What a build starts has none of it, and is not given it by name.
    out = a.ok("run", "--rm", "busybox", "sh", "-c", "env; cat /proc/*/environ")
    assert "token" not in out and credentials not in out
    for name in ("BUILDKITE_AGENT_TOKEN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "ECS_AGENT_URI"):
        rc, out, err = a.sh(f"docker run --rm -e {name} busybox env")
        assert rc != 0 and "container.deny-env" in err, (name, out, err)
    # Nor is it to be listened to: the agents' bridge takes no packets made by hand.
    gateway = world.ecs.inspect(a.id)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    rc, out, err = a.sh(f"arping -c 1 -w 5 -I eth0 {gateway}")
    assert rc != 0 and "Operation not permitted" in err, (out, err)
    # The address of credentials is worth nothing without the path.
    ask = "printf 'GET /v2/credentials/ HTTP/1.0\\r\\n\\r\\n' | nc -w 10 169.254.170.2 80"
    assert "404" in a.ok("run", "--rm", "busybox", "sh", "-c", ask)
    assert world.ecs.god("GET", "/images/stolen/json").status == 404


def test_a_job_protects_its_task(world):
    task = world.tasks["a"]
    hooks = "for hook in environment pre-exit; do sh -e -c \". $BUILDKITE_ADDITIONAL_HOOKS_PATHS/$hook\"; done"
    rc, out, err = world.a.sh(hooks)
    assert (rc, out, err) == (0, "", "")
    assert world.ecs.protection(task) == [
        {"ProtectionEnabled": True, "ExpiresInMinutes": 2880}, {"ProtectionEnabled": False}]
    # Where ECS does not do it the job hears so, and goes on.
    for uri in ("http://169.254.170.2/api/none", ""):
        rc, out, err = world.a.sh(f"export ECS_AGENT_URI={uri}; {hooks}")
        assert rc == 0 and "protection could not be turned on" in err and "turned off" in err, (out, err)
    assert world.ecs.protection(world.tasks["b"]) == []


# Before the next one: a sockguard that starts anew gives what it finds the grace period anew.
def test_what_a_stopped_agent_leaves_is_gone_and_nothing_else(world):
    kept = world.a.ok("run", "-d", "-v", "kept:/kept", "busybox", "sleep", "1000")
    for kind in ("containers/json", "networks", "volumes"):
        until(lambda kind=kind: not world.labelled(kind, world.gone.arn), 120, what=lambda kind=kind: f"{kind}: {world.ecs.log()}")
    # Nothing holds the task's own volumes any more.
    until(world.gone.clean, what="the end of the task's volumes")
    assert world.ecs.inspect(kept)["State"]["Running"]
    assert "kept" in [volume["Name"] for volume in world.labelled("volumes", world.a.owner)]
    assert all(world.tasks[queue].step() is Status.RUNNING for queue in ("a", "b"))
    world.a.sh(f"docker rm -f {kept}; docker volume rm kept")


def test_the_daemons_restart_is_survived(world):
    a, daemon, name = world.a, world.daemon, "sockguard"
    box = a.ok("run", "-d", "-v", "/buildkite/builds:/w", "busybox", "sleep", "1000")
    first = daemon.containers[name]
    started = daemon.state(name)["StartedAt"]
    world.ecs.god("POST", f"/containers/{first.id}/kill")
    until(lambda: not daemon.state(name)["Running"], what="sockguard's end")
    # The policy starts what has run for a while again, as the same container.
    world.ecs.later(60)
    assert daemon.step() is Status.RUNNING and daemon.state(name)["StartedAt"] != started
    until(lambda: a.docker("ps")[0] == 0, what=lambda: f"the socket: {world.ecs.log()}")
    assert box in a.ok("ps", "-q", "--no-trunc").split()
    # What ends at once again is given up, and the service makes a new task.
    world.ecs.god("POST", f"/containers/{first.id}/kill")
    daemon.ends()
    world.daemon = world.ecs.run(definition("sockguard"))
    world.daemon.runs()
    world.ecs.container = world.daemon.containers[name].id
    until(lambda: a.docker("ps")[0] == 0, what=lambda: f"the socket: {world.ecs.log()}")
    assert box in a.ok("ps", "-q", "--no-trunc").split() and box not in world.b.ok("ps", "-aq", "--no-trunc").split()
    assert world.b.docker("inspect", box)[0] != 0
    assert a.ok("exec", box, "ls", "-d", "/w") == "/w"
    assert daemon.clean()
    a.ok("rm", "-f", box)


def test_nothing_of_a_definition_is_left_out(world):
    for change in ({"IpcMode": "host"}, {"NetworkMode": "host"}, {"ContainerDefinitions": [{"Name": "x", "Image": "y", "Essential": True, "New": 1}]}):
        with pytest.raises(AssertionError, match="does not know"):
            world.ecs.run({**definition("sockguard"), **change})
    with pytest.raises(AssertionError), Fields("x", {"left": 1}):
        pass
    assert json.dumps(agent_of("a")) != json.dumps(agent_of("b"))
