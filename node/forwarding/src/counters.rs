//! What the plane counts: what went through, and why something did not.

/// Why a packet went no further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    Malformed,
    Denied,
    NoClass,
    NotHoldable,
    Fragment,
    HoldReplaced,
    HoldOverBudget,
    Newcomer,
    HoldExpired,
    TooBig,
    Untransportable,
    SaSpent,
    UnknownSpi,
    Replayed,
    Unauthentic,
    BadTrailer,
    Dummy,
    InnerMalformed,
    InnerSelector,
    InnerOwner,
    Congestion,
    OutputFull,
    TableFull,
    PathHintRefused,
}

/// A snapshot of the plane's counters; packets unless said otherwise, never reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Packets sealed and sent.
    pub sealed: u64,
    /// Inner octets of them.
    pub sealed_bytes: u64,
    /// Packets opened and accepted.
    pub opened: u64,
    /// Inner octets of them.
    pub opened_bytes: u64,
    /// Packets sent in the clear by a `Pass` policy, released ones included.
    pub passed: u64,
    /// Packets put into hold.
    pub held: u64,
    /// Held packets sent later, sealed or in the clear.
    pub released: u64,
    /// Outgoing packets whose IP header contradicts itself.
    pub malformed: u64,
    /// Outgoing packets refused by policy.
    pub denied: u64,
    /// Outgoing packets of no configured prefix.
    pub no_class: u64,
    /// Outgoing multicast, broadcast, link-local packets that no policy let pass.
    pub not_holdable: u64,
    /// Outgoing later fragments that a rule for single ports, or a pair for such, may be for: they
    /// have none.
    pub fragment: u64,
    /// Held packets that a later one of the same flow replaced (RFC 4322 §3.1.2).
    pub hold_replaced: u64,
    /// Held packets given up because a budget was spent.
    pub hold_over_budget: u64,
    /// Packets of unknown flows refused because too many came at once.
    pub newcomers_refused: u64,
    /// Held packets given up because nobody decided.
    pub hold_expired: u64,
    /// Packets larger than the way allows, answered with "too big".
    pub too_big: u64,
    /// Outgoing packets that transport mode has no place for: other addresses than the pair's own,
    /// IPv4 options, IPv6 extension headers, fragments out of order.
    pub untransportable: u64,
    /// Packets for or from a pair that is used up.
    pub sa_spent: u64,
    /// ESP packets of an unknown SPI.
    pub unknown_spi: u64,
    /// ESP packets seen before, or older than the window.
    pub replayed: u64,
    /// ESP packets whose ICV does not match.
    pub unauthentic: u64,
    /// Authentic ESP packets with a trailer that cannot be.
    pub bad_trailer: u64,
    /// Dummy packets (RFC 4303 §2.6).
    pub dummy: u64,
    /// Authentic ESP packets around no IP packet.
    pub inner_malformed: u64,
    /// Inner packets outside their pair's selectors.
    pub inner_selector: u64,
    /// Inner packets from an address that belongs to another pair.
    pub inner_owner: u64,
    /// Packets dropped because congestion could not be signalled otherwise (RFC 6040).
    pub congestion: u64,
    /// Notices not sent because nobody collects them.
    pub output_full: u64,
    /// Policies, classes and pairs refused because a table was full.
    pub table_full: u64,
    /// Messages that made the way to a peer narrower.
    pub path_narrowed: u64,
    /// "Too big" messages that quote nothing that we have just sent.
    pub path_hint_refused: u64,
}

impl Counters {
    pub(crate) fn count(&mut self, reason: Reason) {
        let counter = match reason {
            Reason::Malformed => &mut self.malformed,
            Reason::Denied => &mut self.denied,
            Reason::NoClass => &mut self.no_class,
            Reason::NotHoldable => &mut self.not_holdable,
            Reason::Fragment => &mut self.fragment,
            Reason::HoldReplaced => &mut self.hold_replaced,
            Reason::HoldOverBudget => &mut self.hold_over_budget,
            Reason::Newcomer => &mut self.newcomers_refused,
            Reason::HoldExpired => &mut self.hold_expired,
            Reason::TooBig => &mut self.too_big,
            Reason::Untransportable => &mut self.untransportable,
            Reason::SaSpent => &mut self.sa_spent,
            Reason::UnknownSpi => &mut self.unknown_spi,
            Reason::Replayed => &mut self.replayed,
            Reason::Unauthentic => &mut self.unauthentic,
            Reason::BadTrailer => &mut self.bad_trailer,
            Reason::Dummy => &mut self.dummy,
            Reason::InnerMalformed => &mut self.inner_malformed,
            Reason::InnerSelector => &mut self.inner_selector,
            Reason::InnerOwner => &mut self.inner_owner,
            Reason::Congestion => &mut self.congestion,
            Reason::OutputFull => &mut self.output_full,
            Reason::TableFull => &mut self.table_full,
            Reason::PathHintRefused => &mut self.path_hint_refused,
        };
        *counter += 1;
    }

    /// Every counter with the name that people see.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 31] {
        [
            ("sealed", self.sealed),
            ("sealed_bytes", self.sealed_bytes),
            ("opened", self.opened),
            ("opened_bytes", self.opened_bytes),
            ("passed", self.passed),
            ("held", self.held),
            ("released", self.released),
            ("malformed", self.malformed),
            ("denied", self.denied),
            ("no_class", self.no_class),
            ("not_holdable", self.not_holdable),
            ("hold_replaced", self.hold_replaced),
            ("hold_over_budget", self.hold_over_budget),
            ("newcomers_refused", self.newcomers_refused),
            ("hold_expired", self.hold_expired),
            ("too_big", self.too_big),
            ("untransportable", self.untransportable),
            ("sa_spent", self.sa_spent),
            ("unknown_spi", self.unknown_spi),
            ("replayed", self.replayed),
            ("unauthentic", self.unauthentic),
            ("bad_trailer", self.bad_trailer),
            ("dummy", self.dummy),
            ("inner_malformed", self.inner_malformed),
            ("inner_selector", self.inner_selector),
            ("inner_owner", self.inner_owner),
            ("congestion", self.congestion),
            ("output_full", self.output_full),
            ("table_full", self.table_full),
            ("path_narrowed", self.path_narrowed),
            ("path_hint_refused", self.path_hint_refused),
        ]
    }
}
