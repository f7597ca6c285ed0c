//! Reads configuration files.

use super::{Config, Identity, Listener, USUAL_UPSTREAM, below, engine_below, guarded_below, host_paths, same_file};
use crate::audit::Format;
use crate::duration::duration;
use crate::identity::{OwnerTemplate, Rule, Who, label_key};
use crate::listen::{LONGEST_PATH, Permissions};
use crate::owner::Owner;
use crate::policy::{Glob, Policy};
use crate::reap::Reap;
use crate::toml_file::{self, Kind, Reader, Section, glob, path_problem};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use toml::de::DeTable;

/// The configurations that are built in, by name.
pub const EMBEDDED: [(&str, &str); 1] = [("ecs-daemon", include_str!("../../config/ecs-daemon.toml"))];

/// Configurations as files.
const KIND: Kind = Kind { word: "configuration", directory: "config", embedded: &EMBEDDED };

/// What compose calls a container's project and service.
const COMPOSE: [(&str, &str); 2] =
    [("project", "com.docker.compose.project"), ("service", "com.docker.compose.service")];

/// The longest grace that makes sense: hosts have to become clean.
const LONGEST_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

impl Config {
    /// The built-in configuration of this name, else the one in this file; `upstream` goes before what it says.
    ///
    /// # Errors
    /// One line for each problem: `file:line:column: what (hint)`.
    pub fn load(name_or_file: &str, upstream: Option<&Path>) -> Result<Self, Vec<String>> {
        let found = KIND.find(name_or_file, Path::new(""))?;
        toml_file::parse(&found.file, &found.text, |reader, document| {
            Reading { reader, directory: &found.directory, policies: RefCell::default() }.config(document, upstream)
        })
    }
}

/// A file while it is read.
struct Reading<'a> {
    reader: &'a Reader,
    /// Where paths of policies start from.
    directory: &'a Path,
    /// The policies that were named, so that each is read once.
    policies: RefCell<Vec<(String, Option<Rc<Policy>>)>>,
}

/// The words of `identity`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Fixed,
    Peer,
}

/// A policy where it is named.
struct Named {
    at: usize,
    policy: Rc<Policy>,
}

/// What could be read of a listener.
struct Draft {
    at: usize,
    socket_at: usize,
    identity_at: usize,
    socket: Option<PathBuf>,
    socket_on_host: Option<PathBuf>,
    permissions: Permissions,
    word: Option<Word>,
    owner: Option<String>,
    policy: Option<Named>,
}

impl Draft {
    fn finished(self) -> Option<Listener> {
        let identity = match self.word? {
            Word::Peer => Identity::Peer,
            Word::Fixed => Identity::Fixed { owner: self.owner?, policy: self.policy?.policy },
        };
        let socket = self.socket?;
        let socket_on_host = self.socket_on_host.unwrap_or_else(|| socket.clone());
        Some(Listener { socket, socket_on_host, permissions: self.permissions, identity })
    }

    fn on_host(&self) -> Option<&Path> {
        self.socket_on_host.as_deref().or(self.socket.as_deref())
    }
}

/// What could be read of a rule.
struct DraftRule {
    at: usize,
    who: Option<Who>,
    owner: Option<OwnerTemplate>,
    policy: Option<Named>,
}

impl DraftRule {
    fn finished(self) -> Option<Rule> {
        Some(Rule { who: self.who?, owner: self.owner?, policy: self.policy?.policy })
    }
}

impl Reading<'_> {
    fn config(&self, document: &DeTable<'_>, given: Option<&Path>) -> Config {
        let mut top = self.reader.section("", Some(document));
        let upstream = top.checked("upstream", |text| path_problem(plain(text))).map(|text| plain(&text).into());
        let upstream = given.map(Path::to_owned).or(upstream).unwrap_or_else(|| PathBuf::from(USUAL_UPSTREAM));
        let seal_key = top.checked("seal-key", file_problem).map(PathBuf::from);
        let formats = [("text", Some(Format::Text)), ("json", Some(Format::Json)), ("auto", None)];
        let log_format = top.word("log-format", &formats).flatten();
        let debug = top.flag("debug");
        let reap = top.table("reap", |table| self.reap(table));
        let example = r#"{ socket = "/run/sockguard/docker.sock", identity = "peer" }"#;
        let listeners = top.tables("listener", example, |at, table| Some(self.listener(at, table)));
        let example = r#"{ uid = 1000, owner = "{uid}", policy = "ci-agent" }"#;
        let agents = top.tables("agent", example, |at, table| Some(self.agent(at, table)));
        let listeners: Vec<Draft> = listeners.into_iter().map(|(_, draft)| draft).collect();
        let agents: Vec<DraftRule> = agents.into_iter().map(|(_, draft)| draft).collect();
        if top.at("listener").is_none() {
            let hint = "add [[listener]] with `socket` and `identity`";
            self.reader.problem(0, "there is no listener, so nothing would be guarded", hint);
        }
        self.peers(&top, &listeners, &agents);
        if let (Some(at), Some(key)) = (top.value_at("seal-key"), &seal_key) {
            for draft in &listeners {
                let Some(directory) = draft.socket.as_deref().and_then(Path::parent) else { continue };
                if below(key, directory) {
                    let what = format!("seal-key: `{}` lies below {}", key.display(), directory.display());
                    self.reader.problem(at, what, "agents mount the directory of their socket: keep the key elsewhere");
                }
            }
        }
        top.finish();
        self.sockets(&upstream, &listeners);
        self.binds(&upstream, seal_key.as_deref(), &listeners, &agents);
        self.order(&agents);
        Config {
            upstream,
            seal_key,
            log_format,
            debug,
            listeners: listeners.into_iter().filter_map(Draft::finished).collect(),
            agents: agents.into_iter().filter_map(DraftRule::finished).collect(),
            reap,
        }
    }

    fn reap(&self, table: Option<&DeTable<'_>>) -> Reap {
        let mut s = self.reader.section("reap", table);
        let grace = s.checked("grace", |text| grace(text).err()).and_then(|text| grace(&text).ok());
        let reap = Reap { grace: grace.unwrap_or(Reap::default().grace), images: s.flag("images") };
        s.finish();
        reap
    }

    fn listener(&self, at: usize, table: &DeTable<'_>) -> Draft {
        let mut s = self.reader.section("listener", Some(table));
        let socket = s.checked("socket", socket_problem).map(PathBuf::from);
        let socket_on_host = s.checked("socket-on-host", file_problem).map(PathBuf::from);
        let mode = s.checked("mode", mode_problem).and_then(|text| mode(&text)).unwrap_or(0o600);
        let permissions = Permissions { mode, uid: id(&mut s, "uid"), gid: id(&mut s, "gid") };
        let word = s.word("identity", &[("fixed", Word::Fixed), ("peer", Word::Peer)]);
        let owner = s.checked("owner", |text| Owner::new(text).err());
        let policy = self.policy(&mut s);
        let needs: &[(&str, &str)] = match word {
            Some(Word::Fixed) => &[("owner", r#"owner = "agent-1""#), ("policy", r#"policy = "ci-agent""#)],
            Some(Word::Peer) | None => &[],
        };
        let always = [
            ("socket", r#"socket = "/run/sockguard/docker.sock""#),
            ("identity", r#"identity = "peer", or "fixed" with `owner` and `policy`"#),
        ];
        for (key, value) in always.iter().chain(needs) {
            if s.at(key).is_none() {
                self.reader.problem(at, format!("this listener has no `{key}`"), format!("add {value}"));
            }
        }
        if word == Some(Word::Peer) {
            for key in ["owner", "policy"] {
                s.no_effect(key, "identity is \"peer\": the [[agent]] rules say it");
            }
        }
        let socket_at = s.value_at("socket").unwrap_or(at);
        let identity_at = s.value_at("identity").unwrap_or(at);
        s.finish();
        Draft { at, socket_at, identity_at, socket, socket_on_host, permissions, word, owner, policy }
    }

    fn agent(&self, at: usize, table: &DeTable<'_>) -> DraftRule {
        let mut s = self.reader.section("agent", Some(table));
        let who = self.who(at, &mut s);
        let owner = s.checked("owner", |text| OwnerTemplate::parse(text).err());
        let owner = owner.and_then(|text| OwnerTemplate::parse(&text).ok());
        if let (Some(owner), Some(who), Some(at)) = (&owner, &who, s.value_at("owner")) {
            match who {
                Who::Container { .. } if owner.needs_user() => {
                    let hint = "such as {label:com.amazonaws.ecs.task-arn} or {container.id}";
                    self.reader.problem(at, "agent.owner: a container has no {uid}", hint);
                }
                Who::User(_) if owner.needs_container() => {
                    let what = "agent.owner: a process of the host is no container";
                    self.reader.problem(at, what, "of it there is {uid}");
                }
                Who::Container { .. } | Who::User(_) => {}
            }
        }
        let policy = self.policy(&mut s);
        for (key, value) in [("owner", r#"owner = "{container.id}""#), ("policy", r#"policy = "ci-agent""#)] {
            if s.at(key).is_none() {
                self.reader.problem(at, format!("this agent rule has no `{key}`"), format!("such as {value}"));
            }
        }
        s.finish();
        DraftRule { at, who, owner, policy }
    }

    /// Whom a rule means. None when it does not say it, or not in a way that can be read.
    fn who(&self, at: usize, s: &mut Section<'_, '_>) -> Option<Who> {
        let mut labels: Vec<(String, Glob)> = Vec::new();
        let mut whole = true;
        for entry in s.entries("labels", r#"{ "com.example.team" = "ci-*" }"#) {
            let key =
                label_key(&entry.key).map_err(|e| self.reader.problem(entry.key_at, format!("agent.labels: {e}"), ""));
            let value = glob(&entry.value).map_err(|(what, hint)| {
                self.reader.problem(entry.value_at, format!("agent.labels: {}: {what}", entry.key), hint);
            });
            match (key, value) {
                (Ok(key), Ok(value)) => labels.push((key, value)),
                _ => whole = false,
            }
        }
        let compose = s.table("compose", |table| {
            let mut s = self.reader.section("agent.compose", table);
            let found = COMPOSE.map(|(word, key)| (key, s.value_at(word).unwrap_or(at), pattern(&mut s, word)));
            s.finish();
            found
        });
        for (key, at, value) in compose {
            let Some(value) = value else { continue };
            if labels.iter().any(|(other, _)| other == key) {
                self.reader.problem(at, format!("`labels` and `compose` both name {key}"), "keep one");
            }
            labels.push((key.to_owned(), value));
        }
        let image = pattern(s, "image");
        let uid = id(s, "uid");
        if let (Some(at), true) = (s.at("uid"), ["labels", "compose", "image"].iter().any(|key| s.at(key).is_some())) {
            let hint = "`uid` is of processes of the host; make two rules of it";
            self.reader.problem(at, "an agent rule means containers or a user of the host, not both", hint);
            return None;
        }
        if let Some(uid) = uid {
            return Some(Who::User(uid));
        }
        if labels.is_empty() && image.is_none() {
            if whole && ["image", "uid"].iter().all(|key| s.at(key).is_none()) {
                let hint = "add labels, compose, image or uid";
                self.reader.problem(at, "this agent rule does not say whom it means", hint);
            }
            return None;
        }
        whole.then_some(Who::Container { labels, image })
    }

    /// The policy that a table names.
    fn policy(&self, s: &mut Section<'_, '_>) -> Option<Named> {
        let text = s.text("policy")?;
        let at = s.value_at("policy")?;
        if let Some((_, known)) = self.policies.borrow().iter().find(|(name, _)| *name == text) {
            return known.clone().map(|policy| Named { at, policy });
        }
        let found = match text.as_str() {
            "" => Err(Vec::new()),
            text => Policy::load_from(text, self.directory),
        };
        let policy = match found {
            Ok(policy) => Some(Rc::new(policy)),
            Err(lines) => {
                let what = format!("{}: `{}` cannot be used", s.path("policy"), text.escape_debug());
                let hint = match lines.as_slice() {
                    [] => "expected a name or a file".to_owned(),
                    [_] => "the next line says why".to_owned(),
                    lines => format!("the next {} lines say why", lines.len()),
                };
                self.reader.problem_with(at, what, hint, lines);
                None
            }
        };
        self.policies.borrow_mut().push((text, policy.clone()));
        policy.map(|policy| Named { at, policy })
    }

    /// What only makes sense where agents are told apart.
    fn peers(&self, top: &Section<'_, '_>, listeners: &[Draft], agents: &[DraftRule]) {
        let peer = listeners.iter().find(|draft| draft.word == Some(Word::Peer));
        match peer {
            Some(peer) => {
                if top.at("agent").is_none() {
                    let hint = "add [[agent]] with whom it means, `owner` and `policy`";
                    self.reader.problem(peer.identity_at, "without an agent rule this listener serves nobody", hint);
                }
                if top.at("seal-key").is_none() {
                    let what = "identity = \"peer\" needs a seal key, which proves that a container was created through sockguard";
                    let hint = "add seal-key = \"/var/lib/sockguard/seal.key\" above the first section";
                    self.reader.problem(peer.identity_at, what, hint);
                }
            }
            // Not while it is unknown what a listener is.
            None if listeners.is_empty() || listeners.iter().any(|draft| draft.word.is_none()) => {}
            None => {
                let why = "no listener has identity = \"peer\"";
                if let Some(first) = agents.first() {
                    self.reader.problem(first.at, "the agent rules have no effect", why);
                }
                top.no_effect("reap", why);
            }
        }
    }

    /// What sockets say about each other.
    fn sockets(&self, upstream: &Path, listeners: &[Draft]) {
        for (i, draft) in listeners.iter().enumerate() {
            let Some(socket) = &draft.socket else { continue };
            let shown = socket.display();
            if same_file(socket, upstream) {
                let what = format!("listener.socket: `{shown}` is the engine's socket");
                self.reader.problem(draft.socket_at, what, "");
            }
            let earlier = || listeners.iter().take(i);
            let taken = earlier().filter_map(|other| other.socket.as_deref()).find(|taken| same_file(socket, taken));
            if let Some(taken) = taken {
                let hint = match taken == socket {
                    true => String::new(),
                    false => format!("it is the same file as `{}`", taken.display()),
                };
                self.reader.problem(draft.socket_at, format!("two listeners on one path, `{shown}`"), hint);
            } else if let Some(there) = draft.on_host().filter(|there| earlier().any(|o| o.on_host() == Some(there))) {
                let what = format!("two listeners are {} on the engine's host", there.display());
                self.reader.problem(draft.at, what, "give each its `socket-on-host`");
            }
        }
    }

    /// What policies give away of sockguard's own files.
    fn binds(&self, upstream: &Path, key: Option<&Path>, listeners: &[Draft], agents: &[DraftRule]) {
        let fixed = listeners.iter().filter_map(|draft| Some((draft.policy.as_ref()?, Some(draft.at))));
        let users = fixed.chain(agents.iter().filter_map(|rule| Some((rule.policy.as_ref()?, None))));
        let mut told = BTreeSet::new();
        for (Named { at, policy }, user) in users {
            let mut tell = |what: String| {
                if told.insert(what.clone()) {
                    self.reader.problem(*at, what, "");
                }
            };
            for root in &host_paths(policy, upstream).collect::<Vec<_>>() {
                let shown = root.path.display();
                engine_below(root, upstream).map(&mut tell);
                if let Some(key) = key.filter(|key| below(key, &root.path)) {
                    tell(format!("bind root {shown}: the seal key {} lies below it", key.display()));
                }
                for draft in listeners {
                    let Some(socket) = draft.on_host() else { continue };
                    if let Some(what) = guarded_below(root, socket) {
                        tell(what);
                    } else if draft.word == Some(Word::Fixed) && user != Some(draft.at) && below(socket, &root.path) {
                        let socket = socket.display();
                        tell(format!(
                            "bind root {shown}: the socket {socket} lies below it, and who mounts it is that listener's agent"
                        ));
                    }
                }
            }
        }
    }

    /// Rules behind one that takes all that they mean.
    fn order(&self, agents: &[DraftRule]) {
        for (i, rule) in agents.iter().enumerate() {
            let Some(who) = &rule.who else { continue };
            let earlier = agents.iter().take(i).filter_map(|earlier| earlier.who.as_ref());
            if let Some(earlier) = earlier.into_iter().find(|earlier| covers(earlier, who)) {
                let hint = format!("an earlier one takes all {earlier}");
                self.reader.problem(rule.at, "this agent rule has no effect", hint);
            }
        }
    }
}

/// Does the first rule match whatever the second does?
fn covers(first: &Who, second: &Who) -> bool {
    // A pattern's own `*` can only be matched by another, which then matches whatever stands for it.
    let wider = |wide: &Glob, narrow: &Glob| wide.matches(narrow.as_str());
    match (first, second) {
        (Who::User(first), Who::User(second)) => first == second,
        (Who::Container { labels, image }, Who::Container { labels: narrow_labels, image: narrow_image }) => {
            labels
                .iter()
                .all(|(key, wide)| narrow_labels.iter().any(|(other, narrow)| key == other && wider(wide, narrow)))
                && image.as_ref().is_none_or(|wide| narrow_image.as_ref().is_some_and(|narrow| wider(wide, narrow)))
        }
        (Who::User(_), Who::Container { .. }) | (Who::Container { .. }, Who::User(_)) => false,
    }
}

/// A pattern.
fn pattern(s: &mut Section<'_, '_>, key: &'static str) -> Option<Glob> {
    let text = s.checked(key, |text| glob(text).err().map(|(what, _)| what))?;
    glob(&text).ok()
}

/// The number of a user or a group. The highest is the system call's "leave it".
fn id(s: &mut Section<'_, '_>, key: &'static str) -> Option<u32> {
    s.number(key, 0, u64::from(u32::MAX) - 1).and_then(|id| u32::try_from(id).ok())
}

/// A socket's path, which may be written as `DOCKER_HOST` is.
fn plain(text: &str) -> &str {
    text.strip_prefix("unix://").unwrap_or(text)
}

fn file_problem(text: &str) -> Option<String> {
    let none = Path::new(text).file_name().is_none().then(|| format!("`{text}` is no path of a file"));
    none.or_else(|| path_problem(text))
}

fn socket_problem(text: &str) -> Option<String> {
    let long = text.len() > LONGEST_PATH;
    let long = long.then(|| format!("{} bytes are too long for a socket's path: {LONGEST_PATH} fit", text.len()));
    file_problem(text).or(long)
}

fn mode(text: &str) -> Option<u32> {
    let digits = text.starts_with('0') && text.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| u32::from_str_radix(text, 8).ok()).flatten().filter(|mode| *mode <= 0o777)
}

fn mode_problem(text: &str) -> Option<String> {
    mode(text)
        .is_none()
        .then(|| format!("`{}` is no mode: expected octal digits from \"0000\" to \"0777\"", text.escape_debug()))
}

/// How long an agent may be away.
fn grace(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        grace if grace <= LONGEST_GRACE => Ok(grace),
        _ => Err(format!("`{text}` is more than 24h")),
    }
}
