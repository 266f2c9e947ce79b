//! The forwarding plane: what comes from the wire, and what comes from the device.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use forwarding::{
    Batch, Config, Delivery, Forwarding, Offload, Onward, Outer, Output, Provider, To,
};
use sa::{
    About, Class, Command, Envelope, EspCipher, EspKey, Flow, Limits, Mode, Policy, SaId, SaPair,
    Spi, TrafficSelector, Trust,
};

const KEY: [u8; 20] = [7; 20];
const SPI_IN: u32 = 0x0102_0304;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A plane with one pair, for single addresses of both families.
fn plane(now: Instant) -> Forwarding {
    let mut plane = Forwarding::new(Config::default(), [1; 32], now);
    let class = Class::Trap { fail_closed: false };
    for prefix in ["0.0.0.0/0", "::/0"] {
        plane.handle_command(now, Command::SetClass { prefix: prefix.parse().unwrap(), class });
    }
    let key = EspKey::new(EspCipher::Aes128Gcm16, &KEY).unwrap();
    let outer = |host| SocketAddr::new(ip(host), 4500);
    let hosts = |hosts: [&str; 2]| hosts.iter().map(|h| TrafficSelector::host(ip(h))).collect();
    let (local, remote) = (["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"]);
    plane.handle_command(
        now,
        Command::AddSa(Box::new(SaPair {
            id: SaId(1),
            cipher: EspCipher::Aes128Gcm16,
            spi_in: Spi::new(SPI_IN).unwrap(),
            spi_out: Spi::new(0x0506_0708).unwrap(),
            key_in: key.clone(),
            key_out: key,
            esn: false,
            mode: Mode::Tunnel,
            local: hosts(local),
            remote: hosts(remote),
            envelope: Envelope { local: outer("192.0.2.1"), remote: outer("192.0.2.2"), udp: true },
            limits: Limits::of_esp(false),
            trust: Trust::Dnssec,
            translation: None,
        })),
    );
    for (from, to) in local.into_iter().zip(remote) {
        let flow = Flow::new(ip(from), ip(to)).unwrap();
        let policy = Policy::Encrypt(SaId(1));
        plane.handle_command(now, Command::SetPolicy { flow, policy, about: About::Destination });
    }
    plane
}

/// The octets as an ESP packet from the wire; and, split at each 0xff 0xfe, as what honest keys
/// sealed: inner packets one after the other, joined where their headers allow. Whatever comes out
/// was put in; gives the octets of it.
pub(crate) fn esp_packets(input: &[u8]) -> usize {
    let now = Instant::now();
    let mut plane = plane(now);
    let outer = Outer { remote: "192.0.2.2:4500".parse().unwrap(), tos: 0, udp: true };
    let mut delivery = Delivery::new(true);
    let mut arena = [&SPI_IN.to_be_bytes()[..], input].concat();
    for at in [0, 4] {
        let whole = at..arena.len();
        plane.incoming(now, &outer, &mut arena, whole, &mut delivery);
        delivery.finish(&mut arena);
        assert_eq!(delivery.writes().count(), 0, "it was not authentic");
        delivery.clear();
    }
    let mut arena = Vec::new();
    let mut at = Vec::new();
    for (number, inner) in (1_u32..).zip(split(input)) {
        let start = arena.len();
        arena.extend(seal(number, inner));
        at.push(start..arena.len());
    }
    for range in at {
        plane.incoming(now, &outer, &mut arena, range, &mut delivery);
    }
    delivery.finish(&mut arena);
    let mut octets = 0;
    for write in delivery.writes() {
        assert!(Offload::parse(write.offload.to_octets()).is_some());
        octets += write.head.len() + write.map(|range| arena[range].len()).sum::<usize>();
    }
    assert!(octets <= input.len(), "more came out than went in");
    drain(&mut plane, input.len());
    octets
}

/// Parts between 0xff 0xfe, at most forty of them.
fn split(mut input: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while parts.len() < 39
        && let Some(at) = input.windows(2).position(|pair| pair == [0xff, 0xfe])
    {
        parts.push(&input[..at]);
        input = &input[at + 2..];
    }
    parts.push(input);
    parts
}

/// An ESP packet of the pair's (RFC 4303 §2, RFC 4106); the first octet says which next header.
fn seal(number: u32, inner: &[u8]) -> Vec<u8> {
    let (next, inner) = match inner {
        [next @ (4 | 41 | 59), inner @ ..] => (*next, inner),
        inner => (if inner.first().is_some_and(|o| o >> 4 == 6) { 41 } else { 4 }, inner),
    };
    let mut text = inner.to_vec();
    let padding = (4 - (text.len() + 2) % 4) % 4;
    text.extend((1..).take(padding));
    text.extend([u8::try_from(padding).unwrap(), next]);
    let mut nonce = [7; 12];
    nonce[4..].copy_from_slice(&u64::from(number).to_be_bytes());
    let head = [SPI_IN.to_be_bytes(), number.to_be_bytes()].concat();
    let which = (Provider::AwsLc, EspCipher::Aes128Gcm16);
    let icv = forwarding::internal::seal(which, &KEY[..16], nonce, &head, &mut text).unwrap();
    [&head[..], &nonce[4..], &text, &icv].concat()
}

/// A header of the device's and a packet behind it, towards a peer, towards nobody, in the clear:
/// nothing that leaves is larger than the link takes. Gives how many left at once.
pub(crate) fn device_packets(input: &[u8]) -> usize {
    let Some((header, packet)) = input.split_first_chunk::<{ Offload::LEN }>() else { return 0 };
    let Some(offload) = Offload::parse(*header) else { return 0 };
    assert!(!format!("{offload:?}").is_empty());
    let now = Instant::now();
    let mut plane = plane(now);
    let mut batch = Batch::new();
    plane.outgoing(now, &offload, &mut packet.to_vec(), &mut batch);
    // As many parts as a size of one octet could make of it, and no more.
    let sent: usize = batch.sends().iter().map(|send| batch.packets(send).count()).sum();
    assert!(sent <= packet.len() + 1, "{sent} packets of {} octets", packet.len());
    go_on(&batch);
    for send in batch.sends().iter().filter(|send| !matches!(send.to, To::Whole(_))) {
        for octets in batch.packets(send) {
            assert!(octets.len() <= 1500, "{} octets", octets.len());
        }
    }
    // What is held leaves in the clear, or not at all.
    for policy in [Policy::Pass, Policy::Deny] {
        for output in std::iter::from_fn(|| plane.poll_output()).collect::<Vec<_>>() {
            if let Output::Notice(sa::Notice::Acquire { flow, .. }) = output {
                plane.handle_command(
                    now,
                    Command::SetPolicy { flow, policy, about: About::Destination },
                );
            }
        }
        drain(&mut plane, packet.len());
        batch.clear();
        plane.outgoing(now, &offload, &mut packet.to_vec(), &mut batch);
        go_on(&batch);
    }
    drain(&mut plane, packet.len());
    sent
}

/// What goes on whole has all its headers and something behind them, and is cut into no more packets
/// than it has octets.
fn go_on(batch: &Batch) {
    for send in batch.sends() {
        let To::Whole(offload) = send.to else { continue };
        let octets = batch.octets(send);
        let onward = Onward::of(&offload, octets).unwrap();
        assert_eq!(onward.head().len(), Offload::LEN + 14);
        // The kernel counts one of them.
        let hops = octets[if octets[0] >> 4 == 4 { 8 } else { 7 }];
        assert!(hops > 1, "{hops} hops");
        let header: &[u8; Offload::LEN] = onward.head().first_chunk().unwrap();
        let headers = usize::from(u16::from_ne_bytes([header[2], header[3]]));
        assert!(headers < 14 + octets.len(), "{headers} of {}", octets.len());
        let mut parts = 0;
        forwarding::cut(&offload, octets, |part| {
            parts += 1;
            assert_eq!(forwarding::ends(part), forwarding::ends(octets));
        });
        assert!((1..=octets.len()).contains(&parts), "{parts} packets of {}", octets.len());
    }
}

/// Takes what is put out of that many octets: no more than a size of one octet makes of them, and
/// a word about each of a few.
fn drain(plane: &mut Forwarding, octets: usize) {
    let mut outputs = 0;
    while let Some(output) = plane.poll_output() {
        outputs += 1;
        assert!(outputs < octets + 100 && !format!("{output:?}").is_empty());
    }
}
