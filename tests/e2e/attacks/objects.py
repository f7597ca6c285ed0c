"""A victim's networks, volumes and images, by every endpoint and every form of a name."""

from harness import OWNER_LABEL as OWNER

from . import absent, attack, harmless, hidden, refused
from .containers import by, done, shown
from .world import archive, query

NETWORK, VOLUME, IMAGE = "victim-net", "victim-data", "victim/app:1"


def net(w):
    return w.stage.networks[NETWORK]


def image(w):
    return w.stage.known["images"][IMAGE]


# --- networks

by("a victim's network is inspected by name", "GET", "/networks/{}", done, lambda w: NETWORK)
by("a victim's network is inspected by ID", "GET", "/networks/{}", done, net)
by("a victim's network is inspected by short ID", "GET", "/networks/{}", done, lambda w: net(w)[:12])
by("a victim's network is inspected in detail", "GET", "/networks/{}?verbose=1&scope=local", done, lambda w: NETWORK)
by("a victim's network is removed", "DELETE", "/networks/{}", done, lambda w: "victim-idle")
by("a victim's network is removed by short ID", "DELETE", "/networks/{}", done, lambda w: w.stage.networks["victim-idle"][:12])


def joined(w, network=NETWORK):
    return any(c not in (w.box, w.stage.stopped) for c in w.inspect("networks", network)["Containers"])


def joins(label, ref):
    @attack(f"an own container is connected to a victim's network by {label}", absent)
    def _(w):
        box = w.own(HostConfig={"NetworkMode": "bridge"})
        w.foreign("POST", "/networks/{}/connect", ref(w), {"Container": box})
        return joined(w)


joins("name", lambda w: NETWORK)
joins("ID", net)
joins("short ID", lambda w: net(w)[:10])


@attack("an own container is created in a victim's network", hidden)
def _(w):
    if not w.bare:
        w.foreign("POST", "/containers/create", NETWORK, {"Image": "busybox", "HostConfig": {"NetworkMode": "{}"}})
    created = w.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "20"], "HostConfig": {"NetworkMode": NETWORK}})
    if created.status == 201:
        w.call("POST", f"/containers/{created.json()['Id']}/start")
    return joined(w)


@attack("an own container is created in a victim's network by ID", hidden)
def _(w):
    if not w.bare:
        w.foreign("POST", "/containers/create", net(w), {"Image": "busybox", "HostConfig": {"NetworkMode": "{}"}})
    created = w.call("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "20"], "HostConfig": {"NetworkMode": net(w)}})
    if created.status == 201:
        w.call("POST", f"/containers/{created.json()['Id']}/start")
    return joined(w)


@attack("an own container gets an endpoint in a victim's network", hidden)
def _(w):
    body = {"Image": "busybox", "Cmd": ["sleep", "20"], "HostConfig": {"NetworkMode": NETWORK},
            "NetworkingConfig": {"EndpointsConfig": {NETWORK: {}}}}
    created = w.call("POST", "/containers/create", body)
    if created.status == 201:
        w.call("POST", f"/containers/{created.json()['Id']}/start")
    return joined(w)


def pulls(label, ref):
    @attack(f"a victim is pulled into the attacker's network by {label}", hidden)
    def _(w):
        network = w.network()
        w.foreign("POST", f"/networks/{network}/connect", ref(w), {"Container": "{}"})
        return w.box in w.inspect("networks", network)["Containers"]


pulls("name", lambda w: "victim-box")
pulls("ID", lambda w: w.box)
pulls("short ID", lambda w: w.box[:12])


@attack("a victim is pulled into the attacker's network with a key in odd letters", hidden)
def _(w):
    network = w.network()
    w.json('{"container":"victim-box","Force":false}', f"/networks/{network}/connect")
    return w.box in w.inspect("networks", network)["Containers"]


by("a victim is cut from its network", "POST", "/networks/{}/disconnect", done, lambda w: NETWORK, {"Container": "victim-box", "Force": True}, expect=hidden)


@attack("a victim is cut from the shared bridge", hidden)
def _(w):
    w.foreign("POST", "/networks/bridge/disconnect", "victim-box", {"Container": "{}", "Force": True})
    return "bridge" not in w.inspect("containers", "victim-box")["NetworkSettings"]["Networks"]


@attack("a link to a victim is asked for with a connection", hidden)
def _(w):
    network = w.network()
    box = w.own(HostConfig={"NetworkMode": "bridge"})
    answer = w.foreign("POST", f"/networks/{network}/connect", "victim-box", {"Container": box, "EndpointConfig": {"Links": ["{}:v"]}})
    return answer.status == 200


@attack("the victims' unused networks are pruned", harmless)
def _(w):
    w.call("POST", "/networks/prune")
    return w.inspect("networks", "victim-idle") is None


@attack("a built-in network is removed or changed", harmless)
def _(w):
    # The engine refuses the removal of its own networks, but not of any other that nobody owns.
    made = w.others("networks", {"Name": "shared-net"}, owner=None)
    w.call("DELETE", "/networks/shared-net")
    return w.inspect("networks", made) is None


# --- volumes

by("a victim's volume is inspected", "GET", "/volumes/{}", done, lambda w: VOLUME)
by("a victim's volume is inspected with a version in front", "GET", "/v1.40/volumes/{}", done, lambda w: VOLUME)
by("a victim's volume is removed", "DELETE", "/volumes/{}", done, lambda w: "victim-idle")
by("a victim's volume is removed with force", "DELETE", "/volumes/{}?force=1", lambda w, a: w.inspect("volumes", "victim-idle") is None,
   lambda w: "victim-idle", expect=harmless)


@attack("the victims' unused volumes are pruned", harmless)
def _(w):
    w.call("POST", "/volumes/prune")
    return w.inspect("volumes", "victim-idle") is None


@attack("the victims' unused volumes are pruned by their own label", harmless)
def _(w):
    w.call("POST", "/volumes/prune?" + query(filters={"label": {f"{OWNER}=victim": True}}))
    return w.inspect("volumes", "victim-idle") is None


# --- images

by("a victim's image is inspected", "GET", "/images/{}/json", shown, lambda w: IMAGE)
by("a victim's image is inspected by ID", "GET", "/images/{}/json", shown, image)
by("a victim's image is inspected by short ID", "GET", "/images/{}/json", shown, lambda w: image(w)[7:19])
by("a victim's image is inspected by a prefix of its digest", "GET", "/images/{}/json", shown, lambda w: image(w)[:20])
by("a victim's image is inspected by its full name", "GET", "/images/{}/json", shown, lambda w: "docker.io/victim/app:1")
by("a victim's image's history is read", "GET", "/images/{}/history", done, lambda w: IMAGE)
by("a victim's image is saved", "GET", "/images/{}/get", done, lambda w: IMAGE)
by("a victim's image is saved by ID", "GET", "/images/{}/get", done, lambda w: image(w)[7:19])
by("a victim's image is saved among others", "GET", "/images/get?names={}", done, lambda w: IMAGE)
by("a victim's image is tagged with an own name", "POST", "/images/{}/tag?repo=attacker/stolen&tag=1", done, lambda w: IMAGE)
by("a victim's image is tagged by ID", "POST", "/images/{}/tag?repo=attacker/stolen&tag=1", done, image)
by("a victim's image is removed", "DELETE", "/images/{}", done, lambda w: "victim/idle:1")
by("a victim's image is removed by ID with force", "DELETE", "/images/{}?force=1", done, lambda w: w.stage.known["images"]["victim/idle:1"])
by("a victim's image is removed by short ID", "DELETE", "/images/{}?force=1", done, lambda w: w.stage.known["images"]["victim/idle:1"][7:19])


@attack("a victim's image is saved behind an own one", harmless)
def _(w):
    w.own_image()
    return w.victim_secret.encode() in w.call("GET", "/images/get?names=attacker/app:1&names=victim/app:1").body


def runs(label, ref, expect=hidden):
    @attack(f"a victim's image is run by {label}", expect)
    def _(w):
        name = ref(w)
        if not w.bare:
            w.foreign("POST", "/containers/create", name, {"Image": "{}", "Cmd": ["true"]})
        return w.victim_secret in w.output("cat /image-secret", Image=name)


runs("name", lambda w: IMAGE)
runs("ID", image)
runs("short ID", lambda w: image(w)[7:19])
runs("name with its registry", lambda w: "docker.io/victim/app:1")


@attack("a victim's image is pushed to a registry of the attacker", hidden)
def _(w):
    name = f"127.0.0.1:{w.loopback.port}/victim/app"
    w.god("POST", f"/images/{image(w)}/tag?repo={name}&tag=1")
    w.foreign("POST", "/images/{}/push?tag=1", name, headers={"X-Registry-Auth": "e30="})
    return w.reached("POST /v2/")


@attack("the victims' unused images are pruned", harmless)
def _(w):
    w.call("POST", "/images/prune?" + query(filters={"dangling": ["false"]}))
    return w.inspect("images", "victim/idle:1") is None


@attack("the victims' unused images are pruned by a map of filters", harmless)
def _(w):
    w.call("POST", "/images/prune?" + query(filters={"dangling": {"0": True}, "label!": {f"{OWNER}=attacker": True}}))
    return w.inspect("images", "victim/idle:1") is None
