//! The outer way to a peer, and what NATs do to it (RFC 7296 §2.23).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::digest;
use sa::{Envelope, Mode, TrafficSelector};

use crate::api::ChildRequest;
use crate::message::{NotifyType, Payloads};

/// UDP port of IKE_SA_INIT.
pub(crate) const IKE_PORT: u16 = 500;
/// UDP port where IKE carries the non-ESP marker (RFC 3948).
pub(crate) const NAT_PORT: u16 = 4500;

/// Addresses of both ends, and what stands between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) nat: Nat,
    /// Whether ESP goes in UDP: a NAT, or one side pretends that there is one.
    pub(crate) encapsulate: bool,
}

/// On which side a NAT was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Nat {
    /// The peer sees us at another address than we do.
    pub(crate) ours: bool,
    /// We see the peer at another address than it does, or it says so to get UDP encapsulation.
    pub(crate) theirs: bool,
}

/// What NAT detection found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Detected {
    pub(crate) nat: Nat,
    /// The peer pretends to be behind a NAT, to get UDP encapsulation, and we know that it is not.
    pub(crate) pretends: bool,
}

impl Path {
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote, nat: Nat::default(), encapsulate: false }
    }

    /// Takes note of what NAT detection found; `force` if we pretend ourselves.
    pub(crate) fn note(&mut self, detected: Detected, force: bool) {
        let Detected { nat, pretends } = detected;
        self.nat = nat;
        self.encapsulate = nat.ours || nat.theirs || pretends || force;
    }

    /// To port 4500 on both sides.
    pub(crate) fn float(&mut self) {
        self.local.set_port(NAT_PORT);
        self.remote.set_port(NAT_PORT);
    }

    /// Whether transport mode can be had for these: what is protected goes between the outer
    /// addresses themselves, and no NAT changes them. RFC 7296 §2.23.1 has a way through NATs; its
    /// selectors are then whatever the NAT made of them, so we stay out of it.
    pub(crate) fn carries_transport(
        &self,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
    ) -> bool {
        let only = |selectors: &[TrafficSelector], addr: IpAddr| {
            selectors.iter().all(|selector| selector.addresses() == (addr, addr))
        };
        !self.nat.ours
            && !self.nat.theirs
            && only(local, self.local.ip())
            && only(remote, self.remote.ip())
    }

    /// The mode to ask for: transport if it is wanted and can be had.
    pub(crate) fn mode_for(&self, request: &ChildRequest) -> Mode {
        if self.carries_transport(&request.local, &request.remote) {
            request.mode
        } else {
            Mode::Tunnel
        }
    }

    /// The same addresses, as before anything is known of NATs.
    pub(crate) fn at_first(&self) -> Self {
        let at = |addr: SocketAddr| SocketAddr::new(addr.ip(), IKE_PORT);
        Self::new(at(self.local), at(self.remote))
    }

    /// The outer way of children.
    pub(crate) fn envelope(&self) -> Envelope {
        let (mut local, mut remote) = (self.local, self.remote);
        if self.encapsulate && local.port() != NAT_PORT {
            local.set_port(NAT_PORT);
            remote.set_port(NAT_PORT);
        }
        Envelope { local, remote, udp: self.encapsulate }
    }
}

/// The content of a NAT_DETECTION notify: SHA-1 over SPIs, address and port. SHA-1 protects
/// nothing here; the RFC has no other.
pub(crate) fn detection_hash(spi_i: u64, spi_r: u64, addr: SocketAddr) -> Vec<u8> {
    let mut octets = Vec::with_capacity(16 + 16 + 2);
    octets.extend_from_slice(&spi_i.to_be_bytes());
    octets.extend_from_slice(&spi_r.to_be_bytes());
    match addr.ip() {
        IpAddr::V4(a) => octets.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => octets.extend_from_slice(&a.octets()),
    }
    octets.extend_from_slice(&addr.port().to_be_bytes());
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &octets).as_ref().to_vec()
}

/// The content of a NAT_DETECTION_SOURCE_IP that can match no packet, for who wants UDP
/// encapsulation without NAT. It is our address with port 0, so that a node of our own kind can
/// tell it from a NAT; to others it is one.
pub(crate) fn pretended_hash(spi_i: u64, spi_r: u64, addr: SocketAddr) -> Vec<u8> {
    detection_hash(spi_i, spi_r, SocketAddr::new(addr.ip(), 0))
}

/// What the NAT_DETECTION notifies of a message say; `None` if it has none, and its sender
/// knows no NAT traversal.
pub(crate) fn detect(
    payloads: &Payloads,
    (spi_i, spi_r): (u64, u64),
    local: SocketAddr,
    remote: SocketAddr,
) -> Option<Detected> {
    let of = |kind: NotifyType| payloads.notifies.iter().filter(move |n| n.kind == kind);
    let source = detection_hash(spi_i, spi_r, remote);
    let destination = detection_hash(spi_i, spi_r, local);
    of(NotifyType::NAT_DETECTION_SOURCE_IP).next()?;
    of(NotifyType::NAT_DETECTION_DESTINATION_IP).next()?;
    let source_is = |hash: &[u8]| of(NotifyType::NAT_DETECTION_SOURCE_IP).any(|n| n.data == hash);
    let pretends = !source_is(&source) && source_is(&pretended_hash(spi_i, spi_r, remote));
    let nat = Nat {
        ours: !of(NotifyType::NAT_DETECTION_DESTINATION_IP).any(|n| n.data == destination),
        theirs: !source_is(&source) && !pretends,
    };
    Some(Detected { nat, pretends })
}
