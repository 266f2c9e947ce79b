//! Files that an operator may have from anywhere.

use keying::{Group, Groups};
use zonefiles::{Name, Reader};

/// Policy groups: what is refused is refused with a line that can be printed, and whole.
pub(crate) fn policy_groups(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for group in Group::ALL {
        let mut groups = Groups::new();
        match groups.read(group, &text) {
            Ok(_) => {
                for (prefix, of) in groups.iter() {
                    assert_eq!(of, group);
                    assert_eq!(groups.lookup(prefix.addr()).map(|(_, group)| group), Some(group));
                }
            }
            Err(error) => {
                assert!(groups.iter().next().is_none(), "half a file was taken");
                assert!((1..=text.lines().count()).contains(&error.line));
                let shown = error.to_string();
                assert!(!shown.chars().any(char::is_control), "{shown:?}");
            }
        }
    }
}

/// Master files, without includes.
pub(crate) fn zone_files(input: &[u8]) {
    let none = |_: &str| Err(std::io::ErrorKind::Unsupported.into());
    let input = Box::new(std::io::Cursor::new(input.to_vec()));
    let reader = Reader::new("zone", input, Some(Name::root()), Box::new(none));
    for found in reader.take(2000) {
        assert!(!format!("{found:?}").is_empty());
    }
}
