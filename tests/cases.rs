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

use sockguard::refusal::Refusal;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use support::binary::Guard;
use support::case::{self, Case, Group, Outcome};
use support::{function, routes};

#[test]
fn every_case_holds_as_a_function_call() {
    let mut failures = Vec::new();
    let cases = picked(&mut failures);
    for (group, members) in groups(cases.iter().filter(|case| !case.binary_only)) {
        match function::agent(group) {
            Ok(agent) => {
                members.iter().for_each(|case| settle(case, function::run(case, &agent), Run::Function, &mut failures))
            }
            Err(problem) => failures.push(format!("{}\n  {problem}", members[0].sentence)),
        }
    }
    report(&failures, cases.len());
}

#[test]
fn every_case_holds_through_the_binary() {
    /// A guard takes so many cases, one after the other.
    const CASES: usize = 60;
    /// So many guards at once: they wait most of the time.
    const GUARDS: usize = 6;
    let mut failures = Vec::new();
    let cases = picked(&mut failures);
    // The binary's guards have a fixed identity.
    let groups = groups(cases.iter().filter(|case| case.caller.is_none()));
    let parts = groups.iter().flat_map(|(group, members)| members.chunks(CASES).map(|part| (*group, part.to_vec())));
    let parts = Mutex::new(parts.collect::<Vec<(&Group, Vec<&Case>)>>());
    let failures = Mutex::new(failures);
    std::thread::scope(|scope| {
        for _ in 0..GUARDS {
            scope.spawn(|| {
                loop {
                    let Some((group, members)) = parts.lock().unwrap().pop() else { return };
                    let mut found = Vec::new();
                    match Guard::start(group, members[0]) {
                        Ok(guard) => {
                            members.iter().for_each(|case| settle(case, guard.run(case), Run::Binary, &mut found));
                        }
                        Err(problem) => found.push(format!("{}\n  {problem}", members[0].sentence)),
                    }
                    failures.lock().unwrap().append(&mut found);
                }
            });
        }
    });
    report(&failures.into_inner().unwrap(), cases.len());
}

#[test]
fn every_kind_of_refusal_has_a_case() {
    let (message, what) = (String::new, String::new);
    let kinds = [
        Refusal::NotAllowed { what: what(), value: String::new(), key: "", hint: String::new() },
        Refusal::Unknown { what: what() },
        Refusal::Absent { message: message() },
        Refusal::Unavailable { message: message() },
        Refusal::Conflict { message: message() },
        Refusal::Forbidden { message: message() },
        Refusal::Rejected { message: message() },
        Refusal::Reported { begun: String::new(), message: message() },
        Refusal::Malformed { message: message() },
        Refusal::TooLarge { message: message() },
        Refusal::Engine { message: message() },
    ];
    let (cases, _) = case::load("");
    for kind in kinds {
        // A new kind belongs into the list above.
        match kind {
            // Of connections, not of requests: `src/identity.rs` has its tests.
            Refusal::Stranger { .. } => continue,
            Refusal::NotAllowed { .. }
            | Refusal::Unknown { .. }
            | Refusal::Absent { .. }
            | Refusal::Unavailable { .. }
            | Refusal::Conflict { .. }
            | Refusal::Forbidden { .. }
            | Refusal::Rejected { .. }
            | Refusal::Reported { .. }
            | Refusal::Malformed { .. }
            | Refusal::TooLarge { .. }
            | Refusal::Engine { .. } => {}
        }
        assert!(cases.iter().any(|case| case.code() == Some(kind.code())), "no case is refused as {}", kind.code());
    }
}

#[test]
fn every_endpoint_has_a_case() {
    let (cases, _) = case::load("");
    report(&routes::without_case(&cases), cases.len());
}

#[test]
fn a_case_that_says_what_cannot_be_is_no_case() {
    let fine = r#"{"why":"w","request":{"line":"GET /info"},"expect":{"forward":[{"line":"GET /info"}]}}"#;
    let read = |text: &str| case::parse(text, Path::new("x.json"), "x".to_owned()).map(|case| case.sentence);
    assert_eq!(read(fine), Ok("x".to_owned()));
    for (right, wrong, problem) in [
        ("\"why\"", "\"wy\"", "a case says why"),
        ("\"request\"", "\"reqest\"", "a case has a request"),
        ("\"line\":\"GET /info\"},\"e", "\"lin\":\"GET /info\"},\"e", "a request has a line"),
        ("\"expect\"", "\"expects\"", "the case has no field `expects`"),
        ("\"forward\"", "\"forwards\"", "expect says refuse, answer or forward"),
        ("[{\"line\"", "[{\"lien\"", "expect.forward[] has a line"),
        ("{\"why\"", "{\"engine\":{\"imags\":{}},\"why\"", "engine has no field `imags`"),
        ("{\"why\"", "{\"engine\":{\"images\":{\"a\":{\"ownr\":\"me\"}}},\"why\"", "a has no field `ownr`"),
        (
            "{\"why\"",
            "{\"host\":{\"/a\":\"there\"},\"why\"",
            "a host path is fine, missing, link or unseen, not \"there\"",
        ),
        ("{\"why\"", "{\"run\":\"function\",\"why\"", "run: `function` is not `binary`"),
    ] {
        assert_eq!(read(&fine.replacen(right, wrong, 1)), Err(problem.to_owned()), "{wrong}");
    }
}

/// Cases by the settings of their guard.
fn groups<'a>(cases: impl Iterator<Item = &'a Case>) -> BTreeMap<&'a Group, Vec<&'a Case>> {
    let mut groups: BTreeMap<&Group, Vec<&Case>> = BTreeMap::new();
    cases.for_each(|case| groups.entry(&case.group).or_default().push(case));
    groups
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

/// The two ways to run a case.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Function,
    Binary,
}

/// Compares what came with what was expected, or writes it down: what the function says, where it can say it.
fn settle(case: &Case, outcome: Result<Outcome, String>, run: Run, failures: &mut Vec<String>) {
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problem) => return failures.push(format!("{}\n  {problem}", case.sentence)),
    };
    if std::env::var_os("BLESS").is_some() && (run == Run::Function || case.binary_only) {
        return case.bless(&outcome);
    }
    let (expected, came) = (case.expected(), outcome.rendered());
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
