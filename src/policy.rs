//! What an agent may do. A policy names things people know, and denies what it does not mention.

mod read;

pub use read::{EMBEDDED, cgroup_parent_problem, container_problem, link_problem, root_problem, user_problem};

use ipnet::IpNet;
use regex::Regex;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// An enum whose variants each have a word in policy files.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Every word, with what it stands for.
            pub const WORDS: &[(&str, Self)] = &[$(($word, Self::$variant)),+];
        }
    };
}

/// A policy.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Its name, for refusals and the audit: the file's name without `.toml`.
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
    /// What all objects of an owner come to.
    pub quota: Quota,
}

/// What may be done with own containers, and what they may be given.
#[derive(Debug, Clone, Default)]
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
    /// Names of variables that containers, execs and images may not be given.
    pub deny_env: Vec<Glob>,
    /// Names of variables whose values inspections of containers do not show.
    pub redact_env: Vec<Glob>,
    /// A container that every new one gets a link to: `NAME` or `NAME:ALIAS`.
    pub link: Option<String>,
}

words! {
    /// Operations on containers.
    pub enum ContainerOperation {
        /// List, inspect, top, stats, changes.
        Read = "read",
        /// Read the output, also while it is written.
        Logs = "logs",
        /// Create; without it nothing can be run.
        Create = "create",
        /// Start, stop, restart, kill, pause, unpause, wait, resize, rename, update.
        Run = "run",
        /// Attach to a container's streams.
        Attach = "attach",
        /// Run further commands in a container.
        Exec = "exec",
        /// Copy files out and in (`docker cp`).
        Copy = "copy",
        /// Export a file system.
        Export = "export",
        /// Remove and prune.
        Remove = "remove",
    }
}

/// Which host ports may be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Publish {
    /// May ports be published at all?
    pub enabled: bool,
    /// A fixed `HostPort` lies within one of these; `None`: it may be any. One that the engine chooses is always fine.
    pub ports: Option<Vec<RangeInclusive<u16>>>,
    /// The address of the host that ports are published on; `None`: the client names one, or gets every address.
    pub address: Option<IpAddr>,
}

/// What host paths containers may mount.
#[derive(Debug, Clone, Default)]
pub struct Bind {
    /// The paths under which binds are allowed.
    pub roots: Vec<BindRoot>,
    /// May a container mount what the agent's container has mounted itself, by the agent's own paths? Only where agents
    /// are told apart by their containers; the roots mean nothing there.
    pub own_mounts: bool,
    /// Paths that stand for others.
    pub aliases: Vec<Alias>,
    /// What a bind of the engine's own socket becomes.
    pub docker_socket: DockerSocket,
    /// Allow binds whose path sockguard cannot see and that the engine cannot mount as a volume's sub-path. Symbolic
    /// links then lead wherever they point.
    pub unverified_binds: bool,
}

/// A host path under which binds are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindRoot {
    /// An absolute path without `.`, `..` or a trailing slash.
    pub path: PathBuf,
    /// May it be mounted writable?
    pub access: Access,
}

/// A path that stands for another, and what is below it for what is below that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The path that a client names: absolute, without `.`, `..` or a trailing slash.
    pub path: PathBuf,
    /// What it stands for.
    pub to: AliasTarget,
    /// How it is mounted; `ro` also where the client does not say so.
    pub access: Access,
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AliasTarget {
    /// A path that is read as if the client had named it: in the agent's own mounts, also where those are not granted,
    /// or below the bind roots.
    Agent(PathBuf),
    /// A path of the engine's host.
    Host(PathBuf),
}

words! {
    /// How a path may be mounted.
    pub enum Access {
        /// Read-only.
        Ro = "ro",
        /// Read-write.
        Rw = "rw",
    }
}

words! {
    /// What a bind of the engine's own socket becomes.
    #[derive(Default)]
    pub enum DockerSocket {
        /// It is refused.
        #[default]
        Refused = "refused",
        /// The guarded socket is mounted in its place.
        Guarded = "guarded",
    }
}

/// Images, builds and registries.
#[derive(Debug, Clone, Default)]
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

words! {
    /// Operations on images.
    pub enum ImageOperation {
        /// List, inspect, history.
        Read = "read",
        /// Pull.
        Pull = "pull",
        /// Push.
        Push = "push",
        /// Build.
        Build = "build",
        /// Commit a container.
        Commit = "commit",
        /// Load an archive (`docker load`).
        Load = "load",
        /// Import a file system (`docker import`).
        Import = "import",
        /// Save an archive (`docker save`).
        Save = "save",
        /// Tag.
        Tag = "tag",
        /// Remove and prune own images.
        Remove = "remove",
        /// Search a registry.
        Search = "search",
    }
}

/// Networks.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The operations that are granted.
    pub allow: Vec<NetworkOperation>,
    /// Sub-nets that a network may be given lie within these.
    pub subnets: Vec<IpNet>,
    /// Sub-nets that no network may touch: the host's own, such as the VPC's. Loopback, link-local, multicast and
    /// unspecified addresses are always among them.
    pub reserved_subnets: Vec<IpNet>,
    /// The owner's containers and builds get a bridge of their own in the place of the engine's, which all share.
    pub isolated: bool,
    /// A container that is connected to every network that is created, and disconnected before it is removed.
    pub join_container: Option<String>,
    /// Its alias there.
    pub join_alias: Option<String>,
}

words! {
    /// Operations on networks.
    pub enum NetworkOperation {
        /// List, inspect.
        Read = "read",
        /// Create.
        Create = "create",
        /// Connect and disconnect own containers.
        Connect = "connect",
        /// Remove and prune.
        Remove = "remove",
    }
}

/// Volumes.
#[derive(Debug, Clone, Default)]
pub struct Volume {
    /// The operations that are granted.
    pub allow: Vec<VolumeOperation>,
    /// Volumes that nobody owns and that containers may mount, by name.
    pub shared: Vec<Glob>,
}

words! {
    /// Operations on volumes.
    pub enum VolumeOperation {
        /// List, inspect.
        Read = "read",
        /// Create, by itself or with a container.
        Create = "create",
        /// Remove and prune.
        Remove = "remove",
    }
}

/// The engine itself. `_ping` and `version` are always granted.
#[derive(Debug, Clone, Default)]
pub struct System {
    /// The operations that are granted.
    pub allow: Vec<SystemOperation>,
}

words! {
    /// Reads of the engine.
    pub enum SystemOperation {
        /// `info`.
        Info = "info",
        /// `events`.
        Events = "events",
        /// `system df`.
        DiskUsage = "disk-usage",
        /// `login`.
        Auth = "auth",
        /// `distribution` (a registry's view of an image).
        Distribution = "distribution",
    }
}

/// What all objects of one owner come to at most. What is not mentioned is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// Containers.
    pub containers: Option<u64>,
    /// Containers that run, are paused or are being restarted.
    pub running: Option<u64>,
    /// Networks.
    pub networks: Option<u64>,
    /// Volumes.
    pub volumes: Option<u64>,
    /// Bytes of memory, over all containers.
    pub memory: Option<Total>,
    /// Billionths of a CPU, over all containers.
    pub cpus: Option<Total>,
    /// Processes, over all containers.
    pub pids: Option<Total>,
}

/// What is shared out to an owner's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// All of it.
    pub all: u64,
    /// What a container gets that states no limit of its own.
    pub default: u64,
}

impl Quota {
    /// Does it count the limits of containers?
    pub fn shares_out(&self) -> bool {
        self.memory.is_some() || self.cpus.is_some() || self.pids.is_some()
    }

    /// Does it count containers, or their limits?
    pub fn counts_containers(&self) -> bool {
        self.containers.is_some() || self.shares_out()
    }
}

/// A pattern in which `*` matches any run of characters and everything else itself.
#[derive(Debug, Clone)]
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
