//! Execs: an exec belongs to its container's owner.

use super::{Agent, Ask, bodies, containers, env};
use crate::json::{Object, Value};
use crate::permit::{Answer, Payload, Permit, Step, Verdict};
use crate::policy::ContainerOperation;
use crate::refusal::Refusal;
use crate::route::{Exec, Name};
use crate::schema;
use crate::world::{Container, World};

/// Judges a request on an exec.
pub async fn judge(route: Exec, ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    if !agent.policy.container.grants(ContainerOperation::Exec) {
        return Err(Refusal::operation("running a command in a container", "container.allow: \"exec\""));
    }
    match &route {
        Exec::Start(id) => {
            own(id, agent, world).await?;
            let body = schema::check(bodies::EXEC_START, ask.body.unwrap_or(Value::Object(Object::new())))?;
            let detached = body.get("Detach").and_then(Value::as_bool) == Some(true);
            let permit = Permit::forward(&ask.route, ask.version, format!("/exec/{id}/start"), ask.query)
                .with(Payload::Json(body.into()));
            Ok(if detached { permit } else { permit.showing(Answer::Hijack) })
        }
        Exec::Resize(id) => {
            own(id, agent, world).await?;
            Ok(Permit::forward(&ask.route, ask.version, format!("/exec/{id}/resize"), ask.query))
        }
        Exec::Inspect(id) => {
            own(id, agent, world).await?;
            Ok(Permit::forward(&ask.route, ask.version, format!("/exec/{id}/json"), ask.query))
        }
    }
}

async fn own(id: &Name, agent: &Agent, world: &impl World) -> Result<(), Refusal> {
    let absent = || Refusal::absent(format!("No such exec instance: {id}"));
    let container = world.exec(id.as_str()).await?.ok_or_else(absent)?;
    match containers::find(container.as_str(), agent, world).await? {
        Some(_) => Ok(()),
        None => Err(absent()),
    }
}

/// Judges `POST /containers/{id}/exec`.
pub fn create(container: &Container, ask: Ask, agent: &Agent) -> Verdict {
    let policy = &agent.policy.container;
    let mut body = schema::check(bodies::EXEC_CREATE, ask.body.unwrap_or(Value::Object(Object::new())))?;
    if let Some(value) = body.get("Privileged").filter(|v| v.as_bool() == Some(true))
        && !policy.privileged
    {
        return Err(Refusal::not_allowed("Privileged", value, "container.privileged"));
    }
    env::list("Env", body.get("Env"), agent)?;
    if let Some(user) = &policy.user {
        body.set("User", user.as_str());
    }
    let mut permit = Permit::forward(&ask.route, ask.version, format!("/containers/{}/exec", container.id), ask.query)
        .with(Payload::Json(body.into()));
    permit.rewritten = policy.user.is_some();
    permit.after.push(Step::Exec { container: container.id.clone() });
    Ok(permit)
}
