//! The host key's file, and what becomes of a node when somebody else has been at it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tests::node::{Setup, text};
use tests::place;

use crate::binary;
use crate::daemon::{assert_one_line, refused};
use crate::internet::{DNS, EAST, Internet, WEST, assert_same, can_run};

/// What may have been done to it.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Gone,
    CutShort,
    Empty,
    ForAll,
    Directory,
    Another,
}

impl Damage {
    /// All of which no node starts with.
    const FATAL: [Self; 5] =
        [Self::Gone, Self::CutShort, Self::Empty, Self::ForAll, Self::Directory];

    /// Does it, to a file that is as it was.
    fn be(self, internet: &Internet, file: &Path) {
        restore(internet, file);
        let pem = fs::read_to_string(file).unwrap();
        match self {
            Self::Gone => fs::remove_file(file).unwrap(),
            Self::CutShort => fs::write(file, &pem[..pem.len() / 2]).unwrap(),
            Self::Empty => fs::write(file, "").unwrap(),
            Self::ForAll => {
                fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
            }
            Self::Directory => {
                fs::remove_file(file).unwrap();
                fs::create_dir(file).unwrap();
            }
            Self::Another => {
                fs::copy(internet.directory.join("east.key"), file).unwrap();
            }
        }
    }

    /// How it is called when it is found.
    fn words(self) -> &'static str {
        match self {
            Self::Gone => "no such file",
            Self::CutShort => "PEM that cannot be decoded",
            Self::Empty => "no PEM in it",
            Self::ForAll => "mode 0644 lets others at the private key",
            Self::Directory => "not a regular file",
            Self::Another => "another key",
        }
    }
}

/// West's own key, as it was.
fn restore(internet: &Internet, file: &Path) {
    let _ = fs::remove_file(file);
    let _ = fs::remove_dir(file);
    fs::copy(internet.directory.join("west.key"), file).unwrap();
}

/// West with a key of its own to lose; private towards east, the rest as it comes.
fn setup(internet: &Internet) -> (Setup, PathBuf) {
    let mut setup = internet.setup("west");
    let file = setup.directory.join("own.key");
    restore(internet, &file);
    setup.key = Some(file.clone());
    setup.policies = vec![
        ("private", "198.51.100.0/24\n2001:db8:2::/64\n"),
        ("private-or-clear", "0.0.0.0/0\n::/0\n"),
    ];
    (setup, file)
}

const RELOAD: &str = r#"{"request":"reload"}"#;

/// CVE-2024-2357: whatever becomes of its key's file, a running node has its key, and makes new pairs
/// with it; asked to read its configuration anew, it does, and says what is wrong.
#[test]
fn a_node_goes_on_without_its_key_file() {
    if !can_run("a_node_goes_on_without_its_key_file") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let (setup, file) = setup(&internet);
    let node = setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    let shown = file.display().to_string();
    let mut keyed = node.await_happened("keyed", 1);
    for damage in Damage::FATAL.into_iter().chain([Damage::Another]) {
        damage.be(&internet, &file);
        let done = node.ask(RELOAD);
        assert!(done["error"].is_null() && done["changed"] == 0, "{damage:?}: {done}");
        let warning = text(&done, "warning");
        for words in ["node.key: ", &shown, damage.words(), "in use", "restart"] {
            assert!(warning.contains(words), "{damage:?}: no {words:?}: {done}");
        }
        assert!(node.log().contains(warning), "{damage:?}: {}", node.log());
        // A new IKE SA, by the key that it has.
        let _ = node.ask(&format!(r#"{{"request":"forget","address":"{}"}}"#, EAST[0]));
        assert!(internet.ping("west", EAST[0]), "{damage:?}");
        keyed = node.await_happened("keyed", keyed + 1);
        assert_eq!(text(&node.await_state(EAST[0], "keyed"), "trust"), "dnssec");
    }
    let config = setup.directory.join("oe-node.toml").display().to_string();
    let ended = binary::run(&["reload", "--config", &config]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.stdout.contains("warning: ") && ended.stdout.contains("another key"),
        "{ended:?}"
    );
    restore(&internet, &file);
    let done = node.ask(RELOAD);
    assert!(done["warning"].is_null() && done["error"].is_null(), "{done}");
}

/// CVE-2024-2357.
/// P1: after a crash, and after an orderly end under a guard, a start without the key says which file
/// it misses, in one line, makes no other key, and leaves closed what is private and open what is
/// not.
#[test]
fn without_its_key_a_node_does_not_start_and_opens_nothing() {
    if !can_run("without_its_key_a_node_does_not_start_and_opens_nothing") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let east = internet.setup("east").start(&internet.namespace("east"));
    let (setup, file) = setup(&internet);
    let shown = file.display().to_string();
    let config = setup.write();
    let guard = |word: &str| {
        let binary = tests::oe_node().display().to_string();
        let words = [&binary, "guard", word, "--config", &config.display().to_string()];
        place::run(&internet.namespace("west"), &words)
    };
    let wire = internet.capture("west");
    for crash in [true, false] {
        restore(&internet, &file);
        let mut node = setup.start(&internet.namespace("west"));
        assert!(internet.ping("west", EAST[0]) && internet.ping("west", DNS[0]));
        node.await_state(EAST[0], "keyed");
        if crash {
            node.kill();
        } else {
            // It knows of no key.
            Damage::Gone.be(&internet, &file);
            let (up, said) = guard("up");
            assert!(up, "{said}");
            assert!(node.terminate().success());
        }
        drop(node);
        let before = internet.traces("west");
        for damage in Damage::FATAL {
            damage.be(&internet, &file);
            let ended = refused(&internet, &config);
            assert_one_line(&ended, &["oe-node.toml:2: node.key: ", &shown, damage.words()]);
            assert_same(&before, &internet.traces("west"));
            assert!(!matches!(damage, Damage::Gone) || !file.exists(), "made another one");
            assert!(!setup.socket().exists() || crash);
        }
        for peer in EAST {
            internet.knock("west", peer);
        }
        for plain in DNS {
            assert!(internet.ping("west", plain), "{plain}");
        }
    }
    let clear = wire.packets(
        "(icmp or icmp6 or port 9999) and (host 198.51.100.22 or host 2001:db8:2::22) and \
         (src host 192.0.2.11 or src host 2001:db8:1::11)",
    );
    assert!(clear.is_empty(), "{clear:#?}");
    // With the key everything is as it was.
    restore(&internet, &file);
    let node = setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    node.await_state(EAST[0], "keyed");
    east.await_state(WEST[0], "keyed");
    drop(node);
    assert!(guard("down").0);
}
