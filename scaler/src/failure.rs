//! Why a poll came to nothing. Whatever it is, the number of agents stays as it is.

use serde::Serialize;
use std::fmt;

/// No text from outside makes a line longer than this many characters.
const LONGEST: usize = 200;

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Reading the token from Systems Manager.
    Token,
    /// Reading the queue's metrics from Buildkite.
    Metrics,
    /// Asking ECS for the service.
    Describe,
    /// Telling ECS the new number.
    Update,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// No connection, or it broke.
    Unreachable,
    /// No whole answer in time.
    Timeout,
    /// Too many requests.
    Throttled,
    /// The token, the keys or the permissions do not do.
    Denied,
    /// The other side has a problem of its own.
    Unavailable,
    /// Any other answer that says no.
    Refused,
    /// An answer that cannot be understood.
    Answer,
    /// The service is not there, or not active.
    Service,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub reason: Reason,
    /// For people. Never a secret, and never long.
    pub detail: String,
}

impl Step {
    /// A failure of this step.
    pub fn failed(self, reason: Reason, detail: impl AsRef<str>) -> Failure {
        Failure { step: self, reason, detail: detail.as_ref().chars().take(LONGEST).collect() }
    }
}

impl Reason {
    /// What an HTTP status says by itself.
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            429 => Self::Throttled,
            500.. => Self::Unavailable,
            _ => Self::Refused,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Token => "the token's parameter could not be read",
            Step::Metrics => "the queue's metrics could not be read",
            Step::Describe => "the service could not be read",
            Step::Update => "the service could not be changed",
        };
        write!(formatter, "{step}: {}", self.detail)
    }
}
