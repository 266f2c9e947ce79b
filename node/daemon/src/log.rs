//! Logging: to standard error, one line each, level by `OE_NODE_LOG` (default: info).

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging; a second call changes nothing.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("OE_NODE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,oe_node=info"));
    // A test in the same process may have been first.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
