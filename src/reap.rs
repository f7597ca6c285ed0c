//! What an owner left behind, and its removal.
//!
//! Objects are found by their labels and removed by their IDs. A volume has none: it is known by its name, its labels
//! and when it was made. Each object is looked at once more right before it is removed, so that a name that was used
//! again meanwhile keeps what it came to stand for.

pub mod watch;

use crate::answer::scan::Broken;
use crate::answer::{self, Fields, Objects};
use crate::engine::Engine;
use crate::json::Value;
use crate::lookup::message;
use crate::owner::{AGENT_LABEL, IMAGE_LABEL, OWNER_LABEL, Owner, SEAL_LABEL, SealKey};
use crate::query::{Filters, Param, Query};
use crate::refusal::Refusal;
use crate::route::percent_encode;
use crate::world::Id;
use hyper::{Method, StatusCode};
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

/// What happens to an owner's objects when its last agent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reap {
    /// So long they are kept: an agent that is started again within it finds everything as it was.
    pub grace: Duration,
    /// Are its images removed, too?
    pub images: bool,
}

impl Default for Reap {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), images: false }
    }
}

/// What kind of object it is, in the order of removal: each may be used by those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// An image.
    Image,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Container, Self::Network, Self::Volume, Self::Image];

    /// Those that tell which agent made them.
    pub const WITH_AGENT: [Self; 3] = [Self::Container, Self::Network, Self::Volume];

    /// Where the engine has them.
    fn path(self) -> &'static str {
        match self {
            Self::Container => "/containers",
            Self::Network => "/networks",
            Self::Volume => "/volumes",
            Self::Image => "/images",
        }
    }

    /// The list of those that pass these filters.
    fn list(self, filters: Filters) -> String {
        let mut query = Query::of([("filters", Param::Filters(filters))]);
        match self {
            Self::Container | Self::Image => {
                query.set("all", Param::Bool(true));
                format!("{}/json?{}", self.path(), query.encode())
            }
            Self::Network | Self::Volume => format!("{}?{}", self.path(), query.encode()),
        }
    }

    /// Where the engine tells about one of them.
    fn inspection(self, id: &Id) -> String {
        match self {
            Self::Container | Self::Image => format!("{}/json", self.one(id)),
            Self::Network | Self::Volume => self.one(id),
        }
    }

    fn one(self, id: &Id) -> String {
        let mut path = format!("{}/", self.path());
        percent_encode(id.as_str(), ":", &mut path);
        path
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Image => "image",
        })
    }
}

/// What is read of each object in a list.
const LISTED: Fields = &[
    &["Id"],
    &["Name"],
    &["Names"],
    &["RepoTags"],
    &["Labels", OWNER_LABEL],
    &["Labels", AGENT_LABEL],
    &["Labels", SEAL_LABEL],
    &["Volumes", "Name"],
    &["Volumes", "CreatedAt"],
    &["Volumes", "Labels", OWNER_LABEL],
    &["Volumes", "Labels", AGENT_LABEL],
    &["Volumes", "Labels", SEAL_LABEL],
];

/// What is read of an inspection: what tells one object from another.
const INSPECTED: Fields = &[
    &["Id"],
    &["Name"],
    &["CreatedAt"],
    &["Labels", OWNER_LABEL],
    &["Labels", AGENT_LABEL],
    &["Labels", SEAL_LABEL],
    &["Config", "Labels", OWNER_LABEL],
    &["Config", "Labels", AGENT_LABEL],
    &["Config", "Labels", SEAL_LABEL],
    &["Config", "Labels", IMAGE_LABEL],
    &["Image"],
];

/// An object that carries an owner's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its full ID; of a volume, its name.
    pub id: Id,
    /// What people call it; may be empty.
    pub name: String,
    /// What its labels say.
    marks: Marks,
    /// When a volume was made; empty for what has an ID.
    created: String,
}

/// What an object's labels say of who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marks {
    owner: String,
    agent: Option<Id>,
    seal: String,
}

impl Marks {
    fn read(labels: Option<&Value>) -> Self {
        let text = |key: &str| labels.and_then(|labels| labels.at(&[key])).and_then(Value::as_str).unwrap_or_default();
        // What a container inherits from its image is blanked, and what is no full ID is nothing of sockguard's.
        let agent = Some(text(AGENT_LABEL)).filter(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        Self { owner: text(OWNER_LABEL).to_owned(), agent: agent.map(Id::new), seal: text(SEAL_LABEL).to_owned() }
    }

    /// Do they prove that a container was created through sockguard?
    fn sealed(&self, key: &SealKey) -> bool {
        key.owner(&self.owner).is_ok_and(|owner| owner.seal() == self.seal)
    }
}

impl Object {
    /// Reads an item of a list, or an inspection.
    fn read(kind: Kind, value: &Value) -> Self {
        let text = |key: &str| value.at(&[key]).and_then(Value::as_str).unwrap_or_default().to_owned();
        let first = |key: &str| {
            let items = value.at(&[key]).and_then(Value::as_array).unwrap_or_default();
            items.iter().find_map(Value::as_str).unwrap_or_default().to_owned()
        };
        let (id, name, created) = match kind {
            Kind::Container => (text("Id"), first("Names").trim_start_matches('/').to_owned(), String::new()),
            Kind::Network => (text("Id"), text("Name"), String::new()),
            Kind::Volume => (text("Name"), String::new(), text("CreatedAt")),
            Kind::Image => (text("Id"), first("RepoTags"), String::new()),
        };
        let labels = value.at(&["Config", "Labels"]).or_else(|| value.at(&["Labels"]));
        Self { kind, id: Id::new(id), name, marks: Marks::read(labels), created }
    }

    /// The agent's own container, with which it ends; nothing where no container made it.
    pub fn agent(&self) -> Option<&Id> {
        self.marks.agent.as_ref()
    }

    /// Was it made for this owner? Of a container its seal has to say so, too: others that are started from an owner's
    /// image inherit the label.
    pub fn belongs_to(&self, owner: &Owner) -> bool {
        let sealed = match self.kind {
            Kind::Container => self.marks.seal == owner.seal(),
            Kind::Network | Kind::Volume | Kind::Image => true,
        };
        sealed && self.marks.owner == owner.as_str()
    }

    /// Is it a container with a seal that is not this owner's: made through sockguard, but under another key?
    pub fn sealed_otherwise(&self, owner: &Owner) -> bool {
        match self.kind {
            Kind::Container => !self.marks.seal.is_empty() && self.marks.seal != owner.seal(),
            Kind::Network | Kind::Volume | Kind::Image => false,
        }
    }

    /// Is this still the same object?
    fn is_still(&self, found: &Self) -> bool {
        self.id == found.id && self.marks == found.marks && self.created == found.created
    }

    /// Its ID as people write it.
    pub fn short(&self) -> &str {
        let id = self.id.as_str().strip_prefix("sha256:").unwrap_or(self.id.as_str());
        match self.kind {
            Kind::Volume => id,
            Kind::Container | Kind::Network | Kind::Image => id.get(..12).unwrap_or(id),
        }
    }
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was removed.
    Removed,
    /// It is gone, or its name stands for another's now.
    Gone,
    /// It is still there, for the engine's reason.
    Left(String),
}

/// The label that objects are found by.
#[derive(Debug, Clone, Copy)]
pub enum Label<'a> {
    /// They were made for this owner.
    Owner(&'a Owner),
    /// They were made by an agent in a container.
    AnyAgent,
    /// They were made by this agent.
    Agent(&'a Id),
}

impl Label<'_> {
    /// As the engine's filter has it.
    fn filter(self) -> String {
        match self {
            Self::Owner(owner) => format!("{OWNER_LABEL}={owner}"),
            Self::AnyAgent => AGENT_LABEL.to_owned(),
            Self::Agent(agent) => format!("{AGENT_LABEL}={agent}"),
        }
    }

    /// Does an object with these marks carry it?
    fn is_on(self, marks: &Marks) -> bool {
        match self {
            Self::Owner(owner) => marks.owner == owner.as_str(),
            Self::AnyAgent => marks.agent.is_some(),
            Self::Agent(agent) => marks.agent.as_ref() == Some(agent),
        }
    }
}

/// The engine's objects of one kind that carry this label.
///
/// # Errors
/// The engine cannot be asked, or an object's ID cannot be found.
pub async fn labelled(engine: &Engine, kind: Kind, label: Label<'_>) -> Result<Vec<Object>, Refusal> {
    let mut filters = Filters::default();
    filters.add("label", label.filter());
    let mut found = Vec::new();
    answer::each(engine, &kind.list(filters), Objects::Listed, LISTED, |item| {
        // An image may have too many names to be told by one, but not too many to be removed.
        let object = Object::read(kind, &item.fields());
        if object.id.as_str().is_empty() {
            return Err(Broken("an object has no ID"));
        }
        if label.is_on(&object.marks) {
            found.push(object);
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Everything of these kinds that carries the owner's label, in the order of removal; whether it belongs to the owner is
/// for the caller to see.
///
/// # Errors
/// The engine cannot be asked.
pub async fn belongings(engine: &Engine, owner: &Owner, kinds: &[Kind]) -> Result<Vec<Object>, Refusal> {
    let mut all = Vec::new();
    for kind in kinds {
        all.extend(labelled(engine, *kind, Label::Owner(owner)).await?);
    }
    Ok(all)
}

/// Removes objects, given in the order of removal, and tells what became of each. An agent's own container is never
/// among them.
///
/// # Errors
/// The engine cannot be asked.
pub async fn remove_all(
    engine: &Engine,
    objects: &[Object],
    reason: &str,
    tell: impl FnMut(&Object, &Outcome),
) -> Result<(), Refusal> {
    remove_while(engine, objects, reason, || true, tell).await
}

/// The same for as long as it is to go on, which is asked before each object.
async fn remove_while(
    engine: &Engine,
    objects: &[Object],
    reason: &str,
    goes_on: impl Fn() -> bool,
    mut tell: impl FnMut(&Object, &Outcome),
) -> Result<(), Refusal> {
    let agents: HashSet<&Id> = objects.iter().filter_map(Object::agent).collect();
    let mut last = Vec::new();
    for object in objects.iter().filter(|object| !agents.contains(&object.id)) {
        match object.kind {
            Kind::Image => last.push(object),
            Kind::Container | Kind::Network | Kind::Volume if !goes_on() => return Ok(()),
            Kind::Container | Kind::Network | Kind::Volume => tell(object, &remove(engine, object, reason).await?),
        }
    }
    // An image goes when all that were built on it are gone.
    while !last.is_empty() {
        let mut left = Vec::new();
        for object in &last {
            if !goes_on() {
                return Ok(());
            }
            match remove(engine, object, reason).await? {
                Outcome::Left(why) => left.push((*object, Outcome::Left(why))),
                outcome @ (Outcome::Removed | Outcome::Gone) => tell(object, &outcome),
            }
        }
        if left.len() == last.len() {
            left.iter().for_each(|(object, outcome)| tell(object, outcome));
            break;
        }
        last = left.into_iter().map(|(object, _)| object).collect();
    }
    Ok(())
}

/// Removes an object if it is still the one that was found.
async fn remove(engine: &Engine, object: &Object, reason: &str) -> Result<Outcome, Refusal> {
    let Object { kind, id, marks, .. } = object;
    let found = match answer::one(engine, &kind.inspection(id), INSPECTED).await? {
        (StatusCode::OK, found) if *kind == Kind::Container && inherits(engine, &found).await? => {
            return Ok(Outcome::Left("it has its seal from its image".to_owned()));
        }
        (StatusCode::OK, found) => Object::read(*kind, &found),
        (StatusCode::NOT_FOUND, _) => return Ok(Outcome::Gone),
        (status, answer) => return Ok(Outcome::Left(format!("{status}: {}", message(&answer)))),
    };
    if !object.is_still(&found) {
        return Ok(Outcome::Gone);
    }
    let path = match kind {
        // With it go its anonymous volumes, no others.
        Kind::Container => format!("{}?force=1&v=1", kind.one(id)),
        Kind::Network | Kind::Volume | Kind::Image => kind.one(id),
    };
    let mut answer = engine.call(Method::DELETE, &path, None).await?;
    if *kind == Kind::Image && answer.0 == StatusCode::CONFLICT && !used(engine, id).await? {
        // It has several names, which go with it only by force.
        answer = engine.call(Method::DELETE, &format!("{path}?force=1"), None).await?;
    }
    match answer {
        (StatusCode::NOT_FOUND, _) => Ok(Outcome::Gone),
        (status, _) if status.is_success() => {
            let agent = marks.agent.as_ref().map_or("", Id::as_str);
            tracing::info!(owner = %marks.owner, %kind, %id, name = %object.name, agent, reason, "removed");
            Ok(Outcome::Removed)
        }
        (_, answer) => Ok(Outcome::Left(message(&answer))),
    }
}

/// Can a container have its seal from its image, and so be anybody's? Not one that carries its image's ID, which none can
/// inherit.
async fn inherits(engine: &Engine, container: &Value) -> Result<bool, Refusal> {
    let text = |path: &[&str]| container.at(path).and_then(Value::as_str).unwrap_or_default();
    let image = text(&["Image"]);
    if text(&["Config", "Labels", IMAGE_LABEL]) == image {
        return Ok(false);
    }
    let path = Kind::Image.inspection(&Id::new(image));
    let (status, found) = answer::one(engine, &path, &[&["Config", "Labels", SEAL_LABEL]]).await?;
    let seal = found.at(&["Config", "Labels", SEAL_LABEL]).and_then(Value::as_str).unwrap_or_default();
    Ok(status != StatusCode::OK || !seal.is_empty())
}

/// Was a container made from this image, or from one that was built on it?
async fn used(engine: &Engine, image: &Id) -> Result<bool, Refusal> {
    let mut filters = Filters::default();
    filters.add("ancestor", image.as_str());
    let mut used = false;
    let read = |_| {
        used = true;
        Ok(())
    };
    answer::each(engine, &Kind::Container.list(filters), Objects::Listed, &[&["Id"]], read).await?;
    Ok(used)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::json;

    fn object(kind: Kind, text: &str) -> Object {
        Object::read(kind, &json::parse(text.as_bytes()).unwrap())
    }

    const OWNED: &str = r#""com.buildkite.sockguard.owner":"me""#;

    #[test]
    fn lists_and_inspections_tell_the_same() {
        let agent = format!(r#""com.buildkite.sockguard.agent":"{}""#, "a".repeat(64));
        let labels = format!("{{{OWNED},{agent}}}");
        for (kind, item, inspection) in [
            (
                Kind::Container,
                format!(r#"{{"Id":"1","Names":["/x"],"Labels":{labels}}}"#),
                format!(r#"{{"Id":"1","Name":"/x","Config":{{"Labels":{labels}}}}}"#),
            ),
            (
                Kind::Image,
                format!(r#"{{"Id":"sha256:1","RepoTags":null,"Labels":{labels}}}"#),
                format!(r#"{{"Id":"sha256:1","RepoTags":["x:1"],"Config":{{"Labels":{labels}}}}}"#),
            ),
            (
                Kind::Network,
                format!(r#"{{"Id":"1","Name":"x","Labels":{labels}}}"#),
                format!(r#"{{"Name":"x","Id":"1","Labels":{labels}}}"#),
            ),
            (
                Kind::Volume,
                format!(r#"{{"Name":"x","CreatedAt":"2026-01-01T00:00:00Z","Labels":{labels}}}"#),
                format!(r#"{{"Name":"x","CreatedAt":"2026-01-01T00:00:00Z","Labels":{labels}}}"#),
            ),
        ] {
            let (item, inspection) = (object(kind, &item), object(kind, &inspection));
            assert!(item.is_still(&inspection), "{item:?} {inspection:?}");
            assert_eq!(item.agent(), Some(&Id::new("a".repeat(64))));
        }
    }

    #[test]
    fn containers_are_told_apart_by_label() {
        let me = SealKey::new(b"k").owner("me").unwrap();
        let (a, b) = (Id::new("a".repeat(64)), Id::new("b".repeat(64)));
        let marks = |owner: &str, agent: Option<&Id>| Marks {
            owner: owner.to_owned(),
            agent: agent.cloned(),
            seal: String::new(),
        };
        for (marks, expected) in [
            (marks("me", Some(&a)), [true, true, true]),
            (marks("other", Some(&b)), [false, true, false]),
            (marks("me", None), [true, false, false]),
            (marks("", None), [false, false, false]),
        ] {
            let is_on = [Label::Owner(&me), Label::AnyAgent, Label::Agent(&a)].map(|label| label.is_on(&marks));
            assert_eq!(is_on, expected, "{marks:?}");
        }
    }

    #[test]
    fn a_name_that_was_used_again_is_another_object() {
        let volume = |labels: &str, second: u32| {
            object(
                Kind::Volume,
                &format!(r#"{{"Name":"x","CreatedAt":"2026-01-01T00:00:0{second}Z","Labels":{{{labels}}}}}"#),
            )
        };
        let found = volume(OWNED, 1);
        assert!(found.is_still(&volume(OWNED, 1)));
        assert!(!found.is_still(&volume(OWNED, 2)));
        assert!(!found.is_still(&volume(r#""com.buildkite.sockguard.owner":"other""#, 1)));
        assert!(!found.is_still(&volume("", 1)));
    }

    #[test]
    fn only_a_container_needs_a_seal() {
        let me = SealKey::new(b"k").owner("me").unwrap();
        let container = |seal: &str| {
            let labels = format!(r#"{OWNED},"com.buildkite.sockguard.seal":"{seal}""#);
            object(Kind::Container, &format!(r#"{{"Id":"1","Labels":{{{labels}}}}}"#))
        };
        assert!(container(me.seal()).belongs_to(&me));
        assert!(!container("").belongs_to(&me));
        assert!(!container(SealKey::default().owner("me").unwrap().seal()).belongs_to(&me));
        let other = SealKey::default().owner("me").unwrap();
        for (seal, expected) in [(me.seal(), false), ("", false), (other.seal(), true)] {
            assert_eq!(container(seal).sealed_otherwise(&me), expected, "{seal}");
        }
        let network = object(Kind::Network, &format!(r#"{{"Id":"1","Labels":{{{OWNED}}}}}"#));
        assert!(!network.sealed_otherwise(&me));
        assert!(network.belongs_to(&me));
        assert!(!network.belongs_to(&SealKey::new(b"k").owner("m").unwrap()));
    }

    #[test]
    fn what_is_no_full_id_is_no_agent() {
        for label in ["", "x", &"A/".repeat(32)] {
            let text = format!(r#"{{"Id":"1","Labels":{{"com.buildkite.sockguard.agent":"{label}"}}}}"#);
            assert_eq!(object(Kind::Network, &text).agent(), None, "{label}");
        }
        assert_eq!(object(Kind::Container, r#"{"Id":"1","Labels":null}"#).agent(), None);
    }
}
