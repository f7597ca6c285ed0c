//! Flags, read by the rules of Go's `flag` package, which the original used: one or two dashes, `-x v` or `-x=v`,
//! booleans only `-x` or `-x=false`, and nothing after the first word without a dash. The rules differ from those of
//! the usual parsers in every one of these points, and the table below is all that is needed beside them.

use std::collections::BTreeMap;

/// A flag of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What it takes.
    pub takes: Takes,
    /// One line for people.
    pub help: &'static str,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A value; the word stands for it in the help.
    Value(&'static str),
}

/// The flag that only `health` has.
pub const WAIT: Flag = value("wait", "DURATION", "ask again until they answer, for as long as this, such as 120s");

/// The flags of `serve` and `check`, in the order of the help.
pub const FLAGS: &[Flag] = match HEALTH {
    [_wait, shared @ ..] => shared,
    [] => &[],
};

/// The flags of `health`.
pub const HEALTH: &[Flag] = &[
    WAIT,
    value(
        "config",
        "NAME|FILE",
        "several agents or sockets: ecs-daemon, or a file; only the last three flags go with it",
    ),
    value("filename", "PATH", "the guarded socket to create (default sockguard.sock)"),
    value("mode", "MODE", "its permissions; octal with a leading 0 (default 0600)"),
    value("uid", "UID", "its owning user (default -1: that of the process)"),
    value("gid", "GID", "its owning group (default -1: that of the process)"),
    value("owner-label", "OWNER", "the owner of all that is made (default sockguard-pid-PID)"),
    value("policy", "NAME|FILE", "ci-agent (the default), buildkite, ecs-agent, original, read-only, or a policy file"),
    value("allow-bind", "PATHS", "host paths that containers may mount: PATH[:ro|:rw], separated by commas"),
    switch("unverified-binds", "allow binds below them also where sockguard cannot check for symbolic links"),
    switch("allow-host-mode-networking", "allow containers to run with --network host"),
    value("cgroup-parent", "PARENT", "the cgroup parent of all containers and builds; auto: sockguard's own"),
    value("user", "USER", "the user that all containers run as"),
    value("docker-link", "CONTAINER[:ALIAS]", "link every new container to this one"),
    value("container-join-network", "CONTAINER", "connect this container to every network that is created"),
    value("container-join-network-alias", "ALIAS", "its alias there (needs -container-join-network)"),
    value("socket-on-host", "PATH", "the guarded socket's path as the engine's host sees it (default: -filename)"),
    value("upstream-socket", "PATH", "the engine's socket (default /var/run/docker.sock, else DOCKER_HOST)"),
    value("log-format", "FORMAT", "text, json, or auto: text on a terminal (default auto)"),
    switch("debug", "log more"),
];

pub(super) const fn value(name: &'static str, word: &'static str, help: &'static str) -> Flag {
    Flag { name, takes: Takes::Value(word), help }
}

pub(super) const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, takes: Takes::Switch, help }
}

impl Flag {
    /// The environment variable that stands in for the flag.
    pub fn variable(&self) -> String {
        format!("SOCKGUARD_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

/// What a command line sets, by flag name. Of a flag that is given twice, the last counts.
pub type Given = BTreeMap<&'static str, String>;

/// What the words of a command line ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Words {
    /// To do the command with these flags.
    Flags(Given),
    /// To show the help.
    Help,
    /// To show the version.
    Version,
}

/// Reads the words after a command that takes these flags.
///
/// # Errors
/// One sentence that says what is wrong.
pub fn parse(flags: &'static [Flag], words: &[String]) -> Result<Words, String> {
    let mut given = Given::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|_| word != "-") else {
            return Err(leftover(word));
        };
        if body.is_empty() {
            return rest.next().map_or(Ok(Words::Flags(given)), |word| Err(leftover(word)));
        }
        if body.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {word}"));
        }
        let (name, value) = body.split_once('=').map_or((body, None), |(name, value)| (name, Some(value)));
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            match name {
                "help" | "h" => return Ok(Words::Help),
                "version" | "v" => return Ok(Words::Version),
                _ => return Err(unknown(flags, name)),
            }
        };
        let value = match (flag.takes, value) {
            (Takes::Switch, None) => "true",
            (Takes::Switch, Some(value)) => {
                boolean(value).map_err(|e| format!("-{name}: {e}"))?;
                value
            }
            (Takes::Value(_), Some(value)) => value,
            (Takes::Value(word), None) => match rest.next() {
                Some(value) => value,
                None => return Err(format!("flag needs an argument: -{name} {word}")),
            },
        };
        given.insert(flag.name, value.to_owned());
    }
    Ok(Words::Flags(given))
}

/// The flags that go with a configuration; they go before what it says.
const WITH_CONFIG: [&str; 5] = ["config", "upstream-socket", "log-format", "debug", WAIT.name];

/// What the configuration, or a policy, says instead of a flag.
const INSTEAD: [(&str, &str); 15] = [
    ("filename", "`socket` of a [[listener]]"),
    ("mode", "`mode` of a [[listener]]"),
    ("uid", "`uid` of a [[listener]]"),
    ("gid", "`gid` of a [[listener]]"),
    ("socket-on-host", "`socket-on-host` of a [[listener]]"),
    ("owner-label", "`owner` of a [[listener]] or an [[agent]]"),
    ("policy", "`policy` of a [[listener]] or an [[agent]]"),
    ("allow-bind", "`bind.roots` of the policy"),
    ("unverified-binds", "`bind.unverified-binds` of the policy"),
    ("allow-host-mode-networking", "`container.host-network` of the policy"),
    ("cgroup-parent", "`container.cgroup-parent` of the policy"),
    ("user", "`container.user` of the policy"),
    ("docker-link", "`container.link` of the policy"),
    ("container-join-network", "`network.join-container` of the policy"),
    ("container-join-network-alias", "`network.join-alias` of the policy"),
];

/// What is wrong with flags beside a configuration.
pub fn beside_config(given: &Given) -> Option<String> {
    let stray: Vec<String> = given
        .keys()
        .filter(|name| !WITH_CONFIG.contains(name))
        .map(|name| {
            let instead = INSTEAD.iter().find(|(flag, _)| flag == name).map_or("the configuration", |(_, key)| key);
            format!("-{name} (use {instead})")
        })
        .collect();
    (!stray.is_empty()).then(|| format!("with -config there is no {}", stray.join(", no ")))
}

/// Adds what the environment sets to what the command line does not. An empty variable counts as none.
///
/// # Errors
/// A switch that is no boolean.
pub fn from_environment(
    flags: &'static [Flag],
    given: &mut Given,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for flag in flags {
        let Some(value) = variable(&flag.variable()).filter(|value| !value.is_empty()) else { continue };
        if flag.takes == Takes::Switch {
            boolean(&value).map_err(|e| format!("{}: {e}", flag.variable()))?;
        }
        given.entry(flag.name).or_insert(value);
    }
    Ok(())
}

/// A boolean, by the words that Go accepts.
///
/// # Errors
/// Any other word.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        other => Err(format!("`{other}` is no boolean: expected true or false")),
    }
}

/// An integer, by Go's rules: decimal, or with a prefix `0x`, `0o`, `0` or `0b`; `_` may separate digits.
///
/// # Errors
/// What is no integer.
pub fn integer(text: &str) -> Result<i64, String> {
    let fail = || format!("`{text}` is no integer");
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.split_at_checked(2) {
        Some(("0x", digits)) => (16, digits),
        Some(("0o", digits)) => (8, digits),
        Some(("0b", digits)) => (2, digits),
        _ => match lower.strip_prefix('0') {
            Some(digits) if !digits.is_empty() => (8, digits),
            _ => (10, lower.as_str()),
        },
    };
    // `_` stands between digits or after the prefix, never alone, at the end, or twice.
    let prefixed = radix != 10;
    if digits.ends_with('_') || digits.contains("__") || (digits.starts_with('_') && !prefixed) {
        return Err(fail());
    }
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return Err(fail());
    }
    let number = i64::from_str_radix(&digits, radix).map_err(|_| fail())?;
    Ok(if negative { -number } else { number })
}

fn leftover(word: &str) -> String {
    format!("unexpected word `{word}` after the flags: a command comes first, and a switch takes its value as -x=false")
}

fn unknown(flags: &[Flag], name: &str) -> String {
    let names = flags.iter().map(|flag| flag.name);
    let hint = crate::nearest::nearest(name, names).map(|near| format!(" (did you mean -{near}?)")).unwrap_or_default();
    format!("flag provided but not defined: -{name}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0600", Some(0o600)),
            ("0o600", Some(0o600)),
            ("0O600", Some(0o600)),
            ("384", Some(384)),
            ("0x180", Some(384)),
            ("0b110000000", Some(384)),
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("+5", Some(5)),
            ("1_000", Some(1000)),
            ("0_600", Some(0o600)),
            ("0x_ff", Some(255)),
            ("", None),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("0600 ", None),
            ("0800", None),
            ("0o", None),
            ("0x", None),
            ("--1", None),
            ("u=rw", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(integer(text).ok(), expected, "{text:?}");
        }
    }
}
