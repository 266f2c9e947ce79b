//! `[[connection]]`: a peer that is written down.

use std::net::IpAddr;
use std::path::PathBuf;

use keying::{RemoteKeys, Start};
use sa::{Mode, Prefix};
use serde::Deserialize;

use super::parse_identity;
use super::places::Fault;
use crate::hostkey;

/// One connection.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Connection {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) gateway: OneOrMore<IpAddr>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) local_id: Option<String>,
    pub(crate) remote_id: Option<String>,
    pub(crate) remote_key: Option<String>,
    pub(crate) psk_file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) local_subnets: Vec<Subnet>,
    #[serde(default)]
    pub(crate) remote_subnets: Vec<Subnet>,
    #[serde(default)]
    pub(crate) mode: ConnectionMode,
    #[serde(default)]
    pub(crate) start: ConnectionStart,
}

/// One value, or several in a list.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several, in order.
    More(Vec<T>),
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl<T: Clone> OneOrMore<T> {
    pub(crate) fn to_vec(&self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::More(more) => more.clone(),
        }
    }
}

/// A prefix, or an address as a prefix of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Subnet(pub(crate) Prefix);

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|why: sa::PrefixError| format!("{text:?}: {why}"))
    }
}

/// How packets are wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ConnectionMode {
    /// The whole packet.
    #[default]
    Tunnel,
    /// Its payload.
    Transport,
}

/// When it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ConnectionStart {
    /// When a packet wants it.
    #[default]
    Trap,
    /// At once, and always.
    Now,
    /// When the peer calls.
    Accept,
}

/// `[[extrude]]`: addresses of ours that somebody else has.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Extrude {
    pub(crate) subnet: Subnet,
    pub(crate) to: String,
}

/// `[[borrow]]`: addresses of somebody else's that we have.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Borrow {
    pub(crate) subnet: Subnet,
    pub(crate) from: String,
}

impl Extrude {
    /// As a connection: everybody on this side, the lent prefix on the other.
    pub(super) fn over(&self, connection: &keying::Connection) -> keying::Connection {
        keying::Connection {
            name: format!("{} {}", connection.name, self.subnet.0),
            local_subnets: vec![everybody(self.subnet.0)],
            remote_subnets: vec![self.subnet.0],
            ..connection.clone()
        }
    }
}

impl Borrow {
    /// As a connection: the borrowed prefix on this side, everybody on the other.
    pub(super) fn over(&self, connection: &keying::Connection) -> keying::Connection {
        keying::Connection {
            name: format!("{} {}", connection.name, self.subnet.0),
            local_subnets: vec![self.subnet.0],
            remote_subnets: vec![everybody(self.subnet.0)],
            ..connection.clone()
        }
    }
}

/// Every address of a prefix's family.
fn everybody(prefix: Prefix) -> Prefix {
    if prefix.addr().is_ipv4() { Prefix::ALL_V4 } else { Prefix::ALL_V6 }
}

impl Connection {
    /// What is wrong with a field of the connection that is the `index`th of the file.
    pub(super) fn fault(&self, index: usize, field: &str, why: &str) -> Fault {
        let key = format!("connection[{index}].{field}");
        Fault { key, why: format!("connection {}: {field}: {why}", self.name) }
    }

    /// What the types cannot say. One over which addresses are lent need not have subnets of its
    /// own.
    pub(super) fn check(&self, index: usize, lends: bool) -> Result<(), Fault> {
        let Self { name, local_subnets, remote_subnets, .. } = self;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 63 || !name.bytes().all(plain) {
            let why = format!("{name:?} is not 1 to 63 of [A-Za-z0-9._-]");
            return Err(Fault::new(format!("connection[{index}].name"), why));
        }
        let error = |field: &str, why: &str| Err(self.fault(index, field, why));
        for (field, id) in [("local-id", &self.local_id), ("remote-id", &self.remote_id)] {
            if let Some(why) = id.as_deref().and_then(|id| parse_identity(id).err()) {
                return error(field, &why);
            }
        }
        let gateways = self.gateway.to_vec();
        if gateways.is_empty() && self.start != ConnectionStart::Accept {
            return error("gateway", "missing; only start = \"accept\" can do without");
        }
        if gateways.is_empty() && self.remote_id.is_none() {
            return error("remote-id", "missing, and there is no gateway to take it from");
        }
        if self.mode == ConnectionMode::Transport {
            if lends {
                return error("mode", "addresses are lent in tunnel mode only");
            }
            if let Some((field, why)) = self.keeps_from_transport() {
                return error(field, why);
            }
        }
        match (&self.remote_key, &self.psk_file) {
            (None, None) => return error("remote-key", "missing: a file, or \"dns\"; or psk-file"),
            (Some(_), Some(_)) => return error("psk-file", "one of remote-key and this, not both"),
            _ => {}
        }
        let none = local_subnets.is_empty() && remote_subnets.is_empty();
        if none && lends {
            return Ok(());
        }
        if !local_subnets
            .iter()
            .any(|l| remote_subnets.iter().any(|r| l.0.addr().is_ipv4() == r.0.addr().is_ipv4()))
        {
            return error("remote-subnets", "no subnet of a family that local-subnets has too");
        }
        Ok(())
    }

    /// What is in the way of transport mode, which is between the two ends themselves: field and
    /// reason.
    fn keeps_from_transport(&self) -> Option<(&'static str, &'static str)> {
        let only = |subnets: &[Subnet]| match subnets {
            [Subnet(prefix)] if *prefix == Prefix::host(prefix.addr()) => Some(prefix.addr()),
            _ => None,
        };
        let Some(local) = only(&self.local_subnets) else {
            return Some(("local-subnets", "mode = \"transport\" takes our outer address alone"));
        };
        if self.local_address.is_some_and(|address| address != local) {
            return Some(("local-address", "in mode = \"transport\" it is the local subnet"));
        }
        let remote = only(&self.remote_subnets);
        if remote.is_none_or(|remote| self.gateway.to_vec().iter().any(|g| *g != remote)) {
            return Some(("remote-subnets", "mode = \"transport\" takes the gateway alone"));
        }
        None
    }

    /// For keying; reads the peer's key.
    ///
    /// # Errors
    /// Field and reason, if that cannot be used.
    pub(super) fn to_keying(
        &self,
        rules: &dnskeys::Rules,
    ) -> Result<keying::Connection, (&'static str, String)> {
        let error = |why: String| ("remote-key", why);
        let remote_keys = match (&self.psk_file, self.remote_key.as_deref()) {
            (Some(file), _) => {
                let secret =
                    hostkey::load_secret(file).map_err(|why| ("psk-file", why.to_string()))?;
                RemoteKeys::Known(vec![ike::Credential::Secret(secret)])
            }
            (None, None | Some("dns")) => RemoteKeys::Dns,
            (None, Some(file)) => {
                let key =
                    hostkey::load_peer(&PathBuf::from(file)).map_err(|e| error(e.to_string()))?;
                let key = keying::ike_key(&key).filter(|_| dnskeys::authenticates(&key, rules));
                let key = key.ok_or_else(|| error(format!("{file}: the key is too weak")))?;
                RemoteKeys::Known(vec![key.into()])
            }
        };
        Ok(keying::Connection { remote_keys, ..self.to_subnets() })
    }

    /// For keying, but for the peer's key: whatever it is, DNS shall have it.
    pub(crate) fn to_subnets(&self) -> keying::Connection {
        let identity = |id: &Option<String>| id.as_deref().and_then(|id| parse_identity(id).ok());
        let prefixes = |subnets: &[Subnet]| subnets.iter().map(|s| s.0).collect();
        keying::Connection {
            name: self.name.clone(),
            gateways: self.gateway.to_vec(),
            local_address: self.local_address,
            local_identity: identity(&self.local_id),
            remote_identity: identity(&self.remote_id),
            remote_keys: RemoteKeys::Dns,
            local_subnets: prefixes(&self.local_subnets),
            remote_subnets: prefixes(&self.remote_subnets),
            mode: match self.mode {
                ConnectionMode::Tunnel => Mode::Tunnel,
                ConnectionMode::Transport => Mode::Transport,
            },
            start: match self.start {
                ConnectionStart::Trap => Start::Trap,
                ConnectionStart::Now => Start::Now,
                ConnectionStart::Accept => Start::Accept,
            },
        }
    }
}
