//! What is measured.

use clap::ValueEnum;

use crate::contender::Contender;

/// A quantity of one contender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub(crate) enum Figure {
    /// One TCP stream; CPU seconds per GB are taken at the same time.
    Tcp1,
    /// Four TCP streams.
    Tcp4,
    /// UDP packets of 1400 octets that arrive while the sender floods.
    Udp1400,
    /// Datagrams of 64 octets that arrive while the sender floods.
    Udp64,
    /// The highest rate of 1400-octet UDP packets with less than half a percent lost.
    Clean1400,
    /// The highest rate of 64-octet datagrams with less than half a percent lost.
    Clean64,
    /// Median round trip; its 99th percentile is taken at the same time.
    Rtt,
    /// 99th percentile of the round trip.
    Rtt99,
    /// CPU seconds of both daemons per GB of one TCP stream.
    Cpu,
    /// Resident memory of both daemons.
    Memory,
    /// From the first packet to its answer, beyond what network and DNS take.
    First,
}

impl Figure {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 11] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Udp1400,
        Self::Udp64,
        Self::Clean1400,
        Self::Clean64,
        Self::Rtt,
        Self::Rtt99,
        Self::Cpu,
        Self::Memory,
        Self::First,
    ];

    /// The column's head: quantity and unit.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP1 Gbit/s",
            Self::Tcp4 => "TCP4 Gbit/s",
            Self::Udp1400 => "UDP1400 kpps",
            Self::Udp64 => "UDP64 kpps",
            Self::Clean1400 => "1400 <0.5% kpps",
            Self::Clean64 => "64 <0.5% kpps",
            Self::Rtt => "RTT us",
            Self::Rtt99 => "RTT p99 us",
            Self::Cpu => "CPU s/GB",
            Self::Memory => "RSS MB",
            Self::First => "first packet ms",
        }
    }

    /// In words, for a chart.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Tcp1 => "One TCP stream, Gbit/s",
            Self::Tcp4 => "Four TCP streams, Gbit/s",
            Self::Udp1400 => "UDP packets of 1400 octets delivered under flood, thousands a second",
            Self::Udp64 => "UDP datagrams of 64 octets delivered under flood, thousands a second",
            Self::Clean1400 => {
                "Highest rate of 1400-octet UDP packets with under 0.5 % lost, thousands a second"
            }
            Self::Clean64 => {
                "Highest rate of 64-octet UDP datagrams with under 0.5 % lost, thousands a second"
            }
            Self::Rtt => "Round trip, median, microseconds",
            Self::Rtt99 => "Round trip, 99th percentile, microseconds",
            Self::Cpu => "CPU seconds of both ends for each GB of one TCP stream",
            Self::Memory => "Resident memory of both ends, MB",
            Self::First => "First packet's local work until its answer, milliseconds",
        }
    }

    /// The file's name.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Tcp1 => "tcp1",
            Self::Tcp4 => "tcp4",
            Self::Udp1400 => "udp1400",
            Self::Udp64 => "udp64",
            Self::Clean1400 => "clean1400",
            Self::Clean64 => "clean64",
            Self::Rtt => "rtt",
            Self::Rtt99 => "rtt99",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::First => "first",
        }
    }

    /// Whether a measurement of its own is made for it; the others come along with one.
    pub(crate) fn is_measured_for(self, contender: Contender) -> bool {
        match self {
            Self::Rtt99 | Self::Cpu => false,
            Self::First => contender == Contender::OeNode,
            Self::Memory => !matches!(contender, Contender::Raw | Contender::Clear),
            // What the extra state costs is seen in these.
            Self::Tcp4 | Self::Clean1400 | Self::Clean64 => {
                !matches!(contender, Contender::Plane | Contender::PlaneLoaded | Contender::Clear)
            }
            Self::Tcp1 | Self::Udp1400 | Self::Udp64 | Self::Rtt => true,
        }
    }
}
