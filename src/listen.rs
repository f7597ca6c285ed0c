//! The guarded socket's file. It appears under its name in one step, already listening and with its final mode and
//! owner; a live socket's name is never taken; and it goes when sockguard ends, if it is still the same file.
//!
//! No lock is relied on: agents may mount the directory, and whoever can open a file can hold a lock on it for ever.

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest path that a client can connect to by itself.
pub const LONGEST_PATH: usize = 107;

/// Mode and owner of the guarded socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The permission bits.
    pub mode: u32,
    /// The owning user; `None`: that of the process.
    pub uid: Option<u32>,
    /// The owning group; `None`: that of the process.
    pub gid: Option<u32>,
}

impl Permissions {
    /// The owning user, settled.
    pub fn owner(&self) -> u32 {
        self.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw())
    }

    /// The owning group, settled.
    pub fn group(&self) -> u32 {
        self.gid.unwrap_or_else(|| rustix::process::getegid().as_raw())
    }
}

/// A socket file that belongs to this process.
#[derive(Debug)]
pub struct SocketFile {
    directory: OwnedFd,
    name: OsString,
    identity: Identity,
}

/// What tells one file from another for as long as both exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    // The types of the fields differ between platforms.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev as u64, inode: stat.st_ino as u64 }
    }
}

impl SocketFile {
    /// Removes the file, unless another has taken its name.
    pub fn remove(self) {
        let found = rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|stat| Identity::of(&stat) == self.identity) {
            // When it cannot be removed it stays behind as a stale socket, which the next start replaces.
            let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
        }
    }
}

/// Creates the socket at this absolute path and listens on it.
///
/// # Errors
/// One sentence that names the path and says what is in the way.
pub fn listen(path: &Path, permissions: Permissions) -> Result<(UnixListener, SocketFile), String> {
    let fail = |what: String| format!("cannot create {}: {what}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(fail("it is no path of a file".to_owned()));
    };
    let parent = parent.canonicalize().map_err(|e| fail(missing_directory(parent, &e)))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, &parent, flags, Mode::empty())
        .map_err(|e| fail(missing_directory(&parent, &e.into())))?;
    check_directories(&parent, permissions.owner()).map_err(fail)?;
    // Before anything is made, so that the usual mistakes leave no trace.
    state(&directory, name).map_err(fail)?;

    let nursery = Nursery::new(directory.as_fd()).map_err(fail)?;
    let listener = nursery.listen(permissions).map_err(fail)?;
    let turn = Turn::wait(&parent);
    let identity = nursery.publish(name).map_err(fail)?;
    drop((turn, nursery));
    Ok((listener, SocketFile { directory, name: name.to_owned(), identity }))
}

fn missing_directory(parent: &Path, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("the directory {0} does not exist (mkdir -m 0755 {0})", parent.display())
        }
        std::io::ErrorKind::NotADirectory => format!("{} is no directory", parent.display()),
        _ => format!("{}: {}", parent.display(), error),
    }
}

/// Who can write to the socket's directory, or to one above it, can put a socket of their own in its place. So each
/// must belong to root, to this process's user or to the socket's, and be writable for nobody else; a sticky one like
/// `/tmp` is fine, because nobody can rename or remove another's files there. Group-writable is fine where the group
/// is root's, or the one that many systems give to each user alone (same number as the user).
fn check_directories(parent: &Path, socket_owner: u32) -> Result<(), String> {
    let me = rustix::process::geteuid().as_raw();
    for directory in parent.ancestors() {
        let shown = directory.display();
        let found = std::fs::metadata(directory).map_err(|e| format!("{shown}: {e}"))?;
        let (mode, user, group) = (found.mode(), found.uid(), found.gid());
        if user != 0 && user != me && user != socket_owner {
            return Err(format!(
                "the directory {shown} belongs to user {user}, who could put another socket in its place \
                 (use a directory of your own, or -uid {user} for a socket of that user's)"
            ));
        }
        let sticky = mode & 0o1000 != 0;
        let private_group = group == 0 || group == me || group == socket_owner;
        let writable = match (mode & 0o020 != 0 && !private_group, mode & 0o002 != 0) {
            (_, true) => Some(("everybody", "o-w")),
            (true, false) => Some(("its group", "g-w")),
            (false, false) => None,
        };
        if let (Some((who, change)), false) = (writable, sticky) {
            return Err(format!(
                "the directory {shown} is writable for {who}, who could put another socket in its place \
                 (chmod {change} {shown}, or use a directory of your own)"
            ));
        }
    }
    Ok(())
}

/// What is at the socket's name.
enum State {
    Absent,
    /// A socket that nobody listens on.
    Stale(Identity),
}

/// What is at this name; an error if it must be left alone.
fn state(directory: &impl AsFd, name: &OsStr) -> Result<State, String> {
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(State::Absent),
        Err(e) => return Err(words(e)),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Socket => {}
        FileType::Directory => return Err("there is a directory of that name".to_owned()),
        FileType::Symlink => return Err("there is a symbolic link of that name".to_owned()),
        _ => return Err("there is a file of that name, and it is no socket".to_owned()),
    }
    if stale(directory, name)? { Ok(State::Stale(Identity::of(&stat))) } else { Err(LIVE.to_owned()) }
}

const LIVE: &str = "another process is listening on it";

/// Is nobody listening on the socket of this name?
fn stale(directory: &impl AsFd, name: &OsStr) -> Result<bool, String> {
    match UnixStream::connect(through(directory, name)) {
        Ok(_) => Ok(false),
        Err(e) => match e.kind() {
            std::io::ErrorKind::ConnectionRefused => Ok(true),
            // Somebody replaced or removed it just now.
            std::io::ErrorKind::NotFound => Ok(true),
            // The queue is full, so somebody has it open.
            std::io::ErrorKind::WouldBlock => Ok(false),
            std::io::ErrorKind::PermissionDenied => {
                Err("a socket of that name belongs to another user, and whether it is in use cannot be seen".to_owned())
            }
            _ => Err(format!("a socket of that name is there, and whether it is in use cannot be seen: {e}")),
        },
    }
}

/// A path of any file in an open directory that fits into a socket address, however long the directory's own is.
fn through(directory: &impl AsFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name)
}

/// A directory that only this user can enter, next to the socket's final place: in it the socket gets its mode and
/// owner before anybody can reach it.
struct Nursery<'a> {
    parent: std::os::fd::BorrowedFd<'a>,
    name: OsString,
    inside: OwnedFd,
}

const NEW: &str = "s";
const OLD: &str = "o";

impl<'a> Nursery<'a> {
    fn new(parent: std::os::fd::BorrowedFd<'a>) -> Result<Self, String> {
        for attempt in 0..100_u32 {
            let name = OsString::from(format!(".sockguard-{}-{attempt}", std::process::id()));
            match rustix::fs::mkdirat(parent, &name, Mode::RWXU) {
                Ok(()) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let inside = rustix::fs::openat(parent, &name, flags, Mode::empty()).map_err(words)?;
                    return Ok(Self { parent, name, inside });
                }
                Err(Errno::EXIST) => {}
                Err(e) => return Err(format!("its directory does not take new files: {}", words(e))),
            }
        }
        Err("its directory is full of what earlier starts left (.sockguard-*): remove it".to_owned())
    }

    fn listen(&self, permissions: Permissions) -> Result<UnixListener, String> {
        let path = through(&self.inside, OsStr::new(NEW));
        let listener = UnixListener::bind(&path).map_err(|e| e.to_string())?;
        std::os::unix::fs::lchown(&path, permissions.uid, permissions.gid).map_err(|e| {
            format!("cannot give it to user {} and group {}: {e}", permissions.owner(), permissions.group())
        })?;
        rustix::fs::chmodat(&self.inside, NEW, Mode::from_raw_mode(permissions.mode), AtFlags::empty())
            .map_err(|e| format!("cannot set its mode: {}", words(e)))?;
        Ok(listener)
    }

    /// Moves the socket to its final name, if no live one has it.
    ///
    /// Another process may do the same at the same time, if it did not wait for its turn: a free name is taken only if it
    /// is still free, and what is moved out of the way is looked at again afterwards.
    fn publish(&self, name: &OsStr) -> Result<Identity, String> {
        let stat = rustix::fs::statat(&self.inside, NEW, AtFlags::SYMLINK_NOFOLLOW).map_err(words)?;
        for _ in 0..10 {
            match state(&self.parent, name)? {
                State::Absent => match take_free(&self.inside, NEW, &self.parent, name) {
                    Ok(()) => return Ok(Identity::of(&stat)),
                    Err(Errno::EXIST) => {}
                    Err(e) => return Err(words(e)),
                },
                State::Stale(identity) => self.put_aside(name, identity)?,
            }
        }
        Err("others keep creating it".to_owned())
    }

    fn put_aside(&self, name: &OsStr, examined: Identity) -> Result<(), String> {
        match rustix::fs::renameat(self.parent, name, &self.inside, OLD) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(format!("cannot replace the stale socket: {}", words(e))),
        }
        let moved = rustix::fs::statat(&self.inside, OLD, AtFlags::SYMLINK_NOFOLLOW).map_err(words)?;
        if Identity::of(&moved) == examined {
            return rustix::fs::unlinkat(&self.inside, OLD, AtFlags::empty()).map_err(words);
        }
        // Somebody was faster, and this is theirs.
        take_free(&self.inside, OLD, &self.parent, name).map_err(words)?;
        Err(LIVE.to_owned())
    }
}

impl Drop for Nursery<'_> {
    fn drop(&mut self) {
        for name in [NEW, OLD] {
            let _ = rustix::fs::unlinkat(&self.inside, name, AtFlags::empty());
        }
        let _ = rustix::fs::unlinkat(self.parent, &self.name, AtFlags::REMOVEDIR);
    }
}

/// A turn among those that start at the same moment. While one puts aside what another has just published there, and puts
/// it back, a third would find the name free.
struct Turn {
    directory: OwnedFd,
}

impl Turn {
    /// How long it takes them all together. Whoever holds the lock for longer is none of them.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Waits for a turn. Where there is none to be had it goes without.
    fn wait(directory: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty()).ok()?;
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Self { directory }),
                Err(Errno::WOULDBLOCK) if begun.elapsed() < Self::PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Not by closing it alone: a child that is about to become its program has a copy.
        let _ = rustix::fs::flock(&self.directory, FlockOperation::Unlock);
    }
}

/// Moves a file to a name that is free.
fn take_free(from: &impl AsFd, old: &str, to: &impl AsFd, new: &OsStr) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // Not every file system can do that; a hard link fails on a taken name, too.
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(from, old, to, new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, old, AtFlags::empty())
        }
        other => other,
    }
}

fn words(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}
