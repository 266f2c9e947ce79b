//! What comes from DNS: anybody's zone, read by a root daemon.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{
    Answer, Claim, Ipseckey, Name, OldKey, PublicKey, RecordSet, RequireDnssec, RsaKey, Rules,
    Security, ServerTxt, Speaker, Strictness, Verdict, authorize, decide,
};

/// Whatever the octets, reading again what was written gives the same.
pub(crate) fn x_ipsec_server(input: &[u8]) {
    let Ok(Some(record)) = ServerTxt::from_rdata(input) else { return };
    assert!(!format!("{record:?}").is_empty());
    assert_eq!(ServerTxt::from_rdata(&record.to_rdata()), Ok(Some(record.clone())));
    assert_eq!(ServerTxt::from_strings(&[record.text()]), Ok(Some(record.clone())));
    let shown = record.presentation();
    assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b)), "escapes: {shown:?}");
    assert!(shown.len() < 2000);
}

pub(crate) fn ipseckey(input: &[u8]) {
    let Ok(record) = Ipseckey::from_rdata(input) else { return };
    assert!(!format!("{record:?}").is_empty());
    let again = Ipseckey::from_rdata(&record.to_rdata());
    assert_eq!(again.as_ref(), Ok(&record));
    assert!(record.presentation().bytes().all(|b| (b' '..=b'~').contains(&b)));
}

pub(crate) fn old_key(input: &[u8]) {
    let Some(record) = OldKey::from_rdata(input) else { return };
    assert_eq!(record.to_rdata(), input);
    let _ = (record.is_ipsec(), record.key(), record.presentation(), format!("{record:?}"));
}

pub(crate) fn rsa_keys(input: &[u8]) {
    for key in [RsaKey::from_rfc3110(input), RsaKey::from_base64(input)].into_iter().flatten() {
        assert_eq!(RsaKey::from_rfc3110(&key.to_rfc3110()).as_ref(), Ok(&key));
        assert!((512..=8192).contains(&key.bits()) && key.exponent_value() % 2 == 1);
        let _ = (key.weakness(), key.key_id(), format!("{key:?}"));
    }
}

pub(crate) fn key_files(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let read =
        [RsaKey::from_spki_der(input), RsaKey::from_pkcs8_der(input), RsaKey::from_pem(&text)];
    for key in read.into_iter().flatten() {
        assert_eq!(RsaKey::from_pem(&key.to_pem().unwrap()), Ok(key));
    }
}

pub(crate) fn names(input: &[u8]) {
    if let Ok((name, rest)) = Name::from_wire(input) {
        assert_eq!(Name::from_wire(&name.to_wire()), Ok((name.clone(), &[][..])));
        assert!(rest.len() < input.len());
        assert!(name.to_wire().len() <= 255);
    }
    if let Ok(name) = String::from_utf8_lossy(input).parse::<Name>() {
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
        assert_eq!(name.to_address().map(Name::reverse), name.to_address().map(|_| name));
    }
}

/// Whatever stands in a zone, an unsigned answer sends nobody to a third address, and authorises
/// nobody but the address itself.
pub(crate) fn decisions(input: &[u8]) {
    let dest = IpAddr::from([192, 0, 2, 11]);
    let rules = Rules { require_dnssec: RequireDnssec::Never, ..Rules::default() };
    // One input, many records: split where the number nine stands.
    let mut set = RecordSet::default();
    for part in input.split(|b| *b == 9) {
        set.add_txt(part);
        set.add_ipseckey(part);
    }
    let named: Vec<_> = set.gateways.clone();
    for security in [Security::Secure, Security::Insecure, Security::Bogus] {
        let owner = Name::reverse(dest);
        let answer = Answer::new(owner, security, Duration::from_secs(60), set.clone());
        for strict in [Strictness::Permissive, Strictness::Paranoid] {
            let verdict = decide(dest, &answer, &rules, strict);
            if let Verdict::Negotiate { candidates, security, .. } = &verdict {
                assert_ne!(*security, Security::Bogus);
                assert!(!candidates.is_empty() && candidates.is_sorted_by_key(|c| c.precedence));
                let own = |c: &dnskeys::Candidate| c.gateway == dest;
                assert!(*security == Security::Secure || candidates.iter().all(own));
            }
            let clear = matches!(verdict, Verdict::Clear { .. });
            assert!(!(clear && (strict == Strictness::Paranoid || security == Security::Bogus)));
        }
        for record in &named {
            let Some(key @ PublicKey::Rsa(_)) = &record.key else { continue };
            let gateway = IpAddr::from([198, 51, 100, 1]);
            let speaker = Speaker::Address(gateway);
            let claim = Claim { address: dest, speaker: &speaker, key, outer: Some(gateway) };
            let proof = authorize(claim, &[&answer], &rules, Strictness::Permissive);
            assert!(proof.is_err() || security == Security::Secure, "unsigned delegation");
        }
    }
}
