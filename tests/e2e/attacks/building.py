"""Builds: ways to the host, foreign images as a source, and a poisoned cache."""

import gzip
import io
import tarfile

from . import attack, harmless, hidden, refused, rejected
from .world import archive, gzipped, query

STEAL = "FROM victim/app:1\n"


def host_build(label, query_string, dockerfile, proof, expect):
    @attack(label, expect)
    def _(w):
        parameters = query_string(w) if callable(query_string) else query_string
        return proof(w, w.build(dockerfile, "t=attacker/out&nocache=1&" + parameters))


host_build("a build runs in the host's network", "networkmode=host", "FROM busybox\nRUN readlink /proc/self/ns/net\n",
           lambda w, out: w.stage.namespace("net") in out, refused("network"))
host_build("a build runs in a victim's network namespace", "networkmode=container:victim-box", "FROM busybox\nRUN readlink /proc/self/ns/net\n",
           lambda w, out: w.stage.namespace("net", w.box) in out, rejected)
host_build("a build runs in a victim's network namespace by ID", lambda w: f"networkmode=container:{w.box}", "FROM busybox\nRUN readlink /proc/self/ns/net\n",
           lambda w, out: w.stage.namespace("net", w.box) in out, rejected)
host_build("a build runs in a victim's network", "networkmode=victim-net", "FROM busybox\nRUN nslookup victim-box 127.0.0.11 2>&1; true\n",
           lambda w, out: w.inspect("containers", "victim-box")["NetworkSettings"]["Networks"]["victim-net"]["IPAddress"] in out, rejected)
host_build("a build leaves for a control group of its choice", "cgroupparent=/sockguard-e2e-elsewhere", "FROM busybox\nRUN cat /proc/self/cgroup\n",
           lambda w, out: "sockguard-e2e-elsewhere" in out, refused("cgroup"))

@attack("a build's context is fetched from the host's loopback", refused("remote"))
def _(w):
    w.call("POST", f"/build?t=attacker/out&remote=http://127.0.0.1:{w.loopback.port}/Dockerfile")
    return w.reached("/Dockerfile")


@attack("a build's context is cloned by the host", refused("remote"))
def _(w):
    w.call("POST", f"/build?t=attacker/out&remote=http://127.0.0.1:{w.loopback.port}/repo.git")
    return w.reached("/repo.git")


@attack("a Dockerfile adds a file from the host's loopback", harmless)
def _(w):
    out = w.build(f"FROM busybox\nADD http://127.0.0.1:{w.loopback.port}/secret /s\nRUN cat /s\n")
    return w.loopback.secret in out or w.reached("/secret")


@attack("a Dockerfile adds a file from the host's loopback by a variable", harmless)
def _(w):
    out = w.build(f"FROM busybox\nARG U=http://127.0.0.1:{w.loopback.port}/\nADD ${{U}}secret /s\nRUN cat /s\n")
    return w.loopback.secret in out or w.reached("/secret")


@attack("a trigger in an own image adds a file from the host's loopback", harmless)
def _(w):
    w.own_image("attacker/base:1", f"FROM busybox\nONBUILD ADD http://127.0.0.1:{w.loopback.port}/secret /s\nONBUILD RUN cat /s\n")
    out = w.build("FROM attacker/base:1\n")
    return w.loopback.secret in out or w.reached("/secret")


@attack("an image is imported from the host's loopback", refused("fromSrc"))
def _(w):
    w.call("POST", f"/images/create?fromSrc=http://127.0.0.1:{w.loopback.port}/layer.tar&repo=attacker/out")
    return w.reached("/layer.tar")


@attack("BuildKit builds when it is asked for by version", refused("BuildKit"))
def _(w):
    w.call("POST", f"/build?version=2&t=attacker/out&remote=http://127.0.0.1:{w.loopback.port}/Dockerfile")
    return w.reached("/Dockerfile")


@attack("a BuildKit output writes a shared tag", refused())
def _(w):
    outputs = [{"Type": "moby", "Attrs": {"name": "alpine:latest"}}]
    w.call("POST", "/build?" + query(version=2, outputs=outputs, remote=f"http://127.0.0.1:{w.loopback.port}/Dockerfile"))
    return w.stage.image_id("alpine:latest") != w.stage.known["images"]["alpine:latest"]


@attack("everybody's build cache is pruned", harmless)
def _(w):
    answer = w.call("POST", "/build/prune?all=1")
    return answer.status == 200 and "CachesDeleted" in answer.text and w.bare or answer.status == 200 and "sha256" in answer.text


@attack("another's build is cancelled", rejected)
def _(w):
    return w.call("POST", "/build/cancel?id=victims-build").status < 300


# --- foreign images


def layer_of_victim(w):
    found = w.built()
    return found and w.inspect("images", "victim/app:1")["RootFS"]["Layers"][0] in found["RootFS"]["Layers"]


def from_foreign(label, context, query_string="t=attacker/out", expect=rejected, headers=None, dockerfile=None):
    @attack(f"a build starts from a victim's image {label}", expect)
    def _(w):
        data = context(w) if callable(context) else context
        w.build(dockerfile, query_string, context=data if dockerfile is None else None, headers=headers)
        return layer_of_victim(w)


def plain(dockerfile):
    return archive([("Dockerfile", dockerfile)])


from_foreign("by name", plain(STEAL))
from_foreign("by ID", lambda w: plain(f"FROM {w.stage.known['images']['victim/app:1']}\n"))
from_foreign("by short ID", lambda w: plain(f"FROM {w.stage.known['images']['victim/app:1'][7:19]}\n"))
from_foreign("by its full name", plain("FROM docker.io/victim/app:1\n"))
from_foreign("in small letters", plain("from victim/app:1\n"))
from_foreign("by a build argument's default", plain("ARG B=victim/app:1\nFROM $B\n"))
from_foreign("by a build argument", plain("ARG B=busybox\nFROM ${B}\n"), "t=attacker/out&" + query(buildargs={"B": "victim/app:1"}))
from_foreign("by a part of a build argument", plain("ARG B=app\nFROM victim/${B:-x}:1\n"))
from_foreign("over two lines", plain("FR\\\nOM victim/app:1\n"))
from_foreign("over two lines with a comment between", plain("FROM \\\n# busybox\nvictim/app:1\n"))
from_foreign("with another escape character", plain("# escape=`\nFROM `\nvictim/app:1\n"))
from_foreign("behind a byte order mark", plain("\ufeffFROM victim/app:1\n"))
from_foreign("with carriage returns", plain("FROM busybox AS a\r\nFROM victim/app:1\r\n"))
from_foreign("with a platform", plain("FROM --platform=linux/amd64 victim/app:1\n"))
from_foreign("in its second stage", plain("FROM busybox\nRUN true\nFROM victim/app:1 AS x\n"))
from_foreign("in a Dockerfile of another name", archive([("Dockerfile", "FROM busybox\n"), ("other", STEAL)]), "t=attacker/out&dockerfile=other")
from_foreign("in a Dockerfile in a directory", archive([("Dockerfile", "FROM busybox\n"), ("d/e", STEAL)]), "t=attacker/out&dockerfile=d/../d/e")
from_foreign("in a Dockerfile behind a slash", archive([("Dockerfile", "FROM busybox\n"), ("x", STEAL)]), "t=attacker/out&dockerfile=/x")
from_foreign("in the second of two Dockerfiles", archive([("Dockerfile", "FROM busybox\n"), ("Dockerfile", STEAL)]))
from_foreign("in a Dockerfile with a dot in its path", archive([("Dockerfile", "FROM busybox\n"), ("./Dockerfile", STEAL)]))
from_foreign("in a Dockerfile with a slash in its path", archive([("Dockerfile", "FROM busybox\n"), ("/Dockerfile", STEAL)]))
from_foreign("in a Dockerfile that climbs back", archive([("Dockerfile", "FROM busybox\n"), ("a/../Dockerfile", STEAL)]))
from_foreign("in a Dockerfile that is a link", archive([("real", STEAL), ("Dockerfile", ("real",))]))
from_foreign("in a Dockerfile in a linked directory", archive([("d/Dockerfile", STEAL), ("l", ("d",))]), "t=attacker/out&dockerfile=l/Dockerfile")
from_foreign("in a dockerfile in small letters", archive([("dockerfile", STEAL)]))
from_foreign("in a Dockerfile that replaces a link", archive([("Dockerfile", ("x",)), ("x", STEAL)]))
from_foreign("in a compressed context", gzipped(plain(STEAL)))
from_foreign("in a context compressed in two parts", lambda w: b"".join(gzip.compress(p) for p in (plain(STEAL)[:700], plain(STEAL)[700:])))
from_foreign("in a context that says it is plain and is compressed", gzipped(plain(STEAL)), headers={"Content-Type": "application/tar"})
from_foreign("in a Dockerfile that ignores itself", archive([("Dockerfile", STEAL), (".dockerignore", "Dockerfile\n")]))


def _renamed(format_, headers, name, data=STEAL):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for path, content, pax in (("Dockerfile", "FROM busybox\n", {}), (name, data, headers)):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.pax_headers = pax
            tar.addfile(info, io.BytesIO(content.encode()))
    return out.getvalue()


from_foreign("in a Dockerfile named by an extended header", _renamed(tarfile.PAX_FORMAT, {"path": "Dockerfile"}, "harmless"))


def _hard_link():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("real")
        info.size = len(STEAL)
        tar.addfile(info, io.BytesIO(STEAL.encode()))
        link = tarfile.TarInfo("Dockerfile")
        link.type, link.linkname = tarfile.LNKTYPE, "real"
        tar.addfile(link)
    return out.getvalue()


from_foreign("in a Dockerfile that is a hard link", _hard_link())
from_foreign("in the blocks behind an archive's end", archive([("Dockerfile", "FROM busybox\n")])[:1024] + plain(STEAL))


def copies(label, dockerfile, query_string="t=attacker/out", before=None):
    @attack(f"a file of a victim's image is copied {label}", harmless)
    def _(w):
        if before:
            before(w)
        text = dockerfile.replace("ID", w.stage.known["images"]["victim/app:1"])
        return w.victim_secret in w.build(text + "RUN cat /s\n", query_string)


copies("by COPY --from", "FROM busybox\nCOPY --from=victim/app:1 /image-secret /s\n")
copies("by COPY --from an ID", "FROM busybox\nCOPY --from=ID /image-secret /s\n")
copies("by copy in small letters", "FROM busybox\ncopy --from=victim/app:1 /image-secret /s\n")
copies("over two lines", "FROM busybox\nCOPY --fr\\\nom=victim/app:1 /image-secret /s\n")
copies("into a stage that is copied on", "FROM busybox AS a\nCOPY --from=victim/app:1 /image-secret /t\nFROM busybox\nCOPY --from=a /t /s\n")
copies("with a chown flag before it", "FROM busybox\nCOPY --chown=0:0 --from=victim/app:1 /image-secret /s\n")
copies("by a trigger in an own image", "FROM attacker/base:1\n",
       before=lambda w: w.own_image("attacker/base:1", "FROM busybox\nONBUILD COPY --from=victim/app:1 /image-secret /s\n"))


@attack("a victim's layers are used as a cache", harmless)
def _(w):
    # The victim has built RUN with a secret result; who names the image as a cache gets the result.
    w.stage.must("POST", "/build?t=victim/cached&" + query(labels={"com.buildkite.sockguard.owner": "victim"}, buildargs={"A": "1"}),
                 archive([("Dockerfile", "FROM busybox\nRUN head -c 16 /dev/urandom | md5sum > /cached\n")]))
    w.build("FROM busybox\nRUN head -c 16 /dev/urandom | md5sum > /cached\n", "t=attacker/out&" + query(cachefrom=["victim/cached"]))
    mine = w.built()
    return mine and mine["RootFS"]["Layers"][1] == w.inspect("images", "victim/cached")["RootFS"]["Layers"][1]


# --- the cache


def poisons(label, query_string, dockerfile, proof, before=None):
    @attack(f"a victim's build takes a layer that was poisoned {label}", harmless)
    def _(w):
        if before:
            before(w)
        w.build(dockerfile, "t=attacker/out&" + query_string)
        from harness import raw
        # Through guards the victim has one of its own.
        answer = raw(w.victim_socket, "POST", "/build?t=victim/built", archive([("Dockerfile", dockerfile)]),
                     {"Content-Type": "application/x-tar"}, 60)
        assert answer.status == 200, answer.text
        box = w.others("containers", {"Image": "victim/built", "Cmd": ["cat", "/result"]})
        w.god("POST", f"/containers/{box}/start")
        w.god("POST", f"/containers/{box}/wait")
        return proof in w.stage.logs(box)


poisons("by an added host", query(extrahosts="registry.example:6.6.6.6"), "FROM busybox\nRUN cat /etc/hosts > /result\n", "6.6.6.6")
poisons("by the network it was built in", "networkmode=none", "FROM busybox\nRUN ls /sys/class/net | wc -l > /result; echo poisoned-$(ls /sys/class/net | grep -c eth) >> /result\n", "poisoned-0")
poisons("by the size of its shared memory", "shmsize=1048576", "FROM busybox\nRUN df /dev/shm > /result\n", " 1024 ")
