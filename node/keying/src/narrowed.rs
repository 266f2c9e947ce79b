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
}

/// The parts of a connection's subnets that its pair carries, where it does not carry them whole,
/// each with what it is part of.
fn pieces(configured: &Configured) -> Vec<(Subnets, Subnets)> {
    let mut pieces: Vec<(Subnets, Subnets)> = Vec::new();
    for whole in configured.subnets.iter().filter(|s| configured.carries(s).is_none()) {
        for (_, pair) in configured.in_use() {
            let remotes = parts(&pair.remote, whole.remote());
            for local in parts(&pair.local, whole.local()) {
                let all = remotes.iter().filter_map(|remote| Subnets::new(local, *remote));
                pieces.extend(all.map(|piece| (piece, *whole)));
            }
        }
    }
    pieces.sort_unstable();
    pieces.dedup_by_key(|(piece, _)| *piece);
    pieces.truncate(MAX_PIECES);
    pieces
}

/// What of a prefix selectors cover, whatever the protocol: subnets know of none. The rest is
/// [`sa::Command::SelectSubnets`]'s.
fn parts(selectors: &[TrafficSelector], whole: Prefix) -> Vec<Prefix> {
    let whole = TrafficSelector::prefix(whole);
    let common = selectors.iter().filter(|s| s.is_plain()).filter_map(|s| s.intersection(&whole));
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
