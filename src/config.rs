//! The configuration: which sockets are guarded for whom. A file says it, or the flags do for one agent beside a socket.

mod read;

pub use read::EMBEDDED;

use crate::audit::Format;
use crate::identity::{Rule, Who};
use crate::listen::Permissions;
use crate::policy::{Access, AliasTarget, BindRoot, Policy};
use crate::reap::Reap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where the engine's socket usually is.
pub const USUAL_UPSTREAM: &str = "/var/run/docker.sock";

/// What is guarded, for whom, and how.
#[derive(Debug)]
pub struct Config {
    /// The engine's socket.
    pub upstream: PathBuf,
    /// The file of the key that containers are sealed with. It is made where it is absent.
    pub seal_key: Option<PathBuf>,
    /// How the log is written; `None`: for people on a terminal, else JSON.
    pub log_format: Option<Format>,
    /// Is more logged?
    pub debug: bool,
    /// The guarded sockets, one or more.
    pub listeners: Vec<Listener>,
    /// Who is an agent, where the listener does not say it: the first rule that matches counts.
    pub agents: Vec<Rule>,
    /// What becomes of an agent's objects when its container ends.
    pub reap: Reap,
}

/// A guarded socket.
#[derive(Debug)]
pub struct Listener {
    /// Its absolute path.
    pub socket: PathBuf,
    /// Its path as the engine's host sees it.
    pub socket_on_host: PathBuf,
    /// Its mode and owner.
    pub permissions: Permissions,
    /// Who connects to it.
    pub identity: Identity,
}

/// Who connects to a listener.
#[derive(Debug)]
pub enum Identity {
    /// One agent, whoever it is.
    Fixed {
        /// The owner's name.
        owner: String,
        /// What it may do.
        policy: Rc<Policy>,
    },
    /// Whom the kernel says it is: the rules for agents apply.
    Peer,
}

impl Config {
    /// The policies of all listeners and agents, each as often as it is used.
    pub fn policies_mut(&mut self) -> impl Iterator<Item = &mut Rc<Policy>> {
        let fixed = self.listeners.iter_mut().filter_map(|listener| match &mut listener.identity {
            Identity::Fixed { policy, .. } => Some(policy),
            Identity::Peer => None,
        });
        fixed.chain(self.agents.iter_mut().map(|rule| &mut rule.policy))
    }

    /// What is fine, but often not meant.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (i, listener) in self.listeners.iter().enumerate().filter(|(_, listener)| listener.is_fixed()) {
            let (mode, socket) = (listener.permissions.mode, listener.socket.display());
            if mode & 0o002 != 0 {
                notes.push(format!("mode {mode:04o} lets every user of this host use the guarded socket {socket}"));
            }
            let parent = listener.socket.parent();
            let others = self.listeners.iter().enumerate().filter(|(j, other)| *j < i || !other.is_fixed());
            if let Some((_, other)) = others.into_iter().find(|(_, other)| other.socket.parent() == parent) {
                let other = other.socket.display();
                notes.push(format!("{socket} and {other} are in one directory: a container that mounts it has both"));
            }
        }
        notes
    }
}

impl Listener {
    fn is_fixed(&self) -> bool {
        match self.identity {
            Identity::Fixed { .. } => true,
            Identity::Peer => false,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container { labels, image } => {
                f.write_str("containers")?;
                let mut word = " with ";
                for (key, value) in labels {
                    write!(f, "{word}{key}={}", value.as_str())?;
                    word = ", ";
                }
                image.as_ref().map_or(Ok(()), |image| write!(f, " of {}", image.as_str()))
            }
            Self::User(uid) => write!(f, "processes of user {uid}"),
        }
    }
}

/// Do both paths lead to one file, or to one place where a file may be?
pub fn same_file(a: &Path, b: &Path) -> bool {
    canonical(a) == canonical(b)
}

/// Is the path the directory itself or below it, as it is written or really?
fn below(path: &Path, directory: &Path) -> bool {
    path.starts_with(directory) || canonical(path).starts_with(canonical(directory))
}

/// The path without symbolic links, as far as it exists.
fn canonical(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(real) = absolute.canonicalize() {
        return real;
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => canonical(parent).join(name),
        _ => absolute,
    }
}

/// The host paths that a policy lets containers mount. An alias for the engine's socket itself is none: a bind of it
/// becomes one of the guarded socket.
pub fn host_paths(policy: &Policy, upstream: &Path) -> impl Iterator<Item = BindRoot> {
    let aliases = policy.bind.aliases.iter().filter_map(|alias| match &alias.to {
        AliasTarget::Host(path) if same_file(path, upstream) => None,
        AliasTarget::Host(path) => Some(BindRoot { path: path.clone(), access: alias.access }),
        AliasTarget::Agent(_) => None,
    });
    policy.bind.roots.iter().cloned().chain(aliases)
}

/// A root above the engine's socket gives the engine away, read-only too: connecting needs no write access.
pub fn engine_below(root: &BindRoot, upstream: &Path) -> Option<String> {
    below(upstream, &root.path).then(|| {
        format!(
            "bind root {}: the engine's socket {} lies below it, and a container that mounts it has the whole host",
            root.path.display(),
            upstream.display()
        )
    })
}

/// Who can write to the directory of the guarded socket can have something else mounted in its place.
pub fn guarded_below(root: &BindRoot, socket_on_host: &Path) -> Option<String> {
    (root.access == Access::Rw && below(socket_on_host, &root.path)).then(|| {
        format!(
            "bind root {}: the guarded socket {} lies below it, and an agent could put a link to the host in its place",
            root.path.display(),
            socket_on_host.display()
        )
    })
}
