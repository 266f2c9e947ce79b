//! The parts of `oe-node zone` that touch files, sockets and the clock. What records mean is in
//! the crate `zonefiles`.

mod answers;
pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod files;
pub(crate) mod generate;
pub(crate) mod keys;
pub(crate) mod list;
pub(crate) mod publish;
pub(crate) mod rollover;
pub(crate) mod serve;
pub(crate) mod serving;
pub(crate) mod signed;
pub(crate) mod tsig;
pub(crate) mod upstream;

use std::process::ExitCode;

/// As [`fail`], but silent if whoever reads what is printed has gone.
pub(crate) fn fail_unless_unread(command: &str, error: &anyhow::Error) -> ExitCode {
    if crate::commands::is_unread(error) {
        return ExitCode::FAILURE;
    }
    fail(command, &format!("{error:#}"))
}

/// One line about what went wrong in a subcommand.
pub(crate) fn fail(command: &str, why: &impl std::fmt::Display) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "oe-node zone {command}: {why}");
    ExitCode::FAILURE
}
