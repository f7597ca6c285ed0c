//! Policies that must not load, each with the exact text that says why beside it; and the ready ones, which must.
#![allow(clippy::expect_used, reason = "tests")]

use sockguard::policy::{EMBEDDED, Policy};

#[path = "support/golden.rs"]
mod golden;

#[test]
fn bad_policies_are_refused_with_their_text() {
    golden::refused("tests/bad_policies", Policy::load);
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
