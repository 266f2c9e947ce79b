//! From a resource record to a record of ours.

use dnskeys::RecordSet;
use hickory_proto::rr::{RData, Record};

use super::IPSECKEY;

/// The TXT and IPSECKEY records of ours, well-formed or not.
pub(crate) fn ours(records: &[Record]) -> RecordSet {
    let mut set = RecordSet::default();
    for record in records {
        match &record.data {
            RData::TXT(txt) => {
                let strings: Vec<&[u8]> = txt.txt_data.iter().map(AsRef::as_ref).collect();
                set.add_txt_strings(&strings);
            }
            RData::Unknown { code, rdata } if *code == IPSECKEY => {
                set.add_ipseckey(&rdata.anything);
            }
            _ => {}
        }
    }
    set
}
