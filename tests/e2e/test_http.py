"""HTTP/1.1 at the guard's front: forms that clients may use, limits, and what is no request at all."""

import json
import time

import pytest

from harness import Conn, create, raw, raw_bytes, request_bytes, tar_of, unique


def parse(data):
    """The first answer in a string of bytes: (status, body)."""
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def is_refusal(data, *statuses):
    status, body = parse(data)
    assert status in statuses, data[:300]
    assert b"application/json" in data.partition(b"\r\n\r\n")[0].lower(), data[:300]
    start = body.index(b"{")
    assert json.loads(body[start:body.rindex(b"}") + 1])["message"]


# --- what must work


def test_keep_alive_over_every_kind_of_answer(guard):
    container = create(guard.socket, name=unique("ka"), Cmd=["sleep", "300"])
    with Conn(guard.socket) as conn:
        for method, path, body, status in (
            ("GET", "/_ping", None, 200), ("HEAD", "/_ping", None, 200), ("GET", "/containers/nope/json", None, 404),
            ("POST", f"/containers/{container}/start", None, 204), ("POST", f"/containers/{container}/start", None, 304),
            ("POST", f"/containers/{container}/stop?t=0", None, 204), ("GET", "/version", None, 200),
            ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Privileged": True}}, 403),
            ("DELETE", f"/containers/{container}", None, 204),
            ("GET", "/v1.41/info", None, 200),
        ):
            conn.request(method, path, body)
            answer = conn.answer(head_only=method == "HEAD")
            assert answer.status == status, (method, path, answer)


def test_pipelined_requests_are_answered_in_order(guard):
    with Conn(guard.socket) as conn:
        paths = ["/_ping", "/containers/nope/json", "/version", "/_ping", "/images/nope/json"] * 4
        conn.send(b"".join(request_bytes("GET", path) for path in paths))
        assert [conn.answer().status for _ in paths] == [200, 404, 200, 200, 404] * 4


def test_head_has_no_body(guard):
    with Conn(guard.socket) as conn:
        conn.request("HEAD", "/_ping")
        head = conn.read_head()
        assert head.status == 200 and {"api-version", "ostype", "docker-experimental"} <= set(head.headers)
        conn.request("GET", "/_ping")
        assert conn.answer().body == b"OK"


def test_ping_carries_all_that_clients_read(guard, engine):
    for method in ("GET", "HEAD"):
        direct, guarded = (raw(where.socket, method, "/_ping") for where in (engine, guard))
        for name in ("api-version", "builder-version", "docker-experimental", "ostype", "swarm", "cache-control", "pragma"):
            assert guarded.headers.get(name) == direct.headers.get(name), name


def test_chunked_request_body(guard):
    body = json.dumps({"Image": "busybox"}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (1, bytes([byte])) for byte in body) + b"0\r\n\r\n"
    head = request_bytes("POST", "/containers/create", headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    with Conn(guard.socket) as conn:
        conn.send(head + chunks)
        assert conn.answer().status == 201
        conn.request("GET", "/_ping")
        assert conn.answer().status == 200


def test_chunked_body_with_trailers_and_extensions(guard):
    head = request_bytes("POST", "/containers/create", headers={"Content-Type": "application/json", "Transfer-Encoding": "chunked"})
    answer = raw_bytes(guard.socket, head + b'13;a=b\r\n{"Image":"busybox"}\r\n0\r\nX-T: 1\r\n\r\n', half_close=True)
    assert parse(answer)[0] in (201, 400)


def test_a_body_that_comes_byte_by_byte(guard):
    data = request_bytes("POST", "/containers/create", {"Image": "busybox"})
    with Conn(guard.socket) as conn:
        for at in range(len(data)):
            conn.send(data[at:at + 1])
        assert conn.answer().status == 201


@pytest.mark.parametrize("path,body", [
    ("/containers/create", json.dumps({"Image": "busybox"}).encode()),
    ("/build?t=me/expect", tar_of({"Dockerfile": "FROM busybox\n"})),
])
def test_expect_100_continue(guard, path, body):
    kind = "application/json" if path.startswith("/containers") else "application/x-tar"
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Expect": "100-continue"}
    with Conn(guard.socket) as conn:
        conn.request("POST", path, headers=headers)
        assert conn.read_head().status == 100
        conn.send(body)
        assert conn.answer().status in (200, 201)


def test_expect_on_a_refusal_does_not_hang(guard):
    headers = {"Content-Type": "application/json", "Content-Length": "1000", "Expect": "100-continue"}
    with Conn(guard.socket) as conn:
        conn.request("POST", "/swarm/init", headers=headers)
        answer = conn.read_head()
        if answer.status == 100:
            conn.send(b" " * 1000)
            answer = conn.read_head()
        assert answer.status == 403


def test_http_1_0(guard):
    answer = raw_bytes(guard.socket, b"GET /version HTTP/1.0\r\n\r\n")
    status, body = parse(answer)
    assert status == 200 and b"chunked" not in answer.lower() and json.loads(body)["ApiVersion"]
    assert parse(raw_bytes(guard.socket, b"GET /containers/json HTTP/1.0\r\n\r\n"))[0] == 200


@pytest.mark.parametrize("host", ["", "docker", "%2Fvar%2Frun%2Fdocker.sock", "api.moby.localhost", "localhost:2375"])
def test_any_host(guard, host):
    assert raw(guard.socket, "GET", "/_ping", headers={"Host": host}).status == 200


def test_a_client_that_half_closes_after_its_request(guard):
    with Conn(guard.socket) as conn:
        conn.request("GET", "/containers/json")
        conn.end()
        assert conn.answer().status == 200


def test_connection_close(guard):
    with Conn(guard.socket) as conn:
        conn.request("GET", "/_ping", headers={"Connection": "close"})
        assert conn.answer().status == 200
        assert conn.read_all() == b""


def test_long_headers_are_fine(guard):
    """X-Registry-Config of a build is easily 40 KB."""
    assert raw(guard.socket, "GET", "/_ping", headers={"X-Registry-Config": "e30" * 13_000}).status == 200


def test_large_create_body(guard):
    body = {"Image": "busybox", "Env": [f"VAR_{number}={'x' * 60}" for number in range(3000)]}
    assert raw(guard.socket, "POST", "/containers/create", body).status == 201


def test_numbers_keep_their_value(guard):
    # Above 2^53: a detour over floating point would show.
    container = create(guard.socket, HostConfig={"KernelMemory": 0, "CpuQuota": 0, "BlkioWeight": 0}, StopTimeout=2**31 - 1)
    assert raw(guard.socket, "GET", f"/containers/{container}/json").json()["Config"]["StopTimeout"] == 2**31 - 1
    refused = raw(guard.socket, "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 9007199254740993}})
    assert refused.status in (201, 400, 403)
    if refused.status == 201:
        facts = raw(guard.socket, "GET", f"/containers/{refused.json()['Id']}/json").json()
        assert facts["HostConfig"]["Memory"] == 9007199254740993


def test_a_version_that_is_too_new_gets_the_engines_answer(guard, engine):
    direct, guarded = (raw(where.socket, "GET", "/v1.99/containers/json") for where in (engine, guard))
    assert (guarded.status, guarded.text) == (direct.status, direct.text)


# --- limits


def test_too_long_headers_431(guard):
    is_refusal(raw_bytes(guard.socket, request_bytes("GET", "/_ping", headers={"X-Long": "a" * (2 << 20)})), 431)


def test_too_many_headers_431(guard):
    headers = [(f"X-{number}", "1") for number in range(5000)]
    is_refusal(raw_bytes(guard.socket, request_bytes("GET", "/_ping", headers=headers)), 431)


def test_too_long_path(guard):
    is_refusal(raw_bytes(guard.socket, request_bytes("GET", "/containers/" + "a" * (2 << 20) + "/json")), 414, 431, 400)


@pytest.mark.parametrize("chunked", [False, True])
def test_too_long_json_body_413(guard, chunked):
    size = 80 << 20
    piece = b" " * 65536
    with Conn(guard.socket) as conn:
        headers = {"Content-Type": "application/json"}
        headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
        conn.request("POST", "/containers/create", headers=headers)
        try:
            for _ in range(size // len(piece)):
                conn.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if chunked:
                conn.send(b"0\r\n\r\n")
        except OSError:
            pass  # it may stop listening once it has answered
        answer = conn.answer()
        assert answer.status == 413 and answer.message


def test_a_refusal_drains_the_body(guard):
    """Otherwise the client sees "broken pipe" instead of the reason."""
    with Conn(guard.socket) as conn:
        conn.request("POST", "/build?remote=http://127.0.0.1/x", headers={"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"})
        for _ in range(300):
            conn.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        conn.send(b"0\r\n\r\n")
        answer = conn.answer()
        assert answer.status == 403 and "sockguard" in answer.message


# --- what is no request


MALFORMED = {
    "nonsense": b"nonsense\r\n\r\n",
    "binary": bytes(range(1, 256)) + b"\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + b"\0" * 160,
    "no version": b"GET /_ping\r\n\r\n",
    "http/0.9": b"GET /_ping HTTP/0.9\r\n\r\n",
    "http/3": b"GET /_ping HTTP/3.0\r\n\r\n",
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control byte in the path": b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a folded header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a space before the colon": b"GET /_ping HTTP/1.1\r\nHost : x\r\n\r\n",
    "a header without colon": b"GET /_ping HTTP/1.1\r\nHost: x\r\nbad\r\n\r\n",
    "a nul in a header": b"GET /_ping HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
    "two lengths": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "a negative length": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
    "a length with plus": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\n{}",
    "a huge length": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
    "length and chunked": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x",
    "an unknown coding": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    "chunked twice": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk that is too long": b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}}}\r\n0\r\n\r\n",
    "an absolute target of another scheme": b"GET ftp://x/_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "connect": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "options *": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "two hosts": b"GET /_ping HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed(guard, kind):
    """A 4xx or a closed connection, sooner than a head that does not end is cut off; and the guard lives on."""
    began = time.monotonic()
    answer = raw_bytes(guard.socket, MALFORMED[kind], half_close=True)
    assert time.monotonic() - began < 30
    if answer:
        assert 400 <= parse(answer)[0] < 500 or parse(answer)[0] in (501, 505), answer[:200]
    assert raw(guard.socket, "GET", "/_ping").status == 200


BAD_BODIES = {
    "not json": b"nonsense", "cut short": b'{"Image":', "an array": b"[]", "two documents": b'{"Image":"busybox"}{}', "trailing text": b'{"Image":"busybox"} x',
    "not utf-8": b'{"Image":"\xff"}', "too deep": b'{"Image":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "a wrong type": b'{"Image":5}',
    "a duplicate key": b'{"Image":"busybox","Image":"busybox"}', "a key in two cases": b'{"Image":"busybox","image":"busybox"}', "a number out of range": b'{"Image":"busybox","StopTimeout":1e999}',
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bad_bodies_get_a_4xx_in_dockers_shape(guard, engine, kind):
    def containers():
        return {container["Id"] for container in raw(engine.socket, "GET", "/containers/json?all=1").json()}
    before = containers()
    answer = raw(guard.socket, "POST", "/containers/create", BAD_BODIES[kind], {"Content-Type": "application/json"})
    assert 400 <= answer.status < 500 and answer.message
    assert containers() <= before


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_bodies_of_another_type(guard, kind):
    """The engine would take parameters from a form."""
    answer = raw(guard.socket, "POST", "/containers/create", b'{"Image":"busybox"}', {"Content-Type": kind})
    assert 400 <= answer.status < 500 and answer.message


def test_paths_that_are_nearly_right(guard):
    for path in ("//_ping", "/_ping/", "/v1.41//containers/json", "/v1.41/v1.41/containers/json", "/containers/../containers/json",
                 "/containers/%2e%2e/json", "/containers/json%3fall=1", "/CONTAINERS/json", "/nope", "/", "/containers/a%2fb/json", "/v1/containers/json"):
        answer = raw(guard.socket, "GET", path)
        assert 400 <= answer.status < 500 and answer.message, path


def test_an_http2_preface_is_refused(guard, engine):
    answer = raw_bytes(guard.socket, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
    assert not answer.startswith(b"\0\0"), "answered in HTTP/2"
    assert answer == b"" or parse(answer)[0] in range(400, 506)


def test_an_upgrade_elsewhere_is_no_tunnel(guard):
    for path in ("/_ping", "/containers/json", "/events?until=1", "/info"):
        for upgrade in ("tcp", "h2c", "websocket"):
            answer = raw(guard.socket, "GET", path, headers={"Connection": "Upgrade", "Upgrade": upgrade})
            assert answer.status in (200, 400, 403), (path, upgrade, answer)


@pytest.mark.parametrize("path", ["/session", "/grpc", "/v1.41/session", "/v1.41/grpc"])
def test_buildkit_paths_are_refused_with_a_hint(guard, path):
    headers = {"Connection": "Upgrade", "Upgrade": "h2c", "Host": "", "X-Docker-Expose-Session-Uuid": "abc"}
    answer = raw(guard.socket, "POST", path, headers=headers)
    assert answer.status == 403 and "DOCKER_BUILDKIT=0" in answer.message


@pytest.mark.last
def test_slow_headers_are_cut_off_and_quiet_streams_are_not(patient):
    """Both connections are from the start of the session, so that nobody has to wait for the time limit here."""
    guard, slow, quiet, began = patient
    rest = slow.read_all()
    assert time.monotonic() - began < 1200
    assert rest == b"" or parse(rest)[0] in (400, 408)
    assert time.monotonic() - began > 5
    container = create(guard.socket, name=unique("heard"))
    assert container.encode() in quiet.read_chunk()


def test_no_stray_answers_5xx(guard):
    """Nothing above made the guard answer 5xx by its own fault."""
    ours = [line for line in guard.log() if isinstance(line.get("status"), int) and line["status"] >= 500]
    assert not ours, "\n".join(map(str, ours[:3]))
