//! `routes.txt`: every endpoint of the Engine API, with what the default policy makes of it.

use super::case::{self, Case, Group};
use super::facts::Facts;
use super::function;
use hyper::Method;
use sockguard::json;
use sockguard::judge::Agent;
use sockguard::permit::Action;
use sockguard::refusal::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the engine of the examples has: an own object of each kind, all called `mine`.
const ENGINE: &str = r#"{
    "containers": { "mine": { "owner": "me" } },
    "images": { "mine/app": { "owner": "me" } },
    "networks": { "minenet": { "name": "mine", "owner": "me" } },
    "volumes": { "mine": { "owner": "me" } },
    "execs": { "mineexec": { "container": "mine" } }
}"#;

/// An endpoint of the facts: method and path.
type Endpoint = (String, String);

/// The endpoints of the Engine API, as the facts list them.
pub fn endpoints() -> Vec<Endpoint> {
    let mut out = Vec::new();
    for file in ["facts.txt", "unlisted.txt"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api").join(file);
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let mut words = line.split_whitespace();
            if words.next() == Some("endpoint") {
                out.push((words.next().unwrap().to_owned(), words.next().unwrap().to_owned()));
            }
        }
    }
    out
}

/// The endpoints of the facts that no case asks for.
pub fn without_case(cases: &[Case]) -> Vec<String> {
    let endpoint = |method: &str, path: &str| {
        let method: Method = method.parse().ok()?;
        let route = sockguard::route::parse(&method, path).ok()?.route;
        Some((method.to_string(), route.pattern()))
    };
    let asked: BTreeSet<(String, &str)> = cases
        .iter()
        .filter_map(|case| endpoint(&case.request.method, case.request.target.split('?').next().unwrap_or_default()))
        .collect();
    let example = |path: &str| path.replace("{id}", "x").replace("{name}", "x").replace("{checkpoint}", "x");
    let all = endpoints();
    let known = all.iter().filter_map(|(method, path)| endpoint(method, &example(path)));
    let missing = known.filter(|endpoint| !asked.contains(endpoint));
    missing.map(|(method, pattern)| format!("no case asks for {method} {pattern}")).collect()
}

/// What is wrong with `routes.txt`.
pub fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<Endpoint, usize> = BTreeMap::new();
    let text = std::fs::read_to_string(case::root().join("routes.txt")).unwrap();
    let facts = Facts::read(json::parse(ENGINE.as_bytes()).unwrap()).unwrap();
    let group =
        Group { policy: "ci-agent".to_owned(), flags: Vec::new(), owner: "me".to_owned(), api_version: (1, 41) };
    let agent = function::agent(&group).unwrap();
    for (i, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [method, pattern, example, word] = words.as_slice() else {
            problems.push(format!("line {}: expected METHOD PATTERN EXAMPLE granted|refused|made", i + 1));
            continue;
        };
        if seen.insert(((*method).to_owned(), (*pattern).to_owned()), i).is_some() {
            problems.push(format!("line {}: {method} {pattern} stands twice", i + 1));
        }
        for prefix in ["", "/v1.24", "/v1.41", "/v1.55"] {
            let came = decision(method, &facts.expand(&format!("{prefix}{example}")), &agent, &facts);
            if came.0 != *word {
                problems.push(format!(
                    "line {}: {method} {prefix}{example} is {} ({}), not {word}",
                    i + 1,
                    came.0,
                    came.1
                ));
            }
        }
    }
    for (method, path) in endpoints() {
        if !seen.contains_key(&(method.clone(), path.clone())) {
            problems.push(format!("no line for {method} {path}"));
        }
    }
    problems
}

/// What the default policy makes of a request without a body. One that lacks something, but not leave, is granted.
fn decision(method: &str, path: &str, agent: &Agent, facts: &Facts) -> (&'static str, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    match function::judge(&method, path, agent, facts) {
        Ok(permit) => match permit.action {
            Action::Send(_) => ("granted", String::new()),
            Action::Answer(status, _) => ("made", status.to_string()),
            Action::Progress(_) => ("made", "200".to_owned()),
        },
        Err(refusal) => {
            let word = match refusal {
                Refusal::Stranger { .. }
                | Refusal::NotAllowed { .. }
                | Refusal::Unknown { .. }
                | Refusal::Forbidden { .. } => "refused",
                Refusal::Unavailable { .. } | Refusal::Absent { .. } | Refusal::Reported { .. } => "made",
                Refusal::Malformed { .. }
                | Refusal::Rejected { .. }
                | Refusal::Conflict { .. }
                | Refusal::TooLarge { .. }
                | Refusal::Engine { .. } => "granted",
            };
            (word, refusal.message("ci-agent"))
        }
    }
}
