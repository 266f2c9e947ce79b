//! [`zonefiles::Catalog`] behind hickory's server: its requests in, its responses out.
//!
//! RDATA goes through as octets ([`RData::Unknown`]): what was signed is what is sent, and types
//! that hickory does not know are nothing special.

use std::sync::Arc;

use async_trait::async_trait;
use hickory_net::runtime::Time;
use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncoder, DecodeError};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder, Queries};
use tracing::debug;
use zonefiles::{Catalog, Reply, Transport};

/// Answers queries that come by UDP; `current` says from which zones.
pub(crate) struct Answers<F> {
    current: F,
}

/// A response of the catalog, taken apart.
struct Response {
    metadata: Metadata,
    asked: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
    edns: Option<Edns>,
}

impl<F: Fn() -> Arc<Catalog>> Answers<F> {
    pub(crate) fn new(current: F) -> Self {
        Self { current }
    }
}

#[async_trait]
impl<F: Fn() -> Arc<Catalog> + Send + Sync + Unpin + 'static> RequestHandler for Answers<F> {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut out: R,
    ) -> ResponseInfo {
        let nothing = Header { metadata: request.metadata, counts: HeaderCounts::default() };
        // A transfer is never offered by UDP.
        let Reply::Message(answer) = (self.current)().answer(request.as_slice(), Transport::Udp)
        else {
            return nothing.into();
        };
        let mut response = Response::read(&answer).unwrap_or_else(|e| {
            debug!("an answer is not read: {e}");
            Response::failure(request)
        });
        let none = Queries::read(&mut BinDecoder::new(&[]), 0);
        let queries = match &none {
            Ok(none) if !response.asked => none,
            _ => &request.queries,
        };
        response.fit(queries, request.max_payload());
        let sent = out.send_response(response.message(queries)).await;
        sent.unwrap_or_else(|e| {
            debug!("answering {}: {e}", request.src());
            nothing.into()
        })
    }
}

impl Response {
    fn read(message: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = BinDecoder::new(message);
        let Header { metadata, counts } = Header::read(&mut decoder)?;
        for _ in 0..counts.queries {
            Query::read(&mut decoder)?;
        }
        let mut response = Self {
            metadata,
            asked: counts.queries > 0,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            edns: None,
        };
        for _ in 0..counts.answers {
            let record = response.record(&mut decoder)?;
            response.answers.extend(record);
        }
        for _ in 0..counts.authorities {
            let record = response.record(&mut decoder)?;
            response.authorities.extend(record);
        }
        for _ in 0..counts.additionals {
            let record = response.record(&mut decoder)?;
            response.additionals.extend(record);
        }
        Ok(response)
    }

    /// Reads a record; OPT is kept apart.
    fn record(&mut self, decoder: &mut BinDecoder<'_>) -> Result<Option<Record>, DecodeError> {
        let name = Name::read(decoder)?;
        let code = RecordType::read(decoder)?;
        let class = decoder.read_u16()?.unverified();
        let ttl = decoder.read_u32()?.unverified();
        let len = decoder.read_u16()?.unverified();
        let octets = decoder.read_vec(usize::from(len))?.unverified();
        if code == RecordType::OPT {
            let [high, version, flags, _] = ttl.to_be_bytes();
            let mut edns = Edns::new();
            edns.set_version(version).set_max_payload(class).set_dnssec_ok(flags & 0x80 != 0);
            self.metadata.response_code =
                ResponseCode::from(high, self.metadata.response_code.low());
            self.edns = Some(edns);
            return Ok(None);
        }
        let mut rdata = NULL::new();
        rdata.anything = octets;
        let mut record = Record::from_rdata(name, ttl, RData::Unknown { code, rdata });
        record.dns_class = DNSClass::from(class);
        Ok(Some(record))
    }

    fn failure(request: &Request) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = ResponseCode::ServFail;
        Self {
            metadata,
            asked: true,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            edns: None,
        }
    }

    /// Names are compressed otherwise here than in the catalog, so what fitted may not fit any
    /// more; half an answer is of no use to a validator.
    fn fit(&mut self, queries: &Queries, payload: u16) {
        let ours = self.edns.as_ref().map_or(NO_EDNS, Edns::max_payload);
        let mut octets = Vec::new();
        let mut encoder = BinEncoder::new(&mut octets);
        encoder.set_max_size(payload.clamp(NO_EDNS, ours));
        let written = self.message(queries).destructive_emit(&mut encoder);
        if !written.is_ok_and(|info| info.truncation == self.metadata.truncation) {
            self.metadata.truncation = true;
            self.answers.clear();
            self.authorities.clear();
            self.additionals.clear();
        }
    }

    fn message<'a>(
        &'a self,
        queries: &'a Queries,
    ) -> MessageResponse<
        'a,
        'a,
        std::slice::Iter<'a, Record>,
        std::slice::Iter<'a, Record>,
        std::slice::Iter<'a, Record>,
        std::slice::Iter<'a, Record>,
    > {
        MessageResponseBuilder::new(queries, self.edns.as_ref()).build(
            self.metadata,
            &self.answers,
            &self.authorities,
            &[],
            &self.additionals,
        )
    }
}

/// What a client without EDNS takes (RFC 1035 §4.2.1).
const NO_EDNS: u16 = 512;
