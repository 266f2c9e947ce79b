//! Files that are there whole or not at all, whenever the power fails, and that nobody but their
//! owner can read at any moment.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes a new file of mode 0600.
///
/// # Errors
/// `AlreadyExists` if there is one, which stays as it is; else what the system says, and there is
/// none then.
pub(crate) fn create(path: &Path, octets: &[u8]) -> io::Result<()> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    // Somebody else may be making the same file now.
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let temporary = beside(path, &format!(".{}-{made}.new", std::process::id()))?;
    write(&temporary, octets)?;
    let made = link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    made.and_then(|()| sync_directory(path))
}

/// Puts a file of mode 0600 in the place of what is there, if anything is. For files that one
/// process alone writes.
///
/// # Errors
/// What the system says; what was there is there then.
pub(crate) fn replace(path: &Path, octets: &[u8]) -> io::Result<()> {
    let temporary = beside(path, ".new")?;
    write(&temporary, octets)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_directory(path)
}

fn beside(path: &Path, suffix: &str) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

fn write(temporary: &Path, octets: &[u8]) -> io::Result<()> {
    // Left by somebody who was killed, or a link that somebody laid there.
    let _ = fs::remove_file(temporary);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(temporary)?;
    let written = file.write_all(octets).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(temporary)))
}

/// Gives a file a name that nobody has: unlike a renamed one, a linked file replaces none.
fn link(temporary: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(temporary, path) {
        // A file system without links.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP))
                && fs::symlink_metadata(path).is_err() =>
        {
            fs::rename(temporary, path)
        }
        linked => linked,
    }
}

/// The name, too, must survive a power failure.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn directory(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("oe-whole-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_is_there_is_replaced_only_if_that_is_wanted() {
        let directory = directory("there");
        let path = directory.join("key");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(&directory), ["key"], "nothing else is left");
        let missing = create(&directory.join("no/key"), b"one").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        // What cannot take its name leaves nothing either.
        fs::create_dir(directory.join("dir")).unwrap();
        assert!(replace(&directory.join("dir"), b"one").is_err());
        assert_eq!(names(&directory).len(), 2, "{:?}", names(&directory));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn nobody_ever_sees_half_of_it() {
        let directory = directory("half");
        let path = directory.join("key");
        let text = vec![b'x'; 1 << 20];
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    seen.extend(fs::metadata(&path).map(|about| about.len()));
                    seen.dedup();
                }
                seen
            });
            for _ in 0..50 {
                create(&path, &text).unwrap();
                replace(&path, &text).unwrap();
                fs::remove_file(&path).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            let seen = looks.join().unwrap();
            assert_eq!(seen, [1 << 20], "whole whenever it was there");
        });
        fs::remove_dir_all(&directory).unwrap();
    }
}
