//! Clocks that several processes share.

use std::io::Result;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// Monotonic time, the same in every process of this machine.
pub fn now() -> Duration {
    ClockId::CLOCK_MONOTONIC.now().map(Duration::from).unwrap_or_default()
}

/// CPU time of all threads of a process, ended ones included, to the nanosecond.
pub fn cpu(pid: u32) -> Result<Duration> {
    Ok(clock_getcpuclockid(Pid::from_raw(pid as i32))?.now()?.into())
}
