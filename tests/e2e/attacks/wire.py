"""Smuggling: requests inside bodies, behind odd framing, behind refused upgrades and in hijacked connections."""

from . import attack, harmless, refused, rejected

PING = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"


def steal(close=True):
    return "GET /containers/victim-box/json HTTP/1.1\r\nHost: d\r\n" + ("Connection: close\r\n" if close else "") + "\r\n"


def smuggled(label, data, expect=harmless):
    """Bytes that make the engine answer a second request; the proof is the victim's secret in the reply."""
    @attack(label, expect)
    def _(w):
        return w.victim_secret in w.bytes(data(w) if callable(data) else data)


smuggled("a foreign inspect is pipelined behind a ping", PING + steal())
smuggled("a request hides in a body of two framings, length longer",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nContent-Length: 400\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + steal())
smuggled("a request hides in a body of two framings, chunks first",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + steal())
smuggled("a request hides behind a length of a GET",
         "GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n" + steal())
smuggled("a request hides behind two equal lengths",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n" + steal())
smuggled("a request hides behind chunk extensions",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0;a=\"b\r\n\r\n" + steal())
smuggled("a request hides behind a chunk size with leading zeros",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n00000000\r\n\r\n" + steal())
smuggled("a request hides behind trailers that look like framing",
         "POST /containers/prune HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\nContent-Length: 300\r\n\r\n" + steal())
smuggled("a request hides behind a folded header line",
         "GET /_ping HTTP/1.1\r\nHost: d\r\nX-A: b\r\n Content-Length: 300\r\n\r\n" + steal())
smuggled("a request is written with bare line feeds", "GET /containers/victim-box/json HTTP/1.1\nHost: d\nConnection: close\n\n")
smuggled("a request mixes line ends", "GET /_ping HTTP/1.1\r\nHost: d\nX: y\r\n\n" + steal())
smuggled("a request names its target with scheme and host",
         "GET http://docker/containers/victim-box/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
smuggled("a request has HTTP/1.0 and no host", "GET /containers/victim-box/json HTTP/1.0\r\n\r\n")
smuggled("a request waits behind an expectation",
         "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}" + steal())
smuggled("a request hides behind an upgrade of a ping",
         "GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + steal())
smuggled("a request hides behind an upgrade to HTTP/2 of a list",
         "GET /containers/json HTTP/1.1\r\nHost: d\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + steal())
smuggled("a request hides behind an upgrade of a create that fails",
         "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 18\r\n\r\n{\"Image\":\"absent\"}" + steal())
smuggled("a request hides behind a wait that is upgraded", lambda w:
         "POST /containers/absent/wait HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + steal())
smuggled("a request hides behind followed logs, which end", lambda w:
         f"GET /containers/{w.own(command='true')}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n" + steal())
smuggled("a request hides behind a websocket that is refused",
         "GET /containers/absent/attach/ws HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + steal())
smuggled("a request hides behind an exec start that is refused",
         "POST /exec/absent/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" + steal())


def _post(path, body, extra=""):
    return (f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{extra}"
            f"Content-Length: {len(body)}\r\n\r\n{body}")


def detached(label, upgrade, body='{"Detach":true}'):
    @attack(f"a request hides behind a detached exec {label}", harmless)
    def _(w):
        made = w.must("POST", f"/containers/{w.own()}/exec", {"Cmd": ["true"]})["Id"]
        extra = f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n" if upgrade else ""
        return w.victim_secret in w.bytes(_post(f"/exec/{made}/start", body, extra) + steal())


detached("with an upgrade", "tcp")
detached("with an upgrade to HTTP/2", "h2c")
detached("with an upgrade, its key in lower case", "tcp", '{"detach":true}')
detached("with an upgrade, said twice", "tcp", '{"Detach":false,"detach":true}')
detached("without an upgrade", None)


@attack("a create is smuggled in the body of a build that is refused early", harmless)
def _(w):
    inner = _post("/containers/create?name=smuggled", '{"Image":"busybox","HostConfig":{"Privileged":true}}')
    w.bytes("POST /build?cgroupparent=/x HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: 0\r\n\r\n" + inner)
    return w.inspect("containers", "smuggled") is not None


@attack("a privileged create is smuggled behind one with a shorter length", harmless)
def _(w):
    first = '{"Image":"busybox"}'
    inner = _post("/containers/create?name=smuggled", '{"Image":"busybox","HostConfig":{"Privileged":true}}', "Connection: close\r\n")
    w.bytes(_post("/containers/create", first) + inner)
    return w.inspect("containers", "smuggled") is not None


@attack("BuildKit's control service is reached by /grpc", refused("BuildKit"))
def _(w):
    return w.call("POST", "/grpc", headers={"Connection": "Upgrade", "Upgrade": "h2c"}).status == 101


@attack("BuildKit's control service is reached by /grpc with a version", refused("BuildKit"))
def _(w):
    return w.call("POST", "/v1.41/grpc", headers={"Connection": "Upgrade", "Upgrade": "h2c"}).status == 101


@attack("a BuildKit session is opened", refused("BuildKit"))
def _(w):
    return w.call("POST", "/session", headers={
        "Connection": "Upgrade", "Upgrade": "h2c", "X-Docker-Expose-Session-Uuid": "a" * 25,
        "X-Docker-Expose-Session-Name": "x"}).status == 101


@attack("a BuildKit session is opened with a version and other letters", refused("BuildKit"))
def _(w):
    return w.call("POST", "/v1.40/session", headers={
        "Connection": "upgrade", "Upgrade": "h2c", "x-docker-expose-session-uuid": "b" * 25,
        "x-docker-expose-session-name": "x"}).status == 101
