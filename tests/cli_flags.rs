//! The command line by the rules of Go's `flag` package, and what is made of it. Nothing here touches an engine.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use sockguard::cli::flags::{self, Words};
use sockguard::cli::{self, Command, Surroundings};
use sockguard::config::{Config, Identity, Listener};
use sockguard::listen::Permissions;
use sockguard::policy::Policy;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

fn words(line: &[&str]) -> Vec<String> {
    line.iter().map(ToString::to_string).collect()
}

/// What Go's `flag.Parse` makes of these lines, with two differences: a word that is left over is an error here (the
/// original dropped it silently, and with it all flags behind it), and the error's text goes on with a hint.
#[test]
fn flags_are_read_as_go_reads_them() {
    type Expected = Result<&'static [(&'static str, &'static str)], &'static str>;
    let cases: &[(&[&str], Expected)] = &[
        (&[], Ok(&[])),
        (&["-filename", "x"], Ok(&[("filename", "x")])),
        (&["-filename=x"], Ok(&[("filename", "x")])),
        (&["--filename", "x"], Ok(&[("filename", "x")])),
        (&["--filename=x"], Ok(&[("filename", "x")])),
        (&["-filename="], Ok(&[("filename", "")])),
        (&["-filename", ""], Ok(&[("filename", "")])),
        (&["-filename==x"], Ok(&[("filename", "=x")])),
        (&["-filename=a=b"], Ok(&[("filename", "a=b")])),
        (&["-filename", "-debug"], Ok(&[("filename", "-debug")])),
        (&["-filename", "--"], Ok(&[("filename", "--")])),
        (&["-filename", "-"], Ok(&[("filename", "-")])),
        (&["-filename", "a", "-filename", "b"], Ok(&[("filename", "b")])),
        (&["-uid", "-1"], Ok(&[("uid", "-1")])),
        (&["-debug"], Ok(&[("debug", "true")])),
        (&["--debug"], Ok(&[("debug", "true")])),
        (&["-debug=true"], Ok(&[("debug", "true")])),
        (&["-debug=T"], Ok(&[("debug", "T")])),
        (&["-debug=0"], Ok(&[("debug", "0")])),
        (&["-debug", "-filename", "x"], Ok(&[("debug", "true"), ("filename", "x")])),
        (&["-debug", "--"], Ok(&[("debug", "true")])),
        (&["--"], Ok(&[])),
        (&["-allow-bind", "/a,/b:ro"], Ok(&[("allow-bind", "/a,/b:ro")])),
        (&["-debug", "false"], Err("unexpected word `false`")),
        (&["-debug", "x", "-filename", "y"], Err("unexpected word `x`")),
        (&["--", "x"], Err("unexpected word `x`")),
        (&["-debug", "-"], Err("unexpected word `-`")),
        (&["-debug="], Err("-debug: `` is no boolean")),
        (&["-debug=yes"], Err("-debug: `yes` is no boolean")),
        (&["-debug=tRUE"], Err("-debug: `tRUE` is no boolean")),
        (&["-filename"], Err("flag needs an argument: -filename")),
        (&["---filename", "x"], Err("bad flag syntax: ---filename")),
        (&["-=x"], Err("bad flag syntax: -=x")),
        (&["--=x"], Err("bad flag syntax: --=x")),
        (&["-Filename", "x"], Err("flag provided but not defined: -Filename (did you mean -filename?)")),
        (&["-file", "x"], Err("flag provided but not defined: -file")),
        (&["-debug=1", "-nonsense"], Err("flag provided but not defined: -nonsense")),
        (&["-f=x"], Err("flag provided but not defined: -f")),
    ];
    for (line, expected) in cases {
        match (flags::parse(flags::FLAGS, &words(line)), expected) {
            (Ok(Words::Flags(given)), Ok(pairs)) => {
                let wanted: BTreeMap<&str, String> = pairs.iter().map(|(k, v)| (*k, v.to_string())).collect();
                assert_eq!(given, wanted, "{line:?}");
            }
            (Err(text), Err(start)) => assert!(text.starts_with(start), "{line:?}: {text}"),
            (found, expected) => panic!("{line:?}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn every_flag_has_a_variable_and_the_flag_wins() {
    for flag in flags::FLAGS {
        let value = match flag.takes {
            flags::Takes::Switch => "false",
            flags::Takes::Value(_) => "from the environment",
        };
        let wanted = format!("SOCKGUARD_{}", flag.name.to_uppercase().replace('-', "_"));
        let environment = |name: &str| (name == wanted).then(|| value.to_owned());
        let mut given = flags::Given::new();
        flags::from_environment(flags::FLAGS, &mut given, environment).expect("it is well-formed");
        assert_eq!(given.get(flag.name).map(String::as_str), Some(value), "{}", flag.name);
        let mut given = flags::Given::from([(flag.name, "from the flag".to_owned())]);
        flags::from_environment(flags::FLAGS, &mut given, environment).expect("it is well-formed");
        assert_eq!(given.get(flag.name).map(String::as_str), Some("from the flag"), "{}", flag.name);
    }
    let mut given = flags::Given::new();
    flags::from_environment(flags::FLAGS, &mut given, |name| (name == "SOCKGUARD_USER").then(String::new))
        .expect("an empty one is none");
    assert!(given.is_empty());
    let odd = |name: &str| (name == "SOCKGUARD_DEBUG").then(|| "maybe".to_owned());
    assert_eq!(
        flags::from_environment(flags::FLAGS, &mut given, odd),
        Err("SOCKGUARD_DEBUG: `maybe` is no boolean: expected true or false".to_owned())
    );
}

#[test]
fn commands_come_first_and_serve_is_implied() {
    let command = |line: &[&str]| cli::command(line.iter().map(Into::into), |_| None);
    assert!(matches!(command(&[]), Ok(Command::Serve(_))));
    assert!(matches!(command(&["-debug"]), Ok(Command::Serve(_))));
    assert!(matches!(command(&["serve", "-debug"]), Ok(Command::Serve(_))));
    assert!(matches!(command(&["check"]), Ok(Command::Check(_))));
    assert!(matches!(command(&["health", "--filename=x"]), Ok(Command::Health(_))));
    assert!(matches!(command(&["reap", "--owner=x", "-dry-run"]), Ok(Command::Reap(_))));
    assert!(matches!(command(&["reap", "--help"]), Ok(Command::Help)));
    for line in [&["-help"][..], &["-h"], &["--help"], &["help"], &["check", "--help"]] {
        assert!(matches!(command(line), Ok(Command::Help)), "{line:?}");
    }
    assert!(matches!(command(&["--version"]), Ok(Command::Version)));
    for (line, text) in [
        (&["helth"][..], "unknown command `helth` (did you mean `health`?): there are serve, check, health, reap"),
        (&["reap", "-owner", "x", "-policy", "y"], "flag provided but not defined: -policy"),
        (&["serve", "-dry-run"], "flag provided but not defined: -dry-run"),
        (&["-debug", "serve"], "unexpected word `serve` after the flags"),
    ] {
        let failure = command(line).expect_err("it is wrong");
        assert_eq!(failure.status(), 2);
        assert!(failure.lines().concat().contains(text), "{failure:?}");
    }
}

#[test]
fn reaping_needs_an_owner() {
    let settings = |line: &[&str]| {
        let Ok(Command::Reap(given)) = cli::command(line.iter().map(Into::into), |_| None) else {
            panic!("{line:?} is a command line");
        };
        let around = Surroundings { pid: 7, docker_host: None, variables: Vec::new() };
        cli::reap::settings(&given, &around).map_err(|failure| (failure.status(), failure.lines().concat()))
    };
    let found = settings(&["reap", "-owner", "me", "-dry-run", "-upstream-socket", "unix:///x.sock"]).expect("fine");
    assert_eq!((found.owner.as_str(), found.upstream.to_str()), ("me", Some("/x.sock")));
    assert_eq!(found.way, cli::reap::Way::DryRun);
    for (line, text) in [
        (&["reap"][..], "-owner is needed"),
        (&["reap", "-owner", "a b"], "-owner: `a b` is no owner"),
        (&["reap", "-owner", "a", "-upstream-socket", "tcp://x"], "-upstream-socket: `tcp://x` is no Unix socket"),
    ] {
        let (status, found) = settings(line).expect_err("it is wrong");
        assert!(status == 2 && found.contains(text), "{line:?}: {found}");
    }
}

fn settings(line: &[&str]) -> Result<cli::Settings, Vec<String>> {
    let Ok(Command::Serve(given)) = cli::command(line.iter().map(Into::into), |_| None) else {
        panic!("{line:?} is a command line");
    };
    let around = Surroundings { pid: 7, docker_host: None, variables: Vec::new() };
    cli::settings(&given, &around).map_err(|failure| {
        assert_eq!(failure.status(), 2);
        failure.lines()
    })
}

/// The one agent beside a socket that these flags make.
struct One {
    upstream: PathBuf,
    socket: PathBuf,
    socket_on_host: PathBuf,
    permissions: Permissions,
    owner: String,
    policy: Rc<Policy>,
}

fn one(line: &[&str]) -> One {
    let Config { upstream, listeners, .. } = settings(line).expect("it is fine").config;
    let Ok([Listener { socket, socket_on_host, permissions, identity }]) = <[Listener; 1]>::try_from(listeners) else {
        panic!("one listener")
    };
    let Identity::Fixed { owner, policy } = identity else { panic!("it is fixed") };
    One { upstream, socket, socket_on_host, permissions, owner, policy }
}

#[test]
fn defaults_are_the_originals() {
    let found = one(&[]);
    assert!(found.socket.ends_with("sockguard.sock") && found.socket.is_absolute());
    assert_eq!((found.permissions.mode, found.permissions.uid, found.permissions.gid), (0o600, None, None));
    assert_eq!(found.upstream.to_str(), Some("/var/run/docker.sock"));
    assert_eq!(found.owner, "sockguard-pid-7");
    assert_eq!(found.policy.name, "ci-agent");
    assert!(found.policy.bind.roots.is_empty());
    assert_eq!(found.socket_on_host, found.socket);
}

#[test]
fn flags_refine_the_policy() {
    let found = one(&[
        "-policy",
        "original",
        "-allow-bind",
        "/srv/a,/srv/b:ro",
        "-allow-host-mode-networking",
        "-cgroup-parent",
        "/ci",
        "-user",
        "1000:1000",
        "-docker-link",
        "proxy:www",
        "-unverified-binds",
        "-owner-label",
        "me",
        "-mode",
        "0660",
        "-uid",
        "12",
        "-gid",
        "0",
        "-socket-on-host",
        "/run/x.sock",
    ]);
    let policy = found.policy;
    let roots: Vec<_> =
        policy.bind.roots.iter().map(|root| format!("{} {:?}", root.path.display(), root.access)).collect();
    assert_eq!(roots, ["/srv/a Rw", "/srv/b Ro"]);
    assert!(policy.container.host_network && policy.bind.unverified_binds);
    assert_eq!(policy.container.cgroup_parent.as_deref(), Some("/ci"));
    assert_eq!(policy.container.user.as_deref(), Some("1000:1000"));
    assert_eq!(policy.container.link.as_deref(), Some("proxy:www"));
    assert_eq!((found.permissions.mode, found.permissions.uid, found.permissions.gid), (0o660, Some(12), Some(0)));
    assert_eq!(found.socket_on_host.to_str(), Some("/run/x.sock"));
    let found = one(&["-container-join-network", "proxy", "-container-join-network-alias", "www"]);
    assert_eq!(found.policy.network.join_container.as_deref(), Some("proxy"));
    assert_eq!(found.policy.network.join_alias.as_deref(), Some("www"));
}

#[test]
fn wrong_settings_are_refused_with_their_reason() {
    for (line, text) in [
        (
            &["-mode", "600"][..],
            "-mode: `600` is not within 0 and 0777 (an octal number starts with a 0: did you mean 0600?)",
        ),
        (&["-mode", "u=rw"], "-mode: `u=rw` is no integer: expected a number such as 0600"),
        (&["-mode", "01777"], "-mode: `01777` is not within 0 and 0777"),
        (&["-mode", "-1"], "-mode: `-1` is not within 0 and 0777"),
        (&["-uid", "root"], "-uid: `root` is no numeric ID (-1: that of the process)"),
        (&["-gid", "-2"], "-gid: `-2` is no numeric ID (-1: that of the process)"),
        (&["-uid", "4294967295"], "-uid: `4294967295` is no numeric ID (-1: that of the process)"),
        (&["-owner-label", "a b"], "-owner-label: `a b` is no owner"),
        (
            &["-policy", "ci-agnet"],
            "ci-agnet: no such file, and no policy of that name (did you mean `ci-agent`? there are: buildkite, ci-agent, ecs-agent, original, read-only)",
        ),
        (&["-policy", "/"], "/: not a regular file"),
        (&["-allow-bind", "builds"], "-allow-bind: `builds` is not an absolute path"),
        (&["-allow-bind", "/srv/../etc"], "-allow-bind: `/srv/../etc` is not an absolute path"),
        (
            &["-allow-bind", "/srv/"],
            "-allow-bind: `/srv/` is not an absolute path without `.`, `..`, `//` or a trailing slash: did you mean /srv?",
        ),
        (&["-allow-bind", "/srv,"], "-allow-bind: `` is not an absolute path"),
        (&["-allow-bind", "/srv:rx"], "-allow-bind: `/srv:rx`: expected `:ro` or `:rw` after the path"),
        (&["-allow-bind", "/"], "-allow-bind: `/` is the whole host"),
        (
            &["-allow-bind", "/var/run", "-upstream-socket", "/var/run/docker.sock"],
            "bind root /var/run: the engine's socket /var/run/docker.sock lies below it",
        ),
        (
            &["-upstream-socket", "tcp://1.2.3.4:2375"],
            "-upstream-socket: `tcp://1.2.3.4:2375` is no Unix socket: expected a path",
        ),
        (
            &["-upstream-socket", "./sockguard.sock"],
            "-upstream-socket: `./sockguard.sock` is the guarded socket itself",
        ),
        (
            &["-filename", "/var/run/docker.sock"],
            "-upstream-socket is needed: the guarded socket takes the engine's usual place",
        ),
        (&["-filename", "/"], "-filename: `/` is no path of a file"),
        (
            &["-docker-link", "a", "-container-join-network", "b"],
            "-docker-link and -container-join-network exclude each other",
        ),
        (&["-container-join-network-alias", "x"], "-container-join-network-alias needs -container-join-network"),
        (&["-docker-link", "a:b:c"], "-docker-link: `a:b:c` is not CONTAINER or CONTAINER:ALIAS"),
        (&["-container-join-network", "../x"], "-container-join-network: `../x` is no name of a container"),
        (&["-cgroup-parent", "/ci/../x"], "-cgroup-parent: `/ci/../x` is no cgroup"),
        (&["-socket-on-host", "x.sock"], "-socket-on-host: `x.sock` is not an absolute path"),
        (&["-log-format", "yaml"], "-log-format: `yaml` is none of text, json and auto"),
    ] {
        let lines = settings(line).expect_err("it is wrong");
        assert!(lines.iter().any(|found| found.contains(text)), "{line:?}: {lines:#?}");
    }
    let many = settings(&["-mode", "x", "-uid", "x", "-owner-label", " "]).expect_err("all of it is wrong");
    assert_eq!(many.len(), 3, "{many:?}");
}

#[test]
fn the_engine_is_found_through_docker_host_but_never_in_the_guarded_socket() {
    // Where the usual socket exists, it is taken first.
    if std::path::Path::new(sockguard::config::USUAL_UPSTREAM).exists() {
        return;
    }
    let upstream = |docker_host: &str, filename: &str| {
        let given = flags::Given::from([("filename", filename.to_owned())]);
        let around = Surroundings { pid: 7, docker_host: Some(docker_host.to_owned()), variables: Vec::new() };
        cli::settings(&given, &around).expect("it is fine").config.upstream
    };
    assert_eq!(upstream("unix:///tmp/other.sock", "x").to_str(), Some("/tmp/other.sock"));
    assert_eq!(upstream("unix:///tmp/x.sock", "/tmp/x.sock").to_str(), Some(sockguard::config::USUAL_UPSTREAM));
    assert_eq!(upstream("unix:///tmp/../tmp/x.sock", "/tmp/x.sock").to_str(), Some(sockguard::config::USUAL_UPSTREAM));
    assert_eq!(upstream("tcp://1.2.3.4:2375", "x").to_str(), Some(sockguard::config::USUAL_UPSTREAM));
}

#[test]
fn with_a_configuration_three_flags_are_left() {
    let found =
        settings(&["-config", "ecs-daemon", "-upstream-socket", "unix:///run/x.sock", "-debug", "-log-format", "text"]);
    let found = found.expect("it is fine").config;
    assert_eq!(found.upstream.to_str(), Some("/run/x.sock"));
    assert!(found.debug && found.log_format == Some(sockguard::audit::Format::Text));
    let found = settings(&["-config", "ecs-daemon"]).expect("it is fine").config;
    assert!(!found.debug && found.log_format == Some(sockguard::audit::Format::Json));
    let lines =
        settings(&["-config", "ecs-daemon", "-mode", "0600", "-allow-bind", "/srv"]).expect_err("they are stray");
    assert_eq!(
        lines.first().map(String::as_str),
        Some(
            "sockguard: with -config there is no -allow-bind (use `bind.roots` of the policy), no -mode (use `mode` of a [[listener]])"
        )
    );
    for flag in flags::HEALTH {
        let given = flags::Given::from([(flag.name, "x".to_owned())]);
        let told = flags::beside_config(&given);
        assert_eq!(
            told.is_none(),
            ["config", "upstream-socket", "log-format", "debug", "wait"].contains(&flag.name),
            "{told:?}"
        );
        assert!(!told.is_some_and(|told| told.contains("use the configuration")), "{}: say which key it is", flag.name);
    }
    for (line, text) in [
        (
            &["-config", "ecs-deamon"][..],
            "ecs-deamon: no such file, and no configuration of that name (did you mean `ecs-daemon`?",
        ),
        (&["-config", "ecs-daemon", "-log-format", "yaml"], "-log-format: `yaml` is none of text, json and auto"),
        (&["-config", "ecs-daemon", "-upstream-socket", "tcp://x"], "-upstream-socket: `tcp://x` is no Unix socket"),
        (
            &["-config", "ecs-daemon", "-upstream-socket", "/run/sockguard/docker.sock"],
            "config/ecs-daemon.toml:12:10: listener.socket: `/run/sockguard/docker.sock` is the engine's socket",
        ),
    ] {
        let lines = settings(line).expect_err("it is wrong");
        assert!(lines.iter().any(|found| found.contains(text)), "{line:?}: {lines:#?}");
    }
}

#[test]
fn a_mistyped_variable_is_told() {
    let names = ["SOCKGUARD_POLCY", "SOCKGUARD_POLICY", "SOCKGUARD_PORT_80_TCP", "PATH", "SOCKGUARD_ALOW_BIND"];
    let variables = names.map(str::to_owned).to_vec();
    let around = Surroundings { pid: 7, docker_host: None, variables };
    let notes = cli::settings(&flags::Given::new(), &around).expect("it is fine").notes;
    let told: Vec<_> = notes.iter().filter(|note| note.contains("environment")).collect();
    assert_eq!(
        told,
        [
            "the environment variable SOCKGUARD_POLCY is not known: did you mean SOCKGUARD_POLICY?",
            "the environment variable SOCKGUARD_ALOW_BIND is not known: did you mean SOCKGUARD_ALLOW_BIND?",
        ]
    );
}

#[test]
fn the_help_has_every_flag_and_fits_a_terminal() {
    let help = cli::help();
    for flag in flags::HEALTH.iter().chain(cli::reap::FLAGS) {
        assert!(help.contains(&format!("  -{}", flag.name)), "{}", flag.name);
    }
    for line in help.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
}
