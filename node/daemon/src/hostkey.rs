//! The host's key: made, kept in a file that nobody else can read, and used to sign (RFC 7427). It
//! never decrypts.

mod kept;
mod pair;
mod signers;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dnskeys::PublicKey;
use ike::{SharedSecret, SignatureScheme};
use pair::Pair;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use rsa::RsaPrivateKey;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::EncodePrivateKey as _;
use rsa::pkcs8::der::SecretDocument;
use rsa::pkcs8::der::pem::LineEnding;
use zeroize::Zeroizing;

use crate::whole;

pub(crate) use kept::{announce, load_or_make, warning};
pub(crate) use signers::{Signed, Signers};

/// The host key, ready to sign. Wiped when dropped, never printed.
pub(crate) struct HostKey {
    pkcs8: SecretDocument,
    pair: Pair,
    public: PublicKey,
}

/// Kinds of keys that can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Kind {
    /// What every peer understands.
    #[default]
    Rsa,
    /// Smaller and faster; for peers that know RFC 7427.
    EcdsaP256,
    /// The same with a longer curve.
    EcdsaP384,
    /// The smallest and fastest; for peers that know RFC 8420.
    Ed25519,
}

/// Modulus lengths that can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Bits {
    /// The least that peers accept.
    #[value(name = "2048")]
    Rsa2048,
    /// For keys that are to last.
    #[default]
    #[value(name = "3072")]
    Rsa3072,
    /// Three times slower than 3072 bits, and too large for old peers.
    #[value(name = "4096")]
    Rsa4096,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostKeyError {
    /// The file could not be opened, read, or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is none.
    #[error("{}: no such file; make a key with: oe-node keygen", .0.display())]
    Missing(PathBuf),
    /// There is none any more.
    #[error("{}: no such file, and a node has run here with one ({} tells): put it back, or make another, which has to be published anew, with: oe-node keygen --output {}", path.display(), trace.display(), path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// What only a node that had a key makes.
        trace: PathBuf,
    },
    /// There is one already.
    #[error("{}: already there, and never overwritten: move it away first if it is no longer published", .0.display())]
    Exists(PathBuf),
    /// The directory for it does not exist.
    #[error("{}: its directory does not exist", .0.display())]
    NoDirectory(PathBuf),
    /// A link could be turned to another file between two looks.
    #[error("{}: a symbolic link; name the file itself", .0.display())]
    Link(PathBuf),
    /// A device, a pipe, a directory.
    #[error("{}: not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// Others can read or write it.
    #[error("{}: mode {mode:04o} lets others at the private key; repair with: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{}: owned by uid {owner}, neither by this process nor by root", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// Its content is no private key of ours.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The library failed.
    #[error("{0}")]
    Library(&'static str),
}

impl HostKey {
    /// Makes a key with exponent 65537. Takes up to some seconds.
    pub(crate) fn generate(bits: Bits) -> Result<Self, HostKeyError> {
        let bits = match bits {
            Bits::Rsa2048 => 2048,
            Bits::Rsa3072 => 3072,
            Bits::Rsa4096 => 4096,
        };
        let failed = || HostKeyError::Library("the library could not make a key");
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())
            .map_err(|_| HostKeyError::Library("the system has no randomness to give"))?;
        let mut rng = ChaCha20Rng::from_seed(*seed);
        let key = RsaPrivateKey::new(&mut rng, bits).map_err(|_| failed())?;
        let pkcs8 = key.to_pkcs8_der().map_err(|_| failed())?;
        Self::from_pkcs8(pkcs8).map_err(HostKeyError::Library)
    }

    /// Makes a key of another kind than RSA, or an RSA key of the usual length.
    pub(crate) fn generate_kind(kind: Kind) -> Result<Self, HostKeyError> {
        let failed = || HostKeyError::Library("the library could not make a key");
        let pkcs8 = match kind {
            Kind::Rsa => return Self::generate(Bits::default()),
            Kind::EcdsaP256 | Kind::EcdsaP384 | Kind::Ed25519 => pair::generate(kind),
        };
        Self::from_pkcs8(pkcs8.ok_or_else(failed)?).map_err(HostKeyError::Library)
    }

    /// Reads a key from a file that only its owner can read: PEM, PKCS#8 or PKCS#1.
    pub(crate) fn load(path: &Path) -> Result<Self, HostKeyError> {
        let text = read_private(path)?;
        Self::from_pem(&text).map_err(|why| HostKeyError::Content { path: path.to_path_buf(), why })
    }

    /// Reads PEM, PKCS#8 or PKCS#1.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let Some(start) = text.find("-----BEGIN ") else {
            return Err("no PEM in it");
        };
        let text = text.get(start..).unwrap_or("").trim_end();
        // By its label first: what is not ours may not even be strict PEM.
        let label = text.trim_start_matches('-').split("-----").next().unwrap_or("");
        match label.trim_start_matches("BEGIN ") {
            "PRIVATE KEY" => Self::from_pkcs8(decode_pem(text)?),
            "RSA PRIVATE KEY" => {
                let key = RsaPrivateKey::from_pkcs1_der(decode_pem(text)?.as_bytes())
                    .map_err(|_| "not a private RSA key")?;
                Self::from_pkcs8(key.to_pkcs8_der().map_err(|_| "not a private RSA key")?)
            }
            "EC PRIVATE KEY" => {
                Err("in SEC 1 form; convert with: openssl pkcs8 -topk8 -nodes -in FILE -out FILE")
            }
            "ENCRYPTED PRIVATE KEY" => {
                Err("encrypted, and there is nobody to ask for the passphrase")
            }
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Err("a public key; the private one is needed"),
            "OPENSSH PRIVATE KEY" => {
                Err("in OpenSSH's format; convert with: ssh-keygen -p -m PKCS8 -f FILE")
            }
            _ => Err("not a private key"),
        }
    }

    fn from_pkcs8(pkcs8: SecretDocument) -> Result<Self, &'static str> {
        let (pair, public) = Pair::from_pkcs8(&pkcs8)?;
        Ok(Self { pkcs8, pair, public })
    }

    /// Writes PKCS#8 PEM to a new file of mode 0600.
    pub(crate) fn save(&self, path: &Path) -> Result<(), HostKeyError> {
        let failed = |error| HostKeyError::File { path: path.to_path_buf(), error };
        let pem = self.to_pem()?;
        match whole::create(path, pem.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(HostKeyError::Exists(path.to_path_buf()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(HostKeyError::NoDirectory(path.to_path_buf()))
            }
            written => written.map_err(failed),
        }
    }

    /// PKCS#8 PEM.
    pub(crate) fn to_pem(&self) -> Result<Zeroizing<String>, HostKeyError> {
        self.pkcs8
            .to_pem("PRIVATE KEY", LineEnding::LF)
            .map_err(|_| HostKeyError::Library("the key cannot be written as PEM"))
    }

    /// The public half.
    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message (not its digest), blinded and in constant time.
    pub(crate) fn sign(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
    ) -> Result<Vec<u8>, HostKeyError> {
        self.pair
            .sign(scheme, message)
            .ok_or(HostKeyError::Library("the library could not sign, or not in this way"))
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({:?})", self.public)
    }
}

/// Lets the library seed its random generator, which takes it some 70 ms once in a process, and
/// another moment in each thread: no first packet should wait for that inside its first signature.
pub(crate) fn warm_up() {
    let mut octet = [0];
    // If there is no randomness, signing will say so.
    let _ = SystemRandom::new().fill(&mut octet);
}

fn decode_pem(text: &str) -> Result<SecretDocument, &'static str> {
    let decoded = SecretDocument::from_pem(text).map_err(|_| "PEM that cannot be decoded")?;
    Ok(decoded.1)
}

/// Reads the public half from a file: PEM of a public key, or of a private one that only its
/// owner can read.
pub(crate) fn load_public(path: &Path) -> Result<PublicKey, HostKeyError> {
    let file = open(path)?;
    let text = read_text(path, &file)?;
    if text.contains("PRIVATE KEY-----") {
        return Ok(HostKey::load(path)?.public);
    }
    PublicKey::from_pem(&text)
        .map_err(|error| HostKeyError::Content { path: path.to_path_buf(), why: error.why() })
}

/// Reads a peer's public key: PEM, or the base64 of DNS and of the classic files (with or without
/// `0s` in front).
pub(crate) fn load_peer(path: &Path) -> Result<PublicKey, HostKeyError> {
    let text = read_text(path, &open(path).map_err(not_made_here)?)?;
    let trimmed = text.trim();
    let key = if trimmed.contains("-----BEGIN") {
        PublicKey::from_pem(trimmed)
    } else {
        PublicKey::from_base64(trimmed.strip_prefix("0s").unwrap_or(trimmed).as_bytes())
    };
    key.map_err(|error| HostKeyError::Content { path: path.to_path_buf(), why: error.why() })
}

/// Reads a secret that is shared with a peer, from a file that only its owner can read: one line of
/// text, or its base64 behind `0s`.
pub(crate) fn load_secret(path: &Path) -> Result<SharedSecret, HostKeyError> {
    let error = |why| HostKeyError::Content { path: path.to_path_buf(), why };
    let text = read_private(path).map_err(not_made_here)?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.contains(['\r', '\n']) {
        return Err(error("more than one line, where one is the secret"));
    }
    let octets = match line.strip_prefix("0s") {
        Some(coded) => BASE64.decode(coded).map_err(|_| error("not base64 behind 0s"))?,
        None => line.as_bytes().to_vec(),
    };
    SharedSecret::new(octets).ok_or_else(|| {
        error(
            "shorter than 16 octets: whoever answers in the peer's place could guess it at \
             leisure; make one with: openssl rand -base64 32",
        )
    })
}

/// Reads a file that must be private to its owner. The checks look at the file that was opened,
/// not at its name.
fn read_private(path: &Path) -> Result<Zeroizing<String>, HostKeyError> {
    let at = || path.to_path_buf();
    let file = open(path)?;
    let meta = file.metadata().map_err(|error| HostKeyError::File { path: at(), error })?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(HostKeyError::Open { path: at(), mode });
    }
    let us = own_uid().map_err(|error| HostKeyError::File { path: at(), error })?;
    if meta.uid() != us && meta.uid() != 0 {
        return Err(HostKeyError::Owner { path: at(), owner: meta.uid() });
    }
    read_text(path, &file)
}

/// What belongs to a peer, or is shared with it, is not there to be made.
fn not_made_here(error: HostKeyError) -> HostKeyError {
    match error {
        HostKeyError::Missing(path) => {
            HostKeyError::File { path, error: io::Error::from_raw_os_error(libc::ENOENT) }
        }
        other => other,
    }
}

fn open(path: &Path) -> Result<File, HostKeyError> {
    // O_NONBLOCK: opening a pipe must not wait for its writer.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(HostKeyError::Missing(path.to_path_buf()));
        }
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(HostKeyError::Link(path.to_path_buf()));
        }
        other => other.map_err(|error| HostKeyError::File { path: path.to_path_buf(), error })?,
    };
    let meta =
        file.metadata().map_err(|error| HostKeyError::File { path: path.to_path_buf(), error })?;
    if meta.is_file() { Ok(file) } else { Err(HostKeyError::NotRegular(path.to_path_buf())) }
}

fn read_text(path: &Path, file: &File) -> Result<Zeroizing<String>, HostKeyError> {
    // Sized at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE + 1));
    let limit = u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX);
    file.take(limit)
        .read_to_string(&mut text)
        .map_err(|error| HostKeyError::File { path: path.to_path_buf(), error })?;
    if text.len() > MAX_FILE {
        let why = "too large for a key";
        return Err(HostKeyError::Content { path: path.to_path_buf(), why });
    }
    Ok(text)
}

/// Whose files we make: the owner of a pipe of our own.
pub(crate) fn own_uid() -> io::Result<u32> {
    let (reader, _writer) = io::pipe()?;
    Ok(File::from(OwnedFd::from(reader)).metadata()?.uid())
}

/// Makes the directory in which a key is to lie, for nobody but us.
pub(crate) fn make_directory(path: &Path) -> Result<(), HostKeyError> {
    let Some(dir) = path.parent() else { return Ok(()) };
    match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(error) => Err(HostKeyError::File { path: dir.to_path_buf(), error }),
    }
}

/// The largest PEM of an RSA-8192 key is below 7 kB; text may stand before it.
const MAX_FILE: usize = 32 * 1024;

#[cfg(test)]
mod tests;
