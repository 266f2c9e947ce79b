//! IKE messages, fragments, and whole exchanges.

pub(crate) use super::chaos::scripted as ike_exchanges;

/// CVE-2015-3204: reading, and printing all that was read. The first octet is a payload's type; the
/// rest is read as a message, and as the inside of an encrypted payload that begins with it.
pub(crate) fn ike_messages(input: &[u8]) {
    let [first, octets @ ..] = input else { return };
    for text in ike::internal::read(*first, octets).into_iter().flatten() {
        // Nothing that is read is much larger than what it was read from.
        assert!(text.len() <= 1000 + 200 * octets.len(), "{} octets of text", text.len());
    }
}

/// CVE-2016-10396, CVE-2026-12413: fragments in any order, of any number, of several messages. What
/// becomes whole consists of what came, within bounds.
pub(crate) fn reassembly(input: &[u8]) {
    let mut fragments = Vec::new();
    let mut rest = input;
    while let [id, number, total, first, len, tail @ ..] = rest {
        let len = usize::from(*len).min(tail.len());
        let (chunk, tail) = tail.split_at(len);
        // Beyond 250 stand the numbers that a form has at its ends.
        let wide =
            |octet: u8| if octet > 250 { u16::MAX - u16::from(255 - octet) } else { octet.into() };
        let (number, total) = (wide(*number), wide(*total));
        // Reading a fragment has seen to this.
        if number != 0 && number <= total {
            fragments.push((u32::from(*id % 4), number, total, *first, chunk.to_vec()));
        }
        rest = tail;
    }
    for (_, whole) in ike::internal::reassemble(&fragments) {
        assert!(whole.len() <= 10_000, "{} octets", whole.len());
        assert!(whole.len() <= fragments.iter().map(|f| f.4.len()).sum());
    }
}
