//! The owner's own bridge: made when something is to be put on it, and made again when it went away.

use super::failed;
use crate::answer::{self, Fields};
use crate::json::{Object, Value};
use crate::lookup::{Lookup, text};
use crate::refusal::Refusal;
use crate::world::Id;
use hyper::{Method, StatusCode};
use std::rc::Rc;

/// What of an endpoint is its user's, and what the engine is told when the container is connected anew.
const ENDPOINT: [&str; 4] = ["Aliases", "Links", "DriverOpts", "GwPriority"];

/// Makes the bridge, unless it is there. Nothing is remembered: anybody may have removed it meanwhile.
///
/// # Errors
/// The engine makes none, such as when its address pools are exhausted, or cannot be asked.
pub async fn make(world: &Rc<Lookup>, name: &str, labels: &[(String, String)]) -> Result<Id, Refusal> {
    if let Some(id) = found(world, name).await?.into_iter().min() {
        return Ok(id);
    }
    let _alone = world.memory.bridge.lock().await;
    if let Some(id) = found(world, name).await?.into_iter().min() {
        return Ok(id);
    }
    let labels: Object = labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let body = Value::from([
        ("Name", Value::from(name)),
        ("CheckDuplicate", Value::Bool(true)),
        ("Driver", Value::from("bridge")),
        ("Labels", Value::Object(labels)),
    ]);
    let (status, answer) = world.engine.call(Method::POST, "/networks/create", Some(&body)).await?;
    let made = Id::new(text(&answer, &["Id"]));
    let all = found(world, name).await?;
    let Some(first) = all.iter().min().cloned() else {
        return Err(failed(&format!("making your default network `{name}`"), status, &answer));
    };
    // Older engines make two of a name when two processes ask at once. Each of them takes away its own, but for the first.
    if status == StatusCode::CREATED && made != first {
        let _ = world.engine.call(Method::DELETE, &format!("/networks/{made}"), None).await?;
    }
    world.memory.known.network(first.as_str());
    Ok(first)
}

/// The owner's networks of this name.
async fn found(world: &Lookup, name: &str) -> Result<Vec<Id>, Refusal> {
    let mut named = Vec::new();
    let read = |network: Value| {
        if text(&network, &["Name"]) == name {
            named.push(Id::new(text(&network, &["Id"])));
        }
    };
    world.owned("/networks", &world.agent.owner, &[("name", name)], &[&["Id"], &["Name"]], read).await?;
    Ok(named)
}

/// Makes the bridge for a container that is on it and about to start. The engine keeps the ID of the network that the
/// container was on before, and would not find it.
///
/// # Errors
/// As [`make`]; also when the container cannot be connected to the new one.
pub async fn rejoin(
    world: &Rc<Lookup>,
    container: &Id,
    name: &str,
    labels: &[(String, String)],
) -> Result<(), Refusal> {
    const FIELDS: Fields = &[&["NetworkSettings", "Networks"], &["State", "Running"]];
    let (status, found) = answer::one(&*world.engine, &format!("/containers/{container}/json"), FIELDS).await?;
    let Some(Value::Object(endpoint)) = found.at(&["NetworkSettings", "Networks", name]) else { return Ok(()) };
    let running = found.at(&["State", "Running"]).and_then(Value::as_bool) == Some(true);
    if status != StatusCode::OK || running {
        return Ok(());
    }
    let network = make(world, name, labels).await?;
    let was = endpoint.get("NetworkID").and_then(Value::as_str).unwrap_or_default();
    if was.is_empty() || was == network.as_str() {
        return Ok(());
    }
    let asked = |key: &str| Some((key.to_owned(), endpoint.get(key).filter(|value| !value.is_empty())?.clone()));
    let asked: Object = ENDPOINT.iter().filter_map(|key| asked(key)).collect();
    let body = |more: (&str, Value)| Value::from([("Container", Value::from(container.as_str())), more]);
    let call = async |what: &str, body: Value| {
        world.engine.call(Method::POST, &format!("/networks/{network}/{what}"), Some(&body)).await
    };
    // It is known by the network's name, so it leaves the one that is gone.
    call("disconnect", body(("Force", Value::Bool(true)))).await?;
    match call("connect", body(("EndpointConfig", Value::Object(asked)))).await? {
        (StatusCode::OK, _) => Ok(()),
        (status, answer) => {
            Err(failed(&format!("connecting the container to your default network `{name}`"), status, &answer))
        }
    }
}
