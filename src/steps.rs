//! What is done around a request, as the permit says: before it is sent, and when it was answered.

mod bridge;

use crate::answer::known::Moment;
use crate::hold::{self, Alone};
use crate::json::{self, Object, Value};
use crate::judge::binds::mounts_subpaths;
use crate::judge::images;
use crate::lookup::{self, Lookup, Pulled, message};
use crate::owner::{OWNER_LABEL, Standing};
use crate::permit::Step;
use crate::query::{Param, Query};
use crate::quota;
use crate::reference::Reference;
use crate::refusal::Refusal;
use crate::world::{Id, World};
use hyper::{Method, StatusCode};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use tokio::sync::OwnedRwLockReadGuard;

/// What is held until the request is answered. Dropping it lets everything go, also when the client went away.
#[derive(Debug, Default)]
pub struct Held {
    alone: Option<Alone>,
    among: Option<OwnedRwLockReadGuard<()>>,
    room: Option<quota::Held>,
}

impl Held {
    /// Lets everything go, and waits until it goes on.
    pub async fn end(self) {
        drop(self.among);
        if let Some(alone) = self.alone {
            alone.end().await;
        }
    }
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
            Step::ShareBinds => held.among = Some(hold::share(world).await?),
            Step::HoldBinds { binds } => held.alone = Some(hold::hold(world, binds).await?),
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

/// The refusal where a step of our own failed.
pub fn failed(what: &str, status: StatusCode, answer: &Value) -> Refusal {
    Refusal::Engine { message: format!("{what} failed: the engine answered {status}: {}", message(answer)) }
}

/// Creates a volume, and sees to it that what is there under the name carries the labels: the engine answers with
/// success when a volume of the name exists, whatever it is.
///
/// # Errors
/// It cannot be made, or is another's.
pub async fn create_volume(
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
    let made = tokio::task::spawn_blocking(move || lookup::make_directory(&root, &below)).await;
    match made.unwrap_or(Err(Errno::CANCELED)) {
        Ok(()) => Ok(()),
        // Where sockguard may only look, the engine makes it, while nothing can interfere: binds without sub-paths are
        // checked when they are mounted.
        Err(Errno::ROFS | Errno::ACCESS) if !mounts_subpaths(world).await? => Ok(()),
        Err(e) => Err(Refusal::malformed(format!(
            "the bind source `{}` does not exist and cannot be made: {e}",
            path.display()
        ))),
    }
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
