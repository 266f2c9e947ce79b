//! Traps and policies in a real namespace. SAs need a kernel with ESP; where there is none, what
//! concerns them is skipped.

use std::net::UdpSocket;
use std::os::fd::AsFd;

use sa::{About, EspCipher, EspKey, Limits, Mode, SaId, SaPair, Spi, TrafficSelector, Trust};

use super::super::guard::Closed;
use super::super::namespace::{PATIENCE, Peer, absent, has, in_namespace, run, try_run};
use super::*;

const OPEN: Class = Class::Trap { fail_closed: false };
const CLOSED: Class = Class::Trap { fail_closed: true };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn flow(src: &str, dst: &str) -> Flow {
    Flow::new(ip(src), ip(dst)).unwrap()
}

fn set_policy(flow: Flow, policy: Policy) -> Command {
    Command::SetPolicy { flow, policy, about: About::Destination }
}

/// A peer on the link that is also everybody behind it; what it hears comes out of a file.
struct Far {
    peer: Peer,
    heard: std::path::PathBuf,
    listener: std::process::Child,
}

const LISTEN: &str = "import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', 7))
f = open(sys.argv[1], 'w')
while True:
    f.write(s.recv(100).decode() + '\\n'); f.flush()
";

impl Far {
    fn new(test: &str) -> Self {
        let peer = Peer::new(test);
        peer.connect("up0", "far0");
        run("ip addr add 192.0.2.1/24 dev up0");
        run("ip addr add 2001:db8:1::1/64 dev up0 nodad");
        peer.run("ip addr add 192.0.2.2/24 dev far0");
        peer.run("ip addr add 2001:db8:1::2/64 dev far0 nodad");
        for far in ["198.51.100.7/32", "198.51.100.8/32", "198.51.100.9/32", "2001:db8:9::7/128"] {
            peer.run(&format!("ip addr add {far} dev lo"));
        }
        run("ip route add default via 192.0.2.2");
        run("ip -6 route add default via 2001:db8:1::2");
        let heard = std::env::temp_dir().join(format!("oe-{test}-{}.heard", std::process::id()));
        let listener = peer.command("python3").args(["-c", LISTEN]).arg(&heard).spawn().unwrap();
        while !heard.exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { peer, heard, listener }
    }

    /// Whether the peer hears this within `wait`.
    async fn hears(&self, text: &str, wait: Duration) -> bool {
        let end = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < end {
            if std::fs::read_to_string(&self.heard).unwrap().lines().any(|line| line == text) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        let _ = std::fs::remove_file(&self.heard);
    }
}

fn send(dst: &str, text: &str, mark: Option<u32>) {
    let any = if dst.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).unwrap();
    if let Some(mark) = mark {
        socket2::SockRef::from(&socket).set_mark(mark).unwrap();
    }
    let _ = socket.send_to(text.as_bytes(), (ip(dst), 7));
}

/// The next notice that concerns a flow.
async fn acquired(xfrm: &mut Xfrm) -> Flow {
    match tokio::time::timeout(SOON, xfrm.notice()).await {
        Ok(Notice::Acquire { flow, protocol: 17, ports: (_, 7) }) => flow,
        other => panic!("{other:?}"),
    }
}

/// Waits until a flow is asked for. What a predecessor was asked is asked again, in any order.
async fn asked_for(xfrm: &mut Xfrm, flow: Flow) {
    while acquired(xfrm).await != flow {}
}

async fn quiet(xfrm: &mut Xfrm) {
    let notice = tokio::time::timeout(Duration::from_millis(200), xfrm.notice()).await;
    assert!(notice.is_err(), "{notice:?}");
}

fn held() -> Xfrm {
    let mut xfrm = Xfrm::open(XfrmConfig::default()).unwrap();
    xfrm.take_hold().unwrap();
    xfrm
}

const SOON: Duration = PATIENCE;
const NEVER: Duration = Duration::from_millis(300);

#[test]
fn packets_are_held_until_their_flow_is_decided() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let far = Far::new("hold");
        let before = run("ip xfrm policy") + &run("sysctl net.core.xfrm_larval_drop");
        let mut xfrm = held();
        for all in [Prefix::ALL_V4, Prefix::ALL_V6] {
            xfrm.command(Command::SetClass { prefix: all, class: OPEN }).unwrap();
        }
        for (n, (src, dst)) in [
            ("192.0.2.1", "198.51.100.7"),
            ("192.0.2.1", "192.0.2.2"),
            ("2001:db8:1::1", "2001:db8:9::7"),
            ("2001:db8:1::1", "2001:db8:1::2"),
        ]
        .into_iter()
        .enumerate()
        {
            let flow = flow(src, dst);
            let (first, second, third) = (format!("a{n}"), format!("b{n}"), format!("c{n}"));
            send(dst, &first, None);
            if dst == "192.0.2.2" || dst == "2001:db8:1::2" {
                // The next hop of our routes is never trapped.
                assert!(far.hears(&first, SOON).await, "{dst}");
                continue;
            }
            assert_eq!(acquired(&mut xfrm).await, flow);
            send(dst, &second, None);
            assert!(!far.hears(&first, NEVER).await, "{dst} is undecided");
            xfrm.command(set_policy(flow, Policy::Pass)).unwrap();
            assert!(far.hears(&first, SOON).await, "{dst}: the first packet");
            assert!(far.hears(&second, SOON).await, "{dst}: and the next");
            quiet(&mut xfrm).await;

            xfrm.command(set_policy(flow, Policy::Deny)).unwrap();
            send(dst, &third, None);
            assert!(!far.hears(&third, NEVER).await, "{dst} is denied");
            send(dst, &format!("marked{n}"), Some(0x4322));
            assert!(far.hears(&format!("marked{n}"), SOON).await, "{dst}: our own sockets");
            xfrm.command(Command::ClearPolicy { flow }).unwrap();
            send(dst, &third, None);
            assert_eq!(acquired(&mut xfrm).await, flow);
        }
        xfrm.stop();
        assert_eq!(run("ip xfrm policy") + &run("sysctl net.core.xfrm_larval_drop"), before);
    });
}

#[test]
fn every_destination_is_asked_for_and_none_waits_for_another() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let far = Far::new("each");
        let mut xfrm = held();
        xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: OPEN }).unwrap();
        let destinations = ["198.51.100.7", "198.51.100.8", "198.51.100.9"];
        for dst in destinations {
            send(dst, dst, None);
            assert_eq!(acquired(&mut xfrm).await, flow("192.0.2.1", dst));
            send(dst, &format!("{dst} again"), None);
        }
        // The first stays undecided; the others go.
        for dst in &destinations[1..] {
            let flow = flow("192.0.2.1", dst);
            xfrm.command(set_policy(flow, Policy::Pass)).unwrap();
            assert!(far.hears(&format!("{dst} again"), SOON).await, "{dst}");
        }
        assert!(!far.hears("198.51.100.7", NEVER).await);
        xfrm.stop();
    });
}

#[test]
fn classes_by_the_longest_prefix() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let far = Far::new("class");
        let mut xfrm = held();
        for (text, class) in [
            ("0.0.0.0/0", CLOSED),
            ("198.51.100.0/24", Class::Block),
            ("198.51.100.8/32", Class::Pass),
            ("198.51.100.9/32", OPEN),
        ] {
            xfrm.command(Command::SetClass { prefix: prefix(text), class }).unwrap();
        }
        send("198.51.100.7", "blocked", None);
        send("198.51.100.8", "passed", None);
        assert!(far.hears("passed", SOON).await);
        assert!(!far.hears("blocked", NEVER).await);
        quiet(&mut xfrm).await;
        send("198.51.100.9", "trapped", None);
        assert_eq!(acquired(&mut xfrm).await, flow("192.0.2.1", "198.51.100.9"));
        // Only what must be open when the daemon is dead ends by itself.
        let policies = run("ip -s xfrm policy");
        let ends = |dst: &str| {
            let is_trap = |p: &&str| p.contains(dst) && p.contains("tmpl");
            let policy = policies.split("\nsrc ").find(is_trap).unwrap();
            policy.contains("hard 30(sec)")
        };
        assert!(ends("dst 198.51.100.9/32"), "{policies}");
        assert!(!ends("dst 0.0.0.0/0"), "{policies}");
        xfrm.command(Command::ClearClass { prefix: prefix("198.51.100.0/24") }).unwrap();
        send("198.51.100.7", "trapped too", None);
        assert_eq!(acquired(&mut xfrm).await, flow("192.0.2.1", "198.51.100.7"));

        // Killed: what it left stands until the next one has said all, and goes then.
        std::mem::forget(xfrm);
        let mut xfrm = held();
        xfrm.command(Command::SetClass { prefix: prefix("198.51.100.8/32"), class: CLOSED })
            .unwrap();
        send("198.51.100.7", "closed", None);
        assert!(!far.hears("closed", NEVER).await);
        let flow_7 = flow("192.0.2.1", "198.51.100.7");
        asked_for(&mut xfrm, flow_7).await;
        xfrm.settled().unwrap();
        send("198.51.100.8", "trapped now", None);
        asked_for(&mut xfrm, flow("192.0.2.1", "198.51.100.8")).await;
        // What waited is asked for once more, and held until somebody decides.
        while tokio::time::timeout(NEVER, xfrm.notice()).await.is_ok() {}
        xfrm.command(Command::ClearPolicy { flow: flow_7 }).unwrap();
        send("198.51.100.7", "open", None);
        assert!(far.hears("open", SOON).await);
        xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: OPEN }).unwrap();
        send("198.51.100.7", "trapped again", None);
        asked_for(&mut xfrm, flow("192.0.2.1", "198.51.100.7")).await;
        xfrm.stop();
        assert_eq!(run("ip xfrm state"), "");
        assert_eq!(run("ip xfrm policy"), "");
    });
}

fn pair() -> SaPair {
    let cipher = EspCipher::Aes256Gcm16;
    let key = |octet| EspKey::new(cipher, &[octet; 36]).unwrap();
    SaPair {
        id: SaId(1),
        cipher,
        spi_in: Spi::new(0x1111).unwrap(),
        spi_out: Spi::new(0x2222).unwrap(),
        key_in: key(1),
        key_out: key(2),
        esn: true,
        mode: Mode::Tunnel,
        local: vec![TrafficSelector::host(ip("192.0.2.1"))],
        remote: vec![TrafficSelector::host(ip("198.51.100.7"))],
        envelope: sa::Envelope {
            local: "192.0.2.1:4500".parse().unwrap(),
            remote: "192.0.2.2:4500".parse().unwrap(),
            udp: true,
        },
        limits: Limits::of_esp(true),
        trust: Trust::Dnssec,
        translation: None,
    }
}

#[test]
fn a_kernel_without_esp_is_told_at_once() {
    in_namespace(|| async {
        match Xfrm::start(XfrmConfig::default()) {
            Err(error) => {
                let text = error.to_string();
                assert!(text.starts_with("the kernel has no ESP: use backend"), "{text}");
                assert_eq!(run("ip xfrm policy"), "");
                let mut xfrm = held();
                assert!(xfrm.command(Command::AddSa(Box::new(pair()))).is_err());
                let flow = flow("192.0.2.1", "198.51.100.7");
                let policy = Policy::Encrypt(SaId(1));
                assert!(xfrm.command(set_policy(flow, policy)).is_err());
                xfrm.stop();
            }
            Ok(mut xfrm) => {
                assert_eq!(run("ip xfrm state"), "", "the trial SA is gone");
                xfrm.stop();
            }
        }
    });
}

/// P1: neither a crash nor a start that fails opens what was closed.
#[test]
fn only_an_orderly_end_opens_what_was_closed() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let far = Far::new("xorder");
        let mut xfrm = held();
        xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: CLOSED }).unwrap();
        xfrm.settled().unwrap();
        drop(xfrm);
        let mut xfrm = held();
        xfrm.undo();
        drop(xfrm);
        send("198.51.100.7", "after a start that failed", None);
        assert!(!far.hears("after a start that failed", NEVER).await);
        let mut xfrm = held();
        xfrm.stop();
        assert_eq!(run("ip xfrm policy"), "");
        send("198.51.100.7", "after the end", None);
        assert!(far.hears("after the end", SOON).await);
        // Where nobody was before, a start that fails leaves nothing.
        held().undo();
        assert_eq!(run("ip xfrm policy"), "");
    });
}

/// P1, P17: the guard closes what is private before the first start, under a daemon that crashes and
/// after one that ends, and follows the classes.
#[test]
fn the_guard_stands_beneath_the_kernels_plane() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let classes = [
            ("198.51.100.0/24", CLOSED),
            ("198.51.100.8/32", Class::Pass),
            ("2001:db8:9::/48", CLOSED),
        ];
        let closed = Closed {
            classes: classes.map(|(text, class)| (prefix(text), class)).into(),
            ..Closed::default()
        };
        let guard = || XfrmGuard::open().unwrap();
        guard().up(&closed).unwrap();
        let far = Far::new("xguard");
        // Sent one after the other, so that who hears the last would have heard the others.
        let stays_closed = async |when: &str| {
            send("198.51.100.7", when, None);
            send("2001:db8:9::7", when, None);
            let open = format!("{when}, open");
            send("198.51.100.8", &open, None);
            assert!(far.hears(&open, SOON).await, "{open}");
            assert!(!far.hears(when, NEVER).await, "{when}");
            // Neighbours are found inside a closed prefix.
            let view = guard().look(&closed).unwrap();
            assert!(view.up && view.missing.is_empty() && view.stale.is_empty(), "{view:?}");
        };
        stays_closed("before the first start").await;
        for crash in [true, false] {
            let mut xfrm = held();
            for (text, class) in classes {
                xfrm.command(Command::SetClass { prefix: prefix(text), class }).unwrap();
            }
            xfrm.settled().unwrap();
            assert!(xfrm.is_guarded());
            // The daemon's trap comes before it.
            send("198.51.100.7", "trapped", None);
            asked_for(&mut xfrm, flow("192.0.2.1", "198.51.100.7")).await;
            if crash {
                drop(xfrm);
                stays_closed("after a crash").await;
            } else {
                xfrm.stop();
                stays_closed("after an orderly end").await;
            }
        }
        // It follows what the daemon is told, and goes when it is told to go.
        let mut xfrm = held();
        xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: CLOSED }).unwrap();
        xfrm.settled().unwrap();
        xfrm.stop();
        send("198.51.100.8", "closed as well", None);
        assert!(!far.hears("closed as well", NEVER).await);
        guard().down().unwrap();
        assert_eq!(run("ip xfrm policy"), "");
        send("198.51.100.7", "open", None);
        assert!(far.hears("open", SOON).await);
    });
}

#[test]
fn a_pair_is_two_states_and_the_policies_that_accept_it() {
    in_namespace(|| async {
        let Ok(mut xfrm) = Xfrm::start(XfrmConfig::default()) else {
            absent("this kernel has no ESP");
            return;
        };
        run("ip addr add 192.0.2.1/24 dev lo");
        let before = run("ip xfrm policy");
        let socket = UdpSocket::bind("192.0.2.1:4500").unwrap();
        accept_encapsulated(&socket.as_fd()).unwrap();
        xfrm.command(Command::AddSa(Box::new(pair()))).unwrap();
        let states = run("ip xfrm state");
        for part in [
            "src 192.0.2.2 dst 192.0.2.1",
            "src 192.0.2.1 dst 192.0.2.2",
            "spi 0x00001111",
            "spi 0x00002222",
            "rfc4106(gcm(aes))",
            "espinudp sport 4500 dport 4500",
            "esn",
            "sel src 198.51.100.7/32 dst 192.0.2.1/32",
        ] {
            assert!(states.contains(part), "{part} in {states}");
        }
        let flow = flow("192.0.2.1", "198.51.100.7");
        xfrm.command(set_policy(flow, Policy::Encrypt(SaId(1)))).unwrap();
        let policies = run("ip xfrm policy");
        assert!(policies.contains("tmpl src 192.0.2.1 dst 192.0.2.2"), "{policies}");
        assert!(policies.contains("tmpl src 192.0.2.2 dst 192.0.2.1"), "{policies}");
        xfrm.command(Command::AskUse(SaId(1))).unwrap();
        assert_eq!(xfrm.notice().await, Notice::LastUse { sa: SaId(1), used: sa::Use::default() });
        let envelope =
            sa::Envelope { remote: "192.0.2.3:4501".parse().unwrap(), ..pair().envelope };
        xfrm.command(Command::MoveSa { sa: SaId(1), envelope }).unwrap();
        assert!(run("ip xfrm state").contains("src 192.0.2.1 dst 192.0.2.3"));
        assert!(run("ip xfrm policy").contains("tmpl src 192.0.2.1 dst 192.0.2.3"));
        assert!(!run("ip xfrm policy").contains("192.0.2.2"));
        xfrm.command(Command::ClearPolicy { flow }).unwrap();
        xfrm.command(Command::RevokeSa(SaId(1))).unwrap();
        assert_eq!(run("ip xfrm state"), "");
        assert_eq!(run("ip xfrm policy"), before);
        xfrm.stop();
        assert!(try_run("ip xfrm policy").1.is_empty());
    });
}

/// Takes encapsulated ESP from port 4500, as an IKE daemon at the other end would.
const ENCAPSULATE: &str = "import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 4500))
s.setsockopt(socket.IPPROTO_UDP, 100, 2)
open(sys.argv[1], 'w').close()
time.sleep(60)
";

/// The other end of [`pair`], made by hand.
fn counterpart(far: &Far, udp: bool) {
    let encap = if udp { "encap espinudp 4500 4500 0.0.0.0" } else { "" };
    for (src, dst, spi, key) in
        [("192.0.2.2", "192.0.2.1", 0x1111, "01"), ("192.0.2.1", "192.0.2.2", 0x2222, "02")]
    {
        let key = key.repeat(36);
        far.peer.run(&format!(
            "ip xfrm state add src {src} dst {dst} proto esp spi {spi} mode tunnel flag esn \
             replay-window 64 aead rfc4106(gcm(aes)) 0x{key} 128 {encap}"
        ));
    }
    for (dir, src, dst, from, to) in [
        ("out", "198.51.100.7", "192.0.2.1", "192.0.2.2", "192.0.2.1"),
        ("in", "192.0.2.1", "198.51.100.7", "192.0.2.1", "192.0.2.2"),
    ] {
        far.peer.run(&format!(
            "ip xfrm policy add src {src} dst {dst} dir {dir} \
             tmpl src {from} dst {to} proto esp mode tunnel"
        ));
    }
}

#[test]
fn the_first_packet_goes_through_the_pair_it_asked_for() {
    in_namespace(|| async {
        if !has(&["python3", "ping"]) {
            return;
        }
        for udp in [false, true] {
            let Ok(mut xfrm) = Xfrm::start(XfrmConfig::default()) else {
                absent("this kernel has no ESP");
                return;
            };
            let far = Far::new("pair");
            xfrm.refresh().unwrap();
            let ready = far.heard.with_extension("ready");
            let mut encapsulating =
                far.peer.command("python3").args(["-c", ENCAPSULATE]).arg(&ready).spawn().unwrap();
            while !ready.exists() {
                std::thread::sleep(Duration::from_millis(20));
            }
            std::fs::remove_file(&ready).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:4500").unwrap();
            accept_encapsulated(&socket).unwrap();
            counterpart(&far, udp);

            xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: CLOSED }).unwrap();
            let flow = flow("192.0.2.1", "198.51.100.7");
            send("198.51.100.7", "first", None);
            assert_eq!(acquired(&mut xfrm).await, flow);
            let mut pair = pair();
            pair.envelope.udp = udp;
            xfrm.command(Command::AddSa(Box::new(pair))).unwrap();
            xfrm.command(set_policy(flow, Policy::Encrypt(SaId(1)))).unwrap();
            assert!(far.hears("first", SOON).await, "udp {udp}");
            send("198.51.100.7", "second", None);
            assert!(far.hears("second", SOON).await);

            // And back; the clear is not heard any more.
            let ping =
                |from: &str| far.peer.try_run(&format!("ping -c 1 -W 2 -I {from} 192.0.2.1")).0;
            assert!(ping("198.51.100.7"), "through the pair");
            xfrm.command(Command::AskUse(SaId(1))).unwrap();
            let mut first = false;
            let used = loop {
                match xfrm.notice().await {
                    Notice::LastUse { used, .. } => break used,
                    Notice::FirstPacket(SaId(1)) => first = true,
                    other => panic!("{other:?}"),
                }
            };
            assert!(first, "the peer has the pair too");
            assert_eq!((used.packets_out, used.packets_in), (3, 1), "{used:?}");
            assert!(used.idle_in.unwrap() < Duration::from_secs(5));

            far.peer.run("ip xfrm policy flush");
            assert!(!ping("198.51.100.7"), "in the clear");

            // Limits end it.
            xfrm.command(Command::RemoveSa(SaId(1))).unwrap();
            let mut short = self::pair();
            short.id = SaId(2);
            short.envelope.udp = udp;
            short.limits.soft_packets = 2;
            short.limits.hard_packets = 4;
            xfrm.command(Command::AddSa(Box::new(short))).unwrap();
            xfrm.command(set_policy(flow, Policy::Encrypt(SaId(2)))).unwrap();
            let mut heard = Vec::new();
            for n in 0..6 {
                send("198.51.100.7", &format!("n{n}"), None);
                let wait = Duration::from_millis(100);
                while let Ok(notice) = tokio::time::timeout(wait, xfrm.notice()).await {
                    heard.push(notice);
                }
            }
            assert!(heard.contains(&Notice::SoftExpire(SaId(2))), "{heard:?}");
            assert!(heard.contains(&Notice::HardExpire(SaId(2))), "{heard:?}");
            xfrm.stop();
            assert_eq!(run("ip xfrm state"), "");
            let _ = encapsulating.kill();
            let _ = encapsulating.wait();
            drop(far);
            let _ = try_run("ip link del up0");
        }
    });
}

#[test]
#[ignore = "waits for a trap's life to end"]
fn without_the_daemon_open_traps_end_by_themselves() {
    in_namespace(|| async {
        if !has(&["python3"]) {
            return;
        }
        let far = Far::new("alone");
        let mut xfrm = held();
        xfrm.command(Command::SetClass { prefix: Prefix::ALL_V4, class: OPEN }).unwrap();
        let class = CLOSED;
        xfrm.command(Command::SetClass { prefix: prefix("198.51.100.8/32"), class }).unwrap();
        send("198.51.100.7", "held", None);
        assert_eq!(acquired(&mut xfrm).await, flow("192.0.2.1", "198.51.100.7"));
        // SIGKILL.
        drop(xfrm);
        tokio::time::sleep(Duration::from_secs(policy::TRAP_LIFE_SECONDS + 2)).await;
        send("198.51.100.7", "open", None);
        send("198.51.100.8", "closed", None);
        assert!(far.hears("open", SOON).await);
        assert!(!far.hears("closed", NEVER).await);
        try_run("ip xfrm policy flush");
    });
}
