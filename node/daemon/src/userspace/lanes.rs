//! IKE datagrams on their way to the main loop: whom we know goes before strangers.
//!
//! A request for a new SA costs two Diffie-Hellman operations, its second message a signature
//! check; a flood of either must not keep an established peer's rekey waiting, nor the answers to
//! calls of our own. What a datagram is can be told from its header, which nobody has
//! authenticated: who lies there gains a place in a queue, where it is dropped for its SPI.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::post::Post;

/// An IKE datagram: our address, the sender's, the message without the non-ESP marker.
pub(crate) type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// Where datagrams go in. Clones lead to the same place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    lanes: [mpsc::Sender<Datagram>; LANES],
}

/// Where they come out.
pub(crate) struct Lanes {
    lanes: [Queue; LANES],
    turn: usize,
    /// Sockets that are read here.
    post: Option<Post>,
    /// Read, and found its lane full.
    lost: u64,
}

/// What waits in one lane.
struct Queue {
    /// From others.
    inbox: mpsc::Receiver<Datagram>,
    /// From sockets that are read here.
    read: VecDeque<Datagram>,
}

/// An entry and its other end.
pub(crate) fn lanes() -> (Entry, Lanes) {
    let (a, b, c) = (mpsc::channel(ROOM), mpsc::channel(ROOM), mpsc::channel(ROOM));
    let lanes = [a.1, b.1, c.1].map(|inbox| Queue { inbox, read: VecDeque::new() });
    (Entry { lanes: [a.0, b.0, c.0] }, Lanes { lanes, turn: 0, post: None, lost: 0 })
}

impl Entry {
    /// Puts a datagram in; false if its lane is full, or it is longer than any message. It is lost
    /// then, as it might have been on the way, and IKE repeats itself.
    pub(crate) fn put(&self, datagram: Datagram) -> bool {
        let lane = self.lanes.get(lane(&datagram.2).place()).filter(|_| fits(&datagram));
        lane.is_some_and(|lane| lane.try_send(datagram).is_ok())
    }
}

impl Lanes {
    /// Reads these sockets, too.
    pub(super) fn reading(self, post: Post) -> Self {
        Self { post: Some(post), ..self }
    }

    /// From now on [`Self::next`] hears of what comes to the sockets. Must be called inside a
    /// runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch a socket.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        self.post.as_mut().map_or(Ok(()), Post::watch)
    }

    /// The next datagram; `None` when every entry is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Datagram> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Datagram>> {
        loop {
            let (lanes, lost) = (&mut self.lanes, &mut self.lost);
            let mut take = |datagram| *lost += u64::from(!sort(lanes, datagram));
            let read = self.post.as_mut().map(|post| post.poll(cx, &mut take));
            let mut ended = 0;
            for place in order(self.turn + 1) {
                let Some(queue) = self.lanes.get_mut(place) else { continue };
                let next = match queue.read.pop_front() {
                    Some(datagram) => Poll::Ready(Some(datagram)),
                    None => queue.inbox.poll_recv(cx),
                };
                match next {
                    Poll::Ready(Some(datagram)) => {
                        self.turn = self.turn.wrapping_add(1);
                        return Poll::Ready(Some(datagram));
                    }
                    Poll::Ready(None) => ended += 1,
                    Poll::Pending => {}
                }
            }
            if ended == LANES {
                return Poll::Ready(None);
            }
            // What has been read was nothing for us, and there may be more of it.
            if !read.is_some_and(|read| read.is_ready()) {
                return Poll::Pending;
            }
        }
    }

    /// Datagrams that were read from sockets and lost, because too many waited.
    pub(super) fn lost(&self) -> u64 {
        self.lost + self.post.as_ref().map_or(0, Post::lost)
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.iter().all(|queue| queue.inbox.is_empty() && queue.read.is_empty())
    }

    /// The next datagram if there is one now.
    #[cfg(test)]
    pub(crate) fn try_next(&mut self) -> Option<Datagram> {
        let lanes = &mut self.lanes;
        if let Some(post) = &mut self.post {
            post.take_now(&mut |datagram| assert!(sort(lanes, datagram)));
        }
        let next =
            |queue: &mut Queue| queue.read.pop_front().or_else(|| queue.inbox.try_recv().ok());
        self.lanes.iter_mut().find_map(next)
    }
}

/// The lanes in the order of their turn.
fn order(turn: usize) -> [usize; LANES] {
    if !turn.is_multiple_of(OTHERS_TURN) {
        [0, 1, 2]
    } else if (turn / OTHERS_TURN).is_multiple_of(2) {
        [1, 2, 0]
    } else {
        [2, 1, 0]
    }
}

/// Puts what was read in its lane; false if that is full, or it is longer than any message.
fn sort(lanes: &mut [Queue; LANES], datagram: Datagram) -> bool {
    let queue = lanes.get_mut(lane(&datagram.2).place());
    let fits = |queue: &&mut Queue| queue.read.len() < ROOM && fits(&datagram);
    let Some(queue) = queue.filter(fits) else { return false };
    queue.read.push_back(datagram);
    true
}

/// Whether anybody would look at it: what waits here is bounded in number, and so in octets.
fn fits(datagram: &Datagram) -> bool {
    datagram.2.len() <= ike::MAX_MESSAGE
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    /// Answers to us, and what only an established peer asks.
    Known,
    /// Half-way in.
    Authenticating,
    /// New, or nothing of IKE's.
    Strangers,
}

impl Lane {
    fn place(self) -> usize {
        match self {
            Self::Known => 0,
            Self::Authenticating => 1,
            Self::Strangers => 2,
        }
    }
}

/// By exchange type and flags (RFC 7296 §3.1).
fn lane(message: &[u8]) -> Lane {
    let (Some(exchange), Some(flags)) = (message.get(18), message.get(19)) else {
        return Lane::Strangers;
    };
    match exchange {
        _ if flags & RESPONSE != 0 => Lane::Known,
        &CREATE_CHILD_SA | &INFORMATIONAL | &IKE_FOLLOWUP_KE => Lane::Known,
        &IKE_AUTH | &IKE_INTERMEDIATE => Lane::Authenticating,
        _ => Lane::Strangers,
    }
}

const RESPONSE: u8 = 0x20;
const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;
/// RFC 9242.
const IKE_INTERMEDIATE: u8 = 43;
/// RFC 9370 §2.2.4.
const IKE_FOLLOWUP_KE: u8 = 44;

const LANES: usize = 3;
/// Datagrams that may wait in one lane; more are a flood.
const ROOM: usize = 1024;
/// Every so many turns one of the other lanes goes first, each in its turn, so that a flood in the
/// first does not close them, nor one in the last the one before it.
const OTHERS_TURN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(exchange: u8, flags: u8) -> Datagram {
        let mut message = vec![0; 28];
        (message[18], message[19]) = (exchange, flags);
        ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap(), message)
    }

    #[tokio::test]
    async fn whom_we_know_goes_first_and_nobody_waits_for_ever() {
        let (entry, mut lanes) = lanes();
        for _ in 0..OTHERS_TURN {
            assert!(entry.put(datagram(34, 0x08)));
            assert!(entry.put(datagram(IKE_AUTH, 0x08)));
        }
        for _ in 0..4 * OTHERS_TURN {
            assert!(entry.put(datagram(INFORMATIONAL, 0x08)));
        }
        let mut seen = Vec::new();
        for _ in 0..2 * OTHERS_TURN {
            seen.push(lanes.next().await.unwrap().2[18]);
        }
        let known = seen.iter().filter(|exchange| **exchange == INFORMATIONAL).count();
        assert_eq!(known, 2 * OTHERS_TURN - 2, "{seen:?}");
        for other in [34, IKE_AUTH] {
            assert_eq!(seen.iter().filter(|seen| **seen == other).count(), 1, "{seen:?}");
        }
        drop(entry);
        let mut left = 0;
        while lanes.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left, 4 * OTHERS_TURN);
    }

    #[test]
    fn answers_are_for_us_whatever_they_answer() {
        assert_eq!(lane(&datagram(34, RESPONSE).2), Lane::Known);
        assert_eq!(lane(&datagram(34, 0x08).2), Lane::Strangers);
        assert_eq!(lane(&datagram(IKE_INTERMEDIATE, 0x08).2), Lane::Authenticating);
        assert_eq!(lane(&[]), Lane::Strangers);
        assert_eq!(lane(&[0xff]), Lane::Strangers);
    }

    #[test]
    fn what_is_read_has_as_much_room() {
        let (_entry, mut lanes) = lanes();
        let strangers = (0..=ROOM).filter(|_| sort(&mut lanes.lanes, datagram(34, 0x08)));
        assert_eq!(strangers.count(), ROOM);
        let mut longest = datagram(INFORMATIONAL, 0);
        longest.2.resize(ike::MAX_MESSAGE + 1, 0);
        assert!(!sort(&mut lanes.lanes, longest));
        assert!(sort(&mut lanes.lanes, datagram(INFORMATIONAL, 0)));
        assert!(!lanes.is_empty());
        assert_eq!(lanes.try_next().unwrap().2[18], INFORMATIONAL);
    }

    #[test]
    fn a_full_lane_does_not_fill_the_others() {
        let (entry, mut lanes) = lanes();
        while entry.put(datagram(34, 0x08)) {}
        assert!(entry.put(datagram(CREATE_CHILD_SA, 0)));
        assert_eq!(lanes.try_next().unwrap().2[18], CREATE_CHILD_SA);
    }
}
