//! `oe-node keygen` and `showhostkey`, against the tools that read what they print.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dnskeys::{Gateway, Ipseckey, PublicKey, RsaKey, ServerTxt};
use tests::{missing, oe_node, skipped};

/// A directory of its own, gone at the end.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("oecli-{}-{test}-files", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn oe(args: &[&str]) -> Output {
    Command::new(oe_node()).args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A key of 2048 bits, quickly made.
pub(crate) fn make_key(path: &str) -> RsaKey {
    let made = oe(&["keygen", "--bits", "2048", "--output", path]);
    assert!(made.status.success(), "{}", stderr(&made));
    RsaKey::from_pem(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    let dir = Dir::new("keygen");
    let path = dir.file("host.key");
    let made = oe(&["keygen", "--output", &path, "--txt", "192.0.2.11"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o600);
    let pem = fs::read_to_string(&path).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    let key = RsaKey::from_pem(&pem).unwrap();
    assert_eq!((key.bits(), key.exponent_value()), (3072, 65537), "the default");
    let text = stdout(&made);
    assert!(text.contains("11.2.0.192.in-addr.arpa.\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.11\""));
    assert!(text.contains(&key.to_base64()), "IPSECKEY holds it in one piece");
    assert!(stderr(&made).contains(&key.key_id()));

    let again = oe(&["keygen", "--output", &path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("never overwritten"), "{}", stderr(&again));
    assert_eq!(fs::read_to_string(&path).unwrap(), pem);
    assert_eq!(stderr(&again).lines().count(), 1, "one line");
}

#[test]
fn openssl_reads_what_we_make_and_sees_the_same_key() {
    if skipped("cli::openssl", missing(&["openssl"])) {
        return;
    }
    let dir = Dir::new("openssl");
    let path = dir.file("host.key");
    make_key(&path);
    let public = Command::new("openssl").args(["rsa", "-in", &path, "-pubout"]).output().unwrap();
    let ours = oe(&["showhostkey", "--pem", "--key-file", &path]);
    assert_eq!(stdout(&ours), stdout(&public));
    let check =
        Command::new("openssl").args(["rsa", "-in", &path, "-check", "-noout"]).output().unwrap();
    assert!(stdout(&check).contains("RSA key ok"), "{}", stdout(&check));
}

#[test]
fn open_keys_and_nonsense_are_refused_in_one_line() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = Dir::new("refused");
    let path = dir.file("host.key");
    make_key(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let words = dir.file("words");
    fs::write(&words, "no key\n").unwrap();
    let none = dir.file("none");
    for (args, status, text) in [
        (vec!["--left", "--key-file", &path], 1, "chmod 600"),
        (vec!["--left", "--key-file", &words], 1, "not PEM"),
        (vec!["--left", "--key-file", &none], 1, "no such file"),
        (vec!["--key-file", &none], 2, "must specify a format for the result"),
        (vec!["--txt", "", "--key-file", &none], 2, "--txt gateway value cannot be empty"),
        (vec!["--txt", "west", "--key-file", &none], 1, "gateway must be @FQDN"),
    ] {
        let output = oe(&[&["showhostkey"][..], &args].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.starts_with("oe-node showhostkey: ") && said.contains(text), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}

/// Every printed record, through the parser of the server that it is for, and back.
#[test]
fn name_servers_read_every_form() {
    if skipped("cli::zone_forms", missing(&["named-compilezone", "nsd-checkzone"])) {
        return;
    }
    let dir = Dir::new("forms");
    let path = dir.file("host.key");
    let key = make_key(&path);
    let zone = dir.file("zone");
    let mut lines = vec![
        "$TTL 60".to_owned(),
        "2.0.192.in-addr.arpa. IN SOA ns.test. root.test. 1 1 1 1 1".to_owned(),
        "2.0.192.in-addr.arpa. IN NS ns.test.".to_owned(),
    ];
    let show = |args: &[&str]| {
        let output = oe(&[&["showhostkey", "--key-file", &path][..], args].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim_end_matches('\n').to_owned()
    };
    for (host, gateway) in [(1, "192.0.2.1"), (2, "2001:db8::2"), (3, "@gw.test")] {
        let owner = format!("192.0.2.{host}");
        for format in ["bind", "nsd", "raw"] {
            lines.push(show(&["--txt", gateway, "--owner", &owner, "--format", format]));
            let gateway = gateway.trim_start_matches('@');
            lines.push(show(&[
                "--ipseckey",
                "--gateway",
                gateway,
                "--owner",
                &owner,
                "--format",
                format,
            ]));
        }
        // The classic line without owner belongs to the one before it.
        lines.push(show(&["--txt", gateway, "--precedence", "20"]));
    }
    fs::write(&zone, lines.join("\n") + "\n").unwrap();
    let nsd = Command::new("nsd-checkzone").args(["2.0.192.in-addr.arpa", &zone]).output().unwrap();
    assert!(nsd.status.success(), "{}{}", stdout(&nsd), stderr(&nsd));
    let compiled = dir.file("compiled");
    let bind = Command::new("named-compilezone")
        .args(["-i", "none", "-k", "ignore", "-s", "full", "-o", &compiled])
        .args(["2.0.192.in-addr.arpa", &zone])
        .output()
        .unwrap();
    assert!(bind.status.success(), "{}{}", stdout(&bind), stderr(&bind));
    read_back(Path::new(&compiled), &key);
}

/// One TXT of each precedence and one IPSECKEY remain of each host: the three formats are the
/// same record.
fn read_back(compiled: &Path, key: &RsaKey) {
    let text = fs::read_to_string(compiled).unwrap();
    let mut seen = 0;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.get(3) {
            Some(&"TXT") => {
                let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
                let record = ServerTxt::from_strings(&strings).unwrap().unwrap();
                assert_eq!(record.key.as_ref(), Some(key), "{line}");
                assert!([10, 20].contains(&record.precedence));
                seen += 1;
            }
            Some(&"IPSECKEY") => {
                assert_eq!((words[4], words[6]), ("10", "2"), "{line}");
                let base64 = words[8..].concat();
                assert_eq!(RsaKey::from_base64(base64.as_bytes()).as_ref(), Ok(key), "{line}");
                seen += 1;
            }
            _ => {}
        }
    }
    assert_eq!(seen, 3 * 3, "{text}");
}

#[test]
fn the_raw_form_is_the_records_rdata() {
    let dir = Dir::new("raw");
    let path = dir.file("host.key");
    let key = make_key(&path);
    let output = oe(&[
        "showhostkey",
        "--key-file",
        &path,
        "--ipseckey",
        "--gateway",
        "192.0.2.1",
        "--format",
        "raw",
        "--owner",
        "w.test",
    ]);
    let text = stdout(&output);
    let hex = text.trim().rsplit(' ').next().unwrap();
    let octets: Vec<u8> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[i * 2..i * 2 + 2], 16).unwrap())
        .collect();
    let gateway = Gateway::Address("192.0.2.1".parse().unwrap());
    let record = Ipseckey { precedence: 10, gateway, key: Some(PublicKey::Rsa(key)) };
    assert_eq!(Ipseckey::from_rdata(&octets), Ok(record));
}
