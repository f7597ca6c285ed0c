//! Which agent a connection comes from, where several agents share a listener.
//!
//! The kernel says which process connected ([`crate::peer`]), its cgroups name its container ([`crate::cgroups`]), and
//! the engine says what that container is: one that was created through sockguard acts as its owner; another is the
//! agent that the first matching rule makes of it. Nothing that a client says counts, nor what a container inherits from
//! its image: labels that its image has too are as good as absent.

use crate::answer::{self, Fields};
use crate::audit::{Audit, Sink};
use crate::cgroups::Cgroups;
use crate::engine::Engine;
use crate::json::{Object, Value};
use crate::judge::own_mounts::own_mounts;
use crate::judge::{Agent, Caller};
use crate::lookup::{self, Lookup, Memories};
use crate::owner::{AGENT_LABEL, LABEL_PREFIX, OWNER_LABEL, Owner, SEAL_LABEL, SealKey};
use crate::peer::{Hold, Peer};
use crate::policy::{Glob, Policy};
use crate::refusal::Refusal;
use crate::route::percent_encode;
use crate::server::{Guard, Limits};
use crate::world::{Id, Sockets};
use hyper::StatusCode;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::rc::Rc;
use tokio::sync::OnceCell;

/// How a refusal begins of who can be told, but is no agent.
pub const NO_AGENT: &str = "no agent rule matches";

/// So many containers are remembered; then they are forgotten all at once, and looked up anew.
const REMEMBERED: usize = 4_096;

/// What is read of a container: what rules go by, and what [`own_mounts`] needs.
const CONTAINER: Fields = &[
    &["Id"],
    &["Name"],
    &["Image"],
    &["State", "Pid"],
    &["Mounts"],
    &["Config", "Image"],
    &["Config", "Labels"],
    &["HostConfig", "CgroupParent"],
    &["HostConfig", "Binds"],
    &["HostConfig", "Mounts"],
    &["HostConfig", "Tmpfs"],
    &["HostConfig", "VolumesFrom"],
];

/// A rule that makes an agent of who connects: the first that matches counts.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Who is meant. All of it has to be so.
    pub who: Who,
    /// How its owner is called.
    pub owner: OwnerTemplate,
    /// What it may do.
    pub policy: Rc<Policy>,
}

/// Whom a rule means.
#[derive(Debug, Clone)]
pub enum Who {
    /// A container that carries all of these labels, of an image of this name.
    Container {
        /// Label keys, with what their values look like.
        labels: Vec<(String, Glob)>,
        /// The image as the container's creator named it (`Config.Image`).
        image: Option<Glob>,
    },
    /// A process of the host, by its user.
    User(u32),
}

/// The text of which an owner's name is made: `{label:KEY}`, `{container.id}`, `{container.name}` and `{uid}` stand for
/// what the one who connects has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Label(String),
    ContainerId,
    ContainerName,
    Uid,
}

impl OwnerTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// One sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| format!("`{text}`: a `{{` is not closed"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name.split_once(':') {
                Some(("label", key)) => Part::Label(label_key(key)?),
                _ => match name {
                    "container.id" => Part::ContainerId,
                    "container.name" => Part::ContainerName,
                    "uid" => Part::Uid,
                    other => {
                        return Err(format!(
                            "`{{{other}}}` is not known: there are {{label:KEY}}, {{container.id}}, {{container.name}} and {{uid}}"
                        ));
                    }
                },
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let text_of = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Label(_) | Part::ContainerId | Part::ContainerName | Part::Uid => "x".to_owned(),
        };
        Owner::new(&parts.iter().map(text_of).collect::<String>())?;
        Ok(Self(parts))
    }

    /// Does it need something that only containers have?
    pub fn needs_container(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Label(_) | Part::ContainerId | Part::ContainerName))
    }

    /// Does it need something that only processes of the host have?
    pub fn needs_user(&self) -> bool {
        self.0.contains(&Part::Uid)
    }

    /// The owner's name for this container.
    ///
    /// # Errors
    /// A label that it does not have, or that has no value.
    fn of_container(&self, container: &Facts) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Label(key) => match container.labels.get(key).filter(|value| !value.is_empty()) {
                    Some(value) => name.push_str(value),
                    None => return Err(format!("it has no label {key} of its own, of which its owner is made")),
                },
                Part::ContainerId => name.push_str(&container.id),
                Part::ContainerName => name.push_str(&container.name),
                Part::Uid => {
                    return Err("its owner is made of a user ID, which only processes of the host have".to_owned());
                }
            }
        }
        Ok(name)
    }

    /// The owner's name for a user of the host.
    fn of_user(&self, uid: u32) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Uid => name.push_str(&uid.to_string()),
                Part::Label(_) | Part::ContainerId | Part::ContainerName => {
                    return Err("its owner is made of what only containers have".to_owned());
                }
            }
        }
        Ok(name)
    }
}

impl fmt::Display for OwnerTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Label(key) => write!(f, "{{label:{key}}}"),
            Part::ContainerId => f.write_str("{container.id}"),
            Part::ContainerName => f.write_str("{container.name}"),
            Part::Uid => f.write_str("{uid}"),
        })
    }
}

/// Checks the key of a label that rules look at.
///
/// # Errors
/// One sentence.
pub fn label_key(key: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if key.is_empty() || !key.chars().all(fine) {
        return Err(format!("`{key}` is no key of a label: expected letters, digits, `.`, `-`, `_` and `/`"));
    }
    if key.starts_with(LABEL_PREFIX) {
        return Err(format!("`{key}` is sockguard's own: a container that carries it is no agent"));
    }
    Ok(key.to_owned())
}

/// What is known of a container that connects.
#[derive(Debug, Clone)]
struct Facts {
    id: String,
    name: String,
    image: String,
    cgroup_parent: String,
    /// Without those that its image has too.
    labels: BTreeMap<String, String>,
    /// Those of sockguard's own, wherever they come from.
    ours: BTreeMap<String, String>,
    /// Does its image carry a seal?
    sealed_image: bool,
    /// Its first process, with which it ends.
    first: Rc<Hold>,
    /// The engine's description.
    inspect: Value,
}

impl Rule {
    fn means(&self, container: &Facts) -> bool {
        match &self.who {
            Who::Container { labels, image } => {
                let carries =
                    |(key, value): &(String, Glob)| container.labels.get(key).is_some_and(|v| value.matches(v));
                labels.iter().all(carries) && image.as_ref().is_none_or(|image| image.matches(&container.image))
            }
            Who::User(_) => false,
        }
    }
}

/// Everybody who connects to the listeners that tell agents apart.
#[derive(Debug)]
pub struct Peers {
    /// The engine.
    pub engine: Rc<Engine>,
    /// What seals are made with.
    pub key: SealKey,
    /// Who is served, in order.
    pub rules: Vec<Rule>,
    /// The sockets that a bind may name.
    pub sockets: Sockets,
    /// Where decisions are written.
    pub sink: Rc<Sink>,
    /// What the server keeps to.
    pub limits: Limits,
    /// How many connections each owner has, and all strangers together, who have no name.
    pub seats: RefCell<HashMap<String, usize>>,
    known: RefCell<HashMap<String, Rc<OnceCell<Rc<Known>>>>>,
    users: RefCell<HashMap<u32, Rc<Guard>>>,
    memories: Rc<Memories>,
}

/// What became of a container's look-up. All of it is so for as long as the container runs.
#[derive(Debug)]
struct Known {
    cgroups: Cgroups,
    guard: Result<Rc<Guard>, Refusal>,
}

impl Known {
    fn lives(&self) -> bool {
        self.guard.as_ref().map_or(true, |guard| !guard.ended())
    }
}

/// Why a look-up came to nothing; not remembered.
enum Missed {
    /// The engine has no such container, or it does not run.
    Absent,
    /// The engine cannot be asked.
    Failed(Refusal),
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(
        engine: Rc<Engine>,
        key: SealKey,
        rules: Vec<Rule>,
        sockets: Sockets,
        sink: Rc<Sink>,
        memories: Rc<Memories>,
    ) -> Rc<Self> {
        let limits = Limits::default();
        let (seats, known, users) = (RefCell::default(), RefCell::default(), RefCell::default());
        Rc::new(Self { engine, key, rules, sockets, sink, limits, seats, known, users, memories })
    }

    /// The guard of the agent that this process belongs to.
    ///
    /// # Errors
    /// `Refusal::Stranger`, which says whom the process was taken for; or the engine cannot be asked.
    pub async fn guard(&self, peer: &Peer) -> Result<Rc<Guard>, Refusal> {
        let cgroups = Cgroups::of(peer.pid);
        // Only of a process that still lives is it certain that this was about it.
        if !peer.lives() {
            return Err(Refusal::Stranger { message: crate::peer::Unknown::Gone.to_string() });
        }
        let cgroups = cgroups.map_err(|e| Refusal::Stranger {
            message: format!("the cgroups of the process that connects (pid {}) cannot be read: {e}", peer.pid),
        })?;
        let ids = cgroups.container_ids();
        if ids.is_empty() {
            return self.user(peer.uid);
        }
        for id in &ids {
            match self.container(id, &cgroups).await {
                Ok(Some(guard)) => return guard,
                Ok(None) | Err(Missed::Absent) => {}
                Err(Missed::Failed(refusal)) => return Err(refusal),
            }
        }
        let short: Vec<&str> = ids.iter().map(|id| short(id)).collect();
        let message = format!(
            "{NO_AGENT}: the process that connects (pid {}) is in no container that the engine runs (its cgroups name {})",
            peer.pid,
            short.join(", ")
        );
        Err(Refusal::Stranger { message })
    }

    /// What a process with these cgroups is, if it is in this container.
    async fn container(&self, id: &str, cgroups: &Cgroups) -> Result<Option<Result<Rc<Guard>, Refusal>>, Missed> {
        let known = self.known(id).await?;
        Ok(cgroups.within(&known.cgroups).then(|| known.guard.clone()))
    }

    /// What is known of a running container, or found out now.
    async fn known(&self, id: &str) -> Result<Rc<Known>, Missed> {
        let cell = {
            let mut known = self.known.borrow_mut();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            Rc::clone(known.entry(id.to_owned()).or_default())
        };
        // Whoever else asks for the same one meanwhile waits for this answer.
        let known = match cell.get_or_try_init(|| async { self.look_up(id).await.map(Rc::new) }).await {
            Ok(known) => Rc::clone(known),
            Err(missed) => {
                self.known.borrow_mut().remove(id);
                return Err(missed);
            }
        };
        if known.lives() {
            return Ok(known);
        }
        // It, or the agent that it descends from, has ended since. It may have been started again.
        let known = Rc::new(self.look_up(id).await?);
        self.known.borrow_mut().insert(id.to_owned(), Rc::new(OnceCell::new_with(Some(Rc::clone(&known)))));
        Ok(known)
    }

    async fn look_up(&self, id: &str) -> Result<Known, Missed> {
        let found = self.get("containers", id, CONTAINER).await?.ok_or(Missed::Absent)?;
        let text = |path: &[&str]| found.at(path).and_then(Value::as_str).unwrap_or_default();
        if text(&["Id"]) != id {
            return Err(Missed::Absent);
        }
        let pid = found.at(&["State", "Pid"]).and_then(Value::as_i64).and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.filter(|pid| *pid > 0).ok_or(Missed::Absent)?;
        let first = Hold::on(pid).map_err(|_| Missed::Absent)?;
        let cgroups = Cgroups::of(pid).ok().and_then(|cgroups| cgroups.of_container(id)).ok_or(Missed::Absent)?;
        if !first.lives() {
            return Err(Missed::Absent);
        }
        let image = self.get("images", text(&["Image"]), &[&["Config", "Labels"]]).await?;
        // Without its image it cannot be known what the container has from there.
        let inherited = image.as_ref().and_then(|image| image.at(&["Config", "Labels"])).and_then(Value::as_object);
        let all = found.at(&["Config", "Labels"]).and_then(Value::as_object).into_iter().flat_map(Object::iter);
        let all: BTreeMap<String, String> =
            all.filter_map(|(key, value)| Some((key.to_owned(), value.as_str()?.to_owned()))).collect();
        let same = |key: &str, value: &str| {
            inherited.is_some_and(|labels| labels.get(key).and_then(Value::as_str) == Some(value))
        };
        let sealed_image = inherited.and_then(|labels| labels.get(SEAL_LABEL)).is_some_and(|seal| !seal.is_empty());
        let ours = all.iter().filter(|(key, _)| key.starts_with(LABEL_PREFIX));
        let ours = ours.map(|(key, value)| (key.clone(), value.clone())).collect();
        let labels = all.into_iter().filter(|(key, value)| image.is_some() && !same(key, value)).collect();
        let container = Facts {
            id: id.to_owned(),
            name: text(&["Name"]).trim_start_matches('/').to_owned(),
            image: text(&["Config", "Image"]).to_owned(),
            cgroup_parent: text(&["HostConfig", "CgroupParent"]).to_owned(),
            labels,
            ours,
            sealed_image,
            first: Rc::new(first),
            inspect: found.clone(),
        };
        let agent = match image {
            Some(_) => self.agent(container).await?,
            None => Err(stranger(&container, "its image is gone, so it cannot be told which labels are its own")),
        };
        Ok(Known { cgroups, guard: agent.map(|acting| self.make(acting)) })
    }

    /// Whom a container acts for, with its name for the audit.
    async fn agent(&self, container: Facts) -> Result<Result<Acting, Refusal>, Missed> {
        if container.sealed_image {
            return Ok(Err(stranger(&container, "its image carries a seal, which only containers may")));
        }
        // An image never has one; the owner's label it may well have, where the owner built it.
        if container.ours.get(SEAL_LABEL).is_some_and(|seal| !seal.is_empty()) {
            return self.child(container).await;
        }
        if container.labels.keys().any(|key| key.starts_with(LABEL_PREFIX)) {
            return Ok(Err(stranger(&container, "it carries labels of sockguard's without a seal")));
        }
        let Some(rule) = self.rules.iter().find(|rule| rule.means(&container)) else {
            return Ok(Err(stranger(&container, "no agent rule matches it")));
        };
        let owner = rule.owner.of_container(&container).and_then(|name| self.key.owner(&name));
        Ok(match owner {
            Ok(owner) => {
                let (id, first) = (Id::new(container.id.as_str()), Rc::clone(&container.first));
                Ok(acting(owner, Rc::clone(&rule.policy), id, first, container))
            }
            Err(why) => Err(stranger(&container, &why)),
        })
    }

    /// Whom a container acts for that was created through sockguard: its owner, as the agent's container that it descends
    /// from does.
    async fn child(&self, container: Facts) -> Result<Result<Acting, Refusal>, Missed> {
        let label = |key: &str| container.ours.get(key).map(String::as_str).unwrap_or_default();
        let owner = match self.key.owner(label(OWNER_LABEL)) {
            Ok(owner) if owner.seal() == label(SEAL_LABEL) => owner,
            Ok(_) | Err(_) => {
                return Ok(Err(stranger(&container, "it carries labels of sockguard's without the seal of this one")));
            }
        };
        let agent = label(AGENT_LABEL).to_owned();
        if agent.is_empty() {
            return Ok(Err(stranger(&container, "the agent that it was created for is not in a container")));
        }
        let guard = match Box::pin(self.agents_guard(&agent)).await {
            Ok(guard) => guard,
            Err(Missed::Absent) => Err(stranger(&container, "the agent that it was created for does not run any more")),
            Err(failed) => return Err(failed),
        };
        Ok(guard.and_then(|guard| {
            let Agent { owner: agents, policy, caller } = &*guard.world.agent;
            if *agents != owner || caller.as_ref().is_none_or(|caller| caller.id != caller.agent) {
                return Err(stranger(&container, "it was created for another agent than the one that its labels name"));
            }
            let Some(first) = guard.agent_process.clone() else {
                return Err(stranger(&container, "the agent that it was created for is not in a container"));
            };
            Ok(acting(owner, Rc::clone(policy), Id::new(agent), first, container))
        }))
    }

    /// The guard of the agent in this container.
    async fn agents_guard(&self, id: &str) -> Result<Result<Rc<Guard>, Refusal>, Missed> {
        Ok(self.known(id).await?.guard.clone())
    }

    /// The guard of a process of the host.
    fn user(&self, uid: u32) -> Result<Rc<Guard>, Refusal> {
        if let Some(guard) = self.users.borrow().get(&uid) {
            return Ok(Rc::clone(guard));
        }
        let who = format!("a process of the host, user {uid}");
        let rule = self.rules.iter().find(|rule| matches!(rule.who, Who::User(meant) if meant == uid));
        let rule = rule.ok_or_else(|| Refusal::Stranger { message: format!("{NO_AGENT}: taken for {who}") })?;
        let owner = rule.owner.of_user(uid).and_then(|name| self.key.owner(&name));
        let owner = owner.map_err(|why| Refusal::Stranger { message: format!("taken for {who}: {why}") })?;
        let agent = Agent { owner, policy: Rc::clone(&rule.policy), caller: None };
        let guard = self.make(Acting { agent, name: format!("user {uid}"), ends_with: None });
        self.users.borrow_mut().insert(uid, Rc::clone(&guard));
        Ok(guard)
    }

    /// The agents' own containers that connected, as far as they are remembered, with their owners.
    pub fn agents(&self) -> Vec<(Id, Owner)> {
        let known = self.known.borrow();
        let guards = known.values().filter_map(|cell| cell.get()?.guard.as_ref().ok());
        let own = guards.filter_map(|guard| {
            let Agent { owner, caller, .. } = &*guard.world.agent;
            let caller = caller.as_ref().filter(|caller| caller.id == caller.agent)?;
            Some((caller.id.clone(), owner.clone()))
        });
        own.collect()
    }

    /// Forgets a container that has ended. One that starts again is looked up again.
    pub fn forget(&self, id: &Id) {
        self.known.borrow_mut().remove(id.as_str());
    }

    fn make(&self, acting: Acting) -> Rc<Guard> {
        let Acting { agent, name, ends_with } = acting;
        let audit = Audit::new(Rc::clone(&self.sink), &name, agent.owner.as_str(), &agent.policy.name);
        let memory = self.memories.of(&agent.owner);
        let engine = Rc::clone(&self.engine);
        let world = Lookup { engine, agent: Rc::new(agent), memory, sockets: self.sockets.clone() };
        let (world, audit) = (Rc::new(world), Rc::new(audit));
        Rc::new(Guard { world, audit, limits: self.limits, agent_process: ends_with })
    }

    /// What the engine says of one of its objects; nothing where it has none.
    async fn get(&self, kind: &str, id: &str, fields: Fields) -> Result<Option<Value>, Missed> {
        let mut path = format!("/{kind}/");
        percent_encode(id, ":", &mut path);
        path.push_str("/json");
        match answer::one(&*self.engine, &path, fields).await.map_err(Missed::Failed)? {
            (StatusCode::OK, found) => Ok(Some(found)),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, answer) => {
                let message = format!("the engine answered {status}: {}", lookup::message(&answer));
                Err(Missed::Failed(Refusal::Engine { message }))
            }
        }
    }
}

/// Whom somebody acts for.
struct Acting {
    agent: Agent,
    /// For the audit.
    name: String,
    /// The first process of the agent's own container.
    ends_with: Option<Rc<Hold>>,
}

fn acting(owner: Owner, policy: Rc<Policy>, agent: Id, ends_with: Rc<Hold>, container: Facts) -> Acting {
    let Facts { id, name, cgroup_parent, inspect, .. } = container;
    let caller = Caller { id: Id::new(id), agent, cgroup_parent, mounts: own_mounts(&inspect, &owner) };
    let agent = Agent { owner, policy, caller: Some(caller) };
    Acting { agent, name: format!("container {name}"), ends_with: Some(ends_with) }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn stranger(container: &Facts, why: &str) -> Refusal {
    let Facts { id, name, image, .. } = container;
    Refusal::Stranger {
        message: format!("{NO_AGENT}: taken for the container {name} ({}, image {image}): {why}", short(id)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn container() -> Facts {
        let labels = [("task", "arn:task/1"), ("family", "agents-linux"), ("empty", "")];
        Facts {
            id: "c".repeat(64),
            name: "box".to_owned(),
            image: "acme/agent:3".to_owned(),
            cgroup_parent: String::new(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ours: BTreeMap::new(),
            sealed_image: false,
            first: Rc::new(Hold::on(std::process::id()).unwrap()),
            inspect: Value::Null,
        }
    }

    #[test]
    fn an_owner_is_made_of_what_the_container_has() {
        for (template, expected) in [
            ("{label:task}", Ok("arn:task/1".to_owned())),
            ("ci-{container.name}-x", Ok("ci-box-x".to_owned())),
            ("{container.id}", Ok("c".repeat(64))),
            ("fixed", Ok("fixed".to_owned())),
            ("{label:none}", Err("label none")),
            ("{label:empty}", Err("label empty")),
            ("{uid}", Err("user ID")),
        ] {
            match (OwnerTemplate::parse(template).unwrap().of_container(&container()), expected) {
                (Ok(name), Ok(expected)) => assert_eq!(name, expected, "{template}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{template}: {why}"),
                (came, expected) => panic!("{template}: {came:?}, expected {expected:?}"),
            }
        }
        assert_eq!(OwnerTemplate::parse("u{uid}").unwrap().of_user(7), Ok("u7".to_owned()));
        assert!(OwnerTemplate::parse("{container.id}").unwrap().of_user(7).is_err());
    }

    #[test]
    fn a_template_that_makes_no_owner_is_refused() {
        for (template, why) in [
            ("", "is no owner"),
            ("a b", "is no owner"),
            ("{label:task", "is not closed"),
            ("{label:}", "no key of a label"),
            ("{label:a b}", "no key of a label"),
            ("{label:com.buildkite.sockguard.owner}", "sockguard's own"),
            ("{container}", "is not known"),
            ("{}", "is not known"),
        ] {
            let came = OwnerTemplate::parse(template).unwrap_err();
            assert!(came.contains(why), "{template}: {came}");
        }
    }

    #[test]
    fn a_rule_means_containers_that_carry_all_it_names() {
        let glob = |text: &str| Glob::try_from(text.to_owned()).unwrap();
        let rule = |labels: &[(&str, &str)], image: Option<&str>| Rule {
            who: Who::Container {
                labels: labels.iter().map(|(key, value)| ((*key).to_owned(), glob(value))).collect(),
                image: image.map(glob),
            },
            owner: OwnerTemplate::parse("x").unwrap(),
            policy: Rc::default(),
        };
        for (rule, expected) in [
            (rule(&[("family", "agents-*")], None), true),
            (rule(&[("family", "agents-*"), ("task", "*")], Some("acme/agent:*")), true),
            (rule(&[("family", "agents")], None), false),
            (rule(&[("family", "agents-*"), ("none", "*")], None), false),
            (rule(&[], Some("acme/agent")), false),
            (rule(&[], Some("*/agent:3")), true),
        ] {
            assert_eq!(rule.means(&container()), expected, "{:?}", rule.who);
        }
        let user = Rule { who: Who::User(0), owner: OwnerTemplate::parse("x").unwrap(), policy: Rc::default() };
        assert!(!user.means(&container()));
    }
}
