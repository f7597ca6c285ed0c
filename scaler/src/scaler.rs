//! One minute of scaling: poll, decide, set the number, again and again until the minute is nearly over.

use crate::aws;
use crate::config::Config;
use crate::decide::{Decision, Surplus, decide};
use crate::failure::{Failure, Reason, Step};
use crate::metrics::{self, Metrics};
use crate::secret::Secret;
use crate::web::Web;
use serde::Serialize;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Next minute's invocation must not find this one still at work: only one may run.
const LONGEST: Duration = Duration::from_secs(60);

/// What is known from poll to poll. A function that starts anew knows nothing: then a cool-down begins anew.
pub struct Scaler {
    config: Config,
    token: Option<Secret>,
    surplus: Option<Surplus>,
    /// Buildkite wants to be left alone until then.
    pause: Instant,
}

/// What came of a minute.
#[derive(Debug, Default, Serialize)]
pub struct Minute {
    pub polls: u32,
    pub failed: u32,
    /// The last failure.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

impl Minute {
    /// The failure that nothing at all came of but this.
    pub fn in_vain(&self) -> Option<&Failure> {
        self.failure.as_ref().filter(|_| self.failed == self.polls)
    }
}

/// How long polls may begin, and how long their requests may last.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    polls: Duration,
    requests: Duration,
}

impl Limits {
    /// Of a minute, 55 s and 58 s.
    fn of(time: Duration) -> Self {
        let time = time.min(LONGEST);
        Self { polls: time * 11 / 12, requests: time * 29 / 30 }
    }
}

/// A line about something that changed, or that did not change because something failed.
#[derive(Serialize)]
struct Line<'a, T> {
    event: &'static str,
    queue: &'a str,
    service: &'a str,
    #[serde(flatten)]
    more: T,
}

#[derive(Serialize)]
struct Change {
    from: u32,
    to: u32,
    #[serde(flatten)]
    metrics: Metrics,
}

#[derive(Serialize)]
struct Unchanged<'a> {
    step: Step,
    reason: Reason,
    detail: &'a str,
}

impl Scaler {
    /// One that knows nothing yet.
    pub fn new(config: Config) -> Self {
        Self { config, token: None, surplus: None, pause: Instant::now() }
    }

    /// Scales for nearly as long as there is `time`.
    pub fn minute(&mut self, time: Duration) -> Minute {
        let (start, Limits { polls, requests }) = (Instant::now(), Limits::of(time));
        let web = Web::new(self.config.call_timeout, start + requests);
        let mut minute = Minute::default();
        let mut next = self.pause.max(start);
        while next < start + polls {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next = Instant::now() + self.config.poll_interval;
            minute.polls += 1;
            if let Err(failure) = self.poll(&web) {
                let Failure { step, reason, ref detail } = failure;
                self.say("unchanged", Unchanged { step, reason, detail });
                minute.failed += 1;
                minute.failure = Some(failure);
            }
            next = next.max(self.pause);
        }
        minute
    }

    fn poll(&mut self, web: &Web) -> Result<(), Failure> {
        let metrics = self.metrics(web)?;
        let from = aws::desired(web, &self.config)?;
        self.surplus = match decide(&self.config.rule, &metrics.load(), from, self.surplus, Instant::now()) {
            Decision::Keep | Decision::Busy => None,
            Decision::CoolDown(surplus) => Some(surplus),
            Decision::Up(to) => self.change(web, "up", Change { from, to, metrics })?,
            Decision::Down(to) => self.change(web, "down", Change { from, to, metrics })?,
        };
        Ok(())
    }

    /// Asks Buildkite, with a token that is read once, and once more when it does not do.
    fn metrics(&mut self, web: &Web) -> Result<Metrics, Failure> {
        let token = match self.token.take() {
            Some(token) => token,
            None => aws::token(web, &self.config)?,
        };
        let reading = metrics::read(web, &self.config, &token);
        self.pause = Instant::now() + reading.pause;
        let denied = matches!(&reading.metrics, Err(failure) if failure.reason == Reason::Denied);
        self.token = (!denied).then_some(token);
        reading.metrics
    }

    /// Sets the number; with that the next surplus begins anew.
    fn change(&self, web: &Web, event: &'static str, change: Change) -> Result<Option<Surplus>, Failure> {
        aws::set_desired(web, &self.config, change.to)?;
        self.say(event, change);
        Ok(None)
    }

    fn say(&self, event: &'static str, more: impl Serialize) {
        let line = Line { event, queue: &self.config.queue, service: &self.config.service, more };
        if let Ok(mut line) = serde_json::to_vec(&line) {
            line.push(b'\n');
            // There is nowhere else to say that it failed.
            let _ = std::io::stdout().write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_ends_before_the_next_begins() {
        let minute = Limits { polls: Duration::from_secs(55), requests: Duration::from_secs(58) };
        assert_eq!(Limits::of(Duration::from_secs(60)), minute);
        assert_eq!(Limits::of(Duration::from_secs(900)), minute);
        assert_eq!(Limits::of(Duration::MAX), minute);
        let Limits { polls, requests } = Limits::of(Duration::from_secs(6));
        assert!(polls < requests && requests < Duration::from_secs(6));
        assert_eq!(Limits::of(Duration::ZERO), Limits { polls: Duration::ZERO, requests: Duration::ZERO });
    }
}
