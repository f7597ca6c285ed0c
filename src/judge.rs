//! The guards: from what is asked to a verdict. Pure but for the facts that they ask the `World` for.

pub mod binds;
pub mod bodies;
pub mod bridge;
pub mod build;
pub mod containers;
pub mod create;
pub mod dockerfile;
pub mod env;
pub mod exec;
pub mod images;
pub mod labels;
pub mod limits;
pub mod networks;
pub mod own_mounts;
pub mod ports;
pub mod system;
#[cfg(test)]
pub mod testing;
pub mod volumes;

use crate::json::{self, Object, Value};
use crate::owner::Owner;
use crate::permit::Verdict;
use crate::policy::Policy;
use crate::query::{self, Query};
use crate::route::{ApiVersion, Route};
use crate::schema::Field;
use crate::world::{Id, World};
use hyper::Method;
use std::rc::Rc;

/// Who asks, and what they may do.
#[derive(Debug)]
pub struct Agent {
    /// The owner of everything that is made.
    pub owner: Owner,
    /// The policy.
    pub policy: Rc<Policy>,
    /// The container that asks, where agents are told apart by their containers.
    pub caller: Option<Caller>,
}

impl Agent {
    /// The cgroup that containers and builds are put under: the caller's own, so that it is charged for them; else what
    /// the policy says.
    pub fn cgroup_parent(&self) -> Option<&str> {
        let own = self.caller.as_ref().map(|caller| caller.cgroup_parent.as_str()).filter(|parent| !parent.is_empty());
        own.or(self.policy.container.cgroup_parent.as_deref())
    }
}

/// The container that a connection comes from: an agent's own, or one that an agent's container made.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The container.
    pub id: Id,
    /// The agent's own container, with which everything ends that is made: the same one, or the one it descends from.
    pub agent: Id,
    /// Its `HostConfig.CgroupParent`.
    pub cgroup_parent: String,
    /// Its own mounts.
    pub mounts: Vec<own_mounts::OwnMount>,
}

/// A request, read once.
#[derive(Debug)]
pub struct Ask {
    /// The endpoint.
    pub route: Route,
    /// The version prefix that the client gave.
    pub version: Option<ApiVersion>,
    /// The known parameters.
    pub query: Query,
    /// The JSON body, on the routes that have one; an absent body is `None`.
    pub body: Option<Value>,
    /// The client's `X-Registry-Auth`, on the routes where it matters to the judgement.
    pub registry_auth: Option<String>,
}

/// What kind of body a route takes from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// None: whatever comes is read, must be empty or `null`/`{}`, and is dropped.
    Empty,
    /// None that the engine looks at: whatever comes is read and dropped. dockerode sends the parameters there too.
    Unread,
    /// A JSON document.
    Json,
    /// A stream.
    Stream,
}

/// What kind of body a route takes.
pub fn body_kind(route: &Route) -> BodyKind {
    use crate::route::{Containers, Exec, Images, Networks, Volumes};
    match route {
        Route::Containers(Containers::ArchivePut(_)) | Route::Images(Images::Build | Images::Load) => BodyKind::Stream,
        // `fromSrc=-` sends the file system; a pull sends nothing. The guard tells them apart by the query.
        Route::Images(Images::Create) => BodyKind::Stream,
        Route::Containers(Containers::Create | Containers::Update(_) | Containers::ExecCreate(_))
        | Route::Exec(Exec::Start(_))
        | Route::Images(Images::Commit)
        | Route::Networks(Networks::Create | Networks::Connect(_) | Networks::Disconnect(_))
        | Route::Volumes(Volumes::Create | Volumes::Update(_))
        | Route::System(crate::route::System::Auth) => BodyKind::Json,
        // Before API 1.24 it took a `HostConfig`.
        Route::Containers(Containers::Start(_)) => BodyKind::Empty,
        Route::System(_)
        | Route::Containers(_)
        | Route::Exec(_)
        | Route::Images(_)
        | Route::Networks(_)
        | Route::Volumes(_) => BodyKind::Unread,
        // Never read: these are answered without it.
        Route::Lacking(_) => BodyKind::Stream,
    }
}

/// The fields of an endpoint's JSON body, with their treatment; nothing where the endpoint takes no JSON.
pub fn body_fields(method: &Method, pattern: &str) -> Option<&'static [Field]> {
    Some(match (method.as_str(), pattern) {
        ("POST", "/auth") => bodies::AUTH,
        ("POST", "/commit") => images::COMMIT,
        ("POST", "/containers/create") => bodies::CONTAINER_CREATE,
        ("POST", "/containers/{id}/exec") => bodies::EXEC_CREATE,
        ("POST", "/containers/{id}/update") => bodies::CONTAINER_UPDATE,
        ("POST", "/exec/{id}/start") => bodies::EXEC_START,
        ("POST", "/networks/create") => bodies::NETWORK_CREATE,
        ("POST", "/networks/{id}/connect") => bodies::NETWORK_CONNECT,
        ("POST", "/networks/{id}/disconnect") => bodies::NETWORK_DISCONNECT,
        ("POST", "/volumes/create") => bodies::VOLUME_CREATE,
        ("PUT", "/volumes/{name}") => bodies::VOLUME_UPDATE,
        _ => return None,
    })
}

/// Takes parameters of the query out of the body, where dockerode sends them too and no engine reads them.
fn drop_parameters(route: &Route, body: &mut Object) {
    let (method, pattern) = (route.method(), route.pattern());
    let (parameters, fields) = (query::parameters(&method, pattern), body_fields(&method, pattern).unwrap_or_default());
    body.retain(|key, _| {
        let parameter = parameters.iter().any(|(name, _)| *name == key);
        !parameter || fields.iter().any(|field| json::folds_to(key, field.name))
    });
}

/// Judges a request.
///
/// # Errors
/// The refusal, with its reason.
pub async fn judge(mut ask: Ask, agent: &Agent, world: &impl World) -> Verdict {
    if let Some(Value::Object(body)) = &mut ask.body {
        drop_parameters(&ask.route, body);
    }
    match ask.route.clone() {
        Route::System(route) => system::judge(route, ask, agent),
        Route::Lacking(route) => system::lacking(route),
        Route::Containers(route) => containers::judge(route, ask, agent, world).await,
        Route::Exec(route) => exec::judge(route, ask, agent, world).await,
        Route::Images(route) => images::judge(route, ask, agent, world).await,
        Route::Networks(route) => networks::judge(route, ask, agent, world).await,
        Route::Volumes(route) => volumes::judge(route, ask, agent, world).await,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::testing::Fake;
    use super::*;
    use crate::json::Value;
    use crate::permit::{Action, Payload};
    use crate::query;
    use crate::route;

    /// The cgroup parent with which a creation and a build reach the engine, where the client asks for another.
    fn parents(caller: Option<&str>, policy: Option<&str>) -> Result<(String, String), String> {
        let line = policy.map(|parent| format!("cgroup-parent = \"{parent}\"\n")).unwrap_or_default();
        let policy = format!("[container]\nallow = [\"create\"]\n{line}[image]\nallow = [\"build\"]\n");
        let mut agent = testing::agent(&policy);
        agent.caller = caller.map(|parent| Caller {
            id: Id::new("caller"),
            agent: Id::new("caller"),
            cgroup_parent: parent.to_owned(),
            mounts: Vec::new(),
        });
        let world = Fake::default().image("alpine:latest", '1', None);
        let send = |target: &str, body: Option<Value>| {
            let (path, parameters) = target.split_once('?').unwrap();
            let target = route::parse(&Method::POST, path).unwrap();
            let query = query::parse(&target.route, Some(parameters)).unwrap();
            let ask = Ask { route: target.route, version: target.version, query, body, registry_auth: None };
            let permit = testing::wait(judge(ask, &agent, &world)).map_err(|refusal| refusal.message("test"))?;
            match permit.action {
                Action::Send(request) => Ok(request),
                other => Err(format!("{other:?}")),
            }
        };
        let body = json::parse(br#"{"Image":"alpine","HostConfig":{"CgroupParent":"/elsewhere"}}"#).unwrap();
        let created = match send("/containers/create?name=x", Some(body))?.payload {
            Payload::Json(body) => body.at(&["HostConfig", "CgroupParent"]).and_then(Value::as_str).map(str::to_owned),
            other => return Err(format!("{other:?}")),
        };
        let built = send("/build?cgroupparent=/elsewhere", None)?.query.text("cgroupparent").map(str::to_owned);
        Ok((created.unwrap_or_default(), built.unwrap_or_default()))
    }

    #[test]
    fn what_an_agent_starts_is_charged_to_its_own_cgroup_whatever_it_asks_for() {
        let both = |parent: &str| Ok((parent.to_owned(), parent.to_owned()));
        assert_eq!(parents(Some("/ecs/task"), None), both("/ecs/task"));
        assert_eq!(parents(Some("/ecs/task"), Some("/ci")), both("/ecs/task"));
        assert_eq!(parents(Some(""), Some("/ci")), both("/ci"));
        assert_eq!(parents(None, Some("/ci")), both("/ci"));
        for caller in [None, Some("")] {
            let refused = parents(caller, None).unwrap_err();
            assert!(refused.contains("HostConfig.CgroupParent `/elsewhere` is not allowed"), "{refused}");
        }
    }
}
