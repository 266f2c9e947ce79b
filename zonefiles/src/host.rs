//! A host and what it publishes: PTR, `X-IPsec-Server` TXT, IPSECKEY (RFC 4322 §5).

use std::net::IpAddr;

use dnskeys::{Gateway, Ipseckey, RsaKey, ServerTxt, TxtGateway};

use crate::name::Name;
use crate::record::Record;
use crate::reverse::ReverseZone;
use crate::zone::{Apex, Zone};

/// What is published for one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// The address.
    pub address: IpAddr,
    /// Where its PTR points, and the owner of its forward records.
    pub name: Option<Name>,
    /// Who speaks for it. [`Gateway::Own`] for a host that is its own gateway.
    pub gateway: Gateway,
    /// The gateway's key.
    pub key: Option<RsaKey>,
    /// Lower is tried first.
    pub precedence: u16,
}

/// Which record types are written for each host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds {
    /// PTR, if the host has a name.
    pub ptr: bool,
    /// `X-IPsec-Server` TXT: what RFC 4322's peers and this one's read first.
    pub txt: bool,
    /// IPSECKEY beside it.
    pub ipseckey: bool,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { ptr: true, txt: true, ipseckey: true }
    }
}

impl Host {
    /// A host that is its own gateway (the *packetdefault* host).
    #[must_use]
    pub fn own(address: IpAddr, key: RsaKey) -> Self {
        let precedence = DEFAULT_PRECEDENCE;
        Self { address, name: None, gateway: Gateway::Own, key: Some(key), precedence }
    }

    /// The same with a name for the PTR record.
    #[must_use]
    pub fn named(self, name: Name) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The same behind another gateway, whose key it then publishes (RFC 4322 §8).
    #[must_use]
    pub fn behind(self, gateway: IpAddr, key: RsaKey) -> Self {
        Self { gateway: Gateway::Address(gateway), key: Some(key), ..self }
    }

    /// Its records at `owner`. One without key and with [`Gateway::Own`] has only a PTR.
    pub fn records(&self, owner: &Name, ttl: u32, kinds: Kinds) -> Vec<Record> {
        let mut records = Vec::with_capacity(3);
        if let (Some(name), true) = (&self.name, kinds.ptr) {
            records.push(Record::ptr(owner.clone(), ttl, name));
        }
        if self.key.is_none() && self.gateway == Gateway::Own {
            return records;
        }
        if kinds.txt {
            records.push(Record::x_ipsec_server(owner.clone(), ttl, &self.server_txt()));
        }
        if kinds.ipseckey {
            records.push(Record::ipseckey(owner.clone(), ttl, &self.ipseckey()));
        }
        records
    }
}

impl Host {
    /// As `X-IPsec-Server`. [`Gateway::Own`] is written as the address, for want of another form.
    #[must_use]
    pub fn server_txt(&self) -> ServerTxt {
        let gateway = match &self.gateway {
            Gateway::Own => TxtGateway::Address(self.address),
            Gateway::Address(address) => TxtGateway::Address(*address),
            Gateway::Name(name) => TxtGateway::Name(name.clone()),
        };
        ServerTxt { precedence: self.precedence, gateway, key: self.key.clone() }
    }

    /// As IPSECKEY, whose precedence ends at 255.
    #[must_use]
    pub fn ipseckey(&self) -> Ipseckey {
        let precedence = u8::try_from(self.precedence).unwrap_or(u8::MAX);
        Ipseckey {
            precedence,
            gateway: self.gateway.clone(),
            key: self.key.clone().map(Into::into),
        }
    }
}

/// The zone with these hosts' records. Hosts outside its prefix are left out.
#[must_use]
pub fn reverse_zone(zone: &ReverseZone, apex: &Apex, hosts: &[Host], kinds: Kinds) -> Zone {
    let mut made = zone.empty(apex);
    for host in hosts.iter().filter(|host| zone.prefix.contains(host.address)) {
        made.records.extend(host.records(&zone.owner(host.address), apex.ttl, kinds));
    }
    made
}

/// What showhostkey always wrote.
pub const DEFAULT_PRECEDENCE: u16 = 10;
