//! Pairs of SAs: added, moved, removed, asked for their use.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Instant;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::state::{AllocSpiMessage, GetDumpMessage, ModifyMessage};
use netlink_packet_xfrm::{
    UserAcquire, UserPolicyInfo, UserSaInfo, XFRM_MODE_TRANSPORT, XFRM_POLICY_ALLOW,
    XFRM_POLICY_FWD, XFRM_POLICY_IN, XfrmAttrs, XfrmMessage,
};
use sa::channel::{UNANSWERED, UNANSWERED_AGAIN};
use sa::{Direction, Envelope, Flow, Notice, Policy, SaId, SaPair, Spi, TrafficSelector, Use};

use super::super::ground::{KernelError, doing};
use super::super::spd;
use super::Xfrm;
use super::policy::{self, Outer, TRAP_REQID, between, ip};
use super::state::{self, Carried, Replay};

/// Request ids that tell our states from those of others; the first is the traps'.
const REQIDS: std::ops::RangeInclusive<u32> = TRAP_REQID..=TRAP_REQID + 0xffff;

/// SPIs below are reserved (RFC 4303 §2.1).
const LOWEST_SPI: u32 = 256;

/// The kernel's request for an SA: the state that waits to be completed.
#[derive(Clone, Copy)]
pub(super) struct Request(UserSaInfo);

impl Request {
    /// What an ACQUIRE tells of it.
    pub(super) fn of(acquire: &UserAcquire) -> Self {
        Self(UserSaInfo {
            id: acquire.id,
            saddr: acquire.saddr,
            family: acquire.selector.family,
            seq: acquire.seq,
            mode: XFRM_MODE_TRANSPORT,
            reqid: TRAP_REQID,
            ..UserSaInfo::default()
        })
    }
}

const HALVES: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

/// The pairs in the kernel.
#[derive(Default)]
pub(super) struct Pairs {
    pairs: HashMap<SaId, Installed>,
    spis: HashMap<(IpAddr, Spi), SaId>,
    /// How many pairs rest on an inbound policy: after a rekeying it is two.
    inbound: HashMap<Inbound, usize>,
    last_reqid: u32,
}

/// An inbound policy: whose packets to whom, and how they must have come.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Inbound {
    remote: TrafficSelector,
    local: TrafficSelector,
    outer: Outer,
}

struct Installed {
    pair: SaPair,
    reqid: u32,
    inbound: Vec<Inbound>,
    seen: Seen,
}

/// What was last seen of a pair's counters.
#[derive(Default)]
struct Seen {
    packets_in: u64,
    packets_out: u64,
    last_in: Option<Instant>,
    last_out: Option<Instant>,
    /// Since when packets have gone out and none have come in.
    waiting: Option<Instant>,
    /// When it was said that none have come in.
    told: Option<Instant>,
}

impl Seen {
    /// Takes in counters as read now; says what is worth a notice.
    fn look(
        &mut self,
        now: Instant,
        packets_in: u64,
        packets_out: u64,
    ) -> Option<fn(SaId) -> Notice> {
        let sent = packets_out > self.packets_out;
        if sent {
            self.last_out = Some(now);
        }
        let mut news: Option<fn(SaId) -> Notice> = None;
        if packets_in > self.packets_in {
            if self.packets_in == 0 {
                news = Some(Notice::FirstPacket);
            }
            self.last_in = Some(now);
            self.waiting = None;
            self.told = None;
        } else if sent {
            self.waiting.get_or_insert(now);
        }
        (self.packets_in, self.packets_out) = (packets_in, packets_out);
        let waited = self.waiting.is_some_and(|since| now - since >= UNANSWERED);
        let due = self.told.is_none_or(|at| sent && now - at >= UNANSWERED_AGAIN);
        if waited && due {
            self.told = Some(now);
            news = Some(Notice::Unanswered);
        }
        news
    }
}

impl Pairs {
    /// The template of what goes out on a pair.
    pub(super) fn outer(&self, sa: SaId) -> Option<Outer> {
        let installed = self.pairs.get(&sa)?;
        Some(outer(&installed.pair, Direction::Outbound, installed.reqid))
    }

    /// The pair that a half belongs to.
    pub(super) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<SaId> {
        self.spis.get(&(dst, Spi::new(spi)?)).copied()
    }

    fn next_reqid(&mut self) -> u32 {
        let used = |id: u32| self.pairs.values().any(|installed| installed.reqid == id);
        let span = REQIDS.end() - REQIDS.start();
        let mut id = self.last_reqid;
        loop {
            id = id % span + 1;
            if !used(REQIDS.start() + id) {
                break;
            }
        }
        self.last_reqid = id;
        REQIDS.start() + id
    }
}

fn outer(pair: &SaPair, direction: Direction, reqid: u32) -> Outer {
    let (src, dst) = state::ends(pair, direction);
    Outer { mode: pair.mode, src, dst, reqid }
}

/// The inbound policies of a pair. Any SA between the two ends will do: which packets a certain
/// one may carry is in its own selector.
fn inbound(pair: &SaPair) -> io::Result<Vec<Inbound>> {
    let outer = outer(pair, Direction::Inbound, 0);
    let mut all = Vec::new();
    for remote in &pair.remote {
        for local in &pair.local {
            if between(remote, local).is_none() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            all.push(Inbound { remote: *remote, local: *local, outer });
        }
    }
    Ok(all)
}

impl Xfrm {
    /// Whether the kernel has ESP at all.
    pub(super) fn probe(&mut self) -> Result<(), KernelError> {
        const NO_ESP: &str = "the kernel has no ESP: use backend = \"userspace\"";
        let Some(pair) = state::probe() else { return Ok(()) };
        let direction = Direction::Outbound;
        let (_, dst) = state::ends(&pair, direction);
        let half = state::half(&pair, direction, *REQIDS.end(), state::fresh());
        self.add_half(half).map_err(doing(NO_ESP))?;
        self.delete_half(dst, state::spi(&pair, direction)).map_err(doing("removing a trial SA"))
    }

    fn add_half(&mut self, half: ModifyMessage) -> io::Result<()> {
        self.spd.netlink.command(XfrmMessage::AddSa(half), NLM_F_CREATE | NLM_F_EXCL)
    }

    fn delete_half(&mut self, dst: IpAddr, spi: Spi) -> io::Result<()> {
        match self.spd.netlink.command(XfrmMessage::DeleteSa(state::name(dst, spi)), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    fn get_half(&mut self, dst: IpAddr, spi: Spi) -> io::Result<ModifyMessage> {
        match self.spd.netlink.get(XfrmMessage::GetSa(state::name(dst, spi)))? {
            Some(XfrmMessage::AddSa(half)) => Ok(half),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Has the kernel forget that it asked, so that it asks again at the next packet. A request
    /// has no SPI by which it could be named: it is given one first.
    pub(super) fn forget_request(&mut self, request: Request) -> io::Result<()> {
        let mut message = AllocSpiMessage::default();
        message.spi_info.info = request.0;
        (message.spi_info.min, message.spi_info.max) = (LOWEST_SPI, u32::MAX);
        match self.spd.netlink.get(XfrmMessage::AllocSpi(message))? {
            Some(XfrmMessage::AddSa(half)) => {
                let info = half.user_sa_info;
                match (ip(info.id.daddr, info.family), Spi::new(info.id.spi)) {
                    (Some(dst), Some(spi)) => self.delete_half(dst, spi),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Removes every state of ours, those of a predecessor included.
    pub(super) fn clear_states(&mut self) -> io::Result<()> {
        let all = self.spd.netlink.dump(XfrmMessage::GetDumpSa(GetDumpMessage::default()))?;
        for message in all {
            let XfrmMessage::AddSa(half) = message else { continue };
            let info = half.user_sa_info;
            if !REQIDS.contains(&info.reqid) {
                continue;
            }
            match (ip(info.id.daddr, info.family), Spi::new(info.id.spi)) {
                (Some(dst), Some(spi)) => self.delete_half(dst, spi)?,
                // A request that a predecessor was asked, and we would not be again. If it runs
                // out meanwhile, so much the better.
                _ => drop(self.forget_request(Request(info))),
            }
        }
        Ok(())
    }

    /// Adds both halves, the inbound one first, and has packets accepted that come by it.
    pub(super) fn add_pair(&mut self, pair: SaPair) -> Result<(), KernelError> {
        let accepted =
            inbound(&pair).map_err(doing("adding a pair whose selectors XFRM has no words for"))?;
        let reqid = self.pairs.next_reqid();
        self.add_halves(&pair, reqid, [state::fresh(), state::fresh()])?;
        self.note_spis(&pair);
        let id = pair.id;
        let installed = Installed { pair, reqid, inbound: Vec::new(), seen: Seen::default() };
        self.pairs.pairs.insert(id, installed);
        self.accept(id, accepted)
    }

    fn add_halves(
        &mut self,
        pair: &SaPair,
        reqid: u32,
        replays: [Replay; 2],
    ) -> Result<(), KernelError> {
        for (direction, replay) in HALVES.into_iter().zip(replays) {
            let half = state::half(pair, direction, reqid, replay);
            if let Err(error) = self.add_half(half) {
                let _ = self.delete_halves(pair);
                return Err(doing("adding an SA")(error));
            }
        }
        Ok(())
    }

    fn delete_halves(&mut self, pair: &SaPair) -> io::Result<()> {
        let mut result = Ok(());
        for direction in HALVES {
            let (_, dst) = state::ends(pair, direction);
            let gone = self.delete_half(dst, state::spi(pair, direction));
            result = result.and(gone);
        }
        result
    }

    fn note_spis(&mut self, pair: &SaPair) {
        for direction in HALVES {
            let (_, dst) = state::ends(pair, direction);
            self.pairs.spis.insert((dst, state::spi(pair, direction)), pair.id);
        }
    }

    fn forget_spis(&mut self, pair: &SaPair) {
        for direction in HALVES {
            let (_, dst) = state::ends(pair, direction);
            self.pairs.spis.remove(&(dst, state::spi(pair, direction)));
        }
    }

    fn accept(&mut self, id: SaId, accepted: Vec<Inbound>) -> Result<(), KernelError> {
        for policy in accepted {
            let count = self.pairs.inbound.entry(policy).or_default();
            *count += 1;
            if let Some(installed) = self.pairs.pairs.get_mut(&id) {
                installed.inbound.push(policy);
            }
            for (info, nlas) in inbound_policies(policy) {
                self.spd.put(info, nlas).map_err(doing("accepting a pair's packets"))?;
            }
        }
        Ok(())
    }

    fn refuse(&mut self, accepted: Vec<Inbound>) -> Result<(), KernelError> {
        for policy in accepted {
            match self.pairs.inbound.get_mut(&policy) {
                Some(count) if *count > 1 => *count -= 1,
                _ => {
                    self.pairs.inbound.remove(&policy);
                    // After a move the selector may belong to the new way already.
                    let same = |other: &Inbound| {
                        (other.remote, other.local) == (policy.remote, policy.local)
                    };
                    if self.pairs.inbound.keys().any(same) {
                        continue;
                    }
                    for (info, _) in inbound_policies(policy) {
                        self.spd
                            .delete(info.selector, info.direction)
                            .map_err(doing("refusing a pair's packets"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes both halves and what was accepted by them. Flows that still name the pair are then
    /// held, and acquired anew.
    pub(super) fn remove_pair(&mut self, sa: SaId) -> Result<(), KernelError> {
        let Some(installed) = self.pairs.pairs.remove(&sa) else { return Ok(()) };
        self.forget_spis(&installed.pair);
        let gone = self.delete_halves(&installed.pair).map_err(doing("removing an SA"));
        let refused = self.refuse(installed.inbound);
        gone.and(refused)
    }

    /// Gives a pair another outer way; its sequence numbers go on.
    pub(super) fn move_pair(&mut self, sa: SaId, envelope: Envelope) -> Result<(), KernelError> {
        let Some(mut installed) = self.pairs.pairs.remove(&sa) else { return Ok(()) };
        let mut replays = [state::fresh(), state::fresh()];
        for (direction, replay) in HALVES.into_iter().zip(&mut replays) {
            let (_, dst) = state::ends(&installed.pair, direction);
            let half = self.get_half(dst, state::spi(&installed.pair, direction));
            // Without its numbers an SA must not go on: they would be used twice.
            let half = half.map_err(doing("reading an SA that moves"))?;
            if let Some(read) = state::replay(half) {
                *replay = read;
            }
        }
        self.delete_halves(&installed.pair).map_err(doing("removing an SA that moves"))?;
        self.forget_spis(&installed.pair);
        installed.pair.envelope = envelope;
        self.add_halves(&installed.pair, installed.reqid, replays)?;
        self.note_spis(&installed.pair);
        let accepted = inbound(&installed.pair).map_err(doing("moving a pair"))?;
        let before = std::mem::take(&mut installed.inbound);
        self.pairs.pairs.insert(sa, installed);
        self.accept(sa, accepted)?;
        self.refuse(before)?;
        let flows: Vec<Flow> = self
            .flows
            .iter()
            .filter(|(_, policy)| **policy == Policy::Encrypt(sa))
            .map(|(flow, _)| *flow)
            .collect();
        for flow in flows {
            self.set_policy(flow, Policy::Encrypt(sa))?;
        }
        Ok(())
    }

    /// Reads a pair's counters for a [`Notice::LastUse`].
    pub(super) fn ask_use(&mut self, sa: SaId, now: Instant) -> Result<(), KernelError> {
        let Some((inbound, outbound)) = self.look_at(sa, now) else { return Ok(()) };
        let Some(installed) = self.pairs.pairs.get(&sa) else { return Ok(()) };
        // Kernels before 6.2 do not tell when an SA was last used; then it is when we saw it.
        let seen = |instant: Option<Instant>| instant.map(|then| now - then);
        let used = Use {
            packets_in: inbound.packets,
            packets_out: outbound.packets,
            bytes_in: inbound.bytes,
            bytes_out: outbound.bytes,
            idle_in: inbound.idle.or_else(|| seen(installed.seen.last_in)),
            idle_out: outbound.idle.or_else(|| seen(installed.seen.last_out)),
        };
        self.notices.push_back(Notice::LastUse { sa, used });
        Ok(())
    }

    /// Reads a pair's counters, inbound first, and sends what they are news of.
    fn look_at(&mut self, sa: SaId, now: Instant) -> Option<(Carried, Carried)> {
        let installed = self.pairs.pairs.get(&sa)?;
        let names = HALVES.map(|direction| {
            (state::ends(&installed.pair, direction).1, state::spi(&installed.pair, direction))
        });
        let [inbound, outbound] =
            names.map(|(dst, spi)| self.get_half(dst, spi).ok().map(|half| state::carried(&half)));
        // An SA that ran out meanwhile has nothing to say.
        let (inbound, outbound) = (inbound?, outbound?);
        let seen = &mut self.pairs.pairs.get_mut(&sa)?.seen;
        let news = seen.look(now, inbound.packets, outbound.packets);
        self.notices.extend(news.map(|notice| notice(sa)));
        Some((inbound, outbound))
    }

    /// Looks for first packets and for peers that do not answer.
    pub(super) fn look_at_counters(&mut self, now: Instant) {
        let ids: Vec<SaId> = self.pairs.pairs.keys().copied().collect();
        for sa in ids {
            self.look_at(sa, now);
        }
    }
}

/// The policies that accept packets which came a certain way, for us and through us.
fn inbound_policies(wanted: Inbound) -> Vec<(UserPolicyInfo, Vec<XfrmAttrs>)> {
    let Some(selector) = between(&wanted.remote, &wanted.local) else { return Vec::new() };
    let policy = |direction| UserPolicyInfo {
        selector,
        direction,
        action: XFRM_POLICY_ALLOW,
        priority: spd::FLOW,
        ..UserPolicyInfo::default()
    };
    [XFRM_POLICY_IN, XFRM_POLICY_FWD]
        .map(|direction| {
            (policy(direction), vec![XfrmAttrs::Template(vec![policy::template(wanted.outer)])])
        })
        .into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_peer_that_does_not_answer_is_told_now_and_then() {
        let sa = SaId(7);
        let mut seen = Seen::default();
        let start = Instant::now();
        let mut look = |after, packets_in, packets_out| {
            seen.look(start + after, packets_in, packets_out).map(|notice| notice(sa))
        };
        let tick = UNANSWERED / 2;
        assert_eq!(look(Duration::ZERO, 0, 1), None);
        assert_eq!(look(tick, 0, 2), None);
        assert_eq!(look(tick * 2, 0, 2), Some(Notice::Unanswered(sa)));
        assert_eq!(look(tick * 3, 0, 9), None, "told already");
        let again = tick * 2 + UNANSWERED_AGAIN;
        assert_eq!(look(again, 0, 9), None, "nothing sent, nothing owed");
        assert_eq!(look(again + tick, 0, 10), Some(Notice::Unanswered(sa)));
        assert_eq!(look(again + tick * 2, 1, 10), Some(Notice::FirstPacket(sa)));
        assert_eq!(look(again + tick * 7, 1, 10), None, "nothing sent, nothing owed");
        assert_eq!(look(again + tick * 8, 1, 11), None);
        assert_eq!(look(again + tick * 10, 1, 11), Some(Notice::Unanswered(sa)));
    }
}
