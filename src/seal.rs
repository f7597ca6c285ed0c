//! The file of the key that containers are sealed with. Who can read it can forge seals, so nobody but sockguard may;
//! losing it costs running containers that came with the old key, never isolation.

use crate::owner::SealKey;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

/// A key that is made has so many bytes, and a shorter one is none.
const LENGTH: usize = 32;

/// The largest file that is read.
const LARGEST: u64 = 4096;

/// The key in this file; it is made where the file is absent.
///
/// # Errors
/// One sentence that says what to do.
pub fn open(path: &Path) -> Result<SealKey, String> {
    // Another process may make it, too: whose is there first counts.
    for _ in 0..3 {
        if let Some(key) = read(path)? {
            return Ok(key);
        }
        make(path)?;
    }
    Err(format!("{}: it does not stay where it was made", path.display()))
}

/// The key in this file; none where the file is absent.
///
/// # Errors
/// One sentence that says what to do.
pub fn read(path: &Path) -> Result<Option<SealKey>, String> {
    let shown = path.display();
    // Opening a pipe must not wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(format!("{shown} is a symbolic link: name the file itself")),
        Err(e) => return Err(format!("{shown}: {}", std::io::Error::from(e))),
    };
    let stat = rustix::fs::fstat(&file).map_err(|e| format!("{shown}: {}", std::io::Error::from(e)))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(format!("{shown} is no regular file"));
    }
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid != 0 && stat.st_uid != me {
        return Err(format!("{shown} belongs to user {}, who can read it (chown {me} {shown})", stat.st_uid));
    }
    if stat.st_mode & 0o077 != 0 {
        let mode = stat.st_mode & 0o777;
        return Err(format!("{shown} has mode {mode:04o}, so others can read it (chmod 0600 {shown})"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| format!("{shown}: {e}"))?;
    if bytes.len() < LENGTH || bytes.len() as u64 > LARGEST {
        return Err(format!(
            "{shown} has {} bytes, and a key has {LENGTH} to {LARGEST} (remove it, and a new one is made)",
            bytes.len()
        ));
    }
    Ok(Some(SealKey::new(&bytes)))
}

/// Makes a key. The file appears in one step; one that came first is left alone.
fn make(path: &Path) -> Result<(), String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let fail = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("the directory {0} does not exist (mkdir -p -m 0700 {0})", directory.display())
        }
        _ => format!("cannot make {}: {e}", path.display()),
    };
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|e| format!("the system has no random bytes for a key: {e}"))?;
    // For its owner alone, as all temporary files.
    let mut file = tempfile::Builder::new().prefix(".seal-").tempfile_in(directory).map_err(fail)?;
    file.write_all(&bytes).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    match file.persist_noclobber(path) {
        Ok(_) => File::open(directory).and_then(|directory| directory.sync_all()).map_err(fail),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(fail(e.error)),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_key_is_made_once_and_read_by_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(read(&path), Ok(None));
        let start = std::sync::Barrier::new(4);
        let made: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let one = || {
                start.wait();
                open(&path).map(|_| std::fs::read(&path).unwrap()).unwrap()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(made.iter().all(|bytes| bytes.len() == LENGTH && Some(bytes) == made.first()), "all have the same");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
        assert_eq!(open(&path), Ok(SealKey::new(made.first().unwrap())));
    }

    #[test]
    fn a_file_that_is_no_secret_is_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let says = |name: &str, what: &str| {
            let told = open(&at(name)).err();
            assert!(told.as_ref().is_some_and(|told| told.contains(what)), "{name}: {told:?}");
        };
        std::fs::write(at("open"), [7; 32]).unwrap();
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o640)).unwrap();
        says("open", "has mode 0640, so others can read it (chmod 0600 ");
        std::fs::set_permissions(at("open"), std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(open(&at("open")), Ok(SealKey::new(&[7; 32])));
        std::fs::write(at("short"), "secret").unwrap();
        std::fs::set_permissions(at("short"), std::fs::Permissions::from_mode(0o600)).unwrap();
        says("short", "has 6 bytes, and a key has 32 to 4096");
        symlink(at("open"), at("link")).unwrap();
        says("link", "is a symbolic link: name the file itself");
        says(".", "is no regular file");
        says("absent/key", "does not exist (mkdir -p -m 0700 ");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(at("open"), Some(1234), None).unwrap();
            says("open", "belongs to user 1234, who can read it (chown 0 ");
        }
    }
}
