"""Who connects, told from the kernel: one socket file, many agents."""

import subprocess
import threading

import pytest

import harness
from agents import with_libraries
from harness import OWNER_LABEL, raw, unique, until
from many.host import FAMILY, NAME, TASK

AGENT_LABEL = "com.buildkite.sockguard.agent"
SEAL_LABEL = "com.buildkite.sockguard.seal"


@pytest.fixture(scope="module")
def boxes(agents):
    """A running container of each of the two agents."""
    a, b, _ = agents
    return [agent.ok("run", "-d", "--name", unique("box"), "busybox", "sleep", "1000") for agent in (a, b)]


def test_agents_have_owners_and_policies_of_their_own_over_one_socket(host, agents, boxes):
    a, b, reader = agents
    for agent, box, other in ((a, boxes[0], boxes[1]), (b, boxes[1], boxes[0])):
        assert agent.ok("ps", "-q", "--no-trunc").split() == [box]
        labels = host.inspect(box)["Config"]["Labels"]
        assert labels[OWNER_LABEL] == agent.owner
        assert labels[AGENT_LABEL] == agent.id
        assert "No such container" in agent.refused("inspect", "--type", "container", other)
    assert reader.ok("ps", "-aq") == ""
    refusal = reader.refused("run", "--rm", "busybox", "true")
    assert 'policy "read-only"' in refusal and "not allowed" in refusal
    lines = until(lambda: [line for line in host.decisions() if line["owner"] == a.owner and line["verdict"] == "rewrite"])
    assert lines[0]["agent"] == f"container {a.name}"


@pytest.mark.security
def test_every_kind_of_foreign_access_is_as_to_what_is_absent(host, agents, boxes):
    a, _, _ = agents
    other = boxes[1]
    name = host.inspect(other)["Name"].lstrip("/")
    volume, network = unique("v"), unique("n")
    agents[1].ok("volume", "create", volume)
    agents[1].ok("network", "create", network)
    containers = [
        ["inspect", "--type", "container", name], ["logs", name], ["exec", name, "true"], ["stop", name], ["rm", name],
        ["cp", f"{name}:/etc/passwd", "-"], ["top", name], ["stats", "--no-stream", name], ["commit", name], ["kill", name],
        ["export", name], ["diff", name], ["port", name], ["pause", name], ["rename", name, "x"], ["restart", name],
        ["update", "--memory", "64m", name], ["wait", name], ["attach", name], ["start", name], ["exec", other[:12], "true"],
        ["run", "--rm", "--pid", f"container:{name}", "busybox", "true"],
        ["run", "--rm", "--network", f"container:{name}", "busybox", "true"],
        ["run", "--rm", "--volumes-from", name, "busybox", "true"],
    ]
    for words, (rc, said) in zip(containers, a.each(containers), strict=True):
        assert rc != 0 and ("o such container" in said or "could not find the file" in said.lower()), (words, rc, said)
    others = [
        ["volume", "inspect", volume], ["volume", "rm", volume], ["network", "inspect", network], ["network", "rm", network],
        ["run", "--rm", "--network", network, "busybox", "true"],
    ]
    for words, (rc, said) in zip(others, a.each(others), strict=True):
        assert rc != 0 and ("no such" in said.lower() or "not found" in said), (words, rc, said)
    refusal = a.refused("run", "--rm", "-v", f"{volume}:/x", "busybox", "true")
    assert "not available" in refusal or "no such volume" in refusal.lower(), refusal
    for listed in (a.ok("ps", "-aq"), a.ok("volume", "ls", "-q"), a.ok("network", "ls", "--format", "{{.Name}}")):
        assert not {other[:12], volume, network} & set(listed.split())
    assert host.inspect(other)["State"]["Running"]


@pytest.mark.security
def test_agents_own_containers_are_invisible_to_all_their_own_agent_included(host, agents):
    a, b, reader = agents
    for agent in (a, b, reader):
        for target in (a, b):
            assert "No such container" in agent.refused("inspect", "--type", "container", target.name)
        assert not {a.id[:12], b.id[:12]} & set(agent.ok("ps", "-aq").split())
    attempts = [["exec", a.name, "env"], ["logs", a.name], ["cp", f"{a.name}:/etc/passwd", "-"], ["commit", a.name],
                ["run", "--rm", "--pid", f"container:{a.name}", "busybox", "true"],
                ["run", "--rm", "--volumes-from", a.name, "busybox", "true"], ["stop", a.id], ["top", a.id[:12]]]
    for words, (rc, said) in zip(attempts, a.each(attempts), strict=True):
        assert rc != 0 and ("o such container" in said or "could not find the file" in said.lower()), (words, rc, said)
        assert "token-of" not in said
    assert host.inspect(a.id)["State"]["Running"]


def test_a_child_with_the_guarded_socket_acts_as_its_parents_owner_at_any_depth(host, agents, boxes):
    a, b, _ = agents
    host.engine.image("nested:test", harness_files(),
                      [f"LABEL {TASK}={b.owner}", f"LABEL {FAMILY}=agent-linux", f"LABEL {NAME}=agent"])
    # Docker in a container in a container, all with the usual path of the engine's socket.
    inner = "docker ps -q --no-trunc"
    middle = f"docker run --rm -v /var/run/docker.sock:/var/run/docker.sock -e DOCKER_HOST= agent:test sh -c '{inner}'"
    seen = a.ok("run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-e", "DOCKER_HOST=", "agent:test",
                "sh", "-c", middle)
    assert boxes[0] in seen.split() and boxes[1] not in seen.split()
    # One whose image carries another's identity gains nothing by it.
    made = a.ok("run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-e", "DOCKER_HOST=", "nested:test",
                "docker", "ps", "-q", "--no-trunc")
    assert boxes[0] in made.split() and boxes[1] not in made.split()


def harness_files():
    return with_libraries((harness.docker_program(), "/bin/docker"))


@pytest.mark.security
def test_an_image_with_an_agents_labels_makes_no_agent_and_no_child(host, agents):
    a, b, _ = agents
    seal = host.inspect(b.ok("create", "busybox"))["Config"]["Labels"][SEAL_LABEL]
    host.engine.image("agentlike:test", harness_files(),
                      [f"LABEL {TASK}={b.owner}", f"LABEL {FAMILY}=agent-linux", f"LABEL {NAME}=agent"])
    host.engine.image("childlike:test", harness_files(),
                      [f"LABEL {OWNER_LABEL}={b.owner}", f"LABEL {SEAL_LABEL}={seal}", f"LABEL {AGENT_LABEL}={b.id}"])
    for image in ("agentlike:test", "childlike:test"):
        # Somebody starts it on the host: it inherits the labels, and is nobody for all that.
        stranger = host.agent("stranger", labels={}, image=image)
        refusal = stranger.refused("ps")
        assert "no agent rule matches" in refusal and stranger.name in refusal, refusal
        assert b.owner not in refusal
        attempts = [["inspect", "--type", "container", stranger.name], ["exec", stranger.name, "env"], ["logs", stranger.id],
                    ["stop", stranger.id[:12]], ["rm", stranger.name]]
        for words, (rc, said) in zip(attempts, b.each(attempts), strict=True):
            assert rc != 0 and "o such container" in said, (words, rc, said)
        stranger.remove()
    assert "carries a seal" in b.refused("create", "childlike:test")


def test_a_client_never_sees_the_seal(host, agents):
    a, _, _ = agents
    attempts = [["create", "--log-opt", option, "busybox"] for option in (
        "labels-regex=.*", f"labels=x,{SEAL_LABEL}", "tag={{json .}}", "tag={{.ID}}{{ .ContainerLabels }}")]
    for words, (rc, said) in zip(attempts, a.each(attempts), strict=True):
        assert rc != 0 and "is not allowed" in said, (words, rc, said)
    box = a.ok("create", "--log-opt", "tag={{.Name}}/{{.ID}}", "--log-opt", "labels=x", "--label", "x=y", "busybox")
    seal = host.inspect(box)["Config"]["Labels"][SEAL_LABEL]
    image = unique("acme/committed")
    a.ok("commit", box, image)
    shown = [a.ok("inspect", box), a.ok("inspect", image), a.ok("history", "--no-trunc", image), a.ok("ps", "-a", "--no-trunc")]
    assert not [text for text in shown if seal in text or "com.buildkite.sockguard" in text]


def test_a_child_of_an_image_that_its_owner_built_is_a_child(host, agents, boxes):
    a, _, _ = agents
    image = unique("acme/built")
    a.ok("build", "-q", "-t", image, "-", input="FROM agent:test\nRUN echo built >/built\n")
    seen = a.ok("run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-e", "DOCKER_HOST=", image,
                "docker", "ps", "-q", "--no-trunc")
    assert boxes[0] in seen.split() and boxes[1] not in seen.split()


def test_what_descends_from_an_agent_is_not_served_when_the_agent_has_ended(host):
    agent = host.agent("ending")
    loop = "while :; do docker create busybox; done"
    agent.ok("run", "-d", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-e", "DOCKER_HOST=", "agent:test", "sh", "-c", loop)
    filters = f'?all=1&filters={{"label":["{OWNER_LABEL}={agent.owner}"]}}'

    def left():
        return host.god("GET", f"/containers/json{filters}").json()
    until(lambda: len(left()) > 3, what=host.log)
    agent.stop()
    # However fast it makes more, nothing of it is left.
    until(lambda: not left(), what=lambda: f"{len(left())} left: {host.log()[-3000:]}")


@pytest.mark.security
def test_labels_that_tell_agents_apart_cannot_be_had(host, agents):
    a, b, _ = agents
    labels = (f"{TASK}={b.owner}", f"{OWNER_LABEL}={b.owner}", f"{AGENT_LABEL}={b.id}", f"{SEAL_LABEL}=x")
    attempts = [words for label in labels for words in (
        ["create", "--label", label, "busybox"], ["volume", "create", "--label", label, unique("v")],
        ["network", "create", "--label", label, unique("n")])]
    for words, (rc, said) in zip(attempts, a.each(attempts), strict=True):
        assert rc != 0 and "cannot set it" in said, (words, rc, said)


@pytest.mark.security
def test_no_rule_no_service_and_the_refusal_says_who_it_was_taken_for(host, agents):
    stranger = host.agent("stranger", labels={FAMILY: "other"})
    refusal = stranger.refused("ps")
    assert f"taken for the container {stranger.name} ({stranger.id[:12]}, image agent:test)" in refusal, refusal
    # A process of the host, outside of all containers.
    answer = raw(host.run / "docker.sock", "GET", "/containers/json")
    assert answer.status == 403 and "host" in answer.message, answer.message
    lines = until(lambda: [line for line in host.decisions() if line.get("reason") == "stranger"], what=host.log)
    assert all(line["verdict"] == "refuse" for line in lines)


def test_a_child_lies_under_its_agents_cgroup(host, agents):
    a, _, _ = agents
    for words in ([], ["--cgroup-parent", "/elsewhere"]):
        box = a.ok("run", "-d", *words, "busybox", "sleep", "1000")
        assert host.inspect(box)["HostConfig"]["CgroupParent"] == a.cgroup
        paths = a.host.engine.inside("cat", f"/proc/{host.inspect(box)['State']['Pid']}/cgroup")
        text = subprocess.run(paths, capture_output=True, text=True).stdout
        assert f"{a.cgroup}/{box}" in text, text
        a.ok("rm", "-f", box)


def test_the_restart_of_sockguard_changes_nothing(host, agents, boxes):
    a, b, _ = agents
    for kill in (False, True):
        host.restart(kill=kill)
        assert a.ok("ps", "-q", "--no-trunc").split() == [boxes[0]]
        assert b.ok("ps", "-q", "--no-trunc").split() == [boxes[1]]
        assert "No such container" in a.refused("exec", boxes[1], "true")
        assert a.ok("exec", boxes[0], "echo", "still") == "still"


def test_a_peer_that_ends_before_it_is_identified_is_refused(host, agents):
    """sockguard stands still while clients connect, send their requests and end; then it comes to look."""
    a, _, _ = agents
    late = unique("late")
    process = str(host.inspect(host.container)["State"]["Pid"])
    subprocess.run(host.engine.inside("kill", "-STOP", process), check=True)
    try:
        for _ in range(5):
            rc, out, err = a.sh(f"timeout -s KILL 1 docker volume create {late}")
            assert rc != 0, (out, err)
    finally:
        subprocess.run(host.engine.inside("kill", "-CONT", process), check=True)
    ended = "ended before it could be told who it is"
    lines = until(lambda: [line for line in host.decisions() if ended in line.get("message", "")], what=host.log)
    assert all(line["owner"] == "" and line["verdict"] == "refuse" for line in lines)
    assert a.ok("volume", "ls", "-q", "-f", f"name={late}") == ""
    assert host.god("GET", f"/volumes/{late}").status == 404


def test_many_connections_at_once_cost_one_look_up_per_container(host):
    """200 connections at once from two new agents: the engine is asked once for each container and for its image."""
    agents = host.agent("many"), host.agent("many")
    image = host.inspect(agents[0].id)["Image"]
    log = host.engine.root / "dockerd.log"

    def asked(path):
        return log.read_text(errors="replace").count(f"Calling GET {path}\"")
    assert asked("/_ping") > 0, "the engine does not tell what it is asked"
    paths = [f"/containers/{agent.id}/json" for agent in agents] + [f"/images/{image}/json"]
    before = [asked(path) for path in paths]
    burst = """
        mkdir /tmp/done
        for i in $(seq 100); do docker version >/dev/null 2>/tmp/done/$i & done; wait
        cat /tmp/done/* | sort | uniq -c; docker ps -q
    """
    results = {}

    def run(agent):
        results[agent.name] = agent.sh(burst, timeout=300)
    threads = [threading.Thread(target=run, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(rc, out, err) for rc, out, err in results.values()] == [(0, "", "")] * 2
    assert [asked(path) - count for path, count in zip(paths, before, strict=True)] == [1, 1, 2]


def test_what_an_agent_made_goes_with_it(host, agents):
    """Containers, networks, volumes and, as this host is set, images: also of one that made nothing else."""
    kept = agents[0].ok("volume", "create", unique("v"))
    ends, builds = host.agent("ends"), host.agent("builds")
    network, volume = ends.ok("network", "create", unique("n")), ends.ok("volume", "create", unique("v"))
    box = ends.ok("run", "-d", "--network", network, "-v", f"{volume}:/v", "busybox", "sleep", "1000")
    image = builds.ok("build", "-q", "-t", unique("built"), "-", input="FROM busybox\nENV A=b\n")
    paths = [f"/containers/{box}/json", f"/networks/{network}", f"/volumes/{volume}", f"/images/{image}/json"]
    assert [host.god("GET", path).status for path in paths] == [200] * 4
    ends.stop()
    builds.stop()
    until(lambda: [host.god("GET", path).status for path in paths] == [404] * 4, 120, lambda: f"the end of all: {host.log()}")
    assert host.god("GET", f"/volumes/{kept}").status == host.god("GET", f"/containers/{ends.id}/json").status == 200
