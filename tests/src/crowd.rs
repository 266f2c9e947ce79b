//! One node and as many peers as it takes, all machines in one process, without a clock and
//! without a network: what reaches whom is decided by address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Gateway, GatewayRecord, Name, Outcome, RecordSet, Security, Source};
use forwarding::Forwarding;
use keying::{Groups, Keying, Output};
use sa::{Command, Flow, Notice, SaId};

use crate::key::TestKey;

/// Where the node is to which all peers have pairs.
pub const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The address of the n-th peer.
///
/// # Panics
/// Beyond 2^24.
#[must_use]
pub fn peer(n: usize) -> IpAddr {
    assert!(n < 1 << 24, "no such peer");
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    Ipv4Addr::from((10 << 24) + n as u32).into()
}

/// The address of the n-th host that has published nothing.
///
/// # Panics
/// Beyond 2^24.
#[must_use]
pub fn plain(n: usize) -> IpAddr {
    assert!(n < 1 << 24, "no such host");
    #[expect(clippy::cast_possible_truncation, reason = "checked above")]
    Ipv4Addr::from((PLAIN << 24) + n as u32).into()
}

/// First octet of the addresses of hosts without a record.
const PLAIN: u32 = 11;

/// A node: keying, and forwarding if anybody is to look at it.
pub struct Party {
    /// Its address.
    pub address: IpAddr,
    /// Its keying plane.
    pub keying: Keying,
    /// Its forwarding plane.
    pub forwarding: Option<Forwarding>,
    /// The pair that it has got last.
    pub last_pair: Option<SaId>,
    /// How long it has worked, signatures not counted.
    pub worked: Duration,
    /// How long it has signed.
    pub signed: Duration,
    /// What it has wanted done so far.
    pub wanted: Wanted,
    /// How long what DNS answers it is good for.
    pub ttl: Duration,
    /// Somebody has just used each of its pairs, whenever it looks.
    pub in_use: bool,
    key: Arc<TestKey>,
}

/// How often a node has wanted what done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Wanted {
    /// Datagrams to send.
    pub datagrams: usize,
    /// Questions to DNS.
    pub questions: usize,
    /// Signatures.
    pub signatures: usize,
    /// Tickets and reports.
    pub told: usize,
    /// Pairs for the forwarding plane, to make.
    pub made: usize,
    /// And to remove.
    pub removed: usize,
    /// Questions to the forwarding plane.
    pub looks: usize,
    /// Whatever else the forwarding plane is to do.
    pub policies: usize,
}

impl Party {
    /// A packetdefault host at this address.
    #[must_use]
    pub fn new(address: IpAddr, number: u64, now: Instant) -> Self {
        Self::remembering(address, number, now, keying::DESTINATIONS)
    }

    /// The same, which remembers so many destinations.
    #[must_use]
    pub fn remembering(address: IpAddr, number: u64, now: Instant, destinations: usize) -> Self {
        Self::configured(address, number, now, |config| config.destinations = destinations)
    }

    /// The same, otherwise configured.
    #[must_use]
    pub fn configured(
        address: IpAddr,
        number: u64,
        now: Instant,
        change: impl FnOnce(&mut keying::Config),
    ) -> Self {
        let key = key_of(address);
        let mut config = keying::Config {
            groups: Groups::packetdefault(),
            rules: dnskeys::Rules::default(),
            when_advertised: keying::WhenAdvertised::Clear,
            null_auth: keying::NullAuth::default(),
            own_record: keying::OwnRecord::Advise,
            pool: Vec::new(),
            translates: true,
            identity: None,
            served: Vec::new(),
            connections: Vec::new(),
            addresses: vec![address],
            ike: ike::Config::new(key.ike()),
            lives: keying::Lives::default(),
            destinations: keying::DESTINATIONS,
        };
        change(&mut config);
        let mut seed = [7; 32];
        for (octet, random) in seed.iter_mut().zip(number.to_be_bytes()) {
            *octet = random;
        }
        let keying = Keying::new(config, seed, now);
        Self {
            address,
            keying,
            forwarding: None,
            last_pair: None,
            worked: Duration::ZERO,
            signed: Duration::ZERO,
            wanted: Wanted::default(),
            ttl: Duration::from_secs(300),
            in_use: false,
            key,
        }
    }

    /// An application has sent a packet to `to`.
    pub fn call(&mut self, now: Instant, to: IpAddr) {
        if let Some(flow) = Flow::new(self.address, to) {
            let notice = Notice::Acquire { flow, protocol: 17, ports: (1, 1) };
            self.keying.handle_notice(now, notice);
        }
    }

    /// The first packet has come in on its last pair.
    pub fn prove(&mut self, now: Instant) {
        if let Some(sa) = self.last_pair {
            self.keying.handle_notice(now, Notice::FirstPacket(sa));
            let _ = self.drain(now);
        }
    }

    /// The same with a forwarding plane.
    #[must_use]
    pub fn with_forwarding(mut self, now: Instant) -> Self {
        let config = forwarding::Config { newcomers: u32::MAX, ..Default::default() };
        self.forwarding = Some(Forwarding::new(config, [9; 32], now));
        self
    }

    /// Carries out what it wants done; gives what it sends.
    pub fn drain(&mut self, now: Instant) -> Vec<ike::Transmit> {
        let began = Instant::now();
        let mut signing = Duration::ZERO;
        let mut sent = Vec::new();
        while let Some(output) = self.keying.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.wanted.datagrams += 1;
                    sent.push(transmit);
                }
                Output::Query { name, .. } => {
                    self.wanted.questions += 1;
                    self.keying.handle_answer(now, &answer(name, self.ttl));
                }
                Output::Sign(job) => {
                    self.wanted.signatures += 1;
                    let began = Instant::now();
                    let signature = self.key.sign(job.scheme, &job.octets);
                    signing += began.elapsed();
                    self.keying.handle_signature(now, job.ike, Some(signature));
                }
                Output::Command(command) => self.obey(now, command),
                Output::Ticket(_) | Output::Report(_) => self.wanted.told += 1,
            }
        }
        self.worked += began.elapsed().saturating_sub(signing);
        self.signed += signing;
        sent
    }

    /// What somebody has sent reaches it.
    pub fn hear(&mut self, now: Instant, sent: &ike::Transmit) {
        let began = Instant::now();
        let (local, remote, octets) = (sent.remote, sent.local, &sent.octets[..]);
        self.keying.handle_datagram(now, ike::Datagram { local, remote, octets });
        self.worked += began.elapsed();
    }

    fn obey(&mut self, now: Instant, command: Command) {
        if let Command::AddSa(pair) = &command {
            self.last_pair = Some(pair.id);
        }
        *match &command {
            Command::AddSa(_) => &mut self.wanted.made,
            Command::RemoveSa(_) => &mut self.wanted.removed,
            Command::AskUse(_) => &mut self.wanted.looks,
            _ => &mut self.wanted.policies,
        } += 1;
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.handle_command(now, command);
            while let Some(output) = forwarding.poll_output() {
                if let forwarding::Output::Notice(mut notice) = output {
                    if let (true, Notice::LastUse { used, .. }) = (self.in_use, &mut notice) {
                        used.idle_in = Some(Duration::ZERO);
                    }
                    self.keying.handle_notice(now, notice);
                }
            }
        }
    }
}

/// All peers have one key, because making ten thousand takes an hour. Nothing of it is shared in
/// memory: each answer has its own octets.
fn key_of(address: IpAddr) -> Arc<TestKey> {
    TestKey::nth(usize::from(address != HUB))
}

fn answer(name: Name, ttl: Duration) -> Answer {
    let is_plain = |address: IpAddr| match address {
        IpAddr::V4(v4) => u32::from(v4) >> 24 == PLAIN,
        IpAddr::V6(_) => false,
    };
    if name.to_address().is_some_and(is_plain) {
        return Answer {
            owner: name,
            security: Security::Secure,
            ttl: Duration::from_secs(3600),
            outcome: Outcome::NoName,
        };
    }
    let gateways = name.to_address().map(|address| GatewayRecord {
        precedence: 10,
        gateway: Gateway::Address(address),
        key: Some(key_of(address).dns()),
        source: Source::Txt,
    });
    let records = RecordSet { gateways: gateways.into_iter().collect(), malformed: Vec::new() };
    Answer { owner: name, security: Security::Secure, ttl, outcome: Outcome::Records(records) }
}

/// Lets two parties talk until they have no more to say.
pub fn talk(now: Instant, a: &mut Party, b: &mut Party) {
    loop {
        let from_a = a.drain(now);
        let from_b = b.drain(now);
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for (sent, to) in [(from_a, &mut *b), (from_b, &mut *a)] {
            for transmit in sent {
                if transmit.remote.ip() == to.address {
                    to.hear(now, &transmit);
                }
            }
        }
    }
}
