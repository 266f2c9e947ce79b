//! Published vectors, and forgeries of our own making, through the functions that peers' octets go
//! through: Wycheproof's, those of the RFCs, and what the advisories of docs/THREATS.md describe.
//!
//! Wycheproof calls some results "acceptable". We decide: a DigestInfo without its NULL is refused,
//! because signatures are compared, not parsed; a key agreement that yields zero is refused (RFC
//! 7748 §6.1), on every curve; every other acceptable point of Curve25519 is computed with, as RFC
//! 7748 §5 wants it; compressed points of the NIST curves are refused, because RFC 5903 §7 has both
//! coordinates.

mod aead;
mod agreement;
mod curves;
mod forgery;
mod kem;
mod keys;
mod number;
mod prf;
mod rsa;

/// Octets from hexadecimal, blanks ignored.
fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
