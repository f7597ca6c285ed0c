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
    /// The same, and one that tells who connects takes at most this many times as much.
    TimesRelayAndFixed(f64, f64),
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
        median(self.0[kind as usize].iter().copied())
    }

    /// How many times another's number sockguard's is: the median over the rounds, each compared with itself. What
    /// disturbs a whole round disturbs both.
    fn ratio(&self, other: Kind) -> Option<f64> {
        self.between(Kind::Sockguard, other)
    }

    fn between(&self, one: Kind, other: Kind) -> Option<f64> {
        let rounds = self.0[one as usize].iter().zip(&self.0[other as usize]);
        median(rounds.map(|(one, other)| one / other))
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
        say!("{:<31}{:<13}{kinds}{:>9}{:>9}{:>9}  limit", "", "", "× direct", "× relay", "peers");
    }

    /// One line for each measure of a case.
    pub fn case(&mut self, name: &str, measures: &[Measure], samples: &[Samples]) {
        let mut title = name;
        for (measure, samples) in measures.iter().zip(samples) {
            let (Measure::Seen(unit, limit) | Measure::Taken(unit, limit)) = *measure;
            let ours = samples.median(Kind::Sockguard);
            let (direct, over_direct) = match measure {
                Measure::Seen(..) => (samples.median(Kind::Direct), samples.ratio(Kind::Direct)),
                Measure::Taken(..) => (None, None),
            };
            let over_relay = samples.ratio(Kind::Relay);
            let (peers, over_fixed) = (samples.median(Kind::Peers), samples.between(Kind::Peers, Kind::Sockguard));
            let numbers: String = [direct, samples.median(Kind::Relay), samples.median(Kind::RelayTwo), ours, peers]
                .map(|number| format!("{:>11}", shown(number)))
                .concat();
            let (limit, held) = match limit {
                Limit::Open => (String::new(), None),
                Limit::AtMost(most) => (format!("≤ {most}"), ours.map(|ours| ours <= most)),
                Limit::TimesRelay(times) => (format!("≤ {times} × relay"), over_relay.map(|over| over <= times)),
                Limit::TimesRelayAndFixed(times, fixed) => (
                    format!("≤ {times} × relay, peers ≤ {fixed} × sockguard"),
                    over_relay.zip(over_fixed).map(|(over, peers)| over <= times && peers <= fixed),
                ),
            };
            let mark = match held {
                None => "",
                Some(true) => "ok",
                Some(false) => "OVER",
            };
            say!(
                "{title:<31}{:<13}{numbers}{:>9}{:>9}{:>9}  {limit:<14} {mark}",
                unit,
                over_direct.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                over_relay.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                over_fixed.map(|ratio| format!("× {ratio:.2}")).unwrap_or_default(),
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

fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<_> = numbers.filter(|number| number.is_finite()).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}

fn shown(number: Option<f64>) -> String {
    match number {
        None => "-".into(),
        Some(number) if number >= 100.0 => format!("{number:.0}"),
        Some(number) if number >= 10.0 => format!("{number:.1}"),
        Some(number) => format!("{number:.3}"),
    }
}
