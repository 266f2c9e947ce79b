//! A configured peer may grant less than was asked for (RFC 7296 §2.9): what the pair carries is laid
//! beside the subnets that it is part of, and the rest of them goes on waiting or being refused.

use sa::{Command, Prefix, Subnets, TrafficSelector};

use crate::connection::Configured;
use crate::keying::Keying;

impl Keying {
    /// Brings a connection's pieces in line with the pair that it sends on. Gives those it has no
    /// more and another connection still has.
    pub(crate) fn cut_pieces(&mut self, index: usize) -> Vec<Subnets> {
        let Some(configured) = self.configured.get(index) else { return Vec::new() };
        let mut new = pieces(configured);
        new.retain(|(piece, whole)| {
            let others = self.configured.iter().flat_map(|c| &c.subnets);
            !others.into_iter().any(|s| overlap(s, piece) && (s == piece || is_longer(s, whole)))
        });
        let new: Vec<Subnets> = new.into_iter().map(|(piece, _)| piece).collect();
        let Some(configured) = self.configured.get_mut(index) else { return Vec::new() };
        let mut old = std::mem::replace(&mut configured.pieces, new.clone());
        old.retain(|piece| !new.contains(piece));
        let (left, gone): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|piece| self.configured.iter().any(|c| c.pieces.contains(piece)));
        for subnets in gone {
            if self.said.remove(&subnets).is_some() {
                self.command(Command::ClearSubnets { subnets });
            }
        }
        left
    }

    /// What the peer has granted a connection, if some of it is for single protocols or ports, of which
    /// subnets know nothing; and whether something else is carried.
    pub(crate) fn cut_to_ports(
        &self,
        index: usize,
    ) -> Option<(Vec<TrafficSelector>, Vec<TrafficSelector>, bool)> {
        let configured = self.configured.get(index)?;
        let (local, remote) = configured.granted()?;
        if !has_single_ports(local) && !has_single_ports(remote) {
            return None;
        }
        let carries = !configured.pieces.is_empty()
            || configured.subnets.iter().any(|s| configured.carries(s).is_some());
        Some((local.to_vec(), remote.to_vec(), carries))
    }
}

/// Whether these selectors have a protocol or port whose hosts none of the others has whole.
fn has_single_ports(selectors: &[TrafficSelector]) -> bool {
    let (whole, single): (Vec<&TrafficSelector>, Vec<_>) = selectors.iter().partition(is_plain);
    single.iter().any(|one| !whole.iter().any(|all| all.covers(one)))
}

/// For all protocols and ports.
fn is_plain(selector: &&TrafficSelector) -> bool {
    selector.protocol() == 0 && selector.ports() == (0, u16::MAX)
}

/// The parts of a connection's subnets that its pair carries, where it does not carry them whole,
/// each with what it is part of.
fn pieces(configured: &Configured) -> Vec<(Subnets, Subnets)> {
    let Some((local, remote)) = configured.granted() else { return Vec::new() };
    let mut pieces: Vec<(Subnets, Subnets)> = Vec::new();
    for whole in configured.subnets.iter().filter(|s| configured.carries(s).is_none()) {
        let remotes = parts(remote, whole.remote());
        for local in parts(local, whole.local()) {
            let all = remotes.iter().filter_map(|remote| Subnets::new(local, *remote));
            pieces.extend(all.map(|piece| (piece, *whole)));
        }
    }
    pieces.sort_unstable();
    pieces.dedup_by_key(|(piece, _)| *piece);
    pieces.truncate(MAX_PIECES);
    pieces
}

/// What of a prefix selectors cover, whatever the protocol: subnets know of none.
fn parts(selectors: &[TrafficSelector], whole: Prefix) -> Vec<Prefix> {
    let whole = TrafficSelector::prefix(whole);
    let common = selectors.iter().filter(is_plain).filter_map(|s| s.intersection(&whole));
    let ranges = common.map(|s| s.addresses());
    ranges.flat_map(|(first, last)| Prefix::of_range(first, last)).collect()
}

/// Whether some flow lies between both.
fn overlap(a: &Subnets, b: &Subnets) -> bool {
    let meet = |a: Prefix, b: Prefix| a.contains(b.addr()) || b.contains(a.addr());
    meet(a.local(), b.local()) && meet(a.remote(), b.remote())
}

/// Whether these subnets decide before those, where they overlap.
fn is_longer(these: &Subnets, those: &Subnets) -> bool {
    let rank = |s: &Subnets| (s.remote().len(), s.local().len());
    rank(these) > rank(those)
}

/// Parts of one connection's subnets: a range takes apart into 126 prefixes at the most, and honest
/// peers say prefixes.
const MAX_PIECES: usize = 256;
