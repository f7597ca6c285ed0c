//! Containers: own ones, with their labels and mounts as the client set them.

use super::labels;
use super::restore::Asked;
use super::scan::{self, Broken, Show};
use crate::owner::Owner;

/// Writes an element of a list (also of `system/df`), if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn element(container: &[u8], me: &Owner, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let Some(member) = scan::find(container, "Labels")? else { return Ok(Show::Hidden) };
    let labels = labels::read(member.value, me)?;
    if !labels.my_container() {
        return Ok(Show::Hidden);
    }
    let Some(asked) = labels.binds.and_then(Asked::read) else {
        return without_own_labels(container, member.at, member.value, out);
    };
    scan::each_member(container, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        b"Mounts" => asked.mount_points(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes the inspection of a container, if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn inspection(container: &[u8], me: &Owner, out: &mut Vec<u8>) -> Result<Show, Broken> {
    // Read to its end, so that a document that was cut short is not passed for a whole one.
    let mut config = None;
    for member in scan::members(container) {
        let member = member?;
        if member.key == b"Config" {
            config = Some(member);
        }
    }
    let Some(config) = config else { return Ok(Show::Hidden) };
    let Some(member) = scan::find(config.value, "Labels")? else { return Ok(Show::Hidden) };
    let labels = labels::read(member.value, me)?;
    if !labels.my_container() {
        return Ok(Show::Hidden);
    }
    let Some(asked) = labels.binds.and_then(Asked::read) else {
        return without_own_labels(container, config.at + member.at, member.value, out);
    };
    scan::each_member(container, out, |member, out| match member.key {
        b"Config" => scan::each_member(member.value, out, |member, out| match member.key {
            b"Labels" => labels::strip(member.value, out),
            _ => Ok(scan::pass(member.value, out)),
        })
        .map(|()| Show::Shown),
        b"HostConfig" => asked.host_config(member.value, out),
        b"Mounts" => asked.mount_points(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// The common case: all but the labels, which stand at this place, is passed as it is.
fn without_own_labels(container: &[u8], at: usize, labels: &[u8], out: &mut Vec<u8>) -> Result<Show, Broken> {
    let (before, rest) = container.split_at_checked(at).ok_or(Broken("labels lie outside of their object"))?;
    out.extend_from_slice(before);
    labels::strip(labels, out)?;
    out.extend_from_slice(rest.get(labels.len()..).unwrap_or_default());
    Ok(Show::Shown)
}
