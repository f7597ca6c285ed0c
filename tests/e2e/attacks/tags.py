"""Tags of others and of everybody: taken over, or removed."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

from . import attack, harmless, refused, rejected
from .labels import load, saved
from .world import archive, query


def taken(w, name):
    return w.stage.image_id(name) != w.stage.known["images"][name]


MEANS = {
    "a tag": lambda w, repo, tag: w.call("POST", f"/images/{w.own_image()}/tag?" + query(repo=repo, tag=tag)),
    "a build": lambda w, repo, tag: w.build("FROM busybox\nENV a=taken\n", query(t=f"{repo}:{tag}")),
    "a commit": lambda w, repo, tag: w.call("POST", f"/commit?container={w.own(start=False)}&" + query(repo=repo, tag=tag), {}),
    "an import": lambda w, repo, tag: w.call("POST", "/images/create?fromSrc=-&" + query(repo=repo, tag=tag), archive([("f", "x")])),
    "a load": lambda w, repo, tag: load(saved((f"{repo}:{tag}",)))(w),
}


def _takes(means, target, name, expect):
    @attack(f"{target} is taken over by {means}", expect)
    def _(w):
        MEANS[means](w, *name.rsplit(":", 1))
        return taken(w, name)


for _means in MEANS:
    _takes(_means, "a shared tag", "alpine:latest", refused("alpine"))
    _takes(_means, "a victim's tag", "victim/app:1", rejected)


def spelt(spelling):
    @attack(f"a shared tag is taken over under the name {spelling}", refused())
    def _(w):
        w.call("POST", f"/images/{w.own_image()}/tag?" + query(repo=spelling))
        return taken(w, "alpine:latest")


for _spelling in ("docker.io/library/alpine", "library/alpine", "index.docker.io/library/alpine", "docker.io/alpine"):
    spelt(_spelling)


@attack("a shared tag is taken over by a build with the tag's full name", refused())
def _(w):
    w.build("FROM busybox\nENV a=taken\n", query(t="docker.io/library/alpine:latest"))
    return taken(w, "alpine:latest")


@attack("a shared tag is taken over by a name that carries its tag", refused())
def _(w):
    w.call("POST", f"/images/{w.own_image()}/tag?" + query(repo="alpine:latest"))
    return taken(w, "alpine:latest")


def loads(label, data, expect=harmless, name="alpine:latest"):
    @attack(f"a shared tag is taken over by a loaded archive {label}", expect)
    def _(w):
        load(data)(w)
        return taken(w, name)


ENTRY = {"Config": "config.json", "RepoTags": ["attacker/out:1"], "Layers": ["layer.tar"]}
EVIL = {**ENTRY, "RepoTags": ["alpine:latest"]}
loads("in its second entry", saved(manifest=json.dumps([ENTRY, EVIL])))
loads("among its own tags", saved(("attacker/out:1", "alpine:latest")))
loads("with a second list of tags", saved(manifest=json.dumps([ENTRY]).replace("}]", ', "RepoTags": ["alpine:latest"]}]')))
loads("with a list of tags in odd letters", saved(manifest=json.dumps([ENTRY]).replace("}]", ', "repotagſ": ["alpine:latest"]}]')))
loads("with a second manifest", saved(entries=[("manifest.json", json.dumps([ENTRY]))], manifest=json.dumps([EVIL])))
loads("with a manifest in another spelling of its path", saved(
      entries=[("manifest.json", json.dumps([ENTRY])), ("./manifest.json", json.dumps([EVIL]))], manifest=json.dumps([EVIL])))
loads("that is compressed", gzip.compress(saved(("alpine:latest",))))
loads("that is compressed in two parts", lambda w: b"".join(gzip.compress(p) for p in _halves(saved(("alpine:latest",)))))
loads("that is compressed with bzip2", bz2.compress(saved(("alpine:latest",))))
loads("that is compressed with xz", lzma.compress(saved(("alpine:latest",))))
loads("with a full name", saved(("docker.io/library/alpine:latest",)))


def _halves(data):
    return data[:len(data) // 2], data[len(data) // 2:]


def _old_format(tag_file):
    layer = archive([("file", "old")])
    return archive([
        ("a" * 64 + "/VERSION", "1.0"), ("a" * 64 + "/layer.tar", layer),
        ("a" * 64 + "/json", json.dumps({"id": "a" * 64, "created": "2020-01-01T00:00:00Z", "os": "linux", "architecture": "amd64",
                                         "config": {"Cmd": ["true"]}, "container_config": {}})),
        ("repositories", tag_file)])


loads("of the oldest format", _old_format(json.dumps({"alpine": {"latest": "a" * 64}})))


def _pax():
    out = io.BytesIO()
    inner = tarfile.open(fileobj=io.BytesIO(saved(("alpine:latest",))))
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in inner.getmembers():
            data = inner.extractfile(member).read()
            if member.name == "manifest.json":
                member.name = "harmless.txt"
                member.pax_headers = {"path": "manifest.json"}
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


loads("that names its manifest in an extended header", _pax())


def _link():
    entries = [("real.json", json.dumps([EVIL]))]
    data = saved(entries=entries, manifest=json.dumps([ENTRY]))
    inner = tarfile.open(fileobj=io.BytesIO(data))
    return archive([*((m.name, inner.extractfile(m).read()) for m in inner.getmembers() if m.name != "manifest.json"),
                    ("manifest.json", ("real.json",))])


loads("whose manifest is a link", _link())


# --- removal of what is everybody's


def removed(label, method, path, name="alpine:latest"):
    @attack(f"a shared image is removed {label}", harmless)
    def _(w):
        image = w.stage.known["images"][name]
        w.call(method, path.format(id=image, short=image[7:19]))
        return taken(w, name)


removed("by name", "DELETE", "/images/alpine")
removed("by name with its tag", "DELETE", "/images/alpine:latest")
removed("by name with force", "DELETE", "/images/alpine:latest?force=1")
removed("by its full name", "DELETE", "/images/docker.io/library/alpine:latest")
removed("by ID", "DELETE", "/images/{id}")
removed("by short ID with force", "DELETE", "/images/{short}?force=true")
removed("without its parents", "DELETE", "/images/alpine?noprune=1&force=1")
removed("by pruning everything", "POST", "/images/prune?" + query(filters={"dangling": ["false"]}))
removed("by pruning everything, said otherwise", "POST", "/images/prune?" + query(filters={"dangling": {"0": True}}))


@attack("a shared image is removed by the ID that an own tag points to", harmless)
def _(w):
    w.must("POST", "/images/alpine/tag?repo=attacker/mine&tag=1")
    w.call("DELETE", f"/images/{w.stage.known['images']['alpine:latest']}?force=1")
    return taken(w, "alpine:latest")


@attack("a shared tag is moved by pulling from a registry of the attacker", harmless)
def _(w):
    # The engine asks the registry that is named: nothing may be pulled under a name of the engine's own registry from elsewhere.
    w.call("POST", f"/images/create?fromSrc=http://127.0.0.1:{w.loopback.port}/layer.tar&repo=alpine&tag=latest")
    return taken(w, "alpine:latest") or w.reached("/layer.tar")
