//! The main loop.

use crate::config::Config;

/// Runs the daemon.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    crate::log::start();
    let _ = config.groups()?;
    anyhow::bail!("not wired yet")
}
