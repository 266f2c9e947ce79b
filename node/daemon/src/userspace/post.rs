//! IKE's sockets, as the main loop reads them: nobody else is woken for a message.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::lanes::Datagram;
use super::natt::Natt;
use super::sockets::{Sockets, Udp};
use super::strays::{Stray, Strays};
use super::sys;

/// The sockets and what is needed to read them.
pub(super) struct Post {
    /// The same sockets once more, for the runtime.
    watched: Vec<AsyncFd<Socket>>,
    sockets: Arc<Sockets>,
    /// One receive.
    buffer: Vec<u8>,
    /// ESP that came joined with IKE.
    strays: Strays,
}

impl Post {
    pub(super) fn new(sockets: Arc<Sockets>, strays: Strays) -> Self {
        Self { watched: Vec::new(), sockets, buffer: vec![0; LARGEST], strays }
    }

    /// From now on [`Self::poll`] knows when something comes. Must be called inside a runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch a socket.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        let watched = |udp: &Udp| sys::watch(udp.another()?);
        self.watched = self.sockets.ike().iter().map(watched).collect::<io::Result<_>>()?;
        Ok(())
    }

    /// Packets of ESP that were lost here.
    pub(super) fn lost(&self) -> u64 {
        self.strays.lost()
    }

    /// Takes in what has come, up to a bound; `Pending` when there is nothing.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(Datagram),
    ) -> Poll<()> {
        let mut any = false;
        for index in 0..self.watched.len() {
            any |= self.poll_one(index, cx, take).is_ready();
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_one(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(Datagram),
    ) -> Poll<()> {
        let mut any = false;
        for _ in 0..AT_ONCE {
            let Some(watched) = self.watched.get(index) else { break };
            // An error means that the runtime ends.
            let Ok(mut guard) = ready!(after(any, watched.poll_read_ready(cx))) else { break };
            match receive(&self.sockets, index, &mut self.buffer, &self.strays, take) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                // Errors are of earlier datagrams (ICMP); the socket stays good.
                Err(_) => {}
                Ok(()) => any = true,
            }
        }
        if any {
            return Poll::Ready(());
        }
        // Errors only, and nobody will say when there is something else.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes in what is there now.
    #[cfg(test)]
    pub(super) fn take_now(&mut self, take: &mut impl FnMut(Datagram)) {
        for index in 0..self.sockets.ike().len() {
            while receive(&self.sockets, index, &mut self.buffer, &self.strays, take).is_ok() {}
        }
    }
}

/// Nothing more is no reason to wait once there was something.
fn after<T>(any: bool, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    match poll {
        Poll::Pending if any => Poll::Ready(Err(io::ErrorKind::WouldBlock.into())),
        poll => poll,
    }
}

/// One receive: a datagram, or several that the kernel has joined.
fn receive(
    sockets: &Sockets,
    index: usize,
    buffer: &mut [u8],
    strays: &Strays,
    take: &mut impl FnMut(Datagram),
) -> io::Result<()> {
    let socket = sockets.ike().get(index).ok_or(io::ErrorKind::WouldBlock)?;
    let received = sys::receive(socket.fd(), buffer)?;
    let local = socket.local(received.local);
    let octets = buffer.get(..received.len).unwrap_or_default();
    for datagram in octets.chunks(received.stride.max(1)) {
        let what = if socket.natt { Natt::of(datagram) } else { Natt::Ike(datagram) };
        match what {
            Natt::Ike(message) => take((local, received.remote, message.to_vec())),
            Natt::Keepalive => {}
            Natt::Esp => strays.put(Stray {
                remote: received.remote,
                tos: received.tos,
                octets: datagram.to_vec(),
            }),
        }
    }
    Ok(())
}

/// Receives from a socket before what came is looked at: whom we know goes before strangers, as far
/// as both have been read.
const AT_ONCE: usize = 32;
/// The largest receive there is.
const LARGEST: usize = 65_536;
