//! The processes under measurement: started, watched, and always ended.

use std::io::{Error, Read, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::load;
use crate::wire::{Wire, bad};

const START_LIMIT: Duration = Duration::from_secs(10);
/// How much of what a process said last is kept to explain a failure.
const SAID: usize = 1024;

pub struct Process {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    /// Reads its log.
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Its log is read through a pipe, as a supervisor would, and thrown away.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let said = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|mut stderr| {
            let said = said.clone();
            std::thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                    if let Ok(mut said) = said.lock() {
                        said.extend_from_slice(&buffer[..length]);
                        let old = said.len().saturating_sub(SAID);
                        said.drain(..old);
                    }
                }
            })
        });
        Ok(Self { child, said, reader })
    }

    /// Waits until a ping through `socket` is answered, and tells how long that took since `began`.
    pub async fn ready(&mut self, socket: &Path, began: Instant) -> Result<Duration> {
        loop {
            if let Ok(mut wire) = Wire::connect(socket).await {
                wire.send(load::PING).await?;
                return match wire.head().await? {
                    Some(head) if head.status()? == 200 => Ok(began.elapsed()),
                    Some(head) => Err(bad(format!("first ping was answered `{}`", head.line))),
                    None => Err(bad("first ping was not answered".into())),
                };
            }
            if let Some(status) = self.child.try_wait()? {
                // It may have said why in its last moment.
                drop(self.reader.take().map(JoinHandle::join));
                return Err(Error::other(format!("ended with {status}: {}", self.said())));
            }
            if began.elapsed() > START_LIMIT {
                return Err(Error::other(format!("did not start: {}", self.said())));
            }
            // The timer of the runtime is too coarse for this.
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    pub fn said(&self) -> String {
        let said = self.said.lock().map(|said| said.clone()).unwrap_or_default();
        String::from_utf8_lossy(&said).into_owned()
    }

    pub fn cpu(&self) -> Result<Duration> {
        clock::cpu(self.child.id())
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> Result<f64> {
        self.kib("smaps_rollup", "Rss:")
    }

    /// The most it was since the start or the last `forget_peak`, in KiB.
    pub fn peak(&self) -> Result<f64> {
        self.kib("status", "VmHWM:")
    }

    pub fn forget_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5")
    }

    fn kib(&self, file: &str, name: &str) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
        number.ok_or_else(|| bad(format!("no `{name}` in /proc/PID/{file}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
