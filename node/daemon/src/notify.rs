//! What a service manager is told (sd_notify(3)): that we run, that we stop, and that the main
//! loop is alive.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A service manager that wants to know, if there is one.
pub(crate) struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that we live.
    pub(crate) every: Option<Duration>,
}

impl Notify {
    /// Finds out who wants to know what, from the environment.
    pub(crate) fn from_environment() -> Self {
        let every = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        // Three times in each of its periods: one late answer is no death.
        let every = every.map(|period| Duration::from_micros(period) / 3).filter(|e| !e.is_zero());
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| address(&name));
        let manager = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        Self { every: every.filter(|_| manager.is_some()), manager }
    }

    /// We run.
    pub(crate) fn ready(&self) {
        self.say("READY=1\nSTATUS=running\n");
    }

    /// The main loop is alive.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1\n");
    }

    /// We are about to end.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=saying goodbye\n");
    }

    fn say(&self, words: &str) {
        if let Some((socket, address)) = &self.manager {
            // Whoever does not listen is not told.
            let _ = socket.send_to_addr(words.as_bytes(), address);
        }
    }
}

/// A path, or with `@` in front a name without one.
fn address(name: &OsString) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name).ok(),
        _ => SocketAddr::from_pathname(name).ok(),
    }
}
