//! Whether the servers of a zone agree: a record that only one of them has is a record that
//! strangers see now and then.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dnskeys::Name;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{RData, Record, RecordType};

use super::facts::{ServerSaid, ServerSilence};
use crate::resolver::{Resolver, from_hickory, records_of_ours};

/// Asks every server of the zone in which `owner` lies.
pub(super) async fn compare(
    resolver: &Arc<Resolver>,
    owner: &hickory_proto::rr::Name,
) -> Vec<ServerSaid> {
    let Some(owner) = from_hickory(owner) else { return Vec::new() };
    let mut addresses = Vec::new();
    for server in servers_of(resolver, &owner).await {
        let (_, found) = resolver.addresses(&server).await;
        addresses.extend(found.into_iter().map(|address| (server.to_string(), address)));
    }
    addresses.truncate(MAX_SERVERS);
    let mut asked = tokio::task::JoinSet::new();
    for (name, address) in addresses {
        let (resolver, owner) = (Arc::clone(resolver), owner.clone());
        asked.spawn(async move { ask(&resolver, name, address, &owner).await });
    }
    let mut said = asked.join_all().await;
    said.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
    said
}

/// The names of the servers of the nearest zone above.
async fn servers_of(resolver: &Resolver, owner: &Name) -> Vec<Name> {
    let Some(zone) = zone_of(resolver, owner).await else { return Vec::new() };
    let found = resolver.lookup(&zone, RecordType::NS).await;
    let server = |record: &Record| match &record.data {
        RData::NS(ns) => from_hickory(&ns.0),
        _ => None,
    };
    found.records().iter().filter_map(server).collect()
}

/// The zone in which a name lies, by what nobody validated: an SOA stands at its top, and in every
/// denial.
async fn zone_of(resolver: &Resolver, owner: &Name) -> Option<Name> {
    let reply = resolver.unvalidated(owner, RecordType::SOA).await.ok()?;
    let mut records = reply.answers.iter().chain(&reply.authorities);
    let soa = records.find(|record| record.record_type() == RecordType::SOA)?;
    from_hickory(&soa.name).filter(|zone| owner.is_within(zone))
}

async fn ask(resolver: &Resolver, name: String, address: IpAddr, owner: &Name) -> ServerSaid {
    let address = SocketAddr::new(address, 53);
    let said = match resolver.ask(address, owner, RecordType::TXT).await {
        Err(failure) => Err(ServerSilence::Failed(failure)),
        Ok(reply) if !reply.authoritative => Err(ServerSilence::Lame),
        Ok(reply) if reply.code == ResponseCode::NoError => Ok(texts(&reply.answers)),
        Ok(reply) if reply.code == ResponseCode::NXDomain => Ok(Vec::new()),
        Ok(_) => Err(ServerSilence::Lame),
    };
    ServerSaid { name, address, said }
}

/// The records of ours as text, sorted.
pub(super) fn texts(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<String> = records
        .iter()
        .filter(|record| !records_of_ours(std::slice::from_ref(record)).is_empty())
        .map(|record| record.data.to_string())
        .collect();
    texts.sort();
    texts
}

/// Servers of one zone that are asked: the root has 26 addresses, customers' zones two to eight.
const MAX_SERVERS: usize = 12;
