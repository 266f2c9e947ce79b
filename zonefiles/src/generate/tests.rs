use super::*;
use crate::master::Reader;
use crate::reverse::ClasslessName;

/// Not a real key: an odd modulus of the wanted size.
fn key(bits: usize) -> RsaKey {
    let mut modulus = vec![0xa5; bits / 8];
    modulus[0] = 0xc1;
    *modulus.last_mut().unwrap() |= 1;
    RsaKey::new(&[1, 0, 1], &modulus).unwrap()
}

const BIND: Format = Format::Master(Server::Bind);

fn zone(prefix: &str) -> ReverseZone {
    ReverseZone::of(prefix.parse().unwrap(), ClasslessName::Slash).next().unwrap()
}

fn text(prefix: &str, gateway: &Gateway, key: Option<&RsaKey>, format: Format) -> String {
    let zone = zone(prefix);
    let template = NameTemplate::parse("h-{dashed}.example.net").unwrap();
    let stamp = Stamp::new(gateway, key, 10, 3600, Kinds::default(), true, format);
    let suffix = OwnerSuffix::new(&zone, format);
    let mut out = ZoneText::new(Vec::new(), format);
    let apex = Apex::new("ns.example.net".parse().unwrap(), 1);
    out.begin(&zone.origin, Some(&apex)).unwrap();
    for address in zone.prefix.addresses() {
        out.host(&zone, &suffix, address, &stamp, Some(&template)).unwrap();
    }
    out.end().unwrap();
    String::from_utf8(out.finish().unwrap()).unwrap()
}

/// The fast way and the plain way say the same.
#[test]
fn stamps_equal_records() {
    let gateways = [
        Gateway::Own,
        Gateway::Address("192.0.2.11".parse().unwrap()),
        Gateway::Address("2001:db8::11".parse().unwrap()),
        Gateway::Name("gw.example.net".parse().unwrap()),
    ];
    // 1264 and 1296 bits: with some of the addresses one string is enough, with others not.
    let keys = [None, Some(key(1024)), Some(key(1264)), Some(key(1296)), Some(key(3072))];
    for prefix in ["192.0.2.0/24", "192.0.2.96/28", "2001:db8::/120"] {
        for gateway in &gateways {
            for key in &keys {
                let zone = zone(prefix);
                let template = NameTemplate::parse("h-{dashed}.example.net").unwrap();
                let apex = Apex::new("ns.example.net".parse().unwrap(), 1);
                let hosts: Vec<Host> = zone
                    .prefix
                    .addresses()
                    .map(|address| Host {
                        address,
                        name: Some(template.name(address)),
                        gateway: gateway.clone(),
                        key: key.clone(),
                        precedence: 10,
                    })
                    .collect();
                let plain = crate::reverse_zone(&zone, &apex, &hosts, Kinds::default());
                let stamped: Vec<Record> =
                    Reader::of_text(&text(prefix, gateway, key.as_ref(), BIND), None)
                        .map(|r| r.unwrap().record)
                        .collect();
                assert_eq!(stamped, plain.records, "{prefix} {gateway:?}");
            }
        }
    }
}

#[test]
fn the_classic_form() {
    // What FreeS/WAN's showhostkey --txt printed: split before the key, the blank in front of it.
    let key = key(2192);
    let text = text("192.0.2.0/24", &Gateway::Own, Some(&key), BIND);
    let line = text.lines().find(|l| l.starts_with("11\t") && l.contains("TXT")).unwrap();
    assert!(line.starts_with("11\t3600\tIN\tTXT\t\"X-IPsec-Server(10)=192.0.2.11\" \" AwEAA"));
}

#[test]
fn nsupdate_sends_before_a_message_is_full() {
    let text = text("192.0.2.0/24", &Gateway::Own, Some(&key(4096)), Format::Nsupdate);
    assert!(
        text.starts_with(
            "zone 2.0.192.in-addr.arpa.\nupdate add 2.0.192.in-addr.arpa. 3600 IN SOA"
        )
    );
    assert!(text.ends_with("send\n"));
    for batch in text.split("send\n") {
        assert!(batch.len() < 60_000);
    }
    assert!(text.contains("update add 255.2.0.192.in-addr.arpa. 3600 IN IPSECKEY 10 0 2 . AwEAA"));
}

#[test]
fn powerdns_rows() {
    let text = text("192.0.2.96/28", &Gateway::Own, Some(&key(2048)), Format::PowerDns);
    assert!(
        text.starts_with(
            "{\"zone\":\"96/28.2.0.192.in-addr.arpa\",\"records\":[\n{\"name\":\"96/28."
        )
    );
    assert!(text.contains(
        "{\"name\":\"97.96/28.2.0.192.in-addr.arpa\",\"type\":\"PTR\",\"ttl\":3600,\"content\":\"h-192-0-2-97.example.net\"},"
    ));
    assert!(text.contains("\"content\":\"\\\"X-IPsec-Server(10)=192.0.2.97\\\" \\\" AwEAA"));
    assert!(text.contains("\"content\":\"ns.example.net hostmaster 1 3600 600 1209600 300\""));
    assert!(text.ends_with("\"}\n]}\n"));
}

#[test]
fn templates() {
    for bad in ["{", "{x}", "a..{1}", "sp ace", "{5}"] {
        assert!(NameTemplate::parse(bad).is_err(), "{bad}");
    }
    let name = |template: &str, address: &str| {
        NameTemplate::parse(template).unwrap().name(address.parse().unwrap()).to_string()
    };
    assert_eq!(name("c-{hex}.x.net.", "192.0.2.11"), "c-c000020b.x.net.");
    assert_eq!(name("{4}.{3}.x", "192.0.2.11"), "11.2.x.");
    assert_eq!(name("{dashed}.x", "2001:db8::1"), "20010db8000000000000000000000001.x.");
}
