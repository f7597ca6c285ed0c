//! What a new container mounts: binds, volumes, images, tmpfs, under `HostConfig.Binds`, `HostConfig.Mounts` and
//! `Volumes` alike.
//!
//! A bind names a host path. The engine follows symbolic links in it at every start, so a path that an agent can write
//! below is never simply handed on (promise 8): where the engine mounts sub-paths of volumes, a bind below a root
//! becomes one of a volume that stands for the root; elsewhere it is looked at now and again at each start.

use super::limits::NewVolumes;
use super::own_mounts::{self, OwnMount, Source};
use super::volumes::{self, ROOT_PREFIX};
use super::{Agent, Caller, labels};
use crate::json::{self, Object, Value};
use crate::owner::{ROOT_LABEL, Standing};
use crate::permit::Step;
use crate::policy::{Access, AliasTarget, BindRoot, DockerSocket};
use crate::refusal::Refusal;
use crate::route::{ApiVersion, image_reference};
use crate::world::{Image, PathFact, Volume, World};
use std::path::{Path, PathBuf};

/// The API version that brought sub-paths of volumes.
const SUBPATHS: ApiVersion = ApiVersion(1, 45);

/// Each mount may cost a look-up. The largest compose files have some dozens.
const MOST_MOUNTS: usize = 256;

/// What the mounts of a container come to, beside the changed body.
#[derive(Debug, Default)]
pub struct Mounts {
    /// Is anything mounted at all?
    pub some: bool,
    /// What has to be there before the container is made.
    pub before: Vec<Step>,
    /// Named volumes that it mounts; they must still be usable when it was made.
    pub volumes: Vec<String>,
    /// Those of the owner's that are made with it, by name or not.
    pub made: NewVolumes,
    /// What the client asked for and what has to be looked at again, for the label; nothing where nothing was changed.
    pub record: Option<Value>,
    /// For the create answer's `Warnings`.
    pub warnings: Vec<String>,
    /// The least API version that the request must be sent with.
    pub version: Option<ApiVersion>,
    checked: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    /// Adds a step, unless another mount needed it before.
    fn first(&mut self, step: Step) {
        if !self.before.contains(&step) {
            self.before.push(step);
        }
    }

    /// Notes a named volume that is mounted. An own one that is there now may have to be made again by then.
    fn mounts(&mut self, name: String, found: Option<&Volume>, agent: &Agent) {
        if found.is_none_or(|volume| volume.standing(&agent.owner) == Standing::Own) {
            self.made.named.insert(name.clone());
        }
        self.volumes.push(name);
    }

    /// A sub-path of the volume that stands for a directory of the host.
    fn subpath(&mut self, root: &Path, below: &Path) -> At {
        let volume = root_volume(root);
        let options = [("type", "none"), ("o", "rbind"), ("device", &root.to_string_lossy())];
        self.first(Step::CreateVolume {
            name: volume.clone(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            labels: vec![(ROOT_LABEL.to_owned(), root.to_string_lossy().into_owned())],
        });
        self.version = Some(SUBPATHS);
        At::Subpath { volume, below: below.to_string_lossy().into_owned() }
    }
}

/// A path that a container asks for: of the host or, where agents are containers, of the agent's own file system.
struct Bind<'a> {
    field: &'static str,
    source: &'a str,
    read_only: bool,
    /// The engine makes what is missing (as it does for `HostConfig.Binds`).
    create: bool,
}

/// What becomes of a bind.
struct Placed {
    at: At,
    /// Also where it was asked for writable.
    read_only: bool,
}

enum At {
    /// It stays a bind, of this path.
    Path(String),
    /// It becomes a sub-path of the volume that stands for its root.
    Subpath { volume: String, below: String },
}

/// Judges all mounts and rewrites them in place.
///
/// # Errors
/// A mount that the policy does not grant.
pub async fn judge(body: &mut Object, image: &Image, agent: &Agent, world: &impl World) -> Result<Mounts, Refusal> {
    let mut out = Mounts::default();
    let declared: Vec<String> = body
        .get("Volumes")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Object::iter)
        .map(|(k, _)| k.to_owned())
        .collect();
    let host = body.entry_object("HostConfig");
    let asked_binds = host.get("Binds").cloned();
    let asked_mounts = host.get("Mounts").cloned();
    let binds = items(host.remove("Binds"));
    let mounts = items(host.remove("Mounts"));
    if binds.len() + mounts.len() + declared.len() + image.volumes.len() > MOST_MOUNTS {
        return Err(Refusal::malformed(format!("a container may have {MOST_MOUNTS} mounts at most")));
    }
    let mut kept_binds = Vec::new();
    let mut kept_mounts = Vec::new();
    let mut targets = Vec::new();

    for bind in binds {
        let text = bind.as_str().unwrap_or_default();
        match split(text)? {
            Form::Anonymous { target } => {
                targets.push(clean_target(target));
                out.made.unnamed += 1;
                kept_mounts.push(anonymous(target, agent));
            }
            Form::Volume { name, target } => {
                targets.push(clean_target(target));
                named_volume("HostConfig.Binds", name, agent, world, &mut out).await?;
                kept_binds.push(bind);
            }
            Form::Path { source, target, options } => {
                targets.push(clean_target(target));
                let read_only = options.split(',').any(|word| word == "ro");
                let asked = Bind { field: "HostConfig.Binds", source, read_only, create: true };
                let placed = place(&asked, agent, world, &mut out).await?;
                match placed.at {
                    At::Path(path) => {
                        let options = bind_options(options, placed.read_only);
                        let colon = if options.is_empty() { "" } else { ":" };
                        kept_binds.push(Value::from(format!("{path}:{target}{colon}{options}")));
                    }
                    At::Subpath { volume, below } => {
                        kept_mounts.push(subpath(target, placed.read_only, &volume, &below));
                    }
                }
            }
        }
    }
    for (i, mount) in mounts.into_iter().enumerate() {
        let Value::Object(mut mount) = mount else { continue };
        let target = text(&mount, "Target").to_owned();
        targets.push(clean_target(&target));
        match text(&mount, "Type") {
            "bind" => {
                let source = text(&mount, "Source").to_owned();
                let options = mount.get("BindOptions").and_then(Value::as_object);
                propagation(
                    options.map(|o| text(o, "Propagation")).unwrap_or_default(),
                    "HostConfig.Mounts[].BindOptions.Propagation",
                )?;
                let flag = |key| options.and_then(|o| o.get(key)).and_then(Value::as_bool) == Some(true);
                let read_only = mount.get("ReadOnly").and_then(Value::as_bool) == Some(true);
                let asked =
                    Bind { field: "HostConfig.Mounts", source: &source, read_only, create: flag("CreateMountpoint") };
                let placed = place(&asked, agent, world, &mut out).await?;
                match placed.at {
                    At::Path(path) => {
                        mount.set("Source", path);
                        if placed.read_only {
                            mount.set("ReadOnly", true);
                        }
                        kept_mounts.push(Value::Object(mount));
                    }
                    At::Subpath { volume, below } => {
                        kept_mounts.push(subpath(&target, placed.read_only, &volume, &below));
                    }
                }
            }
            "volume" => {
                let name = text(&mount, "Source").to_owned();
                let options = mount.entry_object("VolumeOptions");
                let config = options.get("DriverConfig").and_then(Value::as_object);
                volumes::driver(
                    "HostConfig.Mounts[].VolumeOptions.DriverConfig.Name",
                    config.and_then(|c| c.get("Name")),
                    "HostConfig.Mounts[].VolumeOptions.DriverConfig.Options",
                    config.and_then(|c| c.get("Options")),
                )?;
                labels::stamp_object(
                    options.entry_object("Labels"),
                    "HostConfig.Mounts[].VolumeOptions.Labels",
                    agent,
                )?;
                if name.is_empty() {
                    out.made.unnamed += 1;
                } else {
                    // The labels in its options are those of a volume that the engine is about to make.
                    let found = volumes::claim("HostConfig.Mounts[].Source", &name, agent, world).await?;
                    if found.is_none() {
                        may_create(agent)?;
                    }
                    out.mounts(name, found.as_ref(), agent);
                }
                kept_mounts.push(Value::Object(mount));
            }
            "tmpfs" => kept_mounts.push(Value::Object(mount)),
            "image" => {
                let name = image_reference(text(&mount, "Source"))?;
                let found =
                    world.image(name.as_str()).await?.filter(|image| image.standing(&agent.owner) != Standing::Foreign);
                let found = found.ok_or_else(|| Refusal::absent(super::images::absent_image(name.as_str())))?;
                mount.set("Source", found.id.as_str());
                kept_mounts.push(Value::Object(mount));
            }
            other => {
                return Err(Refusal::never(
                    format!("HostConfig.Mounts[{i}].Type"),
                    &Value::from(other),
                    "bind, volume, tmpfs and image are served",
                ));
            }
        }
    }
    // Volumes without a name would belong to nobody, were they left to the engine. Where volumes are taken over from
    // another container, the engine alone knows which paths are still without one.
    let takes_over = host.get("VolumesFrom").is_some_and(|v| !v.is_empty());
    for path in declared.iter().chain(&image.volumes) {
        let path = clean_target(path);
        if targets.contains(&path) {
            continue;
        }
        if !takes_over {
            out.made.unnamed += 1;
            kept_mounts.push(anonymous(&path, agent));
            targets.push(path);
        } else if agent.policy.quota.volumes.is_some() {
            return Err(Refusal::not_allowed("HostConfig.VolumesFrom", &Value::from(path), "quota.volumes")
                .hint("this path is declared as a volume, which could not be counted; mount one there"));
        }
    }
    out.some = takes_over || !targets.is_empty();
    let asked_restart = restart(host, &mut out);
    let changed =
        put(host, "Binds", kept_binds, asked_binds.as_ref()) | put(host, "Mounts", kept_mounts, asked_mounts.as_ref());
    if changed || !out.checked.is_empty() {
        out.record = Some(record(asked_binds, asked_mounts, asked_restart, &out.checked));
    }
    Ok(out)
}

/// The binds that have to be looked at again at each start, from a container's label.
pub fn checked(record: &str) -> Vec<(PathBuf, PathBuf)> {
    let Ok(record) = json::parse(record.as_bytes()) else { return Vec::new() };
    let pairs = record.at(&["Checked"]).and_then(Value::as_array).unwrap_or_default();
    pairs
        .iter()
        .filter_map(|pair| match pair.as_array()? {
            [root, below] => Some((PathBuf::from(root.as_str()?), PathBuf::from(below.as_str()?))),
            _ => None,
        })
        .collect()
}

fn record(
    binds: Option<Value>,
    mounts: Option<Value>,
    restart: Option<Value>,
    checked: &[(PathBuf, PathBuf)],
) -> Value {
    let mut record = Object::new();
    record.set("Binds", binds.unwrap_or(Value::Null));
    record.set("Mounts", mounts.unwrap_or(Value::Null));
    if let Some(restart) = restart {
        record.set("Restart", restart);
    }
    let text = |path: &Path| Value::from(path.to_string_lossy().into_owned());
    if !checked.is_empty() {
        record.set(
            "Checked",
            checked.iter().map(|(root, below)| Value::Array(vec![text(root), text(below)])).collect::<Value>(),
        );
    }
    Value::Object(record)
}

/// A container whose binds are looked at when it starts must not be started by the engine itself.
fn restart(host: &mut Object, out: &mut Mounts) -> Option<Value> {
    let asked = host.get("RestartPolicy")?.clone();
    let restarts = asked.as_object().is_some_and(super::create::restarts);
    if out.checked.is_empty() || !restarts {
        return None;
    }
    host.set("RestartPolicy", Value::from([("Name", Value::from("no"))]));
    out.warnings.push(format!("sockguard: RestartPolicy {} is not kept: {}", asked.shown(), super::create::NO_RESTART));
    Some(asked)
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Puts a list back, and says whether it is another than the client sent.
fn put(host: &mut Object, key: &str, items: Vec<Value>, asked: Option<&Value>) -> bool {
    let same = asked.and_then(Value::as_array).unwrap_or_default() == items.as_slice();
    match asked {
        Some(asked) if same => host.set(key, asked.clone()),
        None if same => {}
        _ => host.set(key, Value::Array(items)),
    }
    !same
}

fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A path in the container, for comparison: the engine cleans it.
pub fn clean_target(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The forms of `HostConfig.Binds`.
enum Form<'a> {
    Anonymous { target: &'a str },
    Volume { name: &'a str, target: &'a str },
    Path { source: &'a str, target: &'a str, options: &'a str },
}

fn split(bind: &str) -> Result<Form<'_>, Refusal> {
    let bad = || Refusal::rejected(format!("invalid volume specification: '{bind}'"));
    let parts: Vec<&str> = bind.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => return if target.starts_with('/') { Ok(Form::Anonymous { target }) } else { Err(bad()) },
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad()),
    };
    if source.is_empty() || !target.starts_with('/') {
        return Err(bad());
    }
    for word in options.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" | "rw" | "z" | "Z" | "nocopy" | "cached" | "delegated" | "consistent" | "default" => {}
            other => propagation(other, "HostConfig.Binds")?,
        }
    }
    if source.starts_with('/') {
        Ok(Form::Path { source, target, options })
    } else {
        Ok(Form::Volume { name: source, target })
    }
}

/// Mounts that are made in a container must not show on the host, nor the other way round.
fn propagation(word: &str, field: &str) -> Result<(), Refusal> {
    match word {
        "" | "private" | "rprivate" => Ok(()),
        "shared" | "rshared" | "slave" | "rslave" => {
            Err(Refusal::not_allowed(field, &Value::from(word), "").hint("only private propagation is served"))
        }
        other => Err(Refusal::rejected(format!("invalid mode: {other}"))),
    }
}

fn may_create(agent: &Agent) -> Result<(), Refusal> {
    if agent.policy.volume.grants(crate::policy::VolumeOperation::Create) {
        Ok(())
    } else {
        Err(Refusal::operation("creating a volume with a container", "volume.allow: \"create\""))
    }
}

async fn named_volume(
    field: &'static str,
    name: &str,
    agent: &Agent,
    world: &impl World,
    out: &mut Mounts,
) -> Result<(), Refusal> {
    let found = volumes::claim(field, name, agent, world).await?;
    if found.is_none() {
        may_create(agent)?;
        out.first(Step::CreateVolume { name: name.to_owned(), options: Vec::new(), labels: labels::of_object(agent) });
    }
    out.mounts(name.to_owned(), found.as_ref(), agent);
    Ok(())
}

/// A mount of a volume without a name, labelled.
fn anonymous(target: &str, agent: &Agent) -> Value {
    let labels: Object = labels::of_object(agent).into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    Value::from([
        ("Type", Value::from("volume")),
        ("Target", Value::from(target)),
        ("VolumeOptions", Value::from([("Labels", Value::Object(labels))])),
    ])
}

fn subpath(target: &str, read_only: bool, volume: &str, below: &str) -> Value {
    Value::from([
        ("Type", Value::from("volume")),
        ("Source", Value::from(volume)),
        ("Target", Value::from(target)),
        ("ReadOnly", Value::Bool(read_only)),
        ("VolumeOptions", Value::from([("NoCopy", Value::Bool(true)), ("Subpath", Value::from(below))])),
    ])
}

/// The options of a bind, with `ro` where it is to be read-only.
fn bind_options(options: &str, read_only: bool) -> String {
    if !read_only || options.split(',').any(|word| word == "ro") {
        return options.to_owned();
    }
    let others = options.split(',').filter(|word| !matches!(*word, "" | "rw"));
    others.chain(["ro"]).collect::<Vec<_>>().join(",")
}

/// The path of a bind without `.`, doubled and trailing slashes. The engine cleans `..` by the text and the kernel by
/// the directory, so it is refused.
fn plain_path(bind: &Bind<'_>) -> Result<PathBuf, Refusal> {
    if !bind.source.starts_with('/') {
        return Err(Refusal::rejected(format!(
            "invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute",
            bind.source
        )));
    }
    if bind.source.split('/').any(|part| part == "..") || bind.source.chars().any(char::is_control) {
        return Err(Refusal::never(bind.field, &Value::from(bind.source), "a path without `..` is expected"));
    }
    let parts: Vec<&str> = bind.source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(PathBuf::from(format!("/{}", parts.join("/"))))
}

/// What the path of a bind stands for on the engine's host.
struct Found {
    /// The path that is in the operator's hands.
    root: PathBuf,
    /// What is below it, where an agent may put a symbolic link in its place at any time.
    below: PathBuf,
    /// May anything be written there?
    access: Access,
    /// Mounted read-only, whatever was asked for.
    read_only: bool,
    /// What grants it, for messages.
    key: &'static str,
}

/// Finds what a path stands for: by an alias, by the mounts of the container that asks or, where agents are no
/// containers, by itself.
async fn find(bind: &Bind<'_>, path: &Path, agent: &Agent, world: &impl World) -> Result<Found, Refusal> {
    let aliases = agent.policy.bind.aliases.iter().filter(|alias| path.starts_with(&alias.path));
    let Some(alias) = aliases.max_by_key(|alias| alias.path.as_os_str().len()) else {
        return match &agent.caller {
            Some(_) if !agent.policy.bind.own_mounts => {
                Err(Refusal::not_allowed(bind.field, &Value::from(bind.source), "bind.own-mounts"))
            }
            Some(caller) => through_own_mounts(bind, path, bind.read_only, caller, world).await,
            None => below_roots(bind, path, bind.read_only, agent, world),
        };
    };
    let rest = path.strip_prefix(&alias.path).unwrap_or(Path::new(""));
    // The client knows nothing of aliases: that it did not ask for a read-only mount means nothing.
    let read_only = bind.read_only || alias.access == Access::Ro;
    match (&alias.to, &agent.caller) {
        (AliasTarget::Host(host), _) => Ok(Found {
            root: host.clone(),
            below: rest.to_owned(),
            access: alias.access,
            read_only,
            key: "bind.aliases",
        }),
        (AliasTarget::Agent(to), Some(caller)) => {
            through_own_mounts(bind, &own_mounts::joined(to, rest), read_only, caller, world).await
        }
        (AliasTarget::Agent(to), None) => below_roots(bind, &own_mounts::joined(to, rest), read_only, agent, world),
    }
}

/// A path of the host, which the policy grants.
fn below_roots(
    bind: &Bind<'_>,
    path: &Path,
    read_only: bool,
    agent: &Agent,
    world: &impl World,
) -> Result<Found, Refusal> {
    let refused = || Refusal::not_allowed(bind.field, &Value::from(bind.source), "bind.roots");
    if world.sockets().engine.iter().any(|socket| socket.starts_with(path)) {
        return Err(refused().hint(HOLDS_SOCKET));
    }
    let length = |root: &&BindRoot| root.path.as_os_str().len();
    let roots = || agent.policy.bind.roots.iter().filter(|root| path.starts_with(&root.path));
    // The longest root says what may be done; but what leads to it from the shortest may be in the agent's hands.
    let (Some(nearest), Some(BindRoot { path: root, .. })) = (roots().max_by_key(length), roots().min_by_key(length))
    else {
        return Err(refused());
    };
    if nearest.access == Access::Ro && !read_only {
        return Err(refused().hint(format!("`{}` may only be mounted read-only", nearest.path.display())));
    }
    let below = path.strip_prefix(root).unwrap_or(Path::new("")).to_owned();
    Ok(Found { root: root.clone(), below, access: nearest.access, read_only, key: "bind.roots" })
}

/// A path of the file system of the container that asks: what its mount shows there.
async fn through_own_mounts(
    bind: &Bind<'_>,
    path: &Path,
    read_only: bool,
    caller: &Caller,
    world: &impl World,
) -> Result<Found, Refusal> {
    let refused = |why: String| Refusal::never(bind.field, &Value::from(bind.source), why);
    let put = || format!("put the files below one of its mounts: {}", shown(&caller.mounts));
    let Some(mount) = own_mounts::holds(&caller.mounts, path) else {
        return Err(refused(format!(
            "`{}` is only in the agent's own file system (from its image), which the engine's host does not have; {}",
            path.display(),
            put()
        )));
    };
    let at = mount.destination.display();
    let Source::Host { root, below, volume } = &mount.source else {
        return Err(refused(format!("`{at}` cannot be mounted by other containers; {}", put())));
    };
    if let Some(volume) = volume
        && world.volume(volume).await?.is_none_or(|volume| !volume.plain)
    {
        // What is mounted on it may be gone at the next start, and cannot be checked.
        return Err(refused(format!("`{at}` is a volume with options, so only it can be mounted, by its name")));
    }
    if sockets_directory(world).as_deref() == Some(root) {
        // The guarded socket's, which is mounted read-only in any case.
    } else if mount.access == Access::Ro && !read_only {
        return Err(refused(format!("`{at}` is read-only for the agent itself, so it may only be mounted read-only")));
    }
    let below = below.join(path.strip_prefix(&mount.destination).unwrap_or(Path::new("")));
    // What leads to this mount may lie in another, where the agent can write.
    let writable = caller.mounts.iter().filter(|other| other.access == Access::Rw);
    let above = writable.filter_map(|other| match &other.source {
        Source::Host { root: above, .. } => Some((above, root.strip_prefix(above).ok()?)),
        Source::Nothing => None,
    });
    let highest = above.min_by_key(|(above, _)| above.as_os_str().len());
    let (root, below) = match highest {
        Some((above, between)) => (above.clone(), own_mounts::joined(between, &below)),
        None => (root.clone(), below),
    };
    Ok(Found { root, below: below.components().collect(), access: mount.access, read_only, key: "bind.own-mounts" })
}

/// The mounts that other containers can share, for messages.
fn shown(mounts: &[OwnMount]) -> String {
    /// More would hide the sentence.
    const MOST: usize = 8;
    let of_host = mounts.iter().filter(|mount| matches!(mount.source, Source::Host { .. }));
    let mut names: Vec<String> = of_host
        .map(|mount| match mount.access {
            Access::Rw => format!("`{}`", mount.destination.display()),
            Access::Ro => format!("`{}` (read-only)", mount.destination.display()),
        })
        .collect();
    names.sort();
    let more = if names.len() > MOST { ", …" } else { "" };
    names.truncate(MOST);
    if names.is_empty() { "it has none".to_owned() } else { format!("{}{more}", names.join(", ")) }
}

/// Why no directory with the engine's socket is mounted.
const HOLDS_SOCKET: &str = "it holds the engine's own socket";

/// The directory of the guarded socket on the engine's host.
fn sockets_directory(world: &impl World) -> Option<PathBuf> {
    world.sockets().guarded.parent().map(Path::to_owned)
}

async fn place(bind: &Bind<'_>, agent: &Agent, world: &impl World, out: &mut Mounts) -> Result<Placed, Refusal> {
    let path = plain_path(bind)?;
    let sockets = world.sockets();
    if sockets.engine.contains(&path) {
        return docker_socket(bind, agent, world, out).await;
    }
    let Found { root, below, access, read_only, key } = find(bind, &path, agent, world).await?;
    let whole = own_mounts::joined(&root, &below);
    let refused = |key| Refusal::not_allowed(bind.field, &Value::from(bind.source), key);
    // By another name, or through a mount of the agent's.
    if sockets.engine.contains(&whole) || (agent.caller.is_some() && sockets.guarded == whole) {
        return docker_socket(bind, agent, world, out).await;
    }
    if sockets.engine.iter().any(|socket| socket.starts_with(&whole)) {
        return Err(refused("").hint(HOLDS_SOCKET));
    }
    if agent.caller.is_some() && sockets_directory(world).as_deref() == Some(&whole) {
        may_have_socket(bind, agent)?;
        return Ok(Placed { at: At::Path(whole.to_string_lossy().into_owned()), read_only: true });
    }
    let placed = |at| Placed { at, read_only };
    let as_path = At::Path(whole.to_string_lossy().into_owned());
    if below.as_os_str().is_empty() {
        // The root itself is in the operator's hands; nothing that an agent can write leads there. But a container
        // that can write below it could swap what others mount, so it must stand still when they start.
        if !read_only && world.path(&root, &below).await == PathFact::Fine && !mounts_subpaths(world).await? {
            out.checked.push((root, below));
        }
        return Ok(placed(as_path));
    }
    let missing = || Refusal::Rejected {
        message: format!("invalid mount config for type \"bind\": bind source path does not exist: {}", bind.source),
    };
    // Who may not write there makes no directory there, either.
    let create = bind.create && access == Access::Rw;
    let make = || Step::MakeDirectory { root: root.clone(), below: below.clone() };
    let fact = world.path(&root, &below).await;
    if mounts_subpaths(world).await? {
        match fact {
            PathFact::Missing if create => out.before.push(make()),
            PathFact::Missing => return Err(missing()),
            // The engine follows links that stay below the root, and refuses others at every start.
            PathFact::Fine | PathFact::Link | PathFact::Unseen => {}
        }
        return Ok(placed(out.subpath(&root, &below)));
    }
    match fact {
        PathFact::Fine => {}
        PathFact::Missing if create => out.before.push(make()),
        PathFact::Missing => return Err(missing()),
        PathFact::Link => return Err(refused(key).hint(LINK)),
        PathFact::Unseen if agent.policy.bind.unverified_binds => return Ok(placed(as_path)),
        PathFact::Unseen => {
            return Err(refused("bind.unverified-binds")
                .hint("sockguard cannot see the host's paths, and this engine has no sub-path mounts"));
        }
    }
    out.checked.push((root, below));
    Ok(placed(as_path))
}

/// Why a path is not mounted that an agent could turn.
const LINK: &str = "a part of it below the root is a symbolic link";

fn may_have_socket(bind: &Bind<'_>, agent: &Agent) -> Result<(), Refusal> {
    match agent.policy.bind.docker_socket {
        DockerSocket::Guarded => Ok(()),
        DockerSocket::Refused => Err(Refusal::not_allowed(bind.field, &Value::from(bind.source), "bind.docker-socket")),
    }
}

/// The guarded socket in the place of the engine's, read-only: that is enough to connect, and nobody changes its mode.
/// Its directory is the operator's, but may be mounted where an agent can write; so it is not handed on by its path
/// either, where that can be helped.
async fn docker_socket(
    bind: &Bind<'_>,
    agent: &Agent,
    world: &impl World,
    out: &mut Mounts,
) -> Result<Placed, Refusal> {
    may_have_socket(bind, agent)?;
    let placed = |at| Placed { at, read_only: true };
    let socket = world.sockets().guarded;
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(Refusal::Engine { message: format!("the guarded socket has no directory: {}", socket.display()) });
    };
    if mounts_subpaths(world).await? {
        return Ok(placed(out.subpath(directory, Path::new(name))));
    }
    match world.path(directory, Path::new(name)).await {
        PathFact::Fine | PathFact::Unseen | PathFact::Missing => {
            Ok(placed(At::Path(socket.to_string_lossy().into_owned())))
        }
        PathFact::Link => {
            let what = Value::from(bind.source);
            Err(Refusal::not_allowed(bind.field, &what, "bind.docker-socket")
                .hint("a symbolic link is in the guarded socket's place"))
        }
    }
}

/// Does the engine mount sub-paths of volumes?
///
/// # Errors
/// When the engine cannot be asked.
pub async fn mounts_subpaths(world: &impl World) -> Result<bool, Refusal> {
    let (major, minor) = world.api_version().await?;
    Ok(ApiVersion(major, minor) >= SUBPATHS)
}

/// The name of the volume that stands for a root: its path, in the characters of a volume's name, without two roots
/// that share one.
fn root_volume(root: &Path) -> String {
    let mut name = ROOT_PREFIX.to_owned();
    for byte in root.to_string_lossy().trim_matches('/').bytes() {
        match byte {
            b'/' => name.push('.'),
            b'-' | b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => name.push(char::from(byte)),
            other => name.push_str(&format!("_{other:02x}")),
        }
    }
    name
}

/// The root that the volume of this name stands for.
pub fn root_of(volume: &str) -> Option<PathBuf> {
    let mut path = vec![b'/'];
    let mut bytes = volume.strip_prefix(ROOT_PREFIX)?.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'.' => path.push(b'/'),
            b'_' => {
                let digits = [bytes.next()?, bytes.next()?];
                path.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
            }
            other => path.push(other),
        }
    }
    String::from_utf8(path).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volume_of_a_root_names_it() {
        for root in ["/srv", "/srv/a.b_c-d/é/_data", "/var/lib/docker/volumes/ecs-a-1-builds-9f/_data"] {
            assert_eq!(root_of(&root_volume(Path::new(root))).as_deref(), Some(Path::new(root)));
        }
        for name in ["builds", "sockguard-root-a_2", "sockguard-root-a_zz", "sockguard-root-_ff"] {
            assert_eq!(root_of(name), None, "{name}");
        }
    }
}
