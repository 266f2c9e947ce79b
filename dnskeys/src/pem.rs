//! Keys as files: PEM of SubjectPublicKeyInfo (RFC 5280 §4.1); for RSA also PKCS#1 (RFC 8017 A.1)
//! and the public half of a private key (PKCS#8, RFC 5208; PKCS#1).

use rsa::pkcs1::{RsaPrivateKeyRef, RsaPublicKeyRef, UintRef};
use rsa::pkcs8::der::asn1::{AsUintRef, BitStringRef, ObjectIdentifier};
use rsa::pkcs8::der::pem::LineEnding;
use rsa::pkcs8::der::{Decode as _, Document, SecretDocument};
use rsa::pkcs8::{PrivateKeyInfoRef, SubjectPublicKeyInfoRef};

use crate::key::{KeyError, PublicKey, RsaKey};

impl RsaKey {
    /// Reads `PUBLIC KEY`, `RSA PUBLIC KEY`, `PRIVATE KEY` or `RSA PRIVATE KEY`, and of a private
    /// key only the public half.
    ///
    /// # Errors
    /// [`KeyError::Pem`] if it is none of these, otherwise what is wrong with the key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let pem = |_| KeyError::Pem;
        // Text before the block is allowed (RFC 7468 §2), and one block only.
        let start = text.find("-----BEGIN").ok_or(KeyError::Pem)?;
        let text = text.get(start..).ok_or(KeyError::Pem)?.trim_end();
        if text.starts_with("-----BEGIN PRIVATE") || text.starts_with("-----BEGIN RSA PRIVATE") {
            let (label, secret) = SecretDocument::from_pem(text).map_err(pem)?;
            return match label {
                "PRIVATE KEY" => Self::from_pkcs8_der(secret.as_bytes()),
                "RSA PRIVATE KEY" => public_half(secret.as_bytes()),
                _ => Err(KeyError::Pem),
            };
        }
        let (label, document) = Document::from_pem(text).map_err(pem)?;
        match label {
            "PUBLIC KEY" => Self::from_spki_der(document.as_bytes()),
            "RSA PUBLIC KEY" => public_key(document.as_bytes()),
            _ => Err(KeyError::Pem),
        }
    }

    /// Reads a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Pem`] if it is none, otherwise what is wrong with the key.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(|_| KeyError::Pem)?;
        check_algorithm(spki.algorithm.oid)?;
        public_key(spki.subject_public_key.as_bytes().ok_or(KeyError::Pem)?)
    }

    /// Reads the public half of a DER PKCS#8 private key.
    ///
    /// # Errors
    /// [`KeyError::Pem`] if it is none, otherwise what is wrong with the key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let info = PrivateKeyInfoRef::from_der(der).map_err(|_| KeyError::Pem)?;
        check_algorithm(info.algorithm.oid)?;
        public_half(info.private_key.as_bytes())
    }

    /// DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Pem`] if the encoder fails, which no key that can be made provokes.
    pub fn to_spki_der(&self) -> Result<Vec<u8>, KeyError> {
        Ok(self.spki()?.as_bytes().to_vec())
    }

    /// PEM `PUBLIC KEY` (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// As [`Self::to_spki_der`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        self.spki()?.to_pem("PUBLIC KEY", LineEnding::LF).map_err(|_| KeyError::Pem)
    }

    /// PEM `RSA PUBLIC KEY` (PKCS#1).
    ///
    /// # Errors
    /// As [`Self::to_spki_der`].
    pub fn to_pkcs1_pem(&self) -> Result<String, KeyError> {
        self.pkcs1()?.to_pem("RSA PUBLIC KEY", LineEnding::LF).map_err(|_| KeyError::Pem)
    }

    fn pkcs1(&self) -> Result<Document, KeyError> {
        let uint = |octets| UintRef::new(octets).map_err(|_| KeyError::Pem);
        Document::encode_msg(&RsaPublicKeyRef {
            modulus: uint(self.modulus())?,
            public_exponent: uint(self.exponent())?,
        })
        .map_err(|_| KeyError::Pem)
    }

    fn spki(&self) -> Result<Document, KeyError> {
        let key = self.pkcs1()?;
        Document::encode_msg(&SubjectPublicKeyInfoRef {
            algorithm: rsa::pkcs1::ALGORITHM_ID,
            subject_public_key: BitStringRef::from_bytes(key.as_bytes())
                .map_err(|_| KeyError::Pem)?,
        })
        .map_err(|_| KeyError::Pem)
    }
}

impl PublicKey {
    /// Reads `PUBLIC KEY` of every kind that authenticates here, and of RSA what
    /// [`RsaKey::from_pem`] reads.
    ///
    /// # Errors
    /// [`KeyError::Pem`] if it is none of these, otherwise what is wrong with the key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let start = text.find("-----BEGIN").ok_or(KeyError::Pem)?;
        let block = text.get(start..).ok_or(KeyError::Pem)?.trim_end();
        if block.starts_with("-----BEGIN PUBLIC KEY")
            && let Ok((_, document)) = Document::from_pem(block)
            && let Some(key) = elliptic_from_spki(document.as_bytes())
        {
            return Ok(key);
        }
        RsaKey::from_pem(text).map(Self::Rsa)
    }

    /// DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError::Pem`] for [`Self::Other`], whose form nobody here knows.
    pub fn to_spki_der(&self) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Rsa(key) => key.to_spki_der(),
            Self::EcdsaP256(point) => Ok([&SPKI_P256[..], point].concat()),
            Self::EcdsaP384(point) => Ok([&SPKI_P384[..], point].concat()),
            Self::Ed25519(point) => Ok([&SPKI_ED25519[..], point].concat()),
            Self::Other { .. } => Err(KeyError::Pem),
        }
    }

    /// PEM `PUBLIC KEY` (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// As [`Self::to_spki_der`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let der = self.to_spki_der()?;
        let document = Document::try_from(der).map_err(|_| KeyError::Pem)?;
        document.to_pem("PUBLIC KEY", LineEnding::LF).map_err(|_| KeyError::Pem)
    }
}

/// A SubjectPublicKeyInfo of these kinds has one form only: its beginning is compared.
fn elliptic_from_spki(der: &[u8]) -> Option<PublicKey> {
    let p256 = der.strip_prefix(&SPKI_P256).and_then(|point| point.try_into().ok());
    let p384 = der.strip_prefix(&SPKI_P384).and_then(|point| point.try_into().ok());
    let ed25519 = der.strip_prefix(&SPKI_ED25519).and_then(|point| point.try_into().ok());
    p256.map(PublicKey::EcdsaP256)
        .or_else(|| p384.map(PublicKey::EcdsaP384))
        .or_else(|| ed25519.map(PublicKey::Ed25519))
}

/// id-ecPublicKey with the curve's name, and a BIT STRING of an uncompressed point (RFC 5480 §2).
const SPKI_P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const SPKI_P384: [u8; 24] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
    0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
];
/// id-Ed25519 without parameters (RFC 8410 §4).
const SPKI_ED25519: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Only keys without restrictions: those marked for PSS alone (`id-RSASSA-PSS`) are refused.
fn check_algorithm(oid: ObjectIdentifier) -> Result<(), KeyError> {
    if oid == rsa::pkcs1::ALGORITHM_OID { Ok(()) } else { Err(KeyError::Pem) }
}

fn public_key(der: &[u8]) -> Result<RsaKey, KeyError> {
    let key = RsaPublicKeyRef::from_der(der).map_err(|_| KeyError::Pem)?;
    RsaKey::new(key.public_exponent.as_uint_ref().as_bytes(), key.modulus.as_uint_ref().as_bytes())
}

fn public_half(der: &[u8]) -> Result<RsaKey, KeyError> {
    let key = RsaPrivateKeyRef::from_der(der).map_err(|_| KeyError::Pem)?;
    RsaKey::new(key.public_exponent.as_uint_ref().as_bytes(), key.modulus.as_uint_ref().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::tests::{any_key, key};
    use proptest::prelude::*;

    /// Made with `openssl pkey -pubout`.
    #[test]
    fn elliptic_keys_read_back() {
        let p256 = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE";
        for (key, start) in [
            (PublicKey::EcdsaP256([7; 64]), p256),
            (
                PublicKey::EcdsaP384([7; 96]),
                "-----BEGIN PUBLIC KEY-----\nMHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE",
            ),
            (PublicKey::Ed25519([7; 32]), "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA"),
        ] {
            let pem = key.to_pem().unwrap();
            assert!(pem.starts_with(start), "{pem}");
            assert_eq!(PublicKey::from_pem(&format!("some text\n{pem}")), Ok(key.clone()));
            let mut der = key.to_spki_der().unwrap();
            der.pop();
            assert_eq!(elliptic_from_spki(&der), None);
            der.extend([7, 7]);
            assert_eq!(elliptic_from_spki(&der), None);
        }
        let rsa = key(2048, 0);
        assert_eq!(PublicKey::from_pem(&rsa.to_pem().unwrap()), Ok(rsa.clone().into()));
        assert_eq!(PublicKey::from(rsa.clone()).to_pem(), rsa.to_pem());
        let other = PublicKey::Other { algorithm: 4, octets: vec![7; 57] };
        assert_eq!(other.to_pem(), Err(KeyError::Pem));
        assert_eq!(PublicKey::from_pem("-----BEGIN CERTIFICATE-----\n"), Err(KeyError::Pem));
    }

    proptest! {
        #[test]
        fn pem_reads_back(key in any_key()) {
            prop_assert_eq!(RsaKey::from_pem(&key.to_pem().unwrap()), Ok(key.clone()));
            prop_assert_eq!(RsaKey::from_pem(&key.to_pkcs1_pem().unwrap()), Ok(key.clone()));
            prop_assert_eq!(RsaKey::from_spki_der(&key.to_spki_der().unwrap()), Ok(key));
        }

        #[test]
        fn no_der_panics(octets in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = RsaKey::from_spki_der(&octets);
            let _ = RsaKey::from_pkcs8_der(&octets);
            let _ = RsaKey::from_pem(&String::from_utf8_lossy(&octets));
        }
    }

    #[test]
    fn text_around_the_block() {
        let pem = key(2048, 0).to_pem().unwrap();
        assert_eq!(RsaKey::from_pem(&format!("# host key\n{pem}\n\n")), Ok(key(2048, 0)));
        assert_eq!(RsaKey::from_pem(&pem.replace("PUBLIC", "EC")), Err(KeyError::Pem));
        assert_eq!(RsaKey::from_pem(""), Err(KeyError::Pem));
        assert_eq!(RsaKey::from_pem(&pem[..pem.len() / 2]), Err(KeyError::Pem));
    }

    /// A throw-away key of 512 bits in the four forms, as OpenSSL writes them.
    #[test]
    fn openssl_forms() {
        let expected = RsaKey::from_pem(SPKI).unwrap();
        assert_eq!(expected.bits(), 512);
        assert_eq!(expected.exponent_value(), 65537);
        for form in [PKCS1_PUBLIC, PKCS8, PKCS1_PRIVATE] {
            assert_eq!(RsaKey::from_pem(form).as_ref(), Ok(&expected));
        }
    }

    const SPKI: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBALiWNiBpn+FA1Um6O7k6moiU4hk4xreY\n\
G7d/mxmdSehfIWJVHq1SLBsgpbGaioZmaRjqOgxg7xvez8/t80TIJ/UCAwEAAQ==\n\
-----END PUBLIC KEY-----\n\
";

    const PKCS1_PUBLIC: &str = "\
-----BEGIN RSA PUBLIC KEY-----\n\
MEgCQQC4ljYgaZ/hQNVJuju5OpqIlOIZOMa3mBu3f5sZnUnoXyFiVR6tUiwbIKWx\n\
moqGZmkY6joMYO8b3s/P7fNEyCf1AgMBAAE=\n\
-----END RSA PUBLIC KEY-----\n\
";

    const PKCS8: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIIBVAIBADANBgkqhkiG9w0BAQEFAASCAT4wggE6AgEAAkEAuJY2IGmf4UDVSbo7\n\
uTqaiJTiGTjGt5gbt3+bGZ1J6F8hYlUerVIsGyClsZqKhmZpGOo6DGDvG97Pz+3z\n\
RMgn9QIDAQABAkAQSnGMesX5g1dPongS6PEqjLlHsJMZMPuBPmnZ4N/c+iHF/1C0\n\
TTvTWRDomIoTSpJx4oku3UtkzepL5XRDIR8BAiEA8puSUpoMBOjiJea9D/qOweyw\n\
2keellDW5V55pMdGNH0CIQDCxrZ2OlBqch28REAmGwoIWPjLs3oDuI+RfSZm5V5y\n\
2QIge7gkRWVzjalpcmSZs6VV2cUnZxkw4Xz2KeAk7ogE4E0CIB5r4vu8R+sYP8Sz\n\
9ED/YCXFn7ZRJfGG1gWnQmQ31vShAiEAj3te3WiEqDzIvLorE5GbLc8pI5mFi0/q\n\
1r1yHyu/lRo=\n\
-----END PRIVATE KEY-----\n\
";

    const PKCS1_PRIVATE: &str = "\
-----BEGIN RSA PRIVATE KEY-----\n\
MIIBOgIBAAJBALiWNiBpn+FA1Um6O7k6moiU4hk4xreYG7d/mxmdSehfIWJVHq1S\n\
LBsgpbGaioZmaRjqOgxg7xvez8/t80TIJ/UCAwEAAQJAEEpxjHrF+YNXT6J4Eujx\n\
Koy5R7CTGTD7gT5p2eDf3Pohxf9QtE0701kQ6JiKE0qSceKJLt1LZM3qS+V0QyEf\n\
AQIhAPKbklKaDATo4iXmvQ/6jsHssNpHnpZQ1uVeeaTHRjR9AiEAwsa2djpQanId\n\
vERAJhsKCFj4y7N6A7iPkX0mZuVectkCIHu4JEVlc42paXJkmbOlVdnFJ2cZMOF8\n\
9ingJO6IBOBNAiAea+L7vEfrGD/Es/RA/2AlxZ+2USXxhtYFp0JkN9b0oQIhAI97\n\
Xt1ohKg8yLy6KxORmy3PKSOZhYtP6ta9ch8rv5Ua\n\
-----END RSA PRIVATE KEY-----\n\
";
}
