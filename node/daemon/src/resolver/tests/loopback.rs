//! A signed tree of our own on loopback, and a middleman before it who lies, stays silent, or
//! refuses.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::{Message, ResponseCode};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use zonefiles::chain::root_chain;
use zonefiles::{Apex, Record as ZoneRecord, Rtype, Zone};

use super::super::*;
use crate::zone::keys::ZoneKeys;
use crate::zone::serve::{Sockets, ZoneServer};
use crate::zone::signed::{ServedZone, make_bogus, sign_zones};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn reverse(addr: &str) -> Name {
    Name::reverse(addr.parse().unwrap())
}

fn server_txt(owner: &str, gateway: &str) -> ZoneRecord {
    // Exponent 65537 and 2048 odd bits: the form of a key, and nobody's.
    let key = STANDARD.encode([&[3, 1, 0, 1][..], &[0xc5; 256]].concat());
    ZoneRecord::txt(
        zonefiles::Name::reverse(owner.parse().unwrap()),
        300,
        format!("X-IPsec-Server(10)={gateway} {key}").as_bytes(),
    )
}

/// A signed leaf, an unsigned leaf that points into it, and their parents.
fn world() -> Vec<ServedZone> {
    let server: zonefiles::Name = "ns.lab".parse().unwrap();
    let apex = Apex::new(server.clone(), 1);
    let mut signed = Zone::new("2.0.192.in-addr.arpa".parse().unwrap(), &apex);
    signed.push(server_txt("192.0.2.11", "192.0.2.11"));
    signed.push(server_txt("192.0.2.13", "192.0.2.13"));
    for (owner, text) in [("*.4", "wild"), ("8.4", "tame")] {
        let owner = format!("{owner}.2.0.192.in-addr.arpa").parse().unwrap();
        signed.push(ZoneRecord::txt(owner, 300, text.as_bytes()));
    }
    signed.push(ZoneRecord::txt(
        "17.2.0.192.in-addr.arpa".parse().unwrap(),
        300,
        "k".repeat(3000).as_bytes(),
    ));
    let mut unsigned = Zone::new("100.51.198.in-addr.arpa".parse().unwrap(), &apex);
    unsigned.push(server_txt("198.51.100.5", "198.51.100.5"));
    unsigned.push(ZoneRecord::cname(
        "6.100.51.198.in-addr.arpa".parse().unwrap(),
        300,
        &"11.2.0.192.in-addr.arpa".parse().unwrap(),
    ));
    let unsigned_origin = unsigned.origin.clone();
    root_chain(vec![signed, unsigned], &apex, &[(server, [127, 0, 0, 1].into())])
        .into_iter()
        .map(|zone| {
            let sign = zone.origin != unsigned_origin;
            ServedZone { zone, sign }
        })
        .collect()
}

struct Tree {
    _server: ZoneServer,
    address: SocketAddr,
    anchors: PathBuf,
}

impl Tree {
    fn grow() -> Self {
        let tamper = |zone: &mut zonefiles::SortedZone| {
            make_bogus(zone, &"13.2.0.192.in-addr.arpa".parse().unwrap(), Rtype::TXT);
        };
        let life = Duration::from_secs(86_400);
        let signed = sign_zones(world(), &mut ZoneKeys::ephemeral(), life, Some(&tamper)).unwrap();
        let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = ZoneServer::start(vec![sockets], signed.catalog, Vec::new()).unwrap();
        let address = server.addresses()[0];
        let anchors = std::env::temp_dir().join(format!("oe-node-anchor-{address}"));
        std::fs::write(&anchors, &signed.trust_anchors).unwrap();
        Self { _server: server, address, anchors }
    }

    fn resolver(&self, servers: &[SocketAddr]) -> Resolver {
        Resolver::new(&ResolverConfig {
            servers: servers.to_vec(),
            trust_anchors: Some(self.anchors.clone()),
            mark: None,
        })
        .unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.anchors);
    }
}

/// What a middleman makes of a question and its true answer: the datagrams that he sends.
type Lie = fn(&Message, Message) -> Vec<Message>;

/// Stands between a resolver and the tree, over UDP only. Gone when dropped.
struct Middleman {
    address: SocketAddr,
    asked: Arc<std::sync::atomic::AtomicUsize>,
    task: JoinHandle<()>,
}

impl Middleman {
    async fn before(tree: &Tree, lie: Lie) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let truth = tree.address;
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let question = Message::from_vec(&buffer[..len]).unwrap();
                let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                upstream.send_to(&buffer[..len], truth).await.unwrap();
                let len = upstream.recv(&mut buffer).await.unwrap();
                let answer = Message::from_vec(&buffer[..len]).unwrap();
                for message in lie(&question, answer) {
                    socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
                }
            }
        });
        Self { address, asked, task }
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Middleman {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn with_code(mut answer: Message, code: ResponseCode) -> Message {
    answer.metadata.response_code = code;
    answer.answers.clear();
    answer.authorities.clear();
    answer
}

fn asks_for(question: &Message, kind: RecordType) -> bool {
    question.queries.iter().any(|query| query.query_type() == kind)
}

/// Everything of these types left out of every section.
fn without(mut answer: Message, kinds: &[RecordType]) -> Message {
    let keep = |record: &Record| !kinds.contains(&record.record_type());
    answer.answers.retain(keep);
    answer.authorities.retain(keep);
    answer
}

const SIGNED: &str = "192.0.2.11";
const UNSIGNED: &str = "198.51.100.5";
const ABSENT: &str = "192.0.2.99";

/// How a lie is to be taken: outcome at the signed, the unsigned and the absent name.
async fn taken(lie: Lie) -> [Answer; 3] {
    let tree = Tree::grow();
    let middleman = Middleman::before(&tree, lie).await;
    let resolver = tree.resolver(&[middleman.address]);
    let ask = async |addr: &str| resolver.answer(&reverse(addr)).await;
    [ask(SIGNED).await, ask(UNSIGNED).await, ask(ABSENT).await]
}

#[tokio::test]
async fn the_truth_is_taken_as_it_is() {
    let [signed, unsigned, absent] = taken(|_, answer| vec![answer]).await;
    assert!(matches!(signed.outcome, Outcome::Records(_)), "{signed:?}");
    assert_eq!(signed.security, Security::Secure);
    assert!(matches!(unsigned.outcome, Outcome::Records(_)), "{unsigned:?}");
    assert_eq!(unsigned.security, Security::Insecure);
    assert_eq!((absent.outcome, absent.security), (Outcome::NoName, Security::Secure));
}

/// CVE-2017-15107, CVE-2023-7008.
#[tokio::test]
async fn what_was_stripped_is_bogus_and_never_merely_unsigned() {
    let strippers: [Lie; 5] = [
        |_, answer| vec![without(answer, &[RecordType::RRSIG])],
        |_, answer| vec![without(answer, &[RecordType::RRSIG, RecordType::NSEC])],
        |_, answer| vec![without(answer, &[RecordType::DNSKEY])],
        // "There is no DS": without proof.
        |question, answer| {
            vec![if asks_for(question, RecordType::DS) {
                without(with_code(answer, ResponseCode::NoError), &[])
            } else {
                without(answer, &[RecordType::RRSIG])
            }]
        },
        // "There is no such name", without proof.
        |question, answer| {
            vec![if asks_for(question, RecordType::TXT) {
                with_code(answer, ResponseCode::NXDomain)
            } else {
                answer
            }]
        },
    ];
    for (n, lie) in strippers.into_iter().enumerate() {
        let [signed, _, absent] = taken(lie).await;
        assert_eq!((signed.outcome, signed.security), (Outcome::Bogus, Security::Bogus), "{n}");
        if n != 2 {
            assert_eq!(absent.outcome, Outcome::Bogus, "{n}");
        }
    }
}

/// AD over an open path.
#[tokio::test]
async fn an_altered_record_is_bogus() {
    let tree = Tree::grow();
    let answer = tree.resolver(&[tree.address]).answer(&reverse("192.0.2.13")).await;
    assert_eq!((answer.outcome, answer.security), (Outcome::Bogus, Security::Bogus));
}

#[tokio::test]
async fn failures_are_told_from_forgeries() {
    for (lie, failure) in [
        ((|_, answer| vec![with_code(answer, ResponseCode::Refused)]) as Lie, Failure::Refused),
        (|_, answer| vec![with_code(answer, ResponseCode::NotImp)], Failure::Refused),
        (|_, answer| vec![with_code(answer, ResponseCode::ServFail)], Failure::ServFail),
        (
            |_, mut answer| {
                answer.metadata.truncation = true;
                vec![answer]
            },
            Failure::Truncated,
        ),
        (|_, _| Vec::new(), Failure::Timeout),
        // The record comes; the chain of trust does not.
        (
            |question, answer| {
                let chain = asks_for(question, RecordType::DNSKEY);
                vec![if chain { with_code(answer, ResponseCode::ServFail) } else { answer }]
            },
            Failure::ServFail,
        ),
    ] {
        let tree = Tree::grow();
        let middleman = Middleman::before(&tree, lie).await;
        let resolver = tree.resolver(&[middleman.address]);
        let began = Instant::now();
        let answer = resolver.answer(&reverse(SIGNED)).await;
        assert_eq!(answer.outcome, Outcome::Failed(failure));
        assert!(began.elapsed() < LOOKUP_TIMEOUT + Duration::from_secs(1), "{failure:?}");
        let asked = middleman.asked();
        resolver.answer(&reverse(SIGNED)).await;
        assert_eq!(middleman.asked(), asked, "a failure is kept for a moment ({failure:?})");
    }
}

/// AD over an open path.
#[tokio::test]
async fn a_server_that_cannot_validate_is_asked_to_let_us() {
    // As a validating server behaves: SERVFAIL, unless checking is disabled.
    let lie: Lie = |question, answer| {
        vec![if question.metadata.checking_disabled {
            answer
        } else {
            with_code(answer, ResponseCode::ServFail)
        }]
    };
    let tree = Tree::grow();
    let middleman = Middleman::before(&tree, lie).await;
    let resolver = tree.resolver(&[middleman.address]);
    assert_eq!(resolver.answer(&reverse(SIGNED)).await.security, Security::Secure);
    assert_eq!(resolver.answer(&reverse("192.0.2.13")).await.outcome, Outcome::Bogus);
}

#[tokio::test]
async fn the_next_server_is_asked_if_one_fails() {
    let tree = Tree::grow();
    for lie in [
        (|_, answer| vec![with_code(answer, ResponseCode::Refused)]) as Lie,
        |_, answer| vec![with_code(answer, ResponseCode::ServFail)],
        |_, _| Vec::new(),
    ] {
        let bad = Middleman::before(&tree, lie).await;
        let resolver = tree.resolver(&[bad.address, tree.address]);
        assert_eq!(resolver.answer(&reverse(SIGNED)).await.security, Security::Secure);
        let asked = bad.asked();
        assert!(asked > 0);
        resolver.answer(&reverse(UNSIGNED)).await;
        assert_eq!(bad.asked(), asked, "the one that answered is asked first");
    }
}

/// RUSTSEC-2026-0106, CVE-2025-40778, CVE-2025-11411.
#[tokio::test]
async fn answers_to_other_questions_are_not_heard() {
    let lie: Lie = |_, answer| {
        let mut wrong_id = answer.clone();
        wrong_id.metadata.id = wrong_id.metadata.id.wrapping_add(1);
        let mut wrong_question = answer.clone();
        for query in &mut wrong_question.queries {
            query.name = hickory_proto::rr::Name::from_ascii("else.where.").unwrap();
        }
        let lies = [wrong_id, wrong_question].map(|lie| with_code(lie, ResponseCode::Refused));
        lies.into_iter().chain([answer]).collect()
    };
    let [signed, unsigned, absent] = taken(lie).await;
    assert_eq!(signed.security, Security::Secure);
    assert!(matches!(unsigned.outcome, Outcome::Records(_)));
    assert_eq!(absent.outcome, Outcome::NoName);
}

/// RUSTSEC-2026-0106, CVE-2025-40778, CVE-2025-11411.
#[tokio::test]
async fn records_of_other_owners_are_not_used() {
    // The unsigned name's answer comes with a signed record of somebody else, and nothing else.
    let lie: Lie = |question, mut answer| {
        let about_absent =
            question.queries.iter().any(|query| query.name().to_ascii().starts_with("5.100"));
        if about_absent && asks_for(question, RecordType::TXT) {
            let mut records = answer.answers.clone();
            for record in &mut records {
                record.name =
                    hickory_proto::rr::Name::from_ascii("7.100.51.198.in-addr.arpa.").unwrap();
            }
            answer.insert_answers(records);
        }
        vec![answer]
    };
    let [_, unsigned, _] = taken(lie).await;
    assert!(!matches!(unsigned.outcome, Outcome::Records(_)), "{unsigned:?}");
}

#[tokio::test]
async fn an_unsigned_alias_stays_unsigned_when_its_target_is_known() {
    let tree = Tree::grow();
    let resolver = tree.resolver(&[tree.address]);
    for _ in 0..2 {
        let target = resolver.answer(&reverse(SIGNED)).await;
        assert_eq!(target.security, Security::Secure);
        let alias = resolver.answer(&reverse("198.51.100.6")).await;
        assert!(matches!(alias.outcome, Outcome::Records(_)), "{alias:?}");
        assert_eq!(alias.security, Security::Insecure);
        resolver.forget(Some(&reverse("198.51.100.6")));
    }
}

#[tokio::test]
async fn wildcards_and_long_answers() {
    let tree = Tree::grow();
    let resolver = tree.resolver(&[tree.address]);
    let wild = resolver.lookup(&name("9.4.2.0.192.in-addr.arpa"), RecordType::TXT).await;
    assert_eq!((wild.records().len(), wild.security), (1, Security::Secure));
    let long = resolver.lookup(&reverse("192.0.2.17"), RecordType::TXT).await;
    assert_eq!((long.records().len(), long.security), (1, Security::Secure));
    assert!(long.exchange.truncated && long.exchange.tcp);
}

/// CVE-2017-15107.
#[tokio::test]
async fn a_wildcard_does_not_stand_for_a_name_that_exists() {
    // The truth about 9.4, which is the wildcard's, told of 8.4, which has a record of its own.
    let tree = Tree::grow();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let liar = socket.local_addr().unwrap();
    let truth = tree.address;
    let task = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (real, told) = (
            hickory_proto::rr::Name::from_ascii("9.4.2.0.192.in-addr.arpa.").unwrap(),
            hickory_proto::rr::Name::from_ascii("8.4.2.0.192.in-addr.arpa.").unwrap(),
        );
        loop {
            let (len, client) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..len]).unwrap();
            let lie = asks_for(&message, RecordType::TXT);
            if lie {
                message.queries[0].name = real.clone();
            }
            let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            upstream.send_to(&message.to_vec().unwrap(), truth).await.unwrap();
            let len = upstream.recv(&mut buffer).await.unwrap();
            let mut answer = Message::from_vec(&buffer[..len]).unwrap();
            if lie {
                answer.queries[0].name = told.clone();
                for record in answer.answers.iter_mut().filter(|record| record.name == real) {
                    record.name = told.clone();
                }
            }
            socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
        }
    });
    let resolver = tree.resolver(&[liar]);
    let finding = resolver.lookup(&name("8.4.2.0.192.in-addr.arpa"), RecordType::TXT).await;
    assert!(matches!(finding.found, Found::Bogus), "{finding:?}");
    let honest = tree.resolver(&[truth]);
    let finding = honest.lookup(&name("8.4.2.0.192.in-addr.arpa"), RecordType::TXT).await;
    assert_eq!(finding.security, Security::Secure);
    task.abort();
}

#[tokio::test]
async fn many_at_once() {
    let tree = Tree::grow();
    let resolver = Arc::new(tree.resolver(&[tree.address]));
    let lookups: Vec<_> = (0..500)
        .map(|n| {
            let resolver = Arc::clone(&resolver);
            tokio::spawn(async move {
                resolver.answer(&reverse(&format!("192.0.{}.{}", n / 250, n % 250))).await
            })
        })
        .collect();
    for lookup in lookups {
        let answer = lookup.await.unwrap();
        assert!(!matches!(answer.outcome, Outcome::Failed(_) | Outcome::Bogus), "{answer:?}");
    }
}
