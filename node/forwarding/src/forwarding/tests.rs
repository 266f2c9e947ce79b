//! Two planes face to face, without a wire between them.

mod at_speed;
mod in_transport;
mod selected;

use super::*;
use std::time::Duration;

use crate::coalesce::Delivery;
use crate::offload::Cut;
use crate::offload::Offload;
use crate::packet::tests::{ip, packet, udp};
use crate::packet::{ICMP, IP_IN_IP, IPV6, NO_NEXT_HEADER, UDP};
use crate::segment::tests::{payload, tcp};
use proptest::prelude::*;
use sa::{About, Class, EspCipher, EspKey, Limits, Mode, Spi, TrafficSelector, Trust};

const A: &str = "192.0.2.1";
const B: &str = "198.51.100.7";
const ARENA: usize = 1 << 20;

/// One plane and the buffers its thread would have.
struct Plane {
    fwd: Forwarding,
    batch: Batch,
    arena: Vec<u8>,
    delivery: Delivery,
    now: Instant,
}

fn flow(src: &str, dst: &str) -> Flow {
    Flow::new(ip(src), ip(dst)).unwrap()
}

fn spi(n: u32) -> Spi {
    Spi::new(n).unwrap()
}

fn outer(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(host), port)
}

/// Pair `id` as A has it: `remote` behind B.
fn pair(id: u64, local: &[&str], remote: &[&str]) -> SaPair {
    let key = |fill: u8| EspKey::new(EspCipher::Aes128Gcm16, &[fill; 20]).unwrap();
    let selectors = |prefixes: &[&str]| {
        prefixes.iter().map(|p| TrafficSelector::prefix(p.parse().unwrap())).collect()
    };
    let n = u32::try_from(id).unwrap();
    SaPair {
        id: SaId(id),
        cipher: EspCipher::Aes128Gcm16,
        spi_in: spi(0x1000 + n),
        spi_out: spi(0x2000 + n),
        key_in: key(1),
        key_out: key(2),
        esn: true,
        mode: Mode::Tunnel,
        local: selectors(local),
        remote: selectors(remote),
        envelope: Envelope { local: outer(A, 4500), remote: outer(B, 4500), udp: true },
        limits: Limits::of_esp(true),
        trust: Trust::Dnssec,
        translation: None,
    }
}

/// The same pair as the peer has it.
fn mirrored(pair: &SaPair) -> SaPair {
    SaPair {
        spi_in: pair.spi_out,
        spi_out: pair.spi_in,
        key_in: pair.key_out.clone(),
        key_out: pair.key_in.clone(),
        local: pair.remote.clone(),
        remote: pair.local.clone(),
        envelope: Envelope {
            local: pair.envelope.remote,
            remote: pair.envelope.local,
            udp: pair.envelope.udp,
        },
        ..pair.clone()
    }
}

fn set_policy(flow: Flow, policy: Policy) -> Command {
    Command::SetPolicy { flow, policy, about: About::Destination }
}

impl Plane {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Instant::now();
        let mut plane = Self {
            fwd: Forwarding::new(config, [7; 32], now),
            batch: Batch::new(),
            arena: vec![0; ARENA],
            delivery: Delivery::new(true),
            now,
        };
        let class = Class::Trap { fail_closed: false };
        for prefix in ["0.0.0.0/0", "::/0"] {
            plane.command(Command::SetClass { prefix: prefix.parse().unwrap(), class });
        }
        plane
    }

    fn command(&mut self, command: Command) {
        self.fwd.handle_command(self.now, command);
    }

    fn encrypt(&mut self, src: &str, dst: &str, id: u64) {
        let policy = Policy::Encrypt(SaId(id));
        self.command(set_policy(flow(src, dst), policy));
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.fwd.poll_output()).collect()
    }

    fn notices(&mut self) -> Vec<Notice> {
        self.outputs()
            .into_iter()
            .filter_map(|output| match output {
                Output::Notice(notice) => Some(notice),
                _ => None,
            })
            .collect()
    }

    /// Sends one packet; what leaves the plane for peers or in the clear.
    fn send(&mut self, packet: &[u8]) -> Vec<(To, Vec<u8>)> {
        self.send_super(&Offload::NONE, packet)
    }

    fn send_super(&mut self, offload: &Offload, packet: &[u8]) -> Vec<(To, Vec<u8>)> {
        self.batch.clear();
        self.fwd.outgoing(self.now, offload, &mut packet.to_vec(), &mut self.batch);
        let sends = self.batch.sends().iter();
        sends.flat_map(|s| self.batch.packets(s).map(move |p| (s.to, p.to_vec()))).collect()
    }

    fn receive(&mut self, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.receive_from(outer(A, 4500), 0, datagrams)
    }

    /// Receives ESP packets; what the device gets, super-packets cut again.
    fn receive_from(&mut self, remote: SocketAddr, tos: u8, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.delivery.clear();
        let mut at = 0;
        for datagram in datagrams {
            let range = at..at + datagram.len();
            self.arena[range.clone()].copy_from_slice(datagram);
            at = range.end;
            let outer = Outer { remote, tos, udp: true };
            self.fwd.incoming(self.now, &outer, &mut self.arena, range, &mut self.delivery);
        }
        self.delivery.finish(&mut self.arena);
        let mut packets = Vec::new();
        for write in self.delivery.writes() {
            let offload = write.offload;
            let mut octets = write.head.to_vec();
            octets.extend(write.flat_map(|r| self.arena[r].to_vec()));
            packets.extend(crate::segment::tests::cut(&offload, &octets).unwrap());
        }
        packets
    }
}

/// A and B with a pair between them and policies that use it.
fn both() -> (Plane, Plane) {
    both_with(pair(1, &["192.0.2.1"], &["198.51.100.7"]))
}

fn both_with(pair: SaPair) -> (Plane, Plane) {
    let (mut a, mut b) = (Plane::new(), Plane::new());
    let id = pair.id.0;
    b.command(Command::AddSa(Box::new(mirrored(&pair))));
    a.command(Command::AddSa(Box::new(pair)));
    a.encrypt(A, B, id);
    b.encrypt(B, A, id);
    (a, b)
}

fn esp(sent: Vec<(To, Vec<u8>)>) -> Vec<Vec<u8>> {
    sent.into_iter()
        .map(|(to, octets)| {
            assert!(matches!(to, To::Peer(_)), "{to:?}");
            octets
        })
        .collect()
}

/// Rules 10, 11.
#[test]
fn the_first_and_the_last_packets_wait_and_leave_sealed() {
    let mut a = Plane::new();
    let packets: Vec<_> =
        (0..8).map(|i| udp(A, B, (9, 53), &vec![i; 30 + usize::from(i)])).collect();
    for packet in &packets {
        assert!(a.send(packet).is_empty());
    }
    let acquire = Notice::Acquire { flow: flow(A, B), protocol: UDP, ports: (9, 53) };
    assert_eq!(
        a.outputs(),
        [Output::Trace(Trace::Trapped(flow(A, B))), Output::Notice(acquire.clone())]
    );
    // A lost notice is repeated, when a packet shows that it still matters.
    a.now += Duration::from_secs(2);
    let newest = udp(A, B, (9, 53), &[9; 60]);
    assert!(a.send(&newest).is_empty());
    assert_eq!(a.notices(), [acquire]);

    let sa = pair(1, &["192.0.2.1"], &["198.51.100.7"]);
    let mut b = Plane::new();
    b.command(Command::AddSa(Box::new(mirrored(&sa))));
    a.command(Command::AddSa(Box::new(sa.clone())));
    assert_eq!(a.outputs(), []);
    a.encrypt(A, B, 1);
    let mut sealed = Vec::new();
    for output in a.outputs() {
        if let Output::Sealed { envelope, octets, .. } = output {
            assert_eq!(envelope, sa.envelope);
            sealed.push(octets);
        }
    }
    let waited = [&packets[..1], &packets[5..], &[newest]].concat();
    assert_eq!(b.receive(&sealed), waited);
    assert_eq!(b.notices(), [Notice::FirstPacket(SaId(1))]);
    assert_eq!((a.fwd.counters().released, a.fwd.counters().hold_replaced), (5, 4));
}

/// Rule 13.
#[test]
fn held_packets_leave_in_the_clear_when_policy_says_so() {
    let mut a = Plane::new();
    let (first, last) = (udp(A, B, (9, 53), b"first"), udp(A, B, (9, 53), b"last"));
    a.send(&first);
    a.send(&last);
    a.outputs();
    a.command(set_policy(flow(A, B), Policy::Pass));
    assert_eq!(
        a.outputs(),
        [
            Output::Trace(Trace::Released(flow(A, B))),
            Output::Clear { to: ip(B), octets: first.clone() },
            Output::Clear { to: ip(B), octets: last }
        ]
    );
    assert_eq!(a.send(&first), [(To::Clear(ip(B)), first)]);
}

/// Rules 13, 14.
#[test]
fn denied_packets_are_dropped_and_answered() {
    let mut a = Plane::new();
    let packet = udp(A, B, (9, 53), b"x");
    a.send(&packet);
    a.command(set_policy(flow(A, B), Policy::Deny));
    let sent = a.send(&packet);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, &sent[0].1[20..22]), (To::Device, &[3, 13][..]));
    let mut quiet = Plane::with(Config { unreachable: false, ..Config::default() });
    quiet.command(set_policy(flow(A, B), Policy::Deny));
    assert_eq!(quiet.send(&packet), []);
    assert_eq!((a.fwd.counters().denied, quiet.fwd.counters().denied), (2, 1));
}

#[test]
fn what_has_no_class_or_no_peer_is_not_held() {
    let mut a = Plane::new();
    for dst in ["224.0.0.251", "255.255.255.255", "169.254.9.9"] {
        assert!(a.send(&udp(A, dst, (1, 2), b"x")).is_empty());
    }
    assert_eq!((a.outputs(), a.fwd.counters().not_holdable), (vec![], 3));
    a.command(Command::ClearClass { prefix: "0.0.0.0/0".parse().unwrap() });
    assert!(a.send(&udp(A, B, (1, 2), b"x")).is_empty());
    assert_eq!((a.outputs(), a.fwd.counters().no_class), (vec![], 1));
    assert!(a.send(&[0x45, 0]).is_empty());
    assert_eq!(a.fwd.counters().malformed, 1);
}

#[test]
fn packets_that_nobody_decides_about_expire() {
    let mut a = Plane::new();
    a.send(&udp(A, B, (1, 2), b"x"));
    a.outputs();
    let (deadline, timer) = a.fwd.poll_timeout().unwrap();
    assert_eq!(timer, Timer::HoldExpiry);
    a.fwd.handle_timeout(a.now);
    assert_eq!(a.fwd.counters().hold_expired, 0);
    a.fwd.handle_timeout(deadline);
    assert_eq!((a.fwd.counters().hold_expired, a.fwd.poll_timeout()), (1, None));
    a.send(&udp(A, B, (1, 2), b"x"));
    assert_eq!(a.notices().len(), 1, "asked again at once");
}

#[test]
fn both_ways_and_both_families() {
    let v6 = ("2001:db8::1", "2001:db8:1::7");
    let (mut a, mut b) =
        both_with(pair(1, &["192.0.2.1", "2001:db8::1"], &["198.51.100.7", "2001:db8:1::7"]));
    a.encrypt(v6.0, v6.1, 1);
    b.encrypt(v6.1, v6.0, 1);
    for (src, dst) in [(A, B), v6] {
        let request = udp(src, dst, (1000, 53), b"request");
        let sealed = esp(a.send(&request));
        assert_eq!(b.receive(&sealed), [request]);
        let answer = tcp(dst, src, 5, 0x12, b"");
        let sealed = esp(b.send(&answer));
        assert_eq!(a.receive_from(outer(B, 4500), 0, &sealed), [answer]);
    }
}

#[test]
fn a_super_packet_makes_one_run_and_comes_out_whole() {
    let (mut a, mut b) = both();
    let data = payload(40_000);
    let whole = tcp(A, B, 77, 0x18, &data);
    let offload = Offload { cut: Some((Cut::Tcp4, 1380)), ..Offload::NONE };
    let sealed = esp(a.send_super(&offload, &whole));
    assert_eq!((a.batch.sends().len(), sealed.len()), (1, 29));
    let received = b.receive(&sealed);
    assert_eq!(b.delivery.writes().count(), 1);
    assert_eq!(received, crate::segment::tests::cut(&offload, &whole).unwrap());
    assert_eq!((b.fwd.counters().opened, a.fwd.counters().sealed), (29, 29));
}

/// CVE-2021-46873.
#[test]
fn replay_and_damage_change_nothing() {
    let (mut a, mut b) = both();
    let packet = udp(A, B, (1, 2), b"once");
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed), [packet]);
    assert!(b.receive(&sealed).is_empty());
    let mut damaged = esp(a.send(&udp(A, B, (1, 2), b"twice")));
    damaged[0][30] ^= 1;
    assert!(b.receive(&damaged).is_empty());
    let counters = b.fwd.counters();
    assert_eq!((counters.opened, counters.replayed, counters.unauthentic), (1, 1, 1));
    assert_eq!(b.notices(), [Notice::FirstPacket(SaId(1))]);
}

/// Attack A9.
/// Rule 9. P5.
/// gotatun 0.7.2.
#[test]
fn inner_addresses_must_be_the_pairs_own() {
    let (mut a, mut b) = both();
    // A lets anything into its pair; B must not let it out.
    for (src, dst) in [("192.0.2.9", B), (A, "198.51.100.8")] {
        a.encrypt(src, dst, 1);
        let sealed = esp(a.send(&udp(src, dst, (1, 2), b"theft")));
        assert!(b.receive(&sealed).is_empty());
    }
    assert_eq!(b.fwd.counters().inner_selector, 2);
}

/// Attack A9.
/// gotatun 0.7.2.
#[test]
fn an_address_of_another_peer_is_refused_to_the_wider_selector() {
    let (mut a, mut b) = both_with(pair(1, &["192.0.2.0/24"], &["198.51.100.7"]));
    let packet = udp("192.0.2.77", B, (1, 2), b"mine");
    a.encrypt("192.0.2.77", B, 1);
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed).len(), 1);
    // Someone else proves to own this one address.
    let other = pair(2, &["192.0.2.77"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&other))));
    let sealed = esp(a.send(&packet));
    assert!(b.receive(&sealed).is_empty());
    assert_eq!(b.fwd.counters().inner_owner, 1);
    // Once that pair is gone, the wider one speaks for the address again.
    b.command(Command::RemoveSa(SaId(2)));
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed).len(), 1);
}

/// Attack A4.
/// Rule 9.
#[test]
fn configured_beats_opportunistic_whatever_the_lengths() {
    let mut configured = pair(1, &["192.0.2.0/24"], &["198.51.100.7"]);
    configured.trust = Trust::Configured;
    let (mut a, mut b) = both_with(configured);
    let claim = pair(2, &["192.0.2.77"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&claim))));
    a.command(Command::AddSa(Box::new(claim)));
    let packet = udp("192.0.2.77", B, (1, 2), b"x");
    a.encrypt("192.0.2.77", B, 2);
    let sealed = esp(a.send(&packet));
    assert!(b.receive(&sealed).is_empty());
    a.encrypt("192.0.2.77", B, 1);
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed), [packet]);
}

/// Rule 9. A connection's claim to its remote subnets is about traffic with its local ones: the same
/// host may have an opportunistic pair with another address of ours.
#[test]
fn a_connection_says_nothing_of_traffic_with_other_addresses() {
    let mut configured = pair(1, &["192.0.2.0/24"], &["198.51.100.64/26"]);
    configured.trust = Trust::Configured;
    let (mut a, mut b) = both_with(configured);
    let claim = pair(2, &["192.0.2.77"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&claim))));
    a.command(Command::AddSa(Box::new(claim)));
    let packet = udp("192.0.2.77", B, (1, 2), b"x");
    a.encrypt("192.0.2.77", B, 2);
    let sealed = esp(a.send(&packet));
    assert_eq!(b.receive(&sealed), [packet]);
}

/// What was sent on a pair before it was deleted arrives, and it stands in nobody's way meanwhile.
#[test]
fn a_pair_that_leaves_has_no_claim_and_is_still_heard() {
    let mut configured = pair(1, &["192.0.2.0/24"], &["198.51.100.7"]);
    configured.trust = Trust::Configured;
    let (mut a, mut b) = both_with(configured);
    let next = pair(2, &["192.0.2.77"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&next))));
    a.command(Command::AddSa(Box::new(next)));
    let packet = udp("192.0.2.77", B, (1, 2), b"x");
    let mut sent_on = |number| {
        a.encrypt("192.0.2.77", B, number);
        esp(a.send(&packet))
    };
    let (early, late, old, last) = (sent_on(2), sent_on(2), sent_on(1), sent_on(1));
    assert!(b.receive(&early).is_empty(), "the configured one has the claim");
    b.fwd.leave(SaId(1));
    assert_eq!(b.receive(&late), std::slice::from_ref(&packet));
    assert_eq!(b.receive(&old), std::slice::from_ref(&packet));
    b.command(Command::RemoveSa(SaId(1)));
    assert!(b.receive(&last).is_empty());
}

/// Rule 56.
#[test]
fn old_and_new_pair_work_side_by_side_in_a_rekey() {
    let (mut a, mut b) = both();
    let next = pair(2, &["192.0.2.1"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&next))));
    a.command(Command::AddSa(Box::new(next)));
    let packet = udp(A, B, (1, 2), b"x");
    let old = esp(a.send(&packet));
    a.encrypt(A, B, 2);
    let new = esp(a.send(&packet));
    assert_eq!(b.receive(&[new, old].concat()).len(), 2);
}

/// Attack A44.
#[test]
fn errors_from_the_way_behind_the_peer_are_let_in() {
    let (mut a, mut b) = both();
    let about = udp(A, B, (1, 2), b"quoted");
    let unreachable = |quoted: &[u8], to: &str| {
        packet("203.0.113.1", to, ICMP, &[&[11, 0, 0, 0, 0, 0, 0, 0], quoted].concat())
    };
    b.encrypt("203.0.113.1", A, 1);
    let good = unreachable(&about, A);
    let sealed = esp(b.send(&good));
    assert_eq!(a.receive_from(outer(B, 4500), 0, &sealed), std::slice::from_ref(&good));
    // About a packet of somebody else, or no error at all.
    for bad in [
        unreachable(&udp(A, "203.0.113.9", (1, 2), b"x"), A),
        unreachable(&udp("192.0.2.9", B, (1, 2), b"x"), A),
        packet("203.0.113.1", A, ICMP, &[&[8, 0, 0, 0, 0, 0, 0, 0], &about[..]].concat()),
    ] {
        let sealed = esp(b.send(&bad));
        assert!(a.receive_from(outer(B, 4500), 0, &sealed).is_empty());
    }
    // Nor if that router is itself somebody's own address.
    let owner = pair(3, &["192.0.2.1"], &["203.0.113.1"]);
    a.command(Command::AddSa(Box::new(owner)));
    let sealed = esp(b.send(&good));
    assert!(a.receive_from(outer(B, 4500), 0, &sealed).is_empty());
}

/// Attack A45.
#[test]
fn congestion_is_carried_to_the_inner_header() {
    let (mut a, mut b) = both();
    let mut ect = udp(A, B, (1, 2), b"x");
    let sum = crate::checksum::updated([ect[10], ect[11]], 0x4500, 0x4502);
    ect[1] = 2;
    ect[10..12].copy_from_slice(&sum);
    let sealed = esp(a.send(&ect));
    assert_eq!(a.batch.sends()[0].tos, 2, "ECN is copied outside");
    let received = b.receive_from(outer(A, 4500), 3, &sealed);
    assert_eq!(received[0][1], 3);
    let sealed = esp(a.send(&udp(A, B, (1, 2), b"not capable")));
    assert!(b.receive_from(outer(A, 4500), 3, &sealed).is_empty());
    assert_eq!(b.fwd.counters().congestion, 1);
}

/// gotatun 0.8.0.
#[test]
fn a_peer_that_moved_is_reported_but_not_followed() {
    let (mut a, mut b) = both();
    let packet = udp(A, B, (1, 2), b"x");
    let elsewhere = outer("203.0.113.5", 999);
    let moved = Notice::PeerMoved { sa: SaId(1), remote: elsewhere };
    for (seconds, expected) in [(0, 1), (0, 0), (2, 1)] {
        b.now += Duration::from_secs(seconds);
        let sealed = esp(a.send(&packet));
        assert_eq!(b.receive_from(elsewhere, 0, &sealed), std::slice::from_ref(&packet));
        assert_eq!(b.notices().iter().filter(|n| **n == moved).count(), expected);
    }
    // Forged, replayed or overtaken packets are no sign of anything.
    b.now += Duration::from_secs(2);
    let late = esp(a.send(&packet));
    let sealed = esp(a.send(&packet));
    b.receive(&sealed);
    b.receive_from(elsewhere, 0, &sealed);
    b.receive_from(elsewhere, 0, &late);
    assert_eq!(b.notices(), []);
    // Answers still go where keying says, until it says otherwise.
    let answer = udp(B, A, (2, 1), b"y");
    assert_eq!(b.send(&answer)[0].0, To::Peer(mirrored(&pair(1, &[], &[])).envelope));
    let envelope = Envelope { local: outer(B, 4500), remote: elsewhere, udp: true };
    b.command(Command::MoveSa { sa: SaId(1), envelope });
    assert_eq!(b.send(&answer)[0].0, To::Peer(envelope));
}

/// Rule 33.
#[test]
fn unknown_spis_are_hinted_at_sparingly() {
    let mut a = Plane::new();
    let stray: Vec<_> =
        (0..100u32).map(|i| [&(5000 + i).to_be_bytes()[..], &[0; 60]].concat()).collect();
    assert!(a.receive(&stray).is_empty());
    let notices = a.notices();
    assert_eq!(notices.len(), 4);
    assert_eq!(notices[0], Notice::UnknownSpi { spi: spi(5000), from: ip(A) });
    assert_eq!(a.fwd.counters().unknown_spi, 100);
}

/// Attack A26.
/// P14: what is too short to be anybody's ESP packet draws no hint, which would be longer.
#[test]
fn an_spi_alone_is_no_packet() {
    let mut a = Plane::new();
    for len in 4..28 {
        let mut stray = vec![0; len];
        stray[..4].copy_from_slice(&5000_u32.to_be_bytes());
        assert!(a.receive(&[stray]).is_empty());
        assert!(a.notices().is_empty(), "{len} octets");
    }
    assert_eq!(a.fwd.counters().unknown_spi, 24);
}

/// Rules 15, 32.
/// gotatun 0.7.2.
#[test]
fn limits_are_announced_and_end_in_hold() {
    let mut short = pair(1, &["192.0.2.1"], &["198.51.100.7"]);
    short.limits =
        Limits { soft_packets: 3, hard_packets: 5, soft_bytes: u64::MAX, hard_bytes: u64::MAX };
    let (mut a, mut b) = both_with(short);
    let packet = udp(A, B, (1, 2), b"x");
    let mut told = Vec::new();
    let mut sent = 0;
    for _ in 0..8 {
        sent += a.send(&packet).len();
        told.extend(a.notices());
    }
    assert_eq!(sent, 5);
    assert_eq!(
        told,
        [
            Notice::SoftExpire(SaId(1)),
            Notice::HardExpire(SaId(1)),
            Notice::Acquire { flow: flow(A, B), protocol: UDP, ports: (1, 2) },
        ]
    );
    // Spent means spent in both directions.
    let sealed = esp(b.send(&udp(B, A, (2, 1), b"late")));
    assert!(a.receive_from(outer(B, 4500), 0, &sealed).is_empty());
    assert_eq!(a.fwd.counters().sa_spent, 1);
    // Who has not heard of it hears again, instead of being asked for keys time and again.
    a.encrypt(A, B, 1);
    assert_eq!(a.notices(), [Notice::HardExpire(SaId(1))]);
    // The packets that came too late are released into the successor.
    a.command(Command::AddSa(Box::new(pair(2, &["192.0.2.1"], &["198.51.100.7"]))));
    a.encrypt(A, B, 2);
    assert_eq!(a.fwd.counters().released, 3);
}

/// Octets count as packets do, either way: Soft once, Hard once, and then nothing more.
/// Rules 15, 32.
#[test]
fn octets_have_limits_as_packets_have() {
    let packet = udp(A, B, (1, 2), &[7; 100]);
    let len = u64::try_from(packet.len()).unwrap();
    for sends in [true, false] {
        let mut short = pair(1, &["192.0.2.1"], &["198.51.100.7"]);
        short.limits = Limits {
            soft_packets: u64::MAX,
            hard_packets: u64::MAX,
            soft_bytes: 3 * len,
            hard_bytes: 5 * len,
        };
        let mut endless = short.clone();
        endless.limits = Limits::of_esp(true);
        // Who is limited here sends, or receives.
        let (near, far) = if sends { (short, endless) } else { (endless, short) };
        let (mut a, mut b) = (Plane::new(), Plane::new());
        a.command(Command::AddSa(Box::new(near)));
        a.encrypt(A, B, 1);
        b.command(Command::AddSa(Box::new(mirrored(&far))));
        b.encrypt(B, A, 1);
        a.outputs();
        b.outputs();
        let mut told = Vec::new();
        let mut through = 0;
        for at in 1..=8 {
            let sealed = a.send(&packet);
            if !sealed.is_empty() {
                through += b.receive(&esp(sealed)).len();
            }
            let notices = if sends { a.notices() } else { b.notices() };
            told.extend(notices.into_iter().filter_map(|notice| match notice {
                Notice::SoftExpire(_) => Some((at, "soft")),
                Notice::HardExpire(_) => Some((at, "hard")),
                _ => None,
            }));
        }
        assert_eq!(told, [(3, "soft"), (5, "hard")], "sends: {sends}");
        assert_eq!(through, 5, "sends: {sends}");
    }
}

/// What a pair cannot carry any more is held as it came, with its checksum to be completed once.
#[test]
fn a_spent_pair_leaves_a_partial_checksum_as_it_is() {
    let mut short = pair(1, &["192.0.2.1"], &["198.51.100.7"]);
    short.limits =
        Limits { soft_packets: 1, hard_packets: 1, soft_bytes: u64::MAX, hard_bytes: u64::MAX };
    let (mut a, mut b) = both_with(short);
    let whole = udp(A, B, (1, 2), b"x");
    let mut partial = whole.clone();
    let pseudo = crate::offload::pseudo_header(ip(A), ip(B), UDP, 9).folded();
    partial[26..28].copy_from_slice(&pseudo);
    let offload = Offload { checksum: Some((20, 6)), ..Offload::NONE };
    assert_eq!(a.send_super(&offload, &partial).len(), 1);
    assert!(a.send_super(&offload, &partial).is_empty());
    let next = pair(2, &["192.0.2.1"], &["198.51.100.7"]);
    b.command(Command::AddSa(Box::new(mirrored(&next))));
    a.command(Command::AddSa(Box::new(next)));
    a.outputs();
    a.encrypt(A, B, 2);
    let released: Vec<_> = a
        .outputs()
        .into_iter()
        .filter_map(|output| match output {
            Output::Sealed { octets, .. } => Some(octets),
            _ => None,
        })
        .collect();
    assert_eq!(b.receive(&released), [whole]);
}

#[test]
fn silence_is_reported_now_and_then_and_only_if_we_speak() {
    let (mut a, mut b) = both();
    let packet = udp(A, B, (1, 2), b"x");
    let told = |a: &mut Plane, seconds: u64| {
        a.now += Duration::from_secs(seconds);
        a.send(&packet);
        a.notices().iter().filter(|n| **n == Notice::Unanswered(SaId(1))).count()
    };
    // Again after a minute: whoever was there when asked may be gone by now.
    let told_at = [0, 4, 1, 1, 58, 1, 59, 100].map(|s| told(&mut a, s));
    assert_eq!(told_at, [0, 0, 1, 0, 0, 1, 0, 1]);
    let sealed = esp(b.send(&udp(B, A, (2, 1), b"here")));
    a.receive_from(outer(B, 4500), 0, &sealed);
    a.outputs();
    // A long pause is no silence: the wait begins with the first packet that is sent.
    assert_eq!([60, 4, 1, 1].map(|s| told(&mut a, s)), [0, 0, 1, 0]);
}

/// CVE-2024-26861, CVE-2024-26950, CVE-2024-26951: nor is what is gone told of.
#[test]
fn a_removed_pair_leaves_its_flows_on_hold() {
    let (mut a, _) = both();
    a.command(Command::RemoveSa(SaId(1)));
    a.outputs();
    a.command(Command::AskUse(SaId(1)));
    a.command(Command::RemoveSa(SaId(1)));
    assert_eq!(a.notices(), []);
    assert!(a.send(&udp(A, B, (1, 2), b"x")).is_empty());
    assert_eq!(a.notices().len(), 1);
    // A policy that names no pair at all must not leak either.
    a.encrypt(A, B, 42);
    assert!(a.send(&udp(A, B, (1, 2), b"x")).is_empty());
    assert_eq!(a.fwd.counters().held, 2);
}

#[test]
fn use_is_reported() {
    let (mut a, mut b) = both();
    let packet = udp(A, B, (1, 2), b"12345678");
    let sealed = esp(a.send(&packet));
    b.receive(&sealed);
    b.now += Duration::from_secs(9);
    b.outputs();
    b.command(Command::AskUse(SaId(1)));
    let Some(Notice::LastUse { sa: SaId(1), used: told }) = b.notices().pop() else {
        panic!("no answer")
    };
    assert_eq!((told.packets_in, told.bytes_in), (1, packet.len() as u64));
    assert_eq!(told.idle_in, Some(Duration::from_secs(9)));
    assert_eq!((told.packets_out, told.idle_out), (0, None));
}

#[test]
fn dummies_and_non_ip_are_dropped() {
    let (mut a, mut b) = both();
    let sa = a.fwd.sad.get_mut(SaId(1)).unwrap();
    let mut seal = |inner: &[u8], next_header| {
        let mut slot = vec![0; esp::sealed_len(inner.len())];
        slot[esp::HEADER..esp::HEADER + inner.len()].copy_from_slice(inner);
        let number = sa.sealer.number().unwrap();
        sa.sealer.seal(number, &mut slot, inner.len(), next_header).unwrap();
        slot
    };
    let v4 = udp(A, B, (1, 2), b"x");
    let datagrams = [
        seal(b"noise", NO_NEXT_HEADER),
        seal(b"noise", IP_IN_IP),
        seal(&v4, IPV6),
        seal(&v4, UDP),
        seal(&[], IP_IN_IP),
        // TFC padding after the packet is cut off.
        seal(&[&v4[..], &[0; 100]].concat(), IP_IN_IP),
    ];
    assert_eq!(b.receive(&datagrams), [v4]);
    assert_eq!((b.fwd.counters().dummy, b.fwd.counters().inner_malformed), (1, 4));
}

#[test]
fn too_big_is_said_to_the_sender() {
    let (mut a, _) = both();
    let big = udp(A, B, (1, 2), &[0; 1420]);
    let sent = a.send(&big);
    assert_eq!((sent.len(), sent[0].0), (1, To::Device));
    assert_eq!(sent[0].1[26..28], 1438u16.to_be_bytes());
    // With DF clear it is sealed, and the outer packet is fragmented.
    let mut may_fragment = big;
    may_fragment[6] = 0;
    assert_eq!(esp(a.send(&may_fragment)).len(), 1);
    assert_eq!((a.fwd.counters().too_big, a.fwd.counters().sealed), (1, 1));
}

/// A router's complaint about `packet`, which went from A to B in UDP: next-hop MTU `said`.
fn complaint(packet: &[u8], said: u16) -> Vec<u8> {
    let around = udp(A, B, (4500, 4500), packet);
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(said.to_be_bytes());
    message.extend(&around[..around.len().min(60)]);
    message
}

/// Attack A43.
#[test]
fn the_way_is_probed_and_a_true_complaint_narrows_it() {
    let (mut a, mut b) = both();
    let big = udp(A, B, (1, 2), &[0; 1400]);
    let full = esp(a.send(&big)).remove(0);
    let probes: Vec<Vec<u8>> = a
        .outputs()
        .into_iter()
        .filter_map(|o| if let Output::Probe { octets, .. } = o { Some(octets) } else { None })
        .collect();
    let [probe] = probes.as_slice() else { panic!("{} probes", probes.len()) };
    assert_eq!(probe.len() + 28, 1500);
    // The peer knows it for what it is.
    assert!(b.receive(&[full, probe.clone()]).len() == 1 && b.fwd.counters().dummy == 1);

    // Not about us, not about this pair, not about a packet of now, too short to tell.
    let now = a.now;
    let mut lies: Vec<Vec<u8>> = [(16, 9), (20, 9), (28, 9), (35, 0), (35, 200)]
        .into_iter()
        .map(|(at, value)| {
            let mut lie = complaint(probe, 1300);
            lie[8 + at] = value;
            lie
        })
        .collect();
    lies.push(complaint(probe, 1300)[..8 + 32].to_vec());
    for lie in &lies {
        a.fwd.icmp(now, true, lie);
    }
    assert_eq!(a.fwd.counters().path_hint_refused, 5);
    assert_eq!(esp(a.send(&big)).len(), 1);
    // Other messages are none.
    a.fwd.icmp(now, true, &[3, 1, 0, 0, 0, 0, 0, 0, 1]);
    a.fwd.icmp(now, true, &[]);
    a.fwd.icmp(now, true, &complaint(probe, 1300));
    let counters = a.fwd.counters();
    assert_eq!((counters.path_narrowed, counters.path_hint_refused), (1, 5));
    let sent = a.send(&big);
    assert_eq!((sent.len(), sent[0].0), (1, To::Device), "the application is told");
    assert_eq!(sent[0].1[26..28], 1238u16.to_be_bytes());
    let fits = udp(A, B, (1, 2), &[0; 1238 - 28]);
    let sent = esp(a.send(&fits));
    assert!(sent[0].len() + 28 <= 1300 && sent[0].len() + 28 > 1296, "{}", sent[0].len());
}

#[test]
fn a_first_link_that_is_narrow_is_found_in_steps() {
    let (mut a, _) = both();
    let mut widths = Vec::new();
    for room in [1410, 1400, 1390] {
        a.send(&udp(A, B, (1, 2), &vec![0; room]));
        for output in a.outputs() {
            if let Output::Probe { sa, octets, .. } = output {
                widths.push(octets.len() + 28);
                a.fwd.probe_refused(sa);
            }
        }
    }
    assert_eq!(widths, [1500, 1492, 1480]);
    assert_eq!(a.fwd.counters().path_narrowed, 3);
}

#[test]
fn pairs_that_cannot_work_are_given_back_at_once() {
    let mut a = Plane::new();
    let mut transport = pair(1, &["192.0.2.0/24"], &[B]);
    transport.mode = Mode::Transport;
    a.command(Command::AddSa(Box::new(transport)));
    assert_eq!(a.notices(), [Notice::HardExpire(SaId(1))]);
    // The same inbound SPI twice.
    a.command(Command::AddSa(Box::new(pair(2, &[A], &[B]))));
    let mut same_spi = pair(3, &[A], &[B]);
    same_spi.spi_in = pair(2, &[A], &[B]).spi_in;
    a.command(Command::AddSa(Box::new(same_spi)));
    assert_eq!(a.notices(), [Notice::HardExpire(SaId(3))]);
}

/// Attack A22.
/// libreswan bare shunts.
#[test]
fn one_flood_of_unknown_flows_is_bounded() {
    let mut a = Plane::with(Config { newcomers: u32::MAX, ..Config::default() });
    for i in 0..20_000u32 {
        let dst = std::net::Ipv4Addr::from(0x0a00_0000 + i * 256).to_string();
        let src = format!("192.0.{}.1", i % 8);
        a.send(&udp(&src, &dst, (1, 2), &[0; 100]));
    }
    let counters = a.fwd.counters();
    assert!(counters.hold_over_budget > 0 && counters.output_full > 0);
    assert!(a.outputs().len() < 20_000);
}

/// P13: what is refused costs a counter.
#[test]
fn a_flood_of_unknown_flows_is_refused_before_it_is_held() {
    let mut a = Plane::new();
    let flood = |a: &mut Plane, from: u32| {
        for i in from..from + 20_000 {
            let dst = std::net::Ipv4Addr::from(0x0a00_0000 + i * 256).to_string();
            a.send(&udp(&format!("192.0.{}.1", i % 8), &dst, (1, 2), &[0; 100]));
        }
    };
    flood(&mut a, 0);
    let counters = a.fwd.counters();
    assert!(counters.newcomers_refused > 15_000 && counters.output_full == 0, "{counters:?}");
    let asked = a.notices().len();
    assert!(asked > 1000 && asked + usize::try_from(counters.newcomers_refused).unwrap() == 20_000);
    // What is known already is none of its business, nor who comes again.
    a.command(set_policy(flow(A, B), Policy::Hold));
    flood(&mut a, 20_000);
    let (refused, held) = (a.fwd.counters().newcomers_refused, a.fwd.counters().held);
    a.send(&udp(A, B, (1, 2), b"known"));
    a.send(&udp("192.0.7.1", "10.156.63.0", (1, 2), b"again"));
    assert_eq!(a.fwd.counters().newcomers_refused, refused);
    assert_eq!(a.fwd.counters().held, held + 2);
}

#[test]
fn the_devices_mtu_leaves_room_for_esp_in_udp() {
    assert_eq!(device_mtu(1500, false), 1438);
    assert_eq!(device_mtu(1500, true), 1418);
    assert_eq!(device_mtu(1300, true), 1280);
    for (mtu, ip) in [(1438, 20), (1418, 40)] {
        assert!(esp::sealed_len(mtu) + 8 + ip <= 1500);
    }
}

proptest! {
    /// Whatever the device or the wire brings, and whatever a peer seals.
    #[test]
    fn any_octets_are_survived(
        octets in proptest::collection::vec(any::<u8>(), 0..300),
        first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
        header in any::<[u8; 10]>(),
        kind in 0u8..6,
        small in any::<bool>(),
        next_header in prop_oneof![Just(IP_IN_IP), Just(IPV6), any::<u8>()],
    ) {
        let (mut a, mut b) = both();
        let mut packet = octets.clone();
        if let Some(octet) = packet.first_mut() {
            *octet = first;
        }
        if small && packet.len() >= 40 {
            // Lengths that fit lead further in.
            let len = u16::try_from(packet.len()).unwrap();
            let (at, len) = if first >> 4 == 4 { (2, len) } else { (4, len - 40) };
            packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
        }
        for policy in [Policy::Encrypt(SaId(1)), Policy::Pass, Policy::Deny] {
            if let Ok(inner) = Inner::parse(&packet) {
                a.command(set_policy(inner.flow, policy));
            }
            let mut header = header;
            header[1] = kind;
            if small {
                // Offsets within the packet.
                header[5] = 0;
                header[7] = 0;
                header[9] = 0;
            }
            if let Some(offload) = Offload::parse(header) {
                a.send_super(&offload, &packet);
            }
        }
        let sa = a.fwd.sad.get_mut(SaId(1)).unwrap();
        let mut slot = vec![0; esp::sealed_len(packet.len())];
        slot[esp::HEADER..esp::HEADER + packet.len()].copy_from_slice(&packet);
        let number = sa.sealer.number().unwrap();
        sa.sealer.seal(number, &mut slot, packet.len(), next_header).unwrap();
        let spi = 0x2001u32.to_be_bytes();
        b.receive(&[[&spi[..], &octets].concat(), octets, slot]);
    }

    /// Cut, sealed, opened, joined: what the device at the other end gets is what cutting alone
    /// gives, whatever the super-packet.
    /// wireguard-go 842888a.
    #[test]
    fn any_super_packet_arrives_as_its_parts(
        packets in proptest::collection::vec((any::<bool>(), any::<bool>(), 1usize..9000, 100u16..1300), 1..6),
        seq in any::<u32>(),
        flags in prop_oneof![Just(0x10u8), Just(0x18), Just(0x19), Just(0x90), Just(0x50)],
    ) {
        let v6 = ("2001:db8::1", "2001:db8:1::7");
        let (mut a, mut b) = both_with(pair(1, &[A, v6.0], &[B, v6.1]));
        a.encrypt(v6.0, v6.1, 1);
        let (mut sealed, mut expected) = (Vec::new(), Vec::new());
        let mut seq = seq;
        for (is_v4, is_tcp, len, size) in packets {
            let (src, dst) = if is_v4 { (A, B) } else { v6 };
            let data = payload(len);
            let (whole, kind) = match (is_tcp, is_v4) {
                (true, true) => (tcp(src, dst, seq, flags, &data), Cut::Tcp4),
                (true, false) => (tcp(src, dst, seq, flags, &data), Cut::Tcp6),
                (false, _) => (udp(src, dst, (5, 6), &data), Cut::Udp),
            };
            seq = seq.wrapping_add(u32::try_from(len).unwrap());
            let offload = Offload { cut: Some((kind, size)), ..Offload::NONE };
            expected.extend(crate::segment::tests::cut(&offload, &whole).unwrap());
            sealed.extend(esp(a.send_super(&offload, &whole)));
        }
        prop_assert_eq!(a.fwd.counters().sealed, expected.len() as u64);
        let mut received = b.receive(&sealed);
        // Connections may pass each other; and identifications mean nothing where DF is set.
        for packets in [&mut received, &mut expected] {
            for packet in packets.iter_mut().filter(|p| p[0] >> 4 == 4) {
                packet[4..6].fill(0);
                packet[10..12].fill(0);
            }
            packets.sort_by_key(|p| (p[0] >> 4, Inner::parse(p).unwrap().protocol));
        }
        prop_assert_eq!(received, expected);
    }
}
