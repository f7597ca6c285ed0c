"""docker-py (and what is built on it, such as Testcontainers) sees the same through the guard as direct."""

import io
import re

import docker.errors
import pytest

import harness
from harness import tar_of, unique, until
from parity import both


@pytest.fixture(scope="module")
def clients(sides):
    made = [harness.docker_py(side.socket) for side in sides]
    yield made
    for client in made:
        client.close()


@pytest.fixture(autouse=True)
def emptied(sides):
    yield
    both(sides, lambda side: side.engine.wipe())


def same(clients, sides, function):
    """The function's result is the same for both clients; ids, times and addresses aside."""
    def work(index):
        return sides[0].normalise(repr(function(clients[index], sides[index])))
    direct, guarded = both((0, 1), work)
    assert guarded == direct
    return direct


def sleeper(client, **options):
    return client.containers.run("busybox", "sleep 300", detach=True, **options)


def ended(facts):
    return None if facts["Running"] else facts


def error_of(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except docker.errors.APIError as error:
        return error.status_code, error.explanation
    return "no error"


def test_run_returns_the_output(clients, sides):
    def work(client, side):
        plain = client.containers.run("busybox", "echo hi", remove=True)
        both_streams = client.containers.run("busybox", ["sh", "-c", "echo o; echo e >&2"], stdout=True, stderr=True, remove=True)
        try:
            client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
            failure = None
        except docker.errors.ContainerError as error:
            failure = error.exit_status, error.stderr
        return plain, sorted(both_streams.split()), failure
    assert "b'hi\\n'" in same(clients, sides, work)


def test_attach_socket_with_stdin_and_half_close(clients, sides):
    def work(client, side):
        container = client.containers.create("busybox", ["sh", "-c", "cat; echo end"], stdin_open=True)
        socket = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        container.start()
        socket._sock.sendall(b"first\n")
        socket._sock.sendall(b"second\n")
        socket._sock.shutdown(1)
        data = b"".join(iter(lambda: socket._sock.recv(4096), b""))
        return harness.demux(data), container.wait()["StatusCode"]
    assert "first" in same(clients, sides, work)


def test_attach_as_a_stream(clients, sides):
    def work(client, side):
        container = client.containers.create("busybox", ["sh", "-c", "sleep 0.2; echo a; sleep 0.1; echo b"])
        stream = container.attach(stream=True, logs=True)
        container.start()
        return b"".join(stream)
    same(clients, sides, work)


def test_exec_in_every_form(clients, sides):
    def work(client, side):
        container = sleeper(client)
        plain = container.exec_run("echo hi")
        demuxed = container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True)
        streamed = b"".join(container.exec_run(["sh", "-c", "for i in 1 2 3; do echo $i; done"], stream=True).output)
        options = container.exec_run(["sh", "-c", "pwd; echo $A; id -u"], workdir="/tmp", environment={"A": "b"}, user="nobody")
        detached = container.exec_run("touch /made", detach=True)
        terminal = container.exec_run("tty", tty=True)
        socket = container.exec_run("cat", stdin=True, socket=True).output
        socket._sock.sendall(b"typed\n")
        socket._sock.shutdown(1)
        echoed = b"".join(iter(lambda: socket._sock.recv(4096), b""))
        made = client.api.exec_create(container.id, "true")
        client.api.exec_start(made["Id"])
        # The output ends a moment before the exec does.
        facts = until(lambda: ended(client.api.exec_inspect(made["Id"])), what="the exec's end")
        again = error_of(client.api.exec_start, made["Id"])
        return (plain, demuxed, streamed, options, detached.output, terminal, harness.demux(echoed), facts["ExitCode"], facts["Running"],
                sorted(facts), again, error_of(container.exec_run, "nope"))
    same(clients, sides, work)


def test_logs(clients, sides):
    def work(client, side):
        container = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"], detach=True)
        followed = b"".join(container.logs(stream=True, follow=True))
        return followed, container.logs(tail=1), container.logs(stdout=False), len(container.logs(timestamps=True).split())
    same(clients, sides, work)


def test_archives(clients, sides):
    def work(client, side):
        container = client.containers.create("busybox", "true")
        put = container.put_archive("/tmp", tar_of({"a/b": "content", "c": "x" * 100_000}))
        stream, stat = container.get_archive("/tmp/a")
        size = sum(len(piece) for piece in stream)
        streamed = container.put_archive("/tmp", iter([tar_of({"late": "1"})]))
        return (put, sorted(stat), stat["name"], size, streamed, error_of(container.get_archive, "/nope"),
                error_of(container.put_archive, "/nope", b""), sorted(change["Path"] for change in container.diff()))
    same(clients, sides, work)


def test_networks_and_volumes(clients, sides):
    def work(client, side):
        network = client.networks.create("net1", labels={"a": "1"}, internal=True)
        container = sleeper(client, name="box1", network="net1", volumes={"vol1": {"bind": "/v", "mode": "rw"}})
        other = sleeper(client)
        network.connect(other, aliases=["two"])
        network.reload()
        members = sorted(member["Name"] for member in network.attrs["Containers"].values() if member["Name"] == "box1")
        network.disconnect(other)
        volume = client.volumes.create("vol2", labels={"b": "2"})
        listed = (
            [n.name for n in client.networks.list(names=["net1"])], sorted(v.name for v in client.volumes.list()),
            [v.name for v in client.volumes.list(filters={"label": "b=2"})], sorted(n.name for n in client.networks.list()),
            [c.name for c in client.containers.list(filters={"network": "net1"})],
        )
        labels = network.attrs["Labels"], volume.attrs["Labels"], client.volumes.get("vol1").attrs["Labels"] or {}
        used = error_of(client.volumes.get("vol1").remove)[0], error_of(network.remove)[0]
        container.remove(force=True)
        return members, listed, labels, used, sorted(client.volumes.prune()["VolumesDeleted"]), client.networks.prune()
    same(clients, sides, work)


def test_images_and_builds(clients, sides):
    def work(client, side):
        dockerfile = b"FROM busybox\nLABEL mine=1\nRUN echo built\nCMD echo up\n"
        image, lines = client.images.build(fileobj=io.BytesIO(dockerfile), tag="team/py:1", labels={"given": "2"}, rm=True)
        text = [re.sub(r"[0-9a-f]{12}", "ID", line.get("stream", "")) for line in lines]
        context = tar_of({"Dockerfile": "FROM team/py:1\nCOPY f /f\n", "f": "x"})
        second, _ = client.images.build(fileobj=io.BytesIO(context), custom_context=True, tag="team/py:2", rm=True)
        failing = None
        try:
            client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 9\n"), rm=True)
        except docker.errors.BuildError as error:
            failing = error.msg
        saved = b"".join(image.save(named=True))
        tagged = image.tag("team/py", "3")
        names = sorted(tag for i in client.images.list("team/py") for tag in i.tags)
        client.images.remove("team/py:3")
        loaded = [i.tags for i in client.images.load(saved)]
        history = [entry["CreatedBy"] for entry in image.history()]
        run = client.containers.run("team/py:1", remove=True)
        return (text, image.labels, second.labels, failing, tagged, names, loaded, history, run, error_of(client.images.get, "nope"),
                client.images.get("team/py:1").attrs["Config"]["Labels"], error_of(client.images.remove, "nope"))
    same(clients, sides, work)


def test_registry(clients, sides):
    def work(client, side):
        address = side.engine.registry
        client.images.get("busybox").tag(f"{address}/py/app", "1")
        pushed = [line for line in client.images.push(f"{address}/py/app", "1", stream=True, decode=True) if "error" in line]
        client.images.remove(f"{address}/py/app:1")
        pulled = client.images.pull(f"{address}/py/app", "1")
        return pushed, sorted(pulled.tags), error_of(client.images.pull, f"{address}/py/absent", "1")
    same(clients, sides, work)


def test_life_cycle_and_lists(clients, sides):
    def work(client, side):
        container = sleeper(client, name="life", labels={"l": "1"}, environment={"A": "b"}, mem_limit="64m", ports={"80/tcp": None})
        results = [container.status, container.top()["Titles"], container.labels, container.image.tags]
        container.pause()
        container.unpause()
        container.rename("renamed")
        container.update(mem_limit="32m", memswap_limit="64m")
        container.restart(timeout=0)
        stats = container.stats(stream=False)
        container.reload()
        results += [container.name, container.attrs["HostConfig"]["Memory"], sorted(stats), "memory_stats" in stats]
        container.kill()
        results += [container.wait()["StatusCode"], [c.name for c in client.containers.list(all=True, filters={"label": "l=1"})]]
        results += [[c.name for c in client.containers.list(all=True, filters={"status": ["exited"]})], client.containers.list()]
        made = container.commit("team/made", "1", changes="LABEL x=1")
        results += [made.tags, made.labels, client.containers.prune()["ContainersDeleted"] == [container.id]]
        return results + [error_of(client.containers.get, "renamed"), error_of(container.start), error_of(client.api.wait, "nope")]
    same(clients, sides, work)


def test_events(clients, sides):
    def work(client, side):
        name = unique("ev")[:5]
        events = client.events(decode=True, filters={"type": "container"})
        client.containers.run("busybox", "true", name=name, remove=True)
        seen = []
        for event in events:
            if event["Actor"]["Attributes"].get("name") == name:
                seen.append((event["Action"], sorted(event["Actor"]["Attributes"])))
                if event["Action"] == "destroy":
                    break
        events.close()
        return seen
    same(clients, sides, work)


def test_system_calls(clients, sides):
    def work(client, side):
        sleeper(client)
        usage = client.df()
        return (client.ping(), sorted(client.version()), sorted(usage), len(usage["Containers"]), len(usage["Images"]),
                client.info()["Containers"], error_of(client.swarm.leave, force=True), error_of(client.nodes.list), error_of(client.services.list),
                client.plugins.list())
    same(clients, sides, work)


def test_an_export_and_an_import(clients, sides):
    def work(client, side):
        container = client.containers.create("busybox", "true")
        data = b"".join(container.export())
        answer = client.api.import_image_from_data(data, repository="team/imported", tag="1")
        return "sha256" in answer, client.containers.run("team/imported:1", "echo up", remove=True)
    same(clients, sides, work)
