//! What nobody may read in anything that a node writes.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tests::node::{Node, Setup, text};
use tests::place;

use crate::binary;
use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};
use crate::pcap;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The octets of the first PEM block (RFC 7468).
fn der(pem: &str) -> Vec<u8> {
    let body = pem.lines().filter(|line| !line.starts_with('-')).flat_map(str::bytes);
    let digits = body.filter_map(|b| DIGITS.iter().position(|digit| *digit == b));
    let (mut octets, mut held, mut bits) = (Vec::new(), 0, 0);
    for digit in digits {
        (held, bits) = ((held << 6 | digit) & 0xffff, bits + 6);
        if bits >= 8 {
            bits -= 8;
            octets.push(u8::try_from(held >> bits & 0xff).unwrap());
        }
    }
    octets
}

/// Base64 without padding (RFC 4648); bits that fill no digit are dropped.
fn base64(octets: &[u8]) -> String {
    let bit = |at: usize| usize::from(octets[at / 8] >> (7 - at % 8) & 1);
    let digits = (0..octets.len() * 8 / 6).map(|digit| {
        let value = (0..6).fold(0, |value, n| value << 1 | bit(digit * 6 + n));
        char::from(DIGITS[value])
    });
    digits.collect()
}

/// So many octets that follow each other in a secret are a part of it that counts.
const PART: usize = 8;

/// How some octets may look in a text, or in the middle of one.
fn shapes(part: &[u8]) -> Vec<Vec<u8>> {
    let joined = |between: &str, show: &dyn Fn(u8) -> String| {
        part.iter().map(|octet| show(*octet)).collect::<Vec<_>>().join(between)
    };
    let hex = |octet: u8| format!("{octet:02x}");
    let mut texts = vec![
        joined(", ", &|octet| octet.to_string()),
        joined(",", &|octet| octet.to_string()),
        joined(", ", &|octet| format!("{octet:x}")),
        joined(", ", &|octet| format!("0x{octet:x}")),
        part.escape_ascii().to_string(),
    ];
    for between in ["", " ", ":", ", "] {
        texts.push(joined(between, &hex));
        texts.push(joined(between, &|octet| hex(octet).to_uppercase()));
    }
    // At each place among the three octets of four digits; the first digits are also of what stands
    // before.
    for (before, strange) in [(0, 0), (1, 2), (2, 3)] {
        let coded = base64(&[&vec![0; before][..], part].concat());
        let coded = coded[strange..].to_owned();
        texts.push(coded.replace('+', "-").replace('/', "_"));
        texts.push(coded);
    }
    texts.push(String::from_utf8_lossy(part).escape_debug().to_string());
    let mut shapes: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    shapes.push(part.to_vec());
    shapes
}

/// What nobody may read: each shape of each part, by its first octets, with the secret's name.
#[derive(Default)]
struct Secrets(HashMap<[u8; PART], Vec<(Vec<u8>, String)>>);

impl Secrets {
    fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= 16, "{name}: {} octets", secret.len());
        for shape in secret.chunks_exact(PART).flat_map(shapes) {
            let first = *shape.first_chunk().unwrap();
            self.0.entry(first).or_default().push((shape, name.to_owned()));
        }
    }

    /// Host keys: behind the modulus, which is public and a fifth of it, stand the private exponent,
    /// primes and their like.
    fn add_key(&mut self, file: &Path) {
        let der = der(&fs::read_to_string(file).unwrap());
        assert!(der.len() > 1000, "{} octets of key", der.len());
        self.add(&file.display().to_string(), &der[der.len() / 3..]);
    }

    /// What a state directory has now.
    fn add_state(&mut self, state: &Path) {
        for name in ["crash.secret", "ticket.secret"] {
            let file = state.join(name);
            self.add(&file.display().to_string(), &fs::read(&file).unwrap());
        }
        let file = state.join("tickets");
        let mut octets = &fs::read(&file).unwrap_or_default()[..];
        // Until when, whose, by which key, and how long; then the length of what is secret of it,
        // and that: five numbers of the suite, and SK_d behind its own length.
        while let Some(length) = octets.get(56..58) {
            let number =
                |octets: &[u8]| usize::from(u16::from_be_bytes(octets.try_into().unwrap()));
            let length = number(length);
            let ticket = &octets[58..58 + length];
            let secret = &ticket[2..2 + number(&ticket[..2])];
            let sk_d = &secret[12..];
            assert_eq!(sk_d.len(), number(&secret[10..12]), "a ticket is written otherwise");
            self.add(&file.display().to_string(), sk_d);
            octets = &octets[58 + length..];
        }
    }

    /// The tokens (RFC 6290) that whoever has this state directory tells, or would, for each IKE SA
    /// of a capture, whichever end of it he is.
    fn add_tokens(&mut self, state: &Path, capture: &Path) {
        let secret = fs::read(state.join("crash.secret")).unwrap().try_into().unwrap();
        let packets = pcap::read_running(&fs::read(capture).unwrap());
        let seen: BTreeSet<_> = packets.iter().filter_map(pcap::Packet::ike_spis).collect();
        let seen: Vec<_> = seen.into_iter().filter(|(_, responder)| *responder != 0).collect();
        assert!(seen.len() > 3, "{} IKE SAs", seen.len());
        for spis in seen {
            for initiator in [true, false] {
                let token = ike::internal::token(&secret, spis, initiator);
                self.add(&format!("a token of {}", state.display()), &token);
            }
        }
    }

    /// How many there are of a name.
    fn count(&self, name: &str) -> usize {
        self.0.values().flatten().filter(|(_, of)| of.contains(name)).count()
    }

    /// The names of those that a text tells something of, and what.
    fn told(&self, text: &[u8]) -> Vec<String> {
        let mut told = Vec::new();
        for (at, window) in text.windows(PART).enumerate() {
            for (shape, name) in self.0.get(window).into_iter().flatten() {
                if text[at..].starts_with(shape) {
                    told.push(format!("{name}: {}", shape.escape_ascii()));
                }
            }
        }
        told
    }
}

/// The search finds what it is for, in the middle of a text and in every notation.
#[test]
fn secrets_are_found_in_every_notation() {
    let secret: Vec<u8> = (0_u8..32).map(|n| n.wrapping_mul(83) ^ 0xa5).collect();
    let mut secrets = Secrets::default();
    secrets.add("it", &secret);
    let upper = secret.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02X}");
        text
    });
    let mut texts = vec![
        format!("{secret:?}").into_bytes(),
        format!("{secret:02x?}").into_bytes(),
        format!("{secret:#x?}").replace('\n', " ").replace("    ", "").into_bytes(),
        upper.to_lowercase().into_bytes(),
        upper.into_bytes(),
        secret.clone(),
        secret.escape_ascii().to_string().into_bytes(),
    ];
    for before in 0..3 {
        texts.push(base64(&[&vec![9; before][..], &secret].concat()).into_bytes());
    }
    for text in texts {
        let whole = [&b"one="[..], &text, b" and more"].concat();
        assert!(!secrets.told(&whole).is_empty(), "{}", whole.escape_ascii());
        // A third of it is enough.
        let third = &whole[..4 + text.len() / 3];
        assert!(!secrets.told(third).is_empty(), "{}", third.escape_ascii());
    }
    assert!(secrets.told(b"nothing of it").is_empty());
}

/// Writes a file with a secret that is shared with a peer.
fn share(internet: &Internet, name: &str, line: &str) -> String {
    let file = internet.directory.join(name);
    fs::write(&file, line).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.display().to_string()
}

/// The second family by a secret, the first by the keys in DNS; and every life as short as can be.
fn setup(internet: &Internet, host: &str, own: &str, peer: &str, secret: &str) -> Setup {
    let mut setup = internet.setup(host);
    setup.log = "trace".to_owned();
    setup.more = format!(
        "[ike]\nike-life = 10\nchild-life = 10\n[[connection]]\nname = \"net\"\n\
         gateway = \"{peer}\"\npsk-file = \"{secret}\"\nlocal-subnets = [\"{own}\"]\n\
         remote-subnets = [\"{peer}\"]\n"
    );
    setup
}

/// Everything that a node tells who asks.
fn answers(node: &Node, setup: &Setup) -> String {
    let mut told = String::new();
    for request in ["status", "peers", "reload"] {
        told += &node.ask(&format!(r#"{{"request":"{request}"}}"#)).to_string();
    }
    for address in EAST.iter().chain(&WEST) {
        let asked = format!(r#"{{"request":"explain","address":"{address}"}}"#);
        told += &node.ask(&asked).to_string();
    }
    let file = setup.directory.join("oe-node.toml").display().to_string();
    for words in [&["status"][..], &["peers"], &["explain", EAST[0]], &["explain", EAST[1]]] {
        let ended = binary::run(&[words, &["--config", &file]].concat());
        told += &(ended.stdout + &ended.stderr);
    }
    told
}

/// P18: with everything logged that can be, two nodes meet by host keys and by a shared secret,
/// replace their keys, crash, come back with tickets, hear tokens that say who has crashed, read
/// files with secrets in them that are wrong, and refuse each other; and no part of any secret
/// stands in what they wrote or said, in any shape, nor in a file of their state that is not its
/// own. Tokens, which are told on the wire by who has lost an SA and to nobody before, are among
/// them. (Session keys: `no_key_is_printed` knows them all.)
#[test]
fn no_secret_is_told() {
    if !can_run("no_secret_is_told") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let mut secrets = Secrets::default();
    for host in ["west", "east"] {
        secrets.add_key(&internet.directory.join(format!("{host}.key")));
    }
    // As many octets as need no padding.
    let shared: Vec<u8> = (0_u8..33).map(|n| n.wrapping_mul(151) ^ 0x3c).collect();
    let other = b"incorrect mare battery staple 42";
    secrets.add("the shared secret", &shared);
    secrets.add("another one", other);
    let coded = share(&internet, "coded", &format!("0s{}\n", base64(&shared)));
    let line = share(&internet, "line", &format!("{}\n", String::from_utf8_lossy(other)));

    let east_setup = setup(&internet, "east", EAST[1], WEST[1], &coded);
    let mut west_setup = setup(&internet, "west", WEST[1], EAST[1], &coded);
    let state = |setup: &Setup| setup.directory.join("state");
    let mut east = east_setup.start(&internet.namespace("east"));
    let mut west = west_setup.start(&internet.namespace("west"));
    let wire = internet.capture("west");
    let heard = internet.directory.join("heard");
    let file = west_setup.directory.join("oe-node.toml");
    let script = "exec \"$0\" events --config \"$1\" > \"$2\"";
    let words = [tests::oe_node(), file, heard.clone()].map(|path| path.display().to_string());
    let events = binary::start(Command::new("sh").args(["-c", script]).args(&words));
    place::await_some("somebody listens", PATIENCE, || {
        fs::read_to_string(&heard).unwrap_or_default().contains("listening").then_some(())
    });
    for peer in EAST {
        assert!(internet.ping("west", peer), "{peer}");
    }
    let before = west.await_state(EAST[0], "keyed");
    west.await_connection("net", "up");
    // Keys are replaced.
    place::await_some("another pair", PATIENCE, || {
        let now = west.destination(EAST[0]);
        (text(&now, "state") == "keyed" && now["spi_in"] != before["spi_in"]).then_some(())
    });
    let mut told = answers(&west, &west_setup) + &answers(&east, &east_setup);
    secrets.add_state(&state(&west_setup));
    secrets.add_state(&state(&east_setup));

    // A crash, and a ticket; with a secret that is not the peer's.
    west.kill();
    let _ = events.wait(PATIENCE);
    west_setup.more = west_setup.more.replace(&coded, &line);
    let mut west = west_setup.start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    wire.await_packets(RESUME);
    let once = ["ping", "-n", "-c", "1", "-W", "2", EAST[1]];
    assert!(!place::run(&internet.namespace("west"), &once).0, "with the wrong secret");
    west.await_happened("connection-failed", 1);
    // Files that are wrong.
    for (name, wrong) in [
        ("two", format!("{}\nmore\n", String::from_utf8_lossy(other))),
        ("bad", format!("0s{}*\n", base64(&shared))),
    ] {
        let file = share(&internet, name, &wrong);
        let good = west_setup.more.clone();
        west_setup.more = good.replace(&line, &file);
        let _ = west_setup.write();
        let refused = west.ask(r#"{"request":"reload"}"#).to_string();
        assert!(refused.contains(&format!("psk-file: {file}: ")), "{refused}");
        told += &refused;
        west_setup.more = good;
    }
    let _ = west_setup.write();

    // The other one crashes, and says so with a token when it is asked about what it does not know.
    east.kill();
    let east = east_setup.start(&internet.namespace("east"));
    place::await_some("traffic flows again", PATIENCE, || {
        let once = ["ping", "-n", "-c", "1", "-W", "0.3", EAST[0]];
        place::run(&internet.namespace("west"), &once).0.then_some(())
    });
    told += &(answers(&west, &west_setup) + &answers(&east, &east_setup));
    secrets.add_state(&state(&west_setup));
    secrets.add_state(&state(&east_setup));
    west.terminate();
    drop(east);
    let capture = internet.directory.join("west.pcap");
    for setup in [&west_setup, &east_setup] {
        secrets.add_tokens(&state(setup), &capture);
    }
    assert!(secrets.count("state/tickets") > 0, "no ticket was given");

    for (setup, host) in [(&west_setup, "west"), (&east_setup, "east")] {
        let log = fs::read(setup.directory.join("log")).unwrap();
        let trace = fs::read(setup.directory.join("trace")).unwrap();
        let text = String::from_utf8_lossy(&log);
        assert!(text.contains("TRACE"), "{host} logs nothing at this level: {text:.300}");
        assert!(trace.len() > 1000, "{host} has no trace");
        assert_eq!(secrets.told(&log), Vec::<String>::new(), "{host} logs it");
        assert_eq!(secrets.told(&trace), Vec::<String>::new(), "{host} traces it");
        for file in fs::read_dir(state(setup)).unwrap() {
            let file = file.unwrap().path();
            let mut told = secrets.told(&fs::read(&file).unwrap_or_default());
            told.retain(|of| !of.starts_with(&format!("{}: ", file.display())));
            assert_eq!(told, Vec::<String>::new(), "{} has it", file.display());
        }
    }
    assert!(told.contains(EAST[0]) && told.contains("configured"), "{told}");
    assert_eq!(secrets.told(told.as_bytes()), Vec::<String>::new());
    assert_eq!(secrets.told(&fs::read(&heard).unwrap()), Vec::<String>::new());
}

/// IKE_SESSION_RESUME.
const RESUME: &str = "udp port 500 and udp[26] = 38";
