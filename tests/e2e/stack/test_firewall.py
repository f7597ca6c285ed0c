"""The hosts' user data, as the compute stack ships it, in a network of its own: it is run as cloud-init would run it, and
then containers on whichever bridge do not reach instance metadata, while the host does. Where it fails no task ever runs.

The host is a process with its own network and mounts. Containers and the world are network namespaces within.
"""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import harness
import pytest
from harness import REPO, until

sys.path.insert(0, str(REPO / "tests" / "stack"))

from compute_properties import settings, user_data, written  # noqa: E402
from properties import NEEDED  # noqa: E402
from template import Stack, shipped  # noqa: E402

IPV6 = Path("/proc/sys/net/ipv6").exists()
METADATA = ["169.254.169.254"] + (["fd00:ec2::254"] if IPV6 else [])
ELSEWHERE = ["198.51.100.1"] + (["2001:db8::1"] if IPV6 else [])

# The bridges of the host: how a host reaches a container on it, and a container the host.
BRIDGES = {"docker0": ("172.17.0.1", "fd17::1"), "br-agent": ("172.18.0.1", "fd18::1"), "br-new": ("172.19.0.1", "fd19::1")}

# Answers on some ports, on all addresses, and says when it does.
SERVE = """
import selectors, socket, sys
ready = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    server = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True) if {ipv6} else socket.create_server(("", port))
    ready.register(server, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        connection, _ = key.fileobj.accept()
        connection.sendall(b"answer")
        connection.close()
"""

# Says whether there was an answer within some seconds.
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as connection:
        print(connection.recv(6).decode())
except TimeoutError:
    print("nothing")
"""

# What the user data asks of systemd. It is written down, and what matters here is done: to start the firewall, or not.
SYSTEMCTL = r"""#!/bin/bash
echo "$*" >>/run/systemctl
if [ "$*" = "enable --now container-firewall.service" ]; then
    exec $(sed -n 's/^ExecStart=//p' /etc/systemd/system/container-firewall.service)
fi
"""


class Host:
    """A host in a network of its own, with bridges, a container on each, and a world with instance metadata in it."""

    def __init__(self):
        self.dir = harness.own_directory("firewall-")
        shutil.copytree("/etc", self.dir / "etc", symlinks=True)
        shutil.rmtree(self.dir / "etc" / "docker", ignore_errors=True)
        for path in ("etc/ecs", "etc/docker", "etc/systemd/system", "etc/tmpfiles.d"):
            (self.dir / path).mkdir(parents=True, exist_ok=True)
        # As the ECS image has it.
        (self.dir / "etc" / "docker" / "daemon.json").write_text('{"userland-proxy": false}')
        (self.dir / "programs").mkdir()
        self.program("systemctl", SYSTEMCTL)
        self.program("systemd-tmpfiles", "#!/bin/sh\necho \"$*\" >>/run/systemd-tmpfiles\n")
        self.servers = []
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$1" /etc && mount -t tmpfs none /run && mount -t tmpfs none /usr/local/sbin && mkdir /run/netns &&'
             ' ip link set lo up && echo ready && exec sleep infinity', "sh", str(self.dir / "etc")],
            stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.network()
        self.serve("world", 80, 51678)
        self.serve(None, 51678, 51679)

    def program(self, name, text):
        """A program that the user data finds first."""
        path = self.dir / "programs" / name
        path.write_text(text)
        path.chmod(0o755)

    def command(self, inside, *words):
        """A command on the host, or in one of the network namespaces on it."""
        return ["nsenter", "-t", str(self.process.pid), "-n", "-m", "--", *(["ip", "netns", "exec", inside] if inside else []), *map(str, words)]

    def run(self, *words, inside=None, ok=True, input=None):
        """Runs a command; returns what it says."""
        done = subprocess.run(self.command(inside, *words), capture_output=True, text=True, timeout=120, input=input)
        assert not ok or done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout if ok else done

    def ip(self, text, inside=None):
        """Does what some lines say to `ip`."""
        lines = [line.strip() for line in text.strip().splitlines()]
        for family in ("-4", "-6"):
            batch = [line.removeprefix("-6 ") for line in lines if (":" in line) is (family == "-6")]
            if family == "-4" or IPV6:
                self.run("ip", family, "-batch", "-", inside=inside, input="\n".join(batch))

    def network(self):
        # Packets to loopback addresses are routed, as the ECS agent has it.
        self.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ! [ -e /proc/sys/net/ipv6 ] || echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        self.ip("""
            netns add world
            link add world type veth peer name eth0 netns world
            address add 192.0.2.1/24 dev world
            address add fd00::1/64 dev world nodad
            link set world up
            route add 198.51.100.0/24 via 192.0.2.2
            route add 169.254.169.254/32 via 192.0.2.2
            -6 route add 2001:db8::/64 via fd00::2
            -6 route add fd00:ec2::254/128 via fd00::2
        """)
        self.ip("""
            link set lo up
            address add 192.0.2.2/24 dev eth0
            address add fd00::2/64 dev eth0 nodad
            address add 198.51.100.1/32 dev lo
            address add 169.254.169.254/32 dev lo
            address add 2001:db8::1/128 dev lo nodad
            address add fd00:ec2::254/128 dev lo nodad
            link set eth0 up
            route add default via 192.0.2.1
            -6 route add default via fd00::1
        """, inside="world")
        for bridge in ("docker0", "br-agent"):
            self.bridge(bridge)

    def bridge(self, name):
        """A bridge as Docker makes it, with a container on it, in a namespace of the same name."""
        v4, v6 = BRIDGES[name]
        self.ip(f"""
            netns add {name}
            link add {name} type bridge
            address add {v4}/16 dev {name}
            address add {v6}/64 dev {name} nodad
            link set {name} up
            link add v-{name} type veth peer name eth0 netns {name}
            link set v-{name} master {name} up
        """)
        self.ip(f"""
            address add {v4}0/16 dev eth0
            address add {v6}0/64 dev eth0 nodad
            link set eth0 up
            route add default via {v4}
            -6 route add default via {v6}
            route add 127.0.0.0/8 via {v4}
        """, inside=name)
        # It would take packets made by hand.
        self.run("sh", "-ec", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet", inside=name)

    def serve(self, inside, *ports):
        """Starts what answers on some ports."""
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *self.command(inside, sys.executable, "-c", SERVE.replace("{ipv6}", str(IPV6)), *ports)],
            stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        assert server.stdout.readline() == "ready\n"

    def answers(self, address, port=80, inside=None):
        """Waits for an answer: of a network that was just made, the first may be late."""
        until(lambda: self.run(sys.executable, "-c", ASK, address, port, 5, inside=inside, ok=False).stdout == "answer\n",
              what=f"an answer from {address}:{port} in {inside}")
        return True

    def dropped(self, address, port=80, inside=None):
        """That there is no answer, since a rule of the firewall took what was sent: the rule's count is what proves it."""
        before = self.packets()

        def counted():
            said = self.run(sys.executable, "-c", ASK, address, port, 0.3, inside=inside)
            assert said == "nothing\n", (address, port, inside, said)
            return self.packets() > before
        until(counted, what=f"a packet to {address}:{port} from {inside} that was dropped")
        return True

    def packets(self):
        """How many packets the rules dropped so far."""
        rules = "".join(self.run(program, "-t", "raw", "-nvxL", "PREROUTING") for program in self.programs)
        return sum(int(line.split()[0]) for line in rules.splitlines() if " DROP " in line)

    @property
    def programs(self):
        return ["iptables", "ip6tables"] if IPV6 else ["iptables"]

    def rules(self):
        return [self.run(program, "-t", "raw", "-S") for program in self.programs]

    def flush(self, *tables):
        for program in self.programs:
            for table in tables:
                self.run(program, "-t", table, "-F")

    def boot(self):
        """Runs the user data as cloud-init does; returns what became of it."""
        path = f"{self.dir}/programs:{self.run('sh', '-c', 'echo $PATH').strip()}:/usr/sbin:/sbin"
        return self.run("env", f"PATH={path}", "bash", "-s", input=user_data(STACK), ok=False)

    def close(self):
        for process in [*self.servers, self.process]:
            process.kill()
            process.wait()
            process.stdout.close()
        shutil.rmtree(self.dir)


STACK = Stack(shipped("compute"), NEEDED["compute"], attributes={"Cluster": "builds"})
FIREWALL = "/usr/local/sbin/container-firewall"


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


def kept_away(host, *bridges):
    """Containers reach neither instance metadata nor loopback addresses nor the ECS agent's list of tasks, and everything else; the
    host reaches all."""
    for bridge in bridges:
        gateways = BRIDGES[bridge][:2 if IPV6 else 1]
        for address in METADATA:
            assert host.dropped(address, inside=bridge)
        assert host.dropped("127.0.0.1", 51679, inside=bridge)
        for address in gateways:
            assert host.dropped(address, 51678, inside=bridge)
            assert host.answers(address, 51679, inside=bridge)
        for address in ELSEWHERE:
            assert host.answers(address, inside=bridge) and host.answers(address, 51678, inside=bridge)
    for address in METADATA + ELSEWHERE:
        assert host.answers(address)
    assert host.answers("127.0.0.1", 51678) and host.answers("172.17.0.1", 51678)


def test_containers_are_kept_away_from_instance_metadata(host):
    for bridge in ("docker0", "br-agent"):
        for address in METADATA:
            assert host.answers(address, inside=bridge), "before the firewall"
        assert host.answers(BRIDGES[bridge][0], 51678, inside=bridge) and host.answers("127.0.0.1", 51679, inside=bridge)

    booted = host.boot()
    assert booted.returncode == 0, (booted.stdout, booted.stderr)
    kept_away(host, "docker0", "br-agent")

    # A bridge that is made later, after Docker made all of its chains anew.
    host.flush("filter", "nat")
    host.bridge("br-new")
    kept_away(host, "br-new")

    # Once more changes nothing, and what was taken away is put again.
    rules = host.rules()
    host.run(FIREWALL)
    assert host.rules() == rules
    host.flush("raw")
    assert host.answers(METADATA[0], inside="br-agent"), "without the firewall"
    host.run(FIREWALL)
    assert host.rules() == rules
    kept_away(host, "br-agent")


def test_a_host_is_made_ready(host):
    booted = host.boot()
    assert booted.returncode == 0, (booted.stdout, booted.stderr)
    assert host.run("cat", "/run/systemctl").splitlines() == [
        "daemon-reload", "enable --now container-firewall.service", "restart docker.service"]
    assert host.run("cat", "/run/systemd-tmpfiles").splitlines() == ["--create /etc/tmpfiles.d/sockguard.conf"]
    assert json.loads(host.run("cat", "/etc/docker/daemon.json")) == {
        "userland-proxy": False, "bip": "172.17.0.1/16", "icc": False,
        "default-address-pools": [{"base": "172.18.0.0/15", "size": 25}]}
    for path, text in written(STACK).items():
        assert host.run("cat", path) == text, path
    if shutil.which("systemd-analyze"):
        verified = host.run("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/container-firewall.service", ok=False)
        assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    assert settings(STACK)["ECS_CLUSTER"] == "builds"


@pytest.mark.parametrize("program, text", [
    ("iptables", "echo 'iptables: no such table' >&2; exit 3"),
    ("systemctl", "echo \"$*\" >>/run/systemctl; [ \"$*\" != 'restart docker.service' ]"),
    ("python3", "exit 1"),
    ("systemd-tmpfiles", "exit 73"),
], ids=lambda it: it.split()[0])
def test_where_something_fails_no_task_ever_runs(host, program, text):
    if program == "systemctl":
        text = textwrap.dedent(SYSTEMCTL).removeprefix("#!/bin/bash\n").split("if")[0] + "[ \"$*\" != 'restart docker.service' ]"
    host.program(program, f"#!/bin/bash\n{text}\n")
    booted = host.boot()
    assert booted.returncode != 0
    assert "the host could not be made ready and is turned off" in booted.stderr
    assert host.run("cat", "/run/systemctl").splitlines()[-2:] == ["mask --no-block --now ecs.service", "poweroff"]
    assert host.run("ls", "/etc/ecs") == ""
