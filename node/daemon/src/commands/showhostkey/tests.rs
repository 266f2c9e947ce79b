use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// A key in a file that is removed at the end of the test.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, pem: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oe-show-{}-{name}", std::process::id()));
        std::fs::write(&path, pem).unwrap();
        Self(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn run(file: &KeyFile, line: &str) -> Result<String, (u8, String)> {
    let line = format!("showhostkey --key-file {} {line}", file.0.display());
    let parsed = Line::try_parse_from(line.split(' ').map(|w| if w == "''" { "" } else { w }))
        .map_err(|error| (2, error.to_string()))?;
    show(&parsed.args).map_err(|failure| match failure {
        Failure::Usage(text) => (2, text),
        Failure::Other(error) => (1, format!("{error:#}")),
    })
}

/// The key of these tests, with exponent 65537 and 2192 bits, FreeS/WAN's default length.
fn key() -> RsaKey {
    let modulus: Vec<u8> = (0..274u32).map(|i| u8::try_from(i * 7 % 256).unwrap() | 0x81).collect();
    RsaKey::new(&[1, 0, 1], &modulus).unwrap()
}

#[test]
fn classic_forms_to_the_byte() {
    let key = key();
    let file = KeyFile::new("forms", &key.to_pem().unwrap());
    let text = key.to_base64();
    assert_eq!(text.len(), 372);
    assert!(text.starts_with("AwEAAYGHj5Wdo"), "{text}");
    let host = host_name();
    let (k1, k2) = text.split_at(254);
    for (line, expected) in [
        (
            "--txt 192.0.2.11",
            format!("\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.11\" \" {k1}\" \"{k2}\"\n"),
        ),
        (
            "--txt @west.example.com --precedence 20",
            format!("\tIN\tTXT\t\"X-IPsec-Server(20)=@west.example.com\" \" {k1}\" \"{k2}\"\n"),
        ),
        (
            "--txt 2001:db8::b --owner 2001:db8::b",
            format!(
                "b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.\tIN\tTXT\t\
                 \"X-IPsec-Server(10)=2001:db8::b\" \" {k1}\" \"{k2}\"\n"
            ),
        ),
        ("--ipseckey", format!("{host}    IN    IPSECKEY  10 0 2 . {text}\n")),
        (
            "--ipseckey --gateway 10.11.12.13 --owner west.example.com",
            format!("west.example.com.    IN    IPSECKEY  10 1 2 10.11.12.13 {text}\n"),
        ),
        (
            "--ipseckey --gateway 2001:db8::1 --owner w.test --precedence 5",
            format!("w.test.    IN    IPSECKEY  5 2 2 2001:db8::1 {text}\n"),
        ),
        (
            "--ipseckey --gateway gw.example.com --owner w.test",
            format!("w.test.    IN    IPSECKEY  10 3 2 gw.example.com. {text}\n"),
        ),
        ("--key --owner west.test", format!("west.test.\tIN\tKEY\t0x4200 4 1 {text}\n")),
        ("--left", format!("\t# left keyid: AwEAAYGHj\n\tleftrsasigkey=0s{text}\n")),
        ("--right", format!("\t# right keyid: AwEAAYGHj\n\trightrsasigkey=0s{text}\n")),
        ("--pem", key.to_pem().unwrap()),
        (
            "--txt 192.0.2.11 --format nsd",
            format!(
                "11.2.0.192.in-addr.arpa. IN TXT \"X-IPsec-Server(10)=192.0.2.11\" \" {k1}\" \"{k2}\"\n"
            ),
        ),
        (
            "--ipseckey --owner w.test --format nsd",
            format!("w.test. IN IPSECKEY 10 0 2 . {text}\n"),
        ),
        (
            "--ipseckey --owner w.test --gateway 192.0.2.1 --format raw",
            format!("w.test.\tIN\tTYPE45\t\\# 285 0a0102c0000201{}\n", hex(&key.to_rfc3110())),
        ),
        ("--list", format!("< 1> RSA keyid: AwEAAYGHj ckaid: {}\n", ckaid(&key))),
    ] {
        assert_eq!(run(&file, line), Ok(expected), "{line}");
    }
    assert_eq!(run(&file, "--dump"), run(&file, "--list"));
}

#[test]
fn json_holds_what_the_lines_hold() {
    let key = key();
    let file = KeyFile::new("json", &key.to_pem().unwrap());
    let text = run(&file, "--txt 192.0.2.11 --format json").unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["owner"], "11.2.0.192.in-addr.arpa.");
    assert_eq!(value["type"], "TXT");
    assert_eq!(value["precedence"], 10);
    assert_eq!(value["gateway"], "192.0.2.11");
    assert_eq!(value["bits"], 2192);
    assert_eq!(value["exponent"], 65537);
    assert_eq!(value["key"], key.to_base64());
    assert_eq!(value["key_id"], key.key_id());
    assert!(value["presentation"].as_str().unwrap().starts_with("\"X-IPsec-Server(10)="));
}

#[test]
fn errors_and_their_exit_status() {
    let file = KeyFile::new("errors", &key().to_pem().unwrap());
    for (line, status, text) in [
        ("--owner w.test", 2, "must specify a format for the result"),
        ("--txt ''", 2, "--txt gateway value cannot be empty"),
        (
            "--txt west.example.com",
            1,
            "gateway must be @FQDN or an IPv4 or IPv6 address, not \"west.example.com\"",
        ),
        ("--txt 0.0.0.0", 1, "gateway: the unspecified address: \"0.0.0.0\""),
        ("--txt @", 1, "gateway: empty name or label after @: \"@\""),
        ("--ipseckey --precedence 256", 2, "--precedence of an IPSECKEY record is at most 255"),
        (
            "--ipseckey --gateway 300.0.0.1",
            1,
            "gateway must be a name or an IPv4 or IPv6 address, not \"300.0.0.1\"",
        ),
        (
            "--key --owner a..b",
            1,
            "owner must be a name or an address, not \"a..b\": empty name or label",
        ),
    ] {
        assert_eq!(run(&file, line), Err((status, text.to_owned())), "{line}");
    }
    for line in [
        "--left --right",
        "--txt 192.0.2.1 --pem",
        "--gateway 192.0.2.1 --left",
        "--precedence 65536 --left",
        "--nonsense",
    ] {
        assert_eq!(run(&file, line).unwrap_err().0, 2, "{line}");
    }
    let empty = KeyFile::new("empty", "");
    let error = run(&empty, "--left").unwrap_err();
    assert_eq!(error.0, 1);
    assert!(error.1.ends_with("not PEM of a public key"), "{}", error.1);
    let none = KeyFile(PathBuf::from("/nonexistent/host.key"));
    let error = run(&none, "--left").unwrap_err();
    assert_eq!(
        error,
        (1, "/nonexistent/host.key: no such file; make a key with: oe-node keygen".to_owned())
    );
}
