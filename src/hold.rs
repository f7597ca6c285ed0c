//! Binds that are checked on engines without sub-paths: whatever could swap them stands still until the engine has
//! mounted them (promise 8).

use crate::answer::{self, Fields, Objects, Picked};
use crate::engine::Engine;
use crate::json::Value;
use crate::lookup::{Lookup, message};
use crate::owner::{OWNER_LABEL, PAUSED_BY_LABEL, PAUSED_LABEL, SEAL_LABEL};
use crate::place::Place;
use crate::query::{Filters, Param, Query};
use crate::refusal::Refusal;
use crate::steps::{create_volume, failed};
use crate::world::{Id, PathFact, World};
use hyper::{Method, StatusCode};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{sleep, timeout};

/// So long a start waits for uploads into containers to end, since they could swap what it mounts.
const UPLOADS: Duration = Duration::from_secs(20);

/// So long anything waits for the checks of others, each of which takes the time of a start.
const CHECKS: Duration = Duration::from_secs(60);

/// So often running containers are looked at again when some end while they are paused.
const ROUNDS: usize = 5;

/// So long it is tried to pause a container: until no command is about to start in it, and it can be frozen. The
/// runtime gives up on one that is very busy.
const PAUSING: Duration = Duration::from_secs(20);

/// So often it is tried to let a container go on that was paused.
const THAWS: u32 = 80;

/// So often, where it is not known whether it was.
const RECOVERIES: u32 = 8;

/// So many of a container's commands are looked at.
const COMMANDS: usize = 100;

/// The first part of the name of a volume whose labels say what is paused.
pub const PAUSED_PREFIX: &str = "sockguard-paused-";

/// The same for what its user has paused, and what may go on for a moment. It begins as the other does.
pub const RESTED_PREFIX: &str = "sockguard-paused-by-user-";

/// Whose turn it is on one engine. Who could change files below a bind root takes the turn of its owner, with others,
/// and passes through `checking`; who checks binds has `checking` alone, and the turns of all owners whose containers
/// reach what is checked.
#[derive(Debug, Default)]
pub struct Turns {
    checking: Arc<Mutex<()>>,
    owners: RefCell<BTreeMap<String, Arc<RwLock<()>>>>,
}

impl Turns {
    fn of(&self, owner: &str) -> Arc<RwLock<()>> {
        let mut owners = self.owners.borrow_mut();
        owners.retain(|name, turn| name == owner || Arc::strong_count(turn) > 1);
        Arc::clone(owners.entry(owner.to_owned()).or_default())
    }
}

/// Waits for, and keeps off, starts whose binds are checked.
///
/// # Errors
/// They take too long.
pub async fn share(world: &Lookup) -> Result<OwnedRwLockReadGuard<()>, Refusal> {
    let turns = &world.engine.turns;
    let turn = async {
        let among = turns.of(world.agent.owner.as_str()).read_owned().await;
        drop(turns.checking.lock().await);
        among
    };
    timeout(CHECKS, turn).await.map_err(|_| Refusal::Conflict {
        message: "sockguard: a start whose binds are checked is under way, try again".to_owned(),
    })
}

/// Checks binds with whatever could swap them standing still: uploads and other starts wait, and these running containers
/// are paused:
/// - all of the owner's, not only those with mounts: one can reach what another mounts through its process name space, or
///   be handed an open directory; the one whose binds they are among them, since the engine mounts them for a copy, too;
/// - the agent's own, and the one that asks;
/// - those of others that can write where the binds are.
///
/// # Errors
/// A bind that is not what was granted, or the check cannot be made.
pub async fn hold(world: &Rc<Lookup>, binds: &[(PathBuf, PathBuf)]) -> Result<Alone, Refusal> {
    let mut alone = take_turns(world, binds).await?;
    match check(&mut alone, binds).await {
        Ok(()) => Ok(alone),
        Err(refusal) => {
            alone.end().await;
            Err(refusal)
        }
    }
}

/// Waits until nobody concerned changes or checks anything.
async fn take_turns(world: &Rc<Lookup>, binds: &[(PathBuf, PathBuf)]) -> Result<Alone, Refusal> {
    let busy = |message: &str| Refusal::Conflict { message: format!("sockguard: {message}, try again") };
    for _ in 0..ROUNDS {
        let concerned = owners(world, &look(world, binds).await?);
        let turns = async {
            let mut turns = Vec::new();
            // In the same order for all, so that nobody waits for who waits for him.
            for owner in &concerned {
                turns.push(world.engine.turns.of(owner).write_owned().await);
            }
            turns
        };
        let turns = timeout(UPLOADS, turns).await;
        let turns = turns
            .map_err(|_| busy("the container's binds cannot be checked while files are copied into containers"))?;
        let checking = timeout(CHECKS, Arc::clone(&world.engine.turns.checking).lock_owned()).await;
        let checking = checking.map_err(|_| busy("the binds of other containers are checked"))?;
        if owners(world, &look(world, binds).await?).is_subset(&concerned) {
            let (world, paused, rested, markers) = (Rc::clone(world), Vec::new(), BTreeSet::new(), Vec::new());
            return Ok(Alone(Some(Held { world, paused, rested, markers, _turns: turns, _checking: checking })));
        }
    }
    Err(busy("the containers that could change the container's binds come and go"))
}

fn owners(world: &Lookup, others: &[Other]) -> BTreeSet<String> {
    let concerned = others.iter().filter(|other| other.concerned).filter_map(|other| other.owner.clone());
    concerned.chain([world.agent.owner.to_string()]).collect()
}

async fn check(alone: &mut Alone, binds: &[(PathBuf, PathBuf)]) -> Result<(), Refusal> {
    let Some(held) = alone.0.as_mut() else { return Ok(()) };
    let mut rounds = 0;
    let others = loop {
        let others = look(&held.world, binds).await?;
        match held.pause_all(&others).await? {
            Round::Still => break others,
            Round::Changed => {}
        }
        rounds += 1;
        if rounds == ROUNDS {
            return Err(restarting());
        }
    };
    for (root, below) in binds {
        // What leads to the root may be in the hands of another agent, who can write above it.
        let above = others.iter().flat_map(|other| &other.above).filter(|above| root.starts_with(above));
        let top = above.min_by_key(|above| above.as_os_str().len()).unwrap_or(root);
        let between = root.strip_prefix(top).unwrap_or(Path::new("")).join(below);
        let why = match held.world.path(top, &between).await {
            // The engine makes what is missing, or says so.
            PathFact::Fine | PathFact::Missing => continue,
            PathFact::Link => "a part of it below the root is a symbolic link",
            PathFact::Unseen => "sockguard cannot see it",
        };
        let path = root.join(below).to_string_lossy().into_owned();
        let key = if held.world.agent.caller.is_some() { "bind.own-mounts" } else { "bind.roots" };
        return Err(Refusal::not_allowed("the bind source", &Value::from(path), key).hint(why));
    }
    Ok(())
}

/// A container that may be concerned.
#[derive(Debug)]
struct Other {
    id: Id,
    owner: Option<String>,
    /// Could it change what is checked?
    concerned: bool,
    state: State,
    /// The directories above a root that it can write.
    above: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    /// By its user, or let go on just now: the engine goes by events that may come late.
    Paused,
    Restarting,
    Resting,
}

/// Looks at all containers of the engine.
async fn look(world: &Lookup, binds: &[(PathBuf, PathBuf)]) -> Result<Vec<Other>, Refusal> {
    let myself = match world.place().await? {
        Place::Container(own) => Some(Id::new(own.id.as_str())),
        Place::Host | Place::Elsewhere => None,
    };
    const FIELDS: Fields = &[&["Id"], &["State"], &["Mounts"], &["Labels", OWNER_LABEL], &["Labels", SEAL_LABEL]];
    let mut others = Vec::new();
    answer::each(&*world.engine, "/containers/json?all=1", Objects::Listed, FIELDS, |container| {
        // sockguard itself must go on.
        if Some(container.id()?) != myself {
            others.push(other(container, world, binds));
        }
        Ok(())
    })
    .await?;
    others.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(others)
}

fn other(container: Picked, world: &Lookup, binds: &[(PathBuf, PathBuf)]) -> Other {
    let (container, all) = match container {
        Picked::Whole(container) => (container, true),
        // Who has so many mounts is taken for one that could.
        Picked::Partial(container) => (container, false),
    };
    let text = |path: &[&str]| container.at(path).and_then(Value::as_str).unwrap_or_default();
    let agent = &world.agent;
    let id = Id::new(text(&["Id"]));
    let owner = Some(text(&["Labels", OWNER_LABEL])).filter(|owner| !owner.is_empty()).map(str::to_owned);
    let mine = owner.as_deref() == Some(agent.owner.as_str()) && text(&["Labels", SEAL_LABEL]) == agent.owner.seal();
    let asks = agent.caller.as_ref().is_some_and(|caller| caller.id == id || caller.agent == id);
    // Where there is one agent, what nobody owns is the operator's.
    let an_agents = agent.caller.is_some() || owner.is_some();
    let mounts = container.at(&["Mounts"]).and_then(Value::as_array).unwrap_or_default();
    let writable = mounts.iter().filter(|mount| mount.at(&["RW"]).and_then(Value::as_bool) == Some(true) && an_agents);
    let sources = writable.filter_map(|mount| mount.at(&["Source"]).and_then(Value::as_str)).map(PathBuf::from);
    // Who can write everywhere has the host.
    let sources: Vec<PathBuf> = sources.filter(|source| source.is_absolute() && source != Path::new("/")).collect();
    let overlaps =
        |source: &PathBuf| binds.iter().any(|(root, _)| source.starts_with(root) || root.starts_with(source));
    let concerned = mine || asks || !all || sources.iter().any(overlaps);
    let state = match text(&["State"]) {
        "running" => State::Running,
        "paused" => State::Paused,
        "restarting" => State::Restarting,
        _ => State::Resting,
    };
    Other { id, owner, concerned, state, above: sources }
}

/// What a look at the running containers found.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    /// All that run are paused.
    Still,
    /// One ended meanwhile: the engine may be about to start it again.
    Changed,
}

fn restarting() -> Refusal {
    Refusal::Conflict {
        message: "sockguard: binds cannot be checked while the engine restarts one of your containers, try again"
            .to_owned(),
    }
}

/// Nothing that could swap the binds can write while this is held. Dropping it lets what was paused go on; the turns are
/// kept until it does, so that the next check finds it running.
#[derive(Debug)]
pub struct Alone(Option<Held>);

#[derive(Debug)]
struct Held {
    world: Rc<Lookup>,
    /// What is paused, or may be.
    paused: Vec<Id>,
    /// What of that its user had paused before.
    rested: BTreeSet<Id>,
    /// The volumes that say so.
    markers: Vec<String>,
    _turns: Vec<OwnedRwLockWriteGuard<()>>,
    _checking: OwnedMutexGuard<()>,
}

impl Held {
    /// Pauses what runs and is concerned.
    async fn pause_all(&mut self, others: &[Other]) -> Result<Round, Refusal> {
        let concerned = || others.iter().filter(|other| other.concerned);
        if concerned().any(|other| other.state == State::Restarting) {
            return Err(restarting());
        }
        let may_run = |other: &&Other| match other.state {
            State::Running | State::Paused => !self.paused.contains(&other.id),
            State::Restarting | State::Resting => false,
        };
        let running: Vec<&Other> = concerned().filter(may_run).collect();
        let listed = running.iter().filter(|other| other.state == State::Running).map(|other| &other.id);
        self.mark(PAUSED_PREFIX, listed).await?;
        let mut round = Round::Still;
        for other in running {
            if !self.pause(&other.id).await? {
                round = Round::Changed;
            } else if other.state == State::Paused && !self.rested.contains(&other.id) {
                self.mark(PAUSED_PREFIX, [&other.id]).await?;
            }
        }
        Ok(round)
    }

    /// Writes down what is about to be paused, for the case that nobody is left to let it go on; or what is about to go on,
    /// for the case that nobody is left to pause it again.
    async fn mark(&mut self, prefix: &str, ids: impl IntoIterator<Item = &Id>) -> Result<(), Refusal> {
        let ids: Vec<&str> = ids.into_iter().map(Id::as_str).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("{prefix}{now}");
        let guarded = self.world.sockets.guarded.to_string_lossy().into_owned();
        let labels = [(PAUSED_LABEL.to_owned(), ids.join(",")), (PAUSED_BY_LABEL.to_owned(), guarded)];
        self.markers.push(name.clone());
        create_volume(&self.world, &name, &[], &labels).await
    }

    /// Pauses a container, but not in the moment in which a command starts in it: frozen there, it would hang for ever.
    /// Says whether it is paused now.
    async fn pause(&mut self, id: &Id) -> Result<bool, Refusal> {
        let world = Rc::clone(&self.world);
        let paused = async {
            loop {
                while begins(&world.engine, id).await? {
                    sleep(Duration::from_millis(5)).await;
                }
                // Also where the answer does not come.
                self.paused.push(id.clone());
                let (status, answer) =
                    world.engine.call(Method::POST, &format!("/containers/{id}/pause"), None).await?;
                if status == StatusCode::NO_CONTENT {
                    if !begins(&world.engine, id).await? {
                        return Ok(true);
                    }
                    go_on(&world.engine, id).await?;
                    self.paused.retain(|paused| paused != id);
                    sleep(Duration::from_millis(5)).await;
                    continue;
                }
                self.paused.retain(|paused| paused != id);
                let message = message(&answer);
                return match status {
                    // The engine goes by events that may come late: it may take a container for paused that has gone on
                    // since. Only one that it can let go on was paused, by its user; that one is paused again, and
                    // stays so. Its user's `unpause` waits for this check.
                    _ if message.contains("already paused") => {
                        let first = !self.rested.contains(id);
                        if first {
                            self.mark(RESTED_PREFIX, [id]).await?;
                        }
                        if resumed(&world.engine, id).await? {
                            self.rested.insert(id.clone());
                        } else {
                            if first && let Some(marker) = self.markers.pop() {
                                remove(&world.engine, &marker).await;
                            }
                            sleep(Duration::from_millis(10)).await;
                        }
                        continue;
                    }
                    StatusCode::CONFLICT | StatusCode::NOT_FOUND => Ok(false),
                    // It came to its end in this moment, which is told in many ways.
                    _ if !state(&world.engine, id, "Running").await? => Ok(false),
                    status => {
                        let why = failed("pausing a container that could swap a bind", status, &answer);
                        tracing::debug!(container = %id, "{}", why.message(""));
                        sleep(Duration::from_millis(20)).await;
                        continue;
                    }
                };
            }
        };
        timeout(PAUSING, paused).await.unwrap_or_else(|_| {
            Err(Refusal::Conflict {
                message:
                    "sockguard: binds cannot be checked, since a container that could swap them cannot be paused, \
                          try again"
                        .to_owned(),
            })
        })
    }

    /// Lets everything go on.
    async fn let_go(self) {
        let engine = &self.world.engine;
        let paused: Vec<Id> = self.paused.iter().filter(|id| !self.rested.contains(*id)).cloned().collect();
        if let_go_on(engine, &paused, THAWS).await {
            for marker in &self.markers {
                remove(engine, marker).await;
            }
        }
    }
}

impl Alone {
    /// Lets everything go on, and waits until it does.
    pub async fn end(mut self) {
        if let Some(held) = self.0.take() {
            // Not left half done when who waits is gone.
            let _ = tokio::task::spawn_local(held.let_go()).await;
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            tokio::task::spawn_local(held.let_go());
        }
    }
}

/// Is a command about to start in the container?
async fn begins(engine: &Engine, id: &Id) -> Result<bool, Refusal> {
    let (status, found) = answer::one(engine, &format!("/containers/{id}/json"), &[&["ExecIDs"]]).await?;
    if status != StatusCode::OK {
        return Ok(false);
    }
    let commands = found.at(&["ExecIDs"]).and_then(Value::as_array).unwrap_or_default();
    for command in commands.iter().filter_map(Value::as_str).take(COMMANDS) {
        let (status, command) =
            answer::one(engine, &format!("/exec/{command}/json"), &[&["Running"], &["Pid"]]).await?;
        let running = command.at(&["Running"]).and_then(Value::as_bool) == Some(true);
        let pid = command.at(&["Pid"]).and_then(Value::as_i64).unwrap_or_default();
        if status == StatusCode::OK && running && pid == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Is this flag of a container's state set, such as `Running`? Not where the container is gone.
async fn state(engine: &Engine, id: &Id, flag: &str) -> Result<bool, Refusal> {
    const FLAGS: Fields = &[&["State", "Running"], &["State", "Paused"]];
    let (status, found) = answer::one(engine, &format!("/containers/{id}/json"), FLAGS).await?;
    Ok(status == StatusCode::OK && found.at(&["State", flag]).and_then(Value::as_bool) == Some(true))
}

/// Could the engine let this container go on? Then it was paused.
async fn resumed(engine: &Engine, id: &Id) -> Result<bool, Refusal> {
    let (status, _) = engine.call(Method::POST, &format!("/containers/{id}/unpause"), None).await?;
    Ok(status == StatusCode::NO_CONTENT)
}

/// Asks for `pause` or `unpause`. Nothing where that is done, or the container has ended or is gone; else what the engine
/// answered.
async fn asked(engine: &Engine, id: &Id, operation: &str) -> Result<Option<(StatusCode, Value)>, Refusal> {
    let (status, answer) = engine.call(Method::POST, &format!("/containers/{id}/{operation}"), None).await?;
    let done = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_FOUND);
    Ok(if done || message(&answer).contains("is not running") { None } else { Some((status, answer)) })
}

async fn go_on(engine: &Engine, id: &Id) -> Result<(), Refusal> {
    let Some((status, answer)) = asked(engine, id, "unpause").await? else { return Ok(()) };
    // The runtime could not thaw it this time, or the engine, which goes by events that may come late, does not know yet
    // that it is paused.
    match state(engine, id, "Running").await? {
        true => Err(failed("letting a container go on", status, &answer)),
        false => Ok(()),
    }
}

/// Lets these go on, and says whether all could be asked to.
async fn let_go_on(engine: &Engine, paused: &[Id], tries: u32) -> bool {
    let mut all = true;
    for id in paused {
        let mut left = tries;
        while let Err(e) = go_on(engine, id).await {
            left -= 1;
            // By now the engine has heard of all that came late.
            if left == 0 && state(engine, id, "Paused").await == Ok(false) {
                break;
            }
            if left == 0 {
                tracing::error!(container = %id, error = %e.message(""), "a container may stay paused");
                all = false;
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
    all
}

/// Pauses a container again. Before the engine has heard of all that came late, it may take it for paused wrongly.
async fn rest(engine: &Engine, id: &Id, all_heard: bool) -> Result<(), Refusal> {
    match asked(engine, id, "pause").await? {
        None => Ok(()),
        Some((_, answer)) if all_heard && message(&answer).contains("already paused") => Ok(()),
        Some((status, answer)) => Err(failed("pausing a container again", status, &answer)),
    }
}

/// Pauses what its user had paused again, and says whether all could be asked to.
async fn pause_again(engine: &Engine, rested: &[Id]) -> bool {
    let mut all = true;
    for id in rested {
        let mut left = RECOVERIES;
        while let Err(e) = rest(engine, id, left < RECOVERIES).await {
            left -= 1;
            if left == 0 {
                tracing::error!(container = %id, error = %e.message(""), "a container is not paused any more");
                all = false;
                break;
            }
            sleep(Duration::from_millis(250)).await;
        }
    }
    all
}

async fn remove(engine: &Engine, marker: &str) {
    if let Err(e) = engine.call(Method::DELETE, &format!("/volumes/{marker}"), None).await {
        tracing::warn!(volume = marker, error = %e.message(""), "a volume that says what was paused is left");
    }
}

/// Lets containers go on that a predecessor, with the same guarded socket, had paused when it was killed, and pauses those
/// again that it had let go on for a moment.
///
/// # Errors
/// When the engine cannot be asked.
pub async fn recover(engine: &Engine, guarded: &Path) -> Result<(), Refusal> {
    // Those of a check that is under way now are not a predecessor's.
    let _checking = engine.turns.checking.lock().await;
    let mut filters = Filters::default();
    filters.add("label", format!("{PAUSED_BY_LABEL}={}", guarded.display()));
    let query = Query::of([("filters", Param::Filters(filters))]);
    const FIELDS: Fields = &[&["Volumes", "Name"], &["Volumes", "Labels", PAUSED_LABEL]];
    let mut markers = Vec::new();
    answer::each(engine, &format!("/volumes?{}", query.encode()), Objects::Listed, FIELDS, |marker| {
        markers.push(marker.fields());
        Ok(())
    })
    .await?;
    // What went on for a moment is paused last.
    let rested = |name: &str| name.starts_with(RESTED_PREFIX);
    markers.sort_by_key(|marker| marker.at(&["Name"]).and_then(Value::as_str).is_some_and(rested));
    for marker in &markers {
        let text = |path: &[&str]| marker.at(path).and_then(Value::as_str).unwrap_or_default();
        let ids: Vec<Id> = text(&["Labels", PAUSED_LABEL]).split(',').map(Id::new).collect();
        let name = text(&["Name"]);
        let done = if rested(name) {
            tracing::warn!(
                containers = ids.len(),
                "had been let go on for a moment when sockguard ended; are paused again"
            );
            pause_again(engine, &ids).await
        } else if name.starts_with(PAUSED_PREFIX) {
            tracing::warn!(
                containers = ids.len(),
                "were paused when sockguard ended while it checked binds; go on now"
            );
            let_go_on(engine, &ids, RECOVERIES).await
        } else {
            false
        };
        if done {
            remove(engine, name).await;
        }
    }
    Ok(())
}
