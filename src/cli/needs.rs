//! What the start needs of the engine, and what there is to say about it.

use super::Failure;
use crate::cgroups::Cgroups;
use crate::engine::Engine;
use crate::json::Value;
use crate::place::{self, Place};
use crate::policy::Policy;
use crate::refusal::Refusal;
use crate::route::percent_encode;
use hyper::{Method, StatusCode};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The API version that brought sub-path mounts.
const SUBPATHS: (u32, u32) = (1, 45);

/// Checks that the process of the engine can be seen: where it cannot, no process that connects can.
///
/// # Errors
/// `Failure::Settings`.
pub async fn host_processes(upstream: &Path) -> Result<(), Failure> {
    let stream = tokio::net::UnixStream::connect(upstream).await;
    match stream.and_then(|stream| stream.peer_cred()) {
        Ok(engine) if engine.pid().is_none_or(|pid| pid == 0) => {
            Err(Failure::setting(format!("sockguard: {}", crate::peer::Unknown::Hidden)))
        }
        // An engine that is not there yet says nothing about it. Who connects then hears of it.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Replaces what the policy leaves to be found out, and checks that the containers it names exist.
///
/// # Errors
/// `Failure::Engine` when the engine is needed for it and cannot be reached, `Failure::Settings` for what is not so.
pub async fn settle(policy: &mut Policy, engine: &Engine) -> Result<(), Failure> {
    if policy.container.cgroup_parent.as_deref() == Some("auto") {
        policy.container.cgroup_parent = Some(own_cgroup_parent(engine).await?);
    }
    if let Some(link) = policy.container.link.as_deref() {
        let container = link.split_once(':').map_or(link, |(container, _)| container);
        exists("docker-link", container, engine).await?;
    }
    if let Some(container) = policy.network.join_container.as_deref() {
        exists("container-join-network", container, engine).await?;
    }
    Ok(())
}

async fn exists(flag: &str, container: &str, engine: &Engine) -> Result<(), Failure> {
    let mut path = String::from("/containers/");
    percent_encode(container, "", &mut path);
    path.push_str("/json");
    match ask(engine, &path).await? {
        (StatusCode::OK, _) => Ok(()),
        (StatusCode::NOT_FOUND, _) => {
            Err(Failure::setting(format!("sockguard: -{flag}: there is no container `{container}`")))
        }
        (status, answer) => {
            let message = crate::lookup::message(&answer);
            Err(Failure::setting(format!("sockguard: -{flag}: `{container}`: the engine says {status}: {message}")))
        }
    }
}

async fn ask(engine: &Engine, path: &str) -> Result<(StatusCode, Value), Failure> {
    engine.call(Method::GET, path, None).await.map_err(unreachable)
}

/// The engine is needed and is not there.
pub fn unreachable(refusal: Refusal) -> Failure {
    let message = refusal.message("");
    Failure::Engine(message.strip_prefix("sockguard: ").unwrap_or(&message).to_owned())
}

/// The cgroup parent of sockguard's own container, or one that counts where its own process does.
async fn own_cgroup_parent(engine: &Engine) -> Result<String, Failure> {
    let fail = |why: String| Failure::setting(format!("sockguard: -cgroup-parent auto: {why}; name one"));
    match place::find(engine).await.map_err(unreachable)? {
        Place::Container(own) if own.cgroup_parent.is_empty() => {
            let id = own.id.get(..12).unwrap_or(&own.id);
            Err(fail(format!("sockguard's own container {id} has no cgroup parent")))
        }
        Place::Container(own) => Ok(own.cgroup_parent),
        Place::Host | Place::Elsewhere => {
            let (_, info) = ask(engine, "/info").await?;
            let said = |key: &str| info.at(&[key]).and_then(Value::as_str).unwrap_or_default().to_owned();
            let cgroups = Cgroups::own().map_err(|e| fail(e.to_string()))?;
            cgroups.parent(&said("CgroupDriver"), &said("CgroupVersion")).map_err(fail)
        }
    }
}

/// The directory of the engine's volumes, by its own word.
async fn volumes(engine: &Engine) -> Option<PathBuf> {
    let (_, info) = ask(engine, "/info").await.ok()?;
    Some(Path::new(info.at(&["DockerRootDir"])?.as_str()?).join("volumes"))
}

/// Says what an operator should know about the engine: whether it is there, and how binds are kept below the roots of
/// the policies, and below the engine's volumes, where most of what agents have mounted themselves is.
pub async fn report(engine: &Engine, policies: &[Rc<Policy>], guarded: &[PathBuf]) {
    let version = match crate::lookup::api_version(engine).await {
        Ok(version) => version,
        Err(refusal) => {
            let message = refusal.message("");
            let message = message.strip_prefix("sockguard: ").unwrap_or(&message);
            tracing::warn!("{message}; requests are answered with 502 until it is there");
            return;
        }
    };
    let place = place::find(engine).await.unwrap_or(Place::Elsewhere);
    let (major, minor) = version;
    let api = format!("engine API {major}.{minor}");
    let roots = policies.iter().flat_map(|policy| {
        let unverified = policy.bind.unverified_binds;
        policy.bind.roots.iter().map(move |root| (root.path.clone(), unverified))
    });
    let mut roots: BTreeSet<(PathBuf, bool)> = roots.collect();
    if let Some(policy) = policies.iter().find(|policy| policy.bind.own_mounts) {
        roots.extend(volumes(engine).await.map(|volumes| (volumes, policy.bind.unverified_binds)));
    }
    if roots.is_empty() {
        tracing::info!("{api}; no host path may be mounted (-allow-bind, or bind.roots of a policy)");
    }
    for (root, unverified) in roots {
        let path = root.display();
        if version >= SUBPATHS {
            tracing::info!("{api}; binds below {path} are mounted as sub-paths, out of which no symbolic link leads");
        } else if place.sees(&root, engine.socket()).await {
            tracing::info!("{api}; binds below {path} are checked for symbolic links at every start");
        } else if unverified {
            tracing::warn!("{api}; binds below {path} CANNOT be checked: symbolic links lead wherever they point");
        } else {
            tracing::warn!(
                "{api}; binds below {path} are refused: sockguard does not see the host's directory at that path \
                 (-unverified-binds, or bind.unverified-binds of the policy, allows them unchecked)"
            );
        }
    }
    let Place::Container(own) = place else { return };
    for guarded in guarded {
        if let Some(real) = own.on_host(guarded).filter(|real| real != guarded) {
            let (guarded, real) = (guarded.display(), real.display());
            tracing::warn!("{guarded} is {real} on the engine's host: say so with socket-on-host {real}");
        }
    }
}
