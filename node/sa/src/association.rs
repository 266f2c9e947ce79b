//! What an ESP security association is made of (RFC 4301 §4.4.2, RFC 4303 §2).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::selector::TrafficSelector;

/// An ESP SPI as it stands in the packet. 0 to 255 are reserved (RFC 4303 §2.1) and cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(u32);

impl Spi {
    /// `None` for the reserved values 0..=255.
    #[must_use]
    pub fn new(value: u32) -> Option<Self> {
        (value > 255).then_some(Self(value))
    }

    /// The number, host order.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// As it stands on the wire.
    #[must_use]
    pub fn to_be_bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// The local name of a pair of security associations. Never on the wire, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SaId(pub u64);

/// How much is known of who is at the other end. Ordered: a weaker one never replaces a stronger.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Trust {
    /// Nothing is known (NULL authentication, RFC 7619).
    Anonymous,
    /// The key came from DNS that nobody signed: protects against passive eavesdroppers only.
    Unauthenticated,
    /// The key came from DNS with a valid DNSSEC chain.
    Dnssec,
    /// The key came from this machine's own configuration.
    Configured,
}

/// Which way packets go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the wire to us.
    Inbound,
    /// From us to the wire.
    Outbound,
}

/// What protects the integrity of packets whose cipher does not: an HMAC, truncated (RFC 4868 §2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Integrity {
    /// `HMAC_SHA2_256_128`.
    HmacSha2_256_128,
    /// `HMAC_SHA2_384_192`.
    HmacSha2_384_192,
    /// `HMAC_SHA2_512_256`.
    HmacSha2_512_256,
}

impl Integrity {
    /// All, best first.
    pub const ALL: [Self; 3] =
        [Self::HmacSha2_512_256, Self::HmacSha2_384_192, Self::HmacSha2_256_128];

    /// Octets of the key.
    #[must_use]
    pub fn key_len(self) -> usize {
        2 * self.icv_len()
    }

    /// Octets of the ICV: half of what the hash yields.
    #[must_use]
    pub fn icv_len(self) -> usize {
        match self {
            Self::HmacSha2_256_128 => 16,
            Self::HmacSha2_384_192 => 24,
            Self::HmacSha2_512_256 => 32,
        }
    }
}

/// ESP's cipher. The AEADs have a 16-octet ICV and a salt of four octets; AES-CBC is for peers that
/// can do nothing better, and comes with an HMAC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EspCipher {
    /// AES-GCM with a 16-octet ICV and a 128-bit key (RFC 4106).
    Aes128Gcm16,
    /// AES-GCM with a 16-octet ICV and a 256-bit key (RFC 4106).
    Aes256Gcm16,
    /// ChaCha20-Poly1305 (RFC 7634).
    ChaCha20Poly1305,
    /// AES-CBC with a 128-bit key (RFC 3602), and an HMAC.
    Aes128Cbc(Integrity),
    /// AES-CBC with a 256-bit key (RFC 3602), and an HMAC.
    Aes256Cbc(Integrity),
}

impl EspCipher {
    /// Octets of KEYMAT that one direction takes: key, then salt (RFC 4106 §8.1, RFC 7634 §2) or
    /// the HMAC's key (RFC 7296 §2.17).
    #[must_use]
    pub fn keymat_len(self) -> usize {
        self.key_len()
            + match self.integrity() {
                None => SALT_LEN,
                Some(integrity) => integrity.key_len(),
            }
    }

    /// Octets of the cipher's own key.
    #[must_use]
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm16 | Self::Aes128Cbc(_) => 16,
            Self::Aes256Gcm16 | Self::ChaCha20Poly1305 | Self::Aes256Cbc(_) => 32,
        }
    }

    /// The HMAC beside the cipher; `None` for AEADs.
    #[must_use]
    pub fn integrity(self) -> Option<Integrity> {
        match self {
            Self::Aes128Gcm16 | Self::Aes256Gcm16 | Self::ChaCha20Poly1305 => None,
            Self::Aes128Cbc(integrity) | Self::Aes256Cbc(integrity) => Some(integrity),
        }
    }

    /// The name the classic tools print.
    #[must_use]
    pub fn name(self) -> &'static str {
        use Integrity::{HmacSha2_256_128, HmacSha2_384_192, HmacSha2_512_256};
        match self {
            Self::Aes128Gcm16 => "AES_GCM_16_128",
            Self::Aes256Gcm16 => "AES_GCM_16_256",
            Self::ChaCha20Poly1305 => "CHACHA20_POLY1305",
            Self::Aes128Cbc(HmacSha2_256_128) => "AES_CBC_128-HMAC_SHA2_256_128",
            Self::Aes128Cbc(HmacSha2_384_192) => "AES_CBC_128-HMAC_SHA2_384_192",
            Self::Aes128Cbc(HmacSha2_512_256) => "AES_CBC_128-HMAC_SHA2_512_256",
            Self::Aes256Cbc(HmacSha2_256_128) => "AES_CBC_256-HMAC_SHA2_256_128",
            Self::Aes256Cbc(HmacSha2_384_192) => "AES_CBC_256-HMAC_SHA2_384_192",
            Self::Aes256Cbc(HmacSha2_512_256) => "AES_CBC_256-HMAC_SHA2_512_256",
        }
    }
}

/// The key material of one direction: key, then salt or the HMAC's key. Wiped when dropped, never
/// printed.
///
/// The wipe is a plain overwrite behind an optimisation barrier: this crate knows only `std`. In a box,
/// because whatever is moved leaves its octets where it was.
#[derive(Clone, PartialEq, Eq)]
pub struct EspKey {
    octets: Box<[u8]>,
    /// Octets of the cipher's own key.
    split: usize,
}

impl EspKey {
    /// Takes `octets` for `cipher`; `None` unless their number is [`EspCipher::keymat_len`].
    #[must_use]
    pub fn new(cipher: EspCipher, octets: &[u8]) -> Option<Self> {
        if octets.len() != cipher.keymat_len() {
            return None;
        }
        Some(Self { octets: octets.into(), split: cipher.key_len() })
    }

    /// The cipher's key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.octets.get(..self.split).unwrap_or(&[])
    }

    /// What comes after it: an AEAD's salt, or the HMAC's key.
    #[must_use]
    pub fn rest(&self) -> &[u8] {
        self.octets.get(self.split..).unwrap_or(&[])
    }

    /// The four octets of salt that start an AEAD's nonce.
    #[must_use]
    pub fn salt(&self) -> [u8; 4] {
        let mut salt = [0; 4];
        if let Some(octets) = self.rest().get(..SALT_LEN) {
            salt.copy_from_slice(octets);
        }
        salt
    }
}

impl Drop for EspKey {
    fn drop(&mut self) {
        self.octets.fill(0);
        std::hint::black_box(&mut self.octets);
    }
}

impl fmt::Debug for EspKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EspKey(..)")
    }
}

/// RFC 4106 §4, RFC 7634 §2.
const SALT_LEN: usize = 4;

/// Where the outer packets go, and what they are wrapped in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Envelope {
    /// Our outer address; the port counts only with UDP encapsulation.
    pub local: SocketAddr,
    /// The peer's outer address; the port counts only with UDP encapsulation.
    pub remote: SocketAddr,
    /// UDP encapsulation (RFC 3948), or IP protocol 50 itself.
    pub udp: bool,
}

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mode {
    /// The whole inner packet is protected.
    Tunnel,
    /// Only the payload is protected.
    Transport,
}

impl Mode {
    /// As printed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Transport => "transport",
        }
    }
}

/// When a pair must be replaced. `u64::MAX` stands for no limit. Time limits are keying's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Octets in either direction after which [`crate::Notice::SoftExpire`] is sent.
    pub soft_bytes: u64,
    /// Octets in either direction after which the pair carries nothing more.
    pub hard_bytes: u64,
    /// Packets in either direction after which [`crate::Notice::SoftExpire`] is sent.
    pub soft_packets: u64,
    /// Packets in either direction after which the pair carries nothing more.
    pub hard_packets: u64,
}

impl Limits {
    /// What ESP itself bears: without extended sequence numbers a pair ends before 2^32 packets
    /// (RFC 4303 §3.3.3), with them well before AES-GCM's bound on data under one key
    /// (2^64 blocks; NIST SP 800-38D §8.3 allows 2^32 invocations only for random nonces).
    #[must_use]
    pub fn of_esp(esn: bool) -> Self {
        let hard_packets = if esn { 1 << 48 } else { (1 << 32) - (1 << 16) };
        Self {
            soft_bytes: 1 << 50,
            hard_bytes: 1 << 51,
            soft_packets: hard_packets / 10 * 9,
            hard_packets,
        }
    }

    /// The same, with soft limits that come sooner by so many thousandths: both ends count the same
    /// packets, and would rekey at the same one.
    #[must_use]
    pub fn sooner(self, thousandths: u32) -> Self {
        let less = |limit: u64| match limit {
            u64::MAX => limit,
            _ => limit - limit / 1000 * u64::from(thousandths.min(1000)),
        };
        Self { soft_bytes: less(self.soft_bytes), soft_packets: less(self.soft_packets), ..self }
    }
}

/// A pair of ESP security associations, one each way: one object, so that neither half outlives
/// the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaPair {
    /// Local name.
    pub id: SaId,
    /// The cipher of both directions.
    pub cipher: EspCipher,
    /// SPI that we chose: packets to us carry it.
    pub spi_in: Spi,
    /// SPI that the peer chose: packets to it carry it.
    pub spi_out: Spi,
    /// Key of packets to us.
    pub key_in: EspKey,
    /// Key of packets to the peer.
    pub key_out: EspKey,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Tunnel or transport.
    pub mode: Mode,
    /// Inner addresses on our side, as the peer sees them: inbound packets must be for these.
    pub local: Vec<TrafficSelector>,
    /// Inner addresses on the peer's side: inbound packets must come from these.
    pub remote: Vec<TrafficSelector>,
    /// The outer way.
    pub envelope: Envelope,
    /// When it must be replaced.
    pub limits: Limits,
    /// How much is known of the peer.
    pub trust: Trust,
    /// What our own address is inside of the pair, if not itself.
    pub translation: Option<Translation>,
}

/// One address of ours is another within a pair: behind a NAT ours means nothing to the peer, so it
/// has given us one of its own (RFC 7296 §2.19).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Translation {
    own: IpAddr,
    assigned: IpAddr,
}

impl Translation {
    /// `None` if the addresses are of two families.
    #[must_use]
    pub fn new(own: IpAddr, assigned: IpAddr) -> Option<Self> {
        (own.is_ipv4() == assigned.is_ipv4()).then_some(Self { own, assigned })
    }

    /// The address that applications here see.
    #[must_use]
    pub fn own(&self) -> IpAddr {
        self.own
    }

    /// The address that the peer sees.
    #[must_use]
    pub fn assigned(&self) -> IpAddr {
        self.assigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// gotatun 0.3.0.
    #[test]
    fn reserved_spis_cannot_be_made() {
        assert!(Spi::new(0).is_none() && Spi::new(255).is_none());
        assert_eq!(Spi::new(256).map(Spi::get), Some(256));
    }

    #[test]
    fn keys_split_into_key_and_salt_and_are_not_printed() {
        let octets: Vec<u8> = (0..20).collect();
        let key = EspKey::new(EspCipher::Aes128Gcm16, &octets).unwrap();
        assert_eq!(key.key(), &octets[..16]);
        assert_eq!(key.salt(), [16, 17, 18, 19]);
        assert_eq!(format!("{key:?}"), "EspKey(..)");
        assert!(EspKey::new(EspCipher::Aes256Gcm16, &octets).is_none());
        let cipher = EspCipher::Aes256Cbc(Integrity::HmacSha2_512_256);
        let octets: Vec<u8> = (0..96).collect();
        let key = EspKey::new(cipher, &octets).unwrap();
        assert_eq!((key.key(), key.rest()), (&octets[..32], &octets[32..]));
        assert!(EspKey::new(cipher, &octets[..95]).is_none());
    }

    /// Attack A7.
    #[test]
    fn soft_limits_come_sooner_and_hard_ones_stay() {
        for esn in [false, true] {
            let limits = Limits::of_esp(esn);
            assert_eq!(limits.sooner(0), limits);
            let sooner = limits.sooner(100);
            assert_eq!(sooner.hard_packets, limits.hard_packets);
            assert_eq!(sooner.hard_bytes, limits.hard_bytes);
            assert_eq!(sooner.soft_packets / 1000, limits.soft_packets / 10 * 9 / 1000);
            assert_eq!(sooner.soft_bytes / 1000, limits.soft_bytes / 10 * 9 / 1000);
            assert!(limits.sooner(u32::MAX).soft_packets < 1000);
        }
        let none = Limits { soft_bytes: u64::MAX, soft_packets: u64::MAX, ..Limits::of_esp(true) };
        assert_eq!(none.sooner(50), none);
    }

    /// Attack A7.
    #[test]
    fn trust_is_ordered() {
        assert!(Trust::Configured > Trust::Dnssec);
        assert!(Trust::Dnssec > Trust::Unauthenticated);
        assert!(Trust::Unauthenticated > Trust::Anonymous);
    }
}
