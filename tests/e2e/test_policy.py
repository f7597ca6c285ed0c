"""What a policy for agents that share a host does on a real engine: a bridge for each owner, no tokens in containers."""

import json
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from harness import OWNER_LABEL, REPO, Guard, create, docker, raw, unique, until

SERVER = ["sh", "-c", "echo it is me > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]


@pytest.fixture(scope="module")
def policy(engine, tmp_path_factory):
    """The default policy, with what keeps agents on one host apart. The engine is emptied after the module."""
    text = (REPO / "policies" / "ci-agent.toml").read_text()
    assert "[network]\n" in text and "[container]\n" in text
    file = tmp_path_factory.mktemp("policy") / "shared-host.toml"
    text = text.replace("[network]\n", "[network]\nisolated = true\n")
    keys = 'deny-env = ["BUILDKITE_AGENT_TOKEN", "ECS_*"]\nredact-env = ["*_TOKEN"]\n'
    file.write_text(text.replace("[container]\n", "[container]\n" + keys))
    yield file
    engine.wipe()


@pytest.fixture(scope="module")
def owners(engine, policy):
    """Two owners, each behind a guard of its own."""
    guards = [Guard(engine, owner=unique(name), policy=policy) for name in ("alice", "bob")]
    yield guards
    for guard in guards:
        guard.close()


@pytest.fixture
def make_isolated(make_guard, policy):
    """A factory for owners that nothing was made for yet."""
    return lambda: make_guard(policy=policy)


def networks(engine, guard):
    """The engine's networks of an owner."""
    filters = quote(json.dumps({"label": [f"{OWNER_LABEL}={guard.owner}"]}))
    return raw(engine.socket, "GET", f"/networks?filters={filters}").json()


def server(guard, *flags):
    """A container that serves HTTP: its name and its only address."""
    name = unique("server")
    rc, _, err = docker(guard.socket, "run", "-d", "--init", "--name", name, *flags, "busybox", *SERVER)
    assert rc == 0, err
    (network,) = raw(guard.socket, "GET", f"/containers/{name}/json").json()["NetworkSettings"]["Networks"].values()
    return name, network["IPAddress"]


def fetches(guard, name, address, seconds=60):
    """Does a container reach a server?"""
    # Of the test's static busybox `nc` works, `wget` does not.
    once = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 8080 | grep 'it is me'"
    tries = f"i=0; until {once}; do i=$((i + 1)); [ $i -lt {seconds} ] || exit 1; sleep 1; done"
    rc, _, err = docker(guard.socket, "exec", name, "sh", "-c", tries)
    assert rc in (0, 1), err
    return rc == 0


def pings(guard, name, host, seconds=30):
    rc, _, err = docker(guard.socket, "exec", name, "ping", "-4", "-c", "1", "-W", str(seconds), host)
    assert rc in (0, 1), err
    return rc == 0


def test_without_isolation_containers_of_two_owners_reach_each_other(make_guard):
    alice, bob = make_guard(), make_guard()
    (_, address), (name, _) = server(alice), server(bob)
    assert fetches(bob, name, address) and pings(bob, name, address)


@pytest.mark.security
def test_containers_of_two_owners_do_not_reach_each_other_by_address(engine, owners):
    alice, bob = owners
    servers = {guard.owner: server(guard) for guard in owners}
    for guard, other in ((alice, bob), (bob, alice)):
        name, address = servers[guard.owner]
        _, foreign = servers[other.owner]
        client, _ = server(guard, "--network", "bridge")
        assert fetches(guard, client, address), "own containers reach each other by address"
        assert pings(guard, client, address) and pings(guard, client, name), "and by name"
        assert not fetches(guard, client, foreign, seconds=1) and not pings(guard, client, foreign, seconds=1)
        shown = raw(guard.socket, "GET", f"/containers/{client}/json").json()
        (bridge,) = networks(engine, guard)
        assert shown["HostConfig"]["NetworkMode"] == bridge["Name"]
        assert list(shown["NetworkSettings"]["Networks"]) == [bridge["Name"]]
        rc, _, err = docker(guard.socket, "network", "connect", "bridge", client)
        assert rc == 1 and "network.isolated" in err, err


def test_links_and_published_ports_work_on_the_owners_bridge(engine, owners):
    alice, _ = owners
    name, _ = server(alice, "-p", "8080")
    linked, _ = server(alice, "--link", f"{name}:web")
    assert pings(alice, linked, "web")
    (bridge,) = networks(engine, alice)
    linked, _ = server(alice, "--network", bridge["Name"], "--link", f"{name}:web")
    assert pings(alice, linked, "web")
    ports = raw(alice.socket, "GET", f"/containers/{name}/json").json()["NetworkSettings"]["Ports"]
    port = ports["8080/tcp"][0]["HostPort"]
    until(lambda: engine.connects(port), what="the published port")


def test_the_steps_of_a_build_are_as_far_apart(owners):
    alice, bob = owners
    _, address = server(alice)
    for guard, expected, seconds in ((alice, 0, 30), (bob, 1, 1)):
        dockerfile = f"FROM busybox\nRUN ping -c 1 -W {seconds} {address}\n"
        rc, out, err = docker(guard.socket, "build", "--no-cache", "-", input=dockerfile)
        assert rc == expected and "1 packets transmitted" in out, out + err


def test_a_bridge_that_went_away_is_made_again(engine, make_isolated):
    guard = make_isolated()
    name, _ = server(guard)
    (bridge,) = networks(engine, guard)
    rc, out, err = docker(guard.socket, "network", "ls", "--format", "{{.Name}}", "--filter", "driver=bridge")
    assert rc == 0 and out.split() == ["bridge", bridge["Name"]], out + err
    assert docker(guard.socket, "stop", "-t", "0", name)[0] == 0
    rc, out, err = docker(guard.socket, "network", "prune", "-f")
    assert (rc, out) == (0, ""), "as the engine's own it is not pruned: " + out + err
    # By hand, and by whoever looks after the host.
    for socket in (guard.socket, engine.socket):
        never_started = create(guard.socket, Cmd=["true"])
        assert raw(socket, "DELETE", f"/networks/{bridge['Name']}").status == 204
        assert raw(guard.socket, "POST", f"/containers/{never_started}/start").status == 204
        assert raw(guard.socket, "POST", f"/containers/{name}/start").status == 204
        (anew,) = networks(engine, guard)
        assert anew["Name"] == bridge["Name"] and anew["Id"] != bridge["Id"]
        assert pings(guard, name, name)
        bridge = anew
        assert docker(guard.socket, "stop", "-t", "0", name)[0] == 0


def test_first_creations_at_once_make_one_bridge(engine, make_isolated):
    guard = make_isolated()
    assert networks(engine, guard) == []
    with ThreadPoolExecutor(10) as pool:
        made = list(pool.map(lambda _: create(guard.socket, Cmd=["true"]), range(10)))
    assert len(set(made)) == 10
    assert len(networks(engine, guard)) == 1
    assert docker(guard.socket, "start", "-a", made[-1]) == (0, "", "")


def test_variables_of_denied_names_are_refused_without_their_values(owners):
    alice, _ = owners
    name, _ = server(alice)
    mine = {"BUILDKITE_AGENT_TOKEN": "geheim", "ECS_X": "geheim"}
    for command in (
        ("run", "--rm", "-e", "BUILDKITE_AGENT_TOKEN", "busybox", "env"),
        ("create", "-e", "ECS_X=geheim", "busybox"),
        ("exec", "-e", "BUILDKITE_AGENT_TOKEN", name, "env"),
        ("build", "--build-arg", "ECS_X", "-"),
        ("commit", "--change", "ENV ECS_X=geheim", name),
    ):
        rc, out, err = docker(alice.socket, *command, env=mine, input="FROM scratch\nCOPY x /\n")
        assert rc != 0 and "container.deny-env" in err, out + err
        assert any(variable in err for variable in mine) and "geheim" not in out + err + alice.stderr()


def test_values_of_redacted_names_are_not_in_inspections(owners):
    alice, _ = owners
    name, _ = server(alice, "-e", "NPM_TOKEN=geheim", "-e", "PLAIN=1")
    rc, out, err = docker(alice.socket, "inspect", "-f", "{{json .Config.Env}}", name)
    assert rc == 0, err
    assert {"NPM_TOKEN=redacted", "PLAIN=1"} <= set(json.loads(out)) and "geheim" not in out
    rc, out, err = docker(alice.socket, "exec", name, "sh", "-c", "echo $NPM_TOKEN")
    assert (rc, out) == (0, "geheim\n"), "the container has it: " + err
