//! What stands in the kernel now, for who wants to check it: nothing is changed.

use std::io;
use std::net::IpAddr;

use super::routes::Routes;

/// The trap as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Looked {
    /// This host's usable addresses, loopback included.
    pub(crate) addresses: Vec<IpAddr>,
    /// MTU of the device, if it is there.
    pub(crate) device: Option<u32>,
    /// Rules that lead to the table, of both families together.
    pub(crate) rules: usize,
    /// Routes in the table, of both families together.
    pub(crate) routes: usize,
}

/// Looks at the device, the rules and the table.
pub(crate) fn look(interface: &str, table: u32) -> io::Result<Looked> {
    let mut routes = Routes::open(0, table)?;
    let usable = routes.addresses()?.into_iter().filter(|address| !address.unusable);
    let addresses = usable.map(|address| address.addr).collect();
    let device = routes.link(interface).ok().map(|(_, mtu)| mtu);
    Ok(Looked { addresses, device, rules: routes.count_rules()?, routes: routes.count_routes()? })
}
