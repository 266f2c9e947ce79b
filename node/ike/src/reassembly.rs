//! IKE fragments put together (RFC 7383 §2.6). Every fragment has been authenticated before it
//! gets here.

use std::collections::BTreeMap;

use crate::message::{Head, InvalidMessage, MAX_MESSAGE, PayloadType, Sealed};

/// The fragments of one message.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    message_id: u32,
    total: u16,
    /// What the first fragment begins with.
    first: Option<(PayloadType, Head)>,
    octets: usize,
    parts: BTreeMap<u16, Vec<u8>>,
}

/// A message that is all there.
#[derive(Debug)]
pub(crate) struct Whole {
    /// The first payload inside.
    pub(crate) first: PayloadType,
    pub(crate) head: Head,
    pub(crate) plaintext: Vec<u8>,
}

impl Reassembly {
    /// Takes an opened encrypted payload; gives the whole as soon as it is complete.
    pub(crate) fn take(
        &mut self,
        sealed: &Sealed<'_>,
        message_id: u32,
        plaintext: Vec<u8>,
    ) -> Result<Option<Whole>, InvalidMessage> {
        let first = sealed.first;
        let head = Head::read(sealed).ok_or(InvalidMessage::Missing("encrypted payload"))?;
        let Some((number, total)) = sealed.fragment else {
            return Ok(Some(Whole { first, head, plaintext }));
        };
        if total > MAX_FRAGMENTS {
            return Err(InvalidMessage::TooMany("fragment"));
        }
        // A sender that tries a smaller size starts again with more fragments (RFC 7383 §2.5.2).
        if message_id != self.message_id || total > self.total {
            *self = Self { message_id, total, ..Self::default() };
        }
        if total < self.total {
            return Err(InvalidMessage::Value("total fragments"));
        }
        if self.parts.contains_key(&number) {
            return Ok(None);
        }
        if self.octets + plaintext.len() > MAX_MESSAGE {
            *self = Self::default();
            return Err(InvalidMessage::TooMany("message octets"));
        }
        if number == 1 {
            self.first = Some((first, head));
        }
        self.octets += plaintext.len();
        self.parts.insert(number, plaintext);
        if self.parts.len() < usize::from(self.total) {
            return Ok(None);
        }
        let whole = std::mem::take(self);
        let (first, head) = whole.first.ok_or(InvalidMessage::Missing("first fragment"))?;
        let mut plaintext = Vec::with_capacity(whole.octets);
        whole.parts.values().for_each(|part| plaintext.extend_from_slice(part));
        Ok(Some(Whole { first, head, plaintext }))
    }
}

/// [`MAX_MESSAGE`] in fragments of IPv4's least MTU.
const MAX_FRAGMENTS: u16 = 32;
