//! Every transition under every kind of policy: what may be on the wire then, and what must not.
//!
//! West, and two hosts behind it, send marked packets all the time to as many addresses of east as
//! there are kinds of policy, by both families; each kind has a mark of its own. All wires are
//! searched for the marks, and so is what comes out of east's device: a packet that was seen there
//! and on no wire was encrypted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tests::node::{Node, Setup};
use tests::place::{self, Capture};

use crate::internet::{EAST, Internet, PATIENCE, WEST, can_run};

/// What becomes of the packets of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    /// They arrive, and not one is on a wire as it is.
    Encrypted,
    /// They arrive as they are.
    Clear,
    /// None is on a wire, and none arrives.
    Nothing,
    /// As they are until the peer has called, then encrypted.
    OnceCalled,
}
use Became::{Clear as C, Encrypted as E, Nothing as N, OnceCalled as O};

/// What happens, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transition {
    /// Everything was just started.
    Started,
    /// East forgets all its pairs, and says so with Deletes.
    Deleted,
    /// West's prefixes change their groups ([`Kind::moved`]), and its connection goes.
    Moved,
    /// And back.
    MovedBack,
    /// East ends in order, with Deletes, and answers nobody.
    PeerEnded,
    /// It starts anew, and west forgets what it had decided.
    PeerBack,
    /// West is killed.
    Killed,
    /// It starts anew.
    Back,
    /// It ends in order, and has a guard.
    StoppedGuarded,
    /// The guard goes.
    GuardDown,
    /// West starts anew.
    BackAgain,
}
use Transition as T;

/// A destination that stands for a kind of policy.
struct Kind {
    name: &'static str,
    /// The last octet of its address, in decimal and in the text of the IPv6 one.
    host: u8,
    /// Who sends to it.
    from: From,
    /// Whether its reverse record names east.
    published: bool,
    group: &'static str,
    /// Its group between [`T::Moved`] and [`T::MovedBack`].
    moved: &'static str,
    /// What becomes of its packets after each transition.
    became: [Became; 11],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    West,
    /// A host behind west whose record names west.
    Named,
    /// One that has no record.
    Mute,
}

const TRANSITIONS: [Transition; 11] = [
    T::Started,
    T::Deleted,
    T::Moved,
    T::MovedBack,
    T::PeerEnded,
    T::PeerBack,
    T::Killed,
    T::Back,
    T::StoppedGuarded,
    T::GuardDown,
    T::BackAgain,
];

const POC: &str = "private-or-clear";

fn kind(
    name: &'static str,
    host: u8,
    (from, published): (From, bool),
    [group, moved]: [&'static str; 2],
    became: [Became; 11],
) -> Kind {
    Kind { name, host, from, published, group, moved, became }
}

/// The table. A connection's destination is private without it, and as the other end still has the
/// connection, nobody gets there by opportunism meanwhile.
fn kinds() -> Vec<Kind> {
    let (key, none) = ((From::West, true), (From::West, false));
    let (served, mute) = ((From::Named, true), (From::Mute, true));
    vec![
        //                                                          deleted    peer   killed  guarded
        //                                                       started |  moved|  back |   back | down
        //                                                           |   |   |   back|   |   |   |   |   | back
        kind("private", 30, key, ["private", POC], [E, E, E, E, N, E, N, E, N, C, E]),
        kind("private, no key", 31, none, ["private", POC], [N, N, C, N, N, N, N, N, N, C, N]),
        kind(POC, 32, key, [POC, "private"], [E, E, E, E, C, E, C, E, C, C, E]),
        kind("poc, no key", 33, none, [POC, "block"], [C, C, N, C, C, C, C, C, C, C, C]),
        kind(
            "clear-or-private",
            34,
            key,
            ["clear-or-private", "private"],
            [O, O, E, E, C, O, C, O, C, C, O],
        ),
        kind("clear", 35, key, ["clear", "private"], [C, C, E, C, C, C, C, C, C, C, C]),
        kind("block", 36, key, ["block", "clear"], [N, N, C, N, N, N, N, N, N, C, N]),
        kind("connection", 37, key, ["private", "private"], [E, E, N, E, N, E, N, E, N, C, E]),
        kind("served, private", 38, served, ["private", POC], [E, E, E, E, N, E, N, E, N, C, E]),
        kind("served, poc", 39, served, [POC, "private"], [E, E, E, E, C, E, C, E, C, C, E]),
        kind("mute, private", 40, mute, ["private", "block"], [N, N, N, N, N, N, N, N, N, C, N]),
        kind("mute, poc", 41, mute, [POC, "private"], [C, C, N, C, C, C, C, C, C, C, C]),
    ]
}

impl Kind {
    fn addresses(&self) -> [String; 2] {
        [format!("198.51.100.{}", self.host), format!("2001:db8:2::{}", self.host)]
    }
}

/// A kind, and a family.
type Cell = (u8, u8);

/// A call that nobody answers is over by then.
const CALL: std::time::Duration = std::time::Duration::from_secs(9);

/// What every mark begins with.
const MARK: &[u8] = b"oe-cell-";

/// A capture, and how often each mark is in it.
struct Counted {
    _capture: Capture,
    namespace: String,
    file: PathBuf,
    read: u64,
    /// The end of what was read, where a mark may have been cut.
    rest: Vec<u8>,
    seen: BTreeMap<Cell, usize>,
    asked: u8,
}

impl Counted {
    fn listen(internet: &Internet, host: &str) -> Self {
        let namespace = internet.namespace(host);
        let file = internet.directory.join(format!("{host}-cells.pcap"));
        let capture = Capture::start(&namespace, "any", &file);
        let (rest, seen) = (Vec::new(), BTreeMap::new());
        Self { _capture: capture, namespace, file, read: 0, rest, seen, asked: 0 }
    }

    /// Marks until now.
    fn seen(&mut self) -> BTreeMap<Cell, usize> {
        // What was sent is in the file a little later: after this, all is that was sent before.
        self.asked = self.asked.wrapping_add(1);
        let ask = format!("echo oe-cell-{}-0. > /dev/udp/127.0.0.1/9", self.asked);
        let last = (self.asked, 0);
        let before = self.seen.get(&last).copied().unwrap_or_default();
        place::await_some("the capture is read", PATIENCE, || {
            let _ = place::run(&self.namespace, &["bash", "-c", &ask]);
            self.read();
            (self.seen.get(&last).copied().unwrap_or_default() > before).then_some(())
        });
        self.seen.clone()
    }

    fn read(&mut self) {
        let mut file = File::open(&self.file).unwrap();
        file.seek(SeekFrom::Start(self.read)).unwrap();
        let more = file.read_to_end(&mut self.rest).unwrap();
        self.read += u64::try_from(more).unwrap();
        let mut from = 0;
        // The longest mark has six octets behind the word.
        while let Some(at) = find(&self.rest, from).filter(|at| at + 14 <= self.rest.len()) {
            let text = String::from_utf8_lossy(&self.rest[at + MARK.len()..at + 14]).into_owned();
            let cell = text.split_once('.').and_then(|(cell, _)| {
                let (kind, family) = cell.split_once('-')?;
                Some((kind.parse().ok()?, family.parse().ok()?))
            });
            if let Some(cell) = cell {
                *self.seen.entry(cell).or_default() += 1;
            }
            from = at + MARK.len();
        }
        let keep = self.rest.len().saturating_sub(14).max(from);
        self.rest.drain(..keep);
    }
}

fn find(octets: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += octets.get(at..)?.iter().position(|octet| *octet == MARK[0])?;
        if octets[at..].starts_with(MARK) {
            return Some(at);
        }
        at += 1;
    }
}

/// Somebody who sends to all kinds that are his, all the time.
struct Sender {
    child: Child,
    count: PathBuf,
}

impl Sender {
    fn start(internet: &Internet, namespace: &str, kinds: &[&Kind]) -> Self {
        let count = internet.directory.join(format!("{namespace}-sent"));
        let lines: String = kinds
            .iter()
            .flat_map(|kind| {
                let families = [4, 6].into_iter().zip(kind.addresses());
                families.map(|(family, to)| {
                    format!("echo oe-cell-{}-{family}...... > /dev/udp/{to}/9\n", kind.host)
                })
            })
            .collect();
        let script = format!("while :; do {lines} echo >> {}; sleep 0.04; done", count.display());
        let child = place::command(namespace, &["bash", "-c", &script])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, count }
    }

    fn sent(&self, more: u64) {
        let sent = || fs::metadata(&self.count).map_or(0, |file| file.len());
        let until = sent() + more;
        place::await_some("marked packets are sent", PATIENCE, || (sent() >= until).then_some(()));
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The hosts behind west: with a record, and without.
const NAMED: [&str; 2] = ["192.0.2.67", "2001:db8:1:1::67"];
const MUTE: [&str; 2] = ["192.0.2.66", "2001:db8:1:1::66"];

struct Scene {
    kinds: Vec<Kind>,
    senders: Vec<Sender>,
    /// What is accepted needs somebody who calls: these send from there to west.
    callers: Vec<Child>,
    wires: Counted,
    arrived: Counted,
    nodes: [Option<Node>; 2],
    setups: [Setup; 2],
    inner: String,
    internet: Internet,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.senders.clear();
        for caller in &mut self.callers {
            let _ = caller.kill();
            let _ = caller.wait();
        }
        self.nodes = [None, None];
        let _ = Command::new("ip").args(["netns", "del", &self.inner]).status();
    }
}

impl Scene {
    fn up() -> Self {
        let kinds = kinds();
        let mut internet = Internet::new();
        let mut records = Vec::new();
        for (host, addresses) in [("west", WEST), ("east", EAST)] {
            records.extend(addresses.map(|a| (host, a.to_owned(), a.to_owned())));
        }
        let named = NAMED.into_iter().zip(WEST);
        records.extend(named.map(|(own, by)| ("west", own.to_owned(), by.to_owned())));
        for kind in kinds.iter().filter(|kind| kind.published) {
            // Whom east calls for an address it calls from that address.
            let calls = kind.became.contains(&O);
            let own = kind.addresses().into_iter().zip(EAST);
            records.extend(own.map(|(own, by)| {
                let by = if calls { own.clone() } else { by.to_owned() };
                ("east", own, by)
            }));
        }
        let records: Vec<_> = records.iter().map(|(key, own, by)| (*key, &**own, &**by)).collect();
        internet.serve_records(&records);
        let inner = build(&internet, &kinds);
        let setups = setups(&internet);
        let nodes = ["east", "west"].map(|host| {
            let setup = &setups[usize::from(host == "east")];
            if host == "west" {
                write_groups(setup, &kinds, false);
            }
            Some(setup.start(&internet.namespace(host)))
        });
        let [east, west] = nodes;
        let wires = Counted::listen(&internet, "hub");
        let arrived = Counted::listen(&internet, "east");
        let of = |wanted: &[From]| kinds.iter().filter(|k| wanted.contains(&k.from)).collect();
        let (own, behind): (Vec<_>, Vec<_>) = (of(&[From::West]), of(&[From::Named, From::Mute]));
        let senders = vec![
            Sender::start(&internet, &internet.namespace("west"), &own),
            Sender::start(&internet, &inner, &behind),
        ];
        let called = kinds.iter().filter(|kind| kind.became.contains(&O));
        let callers = called
            .flat_map(|kind| kind.addresses().into_iter().zip(WEST))
            .map(|(own, west)| {
                let words = ["ping", "-n", "-q", "-i", "0.5", "-I", &own, west];
                let mut command = place::command(&internet.namespace("east"), &words);
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        Self {
            kinds,
            senders,
            callers,
            wires,
            arrived,
            nodes: [west, east],
            setups,
            inner,
            internet,
        }
    }

    fn west(&self) -> &Node {
        self.nodes[0].as_ref().unwrap()
    }

    fn start(&mut self, index: usize) {
        let namespace = self.internet.namespace(["west", "east"][index]);
        self.nodes[index] = Some(self.setups[index].start(&namespace));
    }

    fn reload(&mut self, moved: bool) {
        write_groups(&self.setups[0], &self.kinds, moved);
        let connection = connection(0);
        let more = self.setups[0].more.replace(&connection, "");
        self.setups[0].more = if moved { more } else { more + &connection };
        let _ = self.setups[0].write();
        let done = self.west().ask(r#"{"request":"reload"}"#);
        assert!(done["changed"].as_u64() >= Some(1), "{done}");
    }

    fn guard(&self, what: &str) {
        let file = self.setups[0].directory.join("oe-node.toml").display().to_string();
        let binary = tests::oe_node().display().to_string();
        let words = [&binary, "guard", what, "--config", &file];
        place::ok(&self.internet.namespace("west"), &words);
    }

    fn forget_at_east(&self) {
        let east = self.nodes[1].as_ref().unwrap();
        for address in WEST.into_iter().chain(NAMED) {
            let ask = format!(r#"{{"request":"forget","address":"{address}"}}"#);
            assert!(east.ask(&ask)["error"].is_null());
        }
    }

    fn go_through(&mut self, transition: Transition) {
        match transition {
            T::Started => {}
            T::Deleted => self.forget_at_east(),
            T::Moved => self.reload(true),
            T::MovedBack => self.reload(false),
            T::PeerEnded => assert!(self.nodes[1].take().unwrap().terminate().success()),
            T::PeerBack => {
                self.start(1);
                for address in self.kinds.iter().flat_map(Kind::addresses) {
                    let ask = format!(r#"{{"request":"forget","address":"{address}"}}"#);
                    let _ = self.west().ask(&ask);
                }
            }
            T::Killed => self.nodes[0].take().unwrap().kill(),
            T::Back | T::BackAgain => {
                self.start(0);
                self.forget_at_east();
            }
            T::StoppedGuarded => {
                self.guard("up");
                assert!(self.nodes[0].take().unwrap().terminate().success());
            }
            T::GuardDown => self.guard("down"),
        }
    }

    /// Goes through a transition; what was wrong with it.
    fn check(&mut self, number: usize) -> Vec<String> {
        let transition = TRANSITIONS[number];
        let before = self.wires.seen();
        self.go_through(transition);
        let after = (self.wires.seen(), self.arrived.seen());
        let mut wrong = self.await_all(number, &after);
        for sender in &self.senders {
            sender.sent(20);
        }
        let (wires, arrived) = (self.wires.seen(), self.arrived.seen());
        for (kind, cell) in cells(&self.kinds) {
            let of = |seen: &BTreeMap<Cell, usize>| seen.get(&cell).copied().unwrap_or_default();
            // What was not in the clear before was not meanwhile either.
            let was = number.checked_sub(1).map(|before| kind.became[before]);
            let from = if matches!(was, Some(C) | None) { &after.0 } else { &before };
            let leaked = of(&wires) - of(from);
            let came = of(&arrived) - of(&after.1);
            let became = kind.became[number];
            let said = format!("{transition:?}, {}, IPv{}", kind.name, cell.1);
            if matches!(became, E | N) && leaked > 0 {
                wrong.push(format!("{said}: {leaked} marked packets on a wire"));
            }
            if became == N && came > 0 {
                wrong.push(format!("{said}: {came} marked packets arrived"));
            }
        }
        wrong
    }

    /// Waits until what must become of the packets of each kind does.
    fn await_all(
        &mut self,
        number: usize,
        (wires, arrived): &(BTreeMap<Cell, usize>, BTreeMap<Cell, usize>),
    ) -> Vec<String> {
        let deadline = std::time::Instant::now() + PATIENCE / 2;
        let mut patience = std::time::Instant::now() + CALL;
        let (mut last, mut last_arrived) = (wires.clone(), arrived.clone());
        loop {
            self.senders.iter().for_each(|sender| sender.sent(6));
            let (now, now_arrived) = (self.wires.seen(), self.arrived.seen());
            let missing: Vec<String> = cells(&self.kinds)
                .filter(|(kind, cell)| {
                    let more = |now: &BTreeMap<Cell, usize>, then: &BTreeMap<Cell, usize>| {
                        now.get(cell).copied().unwrap_or_default()
                            > then.get(cell).copied().unwrap_or_default()
                    };
                    !match kind.became[number] {
                        E => more(&now_arrived, arrived),
                        C => more(&now, wires),
                        O => more(&now_arrived, &last_arrived) && !more(&now, &last),
                        N => true,
                    }
                })
                .map(|(kind, cell)| {
                    let (on, became) = (TRANSITIONS[number], kind.became[number]);
                    format!("{on:?}, {}, IPv{}: not {became:?}", kind.name, cell.1)
                })
                .collect();
            if missing.is_empty() || std::time::Instant::now() > deadline {
                return missing;
            }
            if std::time::Instant::now() > patience
                && missing.iter().all(|m| m.ends_with("OnceCalled"))
            {
                // East has called in vain meanwhile, and would not again for minutes.
                self.forget_at_east();
                patience += CALL;
            }
            (last, last_arrived) = (now, now_arrived);
        }
    }
}

fn cells(kinds: &[Kind]) -> impl Iterator<Item = (&Kind, Cell)> {
    kinds.iter().flat_map(|kind| [(kind, (kind.host, 4)), (kind, (kind.host, 6))])
}

/// The connection, as west (0) or east (1) has it.
fn connection(at: usize) -> String {
    let far = ["198.51.100.37", "2001:db8:2::37"];
    let ends = [(EAST[0], WEST, far, "trap"), (WEST[0], far, WEST, "accept")];
    let (gateway, local, remote, start) = ends[at];
    let own = [WEST[0], EAST[0]][at];
    format!(
        "[[connection]]\nname = \"net\"\ngateway = \"{gateway}\"\nremote-key = \"dns\"\n\
         local-subnets = {local:?}\nremote-subnets = {remote:?}\nstart = \"{start}\"\nlocal-address = \"{own}\"\n"
    )
}

fn setups(internet: &Internet) -> [Setup; 2] {
    let mut setups = ["west", "east"].map(|host| internet.setup(host));
    // Pairs are replaced all the time, and end if they are not.
    for (at, setup) in setups.iter_mut().enumerate() {
        setup.more = format!("[ike]\nchild-life = 20\n{}", connection(at));
    }
    setups[0].more = format!(
        "[[serve]]\nsubnet = \"192.0.2.64/26\"\n[[serve]]\nsubnet = \"2001:db8:1:1::/64\"\n{}",
        setups[0].more
    );
    setups
}

fn write_groups(setup: &Setup, kinds: &[Kind], moved: bool) {
    let mut files: BTreeMap<&str, String> = BTreeMap::from([(POC, "0.0.0.0/0\n::/0\n".to_owned())]);
    for group in ["private", "clear-or-private", "clear", "block"] {
        let _ = files.insert(group, String::new());
    }
    for kind in kinds {
        let group = if moved { kind.moved } else { kind.group };
        *files.entry(group).or_default() += &(kind.addresses().join("\n") + "\n");
    }
    let directory = setup.directory.join("policies");
    fs::create_dir_all(&directory).unwrap();
    for (group, lines) in files {
        fs::write(directory.join(group), lines).unwrap();
    }
}

/// The hosts behind west, east's addresses, and the ways between them; the hosts' namespace.
fn build(internet: &Internet, kinds: &[Kind]) -> String {
    let inner = format!("oe-cells-{}", std::process::id());
    let [west, east, hub] = ["west", "east", "hub"].map(|host| internet.namespace(host));
    let mut script = format!(
        "set -e\nip netns add {inner}\nip -n {inner} link set lo up\n\
         ip -n {inner} link add eth0 type veth peer name inner netns {west}\n\
         ip -n {inner} link set eth0 up\nip -n {west} link set inner up\n\
         ip -n {west} addr add 192.0.2.65/26 dev inner\n\
         ip -n {west} addr add 2001:db8:1:1::1/64 dev inner nodad\n\
         ip netns exec {west} sysctl -qw net.ipv4.ip_forward=1\n\
         ip netns exec {west} sysctl -qw net.ipv6.conf.all.forwarding=1\n\
         ip -n {west} link set lo up\nip -n {east} link set lo up\nip -n {hub} link set lo up\n\
         ip -n {hub} route add 192.0.2.64/26 via {}\n\
         ip -n {hub} route add 2001:db8:1:1::/64 via {}\n",
        WEST[0], WEST[1],
    );
    for [v4, v6] in [NAMED, MUTE] {
        script += &format!(
            "ip -n {inner} addr add {v4}/26 dev eth0\nip -n {inner} addr add {v6}/64 dev eth0 nodad\n"
        );
    }
    for kind in kinds {
        let [v4, v6] = kind.addresses();
        script += &format!(
            "ip -n {east} addr add {v4}/24 dev eth0\nip -n {east} addr add {v6}/64 dev eth0 nodad\n"
        );
        let source = match kind.from {
            From::West => continue,
            From::Named => NAMED,
            From::Mute => MUTE,
        };
        script += &format!(
            "ip -n {inner} route add {v4} via 192.0.2.65 src {}\n\
             ip -n {inner} route add {v6} via 2001:db8:1:1::1 src {}\n",
            source[0], source[1],
        );
    }
    let made = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(made.success());
    inner
}

/// Rules 6, 10, 31. P1, P2.
#[test]
fn every_transition_under_every_policy() {
    if !can_run("every_transition_under_every_policy") {
        return;
    }
    let mut scene = Scene::up();
    let mut wrong = Vec::new();
    for (number, transition) in TRANSITIONS.into_iter().enumerate() {
        let begun = std::time::Instant::now();
        wrong.extend(scene.check(number));
        eprintln!("{transition:?}: {:?}", begun.elapsed());
    }
    assert!(scene.west().happened("keyed") > 0, "no pair came to its end");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
