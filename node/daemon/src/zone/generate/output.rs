//! Where generated zones go: standard output, one file, or a file for each zone. Files appear
//! under their names only when they are complete.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use zonefiles::generate::{Format, NameTemplate, OwnerSuffix, Stamp, ZoneText};
use zonefiles::{Apex, Name, Record, ReverseZone};

use crate::zone::keys::file_stem;

/// Takes records, zone by zone.
pub(super) struct Output {
    format: Format,
    /// With it, zones are whole.
    apex: Option<Apex>,
    target: Target,
    current: Option<(Name, OwnerSuffix)>,
    forward: Option<ZoneText<Pending>>,
}

enum Target {
    Single { text: ZoneText<Pending>, begun: HashSet<Name> },
    Directory { path: PathBuf, zones: HashMap<Name, Slot>, open: usize, clock: u64 },
}

struct Slot {
    text: ZoneText<Pending>,
    used: u64,
    is_open: bool,
}

/// A file under a temporary name, or standard output.
struct Pending {
    place: Option<(PathBuf, PathBuf)>,
    file: Option<File>,
    started: bool,
}

impl Output {
    pub(super) fn new(
        format: Format,
        apex: Option<Apex>,
        file: Option<&Path>,
        directory: Option<&Path>,
        forward: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let target = match directory {
            Some(path) => {
                std::fs::create_dir_all(path)
                    .with_context(|| format!("cannot make {}", path.display()))?;
                let path = path.to_owned();
                Target::Directory { path, zones: HashMap::new(), open: 0, clock: 0 }
            }
            None => {
                let text = ZoneText::new(Pending::new(file), format);
                Target::Single { text, begun: HashSet::new() }
            }
        };
        let forward = match forward {
            Some(path) => {
                let mut text = ZoneText::new(Pending::new(Some(path)), format);
                text.begin(&Name::root(), None)?;
                Some(text)
            }
            None => None,
        };
        Ok(Self { format, apex, target, current: None, forward })
    }

    /// What follows belongs to this zone.
    pub(super) fn enter(&mut self, zone: &ReverseZone) -> anyhow::Result<()> {
        if self.current.as_ref().is_some_and(|(origin, _)| *origin == zone.origin) {
            return Ok(());
        }
        let left = self.current.take();
        let apex = self.apex.as_ref();
        match &mut self.target {
            Target::Single { text, begun } => {
                if let (Some((left, _)), Some(_), Format::Master(_)) = (&left, apex, self.format) {
                    bail!(
                        "{} belongs to another zone than what came before it, {left}: use \
                         --output-dir, or --fragment",
                        zone.prefix
                    );
                }
                if left.is_some() {
                    text.end()?;
                }
                let first = begun.insert(zone.origin.clone());
                text.begin(&zone.origin, apex.filter(|_| first))?;
            }
            Target::Directory { path, zones, open, clock } => {
                *clock += 1;
                if !zones.contains_key(&zone.origin) {
                    let file = path.join(file_name(&zone.origin, self.format));
                    let mut text = ZoneText::new(Pending::new(Some(&file)), self.format);
                    text.begin(&zone.origin, apex)?;
                    let slot = Slot { text, used: *clock, is_open: false };
                    zones.insert(zone.origin.clone(), slot);
                }
                if let Some(slot) = zones.get_mut(&zone.origin) {
                    slot.used = *clock;
                    if !std::mem::replace(&mut slot.is_open, true) {
                        *open += 1;
                    }
                }
                if *open > MAX_OPEN {
                    park_oldest(zones)?;
                    *open -= 1;
                }
            }
        }
        self.current = Some((zone.origin.clone(), OwnerSuffix::new(zone, self.format)));
        Ok(())
    }

    /// One stamped host of the zone entered last.
    pub(super) fn host(
        &mut self,
        zone: &ReverseZone,
        address: IpAddr,
        stamp: &Stamp,
        name: Option<&NameTemplate>,
    ) -> io::Result<()> {
        let Some((_, suffix)) = &self.current else { return Ok(()) };
        match self.target.text(&zone.origin) {
            Some(text) => text.host(zone, suffix, address, stamp, name),
            None => Ok(()),
        }
    }

    /// One record of the zone entered last.
    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        let Some((origin, _)) = &self.current else { return Ok(()) };
        match self.target.text(origin) {
            Some(text) => text.record(origin, record),
            None => Ok(()),
        }
    }

    /// One record for the forward file.
    pub(super) fn forward(&mut self, record: &Record) -> io::Result<()> {
        match &mut self.forward {
            Some(text) => text.record(&Name::root(), record),
            None => Ok(()),
        }
    }

    /// Completes everything: only now files have their names.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.target {
            Target::Single { mut text, .. } => {
                if self.current.is_some() {
                    text.end()?;
                }
                text.finish()?.complete()?;
            }
            Target::Directory { zones, .. } => {
                for mut slot in zones.into_values() {
                    slot.text.end()?;
                    slot.text.finish()?.complete()?;
                }
            }
        }
        if let Some(mut text) = self.forward {
            text.end()?;
            text.finish()?.complete()?;
        }
        Ok(())
    }
}

impl Target {
    fn text(&mut self, origin: &Name) -> Option<&mut ZoneText<Pending>> {
        match self {
            Self::Single { text, .. } => Some(text),
            Self::Directory { zones, .. } => zones.get_mut(origin).map(|slot| &mut slot.text),
        }
    }
}

fn park_oldest(zones: &mut HashMap<Name, Slot>) -> io::Result<()> {
    if let Some(slot) = zones.values_mut().filter(|s| s.is_open).min_by_key(|s| s.used) {
        slot.is_open = false;
        slot.text.park()?.file = None;
    }
    Ok(())
}

impl Pending {
    fn new(path: Option<&Path>) -> Self {
        let place = path.map(|path| {
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".tmp");
            (path.to_owned(), PathBuf::from(temporary))
        });
        Self { place, file: None, started: false }
    }

    fn complete(mut self) -> anyhow::Result<()> {
        // An empty result is a file too.
        self.write_all(b"")?;
        if let Some((path, temporary)) = self.place.take() {
            if let Some(file) = self.file.take() {
                file.sync_data().ok();
            }
            std::fs::rename(&temporary, &path)
                .with_context(|| format!("cannot make {}", path.display()))?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<Option<&mut File>> {
        let Some((_, temporary)) = &self.place else { return Ok(None) };
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            // Parked files are opened again behind what they hold.
            if std::mem::replace(&mut self.started, true) {
                options.append(true);
            } else {
                options.write(true).create(true).truncate(true);
            }
            let opened = options.open(temporary);
            self.file = Some(opened.map_err(|e| {
                io::Error::new(e.kind(), format!("cannot write {}: {e}", temporary.display()))
            })?);
        }
        Ok(self.file.as_mut())
    }
}

impl Write for Pending {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self.open()? {
            Some(file) => file.write(octets),
            None => io::stdout().write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.flush(),
            None => io::stdout().flush(),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some((_, temporary)) = self.place.take().filter(|_| self.started) {
            let _ = std::fs::remove_file(temporary);
        }
    }
}

/// A small file, complete or not there.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> anyhow::Result<()> {
    let mut file = Pending::new(Some(path));
    file.write_all(text)?;
    file.complete()
}

fn file_name(origin: &Name, format: Format) -> String {
    let ending = match format {
        Format::Master(_) => "zone",
        Format::PowerDns => "json",
        Format::Nsupdate => "nsupdate",
    };
    format!("{}.{ending}", file_stem(origin))
}

/// File descriptors and buffers; the rest are closed and opened again when they are needed.
const MAX_OPEN: usize = 64;
