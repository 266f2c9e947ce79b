//! The worked examples of `oe-node lab --scenario`: that all they claim holds, that the checks are
//! there, and that nothing is left behind.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::binary;
use crate::leftovers::Inventory;

/// Runs an example; `None` if it cannot run here.
fn run(scenario: &str) -> Option<Value> {
    let _alone = binary::alone();
    let before = Inventory::take(&tests::oe_node());
    let mut command = Command::new(tests::oe_node());
    let ended =
        binary::start(command.args(["lab", "--scenario", scenario, "--json"])).wait(PATIENCE);
    let why = (ended.code == 2).then(|| ended.stderr.trim().to_owned());
    if tests::skipped("the lab", why) {
        return None;
    }
    let report: Value = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|_| panic!("{}{}", ended.stdout, ended.stderr));
    assert_eq!(report["held"], true, "{report:#}\n{}", ended.stderr);
    assert_eq!((ended.code, &report["missed"]), (0, &Value::from(0)));
    before.assert_restored(&tests::oe_node());
    Some(report)
}

fn assert_claims(report: &Value, claims: &[&str]) {
    let all = report["claims"].as_array().unwrap();
    assert!(all.iter().all(|claim| claim["held"] == true), "{report:#}");
    for claim in claims {
        assert!(all.iter().any(|c| c["claim"] == *claim), "no {claim:?} in {report:#}");
    }
}

/// Hosts behind gateways, each by its own record; who has none, and who has a node of his own
/// (rules 46, 62).
#[test]
fn gateways_encrypt_for_hosts_that_name_them() {
    let Some(report) = run("gateway") else { return };
    assert_claims(
        &report,
        &[
            "nothing between alice and bob was seen on the wire, not even their addresses",
            "carl goes in the clear: nobody speaks for him",
            "dora's own ESP passes her gateway as it is",
        ],
    );
}

/// Rules 69, 72: clients with the same address, behind two NATs and behind one.
#[test]
fn clients_behind_nats_call_by_name() {
    if tests::skipped("clients_behind_nats_call_by_name", tests::missing(&["nft"])) {
        return;
    }
    let Some(report) = run("nat") else { return };
    assert_claims(
        &report,
        &[
            "bob's, from the same address behind the same NAT",
            "all three transfer at once",
            "each has an address of its own in the pool",
            "nothing of it could be read on the wire",
            "dora goes in the clear, and is told why",
        ],
    );
}

/// The second gateway of a host's records takes over from the first (rules 25, 73).
#[test]
fn the_second_gateway_takes_over() {
    let Some(report) = run("failover") else { return };
    assert_claims(
        &report,
        &[
            "north takes over",
            "within two seconds",
            "nothing between west and bob in the clear, at any time",
        ],
    );
}

/// Two links between the same two sites share the flows; either may die.
#[test]
fn two_links_share_the_load_and_stand_in_for_each_other() {
    let Some(report) = run("links") else { return };
    assert_claims(
        &report,
        &[
            "both links carry their share",
            "alice and bob go on talking within two seconds",
            "each link that is up has a route of its own",
            "the dead link's route is gone",
            "and the link comes back",
        ],
    );
}

/// A lent subnet: all of it through the lender, and nothing past it when that is down.
#[test]
fn a_lent_subnet_is_used_from_afar() {
    let Some(report) = run("extruded") else { return };
    assert_claims(
        &report,
        &[
            "nothing of desk's leaves home but in ESP to hq",
            "nothing of desk's leaves home in the clear, and nothing for desk leaves hq",
            "hq is back, and so is desk",
        ],
    );
}

/// Ten nodes, two in each policy group (rules 2, 6, 7, 49).
#[test]
fn every_policy_group_against_every_other() {
    let Some(report) = run("policy-matrix") else { return };
    assert_claims(
        &report,
        &[
            "private: encrypted with private, private-or-clear and clear-or-private, else nothing",
            "what is private, or became so, was never seen in the clear",
        ],
    );
}

/// Silence takes its time to be believed, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(240);
