//! From a resource record to a record of ours.

use dnskeys::{GatewayRecord, Malformed, Source};
use hickory_proto::rr::{RData, Record};

use super::IPSECKEY;

/// Reads a TXT or IPSECKEY record; `None` if it is not ours.
pub(super) fn read(record: &Record) -> Option<Result<GatewayRecord, Malformed>> {
    match &record.data {
        RData::TXT(txt) => {
            let strings: Vec<&[u8]> = txt.txt_data.iter().map(AsRef::as_ref).collect();
            read_txt(&strings)
        }
        RData::Unknown { code, rdata } if *code == IPSECKEY => Some(read_ipseckey(&rdata.anything)),
        _ => None,
    }
}

fn read_txt(strings: &[&[u8]]) -> Option<Result<GatewayRecord, Malformed>> {
    let first = strings.first()?.trim_ascii_start();
    let ours = first.get(..14)?.eq_ignore_ascii_case(b"X-IPsec-Server");
    ours.then_some(Err(Malformed { source: Source::Txt, why: "not read yet" }))
}

fn read_ipseckey(_rdata: &[u8]) -> Result<GatewayRecord, Malformed> {
    Err(Malformed { source: Source::Ipseckey, why: "not read yet" })
}
