//! Hundreds of strangers call a node at once, and go on calling, while one established peer rekeys
//! and somebody asks on the control socket: how long do these two wait?

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ike::{
    ChildRequest, Credential, Datagram, Encapsulation, Event, Identity, Ike, Initiate, Mobike,
    Output, PublicKey,
};
use sa::{Mode, SaId, TrafficSelector};
use serde_json::{Value, json};
use tests::key::TestKey;
use tests::pairbed::PairBed;
use tests::place;

use crate::ours::Control;

/// What a load is made of.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Wanted {
    /// Strangers at once.
    pub(crate) strangers: usize,
    /// For so long, in seconds.
    pub(crate) seconds: u64,
    /// The strangers' private key.
    pub(crate) key: PathBuf,
    /// The node's private key, of which the public half is used.
    pub(crate) node_key: PathBuf,
    /// The node's control socket.
    pub(crate) control: PathBuf,
}

/// Measures under the load of so many.
pub(crate) fn measure(bits: &str, strangers: usize) -> io::Result<Value> {
    println!("{strangers} handshakes in flight, RSA-{bits}");
    let bed = PairBed::up("oeh", bits, strangers + 1);
    let mut setup = bed.setup("east");
    setup.quiet = true;
    // Callers have one socket each.
    setup.node = "encapsulation = \"auto\"\n".to_owned();
    let east = setup.start(&bed.namespace("east"));
    let own = std::env::current_exe()?.display().to_string();
    let text = |path: PathBuf| path.display().to_string();
    let (count, socket) = (strangers.to_string(), text(setup.socket()));
    let keys = [text(bed.key_file("west")), text(bed.key_file("east"))];
    let words = [own.as_str(), "load", &count, "5", &keys[0], &keys[1], &socket];
    let output = place::command(&bed.namespace("west"), &words).output()?;
    drop(east);
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(&said).map_err(|_| {
        io::Error::other(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
    })?;
    println!("  {} handshakes/s, {} failed", figures["handshakes_per_second"], figures["failed"]);
    for (what, name) in [
        ("control", "a request on the control socket"),
        ("control_alone", "the same without them"),
        ("rekey", "an established peer's rekey"),
        ("rekey_alone", "the same without them"),
        ("machine", "the machine wakes who sleeps"),
    ] {
        let of = |rank: &str| figures[what][rank].as_f64().unwrap_or_default();
        println!(
            "  {name:<32} median {:.1} ms, 95 % {:.1} ms, 99 % {:.1} ms, longest {:.1} ms, of {}",
            of("p50_ms"),
            of("p95_ms"),
            of("p99_ms"),
            of("max_ms"),
            figures[what]["count"]
        );
    }
    println!();
    Ok(figures)
}

/// Inside the strangers' namespace.
pub(crate) fn run(wanted: &Wanted) -> io::Result<()> {
    let key = TestKey::from_pem(&std::fs::read_to_string(&wanted.key)?);
    let node = TestKey::from_pem(&std::fs::read_to_string(&wanted.node_key)?).ike();
    let over = AtomicBool::new(false);
    let mut known = Known::establish(&key, &node)?;
    // Beside what is done, how long do a request and a rekey take?
    let mut beside = |work: &mut dyn FnMut() -> io::Result<()>| {
        over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let control = scope.spawn(|| ask_on(&wanted.control, &over));
            let rekeys = scope.spawn(|| known.rekey_on(&over));
            let machine = scope.spawn(|| Ok(wake_up_on(&over)));
            let done = work();
            over.store(true, Ordering::Relaxed);
            let joined = |waits: std::thread::ScopedJoinHandle<'_, io::Result<Vec<Duration>>>| {
                waits.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
            };
            let all = [joined(control), joined(rekeys), joined(machine)];
            done.and_then(|()| {
                let [control, rekeys, machine] = all;
                io::Result::Ok((ranks(control?), ranks(rekeys?), ranks(machine?)))
            })
        })
    };
    let (control_alone, rekey_alone, machine_alone) = beside(&mut || {
        std::thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    let (mut done, mut failed) = (0, 0);
    let (control, rekey, machine) = beside(&mut || {
        let end = Instant::now() + Duration::from_secs(wanted.seconds);
        (done, failed) = call_on(wanted.strangers, &key, &node, end)?;
        Ok(())
    })?;
    let figures = json!({
        "handshakes_per_second": done as f64 / wanted.seconds as f64,
        "failed": failed,
        "control": control,
        "rekey": rekey,
        "control_alone": control_alone,
        "rekey_alone": rekey_alone,
        "machine": machine,
        "machine_alone": machine_alone,
    });
    writeln!(io::stdout(), "{figures}")
}

/// The shape of many waits.
fn ranks(mut waits: Vec<Duration>) -> Value {
    waits.sort_unstable();
    let at = |part: usize| {
        let rank = (waits.len() * part / 100).min(waits.len().saturating_sub(1));
        waits.get(rank).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    json!({
        "count": waits.len(),
        "p50_ms": at(50),
        "p95_ms": at(95),
        "p99_ms": at(99),
        "max_ms": at(100),
    })
}

/// Asks on the control socket again and again; how long each answer took.
fn ask_on(control: &Path, over: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut waits = Vec::new();
    let mut control = Control::connect(control)?;
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        control.ask(r#"{"request":"explain","address":"203.0.113.9"}"#)?;
        waits.push(began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(waits)
}

/// Sleeps again and again; how much later than it should it woke each time. Whoever waits for
/// somebody else's answer waits for that too, whatever the other does.
fn wake_up_on(over: &AtomicBool) -> Vec<Duration> {
    const SLEEP: Duration = Duration::from_millis(5);
    let mut late = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(SLEEP);
        late.push(began.elapsed().saturating_sub(SLEEP));
    }
    late
}

/// One caller: a machine and a socket.
struct Caller {
    ike: Ike,
    socket: UdpSocket,
    n: usize,
}

impl Caller {
    fn new(n: usize, key: &TestKey) -> io::Result<Self> {
        let config = ike::Config {
            encapsulation: Encapsulation::WhenNatted,
            // Who knows it leaves port 500 for 4500: one socket more for each caller.
            mobike: Mobike::Off,
            retransmit_tries: 6,
            ..ike::Config::new(key.ike())
        };
        let mut seed = [0; 32];
        aws_lc_rs::rand::fill(&mut seed).map_err(io::Error::other)?;
        let socket = UdpSocket::bind((PairBed::west(n), IKE))?;
        Ok(Self { ike: Ike::new(config, seed, Instant::now()), socket, n })
    }

    fn call(&mut self, node: &PublicKey) {
        let (local, remote) = (PairBed::west(self.n), PairBed::east(0));
        let host = |address: IpAddr| vec![TrafficSelector::host(address)];
        let child = ChildRequest { local: host(local), remote: host(remote), mode: Mode::Tunnel };
        self.ike.initiate(
            Instant::now(),
            Initiate {
                local,
                remote,
                identity: Identity::Address(local),
                peer: Identity::Address(remote),
                keys: vec![Credential::Key(node.clone())],
                child,
                ask_address: None,
            },
        );
    }

    /// Takes in what has come.
    fn listen(&mut self) {
        while self.hear() {}
    }

    /// Takes in one datagram, if there is one.
    fn hear(&mut self) -> bool {
        let mut octets = [0; 4096];
        let Ok((len, remote)) = self.socket.recv_from(&mut octets) else { return false };
        let local = SocketAddr::new(PairBed::west(self.n), IKE);
        let octets = octets.get(..len).unwrap_or_default();
        self.ike.handle_datagram(Instant::now(), Datagram { local, remote, octets });
        true
    }

    /// Does what the machine wants; gives what happened.
    fn drain(&mut self, key: &TestKey) -> Vec<Event> {
        let mut events = Vec::new();
        if self.ike.poll_timeout().is_some_and(|(at, _)| at <= Instant::now()) {
            self.ike.handle_timeout(Instant::now());
        }
        while let Some(output) = self.ike.poll_output() {
            match output {
                Output::Transmit(sent) => {
                    let _ = self.socket.send_to(&sent.octets, sent.remote);
                }
                Output::Sign(job) => {
                    let signature = key.sign(job.scheme, &job.octets);
                    self.ike.handle_signature(Instant::now(), job.ike, Some(signature));
                }
                // Nobody calls us.
                Output::NeedPeer(_) | Output::NeedChild(_) => {}
                Output::Event(event) => events.push(event),
            }
        }
        events
    }
}

/// Calls from so many addresses at once; who is through hangs up and calls again. How many came
/// through, and how many did not.
fn call_on(
    count: usize,
    key: &TestKey,
    node: &PublicKey,
    end: Instant,
) -> io::Result<(usize, usize)> {
    let mut callers: Vec<Caller> =
        (1..=count).map(|n| Caller::new(n, key)).collect::<io::Result<_>>()?;
    for caller in &mut callers {
        caller.socket.set_nonblocking(true)?;
        caller.call(node);
        caller.drain(key);
    }
    let (mut done, mut failed) = (0, 0);
    while Instant::now() < end {
        for caller in &mut callers {
            caller.listen();
            for event in caller.drain(key) {
                match event {
                    Event::ChildUp(child) => {
                        done += 1;
                        caller.ike.close(Instant::now(), child.ike);
                        caller.drain(key);
                    }
                    Event::Ended { why, .. } => {
                        failed += usize::from(why != ike::End::Closed);
                        caller.call(node);
                        caller.drain(key);
                    }
                    _ => {}
                }
            }
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok((done, failed))
}

/// The peer that was there before.
struct Known<'a> {
    caller: Caller,
    child: SaId,
    key: &'a TestKey,
}

impl<'a> Known<'a> {
    fn establish(key: &'a TestKey, node: &PublicKey) -> io::Result<Self> {
        let mut caller = Caller::new(0, key)?;
        caller.socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        caller.call(node);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            for event in caller.drain(key) {
                if let Event::ChildUp(child) = event {
                    return Ok(Self { caller, child: child.id, key });
                }
            }
            caller.listen();
        }
        Err(io::Error::other("the node does not answer"))
    }

    /// Rekeys again and again; how long each took.
    fn rekey_on(&mut self, over: &AtomicBool) -> io::Result<Vec<Duration>> {
        let mut waits = Vec::new();
        self.caller.socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            self.caller.ike.rekey_child(began, self.child);
            let replaced = self.until(began + PATIENCE, |event, child| match event {
                Event::ChildUp(new) if new.rekeys == Some(child) => Some(new.id),
                _ => None,
            });
            let Some(new) = replaced else {
                return Err(io::Error::other("a rekey was not answered"));
            };
            waits.push(began.elapsed());
            // The old one goes before the next begins.
            let _ = self.until(Instant::now() + PATIENCE, |event, child| {
                matches!(event, Event::ChildDown { sa, .. } if *sa == child).then_some(child)
            });
            self.child = new;
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(waits)
    }

    /// Goes on until something has happened.
    fn until(
        &mut self,
        end: Instant,
        wanted: impl Fn(&Event, SaId) -> Option<SaId>,
    ) -> Option<SaId> {
        while Instant::now() < end {
            let events = self.caller.drain(self.key);
            if let Some(found) = events.iter().find_map(|event| wanted(event, self.child)) {
                return Some(found);
            }
            // A wait for more than there is would count.
            self.caller.hear();
        }
        None
    }
}

const IKE: u16 = 500;
/// A loaded machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20);
