"""What lists, events, counts and error texts tell about others."""

import threading
import time
import urllib.parse

from harness import OWNER_LABEL as OWNER

from . import attack, harmless, hidden, refused
from .world import query

VICTIM = [f"{OWNER}=victim"]


def listed(label, path, proof, expect=harmless):
    @attack(label, expect)
    def _(w):
        path_here = path(w) if callable(path) else path
        answer = w.call("GET", path_here)
        return answer.status == 200 and proof(w, answer)


def box(w, answer):
    return w.box in answer.text


def named(name):
    return lambda w, answer: name in answer.text


CONTAINERS = "/containers/json?"
listed("a list of containers shows a victim's", CONTAINERS + "all=1", box)
listed("a list of containers is filtered by a victim's label", CONTAINERS + query(all=1, filters={"label": VICTIM}), box)
listed("a list of containers is filtered by two owners' labels", CONTAINERS + query(all=1, filters={"label": [f"{OWNER}"]}), box)
listed("a list of containers is filtered by a map", CONTAINERS + query(filters={"label": {VICTIM[0]: True}}), box)
listed("a list of containers is filtered by a map of falsehoods", CONTAINERS + query(filters={"label": {OWNER: False}}), box)
listed("a list of containers is filtered by a victim's ID", lambda w: CONTAINERS + query(filters={"id": [w.box]}), box)
listed("a list of containers is filtered by a victim's name", CONTAINERS + query(filters={"name": ["victim"]}), box)
listed("a list of containers is filtered by its state", CONTAINERS + query(filters={"status": ["running", "created"]}), box)
listed("a list of containers is filtered by nothing", CONTAINERS + "all=1&filters=", box)
listed("the last containers are listed", CONTAINERS + "limit=50&size=1", box)


def told(label, path, known, expect=hidden):
    """A filter whose answer tells whether something of a victim exists."""
    @attack(label, expect)
    def _(w):
        ref = known(w) if callable(known) else known
        answer = w.foreign("GET", path.replace("REF", "{}"), ref)
        return answer.status == 200


told("a victim's name is found by asking for containers before it", CONTAINERS + "all=1&filters=%7B%22before%22:[%22REF%22]%7D", "victim-box")
told("a victim's ID is found by asking for containers since it", CONTAINERS + "all=1&filters=%7B%22since%22:[%22REF%22]%7D", lambda w: w.box)
told("a victim's image is found by asking for images before it", "/images/json?filters=%7B%22before%22:[%22REF%22]%7D", "victim/app:1")
told("a victim's image is found by asking for images since it", "/images/json?filters=%7B%22since%22:[%22REF%22]%7D", "victim/app:1")


@attack("the attacker's containers are counted by a victim's network", harmless)
def _(w):
    # Filters by network, volume and ancestor take foreign names: their answer must not depend on those.
    answer = w.call("GET", CONTAINERS + query(all=1, filters={"volume": ["victim-data"]}))
    return answer.status == 200 and w.box in answer.text


@attack("containers are found by a victim's image", harmless)
def _(w):
    answer = w.call("GET", CONTAINERS + query(all=1, filters={"ancestor": ["victim/app:1"]}))
    return answer.status == 200 and w.box in answer.text


listed("a list of images shows a victim's", "/images/json", named("victim/app:1"))
listed("a list of all images shows a victim's", "/images/json?all=1&digests=1", named("victim/app:1"))
listed("a list of images is filtered by a victim's label", "/images/json?" + query(filters={"label": VICTIM}), named("victim/app:1"))
listed("a list of images is filtered by a victim's name", "/images/json?" + query(filters={"reference": ["victim/*"]}), named("victim/app:1"))
listed("a list of images is filtered by the old parameter", "/v1.40/images/json?filter=victim/app", named("victim/app:1"))
listed("a list of volumes shows a victim's", "/volumes", named("victim-data"))
listed("a list of volumes is filtered by a victim's label", "/volumes?" + query(filters={"label": VICTIM}), named("victim-data"))
listed("a list of volumes is filtered by a victim's name", "/volumes?" + query(filters={"name": ["victim"]}), named("victim-data"))
listed("a list of dangling volumes shows a victim's", "/volumes?" + query(filters={"dangling": ["true"]}), named("victim-idle"))
listed("a list of networks shows a victim's", "/networks", named("victim-net"))
listed("a list of networks is filtered by a victim's label", "/networks?" + query(filters={"label": VICTIM}), named("victim-net"))
listed("a list of networks is filtered by a victim's name", "/networks?" + query(filters={"name": ["victim-net"]}), named("victim-net"))
listed("a list of networks is filtered by its kind", "/networks?" + query(filters={"type": ["custom"], "driver": ["bridge"]}), named("victim-net"))
listed("the shared bridge shows a victim's container", "/networks/bridge", box)
listed("the shared bridge shows a victim's container by its ID", lambda w: "/networks/" + w.inspect("networks", "bridge")["Id"], box)
listed("the shared bridge shows a victim's container in detail", "/networks/bridge?verbose=true", box)
listed("a list of networks of the old API shows who is on the bridge", "/v1.27/networks", box)
listed("disk usage shows a victim's containers", "/system/df", box)
listed("disk usage shows a victim's images", "/system/df", named("victim/app:1"))
listed("disk usage shows a victim's volumes", "/system/df", named("victim-data"))


@attack("the engine's counts tell how many containers others have", harmless)
def _(w):
    return w.call("GET", "/info").json().get("Containers") != 0


@attack("the engine's counts tell how many images there are in all", harmless)
def _(w):
    visible = {i for i in w.stage.census()["images"] if i not in
               (w.stage.known["images"]["victim/app:1"], w.stage.known["images"]["victim/idle:1"])}
    return w.call("GET", "/info").json().get("Images", 0) > len(visible)


# --- events


def events(label, parameters, cause, proof):
    @attack(f"a victim's doings are seen in the events {label}", harmless)
    def _(w):
        start = int(time.time()) - 1
        cause(w)
        end = int(time.time()) + 1
        text = w.call("GET", "/events?" + query(since=start, until=end, **parameters)).text
        return proof in text


def stir(w):
    w.god("POST", "/containers/victim-box/kill?signal=CONT")


events("of the past", {}, stir, "victim-box")
events("filtered by its name", {"filters": {"container": ["victim-box"]}}, stir, "victim-box")
events("filtered by its label", {"filters": {"label": VICTIM}}, stir, "victim-box")
events("filtered by a map", {"filters": {"label": {VICTIM[0]: True}, "type": {"container": True}}}, stir, "victim-box")


def make_and_remove(kind, body):
    def cause(w):
        made = w.stage.must("POST", f"/{kind}/create", body)
        w.stage.must("DELETE", f"/{kind}/" + (made.get("Id") or made["Name"]))
    return cause


events("of volumes", {"filters": {"type": ["volume"]}}, make_and_remove("volumes", {"Name": "victim-new", "Labels": {OWNER: "victim"}}), "victim-new")
events("of networks", {"filters": {"type": ["network"]}}, make_and_remove("networks", {"Name": "victim-new", "Labels": {OWNER: "victim"}}), "victim-new")
events("of images", {"filters": {"type": ["image"]}}, lambda w: w.god("POST", "/images/victim/app:1/tag?repo=victim/new"), "victim/new")


@attack("a victim's doings are seen in the events as they happen", harmless)
def _(w):
    over = threading.Event()

    def stirs():
        while not over.wait(0.1):
            stir(w)
    thread = threading.Thread(target=stirs)
    thread.start()
    try:
        return w.box in w.call("GET", "/events?" + query(until=int(time.time()) + 3 * w.patience)).text
    finally:
        over.set()
        thread.join()


@attack("a victim's network's events are seen through an own container's", harmless)
def _(w):
    start = int(time.time()) - 1
    w.god("POST", "/networks/victim-net/disconnect", {"Container": w.box})
    w.god("POST", "/networks/victim-net/connect", {"Container": w.box})
    w.before = w.stage.fingerprint()
    return w.box in w.call("GET", "/events?" + query(since=start, until=int(time.time()) + 1)).text


# --- error texts


@attack("a name that is in use tells the victim's ID", harmless)
def _(w):
    return w.box in w.call("POST", "/containers/create?name=victim-box", {"Image": "busybox"}).text


@attack("a name that is in use tells the victim's ID to a rename", harmless)
def _(w):
    own = w.own(start=False)
    return w.box in w.call("POST", f"/containers/{own}/rename?name=victim-box").text


@attack("the removal of an own image tells which foreign container uses it", harmless)
def _(w):
    w.own_image(dockerfile="FROM busybox\nENV a=b\n")
    user = w.others("containers", {"Image": "attacker/app:1"}, "victim-user")
    return user[:12] in w.call("DELETE", "/images/attacker/app:1").text


@attack("the removal of an own image by ID tells which foreign container uses it", harmless)
def _(w):
    image = w.own_image(dockerfile="FROM busybox\nENV a=b\n")
    user = w.others("containers", {"Image": "attacker/app:1"}, "victim-user")
    return user[:12] in w.call("DELETE", f"/images/{image}?force=0").text


@attack("the removal of an own volume tells which foreign container uses it", harmless)
def _(w):
    w.must("POST", "/volumes/create", {"Name": "attacker-v"})
    user = w.others("containers", {"Image": "busybox", "HostConfig": {"Binds": ["attacker-v:/x"]}}, "victim-user")
    return user in w.call("DELETE", "/volumes/attacker-v").text


def _host_processes(words):
    @attack(f"the words `{words}` for ps tell of the host's processes", refused("ps_args"))
    def _(w):
        box = w.own()
        answer = w.call("GET", f"/containers/{box}/top?ps_args={urllib.parse.quote(words)}")
        return "nexpected pid" in answer.text


_host_processes("axeww -oargs,uid,pid")
_host_processes("-eo args,pid")
