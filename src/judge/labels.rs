//! Labels: the owner's is stamped, the reserved ones cannot be had.

use super::Agent;
use crate::json::{Object, Value};
use crate::owner::{LABEL_PREFIX, OWNER_LABEL};
use crate::refusal::Refusal;
use std::collections::BTreeMap;

/// Labels by which sockguard and ECS tell agents apart; a client may not set them.
pub const RESERVED: &[&str] = &[LABEL_PREFIX, "com.amazonaws.ecs."];

/// May a client not set this label?
pub fn reserved(key: &str) -> bool {
    RESERVED.iter().any(|prefix| key.starts_with(prefix))
}

/// Is one of sockguard's own labels among these?
pub fn reserved_any(labels: &BTreeMap<String, String>) -> bool {
    labels.keys().any(|key| key.starts_with(LABEL_PREFIX))
}

/// Stamps the owner label on a set of labels.
///
/// # Errors
/// A reserved label among the client's.
pub fn stamp(labels: &mut Object, field: &str, agent: &Agent) -> Result<(), Refusal> {
    if let Some((key, value)) = labels.iter().find(|(key, _)| reserved(key)) {
        return Err(Refusal::never(
            format!("{field}.{key}"),
            value,
            "this label tells whose an object is; a client cannot set it",
        ));
    }
    labels.set(OWNER_LABEL, agent.owner.as_str());
    Ok(())
}

/// Blanks what an object would inherit from its image under reserved keys and does not set itself.
pub fn blank_inherited(labels: &mut Object, image: &BTreeMap<String, String>) {
    for key in image.keys().filter(|key| reserved(key)) {
        if labels.get(key).is_none() {
            labels.set(key, Value::from(""));
        }
    }
}
