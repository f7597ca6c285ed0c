//! `sockguard reap`: removes what an owner left, by hand.

use super::flags::{self, Flag, Given};
use super::{Failure, Surroundings, needs, start};
use crate::config::Config;
use crate::engine::Engine;
use crate::owner::{Owner, SealKey};
use crate::reap::{self, Kind, Object, Outcome};
use crate::seal;
use std::path::PathBuf;

/// Its flags.
pub const FLAGS: &[Flag] = &[
    flags::value("owner", "OWNER", "whose containers, networks, volumes and images to remove"),
    flags::switch("dry-run", "only list them"),
    flags::value("config", "NAME|FILE", "the configuration that says which engine, and has the seal key"),
    flags::value("upstream-socket", "PATH", "the engine's socket, as above"),
];

/// What it needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Whose objects.
    pub owner: Owner,
    /// What is done to them.
    pub way: Way,
    /// The engine's socket.
    pub upstream: PathBuf,
}

/// What is done to the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They are listed.
    DryRun,
    /// They are removed.
    Remove,
}

/// Makes settings of what was given. All problems are collected.
///
/// # Errors
/// `Failure::Settings`.
pub fn settings(given: &Given, around: &Surroundings) -> Result<Settings, Failure> {
    let text = |name: &str| given.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let mut problems = Vec::new();
    let (key, upstream) = match super::configuration(given) {
        Some(name_or_file) => {
            let Config { seal_key, upstream, .. } = super::from_file(name_or_file, given)?;
            let key = seal_key.map(|path| match seal::read(&path) {
                Ok(Some(key)) => key,
                Ok(None) => {
                    problems.push(format!("seal-key: {} does not exist", path.display()));
                    SealKey::default()
                }
                Err(problem) => {
                    problems.push(format!("seal-key: {problem}"));
                    SealKey::default()
                }
            });
            (key.unwrap_or_default(), upstream)
        }
        None => {
            // Where the engine is has nothing to do with where a guarded socket is.
            let guarded = super::socket_path(&Given::new())?;
            let upstream = super::upstream(text("upstream-socket"), &guarded, around, &mut problems, &mut Vec::new());
            (SealKey::default(), upstream)
        }
    };
    let owner = match text("owner") {
        Some(name) => key.owner(name).map_err(|e| problems.push(format!("-owner: {e}"))).ok(),
        None => {
            problems.push("-owner is needed: whose objects are to be removed".to_owned());
            None
        }
    };
    let dry = given.get("dry-run").is_some_and(|value| flags::boolean(value) == Ok(true));
    let way = if dry { Way::DryRun } else { Way::Remove };
    match owner {
        Some(owner) if problems.is_empty() => Ok(Settings { owner, way, upstream }),
        _ => Err(Failure::Settings(problems)),
    }
}

/// Lists or removes everything of the owner, with one line for each object.
///
/// # Errors
/// `Failure::Engine` when it cannot be asked, `Failure::No` when something cannot be removed.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let Settings { owner, way, upstream } = settings;
    let engine = Engine::new(upstream);
    let found = reap::belongings(&engine, &owner, &Kind::ALL).await.map_err(needs::unreachable)?;
    let (own, others): (Vec<Object>, Vec<Object>) = found.into_iter().partition(|object| object.belongs_to(&owner));
    for object in &others {
        line("left", object, ": it was not created through sockguard, or under another seal key");
    }
    // Networks, volumes and images have no seal: they may be of the same sockguard as these containers.
    let foreign = others.iter().filter(|object| object.sealed_otherwise(&owner)).count();
    if foreign > 0 {
        let why = format!("{foreign} containers of {owner} have the seal of another key: nothing is removed");
        return Err(Failure::No(format!("{why}; --config names the configuration with theirs")));
    }
    let mut left = 0_usize;
    match way {
        Way::DryRun => own.iter().for_each(|object| line("would remove", object, "")),
        Way::Remove => {
            let tell = |object: &Object, outcome: &Outcome| match outcome {
                Outcome::Removed => line("removed", object, ""),
                Outcome::Gone => line("gone", object, ""),
                Outcome::Left(why) => {
                    left += 1;
                    line("left", object, &format!(": {why}"));
                }
            };
            reap::remove_all(&engine, &own, "by hand", tell).await.map_err(needs::unreachable)?;
        }
    }
    match left {
        0 => Ok(()),
        left => Err(Failure::No(format!("{left} objects of {owner} are left"))),
    }
}

fn line(what: &str, object: &Object, more: &str) {
    let name = if object.name.is_empty() { String::new() } else { format!(" {}", object.name) };
    start::print(&format!("{what} {} {}{name}{more}\n", object.kind, object.short()));
}
