"""The image: the shipped Dockerfile, built by the engine's own builder, and run. No image of Rust's can be pulled here,
so the one that makes the programs is replaced by one whose `cargo` hands out what `make test` has built."""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

import harness
from harness import docker, raw, unique, until

EPOCH = 1700000000
NOBODY = "65532:65532"

CARGO = """#!/bin/sh
set -eu
case "$*" in
    "build --locked --release --target x86_64-unknown-linux-gnu --package "*) ;;
    *) echo "not expected: cargo $*" >&2; exit 1 ;;
esac
case "$RUSTFLAGS" in *+crt-static*) ;; *) exit 1 ;; esac
for package; do :; done
mkdir -p target/x86_64-unknown-linux-gnu/release
cp "/made/$package" target/x86_64-unknown-linux-gnu/release/
"""


@pytest.fixture(scope="module")
def build(engine):
    """Builds a stage of the Dockerfile, and names it."""
    program = Path(harness.sockguard_binary()).read_bytes()
    rust = unique("rust") + ":test"
    engine.image(rust, {
        "/bin/cargo": CARGO,
        "/bin/rustc": "#!/bin/sh\necho x86_64-unknown-linux-gnu\n",
        "/made/sockguard": program,
        "/made/sockguard-scaler": "the scaler",
    })

    def build(*flags):
        name = unique("image") + ":test"
        arguments = {"RUST_IMAGE": rust, "REVISION": "0123456789ab", "CREATED": "2026-12-01T00:00:00Z", "SOURCE_DATE_EPOCH": EPOCH}
        words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        rc, out, err = docker(engine.socket, "build", *words, *flags, "-t", name, harness.REPO)
        assert rc == 0, (out, err)
        return name
    yield build
    engine.wipe()


@pytest.fixture(scope="module")
def image(build):
    return build()


@pytest.fixture
def start(engine, image):
    """Starts a container of the image as a host should; its health is looked at all the time."""
    made = []

    def start(*command, user="", retries=600, **host):
        name = unique("guard")
        answer = raw(engine.socket, "POST", f"/containers/create?name={name}", {
            "Image": image, "User": user,
            **({"Cmd": list(command)} if command else {}),
            "Healthcheck": {"Interval": 50_000_000, "StartPeriod": 1_000_000, "Retries": retries},
            "HostConfig": {
                "NetworkMode": "none", "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"],
                **host,
            },
        })
        assert answer.status == 201, answer.text
        made.append(name)
        assert raw(engine.socket, "POST", f"/containers/{name}/start").status == 204
        return name
    yield start
    for name in made:
        raw(engine.socket, "DELETE", f"/containers/{name}?force=1&v=1")


def health(engine, name, wanted):
    """Waits until the engine finds the container in this health; what the last look at it said."""
    def seen():
        state = raw(engine.socket, "GET", f"/containers/{name}/json").json()["State"]
        assert state["Running"], (state, docker(engine.socket, "logs", name))
        return state["Health"] if state["Health"]["Status"] == wanted else None
    found = until(seen, what=lambda: f"{name} {wanted}: {docker(engine.socket, 'logs', name)}")
    return found["Log"][-1]["Output"]


def files(engine, image):
    """What the layers of an image have: {path: entry}."""
    archive = tarfile.open(fileobj=io.BytesIO(raw(engine.socket, "GET", f"/images/{image}/get").body))
    found = {}
    for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
        with tarfile.open(fileobj=archive.extractfile(layer)) as entries:
            found |= {entry.name.rstrip("/"): entry for entry in entries}
    return found


def test_it_has_only_the_files_that_it_needs(engine, image):
    found = files(engine, image)
    shown = {path: (f"{entry.uid}:{entry.gid}", oct(entry.mode & 0o7777)) for path, entry in found.items()}
    assert shown == {
        "sockguard": ("0:0", "0o755"),
        "etc": ("0:0", "0o755"),
        "etc/sockguard": ("0:0", "0o755"),
        "etc/sockguard/ecs-daemon.toml": ("0:0", "0o644"),
        "run": ("0:0", "0o755"),
        "run/sockguard": (NOBODY, "0o755"),
    }
    assert {path: entry.mtime for path, entry in found.items() if entry.isfile()} == {
        "sockguard": EPOCH, "etc/sockguard/ecs-daemon.toml": EPOCH,
    }


def test_it_is_small_and_says_what_it_is(engine, image):
    about = raw(engine.socket, "GET", f"/images/{image}/json").json()
    assert about["Size"] < 15 << 20
    config = about["Config"]
    assert config["User"] == NOBODY
    assert config["Entrypoint"] == ["/sockguard"]
    assert config["Healthcheck"]["Test"][:3] == ["CMD", "/sockguard", "health"]
    version = re.search(r'^version = "(.*)"', (harness.REPO / "Cargo.toml").read_text(), re.M)[1]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"]) == (version, "0123456789ab")
    assert labels["created"] == "2026-12-01T00:00:00Z"
    assert {"title", "description", "source", "licenses"} <= labels.keys()
    rc, out, err = docker(engine.socket, "run", "--rm", "--network", "none", image, "--version")
    assert rc == 0 and out.startswith(f"sockguard {version} ("), (out, err)


def test_nobody_s_user_guards_the_engine_with_no_rights_at_all(engine, start):
    group = os.stat(engine.socket).st_gid
    volume = unique("guarded")
    name = start(GroupAdd=[str(group)], Binds=[f"{engine.socket}:/var/run/docker.sock", f"{volume}:/run/sockguard"])
    health(engine, name, "healthy")
    mounted = raw(engine.socket, "GET", f"/volumes/{volume}").json()["Mountpoint"]
    answer = raw(f"{mounted}/docker.sock", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Privileged": True}})
    assert (answer.status, "container.privileged" in answer.message) == (403, True), answer


def test_it_is_unhealthy_without_the_engine(engine, start):
    name = start(Binds=[f"{unique('guarded')}:/run/sockguard"], retries=1)
    assert "/var/run/docker.sock" in health(engine, name, "unhealthy")


def test_its_health_is_looked_at_also_where_a_configuration_rules(engine, start):
    name = start(
        "--config", "/etc/sockguard/ecs-daemon.toml", user="0", PidMode="host", Tmpfs={"/run/sockguard": "mode=0755"},
        Binds=[f"{engine.socket}:/var/run/docker.sock", f"{unique('key')}:/var/lib/sockguard"],
    )
    health(engine, name, "healthy")
    rc, _, err = docker(engine.socket, "exec", name, "/sockguard", "health", "--config", "/etc/sockguard/ecs-daemon.toml")
    assert rc == 0, err


def test_the_scaler_s_program_is_a_stage_of_its_own(engine, build):
    found = files(engine, build("--target", "scaler"))
    assert {path: (oct(entry.mode & 0o7777), entry.mtime) for path, entry in found.items()} == {"bootstrap": ("0o755", EPOCH)}
