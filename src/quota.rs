//! Quotas: what all objects of an owner come to at most.
//!
//! The engine's lists are counted for each request that adds something, and what is not in them yet, because the engine
//! has not answered, is waited for or counted too. So the quotas hold over all connections of an owner. Another process
//! that serves the same owner is not waited for.

use crate::answer::Fields;
use crate::json::Value;
use crate::judge::limits::{Demand, Limits, NewVolumes};
use crate::lookup::{Lookup, Memory, text};
use crate::owner::{BRIDGE_LABEL, SEAL_LABEL};
use crate::policy::{Quota, Total};
use crate::refusal::Refusal;
use crate::toml_file;
use crate::world::Id;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The states of containers that there are.
const THERE: [&str; 7] = ["created", "restarting", "running", "paused", "removing", "exited", "dead"];

/// The states of containers that run.
const RUNNING: [&str; 3] = ["restarting", "running", "paused"];

/// What an owner's requests have in common.
#[derive(Debug, Default)]
pub struct Quotas {
    /// Held by a request that adds something, from the count until the engine has answered.
    adding: Arc<Mutex<()>>,
    /// Held while running containers are counted.
    counting: Mutex<()>,
    /// The containers whose start the engine has not answered, once for each request.
    starting: RefCell<Vec<Id>>,
    /// The limits of containers that are there.
    limits: RefCell<HashMap<Id, Limits>>,
}

/// What is held until the engine has answered.
#[derive(Debug)]
pub enum Held {
    /// Nobody else adds anything.
    Adding(OwnedMutexGuard<()>),
    /// A container is counted as running.
    Starting(Starting),
}

/// A container that is counted as running for as long as this is there.
#[derive(Debug)]
pub struct Starting {
    memory: Rc<Memory>,
    container: Id,
}

impl Drop for Starting {
    fn drop(&mut self) {
        let mut starting = self.memory.quotas.starting.borrow_mut();
        if let Some(place) = starting.iter().position(|id| *id == self.container) {
            starting.swap_remove(place);
        }
    }
}

/// Sees to it that there is room for what a request adds, and keeps it until the engine has answered.
///
/// # Errors
/// A quota is used up; the engine cannot be asked.
pub async fn hold(world: &Rc<Lookup>, demand: &Demand) -> Result<Held, Refusal> {
    if let Demand::Start { container } = demand {
        return start(world, container).await.map(Held::Starting);
    }
    let held = Arc::clone(&world.memory.quotas.adding).lock_owned().await;
    match demand {
        Demand::Container { limits, volumes } => {
            container(world, *limits).await?;
            new_volumes(world, "creating the container's volumes", volumes).await?;
        }
        Demand::Update { container, changes } => update(world, container, changes).await?,
        Demand::Network => {
            if let Some(most) = world.agent.policy.quota.networks {
                const FIELDS: Fields = &[&["Labels", BRIDGE_LABEL]];
                let mut there = 0;
                let read = |network: Value| {
                    // The owner's bridge is of sockguard's making.
                    there += u64::from(network.at(&["Labels", BRIDGE_LABEL]).is_none());
                };
                world.owned("/networks", &world.agent.owner, &[], FIELDS, read).await?;
                room("creating a network", there, 1, most, "quota.networks", "networks are there")?;
            }
        }
        Demand::Volume(volumes) => new_volumes(world, "creating a volume", volumes).await?,
        Demand::Start { .. } => {}
    }
    Ok(Held::Adding(held))
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Is there room for more?
fn room(what: &str, there: u64, more: u64, most: u64, key: &'static str, words: &str) -> Result<(), Refusal> {
    if there.saturating_add(more) <= most {
        return Ok(());
    }
    let new = if more > 1 { format!(", and it needs {more} more") } else { String::new() };
    Err(Refusal::operation(what, key).hint(format!("{there} of {most} {words}{new}")))
}

/// The owner's containers in one of these states.
async fn containers(world: &Lookup, states: &[&str]) -> Result<HashSet<Id>, Refusal> {
    let owner = &world.agent.owner;
    let seal = format!("{SEAL_LABEL}={}", owner.seal());
    let mut filters = vec![("label", seal.as_str())];
    filters.extend(states.iter().map(|state| ("status", *state)));
    let mut found = HashSet::new();
    let read = |container: Value| {
        found.insert(Id::new(text(&container, &["Id"])));
    };
    world.owned("/containers/json", owner, &filters, &[&["Id"]], read).await?;
    Ok(found)
}

async fn start(world: &Rc<Lookup>, container: &Id) -> Result<Starting, Refusal> {
    let quotas = &world.memory.quotas;
    let counting = quotas.counting.lock().await;
    if let Some(most) = world.agent.policy.quota.running {
        // First these: what leaves them while the list is on its way is in the list.
        let mut running: HashSet<Id> = quotas.starting.borrow().iter().cloned().collect();
        running.extend(containers(world, &RUNNING).await?);
        if !running.contains(container) {
            room("starting the container", count(running.len()), 1, most, "quota.running", "containers run")?;
        }
    }
    quotas.starting.borrow_mut().push(container.clone());
    drop(counting);
    Ok(Starting { memory: Rc::clone(&world.memory), container: container.clone() })
}

async fn container(world: &Lookup, limits: Limits) -> Result<(), Refusal> {
    let quota = &world.agent.policy.quota;
    if quota.containers.is_none() && !quota.shares_out() {
        return Ok(());
    }
    let there = containers(world, &THERE).await?;
    if let Some(most) = quota.containers {
        room("creating a container", count(there.len()), 1, most, "quota.containers", "containers are there")?;
    }
    if quota.shares_out() {
        let taken = taken(world, &there, None).await?;
        share("HostConfig.", quota, taken, limits, Limits::default())?;
    }
    Ok(())
}

async fn update(world: &Lookup, container: &Id, changes: &[(&'static str, i64)]) -> Result<(), Refusal> {
    let quota = &world.agent.policy.quota;
    // Whoever counts next asks the engine.
    world.memory.quotas.limits.borrow_mut().remove(container);
    if !quota.shares_out() {
        return Ok(());
    }
    let Some(mut host) = world.limits(container).await? else { return Ok(()) };
    let before = Limits::stated(&host).counted(quota);
    for (field, number) in changes {
        host.set(field, *number);
    }
    let after = Limits::stated(&host).counted(quota);
    let there = containers(world, &THERE).await?;
    let taken = taken(world, &there, Some(container)).await?;
    share("", quota, taken, after, before)
}

/// What the limits of these containers come to, but for one.
async fn taken(world: &Lookup, there: &HashSet<Id>, but: Option<&Id>) -> Result<Limits, Refusal> {
    let known = &world.memory.quotas.limits;
    known.borrow_mut().retain(|id, _| there.contains(id));
    let mut sum = Limits::default();
    for id in there.iter().filter(|id| Some(*id) != but) {
        let remembered = known.borrow().get(id).copied();
        let limits = match remembered {
            Some(limits) => limits,
            None => match world.limits(id).await? {
                Some(host) => {
                    let limits = Limits::stated(&host);
                    known.borrow_mut().insert(id.clone(), limits);
                    limits
                }
                // It went meanwhile.
                None => continue,
            },
        };
        sum = sum.and(limits.counted(&world.agent.policy.quota));
    }
    Ok(sum)
}

/// Is enough left of what is shared out? A container may always be given less than it has.
fn share(place: &str, quota: &Quota, taken: Limits, wants: Limits, has: Limits) -> Result<(), Refusal> {
    type Text = fn(u64) -> String;
    let each: [(_, _, Option<Total>, _, _, _, Text); 3] = [
        ("Memory", "quota.memory", quota.memory, taken.memory, wants.memory, has.memory, toml_file::size_text),
        ("NanoCpus", "quota.cpus", quota.cpus, taken.cpus, wants.cpus, has.cpus, toml_file::cpus_text),
        ("PidsLimit", "quota.pids", quota.pids, taken.pids, wants.pids, has.pids, |n| n.to_string()),
    ];
    for (field, key, total, taken, wants, has, text) in each {
        let Some(total) = total else { continue };
        if wants > has && taken.saturating_add(wants) > total.all {
            let hint = format!("{} of {} is taken by other containers", text(taken), text(total.all));
            return Err(Refusal::not_allowed(format!("{place}{field}"), &Value::from(text(wants)), key).hint(hint));
        }
    }
    Ok(())
}

async fn new_volumes(world: &Lookup, what: &str, volumes: &NewVolumes) -> Result<(), Refusal> {
    let Some(most) = world.agent.policy.quota.volumes else { return Ok(()) };
    if volumes.is_empty() {
        return Ok(());
    }
    let (mut there, mut known) = (0, 0);
    let read = |volume: Value| {
        there += 1;
        known += u64::from(volumes.named.contains(&text(&volume, &["Name"])));
    };
    world.owned("/volumes", &world.agent.owner, &[], &[&["Volumes", "Name"]], read).await?;
    let named = count(volumes.named.len()).saturating_sub(known);
    match volumes.unnamed.saturating_add(named) {
        0 => Ok(()),
        more => room(what, there, more, most, "quota.volumes", "volumes are there"),
    }
}
