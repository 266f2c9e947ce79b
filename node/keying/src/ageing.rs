//! What ends by time (RFC 4322 §3.2.7, §3.4; oe-rules 34, 36, 50, 51).

use std::time::Instant;

use ike::End;
use sa::{Command, Flow, SaId, Use};

use crate::entry::State;
use crate::keying::Keying;
use crate::pairs::CROSSING;

impl Keying {
    /// A flow's deadline has come.
    pub(crate) fn flow_due(&mut self, now: Instant, flow: Flow) {
        let Some(entry) = self.flows.get(&flow) else { return };
        match &entry.state {
            State::PotentialOe => {
                let life = self.config.lives.short;
                let why = crate::report::Why::Dns(dnskeys::Reason::DnsFailed);
                match entry.group.strictness() {
                    dnskeys::Strictness::Permissive => self.go_clear(now, flow, why, life),
                    dnskeys::Strictness::Paranoid => self.go_deny(now, flow, why, life),
                }
            }
            State::PendingOe(_) => {
                if let Some(pending) = self.pending(flow) {
                    pending.last_end.get_or_insert(End::Timeout);
                }
                self.failed(now, flow);
            }
            State::ClearText(_) | State::Deny(_) => self.expire(now, flow),
            State::Keyed { current, quiet: true, .. } => {
                let current = *current;
                self.switch(now, flow, current);
            }
            State::Keyed { current, next, .. } => {
                let (current, next) = (*current, *next);
                self.look(now, flow, current, next);
            }
        }
    }

    /// Looks at a keyed flow: settles what waits, drops what should be gone, asks for its use.
    fn look(&mut self, now: Instant, flow: Flow, current: SaId, next: Option<SaId>) {
        let awaited = next.unwrap_or(current);
        let settling = next.is_some() || self.pairs_of(flow).any(|(_, pair)| pair.doomed);
        if settling {
            // No traffic proved the winner in time: it has been up for long enough to be there.
            return self.pair_proven_by_time(now, flow, awaited);
        }
        let orphans: Vec<SaId> = self
            .pairs_of(flow)
            .filter(|(sa, pair)| {
                *sa != current && now.saturating_duration_since(pair.since) >= CROSSING
            })
            .map(|(sa, _)| sa)
            .collect();
        for sa in orphans {
            self.close_pair(now, sa);
        }
        self.command(Command::AskUse(current));
        let next_look = now + self.config.lives.next_look;
        self.set_deadline(flow, Some(next_look));
    }

    fn pair_proven_by_time(&mut self, now: Instant, flow: Flow, sa: SaId) {
        self.pair_proven(now, sa);
        let first_look = now + self.config.lives.first_look;
        self.set_deadline(flow, Some(first_look));
    }

    /// The data plane says how a pair is used: one that neither end uses is closed.
    pub(crate) fn last_use(&mut self, now: Instant, sa: SaId, used: Use) {
        let Some(pair) = self.pairs.get_mut(&sa) else { return };
        pair.used = used;
        let (flow, since) = (pair.flow, pair.since);
        let idle = self.config.lives.idle;
        let old = now.saturating_duration_since(since) >= self.config.lives.first_look;
        let unused =
            used.idle_in.is_none_or(|t| t > idle) && used.idle_out.is_none_or(|t| t > idle);
        if old && unused && self.current(flow) == Some(sa) {
            self.close_flow(now, flow);
        }
    }
}
