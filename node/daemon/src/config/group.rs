//! Policy groups: the directory of their files, and groups of the administrator's own.

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
    /// Reads the group files. Without a directory, private-or-clear to everywhere. A bad line
    /// anywhere, and nothing is taken at all.
    pub(crate) fn groups(&self) -> Result<Groups, Error> {
        let directory = self.policy.directory.as_deref().unwrap_or_else(|| Path::new(DIRECTORY));
        let error = |file: &Path, line, why| Error { file: file.into(), line, why };
        let mut groups = Groups::new();
        if directory.is_dir() {
            let custom = self.groups.iter().filter_map(|c| Some((c.group()?, c.name.as_str())));
            let classic = Group::ALL.into_iter().map(|group| (group, group.name()));
            for (group, name) in classic.chain(custom) {
                self.read(&mut groups, group, name, &directory.join(name))?;
            }
        } else if self.policy.directory.is_some() {
            let why = format!("{}: not a directory", directory.display());
            return Err(self.error(Fault::new("policy.directory", why)));
        }
        let default = self.policy.packetdefault.map(|name| name.0);
        let without_files = || (!directory.is_dir()).then_some(Group::PrivateOrClear);
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
        Ok(groups)
    }

    fn read(
        &self,
        groups: &mut Groups,
        group: Group,
        name: &str,
        path: &Path,
    ) -> Result<(), Error> {
        let error = |line, why| Error { file: path.into(), line, why };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(why) => return Err(error(None, why.to_string())),
        };
        let file = File { name: name.to_owned(), path: path.display().to_string() };
        let warnings =
            groups.read_file(group, file, &text).map_err(|bad| error(Some(bad.line), bad.why))?;
        for warning in warnings {
            tracing::warn!("{}:{}: {}", path.display(), warning.line, warning.what);
        }
        Ok(())
    }
}

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
    fn the_kernels_own_plane_knows_no_port_rules() {
        let directory = Directory::with("xfrm-ports", &[("private", "10.0.0.0/8 6 0 443\n")]);
        let config = directory.config("[node]\nbackend = \"xfrm\"\n").unwrap();
        let error = config.groups().unwrap_err().to_string();
        assert!(error.contains("/private:1: rules for single ports need"), "{error}");
    }
}
