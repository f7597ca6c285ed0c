//! Networks: own and built-in ones, and in them own containers.

use super::labels::{self, Holder};
use super::scan::{self, Broken, Show};
use super::upstream::{self, OwnContainers, Upstream};
use super::{Viewer, errors};
use crate::owner::Owner;
use crate::refusal::Refusal;

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

/// Writes the answer to a network's creation, and remembers the network. Older engines warn of another one of the same
/// name, with its ID: that of an own one only is told.
///
/// # Errors
/// It cannot be understood, or the engine cannot be asked.
pub async fn created(answer: &[u8], viewer: &Viewer<impl Upstream>, out: &mut Vec<u8>) -> Result<Show, Refusal> {
    let id = scan::text_of(answer, "Id")?;
    if !id.is_empty() {
        viewer.memory.known.network(&id);
    }
    let warning = scan::text_of(answer, "Warning")?;
    let mut told = true;
    for id in errors::ids(&warning) {
        told = told && is_own(id, viewer).await?;
    }
    scan::each_member(answer, out, |member, out| match member.key {
        b"Warning" if !told => Ok(scan::pass(b"\"\"", out)),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Is the network of this full ID the agent's? Then it is remembered.
///
/// # Errors
/// The engine cannot be asked.
pub async fn is_own(id: &str, viewer: &Viewer<impl Upstream>) -> Result<bool, Refusal> {
    let known = &viewer.memory.known;
    if known.has_network(id) || known.is_foreign(id) {
        return Ok(known.has_network(id));
    }
    let mut path = "/networks/".to_owned();
    crate::route::percent_encode(id, "", &mut path);
    // A name of this form would be found too.
    let own = match upstream::document(&*viewer.upstream, &path).await? {
        Some(network) => scan::text_of(&network, "Id")? == id && holder(&network, &viewer.agent.owner)? == Holder::Me,
        None => false,
    };
    if own {
        known.network(id);
    } else {
        known.foreign(id);
    }
    Ok(own)
}
