//! Attackers: one who forges from afar, one on the way, one who owns a reverse zone, and a peer
//! that is honest about who it is and about nothing else. What each must not achieve.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dnskeys::Security;
use keying::{Groups, StateName};
use sa::{Envelope, Prefix};

use crate::net::{Fate, Kind, Link, Net};
use crate::node::{Host, Sent, TestKey, seconds};
use crate::{EAST, WEST, ip, west_and_east};

const MALLORY: &str = "203.0.113.66";
const IKE_SA_INIT: u8 = 34;
const INFORMATIONAL: u8 = 37;
const NOTIFY: u8 = 41;
const NO_PROPOSAL_CHOSEN: u16 = 14;
const INVALID_IKE_SPI: u16 = 4;
const IKE_AUTH: u8 = 35;
const IKE_SESSION_RESUME: u8 = 38;

fn key(n: usize) -> Option<dnskeys::PublicKey> {
    Some(TestKey::nth(n).dns())
}

fn state(net: &Net, host: usize, peer: &str) -> Option<keying::Destination> {
    net.hosts[host].node.as_ref()?.state_of(net.now, ip(peer))
}

fn keyed(net: &Net, host: usize, peer: &str) -> bool {
    state(net, host, peer).is_some_and(|d| d.state == StateName::Keyed)
}

fn counters(net: &Net, host: usize) -> keying::Counters {
    *net.hosts[host].node.as_ref().unwrap().keying.counters()
}

fn heard(net: &Net, host: usize, text: &str) -> bool {
    net.hosts[host].inbox.iter().any(|(_, heard)| heard == text)
}

fn tapped(net: &Net) -> Vec<Sent> {
    net.tapped.clone().unwrap_or_default()
}

/// The IKE messages of an exchange type, of one direction.
fn ike_messages(sent: &[Sent], exchange: u8, response: bool) -> Vec<ike::Transmit> {
    let of = |sent: &Sent| match sent {
        Sent::Ike(t) if t.octets.get(18) == Some(&exchange) => {
            (t.octets[19] & 0x20 != 0).eq(&response).then(|| t.clone())
        }
        _ => None,
    };
    sent.iter().filter_map(of).collect()
}

/// The content of the first payload of this type (RFC 7296 §3.2).
fn payload(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let (mut next, mut rest) = (message[16], &message[28..]);
    while next != 0 {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if next == wanted {
            return Some(&rest[4..length]);
        }
        (next, rest) = (rest[0], &rest[length..]);
    }
    None
}

/// A message that nobody has protected: a header and one notify.
fn forged(spis: &[u8], exchange: u8, flags: u8, id: u32, notify: u16) -> Vec<u8> {
    forged_with(spis, (exchange, flags), id, notify, &[])
}

/// The same, and what the notify says.
fn forged_with(
    spis: &[u8],
    (exchange, flags): (u8, u8),
    id: u32,
    notify: u16,
    data: &[u8],
) -> Vec<u8> {
    let length = u8::try_from(8 + data.len()).unwrap();
    let mut message = spis.to_vec();
    message.extend([NOTIFY, 0x20, exchange, flags]);
    message.extend(id.to_be_bytes());
    message.extend((28 + u32::from(length)).to_be_bytes());
    message.extend([0, 0, 0, length, 0, 0]);
    message.extend(notify.to_be_bytes());
    message.extend(data);
    message
}

fn ike(from: SocketAddr, to: SocketAddr, octets: Vec<u8>) -> Sent {
    Sent::Ike(ike::Transmit { local: from, remote: to, marker: from.port() == 4500, octets })
}

/// Attack A2.
/// P4, P5: Mallory proves that she is Mallory, and wants east's traffic.
#[test]
fn who_proves_another_name_gets_no_traffic() {
    let mut net = west_and_east(1, Link::default());
    let mut mallory = Host::plain(MALLORY);
    let (seed, now) = (net.seed(), net.now);
    mallory.start(2, Groups::packetdefault(), seed, now, |config| {
        config.served = vec![Prefix::host(ip(EAST))];
    });
    // Her applications send with east's address, and her node calls for it as a gateway would.
    mallory.addresses.push(ip(EAST));
    net.add(mallory);
    net.dns.publish(ip(MALLORY), ip(MALLORY), key(2), Security::Secure);
    net.drain(2);
    // An honest node would not even try: hers is told that east's record names her.
    net.dns.publish(ip(EAST), ip(MALLORY), key(2), Security::Secure);
    let now = net.now;
    net.hosts[2].send_from(now, ip(EAST), ip(WEST), "I am east");
    net.drain(2);
    let called = |net: &Net| net.between(ip(MALLORY), ip(WEST)).count() > 0;
    assert!(net.run_until(seconds(5), called));
    net.dns.publish(ip(EAST), ip(EAST), key(1), Security::Secure);
    net.run(seconds(20));
    assert_eq!(counters(&net, 0).visitors_refused, 1);
    assert!(!keyed(&net, 0, EAST));
    // East's traffic still goes to east.
    let before = net.wire.len();
    net.send(0, ip(EAST), "ping secret");
    net.run(seconds(5));
    assert!(heard(&net, 0, "pong secret"));
    let to_mallory = net.wire[before..].iter().filter(|s| s.to == ip(MALLORY)).count();
    assert_eq!(to_mallory, 0);
}

/// Attack A1.
/// P3: a record that nobody signed sends nobody's traffic to a third address; a signed one does.
#[test]
fn forged_dns_redirects_nothing() {
    for (security, called) in [(Security::Insecure, false), (Security::Secure, true)] {
        let mut net = west_and_east(2, Link::default());
        net.add(Host::plain(MALLORY));
        net.dns.publish(ip(EAST), ip(MALLORY), key(2), security);
        net.send(0, ip(EAST), "secret");
        net.run(seconds(10));
        assert_eq!(net.between(ip(WEST), ip(MALLORY)).count() > 0, called, "{security:?}");
    }
}

/// Attack A31.
/// P11: everything that was ever sent is sent again, to both ends, thrice, also by others.
#[test]
fn what_is_replayed_has_no_effect() {
    let mut net = west_and_east(3, Link::default());
    net.tapped = Some(Vec::new());
    for n in 0..10 {
        net.send(0, ip(EAST), &format!("ping {n}"));
        net.run(seconds(1));
    }
    let all = tapped(&net);
    let (inboxes, pairs) = (
        [0, 1].map(|host| net.hosts[host].inbox.len()),
        [counters(&net, 0).pairs, counters(&net, 1).pairs],
    );
    for round in 0..3 {
        for sent in &all {
            let mut sent = sent.clone();
            if round > 0 {
                // From where nobody of the two is.
                let elsewhere = SocketAddr::new(ip(MALLORY), 4500);
                match &mut sent {
                    Sent::Ike(t) => t.local = elsewhere,
                    Sent::Esp(envelope, _) => envelope.local = elsewhere,
                    Sent::Clear(_) => {}
                }
            }
            net.inject(sent);
        }
        net.run(seconds(2));
    }
    // A request may begin something anew, which nobody goes on with.
    net.run(seconds(60));
    assert_eq!([0, 1].map(|host| net.hosts[host].inbox.len()), inboxes);
    assert_eq!([counters(&net, 0).pairs, counters(&net, 1).pairs], pairs);
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    net.send(0, ip(EAST), "ping again");
    net.run(seconds(2));
    assert!(heard(&net, 0, "pong again"));
    // And nobody was drawn away.
    net.send(0, ip(EAST), "ping home");
    let before = net.wire.len();
    net.run(seconds(2));
    assert!(
        net.wire[before..].iter().all(|seen| seen.to != ip(MALLORY)),
        "{:?}",
        &net.wire[before..]
    );
}

/// P12: a forger who knows every SPI and sees every packet, but has no key.
#[test]
fn forged_messages_end_and_move_nothing() {
    let mut net = west_and_east(4, Link::default());
    net.tapped = Some(Vec::new());
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(40));
    let all = tapped(&net);
    let response = &ike_messages(&all, IKE_SA_INIT, true)[0];
    let spis = response.octets[..16].to_vec();
    let esp = all.iter().find_map(|sent| match sent {
        Sent::Esp(envelope, octets) if envelope.local.ip() == ip(EAST) => {
            Some((*envelope, octets.clone()))
        }
        _ => None,
    });
    let (envelope, esp) = esp.unwrap();
    let gateway = state(&net, 0, EAST).unwrap().gateway;
    let to = SocketAddr::new(ip(WEST), 4500);
    for from in [SocketAddr::new(ip(EAST), 4500), SocketAddr::new(ip(MALLORY), 4500)] {
        for id in 0..4 {
            for flags in [0x00, 0x08, 0x20, 0x28] {
                for notify in [INVALID_IKE_SPI, 7, 9, NO_PROPOSAL_CHOSEN, 24, 11, 16384] {
                    let message = forged(&spis, INFORMATIONAL, flags, id, notify);
                    net.inject(ike(from, to, message));
                }
            }
        }
        // ESP with the right SPI: older, newer, and from elsewhere.
        for sequence in [0_u32, 1, 2, 1000, u32::MAX] {
            let mut octets = esp.clone();
            octets[4..8].copy_from_slice(&sequence.to_be_bytes());
            net.inject(Sent::Esp(Envelope { local: from, ..envelope }, octets));
        }
        net.run(seconds(1));
    }
    let (pairs, sent) = (counters(&net, 0).pairs, net.wire.len());
    net.run(seconds(5));
    assert_eq!((counters(&net, 0).pairs, counters(&net, 1).pairs), (pairs, pairs));
    let now = state(&net, 0, EAST).unwrap();
    assert_eq!((now.state, now.gateway, now.pairs), (StateName::Keyed, gateway, 1));
    net.send(0, ip(EAST), "ping 1");
    net.run(seconds(2));
    assert!(heard(&net, 0, "pong 1"));
    assert!(net.wire[sent..].iter().all(|seen| seen.to != ip(MALLORY)));
}

/// Attack A17.
/// P12, P2 (RFC 7296 §2.21.1): who answers IKE_SA_INIT faster than the gateway, with an error,
/// ends no call and makes nobody talk in the clear.
#[test]
fn forged_errors_end_no_call() {
    for notify in [NO_PROPOSAL_CHOSEN, 7, 24, 34] {
        let mut net = west_and_east(5, Link { delay_us: 50_000..=50_000, ..Link::default() });
        net.tapped = Some(Vec::new());
        net.send(0, ip(EAST), "ping 1");
        net.run(Duration::from_millis(20));
        let request = ike_messages(&tapped(&net), IKE_SA_INIT, false).remove(0);
        let mut spis = request.octets[..8].to_vec();
        for spi in [[0; 8], [7; 8]] {
            spis.truncate(8);
            spis.extend(spi);
            net.inject(ike(
                request.remote,
                request.local,
                forged(&spis, IKE_SA_INIT, 0x20, 0, notify),
            ));
        }
        net.run(seconds(20));
        assert!(heard(&net, 0, "pong 1"), "notify {notify}");
        assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "notify {notify}");
    }
}

/// P12, P2 (RFC 7296 §2.6, §2.15): who answers IKE_SA_INIT faster than the gateway, with a cookie
/// that nobody asked of us, and does so whenever we ask, ends no call either.
#[test]
fn forged_cookies_end_no_call() {
    const COOKIE: u16 = 16390;
    let mut net = west_and_east(5, Link { delay_us: 50_000..=50_000, ..Link::default() });
    net.tapped = Some(Vec::new());
    net.send(0, ip(EAST), "ping 1");
    let mut answered = BTreeSet::new();
    for step in 0..2000_u32 {
        net.run(Duration::from_millis(10));
        for request in ike_messages(&tapped(&net), IKE_SA_INIT, false) {
            if request.local.ip() == ip(WEST) && answered.insert(request.octets.clone()) {
                let spis = [&request.octets[..8], &[0; 8]].concat();
                let cookie =
                    forged_with(&spis, (IKE_SA_INIT, 0x20), 0, COOKIE, &step.to_be_bytes());
                net.inject(ike(request.remote, request.local, cookie));
            }
        }
    }
    assert!(answered.len() > 2, "a cookie was taken up, and there was a second go");
    assert!(heard(&net, 0, "pong 1"));
    assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0);
    assert_eq!(counters(&net, 0).downgrades, 0);
}

/// P12: an attacker on the way may spoil a call by answering it with keys of its own; that never
/// ends in a pair with it, and under private-or-clear it is no more than it could have had by
/// dropping packets, and counted.
#[test]
fn whoever_answers_in_anothers_place_gets_no_pair() {
    let mut net = west_and_east(6, Link::default());
    // Mallory has east's address on her side of the wire; the real east is not reached.
    net.hosts[1].node = None;
    let (seed, now) = (net.seed(), net.now);
    net.hosts[1].start(2, Groups::packetdefault(), seed, now, |_| {});
    net.drain(1);
    net.send(0, ip(EAST), "secret");
    net.run(seconds(5));
    assert!(!keyed(&net, 0, EAST));
    assert_eq!(counters(&net, 0).pairs, 0);
    net.run(seconds(60));
    assert_eq!(counters(&net, 0).downgrades, 1);
}

/// P9, P10: two negotiations of the same two hosts share no ephemeral key, no nonce, no SPI, and
/// no ESP packet ever repeats a sequence number under an SPI, a crash in between or not.
#[test]
fn nothing_ephemeral_is_used_twice() {
    let mut net = west_and_east(7, Link::default());
    net.tapped = Some(Vec::new());
    for round in 0..4 {
        for n in 0..5 {
            net.send(0, ip(EAST), &format!("ping {round} {n}"));
            net.send(1, ip(WEST), &format!("ping {round} {n}"));
            net.run(Duration::from_millis(300));
        }
        let (seed, now) = (net.seed(), net.now);
        net.hosts[round % 2].start(round % 2, Groups::packetdefault(), seed, now, |_| {});
        net.drain(round % 2);
        net.run(seconds(20));
    }
    let all = tapped(&net);
    let (mut fresh, mut inits) = (BTreeSet::new(), BTreeSet::new());
    for response in [false, true] {
        for message in ike_messages(&all, IKE_SA_INIT, response) {
            if !inits.insert(message.octets.clone()) {
                continue;
            }
            // KE without its group, and the nonce.
            for (kind, skip) in [(34, 4), (40, 0)] {
                if let Some(content) = payload(&message.octets, kind) {
                    assert!(fresh.insert(content[skip..].to_vec()), "used twice");
                }
            }
        }
    }
    assert!(fresh.len() >= 8, "{}", fresh.len());
    let mut esp = BTreeSet::new();
    for sent in &all {
        if let Sent::Esp(_, octets) = sent {
            assert!(esp.insert(octets[..8].to_vec()), "SPI and sequence number used twice");
        }
    }
    assert!(esp.len() > 20);
}

/// Attack A13.
/// P14, P13: one hostile zone names a victim as the gateway of ever more addresses, each with a key
/// of its own, and something on our host sends to all of them.
#[test]
fn a_victim_that_a_zone_names_is_called_a_few_times() {
    let mut net = Net::new(8, Link::default());
    let (seed, now) = (net.seed(), net.now);
    net.add(Host::node(WEST, 0, seed, now));
    net.add(Host::plain(MALLORY));
    net.tapped = Some(Vec::new());
    net.drain(0);
    let minute = 60;
    for n in 0..minute * 10 {
        let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n));
        let key = key(usize::try_from(n % 40).unwrap() + 1);
        net.dns.publish(address, ip(MALLORY), key, Security::Secure);
        net.send(0, address, "x");
        net.run(Duration::from_millis(100));
    }
    let starts: BTreeSet<Vec<u8>> = ike_messages(&tapped(&net), IKE_SA_INIT, false)
        .into_iter()
        .map(|message| message.octets[..8].to_vec())
        .collect();
    // Four at once, each given up after seven and a half seconds.
    assert!(starts.len() <= 4 * (60 / 7 + 1), "{} starts in a minute", starts.len());
    assert!(!starts.is_empty());
}

/// A header and what follows it, with the lengths that fit.
fn bare(spis: [u64; 2], next: u8, (exchange, flags): (u8, u8), rest: &[u8]) -> Vec<u8> {
    let mut message = spis.map(u64::to_be_bytes).concat();
    message.extend([next, 0x20, exchange, flags, 0, 0, 0, 0]);
    message.extend(u32::try_from(28 + rest.len()).unwrap().to_be_bytes());
    message.extend(rest);
    message
}

/// An encrypted payload of so many octets.
fn sealed(length: u8) -> Vec<u8> {
    let mut payload = vec![0; length.into()];
    payload[3] = length;
    payload
}

/// Whatever draws an answer, or could, in its smallest forms: the number says which.
fn smallest(kind: u32, n: u32, model: &[u8]) -> Vec<u8> {
    let spi = u64::from(n) + 1;
    match kind {
        // A first request under load; of a version that nobody speaks; cut; with a payload that nobody
        // knows; and an error.
        0 => [&spi.to_be_bytes()[..], &model[8..]].concat(),
        1 => {
            let mut message = bare([spi, 0], 0, (IKE_SA_INIT, 0x08), &[]);
            message[17] = 0x30;
            message
        }
        2 => model[..100].to_vec(),
        3 => bare([spi, 0], 200, (IKE_SA_INIT, 0x08), &[0, 0x80, 0, 4]),
        4 => forged(&[&spi.to_be_bytes()[..], &[0; 8]].concat(), INFORMATIONAL, 0x08, 0, 4),
        // Under an SA that is not here: the least that reads as a request, and the least that is one.
        5 => bare([spi, spi], 46, (IKE_AUTH, 0x08), &sealed(4)),
        6 => bare([spi, spi], 46, (INFORMATIONAL, 0x08), &sealed(29)),
        // Somebody comes back, without a nonce and with the shortest.
        7 => bare([spi, 0], NOTIFY, (IKE_SESSION_RESUME, 0x08), &[0, 0, 0, 8, 0, 0, 0x40, 0x1d]),
        8 => {
            let nonce = [&[NOTIFY, 0, 0, 20][..], &[7; 16]].concat();
            let ticket = [0, 0, 0, 8, 0, 0, 0x40, 0x1d];
            bare([spi, 0], 40, (IKE_SESSION_RESUME, 0x08), &[&nonce[..], &ticket].concat())
        }
        // ESP without a pair: an SPI and no more, and the least that anybody sends.
        9 => (0x0100_0000 + n).to_be_bytes().to_vec(),
        _ => [&(0x0100_0000 + n).to_be_bytes()[..], &[0; 32]].concat(),
    }
}

/// Attack A26.
/// P14: before somebody has shown that packets reach it, it gets less than one and a half times
/// what came in its name, whatever that was; and one answer for one request, ever (CVE-2016-5361).
#[test]
fn whoever_forges_a_source_gains_nothing() {
    const KINDS: u32 = 11;
    let mut net = west_and_east(9, Link::default());
    net.tapped = Some(Vec::new());
    net.send(1, ip(WEST), "x");
    net.run(seconds(2));
    let model = ike_messages(&tapped(&net), IKE_SA_INIT, false).remove(0);
    let (seed, now) = (net.seed(), net.now);
    net.hosts[0].start(0, Groups::packetdefault(), seed, now, |config| {
        config.ike.token_secret = Some([7; 32].into());
        config.ike.resumption = true;
        config.ike.ticket_keys = vec![[8; 32].into()];
    });
    net.drain(0);
    net.tapped = Some(Vec::new());
    let victim = |n: u32| SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + n * 256).into(), 500);
    let west = SocketAddr::new(ip(WEST), 500);
    let mut came = std::collections::BTreeMap::new();
    for n in 0..400 * KINDS {
        let octets = smallest(n % KINDS, n, &model.octets);
        came.insert(victim(n).ip(), (n % KINDS, octets.len()));
        net.inject(if n % KINDS < 9 {
            ike(victim(n), west, octets)
        } else {
            Sent::Esp(Envelope { local: victim(n), remote: west, udp: false }, octets)
        });
        if n % 50 == 0 {
            net.run(Duration::from_millis(20));
        }
    }
    net.run(seconds(120));
    let mut answers = std::collections::BTreeMap::<IpAddr, usize>::new();
    let mut answered = [0; KINDS as usize];
    for sent in tapped(&net) {
        if let Sent::Ike(t) = sent
            && t.remote.ip() != ip(EAST)
            && t.local.ip() == ip(WEST)
        {
            let (kind, came) = came[&t.remote.ip()];
            let out = t.octets.len();
            assert!(out * 2 <= came * 3, "{kind}: {out} octets out for {came} in");
            answered[kind as usize] += 1;
            *answers.entry(t.remote.ip()).or_default() += 1;
        }
    }
    assert_eq!(answers.values().max(), Some(&1));
    // Who means it is answered; what is cut, an error, too short, or has no nonce, is not.
    let silent = answered.map(|count| count == 0);
    let [f, t] = [false, true];
    assert_eq!(silent, [f, f, t, f, t, t, f, t, f, t, f], "{answered:?}");
    // Nothing is left of it, and an honest stranger is served.
    let ike = net.hosts[0].node.as_ref().unwrap().keying.ike_counters();
    assert!(ike.cookies_sent > 0, "{ike:?}");
    net.add(Host::plain(MALLORY));
    let (seed, now) = (net.seed(), net.now);
    net.hosts[2].start(2, Groups::packetdefault(), seed, now, |_| {});
    net.dns.publish(ip(MALLORY), ip(MALLORY), key(2), Security::Secure);
    net.drain(2);
    net.send(2, ip(WEST), "ping honest");
    net.run(seconds(5));
    assert!(heard(&net, 2, "pong honest"));
    assert_eq!(net.clear_between(ip(MALLORY), ip(WEST)), 0);
}

/// Attack A36.
/// P8: clear packets with a protected peer's address are not heard, whoever sends them.
#[test]
fn clear_packets_do_not_speak_for_a_protected_peer() {
    let mut net = west_and_east(10, Link::default());
    net.send(0, ip(EAST), "ping 0");
    net.run(seconds(2));
    for n in 0..20 {
        let octets = crate::packet::build(ip(EAST), ip(WEST), &format!("forged {n}"));
        net.inject(Sent::Clear(octets));
    }
    net.run(seconds(2));
    assert_eq!(net.hosts[0].refused, 20);
    assert!(net.hosts[0].inbox.iter().all(|(_, text)| !text.starts_with("forged")));
    assert!(keyed(&net, 0, EAST));
}

/// Attacks A15, A19.
/// P2: whatever is dropped and however late the rest comes, nothing goes in the clear while there
/// is a negotiation; after it, that it does is counted.
#[test]
fn nothing_is_clear_before_the_decision() {
    for lost in 0..12_usize {
        let mut net = west_and_east(11, Link { delay_us: 80_000..=80_000, ..Link::default() });
        let mut number = 0;
        net.filter(move |_, seen| match seen.kind {
            Kind::Ike { .. } => {
                number += 1;
                if number > lost { Fate::Lost } else { Fate::Link }
            }
            Kind::Esp | Kind::Clear => Fate::Link,
        });
        let mut n = 0;
        while state(&net, 0, EAST)
            .is_none_or(|d| matches!(d.state, StateName::PotentialOe | StateName::PendingOe))
        {
            assert_eq!(net.clear_between(ip(WEST), ip(EAST)), 0, "{lost} messages");
            net.send(0, ip(EAST), &format!("word {n}"));
            net.run(Duration::from_millis(100));
            n += 1;
            assert!(n < 600, "{lost} messages: never decided");
        }
        let clear = state(&net, 0, EAST).unwrap().state == StateName::ClearText;
        assert_eq!(counters(&net, 0).downgrades, u64::from(clear), "{lost} messages");
    }
}

/// Attack A21.
/// Whoever is on the way strikes out of the offer what it cannot break. The called end takes what is
/// left; but what was sent is signed, so they do not come to an agreement, and the call fails and is
/// counted like any other that somebody prevents.
#[test]
fn an_offer_that_was_altered_on_the_way_makes_no_pair() {
    let mut net = west_and_east(12, Link::default());
    net.tapped = Some(Vec::new());
    net.filter(|_, seen| match seen.kind {
        Kind::Ike { exchange: IKE_SA_INIT, response: false, .. } => Fate::Lost,
        _ => Fate::Link,
    });
    net.send(0, ip(EAST), "word");
    net.run(Duration::from_millis(50));
    let mut request = ike_messages(&tapped(&net), IKE_SA_INIT, false).remove(0);
    // The first transform of all is the cipher that both like best (RFC 7296 §3.3.2).
    let (offer, mut cipher) = (payload(&request.octets, 33).unwrap(), None);
    for at in 0..offer.len() - 8 {
        if cipher.is_none() && offer[at] == 3 && offer[at + 4..at + 6] == [1, 0] {
            cipher = Some(offer.as_ptr() as usize - request.octets.as_ptr() as usize + at + 6);
        }
    }
    let cipher = cipher.expect("a cipher");
    request.octets[cipher..cipher + 2].copy_from_slice(&60_000_u16.to_be_bytes());
    net.inject(Sent::Ike(request));
    net.run(seconds(60));
    assert!(!ike_messages(&tapped(&net), IKE_SA_INIT, true).is_empty(), "east took what was left");
    assert!(!keyed(&net, 0, EAST) && !keyed(&net, 1, WEST));
    assert_eq!([0, 1].map(|host| counters(&net, host).pairs), [0, 0]);
    assert_eq!(counters(&net, 0).downgrades, 1);
}
