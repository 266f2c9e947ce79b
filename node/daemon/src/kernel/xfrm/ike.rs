//! The sockets of IKE when the kernel carries the packets: UDP 500 and 4500, one of each for every
//! address of ours, so that what is answered leaves from where it was asked.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::accept_encapsulated;
use crate::userspace::{Entry, Lanes, Natt, lanes, marked};

/// The largest IKE datagram: UDP allows no more.
const LARGEST: usize = 65_535;

/// IKE's sockets, as our addresses come and go.
pub(super) struct IkeSockets {
    mark: u32,
    /// Port, and whether ESP comes there too.
    ports: [(u16, bool); 2],
    bound: HashMap<SocketAddr, Bound>,
    received: Entry,
}

struct Bound {
    socket: Arc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl IkeSockets {
    /// No socket yet; what the later ones receive comes out at the other end.
    pub(super) fn new(mark: u32, ike_port: u16, natt_port: u16) -> (Self, Lanes) {
        let (received, datagrams) = lanes();
        let ports = [(ike_port, false), (natt_port, true)];
        (Self { mark, ports, bound: HashMap::new(), received }, datagrams)
    }

    /// Listens on these addresses and no others. One that cannot be bound is left out: it may
    /// have gone already.
    pub(super) fn follow(&mut self, addresses: &[IpAddr]) {
        self.bound.retain(|local, _| addresses.contains(&local.ip()));
        for (port, encapsulation) in self.ports {
            for address in addresses {
                let local = SocketAddr::new(*address, port);
                if self.bound.contains_key(&local) {
                    continue;
                }
                match self.bind(local, encapsulation) {
                    Ok(bound) => drop(self.bound.insert(local, bound)),
                    Err(error) => tracing::warn!(%error, %local, "cannot listen"),
                }
            }
        }
    }

    /// Whether there is a socket at all.
    pub(super) fn is_empty(&self) -> bool {
        self.bound.is_empty()
    }

    fn bind(&self, local: SocketAddr, encapsulation: bool) -> io::Result<Bound> {
        let kind = Type::DGRAM.nonblocking();
        let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
        socket.set_mark(self.mark)?;
        socket.bind(&local.into())?;
        if encapsulation {
            accept_encapsulated(&socket)?;
        }
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        let task =
            tokio::spawn(receive(Arc::clone(&socket), local, encapsulation, self.received.clone()));
        Ok(Bound { socket, task })
    }

    /// Sends from this address, with the marker if asked. What the network does not take at once
    /// is lost, as it might be on the way; IKE repeats itself.
    pub(super) fn transmit(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        marker: bool,
        octets: &[u8],
    ) {
        let Some(bound) = self.bound.get(&local) else {
            tracing::debug!(%local, "nothing to send from");
            return;
        };
        let sent = if marker {
            bound.socket.try_send_to(&marked(octets), remote)
        } else {
            bound.socket.try_send_to(octets, remote)
        };
        if let Err(error) = sent {
            tracing::debug!(%error, %local, %remote, "cannot send");
        }
    }
}

async fn receive(socket: Arc<UdpSocket>, local: SocketAddr, encapsulation: bool, received: Entry) {
    let mut buffer = vec![0; LARGEST];
    loop {
        // Errors are of earlier datagrams (ICMP); the socket stays good.
        let Ok((len, remote)) = socket.recv_from(&mut buffer).await else { continue };
        let octets = buffer.get(..len).unwrap_or_default();
        // ESP goes to the kernel.
        let what = if encapsulation { Natt::of(octets) } else { Natt::Ike(octets) };
        if let Natt::Ike(message) = what {
            // A main loop that is behind loses datagrams, as the network would.
            let _ = received.put((local, remote, message.to_vec()));
        }
    }
}
