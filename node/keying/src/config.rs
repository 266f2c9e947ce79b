//! What keying is told once, and the lives of what it decides.

use std::net::IpAddr;
use std::time::Duration;

use dnskeys::Rules;
use ike::{End, Identity};
use sa::Prefix;

use crate::connection::Connection;
use crate::group::Groups;
use crate::own::OwnRecord;
use crate::report::INTERNAL_ADDRESS_FAILURE;

/// What to do when a *secure* record exists and its gateway does not answer
/// (`[policy] when-advertised`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WhenAdvertised {
    /// Fall back to clear text for a short while, and count a downgrade.
    #[default]
    Clear,
    /// Deny: the record is taken at its word.
    Insist,
}

/// What becomes of peers that prove nothing (`[policy] null-auth`, RFC 7619).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NullAuth {
    /// They are refused.
    #[default]
    Never,
    /// They may have the address they call from, if nothing is published for it.
    Accept,
    /// And destinations for which nothing is published are called so, before anything goes to them
    /// in the clear.
    Call,
}

/// What keying is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which destinations are treated how.
    pub groups: Groups,
    /// Hosts behind us for which we are the gateway, if their own records say so.
    pub served: Vec<Prefix>,
    /// Configured connections, in the order of the file.
    pub connections: Vec<Connection>,
    /// What counts as authority.
    pub rules: Rules,
    /// What a silent gateway with a secure record means.
    pub when_advertised: WhenAdvertised,
    /// What becomes of peers that prove nothing.
    pub null_auth: NullAuth,
    /// What the lack of a record of our own means.
    pub own_record: OwnRecord,
    /// Who we say we are; `None` is our outer address.
    pub identity: Option<Identity>,
    /// Our own addresses.
    pub addresses: Vec<IpAddr>,
    /// Addresses that we give to who calls by name and asks for one. In group `private`, so that
    /// nothing for them goes astray ([`crate::Groups::set_pool`]).
    pub pool: Vec<Prefix>,
    /// Whether the data plane can make our own address another within a pair: whether it makes sense
    /// to ask for one when a NAT stands before us.
    pub translates: bool,
    /// The IKE machine's own configuration.
    pub ike: ike::Config,
    /// Lives of decisions.
    pub lives: Lives,
    /// Clear and denied flows remembered at once: about a kilobyte each. Beyond them the one that
    /// ends soonest is forgotten, and asked for again when it comes back. Flows with pairs, and
    /// those that are undecided, have bounds of their own.
    pub destinations: usize,
}

/// How long decisions stand when DNS does not say (oe-rules: the decision table and its numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lives {
    /// After a failure that may pass soon: DNS trouble, an exhausted budget.
    pub short: Duration,
    /// After silence from a gateway whose record exists, at most: such a failure stands for as long as
    /// the gateway has been silent, and for [`Self::short`] at the least.
    pub silent: Duration,
    /// After an authenticated refusal.
    pub refused: Duration,
    /// A pair's first idleness check after it came up.
    pub first_look: Duration,
    /// Unused for longer than this in both directions at a check: the pair is closed.
    pub idle: Duration,
    /// Between later idleness checks.
    pub next_look: Duration,
}

impl Lives {
    /// How long a failure stands that ended like this (rules 26, 28, 29); `left` is what is left
    /// of the answer that named the gateway: a key that is about to be published comes with the
    /// next.
    pub(crate) fn after(&self, end: End, left: Duration) -> Duration {
        match end {
            End::Timeout | End::Refused { authentic: false, .. } => self.silent,
            // Somebody may give one back.
            End::Refused { notify: INTERNAL_ADDRESS_FAILURE, authentic: true } => self.short,
            End::Refused { authentic: true, .. } | End::NoAddress => self.refused,
            End::AuthenticationFailed | End::NotAuthorized => left,
            End::SigningFailed
            | End::DeletedByPeer
            | End::Closed
            | End::InitialContact
            | End::PeerLost
            | End::Expired
            | End::Misbehaved(_) => self.short,
        }
    }
}

/// [`Config::destinations`] of a node that was told nothing: under a scan of the whole Internet its
/// memory grows by no more than some 20 MB.
pub const DESTINATIONS: usize = 16_384;

impl Default for Lives {
    fn default() -> Self {
        Self {
            short: Duration::from_secs(60),
            silent: Duration::from_secs(600),
            refused: Duration::from_secs(3600),
            first_look: Duration::from_secs(60),
            idle: Duration::from_secs(30),
            next_look: Duration::from_secs(20 * 60),
        }
    }
}
