//! What the kernel says of packets that come in by the loopback device.

use super::*;

#[test]
fn what_the_kernel_would_drop_is_not_handed_to_it() {
    in_namespace(|| async {
        let peer = Peer::new("onward");
        uplink(&peer);
        run("ip link set lo up");
        run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lo.rp_filter=0");
        let (_tun, mut ground) = up();
        for all in [Prefix::ALL_V4, Prefix::ALL_V6] {
            ground.set_classes(&[(all, Some(OPEN))]).unwrap();
        }
        let (_, mut ask) = ways_onward("lo", "ipsec0", MARK).unwrap();
        let mut leads = |from: &str, to: &str| ask(&Flow::new(ip(from), ip(to)).unwrap());
        let ways = [
            ("192.0.2.1", "10.5.0.2", "198.51.100.9"),
            ("2001:db8:1::1", "fd05::2", "2001:db8:9::9"),
        ];
        for (ours, from, to) in ways {
            assert!(leads(from, to), "{from} to {to}");
            assert!(!leads(from, ours), "it is for us");
            if ours.contains('.') {
                assert!(!leads(ours, to), "nobody else has our address");
            }
        }
        for (to, closed) in [
            ("198.51.100.9", "ip route add blackhole 198.51.100.9"),
            ("2001:db8:9::9", "ip -6 route add blackhole 2001:db8:9::9"),
            ("198.51.100.10", "ip route add 198.51.100.10 dev ipsec0"),
        ] {
            run(closed);
            assert!(!leads(if to.contains('.') { "10.5.0.2" } else { "fd05::2" }, to), "{closed}");
        }
        for setting in ["net.ipv4.conf.lo.rp_filter=1", "net.ipv4.conf.lo.forwarding=0"] {
            assert!(leads("10.5.0.2", "198.51.100.11"));
            run(&format!("sysctl -qw {setting}"));
            assert!(!leads("10.5.0.2", "198.51.100.11"), "{setting}");
            run("sysctl -qw net.ipv4.conf.lo.rp_filter=0 net.ipv4.conf.lo.forwarding=1");
        }
        assert!(leads("fd05::2", "2001:db8:9::10"));
        run("sysctl -qw net.ipv6.conf.all.forwarding=0");
        assert!(!leads("fd05::2", "2001:db8:9::10"));
    });
}
