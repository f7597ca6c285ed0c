//! Configurations that must not load, each with the exact text that says why beside it; and the ready ones, which must.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use sockguard::config::{Config, EMBEDDED, Identity};
use sockguard::identity::Who;
use std::path::Path;
use std::time::Duration;

#[path = "support/golden.rs"]
mod golden;

#[test]
fn bad_configurations_are_refused_with_their_text() {
    golden::refused("tests/bad_configs", |file| Config::load(file, None));
}

#[test]
fn ready_configurations_load_by_name_and_as_files() {
    for (name, text) in EMBEDDED {
        let file = format!("config/{name}.toml");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), text, "{name}: built in as it is");
        let config = Config::load(name, None).expect("it loads");
        let copy = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
        std::fs::write(copy.path(), text).expect("it can be written");
        let by_file = Config::load(&copy.path().to_string_lossy(), None).expect("it names no other files");
        assert_eq!(format!("{config:?}"), format!("{by_file:?}"));
    }
    let files = std::fs::read_dir("config").expect("the directory is there").count();
    assert_eq!(files, EMBEDDED.len(), "every configuration is built in");
}

#[test]
fn the_daemon_of_an_ecs_host_tells_agents_by_what_ecs_says() {
    let config = Config::load("ecs-daemon", None).expect("it loads");
    let [listener] = config.listeners.as_slice() else { panic!("one socket") };
    assert!(matches!(listener.identity, Identity::Peer));
    assert_eq!(listener.permissions.mode, 0o666);
    assert!(config.seal_key.is_some() && !config.agents.is_empty());
    for rule in &config.agents {
        let Who::Container { labels, .. } = &rule.who else { panic!("containers") };
        assert!(labels.iter().all(|(key, _)| key.starts_with("com.amazonaws.ecs.")), "nobody but ECS says it");
        assert!(rule.owner.needs_container());
    }
}

#[test]
fn what_a_file_does_not_say_is_the_usual() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("c.toml");
    std::fs::write(directory.path().join("own.toml"), "description = \"own\"\n").expect("it can be written");
    let text = r#"
seal-key = "/var/lib/sockguard/seal.key"
[[listener]]
socket = "/run/sockguard/docker.sock"
identity = "peer"
[[listener]]
socket = "/run/own/docker.sock"
socket-on-host = "/srv/own/docker.sock"
mode = "0660"
uid = 0
gid = 12
identity = "fixed"
owner = "me"
policy = "own.toml"
[[agent]]
compose = { project = "ci", service = "agent-*" }
labels = { "com.example.team" = "x" }
image = "acme/agent:*"
owner = "{container.name}"
policy = "own.toml"
[[agent]]
uid = 1000
owner = "user-{uid}"
policy = "ci-agent"
"#;
    std::fs::write(&file, text).expect("it can be written");
    let config = Config::load(&file.to_string_lossy(), None).expect("it loads");
    assert_eq!(config.upstream.to_str(), Some("/var/run/docker.sock"));
    assert!(config.log_format.is_none() && !config.debug && !config.reap.images);
    assert_eq!(config.reap.grace, Duration::from_secs(30));
    let [peer, fixed] = config.listeners.as_slice() else { panic!("two listeners") };
    assert_eq!((peer.permissions.mode, peer.permissions.uid, &peer.socket_on_host), (0o600, None, &peer.socket));
    assert_eq!(fixed.socket_on_host.to_str(), Some("/srv/own/docker.sock"));
    assert_eq!((fixed.permissions.mode, fixed.permissions.uid, fixed.permissions.gid), (0o660, Some(0), Some(12)));
    let Identity::Fixed { owner, policy } = &fixed.identity else { panic!("it is fixed") };
    assert_eq!((owner.as_str(), policy.name.as_str(), policy.description.as_str()), ("me", "own", "own"));
    let who: Vec<String> = config.agents.iter().map(|rule| rule.who.to_string()).collect();
    assert_eq!(
        who,
        [
            "containers with com.example.team=x, com.docker.compose.project=ci, com.docker.compose.service=agent-* of acme/agent:*",
            "processes of user 1000",
        ]
    );
    // The flag goes before the file, and is checked as the file's own.
    let upstream = Config::load(&file.to_string_lossy(), Some(Path::new("/run/x.sock"))).expect("it loads").upstream;
    assert_eq!(upstream.to_str(), Some("/run/x.sock"));
    let lines = Config::load(&file.to_string_lossy(), Some(Path::new("/run/own/docker.sock"))).expect_err("it is one");
    assert_eq!(
        lines,
        [format!("{}:7:10: listener.socket: `/run/own/docker.sock` is the engine's socket", file.display())]
    );
}
