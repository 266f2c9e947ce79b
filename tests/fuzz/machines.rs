//! Targets whose seeds are files of `corpus/`.

use std::time::Duration;

use crate::mutate::{Budget, file_of, fuzz_corpus};
use crate::targets::{files, ike, packets};

/// CVE-2015-3204.
#[test]
fn ike_messages() {
    fuzz_corpus("ike_messages", None, ike::ike_messages);
}

/// CVE-2016-10396, CVE-2026-12413.
#[test]
fn reassembly() {
    fuzz_corpus("reassembly", None, ike::reassembly);
}

/// Exchanges cost signatures: fewer of them, each with more time.
#[test]
fn ike_exchanges() {
    let budget = Budget { runs: 400, slow: Duration::from_secs(5) };
    fuzz_corpus("ike_exchanges", Some(budget), |input| {
        ike::ike_exchanges(input);
    });
}

#[test]
fn policy_groups() {
    fuzz_corpus("policy_groups", None, files::policy_groups);
}

#[test]
fn zone_files() {
    fuzz_corpus("zone_files", None, files::zone_files);
}

#[test]
fn esp_packets() {
    fuzz_corpus("esp_packets", None, |input| {
        packets::esp_packets(input);
    });
}

#[test]
fn device_packets() {
    fuzz_corpus("device_packets", None, |input| {
        packets::device_packets(input);
    });
}

/// What the fuzzers begin with comes as far as it should: otherwise they would try the door only.
#[test]
fn seeds_get_through() {
    for (of, times) in
        [("honest", 1), ("secret", 1), ("nobody", 1), ("quantum", 1), ("returning", 2)]
    {
        for calls in [2, 3] {
            let file = format!("{of}-{calls}");
            let input = file_of("ike_exchanges", &file);
            assert!(ike::ike_exchanges(&input) >= times, "{file}");
        }
    }
    for file in ["tcp-stream", "udp-run", "tcp6"] {
        let input = file_of("esp_packets", file);
        assert!(packets::esp_packets(&input) > 80, "{file}");
    }
    for (file, packets) in [("plain", 1), ("checksum", 1), ("tso4", 5), ("tso6", 4), ("uso", 5)] {
        assert_eq!(packets::device_packets(&file_of("device_packets", file)), packets, "{file}");
    }
}
