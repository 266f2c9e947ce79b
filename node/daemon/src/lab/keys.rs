//! Host keys for the lab's nodes.

use std::fs;
use std::thread;

use anyhow::Context as _;
use dnskeys::RsaKey;

use super::node::Node;
use crate::hostkey::{Bits, HostKey};

/// Makes a key for each name, writes the private halves where the nodes look for them, and
/// returns the public ones.
pub(crate) fn make(names: &[String], bits: Bits) -> anyhow::Result<Vec<RsaKey>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = names.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let shares: Vec<_> = names
            .chunks(share)
            .map(|names| {
                scope.spawn(move || {
                    names
                        .iter()
                        .map(|name| make_one(name, bits))
                        .collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let mut keys = Vec::with_capacity(names.len());
        for share in shares {
            keys.extend(share.join().ok().context("the thread panicked")??);
        }
        Ok(keys)
    })
}

fn make_one(name: &str, bits: Bits) -> anyhow::Result<RsaKey> {
    let directory = Node::directory(name);
    fs::create_dir_all(&directory)?;
    let key = HostKey::generate(bits)?;
    key.save(&directory.join(Node::KEY))?;
    key.public().rsa().cloned().context("the lab's keys are RSA")
}
