"""Quotas: what all of an owner's objects come to at most, counted over all connections."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import docker, raw, sealed, unique, until

MIB = 1 << 20

POLICY = """
[container]
allow = ["read", "logs", "create", "run", "attach", "remove"]
log-drivers = ["json-file"]
[image]
allow = ["read"]
[network]
allow = ["read", "create", "remove"]
subnets = ["10.0.0.0/8"]
[volume]
allow = ["read", "create", "remove"]
[quota]
"""

SLEEP = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "SIGKILL"}


@pytest.fixture
def limited(make_guard, tmp_path):
    """A guard whose policy has these quotas; what its owner made is removed after the test."""
    made = []

    def make(quota, **settings):
        policy = tmp_path / f"{unique('quota')}.toml"
        policy.write_text(POLICY + quota)
        made.append(make_guard(policy=policy, **settings))
        return made[-1]
    yield make
    for guard in made:
        for container in call(guard, "GET", "/containers/json?all=1").json():
            call(guard, "DELETE", f"/containers/{container['Id']}?force=1&v=1")
        for volume in call(guard, "GET", "/volumes").json()["Volumes"] or []:
            call(guard, "DELETE", f"/volumes/{volume['Name']}")
        for network in call(guard, "GET", "/networks").json():
            call(guard, "DELETE", f"/networks/{network['Id']}")


def call(guard, method, path, body=None):
    return raw(guard.socket, method, path, body, timeout=120)


def made(guard, method, path, body=None, status=201):
    answer = call(guard, method, path, body)
    assert answer.status == status, (answer.status, answer.text)
    return answer.json() if answer.body else None


def refused(answer, *words):
    assert answer.status == 403, (answer.status, answer.text)
    message = answer.json()["message"]
    assert message.startswith("sockguard: ")
    for word in words:
        assert word in message, message


def container(guard, **host):
    return made(guard, "POST", "/containers/create", {**SLEEP, "HostConfig": host})["Id"]


def at_once(number, request):
    """The answers to requests that are sent at the same moment."""
    ready = threading.Barrier(number)

    def one(place):
        ready.wait()
        return request(place)
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def test_of_many_creates_at_once_as_many_as_the_quota_has_room_for(limited):
    guard = limited("containers = 10")
    answers = at_once(50, lambda _: call(guard, "POST", "/containers/create", SLEEP))
    there = [answer for answer in answers if answer.status == 201]
    assert len(there) == 10, sorted(answer.text for answer in answers)
    assert len(call(guard, "GET", "/containers/json?all=1").json()) == 10
    for answer in answers:
        if answer.status != 201:
            refused(answer, "creating a container is not allowed", "quota.containers", "10 of 10 containers are there")
    # What is removed makes room, and no more.
    made(guard, "DELETE", f"/containers/{there[0].json()['Id']}", status=204)
    container(guard)
    refused(call(guard, "POST", "/containers/create", SLEEP), "quota.containers")
    rc, _, err = docker(guard.socket, "create", "busybox")
    assert rc != 0 and "10 of 10 containers are there" in err


def test_owners_do_not_count_for_each_other(limited):
    first, second = limited("containers = 1"), limited("containers = 1")
    for guard in (first, second):
        container(guard)
        refused(call(guard, "POST", "/containers/create", SLEEP), "1 of 1 containers are there")


def test_what_runs_is_counted_at_the_start(limited):
    guard = limited("running = 2")
    ids = [container(guard) for _ in range(6)]
    answers = at_once(6, lambda place: call(guard, "POST", f"/containers/{ids[place]}/start"))
    assert sorted(answer.status for answer in answers) == [204, 204, 403, 403, 403, 403]
    running = [entry["Id"] for entry in call(guard, "GET", "/containers/json").json()]
    assert len(running) == 2
    idle = next(id for id in ids if id not in running)
    for verb in ("start", "restart"):
        refused(call(guard, "POST", f"/containers/{idle}/{verb}"), "quota.running", "2 of 2 containers run")
    # What runs already adds nothing.
    made(guard, "POST", f"/containers/{running[0]}/start", status=304)
    made(guard, "POST", f"/containers/{running[0]}/restart?t=0", status=204)
    made(guard, "POST", f"/containers/{running[0]}/pause", status=204)
    refused(call(guard, "POST", f"/containers/{idle}/start"), "quota.running")
    made(guard, "POST", f"/containers/{running[1]}/kill", status=204)
    until(lambda: len(call(guard, "GET", "/containers/json").json()) == 1, 30, "the end of a container")
    made(guard, "POST", f"/containers/{idle}/start", status=204)


def test_networks_are_counted(limited):
    guard = limited("networks = 3")
    answers = at_once(8, lambda _: call(guard, "POST", "/networks/create", {"Name": unique("net")}))
    there = [answer.json()["Id"] for answer in answers if answer.status == 201]
    assert len(there) == 3, [answer.text for answer in answers]
    for answer in answers:
        if answer.status != 201:
            refused(answer, "creating a network", "quota.networks", "3 of 3 networks are there")
    made(guard, "DELETE", f"/networks/{there[0]}", status=204)
    made(guard, "POST", "/networks/create", {"Name": unique("net")})


def test_volumes_are_counted_however_they_are_made(engine, limited):
    guard = limited("volumes = 3")
    image = unique("declares")
    engine.image(image, changes=["VOLUME /data", "VOLUME /more"])
    name = unique("vol")
    made(guard, "POST", "/volumes/create", {"Name": name})
    made(guard, "POST", "/volumes/create", {"Name": name})  # It is there.
    answer = call(guard, "POST", "/containers/create", {**SLEEP, "HostConfig": {"Binds": ["/x", "/y", "/z"]}})
    refused(answer, "creating the container's volumes", "quota.volumes", "1 of 3 volumes are there, and it needs 3 more")
    by_image = made(guard, "POST", "/containers/create", {**SLEEP, "Image": image})["Id"]
    refused(call(guard, "POST", "/volumes/create", {}), "quota.volumes", "3 of 3 volumes are there")
    for host in (
        {"Binds": [f"{unique('vol')}:/x"]},
        {"Mounts": [{"Type": "volume", "Target": "/x"}]},
        {"Mounts": [{"Type": "volume", "Source": unique("vol"), "Target": "/x"}]},
    ):
        refused(call(guard, "POST", "/containers/create", {**SLEEP, "HostConfig": host}), "quota.volumes")
    refused(call(guard, "POST", "/containers/create", {**SLEEP, "Volumes": {"/x": {}}}), "quota.volumes")
    # Own volumes that are there may be mounted, and nothing that was refused has left one.
    container(guard, Binds=[f"{name}:/x"])
    assert len(call(guard, "GET", "/volumes").json()["Volumes"]) == 3
    taking = {**SLEEP, "Image": image, "HostConfig": {"VolumesFrom": [by_image]}}
    refused(call(guard, "POST", "/containers/create", taking), "HostConfig.VolumesFrom", "quota.volumes")
    made(guard, "DELETE", f"/containers/{by_image}?v=1", status=204)
    answers = at_once(6, lambda _: call(guard, "POST", "/volumes/create", {"Name": unique("vol")}))
    assert sorted(answer.status for answer in answers) == [201, 201, 403, 403, 403, 403]


def test_memory_is_shared_out_and_who_states_no_limit_gets_one(limited):
    guard = limited('memory = "256MiB"\nmemory-default = "64MiB"\npids = 100\npids-default = 20\ncpus = 1\ncpus-default = 0.25\n')
    small = container(guard)
    host = made(guard, "GET", f"/containers/{small}/json", status=200)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (64 * MIB, 20, 250_000_000)
    large = container(guard, Memory=128 * MIB, PidsLimit=30, CpuQuota=25_000, CpuPeriod=50_000)
    host = made(guard, "GET", f"/containers/{large}/json", status=200)["HostConfig"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"], host["CpuQuota"]) == (128 * MIB, 30, 0, 25_000)

    def create(**limits):
        return call(guard, "POST", "/containers/create", {**SLEEP, "HostConfig": limits})
    refused(create(Memory=65 * MIB), "HostConfig.Memory `65MiB`", "quota.memory", "192MiB of 256MiB is taken")
    refused(create(NanoCpus=260_000_000), "HostConfig.NanoCpus `0.26`", "quota.cpus", "0.75 of 1 is taken")
    refused(create(PidsLimit=51), "HostConfig.PidsLimit `51`", "quota.pids", "50 of 100 is taken")
    refused(create(Memory=-1), "HostConfig.Memory `-1`", "quota.memory")
    refused(create(PidsLimit=-1), "HostConfig.PidsLimit `-1`", "quota.pids")

    def update(id, **limits):
        return call(guard, "POST", f"/containers/{id}/update", limits)
    refused(update(small, Memory=129 * MIB, MemorySwap=300 * MIB), "Memory `129MiB`", "128MiB of 256MiB is taken")
    refused(update(small, PidsLimit=71), "PidsLimit `71`", "30 of 100 is taken")
    refused(update(small, NanoCpus=500_000_001), "quota.cpus", "0.5 of 1 is taken")
    refused(update(small, PidsLimit=0), "PidsLimit `0`", "quota.pids")
    refused(update(small, PidsLimit=-1), "quota.pids")
    # As much as is left, which is then taken.
    assert update(small, Memory=128 * MIB, MemorySwap=256 * MIB).status == 200
    refused(create(), "HostConfig.Memory `64MiB`", "256MiB of 256MiB is taken")
    rc, _, err = docker(guard.socket, "update", "--memory", "64m", "--memory-swap", "128m", small)
    assert rc == 0, err
    container(guard)
    made(guard, "DELETE", f"/containers/{large}", status=204)
    answers = at_once(6, lambda _: create(Memory=64 * MIB))
    assert sorted(answer.status for answer in answers) == [201, 201, 403, 403, 403, 403]


def test_quotas_hold_after_a_restart(limited):
    guard = limited('containers = 3\nmemory = "64MiB"\nmemory-default = "32MiB"\n')
    container(guard)
    guard.restart()
    container(guard)
    refused(call(guard, "POST", "/containers/create", SLEEP), "quota.memory", "64MiB of 64MiB is taken")


def test_what_only_inherits_the_owner_is_not_counted(engine, limited):
    guard = limited("containers = 1")
    image = unique("inherits")
    engine.image(image, changes=[f"LABEL com.buildkite.sockguard.owner={guard.owner}"])
    of_host = raw(engine.socket, "POST", "/containers/create", {"Image": image}).json()["Id"]
    try:
        container(guard)
        refused(call(guard, "POST", "/containers/create", SLEEP), "1 of 1 containers are there")
    finally:
        raw(engine.socket, "DELETE", f"/containers/{of_host}")


def test_what_exposes_every_port_cannot_be_made_and_is_counted_in_little_memory(engine, limited):
    guard = limited('containers = 4\nmemory = "1GiB"\nmemory-default = "64MiB"\n')
    image = unique("ports")
    engine.image(image, changes=["EXPOSE 1-65535"])
    refused(call(guard, "POST", "/containers/create", {**SLEEP, "Image": image}), "ExposedPorts `65535`", "1000 ports")
    rc, _, err = docker(guard.socket, "create", "--expose", "1000-2000", "busybox")
    assert rc != 0 and "ExposedPorts `1001`" in err
    # Containers of a time when nobody refused them.
    for _ in range(3):
        made(engine, "POST", "/containers/create", {**SLEEP, "Image": image, "Labels": sealed(guard.owner)})
    small = container(guard)
    refused(call(guard, "POST", "/containers/create", SLEEP), "quota.containers", "4 of 4 containers are there")
    made(guard, "DELETE", f"/containers/{small}", status=204)
    assert guard.memory() < 24 * MIB, guard.memory()
