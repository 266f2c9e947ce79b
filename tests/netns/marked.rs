//! Packets that bear a mark, and wires that are searched for it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use tests::place::{self, Capture};

use crate::internet::{Internet, PATIENCE};

/// Nothing else bears it, and no cipher makes it.
pub(crate) const MARK: &str = "oe-must-not-be-seen";

/// Somebody on a host who sends marked datagrams to some addresses, all the time.
pub(crate) struct Marked {
    child: Child,
    count: PathBuf,
}

impl Marked {
    /// Starts: some forty a second to each.
    pub(crate) fn start(internet: &Internet, host: &str, to: &[&str]) -> Self {
        let count = internet.directory.join(format!("{host}-marked"));
        let _ = fs::remove_file(&count);
        let script = format!(
            "while :; do for to in {}; do echo {MARK} > /dev/udp/$to/9; done; \
             echo >> {}; sleep 0.02; done",
            to.join(" "),
            count.display(),
        );
        let child = place::command(&internet.namespace(host), &["bash", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let marked = Self { child, count };
        marked.sent(1);
        marked
    }

    /// Waits until so many more have been sent to each address.
    pub(crate) fn sent(&self, more: u64) {
        let sent = || fs::metadata(&self.count).map_or(0, |file| file.len());
        let until = sent() + more;
        place::await_some("marked packets are sent", PATIENCE, || (sent() >= until).then_some(()));
    }

    /// Sends no more.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All wires of an internet: the hub has an end of each.
pub(crate) struct Wires {
    _capture: Capture,
    file: PathBuf,
    hub: String,
}

impl Wires {
    /// Listens on all of them.
    pub(crate) fn listen(internet: &Internet) -> Self {
        let file = internet.directory.join("wires.pcap");
        let hub = internet.namespace("hub");
        Self { _capture: Capture::start(&hub, "any", &file), file, hub }
    }

    /// Panics if a marked packet was on any wire until now.
    #[track_caller]
    pub(crate) fn assert_unmarked(&self) {
        self.catch_up();
        let seen = self.count(MARK);
        assert_eq!(seen, 0, "marked packets on a wire; {}", self.file.display());
    }

    /// Marked packets that were on a wire until now.
    pub(crate) fn marked(&self) -> usize {
        self.catch_up();
        self.count(MARK)
    }

    /// Waits until a marked packet is on a wire: where it may be, it is seen.
    pub(crate) fn await_marked(&self) {
        place::await_some("a marked packet", PATIENCE, || (self.count(MARK) > 0).then_some(()));
    }

    /// What was sent is in the file a little later: after this, all is that was sent before.
    fn catch_up(&self) {
        let last = format!("the last so far {}", self.count("the last so far"));
        let send = format!("echo {last} > /dev/udp/192.0.2.11/9");
        place::await_some("the wires are read", PATIENCE, || {
            let _ = place::run(&self.hub, &["bash", "-c", &send]);
            (self.count(&last) > 0).then_some(())
        });
    }

    fn count(&self, text: &str) -> usize {
        let octets = fs::read(&self.file).unwrap();
        octets.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
    }
}
