//! Table cases as files. The path of a file is a sentence, the file is the whole world of the case: what the engine
//! has, what the client asks, and all that comes of it. Each case runs twice: as a function call, and through the
//! built binary with an engine that records what arrives.
//!
//! `CASE=text` picks the cases whose path has the text; `BLESS=1` writes what came into `expect`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use support::binary::Guard;
use support::case::{self, Case, Group};
use support::{function, routes};

#[test]
fn every_case_holds_as_a_function_call() {
    let mut failures = Vec::new();
    let cases = picked(&mut failures);
    for case in cases.iter().filter(|case| !case.binary_only) {
        settle(case, function::run(case), true, &mut failures);
    }
    report(&failures, cases.len());
}

#[test]
fn every_case_holds_through_the_binary() {
    let mut failures = Vec::new();
    let cases = picked(&mut failures);
    let mut groups: BTreeMap<&Group, Vec<&Case>> = BTreeMap::new();
    for case in &cases {
        groups.entry(&case.group).or_default().push(case);
    }
    for (group, members) in groups {
        match Guard::start(group, members[0]) {
            Ok(guard) => members.iter().for_each(|case| settle(case, guard.run(case), false, &mut failures)),
            Err(problem) => failures.push(format!("{}\n  {problem}", members[0].sentence)),
        }
    }
    report(&failures, cases.len());
}

#[test]
fn every_endpoint_of_the_api_stands_in_routes_txt_and_is_decided_as_it_says() {
    report(&routes::problems(), 0);
}

/// The cases, as far as they can be read.
fn picked(failures: &mut Vec<String>) -> Vec<Case> {
    let wanted = std::env::var("CASE").unwrap_or_default();
    let (cases, problems) = case::load(&wanted);
    failures.extend(problems);
    assert!(!cases.is_empty() || !failures.is_empty(), "no case's path has `{wanted}`");
    cases
}

/// Compares what came with what was expected, or writes it down.
fn settle(case: &Case, outcome: Result<case::Outcome, String>, with_code: bool, failures: &mut Vec<String>) {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problem) => return failures.push(format!("{}\n  {problem}", case.sentence)),
    };
    if std::env::var_os("BLESS").is_some() && (with_code || case.binary_only) {
        return case.bless(&outcome);
    }
    let (expected, came) = (case.expected(with_code), outcome.rendered(with_code));
    if expected != came {
        let mut text = case.sentence.clone();
        for line in difference(&expected, &came) {
            let _ = write!(text, "\n  {line}");
        }
        failures.push(text);
    }
}

/// The lines that differ, marked.
fn difference(expected: &str, came: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), came.lines().collect());
    let mut out = Vec::new();
    out.extend(old.iter().filter(|line| !new.contains(line)).map(|line| format!("expected {line}")));
    out.extend(new.iter().filter(|line| !old.contains(line)).map(|line| format!("came     {line}")));
    if out.is_empty() {
        out.push(format!("the same lines in another order:\n{came}"));
    }
    out
}

fn report(failures: &[String], of: usize) {
    assert!(failures.is_empty(), "{} of {of} failed:\n\n{}\n", failures.len(), failures.join("\n\n"));
}
