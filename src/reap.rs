//! What an owner left behind, and its removal.

use std::time::Duration;

/// What happens to an owner's objects when its last agent has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reap {
    /// So long they are kept: an agent that is started again within it finds everything as it was.
    pub grace: Duration,
    /// Are its images removed, too?
    pub images: bool,
}

impl Default for Reap {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), images: false }
    }
}
