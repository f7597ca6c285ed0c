"""Two readers of one request: where a guard and the engine may read JSON, a query or a path differently."""

import json

from . import attack, harmless, refused, rejected
from .world import archive, query


def privileged_by(label, template, expect=refused()):
    """A create whose JSON text the engine reads as privileged. `@` stands for the usual rest."""
    @attack(f"a privileged container hides behind {label}", expect)
    def _(w):
        w.json(template.replace("@", '"Image":"busybox","Cmd":["true"]'))
        return w.held("Privileged", True)


privileged_by("a key in lower case", '{@,"hostconfig":{"privileged":true}}', refused("Privileged"))
privileged_by("a key in upper case", '{@,"HOSTCONFIG":{"PRIVILEGED":true}}', refused("Privileged"))
privileged_by("a long s in a key", '{@,"HoſtConfig":{"Privileged":true}}', refused("Privileged"))
privileged_by("an escaped long s in a key", '{@,"Ho\\u017ftConfig":{"Privileged":true}}', refused("Privileged"))
privileged_by("an escaped letter in a key", '{@,"\\u0048ostConfig":{"Privileg\\u0065d":true}}', refused("Privileged"))
privileged_by("a harmless HostConfig that comes later", '{@,"HostConfig":{"Privileged":true},"HostConfig":{"Memory":0}}', rejected)
privileged_by("a harmless HostConfig that comes earlier", '{@,"HostConfig":{"Memory":0},"HostConfig":{"Privileged":true}}', rejected)
privileged_by("a second HostConfig in lower case", '{@,"HostConfig":{"Memory":0},"hostconfig":{"Privileged":true}}', rejected)
privileged_by("a second HostConfig with a long s", '{@,"HoſtConfig":{"Privileged":true},"HostConfig":{}}', rejected)
privileged_by("a key that is said twice, no then yes", '{@,"HostConfig":{"Privileged":false,"Privileged":true}}', rejected)
privileged_by("a key that is said twice in two cases", '{@,"HostConfig":{"Privileged":false,"privileged":true}}', rejected)
privileged_by("a null that comes after it", '{@,"HostConfig":{"Privileged":true},"hostConfig":null,"HostConfig":{"Privileged":true}}', rejected)
privileged_by("a second document", '{@,"HostConfig":{"Privileged":true}}{"Image":"busybox"}', rejected)
privileged_by("text after the document", '{@,"HostConfig":{"Privileged":true}} and nothing else', rejected)
privileged_by("white space in odd places", ' \n\t{@ , "HostConfig" :\r\n{ "Privileged"\t:true } }', refused("Privileged"))
privileged_by("invalid bytes in another key", '{@,"A\udcff":1,"HostConfig":{"Privileged":true}}', rejected)
privileged_by("half a surrogate pair in another key", '{@,"\\ud800":"","HostConfig":{"Privileged":true}}', rejected)
privileged_by("a deep value in an unknown key", '{@,"Zzz":' + "[" * 5000 + "]" * 5000 + ',"HostConfig":{"Privileged":true}}', rejected)
privileged_by("an enormous number in an unknown key", '{@,"Zzz":1' + "0" * 4000 + ',"HostConfig":{"Privileged":true}}', rejected)
privileged_by("a megabyte of environment", '{@,"Env":["A=' + "x" * 1000000 + '"],"HostConfig":{"Privileged":true}}', rejected)


@attack("the host's network hides behind a Kelvin sign", refused("NetworkMode", "host"))
def _(w):
    text = '{"Image":"busybox","Cmd":["readlink","/proc/self/ns/net"],"HostConfig":{"NetworKMode":"host"}}'
    return w.finish(w.json(text.replace("K", "\u212a"))) == w.stage.namespace("net")


@attack("a second NetworkMode wins over the first", rejected)
def _(w):
    text = '{"Image":"busybox","Cmd":["readlink","/proc/self/ns/net"],"HostConfig":{"NetworkMode":"none","networkmode":"host"}}'
    return w.finish(w.json(text)) == w.stage.namespace("net")


@attack("a second list of binds is merged over the first", rejected)
def _(w):
    text = json.dumps({"Image": "busybox", "Cmd": ["cat", "/x/secret"], "HostConfig": {"Binds": [f"{w.builds}:/x"]}})
    text = text.replace('"HostConfig"', '"HostConfig":{"bindſ":["%s:/x"]},"hostConfig"' % w.outside)
    text = text.replace('{"Binds": ["%s:/x"]}' % w.builds, "{}")
    return w.host_secret in w.finish(w.json(text))


@attack("an unknown field of HostConfig is passed on unread", rejected)
def _(w):
    # What an engine does not know it ignores: the harm is that it arrives, for an engine that will.
    made = w.call("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"FutureHole": {"Host": True}}})
    return made.status == 201


@attack("an unknown query parameter is passed on unread", rejected)
def _(w):
    return w.call("POST", "/containers/create?futurehole=host", {"Image": "busybox"}).status == 201


# --- queries


def takes_alpine(w):
    return w.stage.image_id("alpine:latest") != w.stage.known["images"]["alpine:latest"]


def retags_alpine(label, target, headers=None, body=None):
    @attack(f"a shared tag is taken over by {label}", rejected)
    def _(w):
        w.own_image()
        w.call("POST", "/images/attacker/app:1/tag?" + target, body, headers)
        return takes_alpine(w)


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
retags_alpine("a form body over the query", "repo=attacker/fine&tag=1", FORM, "repo=alpine&tag=latest")
retags_alpine("a form body with a charset", "repo=attacker/fine&tag=1", {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, "repo=alpine&tag=latest")
retags_alpine("a form body with its type in capitals", "repo=attacker/fine&tag=1", {"content-type": "APPLICATION/X-WWW-FORM-URLENCODED"}, "repo=alpine&tag=latest")
retags_alpine("the first of two parameters", "repo=alpine&repo=attacker/fine")
retags_alpine("an escaped key", "%72epo=alpine")
retags_alpine("an escaped value", "repo=alp%69ne")
retags_alpine("a key without a value before it", "repo=alpine&repo")


def pruned(label, kind, name, body, headers, query_string=""):
    @attack(f"a victim's {label} is pruned by a form body over the query", rejected)
    def _(w):
        w.call("POST", f"/{kind}/prune{query_string}", body, headers)
        return w.inspect(kind, name) is None


pruned("stopped container", "containers", "victim-stopped", "filters={}", FORM)
pruned("volume", "volumes", "victim-idle", "filters={}", FORM)
pruned("network", "networks", "victim-idle", "filters={}", FORM)
pruned("image", "images", "victim/idle:1", 'filters={"dangling":["false"]}', FORM)
pruned("stopped container again, with a filter in both places,", "containers", "victim-stopped",
       'filters={"label":["com.buildkite.sockguard.owner=victim"]}', FORM, "?" + query(filters={"label": ["a"]}))


@attack("the filters of a list are given twice", rejected)
def _(w):
    answer = w.call("GET", "/containers/json?" + query(all=1, filters={"label": ["com.buildkite.sockguard.owner=victim"]})
                    + "&" + query(filters={"label": ["com.buildkite.sockguard.owner=attacker"]}))
    return w.box in answer.text


@attack("a second tag of a build takes a shared name", refused("alpine"))
def _(w):
    w.build("FROM busybox\nCMD false\n", "t=attacker/out&t=alpine")
    return takes_alpine(w)


# --- paths and versions


def path(label, spell, expect=rejected):
    @attack(f"a victim's container is read {label}", expect)
    def _(w):
        return w.victim_secret in w.call("GET", spell(w)).text


path("with an escaped slash", lambda w: "/containers%2fvictim-box%2fjson")
path("with an escaped slash behind the version", lambda w: f"/v1.41%2Fcontainers/{w.box}/json")
path("with escaped letters", lambda w: "/%63ontainers/%76ictim-box/json")
path("with escaped letters in the last word", lambda w: "/containers/victim-box/j%73on")
path("by the oldest version of the API", lambda w: "/v1.12/containers/victim-box/json")
path("by a version with leading zeros", lambda w: "/v01.041/containers/victim-box/json")
path("with its size asked for twice", lambda w: "/containers/victim-box/json?size=0&size=1")


@attack("a start with a HostConfig of the old API makes a container privileged", rejected)
def _(w):
    box = w.own(start=False)
    w.call("POST", f"/v1.23/containers/{box}/start", {"Privileged": True})
    return w.held("Privileged", True)


@attack("a start with a HostConfig of the old API binds a host path", rejected)
def _(w):
    box = w.own(command="cat /x/secret", start=False)
    w.call("POST", f"/v1.22/containers/{box}/start", {"Binds": [f"{w.outside}:/x"], "NetworkMode": "none"})
    w.god("POST", f"/containers/{box}/start")
    w.god("POST", f"/containers/{box}/wait")
    return w.host_secret in w.stage.logs(box)


@attack("a file of a victim is copied by the old copy call", rejected)
def _(w):
    return w.victim_secret in w.call("POST", "/v1.23/containers/victim-box/copy", {"Resource": "/secret"}).text


@attack("a create of the old API is privileged", rejected)
def _(w):
    w.json('{"Image":"busybox","Cmd":["true"],"HostConfig":{"Privileged":true}}', "/v1.19/containers/create")
    return w.held("Privileged", True)


@attack("a huge context hides a second Dockerfile", refused())
def _(w):
    context = archive([("Dockerfile", "FROM busybox\n"), ("pad", b"\0" * 4_000_000), ("Dockerfile", "FROM victim/app:1\n")])
    w.build(None, context=context)
    found = w.built()
    return found and w.inspect("images", "victim/app:1")["RootFS"]["Layers"][0] in found["RootFS"]["Layers"]
