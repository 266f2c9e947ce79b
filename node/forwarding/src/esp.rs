//! One ESP packet: numbered, padded, sealed; or checked, opened, unpadded (RFC 4303 §2, §3).

use sa::{EspCipher, EspKey};

use crate::aead::{AeadKey, ICV, Provider, Unauthentic};
use crate::cbc::{self, CbcKey};
use crate::counters::Reason;
use crate::replay::Window;

/// A key of one direction.
pub(crate) enum Key {
    Aead(AeadKey),
    Cbc(Box<CbcKey>),
}

impl Key {
    /// `None` if the key's length is not the cipher's.
    pub(crate) fn new(provider: Provider, cipher: EspCipher, key: &EspKey) -> Option<Self> {
        match cipher.integrity() {
            None => AeadKey::new(provider, cipher, key).map(Self::Aead),
            Some(_) => CbcKey::new(cipher, key).map(Box::new).map(Self::Cbc),
        }
    }
}

/// The outbound half of a pair. The layout of AES-CBC stands in [`crate::cbc`].
///
/// ```text
///  SPI | Sequence Number | IV (8) | inner packet | Padding, Pad Length, Next Header | ICV (16)
///  <------ HEADER = 16 ---------->                                   RFC 4303 §2, RFC 4106 §3
/// ```
pub(crate) struct Sealer {
    key: Key,
    salt: [u8; 4],
    spi: [u8; 4],
    esn: bool,
    /// The last sequence number given out.
    last: u64,
    /// The last one there is.
    limit: u64,
}

impl Sealer {
    pub(crate) fn new(key: Key, salt: [u8; 4], spi: [u8; 4], esn: bool) -> Self {
        // The nonce is built from the number, so it must neither wrap nor return (RFC 4303
        // §3.3.3, RFC 4106 §3.1).
        let limit = if esn { u64::MAX - 1 } else { u64::from(u32::MAX) };
        Self { key, salt, spi, esn, last: 0, limit }
    }

    /// The next sequence number; `None` when all are used up.
    #[inline]
    pub(crate) fn number(&mut self) -> Option<Number> {
        if self.last >= self.limit {
            return None;
        }
        self.last += 1;
        Some(Number(self.last))
    }

    /// Where the plaintext begins in the slot.
    #[inline]
    pub(crate) fn header(&self) -> usize {
        match &self.key {
            Key::Aead(_) => HEADER,
            Key::Cbc(_) => cbc::HEADER,
        }
    }

    /// Octets of the ESP packet around `inner` octets.
    #[inline]
    pub(crate) fn sealed_len(&self, inner: usize) -> usize {
        match &self.key {
            Key::Aead(_) => sealed_len(inner),
            Key::Cbc(key) => key.sealed_len(inner),
        }
    }

    /// Turns `slot` into an ESP packet. It is [`Self::sealed_len`]`(inner)` octets long and holds
    /// `inner` octets of plaintext from [`Self::header`] on. The number is used up either way.
    #[inline]
    pub(crate) fn seal(
        &self,
        number: Number,
        slot: &mut [u8],
        inner: usize,
        next_header: u8,
    ) -> Result<(), Unauthentic> {
        let number = number.0;
        let key = match &self.key {
            Key::Aead(key) => key,
            Key::Cbc(key) => return self.seal_cbc(key, number, slot, inner, next_header),
        };
        let (header, rest) = slot.split_first_chunk_mut::<HEADER>().ok_or(Unauthentic)?;
        let (text, icv) = rest.split_last_chunk_mut::<ICV>().ok_or(Unauthentic)?;
        let (_, trailer) = text.split_at_mut_checked(inner).ok_or(Unauthentic)?;
        write_trailer(trailer, next_header)?;

        let [h3, h2, h1, h0, l3, l2, l1, l0] = number.to_be_bytes();
        let [s3, s2, s1, s0] = self.spi;
        *header = [s3, s2, s1, s0, l3, l2, l1, l0, h3, h2, h1, h0, l3, l2, l1, l0];
        let aad = [s3, s2, s1, s0, h3, h2, h1, h0, l3, l2, l1, l0];
        let nonce = nonce(self.salt, number.to_be_bytes());
        *icv = if self.esn {
            key.seal(nonce, &aad, text)?
        } else {
            key.seal(nonce, &[s3, s2, s1, s0, l3, l2, l1, l0], text)?
        };
        Ok(())
    }

    #[cold]
    fn seal_cbc(
        &self,
        key: &CbcKey,
        number: u64,
        slot: &mut [u8],
        inner: usize,
        next_header: u8,
    ) -> Result<(), Unauthentic> {
        let end = slot.len().checked_sub(key.icv_len()).ok_or(Unauthentic)?;
        let trailer = slot.get_mut(cbc::HEADER + inner..end).ok_or(Unauthentic)?;
        write_trailer(trailer, next_header)?;
        key.seal(self.spi, number, self.esn, slot)
    }

    /// Whether a packet with this SPI and the low half of its number is one of the last few that
    /// were sealed: what somebody who did not see it could not know.
    pub(crate) fn has_just_sent(&self, spi: [u8; 4], low: u32) -> bool {
        let behind = self.last.wrapping_sub(u64::from(low)) & u64::from(u32::MAX);
        self.spi == spi && low != 0 && behind < RECENT.min(self.last)
    }

    #[cfg(test)]
    pub(crate) fn jump_to(&mut self, last: u64) {
        self.last = last;
    }
}

/// Padding is 1, 2, 3 (RFC 4303 §2.4), less than a block of it; then its length, then what it was.
#[inline]
fn write_trailer(trailer: &mut [u8], next_header: u8) -> Result<(), Unauthentic> {
    let (padding, tail) = trailer.split_last_chunk_mut::<2>().ok_or(Unauthentic)?;
    let mut pad = 0;
    for octet in padding {
        pad += 1;
        *octet = pad;
    }
    *tail = [pad, next_header];
    Ok(())
}

/// A sequence number of one [`Sealer`], good for one packet.
pub(crate) struct Number(u64);

/// The inbound half of a pair.
pub(crate) struct Opener {
    key: Key,
    salt: [u8; 4],
    esn: bool,
    window: Window,
}

/// An opened packet: where the plaintext lies in the datagram, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    /// Where the plaintext begins.
    pub(crate) start: usize,
    /// Octets of plaintext.
    pub(crate) len: usize,
    pub(crate) next_header: u8,
    /// No packet sent later has arrived before this one.
    pub(crate) newest: bool,
}

impl Opener {
    pub(crate) fn new(key: Key, salt: [u8; 4], esn: bool) -> Self {
        Self { key, salt, esn, window: Window::new() }
    }

    /// Opens a datagram in place: quick replay check, decryption, then the mark (RFC 4303 §3.4.3).
    #[inline]
    pub(crate) fn open(&mut self, datagram: &mut [u8]) -> Result<Opened, Reason> {
        let (header, _) = datagram.split_first_chunk::<HEADER>().ok_or(Reason::Malformed)?;
        let [s3, s2, s1, s0, l3, l2, l1, l0, iv @ ..] = *header;
        let low = u32::from_be_bytes([l3, l2, l1, l0]);
        let number = self.window.extend(low, self.esn).ok_or(Reason::Replayed)?;
        if !self.window.may_accept(number) {
            return Err(Reason::Replayed);
        }
        let [h3, h2, h1, h0, ..] = number.to_be_bytes();
        let (start, text) = match &self.key {
            Key::Aead(key) => {
                let (_, rest) =
                    datagram.split_first_chunk_mut::<HEADER>().ok_or(Reason::Malformed)?;
                let (text, icv) = rest.split_last_chunk_mut::<ICV>().ok_or(Reason::Malformed)?;
                let nonce = nonce(self.salt, iv);
                let opened = if self.esn {
                    let aad = [s3, s2, s1, s0, h3, h2, h1, h0, l3, l2, l1, l0];
                    key.open(nonce, &aad, text, *icv)
                } else {
                    key.open(nonce, &[s3, s2, s1, s0, l3, l2, l1, l0], text, *icv)
                };
                opened.map_err(|Unauthentic| Reason::Unauthentic)?;
                (HEADER, &*text)
            }
            Key::Cbc(key) => {
                let high = self.esn.then_some([h3, h2, h1, h0]);
                let len = key.open(datagram, high).map_err(|Unauthentic| Reason::Unauthentic)?;
                (cbc::HEADER, datagram.get(cbc::HEADER..cbc::HEADER + len).unwrap_or(&[]))
            }
        };
        let newest = number > self.window.top();
        self.window.mark(number);

        // The padding's octets need no look: the ICV vouches for them.
        let [.., pad, next_header] = *text else { return Err(Reason::BadTrailer) };
        let len = text.len().checked_sub(2 + usize::from(pad)).ok_or(Reason::BadTrailer)?;
        Ok(Opened { start, len, next_header, newest })
    }
}

/// Salt, then IV (RFC 4106 §4, RFC 7634 §2).
fn nonce(salt: [u8; 4], iv: [u8; 8]) -> [u8; 12] {
    let [a, b, c, d] = salt;
    let [e, f, g, h, i, j, k, l] = iv;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Octets of the ESP packet around `inner` octets.
pub(crate) fn sealed_len(inner: usize) -> usize {
    HEADER + (inner + 2).next_multiple_of(4) + ICV
}

/// The largest inner packet whose ESP packet of this cipher has at most `outer` octets.
pub(crate) fn inner_len_of(cipher: EspCipher, outer: usize) -> usize {
    match cipher.integrity() {
        None => inner_len(outer),
        Some(integrity) => cbc::inner_len(integrity, outer),
    }
}

/// The largest inner packet whose ESP packet has at most `outer` octets.
pub(crate) fn inner_len(outer: usize) -> usize {
    (outer.saturating_sub(HEADER + ICV) & !3).saturating_sub(2)
}

/// Packets that may have been sent since the one that somebody complains about: a second of a
/// fast link.
const RECENT: u64 = 1 << 17;
/// Octets before the inner packet: SPI, sequence number, IV.
pub(crate) const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sa::Integrity;

    fn every_cipher() -> impl Iterator<Item = EspCipher> {
        let aeads = [EspCipher::Aes128Gcm16, EspCipher::Aes256Gcm16, EspCipher::ChaCha20Poly1305];
        let cbc = Integrity::ALL
            .into_iter()
            .flat_map(|i| [EspCipher::Aes128Cbc(i), EspCipher::Aes256Cbc(i)]);
        aeads.into_iter().chain(cbc)
    }

    fn halves(cipher: EspCipher, esn: bool, provider: Provider) -> (Sealer, Opener) {
        let octets: Vec<u8> = (0x80..).take(cipher.keymat_len()).collect();
        let key = EspKey::new(cipher, &octets).unwrap();
        let ready = || Key::new(provider, cipher, &key).unwrap();
        (Sealer::new(ready(), key.salt(), [1, 2, 3, 4], esn), Opener::new(ready(), key.salt(), esn))
    }

    fn seal(sealer: &mut Sealer, inner: &[u8]) -> Vec<u8> {
        let mut slot = vec![0; sealer.sealed_len(inner.len())];
        let start = sealer.header();
        slot[start..start + inner.len()].copy_from_slice(inner);
        let number = sealer.number().unwrap();
        sealer.seal(number, &mut slot, inner.len(), 4).unwrap();
        slot
    }

    fn hex(s: &str) -> Vec<u8> {
        s.split_whitespace().map(|o| u8::from_str_radix(o, 16).unwrap()).collect()
    }

    /// RFC 7634 appendix A: a whole ESP packet. Its IV is arbitrary there and the sequence number
    /// is 5, so it is opened, not made.
    #[test]
    fn the_packet_of_rfc_7634() {
        let mut packet = hex("01 02 03 04 00 00 00 05 10 11 12 13 14 15 16 17
             24 03 94 28 b9 7f 41 7e 3c 13 75 3a 4f 05 08 7b
             67 c3 52 e6 a7 fa b1 b9 82 d4 66 ef 40 7a e5 c6
             14 ee 80 99 d5 28 44 eb 61 aa 95 df ab 4c 02 f7
             2a a7 1e 7c 4c 4f 64 c9 be fe 2f ac c6 38 e8 f3
             cb ec 16 3f ac 46 9b 50 27 73 f6 fb 94 e6 64 da
             91 65 b8 28 29 f6 41 e0 76 aa a8 26 6b 7f b0 f7
             b1 1b 36 99 07 e1 ad 43");
        let (_, mut opener) = halves(EspCipher::ChaCha20Poly1305, false, Provider::AwsLc);
        let opened = opener.open(&mut packet).unwrap();
        assert_eq!((opened.len, opened.next_header), (84, 4));
        assert_eq!(
            packet[HEADER..HEADER + 20],
            hex("45 00 00 54 a6 f2 00 00 40 01 e7 78 c6 33 64 05 c0 00 02 05")
        );
    }

    #[test]
    fn the_layout_is_that_of_rfc_4303() {
        let (mut sealer, _) = halves(EspCipher::Aes128Gcm16, true, Provider::AwsLc);
        sealer.jump_to(0x1_0000_0007);
        let packet = seal(&mut sealer, &[0xaa; 21]);
        assert_eq!(packet[..8], [1, 2, 3, 4, 0, 0, 0, 8]);
        assert_eq!(packet[8..16], 0x1_0000_0008u64.to_be_bytes());
        assert_eq!(packet.len(), 16 + 24 + 16);
    }

    #[test]
    fn sealed_and_inner_lengths_agree() {
        for inner in 0..3000 {
            let outer = sealed_len(inner);
            assert_eq!(outer % 4, 0);
            assert!(inner_len(outer) >= inner && sealed_len(inner_len(outer)) <= outer);
        }
        // IPv4 and UDP around it on an Ethernet.
        assert_eq!(inner_len(1500 - 28), 1438);
    }

    /// P10.
    /// gotatun 0.7.2.
    #[test]
    fn numbers_end_before_they_wrap() {
        let (mut sealer, _) = halves(EspCipher::Aes128Gcm16, false, Provider::AwsLc);
        sealer.jump_to(u64::from(u32::MAX) - 1);
        assert!(sealer.number().is_some());
        assert!(sealer.number().is_none() && sealer.number().is_none());
        let (mut sealer, _) = halves(EspCipher::Aes128Gcm16, true, Provider::AwsLc);
        sealer.jump_to(u64::MAX - 2);
        assert!(sealer.number().is_some());
        assert!(sealer.number().is_none());
    }

    /// boringtun 0.7.1.
    #[test]
    fn extended_numbers_cross_the_border() {
        let (mut sealer, mut opener) = halves(EspCipher::Aes256Gcm16, true, Provider::AwsLc);
        sealer.jump_to(0xffff_fffd);
        let mut packets: Vec<_> = (0..6).map(|i| seal(&mut sealer, &[i; 40])).collect();
        // The receiver is near the border as well; reordered around it, each opens once.
        opener.window.mark(0xffff_fffd);
        packets.swap(1, 3);
        for packet in &mut packets {
            assert!(opener.open(&mut packet.clone()).is_ok());
            assert_eq!(opener.open(packet), Err(Reason::Replayed));
        }
    }

    #[test]
    fn any_changed_octet_is_noticed_and_shows_nothing() {
        for cipher in every_cipher() {
            for (esn, provider) in [(true, Provider::AwsLc), (false, Provider::RustCrypto)] {
                let (mut sealer, mut opener) = halves(cipher, esn, provider);
                let packet = seal(&mut sealer, &[0x5a; 60]);
                // The SPI's own octets are the table's business, but they are authenticated too.
                for at in 0..packet.len() {
                    let mut damaged = packet.clone();
                    damaged[at] ^= 1;
                    assert!(opener.open(&mut damaged).is_err(), "{at}");
                    assert!(!damaged.windows(8).any(|w| w == [0x5a; 8]), "{at}");
                }
                for len in 0..packet.len() {
                    assert!(opener.open(&mut packet[..len].to_vec()).is_err(), "{len}");
                }
                // None of that has moved the window.
                assert!(opener.open(&mut packet.clone()).is_ok());
            }
        }
    }

    /// The packets of AES-CBC: every length opens, the IV is the block's size and never the same,
    /// the high half of the number is under the ICV, and lengths agree.
    #[test]
    fn aes_cbc_has_a_layout_of_its_own() {
        for integrity in Integrity::ALL {
            for (cipher, esn) in
                [(EspCipher::Aes128Cbc(integrity), false), (EspCipher::Aes256Cbc(integrity), true)]
            {
                let (mut sealer, mut opener) = halves(cipher, esn, Provider::AwsLc);
                let mut ivs = std::collections::BTreeSet::new();
                for len in 0..100 {
                    let inner = vec![0x5a; len];
                    let mut packet = seal(&mut sealer, &inner);
                    assert_eq!((packet.len() - 24 - integrity.icv_len()) % 16, 0);
                    assert!(ivs.insert(packet[8..24].to_vec()));
                    let opened = opener.open(&mut packet).unwrap();
                    assert_eq!((opened.start, opened.len, opened.next_header), (24, len, 4));
                    assert_eq!(packet[24..24 + len], inner);
                    let outer = packet.len();
                    assert!(inner_len_of(cipher, outer) >= len);
                    assert!(sealer.sealed_len(inner_len_of(cipher, outer)) <= outer);
                }
                let packet = seal(&mut sealer, &[0x5a; 60]);
                let (_, mut other) = halves(cipher, !esn, Provider::AwsLc);
                assert_eq!(other.open(&mut packet.clone()), Err(Reason::Unauthentic));
            }
        }
    }

    /// Whoever has no key learns nothing from padding: a ciphertext with any last block is refused
    /// for its ICV, before it is decrypted.
    #[test]
    fn padding_is_looked_at_after_the_icv() {
        let cipher = EspCipher::Aes128Cbc(Integrity::HmacSha2_256_128);
        let (mut sealer, mut opener) = halves(cipher, false, Provider::AwsLc);
        let packet = seal(&mut sealer, &[0x5a; 60]);
        let last_but_one = packet.len() - 16 - 17;
        for octet in 1..=255 {
            let mut damaged = packet.clone();
            damaged[last_but_one] ^= octet;
            let before = damaged.clone();
            assert_eq!(opener.open(&mut damaged), Err(Reason::Unauthentic));
            assert_eq!(damaged, before);
        }
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            inner in proptest::collection::vec(any::<u8>(), 0..300),
            esn in any::<bool>(),
            first in 0u64..u64::from(u32::MAX) - 4,
        ) {
            let (mut sealer, mut opener) = halves(EspCipher::Aes128Gcm16, esn, Provider::AwsLc);
            sealer.jump_to(first);
            opener.window.mark(first.max(1));
            let mut packet = seal(&mut sealer, &inner);
            if first == 0 {
                packet = seal(&mut sealer, &inner);
            }
            let opened = opener.open(&mut packet).unwrap();
            prop_assert!(opened.newest);
            prop_assert_eq!(&packet[HEADER..HEADER + opened.len], &inner[..]);
        }
    }
}
