//! Several connections with the same subnets: links side by side. Those that live share the flows;
//! one that misses a sign of life gives its flows to the others at once, and gets them back with
//! the next sign.
//!
//! Liveness as it is for everybody else would take until an exchange has been repeated in vain,
//! which is right where nobody else could carry the packets. Here somebody can, so a link is asked
//! often, and a mistake costs no more than flows that change their way.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ike::IkeId;
use sa::{Policy, SaId, Subnets};

use crate::connection::Configured;
use crate::keying::Keying;

/// What the data plane was told of a configured pair of prefixes: what happens between them, over
/// which pairs; and which of several links live.
pub(crate) type Said = ((Policy, Vec<SaId>), Vec<u32>);

/// Finds the connections that are links beside others.
pub(crate) fn note_siblings(configured: &mut [Configured]) {
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for subnets in configured.iter().flat_map(|c| &c.subnets) {
        if !once.insert(*subnets) {
            twice.insert(*subnets);
        }
    }
    for connection in configured {
        connection.has_siblings = connection.subnets.iter().any(|s| twice.contains(s));
    }
}

impl Keying {
    /// The pairs among which the flows between two prefixes are shared. If all links are silent,
    /// each is as good as the others.
    pub(crate) fn pairs_between(&self, subnets: &Subnets) -> Vec<SaId> {
        let has = |c: &&Configured| c.subnets.contains(subnets) || c.pieces.contains(subnets);
        let of = || self.configured.iter().filter(has);
        let living: Vec<SaId> =
            of().filter(|c| !c.silent).filter_map(|c| c.carries(subnets)).collect();
        let selects = |c: &Configured| !c.silent && c.selects(subnets).next().is_some();
        if living.is_empty() && !of().any(selects) {
            of().filter_map(|c| c.carries(subnets)).collect()
        } else {
            living
        }
    }

    /// The connections between two prefixes that live: their places in the order of the
    /// configuration.
    pub(crate) fn links_up(&self, subnets: &Subnets) -> Vec<u32> {
        let links = self.configured.iter().filter(|c| c.subnets.contains(subnets));
        let lives = |c: &Configured| {
            !c.silent && (c.carries(subnets).is_some() || c.selects(subnets).next().is_some())
        };
        (0..).zip(links).filter(|(_, link)| lives(link)).map(|(place, _)| place).collect()
    }

    /// Asks every link whether it lives. One that has not answered since the last time is silent.
    pub(crate) fn pulse(&mut self, now: Instant) {
        self.pulse_at = None;
        for index in 0..self.configured.len() {
            let Some(link) = self.configured.get_mut(index) else { continue };
            let Some(ike) = link.current_ike().filter(|_| link.has_siblings) else { continue };
            let fell_silent = link.asked && !link.silent;
            link.silent |= link.asked;
            link.asked = true;
            if fell_silent {
                self.lay_subnets(index);
            }
            self.ike.probe(now, ike);
            self.pulse_at = Some(now + PULSE);
        }
    }

    /// A link has answered.
    pub(crate) fn link_alive(&mut self, ike: IkeId) {
        let at = self.configured.iter().position(|c| c.current_ike() == Some(ike));
        let Some(index) = at else { return };
        let Some(link) = self.configured.get_mut(index) else { return };
        link.asked = false;
        if std::mem::take(&mut link.silent) {
            self.lay_subnets(index);
        }
    }
}

/// How often links are asked: two of these, and a link that died has lost its flows to the others,
/// well within two seconds.
pub(crate) const PULSE: Duration = Duration::from_millis(600);
