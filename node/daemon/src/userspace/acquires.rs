//! Flows without policy on their way to the main loop, which decides a few thousand a second: more
//! are a flood, and a flood to one part of the address space must not keep the others waiting.

use std::hash::BuildHasher as _;
use std::net::IpAddr;

use sa::{Flow, Notice};
use tokio::sync::mpsc;

/// Where they go in.
#[derive(Debug)]
pub(super) struct Entry {
    lanes: Vec<mpsc::Sender<Notice>>,
    /// A word for each notice: one channel to wait at, where there are many to look into.
    word: mpsc::UnboundedSender<()>,
    /// Strangers must not know which neighbourhoods share a lane.
    hasher: std::hash::RandomState,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Acquires {
    lanes: Vec<mpsc::Receiver<Notice>>,
    words: mpsc::UnboundedReceiver<()>,
    turn: usize,
}

/// An entry and its other end.
pub(super) fn acquires() -> (Entry, Acquires) {
    let (into, out) = (0..LANES).map(|_| mpsc::channel(ROOM)).unzip();
    // As many as there are notices in the lanes at most.
    let (word, words) = mpsc::unbounded_channel();
    let hasher = std::hash::RandomState::new();
    (Entry { lanes: into, word, hasher }, Acquires { lanes: out, words, turn: 0 })
}

impl Entry {
    /// Puts one in; false if its lane is full. Whoever is not told of a flow has to be told of it
    /// again, by its next packet.
    pub(super) fn put(&self, flow: Flow, notice: Notice) -> bool {
        let near = match flow.dst() {
            IpAddr::V4(addr) => u32::from(addr) >> 24,
            IpAddr::V6(addr) => u32::try_from(u128::from(addr) >> 96).unwrap_or(u32::MAX),
        };
        let hash = self.hasher.hash_one((flow.dst().is_ipv4(), near));
        let lane = usize::try_from(hash % LANES as u64).ok().and_then(|lane| self.lanes.get(lane));
        // Who would hear it is gone only when the notice is as well.
        lane.is_some_and(|lane| lane.try_send(notice).is_ok() && self.word.send(()).is_ok())
    }
}

impl Acquires {
    /// The next one, of each lane in turn; `None` when the entry is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        while self.words.recv().await.is_some() {
            for step in 0..self.lanes.len() {
                let index = (self.turn + step) % self.lanes.len();
                if let Some(Ok(notice)) = self.lanes.get_mut(index).map(mpsc::Receiver::try_recv) {
                    self.turn = index + 1;
                    return Some(notice);
                }
            }
        }
        None
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The next one if there is one now.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Notice> {
        self.lanes.iter_mut().find_map(|lane| lane.try_recv().ok())
    }
}

/// Two neighbourhoods share one rarely.
const LANES: usize = 32;
/// What may wait in one: what a busy main loop decides in some tens of milliseconds.
const ROOM: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(dst: [u8; 4]) -> (Flow, Notice) {
        let flow = Flow::new([192, 0, 2, 1].into(), dst.into()).unwrap();
        (flow, Notice::Acquire { flow, protocol: 17, ports: (0, 0) })
    }

    #[tokio::test]
    async fn a_flood_waits_for_itself() {
        let (entry, mut acquires) = acquires();
        let put = |dst| {
            let (flow, notice) = acquire(dst);
            entry.put(flow, notice)
        };
        let room = (0..=255).cycle().take_while(|n| put([10, 0, 0, *n])).count();
        assert_eq!(room, ROOM);
        // Somebody else, who shares no lane with it: of 32 lanes some are others.
        let other = (11..=255).find(|n| put([*n, 0, 0, 1])).unwrap();
        let mut waited = 0;
        loop {
            let Some(Notice::Acquire { flow, .. }) = acquires.next().await else { panic!() };
            if flow.dst() == IpAddr::from([other, 0, 0, 1]) {
                break;
            }
            waited += 1;
        }
        assert!(waited <= 1, "{waited}");
        drop(entry);
        let mut left = 0;
        while acquires.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left + waited, ROOM);
    }
}
