//! What the daemon needs of the system, what it keeps to itself, and what forged packets do to it
//! with a real kernel between.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::place;

use crate::binary;
use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};

const CAPABILITIES: &str = "+net_admin,+net_raw,+net_bind_service";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// P18, and what the unit for systemd says: nobody in particular, with three capabilities, runs it;
/// it tells its manager that it is ready and alive; nobody reads its memory; no core is left.
#[test]
fn it_needs_three_capabilities_and_keeps_its_memory_to_itself() {
    if !can_run("it_needs_three_capabilities_and_keeps_its_memory_to_itself") {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut setup = internet.setup("west");
    let key = setup.directory.join("own.key");
    fs::copy(internet.directory.join("west.key"), &key).unwrap();
    setup.key = Some(key.clone());
    let file = setup.write().display().to_string();
    let directory = setup.directory.display().to_string();
    assert!(
        Command::new("chown").args(["-R", "65534:65534", &directory]).status().unwrap().success()
    );
    let manager = setup.directory.join("notify");
    let notified = UnixDatagram::bind(&manager).unwrap();
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    std::os::unix::fs::chown(&manager, Some(65534), Some(65534)).unwrap();
    let program = tests::oe_node().display().to_string();
    let set = |option: &str, capabilities: &str| format!("--{option}={capabilities}");
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--no-new-privs",
        &set("bounding-set", &format!("-all,{CAPABILITIES}")),
        &set("inh-caps", &format!("-all,{CAPABILITIES}")),
        &set("ambient-caps", &format!("-all,{CAPABILITIES}")),
        &program,
        "run",
        "--config",
        &file,
    ];
    let log = fs::File::create(internet.directory.join("log")).unwrap();
    let mut command = place::command(&internet.namespace("west"), &words);
    command.env("NOTIFY_SOCKET", &manager).env("WATCHDOG_USEC", "600000");
    let west = Running(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let said = || {
        let mut octets = [0; 256];
        let len = notified.recv(&mut octets).unwrap_or_else(|error| {
            let log = fs::read_to_string(internet.directory.join("log")).unwrap();
            panic!("{error}: {log}")
        });
        String::from_utf8_lossy(&octets[..len]).into_owned()
    };
    assert!(said().contains("READY=1"));
    assert!(said().contains("WATCHDOG=1") && said().contains("WATCHDOG=1"));
    place::await_some("east answers", PATIENCE, || internet.ping("west", EAST[0]).then_some(()));

    let proc = |file: &str| format!("/proc/{}/{file}", west.0.id());
    let status = fs::read_to_string(proc("status")).unwrap();
    // CAP_NET_BIND_SERVICE 10, CAP_NET_ADMIN 12, CAP_NET_RAW 13.
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert!(status.contains(&format!("{set}:\t0000000000003400")), "{status}");
    }
    // What can be dumped belongs to whoever runs it; what cannot, to root.
    assert_eq!(fs::metadata(proc("mem")).unwrap().uid(), 0);
    let limits = fs::read_to_string(proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");

    // The private key is nowhere in what it tells.
    let pem = fs::read_to_string(&key).unwrap();
    let secret: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).skip(8).collect();
    assert!(secret.len() > 10);
    let mut told = fs::read_to_string(internet.directory.join("log")).unwrap();
    for words in [&["status", "--json"][..], &["peers", "--json"], &["explain", EAST[0], "--json"]]
    {
        told += &binary::run(&[words, &["--config", &file]].concat()).stdout;
    }
    assert!(told.contains(EAST[0]));
    assert!(secret.iter().all(|line| !told.contains(line)));
    drop(west);
    while !said().contains("STOPPING=1") {}
}

/// P12: a raw socket on the way forges ICMP errors, IKE with the right SPIs, and ESP, with east's
/// address and with others; the pair stays where it is, and traffic flows.
#[test]
fn forged_packets_end_and_move_nothing() {
    if !can_run("forged_packets_end_and_move_nothing")
        || tests::skipped("forged_packets_end_and_move_nothing", tests::missing(&["python3"]))
    {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let west = internet.setup("west").start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    let before = west.await_state(EAST[0], "keyed");
    let spi = before["spi_in"].as_str().unwrap().trim_start_matches("0x").to_owned();
    let script = internet.directory.join("forge.py");
    fs::write(&script, FORGE).unwrap();
    let script = script.display().to_string();
    for source in [EAST[0], DNS[0], "10.9.8.7"] {
        let words = ["python3", &script, source, WEST[0], EAST[0], &spi];
        place::ok(&internet.namespace("hub"), &words);
    }
    std::thread::sleep(Duration::from_millis(500));
    let after = west.await_state(EAST[0], "keyed");
    for what in ["spi_in", "spi_out", "gateway", "pairs"] {
        assert_eq!(before[what], after[what], "{what}");
    }
    let wire = internet.capture("west");
    for _ in 0..3 {
        assert!(internet.ping("west", EAST[0]) && internet.ping("east", WEST[0]));
    }
    assert_eq!(west.happened("keyed"), 1);
    assert_eq!(west.happened("expired"), 0);
    let astray = wire.packets("src host 192.0.2.11 and udp and dst host 10.9.8.7");
    assert!(astray.is_empty(), "{astray:?}");
}

/// Sends, from a forged source: INVALID_SPI and other notifies in IKE on both ports, ESP in UDP
/// with the right SPI, ESP as protocol 50, and ICMP errors about ESP of ours.
const FORGE: &str = r#"
import socket, struct, sys
src, dst, peer, spi = sys.argv[1], sys.argv[2], sys.argv[3], bytes.fromhex(sys.argv[4])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
def ip(proto, body, s=src, d=dst):
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), 7, 0, 64, proto, 0,
                       socket.inet_aton(s), socket.inet_aton(d))
    return head + body
def send(packet):
    raw.sendto(packet, (dst, 0))
def udp(port, data, s=src, d=dst):
    return ip(17, struct.pack('!HHHH', port, port, 8 + len(data), 0) + data, s, d)
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return 0xffff & ~(total + (total >> 16))
for notify in (4, 7, 9, 11, 14, 24, 16384, 16400):
    for flags in (0, 8, 0x20, 0x28):
        for exchange in (34, 35, 36, 37):
            body = struct.pack('!BBHBBH', 0, 0, 8, 0, 0, notify)
            ike = spi + spi + spi + spi + struct.pack('!BBBBII', 41, 0x20, exchange, flags, 2, 36) + body
            send(udp(500, ike))
            send(udp(4500, b'\0\0\0\0' + ike))
for seq in (0, 1, 2, 3, 1000, 0x7fffffff, 0xffffffff):
    esp = spi + struct.pack('!I', seq) + b'\x55' * 64
    send(udp(4500, esp))
    send(ip(50, esp))
for kind, code, mtu in ((3, 1, 0), (3, 2, 0), (3, 3, 0), (3, 4, 68), (3, 4, 576), (3, 13, 0), (11, 0, 0)):
    for quoted in (udp(4500, spi + b'\0' * 8, dst, peer), ip(50, spi + b'\0' * 8, dst, peer)):
        body = struct.pack('!BBHHH', kind, code, 0, 0, mtu) + quoted
        body = body + b'\0' * (len(body) % 2)
        body = body[:2] + struct.pack('!H', checksum(body)) + body[4:]
        send(ip(1, body))
"#;
