//! Why a request is refused. Each kind has a stable code for the audit and one sentence for people.

use crate::json::Value;
use hyper::StatusCode;

/// A refusal: what the client hears and what the audit records.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The connection comes from nobody that a listener serves.
    Stranger {
        /// Whom it was taken for, and why that is nobody.
        message: String,
    },
    /// The policy does not grant it.
    NotAllowed {
        /// The field, parameter or operation, by the Engine API's name.
        what: String,
        /// Its value as shown in messages (in backticks); empty where the value says nothing or may be secret.
        value: String,
        /// The policy key that would allow it, such as `container.privileged`; empty where none does.
        key: &'static str,
        /// What to do instead; empty where nothing is to be said.
        hint: String,
    },
    /// Sockguard does not know this endpoint, parameter or field, so it cannot judge it.
    Unknown {
        /// What is not known.
        what: String,
    },
    /// The object does not exist, or not for this owner; the engine's own words for an absent one.
    Absent {
        /// The engine's message.
        message: String,
    },
    /// What an engine without this feature answers (`503` for swarm).
    Unavailable {
        /// The engine's message.
        message: String,
    },
    /// The engine's own words for a request that is in the way of another object (`409`).
    Conflict {
        /// The engine's message.
        message: String,
    },
    /// The engine's own words for a request that it refuses by itself (`403`).
    Forbidden {
        /// The engine's message.
        message: String,
    },
    /// The engine's own words for a request that is not well-formed (`400`).
    Rejected {
        /// The engine's message.
        message: String,
    },
    /// The engine's own words for what fails when its answer, a progress, has begun with success (`200`).
    Reported {
        /// The status that the progress begins with.
        begun: String,
        /// The engine's message.
        message: String,
    },
    /// The request is not well-formed.
    Malformed {
        /// What is wrong.
        message: String,
    },
    /// The head or the body exceeds a limit.
    TooLarge {
        /// Which limit.
        message: String,
    },
    /// The engine cannot be reached, or answered what cannot be understood.
    Engine {
        /// What happened; names the socket.
        message: String,
    },
}

impl Refusal {
    /// The policy does not grant `what` with this value; `key` would.
    pub fn not_allowed(what: impl Into<String>, value: &Value, key: &'static str) -> Self {
        Self::NotAllowed { what: what.into(), value: value.shown(), key, hint: String::new() }
    }

    /// The policy does not grant this operation; `key` would.
    pub fn operation(what: impl Into<String>, key: &'static str) -> Self {
        Self::NotAllowed { what: what.into(), value: String::new(), key, hint: String::new() }
    }

    /// Not allowed by any policy; the hint says what to do instead.
    pub fn never(what: impl Into<String>, value: &Value, hint: impl Into<String>) -> Self {
        Self::NotAllowed { what: what.into(), value: value.shown(), key: "", hint: hint.into() }
    }

    /// Adds what to do instead.
    #[must_use]
    pub fn hint(self, text: impl Into<String>) -> Self {
        match self {
            Self::NotAllowed { what, value, key, hint: _ } => Self::NotAllowed { what, value, key, hint: text.into() },
            other => other,
        }
    }

    /// An endpoint, parameter or field that is not known.
    pub fn unknown(what: impl Into<String>) -> Self {
        Self::Unknown { what: what.into() }
    }

    /// The engine's words for an absent object.
    pub fn absent(message: impl Into<String>) -> Self {
        Self::Absent { message: message.into() }
    }

    /// The request is not well-formed.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::Malformed { message: message.into() }
    }

    /// The engine's own words for a request that is not well-formed.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::Rejected { message: message.into() }
    }

    /// The stable code of the reason, for the audit.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Stranger { .. } => "stranger",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Unknown { .. } => "unknown",
            Self::Absent { .. } => "absent",
            Self::Unavailable { .. } => "unavailable",
            Self::Conflict { .. } => "conflict",
            Self::Forbidden { .. } => "forbidden",
            Self::Rejected { .. } => "rejected",
            Self::Reported { .. } => "reported",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Engine { .. } => "engine",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Stranger { .. } | Self::NotAllowed { .. } | Self::Unknown { .. } | Self::Forbidden { .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Absent { .. } => StatusCode::NOT_FOUND,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::Reported { .. } => StatusCode::OK,
            Self::Malformed { .. } | Self::Rejected { .. } => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Engine { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    /// The sentence for the client.
    pub fn message(&self, policy: &str) -> String {
        match self {
            Self::NotAllowed { what, value, key, hint } => {
                let space = if value.is_empty() { "" } else { " " };
                let place = match *key {
                    "" => format!("policy \"{policy}\""),
                    key => format!("policy \"{policy}\", {key}"),
                };
                let hint = if hint.is_empty() { String::new() } else { format!(": {hint}") };
                format!("sockguard: {what}{space}{value} is not allowed ({place}){hint}")
            }
            Self::Unknown { what } => {
                format!("sockguard: {what} is not known to this version of sockguard, so it is refused")
            }
            Self::Absent { message }
            | Self::Unavailable { message }
            | Self::Conflict { message }
            | Self::Forbidden { message }
            | Self::Rejected { message }
            | Self::Reported { begun: _, message } => message.clone(),
            Self::Stranger { message }
            | Self::Malformed { message }
            | Self::TooLarge { message }
            | Self::Engine { message } => {
                format!("sockguard: {message}")
            }
        }
    }
}
