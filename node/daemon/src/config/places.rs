//! Where in the file each key is written: most errors show only once all of it has been read.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong, and with which key: `serve[1].subnet`, tables of a kind counted from 0.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) key: String,
    /// For people; begins with the key as they know it.
    pub(super) why: String,
}

impl Fault {
    /// With a reason that follows the key's name.
    pub(super) fn new(key: impl Into<String>, why: impl AsRef<str>) -> Self {
        let key = key.into();
        Self { why: format!("{}: {}", plain(&key), why.as_ref()), key }
    }
}

/// The line and the octets of every key of a file, its value included.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(BTreeMap<String, (usize, Range<usize>)>);

impl Places {
    /// Nothing if the text is no TOML.
    pub(super) fn of(text: &str) -> Self {
        let mut places = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            places.note_table(text, "", table.get_ref());
        }
        places
    }

    /// The line of a key; where it is not written, of the table that it belongs to.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            if let Some((line, _)) = self.0.get(key) {
                return Some(*line);
            }
            key = key.get(..key.rfind(['.', '['])?)?;
        }
    }

    pub(super) fn is_written(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// The key that an octet of the file belongs to, as people know it.
    pub(super) fn key_at(&self, offset: usize) -> Option<String> {
        let around = self.0.iter().filter(|(_, (_, octets))| octets.contains(&offset));
        around.min_by_key(|(_, (_, octets))| octets.len()).map(|(key, _)| plain(key))
    }

    fn note(&mut self, text: &str, key: String, octets: Range<usize>) {
        let line = text.get(..octets.start).unwrap_or_default().matches('\n').count() + 1;
        self.0.insert(key, (line, octets));
    }

    fn note_table(&mut self, text: &str, around: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let dot = if around.is_empty() { "" } else { "." };
            let key = format!("{around}{dot}{}", name.get_ref());
            let octets = name.span().start..value.span().end.max(name.span().end);
            self.note(text, key.clone(), octets);
            self.note_value(text, &key, value);
        }
    }

    fn note_value(&mut self, text: &str, key: &str, value: &Spanned<DeValue<'_>>) {
        if let DeValue::Table(table) = value.get_ref() {
            self.note_table(text, key, table);
        }
        for (index, item) in value.get_ref().as_array().into_iter().flatten().enumerate() {
            let key = format!("{key}[{index}]");
            self.note(text, key.clone(), item.span());
            self.note_value(text, &key, item);
        }
    }
}

/// A key without the numbers of tables.
fn plain(key: &str) -> String {
    key.split('.').map(|part| part.split('[').next().unwrap_or(part)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[node]\nmark = 7\n\n# two\n[[serve]]\nsubnet = \"10.1.0.0/16\"\n\
        [[serve]]\n\nsubnet = \"10.2.0.0/16\"\n[pool]\nprefixes = [\n  \"10.3.0.0/16\",\n\
        \x20 \"10.4.0.0/16\",\n]\n";

    #[test]
    fn every_key_has_its_line() {
        let places = Places::of(TEXT);
        for (key, line) in [
            ("node.mark", 2),
            ("node.table", 1),
            ("serve[0].subnet", 6),
            ("serve[1]", 7),
            ("serve[1].subnet", 9),
            ("serve[1].other", 7),
            ("pool.prefixes[0]", 12),
            ("pool.prefixes[1]", 13),
            ("pool.prefixes", 11),
        ] {
            assert_eq!(places.line(key), Some(line), "{key}");
        }
        assert_eq!(places.line("dns.resolvers"), None);
        let at = |what: &str| places.key_at(TEXT.find(what).unwrap()).unwrap();
        assert_eq!(at("10.2.0.0"), "serve.subnet");
        assert_eq!(at("10.4.0.0"), "pool.prefixes");
        assert_eq!(Fault::new("serve[1].subnet", "no").why, "serve.subnet: no");
    }
}
