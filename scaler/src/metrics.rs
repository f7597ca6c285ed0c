//! What Buildkite says about the queue: `GET {endpoint}/metrics/queue?name=QUEUE` with the agents' token.

use crate::config::Config;
use crate::decide::Load;
use crate::failure::{Failure, Reason, Step};
use crate::secret::Secret;
use crate::web::{Web, encoded};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use ureq::http::{HeaderMap, Request};

/// How long Buildkite wants to be left alone until the next question, in seconds.
const POLL_DURATION: &str = "buildkite-agent-metrics-poll-duration";

/// Buildkite is left alone for no longer than this: a wrong header must not end the scaling.
const LONGEST_POLL: Duration = Duration::from_secs(120);

/// The agents and jobs of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Metrics {
    pub agents: Agents,
    pub jobs: Jobs,
}

/// The queue's agents, all that are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Agents {
    pub busy: u64,
    pub idle: u64,
    pub total: u64,
}

/// The queue's jobs that are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Jobs {
    pub scheduled: u64,
    pub running: u64,
    pub waiting: u64,
}

impl Metrics {
    /// What the decision goes by.
    pub fn load(&self) -> Load {
        let Jobs { scheduled, running, waiting } = self.jobs;
        Load { scheduled, running, waiting, busy: self.agents.busy }
    }
}

/// What came of asking.
pub struct Reading {
    pub metrics: Result<Metrics, Failure>,
    /// How long not to ask again.
    pub pause: Duration,
}

/// Asks Buildkite.
pub fn read(web: &Web, config: &Config, token: &Secret) -> Reading {
    let failed = |failure| Reading { metrics: Err(failure), pause: Duration::ZERO };
    let url = format!("{}/metrics/queue?name={}", config.metrics.url, encoded(&config.queue));
    let request = Request::get(url).header("authorization", format!("Token {}", token.expose())).body(Vec::new());
    // The error of a header would show it.
    let Ok(request) = request else {
        return failed(Step::Metrics.failed(Reason::Refused, "there is no request with this endpoint and token"));
    };
    match web.send(Step::Metrics, request) {
        Ok(answer) => Reading { metrics: metrics(answer.status, &answer.body), pause: pause(&answer.headers) },
        Err(failure) => failed(failure),
    }
}

fn metrics(status: u16, body: &[u8]) -> Result<Metrics, Failure> {
    match status {
        200 => serde_json::from_slice(body).map_err(|error| Step::Metrics.failed(Reason::Answer, error.to_string())),
        _ => Err(Step::Metrics.failed(Reason::of_status(status), format!("HTTP status {status}"))),
    }
}

fn pause(headers: &HeaderMap) -> Duration {
    let seconds = headers.get(POLL_DURATION).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_POLL)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn reason(status: u16, body: &str) -> Reason {
        metrics(status, body.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn an_answer() {
        let body = r#"{"agents":{"idle":1,"busy":2,"total":3},"jobs":{"scheduled":4,"running":2,"waiting":5,"total":11},
                       "organization":{"slug":"acme"}}"#;
        let read = metrics(200, body.as_bytes()).unwrap();
        assert_eq!(read.load(), Load { scheduled: 4, running: 2, waiting: 5, busy: 2 });
        assert_eq!(read.agents, Agents { busy: 2, idle: 1, total: 3 });
    }

    #[test]
    fn hostile_answers() {
        let deep = "[".repeat(60_000);
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "<html>",
            r#"{"agents":{"idle":0,"busy":0,"total":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":-1,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":1.5,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":1e99,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":18446744073709551616,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":"1","running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":null,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":1,"scheduled":9,"running":0,"waiting":0}}"#,
            r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":1,"running":0,"waiting":0}} x"#,
            "{\"agents\":\"\u{1b}[2J\"}",
            &deep,
        ] {
            let failure = metrics(200, body.as_bytes()).unwrap_err();
            assert_eq!(failure.reason, Reason::Answer, "{body}");
            assert!(failure.detail.chars().count() <= 200);
        }
    }

    #[test]
    fn statuses() {
        let good = r#"{"agents":{"idle":0,"busy":0,"total":0},"jobs":{"scheduled":1,"running":0,"waiting":0}}"#;
        for (status, expected) in [
            (201, Reason::Refused),
            (302, Reason::Refused),
            (401, Reason::Denied),
            (403, Reason::Denied),
            (404, Reason::Refused),
            (429, Reason::Throttled),
            (500, Reason::Unavailable),
            (503, Reason::Unavailable),
        ] {
            assert_eq!(reason(status, good), expected, "{status}");
        }
    }

    #[test]
    fn pauses() {
        for (value, seconds) in
            [("10", 10), (" 30 ", 30), ("0", 0), ("-1", 0), ("1.5", 0), ("x", 0), ("99999999999", 120), ("", 0)]
        {
            let headers = HeaderMap::from_iter([(POLL_DURATION.parse().unwrap(), value.parse().unwrap())]);
            assert_eq!(pause(&headers), Duration::from_secs(seconds), "{value}");
        }
        assert_eq!(pause(&HeaderMap::new()), Duration::ZERO);
    }
}
