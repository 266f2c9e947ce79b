//! A lease is renewed whatever becomes of other packets to its server.

use std::fs;
use std::process::{Child, Stdio};

use tests::place;

use crate::internet::{DNS, EAST, Internet, PATIENCE, WEST, can_run};

/// As a server does: answers each request from its port to the client's.
const SERVER: &str = r#"
import select, socket, sys
ports = {}
for family, own, client in ((socket.AF_INET, 67, 68), (socket.AF_INET6, 547, 546)):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind(("", own))
    ports[s] = client
print("ready", flush=True)
while True:
    for s in select.select(list(ports), [], [])[0]:
        _, who = s.recvfrom(2000)
        s.sendto(b"granted", (who[0], ports[s]) + tuple(who[2:]))
"#;

/// As a client does, by unicast, on a socket that may be bound to its device.
const CLIENT: &str = r#"
import socket, sys
server, own, bound = sys.argv[1:]
v6 = ":" in server
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
if bound == "bound":
    s.setsockopt(socket.SOL_SOCKET, 25, b"eth0\0")
s.bind((own, 546 if v6 else 68))
s.settimeout(1)
for _ in range(3):
    try:
        s.sendto(b"renew", (server, 547 if v6 else 67))
        s.recvfrom(2000)
        print("renewed")
        break
    except OSError as error:
        print(error)
"#;

struct Server(Child);

impl Server {
    fn start(internet: &Internet, host: &str) -> Self {
        let script = internet.directory.join("server.py");
        fs::write(&script, SERVER).unwrap();
        let log = internet.directory.join(format!("{host}-server"));
        let words = ["python3", &script.display().to_string()];
        let mut command = place::command(&internet.namespace(host), &words);
        let file = fs::File::create(&log).unwrap();
        let server = Self(command.stdout(file).stderr(Stdio::null()).spawn().unwrap());
        place::await_some("the server listens", PATIENCE, || {
            fs::read_to_string(&log).unwrap().contains("ready").then_some(())
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn assert_renewed(internet: &Internet, servers: [&str; 2], when: &str) {
    let script = internet.directory.join("client.py");
    fs::write(&script, CLIENT).unwrap();
    let script = script.display().to_string();
    for (server, own) in servers.into_iter().zip(WEST) {
        for bound in ["bound", "free"] {
            let words = ["python3", &script, server, own, bound];
            let said = place::ok(&internet.namespace("west"), &words);
            assert!(said.contains("renewed"), "{when}, {server}, {bound}: {said}");
        }
    }
}

/// P17: by unicast, with the server private and not yet asked about, without a record, with a pair
/// (whose other end is a node as well, so that both drop what the other sends in the clear), after a
/// crash of ours, and beside the guard alone.
#[test]
fn leases_are_renewed_whatever_becomes_of_the_server() {
    const NAME: &str = "leases_are_renewed_whatever_becomes_of_the_server";
    if !can_run(NAME) || tests::skipped(NAME, tests::missing(&["python3"])) {
        return;
    }
    let mut internet = Internet::new();
    internet.serve_dns(&["west", "east"]);
    let _servers = ["east", "dns"].map(|host| Server::start(&internet, host));
    let mut setup = internet.setup("west");
    setup.policies = vec![("private", "0.0.0.0/0\n::/0\n")];
    let _east = internet.setup("east").start(&internet.namespace("east"));
    let mut node = setup.start(&internet.namespace("west"));
    assert_renewed(&internet, EAST, "before a decision");
    for server in DNS {
        internet.knock("west", server);
        node.await_state(server, "deny");
    }
    assert_renewed(&internet, DNS, "without a record");
    for server in EAST {
        assert!(internet.ping("west", server), "{server}");
        node.await_state(server, "keyed");
    }
    assert_renewed(&internet, EAST, "with a pair");
    for server in EAST {
        assert!(internet.ping("west", server), "the pair is as it was");
    }
    node.kill();
    assert_renewed(&internet, EAST, "after a crash");
    drop(node);
    let file = setup.write().display().to_string();
    let binary = tests::oe_node().display().to_string();
    let west = internet.namespace("west");
    place::ok(&west, &[&binary, "guard", "up", "--config", &file]);
    assert_renewed(&internet, EAST, "beside the guard");
    place::ok(&west, &[&binary, "guard", "down", "--config", &file]);
}
