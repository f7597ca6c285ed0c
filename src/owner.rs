//! Owners, and how an object of the engine stands to the one who asks.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::fmt::Write as _;
use std::rc::Rc;

/// The label that names an object's owner. The original's key, kept for compatibility.
pub const OWNER_LABEL: &str = "com.buildkite.sockguard.owner";

/// On a container: the seal of its owner, which proves that it was created through sockguard. The owner label alone does
/// not: a container that others start from an owner's image inherits the image's labels. Images never carry a seal.
pub const SEAL_LABEL: &str = "com.buildkite.sockguard.seal";

/// On a container: the ID of the image that was judged. Its name can have come to stand for another by the time when the
/// engine makes the container, and no image can carry its own ID, for a container of it to inherit.
pub const IMAGE_LABEL: &str = "com.buildkite.sockguard.image";

/// On what an agent in a container makes: the ID of the agent's own container, with which it ends.
pub const AGENT_LABEL: &str = "com.buildkite.sockguard.agent";

/// Everything under this prefix is sockguard's own; a client can neither set nor see it.
pub const LABEL_PREFIX: &str = "com.buildkite.sockguard.";

/// The binds of a container as its client asked for them (a JSON document), where they were changed on the way.
pub const BINDS_LABEL: &str = "com.buildkite.sockguard.binds";

/// On a network: that it is the owner's own bridge, which stands in the place of the engine's.
pub const BRIDGE_LABEL: &str = "com.buildkite.sockguard.bridge";

/// On a volume: the host path of the bind root that it stands for.
pub const ROOT_LABEL: &str = "com.buildkite.sockguard.root";

/// On a volume that stands for nothing: the IDs of the containers that are paused while binds are checked.
pub const PAUSED_LABEL: &str = "com.buildkite.sockguard.paused";

/// On the same: the guarded socket of the sockguard that paused them.
pub const PAUSED_BY_LABEL: &str = "com.buildkite.sockguard.paused-by";

/// What seals are made with. With many agents on a host it is a secret that only sockguard can read; a single agent has
/// nobody to forge a seal for, so there the key may be known.
#[derive(Clone, PartialEq, Eq)]
pub struct SealKey(Rc<[u8]>);

impl SealKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The owner of this name, sealed with this key.
    ///
    /// # Errors
    /// As [`Owner::new`].
    pub fn owner(&self, name: &str) -> Result<Owner, String> {
        let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '`' | '$' | ',');
        if name.is_empty() || name.len() > 256 || !name.chars().all(fine) {
            return Err(format!(
                "`{name}` is no owner: expected 1 to 256 printable ASCII characters without spaces, quotes, `$`, `,` or backslashes"
            ));
        }
        Ok(Owner { name: name.into(), seal: self.seal(name).into() })
    }

    /// A keyed hash over what is sealed, a container, and its owner.
    fn seal(&self, owner: &str) -> String {
        // A key of any length does.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(b"container\0");
        mac.update(owner.as_bytes());
        mac.finalize().into_bytes().iter().take(16).fold(String::new(), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl Default for SealKey {
    /// The key where none is configured. Everybody knows it: it tells what sockguard created from what inherits an
    /// image's labels, and no more.
    fn default() -> Self {
        Self::new(b"sockguard")
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// The name under which an agent's objects are kept: the value of the owner label; with the seal of its containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    name: Rc<str>,
    seal: Rc<str>,
}

impl Owner {
    /// An owner of this name, sealed with the usual key.
    ///
    /// # Errors
    /// An empty name, one longer than 256 characters, or one with white space, quotes or control characters: it is
    /// written into labels, filters and Dockerfile instructions.
    pub fn new(name: &str) -> Result<Self, String> {
        SealKey::default().owner(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The value of the seal label on its containers.
    pub fn seal(&self) -> &str {
        &self.seal
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How an object stands to the one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It carries my owner label.
    Own,
    /// It carries another's, or none where none means that it is nobody's business.
    Foreign,
    /// It carries none.
    Shared,
}
