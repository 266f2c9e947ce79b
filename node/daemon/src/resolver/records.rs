//! From a resource record to a record of ours.

use dnskeys::{GatewayRecord, Ipseckey, Malformed, ServerTxt};
use hickory_proto::rr::{RData, Record};

use super::IPSECKEY;

/// Reads a TXT or IPSECKEY record; `None` if it is not ours.
pub(super) fn read(record: &Record) -> Option<Result<GatewayRecord, Malformed>> {
    match &record.data {
        RData::TXT(txt) => {
            let read = ServerTxt::from_strings(&txt.txt_data).transpose()?;
            Some(read.map(GatewayRecord::from))
        }
        RData::Unknown { code, rdata } if *code == IPSECKEY => {
            Some(Ipseckey::from_rdata(&rdata.anything).map(GatewayRecord::from))
        }
        _ => None,
    }
}
