//! Others on the machine remove rules, routes and policies of ours.

use super::*;

/// As [`state`], in an order in which nothing depends on when it was made.
pub(super) fn sorted() -> Vec<String> {
    let state = state();
    let mut lines: Vec<String> = state.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// P1: whoever takes our rules and routes for leftovers does not open what is closed: the kernel
/// tells of it, and all of it is put back.
#[test]
fn what_others_remove_is_put_back() {
    in_namespace(|| async {
        let peer = Peer::new("losses");
        uplink(&peer);
        let (_tun, mut ground) = up();
        let classes = [
            (Prefix::ALL_V4, Some(OPEN)),
            (Prefix::ALL_V6, Some(OPEN)),
            (p("203.0.113.0/24"), Some(CLOSED)),
            (p("2001:db8:77::/48"), Some(CLOSED)),
        ];
        ground.set_classes(&classes).unwrap();
        let between = Subnets::new(p("192.0.2.0/25"), p("198.51.100.0/24")).unwrap();
        ground.set_subnets(between, true).unwrap();
        ground.settled().unwrap();
        ground.set_host(ip("198.18.0.7"), Some(Host::Deny)).unwrap();
        let mut changes = Changes::watch(4322).unwrap();
        changes.disregard(ground.ports());
        // Duplicate detection of link-local addresses is still being told.
        while tokio::time::timeout(Duration::from_secs(2), changes.next()).await.is_ok() {
            ground.refresh().unwrap();
        }
        let before = sorted();
        for deed in [
            "ip rule del pref 4322",
            "ip -6 rule del pref 4322",
            "ip rule del pref 4313 sport 68",
            "ip rule del pref 4321 sport 67",
            "ip -6 rule del pref 4313 sport 546",
            "ip rule del pref 4316 from 192.0.2.0/25",
            "ip rule del pref 4319",
            "ip route del blackhole 203.0.113.0/24 table 4322 metric 200",
            "ip -6 route del blackhole 2001:db8:77::/48 table 4322 metric 200",
            "ip route del 203.0.113.0/24 table 4322 metric 100",
            "ip route replace throw 203.0.113.0/24 table 4322 metric 100",
            "ip route del blackhole 198.18.0.7 table 4322 metric 100",
            "ip route flush table 4322",
            "ip -6 route flush table 4322",
            "ip route flush table 4323",
            "ip rule flush",
        ] {
            run(deed);
            assert_ne!(sorted(), before, "{deed} did nothing");
            if deed == "ip rule flush" {
                // It takes those of others with it, which are not ours to put back.
                run("ip rule add pref 32766 lookup main");
                run("ip rule add pref 32767 lookup default");
            }
            let told = tokio::time::timeout(PATIENCE, changes.next()).await;
            told.unwrap_or_else(|_| panic!("{deed}: nothing was told")).unwrap();
            ground.refresh().unwrap();
            assert_eq!(sorted(), before, "{deed}");
        }
        // What was done to mend it is no news.
        let own = tokio::time::timeout(Duration::from_millis(300), changes.next()).await;
        assert!(own.is_err(), "our own rules and routes are no news");
        ground.down();
    });
}

/// P1, P2: a device that is down is no way, and all routes to it are gone.
#[test]
fn a_device_that_others_take_down_is_set_up_again() {
    in_namespace(|| async {
        let peer = Peer::new("down");
        uplink(&peer);
        let (_tun, mut ground) = up();
        ground.set_classes(&[(Prefix::ALL_V4, Some(OPEN)), (Prefix::ALL_V6, Some(OPEN))]).unwrap();
        ground.settled().unwrap();
        assert!(way("203.0.113.9").contains("ipsec0"));
        let before = sorted();
        run("ip link set ipsec0 down");
        assert!(!way("203.0.113.9").contains("ipsec0"));
        ground.refresh().unwrap();
        assert!(way("203.0.113.9").contains("ipsec0"), "{}", way("203.0.113.9"));
        assert!(way("2001:db8:99::9").contains("ipsec0"), "{}", way("2001:db8:99::9"));
        assert_eq!(sorted(), before);
        ground.down();
    });
}

/// P1: a guard that goes alone was taken down; one that goes with all the rest was swept away, and
/// comes back.
#[test]
fn a_guard_that_was_swept_away_comes_back() {
    in_namespace(|| async {
        let peer = Peer::new("swept");
        uplink(&peer);
        let (_tun, mut ground) = up();
        ground.set_classes(&[(p("203.0.113.0/24"), Some(CLOSED))]).unwrap();
        ground.settled().unwrap();
        let unguarded = sorted();
        ground.set_guard(true).unwrap();
        let guarded = sorted();
        run("ip route flush table 4322");
        run("ip -6 route flush table 4322");
        ground.refresh().unwrap();
        assert!(ground.is_guarded());
        assert_eq!(sorted(), guarded);
        Guard::open(GroundConfig::default()).unwrap().down().unwrap();
        ground.refresh().unwrap();
        assert!(!ground.is_guarded());
        assert_eq!(sorted(), unguarded);
        ground.down();
    });
}

/// P8: who flushes the kernel's policies takes those of his own back, not ours.
#[test]
fn blocks_that_others_flush_are_put_back() {
    in_namespace(|| async {
        let peer = Peer::new("flushed");
        uplink(&peer);
        let (_tun, mut ground) = up();
        let classes = [(Prefix::ALL_V4, Some(OPEN)), (p("203.0.113.0/24"), Some(CLOSED))];
        ground.set_classes(&classes).unwrap();
        let between = Subnets::new(p("192.0.2.0/25"), p("198.51.100.0/24")).unwrap();
        ground.set_subnets(between, true).unwrap();
        ground.settled().unwrap();
        for dst in ["203.0.113.7", "198.18.0.7"] {
            let flow = Flow::new(ip("192.0.2.1"), ip(dst)).unwrap();
            ground.set_policy(flow, Some((Policy::Encrypt(SaId(1)), About::Destination))).unwrap();
        }
        let before = sorted();
        ground.reconcile().unwrap();
        assert_eq!(sorted(), before);
        run("ip xfrm policy flush");
        assert_ne!(sorted(), before);
        ground.reconcile().unwrap();
        assert_eq!(sorted(), before);
        run("ip xfrm policy delete src 203.0.113.7 dst 192.0.2.1 dir in");
        ground.reconcile().unwrap();
        assert_eq!(sorted(), before);
        ground.down();
    });
}

/// An IPv6 address that we lent to the device is there again after somebody took it.
#[test]
fn what_the_device_was_lent_is_lent_again() {
    in_namespace(|| async {
        let peer = Peer::new("lent");
        uplink(&peer);
        let (_tun, mut ground) = up();
        ground.settled().unwrap();
        let lent = || run("ip -6 addr show dev ipsec0").contains("2001:db8:1::1/128");
        assert!(lent());
        run("ip -6 addr flush dev ipsec0");
        assert!(!lent());
        ground.refresh().unwrap();
        assert!(lent());
        ground.down();
    });
}
