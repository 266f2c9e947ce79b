//! strongSwan 5.9.8 with the ESP of a Debian kernel: `strongswan_kernel.sh`, in the virtual machine.
//! Its ESP in user space, which the other tests have, knows neither transport mode nor traps.

use crate::machine::tell;

/// Both ask for transport mode, as protocol 50 and in UDP, and either declines it.
const TRANSPORT_STORIES: [&str; 4] = ["transport", "transport-udp", "they-decline", "we-decline"];

/// Between two hosts, without an inner header: either side calls, and either rekeys while packets
/// go to and fro, of which none is lost.
#[test]
fn strongswans_kernel_agrees_on_transport_mode() {
    let name = "strongswans_kernel_agrees_on_transport_mode";
    tell(name, "strongswan_kernel.sh", &TRANSPORT_STORIES);
}
