//! Networks: own and built-in ones, and in them own containers.

use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use super::upstream::OwnContainers;
use crate::owner::Owner;

/// Is this the name of a network that every engine has?
pub fn built_in(name: &str) -> bool {
    matches!(name, "bridge" | "host" | "none")
}

/// Whose a network is.
///
/// # Errors
/// It cannot be understood.
pub fn holder(network: &[u8], me: &Owner) -> Result<Holder, Broken> {
    Ok(labels::read_in(network, "Labels", me)?.holder)
}

/// Does it tell which containers are in it, so that the agent's own have to be known?
///
/// # Errors
/// It cannot be understood.
pub fn names_containers(network: &[u8]) -> Result<bool, Broken> {
    Ok(scan::find(network, "Containers")?.is_some_and(|m| !scan::is_empty(m.value)))
}

/// Writes a network, if it is the agent's or built in.
///
/// # Errors
/// It cannot be understood.
pub fn element(network: &[u8], me: &Owner, own: &OwnContainers, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let holder = holder(network, me)?;
    let shared = holder == Holder::Nobody && built_in(&scan::text_of(network, "Name")?);
    if holder != Holder::Me && !shared {
        return Ok(Show::Hidden);
    }
    scan::each_member(network, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        b"Containers" if !scan::is_empty(member.value) => {
            scan::each_member(member.value, out, |endpoint, out| match std::str::from_utf8(endpoint.key) {
                Ok(id) if own.has(id) => Ok(scan::pass(endpoint.value, out)),
                _ => Ok(Show::Hidden),
            })?;
            Ok(Show::Shown)
        }
        // A swarm's view of a network; and of a built-in one, how many addresses all tenants use.
        b"Services" | b"Peers" => Ok(Show::Hidden),
        b"Status" if shared => Ok(Show::Hidden),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}
