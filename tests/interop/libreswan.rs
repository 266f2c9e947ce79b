//! libreswan 4.10 with the ESP of a Debian kernel: `libreswan.sh`, in the virtual machine.

use crate::machine::tell;

/// Both keys in the reverse zone, or written down at libreswan's side, or nobody's anywhere;
/// either side calls in each.
const STORIES: [&str; 3] = ["configured", "ipseckey", "null"];
/// Both ask for transport mode, as protocol 50 and in UDP, and libreswan declines it: in each either
/// side calls. Libreswan asks for it, and we know it from DNS only. In all of them libreswan rekeys.
const TRANSPORT_STORIES: [&str; 4] = ["transport", "transport-udp", "declined", "asked"];

/// P20.
#[test]
fn libreswan_agrees() {
    tell("libreswan_agrees", "libreswan.sh", &STORIES);
}

/// Between two hosts, without an inner header: libreswan's kernel says `mode transport` of every SA,
/// datagrams of any size arrive, and the wire has ESP and nothing else.
#[test]
fn libreswan_agrees_on_transport_mode() {
    tell("libreswan_agrees_on_transport_mode", "libreswan.sh", &TRANSPORT_STORIES);
}
