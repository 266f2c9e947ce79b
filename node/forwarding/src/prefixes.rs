//! A table of prefixes with longest-prefix lookup.

use std::collections::HashMap;
use std::net::IpAddr;

use sa::Prefix;

use crate::hash::Seeded;

/// Values by prefix. A lookup probes once per length that is present, longest first: few lengths
/// are, and the packet path asks only about addresses it has not just seen.
pub(crate) struct PrefixTable<T> {
    values: HashMap<Prefix, T, Seeded>,
    /// Per family, how many prefixes of each length there are.
    v4: Lengths,
    v6: Lengths,
}

/// (length, number of prefixes), longest first.
type Lengths = Vec<(u8, usize)>;

impl<T> PrefixTable<T> {
    pub(crate) fn new(hasher: Seeded) -> Self {
        Self { values: HashMap::with_hasher(hasher), v4: Vec::new(), v6: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn contains(&self, prefix: &Prefix) -> bool {
        self.values.contains_key(prefix)
    }

    pub(crate) fn insert(&mut self, prefix: Prefix, value: T) {
        if self.values.insert(prefix, value).is_some() {
            return;
        }
        let lengths = if prefix.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        match lengths.binary_search_by(|(len, _)| prefix.len().cmp(len)) {
            Ok(at) => {
                if let Some((_, count)) = lengths.get_mut(at) {
                    *count += 1;
                }
            }
            Err(at) => lengths.insert(at, (prefix.len(), 1)),
        }
    }

    pub(crate) fn get_mut(&mut self, prefix: &Prefix) -> Option<&mut T> {
        self.values.get_mut(prefix)
    }

    pub(crate) fn remove(&mut self, prefix: &Prefix) -> Option<T> {
        let value = self.values.remove(prefix)?;
        let lengths = if prefix.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if let Some((_, count)) = lengths.iter_mut().find(|(len, _)| *len == prefix.len()) {
            *count -= 1;
        }
        lengths.retain(|(_, count)| *count > 0);
        Some(value)
    }

    /// Every value whose prefix holds `addr`, longest prefix first.
    pub(crate) fn matches(&self, addr: IpAddr) -> impl Iterator<Item = (Prefix, &T)> {
        let lengths = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths.iter().filter_map(move |(len, _)| {
            let prefix = Prefix::new(addr, *len).ok()?;
            self.values.get(&prefix).map(|value| (prefix, value))
        })
    }

    /// The value of the longest prefix that holds `addr`.
    pub(crate) fn longest(&self, addr: IpAddr) -> Option<&T> {
        self.matches(addr).next().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::ip;

    fn p(s: &str) -> Prefix {
        s.parse().unwrap()
    }

    fn table() -> PrefixTable<u32> {
        PrefixTable::new(Seeded::new(1, 0x9e37_79b9_7f4a_7c15))
    }

    #[test]
    fn the_longest_prefix_wins_in_any_order() {
        let mut t = table();
        for (prefix, value) in [
            ("10.1.0.0/16", 2),
            ("0.0.0.0/0", 0),
            ("10.1.2.3/32", 3),
            ("10.0.0.0/8", 1),
            ("::/0", 9),
        ] {
            t.insert(p(prefix), value);
        }
        for (addr, value) in [
            ("192.0.2.1", 0),
            ("10.9.9.9", 1),
            ("10.1.9.9", 2),
            ("10.1.2.3", 3),
            ("2001:db8::1", 9),
        ] {
            assert_eq!(t.longest(ip(addr)), Some(&value), "{addr}");
        }
        assert_eq!(t.matches(ip("10.1.2.3")).count(), 4);
        assert_eq!(t.remove(&p("10.1.0.0/16")), Some(2));
        assert_eq!(t.longest(ip("10.1.9.9")), Some(&1));
        assert_eq!(t.remove(&p("0.0.0.0/0")), Some(0));
        assert_eq!(t.longest(ip("192.0.2.1")), None);
        assert_eq!(t.len(), 3);
    }
}
