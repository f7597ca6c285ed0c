//! Volumes: own ones, and those that the policy shares by name.

use super::Viewer;
use super::known::Moment;
use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use crate::judge::Agent;
use crate::policy;

/// Is a volume the agent's, or shared by name? One that stands for a bind root never is.
///
/// # Errors
/// It cannot be understood.
pub fn visible(volume: &[u8], agent: &Agent) -> Result<bool, Broken> {
    let labels = labels::read_in(volume, "Labels", &agent.owner)?;
    let visible = match labels.holder {
        Holder::Me => true,
        Holder::Other => false,
        Holder::Nobody => policy::any(&agent.policy.volume.shared, &scan::text_of(volume, "Name")?),
    };
    Ok(visible && labels.root.is_none())
}

/// Writes a visible volume.
///
/// # Errors
/// It cannot be understood.
pub fn element(volume: &[u8], agent: &Agent, out: &mut Vec<u8>) -> Result<Show, Broken> {
    if !visible(volume, agent)? {
        return Ok(Show::Hidden);
    }
    scan::each_member(volume, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Remembers a volume that a request of this moment made or found, if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn remember<U>(volume: &[u8], viewer: &Viewer<U>, sent: Moment) -> Result<(), Broken> {
    let labels = labels::read_in(volume, "Labels", &viewer.agent.owner)?;
    if labels.holder == Holder::Me && labels.root.is_none() {
        let from = sent.of_creation(made(volume)?);
        viewer.memory.known.volume(&scan::text_of(volume, "Name")?, from);
    }
    Ok(())
}

/// When a volume was made, if it says so.
///
/// # Errors
/// It cannot be understood.
pub fn made(volume: &[u8]) -> Result<Option<Moment>, Broken> {
    Ok(Moment::parse(&scan::text_of(volume, "CreatedAt")?))
}

/// Is it a name that the engine made up?
pub fn made_up(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
