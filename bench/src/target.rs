//! What is compared: the engine's own socket, two relays, and sockguard.

use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::world::OWNER;
use crate::process::Process;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Direct,
    /// One worker thread, as sockguard has: the floor.
    Relay,
    /// Two worker threads.
    RelayTwo,
    Sockguard,
    /// The same with a listener that tells by the kernel who connects.
    Peers,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Direct, Kind::Relay, Kind::RelayTwo, Kind::Sockguard, Kind::Peers];
    pub const PROXIES: [Kind; 2] = [Kind::Relay, Kind::Sockguard];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Relay => "relay",
            Kind::RelayTwo => "relay-2",
            Kind::Sockguard => "sockguard",
            Kind::Peers => "peers",
        }
    }

    pub fn is_guarded(self) -> bool {
        matches!(self, Kind::Sockguard | Kind::Peers)
    }
}

pub struct Target {
    pub kind: Kind,
    pub socket: PathBuf,
    pub process: Process,
    /// From the start of the process to its first answer.
    pub start_up: Duration,
}

/// Where the processes run; all of it goes away with this value.
pub struct Place {
    directory: tempfile::TempDir,
    sockguard: PathBuf,
    bulk: u64,
}

impl Place {
    pub fn new(sockguard: PathBuf, bulk: u64) -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, sockguard, bulk })
    }

    /// Starts one target. The direct one is the engine, which the others need.
    pub async fn start(&self, kind: Kind) -> Result<Target> {
        let engine = self.socket(Kind::Direct);
        let socket = self.socket(kind);
        let mut command = match kind {
            Kind::Direct => self.own("engine", &[&socket])?,
            Kind::Relay => self.own("relay", &[&socket, &engine, Path::new("1")])?,
            Kind::RelayTwo => self.own("relay", &[&socket, &engine, Path::new("2")])?,
            Kind::Sockguard | Kind::Peers => self.guard(),
        };
        if kind == Kind::Direct {
            command.arg(self.bulk.to_string());
        }
        if kind == Kind::Sockguard {
            command.arg("--filename").arg(&socket).arg("--upstream-socket").arg(&engine);
            command.args(["--owner-label", OWNER]);
        }
        if kind == Kind::Peers {
            command.arg("--config").arg(self.configuration(&socket, &engine)?);
        }
        // One that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&socket);
        let began = Instant::now();
        let mut process = Process::start(command)?;
        let start_up = process.ready(&socket, began).await?;
        Ok(Target { kind, socket, process, start_up })
    }

    /// What is set for who runs the benchmark (`make` sets some) is not for what is measured.
    fn guard(&self) -> Command {
        let mut guard = Command::new(&self.sockguard);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SOCKGUARD_")) {
            guard.env_remove(name);
        }
        guard
    }

    /// One listener for processes of this user, as which the benchmark runs.
    fn configuration(&self, socket: &Path, engine: &Path) -> Result<PathBuf> {
        let user = nix::unistd::getuid();
        // Agents mount the socket's directory: the key is elsewhere.
        let keys = self.directory.path().join("keys");
        std::fs::create_dir_all(&keys)?;
        let text = format!(
            "upstream = {engine:?}\nseal-key = {key:?}\n[[listener]]\nsocket = {socket:?}\nidentity = \"peer\"\n\
             [[agent]]\nuid = {user}\nowner = {OWNER:?}\npolicy = \"ci-agent\"\n",
            key = keys.join("seal.key"),
        );
        let file = self.directory.path().join("sockguard.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    fn own(&self, command: &str, arguments: &[&Path]) -> Result<Command> {
        let mut own = Command::new(std::env::current_exe()?);
        own.arg(command).args(arguments);
        Ok(own)
    }

    fn socket(&self, kind: Kind) -> PathBuf {
        let directory = self.directory.path().join(kind.name());
        // Where it cannot be made, nothing can be started there, which says so.
        let _ = std::fs::create_dir_all(&directory);
        directory.join("engine.sock")
    }
}
