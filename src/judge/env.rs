//! Environment variables that the policy keeps out, by their names. Their values are secrets and never told.

use super::Agent;
use crate::json::Value;
use crate::policy;
use crate::refusal::Refusal;

/// Checks the name of a variable that a field sets, whatever its value.
///
/// # Errors
/// The policy keeps it out.
pub fn name(field: &str, name: &str, agent: &Agent) -> Result<(), Refusal> {
    if policy::any(&agent.policy.container.deny_env, name) {
        return Err(Refusal::not_allowed(field, &Value::from(name), "container.deny-env"));
    }
    Ok(())
}

/// Checks a list of `NAME=value`. An item without a value takes the variable away; it is judged as well.
///
/// # Errors
/// As [`name`].
pub fn list(field: &str, list: Option<&Value>, agent: &Agent) -> Result<(), Refusal> {
    if agent.policy.container.deny_env.is_empty() {
        return Ok(());
    }
    let items = list.and_then(Value::as_array).unwrap_or_default().iter().filter_map(Value::as_str);
    let mut names = items.map(|item| item.split_once('=').map_or(item, |(name, _)| name));
    names.try_for_each(|variable| name(field, variable, agent))
}
