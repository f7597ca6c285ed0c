//! Reads policy files.

use super::{
    Access, Alias, AliasTarget, Bind, BindRoot, Container, ContainerOperation as C, DockerSocket, Glob, Image,
    ImageOperation as I, Network, NetworkOperation as N, Policy, Publish, Quota, System, SystemOperation as S, Total,
    Volume, VolumeOperation as V,
};
use crate::nearest::nearest;
use crate::toml_file::{self, Kind, Reader, Section, glob, path_problem};
use ipnet::IpNet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use toml::de::DeTable;

/// The policies that are built in, by name.
pub const EMBEDDED: [(&str, &str); 5] = [
    ("buildkite", include_str!("../../policies/buildkite.toml")),
    ("ci-agent", include_str!("../../policies/ci-agent.toml")),
    ("ecs-agent", include_str!("../../policies/ecs-agent.toml")),
    ("original", include_str!("../../policies/original.toml")),
    ("read-only", include_str!("../../policies/read-only.toml")),
];

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

/// Policies as files.
const KIND: Kind = Kind { word: "policy", directory: "policies", embedded: &EMBEDDED };

impl Policy {
    /// The built-in policy of this name, else the one in this file.
    ///
    /// # Errors
    /// One line for each problem.
    pub fn load(name_or_file: &str) -> Result<Self, Vec<String>> {
        Self::load_from(name_or_file, Path::new(""))
    }

    /// The built-in policy of this name, else the one in this file, from `base` on.
    ///
    /// # Errors
    /// One line for each problem.
    pub fn load_from(name_or_file: &str, base: &Path) -> Result<Self, Vec<String>> {
        let found = KIND.find(name_or_file, base)?;
        Self::parse(&found.name, &found.file, &found.text)
    }

    /// The policy in this text. `file` is for messages.
    ///
    /// # Errors
    /// One line for each problem: `file:line:column: what (hint)`.
    pub fn parse(name: &str, file: &str, text: &str) -> Result<Self, Vec<String>> {
        toml_file::parse(file, text, |reader, document| reader.policy(name, document))
    }
}

impl Reader {
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
            quota: top.table("quota", |table| self.quota(table)),
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
            deny_env: s.list("deny-env", variable),
            redact_env: s.list("redact-env", variable),
            link: s.checked("link", link_problem),
        };
        if !container.grants(C::Read) {
            s.no_effect("redact-env", "container.allow does not list `read`");
        }
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
        let ports = s.list("ports", port_range);
        let publish = Publish {
            enabled: s.flag("enabled"),
            ports: s.at("ports").map(|_| ports),
            address: s.checked("address", address_problem).and_then(|text| text.parse().ok()),
        };
        if !publish.enabled {
            s.no_effect("ports", "container.publish.enabled is not true");
            s.no_effect("address", "container.publish.enabled is not true");
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
        let example = r#"{ path = "/usr/bin/agent", to = "/agent/bin/agent", access = "ro" }"#;
        let aliases = s.tables("aliases", example, |at, table| self.alias(at, table));
        for (i, (at, alias)) in aliases.iter().enumerate() {
            if aliases.iter().take(i).any(|(_, other)| other.path == alias.path) {
                self.problem(*at, format!("bind alias `{}` is listed twice", alias.path.display()), "");
            }
        }
        let bind = Bind {
            roots: roots.into_iter().map(|(_, root)| root).collect(),
            own_mounts: s.flag("own-mounts"),
            aliases: aliases.into_iter().map(|(_, alias)| alias).collect(),
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

    fn alias(&self, at: usize, table: &DeTable<'_>) -> Option<Alias> {
        let mut s = self.section("bind.aliases", Some(table));
        let path = s.checked("path", root_problem).map(PathBuf::from);
        let to = s.checked("to", root_problem).map(|to| AliasTarget::Agent(to.into()));
        let host = s.checked("host", root_problem).map(|host| AliasTarget::Host(host.into()));
        let access = s.word("access", Access::WORDS);
        for (key, value) in [("path", r#"path = "/usr/bin/agent""#), ("access", r#"access = "ro" or "rw""#)] {
            if s.at(key).is_none() {
                self.problem(at, format!("this bind alias has no `{key}`"), format!("add {value}"));
            }
        }
        let hint = "`to` is a path of the agent's own mounts, `host` one of the engine's host";
        match (s.at("to"), s.at("host")) {
            (None, None) => self.problem(at, "this bind alias has neither `to` nor `host`", hint),
            (Some(_), Some(at)) => self.problem(at, "this bind alias has both `to` and `host`", hint),
            (Some(_), None) | (None, Some(_)) => {}
        }
        if matches!(path.as_deref().and_then(Path::to_str), Some("/var/run/docker.sock" | "/run/docker.sock")) {
            s.without_effect("path", "an alias for the engine's socket", "see bind.docker-socket");
        }
        s.finish();
        Some(Alias { path: path?, to: to.or(host)?, access: access? })
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
            isolated: s.flag("isolated"),
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

    fn quota(&self, table: Option<&DeTable<'_>>) -> Quota {
        let mut s = self.section("quota", table);
        let number = |s: &mut Section<'_, '_>, key| s.number(key, 1, i64::MAX.unsigned_abs());
        let quota = Quota {
            containers: number(&mut s, "containers"),
            running: number(&mut s, "running"),
            networks: number(&mut s, "networks"),
            volumes: number(&mut s, "volumes"),
            memory: self.total(&mut s, ["memory", "memory-default"], "\"512MiB\"", |s, key| s.size(key)),
            cpus: self.total(&mut s, ["cpus", "cpus-default"], "0.5", |s, key| s.cpus(key)),
            pids: self.total(&mut s, ["pids", "pids-default"], "256", number),
        };
        s.finish();
        quota
    }

    /// A total, with what a container gets that states no limit: without that it would have no part in the total.
    fn total(
        &self,
        s: &mut Section<'_, '_>,
        [key, default]: [&'static str; 2],
        example: &str,
        read: impl Fn(&mut Section<'_, '_>, &'static str) -> Option<u64>,
    ) -> Option<Total> {
        let (all, each) = (read(s, key), read(s, default));
        match (s.at(key), s.at(default)) {
            (Some(at), None) => {
                let hint = format!("what a container gets that states no limit, such as {default} = {example}");
                self.problem(at, format!("{} needs {}", s.path(key), s.path(default)), hint);
            }
            (None, Some(_)) => s.no_effect(default, &format!("there is no {}", s.path(key))),
            (Some(_), Some(_)) | (None, None) => {}
        }
        let total = Total { all: all?, default: each? };
        if total.default > total.all {
            let at = s.value_at(default).unwrap_or_default();
            self.problem(at, format!("{} is more than {}", s.path(default), s.path(key)), "");
        }
        Some(total)
    }

    /// What sections say about each other.
    fn across(&self, document: &DeTable<'_>, policy: &Policy) {
        let key = |section: &str, key: &str| {
            let table = document.get(section)?.get_ref().as_table()?;
            table.get_key_value(key).map(|(key, _)| key.span().start)
        };
        for (name, says) in [("own-mounts", policy.bind.own_mounts), ("aliases", !policy.bind.aliases.is_empty())] {
            if let (Some(at), true, false) = (key("bind", name), says, policy.container.grants(C::Create)) {
                let hint = "container.allow does not list `create`";
                self.problem(at, format!("bind.{name} has no effect"), hint);
            }
        }
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
        let (makes, runs) = (policy.container.grants(C::Create), policy.container.grants(C::Run));
        let nets = policy.network.grants(N::Create);
        for (names, served, hint) in [
            (
                &["containers", "memory", "memory-default", "cpus", "cpus-default", "pids", "pids-default"][..],
                makes,
                "container.allow does not list `create`",
            ),
            (&["running"], runs, "container.allow does not list `run`"),
            (&["networks"], nets, "network.allow does not list `create`"),
            (
                &["volumes"],
                makes || policy.volume.grants(V::Create),
                "neither container.allow nor volume.allow lists `create`",
            ),
        ] {
            for name in names.iter().filter(|_| !served) {
                if let Some(at) = key("quota", name) {
                    self.problem(at, format!("quota.{name} has no effect"), hint);
                }
            }
        }
        if let (Some(at), true) = (key("network", "join-container"), policy.container.link.is_some()) {
            self.problem(at, "network.join-container and container.link exclude each other", "keep one");
        }
        let takes = [C::Create, C::Exec].into_iter().any(|operation| policy.container.grants(operation))
            || [I::Build, I::Commit, I::Import].into_iter().any(|operation| policy.image.grants(operation));
        if let (Some(at), false, false) = (key("container", "deny-env"), takes, policy.container.deny_env.is_empty()) {
            let hint = "container.allow lists neither `create` nor `exec`, and image.allow none of `build`, `commit`, `import`";
            self.problem(at, "container.deny-env has no effect", hint);
        }
        if let (Some(at), true) = (key("network", "isolated"), policy.network.isolated) {
            if policy.container.link.is_some() {
                let hint = "a link leads to containers of the same network only; keep one";
                self.problem(at, "network.isolated and container.link exclude each other", hint);
            }
            if !policy.container.grants(C::Create) && !policy.image.grants(I::Build) {
                let hint = "container.allow does not list `create`, and image.allow not `build`";
                self.problem(at, "network.isolated has no effect", hint);
            }
        }
        let sees = policy.container.grants(C::Create) || policy.volume.grants(V::Read);
        if let (Some(at), false) = (key("volume", "shared"), sees)
            && !policy.volume.shared.is_empty()
        {
            let hint = "container.allow does not list `create`, and volume.allow not `read`";
            self.problem(at, "volume.shared has no effect", hint);
        }
    }
}

impl Section<'_, '_> {
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
}

fn variable(text: &str) -> Result<Glob, (String, String)> {
    if text.contains('=') {
        let hint = "variables are told apart by their names alone".to_owned();
        return Err((format!("`{}` is no name of a variable", text.escape_debug()), hint));
    }
    glob(text)
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

/// A port of the host, or a range of them.
fn port_range(text: &str) -> Result<RangeInclusive<u16>, (String, String)> {
    let what = || format!("`{}` is no port", text.escape_debug());
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (port(low), port(high)) {
        (Some(low), Some(high)) if low <= high => Ok(low..=high),
        (Some(low), Some(high)) => Err((what(), format!("did you mean {high}-{low}?"))),
        _ => Err((what(), "such as \"8080\" or \"20000-29999\", from 1 to 65535".to_owned())),
    }
}

/// What is wrong with an address to publish ports on.
fn address_problem(text: &str) -> Option<String> {
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => {
            Some(format!("`{text}` has no effect: without an address ports may be published on every one"))
        }
        Ok(_) => None,
        Err(_) => Some(format!("`{}` is no address: expected one such as 127.0.0.1", text.escape_debug())),
    }
}

fn subnet(text: &str) -> Result<IpNet, (String, String)> {
    let what = || format!("`{}` is no network", text.escape_debug());
    match text.parse::<IpNet>() {
        Ok(net) if net.trunc() == net => Ok(net),
        Ok(net) => Err((what(), format!("did you mean {}?", net.trunc()))),
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => Err((what(), format!("did you mean {}?", IpNet::from(address)))),
            Err(_) => Err((what(), "such as 10.0.0.0/8".to_owned())),
        },
    }
}

/// What is wrong with a bind root.
pub fn root_problem(text: &str) -> Option<String> {
    if text == "/" {
        return Some("`/` is the whole host: name the directories that containers may mount".to_owned());
    }
    path_problem(text)
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
