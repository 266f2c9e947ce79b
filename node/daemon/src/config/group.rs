//! Policy groups: the directory of their files, and groups of the administrator's own.

use std::io::{ErrorKind::NotFound, Read as _};
use std::path::Path;

use keying::{File, Group, Groups};
use serde::Deserialize;

use super::places::Fault;
use super::{Backend, Config, Error};

/// The directory when the configuration names none.
const DIRECTORY: &str = "/etc/oe-node/policies";

/// `[[group]]`: one with a name, and a file of this name in the directory.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CustomGroup {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) kind: Kind,
    #[serde(default = "yes")]
    pub(crate) initiate: bool,
    #[serde(default)]
    pub(crate) failure: Failure,
}

fn yes() -> bool {
    true
}

/// What a group does about its destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// Encrypts where it can.
    #[default]
    Opportunistic,
    /// Lets everything pass, and refuses calls.
    Passthrough,
    /// Lets nothing pass.
    Reject,
}

/// What an opportunistic group does when there is nobody to encrypt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Failure {
    #[default]
    Pass,
    Drop,
}

/// A classic group by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct GroupName(pub(crate) Group);

impl TryFrom<String> for GroupName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let found = Group::ALL.into_iter().find(|group| group.name() == text);
        found.map(Self).ok_or_else(|| {
            let names = Group::ALL.map(Group::name).join(", ");
            format!("{text:?} is none of {names}")
        })
    }
}

impl CustomGroup {
    fn group(&self) -> Option<Group> {
        match (self.kind, self.initiate, self.failure) {
            (Kind::Opportunistic, true, Failure::Pass) => Some(Group::PrivateOrClear),
            (Kind::Opportunistic, true, Failure::Drop) => Some(Group::Private),
            (Kind::Opportunistic, false, Failure::Pass) => Some(Group::ClearOrPrivate),
            (Kind::Opportunistic, false, Failure::Drop) => None,
            (Kind::Passthrough, ..) => Some(Group::Clear),
            (Kind::Reject, ..) => Some(Group::Block),
        }
    }

    /// What the types cannot say: field and reason.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let name = &self.name;
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(ok) {
            return Err(("name", format!("{name:?} must be a file name of [A-Za-z0-9._-]")));
        }
        if name == "packetdefault" || Group::ALL.iter().any(|group| group.name() == name) {
            return Err(("name", format!("{name} is a group already")));
        }
        if self.group().is_none() {
            let why = "\"drop\" without initiate would be a block until they call";
            return Err(("failure", format!("{why} (group {name})")));
        }
        Ok(())
    }
}

impl Config {
    /// Reads the group files, and logs what they do not say as it seems.
    pub(crate) fn groups(&self) -> Result<Groups, Error> {
        let (groups, warnings) = self.groups_and_warnings()?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(groups)
    }

    /// Reads the group files. Without a directory, private-or-clear to everywhere. A bad line
    /// anywhere, and nothing is taken at all. The warnings are one line each, for people.
    pub(crate) fn groups_and_warnings(&self) -> Result<(Groups, Vec<String>), Error> {
        let directory = self.policy.directory.as_deref().unwrap_or_else(|| Path::new(DIRECTORY));
        let error = |file: &Path, line, why| Error { file: file.into(), line, why };
        let (mut groups, mut warnings) = (Groups::new(), Vec::new());
        let there = self.is_there(directory)?;
        if there {
            let custom = self.groups.iter().filter_map(|c| Some((c.group()?, c.name.as_str())));
            let classic = Group::ALL.into_iter().map(|group| (group, group.name()));
            let all: Vec<_> = classic.chain(custom).collect();
            for (group, name) in &all {
                read(&mut groups, &mut warnings, *group, name, &directory.join(name))?;
            }
            let names: Vec<&str> = all.iter().map(|(_, name)| *name).collect();
            warnings.extend(strays(directory, &names));
        }
        let default = self.policy.packetdefault.map(|name| name.0);
        if there && default.is_none() {
            warnings.extend(uncovered(directory, &groups));
        }
        let without_files = || (!there).then_some(Group::PrivateOrClear);
        if let Some(default) = default.or_else(without_files) {
            groups.set_default(default);
        }
        for (index, prefix) in self.pool().into_iter().enumerate() {
            let clash = |why| self.error(Fault::new(format!("pool.prefixes[{index}]"), why));
            groups.set_pool(prefix).map_err(clash)?;
        }
        if self.node.backend == Backend::Xfrm
            && let Some(listed) = groups.minds_ports()
        {
            let path = listed.file.and_then(|number| groups.file(number)).map(|f| f.path.clone());
            let why = "rules for single ports need node.backend = \"userspace\"".to_owned();
            return Err(error(Path::new(&path.unwrap_or_default()), listed.line, why));
        }
        Ok((groups, warnings))
    }

    /// Whether there are group files at all. Only what is not there at all means that there are none:
    /// what cannot be looked into may close something.
    fn is_there(&self, directory: &Path) -> Result<bool, Error> {
        let why = match std::fs::metadata(directory) {
            Ok(found) if found.is_dir() => return Ok(true),
            Err(why) if why.kind() != NotFound => why.to_string(),
            // A link that leads nowhere is something.
            Err(_) if self.policy.directory.is_none() && directory.symlink_metadata().is_err() => {
                return Ok(false);
            }
            Ok(_) | Err(_) => "not a directory".to_owned(),
        };
        Err(self.error(Fault::new("policy.directory", format!("{}: {why}", directory.display()))))
    }
}

/// Reads one group's file, if there is one.
fn read(
    groups: &mut Groups,
    warnings: &mut Vec<String>,
    group: Group,
    name: &str,
    path: &Path,
) -> Result<(), Error> {
    let error = |line, why| Error { file: path.into(), line, why };
    let octets = match std::fs::read(path) {
        Ok(octets) => octets,
        // A link that leads nowhere is a file that is gone, and what it closed would be open.
        Err(why) if why.kind() == NotFound && path.symlink_metadata().is_err() => return Ok(()),
        Err(why) => return Err(error(None, why.to_string())),
    };
    // Comments may be older than UTF-8; in what is read, what is none is an error of its line.
    let text = String::from_utf8_lossy(&octets);
    let file = File { name: name.to_owned(), path: path.display().to_string() };
    let found =
        groups.read_file(group, file, &text).map_err(|bad| error(Some(bad.line), bad.why))?;
    let said = |w: &keying::Warning| format!("{}:{}: {}", path.display(), w.line, w.what);
    warnings.extend(found.iter().map(said));
    Ok(())
}

/// Files in the directory that say something and are no group's: most likely a name is misspelt, and
/// what the file is to close is open.
fn strays(directory: &Path, names: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut strays: Vec<_> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        // What editors leave behind.
        .filter(|(name, _)| !name.starts_with('.') && !name.ends_with('~'))
        .filter(|(name, path)| !names.contains(&name.as_str()) && says_something(path))
        .map(|(name, path)| {
            let name = name.escape_default();
            format!("{}: not read: no group is called {name}", path.display())
        })
        .collect();
    strays.sort();
    strays.truncate(MAX_STRAYS);
    strays
}

/// What no file names is in the clear as soon as there are files: who wrote the first one may not
/// expect that.
fn uncovered(directory: &Path, groups: &Groups) -> Option<String> {
    let everything = [sa::Prefix::ALL_V4, sa::Prefix::ALL_V6];
    let left = everything.iter().filter(|all| !groups.iter().any(|(prefix, _)| prefix == **all));
    let left: Vec<String> = left.map(ToString::to_string).collect();
    (!left.is_empty()).then(|| {
        format!(
            "{}: no file has {}: what no file names goes in the clear (say so with \
             policy.packetdefault, or list it)",
            directory.display(),
            left.join(" or ")
        )
    })
}

/// Whether a file has a line that is no comment.
fn says_something(path: &Path) -> bool {
    let is_file = path.metadata().is_ok_and(|found| found.is_file());
    let text = is_file.then(|| std::fs::File::open(path).ok()).flatten().and_then(|file| {
        let mut start = Vec::new();
        file.take(STRAY_OCTETS).read_to_end(&mut start).ok().map(|_| start)
    });
    let text = text.unwrap_or_default();
    let mut lines = text.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii);
    lines.any(|line| !line.is_empty() && !line.starts_with(b"#"))
}

/// A directory that is full of something else needs no line about each.
const MAX_STRAYS: usize = 20;
/// So much of a file that is not read is looked at: comments are shorter.
const STRAY_OCTETS: u64 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy directory with these files, gone when it is dropped.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn with(test: &str, files: &[(&str, &str)]) -> Self {
            let path = std::env::temp_dir().join(format!("oe-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            for (name, text) in files {
                std::fs::write(path.join(name), text).unwrap();
            }
            Self(path)
        }

        fn config(&self, more: &str) -> Result<Config, Error> {
            let text = format!("[policy]\ndirectory = {:?}\n{more}", self.0);
            Config::parse(Path::new("x.toml"), &text)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn group_of(groups: &Groups, addr: &str) -> Option<Group> {
        groups.lookup(addr.parse().unwrap()).map(|(_, group)| group)
    }

    #[test]
    fn groups_of_ones_own() {
        let files = [("lan", "10.0.0.0/8\n"), ("guests", "10.9.0.0/16\n"), ("README", "no\n")];
        let directory = Directory::with("own-groups", &files);
        let config = directory
            .config(
                "packetdefault = \"private-or-clear\"\n\
                 [[group]]\nname = \"lan\"\nfailure = \"drop\"\n\
                 [[group]]\nname = \"guests\"\ninitiate = false\n",
            )
            .unwrap();
        let groups = config.groups().unwrap();
        assert_eq!(group_of(&groups, "10.1.1.1"), Some(Group::Private));
        assert_eq!(group_of(&groups, "10.9.1.1"), Some(Group::ClearOrPrivate));
        assert_eq!(group_of(&groups, "192.0.2.1"), Some(Group::PrivateOrClear));
        let (_, listed) = groups.listed("10.1.1.1".parse().unwrap()).unwrap();
        assert_eq!(groups.name_of(listed), "lan");
        for (text, words) in [
            ("[[group]]\nname = \"private\"\n", "private is a group already"),
            ("[[group]]\nname = \"../x\"\n", "must be a file name"),
            ("[[group]]\nname = \"x\"\ninitiate = false\nfailure = \"drop\"\n", "block"),
            ("[[group]]\nname = \"x\"\nkind = \"magic\"\n", "group.kind: "),
            ("packetdefault = \"open\"\n", "policy.packetdefault: "),
        ] {
            let error = directory.config(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_bad_line_anywhere_and_nothing_is_taken() {
        let files = [("private", "10.0.0.0/8\n"), ("block", "\r\n192.0.2.0/24 6 443\r\n")];
        let directory = Directory::with("bad-line", &files);
        let error = directory.config("").unwrap().groups().unwrap_err().to_string();
        assert!(error.contains("/block:2: expected PREFIX"), "{error}");
    }

    #[test]
    fn a_file_of_no_group_is_told_of() {
        let shipped = "# Direction\tProto\n#both\ttcp\tany\t22\t1023\r\n\n";
        let files = [
            ("privat", "10.0.0.0/8\n"),
            ("clear", "www.example.net\n"),
            ("portexcludes.conf", shipped),
            ("private~", "10.0.0.0/8\n"),
            (".private.swp", "x\n"),
        ];
        let directory = Directory::with("strays", &files);
        let (_, warnings) = directory.config("").unwrap().groups_and_warnings().unwrap();
        let said = [
            "/clear:1: www.example.net: names are not looked up; passed over",
            "/privat: not read: no group is called privat",
            ": no file has 0.0.0.0/0 or ::/0: what no file names goes in the clear (say so with \
             policy.packetdefault, or list it)",
        ];
        assert_eq!(warnings.len(), said.len(), "{warnings:?}");
        for (warning, said) in warnings.iter().zip(said) {
            assert!(warning.ends_with(said), "{warning}");
        }
        std::fs::write(directory.0.join("private-or-clear"), "0.0.0.0/0\n").unwrap();
        let config = directory.config("").unwrap();
        assert!(config.groups_and_warnings().unwrap().1.iter().any(|w| w.contains(" has ::/0:")));
        let config = directory.config("packetdefault = \"clear\"\n").unwrap();
        let (_, warnings) = config.groups_and_warnings().unwrap();
        assert!(!warnings.iter().any(|warning| warning.contains("no file has")), "{warnings:?}");
    }

    /// What is there and cannot be read is not the same as nothing.
    #[test]
    fn what_cannot_be_read_opens_nothing() {
        let directory = Directory::with("unreadable", &[]);
        std::os::unix::fs::symlink("/nonexistent/private", directory.0.join("private")).unwrap();
        let error = directory.config("").unwrap().groups().unwrap_err().to_string();
        assert!(error.contains("/private: No such file"), "{error}");
        std::fs::remove_file(directory.0.join("private")).unwrap();
        std::fs::write(directory.0.join("private"), b"10.0.0.0/8 # f\xfcr alle\n").unwrap();
        let groups = directory.config("").unwrap().groups().unwrap();
        assert_eq!(group_of(&groups, "10.1.1.1"), Some(Group::Private));
        std::fs::write(directory.0.join("private"), b"\n10.0.0.\xfc/8\n").unwrap();
        let error = directory.config("").unwrap().groups().unwrap_err().to_string();
        assert!(error.contains("/private:2: 10.0.0."), "{error}");

        let link = directory.0.join("link");
        std::os::unix::fs::symlink("/nonexistent", &link).unwrap();
        let there = |directory: &Path| Config::default().is_there(directory);
        assert_eq!(there(&directory.0), Ok(true));
        assert_eq!(there(&directory.0.join("none")), Ok(false));
        for wrong in [link, directory.0.join("private")] {
            assert!(there(&wrong).unwrap_err().to_string().contains("not a directory"));
        }
        let named = format!("[policy]\ndirectory = {:?}\n", directory.0.join("none"));
        let error = Config::parse(Path::new("x.toml"), &named).unwrap().groups().unwrap_err();
        assert!(error.to_string().starts_with("x.toml:2: policy.directory: "), "{error}");
    }

    #[test]
    fn the_kernels_own_plane_knows_no_port_rules() {
        let directory = Directory::with("xfrm-ports", &[("private", "10.0.0.0/8 6 0 443\n")]);
        let config = directory.config("[node]\nbackend = \"xfrm\"\n").unwrap();
        let error = config.groups().unwrap_err().to_string();
        assert!(error.contains("/private:1: rules for single ports need"), "{error}");
    }
}
