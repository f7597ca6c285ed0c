//! The table: absolute numbers, ratios, and the limits beside them.

use std::io::Write;

use crate::target::Kind;

/// Prints a line. That nobody reads it must not keep the run from ending its processes.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// Limits are for sockguard's number.
#[derive(Clone, Copy)]
pub enum Limit {
    Open,
    AtMost(f64),
    /// Of the relay with one worker thread.
    TimesRelay(f64),
}

pub enum Measure {
    /// What a client sees.
    Seen(&'static str, Limit),
    /// What a proxy takes for it: nothing where there is none.
    Taken(&'static str, Limit),
}

/// Every sample of one measure, by target.
#[derive(Default)]
pub struct Samples([Vec<f64>; Kind::ALL.len()]);

impl Samples {
    pub fn add(&mut self, kind: Kind, sample: f64) {
        self.0[kind as usize].push(sample);
    }

    fn median(&self, kind: Kind) -> Option<f64> {
        let mut samples: Vec<_> = self.0[kind as usize].iter().copied().filter(|sample| sample.is_finite()).collect();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    }
}

#[derive(Default)]
pub struct Report {
    held: usize,
    over: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    pub fn head(&self, about: &str) {
        say!("{about}");
        let kinds: String = Kind::ALL.iter().map(|kind| format!("{:>11}", kind.name())).collect();
        say!("{:<31}{:<13}{kinds}{:>9}{:>9}  limit", "", "", "× direct", "× relay");
    }

    /// One line for each measure of a case.
    pub fn case(&mut self, name: &str, measures: &[Measure], samples: &[Samples]) {
        let mut title = name;
        for (measure, samples) in measures.iter().zip(samples) {
            let (Measure::Seen(unit, limit) | Measure::Taken(unit, limit)) = *measure;
            let ours = samples.median(Kind::Sockguard);
            let relay = samples.median(Kind::Relay);
            let direct = match measure {
                Measure::Seen(..) => samples.median(Kind::Direct),
                Measure::Taken(..) => None,
            };
            let numbers: String = [direct, relay, samples.median(Kind::RelayTwo), ours]
                .map(|number| format!("{:>11}", shown(number)))
                .concat();
            let over_direct = ratio(ours, direct);
            let over_relay = ratio(ours, relay);
            let (limit, held) = match limit {
                Limit::Open => (String::new(), None),
                Limit::AtMost(most) => (format!("≤ {most}"), ours.map(|ours| ours <= most)),
                Limit::TimesRelay(times) => (format!("≤ {times} × relay"), over_relay.map(|over| over <= times)),
            };
            let mark = match held {
                None => "",
                Some(true) => "ok",
                Some(false) => "OVER",
            };
            say!(
                "{title:<31}{:<13}{numbers}{:>9}{:>9}  {limit:<14} {mark}",
                unit,
                over_direct.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                over_relay.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            );
            match held {
                None => {}
                Some(true) => self.held += 1,
                Some(false) => self.over.push(format!("{name} ({})", unit)),
            }
            title = "";
        }
    }

    pub fn failure(&mut self, name: &str, kind: Kind, why: &std::io::Error) {
        let line = format!("{name}, {}: {why}", kind.name());
        say!("FAILED  {line}");
        self.failed.push(line);
    }

    /// What a process said last, to explain a failure.
    pub fn said(&self, text: &str) {
        for line in text.lines() {
            say!("        {line}");
        }
    }

    /// Whether everything ran; limits do not matter for that.
    pub fn end(&self) -> bool {
        let over = self.over.len();
        say!("\n{} of {} limits held", self.held, self.held + over);
        for name in &self.over {
            say!("OVER    {name}");
        }
        for line in &self.failed {
            say!("FAILED  {line}");
        }
        self.failed.is_empty()
    }
}

fn ratio(ours: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(ours? / other?).filter(|ratio| ratio.is_finite())
}

fn shown(number: Option<f64>) -> String {
    match number {
        None => "-".into(),
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) if number >= 10.0 => format!("{number:.1}"),
        Some(number) => format!("{number:.3}"),
    }
}
