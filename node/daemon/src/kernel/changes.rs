//! Changes of addresses, links and routes by others.

use std::io;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::time::Instant;

use super::netlink::Events;
use super::routes::table_of;

/// Changes come in bursts (a link comes up, gets addresses, then routes): how long to wait for
/// the rest of one.
const SETTLE: Duration = Duration::from_millis(100);

/// `RTNLGRP_*` of links, addresses and routes of both families.
const GROUPS: [u32; 5] = [
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
];

/// The table of local addresses: what it tells, addresses tell better.
const LOCAL: u32 = 255;

/// Tells when addresses, links or routes change; what we change in our own table does not count.
pub(crate) struct Changes {
    events: Events<Message>,
    table: u32,
    /// Something has changed; the burst is over at this time. Kept here, so that whoever stops
    /// waiting loses nothing.
    settled: Option<Instant>,
}

impl Changes {
    /// Listens from now on. `table` is our own. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the kernel gives no such socket.
    pub(crate) fn watch(table: u32) -> io::Result<Self> {
        Ok(Self { events: Events::join(NETLINK_ROUTE, &GROUPS)?, table, settled: None })
    }

    /// Waits until something has changed and the burst is over. Cancel-safe.
    ///
    /// # Errors
    /// If the socket fails.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        let settled = match self.settled {
            Some(settled) => settled,
            None => loop {
                let events = self.events.next().await?;
                // Events that were lost may have been any.
                if events.is_none_or(|events| events.iter().any(|event| self.counts(event))) {
                    break *self.settled.insert(Instant::now() + SETTLE);
                }
            },
        };
        tokio::time::sleep_until(settled).await;
        self.settled = None;
        while self.events.pending().is_some() {}
        Ok(())
    }

    fn counts(&self, event: &Message) -> bool {
        match event {
            Message::NewRoute(route) | Message::DelRoute(route) => {
                let table = table_of(route);
                // The one after ours is that of configured connections.
                table != self.table && table != self.table + 1 && table != LOCAL
            }
            Message::NewAddress(_) | Message::DelAddress(_) => true,
            Message::NewLink(_) | Message::DelLink(_) => true,
            _ => false,
        }
    }
}
