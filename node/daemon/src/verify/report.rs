//! Findings as lines, in the classic layout, or as JSON.

use std::io::{self, Write};

use serde::Serialize;

/// The word in brackets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Nothing is there.
    Missing,
    /// Something is there, and wrong.
    Failed,
    /// Something is there that nobody uses any more.
    Deprecated,
    /// The question does not arise.
    #[serde(rename = "n/a")]
    NotApplicable,
    /// It could not be found out.
    Unknown,
}

/// How much a note weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Weight {
    /// Good to know.
    Info,
    /// It works, and could be better.
    Weak,
    /// It could not be found out.
    Unknown,
    /// It does not work.
    Wrong,
}

/// What there is to say about a check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Note {
    /// How much it weighs.
    pub(crate) weight: Weight,
    /// What was found.
    pub(crate) text: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// One line of the classic command, and what is to be said about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Check {
    /// The classic text.
    #[serde(rename = "check")]
    pub(crate) text: String,
    /// The word in brackets; `None` for a line of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<Status>,
    /// What the classic command never said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<Note>,
}

/// The checks of one host, address or machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Report {
    /// What was checked: a name, an address, or `this machine`.
    pub(crate) subject: String,
    /// The first line.
    #[serde(skip)]
    pub(crate) title: String,
    /// In the classic order.
    pub(crate) checks: Vec<Check>,
    /// What it comes to.
    pub(crate) verdict: Verdict,
    /// What was seen, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) facts: Option<serde_json::Value>,
}

/// What a report comes to; the exit status of the command is the greatest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Everything that must hold holds.
    Well,
    /// Something could not be checked, and nothing is known to be wrong.
    CouldNotCheck,
    /// A check failed.
    Failed,
}

impl Note {
    pub(crate) fn info(text: impl Into<String>) -> Self {
        Self { weight: Weight::Info, text: text.into(), remedy: None }
    }

    pub(crate) fn weak(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { weight: Weight::Weak, text: text.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn unknown(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { weight: Weight::Unknown, text: text.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn wrong(text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { weight: Weight::Wrong, text: text.into(), remedy: Some(remedy.into()) }
    }
}

impl Check {
    pub(crate) fn new(text: impl Into<String>, status: Status) -> Self {
        Self { text: text.into(), status: Some(status), notes: Vec::new() }
    }

    /// A line without brackets.
    pub(crate) fn line(text: impl Into<String>) -> Self {
        Self { text: text.into(), status: None, notes: Vec::new() }
    }

    pub(crate) fn with(mut self, notes: impl IntoIterator<Item = Note>) -> Self {
        self.notes.extend(notes);
        self
    }
}

impl Report {
    /// Sums up: what is wrong goes before what is unknown.
    pub(crate) fn new(subject: String, title: String, mut checks: Vec<Check>) -> Self {
        // Who looks for what has failed looks at the words in brackets.
        for check in checks.iter_mut().filter(|check| check.status == Some(Status::Ok)) {
            if check.notes.iter().any(|note| note.weight == Weight::Wrong) {
                check.status = Some(Status::Failed);
            }
        }
        let verdict = checks.iter().map(Check::verdict).max().unwrap_or(Verdict::Well);
        Self { subject, title, checks, verdict, facts: None }
    }

    pub(crate) fn with_facts(self, facts: serde_json::Value) -> Self {
        Self { facts: Some(facts), ..self }
    }

    /// Prints it as the classic command would have, notes below.
    pub(crate) fn print(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        writeln!(out, "{}", self.title)?;
        self.checks.iter().try_for_each(|check| check.print(out, colour))
    }
}

impl Check {
    /// Prints the line, and its notes below.
    pub(crate) fn print(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        match self.status {
            None => writeln!(out, "{}", self.text)?,
            // Byte for byte: padded to 65 columns, then a tab.
            Some(status) => writeln!(out, "{:<65}\t[{}]", self.text, status.painted(colour))?,
        }
        self.notes.iter().try_for_each(|note| note.print(out, colour))
    }

    /// A missing record is not wrong by itself: the notes say where it is.
    fn verdict(&self) -> Verdict {
        let own = match self.status {
            Some(Status::Failed) => Verdict::Failed,
            Some(Status::Unknown) => Verdict::CouldNotCheck,
            _ => Verdict::Well,
        };
        let weight = |note: &Note| match note.weight {
            Weight::Wrong => Verdict::Failed,
            Weight::Unknown => Verdict::CouldNotCheck,
            Weight::Info | Weight::Weak => Verdict::Well,
        };
        self.notes.iter().map(weight).max().map_or(own, |worst| worst.max(own))
    }
}

impl Note {
    fn print(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        let mark = match self.weight {
            Weight::Info => "",
            Weight::Weak => "weak: ",
            Weight::Unknown => "unknown: ",
            Weight::Wrong => "wrong: ",
        };
        let mark = match self.weight {
            Weight::Wrong if colour => paint(RED, mark),
            Weight::Weak | Weight::Unknown if colour => paint(YELLOW, mark),
            _ => mark.to_owned(),
        };
        writeln!(out, "    {mark}{}", self.text)?;
        match &self.remedy {
            Some(remedy) => writeln!(out, "      -> {remedy}"),
            None => Ok(()),
        }
    }
}

impl Status {
    /// The word in brackets.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Missing => "MISSING",
            Self::Failed => "FAILED",
            Self::Deprecated => "DEPRECATED",
            Self::NotApplicable => "N/A",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn painted(self, colour: bool) -> String {
        if !colour {
            return self.word().to_owned();
        }
        match self {
            Self::Ok => paint(GREEN, self.word()),
            Self::Missing | Self::Failed | Self::NotApplicable => paint(RED, self.word()),
            Self::Deprecated | Self::Unknown => paint(YELLOW, self.word()),
        }
    }
}

/// The classic command's own colours.
fn paint(code: &str, text: &str) -> String {
    format!("\x1b[1;{code}m{text}\x1b[0;39m")
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let ok = Check::new("Looking for TXT in reverse map: 11.2.0.192.in-addr.arpa.", Status::Ok)
            .with([Note::info("gateway 192.0.2.11"), Note::weak("exponent 3", "make a new key")]);
        let missing = Check::new("Looking for TXT in forward map: west.test", Status::Missing);
        let title = "Checking west.test for Opportunistic Encryption:".to_owned();
        Report::new("west.test".to_owned(), title, vec![missing, ok, Check::line("no more")])
    }

    #[test]
    fn the_classic_layout() {
        let mut out = Vec::new();
        report().print(&mut out, false).unwrap();
        let expected = "\
Checking west.test for Opportunistic Encryption:
Looking for TXT in forward map: west.test                        \t[MISSING]
Looking for TXT in reverse map: 11.2.0.192.in-addr.arpa.         \t[OK]
    gateway 192.0.2.11
    weak: exponent 3
      -> make a new key
no more
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn colours_are_the_classic_ones() {
        let mut out = Vec::new();
        report().print(&mut out, true).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\t[\x1b[1;32mOK\x1b[0;39m]\n"), "{text:?}");
        assert!(text.contains("\t[\x1b[1;31mMISSING\x1b[0;39m]\n"), "{text:?}");
        assert!(text.contains("    \x1b[1;33mweak: \x1b[0;39mexponent 3\n"), "{text:?}");
    }

    #[test]
    fn the_verdict_is_the_worst_finding() {
        let verdict = |check| Report::new(String::new(), String::new(), vec![check]).verdict;
        assert_eq!(report().verdict, Verdict::Well);
        assert_eq!(verdict(Check::new("", Status::Failed)), Verdict::Failed);
        assert_eq!(verdict(Check::new("", Status::Unknown)), Verdict::CouldNotCheck);
        let unknown = Check::new("", Status::Ok).with([Note::unknown("", "")]);
        assert_eq!(verdict(unknown.clone()), Verdict::CouldNotCheck);
        assert_eq!(verdict(unknown.with([Note::wrong("", "")])), Verdict::Failed);
    }

    #[test]
    fn json_is_for_programs() {
        let value = serde_json::to_value(report()).unwrap();
        assert_eq!(value["subject"], "west.test");
        assert_eq!(value["verdict"], "well");
        assert_eq!(value["checks"][0]["status"], "missing");
        assert_eq!(value["checks"][1]["notes"][1]["weight"], "weak");
        assert_eq!(value["checks"][1]["notes"][1]["do"], "make a new key");
    }
}
