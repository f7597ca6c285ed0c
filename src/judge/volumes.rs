//! Volumes: own ones only, of the `local` driver.

use super::limits::{Demand, NewVolumes};
use super::system::{known_filters, own_only};
use super::{Agent, Ask, bodies, labels};
use crate::hold::PAUSED_PREFIX;
use crate::json::{Object, Value};
use crate::owner::Standing;
use crate::permit::{Answer, Payload, Permit, Step, Verdict, View};
use crate::policy::{self, VolumeOperation};
use crate::refusal::Refusal;
use crate::route::{Name, Volumes};
use crate::schema;
use crate::world::{Volume, World};
use hyper::StatusCode;

/// An option of a volume is at most so long. The kernel takes less than a page of all of them.
const OPTION: usize = 4096;

/// Volumes that stand for bind roots; a client can neither make nor name one.
pub const ROOT_PREFIX: &str = "sockguard-root-";

/// Judges a request on volumes.
pub async fn judge(route: Volumes, mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let granted = |operation, what: &str, key| {
        if agent.policy.volume.grants(operation) { Ok(()) } else { Err(Refusal::operation(what, key)) }
    };
    let read = || granted(VolumeOperation::Read, "reading volumes", "volume.allow: \"read\"");
    let remove = || granted(VolumeOperation::Remove, "removing volumes", "volume.allow: \"remove\"");
    match &route {
        Volumes::List => {
            read()?;
            known_filters(&ask.query, &["dangling", "driver", "label", "name"])?;
            if agent.policy.volume.shared.is_empty() {
                own_only(&mut ask.query, agent);
            }
            Ok(forward(ask, "/volumes".to_owned()).showing(Answer::View(View::VolumeList)))
        }
        Volumes::Create => {
            granted(VolumeOperation::Create, "creating volumes", "volume.allow: \"create\"")?;
            create(ask, agent, world).await
        }
        Volumes::Inspect(name) => {
            read()?;
            let volume = visible(name, agent, world).await?;
            Ok(forward(ask, format!("/volumes/{}", volume.name)).showing(Answer::View(View::Volume)))
        }
        Volumes::Update(_) => Err(Refusal::operation("PUT /volumes/{name}", "")
            .hint("only cluster volumes can be changed, and an agent's engine has none")),
        Volumes::Delete(name) => {
            remove()?;
            let volume = match visible(name, agent, world).await {
                // As the engine answers for an absent one.
                Err(Refusal::Absent { .. }) if ask.query.bool("force") => {
                    return Ok(Permit::made(StatusCode::NO_CONTENT, Value::Null));
                }
                volume => volume?,
            };
            if volume.standing(&agent.owner) != Standing::Own {
                return Err(Refusal::never(
                    "removing the volume",
                    &Value::from(name.as_str()),
                    "volumes that nobody owns are shared by all",
                ));
            }
            let mut permit = forward(ask, format!("/volumes/{}", volume.name));
            permit.after.push(Step::Gone { volume: Some(volume.name) });
            Ok(permit)
        }
        Volumes::Prune => {
            remove()?;
            known_filters(&ask.query, &["label", "label!", "all"])?;
            own_only(&mut ask.query, agent);
            let mut permit = forward(ask, "/volumes/prune".to_owned());
            permit.after.push(Step::Gone { volume: None });
            Ok(permit)
        }
    }
}

fn forward(ask: Ask, path: String) -> Permit {
    Permit::forward(&ask.route, ask.version, path, ask.query)
}

/// The volume, if the agent may see it.
async fn visible(name: &Name, agent: &Agent, world: &impl World) -> Result<Volume, Refusal> {
    let absent = || Refusal::absent(format!("get {name}: no such volume"));
    let volume = world.volume(name.as_str()).await?.ok_or_else(absent)?;
    if usable(&volume, agent) { Ok(volume) } else { Err(absent()) }
}

/// May a container of this agent mount the volume?
pub fn usable(volume: &Volume, agent: &Agent) -> bool {
    match volume.standing(&agent.owner) {
        Standing::Own => true,
        Standing::Foreign | Standing::Shared => {
            !labels::reserved_any(&volume.labels) && policy::any(&agent.policy.volume.shared, &volume.name)
        }
    }
}

/// Checks a name that a volume is about to get, and says whether it is there already.
///
/// # Errors
/// A name that belongs to somebody else: it cannot be had, since the engine's volumes have one name space.
pub async fn claim(field: &str, name: &str, agent: &Agent, world: &impl World) -> Result<Option<Volume>, Refusal> {
    let taken = |hint: &str| Err(Refusal::never(field, &Value::from(name), hint));
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() < 2
        || name.len() > 255
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(fine)
    {
        return Err(Refusal::rejected(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.starts_with(ROOT_PREFIX) || name.starts_with(PAUSED_PREFIX) {
        return taken("this name is sockguard's own");
    }
    match world.volume(name).await? {
        Some(volume) if usable(&volume, agent) => Ok(Some(volume)),
        Some(_) => taken("this volume name is not available, choose another"),
        None => Ok(None),
    }
}

async fn create(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    let mut body = schema::check(bodies::VOLUME_CREATE, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
    driver("Driver", body.get("Driver"), "DriverOpts", body.get("DriverOpts"))?;
    let name = body.get("Name").and_then(Value::as_str).unwrap_or_default();
    let mut made = NewVolumes::default();
    if name.is_empty() {
        made.unnamed = 1;
    } else if claim("Name", name, agent, world)
        .await?
        .is_none_or(|volume| volume.standing(&agent.owner) == Standing::Own)
    {
        made.named.insert(name.to_owned());
    }
    labels::stamp_object(body.entry_object("Labels"), "Labels", agent)?;
    let mut permit = forward(ask, "/volumes/create".to_owned())
        .with(Payload::Json(body.into()))
        .showing(Answer::View(View::VolumeCreated));
    permit.rewritten = true;
    if agent.policy.quota.volumes.is_some() && !made.is_empty() {
        permit.before.push(Step::Quota(Demand::Volume(made)));
    }
    Ok(permit)
}

/// Checks driver and options of a volume: `local`, with options for tmpfs. A bind by way of a volume is resolved anew
/// whenever the volume is mounted, where nothing looks at it.
///
/// # Errors
/// Anything else.
pub fn driver(driver_field: &str, driver: Option<&Value>, field: &str, options: Option<&Value>) -> Result<(), Refusal> {
    if let Some(value) = driver.filter(|v| !matches!(v.as_str(), Some("" | "local"))) {
        return Err(Refusal::never(driver_field, value, "only the `local` driver is served"));
    }
    let Some(options) = options.and_then(Value::as_object).filter(|o| !o.is_empty()) else { return Ok(()) };
    let text = |key: &str| options.get(key).and_then(Value::as_str).unwrap_or_default();
    if let Some((key, _)) = options.iter().find(|(_, value)| value.as_str().is_some_and(|text| text.len() > OPTION)) {
        return Err(Refusal::TooLarge { message: format!("{field}.{key} is longer than {OPTION} bytes") });
    }
    if let Some((key, value)) = options.iter().find(|(key, _)| !matches!(*key, "type" | "o" | "device")) {
        return Err(Refusal::not_allowed(format!("{field}.{key}"), value, ""));
    }
    let words: Vec<&str> = text("o").split(',').filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| matches!(*word, "bind" | "rbind")) {
        return Err(Refusal::not_allowed(format!("{field}.device"), &Value::from(text("device")), "")
            .hint("a volume with `o=bind` is a bind; name the path in HostConfig.Binds instead"));
    }
    let tmpfs_word = |word: &&str| {
        let name = word.split('=').next().unwrap_or_default();
        matches!(
            name,
            "size"
                | "nr_inodes"
                | "nr_blocks"
                | "mode"
                | "uid"
                | "gid"
                | "noexec"
                | "nosuid"
                | "nodev"
                | "noatime"
                | "rw"
                | "ro"
        )
    };
    if text("type") != "tmpfs" {
        return Err(Refusal::not_allowed(format!("{field}.type"), &Value::from(text("type")), "")
            .hint("only `tmpfs` is served"));
    }
    match words.iter().find(|word| !tmpfs_word(word)) {
        Some(word) => {
            Err(Refusal::not_allowed(format!("{field}.o"), &Value::from(*word), "").hint("not an option of tmpfs"))
        }
        None => Ok(()),
    }
}
