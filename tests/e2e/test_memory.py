"""Memory stays bounded: bulk in both directions, idle connections, open streams.

SOCKGUARD_TEST_GIB=5 makes the uploads and downloads larger than the usual 1 GiB.
"""

import os
import resource
import select
import time

import pytest

from harness import Conn, Engine, create, hijack, open_stream, raw, request_bytes, until

MIB = 1 << 20
GIB = int(os.environ.get("SOCKGUARD_TEST_GIB", "1"))
BLOCK = b"\0" * MIB


@pytest.fixture(autouse=True, scope="module")
def descriptors():
    """A thousand streams need more descriptors than the usual soft limit gives us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def fresh(make_guard):
    guard = make_guard()
    raw(guard.socket, "GET", "/_ping")
    return guard


def sparse_tar_header(name, size):
    """The header of a tar member whose zeros follow: the engine can store it without much work."""
    import tarfile
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_idle(fresh):
    assert fresh.memory("VmRSS") < 10 * MIB


def test_upload_of_a_gib_into_a_container(fresh):
    container = create(fresh.socket)
    size = GIB << 30
    with Conn(fresh.socket, timeout=120) as conn:
        conn.request("PUT", f"/containers/{container}/archive?path=/tmp", headers={"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"})
        header = sparse_tar_header("big", size)
        conn.send(b"%x\r\n%s\r\n" % (len(header), header))
        chunk = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
        for _ in range(size // len(BLOCK)):
            conn.send(chunk)
        conn.send(b"400\r\n" + b"\0" * 1024 + b"\r\n0\r\n\r\n")
        assert conn.answer().status == 200
    assert fresh.memory() < 32 * MIB
    assert raw(fresh.socket, "DELETE", f"/containers/{container}?force=1").status == 204


def read_through(conn, head):
    size = 0
    if "chunked" in head.headers.get("transfer-encoding", ""):
        while chunk := conn.read_chunk():
            size += len(chunk)
    else:
        while data := conn.read_some():
            size += len(data)
    return size


def test_download_of_a_gib_from_a_container(fresh):
    container = create(fresh.socket, Cmd=["sh", "-c", f"truncate -s {GIB}G /big"])
    raw(fresh.socket, "POST", f"/containers/{container}/start")
    assert raw(fresh.socket, "POST", f"/containers/{container}/wait", timeout=180).json()["StatusCode"] == 0
    conn, head = open_stream(fresh.socket, "GET", f"/containers/{container}/archive?path=/big", timeout=120)
    assert head.status == 200
    assert read_through(conn, head) > GIB << 30
    assert fresh.memory() < 32 * MIB


def test_bulk_through_a_hijacked_stream(fresh):
    container = create(fresh.socket, Cmd=["sleep", "300"])
    raw(fresh.socket, "POST", f"/containers/{container}/start")
    made = raw(fresh.socket, "POST", f"/containers/{container}/exec", {"Cmd": ["head", "-c", str(GIB << 28), "/dev/zero"], "AttachStdout": True, "Tty": False}).json()
    conn, _ = hijack(fresh.socket, f"/exec/{made['Id']}/start", {}, timeout=120)
    size = 0
    while data := conn.read_some():
        size += len(data)
    assert size > GIB << 28
    assert fresh.memory() < 32 * MIB


def test_a_client_that_does_not_read(fresh):
    """Back pressure: what the client does not take stays at the engine."""
    slow = [open_stream(fresh.socket, "GET", "/images/busybox/get")[0] for _ in range(30)]
    raw(fresh.socket, "GET", "/_ping")
    assert fresh.memory() < 32 * MIB
    for conn in slow:
        conn.close()


def test_a_thousand_idle_connections(fresh):
    idle = []
    for _ in range(1000):
        idle.append(Conn(fresh.socket))
        idle[-1].send(request_bytes("GET", "/_ping"))
        assert idle[-1].answer().status == 200
    assert raw(fresh.socket, "GET", "/_ping").status == 200
    assert fresh.memory("VmRSS") < 20 * MIB
    for conn in idle:
        conn.close()
    until(lambda: fresh.fds() < 50, what=lambda: f"the end of {fresh.fds()} descriptors")


@pytest.mark.parametrize("kind", ["attach", "events"])
def test_a_thousand_open_streams(fresh, kind):
    container = create(fresh.socket, Cmd=["sleep", "300"])
    raw(fresh.socket, "POST", f"/containers/{container}/start")
    streams = []
    for _ in range(1000):
        if kind == "attach":
            conn, head = hijack(fresh.socket, f"/containers/{container}/attach?stream=1&stdout=1")
        else:
            conn, head = open_stream(fresh.socket, "GET", "/events")
        assert head.status in (101, 200)
        streams.append(conn)
    # A stream of events holds a connection that speaks HTTP on either side, which costs more than a hijacked one.
    assert fresh.memory("VmRSS") < (32 if kind == "attach" else 48) * MIB
    for conn in streams:
        conn.close()
    raw(fresh.socket, "DELETE", f"/containers/{container}?force=1")
    until(lambda: fresh.fds() < 50, what=lambda: f"the end of {fresh.fds()} descriptors")


def test_many_large_bodies_at_once(fresh):
    """Clients that are slow to send a large body hold a bounded part of it, and small requests never wait for them."""
    size = 4 * MIB - 100
    slow = [Conn(fresh.socket) for _ in range(60)]
    bodies = []
    for conn in slow:
        conn.send(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size)
        conn.socket.setblocking(False)
        bodies.append(memoryview(b'{"Image":"busybox","Labels":{"x":"' + b"x" * (size - 50)))
    # All that it takes: until it has taken nothing of any for a while.
    taken = time.monotonic()
    while time.monotonic() < taken + 1:
        for number, conn in enumerate(slow):
            try:
                sent = conn.socket.send(bodies[number][: 64 << 10]) if bodies[number] else 0
            except (BlockingIOError, ConnectionError):
                continue
            if sent:
                bodies[number] = bodies[number][sent:]
                taken = time.monotonic()
        time.sleep(0.01)
    for conn in slow:
        conn.socket.settimeout(60)
    network = raw(fresh.socket, "POST", "/networks/create", {"Name": "meanwhile"})
    assert network.status == 201
    # Sixteen of them found room.
    answered = lambda: select.select([conn.socket for conn in slow], [], [], 0.1)[0]  # noqa: E731
    until(lambda: len(answered()) >= len(slow) - 16, what="the refusals of all that found no room")
    refused = next(conn for conn in slow if conn.socket in answered()).answer()
    assert refused.status == 503
    assert "too many large request bodies" in refused.message
    assert fresh.memory() < 110 * MIB
    for conn in slow:
        conn.close()
    # And there is room again.
    until(lambda: raw(fresh.socket, "POST", "/containers/create", {"Image": "busybox", "Env": ["x=" + "x" * (1 << 20)]}, timeout=60).status == 201, what="room for a large body")
    raw(fresh.socket, "DELETE", "/networks/meanwhile")


@pytest.mark.parametrize("kind", ["inspections", "events"])
def test_large_answers_that_nobody_reads(fresh, kind):
    """A few of them are held at a time. Where somebody reads, all come."""
    large = {"Env": ["x=" + "x" * MIB]} if kind == "inspections" else {"Labels": {"x": "x" * (200 << 10)}}
    container = create(fresh.socket, **large)
    if kind == "inspections":
        unread = [Conn(fresh.socket, timeout=120) for _ in range(60)]
        for conn in unread:
            conn.send(request_bytes("GET", f"/containers/{container}/json"))
    else:
        unread = [open_stream(fresh.socket, "GET", "/events", timeout=120)[0] for _ in range(100)]
        for number in range(3):
            name = f"large{number}-{os.getpid()}"
            assert raw(fresh.socket, "POST", f"/containers/{container}/rename?name={name}").status == 204
    answered = lambda: select.select([conn.socket for conn in unread], [], [], 0.1)[0]  # noqa: E731
    until(answered, what="an answer")
    # Others are served meanwhile.
    assert raw(fresh.socket, "GET", "/_ping", timeout=120).status == 200
    if kind == "inspections":
        while unread:
            ready = until(answered, 120, what=lambda: f"the answers on {len(unread)} connections")
            for conn in [conn for conn in unread if conn.socket in ready]:
                assert conn.answer().status == 200
                unread.remove(conn)
                conn.close()
    assert fresh.memory() < 64 * MIB, fresh.memory()
    for conn in unread:
        conn.close()
    assert raw(fresh.socket, "DELETE", f"/containers/{container}?force=1", timeout=120).status == 204


def test_memory_does_not_grow_with_requests(fresh):
    def work(times):
        with Conn(fresh.socket) as conn:
            for _ in range(times):
                conn.request("GET", "/containers/json?all=1")
                conn.answer()
                conn.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Privileged": True}})
                conn.answer()
                conn.request("GET", "/containers/none/json")
                conn.answer()
    work(200)
    before = fresh.memory("VmRSS")
    work(800)
    assert fresh.memory("VmRSS") < before + 2 * MIB
