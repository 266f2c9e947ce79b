//! `oe-node zone check`: what peers would reject.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use zonefiles::check::{Checker, Counts, Severity};
use zonefiles::{Name, Problem};

use super::files;

/// Arguments of `oe-node zone check`.
#[derive(clap::Args)]
#[command(
    after_help = "Exit status: 0 nothing to mend, 1 errors (with --strict, warnings too), or a \
                        file that cannot be read, 2 wrong options."
)]
pub(crate) struct Args {
    /// Master files; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Origin of relative names before the first $ORIGIN.
    #[arg(long, value_name = "NAME")]
    origin: Option<Name>,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
    /// Do not print notes.
    #[arg(short, long)]
    quiet: bool,
    /// Print findings as JSON, one to a line.
    #[arg(long)]
    json: bool,
}

#[derive(Default)]
struct Tally {
    errors: u64,
    warnings: u64,
    notes: u64,
}

/// Runs the command: exit status 0 if there is nothing to mend, else 1.
pub(crate) fn main(args: &Args) -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match run(args, &mut out).and_then(|clean| out.flush().map(|()| clean)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of the pipe has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(e) => super::fail("check", &e),
    }
}

fn run(args: &Args, out: &mut impl Write) -> io::Result<bool> {
    let mut clean = true;
    for path in &args.files {
        let mut tally = Tally::default();
        let counts = match files::reader(path, args.origin.clone()) {
            Ok(reader) => {
                let mut checker = Checker::default();
                for entry in reader {
                    match entry {
                        Ok(located) => checker.record(&located),
                        Err(problem) => tally.problem(args, &problem, out)?,
                    }
                    for finding in checker.findings() {
                        tally.finding(args, &finding, out)?;
                    }
                }
                let (counts, last) = checker.finish();
                if let Some(finding) = last {
                    tally.finding(args, &finding, out)?;
                }
                counts
            }
            Err(e) => {
                out.flush()?;
                super::fail("check", &format!("{e:#}"));
                clean = false;
                continue;
            }
        };
        if counts.records == 0 && tally.errors == 0 {
            tally.empty(args, path, out)?;
        }
        clean &= tally.errors == 0 && !(args.strict && tally.warnings > 0);
        if !args.json {
            let Counts { records, txt, ipseckey } = counts;
            writeln!(
                out,
                "{}: {records} records, {txt} X-IPsec-Server, {ipseckey} IPSECKEY: {} errors, \
                 {} warnings, {} notes",
                path.display(),
                tally.errors,
                tally.warnings,
                tally.notes
            )?;
        }
    }
    Ok(clean)
}

impl Tally {
    fn problem(&mut self, args: &Args, problem: &Problem, out: &mut impl Write) -> io::Result<()> {
        self.errors += 1;
        let Problem { position, error } = problem;
        if args.json {
            let line = serde_json::json!({
                "file": &*position.file, "line": position.line, "column": position.column,
                "severity": "error", "what": error.to_string(),
            });
            return writeln!(out, "{line}");
        }
        writeln!(out, "{position}: error: {error}")
    }

    /// A file without records: whatever wrote it has most likely failed.
    fn empty(&mut self, args: &Args, path: &Path, out: &mut impl Write) -> io::Result<()> {
        self.warnings += 1;
        let (file, what) = (path.display().to_string(), "no record in it");
        if args.json {
            let line = serde_json::json!({
                "file": file, "line": 1, "column": 1, "severity": "warning", "what": what,
            });
            return writeln!(out, "{line}");
        }
        writeln!(out, "{file}:1:1: warning: {what}")
    }

    fn finding(
        &mut self,
        args: &Args,
        finding: &zonefiles::check::Finding,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let severity = finding.what.severity();
        match severity {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
            Severity::Note => self.notes += 1,
        }
        if args.quiet && severity == Severity::Note {
            return Ok(());
        }
        if args.json {
            let position = &finding.position;
            let line = serde_json::json!({
                "file": &*position.file, "line": position.line, "column": position.column,
                "severity": severity.to_string(), "owner": finding.owner.to_string(),
                "type": finding.rtype.to_string(), "what": finding.what.to_string(),
            });
            return writeln!(out, "{line}");
        }
        writeln!(out, "{finding}")
    }
}
