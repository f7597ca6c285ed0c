//! One line for each decision.
//!
//! Lines are gathered for a few milliseconds and written together, each with a single write where it crosses a pipe's
//! page. A reader that does not keep up never stalls a request: what it has not read waits in a bounded buffer, what
//! does not fit there is dropped and counted, and the count is written as soon as there is room.

use crate::refusal::Refusal;
use crate::route::Route;
use hyper::{Method, StatusCode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Lines wait for company so long.
const GATHER: Duration = Duration::from_millis(3);

/// A reader that is behind is tried again after this.
const RETRY: Duration = Duration::from_millis(20);

/// A pipe that is writable takes this much at once, in one piece.
const PIECE: usize = 4096;

/// No line is longer than this many characters of client text, so that it fits a piece.
const TEXT_LIMIT: usize = 400;

/// What waits for a slow reader.
const WAITING: usize = 1 << 20;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where lines go.
pub struct Sink {
    fd: Box<dyn AsFd>,
    format: Format,
    waiting: RefCell<Vec<u8>>,
    dropped: Cell<u64>,
    flushing: Cell<bool>,
    count: Cell<u64>,
    this: Weak<Sink>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("format", &self.format).finish_non_exhaustive()
    }
}

impl Sink {
    /// Lines of this form into this file.
    pub fn new(format: Format, fd: impl AsFd + 'static) -> Rc<Self> {
        Rc::new_cyclic(|this| Self {
            fd: Box::new(fd),
            format,
            waiting: RefCell::default(),
            dropped: Cell::default(),
            flushing: Cell::default(),
            count: Cell::default(),
            this: this.clone(),
        })
    }

    /// Lines of this form on the standard error.
    pub fn stderr(format: Format) -> Rc<Self> {
        Self::new(format, std::io::stderr())
    }

    /// Writes what waits, as far as the reader takes it.
    pub fn flush(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let dropped = self.dropped.replace(0);
        if dropped > 0 {
            match self.format {
                Format::Json => {
                    _ = writeln!(waiting, "{{\"time\":\"{}\",\"dropped\":{dropped}}}", Time(SystemTime::now()))
                }
                Format::Text => {
                    _ = writeln!(
                        waiting,
                        "{} {dropped} lines were dropped: the reader was too slow",
                        Time(SystemTime::now())
                    )
                }
            }
        }
        while !waiting.is_empty() {
            match write(self.fd.as_fd(), piece(&waiting)) {
                Ok(0) | Err(Errno::AGAIN) => return,
                Ok(written) => drop(waiting.drain(..written)),
                Err(Errno::INTR) => (),
                // Nobody will ever read it.
                Err(_) => waiting.clear(),
            }
        }
    }

    fn push(&self, line: impl FnOnce(&mut Vec<u8>, Format)) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING {
            self.dropped.set(self.dropped.get() + 1);
        } else {
            line(&mut waiting, self.format);
        }
        drop(waiting);
        if !self.flushing.replace(true) {
            let this = self.this.clone();
            tokio::task::spawn_local(async move {
                let mut pause = GATHER;
                loop {
                    tokio::time::sleep(pause).await;
                    let Some(sink) = this.upgrade() else { return };
                    sink.flush();
                    if sink.waiting.borrow().is_empty() {
                        sink.flushing.set(false);
                        return;
                    }
                    pause = RETRY;
                }
            });
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// As many whole lines as are written at once; the part of a line where one alone is longer.
fn piece(waiting: &[u8]) -> &[u8] {
    let most = waiting.get(..PIECE).unwrap_or(waiting);
    let whole = most.iter().rposition(|byte| *byte == b'\n').map_or(most.len(), |end| end + 1);
    most.get(..whole).unwrap_or(most)
}

/// Writes without waiting.
pub(crate) fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut ready = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0 {
        return Ok(0);
    }
    rustix::io::write(fd, bytes)
}

/// The audit of one agent.
#[derive(Debug)]
pub struct Audit {
    sink: Rc<Sink>,
    policy: String,
    /// What its JSON lines say of who asks.
    who: String,
}

impl Audit {
    /// `agent` says how the agent was recognised.
    pub fn new(sink: Rc<Sink>, agent: &str, owner: &str, policy: &str) -> Self {
        let (agent, owner, shown) = (Safe(agent), Safe(owner), Safe(policy));
        let who = format!("\"agent\":\"{agent}\",\"owner\":\"{owner}\",\"policy\":\"{shown}\"");
        Self { sink, policy: policy.to_owned(), who }
    }

    /// Begins the record of a request.
    pub fn begin(self: &Rc<Self>, method: &Method) -> Record {
        let number = self.sink.count.get() + 1;
        self.sink.count.set(number);
        Record {
            audit: Rc::clone(self),
            number,
            started: Instant::now(),
            method: method.clone(),
            route: "",
            object: String::new(),
            verdict: Decision::Undecided,
        }
    }

    /// Writes what waits, as far as the reader takes it.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

#[derive(Debug)]
enum Decision {
    Undecided,
    Allow,
    Rewrite,
    Refuse { reason: &'static str, message: String },
}

/// What becomes of one request. Written when its answer is known, or when it is dropped because the client went away.
#[derive(Debug)]
pub struct Record {
    audit: Rc<Audit>,
    number: u64,
    started: Instant,
    method: Method,
    route: &'static str,
    object: String,
    verdict: Decision,
}

impl Record {
    /// The request names this endpoint.
    pub fn route(&mut self, route: &Route) {
        self.route = route.pattern();
        self.object = route.object().unwrap_or_default().to_owned();
    }

    /// The request may go on.
    pub fn permitted(&mut self, rewritten: bool) {
        self.verdict = if rewritten { Decision::Rewrite } else { Decision::Allow };
    }

    /// The request is refused, or failed on its way.
    pub fn refused(&mut self, refusal: &Refusal) {
        let message = refusal.message(&self.audit.policy);
        self.verdict = Decision::Refuse { reason: refusal.code(), message };
    }

    /// The answer's status is known.
    pub fn answered(mut self, status: StatusCode) {
        self.write(status.as_u16());
    }

    fn write(&mut self, status: u16) {
        let took = self.started.elapsed();
        let now = Time(SystemTime::now()).digits();
        let (verdict, reason, message) = match &self.verdict {
            Decision::Undecided => ("refuse", "client_gone", ""),
            Decision::Allow => ("allow", "granted", ""),
            Decision::Rewrite => ("rewrite", "granted", ""),
            Decision::Refuse { reason, message } => ("refuse", *reason, message.as_str()),
        };
        let reason = if status == 0 { "client_gone" } else { reason };
        let Self { audit, number, method, route, object, .. } = self;
        audit.sink.push(|out, format| {
            let mut line = Line(out);
            match format {
                Format::Json => {
                    line.add("{\"time\":\"")
                        .add(now)
                        .add("\",\"request\":")
                        .number(*number, 1)
                        .add(",")
                        .add(&audit.who);
                    line.add(",\"method\":\"").safe(method.as_str()).add("\",\"route\":\"").add(route);
                    line.add("\",\"object\":\"").safe(object).add("\",\"verdict\":\"").add(verdict);
                    line.add("\",\"reason\":\"").add(reason).add("\"");
                    if !message.is_empty() {
                        line.add(",\"message\":\"").safe(message).add("\"");
                    }
                    line.add(",\"status\":").number(status.into(), 1).add(",\"ms\":").ms(took).add("}\n");
                }
                Format::Text => {
                    line.add(now).add(" ").add(verdict).add(" ").safe(method.as_str()).add(" ").add(route);
                    if !object.is_empty() {
                        line.add(" ").safe(object);
                    }
                    line.add(": ").number(status.into(), 1).add(" in ").ms(took).add(" ms");
                    if !message.is_empty() {
                        line.add(": ").safe(message);
                    }
                    line.add("\n");
                }
            }
        });
        self.number = 0;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.number != 0 {
            self.write(0);
        }
    }
}

/// A line that is put together by hand: the machinery of formats costs several times as much.
struct Line<'l>(&'l mut Vec<u8>);

impl Line<'_> {
    fn add(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.0.extend_from_slice(text.as_ref());
        self
    }

    fn safe(&mut self, text: &str) -> &mut Self {
        if Safe(text).is_plain() {
            return self.add(text);
        }
        // Writing into memory cannot fail.
        _ = write!(self.0, "{}", Safe(text));
        self
    }

    /// A number of at least so many digits.
    fn number(&mut self, mut number: u64, least: usize) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut begin = digits.len();
        for (place, digit) in digits.iter_mut().enumerate().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
            begin = place;
            if number == 0 && place + least <= 20 {
                break;
            }
        }
        self.add(digits.get(begin..).unwrap_or_default())
    }

    /// Milliseconds, with three digits behind the point.
    fn ms(&mut self, took: Duration) -> &mut Self {
        let whole = took.as_secs().saturating_mul(1000).saturating_add(took.subsec_millis().into());
        self.number(whole, 1).add(".").number((took.subsec_micros() % 1000).into(), 3)
    }
}

/// Text that came from outside, so that it can neither end its string nor its line, nor speak to a terminal.
pub(crate) struct Safe<'t>(pub(crate) &'t str);

impl Safe<'_> {
    /// May it stand as it is?
    fn is_plain(&self) -> bool {
        let plain = |b: u8| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\';
        self.0.len() <= TEXT_LIMIT && self.0.bytes().all(plain)
    }
}

impl std::fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_plain() {
            return f.write_str(self.0);
        }
        for c in self.0.chars().take(TEXT_LIMIT) {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                // Marks that turn the direction of writing are no control characters, and forge as well as these.
                c if c.is_control()
                    || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}') =>
                {
                    write!(f, "\\u{:04x}", u32::from(c))?
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// RFC 3339, UTC, with milliseconds.
pub(crate) struct Time(pub(crate) SystemTime);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Time {
    fn digits(&self) -> [u8; 24] {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Days since 1970 to a date of the Gregorian calendar, whose years are taken to begin in March.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, milli) = (second / 3600, second / 60 % 60, u64::from(since.subsec_millis()));
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, hour),
            (14..16, minute),
            (17..19, second % 60),
            (20..23, milli),
        ];
        for (place, mut number) in fields {
            for digit in text.get_mut(place).into_iter().flatten().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        text
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::json::Value;

    #[test]
    fn a_time_is_written_as_people_and_machines_read_it() {
        let at = |s: u64| Time(UNIX_EPOCH + Duration::from_millis(s * 1000 + 7)).to_string();
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56.007Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
    }

    fn lines(format: Format, work: impl FnOnce(&Rc<Audit>)) -> String {
        let (reader, writer) = std::io::pipe().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            work(&Rc::new(Audit::new(Sink::new(format, writer), "fixed", "me", "ci-agent")));
        });
        std::io::read_to_string(reader).unwrap()
    }

    #[test]
    fn text_of_a_client_cannot_forge_a_line() {
        let evil = "a\n{\"verdict\":\"allow\"}\r\u{1b}[2J\u{202e}\"";
        for format in [Format::Json, Format::Text] {
            let text = lines(format, |audit| {
                let mut record = audit.begin(&Method::POST);
                record.refused(&Refusal::malformed(evil));
                record.answered(StatusCode::BAD_REQUEST);
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text}");
            if format == Format::Json {
                let value = crate::json::parse(text.trim_end().as_bytes()).unwrap();
                assert_eq!(value.at(&["message"]).and_then(Value::as_str), Some(format!("sockguard: {evil}").as_str()));
                assert_eq!(value.at(&["verdict"]).and_then(Value::as_str), Some("refuse"));
            }
        }
    }

    #[test]
    fn a_request_whose_client_goes_away_is_recorded() {
        let text = lines(Format::Json, |audit| {
            let mut record = audit.begin(&Method::GET);
            record.permitted(false);
        });
        assert!(text.contains("\"verdict\":\"allow\",\"reason\":\"client_gone\",\"status\":0"), "{text}");
    }

    #[test]
    fn a_slow_reader_stalls_nobody_and_hears_what_it_missed() {
        let (reader, writer) = std::io::pipe().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sink = Sink::new(Format::Json, writer);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let audit = Rc::new(Audit::new(Rc::clone(&sink), "fixed", "me", "ci-agent"));
            for _ in 0..10_000 {
                audit.begin(&Method::GET).answered(StatusCode::OK);
            }
        });
        let all = std::thread::spawn(move || std::io::read_to_string(reader).unwrap());
        while !sink.waiting.borrow().is_empty() || sink.dropped.get() > 0 {
            sink.flush();
        }
        drop(sink);
        let all = all.join().unwrap();
        let whole = all.lines().filter(|line| line.contains("\"request\":")).count();
        let missed = all
            .lines()
            .find_map(|line| line.split_once("\"dropped\":")?.1.trim_end_matches('}').parse::<usize>().ok())
            .unwrap();
        assert_eq!(whole + missed, 10_000);
    }
}
