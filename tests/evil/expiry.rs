//! Lives that end for good, because the peer refuses every replacement (RFC 7296 §2.8).

use std::time::Duration;

use ike::{End, Event};

use crate::peer::Evil;
use crate::rows::established;
use crate::victim::{EVIL, Owned};
use crate::wire::{CREATE_CHILD_SA, Header, INITIATOR, Payload, RESPONSE};

const NO_ADDITIONAL_SAS: u16 = 35;

/// Lets time pass second by second. The peer answers everything, and refuses every replacement; how
/// often it was asked for one.
fn refuse(victim: &mut Owned, evil: &mut Evil, time: Duration) -> usize {
    let mut refused = 0;
    for _ in 0..time.as_secs() {
        victim.pass(Duration::from_secs(1));
        for octets in victim.said() {
            let Some((header, _)) = evil.open(&octets) else { continue };
            if header.flags & RESPONSE != 0 {
                continue;
            }
            let flags = (header.flags ^ INITIATOR) | RESPONSE;
            let answer = if header.exchange == CREATE_CHILD_SA {
                refused += 1;
                vec![Payload::notify(0, &[], NO_ADDITIONAL_SAS, &[])]
            } else {
                vec![]
            };
            let octets = evil.seal(Header { flags, ..header }, &answer);
            victim.hear(EVIL, &octets);
        }
    }
    refused
}

/// Rule 32.
/// A child that the peer will not replace is asked for again, lives a fifth longer than it should,
/// and ends; so does its IKE SA. The owner hears of every refusal, and may call anew in time.
#[test]
fn what_is_never_replaced_ends() {
    let mut victim = Owned::victim(31);
    let mut evil = established(&mut victim);
    assert_eq!(refuse(&mut victim, &mut evil, Duration::from_secs(3590)), 0);
    let refused = refuse(&mut victim, &mut evil, Duration::from_secs(700));
    assert!((9..=13).contains(&refused), "asked {refused} times");
    let children: Vec<_> = victim.children.keys().copied().map(Some).collect();
    let told = victim.events.iter().filter_map(|e| match e {
        Event::NotRenewed { child, .. } => Some(*child),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert_eq!((told.len(), &told[..1]), (refused, &children[..]));
    assert_eq!(victim.children.len(), 1, "soft is not hard");
    refuse(&mut victim, &mut evil, Duration::from_secs(40));
    let downs: Vec<End> = victim
        .events
        .iter()
        .filter_map(|e| if let Event::ChildDown { why, .. } = e { Some(*why) } else { None })
        .collect();
    assert_eq!((downs, victim.established.len()), (vec![End::Expired], 1));
    // Eight hours, and a fifth of them.
    let gone = Duration::from_secs(3590 + 700 + 40);
    let soft = Duration::from_secs(8 * 3600);
    let refused = refuse(&mut victim, &mut evil, soft * 6 / 5 - gone - Duration::from_secs(10));
    assert!((90..=97).contains(&refused), "asked {refused} times");
    assert_eq!(victim.established.len(), 1);
    refuse(&mut victim, &mut evil, Duration::from_secs(20));
    let ended = victim.events.iter().find_map(|e| match e {
        Event::Ended { why, .. } => Some(*why),
        _ => None,
    });
    assert_eq!((ended, victim.ike.len()), (Some(End::Expired), 0));
    victim.serves_the_honest();
    victim.goes_down_clean();
}
