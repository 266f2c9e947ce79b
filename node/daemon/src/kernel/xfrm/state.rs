//! Security associations in the kernel's structures (`struct xfrm_usersa_info`).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use netlink_packet_xfrm::state::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    AF_INET, AF_INET6, Address, Alg, AlgAead, AlgAuth, EncapTmpl, LifetimeConfig, ReplayEsn,
    UDP_ENCAP_ESPINUDP, UserSaId, UserSaInfo, XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL,
    XFRM_STATE_AF_UNSPEC, XFRM_STATE_ESN, XfrmAttrs,
};
use sa::{
    Direction, Envelope, EspCipher, EspKey, Integrity, Limits, Mode, SaId, SaPair, Spi, Trust,
};

use super::super::policies::ESP;
use super::policy::between;

/// Packets that may come out of order and are still told from replays (RFC 4303 §3.4.3): several
/// queues and a fast link put hundreds of packets out of order.
const REPLAY_WINDOW: u32 = 1024;

/// Bits of ICV of every AEAD of ours.
const ICV_BITS: u32 = 128;

/// Sequence numbers and window of one SA, as they stand.
pub(super) type Replay = ReplayEsn;

/// The state at one end of the numbers.
pub(super) fn fresh() -> Replay {
    let words = REPLAY_WINDOW / 32;
    Replay {
        bmp_len: words,
        replay_window: REPLAY_WINDOW,
        bmp: vec![0; usize::try_from(words).unwrap_or(0)],
        ..Replay::default()
    }
}

/// Where the packets of one direction come from and go to.
pub(super) fn ends(pair: &SaPair, direction: Direction) -> (IpAddr, IpAddr) {
    let (local, remote) = (pair.envelope.local.ip(), pair.envelope.remote.ip());
    match direction {
        Direction::Inbound => (remote, local),
        Direction::Outbound => (local, remote),
    }
}

/// The SPI of one direction.
pub(super) fn spi(pair: &SaPair, direction: Direction) -> Spi {
    match direction {
        Direction::Inbound => pair.spi_in,
        Direction::Outbound => pair.spi_out,
    }
}

/// One half of a pair, to be added.
pub(super) fn half(
    pair: &SaPair,
    direction: Direction,
    reqid: u32,
    replay: Replay,
) -> ModifyMessage {
    let (src, dst) = ends(pair, direction);
    let mut info = UserSaInfo::default();
    info.source(&src);
    info.destination(&dst);
    info.family = if dst.is_ipv4() { AF_INET } else { AF_INET6 };
    info.id.proto = ESP;
    info.id.spi = spi(pair, direction).get();
    info.reqid = reqid;
    info.mode = match pair.mode {
        Mode::Tunnel => XFRM_MODE_TUNNEL,
        Mode::Transport => XFRM_MODE_TRANSPORT,
    };
    info.lifetime_cfg = lifetime(&pair.limits);
    if pair.esn {
        info.flags |= XFRM_STATE_ESN;
    }
    match inner(pair, direction) {
        // The kernel then refuses what this peer has no right to send through this very SA.
        Some(selector) => info.selector = selector,
        None if pair.mode == Mode::Tunnel => info.flags |= XFRM_STATE_AF_UNSPEC,
        None => {}
    }
    let key = match direction {
        Direction::Inbound => &pair.key_in,
        Direction::Outbound => &pair.key_out,
    };
    let mut nlas = algorithms(pair.cipher, key);
    nlas.push(XfrmAttrs::ReplayStateEsn(replay));
    if pair.envelope.udp {
        nlas.push(XfrmAttrs::EncapsulationTemplate(encapsulation(&pair.envelope, direction)));
    }
    ModifyMessage { user_sa_info: info, nlas }
}

/// What an inbound SA may carry, if one selector says it all.
fn inner(pair: &SaPair, direction: Direction) -> Option<netlink_packet_xfrm::Selector> {
    match (direction, pair.local.as_slice(), pair.remote.as_slice()) {
        (Direction::Inbound, [local], [remote]) => between(remote, local),
        _ => None,
    }
}

fn lifetime(limits: &Limits) -> LifetimeConfig {
    LifetimeConfig {
        soft_byte_limit: limits.soft_bytes,
        hard_byte_limit: limits.hard_bytes,
        soft_packet_limit: limits.soft_packets,
        hard_packet_limit: limits.hard_packets,
        ..LifetimeConfig::default()
    }
}

/// The keys under the kernel's names of the ciphers (RFC 4106, RFC 7634; RFC 3602, RFC 4868).
fn algorithms(cipher: EspCipher, key: &EspKey) -> Vec<XfrmAttrs> {
    let bits = |octets: &[u8]| u32::try_from(octets.len() * 8).unwrap_or(0);
    let aead = |name| {
        let alg_key = [key.key(), key.rest()].concat();
        vec![XfrmAttrs::EncryptionAlgAead(AlgAead {
            alg_name: alg_name(name),
            alg_key_len: bits(&alg_key),
            alg_icv_len: ICV_BITS,
            alg_key,
        })]
    };
    let integrity = match cipher {
        EspCipher::Aes128Gcm16 | EspCipher::Aes256Gcm16 => return aead("rfc4106(gcm(aes))"),
        EspCipher::ChaCha20Poly1305 => return aead("rfc7539esp(chacha20,poly1305)"),
        EspCipher::Aes128Cbc(integrity) | EspCipher::Aes256Cbc(integrity) => integrity,
    };
    let hmac = match integrity {
        Integrity::HmacSha2_256_128 => "hmac(sha256)",
        Integrity::HmacSha2_384_192 => "hmac(sha384)",
        Integrity::HmacSha2_512_256 => "hmac(sha512)",
    };
    vec![
        XfrmAttrs::EncryptionAlg(Alg {
            alg_name: alg_name("cbc(aes)"),
            alg_key_len: bits(key.key()),
            alg_key: key.key().to_vec(),
        }),
        XfrmAttrs::AuthenticationAlgTrunc(AlgAuth {
            alg_name: alg_name(hmac),
            alg_key_len: bits(key.rest()),
            alg_trunc_len: u32::try_from(integrity.icv_len() * 8).unwrap_or(0),
            alg_key: key.rest().to_vec(),
        }),
    ]
}

fn alg_name(name: &str) -> [u8; 64] {
    let mut octets = [0; 64];
    for (to, from) in octets.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    octets
}

/// RFC 3948: the ports as the packets of this direction carry them.
fn encapsulation(envelope: &Envelope, direction: Direction) -> EncapTmpl {
    let (local, remote) = (envelope.local.port(), envelope.remote.port());
    let (sport, dport) = match direction {
        Direction::Inbound => (remote, local),
        Direction::Outbound => (local, remote),
    };
    EncapTmpl {
        encap_type: UDP_ENCAP_ESPINUDP,
        encap_sport: sport,
        encap_dport: dport,
        encap_oa: Address::from_ip(&IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    }
}

/// The kernel's name of one half.
pub(super) fn name(dst: IpAddr, spi: Spi) -> DelGetMessage {
    let mut id = UserSaId { spi: spi.get(), proto: ESP, ..UserSaId::default() };
    id.destination(&dst);
    DelGetMessage { user_sa_id: id, nlas: Vec::new() }
}

/// What one half has carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carried {
    /// Packets.
    pub(super) packets: u64,
    /// Octets.
    pub(super) bytes: u64,
    /// Since the last one; whole seconds.
    pub(super) idle: Option<Duration>,
}

/// Reads the counters out of a GETSA answer.
pub(super) fn carried(message: &ModifyMessage) -> Carried {
    let current = &message.user_sa_info.lifetime_cur;
    let last_used = message.nlas.iter().find_map(|nla| match nla {
        XfrmAttrs::LastUsed(seconds) => Some(*seconds),
        _ => None,
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let idle = last_used
        .filter(|_| current.packets > 0)
        .map(|then| now.saturating_sub(Duration::from_secs(then)));
    Carried { packets: current.packets, bytes: current.bytes, idle }
}

/// Reads sequence numbers and window out of a GETSA answer.
pub(super) fn replay(message: ModifyMessage) -> Option<Replay> {
    message.nlas.into_iter().find_map(|nla| match nla {
        XfrmAttrs::ReplayStateEsn(replay) => Some(replay),
        _ => None,
    })
}

/// A pair on loopback that nobody uses: to see whether the kernel has ESP.
pub(super) fn probe() -> Option<SaPair> {
    let cipher = EspCipher::Aes128Gcm16;
    let key = EspKey::new(cipher, &[0; 20])?;
    let here = (Ipv4Addr::LOCALHOST, 0).into();
    Some(SaPair {
        id: SaId(0),
        cipher,
        spi_in: Spi::new(0x4322_4322)?,
        spi_out: Spi::new(0x4322_4323)?,
        key_in: key.clone(),
        key_out: key,
        esn: true,
        mode: Mode::Tunnel,
        local: Vec::new(),
        remote: Vec::new(),
        envelope: Envelope { local: here, remote: here, udp: false },
        limits: Limits::of_esp(true),
        trust: Trust::Anonymous,
        translation: None,
    })
}
