//! The command line: from words and environment to settings, before anything is done.

pub mod flags;
pub mod needs;
pub mod reap;
pub mod start;

use crate::audit::Format;
use crate::config::{Config, Identity, Listener, USUAL_UPSTREAM, engine_below, guarded_below, host_paths, same_file};
use crate::listen::Permissions;
use crate::owner::Owner;
use crate::policy::{self, Access, BindRoot, Policy};
use crate::reap::Reap;
use flags::{FLAGS, Flag, Given, Takes, Words};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The version, with the commit that it was built from.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SOCKGUARD_COMMIT"), ")");

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// To guard the engine.
    Serve(Given),
    /// To say what is wrong with the flags and the policy.
    Check(Given),
    /// To say whether guard and engine answer.
    Health(Given),
    /// To remove what an owner left.
    Reap(Given),
    /// To show the help.
    Help,
    /// To show the version.
    Version,
}

/// The commands that take flags.
const COMMANDS: [&str; 4] = ["serve", "check", "health", "reap"];

/// Why sockguard stops, with its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// What `health` asks for is not so, or not all could be removed.
    No(String),
    /// The command line or the environment is wrong.
    Usage(String),
    /// The policy or a setting is wrong; one line for each problem.
    Settings(Vec<String>),
    /// The engine is needed at start and cannot be reached.
    Engine(String),
    /// The guarded socket cannot be created.
    Socket(String),
}

impl Failure {
    /// One problem with a setting.
    pub fn setting(line: impl Into<String>) -> Self {
        Self::Settings(vec![line.into()])
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::No(_) => 1,
            Self::Usage(_) | Self::Settings(_) => 2,
            Self::Engine(_) => 3,
            Self::Socket(_) => 4,
        }
    }

    /// The lines for the terminal.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::No(line) | Self::Engine(line) | Self::Socket(line) => vec![format!("sockguard: {line}")],
            Self::Usage(line) => {
                vec![format!("sockguard: {line}"), "`sockguard -help` lists the commands and flags".to_owned()]
            }
            Self::Settings(lines) => lines.clone(),
        }
    }
}

/// Everything that `serve` needs to know.
#[derive(Debug)]
pub struct Settings {
    /// What is guarded, for whom, and how.
    pub config: Config,
    /// What is worth knowing at start: settings that were guessed, or that people often get wrong.
    pub notes: Vec<String>,
}

/// What the settings depend on besides the command line.
#[derive(Debug)]
pub struct Surroundings {
    /// The process's ID.
    pub pid: u32,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// The names of all environment variables.
    pub variables: Vec<String>,
}

/// Reads the command line and the environment.
///
/// # Errors
/// `Failure::Usage`.
pub fn command(
    words: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Command, Failure> {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| word.into_string().map_err(|word| Failure::Usage(format!("{word:?} is not valid UTF-8"))))
        .collect::<Result<_, _>>()?;
    let (name, words) = match words.split_first() {
        Some((first, rest)) if !first.starts_with('-') => (first.as_str(), rest),
        _ => ("serve", words.as_slice()),
    };
    let (make, flags): (fn(Given) -> Command, &'static [Flag]) = match name {
        "serve" => (Command::Serve, FLAGS),
        "check" => (Command::Check, FLAGS),
        "health" => (Command::Health, flags::HEALTH),
        "reap" => (Command::Reap, reap::FLAGS),
        "help" => return Ok(Command::Help),
        "version" => return Ok(Command::Version),
        other => {
            let hint = crate::nearest::nearest(other, COMMANDS)
                .map(|near| format!(" (did you mean `{near}`?)"))
                .unwrap_or_default();
            let there = COMMANDS.join(", ");
            return Err(Failure::Usage(format!("unknown command `{other}`{hint}: there are {there}")));
        }
    };
    match flags::parse(flags, words).map_err(Failure::Usage)? {
        Words::Help => Ok(Command::Help),
        Words::Version => Ok(Command::Version),
        Words::Flags(mut given) => {
            flags::from_environment(flags, &mut given, variable).map_err(Failure::Usage)?;
            Ok(make(given))
        }
    }
}

/// The help.
pub fn help() -> String {
    let mut text = String::from(
        "sockguard guards the Docker Engine's socket for programs that are not trusted with the host.\n\n\
         Usage:\n  \
         sockguard [serve] [flags]   guard the engine\n  \
         sockguard check [flags]     say what is wrong with the flags and the policy, and guard nothing\n  \
         sockguard health [flags]    exit 0 when guard and engine answer\n  \
         sockguard reap -owner OWNER remove what an owner left behind\n  \
         sockguard --version\n\n\
         Flags, with one dash or two; each can also be set as SOCKGUARD_NAME in the environment:\n",
    );
    list(FLAGS, &mut text);
    text.push_str("\nFlag of health, beside these:\n");
    list(&[flags::WAIT], &mut text);
    text.push_str("\nFlags of reap:\n");
    list(reap::FLAGS, &mut text);
    text.push_str(
        "\nExit status: 0 fine, 1 not healthy or not all removed, 2 usage or configuration, 3 engine not reachable,\n\
         4 cannot create the socket.\n",
    );
    text
}

fn list(flags: &[Flag], text: &mut String) {
    for flag in flags {
        let left = match flag.takes {
            Takes::Switch => format!("-{}", flag.name),
            Takes::Value(word) => format!("-{} {word}", flag.name),
        };
        // Writing to a string cannot fail.
        let _ = if left.len() > 28 {
            writeln!(text, "  {left}\n  {:30}{}", "", flag.help)
        } else {
            writeln!(text, "  {left:30}{}", flag.help)
        };
    }
}

/// The guarded socket's absolute path, for `health` and `serve` alike.
///
/// # Errors
/// An empty path, or no current directory to start a relative one from.
pub fn socket_path(given: &Given) -> Result<PathBuf, Failure> {
    let filename = PathBuf::from(given.get("filename").map_or("sockguard.sock", String::as_str));
    if filename.as_os_str().is_empty() || filename.file_name().is_none() {
        return Err(Failure::setting(format!("-filename: `{}` is no path of a file", filename.display())));
    }
    std::path::absolute(&filename).map_err(|e| Failure::setting(format!("-filename: {e}")))
}

/// The file or the name that `-config` gives.
pub fn configuration(given: &Given) -> Option<&str> {
    given.get("config").map(String::as_str).filter(|value| !value.is_empty())
}

/// Makes settings of what was given. All problems are collected.
///
/// # Errors
/// `Failure::Settings`, or `Failure::Usage` for flags that a configuration leaves no room for.
pub fn settings(given: &Given, around: &Surroundings) -> Result<Settings, Failure> {
    let mut settings = match configuration(given) {
        Some(name_or_file) => match flags::beside_config(given) {
            Some(stray) => return Err(Failure::Usage(stray)),
            None => Settings { config: from_file(name_or_file, given)?, notes: Vec::new() },
        },
        None => from_flags(given, around)?,
    };
    let notes = &mut settings.notes;
    notes.extend(settings.config.notes());
    notes.extend(around.variables.iter().filter_map(|name| mistyped_variable(name)));
    Ok(settings)
}

/// The configuration that is given, with the flags that go before it.
fn from_file(name_or_file: &str, given: &Given) -> Result<Config, Failure> {
    let mut problems = Vec::new();
    let upstream = given.get("upstream-socket").filter(|path| !path.is_empty());
    let upstream = upstream.and_then(|path| unix_path(path).map_err(|e| problems.push(e)).ok());
    let log_format = log_format(given, &mut problems);
    match Config::load(name_or_file, upstream) {
        Ok(mut config) if problems.is_empty() => {
            config.log_format = log_format.unwrap_or(config.log_format);
            config.debug = given.get("debug").map_or(config.debug, |value| flags::boolean(value) == Ok(true));
            Ok(config)
        }
        found => {
            problems.extend(found.err().unwrap_or_default());
            Err(Failure::Settings(problems))
        }
    }
}

/// How the flag says that the log is written, if it does.
fn log_format(given: &Given, problems: &mut Vec<String>) -> Option<Option<Format>> {
    match given.get("log-format").map(String::as_str).filter(|value| !value.is_empty())? {
        "text" => Some(Some(Format::Text)),
        "json" => Some(Some(Format::Json)),
        "auto" => Some(None),
        other => {
            problems.push(format!("-log-format: `{other}` is none of text, json and auto"));
            None
        }
    }
}

/// The path that `-upstream-socket` gives.
fn unix_path(given: &str) -> Result<&Path, String> {
    let path = given.strip_prefix("unix://").unwrap_or(given);
    if path.contains("://") {
        return Err(format!("-upstream-socket: `{given}` is no Unix socket: expected a path"));
    }
    Ok(Path::new(path))
}

/// Settings of one agent beside a socket, from flags alone.
fn from_flags(given: &Given, around: &Surroundings) -> Result<Settings, Failure> {
    let socket = socket_path(given)?;
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    let text = |name: &str| given.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let on = |name: &str| given.get(name).is_some_and(|value| flags::boolean(value) == Ok(true));

    let policy_name = text("policy").unwrap_or("ci-agent");
    let mut policy = Policy::load(policy_name).unwrap_or_else(|found| {
        problems.extend(found);
        Policy::default()
    });
    let permissions = permissions(given, &mut problems);
    let upstream = upstream(text("upstream-socket"), &socket, around, &mut problems, &mut notes);
    let owner = text("owner-label").map_or_else(
        || {
            let name = format!("sockguard-pid-{}", around.pid);
            notes.push(format!(
                "the owner is {name}: what it makes is nobody's when this process ends (-owner-label keeps it)"
            ));
            name
        },
        str::to_owned,
    );
    problems.extend(Owner::new(&owner).err().map(|e| format!("-owner-label: {e}")));

    for path in text("allow-bind").into_iter().flat_map(|paths| paths.split(',')) {
        match bind_root(path) {
            Ok(root) => {
                policy.bind.roots.retain(|old| old.path != root.path);
                policy.bind.roots.push(root);
            }
            Err(problem) => problems.push(format!("-allow-bind: {problem}")),
        }
    }
    problems.extend(host_paths(&policy, &upstream).filter_map(|root| engine_below(&root, &upstream)));
    if on("unverified-binds") {
        policy.bind.unverified_binds = true;
    }
    if given.contains_key("allow-host-mode-networking") {
        policy.container.host_network = on("allow-host-mode-networking");
    }
    let texts = [
        ("cgroup-parent", &mut policy.container.cgroup_parent),
        ("user", &mut policy.container.user),
        ("docker-link", &mut policy.container.link),
        ("container-join-network", &mut policy.network.join_container),
        ("container-join-network-alias", &mut policy.network.join_alias),
    ];
    for (flag, key) in texts {
        if given.contains_key(flag) {
            *key = text(flag).map(str::to_owned);
        }
    }
    problems.extend(refined(&policy));

    let socket_on_host = match text("socket-on-host") {
        None => socket.clone(),
        Some(path) => {
            problems.extend(policy::root_problem(path).map(|problem| format!("-socket-on-host: {problem}")));
            PathBuf::from(path)
        }
    };
    problems.extend(host_paths(&policy, &upstream).filter_map(|root| guarded_below(&root, &socket_on_host)));
    let log_format = log_format(given, &mut problems).flatten();
    if !problems.is_empty() {
        return Err(Failure::Settings(problems));
    }
    let identity = Identity::Fixed { owner, policy: Rc::new(policy) };
    let config = Config {
        upstream,
        seal_key: None,
        log_format,
        debug: on("debug"),
        listeners: vec![Listener { socket, socket_on_host, permissions, identity }],
        agents: Vec::new(),
        reap: Reap::default(),
    };
    Ok(Settings { config, notes })
}

fn permissions(given: &Given, problems: &mut Vec<String>) -> Permissions {
    let mode_text = given.get("mode").map(String::as_str).filter(|text| !text.is_empty()).unwrap_or("0600");
    let mode = match flags::integer(mode_text).map(u32::try_from) {
        Ok(Ok(mode)) if mode <= 0o777 => mode,
        Ok(_) => {
            let hint = match u32::from_str_radix(mode_text, 8) {
                Ok(mode) if mode <= 0o777 => format!(" (an octal number starts with a 0: did you mean 0{mode_text}?)"),
                Ok(_) | Err(_) => String::new(),
            };
            problems.push(format!("-mode: `{mode_text}` is not within 0 and 0777{hint}"));
            0o600
        }
        Err(e) => {
            problems.push(format!("-mode: {e}: expected a number such as 0600"));
            0o600
        }
    };
    let mut id = |name: &str| {
        let text = given.get(name).map(String::as_str).filter(|text| !text.is_empty())?;
        match flags::integer(text).map(|number| (number, u32::try_from(number))) {
            Ok((-1, _)) => None,
            // The highest is the system call's "leave it".
            Ok((_, Ok(id))) if id != u32::MAX => Some(id),
            Ok(_) | Err(_) => {
                problems.push(format!("-{name}: `{text}` is no numeric ID (-1: that of the process)"));
                None
            }
        }
    };
    Permissions { mode, uid: id("uid"), gid: id("gid") }
}

/// A variable that is nearly one of sockguard's would be ignored without a word. Others that begin alike are not its
/// business: some systems make them for every service of that name.
fn mistyped_variable(name: &str) -> Option<String> {
    let known: Vec<String> = flags::HEALTH.iter().map(flags::Flag::variable).collect();
    let rest = name.strip_prefix("SOCKGUARD_").filter(|_| !known.iter().any(|known| known == name))?;
    let near = crate::nearest::nearest(rest, known.iter().filter_map(|name| name.strip_prefix("SOCKGUARD_")))?;
    Some(format!("the environment variable {name} is not known: did you mean SOCKGUARD_{near}?"))
}

/// The engine's socket: as given, else the usual place, else `DOCKER_HOST`.
fn upstream(
    given: Option<&str>,
    own: &Path,
    around: &Surroundings,
    problems: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> PathBuf {
    if let Some(given) = given {
        let path = unix_path(given).unwrap_or_else(|problem| {
            problems.push(problem);
            Path::new(given)
        });
        if same_file(path, own) {
            problems.push(format!("-upstream-socket: `{given}` is the guarded socket itself"));
        }
        return path.to_owned();
    }
    let usual = PathBuf::from(USUAL_UPSTREAM);
    if usual.exists() && !same_file(&usual, own) {
        return usual;
    }
    let from_docker_host = around.docker_host.as_deref().and_then(|host| host.strip_prefix("unix://"));
    match from_docker_host.map(PathBuf::from) {
        Some(path) if !same_file(&path, own) => {
            notes.push(format!("{USUAL_UPSTREAM} does not exist: guarding the engine of DOCKER_HOST"));
            path
        }
        Some(_) | None => {
            if same_file(&usual, own) {
                problems.push(format!(
                    "-upstream-socket is needed: the guarded socket takes the engine's usual place, {USUAL_UPSTREAM}"
                ));
            }
            usual
        }
    }
}

/// Reads one path of `-allow-bind`.
fn bind_root(text: &str) -> Result<BindRoot, String> {
    let (path, access) = match text.rsplit_once(':') {
        Some((path, "ro")) => (path, Access::Ro),
        Some((path, "rw")) => (path, Access::Rw),
        Some((_, mode)) if !mode.contains('/') => {
            return Err(format!("`{text}`: expected `:ro` or `:rw` after the path"));
        }
        _ => (text, Access::Rw),
    };
    policy::root_problem(path).map_or(Ok(BindRoot { path: PathBuf::from(path), access }), Err)
}

/// What is wrong with settings that flags refine, alone and together.
fn refined(policy: &Policy) -> Vec<String> {
    let mut problems = Vec::new();
    let join = policy.network.join_container.as_deref();
    if policy.container.link.is_some() && join.is_some() {
        problems.push("-docker-link and -container-join-network exclude each other: give one".to_owned());
    }
    if policy.network.join_alias.is_some() && join.is_none() {
        problems.push("-container-join-network-alias needs -container-join-network".to_owned());
    }
    type Check = fn(&str) -> Option<String>;
    let checks: [(&str, Option<&str>, Check); 5] = [
        ("docker-link", policy.container.link.as_deref(), policy::link_problem),
        ("container-join-network", join, policy::container_problem),
        ("container-join-network-alias", policy.network.join_alias.as_deref(), policy::container_problem),
        ("user", policy.container.user.as_deref(), policy::user_problem),
        ("cgroup-parent", policy.container.cgroup_parent.as_deref(), policy::cgroup_parent_problem),
    ];
    for (flag, value, check) in checks {
        problems.extend(value.and_then(check).map(|problem| format!("-{flag}: {problem}")));
    }
    problems
}
