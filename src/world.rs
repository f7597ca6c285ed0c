//! What a judgement may ask about the engine's objects and the host's paths. The engine answers it in production, a
//! case file in tests.

use crate::owner::{OWNER_LABEL, Owner, SEAL_LABEL, Standing};
use crate::reference::Reference;
use crate::refusal::Refusal;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A full, immutable ID or, for volumes, a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// Wraps what the engine gave as an object's ID.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The ID.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container, as far as judgements need it. All of it is immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// Its full ID.
    pub id: Id,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Its full ID, with `sha256:`.
    pub id: Id,
    /// The labels of its config.
    pub labels: BTreeMap<String, String>,
    /// Has it a tag or a digest? Untagged images that nobody owns are steps of somebody's build, not shared images.
    pub tagged: bool,
    /// Did this owner bring it (pull, load, import) and nobody else since, or give it the name by which it was asked
    /// for? (remembered, see promise 6)
    pub brought: bool,
    /// Did this owner pull it when it was here already, as another's? Then it may use it, and no more. (remembered)
    pub pulled: bool,
    /// What it is in registries, by digest, as the engine names it.
    pub digests: Vec<String>,
    /// The paths that it declares as volumes.
    pub volumes: Vec<String>,
    /// How many ports it exposes.
    pub exposes: u64,
    /// Its `ONBUILD` triggers.
    pub on_build: Vec<String>,
    /// Its environment, as `NAME=value`.
    pub env: Vec<String>,
    /// Its operating system and architecture, such as `linux/amd64`.
    pub platform: String,
}

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its full ID.
    pub id: Id,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Is it a directory of the engine's, and nothing more? One with options, or of another driver, is mounted from
    /// elsewhere as long as it is in use.
    pub plain: bool,
}

/// What is at a host path, seen without following a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFact {
    /// It is there, and no component below the root is a symbolic link.
    Fine,
    /// A component does not exist, and none before it is a symbolic link.
    Missing,
    /// A component below the root is a symbolic link.
    Link,
    /// The root itself cannot be seen from where sockguard runs.
    Unseen,
}

/// The facts that a judgement may ask for. Answers come from the engine at the time of asking; only what can never
/// change (the owner of a full ID) may be remembered.
pub trait World {
    /// A container by ID, name or unique ID prefix.
    async fn container(&self, reference: &str) -> Result<Option<Container>, Refusal>;
    /// An image by reference or ID.
    async fn image(&self, reference: &str) -> Result<Option<Image>, Refusal>;
    /// Has the engine pull an image for a build, with what the build's `X-Registry-Config` says of its registry.
    async fn pull(
        &self,
        reference: &Reference,
        platform: Option<&str>,
        credentials: Option<&str>,
    ) -> Result<(), Refusal>;
    /// The digest that a registry has under a name, for a client with this `X-Registry-Auth`; nothing where it does not
    /// say.
    async fn registry_digest(&self, name: &Reference, credentials: Option<&str>) -> Result<Option<String>, Refusal>;
    /// A network by ID, name or unique ID prefix.
    async fn network(&self, reference: &str) -> Result<Option<Network>, Refusal>;
    /// A volume by name.
    async fn volume(&self, name: &str) -> Result<Option<Volume>, Refusal>;
    /// The container that an exec runs in.
    async fn exec(&self, id: &str) -> Result<Option<Id>, Refusal>;
    /// What is at `root`/`below`, without following a symbolic link below `root`.
    async fn path(&self, root: &Path, below: &Path) -> PathFact;
    /// The engine's API version, such as (1, 41).
    async fn api_version(&self) -> Result<(u32, u32), Refusal>;
    /// The guarded socket as the host sees it, and the paths under which the engine's own socket is known.
    fn sockets(&self) -> Sockets;
}

/// The sockets that a bind may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets {
    /// The guarded socket's path on the host.
    pub guarded: PathBuf,
    /// The engine's socket, by each path it is known under.
    pub engine: Vec<PathBuf>,
}

impl Container {
    /// How it stands to `me`. One that nobody owns is not for agents, nor one that only inherits the owner label from
    /// its image: that one was not created through sockguard, and so has no seal.
    pub fn standing(&self, me: &Owner) -> Standing {
        match self.labels.get(SEAL_LABEL) {
            Some(seal) if seal == me.seal() => owned(&self.labels, me, Standing::Foreign),
            Some(_) | None => Standing::Foreign,
        }
    }
}

impl Image {
    /// An image of which nothing is known but its ID.
    pub fn of(id: Id) -> Self {
        Self {
            id,
            labels: BTreeMap::new(),
            tagged: false,
            brought: false,
            pulled: false,
            digests: Vec::new(),
            volumes: Vec::new(),
            exposes: 0,
            on_build: Vec::new(),
            env: Vec::new(),
            platform: String::new(),
        }
    }

    /// How it stands to `me`. One that nobody owns is shared if it has a name. One that was built for another owner and
    /// pulled from a registry by this one is shared too: who may pull it may use it.
    pub fn standing(&self, me: &Owner) -> Standing {
        let unowned = match (self.brought, self.tagged) {
            (true, _) | (false, true) => Standing::Shared,
            (false, false) => Standing::Foreign,
        };
        match owned(&self.labels, me, unowned) {
            Standing::Foreign if self.brought || self.pulled => Standing::Shared,
            standing => standing,
        }
    }

    /// Is it what a registry has under this name with a digest?
    pub fn is_in_registry(&self, name: &Reference) -> bool {
        self.digests.iter().any(|digest| Reference::parse(digest).is_ok_and(|digest| digest == *name))
    }

    /// Is it here as another owner's, so that its names are not to be moved, whoever may use it?
    pub fn anothers(&self, me: &Owner) -> bool {
        !self.brought && owned(&self.labels, me, Standing::Shared) == Standing::Foreign
    }

    /// Does it carry a seal? sockguard never makes such an image: a container of it would seem to be sealed, too.
    pub fn sealed(&self) -> bool {
        self.labels.get(SEAL_LABEL).is_some_and(|seal| !seal.is_empty())
    }

    /// Has it this platform, if one is wanted?
    pub fn fits(&self, platform: Option<&str>) -> bool {
        platform.is_none_or(|wanted| same_platform(wanted, &self.platform))
    }

    /// Does it carry an owner's label?
    pub fn labelled(&self) -> bool {
        self.labels.contains_key(OWNER_LABEL)
    }
}

fn same_platform(wanted: &str, has: &str) -> bool {
    let plain = |text: &str| text.to_ascii_lowercase().replace("x86_64", "amd64").replace("aarch64", "arm64");
    let (wanted, has) = (plain(wanted), plain(has));
    let architecture = has.split_once('/').map(|(_, architecture)| architecture).unwrap_or_default();
    has.is_empty()
        || wanted == has
        || wanted == architecture
        || wanted.strip_prefix(&has).is_some_and(|rest| rest.starts_with('/'))
}

impl Network {
    /// How it stands to `me`. The built-in ones are shared; others that nobody owns are not for agents.
    pub fn standing(&self, me: &Owner) -> Standing {
        let unowned = match self.name.as_str() {
            "bridge" | "host" | "none" => Standing::Shared,
            _ => Standing::Foreign,
        };
        owned(&self.labels, me, unowned)
    }
}

impl Volume {
    /// How it stands to `me`. One that nobody owns is not for agents, unless the policy shares it by name.
    pub fn standing(&self, me: &Owner) -> Standing {
        owned(&self.labels, me, Standing::Foreign)
    }
}

fn owned(labels: &BTreeMap<String, String>, me: &Owner, unowned: Standing) -> Standing {
    match labels.get(OWNER_LABEL) {
        Some(owner) if owner == me.as_str() => Standing::Own,
        Some(_) => Standing::Foreign,
        None => unowned,
    }
}
