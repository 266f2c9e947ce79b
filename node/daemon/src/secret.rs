//! Secrets that outlive the daemon, in its state directory: 32 random octets to a file.
//!
//! `crash.secret` makes the tokens by which peers know that we have lost an SA (RFC 6290). Who reads
//! it can end our SAs, and can neither read nor send anything under them.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use ike::NodeSecret;
use zeroize::Zeroizing;

use crate::whole;

/// Reads a secret, or makes it on the first start. Without it the node runs nevertheless: a
/// complaint is logged, and `None` is given.
pub(crate) fn load_or_make(directory: &Path, name: &str) -> Option<NodeSecret> {
    let path = directory.join(name);
    let secret = std::fs::create_dir_all(directory).and_then(|()| match load(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
        loaded => loaded,
    });
    secret.map_err(|error| tracing::warn!("{}: {error}", path.display())).ok()
}

/// The keys that tickets are sealed with, the one in use and the one before it: each is used for a
/// day and kept for another. Who reads them can read the tickets that he has caught on their way to
/// us, and with them the first moments of what was set up with those, until new keys are exchanged.
pub(crate) fn ticket_keys(directory: &Path) -> Vec<NodeSecret> {
    let (current, previous) = (directory.join(TICKETS), directory.join("ticket.old"));
    let age = |path: &Path| {
        let made = std::fs::symlink_metadata(path).and_then(|about| about.modified()).ok()?;
        Some(made.elapsed().unwrap_or(DAY))
    };
    if age(&current).is_some_and(|age| age >= DAY) {
        let _ = std::fs::rename(&current, &previous);
    }
    if age(&previous).is_some_and(|age| age >= 2 * DAY) {
        let _ = std::fs::remove_file(&previous);
    }
    let mut keys: Vec<_> = load_or_make(directory, TICKETS).into_iter().collect();
    if !keys.is_empty() {
        keys.extend(load(&previous).ok());
    }
    keys
}

/// What the tokens are made with. Whoever has run has made it.
pub(crate) const CRASH: &str = "crash.secret";
const TICKETS: &str = "ticket.secret";
/// How long a key seals.
const DAY: Duration = Duration::from_secs(24 * 3600);

fn load(path: &Path) -> io::Result<NodeSecret> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() || about.mode() & 0o077 != 0 {
        return Err(io::Error::other("is not a file that its owner alone can read"));
    }
    let mut secret = Zeroizing::new([0; 32]);
    file.read_exact(&mut secret[..])?;
    Ok((*secret).into())
}

fn make(path: &Path) -> io::Result<NodeSecret> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut secret[..]).map_err(io::Error::other)?;
    match whole::create(path, &secret[..]) {
        // Who was here first has made it for both.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(path),
        made => made.map(|()| (*secret).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_is_made_once_and_only_for_its_owner() {
        let directory = std::env::temp_dir().join(format!("oe-secret-{}", std::process::id()));
        let made = load_or_make(&directory, "x").unwrap();
        let path = directory.join("x");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load_or_make(&directory, "x"), Some(made.clone()));
        assert_ne!(load_or_make(&directory, "y"), Some(made));
        // What others can read is no secret, what is cut short neither.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(load_or_make(&directory, "x"), None);
        std::fs::write(directory.join("y"), "short").unwrap();
        assert_eq!(load_or_make(&directory, "y"), None);
        std::os::unix::fs::symlink(&path, directory.join("z")).unwrap();
        assert_eq!(load_or_make(&directory, "z"), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn who_starts_at_the_same_time_gets_the_same_secret() {
        let directory = std::env::temp_dir().join(format!("oe-secrets-{}", std::process::id()));
        for round in 0..20 {
            let name = round.to_string();
            let made: Vec<_> = std::thread::scope(|scope| {
                let start = || scope.spawn(|| load_or_make(&directory, &name));
                let started: Vec<_> = (0..4).map(|_| start()).collect();
                started.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(made[0].is_some() && made.iter().all(|one| *one == made[0]), "{made:?}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
