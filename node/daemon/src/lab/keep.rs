//! `--keep`: the lab stays up, and these are the ways in.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::thread;

use super::internet::Internet;
use super::netns::{self, Footing};
use super::topology::Role;

/// Says how to enter the namespaces and waits for the signal that ends the process.
pub(crate) fn wait(internet: &Internet, footing: Footing) -> anyhow::Result<()> {
    // To stderr, so that a report in JSON stays one.
    io::stderr().write_all(ways_in(internet, footing).as_bytes())?;
    loop {
        thread::park();
    }
}

fn ways_in(internet: &Internet, footing: Footing) -> String {
    let enter = match footing {
        Footing::Root => "nsenter --net --mount",
        Footing::UserNamespace => "nsenter --user --preserve-credentials --net --mount",
    };
    let mut text = String::from("\n  The lab stays up until Ctrl-C. To enter a host:\n\n");
    for host in std::iter::once(&internet.core).chain(&internet.hosts) {
        let _ = writeln!(text, "  {:<6} {enter} --target {}", host.site.name, host.thread_id);
    }
    let node = internet.hosts.iter().find(|host| host.site.role == Role::Node);
    if let Some(node) = node {
        let _ = write!(
            text,
            "\n  Inside, `ping`, `tcpdump -i eth0` and `ip route` do what they do anywhere, and\n  \
             `oe-node status --config {}/{}/oe-node.toml` asks its node.\n",
            netns::SCRATCH,
            node.site.name
        );
    }
    text
}
