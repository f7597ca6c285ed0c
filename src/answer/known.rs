//! What of an owner's objects is known, for the events about them: those of networks and volumes carry no labels, and
//! what an event of the past is about may be gone.
//!
//! An ID is never used again, so whose it is can be remembered for ever. A volume's name can be: so it is remembered
//! from when to when it was the owner's. All of it is bounded, and forgetting only hides events.

use super::volumes::made_up;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// So many things of each kind are remembered, the newest.
const REMEMBERED: usize = 10_000;

/// So many things are remembered that are not the owner's.
const FOREIGN: usize = 1_000;

/// So many lives of one volume name are remembered, the newest.
const LIVES: usize = 8;

/// A second, in nanoseconds.
const SECOND: i64 = 1_000_000_000;

/// A moment, in nanoseconds since 1970: by the clock that sockguard shares with the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// From an event's `timeNano`.
    pub fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// The beginning of the second of an object's `CreatedAt`, such as `2026-11-25T13:43:33+01:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        let offset = match zone.split_at_checked(1)? {
            ("Z", "") => 0,
            (sign @ ("+" | "-"), zone) => {
                let (hours, minutes) = zone.split_once(':')?;
                let offset = i64::from(hours.parse::<u8>().ok()?) * 60 + i64::from(minutes.parse::<u8>().ok()?);
                if sign == "-" { -offset } else { offset }
            }
            _ => return None,
        };
        // Days since 1970, with years that begin in March.
        let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
        let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) - 719_469
            + (153 * month + 2) / 5
            + day;
        (((days * 24 + hour) * 60 + minute - offset) * 60 + second).checked_mul(SECOND).map(Self)
    }

    /// How long ago it was.
    pub fn age(self) -> Duration {
        Duration::from_nanos(u64::try_from(Self::now().0.saturating_sub(self.0)).unwrap_or_default())
    }

    /// When what was made in the second that begins now was surely there. File systems date by a clock that is a little
    /// slow.
    pub fn surely(self) -> Self {
        Self(self.0.saturating_add(SECOND + SECOND / 10))
    }

    /// From when on an object was surely there that was answered to a request sent at this moment, and that says so of
    /// its creation: from the request on, if it can be the request's.
    pub fn of_creation(self, created: Option<Self>) -> Self {
        match created.map(Self::surely) {
            Some(there) if there < self => there,
            _ => self,
        }
    }
}

/// As the engine reads it in `since`: seconds, with nanoseconds behind the point.
impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0.div_euclid(SECOND), self.0.rem_euclid(SECOND))
    }
}

/// What is known of one owner's objects.
#[derive(Debug, Default)]
pub struct Known(RefCell<Inner>, Mutex<Option<Moment>>);

#[derive(Debug, Default)]
struct Inner {
    containers: Ids,
    networks: Ids,
    images: Ids,
    foreign: Ids,
    volumes: HashMap<Rc<str>, Vec<Life>>,
    names: VecDeque<Rc<str>>,
}

/// IDs, the newest of which are kept.
#[derive(Debug, Default)]
struct Ids {
    all: HashSet<Rc<str>>,
    order: VecDeque<Rc<str>>,
}

impl Ids {
    fn add(&mut self, id: &str, most: usize) {
        if self.all.contains(id) {
            return;
        }
        if self.order.len() >= most
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        let id: Rc<str> = id.into();
        self.order.push_back(Rc::clone(&id));
        self.all.insert(id);
    }
}

/// A time for which a volume's name was the owner's.
#[derive(Debug, Clone, Copy)]
struct Life {
    from: Moment,
    /// It was there at this moment.
    seen: Moment,
    to: Option<Moment>,
    echo: Option<Echo>,
}

/// When the container was made for which the volume was made first: 20.10 tells then of the volume's creation again.
#[derive(Debug, Clone, Copy)]
struct Echo {
    from: Moment,
    to: Option<Moment>,
}

impl Life {
    fn holds(&self, at: Moment) -> bool {
        self.from <= at && self.to.is_none_or(|to| at <= to)
    }
}

impl Inner {
    fn open(&mut self, name: &str) -> Option<&mut Life> {
        self.volumes.get_mut(name)?.last_mut().filter(|life| life.to.is_none())
    }

    fn made(&mut self, name: &str, from: Moment, seen: Moment) {
        if let Some(life) = self.open(name) {
            life.from = life.from.min(from);
            life.seen = life.seen.max(seen);
            return;
        }
        let life = Life { from, seen, to: None, echo: None };
        if let Some(lives) = self.volumes.get_mut(name) {
            if lives.len() >= LIVES {
                lives.remove(0);
            }
            lives.push(life);
            return;
        }
        if self.names.len() >= REMEMBERED
            && let Some(oldest) = self.names.pop_front()
        {
            self.volumes.remove(&oldest);
        }
        let name: Rc<str> = name.into();
        self.names.push_back(Rc::clone(&name));
        self.volumes.insert(name, vec![life]);
    }
}

impl Known {
    /// Has `ask` ask for everything there is, unless that was done within the last second: many streams that begin at
    /// once ask once.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn refresh<E>(&self, ask: impl AsyncFnOnce(Moment) -> Result<(), E>) -> Result<(), E> {
        let mut last = self.1.lock().await;
        let now = Moment::now();
        if last.is_none_or(|last| now.0.saturating_sub(last.0) >= SECOND) {
            ask(now).await?;
            *last = Some(now);
        }
        Ok(())
    }

    /// A container is the owner's.
    pub fn container(&self, id: &str) {
        self.0.borrow_mut().containers.add(id, REMEMBERED);
    }

    /// Is this the ID of one of the owner's containers?
    pub fn has_container(&self, id: &str) -> bool {
        self.0.borrow().containers.all.contains(id)
    }

    /// A network is the owner's.
    pub fn network(&self, id: &str) {
        self.0.borrow_mut().networks.add(id, REMEMBERED);
    }

    /// Is this the ID of one of the owner's networks?
    pub fn has_network(&self, id: &str) -> bool {
        self.0.borrow().networks.all.contains(id)
    }

    /// An image is the owner's or shared.
    pub fn image(&self, id: &str) {
        self.0.borrow_mut().images.add(id, REMEMBERED);
    }

    /// Is this the ID of an image that is the owner's or shared?
    pub fn has_image(&self, id: &str) -> bool {
        self.0.borrow().images.all.contains(id)
    }

    /// A container or a network is not the owner's.
    pub fn foreign(&self, id: &str) {
        self.0.borrow_mut().foreign.add(id, FOREIGN);
    }

    /// Is this the ID of a container or a network that is known not to be the owner's?
    pub fn is_foreign(&self, id: &str) -> bool {
        self.0.borrow().foreign.all.contains(id)
    }

    /// A volume is the owner's, and was made then.
    pub fn volume(&self, name: &str, from: Moment) {
        let (mut inner, now) = (self.0.borrow_mut(), Moment::now());
        inner.made(name, from, now);
        if let Some(echo) = inner.open(name).and_then(|life| life.echo.as_mut()) {
            echo.to = echo.to.or(Some(now));
        }
    }

    /// A volume was made for a container that is made next.
    pub fn volume_made_first(&self, name: &str, from: Moment) {
        let (mut inner, now) = (self.0.borrow_mut(), Moment::now());
        inner.made(name, from, now);
        if let Some(life) = inner.open(name) {
            life.echo = Some(Echo { from: now, to: None });
        }
    }

    /// Is what tells at that moment of this volume's creation told for the second time?
    pub fn is_echo(&self, name: &str, at: Moment) -> bool {
        let inner = self.0.borrow();
        let echoes = inner.volumes.get(name).into_iter().flatten().filter_map(|life| life.echo);
        echoes.into_iter().any(|echo| echo.from <= at && echo.to.is_none_or(|to| at <= to))
    }

    /// The owner's volume of this name was removed by a request that began then, and is answered.
    pub fn volume_removed(&self, name: &str, sent: Moment) {
        let mut inner = self.0.borrow_mut();
        let now = Moment::now();
        inner.made(name, sent, sent);
        if let Some(life) = inner.open(name) {
            life.to = Some(now);
        }
    }

    /// An event tells that a volume went.
    pub fn volume_went(&self, name: &str, at: Moment) {
        let mut inner = self.0.borrow_mut();
        let lives = inner.volumes.get_mut(name).map(Vec::as_mut_slice).unwrap_or_default();
        if let Some(life) = lives.iter_mut().find(|life| life.holds(at)) {
            life.to = Some(at);
        }
    }

    /// Was the volume of this name the owner's at that moment?
    pub fn had_volume(&self, name: &str, at: Moment) -> bool {
        self.0.borrow().volumes.get(name).is_some_and(|lives| lives.iter().any(|life| life.holds(at)))
    }

    /// These are all of the owner's volumes, with the moments from which on they were surely there; they were asked for
    /// at `asked`.
    pub fn volumes(&self, all: &HashMap<Box<str>, Moment>, asked: Moment) {
        let mut inner = self.0.borrow_mut();
        for (name, from) in all {
            inner.made(name, *from, asked);
        }
        for (name, lives) in &mut inner.volumes {
            let Some(life) = lives.last_mut().filter(|life| life.to.is_none() && life.seen < asked) else { continue };
            if all.contains_key(&**name) {
                continue;
            }
            // It went without sockguard, and its name may be another's since. A name that the engine made up is nobody
            // else's.
            if made_up(name) {
                life.to = Some(Moment::now());
            } else {
                lives.pop();
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(nanos: i64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn moments_of_creation_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:01Z", 951_825_601),
            ("2026-11-25T13:43:33Z", 1_795_614_213),
            ("2026-11-25T13:43:33.987654321Z", 1_795_614_213),
            ("2026-11-25T13:43:33+02:00", 1_795_607_013),
            ("2026-01-01T00:30:00-01:30", 1_767_232_800),
        ] {
            assert_eq!(Moment::parse(text), Some(at(seconds * 1_000_000_000)), "{text}");
        }
        for text in
            ["", "yesterday", "2026-11-25", "2026-11-25T13:43:33", "2026-11-25T13:43:33Zulu", "é026-11-25T13:43:33Z"]
        {
            assert_eq!(Moment::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_object_is_no_older_than_the_request_that_made_it() {
        let second = 1_000_000_000;
        let sent = at(100 * second + 500);
        assert_eq!(sent.of_creation(Some(at(100 * second))), sent);
        assert_eq!(sent.of_creation(Some(at(101 * second))), sent);
        assert_eq!(sent.of_creation(Some(at(99 * second))), sent, "by a slow clock");
        assert_eq!(sent.of_creation(Some(at(98 * second))), at(99 * second + second / 10));
        assert_eq!(sent.of_creation(None), sent);
    }

    #[test]
    fn a_name_is_the_owners_while_its_volume_is_there() {
        let known = Known::default();
        assert!(!known.had_volume("v", at(10)));
        known.volume("v", at(10));
        assert!(!known.had_volume("v", at(9)));
        assert!(known.had_volume("v", at(10)) && known.had_volume("v", at(99)));
        known.volume_went("v", at(20));
        assert!(known.had_volume("v", at(20)) && !known.had_volume("v", at(21)));
        // Somebody else's volume of the name goes.
        known.volume_went("v", at(30));
        known.volume("v", at(40));
        known.volume("v", at(50));
        let own: Vec<i64> = (0..60).filter(|n| known.had_volume("v", at(*n))).collect();
        assert_eq!(own, (10..=20).chain(40..60).collect::<Vec<_>>());
    }

    #[test]
    fn a_request_ends_a_volume_of_which_nothing_was_known() {
        let known = Known::default();
        let sent = Moment::now();
        known.volume_removed("v", sent);
        assert!(!known.had_volume("v", at(sent.0 - 1)) && known.had_volume("v", sent));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(!known.had_volume("v", Moment::now()));
    }

    #[test]
    fn a_creation_is_told_once() {
        let known = Known::default();
        known.volume("other", at(10));
        known.volume_made_first("v", at(10));
        let during = Moment::now();
        assert!(!known.is_echo("v", at(10)) && known.is_echo("v", during) && !known.is_echo("other", during));
        known.volume("v", during);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(known.is_echo("v", during) && !known.is_echo("v", Moment::now()));
        known.volume("v", Moment::now());
        assert!(!known.is_echo("v", Moment::now()));
    }

    #[test]
    fn what_a_list_lacks_is_gone() {
        let known = Known::default();
        let anonymous = "0a".repeat(32);
        known.volume("v", at(10));
        known.volume(&anonymous, at(10));
        known.volume("kept", at(10));
        let early = at(5);
        known.volumes(&HashMap::new(), early);
        assert!(known.had_volume("v", at(10)), "it was made after the list was asked for");
        std::thread::sleep(std::time::Duration::from_millis(1));
        let all = HashMap::from([("kept".into(), at(10)), ("new".into(), at(30))]);
        let asked = Moment::now();
        known.volumes(&all, asked);
        assert!(!known.had_volume("v", at(10)), "its name may be another's");
        assert!(known.had_volume(&anonymous, at(10)));
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(!known.had_volume(&anonymous, Moment::now()));
        assert!(known.had_volume("kept", Moment::now()) && known.had_volume("new", at(30)));
        assert!(!known.had_volume("new", at(29)));
    }

    #[test]
    fn streams_that_begin_at_once_ask_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (known, asked) = (Known::default(), std::cell::Cell::new(0));
        let begin = async |fails: bool| {
            known
                .refresh(async |_| {
                    asked.set(asked.get() + 1);
                    tokio::task::yield_now().await;
                    if fails { Err(()) } else { Ok(()) }
                })
                .await
        };
        runtime.block_on(async {
            let (failed, first, second) = tokio::join!(begin(true), begin(false), begin(false));
            assert_eq!((failed, first, second, asked.get()), (Err(()), Ok(()), Ok(()), 2));
        });
    }

    #[test]
    fn all_of_it_is_bounded() {
        let known = Known::default();
        for i in 0..REMEMBERED + 5 {
            known.container(&format!("c{i}"));
            known.volume(&format!("v{i}"), at(1));
        }
        for i in 0..20 {
            known.volume("v50", at(i * 10));
            known.volume_went("v50", at(i * 10 + 5));
        }
        assert!(!known.has_container("c4") && known.has_container("c5"));
        assert!(!known.had_volume("v4", at(1)) && known.had_volume("v5", at(1)));
        let inner = known.0.borrow();
        assert_eq!((inner.containers.all.len(), inner.containers.order.len()), (REMEMBERED, REMEMBERED));
        assert_eq!((inner.volumes.len(), inner.names.len()), (REMEMBERED, REMEMBERED));
        assert_eq!(inner.volumes.get("v50").unwrap().len(), LIVES);
    }
}
