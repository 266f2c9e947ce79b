//! A peer that is no node of ours: an IKE machine and a packet path, with an owner who grants what the
//! test wants granted, and who may send what he has not been granted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ike::{Assigned, Child, ChildRequest, Event, Grant, Identity, Ike, IkeId, Output, PeerVerdict};
use sa::{Command, Limits, Mode, Policy, SaId, SaPair, Subnets, TrafficSelector, Trust};

use crate::node::{Sent, TestKey};
use crate::plane::{Out, Plane};

/// The peer.
pub(crate) struct Site {
    pub(crate) ike: Ike,
    pub(crate) plane: Plane,
    key: Arc<TestKey>,
    /// Who may call, and for what: our side, the caller's.
    caller: ike::PublicKey,
    granted: (Vec<TrafficSelector>, Vec<TrafficSelector>),
    subnets: Subnets,
    /// Sends whatever it likes on the pair that came last.
    pub(crate) lies: bool,
    /// The pairs that are up, the oldest first.
    pub(crate) children: Vec<(IkeId, SaId, Vec<TrafficSelector>)>,
    /// How many children it has agreed to.
    pub(crate) made: usize,
    outbox: Vec<Sent>,
}

impl Site {
    /// With the n-th key, for the caller with that one.
    pub(crate) fn new(
        (own, caller): (usize, usize),
        subnets: Subnets,
        granted: (Vec<TrafficSelector>, Vec<TrafficSelector>),
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let key = TestKey::nth(own);
        let mut plane = Plane::new(seed, now);
        plane.obey(now, Command::SetSubnets { subnets, policy: Policy::Deny });
        Self {
            ike: Ike::new(ike::Config::new(key.ike()), seed, now),
            plane,
            key,
            caller: TestKey::nth(caller).ike(),
            granted,
            subnets,
            lies: false,
            children: Vec::new(),
            made: 0,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn hear(&mut self, now: Instant, message: &ike::Transmit) {
        // A keepalive ends at the socket.
        if message.octets != [0xff] {
            let (local, remote, octets) = (message.remote, message.local, &message.octets);
            self.ike.handle_datagram(now, ike::Datagram { local, remote, octets });
        }
        self.work(now);
    }

    /// Asks for one more child, for these of its own.
    pub(crate) fn offer(&mut self, now: Instant, own: Vec<TrafficSelector>) {
        let (ike, ..) = *self.children.first().expect("an IKE SA");
        let remote = self.granted.1.clone();
        self.ike.create_child(now, ike, ChildRequest { local: own, remote, mode: Mode::Tunnel });
        self.work(now);
    }

    /// Ends the pair that came last.
    pub(crate) fn withdraw(&mut self, now: Instant) {
        let (_, sa, _) = *self.children.last().expect("a pair");
        self.ike.close_child(now, sa);
        self.work(now);
    }

    /// Does what its machine wants done.
    pub(crate) fn work(&mut self, now: Instant) {
        while let Some(output) = self.ike.poll_output() {
            match output {
                Output::Transmit(transmit) => self.outbox.push(Sent::ike(transmit)),
                Output::NeedPeer(need) => {
                    let grant = Grant {
                        key: self.caller.clone().into(),
                        remote: self.granted.1.clone(),
                        local: self.granted.0.clone(),
                        transport: false,
                        assigned: Assigned::Nothing,
                    };
                    let identity = Identity::Address(need.local.ip());
                    let verdict = PeerVerdict::Known { identity, grants: vec![grant] };
                    self.ike.handle_peer(now, need.ike, verdict);
                }
                Output::NeedChild(need) => self.ike.handle_child(now, need.ike, false),
                Output::Sign(job) => {
                    let signature = self.key.sign(job.scheme, &job.octets);
                    self.ike.handle_signature(now, job.ike, Some(signature));
                }
                Output::Event(Event::ChildUp(child)) => self.child_up(now, *child),
                Output::Event(Event::ChildDown { sa, .. }) => {
                    self.children.retain(|(_, id, _)| *id != sa);
                    self.plane.obey(now, Command::RemoveSa(sa));
                    self.lay(now);
                }
                Output::Event(_) => {}
            }
        }
    }

    fn child_up(&mut self, now: Instant, child: Child) {
        self.made += 1;
        let all = |prefix| vec![TrafficSelector::prefix(prefix)];
        let (local, remote) = if self.lies {
            (all(self.subnets.local()), all(self.subnets.remote()))
        } else {
            (child.local.clone(), child.remote)
        };
        self.children.push((child.ike, child.id, child.local));
        let pair = SaPair {
            id: child.id,
            cipher: child.cipher,
            spi_in: child.spi_in,
            spi_out: child.spi_out,
            key_in: child.key_in,
            key_out: child.key_out,
            esn: child.esn,
            mode: child.mode,
            local,
            remote,
            envelope: child.envelope,
            limits: Limits::of_esp(child.esn),
            trust: Trust::Configured,
            translation: None,
        };
        self.plane.obey(now, Command::AddSa(Box::new(pair)));
        self.lay(now);
    }

    fn lay(&mut self, now: Instant) {
        let subnets = self.subnets;
        // The latest counts, as with most.
        let pairs: Vec<SaId> = self.children.iter().rev().map(|(_, sa, _)| *sa).collect();
        let command = match pairs.first() {
            None => Command::SetSubnets { subnets, policy: Policy::Deny },
            Some(sa) if self.lies => Command::SetSubnets { subnets, policy: Policy::Encrypt(*sa) },
            Some(_) => Command::SelectSubnets { subnets, pairs, rest: Policy::Deny },
        };
        self.plane.obey(now, command);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ike = self.ike.poll_timeout().map(|(at, _)| at);
        ike.into_iter().chain(self.plane.poll_timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.plane.handle_timeout(now);
        self.work(now);
    }

    /// What leaves it.
    pub(crate) fn take(&mut self) -> Vec<Sent> {
        let mut all = std::mem::take(&mut self.outbox);
        self.plane.notices();
        all.extend(self.plane.take().into_iter().map(|out| match out {
            Out::Esp(envelope, octets) => Sent::Esp(envelope, octets),
            Out::Clear(octets) => Sent::Clear(octets),
        }));
        all
    }
}

/// One address as a selector, of this protocol and these ports.
pub(crate) fn selector(addr: IpAddr, protocol: u8, ports: (u16, u16)) -> TrafficSelector {
    TrafficSelector::new(addr, addr, protocol, ports).expect("a selector")
}
