//! The guarded socket's file, and the binary around it: what appears where, with which mode, and what is refused.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

use sockguard::listen::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PRIVATE: Permissions = Permissions { mode: 0o600, uid: None, gid: None };

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A socket of a process that has gone. What another test starts at the same moment has a copy of the listening end until
/// it becomes its own program, so that the socket still answers for that long.
fn stale(path: &Path) {
    drop(UnixListener::bind(path).expect("it can be bound"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(path).is_ok() {
        assert!(Instant::now() < deadline, "nobody has it any more");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[test]
fn the_socket_has_its_final_mode_and_owner_and_nothing_else_is_left() {
    let directory = directory();
    let path = directory.path().join("s");
    for mode in [0o600, 0o660, 0o666, 0o000] {
        let (listener, file) = listen::listen(&path, Permissions { mode, ..PRIVATE }).expect("it listens");
        let found = std::fs::symlink_metadata(&path).expect("it is there");
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, mode);
        assert_eq!((found.uid(), found.gid()), (PRIVATE.owner(), PRIVATE.group()));
        assert_eq!(names(directory.path()), ["s"]);
        drop(listener);
        file.remove();
        assert!(names(directory.path()).is_empty());
    }
}

#[test]
fn the_owner_is_set_where_the_process_may() {
    if PRIVATE.owner() != 0 {
        return;
    }
    let directory = directory();
    let path = directory.path().join("s");
    let given = Permissions { mode: 0o640, uid: Some(1234), gid: Some(4321) };
    let _kept = listen::listen(&path, given).expect("it listens");
    let found = std::fs::metadata(&path).expect("it is there");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (1234, 4321, 0o640));
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = directory();
    let path = directory.path().join("s");
    stale(&path);
    let (first, file) = listen::listen(&path, PRIVATE).expect("the stale one is replaced");
    let told = listen::listen(&path, PRIVATE).expect_err("it is live");
    assert_eq!(told, format!("cannot create {}: another process is listening on it", path.display()));
    UnixStream::connect(&path).expect("the first one still answers");
    first.accept().expect("it was the first one");
    assert_eq!(names(directory.path()), ["s"]);
    drop(first);
    file.remove();
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = directory();
    let path = directory.path().join("s");
    for (make, text) in [
        (
            Box::new(|path: &Path| std::fs::write(path, "precious").unwrap()) as Box<dyn Fn(&Path)>,
            "there is a file of that name, and it is no socket",
        ),
        (Box::new(|path: &Path| std::fs::create_dir(path).unwrap()), "there is a directory of that name"),
        (Box::new(|path: &Path| symlink("/nowhere", path).unwrap()), "there is a symbolic link of that name"),
    ] {
        make(&path);
        let told = listen::listen(&path, PRIVATE).expect_err("it is in the way");
        assert_eq!(told, format!("cannot create {}: {text}", path.display()));
        assert_eq!(names(directory.path()), ["s"]);
        if path.is_dir() { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) }.unwrap();
    }
}

#[test]
fn a_socket_that_took_the_name_meanwhile_is_not_removed() {
    let directory = directory();
    let path = directory.path().join("s");
    let (_listener, file) = listen::listen(&path, PRIVATE).expect("it listens");
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    file.remove();
    UnixStream::connect(&path).expect("the other one is still there");
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let directory = directory();
    let path = directory.path().join("s");
    let mode = |mode| std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let told = listen::listen(&path, PRIVATE).expect_err("everybody can write there");
    let shown = directory.path().display();
    assert_eq!(
        told,
        format!(
            "cannot create {}: the directory {shown} is writable for everybody, who could put another socket in its \
             place (chmod o-w {shown}, or use a directory of your own)",
            path.display()
        )
    );
    // As /tmp is: nobody can rename another's files there.
    mode(0o1777);
    listen::listen(&path, PRIVATE).expect("a sticky one is fine").1.remove();
    mode(0o770);
    if PRIVATE.owner() == 0 {
        listen::listen(&path, PRIVATE).expect("root's group is root").1.remove();
        std::os::unix::fs::chown(directory.path(), None, Some(4321)).unwrap();
        let told = listen::listen(&path, PRIVATE).expect_err("a group can write there");
        assert!(told.contains("is writable for its group"), "{told}");
        mode(0o750);
        listen::listen(&path, PRIVATE).expect("it can only look").1.remove();
        std::os::unix::fs::chown(directory.path(), Some(1234), None).unwrap();
        let told = listen::listen(&path, PRIVATE).expect_err("it is another's");
        assert!(told.contains("belongs to user 1234"), "{told}");
        let theirs = Permissions { uid: Some(1234), ..PRIVATE };
        listen::listen(&path, theirs).expect("its owner's socket").1.remove();
        // The directory itself is fine, but the one above is not.
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let told = listen::listen(&inner.join("s"), PRIVATE).expect_err("the one above is another's");
        assert!(told.contains(&format!("the directory {shown} belongs to user 1234")), "{told}");
    }
}

#[test]
fn a_missing_directory_is_named() {
    let told = listen::listen(Path::new("/nonexistent/x/s"), PRIVATE).expect_err("it is not there");
    assert_eq!(
        told,
        "cannot create /nonexistent/x/s: the directory /nonexistent/x does not exist (mkdir -m 0755 /nonexistent/x)"
    );
    let told = listen::listen(Path::new("/dev/null/s"), PRIVATE).expect_err("it is none");
    assert_eq!(told, "cannot create /dev/null/s: /dev/null is no directory");
}

#[test]
fn a_path_longer_than_a_socket_address_works_by_a_shorter_one() {
    let directory = directory();
    let long = directory.path().join("d".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let (listener, _file) = listen::listen(&long.join("s"), PRIVATE).expect("it listens");
    let short = directory.path().join("short");
    symlink(&long, &short).unwrap();
    UnixStream::connect(short.join("s")).expect("it can be reached");
    listener.accept().expect("it is this one");
}

/// All start at once over a stale socket; one gets the name, and it is the one that answers.
#[test]
fn of_many_that_start_at_once_one_gets_the_name() {
    let directory = directory();
    let path = directory.path().join("s");
    for _ in 0..50 {
        stale(&path);
        let start = std::sync::Barrier::new(4);
        let results: Vec<_> = std::thread::scope(|scope| {
            let one = || {
                start.wait();
                listen::listen(&path, PRIVATE)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let winners: Vec<_> = results.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "one wins");
        UnixStream::connect(&path).expect("the winner answers");
        assert_eq!(names(directory.path()), ["s"]);
        for (listener, file) in winners {
            drop(listener);
            file.remove();
        }
    }
}

/// The binary with its output.
struct Guard {
    child: Child,
    lines: Vec<String>,
}

fn sockguard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sockguard"));
    command.env_remove("DOCKER_HOST").stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SOCKGUARD_")) {
        command.env_remove(name);
    }
    command
}

impl Guard {
    fn start(command: &mut Command) -> Self {
        Self::start_many(command, 1)
    }

    /// One that guards so many sockets.
    fn start_many(command: &mut Command, sockets: usize) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        for _ in 0..2 * sockets {
            let mut line = String::new();
            out.read_line(&mut line).expect("it writes");
            lines.push(line.trim_end().to_owned());
        }
        Self { child, lines }
    }

    fn stop(mut self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).expect("UTF-8");
        (status.code(), errors)
    }
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), String::from_utf8(stdout).expect("UTF-8"), String::from_utf8(stderr).expect("UTF-8"))
}

/// An engine that answers each request with what `answer` makes of its first line; then the connection ends.
fn engine(path: PathBuf, answer: impl Fn(&str) -> (u16, String) + Send + 'static) {
    let listener = UnixListener::bind(path).expect("it can be bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            let mut first = String::new();
            while reader.read_line(&mut head).unwrap_or(0) > 2 {
                if first.is_empty() {
                    first.clone_from(&head);
                }
                head.clear();
            }
            let (status, body) = answer(first.trim_end());
            let length = body.len();
            let kind = "Content-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "HTTP/1.1 {status} X\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
}

fn usual(line: &str) -> (u16, String) {
    match line.split(' ').nth(1).unwrap_or_default() {
        "/_ping" => (200, "OK".to_owned()),
        "/version" => (200, r#"{"ApiVersion":"1.41"}"#.to_owned()),
        "/info" => (200, r#"{"CgroupDriver":"cgroupfs","CgroupVersion":"1"}"#.to_owned()),
        "/containers/proxy/json" => (200, r#"{"Id":"aa"}"#.to_owned()),
        _ => (404, r#"{"message":"No such container"}"#.to_owned()),
    }
}

#[test]
fn it_says_where_it_listens_and_answers_for_the_engines_health() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    engine(at("engine"), usual);
    let (socket, upstream) = (at("s"), at("engine"));
    let health = || run(sockguard().arg("health").arg("-filename").arg(&socket));

    let shown = socket.display();
    let (code, _, errors) = health();
    assert_eq!((code, errors), (Some(1), format!("sockguard: not healthy: {shown}: there is no socket\n")));
    stale(&socket);
    let (code, _, errors) = health();
    assert_eq!((code, errors), (Some(1), format!("sockguard: not healthy: {shown}: nobody listens on it\n")));

    let guard = Guard::start(sockguard().arg("-filename").arg(&socket).arg("-upstream-socket").arg(&upstream));
    let (uid, gid) = (PRIVATE.owner(), PRIVATE.group());
    let listening = format!(
        "Listening on {shown} (socket UID {uid} GID {gid} permissions 0600), upstream is {}",
        upstream.display()
    );
    assert_eq!(guard.lines, [listening, format!("export DOCKER_HOST=unix://{shown}")]);
    assert_eq!(health().0, Some(0));
    // What answers, but guards nothing, is not what was asked for.
    let (code, _, errors) = run(sockguard().arg("health").arg("-filename").arg(&upstream));
    let told = format!("sockguard: not healthy: {}: it is not a guarded socket\n", upstream.display());
    assert_eq!((code, errors), (Some(1), told));
    std::fs::remove_file(&upstream).unwrap();
    let (code, _, errors) = health();
    assert_eq!(code, Some(1));
    assert!(errors.contains(&upstream.display().to_string()), "it names the engine's socket: {errors}");

    let (code, errors) = guard.stop();
    assert_eq!(code, Some(0));
    for line in errors.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("each line is JSON where nobody looks on");
        assert!(line.is_object());
    }
    assert!(errors.contains("policy ci-agent"), "{errors}");
    assert!(!socket.exists(), "the socket goes with it");
}

#[test]
fn health_waits_until_guard_and_engine_answer_or_the_time_is_over() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let config = two(directory.path(), "");
    let (a, s) = (at("a/s"), at("s"));
    let (a, s) = (a.display(), s.display());
    let one = || [Path::new("health"), Path::new("-filename"), &at("s")].map(Path::to_owned);
    let all = || [Path::new("health"), Path::new("--config"), &config].map(Path::to_owned);

    // Nothing comes: the last reason is told, and not before the time is over.
    for (asked, socket) in [(one(), &s), (all(), &a)] {
        let begun = Instant::now();
        let (code, out, errors) = run(sockguard().args(&asked).args(["-wait", "300ms"]));
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{errors}");
        let told = format!("sockguard: not healthy: {socket}: there is no socket (waited ");
        assert!(errors.starts_with(&told) && errors.ends_with("s)\n"), "{errors}");
    }

    // What comes while it waits: first the guards, which alone are not enough, then the engine.
    let waiting =
        [one(), all()].map(|asked| sockguard().args(asked).args(["-wait", "120s"]).spawn().expect("it starts"));
    let guards = [
        Guard::start(sockguard().arg("-filename").arg(at("s")).arg("-upstream-socket").arg(at("engine"))),
        Guard::start_many(sockguard().arg("--config").arg(&config), 2),
    ];
    let (code, _, errors) = run(sockguard().args(one()).args(["-wait", "300ms"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("engine") && errors.contains(" (waited "), "{errors}");
    engine(at("engine"), usual);
    for mut waiting in waiting {
        assert_eq!(waiting.wait().expect("it ends").code(), Some(0));
    }
    for guard in guards {
        assert_eq!(guard.stop().0, Some(0));
    }

    // What waiting does not mend is told at once, and the flag is of this command alone.
    let (code, _, errors) = run(sockguard().args(one()).args(["-wait", "120"]));
    let told = "-wait: `120` is no duration: expected such as \"30s\", \"5m\" or \"1h\"\n";
    assert_eq!((code, errors.as_str()), (Some(2), told));
    let (code, _, errors) = run(sockguard().args(["health", "--config", "/nonexistent.toml", "-wait", "10m"]));
    assert_eq!(code, Some(2), "{errors}");
    let (code, _, errors) = run(sockguard().args(["serve", "-wait", "1s"]));
    assert_eq!(code, Some(2));
    assert!(errors.starts_with("sockguard: flag provided but not defined: -wait"), "{errors}");
}

/// A task's container that waits for the socket of all need not be an agent.
#[test]
fn a_socket_that_knows_who_asks_for_no_agent_is_healthy() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let refusing = |message: &'static str| move |_: &str| (403, format!(r#"{{"message":"sockguard: {message}"}}"#));
    engine(at("s"), refusing("no agent rule matches: taken for the container wait"));
    engine(at("t"), refusing("something else"));
    let health = |socket: &str| run(sockguard().arg("health").arg("-filename").arg(at(socket)));
    assert_eq!(health("s"), (Some(0), String::new(), String::new()));
    let told = format!("sockguard: not healthy: {}: sockguard: something else\n", at("t").display());
    assert_eq!(health("t"), (Some(1), String::new(), told));
}

/// A configuration with two sockets, `a` and `b`, in a directory that has an engine.
fn two(directory: &Path, more: &str) -> PathBuf {
    let listener = |name: &str| {
        let socket = directory.join(name).join("s");
        std::fs::create_dir(directory.join(name)).expect("it is free");
        let socket = socket.display();
        format!(
            "[[listener]]\nsocket = \"{socket}\"\nidentity = \"fixed\"\nowner = \"{name}\"\npolicy = \"read-only\"\n"
        )
    };
    let engine = directory.join("engine");
    let text = format!("upstream = \"{}\"\n{more}\n{}{}", engine.display(), listener("a"), listener("b"));
    let file = directory.join("c.toml");
    std::fs::write(&file, text).expect("it can be written");
    file
}

#[test]
fn several_sockets_are_guarded_by_one_process() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    engine(at("engine"), usual);
    let key = format!("seal-key = \"{}\"", at("key").display());
    let config = two(directory.path(), &key);
    let with = |command: &str| run(sockguard().arg(command).arg("--config").arg(&config));
    let (a, b, upstream) = (at("a/s"), at("b/s"), at("engine"));
    let (a, b, upstream) = (a.display(), b.display(), upstream.display());

    let ok = "ok: policy read-only (look, but do not touch), 0 bind roots; would guard";
    assert_eq!(with("check"), (Some(0), format!("{ok} {upstream} at {a}\n{ok} {upstream} at {b}\n"), String::new()));
    assert!(!at("key").exists(), "a check makes nothing");
    assert_eq!(with("health").2, format!("sockguard: not healthy: {a}: there is no socket\n"));

    let guard = Guard::start_many(sockguard().arg("--config").arg(&config), 2);
    let sockets = guard.lines.iter().filter_map(|line| line.strip_prefix("export DOCKER_HOST=unix://"));
    assert_eq!(sockets.collect::<Vec<_>>(), [a.to_string(), b.to_string()]);
    assert_eq!(with("health"), (Some(0), String::new(), String::new()));
    assert_eq!(std::fs::metadata(at("key")).unwrap().permissions().mode() & 0o777, 0o600);

    // All or nothing: the second socket of another configuration is taken.
    let text = std::fs::read_to_string(&config).unwrap().replace("/a/s", "/a/t");
    std::fs::write(at("d.toml"), text).unwrap();
    let (code, _, errors) = run(sockguard().arg("--config").arg(at("d.toml")));
    assert_eq!(
        (code, errors),
        (Some(4), format!("sockguard: cannot create {b}: another process is listening on it\n"))
    );
    assert!(!at("a/t").exists(), "the first went again");

    let (code, errors) = guard.stop();
    assert_eq!(code, Some(0));
    assert!(errors.contains("policy read-only, owner a") && errors.contains("policy read-only, owner b"), "{errors}");
    assert!(!at("a/s").exists() && !at("b/s").exists(), "both sockets go");

    // A key that others can read is none.
    std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    for command in ["check", "serve"] {
        let (code, _, errors) = with(command);
        assert_eq!(code, Some(2), "{command}");
        assert!(errors.contains("seal-key: ") && errors.contains("so others can read it (chmod 0600 "), "{errors}");
    }
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_line_at_check_and_at_start() {
    let directory = directory();
    let config = two(directory.path(), "debgu = true");
    for command in ["check", "health", "serve"] {
        let (code, out, errors) = run(sockguard().arg(command).arg("--config").arg(&config));
        let told = format!("{}:2:1: unknown key `debgu` (did you mean `debug`?)\n", config.display());
        assert_eq!((code, out, errors), (Some(2), String::new(), told), "{command}");
    }
    let (code, _, errors) = run(sockguard().env("SOCKGUARD_CONFIG", &config).args(["check", "-user", "0"]));
    assert_eq!(code, Some(2));
    assert!(errors.contains("with -config there is no -user (use `container.user` of the policy)"), "{errors}");
}

#[test]
fn it_starts_without_an_engine_and_warns() {
    let directory = directory();
    let socket = directory.path().join("s");
    let absent = directory.path().join("absent");
    let mut command = sockguard();
    command.arg("-filename").arg(&socket).arg("-upstream-socket").arg(&absent).args(["-log-format", "text"]);
    let guard = Guard::start(&mut command);
    let (code, _, errors) = run(sockguard().arg("health").arg("-filename").arg(&socket));
    assert_eq!(code, Some(1));
    assert!(errors.contains(&absent.display().to_string()), "{errors}");
    let (code, errors) = guard.stop();
    assert_eq!(code, Some(0));
    assert!(errors.contains(" warning: ") && errors.contains("answered with 502 until it is there"), "{errors}");
}

#[test]
fn what_the_start_needs_of_the_engine_is_checked() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    engine(at("engine"), usual);
    let start = |upstream: &str, line: &[&str]| {
        let mut command = sockguard();
        command.arg("-filename").arg(at("s")).arg("-upstream-socket").arg(at(upstream)).args(line);
        command
    };
    for (line, code, text) in [
        (["-docker-link", "nobody:x"], 2, "sockguard: -docker-link: there is no container `nobody`\n"),
        (
            ["-container-join-network", "nobody"],
            2,
            "sockguard: -container-join-network: there is no container `nobody`\n",
        ),
    ] {
        let (found, out, errors) = run(&mut start("engine", &line));
        assert_eq!((found, out.as_str(), errors.as_str()), (Some(code), "", text), "{line:?}");
        let (found, _, errors) = run(&mut start("absent", &line));
        assert_eq!(found, Some(3), "{line:?}");
        assert!(errors.starts_with("sockguard: ") && errors.contains("absent"), "{errors}");
        assert!(!at("s").exists());
    }
    for line in [["-docker-link", "proxy:x"], ["-container-join-network", "proxy"]] {
        let guard = Guard::start(&mut start("engine", &line));
        assert!(guard.lines.concat().starts_with("Listening on"), "{line:?}");
        assert_eq!(guard.stop().0, Some(0));
    }
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("bad.toml"), "[container]\nprivilegd = true\n[bind]\nroots = 1\n").unwrap();
    std::fs::write(at("file"), "").unwrap();
    let (bad, file) = (at("bad.toml"), at("file"));
    let problems = format!(
        "{bad}:2:1: unknown key `privilegd` in [container] (did you mean `privileged`?)\n\
         {bad}:4:9: bind.roots takes a list of tables, not an integer (such as [{{ path = \"/srv/builds\", access = \"rw\" }}])\n"
    );
    for (line, code, text) in [
        (&["check", "-policy", &bad][..], 2, problems.as_str()),
        (&["serve", "-policy", &bad], 2, problems.as_str()),
        (
            &["-nonsense"],
            2,
            "sockguard: flag provided but not defined: -nonsense\n`sockguard -help` lists the commands and flags\n",
        ),
        (&["-filename", &file], 4, "there is a file of that name, and it is no socket\n"),
        (
            &["-filename", "/nonexistent/s"],
            4,
            "the directory /nonexistent does not exist (mkdir -m 0755 /nonexistent)\n",
        ),
    ] {
        let (found, out, errors) = run(sockguard().args(line));
        assert_eq!((found, out.as_str()), (Some(code), ""), "{line:?}: {errors}");
        assert!(errors.ends_with(text), "{line:?}: {errors}");
    }
    let (code, out, errors) = run(sockguard().args(["check", "-policy", "read-only", "-filename", "x.sock"]));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(out.starts_with("ok: policy read-only (look, but do not touch), 0 bind roots; would guard "), "{out}");
    let (code, out, _) = run(sockguard().arg("--version"));
    assert_eq!(code, Some(0));
    assert!(out.starts_with(&format!("sockguard {} (", env!("CARGO_PKG_VERSION"))), "{out}");
    let (code, out, errors) = run(sockguard().arg("-help"));
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(out.contains("-owner-label OWNER"), "{out}");
}

#[test]
fn it_starts_in_a_moment_and_again_after_it_was_killed() {
    let directory = directory();
    let socket = directory.path().join("s");
    engine(directory.path().join("engine"), usual);
    let mut command = sockguard();
    command.arg("-filename").arg(&socket).arg("-upstream-socket").arg(directory.path().join("engine"));
    for _ in 0..3 {
        let begun = Instant::now();
        let mut guard = Guard::start(&mut command);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(run(sockguard().arg("health").arg("-filename").arg(&socket)).0, Some(0));
        guard.child.kill().unwrap();
        guard.child.wait().unwrap();
        assert!(socket.exists(), "a killed process leaves its socket");
    }
}
