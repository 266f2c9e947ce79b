//! What the lab has found, as data: the timeline, what the capture proves, and what held.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::capture::Record;
use super::probe::Outcome;
use super::topology::{Role, Site};
use super::wire::{IKE_AUTH, IKE_SA_INIT, Kind};

/// The lab's result.
#[derive(Serialize, Debug)]
pub(crate) struct Report {
    /// Whether everything held; the exit code says the same.
    pub(crate) held: bool,
    /// From start to the last verdict.
    pub(crate) took_ms: f64,
    /// Whether an unprivileged user namespace was used.
    pub(crate) unprivileged: bool,
    /// Packets the capture has seen.
    pub(crate) captured: u64,
    /// Packets the capture missed.
    pub(crate) missed: u64,
    /// Who lives where.
    pub(crate) hosts: Vec<Place>,
    /// What was sent to whom and what came of it.
    pub(crate) destinations: Vec<Destination>,
}

/// A host's name and addresses.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) name: String,
    /// IPv4 and IPv6.
    pub(crate) addresses: [IpAddr; 2],
}

/// A host that west has sent to.
#[derive(Serialize, Debug)]
pub(crate) struct Destination {
    /// Its name.
    pub(crate) name: String,
    /// What it publishes.
    pub(crate) publishes: Publishes,
    /// Whether all claims of both families held.
    pub(crate) held: bool,
    /// IPv4 and IPv6.
    pub(crate) ways: Vec<Way>,
}

/// What a host has in the reverse DNS.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Publishes {
    /// Its key, in a signed zone.
    Key,
    /// Nothing.
    Nothing,
    /// A record that was changed after signing.
    Bogus,
}

/// Traffic between two addresses.
#[derive(Serialize, Debug)]
pub(crate) struct Way {
    /// Sender.
    pub(crate) from: IpAddr,
    /// Destination.
    pub(crate) to: IpAddr,
    /// What happened, in order.
    pub(crate) timeline: Vec<Moment>,
    /// Round trip of the very first packet, which is sent once; `None` if it was not answered.
    pub(crate) first_packet_ms: Option<f64>,
    /// Round trips of the packets after it.
    pub(crate) later_ms: Vec<Option<f64>>,
    /// The TCP transfer.
    pub(crate) transfer: Option<TransferReport>,
    /// Why there was no TCP transfer.
    pub(crate) transfer_error: Option<String>,
    /// What the capture shows.
    pub(crate) wire: Wire,
    /// What should be true.
    pub(crate) claims: Vec<Claim>,
}

/// A TCP transfer, there and back.
#[derive(Serialize, Clone, Copy, Debug)]
pub(crate) struct TransferReport {
    /// Octets each way.
    pub(crate) octets: usize,
    /// From SYN to the last octet back.
    pub(crate) ms: f64,
    /// SYNs sent more than once.
    pub(crate) syn_retransmissions: u32,
}

/// A point in a timeline.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub(crate) struct Moment {
    /// Since the first packet was sent.
    pub(crate) at_ms: f64,
    /// What happened.
    pub(crate) event: Event,
    /// Who says so.
    pub(crate) source: Source,
    /// More of it, as the node tells it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(crate) detail: Value,
}

/// What can happen to a destination.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Event {
    /// The first packet is held.
    Trapped,
    /// DNS has answered.
    DnsAnswer,
    /// The first IKE exchange is done.
    IkeSaInit,
    /// The peer is authenticated.
    IkeAuth,
    /// The SA pair is in.
    Keyed,
    /// The first packet in ESP.
    FirstEsp,
    /// Decided: in the clear.
    Clear,
    /// Decided: not at all.
    Deny,
    /// The first packet's answer is back.
    Answered,
    /// Something a newer node tells.
    #[serde(other)]
    Other,
}

/// Who has seen it.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The sending node.
    Node,
    /// The capture.
    Capture,
    /// The sender.
    Sender,
}

/// Packets between two addresses, as the core router saw them.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wire {
    /// In clear, from the sender.
    pub(crate) clear_sent: usize,
    /// In clear, back.
    pub(crate) clear_received: usize,
    /// ESP, from the sender.
    pub(crate) esp_sent: usize,
    /// ESP, back.
    pub(crate) esp_received: usize,
    /// IKE messages, both ways.
    pub(crate) ike: usize,
    /// Packets in which the lab's plaintext was found.
    pub(crate) readable: usize,
    /// Everything the sender's link carried to this address.
    pub(crate) sent: usize,
}

/// Something that should be true, and whether it is.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    /// The claim.
    pub(crate) claim: &'static str,
    /// Whether it held.
    pub(crate) held: bool,
}

/// A line of a node's trace.
#[derive(Deserialize, Clone, Debug)]
pub(crate) struct Traced {
    /// Microseconds since the Unix epoch.
    pub(crate) t_us: u64,
    /// What happened.
    pub(crate) event: Event,
    /// Concerning whom.
    pub(crate) destination: Option<IpAddr>,
    /// More of it.
    #[serde(default)]
    pub(crate) detail: Value,
}

impl From<&Site> for Place {
    fn from(site: &Site) -> Self {
        Self { name: site.name.clone(), addresses: site.addresses() }
    }
}

impl Destination {
    /// Puts together what the sender, the node and the capture say.
    pub(crate) fn new(
        from: (usize, &Site),
        site: &Site,
        outcomes: Vec<(IpAddr, Outcome)>,
        trace: &[Traced],
        record: &Record,
    ) -> Self {
        let publishes = match site.role {
            Role::Node | Role::Names | Role::Core => Publishes::Key,
            Role::Plain => Publishes::Nothing,
            Role::Bogus => Publishes::Bogus,
        };
        let ways: Vec<Way> = outcomes
            .into_iter()
            .map(|(to, outcome)| Way::new(from, to, publishes, outcome, trace, record))
            .collect();
        let held = ways.iter().all(|way| way.claims.iter().all(|claim| claim.held));
        Self { name: site.name.clone(), publishes, held, ways }
    }

    /// Adds a claim that concerns the host as a whole.
    pub(crate) fn claim(&mut self, claim: &'static str, held: bool) {
        for way in &mut self.ways {
            way.claims.push(Claim { claim, held });
        }
        self.held &= held;
    }
}

impl Way {
    fn new(
        (position, sender): (usize, &Site),
        to: IpAddr,
        publishes: Publishes,
        outcome: Outcome,
        trace: &[Traced],
        record: &Record,
    ) -> Self {
        let from = sender.address_like(to);
        let wire = Wire::new(record, position, from, to);
        let transfer_error = outcome.transfer.as_ref().err().map(ToString::to_string);
        let transfer = outcome.transfer.ok().map(|transfer| TransferReport {
            octets: transfer.octets,
            ms: ms(transfer.took),
            syn_retransmissions: transfer.retransmitted,
        });
        let first = outcome.first.sent;
        let mut timeline = timeline(first, to, trace, record, from);
        if let Some(after) = outcome.first.answered {
            timeline.push(Moment {
                at_ms: ms(after),
                event: Event::Answered,
                source: Source::Sender,
                detail: Value::Null,
            });
        }
        timeline.sort_by(|one, other| one.at_ms.total_cmp(&other.at_ms));
        let first_packet_ms = outcome.first.answered.map(ms);
        let claims = claims(publishes, first_packet_ms.is_some(), transfer.as_ref(), &wire);
        Self {
            from,
            to,
            timeline,
            first_packet_ms,
            later_ms: outcome.later.iter().map(|echo| echo.answered.map(ms)).collect(),
            transfer,
            transfer_error,
            wire,
            claims,
        }
    }

    /// When something happened first.
    pub(crate) fn moment(&self, event: Event) -> Option<&Moment> {
        self.timeline.iter().find(|moment| moment.event == event)
    }
}

impl Wire {
    fn new(record: &Record, sender: usize, from: IpAddr, to: IpAddr) -> Self {
        let mut wire = Self::default();
        for seen in record.between(from, to) {
            let sent = seen.packet.source == from;
            wire.readable += usize::from(seen.readable);
            let count = match seen.packet.kind {
                Kind::Esp { .. } if sent => &mut wire.esp_sent,
                Kind::Esp { .. } => &mut wire.esp_received,
                Kind::Ike { .. } => &mut wire.ike,
                kind if !kind.is_clear() => continue,
                _ if sent => &mut wire.clear_sent,
                _ => &mut wire.clear_received,
            };
            *count += 1;
        }
        // By link, whatever source address a packet claims.
        wire.sent = record
            .packets
            .iter()
            .filter(|seen| seen.host == sender && seen.packet.destination == to)
            .count();
        wire
    }
}

/// What should be true of a destination, by what it publishes.
fn claims(
    publishes: Publishes,
    answered: bool,
    transfer: Option<&TransferReport>,
    wire: &Wire,
) -> Vec<Claim> {
    let claim = |claim, held| Claim { claim, held };
    let never_again = transfer.is_some_and(|transfer| transfer.syn_retransmissions == 0);
    match publishes {
        Publishes::Key => vec![
            claim("first packet answered, sent once", answered),
            claim("no packet in clear", wire.clear_sent + wire.clear_received == 0),
            claim("plaintext not on the wire", wire.readable == 0),
            claim("ESP both ways", wire.esp_sent > 0 && wire.esp_received > 0),
            claim("TCP transfer complete, no SYN sent again", never_again),
        ],
        Publishes::Nothing => vec![
            claim("first packet answered, sent once", answered),
            claim("in clear both ways", wire.clear_sent > 0 && wire.clear_received > 0),
            claim("plaintext on the wire", wire.readable > 0),
            claim("TCP transfer complete, no SYN sent again", never_again),
        ],
        Publishes::Bogus => vec![
            claim("nothing sent", wire.sent == 0),
            claim("nothing answered", !answered && transfer.is_none()),
        ],
    }
}

/// What the node says of a destination, completed by what the capture shows.
fn timeline(
    first: Duration,
    to: IpAddr,
    trace: &[Traced],
    record: &Record,
    from: IpAddr,
) -> Vec<Moment> {
    let mut timeline: Vec<Moment> = Vec::new();
    let mut add = |time: Duration, event, source, detail: &Value| {
        // Only what follows the first packet, and only the first of each kind.
        if time < first || timeline.iter().any(|moment| moment.event == event) {
            return;
        }
        timeline.push(Moment { at_ms: ms(time - first), event, source, detail: detail.clone() });
    };
    for traced in trace.iter().filter(|traced| traced.destination == Some(to)) {
        let time = Duration::from_micros(traced.t_us);
        if traced.event != Event::Other {
            add(time, traced.event, Source::Node, &traced.detail);
        }
    }
    for seen in record.between(from, to) {
        let event = match seen.packet.kind {
            Kind::Ike { exchange: IKE_SA_INIT, response: true } => Event::IkeSaInit,
            Kind::Ike { exchange: IKE_AUTH, response: true } => Event::IkeAuth,
            Kind::Esp { .. } => Event::FirstEsp,
            _ => continue,
        };
        add(seen.time, event, Source::Capture, &Value::Null);
    }
    timeline
}

/// Milliseconds, for people and JSON.
pub(crate) fn ms(duration: Duration) -> f64 {
    // Three digits are what the clocks are good for.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::super::capture::Seen;
    use super::super::probe::Outcome;
    use super::super::topology;
    use super::super::traffic::{Echo, Transfer};
    use super::super::wire::Packet;
    use super::*;

    const WEST: usize = 1;

    fn at(ms: u64) -> Duration {
        Duration::from_secs(1_800_000_000) + Duration::from_millis(ms)
    }

    fn sites() -> (Site, Site, Site, Site) {
        let [_, west, east, plain, bogus] = topology::small_internet().try_into().unwrap();
        (west, east, plain, bogus)
    }

    fn seen(ms: u64, host: usize, from: &Site, to: &Site, kind: Kind) -> Seen {
        let packet = Packet { source: from.v4.into(), destination: to.v4.into(), kind };
        Seen { time: at(ms), host, packet, readable: kind == Kind::Tcp }
    }

    fn outcome(answered: Option<u64>) -> Outcome {
        Outcome {
            first: Echo { sent: at(0), answered: answered.map(Duration::from_millis) },
            later: Vec::new(),
            transfer: match answered {
                Some(_) => {
                    Ok(Transfer { octets: 1, took: Duration::from_millis(1), retransmitted: 0 })
                }
                None => Err(std::io::ErrorKind::TimedOut.into()),
            },
        }
    }

    fn destination(
        site: &Site,
        outcome: Outcome,
        trace: &[Traced],
        packets: Vec<Seen>,
    ) -> Destination {
        let (west, ..) = sites();
        let record = Record { packets, missed: 0 };
        let outcomes = vec![(site.v4.into(), outcome)];
        Destination::new((WEST, &west), site, outcomes, trace, &record)
    }

    fn broken(destination: &Destination) -> Vec<&'static str> {
        destination
            .ways
            .iter()
            .flat_map(|way| &way.claims)
            .filter(|claim| !claim.held)
            .map(|claim| claim.claim)
            .collect()
    }

    /// What a good negotiation looks like on the wire.
    fn encrypted() -> Vec<Seen> {
        let (west, east, ..) = sites();
        let ike = |exchange, response| Kind::Ike { exchange, response };
        vec![
            seen(2, WEST, &west, &east, ike(IKE_SA_INIT, false)),
            seen(3, 2, &east, &west, ike(IKE_SA_INIT, true)),
            seen(4, WEST, &west, &east, ike(IKE_AUTH, false)),
            seen(9, 2, &east, &west, ike(IKE_AUTH, true)),
            seen(10, WEST, &west, &east, Kind::Esp { spi: 1 }),
            seen(11, 2, &east, &west, Kind::Esp { spi: 2 }),
        ]
    }

    #[test]
    fn an_encrypted_destination_holds_and_one_clear_packet_breaks_it() {
        let (west, east, ..) = sites();
        let good = destination(&east, outcome(Some(12)), &[], encrypted());
        assert_eq!(broken(&good), [""; 0]);
        assert!(good.held);
        for (host, from, to) in [(WEST, &west, &east), (2, &east, &west)] {
            let mut packets = encrypted();
            packets.push(seen(5, host, from, to, Kind::Icmp { kind: 8 }));
            let leaked = destination(&east, outcome(Some(12)), &[], packets);
            assert_eq!(broken(&leaked), ["no packet in clear"]);
            assert!(!leaked.held);
        }
        let mut packets = encrypted();
        packets.pop();
        let one_way = destination(&east, outcome(Some(12)), &[], packets);
        assert_eq!(broken(&one_way), ["ESP both ways"]);
        let lost = destination(&east, outcome(None), &[], encrypted());
        assert_eq!(
            broken(&lost),
            ["first packet answered, sent once", "TCP transfer complete, no SYN sent again"]
        );
    }

    #[test]
    fn a_syn_sent_again_breaks_it() {
        let (_, east, ..) = sites();
        let mut outcome = outcome(Some(12));
        outcome.transfer.as_mut().unwrap().retransmitted = 1;
        let destination = destination(&east, outcome, &[], encrypted());
        assert_eq!(broken(&destination), ["TCP transfer complete, no SYN sent again"]);
    }

    #[test]
    fn a_plain_destination_must_be_seen_in_clear() {
        let (west, _, plain, _) = sites();
        let packets =
            vec![seen(1, WEST, &west, &plain, Kind::Tcp), seen(2, 3, &plain, &west, Kind::Tcp)];
        let good = destination(&plain, outcome(Some(2)), &[], packets);
        assert!(good.held, "{:?}", broken(&good));
        let unseen = destination(&plain, outcome(Some(2)), &[], Vec::new());
        assert_eq!(broken(&unseen), ["in clear both ways", "plaintext on the wire"]);
    }

    #[test]
    fn anything_that_west_sends_to_bogus_breaks_it() {
        let (_, east, _, bogus) = sites();
        let good = destination(&bogus, outcome(None), &[], Vec::new());
        assert!(good.held, "{:?}", broken(&good));
        // Even a negotiation, even under another's source address.
        let kind = Kind::Ike { exchange: IKE_SA_INIT, response: false };
        let packets = vec![seen(1, WEST, &east, &bogus, kind)];
        let sent = destination(&bogus, outcome(None), &[], packets);
        assert_eq!(broken(&sent), ["nothing sent"]);
        // What plain sends to it is how the lab sees that it is alive.
        let (.., bogus) = sites();
        let packets = vec![seen(1, 3, &east, &bogus, Kind::Icmp { kind: 8 })];
        assert!(destination(&bogus, outcome(None), &[], packets).held);
    }

    #[test]
    fn the_timeline_joins_node_capture_and_sender() {
        let (_, east, ..) = sites();
        let traced = |ms: u64, event: &str| -> Traced {
            let t_us = u64::try_from(at(ms).as_micros()).unwrap();
            let line = serde_json::json!({
                "t_us": t_us, "event": event, "destination": east.v4, "detail": {"security": "secure"},
            });
            serde_json::from_value(line).unwrap()
        };
        let trace = [
            traced(1, "trapped"),
            traced(2, "dns-answer"),
            traced(3, "something-new"),
            traced(9, "ike-auth"),
        ];
        let destination = destination(&east, outcome(Some(12)), &trace, encrypted());
        let timeline = &destination.ways[0].timeline;
        let events: Vec<(Event, f64, Source)> =
            timeline.iter().map(|moment| (moment.event, moment.at_ms, moment.source)).collect();
        assert_eq!(
            events,
            [
                (Event::Trapped, 1.0, Source::Node),
                (Event::DnsAnswer, 2.0, Source::Node),
                (Event::IkeSaInit, 3.0, Source::Capture),
                (Event::IkeAuth, 9.0, Source::Node),
                (Event::FirstEsp, 10.0, Source::Capture),
                (Event::Answered, 12.0, Source::Sender),
            ]
        );
    }
}
