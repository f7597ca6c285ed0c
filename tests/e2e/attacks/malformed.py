"""Requests that no engine of the tests obeys (it refuses them itself, or lacks the feature) and that a guard must refuse all the same.

Each is a name, a function that sends it, and the status it must have; None stands for any 4xx.
"""

from .world import archive, query

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TAR = {"Content-Type": "application/x-tar"}
MALFORMED = []
CLOSED = 0  # No answer is understood there: the end of the connection will do.


def add(name, send, status=None):
    MALFORMED.append((name, send, status))


def raw(name, data, status=None):
    add(name, lambda w: w.bytes(data), status)


def text(name, body, path="/containers/create", status=None):
    add(name, lambda w: w.json(body, path), status)


def call(name, method, path, body=None, headers=None, status=None):
    add(name, lambda w: w.call(method, path, body, headers), status)


# JSON

text("a body begins with a byte order mark", '\ufeff{"Image":"busybox"}')
text("a body is cut short", '{"Image":"busybox"')
text("a body is empty", "")
text("a body is a list", "[]")
text("a body is a string", '"busybox"')
text("a body is null", "null")
text("a body nests as deep as it is long", '{"Image":"busybox","Env":' + "[" * 200000 + "]" * 200000 + "}")
text("a body nests objects without end", '{"HostConfig":' * 50000)
text("a body has a number with an exponent that no machine holds", '{"Image":"busybox","HostConfig":{"Memory":1e400}}')
text("a body has a number beyond 64 bits", '{"Image":"busybox","HostConfig":{"Memory":9223372036854775808}}')
text("a body has a number that is not whole", '{"Image":"busybox","HostConfig":{"Memory":1.5}}')
text("a body has a comment", '{"Image":"busybox"/* x */}')
text("a body has a comma too many", '{"Image":"busybox",}')
text("a body has single quotes", "{'Image':'busybox'}")
text("a body has a control character in a string", '{"Image":"busy\x01box"}')
text("a body has a zero byte behind it", '{"Image":"busybox"}\0')
text("a body has invalid bytes in a value", '{"Image":"busy\udcffbox"}')
text("a body has a false type for a flag", '{"Image":"busybox","HostConfig":{"Privileged":"true"}}')
text("a body has a number for a flag", '{"Image":"busybox","HostConfig":{"Privileged":1}}')
text("a body has a string for an object", '{"Image":"busybox","HostConfig":"Privileged"}')
text("a body has an object for a list", '{"Image":"busybox","HostConfig":{"Binds":{"/:/host":{}}}}')
text("a body has a string for a list", '{"Image":"busybox","HostConfig":{"Binds":"/:/host"}}')
text("a body has an unknown field of its own level", '{"Image":"busybox","FutureHole":true}')
call("a body has another type than JSON", "POST", "/containers/create", '{"Image":"busybox"}', {"Content-Type": "text/plain"})
call("a body is very long", "POST", "/containers/create", b'{"Image":"busybox","Env":["' + b"x" * 40_000_000 + b'"]}', {"Content-Type": "application/json"})

# Queries

call("a query has a semicolon", "POST", "/images/busybox/tag?repo=attacker/fine;&repo=alpine")
call("a query has a bad escape", "POST", "/images/busybox/tag?repo=attacker/fine%zz&repo=alpine")
call("a query is not text", "POST", "/images/busybox/tag?repo=attacker/%ff%fe")
call("filters are no JSON", "GET", "/containers/json?filters=%7B")
call("filters are a list", "GET", "/containers/json?filters=%5B%5D")
call("filters have an unknown name", "GET", "/containers/json?" + query(filters={"futurehole": ["x"]}))
call("filters say a name twice", "GET", "/containers/json?filters=%7B%22label%22:[],%22label%22:[%22a%22]%7D")
call("a build is sent elsewhere by a form body", "POST", "/build?t=attacker/out", "remote=http://127.0.0.1:1/Dockerfile", FORM)
call("a build takes its parameters from a multipart body", "POST", "/build?t=attacker/out",
     '--b\r\nContent-Disposition: form-data; name="remote"\r\n\r\nhttp://127.0.0.1:1/\r\n--b--\r\n', {"Content-Type": "multipart/form-data; boundary=b"})
call("a build has a version that is no number", "POST", "/build?t=attacker/out&version=two", archive([("Dockerfile", "FROM busybox\n")]), TAR)
call("a build asks for security options", "POST", "/build?t=attacker/out&securityopt=%5B%22seccomp=unconfined%22%5D", archive([("Dockerfile", "FROM busybox\n")]), TAR)
call("a Dockerfile lies beyond the context", "POST", "/build?t=attacker/out&dockerfile=../x", archive([("Dockerfile", "FROM busybox\n")]), TAR)
call("a build's context is no archive", "POST", "/build?t=attacker/out", b"no archive at all" * 100, TAR)
call("an image is loaded with a progress parameter that is unknown", "POST", "/images/load?futurehole=1", archive([]), TAR)

# Paths

for _name, _path in {
    "with two slashes": "//containers/json", "with two slashes inside": "/containers//json", "with a slash at its end": "/containers/json/",
    "with dots": "/containers/../info", "with one dot": "/./info", "with escaped dots": "/containers/%2e%2e/info",
    "with a second version": "/v1.41/v1.41/info", "with a version of one number": "/v1/info", "with a version too long": "/v1.41.0/info",
    "with a version that is too new": "/v1.99/info", "with a version that is too old": "/v1.11/info", "with a version below 1.24": "/v1.23/info",
    "that is unknown": "/future/hole", "that goes on behind the endpoint": "/info/more", "with a zero byte": "/containers/%00/json",
    "with a line end in it": "/containers/a%0d%0aX:%20y/json", "that is not text": "/containers/%ff%fe/json", "with a bad escape": "/containers/%zz/json",
    "with capitals": "/Containers/json", "that is a star": "*", "without a slash": "info",
    "with an escaped question mark": "/containers/json%3Fall=1", "of gRPC": "/moby.buildkit.v1.Control/Solve", "of metrics": "/metrics",
}.items():
    raw(f"a path {_name}", f"GET {_path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
for _method in ("PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"):
    raw(f"a method {_method}", f"{_method} /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
raw("a path of 70 KB", "GET /containers/" + "a" * 70_000 + "/json HTTP/1.1\r\nHost: d\r\n\r\n")
raw("a header of 2 MB", "GET /_ping HTTP/1.1\r\nHost: d\r\nX: " + "a" * 2_000_000 + "\r\n\r\n")
raw("five thousand headers", "GET /_ping HTTP/1.1\r\nHost: d\r\n" + "X: a\r\n" * 5000 + "\r\n")

# Framing

CREATE = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
STEAL = "GET /containers/victim-box/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
raw("HTTP/2 with prior knowledge", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", CLOSED)
raw("HTTP/0.9", "GET /_ping\r\n\r\n")
raw("HTTP/3.0", "GET /_ping HTTP/3.0\r\nHost: d\r\n\r\n")
raw("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500)
raw("no HTTP at all", "\r\n\r\nhello engine\r\n\r\n")
raw("two lengths that differ", CREATE + "Content-Length: 2\r\nContent-Length: 200\r\n\r\n{}" + STEAL)
raw("a length with a plus", CREATE + "Content-Length: +2\r\n\r\n{}" + STEAL)
raw("a length below zero", CREATE + "Content-Length: -2\r\n\r\n{}" + STEAL)
raw("a length in hexadecimal", CREATE + "Content-Length: 0x2\r\n\r\n{}" + STEAL)
raw("a list of lengths", CREATE + "Content-Length: 2, 200\r\n\r\n{}" + STEAL)
raw("a length beyond 64 bits", CREATE + "Content-Length: 99999999999999999999\r\n\r\n{}" + STEAL)
raw("an unknown encoding", CREATE + "Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("two encodings", CREATE + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("an encoding before chunked", CREATE + "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("a space before the colon", CREATE + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + STEAL)
raw("a vertical tab before chunked", CREATE + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + STEAL)
raw("a chunk size that is no number", CREATE + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("a chunk size below zero", CREATE + "Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("a chunk size beyond 64 bits", CREATE + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("a chunk that is longer than its size", CREATE + "Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + STEAL)
raw("a zero byte in a header", "GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\0b\r\n\r\n")
raw("a bare carriage return in a header", "GET /_ping HTTP/1.1\r\nHost: d\r\nX: a\rb\r\n\r\n")
raw("a header without a colon", "GET /_ping HTTP/1.1\r\nHost: d\r\nnonsense\r\n\r\n")
raw("a header without a name", "GET /_ping HTTP/1.1\r\nHost: d\r\n: x\r\n\r\n")
raw("a space in the target", "GET /containers/json /x HTTP/1.1\r\nHost: d\r\n\r\n")
raw("a tab in the request line", "GET\t/_ping\tHTTP/1.1\r\nHost: d\r\n\r\n")
raw("an attach to a name that is not there, with early bytes", "POST /containers/absent/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n"
    "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n" + STEAL, 404)
raw("an attach to a victim, with early bytes", "POST /containers/victim-box/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\n"
    "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n" + STEAL, 404)

# Features that this engine lacks

call("a network of the macvlan driver", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "macvlan", "Options": {"parent": "eth0"}}, status=403)
call("a network of the ipvlan driver", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "ipvlan"}, status=403)
call("a network of the host driver", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "host"}, status=403)
call("a network of the null driver", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "null"}, status=403)
call("a network of an unknown driver", "POST", "/networks/create", {"Name": "attacker-net", "Driver": "weave"}, status=403)
call("a network of another address manager", "POST", "/networks/create", {"Name": "attacker-net", "IPAM": {"Driver": "dhcp"}}, status=403)
call("a network for the swarm's ingress", "POST", "/networks/create", {"Name": "attacker-net", "Ingress": True}, status=403)
call("a network of the swarm's scope", "POST", "/networks/create", {"Name": "attacker-net", "Scope": "swarm"}, status=403)
call("a connection to the host's network", "POST", "/networks/host/connect", {"Container": "absent"})
for _field, _value in {
    "Isolation": "hyperv", "UTSMode": "container:x", "UsernsMode": "keep-id",
    "IpcMode": "ns:/proc/1/ns/ipc", "NetworkMode": "ns:/proc/1/ns/net", "CpuRealtimeRuntime": 1000000, "Annotations": {"run.oci.hooks": "x"},
    "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 10}], "BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 10}],
    "Capabilities": ["SYS_ADMIN"],
}.items():
    call(f"a container with {_field} {_value}", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {_field: _value}})
call("a system setting of the host", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Sysctls": {"kernel.core_pattern": "|/x"}}}, status=403)
call("a security option that the client should have taken out", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"SecurityOpt": ["systempaths=unconfined"]}}, status=403)
call("a bind of a relative path", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["../host:/x"]}})
call("a bind of Windows", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Binds": ["C:\\:/x"]}})
call("a mount of a named pipe", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "npipe", "Source": "x", "Target": "/x"}]}})
call("a mount of a cluster volume", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "cluster", "Source": "x", "Target": "/x"}]}})
call("a mount of an unknown type", "POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "BIND", "Source": "/", "Target": "/x"}]}})
for _method, _path in (
    ("POST", "/swarm/join"), ("POST", "/swarm/update?version=1"), ("POST", "/swarm/unlock"), ("POST", "/services/x/update?version=1"), ("DELETE", "/services/x"),
    ("DELETE", "/nodes/x"), ("POST", "/nodes/x/update?version=1"), ("DELETE", "/secrets/x"), ("POST", "/secrets/x/update?version=1"),
    ("DELETE", "/configs/x"), ("POST", "/plugins/pull?remote=x"), ("POST", "/plugins/x/enable?timeout=0"), ("POST", "/plugins/x/disable"),
    ("POST", "/plugins/x/set"), ("POST", "/plugins/x/upgrade?remote=y"), ("POST", "/plugins/x/push"), ("DELETE", "/plugins/x"),
    ("POST", "/containers/victim-box/checkpoints"), ("DELETE", "/containers/victim-box/checkpoints/x"), ("PUT", "/volumes/victim-data?version=1"),
):
    call(f"{_method} {_path.split('?')[0]}", _method, _path, {} if _method != "DELETE" else None)
