//! The kernel's data plane with IKE's sockets beside it.

use std::net::{IpAddr, SocketAddr};

use super::super::ground::{KernelError, doing};
use super::ike::IkeSockets;
use super::{Xfrm, XfrmConfig};
use crate::userspace::Lanes;

/// Everything of a node but keying, when the kernel carries the packets.
pub(crate) struct KernelPlane {
    /// The packets.
    pub(crate) xfrm: Xfrm,
    /// IKE messages, without the non-ESP marker.
    pub(crate) datagrams: Lanes,
    sockets: IkeSockets,
    listen: Vec<IpAddr>,
}

impl KernelPlane {
    /// Starts both. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the kernel has no ESP or refuses, or if there is nothing to listen on.
    pub(crate) fn start(config: XfrmConfig) -> Result<Self, KernelError> {
        let (sockets, datagrams) = IkeSockets::new(config.mark, config.ike_port, config.natt_port);
        let listen = config.listen.clone();
        let mut plane = Self { xfrm: Xfrm::start(config)?, datagrams, sockets, listen };
        plane.listen();
        if plane.sockets.is_empty() {
            plane.xfrm.undo();
            let error = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
            return Err(doing("listening for IKE")(error));
        }
        Ok(plane)
    }

    /// Addresses or routes have changed.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses a policy.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        let done = self.xfrm.refresh();
        self.listen();
        done
    }

    /// [`Self::refresh`], whatever others have done to the kernel's policies.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses a policy.
    pub(crate) fn reconcile(&mut self) -> Result<(), KernelError> {
        let done = self.xfrm.reconcile();
        self.listen();
        done
    }

    fn listen(&mut self) {
        let wanted = |address: &IpAddr| {
            // A link-local address is none without its link.
            let usable = match address {
                IpAddr::V4(_) => true,
                IpAddr::V6(address) => !address.is_unicast_link_local(),
            };
            usable && (self.listen.is_empty() || self.listen.contains(address))
        };
        let addresses: Vec<IpAddr> =
            self.xfrm.local_addresses().iter().copied().filter(wanted).collect();
        self.sockets.follow(&addresses);
    }

    /// Sends an IKE message from `local`; an unspecified address leaves the choice to the kernel.
    pub(crate) fn transmit(
        &mut self,
        mut local: SocketAddr,
        remote: SocketAddr,
        marker: bool,
        octets: &[u8],
    ) {
        if local.ip().is_unspecified()
            && let Some(source) = self.xfrm.source_for(remote.ip())
        {
            local.set_ip(source);
        }
        self.sockets.transmit(local, remote, marker, octets);
    }
}
