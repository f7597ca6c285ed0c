"""Bind sources are paths in the agent's own file system: what it has mounted itself, and nothing else."""

import platform
import re
import shutil
from pathlib import Path

import pytest

import harness
from agents import with_libraries
from harness import unique, until
from many.host import Host

BIND = """own-mounts = true
aliases = [
    { path = "/usr/local/bin/buildkite-agent", to = "/tools/buildkite-agent", access = "ro" },
    { path = "/opt/shared", host = "%s", access = "ro" },
]"""

RENAMEAT2 = {"x86_64": 316, "aarch64": 276}[platform.machine()]

# Swaps two directory entries in one step, some thousand times a second: all the time would slow down what it is to win.
SWAP = f"while (1) {{ syscall({RENAMEAT2}, -100, $ARGV[0], -100, $ARGV[1], 2); select(undef, undef, undef, 0.0002) }}"

# Starts a container again and again, each time to its end: SOCKET ID ROUNDS STOP. Prints how often the engine was asked
# to start it, and how often not: the bind was then not what was granted. Ends early when the file STOP is there.
STARTS = r"""
my ($path, $id, $rounds, $stop) = @ARGV; my $said;
sub ask {
    socket(my $s, 1, 1, 0) or die; connect($s, pack("S a108", 1, $path)) or die "connect: $!";
    syswrite($s, "POST /containers/$id/$_[0] HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    my $all = ''; while (sysread($s, my $part, 65536)) { $all .= $part }
    $all =~ m{^HTTP/1.1 (\d+)} or die "no answer"; $said = $all; return $1 + 0;
}
my ($started, $refused) = (0, 0);
while ($started + $refused < $rounds) {
    my $status = ask('start');
    if ($status == 204) { $started++; ask('wait') } elsif ($status == 403) { $refused++ } elsif ($status != 409) { die $said }
    last if -e $stop;
}
print "$started $refused\n";
"""


@pytest.fixture(scope="module")
def shared():
    """A directory of the host, which an alias names, and one that nobody may have."""
    directory = harness.own_directory("shared-")
    (directory / "tools").mkdir()
    (directory / "tools/hello").write_text("hello from the host")
    (directory / "secret").mkdir()
    (directory / "secret/escaped").write_text("")
    return directory


@pytest.fixture(scope="module")
def host(shared):
    ci = (harness.REPO / "policies/ci-agent.toml").read_text()
    assert "roots = []" in ci
    host = Host(policy_text=ci.replace("roots = []", BIND % (shared / "tools") + "\nroots = []"))
    yield host
    host.close()


@pytest.fixture(scope="module")
def agents(host):
    """Two agents. The first has a read-only mount, too, and one that both have."""
    assert host.god("POST", "/volumes/create", {"Name": "tools"}).status == 201
    tool = host.engine.root / "data/volumes/tools/_data/buildkite-agent"
    tool.write_text("#!/bin/sh\necho the agent, version 3\n")
    tool.chmod(0o755)
    perl = shutil.which("perl")
    assert perl, "the tests need perl (Debian: perl-base)"
    files = with_libraries((perl, "/usr/bin/perl"), (harness.docker_program(), "/bin/docker"))
    host.engine.image("perl:test", files | {"/bin/starts": STARTS})
    a = host.agent("a", image="perl:test", volumes=["tools:/tools:ro", "common:/common"])
    b = host.agent("b", image="perl:test", volumes=["common:/common"])
    for agent in (a, b):
        agent.sh(f"mkdir -p x/deep && echo this is {agent.name} | tee x/file x/deep/file")
    return a, b


def data(host, agent):
    """The agent's builds volume, as the host has it."""
    return f"{host.engine.root}/data/volumes/builds-{agent.name}/_data"


def test_an_agent_mounts_its_own_directory(host, agents):
    for agent in agents:
        said = f"this is {agent.name}"
        assert agent.ok("run", "--rm", "-v", "/buildkite/builds/x:/w", "busybox", "cat", "/w/file") == said
        rc, out, err = agent.sh('docker run --rm -v "$PWD/x:/w" -w /w busybox sh -c "cat deep/file && touch made"')
        assert (rc, out.strip()) == (0, said), err
        assert agent.sh("ls x/made")[0] == 0
        mount = "type=bind,source=/buildkite/builds/x/file,target=/f,readonly"
        assert agent.ok("run", "--rm", "--mount", mount, "busybox", "cat", "/f") == said
        assert agent.ok("run", "--rm", "-v", "/buildkite/builds:/w:ro", "busybox", "cat", "/w/x/file") == said


def test_inspect_shows_the_agents_own_words(host, agents):
    a, _ = agents
    box = a.ok("create", "-v", "/buildkite/builds/x:/w", "busybox")
    shown = a.ok("inspect", "-f", "{{json .HostConfig.Binds}} {{range .Mounts}}{{.Source}}{{end}}", box)
    assert shown == '["/buildkite/builds/x:/w"] /buildkite/builds/x'
    a.ok("rm", box)


@pytest.mark.security
def test_no_spelling_reaches_another_agents_directory(host, agents, shared):
    a, b = agents
    theirs = data(host, b)
    made = f"ln -sfn / root; ln -sfn {theirs} theirs; ln -sfn {theirs}/x/file file; ln -sfn /proc/self/root proc; ln -sfn ../.. up"
    assert a.sh(made)[0] == 0
    sources = [
        theirs, f"{theirs}/x", f"/buildkite/builds/../../{theirs}/x", "/buildkite/builds/theirs", "/buildkite/builds/theirs/x",
        f"/buildkite/builds/root{theirs}/x", "/buildkite/builds/file", f"/proc/1/root{theirs}/x", f"/proc/self/root{theirs}/x",
        f"/buildkite/builds/proc{theirs}/x", "/buildkite/builds/up", f"/buildkite/builds/root/proc/1/root{theirs}", f"//{theirs}/x",
        f"{theirs}/x/", f"/./{theirs}//x", "/BUILDKITE/builds/x", "/", "/buildkite", "/etc", f"{host.engine.root}/data/volumes",
        str(host.dir), str(shared / "secret"), "/opt/shared/../secret", host.engine.socket,
    ]
    forms = [f"-v {source}:/x" for source in sources] + [f"-v {theirs}:/x:ro"]
    forms += [f"--mount type=bind,source={source},target=/x" for source in (theirs, "/buildkite/builds/theirs", "/")]
    look = r"find /x -maxdepth 2 -name file -exec cat {} \;"
    tried = "\n".join(f"docker run --rm {form} busybox {look}; echo $?" for form in forms)
    rc, out, err = a.sh(tried, timeout=300)
    assert out.split() == ["125"] * len(forms) and len(re.findall("sockguard: ", err)) == len(forms), (out, err)
    for words in (["-v", f"builds-{b.name}:/x"], ["--mount", f"type=volume,source=builds-{b.name},target=/x"]):
        assert "not available" in a.refused("run", "--rm", *words, "busybox", "true")
    for options in (["type=none", "o=bind"], ["type=bind", "o=rbind"]):
        flags = [word for option in [*options, f"device={theirs}"] for word in ("-o", option)]
        assert "o=bind" in a.refused("volume", "create", *flags, unique("v"))
    # What is only in the agent's image, or in the engine's hands.
    assert "only in the agent's own file system" in a.refused("run", "--rm", "-v", "/bin:/x", "busybox", "true")
    assert "`/buildkite/builds`" in a.refused("run", "--rm", "-v", "/bin:/x", "busybox", "true")
    a.sh("rm -f root theirs file proc up")


def test_read_only_stays_read_only(agents):
    a, _ = agents
    assert "read-only for the agent itself" in a.refused("run", "--rm", "-v", "/tools:/x", "busybox", "true")
    assert "version 3" in a.ok("run", "--rm", "-v", "/tools:/x:ro", "busybox", "/x/buildkite-agent")
    refusal = a.refused("run", "--rm", "-v", "/tools:/x:ro", "busybox", "touch", "/x/new")
    assert "Read-only file system" in refusal
    # Nothing is made there, either.
    assert "does not exist" in a.refused("run", "--rm", "-v", "/tools/new:/x:ro", "busybox", "true")


def test_aliases_and_the_guarded_socket(host, agents):
    a, _ = agents
    alias = "/usr/local/bin/buildkite-agent:/usr/bin/buildkite-agent"
    assert "version 3" in a.ok("run", "--rm", "-v", alias, "busybox", "buildkite-agent")
    assert "Read-only" in a.refused("run", "--rm", "-v", alias, "busybox", "sh", "-c", "echo >> /usr/bin/buildkite-agent")
    assert a.ok("run", "--rm", "-v", "/opt/shared:/s", "busybox", "cat", "/s/hello") == "hello from the host"
    ps = ["perl:test", "docker", "ps", "-q", "--no-trunc"]
    box = a.ok("run", "-d", "busybox", "sleep", "1000")
    for words in (["-v", "/var/run/docker.sock:/var/run/docker.sock"], ["-v", "/run/sockguard/docker.sock:/var/run/docker.sock"],
                  ["-v", "/run/sockguard:/run/sockguard", "-e", "DOCKER_HOST=unix:///run/sockguard/docker.sock"]):
        assert box in a.ok("run", "--rm", *words, *ps).split(), words
    refusal = a.refused("run", "--rm", "-v", "/run/sockguard:/s", "busybox", "rm", "/s/docker.sock")
    assert "Read-only file system" in refusal
    a.ok("rm", "-f", box)


def test_a_childs_child_mounts_what_the_child_has(agents):
    a, b = agents
    run = ["run", "--rm", "-v", "/var/run/docker.sock:/var/run/docker.sock", "-v", "/buildkite/builds/x/deep:/deep", "perl:test"]
    assert a.ok(*run, "docker", "run", "--rm", "-v", "/deep:/w", "busybox", "cat", "/w/file") == f"this is {a.name}"
    inner = "docker run --rm -v /deep/sub:/w busybox touch /w/by-the-child && ls /deep/sub"
    assert a.ok(*run, "sh", "-c", inner) == "by-the-child"
    for source in ("/buildkite/builds/x", "/buildkite/builds", "/deep/../file", "/deep/link"):
        inner = f"ln -sfn / /deep/link; docker run --rm -v {source}:/w busybox ls /w"
        assert "sockguard" in a.refused(*run, "sh", "-c", inner), source
    a.sh("rm -f x/deep/link")


def test_files_are_copied_into_a_child_while_its_agent_stands_still(agents):
    a, _ = agents
    box = a.ok("create", "-v", "/buildkite/builds/x:/w", "busybox", "cat", "/w/copied", "/copied")
    assert a.sh(f"echo one > /tmp/copied && docker cp /tmp/copied {box}:/copied && docker cp /tmp/copied {box}:/w/copied")[0] == 0
    assert a.ok("start", "-a", box).split() == ["one", "one"]
    rc, out, err = a.sh(f"head -c 20000000 /dev/zero > /tmp/big; docker cp /tmp/big {box}:/big", timeout=60)
    assert rc != 0 and "copied at once" in err, (rc, out, err)
    a.ok("rm", box)


# The race: `d` is now a directory and now a link to the outside.


def swapping(agent, shared, where):
    assert agent.sh(f"mkdir -p {where}/d && ln -sfn {shared}/secret {where}/l")[0] == 0


def starts(agent, box, rounds, socket="/run/sockguard/docker.sock"):
    rc, out, err = agent.sh(f"perl /bin/starts {socket} {box} {rounds} /buildkite/builds/escaped", timeout=300)
    assert rc == 0, (out, err)
    return [int(n) for n in out.split()]


WATCH = "[ ! -e /x/escaped ] || touch /seen/escaped"


# An escape that is seen once is one, also where the test is tried again for another reason.
ESCAPES = []


def test_swapping_a_directory_for_a_link_never_leads_out(host, agents, shared):
    a, _ = agents
    try:
        race(host, agents, shared)
    finally:
        if (Path(data(host, a)) / "escaped").exists():
            ESCAPES.append(a.name)
    assert not ESCAPES


def race(host, agents, shared):
    a, b = agents
    rounds = 100
    # By the agent's own process.
    swapping(a, shared, "race")
    box = a.ok("create", "--network", "none", "-v", "/buildkite/builds/race/d:/x", "-v", "/buildkite/builds:/seen", "busybox",
               "sh", "-c", WATCH)
    assert a.sh(f"cd race && (perl -e '{SWAP}' d l > /dev/null 2>&1 & echo $! > /tmp/swapper)")[0] == 0
    counted = starts(a, box, rounds)
    assert a.sh("kill $(cat /tmp/swapper)")[0] == 0
    assert sum(counted) == rounds and all(counted), counted
    # By a child of another agent, in a directory that both have.
    swapping(b, shared, "/common/race")
    box = a.ok("create", "--network", "none", "-v", "/common/race/d:/x", "-v", "/buildkite/builds:/seen", "busybox", "sh", "-c", WATCH)
    swapper = b.ok("run", "-d", "--network", "none", "-v", "/common:/common", "-w", "/common/race", "perl:test",
                   "perl", "-e", SWAP, "d", "l")
    counted = starts(a, box, rounds)
    b.ok("rm", "-f", swapper)
    assert sum(counted) == rounds and all(counted), counted
    # Nobody is left standing still, and nothing is left behind.
    for agent in agents:
        assert not host.inspect(agent.id)["State"]["Paused"]
    assert not marks(host)


def test_the_same_wins_against_the_bare_engine(host, agents, shared):
    bare = host.agent("bare", image="perl:test", volumes=[f"{host.engine.socket}:/bare.sock"])
    swapping(bare, shared, "race")
    assert bare.sh(f"cd race && (perl -e '{SWAP}' d l > /dev/null 2>&1 &)")[0] == 0
    race = data(host, bare)
    box = harness.create(host.engine.socket, Cmd=["sh", "-c", WATCH],
                         HostConfig={"NetworkMode": "none", "Binds": [f"{race}/race/d:/x", f"{race}:/seen"]})
    starts(bare, box, 200, socket="/bare.sock")
    assert bare.sh("ls escaped")[0] == 0
    host.god("DELETE", f"/containers/{bare.id}?force=1")


def marks(host):
    volumes = host.god("GET", "/volumes").json()["Volumes"] or []
    return [volume["Name"] for volume in volumes if volume["Name"].startswith("sockguard-paused-")]


def test_who_was_paused_when_sockguard_was_killed_goes_on_with_the_next(host, agents):
    a, _ = agents
    running = a.ok("run", "-d", "busybox", "sleep", "1000")
    rested = a.ok("run", "-d", "busybox", "sleep", "1000")
    a.ok("pause", rested)
    box = a.ok("create", "-v", "/buildkite/builds/x:/x", "busybox", "true")

    def paused():
        return [container for container in (a.id, running) if host.inspect(container)["State"]["Paused"]]
    done = Path(data(host, a)) / "done"
    for _ in range(20):
        # No command may be started in a container that is about to be paused: this one ends by itself.
        loop = f"for i in $(seq 8); do docker start {box}; done; touch /buildkite/builds/done"
        assert a.sh(f"rm -f done; ({loop}) > /dev/null 2>&1 &")[0] == 0
        until(paused, 30, "a check")
        host.god("POST", f"/containers/{host.container}/kill")
        until(lambda: not host.inspect(host.container)["State"]["Running"], what="sockguard's end")
        caught = paused()
        host.god("DELETE", f"/containers/{host.container}?v=1")
        host.start()
        until(done.exists, 60, "the end of the pause")
        until(lambda: not paused() and not marks(host), 30, "the end of the last check")
        if caught:
            break
    assert caught, "sockguard was never killed in the middle of a check"
    assert host.inspect(rested)["State"]["Paused"]
    a.ok("unpause", rested)
    a.ok("rm", "-f", running, rested, box)
