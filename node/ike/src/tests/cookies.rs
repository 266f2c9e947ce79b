//! Cookies that the responder never baked: anybody who sees our request can send one.

use super::*;
use crate::message::{Header, Message, Notify, NotifyType};

/// What the forger says to this request; nothing to what is none, or to what has been answered so.
fn forge(request: &Packet, cookie: &[u8]) -> Option<Packet> {
    let Header { exchange, response, .. } = Message::read(&request.octets).ok()?.header;
    if exchange != ExchangeType::IKE_SA_INIT || response {
        return None;
    }
    let header = Message::read(&request.octets).ok()?.header;
    let notify = Notify::new(NotifyType::COOKIE, cookie);
    let octets = crate::exchange::ike_sa_init_responder::stateless(&header, notify);
    Some(Packet { from: request.to, to: request.from, octets })
}

/// Delivers everything while somebody on the way answers so many of A's first requests before B
/// hears of them, each with another cookie; what `lose` names is lost.
fn settle_with_forger(
    net: &mut Net,
    forgeries: u8,
    lose: impl Fn(&Packet) -> bool,
    time: Duration,
) {
    let until = net.now + time;
    let mut forged = 0;
    loop {
        net.collect();
        while let Some(packet) = net.wire.pop_front() {
            if lose(&packet) {
                continue;
            }
            if forged < forgeries
                && packet.from.ip() == addr(0)
                && let Some(forgery) = forge(&packet, &[0xa0, forged, 7, 7])
            {
                forged += 1;
                // A's next request follows the one at hand.
                net.deliver(&forgery);
            }
            net.deliver(&packet);
            assert!(net.seen.len() < 200, "they never stop talking");
        }
        if net.nodes[0].children.len() == 1 || !net.tick(until) {
            return;
        }
    }
}

fn calls(net: &Net, exchange: u8) -> usize {
    net.seen.iter().filter(|p| p.from.ip() == addr(0) && p.octets[18] == exchange).count()
}

const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;

/// P12 (RFC 7296 §2.6, §2.15): the genuine answer to what was asked without it, and whatever the
/// responder makes of what is asked with it, end in a pair, at the second go if need be.
#[test]
fn a_forged_cookie_ends_no_call() {
    for post_quantum in [false, true] {
        // Does B ask for cookies itself?
        for threshold in [0, 100] {
            for forgeries in 1..=12 {
                let mut net = Net::with(|c| {
                    c.post_quantum = post_quantum;
                    c.cookie_threshold = threshold;
                });
                net.initiate(0, 1);
                settle_with_forger(&mut net, forgeries, |_| false, Duration::from_secs(60));
                let case = (post_quantum, threshold, forgeries);
                assert!(net.nodes[0].ended().is_empty(), "{case:?}: {:?}", net.nodes[0].ended());
                net.assert_children_fit();
                assert_eq!(net.nodes[0].children.len(), 1, "{case:?}");
                assert!(calls(&net, IKE_SA_INIT) <= 10, "{case:?}: {}", calls(&net, IKE_SA_INIT));
                // Nothing is left of the first go.
                net.run(Duration::from_secs(40));
                for node in &net.nodes {
                    assert_eq!((node.ike.len(), node.ike.half_open()), (1, 0), "{case:?}");
                    assert_eq!(node.ike.reserved(), (1, 1), "{case:?}");
                }
            }
        }
    }
}

/// As with a responder for which the request with the cookie is the one before come again.
#[test]
fn a_forged_cookie_ends_no_call_if_what_brings_it_is_lost() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    let brings_one = |packet: &Packet| {
        // The first payload is a notify.
        packet.octets[18] == IKE_SA_INIT && packet.from.ip() == addr(0) && packet.octets[16] == 41
    };
    settle_with_forger(&mut net, 12, brings_one, Duration::from_secs(60));
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert!(net.nodes[0].ended().is_empty());
}

/// As with a responder that does not say that IKE_AUTH failed.
#[test]
fn a_forged_cookie_ends_no_call_if_the_refusal_is_lost() {
    let mut net = Net::pair();
    net.initiate(0, 1);
    // Refusals are shorter than anything else that B says.
    let refuses = |packet: &Packet| {
        packet.octets[18] == IKE_AUTH && packet.from.ip() == addr(1) && packet.octets.len() < 100
    };
    settle_with_forger(&mut net, 12, refuses, Duration::from_secs(60));
    net.assert_children_fit();
    assert_eq!(net.nodes[0].children.len(), 1);
    assert!(net.nodes[0].ended().is_empty());
}

/// Who refuses us and means it is asked once more, and no more than that.
#[test]
fn a_refusal_behind_a_cookie_is_believed_the_second_time() {
    for threshold in [0, 100] {
        let mut net = Net::with(|c| c.cookie_threshold = threshold);
        net.nodes[1].verdicts.clear();
        net.initiate(0, 1);
        settle_with_forger(&mut net, 1, |_| false, Duration::from_secs(60));
        assert_eq!(net.nodes[0].ended(), [End::Refused { notify: 24, authentic: false }]);
        assert_eq!(calls(&net, IKE_AUTH), 2);
        assert!(net.nodes[0].ike.is_empty());
    }
    // And so is silence.
    let mut net = Net::pair();
    net.initiate(0, 1);
    let answers = |packet: &Packet| packet.octets[18] == IKE_AUTH && packet.from.ip() == addr(1);
    settle_with_forger(&mut net, 1, answers, Duration::from_secs(120));
    assert_eq!(net.nodes[0].ended(), [End::Timeout]);
    assert_eq!(calls(&net, IKE_AUTH), 2 * 6);
}

/// The second go waits for the answer to its first request, and brings a cookie when it would have
/// repeated it: so a peer that asks for cookies is reached then too, for half a second.
#[test]
fn held_cookies_go_out_with_the_repetition() {
    let mut net = Net::with(|c| c.cookie_threshold = 0);
    net.initiate(0, 1);
    // B's refusal is A's own doing here: the signature of what B never saw.
    settle_with_forger(&mut net, 4, |_| false, Duration::from_secs(60));
    let began = net.born;
    assert_eq!(net.nodes[0].children.len(), 1);
    assert!(net.now - began <= Duration::from_secs(3), "{:?}", net.now - began);
}
