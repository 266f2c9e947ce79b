use std::collections::BTreeSet;

use hickory_proto::dnssec::Algorithm;
use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{self as hickory, RecordType};
use proptest::prelude::*;

use super::*;
use crate::dnssec::{Previous, Validity, ZoneKey};
use crate::master::Reader;
use crate::record::Record;
use crate::zone::Zone;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key() -> ZoneKey {
    let pkcs8 = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256).unwrap();
    let key = EcdsaSigningKey::from_pkcs8(&pkcs8, Algorithm::ECDSAP256SHA256).unwrap();
    ZoneKey::new(Box::new(key)).unwrap()
}

fn sorted(text: &str, key: Option<&ZoneKey>) -> SortedZone {
    let records: Vec<Record> = Reader::of_text(text, None).map(|r| r.unwrap().record).collect();
    let mut sorted = SortedZone::new(&Zone { origin: records[0].owner.clone(), records }).unwrap();
    if let Some(key) = key {
        sorted.sign(key, Validity { inception: 0, expiration: 1 << 30 }, None, 2).unwrap();
    }
    sorted
}

fn catalog(zones: Vec<SortedZone>) -> Catalog {
    let mut catalog = Catalog::default();
    zones.into_iter().for_each(|zone| catalog.insert(Arc::new(zone)));
    catalog
}

fn ask(
    catalog: &Catalog,
    owner: &Name,
    rtype: Rtype,
    dnssec: bool,
    transport: Transport,
) -> Message {
    let mut query = crate::update::query(7, owner, rtype).unwrap();
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_dnssec_ok(dnssec).set_max_payload(4096);
    query.set_edns(edns);
    match catalog.answer(&query.to_vec().unwrap(), transport) {
        Reply::Message(answer) => Message::from_vec(&answer).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn lines(records: &[hickory::Record]) -> Vec<String> {
    records
        .iter()
        .map(|r| Record::from_hickory(r).unwrap().to_string().replace('\t', " "))
        .collect()
}

const PARENT: &str = "$ORIGIN e.\n$TTL 60\n@ SOA ns h 1 2 3 4 30\n@ NS ns\nns A 192.0.2.1\n\
    sub NS ns.sub\nns.sub A 192.0.2.2\nsub DS 1 13 2 00\nbare NS ns.bare\nns.bare A 192.0.2.3\n\
    al CNAME x.sub\nd DNAME sub\nw.x TXT a\n*.wild TXT b\n*.wild MX 1 x\n";
const CHILD: &str =
    "$ORIGIN sub.e.\n$TTL 60\n@ SOA ns h 1 2 3 4 30\n@ NS ns\nns A 192.0.2.2\nx TXT c\n";

#[test]
fn cuts_belong_to_the_parent_and_the_rest_to_the_child() {
    let both = catalog(vec![sorted(PARENT, None), sorted(CHILD, None)]);
    let udp = |owner: &str, rtype| ask(&both, &name(owner), rtype, false, Transport::Udp);
    let ds = udp("sub.e", Rtype::DS);
    assert_eq!(lines(&ds.answers), ["sub.e. 60 IN DS 1 13 2 00"]);
    assert!(ds.authoritative);
    assert_eq!(lines(&udp("sub.e", Rtype::NS).answers), ["sub.e. 60 IN NS ns.sub.e."]);
    assert_eq!(lines(&udp("x.sub.e", Rtype::TXT).answers), ["x.sub.e. 60 IN TXT \"c\""]);
    // Aliases are followed into the other zone.
    assert_eq!(
        lines(&udp("al.e", Rtype::TXT).answers),
        ["al.e. 60 IN CNAME x.sub.e.", "x.sub.e. 60 IN TXT \"c\""]
    );
    assert_eq!(
        lines(&udp("x.d.e", Rtype::TXT).answers),
        ["d.e. 60 IN DNAME sub.e.", "x.d.e. 60 IN CNAME x.sub.e.", "x.sub.e. 60 IN TXT \"c\""]
    );
    // The child that is not here is referred to, with its address.
    let referral = udp("deep.bare.e", Rtype::TXT);
    assert!(!referral.authoritative && referral.answers.is_empty());
    assert_eq!(lines(&referral.authorities), ["bare.e. 60 IN NS ns.bare.e."]);
    assert_eq!(lines(&referral.additionals), ["ns.bare.e. 60 IN A 192.0.2.3"]);
    // Without the parent, DS is denied by the child.
    let child = catalog(vec![sorted(CHILD, None)]);
    let ds = ask(&child, &name("sub.e"), Rtype::DS, false, Transport::Udp);
    assert!(ds.answers.is_empty() && ds.authoritative);
    assert_eq!(lines(&ds.authorities), ["sub.e. 30 IN SOA ns.sub.e. h.sub.e. 1 2 3 4 30"]);
}

#[test]
fn only_what_is_ours_is_signed() {
    let zone = sorted(PARENT, Some(&key()));
    for (owner, rtype, is_signed) in [
        ("e", Rtype::SOA, true),
        ("e", Rtype::NS, true),
        ("e", Rtype::DNSKEY, true),
        ("sub.e", Rtype::NS, false),
        ("sub.e", Rtype::DS, true),
        ("sub.e", Rtype::NSEC, true),
        ("ns.sub.e", Rtype::A, false),
        ("w.x.e", Rtype::TXT, true),
    ] {
        let set = zone.set(&name(owner), rtype).unwrap();
        assert_eq!(!set.signatures.is_empty(), is_signed, "{owner} {rtype}");
    }
    // Glue and names that exist only through others have no NSEC; the chain is a circle.
    assert!(zone.set(&name("ns.sub.e"), Rtype::NSEC).is_none());
    let mut at = name("e");
    let mut seen = Vec::new();
    loop {
        let nsec = zone.set(&at, Rtype::NSEC).unwrap();
        seen.push(at.to_string());
        at = Name::from_wire(&nsec.rdata[0]).unwrap().0;
        if at == name("e") {
            break;
        }
    }
    assert_eq!(seen, ["e.", "al.e.", "bare.e.", "d.e.", "ns.e.", "sub.e.", "*.wild.e.", "w.x.e."]);
}

#[test]
fn signatures_over_what_did_not_change_are_kept() {
    let key = key();
    let before = sorted(PARENT, Some(&key));
    let sign = |text: &str, key: &ZoneKey, until| {
        let mut zone = sorted(text, None);
        let validity = Validity { inception: 5, expiration: (1 << 30) + 100 };
        let ends = zone.sign(key, validity, Some(Previous { zone: &before, until }), 2).unwrap();
        (zone, ends)
    };
    let signature = |zone: &SortedZone, owner: &str, rtype| {
        zone.set(&name(owner), rtype).unwrap().signatures.clone()
    };
    let (after, ends) = sign(&PARENT.replace("TXT a", "TXT aa"), &key, 1 << 30);
    assert_eq!(ends, 1 << 30);
    assert_eq!(signature(&after, "e", Rtype::NS), signature(&before, "e", Rtype::NS));
    assert_ne!(signature(&after, "w.x.e", Rtype::TXT), signature(&before, "w.x.e", Rtype::TXT));
    assert_eq!(signature(&after, "w.x.e", Rtype::NSEC), signature(&before, "w.x.e", Rtype::NSEC));
    // Too near its end, or another key's.
    let (after, ends) = sign(PARENT, &key, (1 << 30) + 1);
    assert_eq!(ends, (1 << 30) + 100);
    assert_ne!(signature(&after, "e", Rtype::NS), signature(&before, "e", Rtype::NS));
    let (after, _) = sign(PARENT, &self::key(), 1 << 30);
    assert_ne!(signature(&after, "e", Rtype::NS), signature(&before, "e", Rtype::NS));
}

#[test]
fn an_insecure_cut_is_proved() {
    let signed = catalog(vec![sorted(PARENT, Some(&key()))]);
    let answer = ask(&signed, &name("x.bare.e"), Rtype::TXT, true, Transport::Udp);
    let types: Vec<RecordType> =
        answer.authorities.iter().map(hickory::Record::record_type).collect();
    assert_eq!(types, [RecordType::NS, RecordType::NSEC, RecordType::RRSIG]);
    let answer = ask(&signed, &name("x.sub.e"), Rtype::TXT, true, Transport::Udp);
    let types: Vec<RecordType> =
        answer.authorities.iter().map(hickory::Record::record_type).collect();
    assert_eq!(types, [RecordType::NS, RecordType::DS, RecordType::RRSIG]);
}

#[test]
fn what_does_not_fit_comes_by_tcp() {
    let long = format!(
        "$ORIGIN e.\n$TTL 60\n@ SOA n h 1 2 3 4 5\nx TXT {}\n",
        "\"0123456789\" ".repeat(300)
    );
    let zone = catalog(vec![sorted(&long, None)]);
    let udp = ask(&zone, &name("x.e"), Rtype::TXT, false, Transport::Udp);
    assert!(udp.truncation && udp.answers.is_empty());
    let tcp = ask(&zone, &name("x.e"), Rtype::TXT, false, Transport::Tcp);
    assert!(!tcp.truncation && tcp.answers.len() == 1);
    // Without EDNS 512 octets are the limit.
    let query = crate::update::query(7, &name("x.e"), Rtype::TXT).unwrap().to_vec().unwrap();
    let Reply::Message(answer) = zone.answer(&query, Transport::Udp) else { panic!() };
    assert!(answer.len() <= 512 && Message::from_vec(&answer).unwrap().truncation);
}

/// RUSTSEC-2023-0041.
#[test]
fn what_is_no_query_of_ours() {
    let zone = catalog(vec![sorted(CHILD, None)]);
    let refused = ask(&zone, &name("example."), Rtype::A, false, Transport::Udp);
    assert_eq!(refused.response_code, ResponseCode::Refused);
    let mut query = crate::update::query(7, &name("sub.e"), Rtype::SOA).unwrap().to_vec().unwrap();
    // A response is never answered, or two servers would talk forever.
    query[2] |= 0x80;
    assert!(matches!(zone.answer(&query, Transport::Udp), Reply::Nothing));
    query[2] = 0x28;
    let Reply::Message(answer) = zone.answer(&query, Transport::Udp) else { panic!() };
    assert_eq!(Message::from_vec(&answer).unwrap().response_code, ResponseCode::NotImp);
    let loops = "$ORIGIN e.\n$TTL 60\n@ SOA n h 1 2 3 4 5\na CNAME b\nb CNAME a\nd DNAME d.d\n";
    let zone = catalog(vec![sorted(loops, None)]);
    assert!(ask(&zone, &name("a.e"), Rtype::A, false, Transport::Udp).answers.len() <= 16);
    ask(&zone, &name("x.d.e"), Rtype::A, false, Transport::Udp);
}

/// Names over a tiny alphabet, so that random ones meet.
fn small_name() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "0"]), 0..4)
}

fn full(labels: &[&str]) -> Name {
    labels.iter().fold(name("e"), |n, label| n.prepend(label.as_bytes()).unwrap())
}

proptest! {
    #[test]
    fn arbitrary_octets_are_answered_or_not_and_that_is_all(
        message in prop::collection::vec(any::<u8>(), 0..200),
        tcp in any::<bool>(),
    ) {
        let zone = catalog(vec![sorted(CHILD, None)]);
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let _ = zone.answer(&message, transport);
        let mut query = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        query.extend(message);
        if let Reply::Message(answer) = zone.answer(&query, transport) {
            prop_assert!(Message::from_vec(&answer).is_ok());
        }
    }

    /// The rules of RFC 4592 by brute force, and every denial proved by NSECs that say so.
    #[test]
    fn answers_agree_with_the_rules(
        owners in prop::collection::btree_set(small_name(), 0..8),
        asked in small_name(),
    ) {
        let mut text = "$ORIGIN e.\n$TTL 60\n@ SOA n h 1 2 3 4 5\n".to_owned();
        for owner in &owners {
            text.push_str(&format!("{} TXT x\n", full(owner)));
        }
        let zone = catalog(vec![sorted(&text, Some(&key()))]);
        let asked = full(&asked);
        let answer = ask(&zone, &asked, Rtype::TXT, true, Transport::Tcp);

        let mut exist: BTreeSet<Name> = owners.iter().map(|o| full(o)).collect();
        exist.insert(name("e"));
        let with_text: BTreeSet<Name> = owners.iter().map(|o| full(o)).collect();
        let all: BTreeSet<Name> = exist
            .iter()
            .flat_map(|n| std::iter::successors(Some(n.clone()), Name::parent))
            .filter(|n| n.is_within(&name("e")))
            .collect();
        let encloser = std::iter::successors(Some(asked.clone()), Name::parent)
            .find(|n| all.contains(n))
            .unwrap();
        let source = if all.contains(&asked) { asked.clone() } else { encloser.prepend(b"*").unwrap() };
        let text_answers =
            answer.answers.iter().filter(|r| r.record_type() == RecordType::TXT).count();
        prop_assert_eq!(text_answers, usize::from(with_text.contains(&source)), "{}", text);
        let exists = all.contains(&asked) || all.contains(&source);
        let expected = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        prop_assert_eq!(answer.response_code, expected, "{}", text);

        let nsecs: Vec<(Name, Name)> = answer
            .authorities
            .iter()
            .map(|r| Record::from_hickory(r).unwrap())
            .filter(|r| r.rtype == Rtype::NSEC)
            .map(|r| (r.owner, Name::from_wire(&r.rdata).unwrap().0))
            .collect();
        let covers = |n: &Name| {
            nsecs.iter().any(|(from, to)| from < n && (n < to || *to == name("e")))
        };
        let matches = |n: &Name| nsecs.iter().any(|(from, _)| from == n);
        // A name only on the way to others is proved by the gap that ends below it.
        let denied = |n: &Name| covers(n) || matches(n);
        if text_answers == 0 {
            prop_assert!(denied(&asked), "{} {:?}", text, nsecs);
        }
        if !all.contains(&asked) {
            prop_assert!(covers(&asked), "{} {:?}", text, nsecs);
            if !exists {
                prop_assert!(covers(&source), "{} {:?}", text, nsecs);
            }
        }
    }
}
