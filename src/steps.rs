//! What is done around a request, as the permit says: before it is sent, and when it was answered.

mod bridge;

use crate::answer::known::Moment;
use crate::json::{self, Object, Value};
use crate::judge::images;
use crate::lookup::{self, Lookup, Pulled, message};
use crate::owner::{BINDS_LABEL, OWNER_LABEL, Standing};
use crate::permit::Step;
use crate::query::{Param, Query};
use crate::quota;
use crate::reference::Reference;
use crate::refusal::Refusal;
use crate::world::{Id, PathFact, World};
use hyper::{Method, StatusCode};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

/// So long a start waits for uploads into containers to end, since they could swap what it mounts.
const UPLOADS: Duration = Duration::from_secs(20);

/// So often running containers are looked at again when some end while they are paused.
const ROUNDS: usize = 5;

/// What is held until the request is answered. Dropping it lets everything go, also when the client went away.
#[derive(Debug, Default)]
pub struct Held {
    alone: Option<Alone>,
    among: Option<OwnedRwLockReadGuard<()>>,
    room: Option<quota::Held>,
}

/// Does what has to be done before the request is sent.
///
/// # Errors
/// A step that failed; the request is then not sent.
pub async fn before(world: &Rc<Lookup>, steps: &[Step]) -> Result<Held, Refusal> {
    let mut held = Held::default();
    for step in steps {
        match step {
            Step::Quota(demand) => held.room = Some(quota::hold(world, demand).await?),
            Step::CreateVolume { name, options, labels } => create_volume(world, name, options, labels).await?,
            Step::Bridge { name, labels } => drop(bridge::make(world, name, labels).await?),
            Step::Rejoin { container, name, labels } => bridge::rejoin(world, container, name, labels).await?,
            Step::MakeDirectory { root, below } => make_directory(world, root, below).await?,
            Step::ShareBinds => held.among = Some(share_binds(world).await?),
            Step::HoldBinds { binds } => held.alone = Some(hold_binds(world, binds).await?),
            Step::Stop { container, query } => stop(world, container, query).await?,
            Step::Leave { container, network } => leave(world, container, network).await?,
            Step::Join { .. }
            | Step::Brought { .. }
            | Step::Pulled { .. }
            | Step::Exec { .. }
            | Step::Tag { .. }
            | Step::Gave { .. }
            | Step::Gone { .. } => {}
        }
    }
    Ok(held)
}

/// Does what has to be done when the engine has answered with success a request that was sent at `sent`. `answer` is its
/// whole (small) body.
///
/// # Errors
/// A step that failed; the client hears of it in place of the answer.
pub async fn after(world: &Rc<Lookup>, steps: &[Step], sent: Moment, answer: &[u8]) -> Result<(), Refusal> {
    let id = || -> Result<String, Refusal> {
        let answer = json::parse(answer)
            .map_err(|e| Refusal::Engine { message: format!("the engine's answer cannot be read: {e}") })?;
        Ok(answer.at(&["Id"]).and_then(Value::as_str).unwrap_or_default().to_owned())
    };
    for step in steps {
        match step {
            Step::Join { container, alias } => join(world, &id()?, container, alias.as_deref()).await?,
            Step::Exec { container } => world.memory.exec(&id()?, container.clone()),
            Step::Brought { name, known } => brought(world, name, known, answer).await,
            Step::Tag { name } => tag(world, &id()?, name, Whose::Made).await?,
            Step::Pulled { image } => world.memory.pulled(image.clone()),
            Step::Gone { volume: Some(name) } => world.memory.known.volume_removed(name, sent),
            Step::Gone { volume: None } => pruned(world, sent, answer),
            Step::Gave { name, image } => world.memory.gave(name.clone(), image.clone()),
            Step::Quota(_)
            | Step::CreateVolume { .. }
            | Step::Bridge { .. }
            | Step::Rejoin { .. }
            | Step::MakeDirectory { .. }
            | Step::ShareBinds
            | Step::HoldBinds { .. }
            | Step::Stop { .. }
            | Step::Leave { .. } => {}
        }
    }
    Ok(())
}

/// Remembers which volumes a prune removed.
fn pruned(world: &Lookup, sent: Moment, answer: &[u8]) {
    let Ok(answer) = json::parse(answer) else { return };
    for name in answer.at(&["VolumesDeleted"]).and_then(Value::as_array).unwrap_or_default() {
        if let Some(name) = name.as_str() {
            world.memory.known.volume_removed(name, sent);
        }
    }
}

fn failed(what: &str, status: StatusCode, answer: &Value) -> Refusal {
    Refusal::Engine { message: format!("{what} failed: the engine answered {status}: {}", message(answer)) }
}

/// Creates a volume, and sees to it that what is there under the name carries the labels: the engine answers with
/// success when a volume of the name exists, whatever it is.
async fn create_volume(
    world: &Rc<Lookup>,
    name: &str,
    options: &[(String, String)],
    labels: &[(String, String)],
) -> Result<(), Refusal> {
    let object = |pairs: &[(String, String)]| -> Value {
        Value::Object(pairs.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect::<Object>())
    };
    let body = Value::from([
        ("Name", Value::from(name)),
        ("Driver", Value::from("local")),
        ("DriverOpts", object(options)),
        ("Labels", object(labels)),
    ]);
    let sent = Moment::now();
    let (status, answer) = world.engine.call(Method::POST, "/volumes/create", Some(&body)).await?;
    if status != StatusCode::CREATED {
        return Err(failed(&format!("creating the volume `{name}`"), status, &answer));
    }
    let carries = |key: &str, value: &str| answer.at(&["Labels", key]).and_then(Value::as_str) == Some(value);
    let made_so = |key: &str, value: &str| answer.at(&["Options", key]).and_then(Value::as_str) == Some(value);
    if labels.iter().all(|(k, v)| carries(k, v)) && options.iter().all(|(k, v)| made_so(k, v)) {
        if labels.iter().any(|(key, _)| key == OWNER_LABEL) {
            let created = answer.at(&["CreatedAt"]).and_then(Value::as_str).and_then(Moment::parse);
            world.memory.known.volume_made_first(name, sent.of_creation(created));
        }
        Ok(())
    } else {
        Err(Refusal::never("the volume", &Value::from(name), "this volume name is not available, choose another"))
    }
}

async fn make_directory(world: &Lookup, root: &Path, below: &Path) -> Result<(), Refusal> {
    // Where sockguard cannot see the path, the engine resolves it itself, safely.
    if !world.sees(root).await {
        return Ok(());
    }
    let (root, below) = (root.to_owned(), below.to_owned());
    let path = root.join(&below);
    let made =
        tokio::task::spawn_blocking(move || lookup::make_directory(&root, &below)).await.map_err(|e| e.to_string());
    made.and_then(|made| made).map_err(|e| {
        Refusal::malformed(format!("the bind source `{}` does not exist and cannot be made: {e}", path.display()))
    })
}

async fn share_binds(world: &Rc<Lookup>) -> Result<OwnedRwLockReadGuard<()>, Refusal> {
    let waited = tokio::time::timeout(UPLOADS, world.memory.binds.clone().read_owned()).await;
    waited.map_err(|_| Refusal::Conflict {
        message: "sockguard: a start whose binds are checked is under way, try again".to_owned(),
    })
}

/// Checks binds with whatever could swap them standing still: uploads and other starts wait, and all running
/// containers are paused, the one whose binds they are among them (the engine mounts them for a copy, too).
async fn hold_binds(world: &Rc<Lookup>, binds: &[(PathBuf, PathBuf)]) -> Result<Alone, Refusal> {
    let waited = tokio::time::timeout(UPLOADS, world.memory.binds.clone().write_owned()).await;
    let lock = waited.map_err(|_| Refusal::Conflict {
        message: "sockguard: the container's binds cannot be checked while files are copied into containers, try again"
            .to_owned(),
    })?;
    let mut alone = Alone { world: world.clone(), paused: Vec::new(), lock: Some(lock) };
    let mut rounds = 0;
    while pause_running(&mut alone).await? == Round::Changed {
        rounds += 1;
        if rounds == ROUNDS {
            return Err(restarting());
        }
    }
    for (root, below) in binds {
        let why = match world.path(root, below).await {
            PathFact::Fine => continue,
            PathFact::Link => "a part of it below the root is a symbolic link",
            PathFact::Missing => "it does not exist",
            PathFact::Unseen => "sockguard cannot see it",
        };
        let path = root.join(below).to_string_lossy().into_owned();
        return Err(Refusal::not_allowed("the bind source", &Value::from(path), "bind.roots").hint(why));
    }
    Ok(alone)
}

/// What a look at the running containers found.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// All that run are paused.
    Still,
    /// One ended meanwhile: the engine may be about to start it again.
    Changed,
}

/// Pauses all running containers of the owner. All, not only those with mounts: one can reach what another mounts
/// through its process name space, or be handed an open directory.
async fn pause_running(alone: &mut Alone) -> Result<Round, Refusal> {
    let world = alone.world.clone();
    let states = [("status", "running"), ("status", "restarting")];
    let mut round = Round::Still;
    for other in world.owned("/containers/json", &world.agent.owner, &states).await? {
        let text = |key| other.at(&[key]).and_then(Value::as_str).unwrap_or_default();
        if text("State") == "restarting" {
            return Err(restarting());
        }
        let id = Id::new(text("Id"));
        if text("State") == "paused" || alone.paused.contains(&id) {
            continue;
        }
        match world.engine.call(Method::POST, &format!("/containers/{id}/pause"), None).await? {
            (StatusCode::NO_CONTENT, _) => alone.paused.push(id),
            // Its user paused it; its user's `unpause` waits for this check.
            (_, answer) if message(&answer).contains("already paused") => {}
            (StatusCode::CONFLICT | StatusCode::NOT_FOUND, _) => round = Round::Changed,
            (_, answer) if message(&answer).contains("is not running") => round = Round::Changed,
            (status, answer) => return Err(failed("pausing a container that could swap a bind", status, &answer)),
        }
    }
    Ok(round)
}

fn restarting() -> Refusal {
    Refusal::Conflict {
        message: "sockguard: binds cannot be checked while the engine restarts one of your containers, try again"
            .to_owned(),
    }
}

/// Nothing of the owner's can write while this is held. Dropping it lets paused containers go on; the lock is kept until
/// they do, so that the next check finds them running.
#[derive(Debug)]
struct Alone {
    world: Rc<Lookup>,
    paused: Vec<Id>,
    lock: Option<OwnedRwLockWriteGuard<()>>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        let (world, paused, lock) = (self.world.clone(), std::mem::take(&mut self.paused), self.lock.take());
        if paused.is_empty() {
            return;
        }
        tokio::task::spawn_local(async move {
            let _lock = lock;
            for id in paused {
                if let Err(e) = world.engine.call(Method::POST, &format!("/containers/{id}/unpause"), None).await {
                    tracing::error!(container = %id, error = %e.message(""), "a container stays paused");
                }
            }
        });
    }
}

/// Lets containers go on that a predecessor of this process had paused when it was killed.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn recover(world: &Rc<Lookup>) -> Result<(), Refusal> {
    // Without binds that are checked nothing was held, and whoever paused a container meant it.
    let every = ["created", "restarting", "running", "paused", "exited", "dead"].map(|status| ("status", status));
    let own = world.owned("/containers/json", &world.agent.owner, &every).await?;
    let checked = |entry: &Value| {
        let record = entry.at(&["Labels", BINDS_LABEL]).and_then(Value::as_str);
        record.is_some_and(|record| !crate::judge::binds::checked(record).is_empty())
    };
    if !own.iter().any(checked) {
        return Ok(());
    }
    // A check that is under way now pauses containers, too.
    let _among = share_binds(world).await?;
    for entry in world.owned("/containers/json", &world.agent.owner, &[("status", "paused")]).await? {
        let id = entry.at(&["Id"]).and_then(Value::as_str).unwrap_or_default();
        tracing::warn!(container = %id, "is paused, perhaps since sockguard ended while binds were checked; goes on now");
        let _ = world.engine.call(Method::POST, &format!("/containers/{id}/unpause"), None).await?;
    }
    Ok(())
}

async fn stop(world: &Rc<Lookup>, container: &Id, query: &Query) -> Result<(), Refusal> {
    let (status, answer) =
        world.engine.call(Method::POST, &format!("/containers/{container}/stop?{}", query.encode()), None).await?;
    match status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => Ok(()),
        status => Err(failed("stopping the container", status, &answer)),
    }
}

async fn join(world: &Rc<Lookup>, network: &str, container: &str, alias: Option<&str>) -> Result<(), Refusal> {
    let mut endpoint = Object::new();
    if let Some(alias) = alias {
        endpoint.set("Aliases", [alias].into_iter().collect::<Value>());
    }
    let body = Value::from([("Container", Value::from(container)), ("EndpointConfig", Value::Object(endpoint))]);
    let (status, answer) =
        world.engine.call(Method::POST, &format!("/networks/{network}/connect"), Some(&body)).await?;
    if status == StatusCode::OK {
        return Ok(());
    }
    // A network that the container cannot join is of no use: it is taken away, and the client hears why.
    let _ = world.engine.call(Method::DELETE, &format!("/networks/{network}"), None).await?;
    Err(failed(&format!("connecting the container `{container}` to the new network"), status, &answer))
}

async fn leave(world: &Rc<Lookup>, container: &str, network: &Id) -> Result<(), Refusal> {
    let body = Value::from([("Container", Value::from(container)), ("Force", Value::Bool(true))]);
    let (status, answer) =
        world.engine.call(Method::POST, &format!("/networks/{network}/disconnect"), Some(&body)).await?;
    match status {
        StatusCode::OK => Ok(()),
        // It was not connected, or is gone.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(()),
        status if message(&answer).contains("is not connected") => {
            tracing::debug!(%status, %network, "was not connected");
            Ok(())
        }
        status => Err(failed(&format!("disconnecting the container `{container}` from the network"), status, &answer)),
    }
}

/// Where an image comes from that is given a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// It was built, committed or imported, so it carries the owner's label.
    Made,
    /// It was in an archive, which the client has. It may carry no label.
    Loaded,
}

/// Gives an image a name, if it may (still) be had.
///
/// # Errors
/// Somebody else holds the name, or the image is another's.
pub async fn tag(world: &Rc<Lookup>, image: &str, name: &Reference, whose: Whose) -> Result<(), Refusal> {
    let me = &world.agent.owner;
    let found = world.image(image).await?.filter(|image| match whose {
        Whose::Made => image.standing(me) == Standing::Own,
        Whose::Loaded => !image.anothers(me),
    });
    let image = found.ok_or_else(|| Refusal::Engine { message: format!("the new image `{image}` is not there") })?;
    if whose == Whose::Loaded
        && let Some(named) = world.image(&name.to_string()).await?
        && named.id == image.id
    {
        return Ok(());
    }
    images::may_take(name, &world.agent, &**world).await?;
    let query = Query::of([
        ("repo", Param::Text(name.full_name())),
        ("tag", Param::Text(name.tag().unwrap_or("latest").to_owned())),
    ]);
    let (status, answer) =
        world.engine.call(Method::POST, &format!("/images/{}/tag?{}", image.id, query.encode()), None).await?;
    match status {
        StatusCode::CREATED => {
            if whose == Whose::Loaded {
                world.memory.gave(name.clone(), image.id);
            }
            Ok(())
        }
        status => Err(failed(&format!("giving the image the name `{name}`"), status, &answer)),
    }
}

/// Remembers what a pull brought: the image that is what the engine says it pulled. What has the name now, and is not,
/// was made by somebody else while the pull lasted.
async fn brought(world: &Rc<Lookup>, name: &Reference, known: &BTreeSet<Id>, progress: &[u8]) {
    let progress = String::from_utf8_lossy(progress);
    let mut pulled = Pulled::default();
    progress.lines().for_each(|line| pulled.read(line.as_bytes()));
    if let Err(why) = world.remember_pull(name, &pulled, known).await {
        tracing::warn!("{}", why.message(&world.agent.policy.name));
    }
}
