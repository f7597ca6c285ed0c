//! The process at the other end of a connection, as the kernel knows it.

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use std::os::fd::OwnedFd;
use tokio::net::UnixStream;

/// A process that connected, and a hold on it: its number means this process for as long as it lives.
#[derive(Debug)]
pub struct Peer {
    /// Its number, as sockguard sees it.
    pub pid: u32,
    /// Its effective user when it connected.
    pub uid: u32,
    hold: Hold,
}

/// A hold on a process, by which it can be told whether that very process still lives.
#[derive(Debug)]
pub struct Hold(OwnedFd);

impl Hold {
    /// On the process that has this number now.
    ///
    /// # Errors
    /// There is none.
    pub fn on(pid: u32) -> Result<Self, Unknown> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Unknown::Hidden)?;
        pidfd_open(number, PidfdFlags::empty()).map(Self).map_err(|e| match e {
            rustix::io::Errno::SRCH => Unknown::Gone,
            e => Unknown::System(e.to_string()),
        })
    }

    /// Does the process still live?
    pub fn lives(&self) -> bool {
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
    }
}

/// Why it cannot be known who connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Its process cannot be seen from sockguard's process name space.
    Hidden,
    /// Its process has ended since.
    Gone,
    /// The system's words.
    System(String),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hidden => f.write_str(
                "sockguard cannot see the process that connects: it has to run in the host's process name space (pid: host)",
            ),
            Self::Gone => f.write_str("the process that connected ended before it could be told who it is"),
            Self::System(what) => write!(f, "it cannot be told who connects: {what}"),
        }
    }
}

impl Peer {
    /// Who connected. To be asked at once when the connection was accepted: before Linux 6.5 the kernel tells only the
    /// process's number, and the hold is taken by that. A peer that ended meanwhile has left its number to whoever is
    /// next, once all others were used up; on newer kernels the hold is on the very process that connected.
    ///
    /// # Errors
    /// It cannot be known.
    pub fn of(stream: &UnixStream) -> Result<Self, Unknown> {
        let said = stream.peer_cred().map_err(|e| Unknown::System(e.to_string()))?;
        let number = said.pid().filter(|pid| *pid > 0).ok_or(Unknown::Hidden)?;
        let pid = u32::try_from(number).map_err(|_| Unknown::Hidden)?;
        let hold = match getsockopt(stream, PeerPidfd) {
            Ok(hold) => Hold(hold),
            Err(nix::errno::Errno::ENOPROTOOPT) => Hold::on(pid)?,
            // A peer that has been waited for.
            Err(nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL | nix::errno::Errno::ENODATA) => {
                return Err(Unknown::Gone);
            }
            Err(e) => return Err(Unknown::System(e.to_string())),
        };
        Ok(Self { pid, uid: said.uid(), hold })
    }

    /// Does the process still live? What was read of its number before is about it then, and nobody else.
    pub fn lives(&self) -> bool {
        self.hold.lives()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    fn wait<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_peer_is_the_process_that_connected() {
        wait(async {
            let (here, _there) = UnixStream::pair().unwrap();
            let peer = Peer::of(&here).unwrap();
            assert_eq!(peer.pid, std::process::id());
            assert!(peer.lives());
        });
    }

    #[test]
    fn a_peer_that_ended_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'x')";
        let mut child = Command::new("python3").args(["-c", script]).arg(&socket).stdin(Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        wait(async {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let stream = UnixStream::from_std(stream).unwrap();
            match Peer::of(&stream) {
                Ok(peer) => assert!(!peer.lives()),
                Err(unknown) => assert_eq!(unknown, Unknown::Gone),
            }
        });
    }
}
