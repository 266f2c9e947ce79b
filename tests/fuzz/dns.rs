//! Targets of `targets/dns.rs`, with seeds made here: what an honest zone holds.

use std::net::IpAddr;

use dnskeys::{Ipseckey, Name, OldKey, RsaKey, ServerTxt};

use crate::mutate::fuzz;
use crate::targets::dns;

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

/// CVE-2013-2052. P19: what is shown is plain text.
#[test]
fn x_ipsec_server() {
    fuzz("x_ipsec_server", &texts(), dns::x_ipsec_server);
}

#[test]
fn ipseckey() {
    fuzz("ipseckey", &rdata(), dns::ipseckey);
}

#[test]
fn old_key() {
    let seeds: Vec<Vec<u8>> = keys().iter().map(|key| OldKey::ipsec(key).to_rdata()).collect();
    fuzz("old_key", &seeds, dns::old_key);
}

#[test]
fn rsa_keys() {
    let mut seeds: Vec<Vec<u8>> = keys().iter().map(RsaKey::to_rfc3110).collect();
    seeds.extend(keys().iter().map(|key| key.to_base64().into_bytes()));
    fuzz("rsa_keys", &seeds, dns::rsa_keys);
}

#[test]
fn key_files() {
    let mut seeds: Vec<Vec<u8>> = keys().iter().map(|k| k.to_spki_der().unwrap()).collect();
    seeds.extend(keys().iter().map(|k| k.to_pem().unwrap().into_bytes()));
    seeds.extend(keys().iter().map(|k| k.to_pkcs1_pem().unwrap().into_bytes()));
    fuzz("key_files", &seeds, dns::key_files);
}

#[test]
fn names() {
    let names =
        ["11.2.0.192.in-addr.arpa", "west.example.com", "65.64/26.2.0.192.in-addr.arpa", "_a-b"];
    let mut seeds: Vec<Vec<u8>> = names.iter().map(|n| n.as_bytes().to_vec()).collect();
    seeds.extend(names.iter().map(|n| n.parse::<Name>().unwrap().to_wire()));
    fuzz("names", &seeds, dns::names);
}

#[test]
fn decisions() {
    let seeds: Vec<Vec<u8>> = texts().into_iter().chain(rdata()).collect();
    fuzz("decisions", &seeds, dns::decisions);
}
