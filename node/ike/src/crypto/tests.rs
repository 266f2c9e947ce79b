//! Real messages of strongSwan: the key schedule, the encrypted payload, AUTH.

use std::collections::BTreeMap;

use super::*;
use crate::api::{Identity, PublicKey, SignatureScheme};
use crate::crypto::schedule::Prf;
use crate::crypto::seal::{IkeCipher, Sealer};
use crate::internal::verify;
use crate::message::{Authentication, Body, Header, Message, NotifyType, Payloads};
use crate::reassembly::Reassembly;
use crate::tests::{KINDS, key_pair, public, sign};

const AEADS: Suites = Suites { compatibility: false, additional: false };

/// A recorded story.
struct Record {
    values: BTreeMap<&'static str, Vec<u8>>,
    messages: Vec<(bool, Vec<u8>)>,
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

impl Record {
    fn read(text: &'static str) -> Self {
        let mut record = Self { values: BTreeMap::new(), messages: Vec::new() };
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (name, value) = line.split_once(' ').unwrap();
            match name {
                "i" | "r" => record.messages.push((name == "i", unhex(value))),
                _ => assert!(record.values.insert(name, unhex(value)).is_none()),
            }
        }
        record
    }

    fn key(&self, who: &str) -> PublicKey {
        let name = format!("modulus.{who}");
        PublicKey::Rsa { exponent: vec![1, 0, 1], modulus: self.values[name.as_str()].clone() }
    }

    fn message(&self, at: usize) -> Message<'_> {
        Message::read(&self.messages[at].1).unwrap()
    }

    /// The keys of the first IKE SA.
    fn initial(&self) -> (IkeKeys, CipherPair) {
        let (request, answer) = (self.clear(0), self.clear(1));
        let header = self.message(1).header;
        let mix = Mix {
            nonce_i: request.nonce.as_ref().unwrap(),
            nonce_r: answer.nonce.as_ref().unwrap(),
            spi_i: header.spi_i,
            spi_r: header.spi_r,
        };
        let suite = confirm_ike(AEADS, answer.sa.as_ref().unwrap(), 0).unwrap();
        assert_eq!(suite.cipher, IkeCipher::Aes128Gcm16);
        assert_eq!(suite.prf, Prf::HmacSha2_256);
        assert_eq!(suite.group, Group::Curve25519);
        let secret = Secret::new(self.values["ike0.dh_secret"].clone());
        IkeKeys::initial(suite.prf, suite.cipher, &secret, mix).unwrap()
    }

    fn clear(&self, at: usize) -> Payloads {
        let Body::Clear { first, octets } = self.message(at).body else { panic!("sealed") };
        Payloads::read(first, octets).unwrap()
    }

    /// Opens message `at`, or gives nothing yet if it is a fragment of more.
    fn open(&self, at: usize, pair: &CipherPair, reassembly: &mut Reassembly) -> Option<Payloads> {
        let message = self.message(at);
        let Body::Sealed(sealed) = message.body else { panic!("clear") };
        // What its receiver opens with.
        let (_, opener) = pair.ends(!self.messages[at].0).unwrap();
        let plaintext = opener.open(&sealed).unwrap();
        let whole = reassembly.take(&sealed, message.header.message_id, plaintext).unwrap()?;
        Some(Payloads::read(whole.first, &whole.plaintext).unwrap())
    }

    fn assert_keys(&self, which: usize, keys: &IkeKeys, pair: &CipherPair) {
        let value = |name: &str| self.values[format!("ike{which}.{name}").as_str()].as_slice();
        assert_eq!(keys.parts(), (value("sk_d"), value("sk_pi"), value("sk_pr")));
        assert_eq!(pair.parts(), (value("sk_ei"), value("sk_er")));
    }

    /// AUTH of both sides; gives the schemes that they used.
    fn assert_auth(&self, keys: &IkeKeys, request: &Payloads, answer: &Payloads) {
        let (init, reply) = (self.clear(0), self.clear(1));
        let sides = [
            ("i", true, 0, reply.nonce, request.id_initiator.as_ref(), request.auth.as_ref()),
            ("r", false, 1, init.nonce, answer.id_responder.as_ref(), answer.auth.as_ref()),
        ];
        for (who, by_initiator, at, nonce, id, auth) in sides {
            let (id, auth) = (id.unwrap(), auth.unwrap());
            assert_eq!(auth.method, 14);
            let (scheme, signature) = read_auth(auth).unwrap();
            let first = &self.messages[at].1;
            let octets = keys.signed_octets(by_initiator, first, &nonce.unwrap(), &id.octets);
            let key = self.key(who);
            assert!(verify(&key, scheme, &octets, signature), "{who} {scheme:?}");
            assert!(!verify(
                &self.key(if who == "i" { "r" } else { "i" }),
                scheme,
                &octets,
                signature
            ));
            for at in [0, octets.len() / 2, octets.len() - 1] {
                let mut wrong = octets.clone();
                wrong[at] ^= 1;
                assert!(!verify(&key, scheme, &wrong, signature));
            }
            let mut wrong = signature.to_vec();
            wrong[7] ^= 1;
            assert!(!verify(&key, scheme, &octets, &wrong));
        }
    }
}

fn base() -> Record {
    Record::read(include_str!("../../vectors/strongswan-base.txt"))
}

#[test]
fn strongswans_handshake_is_understood_to_the_last_key() {
    let record = base();
    let (keys, pair) = record.initial();
    record.assert_keys(0, &keys, &pair);
    let mut fragments = Reassembly::default();
    let request = record.open(2, &pair, &mut fragments).unwrap();
    let answer = record.open(3, &pair, &mut fragments).unwrap();
    assert_eq!(
        request.id_initiator.as_ref().unwrap().identity,
        Identity::Address("192.0.2.1".parse().unwrap())
    );
    assert!(request.notify(NotifyType::INITIAL_CONTACT).is_some());
    record.assert_auth(&keys, &request, &answer);

    let (choice, ..) = choose_esp(AEADS, request.sa.as_ref().unwrap(), None).unwrap();
    assert!(!choice.esn);
    let nonces = (record.clear(0).nonce.unwrap(), record.clear(1).nonce.unwrap());
    let (from_i, from_r) =
        child_keys(&keys, choice.cipher, [None; 2], &nonces.0, &nonces.1).unwrap();
    let octets = |key: &sa::EspKey| [key.key(), &key.salt()].concat();
    assert_eq!(octets(&from_r), record.values["esp0.r"]);
    assert_eq!(octets(&from_i), record.values["esp1.i"]);

    // The child's replacement.
    let request = record.open(4, &pair, &mut fragments).unwrap();
    let answer = record.open(5, &pair, &mut fragments).unwrap();
    assert!(request.notify(NotifyType::REKEY_SA).is_some());
    let (from_i, from_r) = child_keys(
        &keys,
        choice.cipher,
        [None; 2],
        request.nonce.as_ref().unwrap(),
        answer.nonce.as_ref().unwrap(),
    )
    .unwrap();
    assert_eq!(octets(&from_r), record.values["esp2.r"]);
    assert_eq!(octets(&from_i), record.values["esp3.i"]);

    // The IKE SA's replacement, and what is said under it.
    let request = record.open(8, &pair, &mut fragments).unwrap();
    let answer = record.open(9, &pair, &mut fragments).unwrap();
    let spi = |payloads: &Payloads| {
        let proposal = &payloads.sa.as_ref().unwrap()[0];
        u64::from_be_bytes(proposal.spi.as_slice().try_into().unwrap())
    };
    let suite = confirm_ike(AEADS, answer.sa.as_ref().unwrap(), 8).unwrap();
    let mix = Mix {
        nonce_i: request.nonce.as_ref().unwrap(),
        nonce_r: answer.nonce.as_ref().unwrap(),
        spi_i: spi(&request),
        spi_r: spi(&answer),
    };
    let secret = Secret::new(record.values["ike1.dh_secret"].clone());
    let (keys, pair) = keys.rekeyed(suite.prf, suite.cipher, (&secret, None), mix).unwrap();
    record.assert_keys(1, &keys, &pair);
    for at in 12..16 {
        record.open(at, &pair, &mut fragments).unwrap();
    }
}

#[test]
fn strongswans_fragments_and_pss_signatures_are_understood() {
    let record = Record::read(include_str!("../../vectors/strongswan-fragments.txt"));
    let (keys, pair) = record.initial();
    record.assert_keys(0, &keys, &pair);
    // In any order, and twice.
    for order in [[2, 3], [3, 2]] {
        let mut fragments = Reassembly::default();
        assert!(record.open(order[0], &pair, &mut fragments).is_none());
        assert!(record.open(order[0], &pair, &mut fragments).is_none());
        let request = record.open(order[1], &pair, &mut fragments).unwrap();
        assert!(record.open(4, &pair, &mut fragments).is_none());
        let answer = record.open(5, &pair, &mut fragments).unwrap();
        record.assert_auth(&keys, &request, &answer);
        let auth = request.auth.unwrap();
        assert_eq!(read_auth(&auth).unwrap().0, SignatureScheme::RsaPssSha384);
    }
}

/// CVE-2019-10155.
#[test]
fn no_octet_of_a_sealed_message_may_change() {
    let record = base();
    let (_, pair) = record.initial();
    let (_, opener) = pair.ends(false).unwrap();
    for at in 0..record.messages[2].1.len() {
        let mut octets = record.messages[2].1.clone();
        octets[at] ^= 1;
        if let Ok(Message { body: Body::Sealed(sealed), .. }) = Message::read(&octets) {
            assert!(opener.open(&sealed).is_err(), "octet {at}");
        }
    }
}

/// The same ciphers by another implementation.
#[test]
fn a_second_implementation_opens_what_we_seal() {
    use aes_gcm::aead::{Aead as _, KeyInit as _, Payload as AeadPayload};
    let record = base();
    let (_, pair) = record.initial();
    let (mut sealer, _) = pair.ends(true).unwrap();
    let (key, salt) = record.values["ike0.sk_ei"].split_at(16);
    let other = aes_gcm::Aes128Gcm::new_from_slice(key).unwrap();
    for round in 0..40_usize {
        let header = vec![7; 32];
        let plaintext = vec![u8::try_from(round).unwrap(); round * 7];
        let mut message = header.clone();
        sealer.seal(&mut message, &plaintext).unwrap();
        let (iv, text) = message[32..].split_at(8);
        let nonce: [u8; 12] = [salt, iv].concat().try_into().unwrap();
        let opened = other.decrypt(&nonce.into(), AeadPayload { msg: text, aad: &header }).unwrap();
        assert_eq!(opened, [plaintext.as_slice(), &[0]].concat());
    }
}

/// CVE-2021-41990, CVE-2018-6459, CVE-2017-9023.
#[test]
fn algorithm_identifiers_are_compared_to_the_octet() {
    // RSASSA-PSS with SHA2-256 as RFC 7427 appendix A.4.3 and libreswan have it.
    let pss = unhex(concat!(
        "3041",
        "06092a864886f70d01010a",
        "3034",
        "a00f",
        "300d",
        "06096086480165030402010500",
        "a11c",
        "301a",
        "06092a864886f70d010108",
        "300d",
        "06096086480165030402010500",
        "a203020120"
    ));
    let pkcs1 = unhex("300d06092a864886f70d01010b0500");
    let bare = unhex("300b06092a864886f70d01010b");
    let auth = |data: &[u8]| Authentication { method: 14, data: data.to_vec() };
    let data = |identifier: &[u8]| {
        let mut out = vec![u8::try_from(identifier.len()).unwrap()];
        out.extend_from_slice(identifier);
        out.extend_from_slice(&[9; 256]);
        auth(&out)
    };
    // RFC 7427 appendix A.3 and RFC 8420 §3 print these.
    let p256 = unhex("300a06082a8648ce3d040302");
    let p384 = unhex("300a06082a8648ce3d040303");
    let p512 = unhex("300a06082a8648ce3d040304");
    let edwards = unhex("300506032b6570");
    for (identifier, scheme) in [
        (&pss, SignatureScheme::RsaPssSha256),
        (&pkcs1, SignatureScheme::RsaPkcs1Sha256),
        (&bare, SignatureScheme::RsaPkcs1Sha256),
        (&p256, SignatureScheme::EcdsaSha256),
        (&p384, SignatureScheme::EcdsaSha384),
        (&p512, SignatureScheme::EcdsaSha512),
        (&edwards, SignatureScheme::Ed25519),
    ] {
        assert_eq!(read_auth(&data(identifier)).unwrap().0, scheme);
        for at in 0..identifier.len() {
            let mut wrong = identifier.clone();
            wrong[at] ^= 0x10;
            assert_eq!(read_auth(&data(&wrong)), None, "octet {at}");
        }
        if *identifier != bare {
            assert_eq!(write_auth(scheme, &[9; 256]), data(identifier));
        }
    }
    // With NULL parameters, which RFC 5758 §3.2 and RFC 8410 §3 forbid; with SHA-1; Ed448.
    for wrong in [
        "300c06082a8648ce3d0403020500",
        "300706032b65700500",
        "300906072a8648ce3d0401",
        "300506032b6571",
    ] {
        assert_eq!(read_auth(&data(&unhex(wrong))), None, "{wrong}");
    }
    // Methods 9 and 10 have no identifier; no other method is a signature of ours.
    for (method, scheme) in
        [(9, SignatureScheme::EcdsaP256Bare), (10, SignatureScheme::EcdsaP384Bare)]
    {
        let auth = Authentication { method, data: vec![9; 64] };
        assert_eq!(read_auth(&auth), Some((scheme, &[9; 64][..])));
        assert_eq!(write_auth(scheme, &[9; 64]), auth);
    }
    for method in (0..=255).filter(|method| ![9, 10, 14].contains(method)) {
        let auth = Authentication { method, ..data(&pss) };
        assert_eq!(read_auth(&auth), None, "method {method}");
    }
    // sha1WithRSAEncryption, and PSS whose parameters are all defaults, which is SHA-1.
    assert_eq!(read_auth(&data(&unhex("300d06092a864886f70d0101050500"))), None);
    assert_eq!(read_auth(&data(&unhex("300d06092a864886f70d01010a3000"))), None);
    for cut in 0..=pss.len() {
        assert_eq!(read_auth(&auth(&data(&pss).data[..cut])), None);
    }
    // A salt of another length is another scheme.
    let mut salt = pss;
    *salt.last_mut().unwrap() = 20;
    assert_eq!(read_auth(&data(&salt)), None);
}

/// CVE-2018-17540, CVE-2017-9022, CVE-2013-2944.
#[test]
fn odd_keys_verify_nothing() {
    let record = base();
    let PublicKey::Rsa { modulus, .. } = record.key("i") else { panic!() };
    let mut even = modulus.clone();
    *even.last_mut().unwrap() &= 0xfe;
    let keys = [
        (vec![], modulus.clone()),
        (vec![0], modulus.clone()),
        (vec![1], modulus.clone()),
        (vec![2], modulus.clone()),
        (vec![0, 3], modulus.clone()),
        (vec![1, 0, 0, 0, 1], modulus.clone()),
        (vec![3], vec![]),
        (vec![3], vec![1]),
        (vec![3], vec![0xff; 128]),
        (vec![3], vec![0xff; 1025]),
        (vec![3], [vec![0], modulus.clone()].concat()),
        (vec![3], even),
    ];
    for (exponent, modulus) in keys {
        let key = PublicKey::Rsa { exponent, modulus };
        for scheme in [SignatureScheme::RsaPssSha256, SignatureScheme::RsaPkcs1Sha512] {
            for signature in [vec![], vec![0; 256], vec![1; 256], vec![0xff; 1025]] {
                assert!(!verify(&key, scheme, b"text", &signature));
            }
        }
    }
    // Signatures that are 0, 1, n - 1, n.
    let key = record.key("i");
    let mut less = modulus.clone();
    *less.last_mut().unwrap() -= 1;
    let mut one = vec![0; 256];
    one[255] = 1;
    for signature in [vec![0; 256], one, less, modulus] {
        for scheme in [SignatureScheme::RsaPssSha256, SignatureScheme::RsaPkcs1Sha256] {
            assert!(!verify(&key, scheme, b"text", &signature));
        }
    }
}

#[test]
fn hashes_are_chosen_by_key_and_peer() {
    let key = |octets: usize| PublicKey::Rsa { exponent: vec![3], modulus: vec![0xff; octets] };
    let pss = |key: &PublicKey, announced: &[u16]| scheme_for(key, announced);
    assert_eq!(pss(&key(256), &[2, 3, 4, 5]), Some(SignatureScheme::RsaPssSha256));
    assert_eq!(pss(&key(384), &[4, 3, 2]), Some(SignatureScheme::RsaPssSha256));
    assert_eq!(pss(&key(512), &[2, 3, 4]), Some(SignatureScheme::RsaPssSha384));
    assert_eq!(pss(&key(1024), &[2, 3, 4]), Some(SignatureScheme::RsaPssSha512));
    assert_eq!(pss(&key(512), &[2]), Some(SignatureScheme::RsaPssSha256));
    assert_eq!(pss(&key(256), &[1, 5]), None);
    assert_eq!(pss(&key(256), &[]), None);
    let (p256, p384) = (PublicKey::EcdsaP256([7; 64]), PublicKey::EcdsaP384([7; 96]));
    let edwards = PublicKey::Ed25519([7; 32]);
    assert_eq!(pss(&p256, &[2, 3, 4, 5]), Some(SignatureScheme::EcdsaSha256));
    assert_eq!(pss(&p384, &[2, 3, 4, 5]), Some(SignatureScheme::EcdsaSha384));
    assert_eq!(pss(&edwards, &[2, 3, 4, 5]), Some(SignatureScheme::Ed25519));
    assert_eq!(pss(&p256, &[3, 4]), None);
    assert_eq!(pss(&edwards, &[2, 3, 4]), None);
    // Before RFC 7427 there were methods 9 and 10, but nothing for Ed25519.
    assert_eq!(pss(&p256, &[]), Some(SignatureScheme::EcdsaP256Bare));
    assert_eq!(pss(&p384, &[]), Some(SignatureScheme::EcdsaP384Bare));
    assert_eq!(pss(&edwards, &[]), None);
}

/// CVE-2020-16088: a key of one kind must not even be tried on a signature of another.
#[test]
fn a_key_verifies_its_own_kind_only() {
    let schemes = |kind: usize| match kind {
        0 => &[SignatureScheme::RsaPssSha256, SignatureScheme::RsaPkcs1Sha512][..],
        1 => &[SignatureScheme::EcdsaSha256, SignatureScheme::EcdsaP256Bare],
        2 => &[SignatureScheme::EcdsaSha384, SignatureScheme::EcdsaP384Bare],
        _ => &[SignatureScheme::Ed25519],
    };
    for (own, name) in KINDS.iter().enumerate() {
        let pair = key_pair(own * 3);
        for scheme in schemes(own) {
            let signature = sign(pair, *scheme, b"text");
            assert!(verify(&public(pair), *scheme, b"text", &signature), "{name} {scheme:?}");
            assert!(!verify(&public(pair), *scheme, b"tex", &signature), "{name} {scheme:?}");
            for at in 0..signature.len() {
                let mut wrong = signature.clone();
                wrong[at] ^= 1;
                assert!(!verify(&public(pair), *scheme, b"text", &wrong), "{name} {at}");
            }
            for cut in 0..signature.len() {
                assert!(!verify(&public(pair), *scheme, b"text", &signature[..cut]));
            }
            assert!(!verify(&public(pair), *scheme, b"text", &[&signature[..], &[0]].concat()));
            for (other, kind) in KINDS.iter().enumerate() {
                // Another key of the same kind, and keys of every other kind.
                let key = public(key_pair(other * 3 + 1));
                assert!(!verify(&key, *scheme, b"text", &signature), "{name} by {kind}");
                // And the right signature under the name of another kind's scheme.
                for scheme in schemes(other).iter().filter(|_| other != own) {
                    assert!(!verify(&public(pair), *scheme, b"text", &signature));
                    assert!(!verify(&public(key_pair(other * 3)), *scheme, b"text", &signature));
                }
            }
        }
    }
}

#[test]
fn points_that_are_none_verify_nothing() {
    for key in [
        PublicKey::EcdsaP256([0; 64]),
        PublicKey::EcdsaP256([7; 64]),
        PublicKey::EcdsaP256([0xff; 64]),
        PublicKey::EcdsaP384([0; 96]),
        PublicKey::EcdsaP384([7; 96]),
    ] {
        for scheme in [
            SignatureScheme::EcdsaSha256,
            SignatureScheme::EcdsaSha384,
            SignatureScheme::EcdsaP256Bare,
            SignatureScheme::EcdsaP384Bare,
        ] {
            // r and s of zero and of one.
            let zero = unhex("3006020100020100");
            for signature in [vec![], zero, unhex("3006020101020101"), vec![0; 64], vec![0; 96]] {
                assert!(!verify(&key, scheme, b"text", &signature));
            }
        }
    }
}

/// Under a key of small order the same signature, R = key and S = 0, fits messages at random.
#[test]
fn ed25519_keys_of_small_order_verify_nothing() {
    let order_eight = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03";
    for text in [
        "0100000000000000000000000000000000000000000000000000000000000000".to_owned(),
        "0000000000000000000000000000000000000000000000000000000000000080".to_owned(),
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f".to_owned(),
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff".to_owned(),
        format!("{order_eight}7a"),
        format!("{order_eight}fa"),
    ] {
        let point: [u8; 32] = unhex(&text).try_into().unwrap();
        let key = PublicKey::Ed25519(point);
        let mut identity = [0; 64];
        identity[0] = 1;
        for message in [&b"a"[..], b"b", b"c", b"d", b"e", b"f", b"g", b"h"] {
            for signature in [identity, [0; 64]] {
                assert!(!verify(&key, SignatureScheme::Ed25519, message, &signature), "{text}");
            }
        }
    }
}

/// RFC 4231 §4.3 (test case 2) and §4.7 (6: a key longer than the block).
#[test]
fn prf_is_hmac() {
    assert_eq!(
        Prf::HmacSha2_256.of(b"Jefe", &[b"what do ya want ", b"for nothing?"])[..],
        unhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    );
    assert_eq!(
        Prf::HmacSha2_256
            .of(&[0xaa; 131], &[b"Test Using Larger Than Block-Size Key - Hash Key First"])[..],
        unhex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
    );
    // prf+ is a stream: a shorter output is the beginning of a longer one, and it has an end.
    let long = Prf::HmacSha2_512.plus(b"key", &[b"seed"], 255 * 64).unwrap();
    let short = Prf::HmacSha2_512.plus(b"key", &[b"seed"], 100).unwrap();
    assert_eq!(long[..100], short[..]);
    assert!(Prf::HmacSha2_512.plus(b"key", &[b"seed"], 255 * 64 + 1).is_err());
}

/// Just enough arithmetic to forge a signature: numbers as octets, the most significant first.
mod forgery {
    pub(super) fn cube(n: &[u8]) -> Vec<u8> {
        multiply(&multiply(n, n), n)
    }

    fn multiply(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut sums = vec![0_u64; a.len() + b.len()];
        for (i, x) in a.iter().rev().enumerate() {
            for (j, y) in b.iter().rev().enumerate() {
                sums[i + j] += u64::from(*x) * u64::from(*y);
            }
        }
        let mut carry = 0;
        let mut out: Vec<u8> = sums
            .into_iter()
            .map(|sum| {
                carry += sum;
                let octet = u8::try_from(carry & 0xff).unwrap();
                carry >>= 8;
                octet
            })
            .collect();
        out.reverse();
        out
    }

    /// The largest number whose cube is no larger than `limit`.
    pub(super) fn cube_root(limit: &[u8]) -> Vec<u8> {
        let mut root = vec![0; limit.len().div_ceil(3)];
        for bit in 0..root.len() * 8 {
            root[bit / 8] |= 0x80 >> (bit % 8);
            let cube = cube(&root);
            let skip = cube.len() - limit.len();
            if cube[..skip].iter().any(|o| *o != 0) || cube[skip..] > *limit {
                root[bit / 8] &= !(0x80 >> (bit % 8));
            }
        }
        root
    }
}

/// With e = 3, the cube root of a block that merely begins well passes for a signature with those
/// who parse the padding instead of comparing all of it (CVE-2006-4339 and its many heirs).
#[test]
fn a_signature_forged_by_cube_root_is_refused() {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"text");
    for (octets, padding) in [(256, 8), (256, 0)] {
        // Any modulus does: the cube of the forgery is smaller than it.
        let key = PublicKey::Rsa { exponent: vec![3], modulus: vec![0xff; octets] };
        let mut block = vec![0, 1];
        block.extend(vec![0xff; padding]);
        block.push(0);
        block.extend(unhex("3031300d060960864801650304020105000420"));
        block.extend_from_slice(digest.as_ref());
        let head = block.clone();
        block.resize(octets, 0xff);
        let root = forgery::cube_root(&block);
        let cube = forgery::cube(&root);
        assert_eq!(cube[cube.len() - octets..][..head.len()], head, "a forgery worth its name");
        let mut signature = vec![0; octets - root.len()];
        signature.extend(root);
        assert!(!verify(&key, SignatureScheme::RsaPkcs1Sha256, b"text", &signature));
    }
}

/// P14: nobody who has an SA with us asks with fewer octets than these, so that all are answered if
/// we have lost it (RFC 6290), and who sends fewer need not be.
#[test]
fn no_cipher_makes_a_request_shorter_than_57_octets() {
    use sa::Integrity;
    let hashes =
        [Integrity::HmacSha2_256_128, Integrity::HmacSha2_384_192, Integrity::HmacSha2_512_256];
    let ciphers = IkeCipher::AEADS.into_iter().chain(hashes.into_iter().flat_map(IkeCipher::cbc));
    let lengths: Vec<_> = ciphers
        .map(|cipher| {
            let (sk_e, sk_a) = (cipher.keymat_len(), cipher.integrity_keymat_len());
            let sealer = Sealer::new(cipher, &vec![1; sk_e], &vec![2; sk_a]).unwrap();
            Header::LEN + 4 + sealer.sealed_len(0)
        })
        .collect();
    assert_eq!(lengths, [57, 57, 57, 80, 80, 88, 88, 96, 96]);
}
