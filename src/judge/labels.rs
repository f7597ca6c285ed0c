//! Labels: the owner's is stamped, the reserved ones cannot be had.

use super::Agent;
use crate::json::{Object, Value};
use crate::owner::{AGENT_LABEL, IMAGE_LABEL, LABEL_PREFIX, OWNER_LABEL, SEAL_LABEL};
use crate::refusal::Refusal;
use crate::world::Image;
use std::collections::BTreeMap;

/// Labels by which sockguard and ECS tell agents apart; a client may not set them.
pub const RESERVED: &[&str] = &[LABEL_PREFIX, "com.amazonaws.ecs."];

/// The labels of one object are at most so many bytes: every list shows them.
pub const MOST_BYTES: usize = 256 << 10;

/// The refusal of more than that.
pub fn too_many(what: &str) -> Refusal {
    Refusal::TooLarge { message: format!("{what} are more than {MOST_BYTES} bytes") }
}

/// Checks the length of a set of labels.
///
/// # Errors
/// It is too long.
pub fn bounded(labels: &Object, what: &str) -> Result<(), Refusal> {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + length(value)).sum();
    if bytes > MOST_BYTES { Err(too_many(what)) } else { Ok(()) }
}

/// May a client not set this label?
pub fn reserved(key: &str) -> bool {
    RESERVED.iter().any(|prefix| key.starts_with(prefix))
}

/// Is one of sockguard's own labels among these?
pub fn reserved_any(labels: &BTreeMap<String, String>) -> bool {
    labels.keys().any(|key| key.starts_with(LABEL_PREFIX))
}

/// The labels of a network or volume that is made for an agent.
pub fn of_object(agent: &Agent) -> Vec<(String, String)> {
    let owner = (OWNER_LABEL.to_owned(), agent.owner.to_string());
    let ends_with = agent.caller.as_ref().map(|caller| (AGENT_LABEL.to_owned(), caller.agent.to_string()));
    std::iter::once(owner).chain(ends_with).collect()
}

/// Stamps the labels of a network or volume on those that the client gave.
///
/// # Errors
/// As [`stamp`].
pub fn stamp_object(labels: &mut Object, field: &str, agent: &Agent) -> Result<(), Refusal> {
    stamp(labels, field, agent)?;
    for (key, value) in of_object(agent) {
        labels.set(&key, value);
    }
    Ok(())
}

/// Stamps the labels of a container on those that the client gave: it is sealed, too.
///
/// # Errors
/// As [`stamp`].
pub fn stamp_container(labels: &mut Object, field: &str, agent: &Agent) -> Result<(), Refusal> {
    stamp_object(labels, field, agent)?;
    labels.set(SEAL_LABEL, agent.owner.seal());
    Ok(())
}

/// Stamps the owner label on the labels of an image. Nothing else of sockguard's is ever on an image.
///
/// # Errors
/// A reserved label among the client's, or too many.
pub fn stamp(labels: &mut Object, field: &str, agent: &Agent) -> Result<(), Refusal> {
    bounded(labels, field)?;
    if let Some((key, _)) = labels.iter().find(|(key, _)| reserved(key)) {
        let key: String = key.chars().filter(|c| !c.is_control()).take(120).collect();
        return Err(Refusal::operation(format!("{field}.{key}"), "")
            .hint("this label tells whose an object is; a client cannot set it"));
    }
    labels.set(OWNER_LABEL, agent.owner.as_str());
    Ok(())
}

/// Stamps the image that a container is to be made from.
pub fn stamp_image(labels: &mut Object, image: &Image) {
    labels.set(IMAGE_LABEL, image.id.as_str());
}

/// Blanks what an object would inherit from its image under reserved keys and does not set itself.
pub fn blank_inherited(labels: &mut Object, image: &BTreeMap<String, String>) {
    for key in image.keys().filter(|key| reserved(key)) {
        if labels.get(key).is_none() {
            labels.set(key, Value::from(""));
        }
    }
}
