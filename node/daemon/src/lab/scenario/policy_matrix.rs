//! `policy-matrix`: five hosts, one in each policy group, talk to five others, one in each too.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::super::node::{Children, Node};
use super::super::progress::Progress;
use super::super::topology::Role;
use super::Found;
use super::world::{PATIENCE, Publication, World, esp, in_clear, site, sites};

/// What becomes of traffic from one host to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Became {
    Encrypted,
    Clear,
    Nothing,
}
use Became::{Clear as C, Encrypted as E, Nothing as N};

/// The groups, in the order of [`TABLE`].
const GROUPS: [&str; 5] = ["private", "private-or-clear", "clear-or-private", "clear", "block"];
const CALLERS: [&str; 5] = ["west1", "west2", "west3", "west4", "west5"];
const CALLED: [&str; 5] = ["east1", "east2", "east3", "east4", "east5"];

/// Who begins in rows, who is talked to in columns: encrypted wherever one of them calls and the
/// other accepts, otherwise as the stricter has it. With what is claimed of each row.
const TABLE: [([Became; 5], &str); 5] = [
    (
        [E, E, E, N, N],
        "private: encrypted with private, private-or-clear and clear-or-private, else nothing",
    ),
    ([E, E, E, C, N], "private-or-clear: the same, but in the clear with clear"),
    ([E, E, C, C, N], "clear-or-private: encrypted with those that call for their answer"),
    ([N, C, C, C, N], "clear: in the clear, and nothing with private"),
    ([N, N, N, N, N], "block: nothing with anybody"),
];

/// Runs it.
pub(super) fn run(
    pcap: Option<File>,
    children: Children,
    progress: &mut Progress,
) -> anyhow::Result<(World, Found)> {
    let mut places = sites(&[]);
    for (index, (caller, called)) in (0_u8..).zip(CALLERS.into_iter().zip(CALLED)) {
        let (host, subnet) = (index * 16 + 6, u16::from(index));
        places.push(site(caller, Role::Node, [192, 0, 2, host], [0x10 + subnet, 6]));
        places.push(site(called, Role::Node, [198, 51, 100, host], [0x20 + subnet, 6]));
    }
    let mut world = World::build(places, children, progress)?;
    let everybody: Vec<&str> = CALLERS.into_iter().chain(CALLED).collect();
    let records: Vec<Publication> = everybody.iter().copied().map(Publication::own).collect();
    world.publish(&everybody, &records, progress)?;
    progress.begin("starting ten nodes, two in each policy group");
    for hosts in [CALLERS, CALLED] {
        for (host, group) in hosts.into_iter().zip(GROUPS) {
            // Longer than the prefixes of length 0 that every node of the lab begins with.
            let policies = Node::directory(host).join("policies");
            fs::create_dir_all(&policies)?;
            fs::write(policies.join(group), "0.0.0.0/1\n128.0.0.0/1\n::/1\n8000::/1\n")?;
            world.start(host, "")?;
        }
    }
    let mut found = Found::default();
    let capture = world.watch(pcap)?;
    let mut held = [true; 5];
    for ((caller, group), ((row, _), held)) in
        CALLERS.into_iter().zip(GROUPS).zip(TABLE.into_iter().zip(&mut held))
    {
        progress.begin(&format!("{group} talks to all"));
        let mut silent = Vec::new();
        for (called, expected) in CALLED.into_iter().zip(row) {
            let addresses = world.addresses(called)?;
            if expected == N {
                silent.extend(addresses);
                continue;
            }
            for address in addresses {
                let became = talk(&world, caller, address, expected)?;
                if became != expected {
                    tracing::debug!("{caller} to {called} ({address}): {became:?}");
                }
                *held &= became == expected;
            }
        }
        *held &= stay_silent(&world, caller, &silent)?;
    }
    for ((_, claim), held) in TABLE.into_iter().zip(held) {
        found.claim(claim, held);
    }
    let record = capture.finish()?;
    let (mut silent, mut esp_seen) = (true, true);
    for (caller, (row, _)) in CALLERS.into_iter().zip(TABLE).take(2) {
        for (called, expected) in CALLED.into_iter().zip(row) {
            let (one, other) = (world.addresses(caller)?, world.addresses(called)?);
            let private = caller == CALLERS[0] || expected == E;
            silent &= !private || in_clear(&record, &one, &other).next().is_none();
            esp_seen &= expected != E || esp(&record, &one, &other) > 0;
        }
    }
    found.claim("what is private, or became so, was never seen in the clear", silent);
    found.claim("and was seen as ESP", esp_seen);
    found.captured = u64::try_from(record.packets.len()).unwrap_or(u64::MAX);
    found.missed = record.missed;
    Ok((world, found))
}

/// Says something until it becomes what is expected, or for long enough.
fn talk(world: &World, caller: &str, address: IpAddr, expected: Became) -> anyhow::Result<Became> {
    let begun = Instant::now();
    loop {
        let answered = match world.ping(caller, address, PATIENCE) {
            Ok(answered) => answered.is_some(),
            // The kernel itself refuses what is denied.
            Err(error) if error.is::<io::Error>() => false,
            Err(error) => return Err(error),
        };
        let became = match (answered, is_keyed(world, caller, address)?) {
            (true, true) => E,
            (true, false) => C,
            (false, _) => N,
        };
        if became == expected || begun.elapsed() >= 6 * PATIENCE {
            return Ok(became);
        }
        // A refusal comes at once, and what was refused is tried anew only after a while.
        thread::sleep(BETWEEN_TRIES);
    }
}

/// Whether none of these answers once it has been decided what becomes of them, for longer than any
/// decision takes; all are tried at once, again and again, because a refusal comes at once and says
/// nothing of the next moment.
fn stay_silent(world: &World, caller: &str, addresses: &[IpAddr]) -> anyhow::Result<bool> {
    let begun = Instant::now();
    while !addresses.is_empty() {
        let answered = world.who_answers(caller, addresses, NO_ANSWER)?;
        if begun.elapsed() >= 2 * NO_ANSWER {
            let wrong = addresses.iter().zip(&answered).filter(|(_, answered)| **answered);
            wrong.for_each(|(address, _)| tracing::debug!("{caller} to {address}: answered"));
            return Ok(!answered.contains(&true));
        }
        thread::sleep(BETWEEN_TRIES);
    }
    Ok(true)
}

fn is_keyed(world: &World, host: &str, address: IpAddr) -> anyhow::Result<bool> {
    let status = world.status(host)?;
    let all = status.get("destinations").and_then(serde_json::Value::as_array);
    Ok(all.into_iter().flatten().any(|d| {
        d.get("destination").and_then(serde_json::Value::as_str) == Some(&address.to_string())
            && d.get("state").and_then(serde_json::Value::as_str) == Some("keyed")
    }))
}

/// Between one try and the next.
const BETWEEN_TRIES: Duration = Duration::from_millis(300);
/// For an answer that should not come: longer than a negotiation takes.
const NO_ANSWER: Duration = Duration::from_millis(1500);
