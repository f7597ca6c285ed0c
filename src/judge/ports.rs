//! Which of the host's ports and addresses a new container may be reached by.

use crate::json::{Object, Value};
use crate::policy::{Policy, Publish};
use crate::refusal::Refusal;
use crate::world::Image;

/// A container exposes, and publishes, at most so many ports: each costs the engine work, and every list shows it.
const MOST: u64 = 1000;

/// The number of ports that stand under this key, such as `80/tcp` or `8000-8010/udp`.
pub fn number(port: &str) -> u64 {
    let (low, high) = port.split('/').next().and_then(|ports| ports.split_once('-')).unwrap_or_default();
    match (low.parse::<u64>(), high.parse::<u64>()) {
        (Ok(low), Ok(high)) => high.saturating_sub(low).saturating_add(1),
        _ => 1,
    }
}

/// Checks that a new container does not expose too many ports, by itself or by its image.
///
/// # Errors
/// It does.
pub fn judge_exposed(body: &Object, image: &Image) -> Result<(), Refusal> {
    let own = body.get("ExposedPorts").and_then(Value::as_object).into_iter().flat_map(Object::iter);
    let all = own.fold(image.exposes, |sum, (port, _)| sum.saturating_add(number(port)));
    few("ExposedPorts", all, format!("a container exposes {MOST} ports at most, those of its image among them"))
}

fn few(field: &str, ports: u64, rule: String) -> Result<(), Refusal> {
    if ports <= MOST {
        return Ok(());
    }
    Err(Refusal::never(field, &Value::from(i64::try_from(ports).unwrap_or(i64::MAX)), rule))
}

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
    let bindings = |value: &Value| value.as_array().map_or(0, <[Value]>::len).max(1);
    let all = ports.iter().fold(0_u64, |sum, (port, value)| {
        let bindings = u64::try_from(bindings(value)).unwrap_or(u64::MAX);
        sum.saturating_add(number(port).saturating_mul(bindings))
    });
    few("HostConfig.PortBindings", all, format!("a container publishes {MOST} ports at most"))?;
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
