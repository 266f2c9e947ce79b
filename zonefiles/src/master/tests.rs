use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::zone::Zone;

fn read(text: &str) -> Vec<Result<String, String>> {
    Reader::of_text(text, None)
        .map(|r| r.map(|l| l.record.to_string()).map_err(|p| p.to_string()))
        .collect()
}

fn records(text: &str) -> Vec<String> {
    read(text).into_iter().map(Result::unwrap).collect()
}

#[test]
fn the_example_of_rfc_1035() {
    // RFC 1035 §5.3, with a TTL that the RFC left to the SOA.
    let text = "\
$ORIGIN ISI.EDU.
@   IN  SOA     VENERA      Action\\.domains (
                                 20     ; SERIAL
                                 7200   ; REFRESH
                                 600    ; RETRY
                                 3600000; EXPIRE
                                 60)    ; MINIMUM

        NS      A.ISI.EDU.
        NS      VENERA
        MX      10      VENERA

A       A       26.3.0.103

VENERA  A       10.1.0.52
        A       128.9.0.32
";
    let got = records(text);
    assert_eq!(
        got[0],
        "ISI.EDU.\t60\tIN\tSOA\tVENERA.ISI.EDU. Action\\.domains.ISI.EDU. 20 7200 600 3600000 60"
    );
    assert_eq!(got[3], "ISI.EDU.\t60\tIN\tMX\t10 VENERA.ISI.EDU.");
    assert_eq!(got[6], "VENERA.ISI.EDU.\t60\tIN\tA\t128.9.0.32");
    assert_eq!(got.len(), 7);
}

#[test]
fn the_examples_of_rfc_4025() {
    // RFC 4025 §3.2.
    let text = "\
$TTL 7200
38.2.0.192.in-addr.arpa. 7200 IN     IPSECKEY ( 10 1 2
                 192.0.2.38
                 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ== )
38.2.0.192.in-addr.arpa. IN IPSECKEY 10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==
38.2.0.192.in-addr.arpa. IN IPSECKEY 10 3 2 mygateway.example.com. AQNRU3mG7TVTO2Bk
0.d.4.0.3.0.e.f.f.f.3.f.0.1.2.0.1.0.0.0.0.0.2.8.B.D.0.1.0.0.2.ip6.arpa. IN IPSECKEY ( 10 2 2 2001:0DB8:0:8002::2000:1 AQNR )
";
    let got = records(text);
    assert!(
        got[0].ends_with(
            "IPSECKEY\t10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ=="
        )
    );
    assert!(got[1].contains("\t10 0 2 . AQNR"), "{}", got[1]);
    assert!(got[2].contains("\t10 3 2 mygateway.example.com. AQNR"));
    assert!(got[3].contains("\t10 2 2 2001:db8:0:8002::2000:1 AQNR"));
}

#[test]
fn forms_of_everything() {
    let text = r#"
$ORIGIN example.
$TTL 1h30m
@ SOA ns host 1 1h 10m 2w 5m
a 300 IN TXT "semi;colon (paren) \"quote\" \\ \195\164" bare\ word ""
b IN 300 KEY 0x4200 4 1 AQNR
c TYPE45 \# 4 0A000000
d TYPE65280 \# 3 ABcd ef
e CAA 0 issue "ca.example"
f DS 12345 ECDSAP256SHA256 2 00112233 445566
g NSEC a.example. A TXT TYPE65280
h RRSIG TXT 13 2 300 20261231235959 20260101000000 12345 example. AQNR
\@ A 192.0.2.1
i.\046x A 192.0.2.2
j SRV 0 0 500 host
"#;
    let got = records(text);
    assert_eq!(
        got[1],
        "a.example.\t300\tIN\tTXT\t\"semi;colon (paren) \\\"quote\\\" \\\\ \\195\\164\" \"bare word\" \"\""
    );
    assert_eq!(got[2], "b.example.\t300\tIN\tKEY\t16896 4 1 AQNR");
    assert_eq!(got[3], "c.example.\t5400\tIN\tIPSECKEY\t10 0 0 . ".trim_end().to_owned() + " AA==");
    assert_eq!(got[4], "d.example.\t5400\tIN\tTYPE65280\t\\# 3 abcdef");
    assert_eq!(got[6], "f.example.\t5400\tIN\tDS\t12345 13 2 00112233445566");
    assert_eq!(got[7], "g.example.\t5400\tIN\tNSEC\ta.example. A TXT TYPE65280");
    assert!(got[8].contains("RRSIG\tTXT 13 2 300 20261231235959 20260101000000 12345 example."));
    assert_eq!(got[9], "\\@.example.\t5400\tIN\tA\t192.0.2.1");
    assert_eq!(got[10], "i.\\.x.example.\t5400\tIN\tA\t192.0.2.2");
}

#[test]
fn generate_as_bind_does() {
    let text = "\
$ORIGIN 2.0.192.in-addr.arpa.
$TTL 300
$GENERATE 1-3 $ CNAME $.0/25
$GENERATE 4-8/4 ${0,3,d} PTR host-${-4,2,x}.example.
$GENERATE 10-10 a\\$$$$ TXT ${6,7,n}
";
    let got = records(text);
    assert_eq!(got[2], "3.2.0.192.in-addr.arpa.\t300\tIN\tCNAME\t3.0/25.2.0.192.in-addr.arpa.");
    assert_eq!(got[3], "004.2.0.192.in-addr.arpa.\t300\tIN\tPTR\thost-00.example.");
    assert_eq!(got[4], "008.2.0.192.in-addr.arpa.\t300\tIN\tPTR\thost-04.example.");
    assert_eq!(got[5], "a\\$\\$10.2.0.192.in-addr.arpa.\t300\tIN\tTXT\t\"0.1.0.0\"");
}

#[test]
fn includes_keep_their_origin_to_themselves() {
    let files = HashMap::from([
        ("sub.zone", "$ORIGIN deeper.sub.example.\nx A 192.0.2.2\n"),
        ("loop.zone", "$INCLUDE loop.zone\n"),
    ]);
    let main = "$ORIGIN example.\n$TTL 60\n$INCLUDE sub.zone sub.example.\ny A 192.0.2.3\n\
                $INCLUDE none.zone\n$INCLUDE loop.zone\nz A 192.0.2.4\n";
    let open = move |path: &str| -> io::Result<Box<dyn BufRead>> {
        let text = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(io::Cursor::new(text.as_bytes())))
    };
    let input = Box::new(io::Cursor::new(main.as_bytes()));
    let got: Vec<String> = Reader::new("main.zone", input, None, Box::new(open))
        .map(|r| r.map_or_else(|p| p.to_string(), |l| l.record.to_string()))
        .collect();
    assert_eq!(got[0], "x.deeper.sub.example.\t60\tIN\tA\t192.0.2.2");
    assert_eq!(got[1], "y.example.\t60\tIN\tA\t192.0.2.3");
    assert_eq!(got[2], "main.zone:5:10: $INCLUDE: cannot be opened: entity not found");
    assert_eq!(got[3], "loop.zone:1:10: $INCLUDE nested more than 16 deep");
    assert_eq!(got[4], "z.example.\t60\tIN\tA\t192.0.2.4");
}

#[test]
fn errors_have_a_place_and_reading_goes_on() {
    let text = "\
$ORIGIN example.
$TTL 60
a A 192.0.2.999
b IPSECKEY 10 1 2 gateway AQNR
c TXT \"open
d TXT \"fine\"
e BOGUS x
f A 192.0.2.1 192.0.2.2
g IPSECKEY 10 4 2 . AQNR
h TYPE45 \\# 5 0a00
i.. A 192.0.2.1
j A 192.0.2.1 )
$FOO
k CH TXT x
l OPT x
m IPSECKEY 10 0
n IPSECKEY 10 1 2 192.0.2.1 A
";
    let errors: Vec<String> = read(text).into_iter().filter_map(Result::err).collect();
    let expected = [
        "text:3:5: A: expected an IPv4 address",
        "text:4:19: IPSECKEY: expected an IPv4 address",
        "text:5:7: quotation mark is never closed",
        "text:7:3: expected a record type, TTL or class",
        "text:8:15: A: unexpected text after the last field",
        "text:9:15: IPSECKEY: expected a gateway type, 0 to 3",
        "text:10:13: TYPE45: \\# announces 5 octets, 2 follow",
        "text:11:1: owner: empty label",
        "text:12:15: closing parenthesis without an opening one",
        "text:13:1: unknown directive: expected $ORIGIN, $TTL, $INCLUDE or $GENERATE",
        "text:14:3: class other than IN",
        "text:15:3: expected a record type, TTL or class",
        "text:16:15: IPSECKEY: the line ends where an algorithm number was expected",
        "text:17:29: IPSECKEY: expected base 64",
    ];
    let expected: Vec<String> =
        expected.iter().map(|e| e.replace("TYPE45: \\#", "IPSECKEY: \\#")).collect();
    assert_eq!(errors, expected);
    assert_eq!(read(text).iter().filter(|r| r.is_ok()).count(), 1);
}

#[test]
fn a_lost_parenthesis_is_reported_where_it_opened() {
    let got = read("$TTL 1\na.example. TXT ( \"x\"\nb.example. TXT y\n");
    assert_eq!(got, [Err("text:2:16: parenthesis is never closed".to_owned())]);
}

#[test]
fn ttl_comes_from_where_rfc_2308_says() {
    assert_eq!(read("a.example. A 192.0.2.1").len(), 1);
    assert!(read("a.example. A 192.0.2.1")[0].as_ref().unwrap_err().contains("no TTL"));
    let got =
        records("a.example. 5 A 192.0.2.1\nb.example. A 192.0.2.2\n$TTL 7\nc.example. A 192.0.2.3");
    assert!(got[1].contains("\t5\t") && got[2].contains("\t7\t"));
}

fn any_name() -> impl Strategy<Value = Name> {
    let label = prop::collection::vec(any::<u8>(), 1..12);
    prop::collection::vec(label, 0..6).prop_map(|labels| {
        labels.iter().rev().fold(Name::root(), |name, label| name.prepend(label).unwrap())
    })
}

/// RDATA that fits its type, and RDATA that does not, of known types and of others.
fn any_record() -> impl Strategy<Value = Record> {
    let strings = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..5);
    let txt = strings.prop_map(|strings| {
        let framed = strings
            .iter()
            .flat_map(|s| std::iter::once(u8::try_from(s.len()).unwrap()).chain(s.iter().copied()));
        (16_u16, framed.collect::<Vec<u8>>())
    });
    let named = (prop::sample::select(vec![2_u16, 5, 12, 39]), any_name())
        .prop_map(|(rtype, name)| (rtype, name.as_wire().to_vec()));
    let ipseckey =
        (any::<u8>(), 0_u8..4, any::<u8>(), any::<[u8; 4]>(), any_name(), any::<Vec<u8>>())
            .prop_map(|(precedence, kind, algorithm, v4, name, key)| {
                let mut wire = vec![precedence, kind, algorithm];
                match kind {
                    1 => wire.extend(v4),
                    2 => wire.extend([v4; 4].concat()),
                    3 => wire.extend(name.as_wire()),
                    _ => {}
                }
                wire.extend(key);
                (45_u16, wire)
            });
    let other =
        (prop::sample::select((1_u16..300).chain([65_280]).collect::<Vec<_>>()), any::<Vec<u8>>());
    let data = prop_oneof![txt, named, ipseckey, other];
    (any_name(), 0..=MAX_TTL, data).prop_filter_map("storable", |(owner, ttl, (rtype, rdata))| {
        let rtype = Rtype(rtype);
        let fits = rtype.is_data() && rdata::is_of_type(rtype, &rdata);
        fits.then(|| Record::new(owner, ttl, rtype, rdata))
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        origin in any_name(),
        records in prop::collection::vec(any_record(), 0..10),
    ) {
        let zone = Zone { origin, records };
        let text = zone.to_string();
        let back: Result<Vec<Record>, Problem> =
            Reader::of_text(&text, None).map(|r| r.map(|l| l.record)).collect();
        match back {
            Ok(back) => prop_assert_eq!(&back, &zone.records, "{}", text),
            Err(problem) => prop_assert!(false, "{}\n{}", problem, text),
        }
    }

    #[test]
    fn arbitrary_octets_never_panic(text in prop::collection::vec(any::<u8>(), 0..2000)) {
        let input = Box::new(io::Cursor::new(text));
        let none = |_: &str| Err(io::ErrorKind::Unsupported.into());
        let reader = Reader::new("x", input, Some(Name::root()), Box::new(none));
        let _ = reader.take(10_000).count();
    }

    /// Octets that look like a master file get further than those that do not.
    #[test]
    fn nearly_master_files_never_panic(words in prop::collection::vec(prop::sample::select(vec![
        "$GENERATE", "1-3", "1-4294967295", "$", "${1,2,n}", "${9,9999999999}", "TXT", "IPSECKEY", "10", "3",
        "(", ")", "\"", "\\", "\n", "\n ", "@", "IN", "\\#", "$INCLUDE", "$TTL", "$ORIGIN", "a.b.", "TYPE45",
        "\\256", "AQ==", "NSEC", "RRSIG", "SOA", ";", "1w", "99999999999999", "NSEC3", "-",
    ]), 0..60)) {
        let text = words.join(" ");
        let _ = Reader::of_text(&text, Some(Name::root())).take(1000).count();
    }
}
