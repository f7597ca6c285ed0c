"""Hijacked and followed streams on the wire: every form that clients use, and what must not leak."""

import base64
import contextlib
import hashlib
import json
import os
import signal
import time
from urllib.parse import quote

import pytest

from harness import Conn, Guard, create, demux, docker, hijack, open_stream, raw, request_bytes, start_docker, tar_of, unique, until

CAT = {"Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": True, "StdinOnce": True}
ATTACH = "/attach?stream=1&stdin=1&stdout=1&stderr=1"


def start(guard, container):
    assert raw(guard.socket, "POST", f"/containers/{container}/start").status == 204


def running(guard, **body):
    container = create(guard.socket, **{"Cmd": ["sleep", "300"], **body})
    start(guard, container)
    return container


def new_exec(guard, container, *command, **options):
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True, **options}
    answer = raw(guard.socket, "POST", f"/containers/{container}/exec", body)
    assert answer.status == 201, answer.text
    return answer.json()["Id"]


@pytest.mark.parametrize("upgrade", ["tcp", None])
class TestHijack:
    """With `Upgrade: tcp` (101), and the old form without (200 and raw bytes both ways)."""

    def check_head(self, head, upgrade):
        if upgrade:
            assert (head.status, head.reason) == (101, "UPGRADED")
            assert head.headers["upgrade"] == "tcp"
        else:
            assert head.status == 200
            assert head.headers["content-type"] == "application/vnd.docker.raw-stream"
            assert "content-length" not in head.headers and "transfer-encoding" not in head.headers

    def test_attach_with_half_close(self, guard, upgrade):
        container = create(guard.socket, **CAT)
        conn, head = hijack(guard.socket, f"/containers/{container}{ATTACH}", upgrade=upgrade)
        self.check_head(head, upgrade)
        start(guard, container)
        conn.send(b"one\n")
        conn.send(b"two\n")
        conn.end()
        assert demux(conn.read_all()) == (b"one\ntwo\nend\n", b"")

    def test_early_stdin_is_not_lost(self, guard, upgrade):
        container = create(guard.socket, **CAT)
        headers = {"Connection": "Upgrade", "Upgrade": upgrade} if upgrade else {}
        with Conn(guard.socket) as conn:
            conn.send(request_bytes("POST", f"/containers/{container}{ATTACH}", headers=headers) + b"early\n")
            self.check_head(conn.read_head(), upgrade)
            start(guard, container)
            conn.end()
            assert demux(conn.read_all()) == (b"early\nend\n", b"")

    def test_exec_with_stdin_and_stderr(self, guard, upgrade):
        container = running(guard)
        identity = new_exec(guard, container, "sh", "-c", "cat; echo oops >&2; exit 3", AttachStdin=True)
        conn, head = hijack(guard.socket, f"/exec/{identity}/start", {"Detach": False, "Tty": False}, upgrade=upgrade)
        self.check_head(head, upgrade)
        conn.send(b"x" * 200_000)
        conn.end()
        out, err = demux(conn.read_all())
        assert (len(out), err) == (200_000, b"oops\n")
        until(lambda: raw(guard.socket, "GET", f"/exec/{identity}/json").json()["ExitCode"] == 3)

    def test_nth_request_on_a_connection(self, guard, upgrade):
        container = create(guard.socket, **CAT)
        with Conn(guard.socket) as conn:
            for path, status in (("/_ping", 200), (f"/containers/{container}/json", 200), ("/containers/nope/json", 404)):
                conn.request("GET", path)
                assert conn.answer().status == status
            headers = {"Connection": "Upgrade", "Upgrade": upgrade} if upgrade else {}
            conn.request("POST", f"/containers/{container}{ATTACH}", headers=headers)
            self.check_head(conn.read_head(), upgrade)
            start(guard, container)
            conn.send(b"n\n")
            conn.end()
            assert demux(conn.read_all())[0] == b"n\nend\n"

    def test_pipelined_behind_another_request(self, guard, upgrade):
        container = create(guard.socket, **CAT)
        headers = {"Connection": "Upgrade", "Upgrade": upgrade} if upgrade else {}
        with Conn(guard.socket) as conn:
            conn.send(request_bytes("GET", "/_ping") + request_bytes("POST", f"/containers/{container}{ATTACH}", headers=headers))
            assert conn.answer().status == 200
            self.check_head(conn.read_head(), upgrade)
            start(guard, container)
            conn.send(b"p\n")
            conn.end()
            assert demux(conn.read_all())[0] == b"p\nend\n"

    def test_output_of_64_megabytes(self, guard, upgrade):
        container = running(guard)
        identity = new_exec(guard, container, "head", "-c", str(64 << 20), "/dev/zero", Tty=True)
        conn, _ = hijack(guard.socket, f"/exec/{identity}/start", {"Tty": True}, upgrade=upgrade, timeout=60)
        size = 0
        while data := conn.read_some():
            size += len(data)
        assert size == 64 << 20

    def test_a_refused_hijack_is_an_ordinary_answer(self, guard, upgrade):
        container = create(guard.socket, Cmd=["true"])
        headers = {"Connection": "Upgrade", "Upgrade": upgrade} if upgrade else {}
        for path, status in (("/containers/nope/attach?stream=1", 404), ("/exec/nope/start", 404),
                             (f"/containers/{container}/attach?stream=1&stdin=nonsense&detachKeys=bad-bad", 400)):
            answer = raw(guard.socket, "POST", path, body={} if "exec" in path else None, headers=headers)
            assert answer.status == status and answer.text, answer


def test_detached_exec_with_upgrade_is_no_tunnel(guard):
    container = running(guard)
    identity = new_exec(guard, container, "touch", "/made")
    with Conn(guard.socket) as conn:
        conn.request("POST", f"/exec/{identity}/start", {"Detach": True}, {"Connection": "Upgrade", "Upgrade": "tcp"})
        assert conn.answer().status == 200
        # What follows must be judged as a request of its own, not relayed.
        try:
            conn.request("GET", "/containers/json?all=1&filters=%7B%22nonsense%22%3A%5B%5D%7D")
            assert conn.answer().status in (400, 403)
        except (EOFError, OSError):
            pass


def test_attach_over_websocket(guard):
    container = create(guard.socket, Cmd=["sh", "-c", "read x; echo got $x"], OpenStdin=True, Tty=True)
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Origin": "http://localhost",
        "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    }
    with Conn(guard.socket) as conn:
        conn.request("GET", f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1", headers=headers)
        head = conn.read_head()
        assert head.status == 101 and head.headers["upgrade"].lower() == "websocket"
        start(guard, container)
        mask, text = b"\1\2\3\4", b"hello\n"
        conn.send(bytes([0x81, 0x80 | len(text)]) + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text)))
        seen = b""
        while b"got hello" not in seen:
            kind, size = conn.read(2)
            assert kind & 0x0F in (1, 2), kind
            seen += conn.read(size)


def test_resize_while_attached(guard):
    container = create(guard.socket, Cmd=["sh", "-c", "read x; stty size"], OpenStdin=True, Tty=True)
    conn, _ = hijack(guard.socket, f"/containers/{container}{ATTACH}")
    start(guard, container)
    assert raw(guard.socket, "POST", f"/containers/{container}/resize?h=33&w=77").status == 200
    conn.send(b"go\n")
    assert b"33 77" in conn.read_all()


def test_resize_of_an_exec(guard):
    container = running(guard)
    identity = new_exec(guard, container, "sh", "-c", "read x; stty size", AttachStdin=True, Tty=True)
    conn, _ = hijack(guard.socket, f"/exec/{identity}/start", {"Tty": True})
    assert raw(guard.socket, "POST", f"/exec/{identity}/resize?h=44&w=88").status in (200, 201)
    conn.send(b"go\n")
    assert b"44 88" in conn.read_all()


def test_the_container_sees_the_end_of_a_vanished_client(guard):
    container = running(guard)
    identity = new_exec(guard, container, "sh", "-c", "cat; touch /gone", AttachStdin=True)
    conn, _ = hijack(guard.socket, f"/exec/{identity}/start", {})
    conn.send(b"x")
    conn.close()
    until(lambda: not raw(guard.socket, "GET", f"/exec/{identity}/json").json()["Running"])


def test_the_client_sees_the_end_though_it_never_closes(guard):
    container = create(guard.socket, Cmd=["echo", "bye"], OpenStdin=True)
    conn, _ = hijack(guard.socket, f"/containers/{container}{ATTACH}")
    start(guard, container)
    assert demux(conn.read_all())[0] == b"bye\n"


STREAMS = {
    "events": lambda guard, container: open_stream(guard.socket, "GET", "/events"),
    "logs": lambda guard, container: open_stream(guard.socket, "GET", f"/containers/{container}/logs?follow=1&stdout=1"),
    "stats": lambda guard, container: open_stream(guard.socket, "GET", f"/containers/{container}/stats"),
    "wait": lambda guard, container: open_stream(guard.socket, "POST", f"/containers/{container}/wait?condition=next-exit"),
    "attach": lambda guard, container: hijack(guard.socket, f"/containers/{container}{ATTACH}"),
    "attach without upgrade": lambda guard, container: hijack(guard.socket, f"/containers/{container}{ATTACH}", upgrade=None),
}


def closed(guard, before):
    """Waits until the guard has closed what was opened for clients. Some idle connections to the engine are kept for re-use:
    as many as were in use at once, which may be more on a busy machine. Those that were idle for a minute are closed with
    the next request."""
    def so():
        raw(guard.socket, "GET", "/_ping")
        return guard.fds() <= before + 4
    until(so, 180, what=lambda: f"the end of the guard's {guard.fds()} descriptors, {before} at first")


@pytest.mark.parametrize("kind", STREAMS)
def test_a_closed_stream_leaves_nothing_behind(make_guard, engine, kind):
    """The header of each comes at once, and a client that goes away takes the engine's side with it."""
    guard = make_guard()
    before = guard.fds()
    container = running(guard, Cmd=["sh", "-c", "echo line; sleep 300"], OpenStdin=True)
    engine_fds = lambda: len(os.listdir(f"/proc/{engine.pid}/fd"))  # noqa: E731
    engine_before = engine_fds()
    # Only if the engine itself notices: it holds on to an attach until the container ends.
    watched = not kind.startswith("attach")
    open_ones = [STREAMS[kind](guard, container) for _ in range(20)]
    assert all(head.status in (101, 200) for _, head in open_ones)
    assert guard.fds() >= before + 20
    for conn, _ in open_ones:
        conn.close()
    closed(guard, before)
    until(lambda: not watched or engine_fds() <= engine_before + 8, what="the engine's descriptors to fall")


def test_killed_clients_leave_nothing_behind(make_guard):
    guard = make_guard()
    before = guard.fds()
    container = running(guard)
    clients = [start_docker(guard.socket, "exec", "-i", container, "cat") for _ in range(4)]
    clients += [start_docker(guard.socket, "logs", "-f", container), start_docker(guard.socket, "events")]
    until(lambda: docker(guard.socket, "top", container)[1].count(" cat\n") == 4, what="the execs")
    until(lambda: guard.fds() >= before + 2 * len(clients), what="the clients' connections")
    for client in clients:
        client.send_signal(signal.SIGKILL)
        client.communicate()
    closed(guard, before)
    until(lambda: not raw(guard.socket, "GET", f"/containers/{container}/json").json()["ExecIDs"], what="the execs' end")


class WithFewDescriptors(Guard):
    def command(self):
        return ["prlimit", "--nofile=160:160", "--", *super().command()]


def test_streams_that_nobody_reads_take_no_more_descriptors_than_there_are(engine):
    """Each takes more of them while its client does not read. None is cut for want of one, and none waits in vain."""
    with contextlib.closing(WithFewDescriptors(engine)) as guard, contextlib.ExitStack() as stack:
        container = running(guard, Cmd=["sh", "-c", "head -c 3000000 /dev/zero | tr '\\\\0' x | fold -w 1000; echo; echo whole; sleep 300"])
        logs = f"/containers/{container}/logs?stdout=1"
        until(lambda: "whole" in raw(guard.socket, "GET", logs + "&tail=1").text)
        conns = [stack.enter_context(Conn(guard.socket)) for _ in range(40)]
        for conn in conns:
            conn.request("GET", logs + "&follow=1")
        until(lambda: guard.fds() >= 96, what=lambda: f"the stand-still of streams, at {guard.fds()} descriptors")
        for conn in conns:
            assert conn.read_head().status == 200
            while not conn.read_chunk().endswith(b"whole\n"):
                pass
            conn.close()
        assert "Too many open files" not in guard.stderr()


def test_nothing_is_held_back(guard):
    """Each line comes when it is written."""
    container = running(guard, Cmd=["sh", "-c", "while read x; do echo $x; done"], OpenStdin=True)
    logs, _ = open_stream(guard.socket, "GET", f"/containers/{container}/logs?follow=1&stdout=1")
    attached, _ = hijack(guard.socket, f"/containers/{container}{ATTACH}")
    for number in range(5):
        attached.send(b"%d\n" % number)
        assert logs.read_chunk().endswith(b"%d\n" % number)
        assert attached.read(10).endswith(b"%d\n" % number)


def test_events_arrive_at_once_and_filtered(guard):
    events, head = open_stream(guard.socket, "GET", "/events?filters=" + quote('{"type":["container"],"event":["create"]}'))
    assert head.status == 200
    container = create(guard.socket)
    event = json.loads(events.read_chunk())
    assert event["Actor"]["ID"] == container
    assert not any("owner" in key for key in event["Actor"]["Attributes"])


def test_wait_answers_its_head_before_the_container_starts(guard):
    container = create(guard.socket, Cmd=["sh", "-c", "exit 4"])
    conn, head = open_stream(guard.socket, "POST", f"/containers/{container}/wait?condition=next-exit")
    assert head.status == 200
    start(guard, container)
    assert json.loads(conn.read_body(head))["StatusCode"] == 4


def test_a_build_answers_while_its_context_still_comes(guard):
    context = tar_of({"Dockerfile": "FROM busybox\nRUN echo built\n", "pad": b"x" * 300_000})
    conn = Conn(guard.socket, 60)
    conn.request("POST", "/build?t=me/" + unique("b"), headers={"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"})
    for at in range(0, len(context), 50_000):
        piece = context[at:at + 50_000]
        conn.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(0.01)
    conn.send(b"0\r\n\r\n")
    answer = conn.answer()
    assert answer.status == 200 and "Successfully built" in answer.text, answer.text


def test_cli_pipes_through_many_streams_at_once(guard):
    container = running(guard)
    clients = [start_docker(guard.socket, "exec", "-i", container, "md5sum") for _ in range(6)]
    for client in clients:
        client.stdin.write(b"z" * 1_000_000)
        client.stdin.close()
    for client in clients:
        assert client.stdout.read().split()[0].decode() == hashlib.md5(b"z" * 1_000_000).hexdigest()
        assert client.wait(60) == 0


def test_docker_commands_see_each_others_effects(guard):
    name = unique("seq")
    assert docker(guard.socket, "run", "-d", "--name", name, "busybox", "sleep", "300")[0] == 0
    assert docker(guard.socket, "exec", name, "sh", "-c", "echo $HOSTNAME")[1].strip() in docker(guard.socket, "ps", "-q")[1]
    assert docker(guard.socket, "rm", "-f", name)[0] == 0
    assert name not in docker(guard.socket, "ps", "-a")[1]
