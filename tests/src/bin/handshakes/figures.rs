//! What was measured, and how it compares.

use std::fs;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) count: usize,
    pub(crate) failed: usize,
    pub(crate) took: Duration,
    /// Processor time of the initiator's process.
    pub(crate) initiator: Cpu,
    /// Processor time of the responder's process.
    pub(crate) responder: Cpu,
}

impl Figures {
    /// Both runs as one.
    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            count: self.count + other.count,
            failed: self.failed + other.failed,
            took: self.took + other.took,
            initiator: self.initiator.and(other.initiator),
            responder: self.responder.and(other.responder),
        }
    }

    fn each(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e3 / self.count.max(1) as f64
    }

    /// Handshakes for each second of processor time, both ends together.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        let both = self.initiator.all + self.responder.all;
        self.count as f64 / both.as_secs_f64().max(1e-9)
    }

    /// As a line under [`head`].
    pub(crate) fn line(&self, name: &str) -> String {
        let [initiator, responder] = [&self.initiator, &self.responder];
        let part = |of: fn(&Cpu) -> Duration| self.each(of(initiator) + of(responder));
        let mut line = format!(
            "  {name:<34} {:>6.0}/s {:>7.3} ms {:>7.3} ms {:>7.0}",
            self.count as f64 / self.took.as_secs_f64().max(1e-9),
            self.each(initiator.all),
            self.each(responder.all),
            self.per_cpu_second(),
        );
        if initiator.ours {
            line += &format!(
                "   {:.3} {:.3} {:.3} {:.3}",
                part(|cpu| cpu.signing),
                part(|cpu| cpu.dns),
                part(|cpu| cpu.packets),
                part(Cpu::rest),
            );
        }
        if self.failed > 0 {
            line += &format!("   {} failed", self.failed);
        }
        line
    }

    pub(crate) fn json(&self) -> Value {
        let side = |cpu: &Cpu| {
            json!({
                "cpu_ms": self.each(cpu.all),
                "signing_ms": self.each(cpu.signing),
                "dns_ms": self.each(cpu.dns),
                "packets_ms": self.each(cpu.packets),
            })
        };
        json!({
            "count": self.count,
            "failed": self.failed,
            "seconds": self.took.as_secs_f64(),
            "initiator": side(&self.initiator),
            "responder": side(&self.responder),
            "per_cpu_second": self.per_cpu_second(),
        })
    }
}

/// The head of a table of [`Figures::line`].
pub(crate) fn head() -> String {
    format!(
        "  {:<34} {:>8} {:>10} {:>10} {:>7}   {}",
        "", "serially", "initiator", "responder", "/CPU s", "sign  dns   packets keying (ms, both)"
    )
}

/// Processor time of a process, and of those of its threads that are told apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) all: Duration,
    pub(crate) signing: Duration,
    pub(crate) dns: Duration,
    pub(crate) packets: Duration,
    /// Whether it has such threads.
    ours: bool,
}

impl Cpu {
    /// What a process has taken so far. To the nanosecond where the kernel counts so
    /// (`/proc/PID/task/TID/schedstat`, threads that still live: ours and charon's all do), else in
    /// 1/100 s.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut cpu = Self::default();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            let name = fs::read_to_string(task.join("comm"))?;
            let stat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            let taken = stat.split(' ').next().and_then(|taken| taken.parse().ok());
            let taken = Duration::from_nanos(taken.unwrap_or(0));
            cpu.all += taken;
            match name.trim_end() {
                "signer" => cpu.signing += taken,
                "dns" => cpu.dns += taken,
                "forwarding" => {
                    cpu.packets += taken;
                    cpu.ours = true;
                }
                _ => {}
            }
        }
        if cpu.all.is_zero() {
            cpu.all = ticks(pid)?;
        }
        Ok(cpu)
    }

    /// What was taken since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            signing: self.signing.saturating_sub(before.signing),
            dns: self.dns.saturating_sub(before.dns),
            packets: self.packets.saturating_sub(before.packets),
            ours: self.ours,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            signing: self.signing + other.signing,
            dns: self.dns + other.dns,
            packets: self.packets + other.packets,
            ours: self.ours || other.ours,
        }
    }

    /// What no other thread has taken: the main loop.
    fn rest(&self) -> Duration {
        self.all.saturating_sub(self.signing + self.dns + self.packets)
    }
}

/// proc(5): utime and stime, in 1/100 s.
fn ticks(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks.
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis((ticks(11) + ticks(12)) * 10))
}
