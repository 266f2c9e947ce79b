//! What comes from DNS: anybody's zone, read by a root daemon.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::{
    Answer, Claim, Ipseckey, Name, OldKey, PublicKey, RecordSet, RequireDnssec, RsaKey, Rules,
    Security, ServerTxt, Speaker, Strictness, Verdict, authorize, decide,
};

use crate::mutate::fuzz;

fn key(exponent: &[u8], octets: usize) -> RsaKey {
    RsaKey::new(exponent, &vec![0xc5; octets]).unwrap()
}

fn keys() -> Vec<RsaKey> {
    vec![key(&[3], 274), key(&[1, 0, 1], 256), key(&[1, 0, 1], 384), key(&[3], 64)]
}

fn server(gateway: &str, key: Option<RsaKey>) -> ServerTxt {
    ServerTxt { precedence: 10, gateway: gateway.parse().unwrap(), key }
}

fn texts() -> Vec<Vec<u8>> {
    let mut seeds = vec![server("@west.example.com", None).to_rdata()];
    for (key, gateway) in keys().into_iter().zip(["192.0.2.11", "2001:db8::b", "@a.b", "0.0.0.1"]) {
        seeds.push(server(gateway, Some(key)).to_rdata());
    }
    seeds
}

fn rdata() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![10, 0, 0]];
    for (key, gateway) in keys().into_iter().zip([
        dnskeys::Gateway::Own,
        dnskeys::Gateway::Address(IpAddr::from([192, 0, 2, 1])),
        dnskeys::Gateway::Address(IpAddr::from([0x20; 16])),
        dnskeys::Gateway::Name("gw.example.com".parse().unwrap()),
    ]) {
        seeds.push(Ipseckey { precedence: 10, gateway, key: Some(key.into()) }.to_rdata());
    }
    seeds
}

/// Whatever the octets, reading again what was written gives the same.
#[test]
fn x_ipsec_server() {
    fuzz("x_ipsec_server", &texts(), |input| {
        let Ok(Some(record)) = ServerTxt::from_rdata(input) else { return };
        assert_eq!(ServerTxt::from_rdata(&record.to_rdata()), Ok(Some(record.clone())));
        assert_eq!(ServerTxt::from_strings(&[record.text()]), Ok(Some(record.clone())));
        let shown = record.presentation();
        assert!(shown.bytes().all(|b| (b' '..=b'~').contains(&b)), "escapes: {shown:?}");
        assert!(shown.len() < 2000);
    });
}

#[test]
fn ipseckey() {
    fuzz("ipseckey", &rdata(), |input| {
        let Ok(record) = Ipseckey::from_rdata(input) else { return };
        let again = Ipseckey::from_rdata(&record.to_rdata());
        assert_eq!(again.as_ref(), Ok(&record));
        assert!(record.presentation().bytes().all(|b| (b' '..=b'~').contains(&b)));
    });
}

#[test]
fn old_key() {
    let seeds: Vec<Vec<u8>> = keys().iter().map(|key| OldKey::ipsec(key).to_rdata()).collect();
    fuzz("old_key", &seeds, |input| {
        let Some(record) = OldKey::from_rdata(input) else { return };
        assert_eq!(record.to_rdata(), input);
        let _ = (record.is_ipsec(), record.key(), record.presentation());
    });
}

#[test]
fn rsa_keys() {
    let mut seeds: Vec<Vec<u8>> = keys().iter().map(RsaKey::to_rfc3110).collect();
    seeds.extend(keys().iter().map(|key| key.to_base64().into_bytes()));
    fuzz("rsa_keys", &seeds, |input| {
        for key in [RsaKey::from_rfc3110(input), RsaKey::from_base64(input)].into_iter().flatten() {
            assert_eq!(RsaKey::from_rfc3110(&key.to_rfc3110()).as_ref(), Ok(&key));
            assert!((512..=8192).contains(&key.bits()) && key.exponent_value() % 2 == 1);
            let _ = (key.weakness(), key.key_id(), format!("{key:?}"));
        }
    });
}

#[test]
fn key_files() {
    let mut seeds: Vec<Vec<u8>> = keys().iter().map(|k| k.to_spki_der().unwrap()).collect();
    seeds.extend(keys().iter().map(|k| k.to_pem().unwrap().into_bytes()));
    seeds.extend(keys().iter().map(|k| k.to_pkcs1_pem().unwrap().into_bytes()));
    fuzz("key_files", &seeds, |input| {
        let text = String::from_utf8_lossy(input);
        let read =
            [RsaKey::from_spki_der(input), RsaKey::from_pkcs8_der(input), RsaKey::from_pem(&text)];
        for key in read.into_iter().flatten() {
            assert_eq!(RsaKey::from_pem(&key.to_pem().unwrap()), Ok(key));
        }
    });
}

#[test]
fn names() {
    let names =
        ["11.2.0.192.in-addr.arpa", "west.example.com", "65.64/26.2.0.192.in-addr.arpa", "_a-b"];
    let mut seeds: Vec<Vec<u8>> = names.iter().map(|n| n.as_bytes().to_vec()).collect();
    seeds.extend(names.iter().map(|n| n.parse::<Name>().unwrap().to_wire()));
    fuzz("names", &seeds, |input| {
        if let Ok((name, rest)) = Name::from_wire(input) {
            assert_eq!(Name::from_wire(&name.to_wire()), Ok((name.clone(), &[][..])));
            assert!(rest.len() < input.len());
            assert!(name.to_wire().len() <= 255);
        }
        if let Ok(name) = String::from_utf8_lossy(input).parse::<Name>() {
            assert_eq!(name.as_str().parse(), Ok(name.clone()));
            assert_eq!(name.to_address().map(Name::reverse), name.to_address().map(|_| name));
        }
    });
}

/// Whatever stands in a zone, an unsigned answer sends nobody to a third address, and authorises
/// nobody but the address itself.
#[test]
fn decisions() {
    let seeds: Vec<Vec<u8>> = texts().into_iter().chain(rdata()).collect();
    let dest = IpAddr::from([192, 0, 2, 11]);
    let rules = Rules { require_dnssec: RequireDnssec::Never, ..Rules::default() };
    fuzz("decisions", &seeds, |input| {
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
                    assert!(
                        !candidates.is_empty() && candidates.is_sorted_by_key(|c| c.precedence)
                    );
                    let own = |c: &dnskeys::Candidate| c.gateway == dest;
                    assert!(*security == Security::Secure || candidates.iter().all(own));
                }
                let clear = matches!(verdict, Verdict::Clear { .. });
                assert!(
                    !(clear && (strict == Strictness::Paranoid || security == Security::Bogus))
                );
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
    });
}
