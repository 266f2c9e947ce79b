//! The data plane that the configuration names, as the main loop sees it: our own with its ground
//! in the kernel's routing, or the kernel's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use sa::{Command, Notice, Policy, Prefix, Subnets};

use crate::config::{self, Config};
use crate::kernel::{ClassChange, Ground, KernelError, KernelPlane, LeftAlone};
use crate::userspace::{self, Counters, Datagram, Plane};
use crate::view;

/// A running data plane.
pub(crate) enum Backend {
    /// Ours, over a TUN device.
    Userspace {
        /// The packet path.
        plane: Box<Plane>,
        /// The routes that lead to it.
        ground: Box<Ground>,
        /// What is to be told of links.
        links: LinkNews,
    },
    /// The kernel's.
    Xfrm(Box<KernelPlane>),
}

/// What comes up from a data plane.
pub(crate) enum Input {
    /// Something to decide.
    Notice(Notice),
    /// An IKE message.
    Datagram(Datagram),
}

impl Backend {
    /// Starts what the configuration names. Must be called inside a runtime.
    ///
    /// # Errors
    /// Says what could not be had; nothing is left behind then.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        Ok(match config.node.backend {
            config::Backend::Userspace => {
                let mut plane = userspace::start(view::plane_config(config)?)?;
                plane.listen()?;
                let ground = Box::new(Ground::up(view::ground_config(config))?);
                Self::Userspace { plane: Box::new(plane), ground, links: LinkNews::default() }
            }
            config::Backend::Xfrm => {
                Self::Xfrm(Box::new(KernelPlane::start(view::xfrm_config(config))?))
            }
        })
    }

    /// The next input; `None` when the plane is gone. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Input> {
        match self {
            Self::Userspace { plane, .. } => tokio::select! {
                notice = plane.notices.recv() => notice.map(Input::Notice),
                Some(notice) = plane.uses.recv() => Some(Input::Notice(notice)),
                Some(notice) = plane.acquires.next() => Some(Input::Notice(notice)),
                Some(datagram) = plane.datagrams.next() => Some(Input::Datagram(datagram)),
            },
            Self::Xfrm(plane) => tokio::select! {
                notice = plane.xfrm.notice() => Some(Input::Notice(notice)),
                Some(datagram) = plane.datagrams.next() => Some(Input::Datagram(datagram)),
            },
        }
    }

    /// The next IKE message; `None` when the plane is gone. Cancel-safe.
    pub(crate) async fn datagram(&mut self) -> Option<Datagram> {
        match self {
            Self::Userspace { plane, .. } => plane.datagrams.next().await,
            Self::Xfrm(plane) => plane.datagrams.next().await,
        }
    }

    /// All that there was to say has been said: the packet thread is woken once for all of it, if any
    /// of it cannot wait until a packet wakes it.
    pub(crate) fn ordered(&mut self) {
        match self {
            Self::Userspace { plane, ground, .. } => {
                if let Err(error) = ground.turn_if_due() {
                    tracing::warn!("{error}");
                }
                plane.wake();
            }
            Self::Xfrm(_) => {}
        }
    }

    /// As [`Self::ordered`], and nothing can wait: somebody waits for an answer.
    pub(crate) fn ordered_at_once(&mut self) {
        match self {
            Self::Userspace { plane, .. } => plane.wake_at_once(),
            Self::Xfrm(_) => {}
        }
    }

    /// Whether nothing has come up that [`Self::next`] would return at once.
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Self::Userspace { plane, .. } => {
                plane.notices.is_empty()
                    && plane.uses.is_empty()
                    && plane.acquires.is_empty()
                    && plane.datagrams.is_empty()
            }
            // It is not known.
            Self::Xfrm(_) => false,
        }
    }

    /// Does what keying says; [`Self::ordered`] has to follow.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn obey(&mut self, command: Command) -> Result<(), KernelError> {
        match self {
            Self::Userspace { links, .. }
                if let Command::LinksUp { subnets, links: up } = command =>
            {
                links.put(Instant::now(), subnets, up);
                Ok(())
            }
            Self::Userspace { plane, ground, .. } if adds(&command) => {
                plane.command(command.clone());
                lay(ground, &command)
            }
            Self::Userspace { plane, ground, links } => {
                if let Command::ClearSubnets { subnets } = &command {
                    links.news.remove(subnets);
                }
                let done = lay(ground, &command);
                plane.command(command);
                done
            }
            Self::Xfrm(plane) => plane.xfrm.command(command),
        }
    }

    /// Prefixes, or single ports of them, get these classes, or none. All at once, because what the
    /// kernel must hold depends on all of them.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn change_classes(&mut self, changes: &[ClassChange]) -> Result<(), KernelError> {
        match self {
            Self::Userspace { plane, ground, .. } => {
                let (gone, new): (Vec<_>, Vec<_>) =
                    changes.iter().partition(|(_, _, class)| class.is_none());
                let command = |(prefix, ports, class): &ClassChange| {
                    keying::class_command(*prefix, *ports, *class)
                };
                new.into_iter().map(command).for_each(|command| plane.command(command));
                let done = ground.change_classes(changes);
                gone.into_iter().map(command).for_each(|command| plane.command(command));
                done
            }
            Self::Xfrm(plane) => plane.xfrm.change_classes(changes),
        }
    }

    /// All classes have been set.
    ///
    /// # Errors
    /// If the kernel refuses to remove what a predecessor left.
    pub(crate) fn settled(&mut self) -> Result<(), KernelError> {
        match self {
            Self::Userspace { ground, .. } => ground.settled(),
            Self::Xfrm(plane) => plane.xfrm.settled(),
        }
    }

    /// Makes or removes the guard.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn set_guard(&mut self, up: bool) -> Result<(), KernelError> {
        match self {
            Self::Userspace { ground, .. } => ground.set_guard(up),
            Self::Xfrm(plane) => plane.xfrm.set_guard(up),
        }
    }

    /// Other hosts are behind us now.
    ///
    /// # Errors
    /// If the kernel refuses a route.
    pub(crate) fn set_served(&mut self, served: Vec<Prefix>) -> Result<(), KernelError> {
        match self {
            Self::Userspace { ground, .. } => ground.set_served(served),
            // The configuration refuses them with this data plane.
            Self::Xfrm(_) => Ok(()),
        }
    }

    /// Why packets to an address go past us, whatever its class; `None` if they do not.
    pub(crate) fn left_alone(&self, addr: IpAddr) -> Option<LeftAlone> {
        match self {
            Self::Userspace { ground, .. } => ground.left_alone(addr),
            Self::Xfrm(_) => None,
        }
    }

    /// Routing rules of others that come before ours.
    pub(crate) fn steering(&self) -> &[String] {
        match self {
            Self::Userspace { ground, .. } => ground.steering(),
            // The kernel's own policies do not depend on routes.
            Self::Xfrm(_) => &[],
        }
    }

    /// Whether there is a guard that stays when we go.
    pub(crate) fn is_guarded(&self) -> bool {
        match self {
            Self::Userspace { ground, .. } => ground.is_guarded(),
            Self::Xfrm(plane) => plane.xfrm.is_guarded(),
        }
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Self::Userspace { plane, ground, links } => {
                [plane.due(), ground.renewal_due(), links.due].into_iter().flatten().min()
            }
            Self::Xfrm(_) => None,
        }
    }

    /// Renews what ends by itself when we are gone, has the packet thread look at what it was told
    /// while it slept, and shows which links are up.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), KernelError> {
        match self {
            Self::Userspace { plane, ground, links } => {
                if plane.due().is_some_and(|due| due <= now) {
                    plane.wake_at_once();
                }
                // One that the kernel refuses does not keep the others from it.
                let mut done = Ok(());
                for (between, up) in links.take_due(now) {
                    let shown = ground.set_links(between, &up);
                    done = done.and(shown);
                }
                if ground.renewal_due().is_some_and(|due| due <= now) {
                    let renewed = ground.renew();
                    done = done.and(renewed);
                }
                done
            }
            Self::Xfrm(_) => Ok(()),
        }
    }

    /// Packets of protected peers that came in the clear and were dropped.
    pub(crate) fn dropped_in_clear(&self) -> u64 {
        match self {
            Self::Userspace { ground, .. } => ground.dropped_in_clear(),
            Self::Xfrm(_) => 0,
        }
    }

    /// Sends an IKE message.
    pub(crate) fn transmit(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        marker: bool,
        octets: &[u8],
    ) {
        match self {
            Self::Userspace { plane, .. } => plane.transmit(local, remote, marker, octets),
            Self::Xfrm(plane) => plane.transmit(local, remote, marker, octets),
        }
    }

    /// Addresses or routes have changed.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses.
    pub(crate) fn refresh(&mut self) -> Result<(), KernelError> {
        match self {
            Self::Userspace { ground, .. } => ground.refresh(),
            Self::Xfrm(plane) => plane.refresh(),
        }
    }

    /// Makes the kernel hold what it must, whatever others have done to it.
    ///
    /// # Errors
    /// If the kernel cannot be read, or refuses.
    pub(crate) fn reconcile(&mut self) -> Result<(), KernelError> {
        match self {
            Self::Userspace { ground, .. } => ground.reconcile(),
            Self::Xfrm(plane) => plane.reconcile(),
        }
    }

    /// The sockets through which we change routes, as events of the kernel name them.
    pub(crate) fn ports(&self) -> Vec<u32> {
        match self {
            Self::Userspace { ground, .. } => ground.ports(),
            Self::Xfrm(_) => Vec::new(),
        }
    }

    /// The addresses of this host, as last read.
    pub(crate) fn local_addresses(&self) -> &[IpAddr] {
        match self {
            Self::Userspace { ground, .. } => ground.local_addresses(),
            Self::Xfrm(plane) => plane.xfrm.local_addresses(),
        }
    }

    /// As the configuration calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Userspace { .. } => "userspace",
            Self::Xfrm(_) => "xfrm",
        }
    }

    /// Who seals and opens.
    pub(crate) fn cryptography(&self) -> &'static str {
        match self {
            Self::Userspace { plane, .. } => plane.provider.name(),
            Self::Xfrm(_) => "kernel",
        }
    }

    /// What our own packet path counted; the kernel counts for itself (`/proc/net/xfrm_stat`).
    pub(crate) fn counters(&self) -> Counters {
        match self {
            Self::Userspace { plane, .. } => plane.counters(),
            Self::Xfrm(_) => Counters::default(),
        }
    }

    /// Ends it and leaves nothing behind.
    pub(crate) fn stop(self) {
        match self {
            Self::Userspace { plane, mut ground, .. } => {
                // The device goes first, so that nothing is trapped that nobody would answer for.
                plane.stop();
                ground.down();
            }
            Self::Xfrm(mut plane) => plane.xfrm.stop(),
        }
    }

    /// Ends it by an error: what policy closes stays closed until the next start, as after a crash.
    pub(crate) fn abandon(self) {
        match self {
            Self::Userspace { plane, mut ground, .. } => {
                plane.stop();
                ground.abandon();
            }
            // Its closed traps stay in the kernel; the open ones end by themselves.
            Self::Xfrm(_) => {}
        }
    }

    /// Ends a start that failed before [`Self::settled`]: leaves what it found.
    pub(crate) fn undo(self) {
        match self {
            Self::Userspace { plane, mut ground, .. } => {
                plane.stop();
                ground.undo();
            }
            Self::Xfrm(mut plane) => plane.xfrm.undo(),
        }
    }
}

/// Whether a command says what becomes of packets that the ground is about to lead to the packet
/// path. It must know before the first of them comes.
fn adds(command: &Command) -> bool {
    match command {
        Command::SetSubnets { policy, .. } => *policy != Policy::Pass,
        Command::SetPolicy { policy: Policy::Hold | Policy::Deny, .. }
        | Command::ClearPolicy { .. } => true,
        _ => false,
    }
}

/// Which links are up, for those who watch the routes that show it: what comes and goes within a
/// moment is nothing to tell them, and each change costs the kernel a route.
#[derive(Debug, Default)]
pub(crate) struct LinkNews {
    news: BTreeMap<Subnets, Vec<u32>>,
    due: Option<Instant>,
}

impl LinkNews {
    fn put(&mut self, now: Instant, between: Subnets, up: Vec<u32>) {
        self.news.insert(between, up);
        self.due.get_or_insert(now + DAMPING);
    }

    fn take_due(&mut self, now: Instant) -> BTreeMap<Subnets, Vec<u32>> {
        if self.due.is_none_or(|due| due > now) {
            return BTreeMap::new();
        }
        self.due = None;
        std::mem::take(&mut self.news)
    }
}

/// How long what becomes of links is waited for before it is shown: little beside the second that a
/// link which falls silent takes to be noticed.
const DAMPING: Duration = Duration::from_millis(100);

/// What a command means for routes and inbound policies. Where the packet path releases what it
/// holds, they change before.
fn lay(ground: &mut Ground, command: &Command) -> Result<(), KernelError> {
    match command {
        Command::SetPolicy { flow, policy, about } => {
            ground.set_policy(*flow, Some((*policy, *about)))
        }
        Command::ClearPolicy { flow } => ground.set_policy(*flow, None),
        // Nothing was laid for it.
        Command::ReleaseFlow { .. } => Ok(()),
        Command::SetSubnets { subnets, policy } => {
            ground.set_subnets(*subnets, *policy != Policy::Pass)
        }
        Command::ShareSubnets { subnets, .. } | Command::SelectSubnets { subnets, .. } => {
            ground.set_subnets(*subnets, true)
        }
        Command::ClearSubnets { subnets } => ground.set_subnets(*subnets, false),
        // It has time: see `LinkNews`.
        Command::LinksUp { .. } => Ok(()),
        Command::WatchFlow(flow) => ground.watch(*flow),
        // The main loop gives them all at once: see `Backend::change_classes`.
        Command::SetClass { .. }
        | Command::ClearClass { .. }
        | Command::SetPortClass { .. }
        | Command::ClearPortClass { .. } => Ok(()),
        Command::AddSa(_)
        | Command::MoveSa { .. }
        | Command::RemoveSa(_)
        | Command::RevokeSa(_)
        | Command::AskUse(_) => Ok(()),
    }
}
