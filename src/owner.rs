//! Owners, and how an object of the engine stands to the one who asks.

use std::fmt;
use std::rc::Rc;

/// The label that names an object's owner. The original's key, kept for compatibility.
pub const OWNER_LABEL: &str = "com.buildkite.sockguard.owner";

/// Everything under this prefix is sockguard's own; a client can neither set nor see it.
pub const LABEL_PREFIX: &str = "com.buildkite.sockguard.";

/// The binds of a container as its client asked for them (a JSON document), where they were changed on the way.
pub const BINDS_LABEL: &str = "com.buildkite.sockguard.binds";

/// On a volume: the host path of the bind root that it stands for.
pub const ROOT_LABEL: &str = "com.buildkite.sockguard.root";

/// The name under which an agent's objects are kept: the value of the owner label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(Rc<str>);

impl Owner {
    /// An owner of this name.
    ///
    /// # Errors
    /// An empty name, one longer than 256 characters, or one with white space, quotes or control characters: it is
    /// written into labels, filters and Dockerfile instructions.
    pub fn new(name: &str) -> Result<Self, String> {
        let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '`' | '$' | ',');
        if name.is_empty() || name.len() > 256 || !name.chars().all(fine) {
            return Err(format!(
                "`{name}` is no owner: expected 1 to 256 printable ASCII characters without spaces, quotes, `$`, `,` or backslashes"
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
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
