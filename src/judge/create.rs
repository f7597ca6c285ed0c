//! What a new container may be given: `POST /containers/create`.

use super::limits::Demand;
use super::system::BUILDKIT;
use super::{Agent, Ask, binds, bodies, bridge, containers, env, images, labels, limits, networks, ports};
use crate::json::{Object, Value};
use crate::owner::{BINDS_LABEL, Standing};
use crate::permit::{Action, Answer, Payload, Permit, RegistryAuth, SeenAgain, Step, Verdict};
use crate::policy::{self, Policy};
use crate::refusal::Refusal;
use crate::route::image_reference;
use crate::schema;
use crate::world::{Container, Image, Network, World};
use std::path::PathBuf;

/// What Docker gives every container. Adding one of these again changes nothing.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// Options of the log drivers that keep the log with the container.
const LOG_OPTIONS: &[&str] =
    &["max-size", "max-file", "compress", "labels", "env", "env-regex", "tag", "mode", "max-buffer-size"];

/// What the tag of a log may be made of. Other templates show all that is known of the container.
const LOG_TAGS: &[&str] =
    &["{{.ID}}", "{{.FullID}}", "{{.Name}}", "{{.ImageName}}", "{{.ImageID}}", "{{.ImageFullID}}", "{{.DaemonName}}"];

/// Each name costs a look-up.
pub const MOST_NAMES: usize = 128;

/// Why a container with a checked bind is not restarted by the engine.
pub const NO_RESTART: &str =
    "the binds of this container are checked at each start, so the engine must not start it by itself on this version";

/// Judges the creation of a container.
pub async fn judge(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let policy = &agent.policy;
    let document = ask.body.take().ok_or_else(|| Refusal::malformed("a container's creation needs a body"))?;
    let mut body = schema::check(bodies::CONTAINER_CREATE, document)?;
    if let Some(name) = ask.query.text("name") {
        container_name("name", name)?;
    }
    // First what the client may not have at all, then what has to be looked up.
    let host = body.entry_object("HostConfig");
    modes(host, policy)?;
    privileges(host, policy)?;
    resources(host, agent)?;
    logging(host, policy)?;
    ports::judge(host, policy)?;
    let limits = limits::impose(host, &policy.quota)?;
    if let Some(restart) = host.get_mut("RestartPolicy").and_then(Value::as_object_mut) {
        restart_policy(restart)?;
    }
    env::list("Env", body.get("Env"), agent)?;
    labels::stamp_container(body.entry_object("Labels"), "Labels", agent)?;

    let image = judge_image(&body, agent, world).await?;
    let stamped = body.entry_object("Labels");
    labels::stamp_image(stamped, &image);
    labels::blank_inherited(stamped, &image.labels);
    ports::judge_exposed(&body, &image)?;
    foreign_namespaces(body.entry_object("HostConfig"), agent, world).await.map_err(not_the_image)?;
    let network = connect(&mut body, agent, world).await.map_err(not_the_image)?;
    let mounts = binds::judge(&mut body, &image, agent, world).await.map_err(not_the_image)?;
    impose(&mut body, agent);
    if let Some(record) = mounts.record.map(|record| record.to_string()) {
        if record.len() > labels::MOST_BYTES {
            return Err(labels::too_many("the binds and mounts of the container"));
        }
        body.entry_object("Labels").set(BINDS_LABEL, record);
    }

    let seen_again = mounts.some.then_some(SeenAgain { image: image.id, volumes: mounts.volumes });
    let mut permit = Permit::forward(&ask.route, ask.version, "/containers/create".to_owned(), ask.query)
        .with(Payload::Json(body.into()))
        .with_auth(RegistryAuth::Auth)
        .showing(Answer::Created { warnings: mounts.warnings, seen_again });
    if policy.quota.counts_containers() || (policy.quota.volumes.is_some() && !mounts.made.is_empty()) {
        permit.before.push(Step::Quota(Demand::Container { limits, volumes: mounts.made }));
    }
    permit.before.extend(network);
    permit.before.extend(mounts.before);
    permit.rewritten = true;
    if let (Action::Send(request), Some(least)) = (&mut permit.action, mounts.version) {
        // A sub-path is only read from this version on; what changed between the versions is not in the body.
        request.version = request.version.map(|version| version.max(least));
    }
    Ok(permit)
}

/// A `404` means to clients that the container's image is missing: they pull it and try again. Of anything else that a
/// creation names and that is not there, they hear by another status.
fn not_the_image(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Absent { message } => Refusal::Conflict { message },
        other => other,
    }
}

/// Checks a name that a container is about to get: one that looks like an ID could be taken for another container.
///
/// # Errors
/// A name of 64 hexadecimal digits, or that of buildx's builder.
pub fn container_name(field: &str, name: &str) -> Result<(), Refusal> {
    let plain = name.trim_start_matches('/');
    if plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Refusal::never(field, &Value::from(name), "it has the form of an ID"));
    }
    if plain.starts_with("buildx_buildkit_") {
        // buildx falls back to a privileged builder of its own; this is one of two places where its user looks.
        return Err(Refusal::never(field, &Value::from(name), BUILDKIT));
    }
    Ok(())
}

/// Checks a restart policy's name.
///
/// # Errors
/// A policy that the engine does not have.
pub fn restart_policy(policy: &Object) -> Result<(), Refusal> {
    match policy.get("Name").and_then(Value::as_str).unwrap_or_default() {
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Refusal::rejected(format!("invalid restart policy: unknown policy '{other}'"))),
    }
}

/// Would the engine start the container again by itself?
pub fn restarts(policy: &Object) -> bool {
    !matches!(policy.get("Name").and_then(Value::as_str).unwrap_or_default(), "" | "no")
}

/// The binds of a container that have to be looked at again at each start, as root and path below it.
pub fn checked_binds(container: &Container) -> Vec<(PathBuf, PathBuf)> {
    container.labels.get(BINDS_LABEL).map(|record| binds::checked(record)).unwrap_or_default()
}

fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Host namespaces, runtimes, drivers: fields that take one of a few words.
fn modes(host: &Object, policy: &Policy) -> Result<(), Refusal> {
    let container = &policy.container;
    let host_word = |field: &str, granted: bool, key| match host.get(field) {
        Some(value) if value.as_str() == Some("host") && !granted => {
            Err(Refusal::not_allowed(format!("HostConfig.{field}"), value, key))
        }
        _ => Ok(()),
    };
    host_word("NetworkMode", container.host_network, "container.host-network")?;
    host_word("PidMode", container.host_pid, "container.host-pid")?;
    host_word("IpcMode", container.host_ipc, "container.host-ipc")?;
    host_word("UTSMode", container.host_uts, "container.host-uts")?;
    let among = |field: &str, words: &[&str], hint: &str| match host.get(field) {
        Some(value) if !value.as_str().is_some_and(|word| words.contains(&word)) => {
            Err(Refusal::never(format!("HostConfig.{field}"), value, hint))
        }
        _ => Ok(()),
    };
    among("UTSMode", &["", "host"], "an own host name is set with Hostname")?;
    among("UsernsMode", &[""], "the engine's user name space is kept")?;
    among("CgroupnsMode", &["", "private"], "the container keeps a cgroup name space of its own")?;
    among("Isolation", &["", "default"], "it is for Windows hosts")?;
    among("VolumeDriver", &["", "local"], "only the `local` driver is served")?;
    let runtime = text(host, "Runtime");
    if !runtime.is_empty() && !container.runtimes.iter().any(|allowed| allowed == runtime) {
        return Err(Refusal::not_allowed("HostConfig.Runtime", &Value::from(runtime), "container.runtimes"));
    }
    Ok(())
}

fn privileges(host: &Object, policy: &Policy) -> Result<(), Refusal> {
    let container = &policy.container;
    if let Some(value) = host.get("Privileged").filter(|v| v.as_bool() == Some(true))
        && !container.privileged
    {
        return Err(Refusal::not_allowed("HostConfig.Privileged", value, "container.privileged"));
    }
    for value in words(host.get("CapAdd")) {
        let name = value.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        let granted = |allowed: &String| {
            let allowed = allowed.to_ascii_uppercase();
            allowed.strip_prefix("CAP_").unwrap_or(&allowed) == name
        };
        if !DEFAULT_CAPABILITIES.contains(&name) && !container.add_capabilities.iter().any(granted) {
            return Err(Refusal::not_allowed("HostConfig.CapAdd", &Value::from(value), "container.add-capabilities"));
        }
    }
    for value in words(host.get("SecurityOpt")) {
        let plain = matches!(value, "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true");
        if !plain && !policy::any(&container.security_options, value) {
            return Err(Refusal::not_allowed(
                "HostConfig.SecurityOpt",
                &Value::from(value),
                "container.security-options",
            ));
        }
    }
    for device in host.get("Devices").and_then(Value::as_array).unwrap_or_default() {
        let path = device.at(&["PathOnHost"]).and_then(Value::as_str).unwrap_or_default();
        let plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !plain || !policy::any(&container.devices, path) {
            return Err(Refusal::not_allowed("HostConfig.Devices", &Value::from(path), "container.devices"));
        }
    }
    if let Some(value) = host.get("DeviceRequests").filter(|v| !v.is_empty())
        && !container.device_requests
    {
        return Err(Refusal::not_allowed("HostConfig.DeviceRequests", value, "container.device-requests"));
    }
    Ok(())
}

/// A list of strings, or a string that stands for a list of one.
fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn resources(host: &Object, agent: &Agent) -> Result<(), Refusal> {
    if let Some(value) = host.get("OomScoreAdj").filter(|v| v.as_i64().is_some_and(|n| n < 0)) {
        return Err(Refusal::never(
            "HostConfig.OomScoreAdj",
            value,
            "a negative one puts the host's own processes at risk",
        ));
    }
    ulimits("HostConfig.Ulimits", host.get("Ulimits"))?;
    for (key, value) in host.get("Sysctls").and_then(Value::as_object).into_iter().flat_map(Object::iter) {
        if !policy::any(&agent.policy.container.sysctls, key) {
            return Err(Refusal::not_allowed(format!("HostConfig.Sysctls.{key}"), value, "container.sysctls"));
        }
    }
    for (key, value) in host.get("StorageOpt").and_then(Value::as_object).into_iter().flat_map(Object::iter) {
        if key != "size" {
            return Err(Refusal::not_allowed(format!("HostConfig.StorageOpt.{key}"), value, ""));
        }
    }
    match host.get("CgroupParent").filter(|v| !v.is_empty()) {
        // The agent's is put in its place.
        Some(value) if agent.cgroup_parent().is_none() => {
            Err(Refusal::not_allowed("HostConfig.CgroupParent", value, "container.cgroup-parent"))
        }
        _ => Ok(()),
    }
}

/// Limits of a process may be raised, but not those that let it starve the host's.
///
/// # Errors
/// `rtprio` or `nice`.
pub fn ulimits(field: &str, limits: Option<&Value>) -> Result<(), Refusal> {
    for ulimit in limits.and_then(Value::as_array).unwrap_or_default() {
        let name = ulimit.at(&["Name"]).and_then(Value::as_str).unwrap_or_default();
        if matches!(name.to_ascii_lowercase().as_str(), "rtprio" | "nice") {
            return Err(Refusal::never(field, &Value::from(name), "it would let a container starve the host"));
        }
    }
    Ok(())
}

fn logging(host: &Object, policy: &Policy) -> Result<(), Refusal> {
    let Some(config) = host.get("LogConfig").and_then(Value::as_object) else { return Ok(()) };
    let driver = text(config, "Type");
    if !driver.is_empty() && !policy.container.log_drivers.iter().any(|allowed| allowed == driver) {
        return Err(Refusal::not_allowed("HostConfig.LogConfig.Type", &Value::from(driver), "container.log-drivers"));
    }
    for (key, value) in config.get("Config").and_then(Value::as_object).into_iter().flat_map(Object::iter) {
        let field = format!("HostConfig.LogConfig.Config.{key}");
        let text = value.as_str().unwrap_or_default();
        if !LOG_OPTIONS.contains(&key) {
            // Its value may be a token.
            return Err(Refusal::operation(field, ""));
        }
        // The log shows what these name, and sockguard's own labels are not for clients.
        if key == "labels" && text.split(',').any(|label| labels::reserved(label.trim())) {
            return Err(Refusal::never(field, value, "these labels are sockguard's own"));
        }
        if key == "tag" && !plain_tag(text) {
            let hint = format!("only these may stand in braces: {}", LOG_TAGS.join(" "));
            return Err(Refusal::never(field, value, hint));
        }
    }
    Ok(())
}

/// Does the template of a log's tag show nothing but names and IDs?
fn plain_tag(template: &str) -> bool {
    let rest = LOG_TAGS.iter().fold(template.to_owned(), |rest, tag| rest.replace(tag, " "));
    !rest.contains("{{")
}

async fn judge_image(body: &Object, agent: &Agent, world: &impl World) -> Result<Image, Refusal> {
    let reference = text(body, "Image");
    if reference.is_empty() {
        return Err(Refusal::malformed("Image is missing: a container is made from an image"));
    }
    let name = image_reference(reference)?;
    let image = world.image(name.as_str()).await?;
    let image = image
        .filter(|image| image.standing(&agent.owner) != Standing::Foreign)
        .ok_or_else(|| Refusal::absent(images::absent_image(name.as_str())))?;
    match image.sealed() {
        true => Err(Refusal::never("Image", &Value::from(reference), "it carries a seal, which only containers may")),
        false => Ok(image),
    }
}

/// `container:NAME`, `VolumesFrom` and `Links` name own containers, and go on as the IDs that were checked.
async fn foreign_namespaces(host: &mut Object, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    for field in ["VolumesFrom", "Links"] {
        if host.get(field).and_then(Value::as_array).is_some_and(|names| names.len() > MOST_NAMES) {
            return Err(Refusal::malformed(format!("HostConfig.{field} has more than {MOST_NAMES} items")));
        }
    }
    for field in ["NetworkMode", "PidMode", "IpcMode"] {
        let mode = text(host, field).to_owned();
        if let Some(name) = mode.strip_prefix("container:") {
            let container = containers::by_reference(&format!("HostConfig.{field}"), name, agent, world).await?;
            host.set(field, format!("container:{}", container.id));
        } else {
            let known = match field {
                "PidMode" => matches!(mode.as_str(), "" | "host" | "private"),
                "IpcMode" => matches!(mode.as_str(), "" | "host" | "none" | "private" | "shareable"),
                // The name of a network, which `connect` looks up.
                _ => true,
            };
            if !known {
                return Err(Refusal::not_allowed(format!("HostConfig.{field}"), &Value::from(mode), ""));
            }
        }
    }
    if let Some(sources) = host.get_mut("VolumesFrom").and_then(Value::as_array_mut) {
        for source in sources {
            let (name, mode) = match source.as_str().unwrap_or_default().split_once(':') {
                Some((name, mode)) => (name.to_owned(), format!(":{mode}")),
                None => (source.as_str().unwrap_or_default().to_owned(), String::new()),
            };
            if !matches!(mode.as_str(), "" | ":ro" | ":rw" | ":z" | ":Z") {
                return Err(Refusal::not_allowed("HostConfig.VolumesFrom", source, ""));
            }
            let container = containers::by_reference("HostConfig.VolumesFrom", &name, agent, world).await?;
            if !checked_binds(&container).is_empty() {
                return Err(Refusal::never(
                    "HostConfig.VolumesFrom",
                    source,
                    "that container's binds are checked at its own starts only; name the bind itself",
                ));
            }
            *source = Value::from(format!("{}{mode}", container.id));
        }
    }
    if let Some(links) = host.get_mut("Links").and_then(Value::as_array_mut) {
        for link in links {
            *link = Value::from(containers::pin_link("HostConfig.Links", link, agent, world).await?);
        }
    }
    Ok(())
}

/// The networks that the container is connected to are own or built-in ones. Their IDs go along: the engine prefers
/// an ID to the name, at every start, so that a name which is bound anew leads nowhere else. What means the engine's
/// default network means the owner's bridge where owners are isolated; it then has to be there.
async fn connect(body: &mut Object, agent: &Agent, world: &impl World) -> Result<Option<Step>, Refusal> {
    // `docker run --network NAME` shows this as the engine's own words; a 404 would start a pull.
    let missing = |name: &str| Refusal::Conflict { message: format!("network {name} not found") };
    let mode = text(body.entry_object("HostConfig"), "NetworkMode").to_owned();
    let disabled = body.get("NetworkDisabled").and_then(Value::as_bool) == Some(true);
    let own_mode = if disabled { None } else { bridge::meant(&mode, agent, world).await? };
    let user_defined = own_mode.is_none()
        && !matches!(mode.as_str(), "" | "default" | "bridge" | "host" | "none")
        && !mode.starts_with("container:");
    let has_endpoints = body.get("NetworkingConfig").is_some_and(|v| v.at(&["EndpointsConfig"]).is_some());
    if !user_defined && !has_endpoints && own_mode.is_none() {
        return Ok(None);
    }
    let given = match has_endpoints {
        true => std::mem::take(body.entry_object("NetworkingConfig").entry_object("EndpointsConfig")),
        false => Object::new(),
    };
    if given.len() > MOST_NAMES {
        return Err(Refusal::malformed(format!("NetworkingConfig.EndpointsConfig has more than {MOST_NAMES} members")));
    }
    let mut endpoints = Object::new();
    let mut on_bridge = own_mode.is_some();
    for (name, endpoint) in given {
        let mut endpoint = match endpoint {
            Value::Object(endpoint) => endpoint,
            _ => Object::new(),
        };
        networks::judge_endpoint(&endpoint, &format!("NetworkingConfig.EndpointsConfig.{name}"), agent, world).await?;
        let key = if let Some(own) = bridge::meant(&name, agent, world).await? {
            on_bridge = true;
            own
        } else if name == "default" {
            name.into()
        } else {
            let network = networks::find(&name, agent, world).await?.ok_or_else(|| missing(&name))?;
            if network.name == "host" && !agent.policy.container.host_network {
                return Err(Refusal::not_allowed(
                    "NetworkingConfig.EndpointsConfig",
                    &Value::from(name.as_str()),
                    "container.host-network",
                ));
            }
            pin(&mut endpoint, &network, agent);
            network.name
        };
        if endpoints.get(&key).is_some() {
            return Err(Refusal::malformed(format!(
                "NetworkingConfig.EndpointsConfig names the network `{key}` twice"
            )));
        }
        endpoints.set(&key, Value::Object(endpoint));
    }
    if let Some(own) = &own_mode {
        let host = body.entry_object("HostConfig");
        host.set("NetworkMode", own.as_str());
        link(host, &mut endpoints, own);
    }
    if user_defined {
        let network = networks::find(&mode, agent, world).await?.ok_or_else(|| missing(&mode))?;
        if network.name == "host" && !agent.policy.container.host_network {
            return Err(Refusal::not_allowed("HostConfig.NetworkMode", &Value::from(mode), "container.host-network"));
        }
        pin(endpoints.entry_object(&network.name), &network, agent);
        if mode != network.name {
            body.entry_object("HostConfig").set("NetworkMode", network.id.as_str());
        }
    }
    if has_endpoints || !endpoints.is_empty() {
        body.entry_object("NetworkingConfig").set("EndpointsConfig", Value::Object(endpoints));
    }
    Ok(on_bridge.then(|| bridge::needed(agent)))
}

/// The links of a container that is on the owner's bridge. The engine reads `HostConfig.Links` on its own default network
/// only; elsewhere a link is a name for a container of the same network, which is known there by its short ID.
fn link(host: &mut Object, endpoints: &mut Object, network: &str) {
    const SHORT: usize = 12;
    let Some(Value::Array(links)) = host.remove("Links").filter(|links| !links.is_empty()) else { return };
    let short = |link: Value| {
        let (id, alias) = link.as_str().and_then(|link| link.split_once(':')).unwrap_or_default();
        Value::from(format!("{}:{alias}", id.get(..SHORT).unwrap_or(id)))
    };
    let links = links.into_iter().map(short);
    let endpoint = endpoints.entry_object(network);
    match endpoint.get_mut("Links").and_then(Value::as_array_mut) {
        Some(given) => given.extend(links),
        None => endpoint.set("Links", Value::Array(links.collect())),
    }
}

/// Names the network by its ID. Not a built-in one: its name is safe, and its ID another after the engine's restart.
fn pin(endpoint: &mut Object, network: &Network, agent: &Agent) {
    if network.standing(&agent.owner) == Standing::Own {
        endpoint.set("NetworkID", network.id.as_str());
    }
}

/// What is put on every container, whatever the client says.
fn impose(body: &mut Object, agent: &Agent) {
    let container = &agent.policy.container;
    if let Some(user) = &container.user {
        body.set("User", user.as_str());
    }
    let host = body.entry_object("HostConfig");
    if let Some(parent) = agent.cgroup_parent() {
        host.set("CgroupParent", parent);
    }
    if let Some(link) = &container.link {
        let name = link.split(':').next().unwrap_or_default();
        let link = Value::from(if link.contains(':') { link.clone() } else { format!("{name}:{name}") });
        match host.get_mut("Links").and_then(Value::as_array_mut) {
            Some(links) => links.push(link),
            None => host.set("Links", Value::Array(vec![link])),
        }
    }
}
