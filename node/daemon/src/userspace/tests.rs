//! Two planes in two network namespaces, with pairs installed by hand instead of by IKE.
#![allow(unsafe_code, reason = "setns(2) has no safe wrapper among our dependencies")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use sa::{
    About, Class, Command, Envelope, EspCipher, EspKey, Flow, Limits, Mode, Notice, Policy, SaId,
    SaPair, Spi, TrafficSelector, Trust,
};

use super::{Config, Plane, start, sys};
use crate::kernel::namespace::{PATIENCE, absent, await_some, has, run, skipped, try_run};

const MARK: u32 = 0x0e5;
const A: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const B: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// Further addresses, for inner packets of another family than the outer ones.
const A_INSIDE: [&str; 2] = ["10.1.0.1", "2001:db8:1::1"];
const B_INSIDE: [&str; 2] = ["10.2.0.1", "2001:db8:2::1"];

/// A namespace with a running plane.
struct Node {
    namespace: String,
    plane: Plane,
    own: [[&'static str; 2]; 2],
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip netns del {}", self.namespace));
    }
}

/// Runs something on a thread inside a namespace.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = format!("/run/netns/{namespace}");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(path).unwrap();
            // SAFETY: setns changes only the calling thread, and this thread was made for that.
            let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Two namespaces joined by a cable. `None`, and a word why, if this machine cannot.
fn two(test: &str, ipv6: bool) -> Option<[Node; 2]> {
    // SAFETY: geteuid reads a number and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        skipped("a network namespace needs root");
        return None;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        absent("this kernel has no TUN devices");
        return None;
    }
    if !has(&["ip", "ping", "sysctl"]) {
        return None;
    }
    let names = ["a", "b"].map(|side| format!("oep-{test}-{side}-{}", std::process::id()));
    for name in &names {
        run(&format!("ip netns add {name}"));
        run(&format!("ip -n {name} link set lo up"));
        if !ipv6 {
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
        }
    }
    let [a, b] = &names;
    run(&format!("ip -n {a} link add wire type veth peer name wire netns {b}"));
    let nodes = [(A, A_INSIDE, B, B_INSIDE), (B, B_INSIDE, A, A_INSIDE)];
    let mut up =
        names.into_iter().zip(nodes).map(|(namespace, (own, own_inside, far, far_inside))| {
            let ip = |line: &str| run(&format!("ip -n {namespace} {line}"));
            ip("link set wire up");
            ip(&format!("addr add {}/24 dev wire", own[0]));
            ip(&format!("addr add {}/32 dev lo", own_inside[0]));
            if ipv6 {
                ip(&format!("addr add {}/64 dev wire nodad", own[1]));
                ip(&format!("addr add {}/128 dev lo nodad", own_inside[1]));
            }
            let config = Config { mark: MARK, ..Config::default() };
            let plane = inside(&namespace, || start(config)).unwrap();
            for (family, want) in [("-4", true), ("-6", ipv6)] {
                if want {
                    let i = usize::from(family == "-6");
                    ip(&format!("{family} rule add not fwmark {MARK:#x} lookup 77 pref 50"));
                    ip(&format!(
                        "{family} route add {} dev ipsec0 src {} table 77",
                        far[i], own[i]
                    ));
                    let (far, own) = (far_inside[i], own_inside[i]);
                    ip(&format!("{family} route add {far} dev ipsec0 src {own} table 77"));
                }
            }
            for prefix in ["0.0.0.0/0", "::/0"] {
                let class = Class::Trap { fail_closed: false };
                plane.command(Command::SetClass { prefix: prefix.parse().unwrap(), class });
            }
            plane.wake();
            Node { namespace, plane, own: [own, own_inside] }
        });
    Some([up.next()?, up.next()?])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The pair as node 0 has it; `outer` is the family outside, everything of both goes inside.
fn pair(nodes: &[Node; 2], cipher: EspCipher, outer: usize, udp: bool) -> SaPair {
    let key = |fill: u8| EspKey::new(cipher, &vec![fill; cipher.keymat_len()]).unwrap();
    let port = if udp { 4500 } else { 0 };
    let address = |node: &Node| SocketAddr::new(ip(node.own[0][outer]), port);
    let all = |node: &Node| -> Vec<TrafficSelector> {
        node.own.iter().flatten().map(|a| TrafficSelector::host(ip(a))).collect()
    };
    let [near, far] = nodes;
    SaPair {
        id: SaId(1),
        cipher,
        spi_in: Spi::new(0x1111).unwrap(),
        spi_out: Spi::new(0x2222).unwrap(),
        key_in: key(1),
        key_out: key(2),
        esn: true,
        mode: Mode::Tunnel,
        local: all(near),
        remote: all(far),
        envelope: Envelope { local: address(near), remote: address(far), udp },
        limits: Limits::of_esp(true),
        trust: Trust::Configured,
        translation: None,
    }
}

fn mirrored(pair: &SaPair) -> SaPair {
    let Envelope { local, remote, udp } = pair.envelope;
    SaPair {
        spi_in: pair.spi_out,
        spi_out: pair.spi_in,
        key_in: pair.key_out.clone(),
        key_out: pair.key_in.clone(),
        local: pair.remote.clone(),
        remote: pair.local.clone(),
        envelope: Envelope { local: remote, remote: local, udp },
        ..pair.clone()
    }
}

impl Node {
    fn policy(&self, src: &str, dst: &str, policy: Policy) {
        let flow = Flow::new(ip(src), ip(dst)).unwrap();
        self.plane.command(Command::SetPolicy { flow, policy, about: About::Destination });
        self.plane.wake();
    }

    fn ping(&self, to: &str, more: &str) -> String {
        run(&format!("ip netns exec {} ping -W 5 {more} {to}", self.namespace))
    }

    /// The next notice that is wanted; others are skipped. Panics if none comes.
    fn notice(&mut self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let next = self.plane.notices.try_recv();
            match next.or_else(|why| self.plane.acquires.try_next().ok_or(why)) {
                Ok(notice) if wanted(&notice) => return notice,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("no such notice; {:?}", self.plane.counters());
    }
}

/// Installs the pair and encrypt policies for every address combination, both ways.
fn protect(nodes: &[Node; 2], pair: SaPair) {
    let [a, b] = nodes;
    b.plane.command(Command::AddSa(Box::new(mirrored(&pair))));
    a.plane.command(Command::AddSa(Box::new(pair)));
    for (near, far) in [(b, a), (a, b)] {
        for (src, dst) in near.own.iter().zip(far.own) {
            for (src, dst) in src.iter().zip(dst) {
                near.policy(src, dst, Policy::Encrypt(SaId(1)));
            }
        }
    }
}

/// Sends octets one way and back through TCP, and compares them.
fn tcp_echo(nodes: &[Node; 2], to: &str, octets: usize) {
    let [a, b] = nodes;
    let address = SocketAddr::new(ip(to), 7000);
    let sent: Vec<u8> = (0..=250u8).cycle().take(octets).collect();
    let listener = inside(&b.namespace, || TcpListener::bind(address)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = vec![0; octets];
            stream.read_exact(&mut received).unwrap();
            stream.write_all(&received).unwrap();
        });
        let mut stream =
            inside(&a.namespace, || TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(&sent).unwrap();
        });
        let mut received = vec![0; octets];
        stream.read_exact(&mut received).unwrap();
        assert!(received.iter().zip((0..=250u8).cycle()).all(|(a, b)| *a == b));
    });
}

/// Nothing in the clear: the wire carries protocol 50 or port 4500 only, and it was used.
fn went_through(nodes: &[Node; 2], at_least: u64) {
    for node in nodes {
        // The thread publishes when it goes to sleep.
        let counters = await_some("its counters", || {
            let counters = node.plane.counters();
            let fwd = counters.forwarding;
            (fwd.sealed >= at_least && fwd.opened >= at_least).then_some(counters)
        });
        let fwd = counters.forwarding;
        assert_eq!((fwd.passed, fwd.unauthentic, fwd.replayed), (0, 0, 0), "{counters:?}");
        assert_eq!((fwd.inner_selector, fwd.inner_owner), (0, 0), "{counters:?}");
        assert_eq!((counters.send_refused, counters.device_malformed), (0, 0), "{counters:?}");
    }
}

fn moves_everything(test: &str, cipher: EspCipher, outer: usize, udp: bool) {
    let Some(nodes) = two(test, true) else { return };
    protect(&nodes, pair(&nodes, cipher, outer, udp));
    for (to, from) in [(B, A), (B_INSIDE, A_INSIDE)] {
        for (to, from) in to.iter().zip(from) {
            nodes[0].ping(to, &format!("-c 3 -i 0.05 -I {from}"));
        }
    }
    for to in [B[0], B[1], B_INSIDE[1 - outer]] {
        tcp_echo(&nodes, to, 3_000_000);
    }
    went_through(&nodes, 1000);
}

#[test]
fn udp_over_ipv4() {
    moves_everything("u4", EspCipher::Aes128Gcm16, 0, true);
}

#[test]
fn udp_over_ipv6() {
    moves_everything("u6", EspCipher::ChaCha20Poly1305, 1, true);
}

#[test]
fn protocol_50_over_ipv4() {
    moves_everything("e4", EspCipher::Aes256Gcm16, 0, false);
}

#[test]
fn protocol_50_over_ipv6() {
    moves_everything("e6", EspCipher::Aes128Gcm16, 1, false);
}

#[test]
fn no_packet_is_lost_while_keys_are_asked_for() {
    let Some(mut nodes) = two("hold", true) else { return };
    let clear = [(A[0], B[0], false), (A[1], B[1], false)];
    let sealed = [(A_INSIDE[0], B_INSIDE[0], true), (A_INSIDE[1], B_INSIDE[1], true)];
    for (src, dst, seal) in clear.into_iter().chain(sealed) {
        let namespace = nodes[0].namespace.clone();
        let ping = std::thread::spawn(move || {
            try_run(&format!("ip netns exec {namespace} ping -c 1 -W 5 -I {src} {dst}"))
        });
        let flow = Flow::new(ip(src), ip(dst)).unwrap();
        nodes[0].notice(|n| matches!(n, Notice::Acquire { flow: f, .. } if *f == flow));
        std::thread::sleep(Duration::from_millis(200));
        // The answer needs the same decision at the other end.
        let policy = if seal { Policy::Encrypt(SaId(1)) } else { Policy::Pass };
        if seal {
            let pair = pair(&nodes, EspCipher::Aes128Gcm16, 0, true);
            nodes[1].plane.command(Command::AddSa(Box::new(mirrored(&pair))));
            nodes[0].plane.command(Command::AddSa(Box::new(pair)));
        }
        nodes[1].policy(dst, src, policy);
        nodes[0].policy(src, dst, policy);
        let (ok, output) = ping.join().unwrap();
        assert!(ok, "{output}");
    }
    nodes[1].notice(|n| *n == Notice::FirstPacket(SaId(1)));
    let counters = await_some("all four are counted", || {
        let counters = nodes[0].plane.counters().forwarding;
        (counters.released >= 4).then_some(counters)
    });
    assert_eq!((counters.released, counters.hold_expired), (4, 0), "{counters:?}");
}

#[test]
fn a_denied_packet_is_answered() {
    let Some(nodes) = two("deny", true) else { return };
    for family in 0..2 {
        nodes[0].policy(A[family], B[family], Policy::Deny);
        let line = format!("ip netns exec {} ping -c 1 -W 2 {}", nodes[0].namespace, B[family]);
        let (ok, output) = try_run(&line);
        assert!(!ok && output.contains("rohibited") || output.contains("iltered"), "{output}");
    }
}

#[test]
fn too_large_a_packet_is_answered() {
    let Some(nodes) = two("mtu", true) else { return };
    // Over IPv6 an inner packet of the device's own MTU just fits; after the peer's way has
    // become narrower, the sender is told.
    protect(&nodes, pair(&nodes, EspCipher::Aes128Gcm16, 1, true));
    let size = 1418 - 28;
    nodes[0].ping(B[0], &format!("-c 1 -M do -s {size}"));
    let line = format!(
        "ip netns exec {} ping -c 1 -W 1 -M do -s {} {}",
        nodes[0].namespace,
        size + 1,
        B[0]
    );
    assert!(!try_run(&line).0);
}

#[test]
fn a_narrow_wire_is_no_black_hole() {
    for (test, outer, udp) in [("mtu4", 0, true), ("mtu6", 1, true), ("mtu50", 0, false)] {
        let Some(nodes) = two(test, true) else { return };
        for node in &nodes {
            run(&format!("ip -n {} link set wire mtu 1400", node.namespace));
        }
        protect(&nodes, pair(&nodes, EspCipher::Aes128Gcm16, outer, udp));
        nodes[0].ping(B[0], "-c 1 -M do -s 1390");
        tcp_echo(&nodes, B[0], 500_000);
    }
}

/// Puts a router between the two, whose link to B takes `mtu` octets only: it complains about what
/// does not fit, or cuts it up if it may.
fn narrow_middle(nodes: &[Node; 2], mtu: u32) -> Router {
    let router = format!("{}-r", nodes[0].namespace);
    run(&format!("ip netns add {router}"));
    run(&format!("ip -n {router} link set lo up"));
    let forward = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];
    run(&format!("ip netns exec {router} sysctl -qw {}", forward.join(" ")));
    for (i, node) in nodes.iter().enumerate() {
        let (name, far) = (&node.namespace, [B, A][i]);
        // Beside the wire there is a longer way; the addresses stay.
        run(&format!("ip -n {name} link add long type veth peer name to{i} netns {router}"));
        run(&format!("ip -n {name} link set long up"));
        run(&format!("ip -n {router} link set to{i} up"));
        run(&format!("ip -n {router} addr add 10.9.{i}.1/24 dev to{i}"));
        run(&format!("ip -n {router} addr add 2001:db8:9:{i}::1/64 dev to{i} nodad"));
        run(&format!("ip -n {name} addr add 10.9.{i}.2/24 dev long"));
        run(&format!("ip -n {name} addr add 2001:db8:9:{i}::2/64 dev long nodad"));
        let own = node.own[0];
        run(&format!("ip -n {name} route add {}/32 via 10.9.{i}.1 src {}", far[0], own[0]));
        let via6 = format!("via 2001:db8:9:{i}::1");
        run(&format!("ip -n {name} -6 route add {}/128 {via6} src {}", far[1], own[1]));
        run(&format!("ip -n {router} route add {}/32 via 10.9.{i}.2", own[0]));
        run(&format!("ip -n {router} -6 route add {}/128 via 2001:db8:9:{i}::2", own[1]));
    }
    run(&format!("ip -n {router} link set to1 mtu {mtu}"));
    run(&format!("ip -n {} link set long mtu {mtu}", nodes[1].namespace));
    Router(router)
}

/// A router's namespace.
struct Router(String);

impl Router {
    /// Packets that it had to cut up.
    fn cut(&self) -> u64 {
        let text = run(&format!("ip netns exec {} cat /proc/net/snmp", self.0));
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|name| name == "FragOKs").unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip netns del {}", self.0));
    }
}

#[test]
fn a_narrow_place_on_the_way_is_learned_of_and_told() {
    for (test, outer, udp) in [("way4", 0, true), ("way6", 1, true), ("way50", 0, false)] {
        let Some(nodes) = two(test, true) else { return };
        let router = narrow_middle(&nodes, 1400);
        protect(&nodes, pair(&nodes, EspCipher::Aes128Gcm16, outer, udp));
        let narrowed = |node: &Node| {
            std::thread::sleep(Duration::from_millis(20));
            node.plane.counters().forwarding.path_narrowed
        };
        // Nothing is lost before it is known, and traffic makes it known at either end: A by the
        // router's word, B because its own link says so.
        let end = Instant::now() + Duration::from_secs(20);
        while narrowed(&nodes[0]) == 0 || narrowed(&nodes[1]) == 0 {
            assert!(Instant::now() < end, "{:?}", nodes.each_ref().map(narrowed));
            tcp_echo(&nodes, B[0], 200_000);
        }
        // From then on nothing needs cutting: TCP has been told of its segments' size.
        tcp_echo(&nodes, B[0], 200_000);
        let before = router.cut();
        tcp_echo(&nodes, B[0], 1_000_000);
        if outer == 0 {
            assert_eq!(router.cut(), before, "{test}");
        }
        // Whoever insists hears the size that fits: no more than what fits 1400 outside.
        let line =
            format!("ip netns exec {} ping -c 1 -W 2 -M do -s 1380 {}", nodes[0].namespace, B[0]);
        let (ok, said) = try_run(&line);
        let mtu = said.split("mtu").nth(1).and_then(|rest| {
            rest.trim_start_matches(['=', ' ']).split(|c: char| !c.is_ascii_digit()).next()
        });
        let mtu: u32 = mtu.and_then(|text| text.parse().ok()).unwrap_or_default();
        assert!(!ok && (1280..1400).contains(&mtu), "{test}: {said}");
        let counters = nodes[0].plane.counters().forwarding;
        assert_eq!(counters.path_hint_refused, 0, "{counters:?}");
    }
}

/// gotatun 0.7.2.
#[test]
fn datagrams_of_any_size_are_survived() {
    let Some(nodes) = two("odd", true) else { return };
    protect(&nodes, pair(&nodes, EspCipher::Aes128Gcm16, 0, true));
    let socket = inside(&nodes[0].namespace, || UdpSocket::bind((A[0], 0))).unwrap();
    let mark = libc::c_int::try_from(MARK).unwrap();
    // What is marked does not go through the device.
    // SAFETY: the option takes an int, whose size is given.
    let marked = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_MARK);
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const mark).cast(), 4)
    };
    assert_eq!(marked, 0);
    let sizes = (0..100).chain((100..65_507).step_by(997)).chain([65_507]);
    let spi = 0x2222u32.to_be_bytes();
    for size in sizes {
        let mut octets = vec![0x5a; size];
        let len = size.min(4);
        octets[..len].copy_from_slice(&spi[..len]);
        for port in [500, 4500] {
            socket.send_to(&octets, (B[0], port)).unwrap();
        }
    }
    nodes[0].ping(B[0], "-c 1");
    await_some("they are counted", || {
        let counters = nodes[1].plane.counters().forwarding;
        (counters.unauthentic > 100 && counters.opened >= 1).then_some(())
    });
}

/// A Linux kernel at the other end seals whole datagrams and leaves it to IP to cut them up: not even
/// the first that is longer than any link's packet is lost.
#[test]
fn a_long_packet_among_ordinary_ones_arrives_whole() {
    let into = UdpSocket::bind("127.0.0.1:0").unwrap();
    let out = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (room, from) = (1664, out.local_addr().unwrap());
    let mut arena = vec![0; sys::room_for_each(room)];
    for _ in 0..2 {
        let lengths = [10, room, room + 1, 0, 4080, 65_507, 1, room - 1];
        for (fill, len) in (1..).zip(lengths) {
            let mut octets = vec![fill; len];
            if let [.., first, last] = &mut octets[..] {
                (*first, *last) = (0xfe, 0xff);
            }
            out.send_to(&octets, into.local_addr().unwrap()).unwrap();
        }
        let mut packets = [None; sys::BATCH];
        let count = sys::receive_each(into.as_fd(), &mut arena, room, &mut packets).unwrap();
        assert_eq!(count, lengths.len());
        let mut seen = 0;
        for ((fill, len), packet) in (1..).zip(lengths).zip(packets) {
            let (start, received) = packet.unwrap();
            assert_eq!((received.len, received.remote), (len, from));
            let octets = &arena[start..start + len];
            let body = octets.strip_suffix(&[0xfe, 0xff]).unwrap_or(octets);
            assert!(body.iter().all(|octet| *octet == fill), "{len}");
            seen += body.len();
        }
        assert_eq!(seen, lengths.iter().sum::<usize>() - 2 * 6);
    }
}

#[test]
fn ike_and_esp_share_a_port() {
    let Some(mut nodes) = two("ike", true) else { return };
    for family in 0..2 {
        let address = |host: &str, port| SocketAddr::new(ip(host), port);
        for (port, marker) in [(500, false), (4500, true)] {
            let (from, to) = (address(A[family], port), address(B[family], port));
            // A keepalive, and something too short: neither is IKE.
            nodes[0].plane.transmit(from, address(B[family], 4500), false, &[0xff]);
            nodes[0].plane.transmit(from, to, marker, b"an IKE message");
            let end = Instant::now() + PATIENCE;
            let received = loop {
                assert!(Instant::now() < end, "nothing on {to}");
                match nodes[1].plane.datagrams.try_next() {
                    Some(datagram) => break datagram,
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            assert_eq!(received, (to, from, b"an IKE message".to_vec()));
        }
    }
    assert!(nodes[1].plane.datagrams.try_next().is_none());
    // What is neither is ESP, of nobody's SPI.
    let (from, to) = (SocketAddr::new(ip(A[0]), 4500), SocketAddr::new(ip(B[0]), 4500));
    nodes[0].plane.transmit(from, to, false, &[9; 80]);
    nodes[1].notice(|n| matches!(n, Notice::UnknownSpi { spi, .. } if spi.get() == 0x0909_0909));
}

/// The kernel joins what one sender sends before it knows whose it is: IKE that lies behind ESP, and
/// ESP behind IKE, both find where they belong.
#[test]
fn what_was_joined_is_sorted() {
    let Some(mut nodes) = two("join", true) else { return };
    let to = SocketAddr::new(ip(B[0]), 4500);
    let socket = inside(&nodes[0].namespace, || {
        let socket = UdpSocket::bind((A[0], 0)).unwrap();
        socket2::SockRef::from(&socket).set_mark(MARK).unwrap();
        socket
    });
    let from = socket.local_addr().unwrap();
    let ike = |n: u8| [&[0; 4][..], &[n; 40]].concat();
    let esp = |n: u8| vec![n; 44];
    for (n, joined) in [
        (1, [ike(1), esp(0x11), ike(1), esp(0x12)].concat()),
        (2, [esp(0x21), ike(2), esp(0x22), ike(2)].concat()),
    ] {
        sys::send(socket.as_fd(), to, None, 0, &joined, Some(44)).unwrap();
        let end = Instant::now() + Duration::from_secs(3);
        let (mut messages, mut spis) = (Vec::new(), Vec::new());
        while messages.len() < 2 || spis.len() < 2 {
            assert!(Instant::now() < end, "{n}: {messages:?} {spis:?}");
            messages.extend(nodes[1].plane.datagrams.try_next());
            if let Ok(Notice::UnknownSpi { spi, .. }) = nodes[1].plane.notices.try_recv() {
                spis.push(spi.get());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(messages, vec![(to, from, vec![n; 40]); 2]);
        let spi = |low: u32| (u32::from(n) << 4 | low) * 0x0101_0101;
        assert_eq!(spis, [spi(1), spi(2)]);
    }
}

/// Whoever looks at thousands of pairs at once gets all their counters, and what has to be heard
/// meanwhile is heard.
#[test]
fn a_look_at_many_pairs_crowds_out_no_notice() {
    const PAIRS: u32 = 6000;
    let Some(nodes) = two("look", false) else { return };
    let one = pair(&nodes, EspCipher::Aes128Gcm16, 0, true);
    let [mut a, _b] = nodes;
    for n in 1..=PAIRS {
        let spi = |side: u32| Spi::new(side << 16 | n).unwrap();
        let (spi_in, spi_out) = (spi(1), spi(2));
        let far = TrafficSelector::host(std::net::Ipv4Addr::from(0x0a80_0000 + n).into());
        let pair = SaPair { id: SaId(n.into()), spi_in, spi_out, remote: vec![far], ..one.clone() };
        a.plane.command(Command::AddSa(Box::new(pair)));
    }
    for n in 1..=PAIRS {
        a.plane.command(Command::AskUse(SaId(n.into())));
    }
    // Of a pair that is not there: it has ended, for all that its owner knows.
    a.policy(A[0], B[0], Policy::Encrypt(SaId(u64::from(PAIRS) + 1)));
    a.plane.wake_at_once();
    a.notice(|n| *n == Notice::HardExpire(SaId(u64::from(PAIRS) + 1)));
    let uses = std::iter::from_fn(|| a.plane.uses.try_recv().ok());
    assert_eq!(uses.filter(|n| matches!(n, Notice::LastUse { .. })).count(), PAIRS as usize);
    assert_eq!(a.plane.counters().control_behind, 0);
}

#[test]
fn it_works_without_ipv6() {
    let Some(nodes) = two("no6", false) else { return };
    protect(&nodes, pair(&nodes, EspCipher::Aes128Gcm16, 0, true));
    nodes[0].ping(B[0], "-c 1");
    tcp_echo(&nodes, B[0], 1_000_000);
}

#[test]
fn the_device_goes_with_the_plane() {
    let Some([a, mut b]) = two("stop", true) else { return };
    let line = format!("ip -n {} link show ipsec0", a.namespace);
    assert!(run(&line).contains("ipsec0"));
    let config = Config { mark: MARK, ..Config::default() };
    let taken = inside(&a.namespace, || start(config)).err().unwrap();
    assert!(format!("{taken:#}").contains("in use"), "{taken:#}");
    // Who deletes the device under the plane ends the plane, and its owner hears of it.
    run(&format!("ip -n {} link del ipsec0", b.namespace));
    while b.plane.notices.blocking_recv().is_some() {}
    let namespace = a.namespace.clone();
    // A node is taken apart by hand here, because its namespace must outlive its plane.
    let node = std::mem::ManuallyDrop::new(a);
    // SAFETY: the plane is read out once, and the node is never dropped.
    unsafe { std::ptr::read(&raw const node.plane) }.stop();
    assert!(!try_run(&line).0);
    run(&format!("ip netns del {namespace}"));
}

/// What a peer may no longer use is not received on from the order on: not what is sent after it, and
/// not what wakes the thread up to see it. (A pair that merely ends is heard for that once.)
#[test]
fn nothing_is_taken_on_a_pair_that_is_revoked() {
    let Some(nodes) = two("revoke", false) else { return };
    let [a, b] = &nodes;
    protect(&nodes, pair(&nodes, EspCipher::Aes256Gcm16, 0, true));
    let into = inside(&b.namespace, || UdpSocket::bind((B[0], 7000))).unwrap();
    into.set_read_timeout(Some(PATIENCE)).unwrap();
    let out = inside(&a.namespace, || UdpSocket::bind((A[0], 0))).unwrap();
    let mut room = [0; 16];
    out.send_to(b"before", (B[0], 7000)).unwrap();
    assert_eq!(into.recv(&mut room).unwrap(), 6);
    b.plane.command(Command::RevokeSa(SaId(1)));
    for _ in 0..20 {
        out.send_to(b"after", (B[0], 7000)).unwrap();
    }
    await_some("they are counted", || {
        let counted = b.plane.counters().forwarding;
        (counted.opened + counted.unknown_spi >= 21).then_some(())
    });
    assert_eq!(b.plane.counters().forwarding.opened, 1);
    into.set_nonblocking(true).unwrap();
    assert!(into.recv(&mut room).is_err(), "{room:?}");
}

/// Measures rather than tests: `OE_NODE_BENCH=1 cargo test --release -p daemon throughput --
/// --nocapture`. One TCP stream for some seconds over the cable itself, then through the planes.
#[test]
fn throughput() {
    if std::env::var_os("OE_NODE_BENCH").is_none() {
        absent("set OE_NODE_BENCH=1 to measure");
        return;
    }
    if !has(&["iperf3"]) {
        return;
    }
    let Some(nodes) = two("bench", true) else { return };
    let more = std::env::var("OE_NODE_BENCH_IPERF").unwrap_or_else(|_| "-t 4 -O 1".into());
    for (name, cipher, outer, udp) in [
        ("cable", None, 0, true),
        ("AES-128-GCM in UDP", Some(EspCipher::Aes128Gcm16), 0, true),
        ("AES-256-GCM in UDP", Some(EspCipher::Aes256Gcm16), 0, true),
        ("ChaCha20-Poly1305 in UDP", Some(EspCipher::ChaCha20Poly1305), 0, true),
        ("AES-128-GCM in UDP over IPv6", Some(EspCipher::Aes128Gcm16), 1, true),
        ("AES-128-GCM, protocol 50", Some(EspCipher::Aes128Gcm16), 0, false),
    ] {
        if std::env::var("OE_NODE_BENCH_ONLY").is_ok_and(|only| !name.contains(&only)) {
            continue;
        }
        for node in &nodes {
            node.plane.command(Command::RemoveSa(SaId(1)));
            node.plane.wake();
            let pref = format!("ip -n {} rule", node.namespace);
            let (has_rule, _) = (run(&format!("{pref} show pref 50")).contains("77"), ());
            match (cipher.is_some(), has_rule) {
                (true, false) => {
                    run(&format!("{pref} add not fwmark {MARK:#x} lookup 77 pref 50"));
                }
                (false, true) => {
                    run(&format!("{pref} del pref 50"));
                }
                _ => {}
            }
        }
        if let Some(cipher) = cipher {
            protect(&nodes, pair(&nodes, cipher, outer, udp));
        }
        let before = nodes.each_ref().map(|n| n.plane.counters());
        let cpu = cpu_seconds();
        let mut server = std::process::Command::new("ip")
            .args(["netns", "exec", &nodes[1].namespace, "iperf3", "-s", "-1"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let line = format!("ip netns exec {} iperf3 -c {} -f m {more}", nodes[0].namespace, B[0]);
        let (_, output) = try_run(&line);
        let _ = server.kill();
        let _ = server.wait();
        let seconds = cpu_seconds() - cpu;
        let summary = output.lines().filter(|l| l.contains("sender") || l.contains("receiver"));
        for line in summary {
            println!("{name}: {line}");
        }
        std::thread::sleep(Duration::from_millis(50));
        let carried: u64 = nodes
            .iter()
            .zip(&before)
            .map(|(node, before)| {
                node.plane.counters().forwarding.opened_bytes - before.forwarding.opened_bytes
            })
            .sum();
        println!("    {:.2} CPU seconds per GB", seconds * 1e9 / carried.max(1) as f64);
        for (node, before) in nodes.iter().zip(before) {
            let after = node.plane.counters();
            println!(
                "    sealed {} opened {} refused {} {}",
                after.forwarding.sealed - before.forwarding.sealed,
                after.forwarding.opened - before.forwarding.opened,
                after.send_refused - before.send_refused,
                after.device_refused - before.device_refused,
            );
        }
    }
}

/// What this process, and so both planes, have used so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths (proc_pid_stat(5)).
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
