//! Proof that a wildcard was rightly expanded (RFC 4035 §5.3.4), where hickory's is too strict.
//!
//! Its NSEC rule for positive answers wants the wildcard's own name denied. For a name directly
//! under the closest encloser that name is the wildcard that made the answer, which exists: every
//! such answer is called bogus. Zones that answer for a whole subnet with one wildcard would so
//! be denied. NSEC3 and denials are not concerned.

use hickory_proto::dnssec::Proof;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC, RRSIG};
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Whether records of this type at this name were expanded from a wildcard, validly signed, and
/// an NSEC record of the same zone proves that nothing closer to the name exists.
pub(super) fn is_proved(response: &Message, name: &Name, kind: RecordType) -> bool {
    let at_name = |r: &&Record| r.name == *name && r.proof == Proof::Secure;
    if !response.answers.iter().filter(at_name).any(|r| r.record_type() == kind) {
        return false;
    }
    response.answers.iter().filter(at_name).filter_map(|r| signature(r, kind)).any(|signature| {
        let input = signature.input();
        input.num_labels < name.num_labels() && {
            let next_closer = name.trim_to(usize::from(input.num_labels) + 1);
            denies(response, &next_closer, &input.signer_name)
        }
    })
}

/// The signature over a type, if this is one.
fn signature(record: &Record, kind: RecordType) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) if rrsig.input().type_covered == kind => {
            Some(rrsig)
        }
        _ => None,
    }
}

/// Whether a valid NSEC record of this zone says that there is nothing at this name nor below it.
fn denies(response: &Message, name: &Name, zone: &Name) -> bool {
    let secure = |r: &&Record| r.proof == Proof::Secure;
    response.authorities.iter().filter(secure).any(|record| {
        let RData::DNSSEC(DNSSECRData::NSEC(nsec)) = &record.data else { return false };
        let of_zone = response.authorities.iter().filter(secure).any(|r| {
            r.name == record.name
                && signature(r, RecordType::NSEC).is_some_and(|s| s.input().signer_name == *zone)
        });
        of_zone && covers(&record.name, nsec, name, zone)
    })
}

/// Whether a name lies between an NSEC record's owner and the next name, and the next name is not
/// below it, which would make it exist as an empty non-terminal.
fn covers(owner: &Name, nsec: &NSEC, name: &Name, zone: &Name) -> bool {
    let next = nsec.next_domain_name();
    let types = nsec.type_set();
    // RFC 6840 §4.1: what the parent says at a zone cut, or a DNAME's owner of itself, says
    // nothing of the names below.
    let cut = types.contains(RecordType::NS) && !types.contains(RecordType::SOA);
    let above = cut || types.contains(RecordType::DNAME);
    if above && owner.zone_of(name) {
        return false;
    }
    let last = next == zone;
    zone.zone_of(name) && owner < name && (name < next || last) && (last || !name.zone_of(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn what_an_nsec_record_covers() {
        let zone = name("z.");
        let says = |owner: &str, next: &str, types: &[RecordType], denied: &str| {
            let nsec = NSEC::new(name(next), types.iter().copied());
            covers(&name(owner), &nsec, &name(denied), &zone)
        };
        let plain = &[RecordType::TXT][..];
        assert!(says("b.z.", "d.z.", plain, "c.z."));
        assert!(!says("b.z.", "d.z.", plain, "b.z."), "the owner exists");
        assert!(!says("b.z.", "d.z.", plain, "d.z."), "the next exists");
        assert!(!says("b.z.", "d.z.", plain, "e.z."));
        assert!(!says("b.z.", "x.c.z.", plain, "c.z."), "an empty non-terminal");
        assert!(says("*.z.", "z.", plain, "c.z."), "the last of the zone");
        assert!(!says("d.z.", "z.", plain, "c.z."));
        assert!(!says("b.z.", "z.", plain, "c.y."), "another zone");
        assert!(!says("b.z.", "d.z.", &[RecordType::NS], "x.b.z."), "below a zone cut");
        assert!(!says("b.z.", "d.z.", &[RecordType::DNAME], "x.b.z."), "below a DNAME");
        assert!(says("b.z.", "d.z.", &[RecordType::NS], "c.z."), "beside a zone cut");
        assert!(says("B.z.", "D.z.", plain, "c.Z."), "in any case");
    }
}
