//! The kernel: routes, rules, addresses, and the XFRM policies that enforce inbound protection.
//!
//! ```text
//! application → rule "not fwmark M lookup T" ──► table T (ours)
//!                     │ M: our own sockets          prefix of a trapping group → ipsec0, and under
//!                     │                               it, at a worse metric, blackhole (private)
//!                     ▼                             pass: throw        deny: blackhole
//!                 main table ◄── throw, no match    block: prohibit
//! ```
//!
//! - [`ground`]: the table and the policies, from `up` to `down`.
//! - [`fence`]: XFRM blocks for those who go around routes.
//! - [`guard`]: what keeps closed prefixes closed while no daemon runs.
//! - [`mod@look`]: what stands now, for `oe-node verify`.
//! - [`plan`]: which routes the table must hold, as a pure function.
//! - [`policies`]: XFRM blocks for what a protected peer sends in the clear.
//! - [`steering`]: rules of others that come before ours.
//! - [`subnets`]: rules and routes of configured connections.
//! - [`xfrm`]: the kernel as the data plane itself.
//! - [`changes`]: addresses, links and routes as others change them.
//! - [`routes`], [`rules`], [`spd`], [`netlink`], [`sysctl`]: how the kernel is spoken to.

mod changes;
mod fence;
mod ground;
mod guard;
mod look;
mod netlink;
mod plan;
mod policies;
mod renewals;
mod routes;
mod rules;
mod spd;
mod steering;
mod subnets;
mod sysctl;
mod xfrm;

#[cfg(test)]
pub(crate) mod namespace;
#[cfg(test)]
mod tests;

pub(crate) use changes::Changes;
pub(crate) use ground::{ClassChange, Ground, GroundConfig, KernelError, route_classes};
pub(crate) use guard::{Closed, Guard, GuardView};
pub(crate) use look::{Looked, look, metrics_to, source_towards, ways_onward};
pub(crate) use plan::{LeftAlone, is_left_alone};
pub(crate) use sysctl::forwards;
pub(crate) use xfrm::{KernelPlane, XfrmConfig, XfrmGuard, hear_answers};
