use std::time::Duration;

use super::*;

fn pool(prefixes: &[&str]) -> Pool {
    Pool::new(&prefixes.iter().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> Identity {
    Identity::Fqdn(text.to_owned())
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Offers, and commits.
fn give(pool: &mut Pool, ike: u64, holder: &str) -> Option<IpAddr> {
    let given = pool.offer(IkeId(ike), &name(holder), ip("198.51.100.1"), ANY, &[]);
    pool.commit(IkeId(ike));
    given
}

#[test]
fn whoever_comes_back_gets_what_it_had() {
    let (mut pool, now) = (pool(&["10.99.0.0/29"]), Instant::now());
    assert_eq!(give(&mut pool, 1, "a.test"), Some(ip("10.99.0.1")));
    assert_eq!(give(&mut pool, 2, "b.test"), Some(ip("10.99.0.2")));
    pool.release(now, IkeId(1));
    assert_eq!(give(&mut pool, 3, "c.test"), Some(ip("10.99.0.3")), "not what somebody had");
    assert_eq!(give(&mut pool, 4, "a.test"), Some(ip("10.99.0.1")));
    // The old IKE SA need not be gone.
    assert_eq!(give(&mut pool, 5, "b.test"), Some(ip("10.99.0.2")));
    pool.release(now, IkeId(2));
    assert!(pool.leases().any(|lease| lease.address == ip("10.99.0.2") && lease.used));
    pool.release(now, IkeId(5));
    assert!(pool.leases().any(|lease| lease.address == ip("10.99.0.2") && !lease.used));
}

#[test]
fn the_longest_unused_goes_first_and_then_there_is_none() {
    let (mut pool, now) = (pool(&["10.99.0.0/30"]), Instant::now());
    assert_eq!(pool.size(true), 2, "neither network nor broadcast");
    assert_eq!(give(&mut pool, 1, "a.test"), Some(ip("10.99.0.1")));
    assert_eq!(give(&mut pool, 2, "b.test"), Some(ip("10.99.0.2")));
    assert_eq!(give(&mut pool, 3, "c.test"), None);
    pool.release(now + Duration::from_secs(1), IkeId(1));
    pool.release(now, IkeId(2));
    assert_eq!(give(&mut pool, 4, "c.test"), Some(ip("10.99.0.2")));
    assert_eq!(give(&mut pool, 5, "b.test"), Some(ip("10.99.0.1")));
    assert_eq!(give(&mut pool, 6, "a.test"), None);
    assert_eq!(pool.users(ip("10.99.0.2")).collect::<Vec<_>>(), [IkeId(4)]);
}

/// Nothing changes before the caller has proved who it is.
#[test]
fn what_is_only_set_aside_takes_nothing_from_anybody() {
    let (mut pool, now) = (pool(&["10.99.0.0/31"]), Instant::now());
    assert_eq!(give(&mut pool, 1, "a.test"), Some(ip("10.99.0.0")));
    assert_eq!(give(&mut pool, 2, "b.test"), Some(ip("10.99.0.1")));
    pool.release(now, IkeId(1));
    let evil = name("evil.test");
    let offered = pool.offer(IkeId(3), &evil, ip("203.0.113.9"), ANY, &[]);
    assert_eq!(offered, Some(ip("10.99.0.0")));
    // Set aside for one, it is not offered to another, not even to who had it.
    assert_eq!(give(&mut pool, 4, "a.test"), None);
    pool.release(now, IkeId(3));
    assert_eq!(give(&mut pool, 5, "a.test"), Some(ip("10.99.0.0")), "still a's");
    assert!(pool.leases().all(|lease| lease.holder != evil));
}

#[test]
fn what_was_set_aside_for_nothing_is_given_later() {
    let (mut pool, now) = (pool(&["10.99.0.0/31"]), Instant::now());
    for ike in 0..10 {
        assert!(pool.offer(IkeId(ike), &name("x.test"), ip("203.0.113.9"), ANY, &[]).is_some());
        pool.release(now, IkeId(ike));
    }
    assert!(give(&mut pool, 20, "a.test").is_some());
    assert!(give(&mut pool, 21, "b.test").is_some());
    assert!(give(&mut pool, 22, "c.test").is_none());
}

#[test]
fn a_wish_is_granted_if_nobody_else_has_it() {
    let mut pool = pool(&["10.99.0.0/24", "2001:db8:99::/64"]);
    let mut wish = |ike, holder: &str, wish: &str| {
        let given = pool.offer(IkeId(ike), &name(holder), ip("198.51.100.1"), ip(wish), &[]);
        pool.commit(IkeId(ike));
        given.unwrap().to_string()
    };
    assert_eq!(wish(1, "a.test", "10.99.0.77"), "10.99.0.77");
    assert_eq!(wish(2, "b.test", "10.99.0.77"), "10.99.0.1");
    assert_eq!(wish(3, "c.test", "10.98.0.1"), "10.99.0.2", "not ours to give");
    assert_eq!(wish(4, "d.test", "10.99.0.255"), "10.99.0.3", "nobody's");
    assert_eq!(wish(5, "a.test", "::"), "2001:db8:99::1", "one of each family");
    assert_eq!(wish(6, "a.test", "0.0.0.0"), "10.99.0.77");
}

#[test]
fn our_own_addresses_are_not_given() {
    let mut pool = pool(&["10.99.0.0/30"]);
    let own = [ip("10.99.0.1")];
    let outer = ip("198.51.100.1");
    assert_eq!(pool.offer(IkeId(1), &name("a"), outer, own[0], &own), Some(ip("10.99.0.2")));
    assert_eq!(pool.offer(IkeId(2), &name("b"), outer, ANY, &own), None);
}

/// P13.
#[test]
fn one_neighbourhood_leaves_addresses_for_others() {
    let mut pool = pool(&["10.99.0.0/24"]);
    let crowd = (0..254).filter(|ike| give(&mut pool, *ike, &format!("{ike}.evil.test")).is_some());
    assert_eq!(crowd.count(), 127);
    let other = ip("203.0.113.9");
    assert!(pool.offer(IkeId(999), &name("a.test"), other, ANY, &[]).is_some());
}

/// Who has what is still there keeps it; the others' IKE SAs are named, and nothing is left of them.
#[test]
fn another_pool_keeps_what_fits_it() {
    let (mut pool, now) = (pool(&["10.99.0.0/29", "10.98.0.0/24"]), Instant::now());
    for (ike, holder) in [(1, "a.test"), (2, "b.test"), (3, "c.test")] {
        give(&mut pool, ike, holder).unwrap();
    }
    pool.release(now, IkeId(3));
    // Not yet proven.
    let offered = pool.offer(IkeId(4), &name("d.test"), ip("198.51.100.1"), ANY, &[]);
    assert_eq!(offered, Some(ip("10.99.0.4")));
    let prefixes = |all: &[&str]| all.iter().map(|p| p.parse().unwrap()).collect::<Vec<Prefix>>();
    // 10.99.0.1 is what routers have now, 10.99.0.2 and .3 are in nobody's, .4 is nobody's broadcast.
    let ended = pool.reshape(&prefixes(&["10.97.0.0/30", "10.99.0.0/31"]));
    assert_eq!(ended, [IkeId(2), IkeId(4)]);
    assert!(!pool.commit(IkeId(4)) && !pool.commit(IkeId(2)) && pool.commit(IkeId(1)));
    pool.release(now, IkeId(2));
    let left: Vec<(IpAddr, bool)> =
        pool.leases().map(|lease| (lease.address, lease.used)).collect();
    assert_eq!(left, [(ip("10.99.0.1"), true)]);
    assert!(!pool.covers(ip("10.99.0.4")) && pool.covers(ip("10.97.0.1")));
    assert_eq!(give(&mut pool, 5, "b.test"), Some(ip("10.97.0.1")));
    assert_eq!(give(&mut pool, 6, "a.test"), Some(ip("10.99.0.1")), "its own, still");
    // Nothing at all, and everything again.
    assert_eq!(pool.reshape(&[]), [IkeId(1), IkeId(5), IkeId(6)]);
    assert!(!pool.has(true) && pool.leases().next().is_none());
    assert_eq!(give(&mut pool, 7, "a.test"), None);
    assert!(pool.reshape(&prefixes(&["10.99.0.0/24"])).is_empty());
    // What is counted by neighbourhood was given back as well: half of a pool is free for one.
    let given = (10..).take_while(|ike| give(&mut pool, *ike, &format!("{ike}.test")).is_some());
    assert_eq!(given.count(), 127);
}
