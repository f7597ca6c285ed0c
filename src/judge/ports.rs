//! Which of the host's ports and addresses a new container may be reached by.

use crate::json::{Object, Value};
use crate::policy::{Policy, Publish};
use crate::refusal::Refusal;

/// Judges the ports that a `HostConfig` publishes, and puts the policy's address where the client names none.
///
/// # Errors
/// What the policy does not grant; what is no port.
pub fn judge(host: &mut Object, policy: &Policy) -> Result<(), Refusal> {
    let publish = &policy.container.publish;
    if let Some(value) = host.get("PublishAllPorts").filter(|value| value.as_bool() == Some(true)) {
        let refused = |key| Err(Refusal::not_allowed("HostConfig.PublishAllPorts", value, key));
        match (publish.enabled, publish.address) {
            (false, _) => return refused("container.publish.enabled"),
            // The engine publishes them on every address.
            (true, Some(_)) => return refused("container.publish.address"),
            (true, None) => {}
        }
    }
    let Some(ports) = host.get_mut("PortBindings").and_then(Value::as_object_mut) else { return Ok(()) };
    for (port, bindings) in ports.iter_mut() {
        let field = format!("HostConfig.PortBindings.{port}");
        if !publish.enabled {
            let first = bindings.as_array().and_then(<[Value]>::first);
            return Err(Refusal::not_allowed(field, first.unwrap_or(bindings), "container.publish.enabled"));
        }
        match bindings.as_array_mut().filter(|bindings| !bindings.is_empty()) {
            Some(bindings) => {
                for binding in bindings {
                    judge_binding(&field, binding, publish)?;
                }
            }
            // The engine makes one binding of none, to a port that it chooses.
            None => {
                let mut binding = Value::Object(Object::new());
                judge_binding(&field, &mut binding, publish)?;
                if !binding.is_empty() {
                    *bindings = Value::Array(vec![binding]);
                }
            }
        }
    }
    Ok(())
}

fn judge_binding(field: &str, binding: &mut Value, publish: &Publish) -> Result<(), Refusal> {
    let text = |key| binding.at(&[key]).and_then(Value::as_str).unwrap_or_default();
    let (address, port) = (text("HostIp"), text("HostPort"));
    match (HostPort::read(port), &publish.ports) {
        (None, _) => return Err(Refusal::malformed(format!("{field} has no port: {}", binding.shown()))),
        (Some(HostPort::Chosen), _) | (Some(HostPort::Fixed { .. }), None) => {}
        (Some(HostPort::Fixed { low, high }), Some(ranges)) => {
            if !ranges.iter().any(|range| range.contains(&low) && range.contains(&high)) {
                return Err(Refusal::not_allowed(field, binding, "container.publish.ports"));
            }
        }
    }
    if let Some(only) = publish.address {
        if !address.is_empty() && address.parse() != Ok(only) {
            return Err(Refusal::not_allowed(field, binding, "container.publish.address")
                .hint(format!("ports are published on {only}")));
        }
        *binding = Value::from([("HostIp", Value::from(only.to_string())), ("HostPort", Value::from(port))]);
    }
    Ok(())
}

/// A `HostPort`.
enum HostPort {
    /// The engine takes one that is free.
    Chosen,
    /// One of these, the first that is free.
    Fixed { low: u16, high: u16 },
}

impl HostPort {
    /// Reads it as the engine does; nothing where it is no port.
    fn read(text: &str) -> Option<Self> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        match (text, number(low), number(high)) {
            ("", _, _) | (_, Some(0), Some(0)) => Some(Self::Chosen),
            (_, Some(low), Some(high)) => Some(Self::Fixed { low, high }),
            _ => None,
        }
    }
}
