//! Signing a family of zones: each child's DS goes into its parent, then each zone is signed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zonefiles::{Catalog, Name, Previous, Record, Rtype, SortedZone, Validity, Zone, ZoneKey};

use super::keys::ZoneKeys;

/// A zone to serve, and whether to sign it.
pub(crate) struct ServedZone {
    pub(crate) zone: Zone,
    pub(crate) sign: bool,
}

impl ServedZone {
    /// Signed when served.
    pub(crate) fn signed(zone: Zone) -> Self {
        Self { zone, sign: true }
    }

    /// Served as it is.
    pub(crate) fn as_is(zone: Zone) -> Self {
        Self { zone, sign: false }
    }
}

/// Zones ready to be served.
pub(crate) struct SignedZones {
    pub(crate) catalog: Catalog,
    /// DNSKEY records, in master-file form, of the signed zones that no signed parent here vouches
    /// for: what a validator must be told.
    pub(crate) trust_anchors: String,
    /// The same zones' DS records, for a parent elsewhere.
    pub(crate) delegation_signers: String,
    /// When the signatures end, if there are any.
    pub(crate) expires: Option<SystemTime>,
}

/// Changes a zone after it was signed, so that something no longer validates.
pub(crate) type Tamper<'a> = &'a dyn Fn(&mut SortedZone);

/// Signs. CPU-bound: some 20 µs for each set of records.
pub(crate) fn sign_zones(
    zones: Vec<ServedZone>,
    keys: &mut ZoneKeys,
    lifetime: Duration,
    tamper: Option<Tamper<'_>>,
) -> anyhow::Result<SignedZones> {
    sign_zones_again(zones, keys, lifetime, None, tamper)
}

/// The same, and signatures of `previous` that last another half of `lifetime` are used again for
/// what did not change.
pub(crate) fn sign_zones_again(
    zones: Vec<ServedZone>,
    keys: &mut ZoneKeys,
    lifetime: Duration,
    previous: Option<&Catalog>,
    tamper: Option<Tamper<'_>>,
) -> anyhow::Result<SignedZones> {
    let now = SystemTime::now();
    let mut zones = zones;
    let signing: Vec<(Name, Option<Arc<ZoneKey>>)> = zones
        .iter()
        .map(|z| Ok((z.zone.origin.clone(), z.sign.then(|| keys.key(&z.zone.origin)).transpose()?)))
        .collect::<anyhow::Result<_>>()?;
    let (mut trust_anchors, mut delegation_signers) = (String::new(), String::new());
    for (origin, key) in &signing {
        let Some(key) = key else { continue };
        let ds = key.ds(origin, DS_TTL)?;
        let parent = parent_of(&mut zones, origin);
        let vouched = parent.as_ref().is_some_and(|parent| parent.sign);
        if let Some(parent) = parent {
            add_ds(&mut parent.zone, ds.clone());
        }
        if !vouched {
            trust_anchors.push_str(&format!("{}\n", key.dnskey(origin, DS_TTL)));
            delegation_signers.push_str(&format!("{ds}\n"));
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let until = dns_time(now + lifetime / 2);
    let mut earliest = lifetime;
    let expires = now + lifetime;
    let validity =
        Validity { inception: dns_time(now - CLOCK_SKEW), expiration: dns_time(expires) };
    let mut catalog = Catalog::default();
    for (served, (_, key)) in zones.iter().zip(&signing) {
        let mut sorted = SortedZone::new(&served.zone)?;
        if let Some(key) = key {
            let before = previous.and_then(|catalog| catalog.get(&sorted.origin));
            let before = before.map(|zone| Previous { zone, until });
            let ends = sorted.sign(key, validity, before, threads)?;
            let left = ends.wrapping_sub(dns_time(now));
            earliest = earliest.min(Duration::from_secs(u64::from(left)));
        }
        if let Some(tamper) = tamper {
            tamper(&mut sorted);
        }
        catalog.insert(Arc::new(sorted));
    }
    let expires = signing.iter().any(|(_, key)| key.is_some()).then_some(now + earliest);
    Ok(SignedZones { catalog, trust_anchors, delegation_signers, expires })
}

/// Alters one record set after signing, as an attacker on the path would: a validator calls it
/// bogus. False if there is none.
pub(crate) fn make_bogus(zone: &mut SortedZone, owner: &Name, rtype: Rtype) -> bool {
    let Some(rdata) = zone.set_mut(owner, rtype).and_then(|set| set.rdata.first_mut()) else {
        return false;
    };
    // The case of a letter: the record still parses, and says something else.
    let letter = rdata.iter_mut().rev().find(|octet| octet.is_ascii_alphabetic());
    match letter {
        Some(octet) => *octet ^= 0x20,
        None => match rdata.last_mut() {
            Some(octet) => *octet ^= 1,
            None => return false,
        },
    }
    true
}

fn parent_of<'a>(zones: &'a mut [ServedZone], origin: &Name) -> Option<&'a mut ServedZone> {
    zones
        .iter_mut()
        .filter(|z| origin.is_within(&z.zone.origin) && z.zone.origin != *origin)
        .max_by_key(|z| z.zone.origin.count_labels())
}

/// A DS of another key stays: it may be a rollover's.
fn add_ds(parent: &mut Zone, ds: Record) {
    if !parent
        .records
        .iter()
        .any(|r| r.rtype == ds.rtype && r.owner == ds.owner && r.rdata == ds.rdata)
    {
        parent.push(ds);
    }
}

/// Seconds since 1970 modulo 2³² (RFC 4034 §3.1.5).
fn dns_time(time: SystemTime) -> u32 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or(0)
}

/// A day: parents change slowly.
const DS_TTL: u32 = 86_400;
/// Validators' clocks are behind more often than one thinks.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
