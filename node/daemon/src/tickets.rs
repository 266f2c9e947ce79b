//! What we come back with after a restart (RFC 5723): the tickets that responders gave us, in the
//! file `tickets` of the state directory, readable by its owner only.
//!
//! Who steals that file can come back in our place to who gave them, for a day, as long as our
//! record in DNS stands; and who has recorded such a return can read its first moments, until the
//! new keys are exchanged. It says nothing of anything older. It holds the addresses of peers.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use keying::KeptTicket;
use zeroize::Zeroizing;

use crate::whole;

/// The file. Octets are appended as tickets come; the last of each peer counts.
pub(crate) struct TicketFile {
    /// Nothing is kept without it.
    path: Option<PathBuf>,
    octets: usize,
}

impl TicketFile {
    /// Takes what a predecessor kept, and starts anew: a ticket is good once, and whoever comes
    /// after us must not find what we have used.
    pub(crate) fn open(directory: &Path, wanted: bool) -> (Self, Vec<KeptTicket>) {
        let path = directory.join("tickets");
        let mut kept = Vec::new();
        if wanted {
            match read(&path) {
                Ok(octets) => kept = parse(&octets, unix()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("{}: {error}", path.display()),
            }
        }
        let _ = std::fs::remove_file(&path);
        (Self { path: wanted.then_some(path), octets: 0 }, kept)
    }

    /// Keeps one more.
    pub(crate) fn keep(&mut self, ticket: &KeptTicket) {
        let Some(path) = &self.path else { return };
        // In one piece, which is wiped: what grows leaves copies behind.
        let mut record = Zeroizing::new(Vec::with_capacity(RECORD));
        write(&mut record, ticket, unix());
        self.octets += record.len();
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(&record)) {
            tracing::warn!("{}: {error}", path.display());
        }
    }

    /// Whether most of what is in the file must be old by now.
    pub(crate) fn is_long(&self) -> bool {
        self.octets > LONG
    }

    /// Puts these in the place of everything.
    pub(crate) fn replace(&mut self, tickets: &[KeptTicket]) {
        let Some(path) = &self.path else { return };
        let mut octets = Zeroizing::new(Vec::with_capacity(tickets.len() * RECORD));
        for ticket in tickets {
            write(&mut octets, ticket, unix());
        }
        self.octets = octets.len();
        if let Err(error) = whole::replace(path, &octets) {
            tracing::warn!("{}: {error}", path.display());
        }
    }
}

fn unix() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let len = file.metadata()?.len().min(2 * LONG as u64);
    // One more, or it would grow to see that this was the end.
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 32));
    io::Read::by_ref(&mut file).take(2 * LONG as u64).read_to_end(&mut octets)?;
    Ok(octets)
}

/// One record: until when in seconds since 1970, the gateway's address, the digest of its key, and
/// the ticket with its length.
fn write(out: &mut Vec<u8>, ticket: &KeptTicket, now: Duration) {
    let octets = ticket.ticket.to_octets();
    let Ok(len) = u16::try_from(octets.len()) else { return };
    out.extend_from_slice(&(now + ticket.life).as_secs().to_be_bytes());
    match ticket.gateway {
        IpAddr::V4(a) => out.extend_from_slice(&a.to_ipv6_mapped().octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
    out.extend_from_slice(&ticket.key);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&octets);
}

/// What is still good, as far as the octets can be read: the last record may be cut short.
fn parse(mut octets: &[u8], now: Duration) -> Vec<KeptTicket> {
    let mut kept = Vec::new();
    while let Some((ticket, rest)) = parse_one(octets, now) {
        kept.extend(ticket);
        octets = rest;
    }
    kept
}

fn parse_one(octets: &[u8], now: Duration) -> Option<(Option<KeptTicket>, &[u8])> {
    let (until, rest) = octets.split_first_chunk::<8>()?;
    let (gateway, rest) = rest.split_first_chunk::<16>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (ticket, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let left = Duration::from_secs(u64::from_be_bytes(*until)).checked_sub(now);
    // A clock that was set back makes no ticket good for longer.
    let life = left.filter(|left| !left.is_zero() && *left <= DAY);
    let kept = life.and_then(|life| {
        let gateway = IpAddr::from(*gateway).to_canonical();
        Some(KeptTicket { gateway, key: *key, ticket: ike::Ticket::from_octets(ticket)?, life })
    });
    Some((kept, rest))
}

/// No ticket is good for longer.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Octets of a ticket with what stands before it, at most: what IKE takes has 900, and its secret.
const RECORD: usize = 1200;
/// Some ten thousand tickets.
const LONG: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn ticket(last: u8, life: u64) -> KeptTicket {
        KeptTicket {
            gateway: if last.is_multiple_of(2) {
                [192, 0, 2, last].into()
            } else {
                "2001:db8::1".parse().unwrap()
            },
            key: [last; 32],
            ticket: ike::Ticket::from_octets(&[0, 2, 7, 7, last]).unwrap(),
            life: Duration::from_secs(life),
        }
    }

    #[test]
    fn what_was_kept_is_found_once() {
        let directory = std::env::temp_dir().join(format!("oe-tickets-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (mut file, kept) = TicketFile::open(&directory, true);
        assert_eq!(kept, []);
        file.keep(&ticket(1, 5000));
        file.keep(&ticket(2, 5000));
        let path = directory.join("tickets");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        file.replace(&[ticket(2, 5000), ticket(3, 0)]);
        file.keep(&ticket(4, 90_000));
        // A record that was being written as the power went.
        let mut octets = std::fs::read(&path).unwrap();
        octets.extend_from_slice(&[0; 30]);
        std::fs::write(&path, octets).unwrap();
        let (_, kept) = TicketFile::open(&directory, true);
        let found: Vec<_> = kept.iter().map(|t| (t.gateway, t.key, t.ticket.clone())).collect();
        let two = ticket(2, 0);
        assert_eq!(found, [(two.gateway, two.key, two.ticket)]);
        assert!(!path.exists());
        // Unwanted, nothing is kept and nothing is left.
        std::fs::write(&path, "old").unwrap();
        let (mut file, kept) = TicketFile::open(&directory, false);
        file.keep(&ticket(1, 5000));
        assert!(kept.is_empty() && !path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
