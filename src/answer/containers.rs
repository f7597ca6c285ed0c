//! Containers: own ones, with their labels and mounts as the client set them.

use super::labels::{self, Holder};
use super::restore::Asked;
use super::scan::{self, Broken, Member, Show};
use crate::owner::Owner;

/// Writes an element of a list (also of `system/df`), if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn element(container: &[u8], me: &Owner, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let Some(member) = scan::find(container, "Labels")? else { return Ok(Show::Hidden) };
    let labels = labels::read(member.value, me)?;
    if labels.holder != Holder::Me {
        return Ok(Show::Hidden);
    }
    match labels.binds.and_then(Asked::read) {
        None => {
            // The common case: all but the labels is passed as it is.
            let (before, rest) = container.split_at_checked(member.at).unwrap_or((container, &[]));
            out.extend_from_slice(before);
            labels::strip(member.value, out)?;
            out.extend_from_slice(rest.get(member.value.len()..).unwrap_or_default());
        }
        Some(asked) => scan::each_member(container, out, |member, out| match member.key {
            b"Labels" => labels::strip(member.value, out),
            b"Mounts" => asked.mount_points(member.value, out),
            _ => Ok(scan::pass(member.value, out)),
        })?,
    }
    Ok(Show::Shown)
}

/// Writes the inspection of a container, if it is the agent's.
///
/// # Errors
/// It cannot be understood.
pub fn inspection(container: &[u8], me: &Owner, out: &mut Vec<u8>) -> Result<Show, Broken> {
    let Some(config) = scan::find(container, "Config")? else { return Ok(Show::Hidden) };
    let labels = labels::read_in(config.value, "Labels", me)?;
    if labels.holder != Holder::Me {
        return Ok(Show::Hidden);
    }
    let asked = labels.binds.and_then(Asked::read);
    scan::each_member(container, out, |member, out| match (member.key, &asked) {
        (b"Config", _) => with_own_labels(member, out),
        (b"HostConfig", Some(asked)) => asked.host_config(member.value, out),
        (b"Mounts", Some(asked)) => asked.mount_points(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}

/// Writes a `Config` without sockguard's labels.
pub fn with_own_labels(config: &Member<'_>, out: &mut Vec<u8>) -> Result<Show, Broken> {
    if scan::is_null(config.value) {
        return Ok(scan::pass(config.value, out));
    }
    scan::each_member(config.value, out, |member, out| match member.key {
        b"Labels" => labels::strip(member.value, out),
        _ => Ok(scan::pass(member.value, out)),
    })?;
    Ok(Show::Shown)
}
