use super::*;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaPublicKeyComponents,
};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::OnceLock;

use crate::kernel::namespace::skipped;

/// One key for all tests of this file: making one takes a while.
fn key() -> &'static HostKey {
    static KEY: OnceLock<HostKey> = OnceLock::new();
    KEY.get_or_init(|| HostKey::generate(Bits::Rsa2048).unwrap())
}

/// A directory of its own for each test, removed at its end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("oe-hostkey-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

#[test]
fn made_saved_and_read_again() {
    let dir = Dir::new("saved");
    let path = dir.at("host.key");
    key().save(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let again = HostKey::load(&path).unwrap();
    assert_eq!(again.public(), key().public());
    let rsa = again.public().rsa().unwrap();
    assert_eq!((rsa.bits(), rsa.exponent_value()), (2048, 65537));
    assert_eq!(load_public(&path).unwrap(), *key().public());
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(key().save(&path), Err(HostKeyError::Exists(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before, "never overwrites");
    let lost = dir.at("no/such/host.key");
    assert!(matches!(key().save(&lost), Err(HostKeyError::NoDirectory(_))));
}

#[test]
fn files_that_others_can_read_are_refused() {
    let dir = Dir::new("modes");
    let path = dir.at("host.key");
    key().save(&path).unwrap();
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601] {
        mode(&path, bits);
        let error = HostKey::load(&path).unwrap_err();
        assert!(matches!(error, HostKeyError::Open { mode, .. } if mode == bits), "{error}");
        assert!(load_public(&path).is_err(), "{bits:o}");
    }
    mode(&path, 0o400);
    assert!(HostKey::load(&path).is_ok());
}

#[test]
fn only_regular_files_count() {
    let dir = Dir::new("kinds");
    let path = dir.at("host.key");
    key().save(&path).unwrap();
    let link = dir.at("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(HostKey::load(&link), Err(HostKeyError::Link(_))));
    assert!(matches!(HostKey::load(&dir.0), Err(HostKeyError::NotRegular(_))));
    assert!(matches!(HostKey::load(Path::new("/dev/zero")), Err(HostKeyError::NotRegular(_))));
    assert!(matches!(HostKey::load(&dir.at("none")), Err(HostKeyError::Missing(_))));
}

/// P18.
#[test]
fn foreign_owners_are_refused() {
    let dir = Dir::new("owner");
    let path = dir.at("host.key");
    key().save(&path).unwrap();
    if own_uid().unwrap() != 0 || std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        return skipped("giving a file away needs root");
    }
    let error = HostKey::load(&path).unwrap_err();
    assert!(matches!(error, HostKeyError::Owner { owner: 12345, .. }), "{error}");
}

#[test]
fn contents_that_are_no_key() {
    let dir = Dir::new("contents");
    let public = key().public().to_pem().unwrap();
    let private = key().to_pem().unwrap().to_string();
    let small = rsa_pkcs1(1024);
    for (name, text, why) in [
        ("empty", "", "no PEM in it"),
        ("words", "this is no key\n", "no PEM in it"),
        ("public", &public, "a public key; the private one is needed"),
        ("half", &private[..private.len() / 2], "PEM that cannot be decoded"),
        (
            "ssh",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
            "in OpenSSH's format; convert with: ssh-keygen -p -m PKCS8 -f FILE",
        ),
        ("ec", "-----BEGIN EC PARAMETERS-----\n", "not a private key"),
        (
            "sealed",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            "encrypted, and there is nobody to ask for the passphrase",
        ),
        ("small", &small, "below 2048 bits, which no peer accepts"),
        ("large", &" ".repeat(MAX_FILE + 1), "too large for a key"),
    ] {
        let path = dir.at(name);
        std::fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        let error = HostKey::load(&path).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {why}", path.display()));
    }
    let path = dir.at("spki");
    std::fs::write(&path, &public).unwrap();
    assert_eq!(load_public(&path).unwrap(), *key().public(), "a public key may be readable");
}

/// A PKCS#1 private key, as OpenSSL wrote them for decades.
fn rsa_pkcs1(bits: usize) -> String {
    use rsa::pkcs1::EncodeRsaPrivateKey as _;
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let key = RsaPrivateKey::new(&mut rng, bits).unwrap();
    key.to_pkcs1_pem(LineEnding::LF).unwrap().to_string()
}

#[test]
fn pkcs1_is_read() {
    let pem = rsa_pkcs1(2048);
    let key = HostKey::from_pem(&pem).unwrap();
    assert_eq!(*key.public(), PublicKey::from_pem(&pem).unwrap());
    key.sign(SignatureScheme::RsaPssSha256, b"message").unwrap();
}

#[test]
fn signatures_verify() {
    let rsa = key().public().rsa().unwrap();
    let public = RsaPublicKeyComponents { n: rsa.modulus(), e: rsa.exponent() };
    for (scheme, verifier) in [
        (SignatureScheme::RsaPssSha256, &RSA_PSS_2048_8192_SHA256),
        (SignatureScheme::RsaPssSha384, &RSA_PSS_2048_8192_SHA384),
        (SignatureScheme::RsaPssSha512, &RSA_PSS_2048_8192_SHA512),
        (SignatureScheme::RsaPkcs1Sha256, &RSA_PKCS1_2048_8192_SHA256),
        (SignatureScheme::RsaPkcs1Sha384, &RSA_PKCS1_2048_8192_SHA384),
        (SignatureScheme::RsaPkcs1Sha512, &RSA_PKCS1_2048_8192_SHA512),
    ] {
        let signature = key().sign(scheme, b"message").unwrap();
        assert_eq!(signature.len(), 256);
        public.verify(verifier, b"message", &signature).unwrap();
        assert!(public.verify(verifier, b"another", &signature).is_err());
    }
}

const KINDS: [Kind; 3] = [Kind::EcdsaP256, Kind::EcdsaP384, Kind::Ed25519];

#[test]
fn elliptic_keys_are_made_saved_and_read_again() {
    let dir = Dir::new("elliptic");
    for kind in KINDS {
        let key = HostKey::generate_kind(kind).unwrap();
        let path = dir.at(&format!("{kind:?}"));
        key.save(&path).unwrap();
        assert_eq!(HostKey::load(&path).unwrap().public(), key.public());
        assert_eq!(load_public(&path).unwrap(), *key.public());
        let public = dir.at(&format!("{kind:?}.pub"));
        std::fs::write(&public, key.public().to_pem().unwrap()).unwrap();
        assert_eq!(load_public(&public).unwrap(), *key.public());
        assert_eq!(load_peer(&public).unwrap(), *key.public());
        std::fs::write(&public, format!("0s{}\n", key.public().to_base64())).unwrap();
        assert_eq!(load_peer(&public).unwrap(), *key.public());
        let text = format!("{key:?}");
        assert!(text.len() < 600, "{text}");
    }
}

/// A key signs in its own ways and in no other.
#[test]
fn elliptic_keys_sign_in_their_own_ways() {
    let ways = [
        (Kind::EcdsaP256, SignatureScheme::EcdsaSha256, None),
        (Kind::EcdsaP256, SignatureScheme::EcdsaP256Bare, Some(64)),
        (Kind::EcdsaP384, SignatureScheme::EcdsaSha384, None),
        (Kind::EcdsaP384, SignatureScheme::EcdsaP384Bare, Some(96)),
        (Kind::Ed25519, SignatureScheme::Ed25519, Some(64)),
        (Kind::Rsa, SignatureScheme::RsaPssSha256, Some(256)),
    ];
    for kind in KINDS {
        let key = HostKey::generate_kind(kind).unwrap();
        for (own, scheme, len) in ways {
            match key.sign(scheme, b"message") {
                Ok(signature) => {
                    assert_eq!(own, kind);
                    assert!(len.is_none_or(|len| len == signature.len()));
                }
                Err(_) => assert_ne!(own, kind),
            }
        }
    }
    assert!(key().sign(SignatureScheme::Ed25519, b"message").is_err());
}

/// As OpenSSL and strongSwan's pki write them: an Ed25519 key without its public half.
#[test]
fn other_peoples_files_are_read() {
    // RFC 8410 §10.3.
    let key = HostKey::from_pem(
        "-----BEGIN PRIVATE KEY-----\n\
         MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
         -----END PRIVATE KEY-----\n",
    )
    .unwrap();
    // The public key of §10.1 belongs to it.
    let pem = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";
    assert_eq!(*key.public(), PublicKey::from_pem(pem).unwrap());
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nMA==\n-----END EC PRIVATE KEY-----\n";
    assert!(HostKey::from_pem(sec1).unwrap_err().contains("openssl pkcs8"));
}

#[test]
fn secrets_are_read_from_files_that_others_cannot_read() {
    let dir = Dir::new("secrets");
    let path = dir.at("psk");
    let write = |text: &str| {
        std::fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        load_secret(&path)
    };
    let plain = write("correct horse battery staple\n").unwrap();
    let coded = write("0sY29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==\n").unwrap();
    assert_eq!(plain, coded);
    assert_eq!(format!("{plain:?}"), "SharedSecret(..)");
    for (text, why) in [
        ("hunter2\n", "shorter than 16"),
        ("", "shorter than 16"),
        ("0sY29y", "shorter than 16"),
        ("0s!!!", "not base64"),
        ("correct horse\nbattery staple\n", "more than one line"),
    ] {
        let error = write(text).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains("horse"), "{error}");
    }
    write("correct horse battery staple\n").unwrap();
    mode(&path, 0o640);
    assert!(matches!(load_secret(&path), Err(HostKeyError::Open { .. })));
}

#[test]
fn nothing_secret_is_printed() {
    let text = format!("{:?}", key());
    assert!(text.starts_with("HostKey(Rsa(RsaKey(AwEAA"), "{text}");
    assert!(text.len() < 100);
}

/// A peer's key is its own to make.
#[test]
fn a_peers_key_that_is_missing_is_not_made_here() {
    for said in [
        load_peer(Path::new("/nonexistent/peer.pem")).unwrap_err().to_string(),
        load_secret(Path::new("/nonexistent/peer.pem")).unwrap_err().to_string(),
    ] {
        assert!(said.starts_with("/nonexistent/peer.pem: No such file"), "{said}");
    }
}
