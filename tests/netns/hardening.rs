//! What the daemon needs of the system, what it keeps to itself, and what forged packets do to it
//! with a real kernel between.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

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

/// Attack A43.
/// P12: who sees every packet on the way forges what fits: ICMP errors that quote packets which have
/// just been sent, unprotected IKE under the right SPIs and message IDs, ESP with the right SPI and
/// the very next numbers, from east's address and from others. The pair stays where it is, the real
/// packets with those numbers are taken, and traffic flows.
#[test]
fn forged_packets_end_and_move_nothing() {
    if !can_run("forged_packets_end_and_move_nothing")
        || tests::skipped("forged_packets_end_and_move_nothing", tests::missing(&["python3"]))
    {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let wire = internet.capture("west");
    let east = internet.setup("east").start(&internet.namespace("east"));
    let west = internet.setup("west").start(&internet.namespace("west"));
    assert!(internet.ping("west", EAST[0]));
    let before = west.await_state(EAST[0], "keyed");
    let spi = |which: &str| before[which].as_str().unwrap().trim_start_matches("0x").to_owned();
    let (spi_in, spi_out) = (spi("spi_in"), spi("spi_out"));
    let script = internet.directory.join("forge.py");
    fs::write(&script, FORGE).unwrap();
    let script = script.display().to_string();
    let count = |which: &str| west.status()["counters"]["plane"][which].as_u64().unwrap();
    for source in [EAST[0], DNS[0], "10.9.8.7"] {
        for peer in EAST {
            assert!(internet.ping("west", peer));
        }
        // The number of the last packet each way, and the IKE SA's own numbers, off the wire.
        let number = |spi: &str| last_number(&internet, spi);
        let (last_in, last_out) = place::await_some("the numbers on the wire", PATIENCE, || {
            Some((number(&spi_in)?, number(&spi_out)?))
        });
        let ike = place::await_some("the SPIs of IKE", PATIENCE, || ike_spis(&internet));
        let (last_in, last_out) = (last_in.to_string(), last_out.to_string());
        let refused = count("unauthentic");
        let numbers = [&spi_in, &last_in, &spi_out, &last_out, &ike];
        let words = ["python3", &script, source, WEST[0], EAST[0]];
        let words = [&words[..], &numbers.map(String::as_str)].concat();
        place::ok(&internet.namespace("hub"), &words);
        place::await_some("the forgeries have come", PATIENCE, || {
            (count("unauthentic") > refused).then_some(())
        });
        for _ in 0..3 {
            assert!(internet.ping("west", EAST[0]) && internet.ping("east", WEST[0]), "{source}");
        }
    }
    let after = west.await_state(EAST[0], "keyed");
    for what in ["spi_in", "spi_out", "gateway", "pairs"] {
        assert_eq!(before[what], after[what], "{what}");
    }
    // Large packets find their way, whatever the forged errors made of it.
    let large = ["ping", "-n", "-c", "3", "-W", "8", "-M", "dont", "-s", "1400", EAST[0]];
    assert!(place::run(&internet.namespace("west"), &large).0);
    west.await_pairs(EAST[0], 1);
    east.await_pairs(WEST[0], 1);
    // One for each family.
    assert_eq!(west.await_happened("keyed", 2), 2);
    assert_eq!(west.happened("expired"), 0);
    let astray = wire.packets("src host 192.0.2.11 and udp and dst host 10.9.8.7");
    assert!(astray.is_empty(), "{astray:?}");
}

/// The packets of IPv4 over UDP that west's wire has carried so far, without the UDP header.
fn datagrams(internet: &Internet) -> Vec<Vec<u8>> {
    let file = fs::read(internet.directory.join("west.pcap")).unwrap();
    let mut packets = Vec::new();
    let mut rest = file.get(24..).unwrap_or_default();
    // The last packet may be half written.
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_ne_bytes(length.try_into().unwrap()) as usize;
        let Some(frame) = rest.get(16..16 + length) else { break };
        if frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&17) {
            packets.extend(frame.get(42..).map(<[u8]>::to_vec));
        }
        rest = &rest[16 + length..];
    }
    packets
}

/// The number of the last ESP packet under an SPI.
fn last_number(internet: &Internet, spi: &str) -> Option<u32> {
    let spi = u32::from_str_radix(spi, 16).unwrap().to_be_bytes();
    datagrams(internet).into_iter().rev().find_map(|datagram| {
        let number = datagram.strip_prefix(&spi)?.first_chunk()?;
        Some(u32::from_be_bytes(*number))
    })
}

/// Both SPIs of the first IKE SA that has got so far, in hexadecimal.
fn ike_spis(internet: &Internet) -> Option<String> {
    datagrams(internet).into_iter().find_map(|datagram| {
        let message = datagram.strip_prefix(&[0; 4])?;
        // IKE_AUTH (RFC 7296 §3.1).
        let spis = message.get(..16).filter(|_| message.get(18) == Some(&35))?;
        Some(spis.iter().map(|octet| format!("{octet:02x}")).collect())
    })
}

/// Sends, from a forged source: in IKE, on both ports, every notify that a careless peer would
/// believe, and Deletes; ESP in UDP and as protocol 50 with the numbers that come next; ICMP errors
/// about the packets that were sent last.
const FORGE: &str = r#"
import socket, struct, sys
src, dst, peer = sys.argv[1:4]
spi_in, last_in, spi_out, last_out = bytes.fromhex(sys.argv[4]), int(sys.argv[5]), bytes.fromhex(sys.argv[6]), int(sys.argv[7])
spis = bytes.fromhex(sys.argv[8])
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
def ike(exchange, flags, number, kind, body):
    message = spis + struct.pack('!BBBBII', kind, 0x20, exchange, flags, number, 28 + len(body)) + body
    send(udp(500, message))
    send(udp(4500, b'\0\0\0\0' + message))
for exchange in (34, 35, 36, 37):
    for flags in (0, 8, 0x20, 0x28):
        for number in (0, 1, 2, 3):
            for notify in (4, 7, 9, 11, 14, 24, 44, 16384, 16400):
                ike(exchange, flags, number, 41, struct.pack('!BBHBBH', 0, 0, 8, 0, 0, notify))
            ike(exchange, flags, number, 41, struct.pack('!BBHBBH', 0, 0, 12, 3, 4, 11) + spi_out)
            ike(exchange, flags, number, 42, struct.pack('!BBHBBH', 0, 0, 8, 1, 0, 0))
            ike(exchange, flags, number, 42, struct.pack('!BBHBBH', 0, 0, 12, 3, 4, 1) + spi_out)
for number in list(range(last_in + 1, last_in + 9)) + [last_in + 1000, 0x7fffffff, 0xffffffff]:
    esp = spi_in + struct.pack('!I', number) + b'\x55' * 64
    send(udp(4500, esp))
    send(ip(50, esp))
for kind, code, mtu in ((3, 1, 0), (3, 2, 0), (3, 3, 0), (3, 4, 68), (3, 4, 576), (3, 13, 0), (11, 0, 0)):
    for number in (last_out, max(last_out - 1, 1)):
        start = spi_out + struct.pack('!I', number) + b'\x55' * 8
        for quoted in (udp(4500, start, dst, peer), ip(50, start, dst, peer)):
            body = struct.pack('!BBHHH', kind, code, 0, 0, mtu) + quoted
            body = body + b'\0' * (len(body) % 2)
            body = body[:2] + struct.pack('!H', checksum(body)) + body[4:]
            send(ip(1, body))
"#;
