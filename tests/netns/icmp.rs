//! Forged ICMP errors while nothing is decided yet. An error that nobody has authenticated says
//! nothing: it ends neither a lookup nor a call, and opens nothing.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use tests::place;

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};

/// A program that says when it is ready, and runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(namespace: &str, words: &[&str]) -> Self {
        let mut command = place::command(namespace, words);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "{words:?}");
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attack A16.
/// Rule 26, P2: west asks DNS and calls east, and hears nothing
/// at first but errors: host, port and "administratively" unreachable, quoting each packet that it
/// sends, from the router and from whom it was for. It goes on asking, holds what it holds, and once
/// the real answers get through the call is done, the first one.
#[test]
fn forged_errors_end_neither_lookup_nor_call() {
    const NAME: &str = "forged_errors_end_neither_lookup_nor_call";
    if !can_run(NAME) || tests::skipped(NAME, tests::missing(&["python3", "nft"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let (hub, dns) = (internet.namespace("hub"), internet.namespace("dns"));
    let script = |name: &str, text: &str| {
        let file = internet.directory.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let (late, forge) = (script("late.py", LATE), script("unreachable.py", FORGE));
    let _late = Running::start(&dns, &["python3", &late, DNS[0]]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    setup.resolver = format!("{}:5353", DNS[0]);
    // A loaded machine takes its time.
    "retransmissions = 4\n".clone_into(&mut setup.node);
    let west = setup.start(&internet.namespace("west"));
    let wire = internet.capture("west");
    place::ok(&hub, &["nft", "add", "table", "ip", "mute"]);
    place::ok(&hub, &["nft", "add chain ip mute way { type filter hook forward priority 0 ; }"]);
    let mute = format!("add rule ip mute way ip saddr {} udp sport {{ 500, 4500 }} drop", EAST[0]);
    place::ok(&hub, &["nft", &mute]);
    let _forger = Running::start(&hub, &["python3", &forge, "west", WEST[0]]);
    let mut ping = place::command(
        &internet.namespace("west"),
        &["ping", "-n", "-q", "-c", "30", "-i", "0.5", "-W", "8", EAST[0]],
    );
    let mut ping = ping.stdout(Stdio::null()).spawn().unwrap();

    let errors = "icmp[0] == 3 and dst host 192.0.2.11";
    let called = format!("dst host {} and udp dst port 500", EAST[0]);
    let clear = format!("src host {} and dst host {} and icmp", WEST[0], EAST[0]);
    let state = || west.destination(EAST[0])["state"].as_str().map(str::to_owned);
    let about = |host: &str| wire.packets(&format!("{errors} and src host {host}")).len();
    // Nothing but errors about its call.
    place::await_some("west calls again", PATIENCE, || {
        (wire.packets(&called).len() >= 3 && about(EAST[0]) >= 6).then_some(())
    });
    assert!(about(DNS[0]) >= 3, "errors came before the answers of DNS");
    assert_eq!(state().as_deref(), Some("pending-oe"));
    assert_eq!(wire.packets(&clear), [""; 0]);
    place::ok(&hub, &["nft", "flush", "chain", "ip", "mute", "way"]);
    west.await_state(EAST[0], "keyed");
    assert!(ping.wait().unwrap().success(), "and traffic flows");
    assert_eq!(wire.packets(&clear), [""; 0]);
    assert_eq!(west.happened("calling"), 1);
    assert_eq!(west.happened("clear") + west.happened("gateway-failed"), 0);
}

/// A name server whose answers take three tenths of a second: those of the one on port 53.
const LATE: &str = r#"
import socket, sys, threading, time
server = (sys.argv[1], 53)
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind((sys.argv[1], 5353))
def relay(question, asker):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.sendto(question, server)
    answer = s.recv(65536)
    time.sleep(0.3)
    door.sendto(answer, asker)
print("ready", flush=True)
while True:
    threading.Thread(target=relay, args=door.recvfrom(65536), daemon=True).start()
"#;

/// Sees what comes from west over UDP, and answers each packet with three errors from whom it was
/// for, and three from the router.
const FORGE: &str = r#"
import socket, struct, sys
device, west = sys.argv[1:3]
west = socket.inet_aton(west)
router = west[:3] + b'\x01'
see = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
see.bind((device, 0x0800))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return 0xffff & ~(total + (total >> 16))
print("ready", flush=True)
while True:
    packet, where = see.recvfrom(65536)
    if packet[12:16] != west or packet[9] != 17 or where[2] == socket.PACKET_OUTGOING:
        continue
    for source in (packet[16:20], router):
        for code in (1, 3, 13):
            body = struct.pack('!BBHI', 3, code, 0, 0) + packet[:48]
            body = body + b'\0' * (len(body) % 2)
            body = body[:2] + struct.pack('!H', checksum(body)) + body[4:]
            head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 7, 0, 64, 1, 0, source, west)
            raw.sendto(head + body, (socket.inet_ntoa(west), 0))
"#;
