"""What agents share of one host: nothing but its room, of which each gets its part, and which each leaves clean."""

import pytest

import harness
from harness import OWNER_LABEL, unique, until
from many.host import Host

QUOTA = 10


@pytest.fixture(scope="module")
def host():
    text = (harness.REPO / "policies/ci-agent.toml").read_text()
    text = text.replace("[network]", "[network]\nisolated = true").replace("[bind]", "[bind]\nown-mounts = true")
    host = Host(policy_text=f"{text}\n[quota]\ncontainers = {QUOTA}\n")
    yield host
    host.close()


def addresses(host, box):
    networks = host.inspect(box)["NetworkSettings"]["Networks"]
    return [network["IPAddress"] for network in networks.values()]


def test_fifty_creates_at_once_make_exactly_what_the_quota_allows(host):
    a, b = host.agent("a"), host.agent("b")
    rc, out, err = a.sh("for i in $(seq 50); do docker create busybox >>/tmp/made 2>>/tmp/refused & done; wait; "
                        "wc -l </tmp/made; sort /tmp/refused | uniq -c | sort -rn | head -3", timeout=300)
    assert rc == 0 and out.split()[0] == str(QUOTA), (out, err)
    assert "quota.containers" in out, out
    own = host.god("GET", f'/containers/json?all=1&filters={{"label":["{OWNER_LABEL}={a.owner}"]}}').json()
    assert len(own) == QUOTA
    # Another's room is another's.
    b.ok("create", "busybox")
    refusal = a.refused("create", "busybox")
    assert f"{QUOTA} of {QUOTA}" in refusal and "quota.containers" in refusal, refusal
    a.sh("docker rm $(docker ps -aq)")
    a.ok("create", "busybox")
    for agent in (a, b):
        agent.stop()


@pytest.mark.security
def test_containers_of_two_agents_cannot_reach_each_other(host):
    a, b = host.agent("a"), host.agent("b")
    server = "mkdir /w; echo here >/w/index.html; httpd -f -p 80 -h /w"
    boxes = {agent.name: agent.ok("run", "-d", "busybox", "sh", "-c", server) for agent in (a, b)}
    ask = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} 80 | tail -n 1 | grep here"
    get = f"for i in $(seq 50); do {ask} && exit 0; sleep 0.2; done; exit 1"
    for agent, other in ((a, b), (b, a)):
        [own], [foreign] = addresses(host, boxes[agent.name]), addresses(host, boxes[other.name])
        assert agent.ok("run", "--rm", "busybox", "sh", "-c", get.format(own)) == "here"
        refused = agent.docker("run", "--rm", "busybox", "sh", "-c", ask.format(foreign))
        assert refused[0] != 0 and "here" not in refused[1], refused
    for agent in (a, b):
        agent.stop()


def test_what_an_agent_leaves_is_gone_within_the_grace_period_and_others_is_untouched(host):
    a, b = host.agent("a"), host.agent("b")
    left = {}
    for agent in (a, b):
        volume, network, image = unique("v"), unique("n"), unique("acme/i")
        agent.ok("volume", "create", volume)
        agent.ok("network", "create", network)
        agent.ok("run", "-d", "--network", network, "-v", f"{volume}:/x", "busybox", "sleep", "1000")
        agent.ok("build", "-q", "-t", image, "-", input="FROM busybox\nRUN echo built >/built\n")
        left[agent.name] = (volume, network, image)

    def there(agent):
        volume, network, image = left[agent.name]
        filters = f'?all=1&filters={{"label":["{OWNER_LABEL}={agent.owner}"]}}'
        found = [host.god("GET", f"/volumes/{volume}").status, host.god("GET", f"/networks/{network}").status,
                 host.god("GET", f"/images/{image}/json").status]
        return [status for status in found if status == 200] + host.god("GET", f"/containers/json{filters}").json()

    assert len(there(a)) == len(there(b)) == 4
    a.stop()
    until(lambda: not there(a), what=lambda: f"{there(a)} {host.log()}")
    assert len(there(b)) == 4
    assert b.ok("ps", "-q") != ""
    # While sockguard is away, too.
    host.god("POST", f"/containers/{host.container}/stop?t=20")
    b.stop()
    host.god("DELETE", f"/containers/{host.container}?v=1")
    host.start()
    until(lambda: not there(b), what=lambda: f"{there(b)} {host.log()}")
