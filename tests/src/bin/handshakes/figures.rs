//! What was measured, and how it compares.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) failed: usize,
    pub(crate) took: Duration,
    /// Processor time of the initiator's process.
    pub(crate) initiator: Duration,
    /// Processor time of the responder's process.
    pub(crate) responder: Duration,
}

impl Figures {
    fn each(self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e3 / self.count.max(1) as f64
    }

    /// Handshakes for each second of processor time, both ends together.
    pub(crate) fn per_cpu_second(self) -> f64 {
        self.count as f64 / (self.initiator + self.responder).as_secs_f64().max(1e-9)
    }

    pub(crate) fn line(self, name: &str) -> String {
        format!(
            "  {name:<12} {:>7.0}/s {:>9.2} ms {:>9.2} ms {:>12.0}   {}",
            self.count as f64 / self.took.as_secs_f64().max(1e-9),
            self.each(self.initiator),
            self.each(self.responder),
            self.per_cpu_second(),
            if self.failed == 0 { String::new() } else { format!("{} failed", self.failed) }
        )
    }

    pub(crate) fn json(self) -> Value {
        json!({
            "count": self.count,
            "failed": self.failed,
            "seconds": self.took.as_secs_f64(),
            "initiator_cpu_ms": self.each(self.initiator),
            "responder_cpu_ms": self.each(self.responder),
            "per_cpu_second": self.per_cpu_second(),
        })
    }
}

/// The head of a table of [`Figures::line`].
pub(crate) fn head() -> String {
    format!(
        "  {:<12} {:>9} {:>12} {:>12} {:>12}",
        "", "wall", "initiator", "responder", "/CPU second"
    )
}

/// Processor time that a process has taken so far (proc(5): utime and stime, in 1/100 s).
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
