//! Ctrl-C and its like: everything ends, in order, whatever is under way.

use std::io::{self, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use super::node::Children;

/// Ends the process on SIGINT, SIGTERM or SIGHUP, its children first.
#[derive(Clone)]
pub(crate) struct Interrupt {
    code: Arc<AtomicU8>,
}

impl Interrupt {
    /// Starts watching for signals.
    pub(crate) fn watch(children: Children) -> io::Result<Self> {
        let code = Arc::new(AtomicU8::new(INTERRUPTED));
        let interrupt = Self { code: Arc::clone(&code) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut int, mut term, mut hup) = {
            let _in_runtime = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hup.recv() => {}
                }
            });
            children.end();
            let code = code.load(Ordering::Acquire);
            if code == INTERRUPTED {
                // Nobody to tell if even stderr is gone.
                let _ = writeln!(io::stderr(), "\ninterrupted; nothing is left behind");
            }
            process::exit(i32::from(code));
        })?;
        Ok(interrupt)
    }

    /// From now on a signal is the expected end: the process exits with `code`.
    pub(crate) fn expect(&self, code: u8) {
        self.code.store(code, Ordering::Release);
    }
}

/// What a shell reports of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;
