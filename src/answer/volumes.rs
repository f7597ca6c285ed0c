//! Volumes: own ones, and those that the policy shares by name.

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
