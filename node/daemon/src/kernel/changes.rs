//! Changes of addresses, links, routes and rules by others.

use std::io;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::Instant;

use super::netlink::{Events, Told};
use super::plan::GUARD;
use super::routes::{is_of_ours, metric_of, table_of};

/// Changes come in bursts (a link comes up, gets addresses, then routes): how long to wait for
/// the rest of one.
const SETTLE: Duration = Duration::from_millis(100);

/// The same where somebody touched what is ours, or made a way or an address that we do not follow
/// yet: until then, packets go where they must not. Long enough for `ip route flush` to be through
/// with a small table.
const ALARM: Duration = Duration::from_millis(5);

/// `RTNLGRP_*` of links, and of addresses, routes and rules of both families.
const GROUPS: [u32; 7] = [
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
];

/// The table of local addresses: what it tells, addresses tell better.
const LOCAL: u32 = 255;

/// Tells when addresses, links or routes change, or when somebody else touches our tables and
/// rules; what we do there ourselves does not count.
pub(crate) struct Changes {
    events: Events<Message>,
    table: u32,
    /// The sockets through which we change things.
    ours: Vec<u32>,
    /// Something has changed; the burst is over at this time. Kept here, so that whoever stops
    /// waiting loses nothing.
    settled: Option<Instant>,
    /// How long it took to look at everything the last time.
    cost: Duration,
}

/// Of the time at the most one part in so many is spent on looking at everything: where the main
/// table is large and changes all the time, there is other work too.
const SHARE: u32 = 10;

/// But nothing waits for longer.
const LONGEST: Duration = Duration::from_secs(1);

impl Changes {
    /// Listens from now on. `table` is our own. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub(crate) fn watch(table: u32) -> io::Result<Self> {
        let events = Events::join(NETLINK_ROUTE, &GROUPS)?;
        Ok(Self { events, table, ours: Vec::new(), settled: None, cost: Duration::ZERO })
    }

    /// What is done to our tables and rules through these sockets is no news: the kernel keeps it back,
    /// so that nobody is woken for it, or it is passed over here.
    pub(crate) fn disregard(&mut self, ours: Vec<u32>) {
        if let Err(error) = self.events.leave_out(&ours) {
            tracing::debug!(%error, "no filter: what this node changes itself is read as well");
        }
        self.ours = ours;
    }

    /// Waits until something has changed and the burst is over. Cancel-safe.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        loop {
            let settled = self.settled;
            let over = async {
                match settled {
                    Some(settled) => tokio::time::sleep_until(settled).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                events = self.events.next() => {
                    let patience = match events? {
                        Some(events) => events.iter().filter_map(|e| self.patience(e)).min(),
                        // Events that were lost may have been any.
                        None => Some(ALARM),
                    };
                    let until = patience.map(|patience| Instant::now() + patience);
                    self.settled = [self.settled, until].into_iter().flatten().min();
                }
                () = over => break,
            }
        }
        self.settled = None;
        while self.events.pending().is_some() {}
        Ok(())
    }

    /// It took so long to look at everything.
    pub(crate) fn took(&mut self, cost: Duration) {
        self.cost = cost;
    }

    fn settle(&self) -> Duration {
        SETTLE.max((self.cost * SHARE).min(LONGEST))
    }

    /// Sooner; half of the time at the most.
    fn alarm(&self) -> Duration {
        ALARM.max(self.cost)
    }

    /// Whether the kernel has told us nothing that was not looked at.
    #[cfg(test)]
    pub(crate) fn is_silent(&self) -> bool {
        self.events.pending().is_none()
    }

    /// How long to wait after an event before everything is looked at; `None` if it is no reason
    /// to.
    fn patience(&self, event: &Told<Message>) -> Option<Duration> {
        let alarm = || (!self.ours.contains(&event.by)).then_some(ALARM);
        match &event.what {
            Message::NewRoute(route) | Message::DelRoute(route) => {
                let table = table_of(route);
                if table != self.table && table != self.table + 1 {
                    // What fails open is not trapped before there is a way to lead past.
                    let default = route.header.destination_prefix_length == 0;
                    let patience = if default { self.alarm() } else { self.settle() };
                    return (table != LOCAL).then_some(patience);
                }
                // The guard comes and goes without us, one route after the other.
                if metric_of(route) == GUARD { None } else { alarm() }
            }
            Message::DelRule(rule) if self.is_ours(rule) => alarm(),
            // One of others may come before ours.
            Message::NewRule(rule) | Message::DelRule(rule) if !self.is_ours(rule) => {
                Some(self.settle())
            }
            // Packets from an address that we do not know as ours are taken for somebody else's.
            Message::NewAddress(_) => Some(self.alarm()),
            Message::DelAddress(_) | Message::NewLink(_) | Message::DelLink(_) => {
                Some(self.settle())
            }
            _ => None,
        }
    }

    fn is_ours(&self, rule: &RuleMessage) -> bool {
        is_of_ours(rule) || rule.attributes.contains(&RuleAttribute::Table(self.table))
    }
}
