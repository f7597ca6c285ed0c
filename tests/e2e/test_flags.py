"""What the flags do on a real engine: links, joined networks, forced users, cgroup parents; and sockguard in a container."""

import io
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from harness import docker, raw, sockguard_binary, unique, until


@pytest.fixture
def helper(engine):
    """A container that agents do not own, as the original's proxies were."""
    name = unique("helper")
    assert docker(engine.socket, "run", "-d", "--init", "--name", name, "busybox", "sleep", "10000")[0] == 0
    yield name
    docker(engine.socket, "rm", "-f", name)


def inspect(engine, name):
    return raw(engine.socket, "GET", f"/containers/{name}/json").json()


def test_docker_link_is_added_to_every_container(make_guard, engine, helper):
    guard = make_guard(flags=["-docker-link", f"{helper}:proxy"])
    rc, out, err = docker(guard.socket, "run", "--rm", "busybox", "cat", "/etc/hosts")
    assert rc == 0, err
    address = inspect(engine, helper)["NetworkSettings"]["IPAddress"]
    assert re.search(rf"^{re.escape(address)}\s.*\bproxy\b", out, re.M), out


def test_container_joins_every_network_and_leaves_before_its_end(make_guard, engine, helper):
    guard = make_guard(flags=["-container-join-network", helper, "-container-join-network-alias", "proxy"])
    name = unique("net")
    rc, _, err = docker(guard.socket, "network", "create", name)
    assert rc == 0, err
    joined = inspect(engine, helper)["NetworkSettings"]["Networks"]
    assert "proxy" in joined[name]["Aliases"]
    rc, out, err = docker(guard.socket, "run", "--rm", "--network", name, "busybox", "ping", "-c1", "-W30", "proxy")
    assert rc == 0, out + err
    rc, _, err = docker(guard.socket, "network", "rm", name)
    assert rc == 0, err
    assert name not in inspect(engine, helper)["NetworkSettings"]["Networks"]


def test_user_is_forced_on_containers_and_execs(make_guard):
    guard = make_guard(flags=["-user", "1234:4321"])
    name = unique()
    rc, out, err = docker(guard.socket, "run", "-u", "0", "--rm", "busybox", "id")
    assert rc == 0 and out.startswith("uid=1234 gid=4321"), out + err
    assert docker(guard.socket, "run", "-d", "--init", "--name", name, "busybox", "sleep", "10000")[0] == 0
    rc, out, err = docker(guard.socket, "exec", name, "id")
    assert rc == 0 and out.startswith("uid=1234 gid=4321"), out + err
    docker(guard.socket, "rm", "-f", name)


def test_cgroup_parent_is_forced(make_guard, engine):
    parent = f"/{engine.name}/{unique('parent')}"
    guard = make_guard(flags=["-cgroup-parent", parent])
    name = unique()
    rc, _, err = docker(guard.socket, "create", "--name", name, "busybox", "true")
    assert rc == 0, err
    assert inspect(engine, name)["HostConfig"]["CgroupParent"] == parent
    docker(guard.socket, "rm", name)


def test_host_networking_needs_its_flag(make_guard):
    rc, _, err = docker(make_guard().socket, "run", "--rm", "--network", "host", "busybox", "true")
    assert rc == 125 and "container.host-network" in err, err
    rc, _, err = docker(
        make_guard(flags=["-allow-host-mode-networking"]).socket, "run", "--rm", "--network", "host", "busybox", "true"
    )
    assert rc == 0, err


# --- in a container of the engine that it guards


@pytest.fixture(scope="module")
def image(engine):
    """An image of busybox with the binary that is tested, and the libraries it needs."""
    binary = Path(sockguard_binary())
    libraries = re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", binary], capture_output=True, text=True).stdout)
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, name in [(binary, "sockguard"), *((Path(p).resolve(), f"libraries{p}") for p in libraries)]:
            tar.add(path, name)
        recipe = "FROM busybox\nCOPY sockguard /sockguard\n" + ("COPY libraries /\n" if libraries else "")
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(recipe)
        tar.addfile(entry, io.BytesIO(recipe.encode()))
    tag = f"{unique('guard')}:1"
    rc, out, err = docker(engine.socket, "build", "-t", tag, "-", input=context.getvalue())
    assert rc == 0, out + err
    yield tag
    docker(engine.socket, "rmi", "-f", tag)


@pytest.fixture
def contained(engine, image, tmp_path):
    """Starts sockguard in a container; gives its socket and what it says at start."""
    names = []

    def start(*flags, options=()):
        name = unique("contained")
        names.append(name)
        directory = tmp_path / name
        directory.mkdir()
        rc, _, err = docker(
            engine.socket, "run", "-d", "--name", name, "--network", "none", "-v", f"{directory}:/run/guard",
            "-v", f"{Path(engine.socket).parent}:/engine", "-e", "SOCKGUARD_LOG_FORMAT=json", *options, image,
            "/sockguard", "-filename", "/run/guard/s", "-upstream-socket", "/engine/docker.sock", "-owner-label", name, *flags,
        )
        assert rc == 0, err

        def said():
            _, out, err = docker(engine.socket, "logs", name)
            done = inspect(engine, name)["State"]["Status"] == "exited"
            return out + err if done or "engine API" in err else None

        return str(directory / "s"), until(said, what="the start"), name

    yield start
    for name in names:
        docker(engine.socket, "rm", "-f", name)


def test_cgroup_parent_auto_is_that_of_its_own_container(contained, engine):
    parent = f"/{engine.name}/{unique('task')}"
    socket, _, _ = contained("-cgroup-parent", "auto", options=["--cgroup-parent", parent])
    name = unique()
    rc, _, err = docker(socket, "create", "--name", name, "busybox", "true")
    assert rc == 0, err
    assert inspect(engine, name)["HostConfig"]["CgroupParent"] == parent
    docker(socket, "rm", name)


def test_in_a_container_only_what_is_mounted_as_it_is_counts_as_seen(contained, engine, tmp_path):
    """A directory of the same name in the container is not the host's, and is not taken for it."""
    same, other = tmp_path / "same", tmp_path / "other"
    for directory in (same, other):
        directory.mkdir()
    _, said, _ = contained(
        "-allow-bind", f"{same},{other},/bin",
        options=["-v", f"{same}:{same}", "-v", f"{same}:{other}"],
    )
    lines = [json.loads(line)["message"] for line in said.splitlines() if line.startswith("{")]
    about = {root: next(line for line in lines if f"binds below {root} " in line) for root in (str(same), str(other), "/bin")}
    if "sub-paths" in about["/bin"]:
        pytest.skip("this engine resolves binds itself")
    assert "are checked" in about[str(same)]
    assert "are refused" in about[str(other)] and "are refused" in about["/bin"]


def test_the_sockets_path_on_the_host_is_told(contained, engine, tmp_path):
    _, _, name = contained()
    told = f"say so with socket-on-host {tmp_path / name / 's'}"
    until(lambda: told in "".join(docker(engine.socket, "logs", name)[1:]), what="the path")
    _, said, _ = contained("-socket-on-host", "/run/elsewhere.sock")
    assert "say so with socket-on-host" not in said


def test_health_works_in_a_container(contained, engine):
    _, _, name = contained()
    rc, out, err = docker(engine.socket, "exec", name, "/sockguard", "health", "-filename", "/run/guard/s")
    assert rc == 0, out + err
