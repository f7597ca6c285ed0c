//! What the container that asks has mounted itself: where its paths are on the engine's host.

use super::binds;
use super::volumes::ROOT_PREFIX;
use crate::json::{Object, Value};
use crate::owner::{BINDS_LABEL, OWNER_LABEL, Owner, SEAL_LABEL};
use crate::policy::Access;
use std::path::{Component, Path, PathBuf};

/// Where the engine mounts what is not among a container's mounts. A mount of the container's own can take its place.
const ENGINES: [&str; 6] = ["/dev", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/proc", "/sys"];

/// A mount of the container that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMount {
    /// Where it is in the container.
    pub destination: PathBuf,
    /// What is mounted there.
    pub source: Source,
    /// May the container write to it?
    pub access: Access,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path of the engine's host.
    Host {
        /// The path that is in the operator's hands: nothing that an agent can write leads there.
        root: PathBuf,
        /// What lies below it, where an agent may put a symbolic link in its place at any time; often nothing.
        below: PathBuf,
        /// The volume whose directory the root is, if it is one's.
        volume: Option<String>,
    },
    /// Nothing that another container could mount: memory, a volume of another driver, the engine's own files.
    Nothing,
}

/// The mounts of a container, from its inspect. What was checked when it was created through sockguard is only believed
/// if it bears this owner's seal: anybody's image may have the label.
pub fn own_mounts(inspect: &Value, owner: &Owner) -> Vec<OwnMount> {
    let labels = inspect.at(&["Config", "Labels"]);
    let label = |key| labels.and_then(|labels| labels.at(&[key])).and_then(Value::as_str);
    let made = label(SEAL_LABEL) == Some(owner.seal()) && label(OWNER_LABEL) == Some(owner.as_str());
    let record = label(BINDS_LABEL).filter(|_| made);
    let asked = Asked { inspect, made, checked: record.map(binds::checked).unwrap_or_default() };
    let nothing = |destination: &str| {
        let destination = destination.starts_with('/').then(|| PathBuf::from(binds::clean_target(destination)))?;
        Some(OwnMount { destination, source: Source::Nothing, access: Access::Ro })
    };
    // In the order in which one takes another's place.
    let mut out: Vec<OwnMount> = ENGINES.into_iter().filter_map(nothing).collect();
    out.extend(asked.members(&["HostConfig", "Tmpfs"]).filter_map(nothing));
    for mount in items(inspect, &["Mounts"]) {
        let text = |key| mount.at(&[key]).and_then(Value::as_str).unwrap_or_default();
        let Some(own) = nothing(text("Destination")) else { continue };
        let writable = mount.at(&["RW"]).and_then(Value::as_bool) == Some(true);
        let access = if writable { Access::Rw } else { Access::Ro };
        let source = match (text("Type"), text("Driver")) {
            ("bind", _) => asked.bind(text("Source")),
            ("volume", "local") => asked.volume(text("Name"), text("Source"), &own.destination),
            _ => None,
        };
        out.push(OwnMount { source: source.unwrap_or(Source::Nothing), access, ..own });
    }
    out
}

/// The mount that shows a path of the container: the one with the longest destination that holds it.
pub fn holds<'a>(mounts: &'a [OwnMount], path: &Path) -> Option<&'a OwnMount> {
    let holds = mounts.iter().filter(|mount| path.starts_with(&mount.destination));
    holds.max_by_key(|mount| mount.destination.as_os_str().len())
}

/// What the container was created with.
struct Asked<'a> {
    inspect: &'a Value,
    /// Was it created through sockguard?
    made: bool,
    checked: Vec<(PathBuf, PathBuf)>,
}

impl Asked<'_> {
    fn bind(&self, source: &str) -> Option<Source> {
        let source = normal(source)?;
        let pair = self.checked.iter().find(|(root, below)| joined(root, below) == source);
        let (root, below) = pair.cloned().unwrap_or((source, PathBuf::new()));
        Some(Source::Host { root, below, volume: None })
    }

    /// A volume of the `local` driver. Its entry among the mounts does not tell of a sub-path.
    fn volume(&self, name: &str, source: &str, destination: &Path) -> Option<Source> {
        let of = |mount: &&Value, key| mount.at(&[key]).and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_here = |target: &str| Path::new(&binds::clean_target(target)) == destination;
        let asked = items(self.inspect, &["HostConfig", "Mounts"]).iter().find(|mount| is_here(&of(mount, "Target")));
        let below = match asked.map(|mount| mount.at(&["VolumeOptions", "Subpath"])) {
            Some(below) => below.and_then(Value::as_str).unwrap_or_default(),
            None if self.whole(is_here) => "",
            None => return None,
        };
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        // The engine follows links within a volume. Through a child's sub-path they lead to what is its owner's anyway;
        // through an agent's, perhaps to what is another's.
        if !Path::new(below).components().all(plain) || (!self.made && !below.is_empty()) {
            return None;
        }
        let (root, volume) = match name.strip_prefix(ROOT_PREFIX) {
            Some(_) if self.made => (binds::root_of(name)?, None),
            _ => (normal(source)?, Some(name.to_owned())),
        };
        Some(Source::Host { root, below: Path::new(below).components().collect(), volume })
    }

    /// Is the volume mounted whole that is not among `HostConfig.Mounts`? One that is taken over from another container
    /// may be a sub-path.
    fn whole(&self, is_here: impl Fn(&str) -> bool) -> bool {
        let binds = items(self.inspect, &["HostConfig", "Binds"]);
        let target = |bind: &Value| bind.as_str().and_then(|bind| bind.split(':').nth(1)).is_some_and(&is_here);
        items(self.inspect, &["HostConfig", "VolumesFrom"]).is_empty() || binds.iter().any(target)
    }

    fn members(&self, path: &[&str]) -> impl Iterator<Item = &str> {
        self.inspect.at(path).and_then(Value::as_object).into_iter().flat_map(Object::iter).map(|(key, _)| key)
    }
}

fn items<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    value.at(path).and_then(Value::as_array).unwrap_or_default()
}

/// A path that is absolute and needs no interpretation.
fn normal(path: &str) -> Option<PathBuf> {
    let path: PathBuf = Path::new(path).components().collect();
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && plain).then_some(path)
}

/// The path below a root, without a slash at its end where there is nothing below.
pub fn joined(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::json;

    /// As an engine of version 20.10 tells of them.
    const AGENT: &str = r#"{"Config": {"Labels": {"com.amazonaws.ecs.cluster": "ci"}}, "HostConfig": {
        "Binds": ["/srv/agents/1/f:/etc/conf:ro", "builds:/buildkite/builds", "/srv/agents/1:/workspace"],
        "Mounts": [{"Type": "volume", "Source": "builds", "Target": "/ro/", "ReadOnly": true}, {"Type": "tmpfs", "Target": "/mem"}],
        "Tmpfs": {"/workspace/tmp": ""}, "VolumesFrom": null}, "Mounts": [
        {"Type": "bind", "Source": "/srv/agents/1", "Destination": "/workspace", "Mode": "", "RW": true, "Propagation": "rprivate"},
        {"Type": "volume", "Name": "builds", "Source": "/var/lib/docker/volumes/builds/_data", "Destination": "/ro", "Driver": "local", "Mode": "z", "RW": false, "Propagation": ""},
        {"Type": "tmpfs", "Source": "", "Destination": "/mem", "Mode": "", "RW": true, "Propagation": ""},
        {"Type": "volume", "Name": "93e9ec14", "Source": "/var/lib/docker/volumes/93e9ec14/_data", "Destination": "/anon", "Driver": "local", "Mode": "", "RW": true, "Propagation": ""},
        {"Type": "volume", "Name": "far", "Source": "/mnt/nfs/far", "Destination": "/far", "Driver": "nfs", "Mode": "z", "RW": true, "Propagation": ""},
        {"Type": "bind", "Source": "/srv/agents/1/f", "Destination": "/etc/conf", "Mode": "ro", "RW": false, "Propagation": "rprivate"},
        {"Type": "volume", "Name": "builds", "Source": "/var/lib/docker/volumes/builds/_data", "Destination": "/buildkite/builds", "Driver": "local", "Mode": "z", "RW": true, "Propagation": ""}]}"#;

    fn owner() -> Owner {
        Owner::new("me").unwrap()
    }

    /// Path in the container, and what it is: `ROOT|BELOW ACCESS`.
    fn shown(mounts: &[OwnMount], path: &str) -> String {
        match holds(mounts, Path::new(path)) {
            None => "no mount".to_owned(),
            Some(OwnMount { source: Source::Nothing, .. }) => "nothing".to_owned(),
            Some(OwnMount { source: Source::Host { root, below, volume: _ }, access, .. }) => {
                format!("{}|{} {access:?}", root.display(), below.display())
            }
        }
    }

    #[test]
    fn the_longest_destination_that_holds_a_path_shows_it() {
        let mounts = own_mounts(&json::parse(AGENT.as_bytes()).unwrap(), &owner());
        for (path, expected) in [
            ("/workspace", "/srv/agents/1| Rw"),
            ("/workspace/a/b", "/srv/agents/1| Rw"),
            ("/workspace/tmp/x", "nothing"),
            ("/workspaces", "no mount"),
            ("/buildkite/builds/x", "/var/lib/docker/volumes/builds/_data| Rw"),
            ("/buildkite", "no mount"),
            ("/ro/x", "/var/lib/docker/volumes/builds/_data| Ro"),
            ("/mem/x", "nothing"),
            ("/far/x", "nothing"),
            ("/anon", "/var/lib/docker/volumes/93e9ec14/_data| Rw"),
            ("/etc/conf", "/srv/agents/1/f| Ro"),
            ("/etc/hosts", "nothing"),
            ("/proc/self/root", "nothing"),
            ("/", "no mount"),
        ] {
            assert_eq!(shown(&mounts, path), expected, "{path}");
        }
    }

    /// A child of which an engine with sub-paths tells, and the same by older engines, both with this seal.
    fn child(seal: &str) -> Vec<OwnMount> {
        let inspect = r#"{"Config": {"Labels": {"com.buildkite.sockguard.owner": "me", "com.buildkite.sockguard.seal": "SEAL",
            "com.buildkite.sockguard.binds": "{\"Checked\":[[\"/srv/agents/1\",\"a/b\"],[\"/\",\"srv/tools\"]]}"}},
            "HostConfig": {"Binds": ["/srv/agents/1/a/b:/old"], "Mounts": [
            {"Type": "volume", "Source": "sockguard-root-srv.agents_2e1", "Target": "/w", "VolumeOptions": {"NoCopy": true, "Subpath": "x/y"}},
            {"Type": "volume", "Source": "mine", "Target": "/mine", "VolumeOptions": {"Subpath": "sub"}},
            {"Type": "volume", "Source": "mine", "Target": "/up", "VolumeOptions": {"Subpath": "../x"}}]}, "Mounts": [
            {"Type": "bind", "Source": "/srv/agents/1/a/b", "Destination": "/old", "RW": true},
            {"Type": "bind", "Source": "/srv/agents/1", "Destination": "/whole", "RW": false},
            {"Type": "volume", "Name": "sockguard-root-srv.agents_2e1", "Source": "/v/_data", "Destination": "/w", "Driver": "local", "RW": true},
            {"Type": "volume", "Name": "mine", "Source": "/v/mine/_data", "Destination": "/mine", "Driver": "local", "RW": true},
            {"Type": "volume", "Name": "mine", "Source": "/v/mine/_data", "Destination": "/up", "Driver": "local", "RW": true}]}"#;
        own_mounts(&json::parse(inspect.replace("SEAL", seal).as_bytes()).unwrap(), &owner())
    }

    #[test]
    fn a_childs_mounts_keep_the_root_that_its_parent_had() {
        let mounts = child(owner().seal());
        for (path, expected) in [
            ("/old/c", "/srv/agents/1|a/b Rw"),
            ("/whole", "/srv/agents/1| Ro"),
            ("/w/z", "/srv/agents.1|x/y Rw"),
            ("/mine", "/v/mine/_data|sub Rw"),
            ("/up", "nothing"),
        ] {
            assert_eq!(shown(&mounts, path), expected, "{path}");
        }
    }

    #[test]
    fn what_only_an_images_labels_say_is_not_believed() {
        let mounts = child("");
        for (path, expected) in
            [("/old/c", "/srv/agents/1/a/b| Rw"), ("/w/z", "nothing"), ("/mine", "nothing"), ("/up", "nothing")]
        {
            assert_eq!(shown(&mounts, path), expected, "{path}");
        }
    }

    #[test]
    fn a_volume_that_is_taken_over_may_be_a_sub_path() {
        let inspect = r#"{"HostConfig": {"VolumesFrom": ["x"], "Binds": ["b:/b"]}, "Mounts": [
            {"Type": "volume", "Name": "a", "Source": "/v/a/_data", "Destination": "/a", "Driver": "local", "RW": true},
            {"Type": "volume", "Name": "b", "Source": "/v/b/_data", "Destination": "/b", "Driver": "local", "RW": true}]}"#;
        let mounts = own_mounts(&json::parse(inspect.as_bytes()).unwrap(), &owner());
        assert_eq!(["/a", "/b"].map(|path| shown(&mounts, path)), ["nothing", "/v/b/_data| Rw"]);
    }

    #[test]
    fn an_inspect_that_says_nothing_has_no_mounts() {
        for inspect in ["{}", r#"{"Mounts": [{"Type": "bind", "Source": "x", "Destination": "y"}, 1]}"#] {
            let mounts = own_mounts(&json::parse(inspect.as_bytes()).unwrap(), &owner());
            assert!(mounts.iter().all(|mount| mount.source == Source::Nothing), "{inspect}");
        }
    }
}
