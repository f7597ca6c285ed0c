//! The engine itself, and what an agent's engine does not have.

use super::{Agent, Ask, bodies};
use crate::json::{Object, Value};
use crate::owner::{OWNER_LABEL, SEAL_LABEL};
use crate::permit::{Answer, Payload, Permit, Verdict, View};
use crate::policy::{self, SystemOperation};
use crate::query::{Filters, Param, Query};
use crate::refusal::Refusal;
use crate::route::{Lacking, System};
use crate::schema;
use hyper::StatusCode;

/// What users of BuildKit's paths are told.
pub const BUILDKIT: &str =
    "BuildKit (buildx) is not served here; build with the classic builder: export DOCKER_BUILDKIT=0";

/// Judges a request on the engine itself.
pub fn judge(route: System, mut ask: Ask, agent: &Agent) -> Verdict {
    let forward = |ask: Ask| {
        let path = ask.route.pattern().to_owned();
        Permit::forward(&ask.route, ask.version, path, ask.query)
    };
    let granted = |operation, what: &str, key| {
        if agent.policy.system.grants(operation) { Ok(()) } else { Err(Refusal::operation(what, key)) }
    };
    match route {
        System::Ping | System::PingHead | System::Version => Ok(forward(ask)),
        System::Info => {
            granted(SystemOperation::Info, "reading the engine's information", "system.allow: \"info\"")?;
            Ok(forward(ask).showing(Answer::View(View::Info)))
        }
        System::Events => {
            granted(SystemOperation::Events, "reading events", "system.allow: \"events\"")?;
            known_filters(
                &ask.query,
                &[
                    "config",
                    "container",
                    "daemon",
                    "event",
                    "image",
                    "label",
                    "network",
                    "node",
                    "plugin",
                    "scope",
                    "secret",
                    "service",
                    "type",
                    "volume",
                ],
            )?;
            Ok(forward(ask).showing(Answer::View(View::Events)))
        }
        System::DiskUsage => {
            granted(SystemOperation::DiskUsage, "reading the disk usage", "system.allow: \"disk-usage\"")?;
            Ok(forward(ask).showing(Answer::View(View::DiskUsage)))
        }
        System::Auth => {
            granted(SystemOperation::Auth, "logging in to a registry", "system.allow: \"auth\"")?;
            let body = schema::check(bodies::AUTH, ask.body.take().unwrap_or(Value::Object(Object::new())))?;
            let server = body.get("serveraddress").and_then(Value::as_str).unwrap_or_default();
            let registry = registry_of(server);
            if !policy::any(&agent.policy.image.registries, registry) {
                return Err(Refusal::not_allowed("serveraddress", &Value::from(server), "image.registries"));
            }
            Ok(forward(ask).with(Payload::Json(body.into())))
        }
    }
}

/// The registry's host that a login names; the default is Docker Hub.
fn registry_of(server: &str) -> &str {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    match host.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// Refuses filters that are not known: what they would select cannot be judged.
///
/// # Errors
/// A filter that is not among `known`.
pub fn known_filters(query: &Query, known: &[&str]) -> Result<(), Refusal> {
    match query.filters().keys().find(|key| !known.contains(key)) {
        // The engine's own words, so that clients which probe for a filter go on.
        Some(key) => Err(Refusal::rejected(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// Adds the owner's label to the client's own filters.
pub fn own_only(query: &mut Query, agent: &Agent) {
    let mut filters: Filters = query.filters();
    filters.add("label", format!("{OWNER_LABEL}={}", agent.owner));
    query.set("filters", Param::Filters(filters));
}

/// The same for containers, which carry the owner's seal as well.
pub fn own_containers_only(query: &mut Query, agent: &Agent) {
    let mut filters: Filters = query.filters();
    filters.add("label", [OWNER_LABEL, agent.owner.as_str()].join("="));
    filters.add("label", [SEAL_LABEL, agent.owner.seal()].join("="));
    query.set("filters", Param::Filters(filters));
}

/// Answers as an engine that lacks the feature: reads find nothing, so that `docker inspect NAME`, which walks through
/// all of them, goes on; writes are refused.
pub fn lacking(route: Lacking) -> Verdict {
    let swarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    match route {
        Lacking::SwarmRead => Err(Refusal::Unavailable { message: swarm.to_owned() }),
        Lacking::SwarmLeave => Err(Refusal::Unavailable { message: "This node is not part of a swarm".to_owned() }),
        Lacking::SwarmWrite(method, pattern) => {
            Err(Refusal::operation(format!("{method} {pattern}"), "").hint("an agent's engine has no swarm"))
        }
        Lacking::PluginList => Ok(Permit::made(StatusCode::OK, Value::Array(Vec::new()))),
        Lacking::PluginInspect(name) => Err(Refusal::absent(format!("plugin \"{name}\" not found"))),
        Lacking::PluginWrite(method, pattern) => {
            Err(Refusal::operation(format!("{method} {pattern}"), "").hint("an agent's engine has no plugins"))
        }
        Lacking::BuildKit(pattern) => Err(Refusal::operation(format!("POST {pattern}"), "").hint(BUILDKIT)),
        Lacking::Checkpoint(method) => Err(Refusal::operation(format!("{method} /containers/{{id}}/checkpoints"), "")
            .hint("an agent's engine has no checkpoints")),
        Lacking::Debug => Err(Refusal::operation("/debug", "").hint("the engine's internals are not for agents")),
    }
}
