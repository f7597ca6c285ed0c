//! Sees agents end, and has what they own removed when the grace period is over.
//!
//! One connection to the engine tells of containers that start and end; a timer runs only while a grace period does.
//! What happened while nobody listened is found by looking at all agents that something names, at the beginning of each
//! connection. Every grace period begins when the end is seen, never earlier: an engine that was away stops containers and
//! starts them again, and its clock need not be ours.
//!
//! An owner may have several agents. Its objects go when none of them lives. Which agents it has is told by the labels of
//! what they made, and by who connected since sockguard started.

use super::{Kind, Label, Object, Outcome, Reap, belongings, labelled, remove_while};
use crate::answer::known::Moment;
use crate::answer::{self, Fields, Objects, Picked};
use crate::engine::Engine;
use crate::identity::Peers;
use crate::json::Value;
use crate::owner::{OWNER_LABEL, Owner, SEAL_LABEL, SealKey};
use crate::query::{Filters, Param, Query};
use crate::refusal::Refusal;
use crate::route::percent_encode;
use crate::world::Id;
use hyper::StatusCode;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

/// The engine is looked for after such a pause when its connection broke off; then after twice as long, and so on.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What was removed is looked for again after such a pause (a creation may have been under way), and so is what could
/// not be removed; then after twice as long, and so on.
const AGAIN: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const LONGEST_AGAIN: Duration = Duration::from_secs(15);

/// So often it is looked for again since something was last removed.
const TRIES: u32 = 10;

/// What is read of an event.
const EVENT: Fields =
    &[&["Action"], &["Actor", "ID"], &["Actor", "Attributes", OWNER_LABEL], &["Actor", "Attributes", SEAL_LABEL]];

/// Watches for as long as sockguard runs.
pub async fn watch(engine: Rc<Engine>, key: SealKey, reap: Reap, peers: Vec<Rc<Peers>>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let (engine, key, peers, seen, changed) = (&engine, &key, &peers, RefCell::default(), Notify::new());
        let watch = Watch { engine, key, reap, peers, seen, changed };
        let began = Instant::now();
        let why = watch.connection().await;
        tracing::warn!("the ends of agents cannot be seen: {}", why.message(""));
        pause = if began.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { pause };
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What is known while one connection lasts.
struct Watch<'a> {
    engine: &'a Engine,
    key: &'a SealKey,
    reap: Reap,
    peers: &'a [Rc<Peers>],
    seen: RefCell<Seen>,
    changed: Notify,
}

#[derive(Default)]
struct Seen {
    /// Containers that ended and may be agents.
    ended: BTreeMap<Id, Ended>,
    /// Owners that another agent keeps alive: they are looked at again when it ends.
    kept: BTreeMap<Id, BTreeSet<String>>,
    /// The agents with whose owner's objects it is being dealt, but for those that started again meanwhile.
    dealt_with: BTreeSet<Id>,
}

/// An end that was seen.
#[derive(Debug, Clone, Copy)]
struct Ended {
    at: Instant,
    /// When to look at what is left.
    next: Instant,
    tries: u32,
}

/// What came of looking at what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Nothing of it is there, or nothing of it is to be removed.
    Done,
    /// Something is still there.
    Left,
    /// Something was removed.
    Removed,
}

/// What becomes of an end after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It is another end by now, or none: the agent started again.
    Changed,
    /// It is looked at again.
    Again,
    /// Nothing is left to do.
    Over,
    /// Something is left, but it was tried often enough.
    GivenUp,
}

impl Seen {
    /// A container started.
    fn started(&mut self, id: &Id) {
        self.ended.remove(id);
        self.dealt_with.remove(id);
    }

    /// Decides after a turn about the end that was seen `at` that moment.
    fn after(&mut self, agent: &Id, at: Instant, turn: Turn, now: Instant) -> Then {
        let Some(ended) = self.ended.get_mut(agent).filter(|ended| ended.at == at) else { return Then::Changed };
        let then = match turn {
            Turn::Done => Then::Over,
            Turn::Left if ended.tries >= TRIES => Then::GivenUp,
            Turn::Left => Then::Again,
            Turn::Removed => {
                ended.tries = 0;
                Then::Again
            }
        };
        match then {
            Then::Again => {
                ended.next = now + (AGAIN * 2_u32.pow(ended.tries)).min(LONGEST_AGAIN);
                ended.tries += 1;
            }
            Then::Changed | Then::Over | Then::GivenUp => drop(self.ended.remove(agent)),
        }
        then
    }
}

/// What an event says of a container that was not created through sockguard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Started(Id),
    Ended(Id),
}

/// An agent of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Living,
    EndedFor(Duration),
}

/// What is to be done about an owner's objects.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Remove,
    /// Not before this agent has ended, and its grace period is over.
    KeepWith(Id),
}

/// Decides about an owner with these agents.
fn decide(agents: &BTreeMap<Id, Life>, grace: Duration) -> Decision {
    let keeps = |life: &Life| match life {
        Life::Living => true,
        Life::EndedFor(time) => *time < grace,
    };
    agents.iter().find(|(_, life)| keeps(life)).map_or(Decision::Remove, |(id, _)| Decision::KeepWith(id.clone()))
}

/// Reads an event.
fn heard(event: &Value, key: &SealKey) -> Option<Heard> {
    let attributes = event.at(&["Actor", "Attributes"]);
    if super::Marks::read(attributes).sealed(key) {
        return None;
    }
    let id = Id::new(event.at(&["Actor", "ID"]).and_then(Value::as_str)?);
    match event.at(&["Action"]).and_then(Value::as_str)? {
        "start" => Some(Heard::Started(id)),
        "die" | "destroy" => Some(Heard::Ended(id)),
        _ => None,
    }
}

impl Watch<'_> {
    /// Watches until the connection breaks off; gives the reason.
    async fn connection(&self) -> Refusal {
        // The events since now, whenever the engine begins to tell them: so none is missed between them and the look.
        let path = events(Moment::now());
        let listen = async {
            let hear = |event: Picked| {
                self.hear(&event.fields());
                Ok(())
            };
            match answer::each(self.engine, &path, Objects::Documents, EVENT, hear).await {
                Ok(()) => Refusal::Engine { message: "the Docker Engine ended its events".to_owned() },
                Err(why) => why,
            }
        };
        let work = async {
            match self.look_at_all().await {
                Ok(()) => self.work().await,
                Err(why) => why,
            }
        };
        tokio::select! {
            why = listen => why,
            why = work => why,
        }
    }

    fn hear(&self, event: &Value) {
        match heard(event, self.key) {
            Some(Heard::Started(id)) => self.seen.borrow_mut().started(&id),
            Some(Heard::Ended(id)) => self.ended(id),
            None => {}
        }
    }

    /// Remembers that a container has ended, unless that was seen before.
    fn ended(&self, id: Id) {
        let now = Instant::now();
        let fresh = Ended { at: now, next: now + self.reap.grace, tries: 0 };
        self.seen.borrow_mut().ended.entry(id).or_insert(fresh);
        self.changed.notify_one();
    }

    /// The agents that connected, with their owners.
    fn connected(&self) -> impl Iterator<Item = (Id, Owner)> {
        self.peers.iter().flat_map(|peers| peers.agents())
    }

    /// Finds the agents that ended while nobody listened.
    async fn look_at_all(&self) -> Result<(), Refusal> {
        let mut agents = BTreeSet::new();
        for kind in Kind::WITH_AGENT {
            let found = labelled(self.engine, kind, Label::AnyAgent).await?;
            agents.extend(found.iter().filter(|object| self.made_by_agent(object)).filter_map(Object::agent).cloned());
        }
        for agent in agents {
            match self.look_at(&agent).await? {
                Life::Living => {}
                Life::EndedFor(_) => self.ended(agent),
            }
        }
        Ok(())
    }

    /// Do the labels of this object count?
    fn made_by_agent(&self, object: &Object) -> bool {
        object.agent().is_some() && self.key.owner(&object.marks.owner).is_ok_and(|owner| object.belongs_to(&owner))
    }

    /// Looks whether an agent lives, and if not, how long it has not.
    async fn look_at(&self, agent: &Id) -> Result<Life, Refusal> {
        let mut path = "/containers/".to_owned();
        percent_encode(agent.as_str(), "", &mut path);
        path.push_str("/json");
        const STATE: Fields =
            &[&["State", "Running"], &["State", "Paused"], &["State", "Restarting"], &["State", "FinishedAt"]];
        let said = match answer::one(self.engine, &path, STATE).await? {
            (StatusCode::OK, found) => {
                let is = |state: &str| found.at(&["State", state]).and_then(Value::as_bool) == Some(true);
                if is("Running") || is("Paused") || is("Restarting") {
                    return Ok(Life::Living);
                }
                let at = found.at(&["State", "FinishedAt"]).and_then(Value::as_str);
                at.and_then(Moment::parse).map_or(Duration::ZERO, Moment::age)
            }
            // It cannot come back.
            (StatusCode::NOT_FOUND, _) => Duration::MAX,
            (status, answer) => {
                let why = crate::lookup::message(&answer);
                return Err(Refusal::Engine { message: format!("the engine answered {status}: {why}") });
            }
        };
        let seen = self.seen.borrow().ended.get(agent).map(|ended| ended.at.elapsed());
        Ok(Life::EndedFor(seen.unwrap_or(said)))
    }

    /// Removes what is due, for ever.
    async fn work(&self) -> Refusal {
        loop {
            let next = self.seen.borrow().ended.iter().map(|(id, ended)| (ended.next, id.clone())).min();
            match next {
                None => self.changed.notified().await,
                Some((at, agent)) if at <= Instant::now() => self.due(agent).await,
                Some((at, _)) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }

    /// The grace period of this container is over, or it is time to look again.
    async fn due(&self, agent: Id) {
        let Some(at) = self.seen.borrow().ended.get(&agent).map(|ended| ended.at) else { return };
        let turn = match self.remove_what_is_left_by(&agent).await {
            Ok(turn) => turn,
            Err(why) => {
                tracing::warn!(%agent, "what an agent left cannot be removed: {}", why.message(""));
                Turn::Left
            }
        };
        let then = self.seen.borrow_mut().after(&agent, at, turn, Instant::now());
        match then {
            Then::Changed | Then::Again => return,
            Then::Over => {}
            Then::GivenUp => {
                tracing::warn!(%agent, "what an agent left is still there, and is left alone until sockguard starts again");
            }
        }
        self.peers.iter().for_each(|peers| peers.forget(&agent));
    }

    /// Removes what the owners of this agent own, unless another agent of theirs lives.
    async fn remove_what_is_left_by(&self, agent: &Id) -> Result<Turn, Refusal> {
        let mut owners = self.seen.borrow_mut().kept.remove(agent).unwrap_or_default();
        // It may have made nothing but images, and those do not tell.
        owners.extend(self.connected().filter(|(id, _)| id == agent).map(|(_, owner)| owner.to_string()));
        for kind in Kind::WITH_AGENT {
            let made = labelled(self.engine, kind, Label::Agent(agent)).await?;
            owners.extend(made.into_iter().filter(|object| self.made_by_agent(object)).map(|made| made.marks.owner));
        }
        let mut turn = Turn::Done;
        for owner in owners {
            turn = turn.max(self.remove_of(owner, agent).await?);
        }
        Ok(turn)
    }

    /// Removes what agents made for this owner, if none of them lives; `agent` is one that ended.
    async fn remove_of(&self, name: String, agent: &Id) -> Result<Turn, Refusal> {
        let Ok(owner) = self.key.owner(&name) else { return Ok(Turn::Done) };
        let mut objects = belongings(self.engine, &owner, &Kind::WITH_AGENT).await?;
        objects.retain(|object| object.belongs_to(&owner));
        let alone = objects.iter().all(|object| object.agent().is_some());
        objects.retain(|object| object.agent().is_some());
        let mut ids: BTreeSet<Id> = objects.iter().filter_map(Object::agent).chain([agent]).cloned().collect();
        ids.extend(self.connected().filter(|(_, its)| *its == owner).map(|(id, _)| id));
        // From here on it is heard when one of them starts again.
        self.seen.borrow_mut().dealt_with.clone_from(&ids);
        let mut agents = BTreeMap::new();
        for id in &ids {
            agents.insert(id.clone(), self.look_at(id).await?);
        }
        if let Decision::KeepWith(other) = decide(&agents, self.reap.grace) {
            if agents.get(&other) != Some(&Life::Living) {
                self.ended(other.clone());
            }
            self.seen.borrow_mut().kept.entry(other).or_default().insert(name);
            return Ok(Turn::Done);
        }
        // Images do not tell who made them: where not only agents make them, they stay.
        if self.reap.images && alone {
            objects.extend(belongings(self.engine, &owner, &[Kind::Image]).await?);
        }
        let mut turn = Turn::Done;
        let goes_on = || self.seen.borrow().dealt_with == ids;
        remove_while(self.engine, &objects, "its agent has ended", goes_on, |object, outcome| match outcome {
            Outcome::Removed => turn = Turn::Removed,
            Outcome::Gone => {}
            Outcome::Left(why) => {
                // An image that is in use stays.
                turn = turn.max(if object.kind == Kind::Image { Turn::Done } else { Turn::Left });
                tracing::debug!(%owner, kind = %object.kind, id = %object.id, "is left: {why}");
            }
        })
        .await?;
        let mut seen = self.seen.borrow_mut();
        // What is left now goes when the one that started again ends.
        if let Some(back) = ids.iter().find(|id| !seen.dealt_with.contains(*id)) {
            seen.kept.entry(back.clone()).or_default().insert(name);
            return Ok(Turn::Done);
        }
        Ok(turn)
    }
}

/// The events of containers that start or end, since then.
fn events(since: Moment) -> String {
    let mut filters = Filters::default();
    filters.add("type", "container");
    for action in ["start", "die", "destroy"] {
        filters.add("event", action);
    }
    let query = Query::of([("since", Param::Text(since.to_string())), ("filters", Param::Filters(filters))]);
    format!("/events?{}", query.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn id(digit: char) -> Id {
        Id::new(digit.to_string().repeat(64))
    }

    #[test]
    fn an_owner_is_kept_by_each_agent_that_lives_or_ended_just_now() {
        let (grace, long) = (Duration::from_secs(30), Duration::from_secs(31));
        let ended = |seconds| Life::EndedFor(Duration::from_secs(seconds));
        let keep = |digit| Decision::KeepWith(id(digit));
        for (agents, expected) in [
            (vec![('a', Life::Living)], keep('a')),
            (vec![('a', ended(29))], keep('a')),
            (vec![('a', ended(30))], Decision::Remove),
            (vec![('a', Life::EndedFor(Duration::MAX)), ('b', Life::EndedFor(long))], Decision::Remove),
            (vec![('a', Life::EndedFor(long)), ('b', Life::Living)], keep('b')),
            (vec![('a', Life::EndedFor(long)), ('b', ended(1))], keep('b')),
        ] {
            let agents: BTreeMap<Id, Life> = agents.into_iter().map(|(digit, life)| (id(digit), life)).collect();
            assert_eq!(decide(&agents, grace), expected, "{agents:?}");
        }
    }

    /// What was seen once this agent had ended, and when.
    fn seen(agent: &Id) -> (Seen, Instant) {
        let at = Instant::now();
        let mut seen = Seen::default();
        seen.ended.insert(agent.clone(), Ended { at, next: at, tries: 0 });
        (seen, at)
    }

    #[test]
    fn an_end_that_came_meanwhile_is_not_taken_for_the_one_before() {
        for turn in [Turn::Done, Turn::Left, Turn::Removed] {
            let (mut seen, at) = seen(&id('a'));
            seen.started(&id('a'));
            assert_eq!(seen.after(&id('a'), at, turn, at), Then::Changed);
            let later = at + AGAIN;
            seen.ended.insert(id('a'), Ended { at: later, next: later + LONGEST_AGAIN, tries: 0 });
            assert_eq!(seen.after(&id('a'), at, turn, later), Then::Changed);
            let kept = seen.ended.get(&id('a')).map(|ended| (ended.at, ended.next, ended.tries));
            assert_eq!(kept, Some((later, later + LONGEST_AGAIN, 0)), "{turn:?}");
        }
    }

    #[test]
    fn tries_are_counted_since_something_was_last_removed() {
        let (mut seen, at) = seen(&id('a'));
        let after = |seen: &mut Seen, turn| {
            let then = seen.after(&id('a'), at, turn, at);
            (then, seen.ended.get(&id('a')).map(|ended| (ended.next - at).as_secs()))
        };
        for _ in 0..3 {
            for pause in [1, 2, 4, 8, 15, 15, 15, 15, 15, 15] {
                let turn = if pause == 1 { Turn::Removed } else { Turn::Left };
                assert_eq!(after(&mut seen, turn), (Then::Again, Some(pause)));
            }
        }
        assert_eq!(after(&mut seen, Turn::Left), (Then::GivenUp, None));
        assert_eq!(after(&mut seen, Turn::Left), (Then::Changed, None));
    }

    #[test]
    fn nothing_left_is_the_end_of_it() {
        let (mut seen, at) = seen(&id('a'));
        assert_eq!(seen.after(&id('a'), at, Turn::Done, at), Then::Over);
        assert!(seen.ended.is_empty());
    }

    #[test]
    fn a_start_is_heard_while_the_objects_are_removed() {
        let (mut seen, _) = seen(&id('a'));
        seen.dealt_with = BTreeSet::from([id('a'), id('b')]);
        seen.started(&id('c'));
        assert_eq!(seen.dealt_with.len(), 2);
        seen.started(&id('b'));
        assert_eq!(seen.dealt_with, BTreeSet::from([id('a')]));
        assert!(seen.ended.contains_key(&id('a')));
    }

    #[test]
    fn events_of_what_is_no_agent_are_passed_over() {
        let key = SealKey::new(b"k");
        let seal = key.owner("me").map(|me| me.seal().to_owned()).unwrap_or_default();
        let read = |action: &str, labels: &str| {
            let event = format!(
                r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{}","Attributes":{{"name":"x"{labels}}}}}}}"#,
                id('a')
            );
            heard(&json::parse(event.as_bytes()).unwrap_or(Value::Null), &key)
        };
        let owner = r#","com.buildkite.sockguard.owner":"me""#;
        let sealed = format!(r#"{owner},"com.buildkite.sockguard.seal":"{seal}""#);
        assert_eq!(read("die", ""), Some(Heard::Ended(id('a'))));
        assert_eq!(read("destroy", owner), Some(Heard::Ended(id('a'))));
        assert_eq!(read("start", r#","com.buildkite.sockguard.seal":"""#), Some(Heard::Started(id('a'))));
        assert_eq!(read("die", &sealed), None);
        assert_eq!(read("exec_start: sh", ""), None);
        assert_eq!(heard(&Value::Null, &key), None);
    }

    #[test]
    fn events_are_asked_for_from_a_moment_on() {
        let path = events(Moment::from_nanos(1_700_000_000_000_000_001));
        assert!(path.starts_with("/events?since=1700000000.000000001&filters=%7B%22event%22"), "{path}");
    }
}
