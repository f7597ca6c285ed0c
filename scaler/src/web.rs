//! Requests and answers: each in bounded time and space, none redirected or sent through a proxy.

use crate::failure::{Failure, Reason, Step};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Request, Uri};
use ureq::{Agent, Error};

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// Where requests of one kind go: `https://`, or `http://` to this very machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host, with a port where one is given.
    pub host: String,
    /// Without a slash at the end.
    pub url: String,
}

impl Endpoint {
    /// Reads a URL without query, user or fragment.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let on_this_machine = matches!(authority.host(), "localhost" | "127.0.0.1" | "[::1]");
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => on_this_machine,
            _ => false,
        };
        let plain = uri.query().is_none() && !text.contains(['@', '#']) && !authority.host().is_empty();
        (secure && plain)
            .then(|| Self { host: authority.as_str().to_owned(), url: text.trim_end_matches('/').to_owned() })
    }

    /// Whether it is a host alone, without a path.
    pub fn is_bare(&self) -> bool {
        self.url.ends_with(&self.host)
    }
}

/// An answer, whatever its status.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// A client that ends with the minute, so that no connection is used that lay idle while the function stood still.
pub struct Web {
    agent: Agent,
    timeout: Duration,
    end: Instant,
}

impl Web {
    /// A client for requests that take at most `timeout` each, and none longer than until `end`.
    pub fn new(timeout: Duration, end: Instant) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("sockguard-scaler/", env!("CARGO_PKG_VERSION")));
        Self { agent: config.build().into(), timeout, end }
    }

    /// Sends and receives.
    pub fn send(&self, step: Step, request: Request<Vec<u8>>) -> Result<Answer, Failure> {
        let left = self.end.saturating_duration_since(Instant::now()).min(self.timeout);
        if left.is_zero() {
            return Err(step.failed(Reason::Timeout, "the minute is over"));
        }
        let request = self.agent.configure_request(request).timeout_global(Some(left)).build();
        let failed = |error| failed(step, &error);
        let mut answer = self.agent.run(request).map_err(failed)?;
        let body = answer.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(failed)?;
        let (head, _) = answer.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

fn failed(step: Step, error: &Error) -> Failure {
    match error {
        Error::Timeout(_) => step.failed(Reason::Timeout, "no whole answer in time"),
        Error::BodyExceedsLimit(_) => step.failed(Reason::Answer, format!("the answer is longer than {LONGEST} bytes")),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => {
            step.failed(Reason::Answer, format!("the answer is no HTTP: {error}"))
        }
        other => step.failed(Reason::Unreachable, other.to_string()),
    }
}

/// Text as a part of a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(byte.into());
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
        url
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let agent = Endpoint::parse("https://agent.buildkite.com/v3/").unwrap();
        assert_eq!(agent.url, "https://agent.buildkite.com/v3");
        assert_eq!(agent.host, "agent.buildkite.com");
        assert!(!agent.is_bare());
        for (text, host) in [
            ("https://ecs.eu-central-1.amazonaws.com", "ecs.eu-central-1.amazonaws.com"),
            ("http://127.0.0.1:5000/", "127.0.0.1:5000"),
            ("http://localhost:5000", "localhost:5000"),
            ("http://[::1]:5000", "[::1]:5000"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.host, host);
            assert!(endpoint.is_bare(), "{text}");
        }
    }

    #[test]
    fn no_endpoints() {
        for text in [
            "",
            "agent.buildkite.com",
            "/v3",
            "http://agent.buildkite.com/v3",
            "http://127.0.0.1.example.com",
            "http://localhost@example.com",
            "https://token@agent.buildkite.com",
            "https://agent.buildkite.com/v3?x=y",
            "https://agent.buildkite.com/v3#x",
            "ftp://127.0.0.1",
            "https://",
            "https:///v3",
        ] {
            assert_eq!(Endpoint::parse(text), None, "{text}");
        }
    }

    #[test]
    fn encoding() {
        assert_eq!(encoded("default-1_2.~"), "default-1_2.~");
        assert_eq!(encoded("a b&c=ü/#?"), "a%20b%26c%3D%C3%BC%2F%23%3F");
    }
}
