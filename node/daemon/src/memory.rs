//! Which peers were keyed, in a file of the state directory: what a restarted node tries at once
//! (oe-rules 57). Addresses only; whoever reads or writes it learns and gains nothing but a few
//! calls that DNS has to confirm.
//!
//! ```text
//! oe-node peers 1
//! written 1790000000
//! 192.0.2.11 198.51.100.22 198.51.100.22
//! ```
//!
//! Each line after the second is our address, the destination and its gateway.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keying::{MAX_REMEMBERED, Remembered};
use sa::Flow;

use crate::whole;

/// The file, and when it is next written.
pub(crate) struct Memory {
    directory: PathBuf,
    /// The peers that it holds.
    held: Vec<Remembered>,
    due: Option<Instant>,
    /// A write under way; it must not overtake the next.
    writing: Option<tokio::task::JoinHandle<()>>,
    /// Whether it was written before: a failure is told once.
    tried: bool,
}

impl Memory {
    /// Reads what a predecessor left. Whatever is wrong with it is no more than a loss.
    pub(crate) fn open(directory: &Path) -> (Self, Vec<Remembered>) {
        let peers = match read(&directory.join(FILE)) {
            Ok(text) => parse(&text, seconds_now()),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: {error}; no peer is remembered", directory.display());
                }
                Vec::new()
            }
        };
        let memory = Self {
            directory: directory.to_owned(),
            held: peers.clone(),
            due: None,
            writing: None,
            tried: false,
        };
        (memory, peers)
    }

    /// Something that is remembered may have changed.
    pub(crate) fn touch(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + SETTLE);
    }

    /// When [`Self::write`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes in the background, if anything has changed. Must be called inside a runtime.
    pub(crate) fn write(&mut self, peers: Vec<Remembered>) {
        self.due = None;
        if peers == self.held {
            return;
        }
        if self.writing.as_ref().is_some_and(|write| !write.is_finished()) {
            // A slow disk: what is true then is written then.
            return self.touch();
        }
        let text = render(&peers, seconds_now());
        self.held = peers;
        let (directory, first) = (self.directory.clone(), !self.tried);
        self.tried = true;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = replace(&directory, &text)
                && first
            {
                tracing::warn!("{}: {error}; a restart will remember nobody", directory.display());
            }
        }));
    }

    /// Writes for the last time, and waits for it.
    pub(crate) async fn close(&mut self, peers: Vec<Remembered>) {
        if let Some(write) = self.writing.take() {
            let _ = write.await;
        }
        self.write(peers);
        if let Some(write) = self.writing.take() {
            let _ = write.await;
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut octets = Vec::new();
    File::open(file)?.take(MAX_FILE).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// The file's text.
fn render(peers: &[Remembered], now: u64) -> String {
    let mut text = format!("{MAGIC}\nwritten {now}\n");
    for Remembered { flow, gateway } in peers {
        // Writing to memory cannot fail.
        let _ = writeln!(text, "{} {} {gateway}", flow.src(), flow.dst());
    }
    text
}

/// The peers of a file's text: all lines that are whole, nothing of a file that is not ours, of
/// another version or too old.
fn parse(text: &str, now: u64) -> Vec<Remembered> {
    // What follows the last newline was not written to its end.
    let Some((whole, _)) = text.rsplit_once('\n') else { return Vec::new() };
    let mut lines = whole.lines();
    if lines.next() != Some(MAGIC) {
        return Vec::new();
    }
    let written = lines.next().and_then(|line| line.strip_prefix("written ")?.parse::<u64>().ok());
    // A clock that is not set yet says nothing about age.
    if written.is_none_or(|written| now.saturating_sub(written) > MAX_AGE.as_secs()) {
        return Vec::new();
    }
    lines.filter_map(line).take(MAX_REMEMBERED).collect()
}

fn line(line: &str) -> Option<Remembered> {
    let mut words = line.split(' ');
    let (src, dst, gateway) = (words.next()?, words.next()?, words.next()?);
    let flow = Flow::new(src.parse().ok()?, dst.parse().ok()?)?;
    let gateway = gateway.parse().ok()?;
    words.next().is_none().then_some(Remembered { flow, gateway })
}

fn replace(directory: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    whole::replace(&directory.join(FILE), text.as_bytes())
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

const FILE: &str = "peers";
const MAGIC: &str = "oe-node peers 1";
/// Three IPv6 addresses a line, and room.
const MAX_FILE: u64 = 128 * MAX_REMEMBERED as u64;
/// How long changes gather before they are written: less than a person takes to pull a plug.
const SETTLE: Duration = Duration::from_secs(1);
/// Nobody waits for a pair for longer: its peer has given it up.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> Remembered {
        let flow = Flow::new([192, 0, 2, 1].into(), [198, 51, 100, n].into()).unwrap();
        Remembered { flow, gateway: [203, 0, 113, n].into() }
    }

    fn v6() -> Remembered {
        let ip = |text: &str| text.parse().unwrap();
        let flow = Flow::new(ip("2001:db8::1"), ip("2001:db8:ffff:ffff:ffff:ffff:ffff:fffe"));
        Remembered { flow: flow.unwrap(), gateway: ip("2001:db8:2::2") }
    }

    #[test]
    fn what_is_written_is_read() {
        let peers = vec![peer(1), peer(2), v6()];
        assert_eq!(parse(&render(&peers, 1000), 2000), peers);
        let many = vec![v6(); 2 * MAX_REMEMBERED];
        assert_eq!(parse(&render(&many, 1000), 2000).len(), MAX_REMEMBERED);
        assert!(
            render(&many[..MAX_REMEMBERED], u64::MAX).len() < usize::try_from(MAX_FILE).unwrap()
        );
    }

    #[test]
    fn a_torn_file_gives_what_is_whole() {
        let text = render(&[peer(1), peer(22)], 1000);
        for end in 0..text.len() {
            let found = parse(&text[..end], 1000);
            assert!([vec![], vec![peer(1)]].contains(&found), "{end}: {found:?}");
        }
        assert_eq!(parse(&text, 1000), [peer(1), peer(22)]);
        // Zeros in place of what had not reached the disk.
        let zeroed = format!("{}\0\0\0\0\n", &text[..text.len() - 5]);
        assert_eq!(parse(&zeroed, 1000), [peer(1)]);
    }

    #[test]
    fn what_is_not_ours_is_nothing() {
        let good = render(&[peer(1)], 1000);
        for bad in [
            "",
            "\n",
            "rubbish\n",
            &good.replace("peers 1", "peers 2"),
            &good.replace("written", "broken"),
            &good.replace("192.0.2.1", "$(reboot)"),
            &good.replace("192.0.2.1", "2001:db8::1"),
            &good.replace("192.0.2.1 ", "192.0.2.1  "),
            &good.replace("203.0.113.1", "203.0.113.1 key"),
        ] {
            assert_eq!(parse(bad, 1000), [], "{bad:?}");
        }
        assert_eq!(parse(&good, 1000 + 24 * 3600).len(), 1);
        assert_eq!(parse(&good, 1001 + 24 * 3600), []);
        assert_eq!(parse(&good, 0).len(), 1, "the clock is not set yet");
    }

    #[test]
    fn the_file_is_replaced_whole_and_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = std::env::temp_dir().join(format!("oe-node-memory-{}", std::process::id()));
        let state = directory.join("state");
        for peers in [vec![peer(1)], vec![peer(2), v6()]] {
            replace(&state, &render(&peers, seconds_now())).unwrap();
            assert_eq!(Memory::open(&state).1, peers);
        }
        assert_eq!(fs::metadata(state.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(Memory::open(&state).1, []);
    }
}
