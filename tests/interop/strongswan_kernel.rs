//! strongSwan 5.9.8 with the ESP of a Debian kernel: `strongswan_kernel.sh`, in the virtual machine.
//! Its ESP in user space, which the other tests have, knows neither transport mode nor traps.

use crate::machine::tell;

/// Both ask for transport mode, as protocol 50 and in UDP, and either declines it.
const TRANSPORT_STORIES: [&str; 4] = ["transport", "transport-udp", "they-decline", "we-decline"];
/// Its kernel wants SAs for a packet: between two hosts, for single ports of theirs, where it looks
/// like a NAT to us, and between networks, with a child for each and with one for all.
const TRAP_STORIES: [&str; 5] = ["asked", "ports", "encapsulated", "children", "subnets"];

/// Between two hosts, without an inner header: either side calls, and either rekeys while packets
/// go to and fro, of which none is lost.
#[test]
fn strongswans_kernel_agrees_on_transport_mode() {
    let name = "strongswans_kernel_agrees_on_transport_mode";
    tell(name, "strongswan_kernel.sh", &TRANSPORT_STORIES);
}

/// P20.
/// RFC 7296 §2.9: strongSwan asks for what the packet is before all that it would like, in IKE_AUTH
/// and in CREATE_CHILD_SA, and is granted all of it; packets go both ways, with extended sequence
/// numbers as well, and none is lost while both sides rekey at once (§2.8.1).
#[test]
fn strongswans_kernel_calls_for_a_packet() {
    let name = "strongswans_kernel_calls_for_a_packet";
    tell(name, "strongswan_kernel.sh", &TRAP_STORIES);
}
