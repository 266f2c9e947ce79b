//! The reader never panics, takes nothing it should not, and reads what the writer writes.

use proptest::prelude::*;
use sa::TrafficSelector;

use super::*;
use crate::api::Identity;

fn id(identity: &Identity) -> Identification {
    Identification::of(identity)
}

/// One of each payload.
fn every_payload() -> Vec<Payload> {
    let esp = |number| Proposal {
        number,
        protocol: ProtocolId::ESP,
        spi: vec![1, 2, 3, 4],
        transforms: vec![
            Transform::new(TransformType::ENCR, 20, Some(256)),
            Transform::new(TransformType::ESN, 1, None),
        ],
    };
    vec![
        Payload::Sa(vec![esp(1), esp(2)]),
        Payload::KeyExchange(KeyExchange { group: 31, data: vec![5; 32] }),
        Payload::IdInitiator(id(&Identity::Address("192.0.2.1".parse().unwrap()))),
        Payload::IdResponder(id(&Identity::Fqdn("east.example".into()))),
        Payload::Authentication(Authentication { method: 14, data: vec![6; 40] }),
        Payload::Nonce(vec![7; 32]),
        Payload::Notify(Notify::about_esp(NotifyType::REKEY_SA, &[1, 2, 3, 4])),
        Payload::Delete(Delete::Esp(vec![0x100, 0x200])),
        Payload::TsInitiator(vec![
            TrafficSelector::prefix("10.0.0.0/8".parse().unwrap()),
            TrafficSelector::host("2001:db8::1".parse().unwrap()),
        ]),
        Payload::TsResponder(vec![TrafficSelector::host("10.0.0.1".parse().unwrap())]),
    ]
}

fn chain(payloads: &[Payload]) -> (PayloadType, Vec<u8>) {
    let mut out = Vec::new();
    let first = write_chain(&mut out, payloads);
    (first, out)
}

#[test]
fn what_is_written_is_read() {
    let (first, octets) = chain(&every_payload());
    let read = Payloads::read(first, &octets).unwrap();
    assert_eq!(read.sa.unwrap().len(), 2);
    assert_eq!(read.ke.unwrap().group, 31);
    assert_eq!(
        read.id_initiator.unwrap().identity,
        Identity::Address("192.0.2.1".parse().unwrap())
    );
    assert_eq!(read.id_responder.unwrap().identity, Identity::Fqdn("east.example".into()));
    assert_eq!(read.auth.unwrap().data, [6; 40]);
    assert_eq!(read.nonce.unwrap(), [7; 32]);
    assert_eq!(read.notifies[0].spi, [1, 2, 3, 4]);
    assert_eq!(read.deletes, [Delete::Esp(vec![0x100, 0x200])]);
    assert_eq!(read.ts_initiator.unwrap().len(), 2);
    assert_eq!(read.ts_responder.unwrap().len(), 1);
}

/// CVE-2013-4564.
#[test]
fn a_message_cut_anywhere_is_refused() {
    let header = Header {
        spi_i: 1,
        spi_r: 2,
        exchange: ExchangeType::IKE_SA_INIT,
        initiator: true,
        response: false,
        message_id: 0,
    };
    let whole = header.write_clear(&every_payload());
    assert!(Message::read(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(Message::read(&whole[..len]).is_err(), "{len}");
        // Even if its length field is made to agree.
        let mut cut = whole[..len].to_vec();
        if let Some(field) = cut.get_mut(24..28) {
            field.copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
        }
        if let Ok(Message { body: Body::Clear { first, octets }, .. }) = Message::read(&cut) {
            assert!(Payloads::read(first, octets).is_err(), "{len}");
        }
    }
    let mut longer = whole;
    longer.push(0);
    assert!(Message::read(&longer).is_err());
}

#[test]
fn every_single_payload_cut_anywhere_is_refused_or_shorter() {
    for payload in every_payload() {
        let (first, whole) = chain(std::slice::from_ref(&payload));
        for len in 4..whole.len() {
            let mut cut = whole[..len].to_vec();
            cut[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            let read = Payloads::read(first, &cut);
            // These have an open end.
            let open = matches!(
                payload,
                Payload::KeyExchange(_)
                    | Payload::IdInitiator(_)
                    | Payload::IdResponder(_)
                    | Payload::Authentication(_)
                    | Payload::Nonce(_)
                    | Payload::Notify(_)
            );
            assert!(open || read.is_err(), "{payload:?} {len}");
        }
    }
}

#[test]
fn payloads_that_may_stand_once_stand_once() {
    for payload in every_payload() {
        let (first, octets) = chain(&[payload.clone(), payload.clone()]);
        let twice = Payloads::read(first, &octets);
        let may = matches!(payload, Payload::Notify(_) | Payload::Delete(_));
        assert_eq!(twice.is_ok(), may, "{payload:?}");
    }
}

/// CVE-2022-40617, CVE-2015-3991.
#[test]
fn unknown_payloads_are_skipped_unless_critical() {
    for kind in 0..=255_u8 {
        let plain = [0, 0, 0, 8, 9, 9, 9, 9];
        let critical = [0, 0x80, 0, 8, 9, 9, 9, 9];
        let known = (33..=48).contains(&kind) || kind == 53;
        let of_ours = |octets: &[u8]| Payloads::read(PayloadType(kind), octets);
        match kind {
            0 => assert!(of_ours(&plain).is_err()),
            // CERT, CERTREQ, VendorID, CP, EAP: read over, critical or not (RFC 7296 §2.5).
            37 | 38 | 43 | 47 | 48 => {
                assert!(of_ours(&plain).is_ok() && of_ours(&critical).is_ok());
            }
            46 | 53 => assert!(of_ours(&plain).is_err()),
            _ if known => {}
            _ => {
                assert!(of_ours(&plain).is_ok());
                assert_eq!(of_ours(&critical), Err(InvalidMessage::Critical(kind)));
            }
        }
    }
}

/// CVE-2026-25075.
#[test]
fn a_chain_has_an_end() {
    // Each of these payloads is empty and says that another follows.
    let endless = [43, 0, 0, 4].repeat(100);
    assert_eq!(Payloads::read(PayloadType(43), &endless), Err(InvalidMessage::TooMany("payload")));
    for length in 0..4 {
        assert!(Payloads::read(PayloadType(43), &[0, 0, 0, length]).is_err());
    }
}

/// CVE-2023-38711, CVE-2010-2628, CVE-2025-9242, RUSTSEC-2025-0055.
#[test]
fn identities_of_every_type_and_length() {
    for kind in 0..=255_u8 {
        for len in [0, 1, 3, 4, 5, 15, 16, 17, 255, 256, 5000] {
            let mut body = vec![0, 0, 0, 0, kind, 0, 0, 0];
            body.extend(vec![b'a'; len]);
            let size = u16::try_from(body.len()).unwrap().to_be_bytes();
            body[2..4].copy_from_slice(&size);
            let read = Payloads::read(PayloadType::ID_INITIATOR, &body);
            let good = len <= 255
                && match kind {
                    1 => len == 4,
                    5 => len == 16,
                    2 => len > 0,
                    13 => len == 0,
                    _ => true,
                };
            assert_eq!(read.is_ok(), good, "type {kind}, {len} octets");
            if let Ok(payloads) = read {
                let id = payloads.id_initiator.unwrap();
                assert_eq!(Identification::of(&id.identity).octets, id.octets);
                assert!(!format!("{id:?}").is_empty());
            }
        }
    }
    // What could do harm in a log or a name is no name.
    for name in ["a b", "a\nb", "a\0", "\u{1b}[31m", "b\u{fc}cher.example", "a\u{7f}"] {
        let mut body = vec![0, 0, 0, 0, 2, 0, 0, 0];
        body.extend_from_slice(name.as_bytes());
        let size = u16::try_from(body.len()).unwrap().to_be_bytes();
        body[2..4].copy_from_slice(&size);
        assert!(Payloads::read(PayloadType::ID_INITIATOR, &body).is_err(), "{name:?}");
    }
}

/// CVE-2023-23009.
#[test]
fn selectors_that_say_nothing_are_left_out_and_bad_ones_refused() {
    let read = |count: u8, selectors: &[u8]| {
        let mut body = vec![0, 0, 0, 0, count, 0, 0, 0];
        body.extend_from_slice(selectors);
        let size = u16::try_from(body.len()).unwrap().to_be_bytes();
        body[2..4].copy_from_slice(&size);
        Payloads::read(PayloadType::TS_INITIATOR, &body).map(|p| p.ts_initiator.unwrap())
    };
    let good = [7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 1, 10, 0, 0, 9];
    assert_eq!(read(1, &good).unwrap().len(), 1);
    assert!(read(2, &good).is_err() && read(0, &good).is_err());
    let change = |at: usize, to: u8| {
        let mut octets = good;
        octets[at] = to;
        octets
    };
    // Start after end, an unknown type: nothing to match.
    assert_eq!(read(1, &change(15, 0)), Ok(vec![]));
    let opaque = [7, 0, 0, 16, 255, 255, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
    assert_eq!(read(1, &opaque).unwrap()[0].ports(), sa::OPAQUE);
    assert_eq!(read(1, &change(0, 10)), Ok(vec![]));
    for length in [0, 3, 4, 15, 17, 255] {
        assert!(read(1, &change(3, length)).is_err(), "{length}");
    }
    assert!(read(1, &change(0, 8)).is_err());
    assert_eq!(read(0, &[]), Ok(vec![]));
}

/// CVE-2023-38712.
#[test]
fn deletes_that_do_not_add_up_are_refused() {
    let read = |body: &[u8]| {
        let mut octets = vec![0, 0, 0, u8::try_from(body.len() + 4).unwrap()];
        octets.extend_from_slice(body);
        Payloads::read(PayloadType::DELETE, &octets).map(|p| p.deletes)
    };
    assert_eq!(read(&[1, 0, 0, 0]), Ok(vec![Delete::Ike]));
    assert_eq!(read(&[3, 4, 0, 0]), Ok(vec![Delete::Esp(vec![])]));
    assert_eq!(read(&[3, 4, 0, 1, 0, 0, 1, 0]), Ok(vec![Delete::Esp(vec![256])]));
    assert_eq!(read(&[2, 4, 0, 1, 0, 0, 1, 0]), Ok(vec![Delete::Other]));
    for body in [
        &[1, 0, 0, 1][..],
        &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &[3, 4, 0, 2, 0, 0, 1, 0],
        &[3, 4, 255, 255, 0, 0, 1, 0],
        &[3, 8, 0, 1, 0, 0, 1, 0],
        &[3, 0, 0, 0],
        &[3, 4, 0, 0, 1],
        &[0, 0, 0, 0, 9],
        &[200, 255, 255, 255],
        &[3],
    ] {
        assert!(read(body).is_err(), "{body:?}");
    }
}

#[test]
fn proposals_that_do_not_add_up_are_refused() {
    let (first, whole) = chain(&[every_payload().remove(0)]);
    // More to come and nothing there; the last and more there; counts; lengths; SPI sizes.
    for (at, value) in
        [(4, 0), (4, 2), (4, 9), (6, 255), (7, 0), (7, 3), (10, 255), (11, 1), (11, 9)]
    {
        let mut octets = whole.clone();
        if octets[at] == value {
            continue;
        }
        octets[at] = value;
        assert!(Payloads::read(first, &octets).is_err(), "{at} {value}");
    }
    assert!(Payloads::read(first, &[0, 0, 0, 4]).is_err());
}

proptest! {
    #[test]
    fn no_octets_make_the_reader_panic(octets in proptest::collection::vec(any::<u8>(), 0..400), kind: u8) {
        let _ = Message::read(&octets);
        if let Ok(payloads) = Payloads::read(PayloadType(kind), &octets) {
            let _ = format!("{payloads:?}");
        }
    }

    /// CVE-2015-3204.
    #[test]
    fn no_changed_octets_make_the_reader_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (first, mut octets) = chain(&every_payload());
        for (at, value) in changes {
            let at = at.index(octets.len());
            octets[at] = value;
        }
        if let Ok(payloads) = Payloads::read(first, &octets) {
            let _ = format!("{payloads:?}");
        }
    }
}
