//! How many strangers may be half-way in (RFC 7296 §2.6, RFC 8019 §4).

use std::collections::BTreeMap;
use std::net::IpAddr;

use sa::Prefix;

/// Counts half-open responder SAs, all together and by source prefix.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    total: usize,
    by_source: BTreeMap<Prefix, usize>,
}

/// What to do with a request for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    Admit,
    AskCookie,
    Refuse,
}

impl HalfOpen {
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Judges a request from `source`; `proven` if it brought a good cookie.
    pub(crate) fn judge(
        &self,
        source: IpAddr,
        proven: bool,
        cookie_threshold: usize,
        limit: usize,
    ) -> Admission {
        let here = self.by_source.get(&prefix(source)).copied().unwrap_or(0);
        if self.total >= limit || here >= limit / SOURCE_SHARE {
            Admission::Refuse
        } else if !proven && (self.total >= cookie_threshold || here >= SOURCE_COOKIES) {
            Admission::AskCookie
        } else {
            Admission::Admit
        }
    }

    pub(crate) fn add(&mut self, source: IpAddr) {
        self.total += 1;
        *self.by_source.entry(prefix(source)).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, source: IpAddr) {
        self.total = self.total.saturating_sub(1);
        if let Some(here) = self.by_source.get_mut(&prefix(source)) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.by_source.remove(&prefix(source));
            }
        }
    }
}

/// What counts as one source: who has one address of these has all of them.
#[must_use]
pub fn prefix(source: IpAddr) -> Prefix {
    let len = if source.is_ipv4() { 24 } else { 56 };
    Prefix::new(source, len).unwrap_or_else(|_| Prefix::host(source))
}

/// One prefix may have this part of what there is; a LAN that starts at once still gets in.
const SOURCE_SHARE: usize = 4;
/// One flooding prefix is asked for cookies while the others are not.
const SOURCE_COOKIES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Attack A24.
    /// gotatun 0.4.1.
    #[test]
    fn a_flood_from_one_prefix_does_not_shut_out_others() {
        let mut half_open = HalfOpen::default();
        let flood: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "198.51.100.1".parse().unwrap();
        for _ in 0..SOURCE_COOKIES {
            assert_eq!(half_open.judge(flood, false, 1000, 2000), Admission::Admit);
            half_open.add(flood);
        }
        assert_eq!(half_open.judge(flood, false, 1000, 2000), Admission::AskCookie);
        assert_eq!(
            half_open.judge("192.0.2.99".parse().unwrap(), false, 1000, 2000),
            Admission::AskCookie
        );
        assert_eq!(half_open.judge(flood, true, 1000, 2000), Admission::Admit);
        assert_eq!(half_open.judge(other, false, 1000, 2000), Admission::Admit);
        for _ in SOURCE_COOKIES..64 {
            half_open.add(flood);
        }
        assert_eq!(half_open.judge(flood, true, 1000, 2000), Admission::Admit);
        assert_eq!(half_open.judge(flood, true, 1000, 256), Admission::Refuse);
        assert_eq!(half_open.judge(other, false, 1000, 2000), Admission::Admit);
        assert_eq!(half_open.judge(other, false, 10, 2000), Admission::AskCookie);
        assert_eq!(half_open.judge(other, true, 10, 64), Admission::Refuse);
        for _ in 0..64 {
            half_open.remove(flood);
        }
        assert_eq!(half_open.total(), 0);
        assert!(half_open.by_source.is_empty());
    }
}
