//! What the kernel tells us, as notices.

use std::net::SocketAddr;
use std::time::Instant;

use netlink_packet_xfrm::{AcquireMessage, ExpireMessage, MappingMessage, XfrmMessage};
use sa::{Flow, Notice, Policy};

use super::pairs::Request;
use super::policy::ip;
use super::{TICKS_PER_RENEWAL, Xfrm};

/// Notices that wait to be fetched. The main loop fetches them all the time; what does not fit is
/// told again by the kernel (ACQUIRE, at the next packet) or found out otherwise.
const MAX_NOTICES: usize = 4096;

impl Xfrm {
    /// The next notice. Cancel-safe.
    pub(crate) async fn notice(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return notice;
            }
            tokio::select! {
                events = self.events.next() => match events {
                    Ok(events) => events.into_iter().flatten().for_each(|told| self.heard(told.what)),
                    Err(error) => {
                        tracing::warn!(%error, "cannot hear the kernel");
                        // Nothing else would keep this from turning in circles.
                        self.tick.tick().await;
                    }
                },
                _ = self.tick.tick() => self.at_tick(),
            }
        }
    }

    fn at_tick(&mut self) {
        self.look_at_counters(Instant::now());
        self.look_at_watched();
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_RENEWAL)
            && let Err(error) = self.renew()
        {
            tracing::warn!(%error, "cannot renew the traps");
        }
    }

    fn heard(&mut self, event: XfrmMessage) {
        if self.notices.len() >= MAX_NOTICES {
            return;
        }
        let notice = match event {
            XfrmMessage::Acquire(event) => self.acquire(&event),
            XfrmMessage::Expire(event) => self.expire(&event),
            XfrmMessage::Mapping(event) => self.moved(&event),
            _ => None,
        };
        self.notices.extend(notice);
    }

    /// A packet without SA. Its flow gets a policy, and with it a queue, of its own.
    fn acquire(&mut self, event: &AcquireMessage) -> Option<Notice> {
        let selector = &event.acquire.selector;
        let src = ip(selector.saddr, selector.family)?;
        let dst = ip(selector.daddr, selector.family)?;
        let flow = Flow::new(src, dst)?;
        if !self.flows.contains_key(&flow)
            && let Err(error) = self.set_policy(flow, Policy::Hold)
        {
            tracing::debug!(%error, %flow, "cannot hold a flow for itself");
        }
        // Bounded as flows are: one for each.
        if self.flows.contains_key(&flow) {
            self.requests.insert(flow, Request::of(&event.acquire));
        }
        let ports = (selector.sport, selector.dport);
        Some(Notice::Acquire { flow, protocol: selector.proto, ports })
    }

    fn expire(&self, event: &ExpireMessage) -> Option<Notice> {
        let state = &event.expire.state;
        let sa = self.pairs.by_spi(ip(state.id.daddr, state.family)?, state.id.spi)?;
        Some(if event.expire.hard == 0 { Notice::SoftExpire(sa) } else { Notice::HardExpire(sa) })
    }

    /// An authenticated packet from elsewhere (the kernel tells after it has checked it).
    fn moved(&self, event: &MappingMessage) -> Option<Notice> {
        let map = &event.map;
        let sa = self.pairs.by_spi(ip(map.id.daddr, map.id.family)?, map.id.spi)?;
        let remote = SocketAddr::new(ip(map.new_saddr, map.id.family)?, map.new_sport);
        Some(Notice::PeerMoved { sa, remote })
    }
}
