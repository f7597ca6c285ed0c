//! Messages about sockguard itself, between the audit's lines on the standard error stream and in the same form. As
//! the audit, they never wait for a slow reader: a message that cannot be written at once is lost.

use crate::audit::{Format, Safe, Time, write};
use crate::json::{Object, Value};
use std::fmt::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// A line is cut after so many bytes, so that a pipe takes it in one piece.
const LONGEST: usize = 4096;

/// No text in a line is longer than this many characters.
const TEXT: usize = 800;

/// Begins to write messages; with `debug`, more of them. Only the first call of a process counts.
pub fn start(format: Format, debug: bool) {
    let most = if debug { Level::DEBUG } else { Level::INFO };
    // The second of two would find the first in its place.
    let _ = tracing::subscriber::set_global_default(Log { format, most });
}

struct Log {
    format: Format,
    most: Level,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most && metadata.is_event()
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut line = self.line(*event.metadata().level(), &said, SystemTime::now()).into_bytes();
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        // There is nowhere else to say that it failed.
        let _ = write(std::io::stderr().as_fd(), &line);
    }

    // There are no spans.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Log {
    fn line(&self, level: Level, said: &Said, now: SystemTime) -> String {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let now = Time(now).to_string();
        match self.format {
            Format::Json => {
                let own = [("time", now.as_str()), ("level", level), ("message", &said.message)];
                let own_name = |name: &str| own.iter().any(|(own, _)| *own == name);
                let more = said.fields.iter().map(|(name, value)| (*name, value.as_str()));
                let text = |text: &str| Value::from(text.chars().take(TEXT).collect::<String>().as_str());
                let pairs = own.into_iter().chain(more.filter(|(name, _)| !own_name(name)));
                Value::Object(pairs.map(|(name, value)| (name.to_owned(), text(value))).collect::<Object>()).to_string()
            }
            Format::Text => {
                let mut line = format!("{now} {level}: {}", Safe(&said.message));
                for (name, value) in &said.fields {
                    let _ = write!(line, " {name}={}", Safe(value));
                }
                line
            }
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.fields.push((name, text)),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.fields.push((name, value.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_message_cannot_forge_a_line() {
        let said = Said { message: "a\nb\u{1b}[2J".to_owned(), fields: vec![("level", "x\"y".to_owned())] };
        let line = |format| Log { format, most: Level::INFO }.line(Level::WARN, &said, UNIX_EPOCH);
        let json = line(Format::Json);
        assert_eq!(json, r#"{"time":"1970-01-01T00:00:00.000Z","level":"warning","message":"a\u000ab\u001b[2J"}"#);
        let text = line(Format::Text);
        assert!(text.starts_with("1970-01-01T00:00:00.000Z warning: a") && !text.contains(['\n', '\u{1b}']), "{text}");
    }
}
