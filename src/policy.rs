//! What an agent may do. A policy names things people know, and denies what it does not mention.

use ipnet::IpNet;
use regex::Regex;
use serde::Deserialize;
use std::path::PathBuf;

/// A policy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// Its name, for refusals and the audit: the file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Containers and execs.
    pub container: Container,
    /// Host paths that containers may mount.
    pub bind: Bind,
    /// Images, builds and registries.
    pub image: Image,
    /// Networks.
    pub network: Network,
    /// Volumes.
    pub volume: Volume,
    /// The engine itself.
    pub system: System,
}

/// What may be done with own containers, and what they may be given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Container {
    /// The operations that are granted.
    pub allow: Vec<ContainerOperation>,
    /// `HostConfig.Privileged`, and `Privileged` of execs.
    pub privileged: bool,
    /// `HostConfig.NetworkMode: host`.
    pub host_network: bool,
    /// `HostConfig.PidMode: host`.
    pub host_pid: bool,
    /// `HostConfig.IpcMode: host`.
    pub host_ipc: bool,
    /// `HostConfig.UTSMode: host`.
    pub host_uts: bool,
    /// Capabilities that may be added to the engine's default set, such as `NET_ADMIN`. Adding one of the default set
    /// is always fine.
    pub add_capabilities: Vec<String>,
    /// Host devices that may be passed, by path; `*` matches within a name.
    pub devices: Vec<Glob>,
    /// `HostConfig.DeviceRequests` (GPUs).
    pub device_requests: bool,
    /// Values of `HostConfig.SecurityOpt` beyond `no-new-privileges`.
    pub security_options: Vec<Glob>,
    /// Names of `HostConfig.Sysctls`.
    pub sysctls: Vec<Glob>,
    /// Values of `HostConfig.Runtime` beyond the engine's default.
    pub runtimes: Vec<String>,
    /// Values of `HostConfig.LogConfig.Type`.
    pub log_drivers: Vec<String>,
    /// `HostConfig.PortBindings` and `PublishAllPorts`.
    pub publish: Publish,
    /// The user that every container and exec runs as, whatever the client says.
    pub user: Option<String>,
    /// The cgroup that every container and classic build is put under.
    pub cgroup_parent: Option<String>,
    /// A container that every new one gets a link to: `NAME` or `NAME:ALIAS`.
    pub link: Option<String>,
}

/// Operations on containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerOperation {
    /// List, inspect, top, stats, changes.
    Read,
    /// Read the output, also while it is written.
    Logs,
    /// Create; without it nothing can be run.
    Create,
    /// Start, stop, restart, kill, pause, unpause, wait, resize, rename, update.
    Run,
    /// Attach to a container's streams.
    Attach,
    /// Run further commands in a container.
    Exec,
    /// Copy files out and in (`docker cp`).
    Copy,
    /// Export a file system.
    Export,
    /// Remove and prune.
    Remove,
}

/// Which host ports may be published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Publish {
    /// May ports be published at all?
    pub enabled: bool,
    /// Only on the loopback address? (`HostIp` must then say so, and `PublishAllPorts` is refused.)
    pub loopback_only: bool,
    /// Lowest fixed `HostPort`; a port that the engine chooses is always fine.
    pub min_port: u16,
}

/// What host paths containers may mount.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Bind {
    /// The paths under which binds are allowed.
    pub roots: Vec<BindRoot>,
    /// What a bind of the engine's own socket becomes.
    pub docker_socket: DockerSocket,
    /// Allow binds whose path sockguard cannot see and that the engine cannot mount as a volume's sub-path. Symbolic
    /// links then lead wherever they point.
    pub unverified_binds: bool,
}

/// A host path under which binds are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BindRoot {
    /// An absolute path without `.`, `..` or a trailing slash.
    pub path: PathBuf,
    /// May it be mounted writable?
    pub access: Access,
}

/// How a path may be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read-only.
    Ro,
    /// Read-write.
    Rw,
}

/// What a bind of the engine's own socket becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DockerSocket {
    /// It is refused.
    #[default]
    Refused,
    /// The guarded socket is mounted in its place.
    Guarded,
}

/// Images, builds and registries.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Image {
    /// The operations that are granted.
    pub allow: Vec<ImageOperation>,
    /// Repositories that may be pulled, by full name (`docker.io/library/alpine`, `ghcr.io/acme/*`); `*` matches
    /// anything.
    pub pull: Vec<Glob>,
    /// Repositories that may be pushed.
    pub push: Vec<Glob>,
    /// Registries that `docker login` and `docker manifest` may talk to through the engine.
    pub registries: Vec<Glob>,
    /// Names (without tag) that an own image may take from a shared one.
    pub tags: Vec<Glob>,
    /// `networkmode: host` of builds.
    pub build_host_network: bool,
    /// `ADD https://…` and `ADD git@…` in Dockerfiles: the engine fetches them from the host's own network.
    pub build_add_remote: bool,
    /// `extrahosts` of builds. They are not in the classic builder's cache key; sockguard separates the cache anyway.
    pub build_extra_hosts: bool,
    /// The largest archive that may be loaded or imported, in bytes.
    pub max_archive_bytes: Option<u64>,
}

/// Operations on images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageOperation {
    /// List, inspect, history.
    Read,
    /// Pull.
    Pull,
    /// Push.
    Push,
    /// Build.
    Build,
    /// Commit a container.
    Commit,
    /// Load an archive (`docker load`).
    Load,
    /// Import a file system (`docker import`).
    Import,
    /// Save an archive (`docker save`).
    Save,
    /// Tag.
    Tag,
    /// Remove and prune own images.
    Remove,
    /// Search a registry.
    Search,
}

/// Networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Network {
    /// The operations that are granted.
    pub allow: Vec<NetworkOperation>,
    /// Sub-nets that a network may be given lie within these.
    pub subnets: Vec<IpNet>,
    /// Sub-nets that no network may touch: the host's own, such as the VPC's. Loopback, link-local, multicast and
    /// unspecified addresses are always among them.
    pub reserved_subnets: Vec<IpNet>,
    /// A container that is connected to every network that is created, and disconnected before it is removed.
    pub join_container: Option<String>,
    /// Its alias there.
    pub join_alias: Option<String>,
}

/// Operations on networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkOperation {
    /// List, inspect.
    Read,
    /// Create.
    Create,
    /// Connect and disconnect own containers.
    Connect,
    /// Remove and prune.
    Remove,
}

/// Volumes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Volume {
    /// The operations that are granted.
    pub allow: Vec<VolumeOperation>,
    /// Volumes that nobody owns and that containers may mount, by name.
    pub shared: Vec<Glob>,
}

/// Operations on volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeOperation {
    /// List, inspect.
    Read,
    /// Create, by itself or with a container.
    Create,
    /// Remove and prune.
    Remove,
}

/// The engine itself. `_ping` and `version` are always granted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct System {
    /// The operations that are granted.
    pub allow: Vec<SystemOperation>,
}

/// Reads of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemOperation {
    /// `info`.
    Info,
    /// `events`.
    Events,
    /// `system df`.
    DiskUsage,
    /// `login`.
    Auth,
    /// `distribution` (a registry's view of an image).
    Distribution,
}

/// A pattern in which `*` matches any run of characters and everything else itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Glob {
    text: String,
    regex: Regex,
}

impl TryFrom<String> for Glob {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let parts: Vec<String> = text.split('*').map(regex::escape).collect();
        let regex = Regex::new(&format!("^(?s:{})$", parts.join(".*"))).map_err(|e| e.to_string())?;
        Ok(Self { text, regex })
    }
}

impl Glob {
    /// Does it match the whole text?
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Does any of the patterns match?
pub fn any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

macro_rules! grants {
    ($section:ty, $operation:ty) => {
        impl $section {
            /// Is this operation granted?
            pub fn grants(&self, operation: $operation) -> bool {
                self.allow.contains(&operation)
            }
        }
    };
}
grants!(Container, ContainerOperation);
grants!(Image, ImageOperation);
grants!(Network, NetworkOperation);
grants!(Volume, VolumeOperation);
grants!(System, SystemOperation);

const EMBEDDED: [(&str, &str); 1] = [("ci-agent", include_str!("../policies/ci-agent.toml"))];

impl Policy {
    /// The policy of this name, or in this file.
    ///
    /// # Errors
    /// One line for each problem.
    pub fn load(name_or_file: &str) -> Result<Self, Vec<String>> {
        let embedded = EMBEDDED.iter().find(|(name, _)| *name == name_or_file).map(|(_, text)| (*text).to_owned());
        let text = match embedded {
            Some(text) => text,
            None => std::fs::read_to_string(name_or_file).map_err(|e| vec![format!("{name_or_file}: {e}")])?,
        };
        let policy: Self = toml::from_str(&text).map_err(|e| vec![format!("{name_or_file}: {e}")])?;
        let stem = std::path::Path::new(name_or_file).file_stem().unwrap_or_default();
        Ok(Self { name: stem.to_string_lossy().into_owned(), ..policy })
    }
}
