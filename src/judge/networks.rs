//! Networks: own ones of the bridge driver, and the built-in ones to read.

use super::limits::Demand;
use super::system::{known_filters, own_only};
use super::{Agent, Ask, bodies, bridge, containers, labels};
use crate::json::{Object, Value};
use crate::owner::{BRIDGE_LABEL, Standing};
use crate::permit::{Answer, Payload, Permit, Step, Verdict, View};
use crate::policy::{self, NetworkOperation};
use crate::query::Param;
use crate::refusal::Refusal;
use crate::route::{Name, Networks};
use crate::schema;
use crate::world::{Network, World};
use ipnet::IpNet;
use std::net::IpAddr;

/// Options of a network that stay within it. Others name interfaces or addresses of the host.
const OPTIONS: &[&str] = &[
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.driver.mtu",
    "com.docker.network.enable_ipv4",
    "com.docker.network.enable_ipv6",
];

/// Judges a request on networks.
pub async fn judge(route: Networks, mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let policy = &agent.policy.network;
    let granted =
        |operation, what: &str, key| if policy.grants(operation) { Ok(()) } else { Err(Refusal::operation(what, key)) };
    match &route {
        Networks::List => {
            granted(NetworkOperation::Read, "reading networks", "network.allow: \"read\"")?;
            known_filters(&ask.query, &["dangling", "driver", "id", "label", "name", "scope", "type"])?;
            Ok(forward(ask, "/networks".to_owned()).showing(Answer::View(View::NetworkList)))
        }
        Networks::Inspect(name) => {
            granted(NetworkOperation::Read, "reading networks", "network.allow: \"read\"")?;
            let network = find(name.as_str(), agent, world).await?.ok_or_else(|| absent(name))?;
            // What a swarm would know of it is not asked for: there is none.
            ask.query.remove("verbose");
            ask.query.remove("scope");
            Ok(forward(ask, format!("/networks/{}", network.id)).showing(Answer::View(View::Network)))
        }
        Networks::Create => {
            granted(NetworkOperation::Create, "creating networks", "network.allow: \"create\"")?;
            create(ask, agent)
        }
        Networks::Connect(name) => {
            granted(NetworkOperation::Connect, "connecting containers to networks", "network.allow: \"connect\"")?;
            let network = find(name.as_str(), agent, world).await?.ok_or_else(|| absent(name))?;
            if network.name == "host" && !agent.policy.container.host_network {
                let name = Value::from(name.as_str());
                return Err(Refusal::not_allowed("connecting to the network", &name, "container.host-network"));
            }
            if agent.policy.network.isolated && network.name == "bridge" {
                let hint = format!("your containers have the network `{}` in its place", bridge::name(&agent.owner));
                let name = Value::from(name.as_str());
                return Err(Refusal::not_allowed("connecting to the network", &name, "network.isolated").hint(hint));
            }
            let mut body =
                schema::check(bodies::NETWORK_CONNECT, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
            pin_container(&mut body, agent, world).await?;
            if let Some(endpoint) = body.get("EndpointConfig").and_then(Value::as_object) {
                judge_endpoint(endpoint, "EndpointConfig", agent, world).await?;
            }
            if network.standing(&agent.owner) == Standing::Own && !bridge::reserved(&network.name) {
                // The engine keeps it and prefers it to the name at the container's later starts.
                body.entry_object("EndpointConfig").set("NetworkID", network.id.as_str());
            }
            Ok(forward(ask, format!("/networks/{}/connect", network.id)).with(Payload::Json(body.into())))
        }
        Networks::Disconnect(name) => {
            granted(NetworkOperation::Connect, "disconnecting containers from networks", "network.allow: \"connect\"")?;
            let network = find(name.as_str(), agent, world).await?.ok_or_else(|| absent(name))?;
            let mut body =
                schema::check(bodies::NETWORK_DISCONNECT, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
            pin_container(&mut body, agent, world).await?;
            Ok(forward(ask, format!("/networks/{}/disconnect", network.id)).with(Payload::Json(body.into())))
        }
        Networks::Delete(name) => {
            granted(NetworkOperation::Remove, "removing networks", "network.allow: \"remove\"")?;
            let network = find(name.as_str(), agent, world).await?.ok_or_else(|| absent(name))?;
            if network.standing(&agent.owner) != Standing::Own {
                let message = format!("{} is a pre-defined network and cannot be removed", network.name);
                return Err(Refusal::Forbidden { message });
            }
            let mut permit = forward(ask, format!("/networks/{}", network.id));
            if let Some(container) = &policy.join_container {
                permit.before.push(Step::Leave { container: container.clone(), network: network.id });
            }
            Ok(permit)
        }
        Networks::Prune => {
            granted(NetworkOperation::Remove, "removing networks", "network.allow: \"remove\"")?;
            known_filters(&ask.query, &["label", "label!", "until"])?;
            own_only(&mut ask.query, agent);
            let mut filters = ask.query.filters();
            // The engine never prunes its own default network. Of several such filters it asks that all of them match,
            // so this one would take from what the client's own say.
            if agent.policy.network.isolated && filters.values("label!").is_empty() {
                filters.add("label!", BRIDGE_LABEL);
                ask.query.set("filters", Param::Filters(filters));
            }
            Ok(forward(ask, "/networks/prune".to_owned()))
        }
    }
}

fn forward(ask: Ask, path: String) -> Permit {
    Permit::forward(&ask.route, ask.version, path, ask.query)
}

fn absent(name: &Name) -> Refusal {
    Refusal::absent(format!("network {name} not found"))
}

/// The network, if the agent may use it: an own or a built-in one.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn find(reference: &str, agent: &Agent, world: &impl World) -> Result<Option<Network>, Refusal> {
    let network = world.network(reference).await?;
    Ok(network.filter(|network| network.standing(&agent.owner) != Standing::Foreign))
}

/// Puts the ID of the own container that the body names in its place.
async fn pin_container(body: &mut Object, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    let name = body.get("Container").and_then(Value::as_str).unwrap_or_default().to_owned();
    let container = containers::by_reference("Container", &name, agent, world).await?;
    body.set("Container", container.id.as_str());
    Ok(())
}

/// Judges what a container asks of a network that it is connected to.
///
/// # Errors
/// Links to foreign containers, driver options that are not known.
pub async fn judge_endpoint(endpoint: &Object, path: &str, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    if let Some(options) = endpoint.get("DriverOpts").and_then(Value::as_object) {
        for (key, value) in options.iter() {
            if key != "com.docker.network.endpoint.ifname" {
                return Err(Refusal::not_allowed(format!("{path}.DriverOpts.{key}"), value, ""));
            }
        }
    }
    if let Some(links) = endpoint.get("Links").and_then(Value::as_array) {
        if links.len() > super::create::MOST_NAMES {
            return Err(Refusal::malformed(format!("{path}.Links has more than {} items", super::create::MOST_NAMES)));
        }
        for link in links {
            // As it was given: it is a name in the network, where own containers only are, and none of its names is an ID.
            containers::pin_link(&format!("{path}.Links"), link, agent, world).await?;
        }
    }
    Ok(())
}

fn create(mut ask: Ask, agent: &Agent) -> Verdict {
    let policy = &agent.policy.network;
    let mut body = schema::check(bodies::NETWORK_CREATE, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
    only("Driver", body.get("Driver"), &["", "bridge"], "only the `bridge` driver is served")?;
    only("Scope", body.get("Scope"), &["", "local"], "only local networks are served")?;
    let name = body.get("Name").and_then(Value::as_str).unwrap_or_default();
    if matches!(name, "bridge" | "host" | "none" | "default") {
        // The engine refuses these itself, in these words and with the space.
        return Err(Refusal::Forbidden {
            message: format!("operation is not permitted on predefined {name} network "),
        });
    }
    if bridge::reserved(name) {
        let hint = "such names are those of the default networks that sockguard makes; choose another";
        return Err(Refusal::never("Name", &Value::from(name), hint));
    }
    if let Some(options) = body.get("Options").and_then(Value::as_object) {
        for (key, value) in options.iter() {
            if !OPTIONS.contains(&key) {
                return Err(Refusal::not_allowed(format!("Options.{key}"), value, ""));
            }
        }
    }
    if let Some(ipam) = body.get("IPAM").and_then(Value::as_object) {
        only("IPAM.Driver", ipam.get("Driver"), &["", "default"], "only the default address management is served")?;
        for (i, config) in ipam.get("Config").and_then(Value::as_array).unwrap_or_default().iter().enumerate() {
            judge_addresses(config, i, policy)?;
        }
    }
    labels::stamp_object(body.entry_object("Labels"), "Labels", agent)?;
    let mut permit = forward(ask, "/networks/create".to_owned())
        .with(Payload::Json(body.into()))
        .showing(Answer::View(View::NetworkCreated));
    permit.rewritten = true;
    if agent.policy.quota.networks.is_some() {
        permit.before.push(Step::Quota(Demand::Network));
    }
    if let Some(container) = &policy.join_container {
        permit.after.push(Step::Join { container: container.clone(), alias: policy.join_alias.clone() });
    }
    Ok(permit)
}

/// Refuses all but a few values of a field.
fn only(field: &str, value: Option<&Value>, allowed: &[&str], hint: &str) -> Result<(), Refusal> {
    match value {
        Some(value) if !value.as_str().is_some_and(|text| allowed.contains(&text)) => {
            Err(Refusal::never(field, value, hint))
        }
        _ => Ok(()),
    }
}

/// The bridge takes an address in the sub-net, and the host routes the sub-net there: one over the host's own
/// addresses takes their traffic.
fn judge_addresses(config: &Value, i: usize, policy: &policy::Network) -> Result<(), Refusal> {
    let text = |key: &str| config.at(&[key]).and_then(Value::as_str).filter(|text| !text.is_empty());
    let field = |key: &str| format!("IPAM.Config[{i}].{key}");
    let Some(subnet_text) = text("Subnet") else {
        return match text("IPRange").or(text("Gateway")) {
            Some(_) => {
                Err(Refusal::malformed(format!("{} is missing where a range or gateway is given", field("Subnet"))))
            }
            None => Ok(()),
        };
    };
    let bad = |key: &str, text: &str| {
        Refusal::malformed(format!("{} is no address of the expected form: `{text}`", field(key)))
    };
    let subnet: IpNet = subnet_text.parse().map_err(|_| bad("Subnet", subnet_text))?;
    let refused = |key| Err(Refusal::not_allowed(field("Subnet"), &Value::from(subnet_text), key));
    if always_reserved().iter().chain(&policy.reserved_subnets).any(|net| overlap(net, &subnet)) {
        return refused("network.reserved-subnets");
    }
    if !policy.subnets.iter().any(|net| net.contains(&subnet)) {
        return refused("network.subnets");
    }
    if let Some(range) = text("IPRange") {
        let parsed: IpNet = range.parse().map_err(|_| bad("IPRange", range))?;
        if !subnet.contains(&parsed) {
            return Err(Refusal::malformed(format!(
                "{} `{range}` is not within the sub-net `{subnet_text}`",
                field("IPRange")
            )));
        }
    }
    if let Some(gateway) = text("Gateway") {
        let address = gateway.split('/').next().unwrap_or_default();
        let parsed: IpAddr = address.parse().map_err(|_| bad("Gateway", gateway))?;
        if !subnet.contains(&parsed) {
            return Err(Refusal::malformed(format!(
                "{} `{gateway}` is not within the sub-net `{subnet_text}`",
                field("Gateway")
            )));
        }
    }
    Ok(())
}

/// Loopback, link-local (instance metadata among them), multicast, unspecified.
fn always_reserved() -> Vec<IpNet> {
    [
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "0.0.0.0/8",
        "::/127",
        "fe80::/10",
        "ff00::/8",
        "::ffff:0:0/96",
        "fd00:ec2::/32",
    ]
    .iter()
    .filter_map(|net| net.parse().ok())
    .collect()
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
