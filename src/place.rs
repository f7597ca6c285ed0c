//! Where sockguard runs, as seen from the engine: whether a path here is the same directory there. Without proof it is
//! not: checking the wrong directory for symbolic links is worse than not checking.

use crate::answer::{self, Fields};
use crate::cgroups::{self, Cgroups};
use crate::engine::Engine;
use crate::json::Value;
use crate::refusal::Refusal;
use crate::route::percent_encode;
use hyper::StatusCode;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where sockguard runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where no sign of a container is: on the engine's host.
    Host,
    /// In a container of the engine.
    Container(OwnContainer),
    /// In a container that the engine does not know.
    Elsewhere,
}

/// The container that sockguard runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnContainer {
    /// Its full ID.
    pub id: String,
    /// `HostConfig.CgroupParent`; empty where it has none.
    pub cgroup_parent: String,
    /// Its mounts: where each is, and the host path it shows.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

/// Finds out where sockguard runs. The engine is asked only where something looks like a container.
///
/// # Errors
/// When the engine has to be asked and cannot be.
pub async fn find(engine: &Engine) -> Result<Place, Refusal> {
    const FIELDS: Fields = &[&["Id"], &["State", "Running"], &["Mounts"], &["HostConfig", "CgroupParent"]];
    let Some(candidates) = tokio::task::spawn_blocking(signs).await.unwrap_or_default() else { return Ok(Place::Host) };
    for candidate in candidates {
        let mut path = String::from("/containers/");
        percent_encode(&candidate, "", &mut path);
        path.push_str("/json");
        if let (StatusCode::OK, container) = answer::one(engine, &path, FIELDS).await?
            && let Some(own) = own_container(&container, &candidate)
        {
            return Ok(Place::Container(own));
        }
    }
    Ok(Place::Elsewhere)
}

/// What an inspect says about the container, if this is the one: a short host name might be somebody else's name.
fn own_container(inspect: &Value, candidate: &str) -> Option<OwnContainer> {
    let text = |path: &[&str]| inspect.at(path).and_then(Value::as_str);
    let id = text(&["Id"])?.to_owned();
    let running = inspect.at(&["State", "Running"]).and_then(Value::as_bool) == Some(true);
    if !running || !id.starts_with(candidate) {
        return None;
    }
    let mount = |mount: &Value| {
        let path = |key: &str| mount.at(&[key]).and_then(Value::as_str).map(PathBuf::from);
        Some((path("Destination")?, path("Source")?))
    };
    let mounts = inspect.at(&["Mounts"]).and_then(Value::as_array).into_iter().flatten().filter_map(mount).collect();
    let cgroup_parent = text(&["HostConfig", "CgroupParent"]).unwrap_or_default().to_owned();
    Some(OwnContainer { id, cgroup_parent, mounts })
}

impl OwnContainer {
    /// The host path of a path in the container, if a mount shows it.
    pub fn on_host(&self, path: &Path) -> Option<PathBuf> {
        let holds = self.mounts.iter().filter(|(destination, _)| path.starts_with(destination));
        let (destination, source) = holds.max_by_key(|(destination, _)| destination.as_os_str().len())?;
        let rest = path.strip_prefix(destination).ok()?;
        Some(if rest.as_os_str().is_empty() { source.clone() } else { source.join(rest) })
    }
}

impl Place {
    /// Is the directory at this path the one that the engine has there?
    pub async fn sees(&self, root: &Path, engine: &Path) -> bool {
        match self {
            Self::Host => is_directory(root).await,
            Self::Container(own) => own.on_host(root).as_deref() == Some(root) && is_directory(root).await,
            Self::Elsewhere => engine_sees(root, engine).await.unwrap_or(false),
        }
    }
}

async fn is_directory(path: &Path) -> bool {
    tokio::fs::metadata(path).await.is_ok_and(|found| found.is_dir())
}

/// Has the engine's own process the same directory at this path? That can be seen only where its process can.
async fn engine_sees(root: &Path, engine: &Path) -> std::io::Result<bool> {
    let stream = tokio::net::UnixStream::connect(engine).await?;
    // 0 stands for a process that cannot be seen from here.
    let Some(pid) = stream.peer_cred()?.pid().filter(|pid| *pid > 0) else { return Ok(false) };
    let theirs = Path::new("/proc").join(pid.to_string()).join("root");
    let there = tokio::fs::metadata(theirs.join(root.strip_prefix("/").unwrap_or(root))).await?;
    let here = tokio::fs::metadata(root).await?;
    // The process must have been there until the end.
    drop(stream);
    Ok(here.is_dir() && (there.dev(), there.ino()) == (here.dev(), here.ino()))
}

/// The IDs that sockguard's own container may have; nothing where there is no sign of a container.
fn signs() -> Option<Vec<String>> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mounts = read("/proc/self/mountinfo");
    let mut candidates = Cgroups::own().map(|cgroups| cgroups.container_ids()).unwrap_or_default();
    candidates.extend(mounted(&mounts).into_iter().map(str::to_owned));
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
    if candidates.is_empty() && !marked && !layered(&mounts) {
        return None;
    }
    // The engine's default host name is the beginning of the ID.
    let name = read("/proc/sys/kernel/hostname").trim().to_owned();
    if name.len() >= 12 && hexadecimal(&name) {
        candidates.push(name);
    }
    Some(candidates)
}

/// The container IDs in the engine's own mounts (`/etc/hostname` and the like), which show them also where the cgroup
/// namespace hides them.
fn mounted(mounts: &str) -> Vec<&str> {
    // The fourth field of a mount is its place within its file system.
    let roots = mounts.lines().filter_map(|line| line.split(' ').nth(3)).filter(|root| root.contains("/containers/"));
    let mut ids: Vec<&str> = roots.flat_map(|root| root.split('/')).filter_map(cgroups::container_id).collect();
    ids.dedup();
    ids
}

fn hexadecimal(text: &str) -> bool {
    text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// Is the root a layered file system, as containers have it?
fn layered(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let point = line.split(' ').nth(4);
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next());
        point == Some("/") && matches!(kind, Some("overlay" | "aufs" | "fuse.fuse-overlayfs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn the_engines_own_mounts_show_the_container() {
        let mount = |root: &str| format!("99 90 8:1 {root} /srv rw - ext4 /dev/sda1 rw");
        let files = ["resolv.conf", "hostname", "hosts"];
        let engines = files.map(|file| mount(&format!("/var/lib/docker/containers/{A}/{file}")));
        assert_eq!(mounted(&engines.join("\n")), [A]);
        assert!(mounted(&mount(&format!("/srv/{A}"))).is_empty());
    }

    #[test]
    fn a_path_is_the_hosts_only_through_a_mount_that_shows_it() {
        let mounts = [("/run/sockguard", "/run/sockguard"), ("/srv", "/data"), ("/srv/builds", "/srv/builds")];
        let mounts = mounts.iter().map(|(to, from)| (PathBuf::from(to), PathBuf::from(from))).collect();
        let own = OwnContainer { id: A.to_owned(), cgroup_parent: String::new(), mounts };
        for (path, expected) in [
            ("/srv/builds/x", Some("/srv/builds/x")),
            ("/srv/x", Some("/data/x")),
            ("/srv", Some("/data")),
            ("/tmp", None),
        ] {
            assert_eq!(own.on_host(Path::new(path)).as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
