"""Start, stop, crash: of the guard and of the engine behind it."""

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import threading
import time

import pytest

from harness import Conn, Guard, create, docker, ending, hijack, open_stream, raw, sockguard_binary, start_docker, unique, until


def test_socket_has_its_mode_from_the_start(make_guard):
    guard = make_guard(flags=["--mode", "0620"])
    facts = os.stat(guard.socket)
    assert stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == 0o620
    assert stat.S_IMODE(os.stat(make_guard().socket).st_mode) == 0o600


def test_banner_names_the_socket(make_guard):
    guard = make_guard()
    assert guard.socket in guard.banner


def test_sigterm_drains_and_exits_0(make_guard, engine):
    guard = make_guard()
    container = create(guard.socket, Cmd=["sh", "-c", "trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done"])
    raw(guard.socket, "POST", f"/containers/{container}/start")
    until(lambda: b"ready" in raw(guard.socket, "GET", f"/containers/{container}/logs?stdout=1").body, what="the container's output")
    conn, head = open_stream(guard.socket, "POST", f"/containers/{container}/wait")
    idle = Conn(guard.socket)
    idle.request("GET", "/_ping")
    idle.answer()
    guard.process.send_signal(signal.SIGTERM)
    # The idle connection goes at once, the other one is answered.
    assert idle.read_all() == b""
    assert raw(engine.socket, "POST", f"/containers/{container}/kill?signal=USR1").status == 204
    assert b'"StatusCode":3' in conn.read_body(head)
    assert guard.process.wait(60) == 0
    assert not os.path.exists(guard.socket)
    with pytest.raises(OSError):
        Conn(guard.socket)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_guard_stops_at_once(make_guard, signum):
    guard = make_guard()
    idle = Conn(guard.socket)
    idle.request("GET", "/_ping")
    assert idle.answer().status == 200
    began = time.monotonic()
    guard.process.send_signal(signum)
    assert guard.process.wait(60) == 0
    # It does not wait the ten seconds that it gives requests.
    assert time.monotonic() - began < 9
    assert idle.read_all() == b""


def test_a_drain_is_bounded(make_guard):
    """An endless stream does not keep it from stopping."""
    guard = make_guard()
    conn, head = open_stream(guard.socket, "GET", "/events")
    assert head.status == 200
    guard.process.send_signal(signal.SIGTERM)
    assert guard.process.wait(60) == 0


def test_a_stale_socket_is_replaced_a_live_one_is_not(make_guard):
    guard = make_guard()
    guard.kill9()
    assert os.path.exists(guard.socket)
    guard.start()
    assert raw(guard.socket, "GET", "/_ping").status == 200
    second = subprocess.run(guard.command(), capture_output=True, timeout=60)
    assert second.returncode == 4, second.stderr
    assert raw(guard.socket, "GET", "/_ping").status == 200


def test_a_file_that_is_no_socket_is_left_alone(tmp_path, engine):
    path = tmp_path / "file"
    path.write_text("precious")
    done = subprocess.run([sockguard_binary(), "--filename", path, "--upstream-socket", engine.socket], capture_output=True, timeout=60)
    assert done.returncode == 4
    assert path.read_text() == "precious"


@pytest.mark.parametrize("arguments", [["--nope"], ["--mode", "banana"], ["--policy", "no-such-policy"], ["--allow-bind"]])
def test_bad_flags_exit_2_with_a_reason(arguments, tmp_path):
    done = subprocess.run([sockguard_binary(), "--filename", tmp_path / "s", *arguments], capture_output=True, timeout=60, text=True)
    assert done.returncode == 2 and arguments[0].lstrip("-") in done.stderr + done.stdout, done


def test_killed_under_load_and_restarted(make_guard, engine):
    """No client of a running container notices beyond its own broken connection; ownership is unchanged."""
    guard = make_guard()
    name = unique("load")
    container = create(guard.socket, name=name, Cmd=["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"])
    raw(guard.socket, "POST", f"/containers/{container}/start")
    network = raw(guard.socket, "POST", "/networks/create", {"Name": name}).json()["Id"]
    raw(guard.socket, "POST", "/volumes/create", {"Name": name})
    stop = threading.Event()

    def load():
        while not stop.is_set():
            for path in ("/containers/json?all=1", f"/containers/{container}/json", "/images/json", "/system/df"):
                try:
                    raw(guard.socket, "GET", path)
                except (OSError, EOFError, ValueError):
                    time.sleep(0.02)
    workers = [threading.Thread(target=load) for _ in range(4)]
    for worker in workers:
        worker.start()
    try:
        streams = [open_stream(guard.socket, "GET", f"/containers/{container}/logs?follow=1&stdout=1")[0] for _ in range(5)]
        attached, _ = hijack(guard.socket, f"/containers/{container}/attach?stream=1&stdout=1")
        direct, _ = open_stream(engine.socket, "GET", f"/containers/{container}/logs?follow=1&stdout=1")
        for stream in streams:
            stream.read_chunk()
        attached.read(9)
        for _ in range(3):
            time.sleep(0.1)
            guard.kill9()
            guard.start()
        for stream in streams:
            with pytest.raises((EOFError, ConnectionError)):
                while True:
                    stream.read_chunk()
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    # The container went on, and whoever was not connected through the guard saw nothing.
    count = 0
    until(lambda: direct.read_chunk())
    state = raw(guard.socket, "GET", f"/containers/{name}/json").json()
    assert state["State"]["Running"] and state["RestartCount"] == count
    assert raw(guard.socket, "GET", f"/networks/{network}").status == 200
    assert raw(guard.socket, "GET", f"/volumes/{name}").status == 200
    other = make_guard(owner=unique("other"))
    assert raw(other.socket, "GET", f"/containers/{container}/json").status == 404
    assert raw(guard.socket, "DELETE", f"/containers/{container}?force=1").status == 204


def test_an_engine_that_goes_and_comes(own_engine):
    """502 that names the socket while it is away; then all as before, without a restart of the guard."""
    guard = Guard(own_engine)
    try:
        container = create(guard.socket, Cmd=["sleep", "300"], name="survivor", StopTimeout=1)
        raw(guard.socket, "POST", f"/containers/{container}/start")
        events, _ = open_stream(guard.socket, "GET", "/events")
        kept = Conn(guard.socket)
        kept.request("GET", "/_ping")
        assert kept.answer().status == 200
        own_engine.kill()
        with pytest.raises((EOFError, ConnectionError)):  # a cut is not an end
            while events.read_chunk():
                pass
            raise AssertionError("the events ended as if complete")
        for method, path, body in (("GET", "/containers/json", None), ("GET", "/_ping", None), ("POST", "/containers/create", {"Image": "busybox"}), ("GET", "/events", None),
                                   ("GET", f"/containers/{container}/json", None), ("POST", f"/containers/{container}/attach?stream=1", None)):
            answer = raw(guard.socket, method, path, body)
            assert answer.status == 502, (path, answer)
            assert own_engine.socket in answer.message
        rc, _, err = docker(guard.socket, "ps")
        assert rc == 1 and own_engine.socket in err
        own_engine.start()
        kept.request("GET", "/containers/json?all=1")
        answer = kept.answer()
        assert answer.status == 200 and answer.json()[0]["Names"] == ["/survivor"]
        assert raw(guard.socket, "POST", f"/containers/{container}/start").status in (204, 304)
        assert guard.process.poll() is None
    finally:
        guard.close()


def test_a_guard_without_an_engine_at_its_start(tmp_path):
    """It may refuse to start with exit 3, or serve 502 until the engine comes; nothing else."""
    path = tmp_path / "s"
    process = subprocess.Popen([sockguard_binary(), "--filename", path, "--upstream-socket", tmp_path / "absent.sock"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until(lambda: process.poll() is not None or path.exists())
        if process.poll() is None:
            assert raw(path, "GET", "/_ping").status == 502
        else:
            assert process.returncode == 3
    finally:
        process.kill()
        process.communicate()


def test_an_engine_that_answers_nonsense(tmp_path, make_guard):
    """Bytes that are no HTTP give a 502, and no harm."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "fake.sock"))
    listener.listen()
    replies = [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", b"HTTP/1.1 999 X\r\n\r\n", b"\0" * 100_000]

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            try:
                conn.recv(65536)
                conn.sendall(replies[0])
            except OSError:
                pass
            conn.close()
    threading.Thread(target=serve, daemon=True).start()
    guard = make_guard(upstream=str(tmp_path / "fake.sock"))
    while replies:
        try:
            answer = raw(guard.socket, "GET", "/version")
            assert answer.status in (502, 200, 999) and len(answer.body) < 500, answer
        except (EOFError, ConnectionError):
            pass
        replies.pop(0) if len(replies) > 1 else replies.clear()
        if not replies:
            break
    assert guard.process.poll() is None
    listener.close()


def test_clients_in_the_middle_of_an_engine_restart_end(own_engine):
    """Nothing hangs: attached and following clients end when the engine goes."""
    guard = Guard(own_engine)
    try:
        container = create(guard.socket, Cmd=["sh", "-c", "while :; do echo tick; sleep 0.1; done"], StopTimeout=1)
        raw(guard.socket, "POST", f"/containers/{container}/start")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(ending(start_docker(guard.socket, *words)))
                       for words in (["logs", "-f", container], ["attach", "--no-stdin", container], ["events"], ["wait", container])]

            def heard(client):
                raw(guard.socket, "POST", f"/containers/{container}/kill?signal=CONT")  # an event
                return select.select([client.stdout], [], [], 0.1)[0]
            for client in clients[:3]:
                until(lambda: heard(client), what=f"the first line of {client.args}")
            own_engine.restart()
            for client in clients:
                client.communicate(timeout=120)
        assert raw(guard.socket, "GET", "/_ping").status == 200
    finally:
        guard.close()


def test_health_says_whether_guard_and_engine_answer(make_guard):
    guard = make_guard()
    command = [sockguard_binary(), "health", "--filename", guard.socket]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    guard.kill9()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode != 0


def test_every_decision_leaves_a_line_without_secrets(make_guard):
    guard = make_guard(owner="audited")
    create(guard.socket, Env=["PASSWORD=hunter2"], name=unique("audit"))
    raw(guard.socket, "POST", "/containers/create", {"Image": "busybox", "Env": ["PASSWORD=hunter2"], "HostConfig": {"Privileged": True}})
    raw(guard.socket, "GET", "/containers/json", headers={"X-Registry-Auth": "c2VjcmV0aHVudGVyMg=="})
    raw(guard.socket, "POST", "/build?buildargs=%7B%22TOKEN%22%3A%22hunter2%22%7D&remote=http://x", b"")
    raw(guard.socket, "GET", "/containers/evil%0a%7b%22verdict%22%3a%22allow%22%7d/json")
    lines = until(lambda: len(guard.decisions()) >= 5 and guard.decisions(), what=lambda: f"five lines in {guard.stderr()}")
    assert [line["owner"] for line in lines] == ["audited"] * 5
    assert sorted(line["verdict"] for line in lines) == ["allow", "refuse", "refuse", "refuse", "rewrite"]
    assert "Privileged" in str(lines)
    assert "hunter2" not in guard.stderr() and "c2VjcmV0" not in guard.stderr()
    for line in guard.stderr().splitlines():
        assert not line.startswith('{"verdict":"allow"}')
