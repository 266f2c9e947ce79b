//! From the configuration to the machines' own, and from their words to people's.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use keying::{Keying, Report, What};
use serde_json::{Value, json};

use crate::answer::Answer;
use crate::backend::Backend;
use crate::config::{Backend as Plane, Config, Encapsulation, Mobike};
use crate::hostkey::HostKey;
use crate::kernel::{self, GroundConfig, LeftAlone, XfrmConfig};
use crate::resolver::ResolverConfig;
use crate::userspace;

/// Whether somebody elsewhere can talk to this address of ours.
pub(crate) fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_loopback() && !a.is_link_local() && !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_loopback() && !a.is_unicast_link_local() && !a.is_unspecified(),
    }
}

/// Whom DNS is asked of.
pub(crate) fn resolver_config(config: &Config) -> ResolverConfig {
    ResolverConfig {
        servers: config.dns.resolvers.iter().map(|r| r.0).collect(),
        trust_anchors: config.dns.trust_anchors.clone(),
        mark: Some(config.node.mark),
    }
}

/// Under which names and numbers the kernel knows us.
pub(crate) fn ground_config(config: &Config) -> GroundConfig {
    GroundConfig {
        interface: config.node.interface.clone(),
        table: config.node.table,
        mark: config.node.mark,
        unreachable: config.policy.icmp_unreachable,
        served: config.served(),
        hosts: config.node.destinations.saturating_add(OTHERS),
        ..GroundConfig::default()
    }
}

/// The same, when the kernel carries the packets.
pub(crate) fn xfrm_config(config: &Config) -> XfrmConfig {
    XfrmConfig {
        mark: config.node.mark,
        listen: config.node.listen.clone(),
        flows: config.node.destinations.saturating_add(OTHERS),
        ..XfrmConfig::default()
    }
}

/// Destinations beside those in the clear or denied that the kernel hears of: with pairs, of which the
/// data plane has 32,768 at most, or undecided.
const OTHERS: usize = 65_536;

/// What the data plane opens.
pub(crate) fn plane_config(config: &Config) -> anyhow::Result<userspace::Config> {
    Ok(userspace::Config {
        interface: config.node.interface.clone(),
        mark: config.node.mark,
        listen: config.node.listen.clone(),
        seed: seed()?,
        ways: kernel::ways_onward,
        forwarding: forwarding::Config {
            provider: userspace::fastest(),
            unreachable: config.policy.icmp_unreachable,
            newcomers: newcomers(config),
            ..forwarding::Config::default()
        },
        ..userspace::Config::default()
    })
}

/// How many unknown destinations a second are worth a question.
fn newcomers(config: &Config) -> u32 {
    config.node.new_destinations.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(processors).unwrap_or(1).saturating_mul(NEWCOMERS_OF_PROCESSOR)
    })
}

/// Randomness for one machine.
pub(crate) fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    Ok(seed)
}

/// What our tickets are sealed with; nothing if there are to be none.
pub(crate) fn ticket_keys(config: &Config) -> Vec<ike::NodeSecret> {
    let wanted = config.ike.resumption;
    if wanted { crate::secret::ticket_keys(&config.node.state_dir) } else { Vec::new() }
}

/// What keying is told.
pub(crate) fn keying_config(
    config: &Config,
    groups: keying::Groups,
    connections: Vec<keying::Connection>,
    key: &HostKey,
    addresses: Vec<IpAddr>,
) -> anyhow::Result<keying::Config> {
    let key = keying::ike_key(key.public()).context("node.key: of a kind that cannot sign")?;
    Ok(keying::Config {
        groups,
        served: config.served(),
        connections,
        rules: config.rules(),
        when_advertised: config.when_advertised(),
        null_auth: config.null_auth(),
        own_record: config.own_record(),
        identity: config.identity(),
        addresses,
        pool: config.pool(),
        translates: config.node.backend == Plane::Userspace,
        ike: ike::Config {
            encapsulation: match config.node.encapsulation {
                Encapsulation::Udp => ike::Encapsulation::Force,
                Encapsulation::Auto => ike::Encapsulation::WhenNatted,
            },
            mobike: match config.ike.mobike {
                Mobike::Off => ike::Mobike::Off,
                Mobike::On => ike::Mobike::On,
                Mobike::Announce => ike::Mobike::Announce,
            },
            compatibility: config.ike.compatibility,
            post_quantum: config.ike.post_quantum,
            started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            ticket_keys: ticket_keys(config),
            resumption: config.ike.resumption,
            token_secret: crate::secret::load_or_make(&config.node.state_dir, crate::secret::CRASH),
            retransmit_tries: config.node.retransmissions,
            patience: Duration::from_secs(config.ike.patience.into()),
            ike_life: Duration::from_secs(config.ike.ike_life.into()),
            child_life: Duration::from_secs(config.ike.child_life.into()),
            fragment_size: config.ike.fragment_size.into(),
            ..ike::Config::new(key)
        },
        lives: keying::Lives::default(),
        destinations: config.node.destinations,
    })
}

/// The whole state as one document.
pub(crate) fn status(keying: &Keying, plane: &Backend, now: Instant) -> Answer {
    let destinations = keying.destinations(now);
    let downgraded = downgraded(&destinations);
    let connections: Vec<Value> = keying.connections(now).iter().map(connection).collect();
    let rest = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "connections": connections,
        "guard": plane.is_guarded(),
        "rules_before_ours": plane.steering(),
        "downgraded": downgraded,
        "leases": keying.leases().iter().map(lease).collect::<Vec<Value>>(),
        "plane": { "backend": plane.name(), "cryptography": plane.cryptography() },
        "counters": {
            "keying": keying_counters(keying),
            "plane": plane_counters(plane),
        },
    });
    Answer::with_list("destinations", destinations, destination, rest)
}

/// How many are in the clear although they can be encrypted to, and for how long the first has been.
fn downgraded(destinations: &[keying::Destination]) -> Value {
    let since = destinations.iter().filter_map(|d| d.downgraded);
    json!({ "destinations": since.clone().count(), "since_s": since.max().map(seconds) })
}

/// An address of the pool that somebody has, or had last.
fn lease(lease: &keying::LeaseView) -> Value {
    json!({
        "address": lease.address.to_string(),
        "identity": identity(&lease.holder),
        "used": lease.used,
    })
}

/// The peers as one document.
pub(crate) fn peers(keying: &Keying, now: Instant) -> Answer {
    Answer::with_list("peers", keying.peers(now), peer, json!({}))
}

fn peer(peer: &keying::PeerView) -> Value {
    let speaks_for: Vec<String> = peer.speaks_for.iter().map(IpAddr::to_string).collect();
    json!({
        "identity": identity(&peer.identity),
        "gateway": peer.gateway.map(|a| a.to_string()),
        "connection": peer.connection,
        "called_by": if peer.initiator { "us" } else { "them" },
        "since_s": seconds(peer.since),
        "speaks_for": speaks_for,
        "pairs": peer.pairs,
        "answers": peer.answers,
        "key_exchange": peer.key_exchange,
    })
}

/// Why an address is treated as it is.
pub(crate) fn explanation(e: &keying::Explanation, left_alone: Option<LeftAlone>) -> Value {
    let history: Vec<Value> = e
        .history
        .iter()
        .map(|(ago, what)| {
            let (event, detail) = name_and_detail(what);
            json!({ "ago_s": seconds(*ago), "event": event, "detail": detail })
        })
        .collect();
    let port_rules: Vec<Value> = e
        .port_rules
        .iter()
        .map(|rule| {
            json!({
                "prefix": rule.prefix.to_string(),
                "protocol": rule.ports.protocol(),
                "source_port": rule.ports.source(),
                "destination_port": rule.ports.destination(),
                "group": rule.group,
                "file": rule.place.as_ref().map(|(file, _)| file),
                "line": rule.place.as_ref().map(|(_, line)| line),
            })
        })
        .collect();
    let gateways: Vec<Value> = e
        .gateways
        .iter()
        .map(|(gateway, end)| {
            json!({ "gateway": gateway.to_string(), "ended": end.map(keying::end_text) })
        })
        .collect();
    let own: Vec<Value> = e
        .own
        .iter()
        .map(|(ours, why)| json!({ "address": ours.to_string(), "lacks": why.to_string() }))
        .collect();
    let destinations: Vec<Value> = e.destinations.iter().map(destination).collect();
    json!({
        "address": e.address.to_string(),
        "group": e.group.name(),
        "group_name": e.place.as_ref().map_or_else(|| e.group.name(), |file| file.name.as_str()),
        "prefix": e.listed.map(|(prefix, _)| prefix.to_string()),
        "file": e.place.as_ref().map(|file| &file.path),
        "line": e.listed.and_then(|(_, listed)| listed.line),
        "port_rules": port_rules,
        "connection": e.connection,
        "dns": e.answers.iter().map(answer).collect::<Vec<Value>>(),
        "gateways": gateways,
        "own_record": own,
        "next_packet": match left_alone {
            Some(why) if e.connection.is_none() && e.next != keying::NextPacket::Own => past_us(why),
            _ => next_packet(e),
        },
        "advice": advice(e),
        "destinations": destinations,
        "history": history,
    })
}

fn answer((answer, left): &(dnskeys::Answer, Duration)) -> Value {
    use dnskeys::Outcome;
    let outcome = match &answer.outcome {
        Outcome::Records(set) if set.malformed.is_empty() => {
            format!("{} records", set.gateways.len())
        }
        Outcome::Records(set) => {
            format!("{} records, {} malformed", set.gateways.len(), set.malformed.len())
        }
        Outcome::NoRecord => "no key record".to_owned(),
        Outcome::NoName => "no such name".to_owned(),
        Outcome::Bogus => "does not validate".to_owned(),
        Outcome::Failed(why) => format!("no answer ({why:?})").to_lowercase(),
    };
    json!({
        "name": answer.owner.as_str(),
        "outcome": outcome,
        "security": format!("{:?}", answer.security).to_lowercase(),
        "ttl_left_s": seconds(*left),
    })
}

/// What would get another result, if anything would.
fn advice(e: &keying::Explanation) -> Option<String> {
    use dnskeys::Reason;
    use keying::{NextPacket, StateName, Why};
    let address = e.address;
    let alone = kernel::is_left_alone(address);
    if alone || e.connection.is_some() || e.next == NextPacket::Own {
        return None;
    }
    let Some(d) = e.destinations.first() else {
        return (e.group == keying::Group::Clear)
            .then(|| "list it in private-or-clear or private, then oe-node reload".to_owned());
    };
    Some(match (d.state, d.reason?) {
        (_, Why::Group) => "list it in another policy group, then oe-node reload".to_owned(),
        (_, Why::Budget) => "nothing: it is tried again when there is less to do".to_owned(),
        (_, Why::NoLocalAddress) => "give this host an address of the gateway's family".to_owned(),
        (_, Why::OwnRecord(_)) => format!(
            "publish our own record: oe-node showhostkey --txt {}, then oe-node verify --ip {}",
            d.source, d.source
        ),
        (_, Why::Client(_)) => format!(
            "the record of the host behind us has to name this gateway and its key: oe-node verify \
             --ip {}",
            d.source
        ),
        (_, Why::BehindNat) => {
            "give this host a name with its key in DNS (node.identity), and have \
                                the peer set up a [pool]"
                .to_owned()
        }
        (_, Why::NotLent) => "nothing: it is reachable once its host calls".to_owned(),
        (_, Why::Gateway(ike::End::NoAddress)) => {
            "the peer's administrator has to set up a [pool]".to_owned()
        }
        (_, Why::NoPool | Why::NotAsked | Why::PoolExhausted) => {
            "see [pool] in the configuration".to_owned()
        }
        (_, Why::NotServed) => "list the source's subnet in a [[serve]] table, or name our device \
                                in the rule that translates it (docs/GATEWAYS.md)"
            .to_owned(),
        (_, Why::Dns(Reason::Bogus | Reason::Malformed)) => format!(
            "its zone is broken: oe-node verify --ip {address} says where; group clear overrides"
        ),
        (_, Why::Dns(Reason::DnsFailed)) => {
            "see that the resolver answers; oe-node forget tries again at once".to_owned()
        }
        (_, Why::Dns(Reason::Unsigned)) => {
            "its zone has to be signed; policy.require-dnssec = \"never\" does without".to_owned()
        }
        (StateName::ClearText, Why::Dns(Reason::NoRecord)) => {
            "it has to publish a key; group private sends nothing instead".to_owned()
        }
        (_, Why::Dns(Reason::NoRecord)) => {
            "it has to publish a key; group private-or-clear talks to it in the clear".to_owned()
        }
        (_, Why::Dns(_)) => format!("its record has to change: oe-node verify --ip {address}"),
        (_, Why::Gateway(ike::End::Timeout)) => format!(
            "see that UDP 500 and 4500 get through to the gateway; oe-node forget {address} tries \
             again"
        ),
        (_, Why::Gateway(_) | Why::Authority(_)) => format!(
            "oe-node verify --ip {address} says what its records lack; oe-node forget {address} \
             tries again"
        ),
    })
}

/// Whatever its group, and whichever data plane.
const LEFT_ALONE: &str =
    "is left alone: loopback, link-local, multicast and broadcast never come to us";

/// Why packets to an address go past us; `None` if they do not.
pub(crate) fn goes_past(left_alone: Option<LeftAlone>, address: IpAddr) -> Option<&'static str> {
    if kernel::is_left_alone(address) { Some(LEFT_ALONE) } else { left_alone.map(past_us) }
}

/// What became of a call that a person asked for.
pub(crate) fn called(flow: sa::Flow, next: keying::NextPacket) -> Value {
    use keying::NextPacket;
    let outcome = match next {
        NextPacket::Encrypted => "encrypted",
        NextPacket::Clear | NextPacket::Own => "clear-text",
        NextPacket::Refused => "denied",
        NextPacket::Held => "held",
        // There was no room for it, or somebody has ended it meanwhile.
        NextPacket::Asked => "forgotten",
    };
    json!({
        "address": flow.dst().to_string(),
        "source": flow.src().to_string(),
        "outcome": outcome,
    })
}

fn past_us(why: LeftAlone) -> &'static str {
    match why {
        LeftAlone::OfTheLink => LEFT_ALONE,
        LeftAlone::BehindUs => "goes past this node, to a host behind it",
        LeftAlone::NextHop => {
            "goes past this node, in the clear: the address is a next hop of the main routing table"
        }
    }
}

fn next_packet(e: &keying::Explanation) -> &'static str {
    if kernel::is_left_alone(e.address) {
        return LEFT_ALONE;
    }
    match e.next {
        keying::NextPacket::Own => "never leaves this host",
        keying::NextPacket::Clear => "goes in the clear",
        keying::NextPacket::Refused => "is refused",
        keying::NextPacket::Asked => "is held while DNS is asked",
        keying::NextPacket::Held => "is held until what is under way is decided",
        keying::NextPacket::Encrypted => "goes through ESP",
    }
}

fn seconds(t: Duration) -> f64 {
    (t.as_secs_f64() * 1000.0).round() / 1000.0
}

fn destination(d: &keying::Destination) -> Value {
    json!({
        "source": d.source.to_string(),
        "destination": d.destination.to_string(),
        "protocol": d.ports.protocol(),
        "source_port": d.ports.source(),
        "destination_port": d.ports.destination(),
        "group": d.group.name(),
        "state": d.state.name(),
        "trust": trust(d.trust),
        "gateway": d.gateway.map(|a| a.to_string()),
        "identity": d.identity.as_ref().map(identity),
        "known_as": d.known_as.map(|a| a.to_string()),
        "reason": d.reason.map(|why| why.to_string()),
        "downgraded_since_s": d.downgraded.map(seconds),
        "since_s": seconds(d.since),
        "expires_s": d.expires.map(seconds),
        "spi_in": d.spi_in.map(|spi| spi.to_string()),
        "spi_out": d.spi_out.map(|spi| spi.to_string()),
        "cipher": d.cipher.map(sa::EspCipher::name),
        "mode": d.mode.map(sa::Mode::name),
        "key_exchange": d.key_exchange,
        "pairs": d.pairs,
        "packets_in": d.used.packets_in,
        "packets_out": d.used.packets_out,
        "bytes_in": d.used.bytes_in,
        "bytes_out": d.used.bytes_out,
    })
}

fn connection(c: &keying::ConnectionView) -> Value {
    let subnets: Vec<String> = c.subnets.iter().map(sa::Subnets::to_string).collect();
    json!({
        "name": c.name,
        "state": c.state.name(),
        "trust": trust(Some(sa::Trust::Configured)),
        "subnets": subnets,
        "gateway": c.gateway.map(|a| a.to_string()),
        "mode": c.mode.map(sa::Mode::name),
        "since_s": seconds(c.since),
        "reason": c.reason.map(|why| why.to_string()),
        "pairs": c.pairs,
        "packets_in": c.used.packets_in,
        "packets_out": c.used.packets_out,
        "bytes_in": c.used.bytes_in,
        "bytes_out": c.used.bytes_out,
    })
}

fn plane_counters(plane: &Backend) -> Value {
    let c = plane.counters();
    let own = [
        ("send_refused", c.send_refused),
        ("device_refused", c.device_refused),
        ("device_malformed", c.device_malformed),
        ("control_behind", c.control_behind),
        ("dropped_in_clear", plane.dropped_in_clear()),
    ];
    let all = c.forwarding.named().into_iter().chain(own);
    all.map(|(name, count)| (name.to_owned(), count.into()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn keying_counters(keying: &Keying) -> Value {
    let c = keying.counters();
    json!({
        "trapped": c.trapped,
        "recalled": c.recalled,
        "queries": c.queries,
        "calls": c.calls,
        "calls_withdrawn": c.calls_withdrawn,
        "visitors_accepted": c.visitors_accepted,
        "visitors_refused": c.visitors_refused,
        "pairs": c.pairs,
        "clear": c.clear,
        "denied": c.denied,
        "downgrades": c.downgrades,
        "over_budget": c.over_budget,
        "signatures": c.signatures,
        "unknown_spis": c.unknown_spis,
    })
}

fn trust(trust: Option<sa::Trust>) -> &'static str {
    match trust {
        None => "none",
        Some(sa::Trust::Anonymous) => "anonymous",
        Some(sa::Trust::Unauthenticated) => "unauthenticated",
        Some(sa::Trust::Dnssec) => "dnssec",
        Some(sa::Trust::Configured) => "configured",
    }
}

/// A peer's identity, safe to print.
fn identity(identity: &ike::Identity) -> String {
    match identity {
        ike::Identity::Address(addr) => addr.to_string(),
        ike::Identity::Fqdn(name) => format!("@{}", name.escape_default()),
        ike::Identity::Null => "(null)".to_owned(),
        ike::Identity::Other { kind, .. } => format!("(type {kind})"),
    }
}

/// A transition as one JSON line.
pub(crate) fn event(report: &Report) -> String {
    let (name, detail) = name_and_detail(&report.what);
    let t_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros());
    let line = json!({
        "t_us": u64::try_from(t_us).unwrap_or(u64::MAX),
        "event": name,
        "source": report.flow.map(|flow| flow.src().to_string()),
        "destination": report.flow.map(|flow| flow.dst().to_string()),
        "detail": detail,
    });
    format!("{line}\n")
}

fn in_clear(why: keying::Why, downgraded: bool) -> Value {
    let mut detail = json!({ "reason": why.to_string() });
    if downgraded && let Some(members) = detail.as_object_mut() {
        members.insert("downgraded".to_owned(), true.into());
    }
    detail
}

fn lent(address: IpAddr, holder: &ike::Identity, remote: IpAddr) -> Value {
    json!({
        "address": address.to_string(),
        "identity": identity(holder),
        "remote": remote.to_string(),
    })
}

fn borrowed(gateway: IpAddr, own: IpAddr, address: IpAddr) -> Value {
    json!({
        "gateway": gateway.to_string(),
        "own": own.to_string(),
        "address": address.to_string(),
    })
}

fn name_and_detail(what: &What) -> (&'static str, Value) {
    match what {
        What::Trapped => ("trapped", Value::Null),
        What::Recalled => ("recalled", Value::Null),
        What::DnsAnswer { name, security, records } => (
            "dns-answer",
            json!({
                "name": name.as_str(),
                "security": format!("{security:?}").to_lowercase(),
                "records": records,
            }),
        ),
        What::Calling { gateway } => ("calling", at(*gateway)),
        What::InitDone { gateway } => ("ike-sa-init", at(*gateway)),
        What::Authenticated { gateway, identity: id, initiator } => (
            "ike-auth",
            json!({
                "gateway": gateway.to_string(),
                "identity": identity(id),
                "initiator": initiator,
            }),
        ),
        What::Keyed { sa, trust: t } => {
            ("keyed", json!({ "pair": sa.0, "trust": trust(Some(*t)) }))
        }
        What::Silent { gateway } => ("silent", at(*gateway)),
        What::AnswersAgain { gateway } => ("answers-again", at(*gateway)),
        What::Moved { local, remote } => {
            ("moved", json!({ "local": local.to_string(), "remote": remote.to_string() }))
        }
        What::GatewayEnded { gateway, why } => (
            "gateway-failed",
            json!({ "gateway": gateway.to_string(), "reason": keying::end_text(*why) }),
        ),
        What::PairClosed { sa, used } => (
            "pair-closed",
            json!({
                "pair": sa.0,
                "packets_in": used.packets_in,
                "packets_out": used.packets_out,
                "bytes_in": used.bytes_in,
                "bytes_out": used.bytes_out,
            }),
        ),
        What::StillClear { why, downgraded } => ("still-clear", in_clear(*why, *downgraded)),
        What::OwnRecord { address, why } => {
            ("own-record", json!({ "address": address.to_string(), "reason": why.to_string() }))
        }
        What::PairDropped { sa } => ("pair-dropped", json!({ "pair": sa.0 })),
        What::NoLongerAuthorized(why) => {
            ("no-longer-authorized", json!({ "reason": why.to_string() }))
        }
        What::ClearText { why, downgraded } => ("clear", in_clear(*why, *downgraded)),
        What::Denied(why) => ("deny", json!({ "reason": why.to_string() })),
        What::Expired => ("expired", Value::Null),
        What::ConnectionCalling { name, gateway } => {
            ("connection-calling", json!({ "connection": name, "gateway": gateway.to_string() }))
        }
        What::ConnectionUp { name, sa, gateway } => ("connection-up", up(name, *sa, *gateway)),
        What::ConnectionNarrowed { name, local, remote, carries } => {
            ("connection-narrowed", narrowed(name, local, remote, *carries))
        }
        What::ConnectionDown { name, why } => {
            ("connection-down", json!({ "connection": name, "reason": why.to_string() }))
        }
        What::ConnectionFailed { name, why } => {
            ("connection-failed", json!({ "connection": name, "reason": why.to_string() }))
        }
        What::Lent { address, identity: id, remote } => ("lent", lent(*address, id, *remote)),
        What::Borrowed { gateway, own, address } => {
            ("borrowed", borrowed(*gateway, *own, *address))
        }
        What::Refused { remote, identity: id, why } => (
            "refused",
            json!({
                "remote": remote.to_string(),
                "identity": identity(id),
                "reason": why.to_string(),
            }),
        ),
    }
}

/// Whom it is about.
fn at(gateway: IpAddr) -> Value {
    json!({ "gateway": gateway.to_string() })
}

/// What carries a connection.
fn up(name: &str, sa: sa::SaId, gateway: IpAddr) -> Value {
    json!({ "connection": name, "pair": sa.0, "gateway": gateway.to_string() })
}

/// What a peer grants a connection.
fn narrowed(
    name: &str,
    local: &[sa::TrafficSelector],
    remote: &[sa::TrafficSelector],
    carries: bool,
) -> Value {
    let shown =
        |all: &[sa::TrafficSelector]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    json!({
        "connection": name, "local": shown(local), "remote": shown(remote), "carries": carries,
    })
}

/// At which level a transition is logged. Only what changes a flow's treatment is worth INFO.
fn level(what: &What) -> tracing::Level {
    match what {
        What::OwnRecord { .. }
        | What::ConnectionNarrowed { .. }
        | What::ClearText { downgraded: true, .. } => tracing::Level::WARN,
        What::Keyed { .. }
        | What::Moved { .. }
        | What::Silent { .. }
        | What::AnswersAgain { .. }
        | What::ClearText { .. }
        | What::Denied(_)
        | What::NoLongerAuthorized(_)
        | What::ConnectionUp { .. }
        | What::ConnectionDown { .. }
        | What::ConnectionFailed { .. } => tracing::Level::INFO,
        // Of lent addresses and refusals there are as many as strangers like: counted, and not worth a
        // line each.
        What::Lent { .. }
        | What::Refused { .. }
        | What::Trapped
        | What::Recalled
        | What::DnsAnswer { .. }
        | What::Calling { .. }
        | What::Borrowed { .. }
        | What::ConnectionCalling { .. }
        | What::InitDone { .. }
        | What::Authenticated { .. }
        | What::PairDropped { .. }
        | What::PairClosed { .. }
        | What::GatewayEnded { .. }
        | What::StillClear { .. }
        | What::Expired => tracing::Level::DEBUG,
    }
}

/// A transition as one log line.
pub(crate) fn log(report: &Report) {
    // Most are for DEBUG, and nobody listens.
    let level = level(&report.what);
    let heard = match level {
        tracing::Level::WARN => tracing::enabled!(tracing::Level::WARN),
        tracing::Level::INFO => tracing::enabled!(tracing::Level::INFO),
        _ => tracing::enabled!(tracing::Level::DEBUG),
    };
    if !heard {
        return;
    }
    let (name, detail) = name_and_detail(&report.what);
    let far = report.flow.map_or_else(|| "-".to_owned(), |flow| flow.dst().to_string());
    match &report.what {
        What::ClearText { why, downgraded: true } => tracing::warn!(
            "{far}: downgraded: in the clear, although it can be encrypted to: {why} (oe-node \
             explain {far})"
        ),
        What::OwnRecord { address, why } => tracing::warn!(
            "{address}: our own record: {why}; who asks DNS before talking to us will refuse us \
             (oe-node verify --ip {address} says what to publish)"
        ),
        What::ConnectionNarrowed { name, carries, .. } => tracing::warn!(
            "connection {name}: the peer grants single protocols or ports only, {}; {detail}",
            if *carries {
                "and what it has not granted goes nowhere"
            } else {
                "of which no packet can be, so that it carries nothing"
            }
        ),
        What::ConnectionUp { .. } | What::ConnectionDown { .. } | What::ConnectionFailed { .. } => {
            tracing::info!("{name} {detail}");
        }
        What::Lent { .. } | What::Refused { .. } => tracing::debug!("{name} {detail}"),
        _ if level == tracing::Level::INFO => tracing::info!("{far}: {name} {detail}"),
        _ => tracing::debug!("{far}: {name} {detail}"),
    }
}

/// Each costs a third of a millisecond, the lookup of somebody else's server beside it not counted:
/// a twentieth of what the processor has to give.
const NEWCOMERS_OF_PROCESSOR: u32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in back quotes in a text.
    fn quoted(text: &str) -> std::collections::BTreeSet<&str> {
        text.split('`').skip(1).step_by(2).collect()
    }

    /// Programs hold on to what docs/EVENTS.md says: every event and member that is told of stands
    /// there, and every event that stands there is told of.
    #[test]
    fn events_are_those_of_the_manual() {
        let manual = include_str!("../../../docs/EVENTS.md");
        let source = include_str!("view.rs");
        let from = source.find("\nfn in_clear(").unwrap();
        let told = &source[from..source.find("\nfn level(").unwrap()];
        let code = told.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = code.map(str::trim).collect::<Vec<_>>().join(" ");
        let mut pieces = code.split('"');
        let (mut before, mut names, mut members) = (pieces.next().unwrap(), vec![], vec![]);
        while let (Some(literal), Some(after)) = (pieces.next(), pieces.next()) {
            match after.trim_start().chars().next() {
                Some(',') if before.trim_end().ends_with('(') => names.push(literal),
                Some(':') => members.push(literal),
                _ => {}
            }
            before = after;
        }
        assert!(names.len() >= 24 && members.len() >= 20, "{names:?} {members:?}");
        for literal in names.iter().chain(&members) {
            assert!(quoted(manual).contains(literal), "{literal}");
        }
        let rows = manual.lines().skip_while(|line| !line.starts_with("| event | is"));
        let listed = rows.filter(|line| line.starts_with("| `"));
        for name in listed.flat_map(|line| quoted(line.split('|').nth(1).unwrap())) {
            assert!(names.contains(&name), "{name}");
        }
    }

    /// What is logged at the level that a node logs at by itself.
    #[test]
    fn what_a_person_should_hear_is_heard_by_default() {
        use std::io::{Read as _, Seek as _};
        let path = std::env::temp_dir().join(format!("oe-view-{}", std::process::id()));
        let file = || std::fs::OpenOptions::new().read(true).append(true).create(true).open(&path);
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("warn,oe_node=info")
            .with_writer(std::sync::Mutex::new(file().unwrap()))
            .finish();
        let (name, gateway) = ("net".to_owned(), "192.0.2.2".parse().unwrap());
        let why = || keying::Why::NoLocalAddress;
        tracing::subscriber::with_default(subscriber, || {
            for what in [
                What::ConnectionUp { name: name.clone(), sa: sa::SaId(1), gateway },
                What::ConnectionFailed { name: name.clone(), why: why() },
                What::ConnectionDown { name: name.clone(), why: why() },
                What::ConnectionNarrowed {
                    name: name.clone(),
                    local: vec![],
                    remote: vec![sa::TrafficSelector::host(gateway)],
                    carries: false,
                },
                What::OwnRecord { address: gateway, why: dnskeys::Refusal::NoRecord },
                What::Denied(why()),
                What::ConnectionCalling { name, gateway },
            ] {
                log(&Report { flow: None, what });
            }
        });
        let (mut text, mut written) = (String::new(), file().unwrap());
        written.rewind().unwrap();
        written.read_to_string(&mut text).unwrap();
        std::fs::remove_file(&path).unwrap();
        let levels = |of| text.lines().filter(|line| line.contains(of)).count();
        assert_eq!((levels(" INFO "), levels(" WARN "), text.lines().count()), (4, 2, 6), "{text}");
        assert!(text.contains("192.0.2.2") && text.contains("it carries nothing"), "{text}");
    }

    /// P7: `status` and events say of a pair that nobody signed for that it is `unauthenticated`, and
    /// no two kinds of trust are called the same.
    #[test]
    fn what_nobody_signed_for_is_called_unauthenticated() {
        use sa::Trust::{Anonymous, Configured, Dnssec, Unauthenticated};
        for (of, name) in [
            (Anonymous, "anonymous"),
            (Unauthenticated, "unauthenticated"),
            (Dnssec, "dnssec"),
            (Configured, "configured"),
        ] {
            let shown = destination(&keying::Destination { trust: Some(of), ..a_destination() });
            assert_eq!(shown["trust"], name);
            let what = What::Keyed { sa: sa::SaId(1), trust: of };
            assert!(event(&Report { flow: None, what }).contains(&format!("\"{name}\"")));
        }
    }

    fn a_destination() -> keying::Destination {
        keying::Destination {
            source: [192, 0, 2, 1].into(),
            destination: [192, 0, 2, 2].into(),
            ports: sa::Ports::ANY,
            group: keying::Group::PrivateOrClear,
            state: keying::StateName::Keyed,
            trust: None,
            gateway: None,
            identity: None,
            known_as: None,
            reason: None,
            downgraded: None,
            since: Duration::ZERO,
            expires: None,
            spi_in: None,
            spi_out: None,
            cipher: None,
            mode: None,
            key_exchange: None,
            pairs: 1,
            used: sa::Use::default(),
        }
    }

    /// Attack A15.
    /// P2: a destination that is kept in the clear shows as such, is counted apart, and its
    /// event says so.
    #[test]
    fn a_downgrade_is_shown_and_told() {
        let why = keying::Why::Gateway(ike::End::Timeout);
        let of = |downgraded: Option<u64>| keying::Destination {
            state: keying::StateName::ClearText,
            reason: Some(why),
            downgraded: downgraded.map(Duration::from_secs),
            ..a_destination()
        };
        assert_eq!(destination(&of(Some(90)))["downgraded_since_s"], 90.0);
        assert!(destination(&of(None))["downgraded_since_s"].is_null());
        let all = downgraded(&[of(Some(90)), of(None), of(Some(7200))]);
        assert_eq!(all, json!({ "destinations": 2, "since_s": 7200.0 }));
        assert_eq!(downgraded(&[of(None)]), json!({ "destinations": 0, "since_s": null }));
        for downgraded in [true, false] {
            let what = What::ClearText { why, downgraded };
            let event = event(&Report { flow: None, what });
            let event: Value = serde_json::from_str(&event).unwrap();
            assert_eq!(event["event"], "clear");
            assert_eq!(event["detail"]["reason"], "gateway did not answer");
            assert_eq!(event["detail"].get("downgraded").is_some(), downgraded);
        }
    }

    /// P19, RUSTSEC-2025-0055: whatever an identity holds, what is shown of it is printable, short,
    /// and one JSON string.
    #[test]
    fn peers_words_are_escaped() {
        for name in [
            "\u{1b}[31mred",
            "a\nb",
            "\"}\u{7f}",
            "b\u{fc}cher",
            "\u{202e}gpj",
            "$(reboot)`id`{}%s\0",
        ] {
            for id in [
                ike::Identity::Fqdn(name.to_owned()),
                ike::Identity::Other { kind: 11, data: name.as_bytes().to_vec() },
            ] {
                let shown = identity(&id);
                assert!(shown.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{shown:?}");
                let gateway = [192, 0, 2, 1].into();
                let what = What::Authenticated { gateway, identity: id, initiator: false };
                let event = event(&Report { flow: None, what });
                let event = event.trim_end();
                assert!(event.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{event:?}");
            }
        }
    }
}
