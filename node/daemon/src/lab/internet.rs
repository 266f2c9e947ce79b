//! The lab put together: namespaces, links, keys, DNS and nodes, in this order.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::capture::Capture;
use super::host::Host;
use super::node::{Children, Node, Resolver};
use super::progress::Progress;
use super::topology::{Role, Site};
use super::{keys, links, names, netns, topology, traffic};
use crate::hostkey::Bits;

/// A running lab. What it consists of ends when it is dropped.
pub(crate) struct Internet {
    /// The router between the hosts.
    pub(crate) core: Host,
    /// All others, in the order of their sites.
    pub(crate) hosts: Vec<Host>,
    /// The node processes, in the order of their hosts.
    pub(crate) nodes: Vec<Node>,
    children: Children,
}

impl Internet {
    /// Makes namespaces for the sites and joins them.
    pub(crate) fn build(sites: &[Site], children: Children) -> anyhow::Result<Self> {
        let core = Host::start(topology::core()).context("cannot make a network namespace")?;
        let hosts = sites
            .iter()
            .map(|site| Host::start(site.clone()))
            .collect::<io::Result<Vec<_>>>()
            .context("cannot make a network namespace")?;
        links::join(&core, &hosts).context("cannot join the namespaces")?;
        for host in hosts.iter().filter(|host| host.site.role != Role::Names) {
            host.run(traffic::serve_echo)?.context("cannot start the echo service")?;
        }
        Ok(Self { core, hosts, nodes: Vec::new(), children })
    }

    /// Gives every node a key, publishes them, and starts the nodes.
    pub(crate) fn start_nodes(
        &mut self,
        bits: Bits,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        progress.begin("making host keys");
        let publishing: Vec<&Host> = self
            .hosts
            .iter()
            .filter(|host| matches!(host.site.role, Role::Node | Role::Bogus))
            .collect();
        let wanted: Vec<String> = publishing.iter().map(|host| host.site.name.clone()).collect();
        let keys = keys::make(&wanted, bits).context("cannot make host keys")?;

        progress.begin("signing the reverse zones and serving them");
        let published = publishing.iter().map(|host| &host.site).zip(keys).collect::<Vec<_>>();
        let dns = self.host(Role::Names).context("no DNS host")?;
        let trust_anchor = Path::new(netns::SCRATCH).join("trust-anchor");
        fs::write(&trust_anchor, names::serve(dns, &published)?)?;

        progress.begin("starting the nodes");
        let resolver = Resolver { address: format!("{}:53", dns.site.v4), trust_anchor };
        let mut nodes = Vec::new();
        for host in self.hosts.iter().filter(|host| host.site.role == Role::Node) {
            nodes.push(
                Node::start(host, &resolver, &self.children)
                    .with_context(|| format!("cannot start a node on {}", host.site.name))?,
            );
        }
        self.nodes = nodes;
        for node in &self.nodes {
            node.await_ready(&self.children, START_PATIENCE)?;
        }
        Ok(())
    }

    /// Watches the wire from now on.
    pub(crate) fn watch(&self, plaintext: &[u8], pcap: Option<File>) -> anyhow::Result<Capture> {
        Capture::start(&self.core, plaintext.to_owned(), pcap).context("cannot watch the wire")
    }

    /// The host of this name.
    pub(crate) fn named(&self, name: &str) -> anyhow::Result<&Host> {
        let found = self.hosts.iter().find(|host| host.site.name == name);
        found.with_context(|| format!("no host {name}"))
    }

    /// The processes of the lab.
    pub(crate) fn children(&self) -> &Children {
        &self.children
    }

    /// The first host of a role.
    pub(crate) fn host(&self, role: Role) -> Option<&Host> {
        self.hosts.iter().find(|host| host.site.role == role)
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.children.end();
    }
}

/// Starting takes milliseconds, but thirty may start at once on two cores.
const START_PATIENCE: Duration = Duration::from_secs(10);
