//! Lengths of time, as people write them.

use std::time::Duration;

const UNITS: [(&str, f64); 8] =
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("μs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads a length of time by the rules of Go's `time.ParseDuration`: numbers with units, such as `30s` or `1m30s`. None
/// is negative.
///
/// # Errors
/// One sentence that says what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let read = match text.strip_prefix('+').unwrap_or(text) {
        "0" => Some(Duration::ZERO),
        "" => None,
        parts => sum(parts),
    };
    read.ok_or_else(|| format!("`{}` is no duration: expected such as \"30s\", \"5m\" or \"1h\"", text.escape_debug()))
}

fn sum(mut parts: &str) -> Option<Duration> {
    let of_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut sum = Duration::ZERO;
    while !parts.is_empty() {
        let (number, rest) = parts.split_at(parts.find(|c| !of_number(c))?);
        let (unit, rest) = rest.split_at(rest.find(of_number).unwrap_or(rest.len()));
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: f64 = number.parse().ok()?;
        sum = sum.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        parts = rest;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("120s", Some(120_000)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("1.5h", Some(5_400_000)),
            (".5s", Some(500)),
            ("5.s", Some(5_000)),
            ("250ms", Some(250)),
            ("5000us", Some(5)),
            ("5000µs", Some(5)),
            ("5000000ns", Some(5)),
            ("+1s", Some(1_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("+", None),
            ("120", None),
            ("-1s", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("1d", None),
            ("1 s", None),
            ("1s ", None),
            ("1e3s", None),
            ("infs", None),
            ("1s30", None),
            ("99999999999999999999999h", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
