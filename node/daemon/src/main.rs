//! The daemon and every command of `oe-node`.
//!
//! This is the only crate that touches the world: sockets, the TUN device, netlink, files, the
//! clock, the system's randomness. What it decides by itself is nothing; it carries what the pure
//! crates say.

mod answer;
mod backend;
mod commands;
mod config;
mod control;
mod hostkey;
mod kernel;
mod lab;
mod log;
mod memory;
mod notify;
mod resolver;
mod run;
mod secret;
mod tickets;
mod userspace;
mod verify;
mod view;
mod whole;
mod zone;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main()
}
