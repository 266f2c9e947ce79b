//! In the steady state the packet path allocates nothing.
#![allow(unsafe_code, reason = "a global allocator that counts")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test, all of it")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use forwarding::{Batch, Config, Delivery, Forwarding, Offload, Outer};
use sa::{
    About, Command, Envelope, EspCipher, EspKey, Flow, Limits, Mode, Policy, SaId, SaPair, Spi,
    TrafficSelector, Trust,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, octets: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(octets, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const A: [u8; 4] = [192, 0, 2, 1];
const B: [u8; 4] = [198, 51, 100, 7];

fn pair(cipher: EspCipher) -> SaPair {
    let key = EspKey::new(cipher, &vec![7; cipher.keymat_len()]).unwrap();
    let host = |addr: [u8; 4]| vec![TrafficSelector::host(IpAddr::from(addr))];
    let at = |addr: [u8; 4]| SocketAddr::from((addr, 4500));
    SaPair {
        id: SaId(1),
        cipher,
        spi_in: Spi::new(0x1000).unwrap(),
        spi_out: Spi::new(0x2000).unwrap(),
        key_in: key.clone(),
        key_out: key,
        esn: true,
        mode: Mode::Tunnel,
        local: host(A),
        remote: host(B),
        envelope: Envelope { local: at(A), remote: at(B), udp: true },
        limits: Limits::of_esp(true),
        trust: Trust::Dnssec,
        translation: None,
    }
}

fn mirrored(pair: &SaPair) -> SaPair {
    SaPair {
        spi_in: pair.spi_out,
        spi_out: pair.spi_in,
        local: pair.remote.clone(),
        remote: pair.local.clone(),
        envelope: Envelope { local: pair.envelope.remote, remote: pair.envelope.local, udp: true },
        ..pair.clone()
    }
}

/// A TCP super-packet of 40 parts, as the device hands it over.
fn super_packet() -> (Offload, Vec<u8>) {
    let len = 20 + 20 + 40 * 1360;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet.extend(A);
    packet.extend(B);
    packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 1, 0, 0, 0, 0]);
    packet.resize(len, 0x5a);
    // NEEDS_CSUM, TCPv4, headers of 40 octets, parts of 1360, checksum at 20 + 16.
    let [h0, h1] = 40u16.to_ne_bytes();
    let [s0, s1] = 1360u16.to_ne_bytes();
    let [c0, c1] = 20u16.to_ne_bytes();
    let [o0, o1] = 16u16.to_ne_bytes();
    (Offload::parse([1, 1, h0, h1, s0, s1, c0, c1, o0, o1]).unwrap(), packet)
}

#[test]
fn nothing_is_allocated_per_packet() {
    let now = Instant::now();
    let mut near = Forwarding::new(Config::default(), [1; 32], now);
    let mut far = Forwarding::new(Config::default(), [2; 32], now);
    let sa = pair(EspCipher::Aes128Gcm16);
    far.handle_command(now, Command::AddSa(Box::new(mirrored(&sa))));
    near.handle_command(now, Command::AddSa(Box::new(sa)));
    let flow = Flow::new(A.into(), B.into()).unwrap();
    near.handle_command(
        now,
        Command::SetPolicy { flow, policy: Policy::Encrypt(SaId(1)), about: About::Destination },
    );

    let (offload, packet) = super_packet();
    let mut buffer = packet.clone();
    let mut arena = vec![0; 128 * 1024];
    let (mut batch, mut delivery) = (Batch::new(), Delivery::new(true));
    let outer = Outer { remote: (A, 4500).into(), tos: 0, udp: true };
    let mut octets = 0;
    let mut before = 0;
    for round in 0..20 {
        if round == 4 {
            // The first rounds may size things, and send the first notices.
            before = ALLOCATIONS.get();
        }
        buffer.copy_from_slice(&packet);
        near.outgoing(now, &offload, &mut buffer, &mut batch);
        let mut end = 0;
        for send in batch.sends() {
            for datagram in batch.packets(send) {
                let range = end..end + datagram.len();
                end = range.end;
                arena[range].copy_from_slice(datagram);
            }
            let mut at = end - batch.octets(send).len();
            while at < end {
                let range = at..end.min(at + send.segment);
                at = range.end;
                far.incoming(now, &outer, &mut arena, range, &mut delivery);
            }
        }
        delivery.finish(&mut arena);
        octets += delivery.writes().flatten().map(|range| range.len()).sum::<usize>();
        batch.clear();
        delivery.clear();
        while near.poll_output().is_some() {}
        while far.poll_output().is_some() {}
        assert!(near.poll_timeout().is_none());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(octets, 20 * packet.len(), "one super-packet in, one out");
    assert_eq!(far.counters().opened, 20 * 40);
}
