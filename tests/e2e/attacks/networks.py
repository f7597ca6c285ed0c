"""Networks that take over the host's interfaces, addresses and routes."""

import json

from . import attack, harmless, hidden, refused, rejected


def made(label, body, proof=None, expect=refused()):
    @attack(f"a network is made {label}", expect)
    def _(w):
        request = {"Name": "attacker-net", **(body(w) if callable(body) else body)}
        answer = w.call("POST", "/networks/create", request)
        return answer.status == 201 and (proof is None or proof(w))


def address(text):
    return lambda w: text in w.stage.inside("ip", "-o", "addr")


def pool(subnet, gateway=None, **more):
    return {"IPAM": {"Config": [{"Subnet": subnet, **({"Gateway": gateway} if gateway else {}), **more}]}}


def bridge(**options):
    return {"Options": {"com.docker.network.bridge." + k: v for k, v in options.items()}}


made("over the addresses of instance metadata", pool("169.254.169.0/24", "169.254.169.254"), address("169.254.169.254"), refused("169.254"))
made("over link-local addresses", pool("169.254.0.0/16", "169.254.7.7"), address("169.254.7.7"), refused("169.254"))
made("over loopback addresses", pool("127.9.0.0/16", "127.9.0.1"), address("127.9.0.1"), refused("127."))
made("over public addresses", pool("8.8.8.0/24", "8.8.8.8"), address("8.8.8.8"), refused("8.8.8"))
made("over half of all addresses", pool("0.0.0.0/1", "10.99.0.1"), address("10.99.0.1"), refused("0.0.0.0/1"))
made("over multicast addresses", pool("224.0.0.0/8", "224.0.0.9"), address("224.0.0.9"), refused("224."))
made("over IPv6 link-local addresses", {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fe80:1::/64", "Gateway": "fe80:1::1"}]}}, None, refused("fe80"))
made("over IPv6 documentation addresses that a host may route", {"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "2600::/64"}]}}, None, refused("2600"))
made("with a bridge name of its choice", bridge(name="evil0"), lambda w: "evil0" in w.stage.inside("ip", "-o", "link"), refused("com.docker.network.bridge.name"))
made("on the interface of the shared bridge", bridge(name="docker0"), None, refused("com.docker.network.bridge.name"))
made("that publishes on a host address of its choice", bridge(host_binding_ipv4="127.0.0.1"), None, refused("host_binding_ipv4"))
made("with an interface prefix of its choice", {"Options": {"com.docker.network.container_iface_prefix": "lo"}}, None, refused("container_iface_prefix"))
made("with an option that sockguard does not know", {"Options": {"com.example.hole": "1"}}, None, refused("com.example.hole"))
made("that is only a configuration", {"ConfigOnly": True, "Labels": {}}, None, refused("ConfigOnly"))


@attack("a network is made from a victim's configuration", hidden)
def _(w):
    w.others("networks", {"Name": "victim-config", "ConfigOnly": True, "IPAM": {"Config": [{"Subnet": "10.97.0.0/24"}]}})
    w.call("POST", "/networks/create", {"Name": "attacker-net", "ConfigFrom": {"Network": "victim-config"}})
    return "10.97.0" in json.dumps(w.inspect("networks", "attacker-net") or {})


@attack("a network over metadata addresses hides behind a second pool", rejected)
def _(w):
    made = w.json('{"Name":"attacker-net","IPAM":{"Config":[{"Subnet":"10.98.0.0/24"}],"config":[{"Subnet":"169.254.169.0/24","Gateway":"169.254.169.254"}]}}',
                  "/networks/create")
    return made.status == 201 and "169.254.169.254" in w.stage.inside("ip", "-o", "addr")


@attack("a network over metadata addresses hides behind the case of its keys", refused("169.254"))
def _(w):
    made = w.json('{"name":"attacker-net","ipam":{"confIG":[{"ſubnet":"169.254.169.0/24","gateway":"169.254.169.254"}]}}', "/networks/create")
    return made.status == 201 and "169.254.169.254" in w.stage.inside("ip", "-o", "addr")


@attack("a network's gateway is an address of the host", refused())
def _(w):
    w.stage.inside("ip", "addr", "add", "192.0.2.77/24", "dev", "lo")
    try:
        made = w.call("POST", "/networks/create", {"Name": "attacker-net", **pool("192.0.2.0/24", "192.0.2.77")})
        return made.status == 201 and "br-" in w.stage.inside("ip", "-o", "addr", "show", "to", "192.0.2.77/32")
    finally:
        w.stage.inside("ip", "addr", "del", "192.0.2.77/24", "dev", "lo")


@attack("a second network of a victim's name makes the name ambiguous", harmless)
def _(w):
    w.call("POST", "/networks/create", {"Name": "victim-net"})
    from harness import raw
    answer = raw(w.victim_socket, "GET", "/networks/victim-net")
    return answer.status != 200 or answer.json()["Id"] != w.stage.known["networks"]["victim-net"][0]


@attack("a container joins the host's network by a connection", rejected)
def _(w):
    created = w.call("POST", "/containers/create", {
        "Image": "busybox", "Cmd": ["readlink", "/proc/self/ns/net"], "HostConfig": {"NetworkMode": "host"},
        "NetworkingConfig": {"EndpointsConfig": {"host": {}}}})
    return w.finish(created) == w.stage.namespace("net")
