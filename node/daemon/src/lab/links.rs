//! Links between the hosts: one veth pair from each host to the core router, which forwards.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::host::Host;
use super::netns;
use super::topology::Site;

/// Name of every host's own interface.
pub(crate) const INTERFACE: &str = "eth0";

/// Joins all hosts to the core router and switches forwarding on there.
///
/// The router's interface to the host at position `i` has the index that [`host_index`] gives
/// `i` for.
pub(crate) fn join(core: &Host, hosts: &[Host]) -> io::Result<()> {
    let ends: Vec<(Site, i32)> =
        hosts.iter().map(|host| (host.site.clone(), host.namespace.as_raw_fd())).collect();
    core.run(move || {
        quiet_links()?;
        netns::sysctl("ipv4/ip_forward", "1")?;
        netns::sysctl("ipv6/conf/all/forwarding", "1")?;
        with_netlink(async |netlink| {
            for (position, (site, namespace)) in ends.iter().enumerate() {
                add_pair(&netlink, core_index(position), site, *namespace).await?;
            }
            Ok(())
        })
    })??;
    for host in hosts {
        let site = host.site.clone();
        host.run(move || {
            // The interface is there already, with what was the default when it came.
            quiet_links()?;
            with_netlink(async |netlink| configure(&netlink, &site).await)
        })??;
    }
    Ok(())
}

/// A second link of a host, to another router than its first: addresses of both ends.
pub(crate) struct SecondLink {
    /// The router's.
    pub(crate) router: (Ipv4Addr, Ipv6Addr),
    /// The host's.
    pub(crate) host: (Ipv4Addr, Ipv6Addr),
}

/// Joins a host to a second router, whose interface to it has this name.
pub(crate) fn join_second(
    router: &Host,
    host: &Host,
    link: &SecondLink,
    name: &str,
) -> io::Result<()> {
    let (name, namespace) = (name.to_owned(), host.namespace.as_raw_fd());
    let (near, far) = (link.router, link.host);
    let index = link.index();
    router.run(move || {
        netns::sysctl("ipv4/ip_forward", "1")?;
        netns::sysctl("ipv6/conf/all/forwarding", "1")?;
        with_netlink(async |netlink| {
            let one_segment = LinkAttribute::GsoMaxSegs(1);
            let peer = LinkUnspec::new_with_index(HOST_INDEX + 1)
                .name(SECOND_INTERFACE)
                .setns_by_fd(namespace)
                .append_extra_attribute(one_segment.clone())
                .build();
            let pair = LinkMessageBuilder::<LinkVeth>::new(&name, SECOND_INTERFACE)
                .index(index)
                .append_extra_attribute(one_segment)
                .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
                .build();
            netlink.link().add(pair).execute().await?;
            let up = LinkUnspec::new_with_index(index).up().build();
            netlink.link().set(up).execute().await?;
            add_address(&netlink, index, near.0.into(), SECOND_V4).await?;
            add_address(&netlink, index, near.1.into(), 64).await
        })
    })??;
    host.run(move || {
        with_netlink(async |netlink| {
            let up = LinkUnspec::new_with_index(HOST_INDEX + 1).up().build();
            netlink.link().set(up).execute().await?;
            add_address(&netlink, HOST_INDEX + 1, far.0.into(), SECOND_V4).await?;
            add_address(&netlink, HOST_INDEX + 1, far.1.into(), 64).await
        })
    })?
}

impl SecondLink {
    /// The router's interface: after those of first links, and another for each address.
    fn index(&self) -> u32 {
        FIRST_INDEX + 50 + u32::from(self.router.0.octets()[3])
    }
}

/// From now on a host sends by its second link, still with its own addresses.
pub(crate) fn default_route(host: &Host, link: &SecondLink) -> io::Result<()> {
    let (v4, v6) = (link.router.0, link.router.1);
    let (own4, own6) = (host.site.v4, host.site.v6);
    host.run(move || {
        with_netlink(async |netlink| {
            let v4 = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).pref_source(own4);
            netlink.route().add(v4.build()).replace().execute().await?;
            let v6 = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).pref_source(own6);
            let old = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(HOST_INDEX);
            netlink.route().del(old.build()).execute().await?;
            netlink.route().add(v6.build()).execute().await
        })
    })?
}

/// Gives a host a route, or another one.
pub(crate) fn route(host: &Host, network: IpAddr, length: u8, via: IpAddr) -> io::Result<()> {
    host.run(move || {
        with_netlink(async |netlink| match (network, via) {
            (IpAddr::V4(network), IpAddr::V4(via)) => {
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(network, length)
                    .gateway(via);
                netlink.route().add(route.build()).replace().execute().await
            }
            (IpAddr::V6(network), IpAddr::V6(via)) => {
                let route = RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(network, length)
                    .gateway(via);
                netlink.route().add(route.build()).replace().execute().await
            }
            _ => Ok(()),
        })
    })?
}

/// Sets a link of a host up or down.
pub(crate) fn set_link(host: &Host, name: &str, up: bool) -> io::Result<()> {
    let link = LinkUnspec::new_with_name(name);
    let link = if up { link.up() } else { link.down() }.build();
    host.run(move || with_netlink(async |netlink| netlink.link().set(link).execute().await))?
}

/// Position of the host that a frame coming in on the core router's interface is from.
pub(crate) fn host_index(interface: u32) -> Option<usize> {
    usize::try_from(interface.checked_sub(FIRST_INDEX)?).ok()
}

fn core_index(position: usize) -> u32 {
    FIRST_INDEX + u32::try_from(position).unwrap_or(0)
}

/// IPv6 whatever the machine's own settings are, without duplicate address detection, which would
/// cost a second, and without chatter about routers.
fn quiet_links() -> io::Result<()> {
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Err(io::Error::other(
            "this kernel runs without IPv6 (booted with ipv6.disable=1?)",
        ));
    }
    let settings =
        [("disable_ipv6", "0"), ("accept_dad", "0"), ("dad_transmits", "0"), ("accept_ra", "0")];
    for scope in ["all", "default", INTERFACE] {
        for (key, value) in settings {
            match netns::sysctl(&format!("ipv6/conf/{scope}/{key}"), value) {
                Err(error) if scope == INTERFACE && error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

async fn add_pair(
    netlink: &Handle,
    index: u32,
    site: &Site,
    namespace: i32,
) -> Result<(), rtnetlink::Error> {
    // One segment a packet: what the capture sees is what a wire would carry.
    let one_segment = LinkAttribute::GsoMaxSegs(1);
    let peer = LinkUnspec::new_with_index(HOST_INDEX)
        .name(INTERFACE)
        .setns_by_fd(namespace)
        .append_extra_attribute(one_segment.clone())
        .build();
    let pair = LinkMessageBuilder::<LinkVeth>::new(&site.name, INTERFACE)
        .index(index)
        .append_extra_attribute(one_segment)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    netlink.link().add(pair).execute().await?;
    netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    add_address(netlink, index, IpAddr::V4(site.v4_gateway.0), site.v4_gateway.1).await?;
    add_address(netlink, index, IpAddr::V6(site.v6_gateway.0), site.v6_gateway.1).await
}

async fn configure(netlink: &Handle, site: &Site) -> Result<(), rtnetlink::Error> {
    for index in [LOOPBACK_INDEX, HOST_INDEX] {
        netlink.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await?;
    }
    add_address(netlink, HOST_INDEX, IpAddr::V4(site.v4), site.v4_gateway.1).await?;
    add_address(netlink, HOST_INDEX, IpAddr::V6(site.v6), site.v6_gateway.1).await?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(HOST_INDEX)
        .gateway(site.v4_gateway.0);
    netlink.route().add(gateway.build()).execute().await?;
    let gateway = RouteMessageBuilder::<Ipv6Addr>::new()
        .output_interface(HOST_INDEX)
        .gateway(site.v6_gateway.0);
    netlink.route().add(gateway.build()).execute().await
}

async fn add_address(
    netlink: &Handle,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), rtnetlink::Error> {
    let mut request = netlink.address().add(index, address, length);
    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    request.execute().await
}

/// Runs a netlink conversation on the calling thread, in its namespace.
fn with_netlink<T>(talk: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        talk(netlink).await.map_err(io::Error::other)
    })
}

/// Name of a second link.
const SECOND_INTERFACE: &str = "eth1";
/// Prefix length of its IPv4 subnet.
const SECOND_V4: u8 = 28;
/// The kernel gives it to every namespace's `lo`.
const LOOPBACK_INDEX: u32 = 1;
/// Beyond the fallback devices that some kernels put into every namespace.
const HOST_INDEX: u32 = 100;
/// Likewise, and distinct from [`HOST_INDEX`] so that a mix-up shows.
const FIRST_INDEX: u32 = 200;
