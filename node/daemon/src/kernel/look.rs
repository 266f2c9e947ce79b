//! What stands in the kernel now, for who wants to check it: nothing is changed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use sa::{Flow, Prefix};

use super::plan::Target;
use super::routes::Routes;
use super::sysctl::forwards;
use crate::userspace::Leads;

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
    /// Rules of others that come before ours, as `ip rule` writes them.
    pub(crate) before: Vec<String>,
}

/// What says whether the kernel forwards what comes in by a device with this mark; it is not to leave
/// by ours. Nothing is forwarded that has an address of this host's own, nor what the reverse-path
/// filter does not like. The first device's number comes with it.
pub(crate) fn ways_onward(device: &str, ours: &str, mark: u32) -> io::Result<(u32, Leads)> {
    let mut routes = Routes::open(mark, 0)?;
    let [(device, _), (ours, _)] = [routes.link(device)?, routes.link(ours)?];
    routes.wait_at_most(PATIENCE)?;
    let leads = move |flow: &Flow| {
        let oif = routes.forwards(device, flow.src(), flow.dst());
        let away = oif.is_ok_and(|oif| oif.is_some_and(|oif| oif != device && oif != ours));
        // Of IPv6 a route does not say it.
        away && (flow.dst().is_ipv4() || forwards()[1])
    };
    Ok((device, Box::new(leads)))
}

/// Looks at the device, the rules and the table.
pub(crate) fn look(interface: &str, table: u32, mark: u32) -> io::Result<Looked> {
    let mut routes = Routes::open(mark, table)?;
    let usable = routes.addresses()?.into_iter().filter(|address| !address.unusable);
    let addresses = usable.map(|address| address.addr).collect();
    let device = routes.link(interface).ok().map(|(_, mtu)| mtu);
    Ok(Looked {
        addresses,
        device,
        rules: routes.count_rules()?,
        routes: routes.count_routes()?,
        before: routes.rules_before_ours()?,
    })
}

/// The metrics of the routes that lead to a prefix through the device, in the connections' table:
/// below a hundred, each is a link that is up.
pub(crate) fn metrics_to(prefix: Prefix, interface: &str, table: u32) -> io::Result<Vec<u32>> {
    let mut routes = Routes::open(0, table + 1)?;
    let (device, _) = routes.link(interface)?;
    let held = routes.held(device)?;
    let through = held
        .iter()
        .filter(|((to, _), target)| *to == prefix && matches!(target, Target::Device { .. }));
    Ok(through.map(|((_, metric), _)| *metric).collect())
}

/// The address of ours that the kernel's routes give to packets of our own to this destination;
/// `None` if there is no way.
pub(crate) fn source_towards(destination: IpAddr, mark: u32) -> Option<IpAddr> {
    let domain = if destination.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    socket.set_mark(mark).ok()?;
    // Sends nothing: it is where the kernel looks up the route.
    socket.connect(&SocketAddr::new(destination, 4500).into()).ok()?;
    socket.local_addr().ok()?.as_socket().map(|local| local.ip())
}

/// How long the thread that every packet goes through waits for what the kernel answers at once.
const PATIENCE: Duration = Duration::from_millis(20);
