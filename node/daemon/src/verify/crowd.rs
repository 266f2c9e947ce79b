//! Many hosts at once.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use dnskeys::Name;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;

use super::gather::{self, Wanted};
use super::judge::{self, Against};
use super::report::{Check, Report, Status, Verdict, Weight};
use crate::resolver::Resolver;

/// A line of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Subject {
    /// A name, to be looked up.
    Host(Name),
    /// An address.
    Address(IpAddr),
}

impl std::str::FromStr for Subject {
    type Err = dnskeys::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address.to_canonical())),
            Err(_) => text.parse().map(Self::Host),
        }
    }
}

/// Reads names and addresses, one on a line, `#` comments.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Subject>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    parse(&text).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let subject = line.parse::<Subject>();
        subjects
            .push(subject.map_err(|why| anyhow::anyhow!("line {}: \"{line}\": {why}", at + 1))?);
    }
    if subjects.is_empty() {
        bail!("no host in it");
    }
    Ok(subjects)
}

/// Checks them, in any order; reports in the order of the file. The bar goes to standard error,
/// and only to a terminal.
pub(crate) async fn check(
    subjects: Vec<Subject>,
    resolver: &Arc<Resolver>,
    wanted: &Wanted,
    against: &Against,
) -> Vec<Report> {
    let bar = ProgressBar::new(u64::try_from(subjects.len()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} hosts, {eta} left") {
        bar.set_style(style);
    }
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = tokio::task::JoinSet::new();
    for (at, subject) in subjects.into_iter().enumerate() {
        let (resolver, wanted, against) = (Arc::clone(resolver), wanted.clone(), *against);
        let (at_once, bar) = (Arc::clone(&at_once), bar.clone());
        running.spawn(async move {
            // The semaphore is never closed.
            let _permit = at_once.acquire().await.ok();
            let report = one(&resolver, subject, &wanted, &against).await;
            bar.inc(1);
            (at, report)
        });
    }
    let mut reports = running.join_all().await;
    bar.finish_and_clear();
    reports.sort_by_key(|(at, _)| *at);
    reports.into_iter().map(|(_, report)| report).collect()
}

/// Checks one.
pub(crate) async fn one(
    resolver: &Arc<Resolver>,
    subject: Subject,
    wanted: &Wanted,
    against: &Against,
) -> Report {
    match subject {
        Subject::Host(name) => judge::host(&gather::host(resolver, &name, wanted).await, against),
        Subject::Address(address) => {
            judge::address(&gather::address(resolver, address, wanted).await, against)
        }
    }
}

/// One line: how many of what.
pub(crate) fn summary(reports: &[Report]) -> String {
    let count = |verdict| reports.iter().filter(|report| report.verdict == verdict).count();
    let silent = reports.iter().filter(|report| is_silent(report)).count();
    format!(
        "{} hosts: {} well, {} failed ({silent} of them publish nothing), {} could not be checked",
        reports.len(),
        count(Verdict::Well),
        count(Verdict::Failed),
        count(Verdict::CouldNotCheck),
    )
}

/// What is wrong with a host, on a few lines.
pub(crate) fn brief(report: &Report) -> Check {
    let status = match report.verdict {
        Verdict::Well => Status::Ok,
        Verdict::CouldNotCheck => Status::Unknown,
        Verdict::Failed if is_silent(report) => Status::Missing,
        Verdict::Failed => Status::Failed,
    };
    let notes = report.checks.iter().flat_map(|check| &check.notes);
    let grave = notes.filter(|note| note.weight >= Weight::Unknown);
    Check::new(report.subject.as_str(), status).with(grave.cloned())
}

/// Whether nothing is wrong but that there is nothing.
fn is_silent(report: &Report) -> bool {
    let failed = report.checks.iter().any(|check| check.status == Some(Status::Failed));
    let missing = report.checks.last().is_some_and(|c| c.status == Some(Status::Missing));
    report.verdict == Verdict::Failed && missing && !failed
}

/// Hosts at once. Each asks some ten questions, and the resolver has its own limit.
const AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::report::Note;
    use super::*;

    #[test]
    fn a_crowd_is_told_in_brief() {
        let last = |status| Check::new("Would a stranger encrypt to it?", status);
        let report = |checks| Report::new("west.test".to_owned(), String::new(), checks);
        let well = report(vec![last(Status::Ok).with([Note::weak("w", "x")])]);
        let silent = report(vec![last(Status::Missing).with([Note::wrong("no key", "publish")])]);
        let bad = report(vec![Check::new("", Status::Failed), last(Status::Failed)]);
        let unknown = report(vec![last(Status::Unknown)]);
        let words: Vec<_> =
            [&well, &silent, &bad, &unknown].map(|r| brief(r).status.unwrap()).to_vec();
        assert_eq!(words, [Status::Ok, Status::Missing, Status::Failed, Status::Unknown]);
        assert_eq!(brief(&well).notes, []);
        assert_eq!(brief(&silent).notes.len(), 1);
        assert_eq!(
            summary(&[well, silent, bad, unknown]),
            "4 hosts: 1 well, 2 failed (1 of them publish nothing), 1 could not be checked"
        );
    }

    #[test]
    fn files_hold_names_and_addresses() {
        let subjects = parse("# all\nwest.test\n\n 192.0.2.11 # east\n2001:db8::1\n").unwrap();
        assert_eq!(
            subjects,
            [
                Subject::Host("west.test".parse().unwrap()),
                Subject::Address("192.0.2.11".parse().unwrap()),
                Subject::Address("2001:db8::1".parse().unwrap()),
            ]
        );
        assert_eq!(parse("# nobody\n").unwrap_err().to_string(), "no host in it");
        let error = parse("west.test\nwest test\n").unwrap_err().to_string();
        assert_eq!(error, "line 2: \"west test\": a character that no host name has");
    }
}
