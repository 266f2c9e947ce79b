//! What is under way, on stderr, while it is under way.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows steps one after another.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    lines: bool,
    step: Option<(String, Instant)>,
}

impl Progress {
    /// A spinner on a terminal; otherwise lines, or with `quiet` nothing.
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, lines: !terminal && !quiet, step: None }
    }

    /// Ends the step before, if any, and begins another.
    pub(crate) fn begin(&mut self, step: &str) {
        self.end_step();
        if let Some(bar) = &self.bar {
            bar.set_message(step.to_owned());
        }
        self.step = Some((step.to_owned(), Instant::now()));
    }

    /// Ends the last step and clears the line.
    pub(crate) fn finish(&mut self) {
        self.end_step();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn end_step(&mut self) {
        let Some((step, start)) = self.step.take() else { return };
        let line = format!("  · {step:<54}{:>8.0} ms", start.elapsed().as_secs_f64() * 1e3);
        if let Some(bar) = &self.bar {
            bar.println(line);
        } else if self.lines {
            // Nobody to tell if even stderr is gone.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

const TICK: Duration = Duration::from_millis(80);
