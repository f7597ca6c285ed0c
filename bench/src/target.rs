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
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Direct, Kind::Relay, Kind::RelayTwo, Kind::Sockguard];
    pub const PROXIES: [Kind; 2] = [Kind::Relay, Kind::Sockguard];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Relay => "relay",
            Kind::RelayTwo => "relay-2",
            Kind::Sockguard => "sockguard",
        }
    }

    pub fn is_guarded(self) -> bool {
        self == Kind::Sockguard
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
            Kind::Sockguard => Command::new(&self.sockguard),
        };
        if kind == Kind::Direct {
            command.arg(self.bulk.to_string());
        }
        if kind == Kind::Sockguard {
            command.arg("--filename").arg(&socket).arg("--upstream-socket").arg(&engine);
            command.args(["--owner-label", OWNER]);
        }
        // One that was killed leaves its socket behind.
        let _ = std::fs::remove_file(&socket);
        let began = Instant::now();
        let mut process = Process::start(command)?;
        let start_up = process.ready(&socket, began).await?;
        Ok(Target { kind, socket, process, start_up })
    }

    fn own(&self, command: &str, arguments: &[&Path]) -> Result<Command> {
        let mut own = Command::new(std::env::current_exe()?);
        own.arg(command).args(arguments);
        Ok(own)
    }

    fn socket(&self, kind: Kind) -> PathBuf {
        self.directory.path().join(format!("{}.sock", kind.name()))
    }
}
