//! Reads policy files. Each key is read in one place, which also makes it known; what is left over is unknown. All
//! problems of a file are reported together, each with its line and a hint.

use super::{
    Access, Bind, BindRoot, Container, ContainerOperation as C, DockerSocket, Glob, Image, ImageOperation as I,
    Network, NetworkOperation as N, Policy, Publish, System, SystemOperation as S, Volume, VolumeOperation as V,
};
use crate::nearest::nearest;
use ipnet::IpNet;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The policies that are built in, by name.
pub const EMBEDDED: [(&str, &str); 3] = [
    ("ci-agent", include_str!("../../policies/ci-agent.toml")),
    ("original", include_str!("../../policies/original.toml")),
    ("read-only", include_str!("../../policies/read-only.toml")),
];

/// The largest policy file that is read.
const LARGEST: u64 = 1024 * 1024;

/// The capabilities that the engine gives to every container.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// All others.
const OTHER_CAPABILITIES: [&str; 28] = [
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "NET_ADMIN",
    "NET_BROADCAST",
    "PERFMON",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Docker's commands that are not operations of their own.
const COMMANDS: [(&str, &str); 18] = [
    ("start", "run"),
    ("stop", "run"),
    ("restart", "run"),
    ("kill", "run"),
    ("pause", "run"),
    ("wait", "run"),
    ("rename", "run"),
    ("update", "run"),
    ("list", "read"),
    ("ls", "read"),
    ("ps", "read"),
    ("inspect", "read"),
    ("stats", "read"),
    ("cp", "copy"),
    ("rm", "remove"),
    ("prune", "remove"),
    ("df", "disk-usage"),
    ("login", "auth"),
];

/// Networks that no policy can grant.
const NEVER: [&str; 8] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::/128", "::1/128", "fe80::/10", "ff00::/8"];

impl Policy {
    /// The built-in policy of this name, else the one in this file.
    ///
    /// # Errors
    /// One line for each problem.
    pub fn load(name_or_file: &str) -> Result<Self, Vec<String>> {
        if let Some((name, text)) = EMBEDDED.iter().find(|(name, _)| *name == name_or_file) {
            return Self::parse(name, &format!("policies/{name}.toml"), text);
        }
        let fail = |what: String| vec![format!("{name_or_file}: {what}")];
        let path = Path::new(name_or_file);
        let found = std::fs::metadata(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                let names = EMBEDDED.iter().map(|(name, _)| *name);
                let near = nearest(name_or_file, names.clone()).map(|near| format!("did you mean `{near}`? "));
                let known = names.collect::<Vec<_>>().join(", ");
                let near = near.unwrap_or_default();
                fail(format!("no such file, and no policy of that name ({near}there are: {known})"))
            }
            _ => fail(e.to_string()),
        })?;
        if !found.is_file() {
            return Err(fail("not a regular file".to_owned()));
        }
        if found.len() > LARGEST {
            return Err(fail(format!("larger than {LARGEST} bytes, so it is no policy")));
        }
        let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(e) => {
                let good = e.utf8_error().valid_up_to();
                let line = 1 + e.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
                return Err(vec![format!("{name_or_file}:{line}: not valid UTF-8")]);
            }
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::parse(&name, name_or_file, &text)
    }

    /// The policy in this text. `file` is for messages.
    ///
    /// # Errors
    /// One line for each problem: `file:line:column: what (hint)`.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self, Vec<String>> {
        let reader = Reader::default();
        let policy = match DeTable::parse(text) {
            Ok(document) => reader.policy(name, document.get_ref()),
            Err(e) => {
                // The message may go on with what was expected, on lines of their own.
                let what = e.message().split('\n').collect::<Vec<_>>().join(", ");
                reader.problem(e.span().map_or(0, |span| span.start), what, String::new());
                Self::default()
            }
        };
        let mut problems = reader.finish();
        problems.sort_by_key(|problem| problem.at);
        if problems.is_empty() {
            return Ok(policy);
        }
        Err(problems.iter().map(|problem| format!("{file}:{}: {problem}", position(text, problem.at))).collect())
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
    format!("{line}:{column}")
}

/// Something wrong, at a byte of the file.
#[derive(Debug)]
struct Problem {
    at: usize,
    what: String,
    hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// Collects problems and which keys are known where.
#[derive(Default)]
struct Reader {
    problems: RefCell<Vec<Problem>>,
    known: RefCell<Vec<(&'static str, Vec<&'static str>)>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that nothing has read.
struct Unknown {
    at: usize,
    section: &'static str,
    key: String,
}

impl Reader {
    fn problem(&self, at: usize, what: impl Into<String>, hint: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { at, what: what.into(), hint: hint.into() });
    }

    /// Every key is known now, so unknown ones can be told where they belong.
    fn finish(self) -> Vec<Problem> {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for Unknown { at, section, key } in self.unknown.into_inner() {
            let here = known.iter().find(|(name, _)| *name == section).map(|(_, keys)| keys.as_slice()).unwrap_or(&[]);
            let elsewhere = known.iter().find(|(_, keys)| keys.contains(&key.as_str())).map(|(name, _)| *name);
            let hint = match (nearest(&key, here.iter().copied()), elsewhere) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some("")) => "it belongs above the first section".to_owned(),
                (None, Some(other)) => format!("it belongs in [{other}]"),
                (None, None) => format!("known: {}", here.join(", ")),
            };
            let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            problems.push(Problem { at, what: format!("unknown key `{key}`{place}"), hint });
        }
        problems
    }

    fn policy(&self, name: &str, document: &DeTable<'_>) -> Policy {
        let mut top = self.section("", Some(document));
        let policy = Policy {
            name: name.to_owned(),
            description: top.text("description").unwrap_or_default(),
            container: top.table("container", |table| self.container(table)),
            bind: top.table("bind", |table| self.bind(table)),
            image: top.table("image", |table| self.image(table)),
            network: top.table("network", |table| self.network(table)),
            volume: top.table("volume", |table| self.volume(table)),
            system: top.table("system", |table| self.system(table)),
        };
        top.finish();
        self.across(document, &policy);
        policy
    }

    fn container(&self, table: Option<&DeTable<'_>>) -> Container {
        let mut s = self.section("container", table);
        let container = Container {
            allow: s.words("allow", C::WORDS),
            privileged: s.flag("privileged"),
            host_network: s.flag("host-network"),
            host_pid: s.flag("host-pid"),
            host_ipc: s.flag("host-ipc"),
            host_uts: s.flag("host-uts"),
            add_capabilities: s.list("add-capabilities", capability),
            devices: s.list("devices", |text| match text.starts_with('/') {
                true => glob(text),
                false => Err((format!("`{text}` is no path of a device"), "such as `/dev/fuse`".to_owned())),
            }),
            device_requests: s.flag("device-requests"),
            security_options: s.list("security-options", |text| match text {
                "no-new-privileges" | "no-new-privileges=true" | "no-new-privileges:true" => {
                    Err((format!("`{text}` has no effect"), "it is always allowed".to_owned()))
                }
                text => glob(text),
            }),
            sysctls: s.list("sysctls", glob),
            runtimes: s.list("runtimes", word),
            log_drivers: s.list("log-drivers", word),
            publish: s.table("publish", |table| self.publish(table)),
            user: s.checked("user", user_problem),
            cgroup_parent: s.checked("cgroup-parent", cgroup_parent_problem),
            link: s.checked("link", link_problem),
        };
        if !container.grants(C::Create) {
            for key in [
                "host-network",
                "host-pid",
                "host-ipc",
                "host-uts",
                "add-capabilities",
                "devices",
                "device-requests",
                "security-options",
                "sysctls",
                "runtimes",
                "log-drivers",
                "publish",
                "link",
            ] {
                s.no_effect(key, "container.allow does not list `create`");
            }
            // Execs are privileged too.
            if !container.grants(C::Exec) {
                s.no_effect("privileged", "container.allow does not list `create`");
            }
        }
        s.finish();
        container
    }

    fn publish(&self, table: Option<&DeTable<'_>>) -> Publish {
        let mut s = self.section("container.publish", table);
        let publish = Publish {
            enabled: s.flag("enabled"),
            loopback_only: s.flag("loopback-only"),
            min_port: s.number("min-port", 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
        };
        if !publish.enabled {
            s.no_effect("loopback-only", "container.publish.enabled is not true");
            s.no_effect("min-port", "container.publish.enabled is not true");
        }
        s.finish();
        publish
    }

    fn bind(&self, table: Option<&DeTable<'_>>) -> Bind {
        let mut s = self.section("bind", table);
        let roots = s.tables("roots", r#"{ path = "/srv/builds", access = "rw" }"#, |at, table| self.root(at, table));
        for (i, (at, root)) in roots.iter().enumerate() {
            let path = root.path.display();
            for (_, other) in roots.iter().take(i) {
                if other.path == root.path {
                    self.problem(*at, format!("bind root `{path}` is listed twice"), "");
                }
            }
            // The longest root that holds a path decides about it.
            let above = roots.iter().filter(|(_, other)| root.path != other.path && root.path.starts_with(&other.path));
            if let Some((_, above)) = above.max_by_key(|(_, other)| other.path.as_os_str().len())
                && above.access == root.access
            {
                let hint = format!("`{}` above it has the same access", above.path.display());
                self.problem(*at, format!("bind root `{path}` has no effect"), hint);
            }
        }
        let bind = Bind {
            roots: roots.into_iter().map(|(_, root)| root).collect(),
            docker_socket: s.word("docker-socket", DockerSocket::WORDS).unwrap_or_default(),
            unverified_binds: s.flag("unverified-binds"),
        };
        s.finish();
        bind
    }

    fn root(&self, at: usize, table: &DeTable<'_>) -> Option<BindRoot> {
        let mut s = self.section("bind.roots", Some(table));
        let path = s.checked("path", root_problem);
        let access = s.word("access", Access::WORDS);
        for (key, value) in [("path", r#"path = "/srv/builds""#), ("access", r#"access = "ro" or "rw""#)] {
            if s.at(key).is_none() {
                self.problem(at, format!("this bind root has no `{key}`"), format!("add {value}"));
            }
        }
        s.finish();
        Some(BindRoot { path: PathBuf::from(path?), access: access? })
    }

    fn image(&self, table: Option<&DeTable<'_>>) -> Image {
        let mut s = self.section("image", table);
        let image = Image {
            allow: s.words("allow", I::WORDS),
            pull: s.list("pull", glob),
            push: s.list("push", glob),
            registries: s.list("registries", glob),
            tags: s.list("tags", glob),
            build_host_network: s.flag("build-host-network"),
            build_add_remote: s.flag("build-add-remote"),
            build_extra_hosts: s.flag("build-extra-hosts"),
            max_archive_bytes: s.number("max-archive-bytes", 1, i64::MAX.unsigned_abs()),
        };
        for (operation, word, key, patterns) in
            [(I::Pull, "pull", "pull", &image.pull), (I::Push, "push", "push", &image.push)]
        {
            if !image.grants(operation) {
                s.no_effect(key, &format!("image.allow does not list `{word}`"));
            } else if patterns.is_empty() {
                let hint = format!("image.{key} lists no repositories; `[\"*\"]` is any");
                s.without_effect("allow", &format!("`{word}` in image.allow"), &hint);
            }
        }
        if !image.grants(I::Build) {
            for key in ["build-host-network", "build-add-remote", "build-extra-hosts"] {
                s.no_effect(key, "image.allow does not list `build`");
            }
        }
        if !image.grants(I::Load) && !image.grants(I::Import) {
            s.no_effect("max-archive-bytes", "image.allow lists neither `load` nor `import`");
        }
        if ![I::Build, I::Commit, I::Load, I::Import, I::Tag].into_iter().any(|tagging| image.grants(tagging)) {
            s.no_effect("tags", "image.allow lists nothing that gives names: build, commit, load, import, tag");
        }
        s.finish();
        image
    }

    fn network(&self, table: Option<&DeTable<'_>>) -> Network {
        let mut s = self.section("network", table);
        let network = Network {
            allow: s.words("allow", N::WORDS),
            subnets: s.list("subnets", subnet),
            reserved_subnets: s.list("reserved-subnets", subnet),
            join_container: s.checked("join-container", container_problem),
            join_alias: s.checked("join-alias", container_problem),
        };
        if !network.grants(N::Create) {
            for key in ["subnets", "reserved-subnets", "join-container", "join-alias"] {
                s.no_effect(key, "network.allow does not list `create`");
            }
        }
        if network.join_container.is_none() {
            s.no_effect("join-alias", "there is no network.join-container");
        }
        let never = NEVER.iter().filter_map(|net| net.parse::<IpNet>().ok());
        let reserved: Vec<IpNet> = never.chain(network.reserved_subnets.iter().copied()).collect();
        for net in &network.subnets {
            if let Some(holder) = reserved.iter().find(|reserved| reserved.contains(net)) {
                let hint = format!("no network may touch {holder}");
                s.without_effect("subnets", &format!("`{net}` in network.subnets"), &hint);
            }
        }
        s.finish();
        network
    }

    fn volume(&self, table: Option<&DeTable<'_>>) -> Volume {
        let mut s = self.section("volume", table);
        let volume = Volume { allow: s.words("allow", V::WORDS), shared: s.list("shared", glob) };
        s.finish();
        volume
    }

    fn system(&self, table: Option<&DeTable<'_>>) -> System {
        let mut s = self.section("system", table);
        let system = System { allow: s.words("allow", S::WORDS) };
        s.finish();
        system
    }

    /// What sections say about each other.
    fn across(&self, document: &DeTable<'_>, policy: &Policy) {
        let key = |section: &str, key: &str| {
            let table = document.get(section)?.get_ref().as_table()?;
            table.get_key_value(key).map(|(key, _)| key.span().start)
        };
        let talks = policy.system.grants(S::Auth) || policy.system.grants(S::Distribution);
        let asks = talks || policy.image.grants(I::Search);
        if let (Some(at), false, false) = (key("image", "registries"), asks, policy.image.registries.is_empty()) {
            let hint = "system.allow lists neither `auth` nor `distribution`, and image.allow not `search`";
            self.problem(at, "image.registries has no effect", hint);
        }
        if let (Some(at), true, true) = (key("system", "allow"), talks, policy.image.registries.is_empty()) {
            let hint = "image.registries lists none; `[\"*\"]` is any";
            self.problem(at, "`auth` and `distribution` in system.allow have no effect", hint);
        }
        if let (Some(at), true) = (key("network", "join-container"), policy.container.link.is_some()) {
            self.problem(at, "network.join-container and container.link exclude each other", "keep one");
        }
        let sees = policy.container.grants(C::Create) || policy.volume.grants(V::Read);
        if let (Some(at), false) = (key("volume", "shared"), sees)
            && !policy.volume.shared.is_empty()
        {
            let hint = "container.allow does not list `create`, and volume.allow not `read`";
            self.problem(at, "volume.shared has no effect", hint);
        }
    }

    fn section<'r, 't>(&'r self, name: &'static str, table: Option<&'t DeTable<'t>>) -> Section<'r, 't> {
        Section { reader: self, name, table, known: Vec::new() }
    }
}

/// A table of the file, being read.
struct Section<'r, 't> {
    reader: &'r Reader,
    name: &'static str,
    table: Option<&'t DeTable<'t>>,
    known: Vec<&'static str>,
}

impl<'t> Section<'_, 't> {
    /// Notes the keys that nothing has read.
    fn finish(self) {
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            if !self.known.contains(&key.get_ref().as_ref()) {
                let unknown = Unknown { at: key.span().start, section: self.name, key: key.get_ref().to_string() };
                self.reader.unknown.borrow_mut().push(unknown);
            }
        }
        let mut known = self.reader.known.borrow_mut();
        if !known.iter().any(|(name, _)| *name == self.name) {
            known.push((self.name, self.known));
        }
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table?.get(key)
    }

    /// Where the key stands, if it is there.
    fn at(&self, key: &str) -> Option<usize> {
        self.table?.get_key_value(key).map(|(key, _)| key.span().start)
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// A setting that is there, and says something, but cannot do anything.
    fn no_effect(&self, key: &str, why: &str) {
        let says = match self.table.and_then(|table| table.get(key)).map(Spanned::get_ref) {
            None | Some(DeValue::Boolean(false)) => false,
            Some(DeValue::Array(list)) => !list.is_empty(),
            Some(_) => true,
        };
        if says {
            self.without_effect(key, &self.path(key), why);
        }
    }

    fn without_effect(&self, key: &str, what: &str, why: &str) {
        let at = self.at(key).unwrap_or_default();
        self.reader.problem(at, format!("{what} has no effect"), why);
    }

    fn wrong_type(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str, hint: impl Into<String>) {
        let found = match value.get_ref().type_str() {
            kind @ ("integer" | "array") => format!("an {kind}"),
            kind => format!("a {kind}"),
        };
        self.reader.problem(value.span().start, format!("{} takes {expected}, not {found}", self.path(key)), hint);
    }

    fn flag(&mut self, key: &'static str) -> bool {
        let Some(value) = self.get(key) else { return false };
        match value.get_ref() {
            DeValue::Boolean(on) => return *on,
            DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
                self.wrong_type(key, value, "true or false", format!("write {text} without quotes"));
            }
            _ => self.wrong_type(key, value, "true or false", ""),
        }
        false
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => {
                self.wrong_type(key, value, "a string", "");
                None
            }
        }
    }

    /// A text with a check that may find a problem.
    fn checked(&mut self, key: &'static str, check: impl Fn(&str) -> Option<String>) -> Option<String> {
        let text = self.text(key)?;
        let Some(problem) = check(&text) else { return Some(text) };
        let at = self.table.and_then(|table| table.get(key)).map_or(0, |value| value.span().start);
        self.reader.problem(at, format!("{}: {problem}", self.path(key)), "");
        None
    }

    fn number(&mut self, key: &'static str, lowest: u64, highest: u64) -> Option<u64> {
        let value = self.get(key)?;
        let expected = match highest {
            highest if highest <= u16::MAX.into() => format!("a number from {lowest} to {highest}"),
            _ => format!("a number from {lowest}"),
        };
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, &expected, "");
            return None;
        };
        let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
        let read = read.filter(|number| (lowest..=highest).contains(number));
        if read.is_none() {
            let what = format!("{} takes {expected}, not {number}", self.path(key));
            self.reader.problem(value.span().start, what, "");
        }
        read
    }

    fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let known = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(key, value, &known, "");
            return None;
        };
        let found = words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let what = format!("{} takes {known}, not \"{}\"", self.path(key), text.escape_debug());
            self.reader.problem(value.span().start, what, "");
        }
        found
    }

    /// A list of strings, none twice.
    fn list<T>(&mut self, key: &'static str, read: impl Fn(&str) -> Result<T, (String, String)>) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let hint = match value.get_ref() {
                DeValue::String(text) => format!("write [\"{}\"]", text.escape_debug()),
                _ => String::new(),
            };
            self.wrong_type(key, value, "a list of strings", hint);
            return Vec::new();
        };
        let mut seen = BTreeSet::new();
        let mut items = Vec::new();
        for value in array.iter() {
            let DeValue::String(text) = value.get_ref() else {
                self.wrong_type(key, value, "a list of strings", "");
                continue;
            };
            if !seen.insert(text.as_ref()) {
                let what = format!("`{}` is listed twice in {}", text.escape_debug(), self.path(key));
                self.reader.problem(value.span().start, what, "");
                continue;
            }
            match read(text) {
                Ok(item) => items.push(item),
                Err((what, hint)) => {
                    self.reader.problem(value.span().start, format!("{}: {what}", self.path(key)), hint);
                }
            }
        }
        items
    }

    fn words<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Vec<T> {
        self.list(key, |text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let names = words.iter().map(|(word, _)| *word);
                let known = format!("known: {}", names.clone().collect::<Vec<_>>().join(", "));
                let command = COMMANDS.iter().find(|(command, _)| *command == text).map(|(_, word)| *word);
                let hint =
                    match (nearest(text, names.clone()), command.filter(|word| names.clone().any(|n| n == *word))) {
                        (Some(near), _) => format!("did you mean `{near}`? {known}"),
                        (None, Some(word)) => format!("it is part of `{word}`; {known}"),
                        (None, None) => known,
                    };
                (format!("unknown operation `{}`", text.escape_debug()), hint)
            })
        })
    }

    fn table<T>(&mut self, key: &'static str, read: impl Fn(Option<&'t DeTable<'t>>) -> T) -> T {
        let Some(value) = self.get(key) else { return read(None) };
        match value.get_ref() {
            DeValue::Table(table) => read(Some(table)),
            _ => {
                self.wrong_type(key, value, "a table", "");
                read(None)
            }
        }
    }

    /// A list of tables, each with where it begins.
    fn tables<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(usize, &'t DeTable<'t>) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let hint = format!("such as [{example}]");
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong_type(key, value, "a list of tables", hint);
            return Vec::new();
        };
        let mut items = Vec::new();
        for value in array.iter() {
            let at = value.span().start;
            match value.get_ref() {
                DeValue::Table(table) => items.extend(read(at, table).map(|item| (at, item))),
                _ => self.wrong_type(key, value, "a list of tables", hint.clone()),
            }
        }
        items
    }
}

fn glob(text: &str) -> Result<Glob, (String, String)> {
    if text.is_empty() {
        return Err(("an empty pattern matches nothing".to_owned(), String::new()));
    }
    if text.contains(char::is_whitespace) {
        return Err((format!("`{}` has white space", text.escape_debug()), String::new()));
    }
    Glob::try_from(text.to_owned()).map_err(|e| (e, String::new()))
}

fn word(text: &str) -> Result<String, (String, String)> {
    if text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*') {
        return Err((format!("`{}` is no name", text.escape_debug()), String::new()));
    }
    Ok(text.to_owned())
}

fn capability(text: &str) -> Result<String, (String, String)> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if DEFAULT_CAPABILITIES.contains(&name) {
        return Err((
            format!("`{text}` has no effect"),
            "it is in the engine's default set, so always allowed".to_owned(),
        ));
    }
    if OTHER_CAPABILITIES.contains(&text) {
        return Ok(text.to_owned());
    }
    let known = DEFAULT_CAPABILITIES.iter().chain(&OTHER_CAPABILITIES).copied();
    let near = known.clone().find(|known| *known == name).or_else(|| nearest(name, known));
    let hint = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
    Err((format!("`{}` is no capability", text.escape_debug()), hint))
}

fn subnet(text: &str) -> Result<IpNet, (String, String)> {
    let what = || format!("`{}` is no network", text.escape_debug());
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Ok(net),
        Ok(net) => Err((what(), format!("did you mean {}?", net.trunc()))),
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => Err((what(), format!("did you mean {}?", IpNet::from(address)))),
            Err(_) => Err((what(), "such as 10.0.0.0/8".to_owned())),
        },
    }
}

/// Is the path absolute and written in the one way that needs no interpretation?
fn normal(path: &Path) -> bool {
    let written: PathBuf = path.components().collect();
    path.is_absolute()
        && written.as_os_str() == path.as_os_str()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// What is wrong with a bind root.
pub fn root_problem(text: &str) -> Option<String> {
    let path = Path::new(text);
    if text == "/" {
        return Some("`/` is the whole host: name the directories that containers may mount".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Some(format!("`{}` has control characters", text.escape_debug()));
    }
    if normal(path) {
        return None;
    }
    let better: PathBuf = path.components().collect();
    let hint = if normal(&better) && better != Path::new("/") {
        format!(": did you mean {}?", better.display())
    } else {
        String::new()
    };
    Some(format!("`{text}` is not an absolute path without `.`, `..`, `//` or a trailing slash{hint}"))
}

/// What is wrong with a cgroup parent.
pub fn cgroup_parent_problem(text: &str) -> Option<String> {
    let strange = |c: char| c.is_whitespace() || c.is_control();
    let parts = || Path::new(text).components();
    if text.is_empty() || text.contains(strange) || parts().any(|part| matches!(part, Component::ParentDir)) {
        return Some(format!("`{}` is no cgroup: expected a path such as /ci or a slice", text.escape_debug()));
    }
    None
}

/// What is wrong with a link.
pub fn link_problem(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split(':').collect();
    let fine = (1..=2).contains(&parts.len()) && parts.iter().all(|part| container_problem(part).is_none());
    (!fine).then(|| format!("`{}` is not CONTAINER or CONTAINER:ALIAS", text.escape_debug()))
}

/// What is wrong with the name or ID of a container, or an alias.
pub fn container_problem(text: &str) -> Option<String> {
    let fine = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    (!fine).then(|| format!("`{}` is no name of a container", text.escape_debug()))
}

/// What is wrong with a user.
pub fn user_problem(text: &str) -> Option<String> {
    let fine = !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic());
    (!fine).then(|| format!("`{}` is no user: expected a name or an ID, with or without :GROUP", text.escape_debug()))
}
