//! Master files from the file system.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use zonefiles::{Name, Reader, Record, Rtype, Zone};

/// A reader of a master file; `-` is standard input. Included files are looked for beside it, then
/// in the working directory.
pub(crate) fn reader(path: &Path, origin: Option<Name>) -> anyhow::Result<Reader> {
    tracked_reader(path, origin, &Rc::default())
}

/// The same, and notes every file that is opened.
fn tracked_reader(
    path: &Path,
    origin: Option<Name>,
    opened: &Rc<RefCell<Vec<PathBuf>>>,
) -> anyhow::Result<Reader> {
    let name = path.display().to_string();
    let input: Box<dyn BufRead> = if name == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        opened.borrow_mut().push(path.to_owned());
        open(path).with_context(|| format!("cannot read {name}"))?
    };
    let opened = Rc::clone(opened);
    let beside = path.parent().map(Path::to_owned).unwrap_or_default();
    let opener = move |included: &str| {
        let path = beside.join(included);
        opened.borrow_mut().push(path.clone());
        open(&path).or_else(|first| match first.kind() {
            io::ErrorKind::NotFound => {
                opened.borrow_mut().push(PathBuf::from(included));
                open(&PathBuf::from(included)).map_err(|_| first)
            }
            _ => Err(first),
        })
    };
    Ok(Reader::new(&name, input, origin, Box::new(opener)))
}

/// A whole zone. Every problem is in the error.
pub(crate) fn read_zone(path: &Path, origin: Option<Name>) -> anyhow::Result<Zone> {
    let named = origin.is_some();
    read_zone_of(path, origin).1.map_err(|error| match error.downcast_ref::<NoZone>() {
        Some(NoZone(_)) if !named => anyhow::anyhow!("{error}; give --origin"),
        _ => error,
    })
}

/// A file without the record that says of which zone it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}: no SOA, so it is unknown which zone this is")]
struct NoZone(String);

/// The same, and the files it was made from, whether or not it could be.
pub(crate) fn read_zone_of(
    path: &Path,
    origin: Option<Name>,
) -> (Vec<PathBuf>, anyhow::Result<Zone>) {
    let opened = Rc::default();
    let zone = tracked_reader(path, origin.clone(), &opened)
        .and_then(|reader| collect(path, reader, origin));
    (opened.take(), zone)
}

fn collect(path: &Path, reader: Reader, origin: Option<Name>) -> anyhow::Result<Zone> {
    let mut records: Vec<Record> = Vec::new();
    let mut problems = Vec::new();
    for entry in reader {
        match entry {
            Ok(located) => records.push(located.record),
            Err(problem) if problems.len() < MAX_PROBLEMS => problems.push(problem.to_string()),
            Err(_) => {}
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let soa = records.iter().find(|r| r.rtype == Rtype::SOA).map(|r| r.owner.clone());
    let Some(origin) = soa.or(origin) else {
        bail!(NoZone(path.display().to_string()));
    };
    Ok(Zone { origin, records })
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Box::new(BufReader::with_capacity(BUFFER, file)))
}

/// Reading is not what should take the time.
const BUFFER: usize = 256 * 1024;
/// Who has more of them uses `zone check`.
const MAX_PROBLEMS: usize = 20;
