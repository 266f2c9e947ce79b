//! The machine: inputs, one queue of outputs, deadlines.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use dnskeys::{Answer, Name};
use ike::{Datagram, Event, Ike, IkeId, NeedPeer};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sa::{About, Class, Command, Flow, Notice, Policy, Ports, Prefix, SaId, Subnets};

use crate::client::Standing;
use crate::config::Config;
use crate::connection::Configured;
use crate::downgrade::Capable;
use crate::entry::{
    Asker, ChildVisitor, Entry, HISTORY, Peer, Recheck, Renewal, State, Visit, Visitor,
};
use crate::initiator::ports_of;
use crate::links::Said;
use crate::memory::Recalls;
use crate::own::Own;
use crate::pool::Pool;
use crate::questions::Questions;
use crate::report::{Report, What, Why};
use crate::resumption::{KeptTicket, Tickets};
use crate::silence::Silences;
use crate::sources::Foreign;
use crate::tables::{Calls, Pairs, Peers};
use crate::undecided::Undecided;

/// What the machine wants done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// For the data plane.
    Command(Command),
    /// Send this IKE datagram.
    Transmit(ike::Transmit),
    /// Ask DNS for this name; answer with [`Keying::handle_answer`].
    Query {
        /// The name.
        name: Name,
        /// Whether only a stranger's claim depends on it. Strangers cost what they like, so their
        /// questions must not keep ours waiting.
        for_visitor: bool,
    },
    /// Sign with the host key; answer with [`Keying::handle_signature`].
    Sign(ike::Sign),
    /// Keep this until a restart; give it back with [`Keying::handle_ticket`].
    Ticket(KeptTicket),
    /// Tell the operator.
    Report(Report),
}

/// What the next deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// One of IKE's own.
    Ike(ike::Timer),
    /// A flow's state is due.
    Flow,
    /// A replaced pair has received for long enough.
    Linger,
    /// An IKE SA should have a pair by now.
    Bare,
    /// A configured connection's state is due.
    Connection,
    /// An address of ours has been gone for long enough.
    Lost,
    /// A peer from before a restart is to be tried again.
    Recall,
    /// A gateway has not answered although another could carry its flows.
    Doubt,
}

/// What has happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Flows that were trapped.
    pub trapped: u64,
    /// Flows taken up again from before a restart, without a packet.
    pub recalled: u64,
    /// Questions put to DNS.
    pub queries: u64,
    /// Calls made.
    pub calls: u64,
    /// Calls taken back because the peer's own was faster.
    pub calls_withdrawn: u64,
    /// Strangers that called and were let in.
    pub visitors_accepted: u64,
    /// Strangers that called and were refused.
    pub visitors_refused: u64,
    /// Pairs that came up, replacements included.
    pub pairs: u64,
    /// Flows that went to clear text.
    pub clear: u64,
    /// Flows that were denied.
    pub denied: u64,
    /// Times that a flow fell back to clear text because something failed or did not answer: DNS, or
    /// the gateways that its destination's records name.
    pub downgrades: u64,
    /// Flows turned away because too many were pending.
    pub over_budget: u64,
    /// Signatures of ours that were asked for.
    pub signatures: u64,
    /// ESP packets with an SPI that nobody knew (hints, forgeable).
    pub unknown_spis: u64,
}

/// Every peer, flow and pair of a node, without I/O.
///
/// Drive it as all machines here: `handle_*`, then [`Keying::poll_output`] until `None`, then
/// sleep until [`Keying::poll_timeout`].
pub struct Keying {
    pub(crate) config: Config,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) ike: Ike,
    /// Boxed: the nodes of the tree are half empty when addresses come in order, as in a scan.
    pub(crate) flows: BTreeMap<Flow, Box<Entry>>,
    /// When something is due for a flow, but for those in the next.
    pub(crate) deadlines: BTreeSet<(Instant, Flow)>,
    /// The same for clear and denied flows, which can be forgotten without anybody being worse off
    /// than before their first packets.
    pub(crate) forgettable: BTreeSet<(Instant, Flow)>,
    pub(crate) asked: Questions,
    pub(crate) calls: Calls,
    pub(crate) peers: Peers,
    pub(crate) visitors: BTreeMap<IkeId, Visitor>,
    /// Strangers for whose records there is no room yet.
    pub(crate) visitors_waiting: VecDeque<(Instant, NeedPeer)>,
    /// Visitors whose signature is being verified.
    pub(crate) visits: BTreeMap<IkeId, Visit>,
    /// Pairs whose evidence is being asked for again.
    pub(crate) rechecks: BTreeMap<Flow, Recheck>,
    /// Addresses that were ours, and when what speaks from them is closed.
    pub(crate) lost: VecDeque<(Instant, IpAddr)>,
    /// IKE SAs that must have a pair by then.
    pub(crate) bare: VecDeque<(Instant, IkeId)>,
    /// Flows whose fate is open: DNS is asked or a gateway called.
    pub(crate) undecided: Undecided,
    /// Destinations that could be encrypted to.
    pub(crate) capable: Capable,
    pub(crate) pairs: Pairs,
    /// What strangers see of our addresses.
    pub(crate) own: BTreeMap<IpAddr, Own>,
    /// Pairs that are gone, until the data plane has said what they carried.
    pub(crate) parted: BTreeMap<SaId, Flow>,
    /// Replaced pairs that still receive, by the time they go.
    pub(crate) lingering: VecDeque<(Instant, SaId)>,
    /// Pairs to send on once the outputs of the current input are all queued.
    pub(crate) after_drain: Vec<(Flow, SaId)>,
    /// Hosts behind us, and what their records say of us.
    pub(crate) clients: BTreeMap<IpAddr, Standing>,
    /// Who sends through us without being served.
    pub(crate) foreign: Foreign,
    /// Established peers that want one more child.
    pub(crate) child_visitors: BTreeMap<IkeId, ChildVisitor>,
    /// Gateways that do not answer.
    pub(crate) silences: Silences,
    /// Gateways that are asked whether they live because others could carry their flows, and until
    /// when they may answer.
    pub(crate) doubts: BTreeMap<IkeId, Instant>,
    /// Configured connections, in the order of the file.
    pub(crate) configured: Vec<Configured>,
    pub(crate) configured_deadlines: BTreeSet<(Instant, usize)>,
    /// Calls for connections; our address, and the gateway's.
    pub(crate) configured_calls: BTreeMap<IkeId, (usize, IpAddr, IpAddr)>,
    /// Configured peers that call and whose keys DNS is asked for.
    pub(crate) configured_visitors: BTreeMap<IkeId, (usize, NeedPeer)>,
    /// Configured peers whose signature is being verified; our address, and theirs.
    pub(crate) configured_visits: BTreeMap<IkeId, (usize, IpAddr, IpAddr)>,
    pub(crate) configured_after_drain: Vec<(usize, SaId)>,
    /// Which connection a pair belongs to.
    pub(crate) joints: BTreeMap<SaId, usize>,
    /// What the data plane was last told of configured subnets.
    pub(crate) said: BTreeMap<Subnets, Said>,
    /// When the links of connections with several are asked next whether they live.
    pub(crate) pulse_at: Option<Instant>,
    /// Nothing is called any more.
    pub(crate) stopping: bool,
    /// Peers from before a restart.
    pub(crate) recalls: Recalls,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) tickets: Tickets,
    /// Addresses that are ours to give.
    pub(crate) pool: Pool,
    /// Addresses that gateways have given us: asked for again.
    pub(crate) borrowed: BTreeMap<IpAddr, IpAddr>,
    pub(crate) counters: Counters,
}

impl Keying {
    /// A machine that knows nobody. Announces the classes of its groups at once.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Instant) -> Self {
        let (rng, ike_seed) = part_seed(seed);
        let mut ike = Ike::new(config.ike.clone(), ike_seed, now);
        let config = Config { ike: config.ike.without_secrets(), ..config };
        ike.set_addresses(now, config.addresses.clone());
        let configured = config.connections.iter().cloned();
        let mut configured: Vec<Configured> = configured.map(|c| Configured::new(c, now)).collect();
        crate::links::note_siblings(&mut configured);
        let pool = Pool::new(&config.pool);
        let mut keying = Self {
            config,
            configured,
            clients: BTreeMap::new(),
            foreign: Foreign::default(),
            child_visitors: BTreeMap::new(),
            silences: Silences::default(),
            doubts: BTreeMap::new(),
            configured_deadlines: BTreeSet::new(),
            configured_calls: BTreeMap::new(),
            configured_visitors: BTreeMap::new(),
            configured_visits: BTreeMap::new(),
            configured_after_drain: Vec::new(),
            joints: BTreeMap::new(),
            said: BTreeMap::new(),
            pulse_at: None,
            stopping: false,
            rng,
            ike,
            flows: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            forgettable: BTreeSet::new(),
            asked: Questions::default(),
            calls: Calls::default(),
            peers: Peers::default(),
            visitors: BTreeMap::new(),
            visitors_waiting: VecDeque::new(),
            visits: BTreeMap::new(),
            rechecks: BTreeMap::new(),
            lost: VecDeque::new(),
            bare: VecDeque::new(),
            undecided: Undecided::default(),
            capable: Capable::default(),
            pairs: Pairs::default(),
            own: BTreeMap::new(),
            parted: BTreeMap::new(),
            lingering: VecDeque::new(),
            after_drain: Vec::new(),
            recalls: Recalls::default(),
            outputs: VecDeque::new(),
            tickets: Tickets::new(),
            pool,
            borrowed: BTreeMap::new(),
            counters: Counters::default(),
        };
        let mut rules: Vec<_> = keying.config.groups.rules().collect();
        rules.sort_by_key(|(_, ports, group)| class_order(*ports, group.class()));
        for (prefix, ports, group) in rules {
            let command = class_command(prefix, ports, Some(group.class()));
            keying.outputs.push_back(Output::Command(command));
        }
        keying.begin_connections(now);
        keying.drain(now);
        keying
    }

    /// Something the data plane noticed.
    pub fn handle_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Acquire { flow, protocol, ports } => {
                self.acquire(now, flow, flow.with_ports(ports_of(protocol, ports)));
            }
            Notice::FirstPacket(sa) => self.pair_proven(now, sa),
            Notice::SoftExpire(sa) => self.ike.rekey_child(now, sa),
            Notice::HardExpire(sa) => self.ike.close_child(now, sa),
            Notice::LastUse { sa, used } => self.last_use(now, sa, used),
            Notice::FlowUsed(flow) => self.flow_used(now, flow),
            Notice::Unanswered(sa) => {
                let ike = self.pairs.get(&sa).map(|pair| pair.ike).or_else(|| self.joint_ike(sa));
                if let Some(ike) = ike {
                    self.ike.probe(now, ike);
                }
            }
            Notice::Doubtful(sa) => self.doubt(now, sa),
            Notice::PeerMoved { sa, remote } => self.ike.handle_moved(now, sa, remote),
            Notice::UnknownSpi { spi, from } => {
                self.counters.unknown_spis += 1;
                // Whoever it is, it cannot take our word for it, but it can ask under its IKE SA.
                let own = self.config.addresses.iter().find(|a| a.is_ipv4() == from.is_ipv4());
                if let Some(local) = own.copied() {
                    self.ike.handle_unknown_spi(now, spi, local, from);
                }
            }
        }
        self.drain(now);
    }

    /// A datagram from UDP 500 or 4500.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram<'_>) {
        self.ike.handle_datagram(now, datagram);
        self.drain(now);
    }

    /// The answer to an [`Output::Query`], recognised by its owner.
    pub fn handle_answer(&mut self, now: Instant, answer: &Answer) {
        for asker in self.asked.answered(&answer.owner) {
            match asker {
                Asker::Destination(flow) => self.destination_answered(now, flow, answer),
                Asker::Gateway(flow) => self.gateway_answered(now, flow, answer),
                Asker::Client(flow) => self.client_answered(now, flow, answer),
                Asker::Child(ike) => self.child_evidence(now, ike, answer),
                Asker::Visitor(ike) => self.visitor_answered(now, ike, answer),
                Asker::Recheck(flow) => self.recheck_answered(now, flow, answer),
                Asker::Elsewhere(flow) => self.elsewhere_answered(now, flow, answer),
                Asker::Connection(index) => self.connection_answered(now, index, answer),
                Asker::ConnectionVisitor(ike) => {
                    self.connection_visitor_answered(now, ike, answer);
                }
                Asker::Own(address) => self.own_answered(now, address, answer),
            }
        }
        self.drain(now);
    }

    /// The answer to an [`Output::Sign`]; `None` if the key could not sign.
    pub fn handle_signature(&mut self, now: Instant, ike: IkeId, signature: Option<Vec<u8>>) {
        self.ike.handle_signature(now, ike, signature);
        self.drain(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.ike.handle_timeout(now);
        self.drain(now);
        self.remove_lingering(now);
        self.close_bare(now);
        self.close_lost(now);
        self.recall_due(now);
        self.drain(now);
        self.leave_silent(now);
        self.drain(now);
        if self.pulse_at.is_some_and(|at| at <= now) {
            self.pulse(now);
            self.drain(now);
        }
        while let Some(&(due, index)) = self.configured_deadlines.first() {
            if due > now {
                break;
            }
            self.set_connection_deadline(index, None);
            self.connection_due(now, index);
            self.drain(now);
        }
        while let Some((due, flow)) = self.first_deadline() {
            if due > now {
                break;
            }
            self.set_deadline(flow, None);
            self.flow_due(now, flow);
            self.drain(now);
        }
    }

    /// When [`Keying::handle_timeout`] wants to be called, and for what.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let ike = self.ike.poll_timeout().map(|(at, timer)| (at, Timer::Ike(timer)));
        let flow = self.first_deadline().map(|(at, _)| (at, Timer::Flow));
        let linger = self.lingering.front().map(|(at, _)| (*at, Timer::Linger));
        let bare = self.bare.front().map(|(at, _)| (*at, Timer::Bare));
        let connection = self.configured_deadlines.first().map(|(at, _)| (*at, Timer::Connection));
        let lost = self.lost.front().map(|(at, _)| (*at, Timer::Lost));
        let recall = self.recalls.due().map(|at| (at, Timer::Recall));
        let pulse = self.pulse_at.map(|at| (at, Timer::Connection));
        let doubt = self.doubts.values().min().map(|at| (*at, Timer::Doubt));
        let own =
            [flow, linger, bare, connection, pulse, lost, recall, doubt].into_iter().flatten();
        ike.into_iter().chain(own).min_by_key(|(at, _)| *at)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Deletes everything at both ends, with retransmission. Go on driving the machine until
    /// [`Keying::is_idle`], or as long as there is time; then [`Keying::shutdown`].
    pub fn close_all(&mut self, now: Instant) {
        self.stopping = true;
        let flows: Vec<Flow> = self.flows.keys().copied().collect();
        for flow in flows {
            self.close_flow(now, flow);
        }
        let calls = self.calls.keys().chain(self.configured_calls.keys());
        let peers: Vec<IkeId> = self.peers.keys().chain(calls).copied().collect();
        for ike in peers {
            self.close_ike(now, ike);
        }
        self.drain(now);
    }

    /// Whether no IKE SA is left.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.ike.is_empty()
    }

    /// Sends one last Delete to whoever is left; carry out the outputs once more, then stop.
    pub fn shutdown(&mut self, now: Instant) {
        self.ike.shutdown(now);
        self.drain(now);
    }

    /// Forgets what is known of an address. As a destination: its pairs are closed, those of
    /// configured connections to it as well, and the next packet to it starts anew. As a host behind
    /// us: its record is asked for again, and what it was refused on account of that starts anew.
    pub fn forget(&mut self, now: Instant, dst: IpAddr) {
        self.close_connections_to(now, dst);
        self.clients.remove(&dst);
        let refused = |state: &State| {
            matches!(state, State::ClearText(Why::Client(_)) | State::Deny(Why::Client(_)))
        };
        let flows: Vec<Flow> = self
            .flows
            .iter()
            .filter(|(flow, entry)| {
                flow.dst() == dst || (flow.src() == dst && refused(&entry.state))
            })
            .map(|(flow, _)| *flow)
            .collect();
        for flow in flows {
            self.close_flow(now, flow);
        }
        self.capable.forget(dst);
        self.drain(now);
    }

    /// Asks the data plane how every pair is used; the answers come as notices.
    pub fn ask_use(&mut self) {
        // Only for showing: see `last_use` for what an idle pair comes to.
        for sa in self.pairs.keys().chain(&self.joints()) {
            self.outputs.push_back(Output::Command(Command::AskUse(*sa)));
        }
    }

    /// The same for the pairs to one destination.
    pub fn ask_use_to(&mut self, dst: IpAddr) {
        let flows = self.flows.keys().filter(|flow| flow.dst() == dst);
        let pairs: Vec<SaId> = flows.flat_map(|flow| self.pairs.of(*flow)).map(|p| p.0).collect();
        for sa in pairs {
            self.outputs.push_back(Output::Command(Command::AskUse(sa)));
        }
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The IKE machine's own counters.
    #[must_use]
    pub fn ike_counters(&self) -> ike::Counters {
        self.ike.counters()
    }

    /// Carries IKE's outputs over, in order, acting on its events on the way.
    pub(crate) fn drain(&mut self, now: Instant) {
        while let Some(output) = self.ike.poll_output() {
            match output {
                ike::Output::Transmit(transmit) => {
                    self.outputs.push_back(Output::Transmit(transmit));
                }
                ike::Output::Sign(sign) => {
                    self.counters.signatures += 1;
                    self.outputs.push_back(Output::Sign(sign));
                }
                ike::Output::NeedPeer(need) => self.visited(now, need),
                ike::Output::NeedChild(need) => self.child_wanted(now, need),
                ike::Output::Event(event) => self.ike_event(now, event),
            }
        }
        self.switch_answered(now);
        self.use_answered(now);
    }

    fn ike_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Keyed { ike, behind_nat } => self.call_keyed(now, ike, behind_nat),
            Event::Established {
                ike,
                initiator,
                peer,
                lowest_nonce,
                initial_contact,
                assigned,
            } => {
                let peer = Peer {
                    verified: peer,
                    initiator,
                    lowest_nonce,
                    established: now,
                    local: IpAddr::from([0; 4]),
                    gateway: IpAddr::from([0; 4]),
                    proofs: Vec::new(),
                    pairs: BTreeSet::new(),
                    waiting: Vec::new(),
                    connection: None,
                    closing: false,
                    outworn: false,
                    unanswered: false,
                    translation: None,
                };
                self.established(now, ike, peer, (initial_contact, assigned));
            }
            Event::ChildUp(child) => self.child_up(now, *child),
            Event::ChildDown { sa, why } => self.child_down(now, sa, why),
            Event::NotRenewed { ike, child } => self.not_renewed(now, ike, child),
            Event::ChildFailed { ike, request, why } => self.child_failed(now, ike, &request, why),
            Event::Moved { ike, children, envelope } => self.moved(now, ike, &children, envelope),
            Event::Ticket { ike, ticket, life } => self.ticket_given(now, ike, ticket, life),
            Event::Unanswered { ike } => self.unanswered(now, ike),
            Event::Alive { ike } => {
                self.link_alive(ike);
                self.doubts.remove(&ike);
                self.peer_alive(now, ike);
                self.answers_again(now, ike);
            }
            Event::Ended { ike, why } => self.ike_ended(now, ike, why),
        }
    }

    fn established(
        &mut self,
        now: Instant,
        ike: IkeId,
        peer: Peer,
        (initial_contact, assigned): (bool, Option<IpAddr>),
    ) {
        if self.peers.len() >= MAX_PEERS {
            self.counters.over_budget += 1;
            return self.ike.close(now, ike);
        }
        if let Some((index, local, gateway)) = self.configured_calls.remove(&ike) {
            // Its child follows, or the reason why there is none.
            self.peers.insert(ike, Peer { connection: Some(index), local, gateway, ..peer });
        } else if let Some((index, local, gateway)) = self.configured_visits.remove(&ike) {
            self.counters.visitors_accepted += 1;
            self.peers.insert(ike, Peer { connection: Some(index), local, gateway, ..peer });
        } else if peer.initiator {
            self.call_answered(now, ike, peer, assigned);
        } else {
            self.visitor_authenticated(ike, peer);
            self.lease_taken(now, ike, assigned);
        }
        if let Some(peer) = self.peers.get(&ike) {
            self.silences.answered(peer.gateway);
        }
        if initial_contact {
            self.initial_contact(now, ike);
        }
        self.bare.push_back((now + BARE, ike));
    }

    /// Deletes an IKE SA at both ends; nothing new is asked of it meanwhile.
    pub(crate) fn close_ike(&mut self, now: Instant, ike: IkeId) {
        if let Some(peer) = self.peers.get_mut(&ike) {
            peer.closing = true;
        }
        self.ike.close(now, ike);
    }

    /// Deletes an IKE SA that serves nothing.
    pub(crate) fn close_if_bare(&mut self, now: Instant, ike: IkeId) {
        let bare = |peer: &Peer| !peer.closing && peer.pairs.is_empty() && peer.waiting.is_empty();
        if self.peers.get(&ike).is_some_and(bare) {
            self.close_ike(now, ike);
        }
    }

    fn close_bare(&mut self, now: Instant) {
        while let Some((at, ike)) = self.bare.front().copied() {
            if at > now {
                break;
            }
            self.bare.pop_front();
            self.close_if_bare(now, ike);
        }
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.outputs.push_back(Output::Command(command));
    }

    pub(crate) fn report(&mut self, now: Instant, flow: Option<Flow>, what: What) {
        // The answer itself is kept.
        let kept = flow.filter(|_| !matches!(what, What::DnsAnswer { .. }));
        if let Some(entry) = kept.and_then(|flow| self.flows.get_mut(&flow)) {
            if entry.history.len() >= HISTORY {
                entry.history.pop_front();
            }
            // Rare, and kept for as long as the flow: no room for what may never come.
            entry.history.reserve_exact(1);
            entry.history.push_back((now, what.clone()));
        }
        self.outputs.push_back(Output::Report(Report { flow, what }));
    }

    /// Asks DNS, once for all who wait for the same name.
    pub(crate) fn ask(&mut self, name: Name, asker: Asker) {
        if self.asked.add(name.clone(), asker) {
            self.counters.queries += 1;
            let for_visitor = asker.is_stranger();
            self.outputs.push_back(Output::Query { name, for_visitor });
        }
    }

    /// Puts a flow into a state; the data plane is told by the caller.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        flow: Flow,
        state: State,
        deadline: Option<Instant>,
    ) {
        let group = self.group_of_flow(flow);
        let new = || Entry {
            group,
            // A state that counts for nothing; the one to enter follows.
            state: State::ClearText(Why::Group),
            since: now,
            deadline: None,
            answers: Vec::new(),
            renewal: Renewal::Settled,
            history: VecDeque::new(),
            downgraded: None,
            recalled: None,
            waits_for_news: false,
        };
        let entry = self.flows.entry(flow).or_insert_with(|| Box::new(new()));
        let open = |state: &State| matches!(state, State::PotentialOe | State::PendingOe(_));
        match (open(&entry.state), open(&state)) {
            (false, true) => self.undecided.add(flow.dst()),
            (true, false) => self.undecided.remove(flow.dst()),
            (true, true) | (false, false) => {}
        }
        if !open(&state) {
            entry.recalled = None;
        }
        if matches!(state, State::PotentialOe) {
            entry.answers.clear();
        }
        entry.state = state;
        entry.renewal = Renewal::Settled;
        entry.waits_for_news = false;
        entry.since = now;
        self.note_state(flow);
        self.set_deadline(flow, deadline);
    }

    pub(crate) fn set_deadline(&mut self, flow: Flow, deadline: Option<Instant>) {
        let Some(entry) = self.flows.get_mut(&flow) else { return };
        if let Some(old) = entry.deadline {
            self.deadlines.remove(&(old, flow));
            self.forgettable.remove(&(old, flow));
        }
        entry.deadline = deadline;
        if let Some(new) = deadline {
            let forgettable = matches!(entry.state, State::ClearText(_) | State::Deny(_));
            let deadlines = if forgettable { &mut self.forgettable } else { &mut self.deadlines };
            deadlines.insert((new, flow));
        }
    }

    fn first_deadline(&self) -> Option<(Instant, Flow)> {
        [self.deadlines.first(), self.forgettable.first()].into_iter().flatten().min().copied()
    }

    /// Forgets a flow that has no pair left.
    pub(crate) fn expire(&mut self, now: Instant, flow: Flow) {
        self.set_deadline(flow, None);
        self.rechecks.remove(&flow);
        if let Some(entry) = self.flows.remove(&flow) {
            if matches!(entry.state, State::PotentialOe | State::PendingOe(_)) {
                self.undecided.remove(flow.dst());
            }
            self.command(Command::ClearPolicy { flow });
            self.report(now, Some(flow), What::Expired);
        }
    }

    /// Says what becomes of a flow that is in its state already: that says what it is about.
    pub(crate) fn set_policy(&mut self, flow: Flow, policy: Policy) {
        let about = self.about(flow);
        self.command(Command::SetPolicy { flow, policy, about });
    }

    /// What the state of a flow was made from. Who speaks for nobody else has no other source that a
    /// destination could treat otherwise.
    pub(crate) fn about(&self, flow: Flow) -> About {
        let own = &self.config.addresses;
        let alone = self.config.served.is_empty() && own.contains(&flow.src());
        // Each address of our own has a record of its own.
        let other = |addr: &IpAddr| addr.is_ipv4() == flow.src().is_ipv4() && *addr != flow.src();
        match self.flows.get(&flow).map(|entry| &entry.state) {
            Some(State::ClearText(why) | State::Deny(why))
                if !alone || matches!(why, Why::OwnRecord(_)) && own.iter().any(other) =>
            {
                why.about()
            }
            _ => About::Destination,
        }
    }

    /// The group of a destination; what no group covers is in the clear (RFC 4322 §3.2.1 leaves
    /// the default to the administrator, who writes it as the prefix of length 0).
    pub(crate) fn group_of(&self, dst: IpAddr) -> crate::group::Group {
        self.config.groups.lookup(dst).map_or(crate::group::Group::Clear, |(_, group)| group)
    }

    /// The group of a flow, whose ports may have one of their own.
    pub(crate) fn group_of_flow(&self, flow: Flow) -> crate::group::Group {
        let rule = self.config.groups.rule(flow.dst(), flow.ports());
        rule.map_or(crate::group::Group::Clear, |(_, _, listed)| listed.group)
    }

    /// Our outer address towards a gateway: for a host behind us the one that its record names.
    pub(crate) fn outer_address(&self, flow: Flow, gateway: IpAddr) -> Option<IpAddr> {
        let fits = |a: &IpAddr| a.is_ipv4() == gateway.is_ipv4();
        if self.serves(flow.src()) && self.config.identity.is_none() {
            return self.client_gateway(flow).filter(fits);
        }
        let usable = |a: &IpAddr| fits(a) && self.config.addresses.contains(a);
        // The peer of a flow that is keyed has believed us once, wherever the pair has moved since.
        let believed = || Some(self.peers.get(&self.pairs.get(&self.current(flow)?)?.ike)?.local);
        self.gateway_of_own(flow.src())
            .or_else(believed)
            .filter(usable)
            .or_else(|| Some(flow.src()).filter(usable))
            .or_else(|| self.config.addresses.iter().copied().find(fits))
    }
}

/// A generator of our own and a seed for IKE, of which neither tells the other: who reads this memory
/// later must not find in it what IKE's keys were made of.
fn part_seed(seed: [u8; 32]) -> (ChaCha20Rng, [u8; 32]) {
    let mut first = ChaCha20Rng::from_seed(seed);
    let (mut own, mut ike) = ([0; 32], [0; 32]);
    first.fill_bytes(&mut own);
    first.fill_bytes(&mut ike);
    (ChaCha20Rng::from_seed(own), ike)
}

/// In which order the data plane is told of rules, so that what one keeps closed is not open
/// meanwhile: closed prefixes before the single ports that are open in them, all single ports
/// before the prefixes that are open around them.
pub(crate) fn class_order(ports: Ports, class: Class) -> u8 {
    match (ports.is_any(), class) {
        (true, Class::Block | Class::Trap { fail_closed: true }) => 0,
        (false, _) => 1,
        (true, Class::Pass | Class::Trap { fail_closed: false }) => 2,
    }
}

/// What the data plane is told of a rule; `None` to forget it.
#[must_use]
pub fn class_command(prefix: Prefix, ports: Ports, class: Option<Class>) -> Command {
    match (class, ports.is_any()) {
        (Some(class), true) => Command::SetClass { prefix, class },
        (Some(class), false) => Command::SetPortClass { prefix, ports, class },
        (None, true) => Command::ClearClass { prefix },
        (None, false) => Command::ClearPortClass { prefix, ports },
    }
}

/// Established IKE SAs at once; each costs some KiB.
const MAX_PEERS: usize = 65_536;
/// How long an IKE SA may be without a pair.
const BARE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn keying(now: Instant) -> Keying {
        let config = Config {
            groups: crate::group::Groups::packetdefault(),
            served: Vec::new(),
            connections: Vec::new(),
            rules: dnskeys::Rules::default(),
            when_advertised: crate::config::WhenAdvertised::default(),
            null_auth: crate::config::NullAuth::default(),
            own_record: crate::own::OwnRecord::default(),
            identity: None,
            addresses: vec![[192, 0, 2, 1].into()],
            pool: Vec::new(),
            translates: false,
            ike: ike::Config::new(ike::PublicKey::Ed25519([1; 32])),
            lives: crate::config::Lives::default(),
            destinations: crate::config::DESTINATIONS,
        };
        Keying::new(config, [1; 32], now)
    }

    /// Somebody who has proved nothing, and that by the only way there is: two machines meet.
    fn nobody(now: Instant) -> ike::Verified {
        let mut ends = [1, 2]
            .map(|n| Ike::new(ike::Config::new(ike::PublicKey::Ed25519([n; 32])), [n; 32], now));
        let [local, remote] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let hosts = [local, remote].map(|host| vec![sa::TrafficSelector::host(host)]);
        let [ours, theirs] = hosts.clone();
        let child = ike::ChildRequest { local: ours, remote: theirs, mode: sa::Mode::Tunnel };
        let (identity, key) = (ike::Identity::Null, ike::Credential::Null);
        let call = ike::Initiate {
            local,
            remote,
            identity: identity.clone(),
            peer: identity.clone(),
            keys: vec![key.clone()],
            child,
            ask_address: None,
        };
        ends[0].initiate(now, call);
        for _ in 0..100 {
            for at in 0..2 {
                match ends[at].poll_output() {
                    Some(ike::Output::Transmit(sent)) => {
                        let (local, remote, octets) = (sent.remote, sent.local, &sent.octets[..]);
                        let heard = Datagram { local, remote, octets };
                        ends[1 - at].handle_datagram(now, heard);
                    }
                    Some(ike::Output::NeedPeer(need)) => {
                        let [remote, local] = hosts.clone();
                        let (identity, key) = (identity.clone(), key.clone());
                        let assigned = ike::Assigned::Nothing;
                        let grants =
                            vec![ike::Grant { key, remote, local, transport: false, assigned }];
                        let verdict = ike::PeerVerdict::Known { identity, grants };
                        ends[at].handle_peer(now, need.ike, verdict);
                    }
                    Some(ike::Output::Event(Event::Established { peer, .. })) => return peer,
                    Some(ike::Output::Event(Event::Ended { why, .. })) => panic!("{why:?}"),
                    Some(_) | None => {}
                }
            }
        }
        panic!("they do not come to an end");
    }

    /// A peer asks for child after child between us and addresses of its own zone, and takes none.
    #[test]
    fn what_a_peer_may_speak_for_is_bounded() {
        let now = Instant::now();
        let mut keying = keying(now);
        let gateway = IpAddr::from([203, 0, 113, 1]);
        let peer = Peer {
            verified: nobody(now),
            initiator: false,
            lowest_nonce: Vec::new(),
            established: now,
            local: [192, 0, 2, 1].into(),
            gateway,
            proofs: Vec::new(),
            pairs: BTreeSet::new(),
            waiting: Vec::new(),
            connection: None,
            translation: None,
            closing: false,
            outworn: false,
            unanswered: false,
        };
        keying.peers.insert(IkeId(1), peer);
        let mut most = 0;
        for n in 0..5000_u16 {
            let [high, low] = n.to_be_bytes();
            let address = IpAddr::from([198, 51, high, low]);
            let answer = Answer {
                owner: Name::reverse(address),
                security: dnskeys::Security::Insecure,
                ttl: Duration::from_secs(60),
                outcome: dnskeys::Outcome::NoRecord,
            };
            let (rules, strict) = (dnskeys::Rules::default(), dnskeys::Strictness::Permissive);
            let proof = dnskeys::admit_anonymous(address, &answer, &rules, strict).unwrap();
            keying.keep_proof(IkeId(1), proof);
            let proofs = &keying.peers.get(&IkeId(1)).unwrap().proofs;
            assert_eq!(proofs.last().map(dnskeys::Authorized::address), Some(address));
            most = most.max(proofs.len());
        }
        assert!(most <= 512, "{most}");
    }

    /// P9: what this machine keeps tells nothing of IKE's keys.
    #[test]
    fn no_seed_tells_the_other() {
        let seed = [9; 32];
        let (mut own, ike) = part_seed(seed);
        assert!(own.get_seed() != seed && own.get_seed() != ike && ike != seed);
        let mut next = [0; 32];
        own.fill_bytes(&mut next);
        assert_ne!(next, ike);
    }
}
