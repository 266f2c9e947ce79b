use super::*;
use crate::key::tests::{any_key, key, key_e3, quickest};
use crate::name::tests::any_name;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

fn server(precedence: u16, gateway: &str, key: Option<RsaKey>) -> ServerTxt {
    ServerTxt { precedence, gateway: gateway.parse().unwrap(), key }
}

fn read(strings: &[&str]) -> Result<Option<ServerTxt>, &'static str> {
    ServerTxt::from_strings(strings).map_err(|m| m.why)
}

fn any_gateway() -> impl Strategy<Value = TxtGateway> {
    prop_oneof![
        (1u32..).prop_map(|a| TxtGateway::Address(Ipv4Addr::from(a).into())),
        (1u128..).prop_map(|a| TxtGateway::Address(Ipv6Addr::from(a).into())),
        any_name().prop_map(TxtGateway::Name),
    ]
}

fn any_record() -> impl Strategy<Value = ServerTxt> {
    (any::<u16>(), any_gateway(), proptest::option::of(any_key()))
        .prop_map(|(precedence, gateway, key)| ServerTxt { precedence, gateway, key })
}

proptest! {
    #[test]
    fn written_is_read(record in any_record()) {
        prop_assert_eq!(ServerTxt::from_strings(&record.strings()), Ok(Some(record.clone())));
        prop_assert_eq!(ServerTxt::from_rdata(&record.to_rdata()), Ok(Some(record.clone())));
        prop_assert_eq!(ServerTxt::from_strings(&[record.text()]), Ok(Some(record)));
    }

    /// RFC 4322 §5.2.1: a record may be split anywhere.
    /// Rule 67.
    #[test]
    fn split_anywhere(record in any_record(), mut cuts in proptest::collection::vec(0usize..1500, 0..12)) {
        let text = record.text().into_bytes();
        cuts.push(text.len());
        cuts.sort_unstable();
        let mut from = 0;
        let mut strings = Vec::new();
        for to in cuts.into_iter().map(|c| c.min(text.len())) {
            strings.push(&text[from..to]);
            from = to;
        }
        prop_assert_eq!(ServerTxt::from_strings(&strings), Ok(Some(record)));
    }

    #[test]
    fn no_octets_panic(mut tail in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
        let _ = ServerTxt::from_rdata(&tail);
        let mut text = b"X-IPsec-Server(10)=".to_vec();
        text.append(&mut tail);
        let (a, b) = text.split_at(cut.min(text.len()));
        let _ = ServerTxt::from_strings(&[a, b]);
    }
}

/// FreeS/WAN 2.x: the key in strings of its own, the first of which starts with the blank.
#[test]
fn written_as_freeswan_wrote() {
    let key = key_e3(2192, 0);
    let text = key.to_base64();
    let record = server(10, "192.0.2.11", Some(key));
    assert_eq!(
        record.presentation(),
        format!("\"X-IPsec-Server(10)=192.0.2.11\" \" {}\" \"{}\"", &text[..254], &text[254..])
    );
    let rdata = record.to_rdata();
    assert_eq!(rdata[0], 29);
    assert_eq!(rdata[30], 255);
    let keyless = server(0, "@West.Example.com.", None);
    assert_eq!(keyless.presentation(), "\"X-IPsec-Server(0)=@west.example.com\"");
    let v6 = server(65535, "2001:DB8:0::1", None);
    assert_eq!(v6.presentation(), "\"X-IPsec-Server(65535)=2001:db8::1\"");
    // Fits into one string: stays in one.
    let small = server(10, "192.0.2.11", Some(crate::key::tests::key(1024, 0)));
    assert_eq!(small.strings().len(), 1);
}

/// Rule 67.
#[test]
fn read_as_met_in_the_wild() {
    let key = key(2048, 0);
    let text = key.to_base64();
    let (k1, k2) = text.split_at(240);
    let expected = Ok(Some(server(10, "192.0.2.11", Some(key.clone()))));
    let head = "X-IPsec-Server(10)=192.0.2.11";
    for (what, strings) in [
        ("one string", vec![format!("{head} {text}")]),
        ("FreeS/WAN's leading blank", vec![head.into(), format!(" {k1}"), k2.into()]),
        (
            "Openswan's trailing blank, 240-octet chunks",
            vec![format!("{head} "), k1.into(), format!("{k2} ")],
        ),
        ("the quickstart's missing blank", vec![head.into(), k1.into(), k2.into()]),
        ("the quickstart's missing blank, one key string", vec![head.into(), text.clone()]),
        ("blanks at every join", vec![format!("{head} "), format!(" {k1} "), format!(" {k2} ")]),
        ("tabs and newlines", vec![format!("\t{head}\r\n\t{k1}\n{k2}")]),
        ("blanks in the attribute", vec![format!(" X-IPsec-Server ( 10 ) = 192.0.2.11 {text}")]),
        ("another case", vec![format!("x-ipsec-SERVER(10)=192.0.2.11 {text}")]),
        ("hexadecimal precedence", vec![format!("X-IPsec-Server(0xA)=192.0.2.11 {text}")]),
        ("octal precedence", vec![format!("X-IPsec-Server(012)=192.0.2.11 {text}")]),
        (
            "split in the attribute",
            vec!["X-IPsec-".into(), format!("Server(10)=192.0.2.11 {text}")],
        ),
        ("split in the gateway", vec!["X-IPsec-Server(10)=192.0.2.1".into(), format!("1 {text}")]),
        (
            "split in the gateway, blank missing",
            vec!["X-IPsec-Server(10)=192.0".into(), ".2.11".into(), text.clone()],
        ),
        ("split everywhere", format!("{head} {text}").chars().map(String::from).collect()),
        ("an empty string", vec![head.into(), String::new(), k1.into(), k2.into()]),
        ("without padding", vec![format!("{head} {}", text.trim_end_matches('='))]),
    ] {
        let strings: Vec<&str> = strings.iter().map(String::as_str).collect();
        assert_eq!(read(&strings), expected, "{what}");
    }
    assert_eq!(
        read(&["X-IPsec-Server(10)=@xy.example.com", &text]),
        Ok(Some(server(10, "@xy.example.com", Some(key.clone())))),
        "the quickstart's missing blank behind a name"
    );
    assert_eq!(
        read(&["X-IPsec-Server(10)=@xy.example.com", &text[..40], &text[40..]]),
        Ok(Some(server(10, "@xy.example.com", Some(key.clone())))),
        "the first part of the key would pass for a label"
    );
    assert_eq!(
        read(&["X-IPsec-Server(10)=2001:db8::1", &text]),
        Ok(Some(server(10, "2001:db8::1", Some(key))))
    );
    assert_eq!(read(&["X-IPsec-Server(0)=192.0.2.11"]), Ok(Some(server(0, "192.0.2.11", None))));
}

/// Rule 67.
#[test]
fn foreign_text_is_not_ours() {
    for text in [
        "",
        "v=spf1 -all",
        "X-IPsec-Gateway(10)=192.0.2.1",
        "X-IPsec-Servers(1)=x",
        "X-IPsec-Serve",
        "\0",
    ] {
        assert_eq!(read(&[text]), Ok(None), "{text}");
    }
    // A length that leads beyond the end.
    assert_eq!(ServerTxt::from_rdata(&[5, b'x']), Ok(None));
}

/// CVE-2013-2052.
#[test]
fn malformed_text() {
    let text = key(2048, 0).to_base64();
    let two = format!("{} {}", key_e3(2048, 1).to_base64(), key_e3(2048, 2).to_base64());
    for (text, why) in [
        ("X-IPsec-Server", "precedence: no parenthesis after X-IPsec-Server"),
        ("X-IPsec-Server=192.0.2.1", "precedence: no parenthesis after X-IPsec-Server"),
        ("X-IPsec-Server()=192.0.2.1", "precedence: not a number"),
        ("X-IPsec-Server(08)=192.0.2.1", "precedence: not a number"),
        ("X-IPsec-Server(-1)=192.0.2.1", "precedence: not a number"),
        ("X-IPsec-Server(0x)=192.0.2.1", "precedence: not a number"),
        ("X-IPsec-Server(65536)=192.0.2.1", "precedence: above 65535"),
        ("X-IPsec-Server(99999999999999999999)=192.0.2.1", "precedence: above 65535"),
        ("X-IPsec-Server(10 192.0.2.1", "precedence: no closing parenthesis after the number"),
        ("X-IPsec-Server(10)192.0.2.1", "gateway: no equals sign before it"),
        ("X-IPsec-Server(10)=", "gateway: neither an IPv4 or IPv6 address nor @FQDN"),
        (
            "X-IPsec-Server(10)=west.example.com",
            "gateway: neither an IPv4 or IPv6 address nor @FQDN",
        ),
        ("X-IPsec-Server(10)=192.0.2.256", "gateway: neither an IPv4 or IPv6 address nor @FQDN"),
        ("X-IPsec-Server(10)=0.0.0.0", "gateway: the unspecified address"),
        ("X-IPsec-Server(10)=::", "gateway: the unspecified address"),
        ("X-IPsec-Server(10)=@", "gateway: empty name or label after @"),
        ("X-IPsec-Server(10)=@a=b", "gateway: a character that no host name has"),
        ("X-IPsec-Server(10)=@\u{e9}", "gateway: a character that no host name has"),
        ("X-IPsec-Server(10)=192.0.2.1\0", "text: contains a NUL octet"),
        ("X-IPsec-Server(10)=192.0.2.1 AQ*", "key: not base64"),
        (
            &format!("X-IPsec-Server(10)=192.0.2.1 0s{text}"),
            "key: starts with 0s, which belongs in ipsec.conf and not in DNS",
        ),
        (&format!("X-IPsec-Server(10)=192.0.2.1 {text} trailing words"), "key: not base64"),
        (&format!("X-IPsec-Server(10)=192.0.2.1 {two}"), "key: two keys in one record"),
    ] {
        assert_eq!(read(&[text]), Err(why), "{text:.60}");
    }
}

/// The lengths at which CVE-2013-2052, CVE-2013-2053 and CVE-2013-2054 struck, one in each of three
/// descendants of one function, each within a millisecond.
#[test]
fn hostile_lengths() {
    for len in [0, 1, 63, 64, 252, 253, 254, 255, 256, 4096, 65535] {
        for filler in ["a", "a.", "=", "a=", "@", "1", ".", "AQ"] {
            let name = filler.repeat(len / filler.len() + 1)[..len].to_owned();
            let text = format!("X-IPsec-Server(10)=@{name}");
            let strings: Vec<&[u8]> = text.as_bytes().chunks(255).collect();
            let took = quickest(|| ServerTxt::from_strings(&strings));
            assert!(took < Duration::from_millis(5), "{len} of {filler}: {took:?}");
            let record = ServerTxt::from_strings(&strings);
            if let Ok(Some(record)) = record {
                assert!(record.to_rdata().len() < 1800);
            }
        }
    }
    // 64 kB of strings of one octet each: every join is a possible end of the gateway.
    let text = format!("X-IPsec-Server(10)=@{}{}", "a.".repeat(120), "AQOA".repeat(8000));
    let strings: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert!(ServerTxt::from_strings(&strings).is_err());
    let took = quickest(|| ServerTxt::from_strings(&strings));
    assert!(took < Duration::from_millis(100), "{took:?}");
}
