//! The main loop: outputs out, inputs in. What happens is decided in `keying`; this carries it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keying::{Keying, NextPacket, Output, Remembered, What};
use sa::{Command, Flow, Notice, Ports};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::answer::Answer;
use crate::backend::{Backend, Input};
use crate::config::{self, Config};
use crate::control::{self, Asked, Control, Request};
use crate::hostkey::{self, HostKey, Signed, Signers};
use crate::kernel::{self, Changes, ClassChange};
use crate::memory::Memory;
use crate::notify::Notify;
use crate::resolver::{Resolver, ResolverError};
use crate::tickets::TicketFile;
use crate::userspace::{self, Datagram};
use crate::view;

/// Runs the daemon until SIGTERM or SIGINT, and leaves nothing behind then. A start that fails undoes
/// what it made; an error later leaves closed what policy closes, for the next start to take over.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    run_as_told(config).map_err(|error| config.located(error))
}

fn run_as_told(config: &Config) -> anyhow::Result<()> {
    crate::log::start();
    userspace::forbid_dumps();
    // Beside what has to be done first, and over before anybody is told that we run.
    let warm = std::thread::spawn(hostkey::warm_up);
    let groups = config.groups()?;
    let connections = config.connections()?;
    let (key, made) = hostkey::load_or_make(config)?;
    // One thread for the main loop, so that what wakes it need not wake another first; and one for
    // DNS, whose signatures take longer to verify than the loop may stand still.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let dns = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("dns")
        .on_thread_start(userspace::give_way)
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let _ = warm.join();
    let said = (groups, connections);
    let done = runtime.block_on(start(config, said, key, made, dns.handle().clone()));
    // A DNS question under way must not keep us.
    dns.shutdown_timeout(Duration::from_millis(100));
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn start(
    config: &Config,
    (groups, connections): (keying::Groups, Vec<keying::Connection>),
    key: HostKey,
    made: bool,
    dns: tokio::runtime::Handle,
) -> anyhow::Result<()> {
    // Before anything is made that would have to be unmade.
    let signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hang_up: signal(SignalKind::hangup())?,
    };
    let resolver = Arc::new(Resolver::new(&view::resolver_config(config)).map_err(of_dns)?);
    let (events, _) = broadcast::channel(EVENTS);
    let (asked, requests) = mpsc::channel(16);
    let _control = Control::listen(&config.node.control_socket, asked, events.clone())?;
    let mut changes = Changes::watch(config.node.table).context("listening for address changes")?;
    let (seed, trace) = (view::seed()?, trace_file()?);
    let (answers_in, answers) = mpsc::channel(64);
    // One for each job at most, and those are bounded.
    let (signatures_in, signatures) = mpsc::unbounded_channel();
    let backend = Backend::start(config)?;
    changes.disregard(backend.ports());
    let addresses = reachable(&backend);
    if made {
        hostkey::announce(&key, &config.key_file(), &addresses);
    }
    let usable = config.check_pool_against(backend.local_addresses());
    let configured = usable
        .map_err(anyhow::Error::from)
        .and_then(|()| view::keying_config(config, groups, connections, &key, addresses));
    let prepared = configured.and_then(|keying_config| {
        let signers = Signers::start(key, &signatures_in).context("threads that sign")?;
        Ok((keying_config, signers))
    });
    let (keying_config, signers) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            backend.undo();
            return Err(error);
        }
    };
    let (memory, remembered) = Memory::open(&config.node.state_dir);
    let remembered = if config.node.remember_peers { remembered } else { Vec::new() };
    let (tickets, kept) = TicketFile::open(&config.node.state_dir, config.ike.resumption);
    let mut node = Node {
        config: config.clone(),
        keying: Keying::new(keying_config, seed, Instant::now()),
        backend,
        changes,
        resolver,
        dns,
        visitors: Arc::new(Semaphore::new(VISITOR_QUERIES)),
        signers,
        events,
        trace,
        memory,
        tickets,
        notify: Notify::from_environment(),
        answers_in,
        classes: Vec::new(),
        looks: VecDeque::new(),
        calls: VecDeque::new(),
    };
    for ticket in kept {
        node.keying.handle_ticket(Instant::now(), ticket);
    }
    warn_of_forwarding(config);
    tracing::info!("running on {}", config.node.interface);
    // A task of its own: what wakes the future that the runtime blocks on goes through the kernel, even
    // from this thread.
    let loop_of_its_own = tokio::spawn(async move {
        let served = node.serve(remembered, answers, signatures, requests, signals).await;
        (served, node)
    });
    let (served, node) = loop_of_its_own.await.context("the main loop")?;
    match served {
        Ok(()) => node.backend.stop(),
        // Somebody asked for the end of the one, and nobody for the other.
        Err(_) => node.backend.abandon(),
    }
    served
}

/// With the key that has to be changed.
pub(crate) fn of_dns(error: ResolverError) -> anyhow::Error {
    let key = match error {
        ResolverError::Servers(_) => "dns.resolvers",
        ResolverError::Anchors { .. } => "dns.trust-anchors",
    };
    anyhow::anyhow!("{key}: {error}")
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// Everything the main loop touches.
struct Node {
    config: Config,
    keying: Keying,
    backend: Backend,
    changes: Changes,
    resolver: Arc<Resolver>,
    /// Where DNS is asked.
    dns: tokio::runtime::Handle,
    /// What strangers may ask of DNS at once, through us.
    visitors: Arc<Semaphore>,
    signers: Signers,
    events: broadcast::Sender<String>,
    /// Every event is also written here, if `OE_NODE_TRACE` names a file.
    trace: Option<std::fs::File>,
    memory: Memory,
    tickets: TicketFile,
    notify: Notify,
    answers_in: mpsc::Sender<dnskeys::Answer>,
    /// Changes of classes that came one after the other.
    classes: Vec<ClassChange>,
    /// Requests that wait for counters, the oldest first.
    looks: VecDeque<Look>,
    /// Requests that wait for what becomes of a call, the oldest first. Each goes in thirty seconds,
    /// whether its client still waits or not, and no client has two.
    calls: VecDeque<Call>,
}

/// A request that wants to know what becomes of a call.
struct Call {
    flow: Flow,
    answer: oneshot::Sender<Answer>,
    /// It is answered then, whatever is under way.
    until: Instant,
}

/// A request that wants to see how pairs are used, which only the packet path knows.
struct Look {
    request: Request,
    answer: oneshot::Sender<Answer>,
    /// Pairs whose counters have not come yet.
    awaited: usize,
    /// It is answered then with what there is.
    until: Instant,
}

impl Node {
    /// The loop. Start reading here.
    async fn serve(
        &mut self,
        remembered: Vec<Remembered>,
        mut answers: mpsc::Receiver<dnskeys::Answer>,
        mut signatures: mpsc::UnboundedReceiver<Signed>,
        mut requests: mpsc::Receiver<Asked>,
        signals: Signals,
    ) -> anyhow::Result<()> {
        // Keying announces its classes at once.
        self.carry_out_all();
        self.backend.settled()?;
        self.keying.handle_memory(Instant::now(), remembered);
        self.notify.ready();
        let mut seldom = seldom(signals, self.notify.every);
        let sleep = tokio::time::sleep_until(tokio::time::Instant::now());
        tokio::pin!(sleep);
        for turn in 1_usize.. {
            self.carry_out_all();
            self.answer_looks();
            self.answer_calls();
            if turn.is_multiple_of(TURNS) && !self.backend.is_quiet() {
                // As long as there is something to do nobody else has a turn on this thread, and the
                // sockets of those who ask us are not looked at.
                tokio::task::yield_now().await;
            }
            let due = self.due().into();
            if sleep.deadline() != due {
                sleep.as_mut().reset(due);
            }
            let now = Instant::now;
            tokio::select! {
                input = self.backend.next() => {
                    match input.context("the packet thread has ended")? {
                        Input::Notice(notice) => self.notice(notice),
                        Input::Datagram(datagram) => self.datagram(&datagram),
                    }
                }
                Some(answer) = answers.recv() => self.keying.handle_answer(now(), &answer),
                Some((ike, signature)) = signatures.recv() => {
                    self.keying.handle_signature(now(), ike, signature);
                }
                Some((request, answer)) = requests.recv() => self.request(request, answer),
                changed = self.changes.next() => {
                    changed.context("listening for address changes")?;
                    self.follow_addresses();
                }
                () = &mut sleep => self.timeout(),
                Some(event) = seldom.recv() => match event {
                    Seldom::NewKeys => {
                        self.keying.set_ticket_keys(&view::ticket_keys(&self.config));
                    }
                    Seldom::Reconcile => self.reconcile(),
                    Seldom::Alive => self.notify.alive(),
                    Seldom::HangUp => drop(self.reload()),
                    Seldom::End => break,
                },
            }
        }
        self.notify.stopping();
        // Whoever calls while we are away finds nobody, and is called when we are back.
        let remembered = self.remembered();
        self.memory.close(remembered).await;
        self.say_goodbye().await;
        self.tickets.replace(&self.keying.tickets(Instant::now()));
        Ok(())
    }

    /// When [`Self::timeout`] is to be called.
    fn due(&self) -> Instant {
        let keying = self.keying.poll_timeout().map(|(at, _)| at);
        let look = self.looks.front().map(|look| look.until);
        let call = self.calls.front().map(|call| call.until);
        let all = [keying, look, call, self.memory.due(), self.backend.due()];
        all.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + IDLE)
    }

    /// Does what is due.
    fn timeout(&mut self) {
        let now = Instant::now();
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        self.keying.handle_timeout(now);
        if is_due(self.memory.due()) {
            self.memory.write(self.remembered());
        }
        if is_due(self.backend.due())
            && let Err(error) = self.backend.handle_timeout(now)
        {
            tracing::error!("{error}");
        }
    }

    /// What a restart is to find.
    fn remembered(&self) -> Vec<Remembered> {
        if self.config.node.remember_peers { self.keying.remembered() } else { Vec::new() }
    }

    /// Deletes everything at both ends, and gives the peers a moment to answer.
    async fn say_goodbye(&mut self) {
        self.keying.close_all(Instant::now());
        let patience = tokio::time::sleep(GOODBYE);
        tokio::pin!(patience);
        loop {
            self.carry_out_all();
            if self.keying.is_idle() {
                break;
            }
            let due =
                self.keying.poll_timeout().map_or_else(|| Instant::now() + IDLE, |(at, _)| at);
            tokio::select! {
                Some(datagram) = self.backend.datagram() => self.datagram(&datagram),
                () = tokio::time::sleep_until(due.into()) => {
                    self.keying.handle_timeout(Instant::now());
                }
                () = &mut patience => break,
            }
        }
        self.keying.shutdown(Instant::now());
        self.carry_out_all();
    }

    fn datagram(&mut self, datagram: &Datagram) {
        let (local, remote, octets) = datagram;
        let (local, remote) = (*local, *remote);
        self.keying.handle_datagram(Instant::now(), ike::Datagram { local, remote, octets });
    }

    fn notice(&mut self, notice: Notice) {
        if let Notice::LastUse { .. } = notice
            && let Some(look) = self.looks.iter_mut().find(|look| look.awaited > 0)
        {
            look.awaited -= 1;
        }
        self.keying.handle_notice(Instant::now(), notice);
    }

    fn carry_out_all(&mut self) {
        while let Some(output) = self.keying.poll_output() {
            self.carry_out(output);
        }
        self.change_classes();
        self.backend.ordered();
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Command(Command::SetClass { prefix, class }) => {
                self.classes.push((prefix, Ports::ANY, Some(class)));
            }
            Output::Command(Command::SetPortClass { prefix, ports, class }) => {
                self.classes.push((prefix, ports, Some(class)));
            }
            Output::Command(Command::ClearClass { prefix }) => {
                self.classes.push((prefix, Ports::ANY, None));
            }
            Output::Command(Command::ClearPortClass { prefix, ports }) => {
                self.classes.push((prefix, ports, None));
            }
            Output::Command(command) => {
                self.change_classes();
                if let Err(error) = self.backend.obey(command) {
                    tracing::error!("{error}");
                }
            }
            Output::Ticket(ticket) => {
                self.tickets.keep(&ticket);
                if self.tickets.is_long() {
                    self.tickets.replace(&self.keying.tickets(Instant::now()));
                }
            }
            Output::Transmit(t) => self.backend.transmit(t.local, t.remote, t.marker, &t.octets),
            Output::Query { name, for_visitor } => {
                let (resolver, answers) = (Arc::clone(&self.resolver), self.answers_in.clone());
                let visitors = for_visitor.then(|| Arc::clone(&self.visitors));
                self.dns.spawn(async move {
                    // Never closed, so that waiting for it cannot fail.
                    let _permit = match visitors {
                        Some(visitors) => visitors.acquire_owned().await.ok(),
                        None => None,
                    };
                    // The loop ends before its channels do: nobody misses this answer then.
                    let _ = answers.send(resolver.answer(&name).await).await;
                });
            }
            Output::Sign(job) => {
                if let Some((ike, signature)) = self.signers.sign(job) {
                    self.keying.handle_signature(Instant::now(), ike, signature);
                }
            }
            Output::Report(report) => {
                if let What::Keyed { .. } | What::Expired = report.what {
                    self.memory.touch();
                }
                self.tell(&report);
            }
        }
    }

    /// Carries out the changes of classes that have gathered, in one.
    fn change_classes(&mut self) {
        if self.classes.is_empty() {
            return;
        }
        let changes = std::mem::take(&mut self.classes);
        if let Err(error) = self.backend.change_classes(&changes) {
            tracing::error!("{error}");
        }
    }

    fn tell(&mut self, report: &keying::Report) {
        view::log(report);
        // Nobody has to listen.
        if self.trace.is_none() && self.events.receiver_count() == 0 {
            return;
        }
        let event = view::event(report);
        if let Some(trace) = &mut self.trace {
            // A full disk must not stop the node.
            let _ = std::io::Write::write_all(trace, event.as_bytes());
        }
        let _ = self.events.send(event);
    }

    /// Addresses or routes changed: the data plane follows, and keying learns which are ours.
    fn follow_addresses(&mut self) {
        let began = Instant::now();
        if let Err(error) = self.backend.refresh() {
            tracing::error!("{error}");
        }
        self.changes.took(began.elapsed());
        let addresses = reachable(&self.backend);
        self.keying.handle_addresses(Instant::now(), addresses);
        self.relocate();
    }

    /// Makes the kernel hold what it must, whatever others have done to it.
    fn reconcile(&mut self) {
        if let Err(error) = self.backend.reconcile() {
            tracing::error!("{error}");
        }
    }

    /// What used an address that is gone goes on from the one that leads to its peer now. If none
    /// does yet, the change that brings one brings us here again.
    fn relocate(&mut self) {
        for (ike, peer) in self.keying.stranded() {
            if let Some(local) = kernel::source_towards(peer, self.config.node.mark) {
                self.keying.relocate(Instant::now(), ike, local);
            }
        }
    }

    fn request(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        if let Request::Status | Request::Explain { .. } = request {
            return self.look(request, answer);
        }
        if let Request::Call { address, source } = request {
            return self.call(address, source, answer);
        }
        let _ = answer.send(self.answer(request));
    }

    /// Calls; the answer waits until that is decided.
    fn call(&mut self, to: IpAddr, source: Option<IpAddr>, answer: oneshot::Sender<Answer>) {
        match self.begin_call(to, source) {
            Ok(flow) => {
                let until = Instant::now() + control::CALL_PATIENCE;
                self.calls.push_back(Call { flow, answer, until });
            }
            Err(why) => {
                let _ = answer.send(serde_json::json!({ "error": format!("{to}: {why}") }).into());
            }
        }
    }

    fn begin_call(&mut self, to: IpAddr, source: Option<IpAddr>) -> Result<Flow, String> {
        let source = source.or_else(|| kernel::source_towards(to, self.config.node.mark));
        let source = source.ok_or("no route leads there")?;
        let flow = Flow::new(source, to).ok_or("source and destination are of two families")?;
        let own = view::is_reachable(to) && self.backend.local_addresses().contains(&to);
        if !own
            && self.keying.connection_of(flow).is_none()
            && let Some(why) = view::goes_past(self.backend.left_alone(to), to)
        {
            return Err(why.to_owned());
        }
        let decided = self.keying.next_packet_of(flow);
        if matches!(decided, NextPacket::Clear | NextPacket::Refused) {
            // Of whatever that rests on: the destination, its gateways, the source.
            self.resolver.forget(None);
        }
        self.keying.call_by_hand(Instant::now(), flow).map_err(|why| why.to_string())?;
        Ok(flow)
    }

    /// Answers the calls that are decided, or have been waited for long enough.
    fn answer_calls(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let (now, keying) = (Instant::now(), &self.keying);
        let waiting = std::mem::take(&mut self.calls);
        for call in waiting {
            let next = keying.next_packet_of(call.flow);
            if next == NextPacket::Held && call.until > now {
                self.calls.push_back(call);
                continue;
            }
            let _ = call.answer.send(view::called(call.flow, next).into());
        }
    }

    fn answer(&mut self, request: Request) -> Answer {
        let now = Instant::now();
        match request {
            Request::Status => return view::status(&self.keying, &self.backend, now),
            Request::Explain { address } => {
                let left_alone = self.backend.left_alone(address);
                view::explanation(&self.keying.explain(now, address), left_alone)
            }
            Request::Peers => return view::peers(&self.keying, now),
            Request::Reload => self.reload(),
            Request::Guard { up } => match self.backend.set_guard(up) {
                Ok(()) => serde_json::json!({ "guard": up }),
                Err(error) => serde_json::json!({ "error": error.to_string() }),
            },
            Request::Forget { address } => {
                self.resolver.forget(Some(&dnskeys::Name::reverse(address)));
                self.keying.forget(now, address);
                serde_json::json!({ "forgotten": address.to_string() })
            }
            // Answered elsewhere: later, and by the socket itself.
            Request::Call { .. } | Request::Events => serde_json::Value::Null,
        }
        .into()
    }

    /// Reads the configuration and the policy groups anew; whatever is wrong with them leaves the
    /// old ones in force.
    fn reload(&mut self) -> serde_json::Value {
        self.reread().unwrap_or_else(|error| {
            tracing::error!("{error}; the old ones stay in force");
            serde_json::json!({ "error": format!("{error}; the old ones stay in force") })
        })
    }

    fn reread(&mut self) -> Result<serde_json::Value, config::Error> {
        let new = self.config.reread()?;
        let config = self.config.following(&new)?;
        let ((groups, told), connections) = (config.groups_and_warnings()?, config.connections()?);
        config.check_pool_against(self.backend.local_addresses())?;
        let restart = self.config.restart_for(&new);
        let warning = hostkey::warning(&new, self.signers.public());
        for warning in &told {
            tracing::warn!("{warning}");
        }
        let now = Instant::now();
        if config.serve != self.config.serve {
            if let Err(error) = self.backend.set_served(config.served()) {
                tracing::error!("{error}");
            }
            self.keying.handle_served(now, config.served());
        }
        let done = self.keying.handle_configuration(now, groups, connections, config.pool());
        self.config = config;
        // What is wanted has been said, and is compared with what stands.
        self.carry_out_all();
        self.reconcile();
        warn_of_forwarding(&self.config);
        tracing::info!(
            "configuration read anew: {} prefixes changed, {} removed, {} flows start anew; {} \
             connections new, {} gone; {} leases ended",
            done.changed,
            done.removed,
            done.flows,
            done.connections_new,
            done.connections_gone,
            done.leases_ended
        );
        if !restart.is_empty() {
            tracing::warn!("changed, and in force after a restart only: {}", restart.join(", "));
        }
        if let Some(warning) = &warning {
            tracing::warn!("{warning}");
        }
        Ok(serde_json::json!({
            "changed": done.changed,
            "removed": done.removed,
            "flows": done.flows,
            "connections_new": done.connections_new,
            "connections_gone": done.connections_gone,
            "leases_ended": done.leases_ended,
            "restart": restart,
            "warning": warning,
            "policy_warnings": told,
        }))
    }

    /// Counters live in the packet path: asks for them. The answer waits for them a moment, and
    /// the loop goes on meanwhile.
    fn look(&mut self, request: Request, answer: oneshot::Sender<Answer>) {
        match request {
            Request::Explain { address } => self.keying.ask_use_to(address),
            _ => self.keying.ask_use(),
        }
        let mut awaited = 0_usize;
        while let Some(output) = self.keying.poll_output() {
            awaited += usize::from(matches!(output, Output::Command(Command::AskUse(_))));
            self.carry_out(output);
        }
        self.backend.ordered_at_once();
        let until = Instant::now() + USE_PATIENCE;
        self.looks.push_back(Look { request, answer, awaited, until });
    }

    /// Answers the requests whose counters are there, or have been waited for long enough.
    fn answer_looks(&mut self) {
        let now = Instant::now();
        while self.looks.front().is_some_and(|look| look.awaited == 0 || look.until <= now) {
            let Some(look) = self.looks.pop_front() else { return };
            let answer = self.answer(look.request);
            let _ = look.answer.send(answer);
        }
    }
}

/// What comes so seldom that the loop waits for all of it in one place.
enum Seldom {
    /// It is to be looked whether tickets want another key.
    NewKeys,
    /// It is to be looked whether the kernel holds what it must.
    Reconcile,
    /// Who watches over us wants to hear that the loop goes round.
    Alive,
    /// SIGHUP.
    HangUp,
    /// SIGTERM or SIGINT.
    End,
}

/// Waits for it beside the loop.
fn seldom(mut signals: Signals, alive: Option<Duration>) -> mpsc::Receiver<Seldom> {
    let (into, out) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut new_keys = tokio::time::interval(NEW_KEYS);
        let mut reconcile = tokio::time::interval(RECONCILE);
        reconcile.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        reconcile.reset();
        let mut alive = alive.map(tokio::time::interval);
        loop {
            let event = tokio::select! {
                _ = new_keys.tick() => Seldom::NewKeys,
                _ = reconcile.tick() => Seldom::Reconcile,
                () = tick(&mut alive) => Seldom::Alive,
                _ = signals.hang_up.recv() => Seldom::HangUp,
                _ = signals.terminate.recv() => Seldom::End,
                _ = signals.interrupt.recv() => Seldom::End,
            };
            if into.send(event).await.is_err() {
                return;
            }
        }
    });
    out
}

/// A gateway needs a kernel that forwards.
fn warn_of_forwarding(config: &Config) {
    for ((needed, forwards), (family, key)) in
        config.needs_forwarding().into_iter().zip(kernel::forwards()).zip(FORWARDING)
    {
        if needed && !forwards {
            tracing::warn!("this machine does not forward {family}: set {key} = 1");
        }
    }
}

/// The next tick, if there are any.
async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// The file that `OE_NODE_TRACE` names: for seeing from the first moment on what `events` can only
/// tell once somebody listens.
fn trace_file() -> anyhow::Result<Option<std::fs::File>> {
    let Some(path) = std::env::var_os("OE_NODE_TRACE") else { return Ok(None) };
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    Ok(Some(file.with_context(|| format!("OE_NODE_TRACE: {}", path.display()))?))
}

/// Our addresses at which others can talk to us.
fn reachable(backend: &Backend) -> Vec<IpAddr> {
    backend.local_addresses().iter().copied().filter(|a| view::is_reachable(*a)).collect()
}

/// How often it is looked whether tickets want another key.
const NEW_KEYS: Duration = Duration::from_secs(3600);
/// How often it is looked whether the kernel holds what it must. Of most of what others do there it
/// tells at once, but not of all (routes that go with a link, policies).
const RECONCILE: Duration = Duration::from_secs(60);
/// What has to be switched on for a gateway.
const FORWARDING: [(&str, &str); 2] =
    [("IPv4", "net.ipv4.ip_forward"), ("IPv6", "net.ipv6.conf.all.forwarding")];
/// Inputs after which those who ask on the control socket get their turn: each costs up to a key
/// exchange, and a request needs a few turns.
const TURNS: usize = 4;
/// How long the loop sleeps when nothing is due.
const IDLE: Duration = Duration::from_secs(3600);
/// Questions to DNS on behalf of strangers, at once: a quarter of what the resolver takes, so that
/// ours find room.
const VISITOR_QUERIES: usize = 32;
/// Events an `events` listener may lag behind.
const EVENTS: usize = 4096;
/// How long peers may take to answer our Delete when we stop: one retransmission.
const GOODBYE: Duration = Duration::from_millis(1200);
/// How long `status` waits for counters.
const USE_PATIENCE: Duration = Duration::from_millis(50);
