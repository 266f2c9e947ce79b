//! Logging: to standard error, one line each, level by `OE_NODE_LOG` (default: info).
//!
//! Strangers cause some of the lines, a line or more for each of their addresses: what comes too
//! often of one kind is counted, and the next line says how many there would have been.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter, format};
use tracing_subscriber::registry::LookupSpan;

/// Starts logging; a second call changes nothing.
pub(crate) fn start() {
    let wanted = std::env::var("OE_NODE_LOG").unwrap_or_else(|_| DEFAULT.to_owned());
    let filter = EnvFilter::try_new(&wanted);
    let wrong = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let colours = std::io::stderr().is_terminal();
    // A test in the same process may have been first.
    let _ = tracing::subscriber::set_global_default(subscriber(filter, std::io::stderr, colours));
    if let Some(why) = wrong {
        tracing::warn!("OE_NODE_LOG: {why}");
    }
}

fn subscriber<W>(filter: EnvFilter, writer: W, colours: bool) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .event_format(Sparing { format: format().with_target(false), kinds: Mutex::default() })
        .finish()
}

/// Writes lines as the library does, as long as they are few.
struct Sparing {
    format: Format<Full>,
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

impl<S, N> FormatEvent<S, N> for Sparing
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Who asks for more wants all of it.
        if *event.metadata().level() <= Level::INFO {
            let kind = event.metadata().callsite();
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(suppressed) = kinds.entry(kind).or_default().admit(Instant::now()) else {
                return Ok(());
            };
            drop(kinds);
            if suppressed > 0 {
                writeln!(writer, "suppressed {suppressed} lines like the next")?;
            }
        }
        self.format.format_event(context, writer, event)
    }
}

/// Lines that one place in the program makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Kind {
    /// How long it would take at [`EVERY`] to write what was written, from now on.
    filled: Duration,
    at: Option<Instant>,
    suppressed: u64,
}

impl Kind {
    /// Whether one more may be written, and how many were not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let since = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.filled = self.filled.saturating_sub(since);
        if self.filled >= EVERY * BURST {
            self.suppressed += 1;
            return None;
        }
        self.filled += EVERY;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Our own lines. What libraries warn of is whole messages of strangers', a kilobyte a line.
const DEFAULT: &str = "error,oe_node=info";
/// One line of a kind may come so often in the long run: 10 a second are a gigabyte in ten days.
const EVERY: Duration = Duration::from_millis(100);
/// And so many at once: a host that starts decides about all whom it knows.
const BURST: u32 = 500;

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().map_err(|_| io::ErrorKind::Other)?.write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_flood_of_one_kind_is_counted_and_the_others_are_written() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(EnvFilter::new("info"), move || writer.clone(), false);
        tracing::subscriber::with_default(subscriber, || {
            for stranger in 0..20_000 {
                tracing::info!("{stranger}: clear");
                if stranger % 10_000 == 0 {
                    tracing::warn!("something else");
                }
            }
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().count();
        // A machine that takes its time sees some more.
        assert!((500..2000).contains(&lines), "{lines} lines");
        assert_eq!(text.matches("something else").count(), 2);
        assert!(text.contains(" INFO 0: clear\n"), "{}", &text[..200]);
    }

    /// Attack A30.
    #[test]
    fn what_was_suppressed_is_told_with_the_next() {
        let (mut kind, start) = (Kind::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(kind.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(kind.admit(start), None);
        }
        let later = start + EVERY;
        assert_eq!(kind.admit(later), Some(7));
        assert_eq!(kind.admit(later), None);
        // After a while of silence all of the burst is there again.
        let later = start + EVERY * (BURST + 1);
        assert_eq!(kind.admit(later), Some(1));
        assert_eq!((1..BURST).filter(|_| kind.admit(later).is_some()).count(), 499);
        assert_eq!(kind.admit(later), None);
    }
}
