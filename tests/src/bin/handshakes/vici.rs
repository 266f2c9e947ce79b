//! strongSwan's control protocol (libcharon/plugins/vici/README.md), as much as it takes to have
//! charon call somebody and hang up again.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to one charon.
#[derive(Debug)]
pub(crate) struct Vici(UnixStream);

impl Vici {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self)
    }

    /// Gives a command; the answer's settings at its top level.
    pub(crate) fn command(
        &mut self,
        name: &str,
        settings: &[(&str, &str)],
    ) -> io::Result<BTreeMap<String, String>> {
        let mut packet = vec![CMD_REQUEST];
        short(&mut packet, name)?;
        for (key, value) in settings {
            packet.push(KEY_VALUE);
            short(&mut packet, key)?;
            let len = u16::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
            packet.extend_from_slice(&len.to_be_bytes());
            packet.extend_from_slice(value.as_bytes());
        }
        let len = u32::try_from(packet.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.0.write_all(&[&len.to_be_bytes()[..], &packet].concat())?;
        let mut len = [0; 4];
        self.0.read_exact(&mut len)?;
        let mut answer = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut answer)?;
        match answer.split_first() {
            Some((&CMD_RESPONSE, message)) => {
                read(message).ok_or_else(|| io::ErrorKind::InvalidData.into())
            }
            _ => Err(io::Error::other(format!("{name}: charon does not know it"))),
        }
    }

    /// Gives a command that answers whether it succeeded.
    pub(crate) fn succeeds(&mut self, name: &str, settings: &[(&str, &str)]) -> bool {
        self.command(name, settings)
            .is_ok_and(|answer| answer.get("success").is_some_and(|said| said == "yes"))
    }
}

fn short(packet: &mut Vec<u8>, text: &str) -> io::Result<()> {
    packet.push(u8::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?);
    packet.extend_from_slice(text.as_bytes());
    Ok(())
}

/// The key-value pairs outside of any section.
fn read(mut message: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut depth = 0_usize;
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let take = |message: &mut &[u8], len: usize| -> Option<Vec<u8>> {
        let (head, tail) = message.split_at_checked(len)?;
        *message = tail;
        Some(head.to_vec())
    };
    while let Some((kind, rest)) = message.split_first() {
        message = rest;
        let mut name = String::new();
        if matches!(*kind, SECTION_START | KEY_VALUE | LIST_START) {
            let len = *take(&mut message, 1)?.first()?;
            name = text(&take(&mut message, len.into())?);
        }
        let mut value = String::new();
        if matches!(*kind, KEY_VALUE | LIST_ITEM) {
            let len = <[u8; 2]>::try_from(take(&mut message, 2)?).ok()?;
            value = text(&take(&mut message, u16::from_be_bytes(len).into())?);
        }
        match *kind {
            SECTION_START => depth += 1,
            SECTION_END => depth = depth.checked_sub(1)?,
            KEY_VALUE if depth == 0 => drop(found.insert(name, value)),
            KEY_VALUE | LIST_START | LIST_ITEM | LIST_END => {}
            _ => return None,
        }
    }
    Some(found)
}

const CMD_REQUEST: u8 = 0;
const CMD_RESPONSE: u8 = 1;
const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;
