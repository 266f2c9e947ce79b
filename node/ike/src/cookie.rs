//! Stateless cookies (RFC 7296 §2.6): proof that an initiator receives what is sent to its
//! address, at the cost of one MAC.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use rand_core::Rng;
use subtle::ConstantTimeEq;

/// The secrets that cookies are made with. There are none until a cookie is asked for, and none
/// some time after the last.
#[derive(Debug, Default)]
pub(crate) struct Cookies {
    version: u8,
    current: Option<Secret>,
    previous: Option<Secret>,
}

#[derive(Debug)]
struct Secret {
    version: u8,
    key: hmac::Key,
    until: Instant,
}

impl Cookies {
    /// The cookie for this request.
    pub(crate) fn bake(
        &mut self,
        now: Instant,
        rng: &mut impl Rng,
        remote: SocketAddr,
        spi_i: u64,
        nonce_i: &[u8],
    ) -> Vec<u8> {
        self.rotate(now);
        let secret = self.current.get_or_insert_with(|| {
            self.version = self.version.wrapping_add(1);
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            Secret {
                version: self.version,
                key: hmac::Key::new(hmac::HMAC_SHA256, &key),
                until: now + SECRET_LIFE,
            }
        });
        secret.bake(remote, spi_i, nonce_i)
    }

    /// Whether we made this cookie for this request, not too long ago.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        spi_i: u64,
        nonce_i: &[u8],
        cookie: &[u8],
    ) -> bool {
        self.rotate(now);
        [&self.current, &self.previous]
            .into_iter()
            .flatten()
            .any(|secret| bool::from(secret.bake(remote, spi_i, nonce_i).as_slice().ct_eq(cookie)))
    }

    /// When a secret is to be replaced.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.current.as_ref().or(self.previous.as_ref()).map(|s| s.until)
    }

    /// Replaces what is due. A secret serves for twice [`SECRET_LIFE`] at most.
    pub(crate) fn rotate(&mut self, now: Instant) {
        if let Some(secret) = self.current.take_if(|s| s.until <= now) {
            let until = secret.until + SECRET_LIFE;
            self.previous = Some(Secret { until, ..secret });
        }
        self.previous.take_if(|s| s.until <= now);
    }
}

impl Secret {
    /// Version, then a MAC over Ni, IPi, its port, SPIi and the version.
    fn bake(&self, remote: SocketAddr, spi_i: u64, nonce_i: &[u8]) -> Vec<u8> {
        let mut mac = hmac::Context::with_key(&self.key);
        match remote.ip() {
            std::net::IpAddr::V4(a) => mac.update(&a.octets()),
            std::net::IpAddr::V6(a) => mac.update(&a.octets()),
        }
        mac.update(&remote.port().to_be_bytes());
        mac.update(&spi_i.to_be_bytes());
        mac.update(&[self.version]);
        mac.update(nonce_i);
        let mut cookie = vec![self.version];
        cookie.extend_from_slice(mac.sign().as_ref());
        cookie
    }
}

/// Longer than any round trip, short enough that a cookie is of no use to who finds it later.
const SECRET_LIFE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    /// gotatun 0.6.0.
    #[test]
    fn a_cookie_is_good_for_its_own_request_only_and_for_a_while() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let mut cookies = Cookies::default();
        let now = Instant::now();
        let from: SocketAddr = "192.0.2.1:500".parse().unwrap();
        let nonce = [7; 32];
        let cookie = cookies.bake(now, &mut rng, from, 1, &nonce);
        assert!(cookie.len() <= 64);
        assert!(cookies.check(now, from, 1, &nonce, &cookie));
        assert!(!cookies.check(now, from, 2, &nonce, &cookie));
        assert!(!cookies.check(now, from, 1, &[8; 32], &cookie));
        assert!(!cookies.check(now, "192.0.2.1:501".parse().unwrap(), 1, &nonce, &cookie));
        assert!(!cookies.check(now, "192.0.2.2:500".parse().unwrap(), 1, &nonce, &cookie));
        assert!(!cookies.check(now, from, 1, &nonce, &[]));
        let later = now + SECRET_LIFE + Duration::from_secs(1);
        let second = cookies.bake(later, &mut rng, from, 1, &nonce);
        assert_ne!(cookie, second);
        assert!(cookies.check(later, from, 1, &nonce, &cookie));
        let end = now + 2 * SECRET_LIFE;
        assert!(!cookies.check(end, from, 1, &nonce, &cookie));
        assert!(cookies.check(end, from, 1, &nonce, &second));
        cookies.rotate(end + 3 * SECRET_LIFE);
        assert_eq!(cookies.deadline(), None);
    }
}
