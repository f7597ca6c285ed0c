//! Policies that must not load, each with the exact text that says why beside it; and the ready ones, which must.
//! `BLESS=1` writes the texts anew: read the diff.
#![allow(clippy::expect_used, reason = "tests")]

use sockguard::policy::{EMBEDDED, Policy};
use std::path::Path;

#[test]
fn bad_policies_are_refused_with_their_text() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut names: Vec<String> = std::fs::read_dir("tests/bad_policies")
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be read").path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 20, "{} are too few", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let found = match Policy::load(name) {
            Ok(_) => "it loads\n".to_owned(),
            Err(lines) => lines.join("\n") + "\n",
        };
        let path = Path::new(name).with_extension("err");
        if bless {
            std::fs::write(&path, &found).expect("it can be written");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if found != expected || found == "it loads\n" {
            wrong.push(format!("{name}\nexpected:\n{expected}found:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ready_policies_load_by_name_and_as_files() {
    for (name, text) in EMBEDDED {
        let file = format!("policies/{name}.toml");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), text, "{name}: built in as it is");
        let by_name = Policy::load(name).expect("it loads");
        let by_file = Policy::load(&file).expect("it loads");
        assert_eq!(by_name.name, name);
        assert_eq!(format!("{by_name:?}"), format!("{by_file:?}"));
        assert!(!by_name.description.is_empty(), "{name} says what it is for");
        assert!(text.lines().count() <= 40, "{name} fits on a screen");
    }
    let files = std::fs::read_dir("policies").expect("the directory is there").count();
    assert_eq!(files, EMBEDDED.len(), "every policy is built in");
}

#[test]
fn ready_policies_grant_nothing_dangerous() {
    for (name, _) in EMBEDDED {
        let policy = Policy::load(name).expect("it loads");
        let container = policy.container;
        assert!(!container.privileged && !container.host_network && !container.host_pid, "{name}");
        assert!(!container.host_ipc && !container.host_uts && !container.device_requests, "{name}");
        assert!(container.add_capabilities.is_empty() && container.devices.is_empty(), "{name}");
        assert!(container.security_options.is_empty() && container.runtimes.is_empty(), "{name}");
        assert!(policy.bind.roots.is_empty() && !policy.bind.unverified_binds, "{name}");
        assert!(!policy.image.build_host_network && policy.volume.shared.is_empty(), "{name}");
    }
}

#[test]
fn an_empty_policy_grants_nothing() {
    let policy = Policy::parse("none", "none.toml", "").expect("it loads");
    assert_eq!(format!("{policy:?}"), format!("{:?}", Policy { name: "none".to_owned(), ..Policy::default() }));
}
