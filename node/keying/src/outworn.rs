//! A peer that renews nothing: it answers every rekey with NO_ADDITIONAL_SAS, say (RFC 7296 §1.3.2,
//! §2.8). What there is would end with its hard life, and only the next packet would call. So the peer is called
//! anew while the old pair still carries; the new one takes over, and the old one is closed then.

use std::time::Instant;

use ike::IkeId;
use sa::SaId;

use crate::keying::Keying;

impl Keying {
    /// The peer refuses to replace this child, or the IKE SA with all that it carries. If the call comes
    /// to nothing, the next refusal leads here again.
    pub(crate) fn not_renewed(&mut self, now: Instant, ike: IkeId, child: Option<SaId>) {
        let Some(peer) = self.peers.get_mut(&ike).filter(|peer| !peer.closing) else { return };
        peer.outworn = true;
        if let Some(index) = peer.connection {
            return self.connect_anew(now, index);
        }
        let pairs: Vec<SaId> = match child {
            Some(child) => vec![child],
            None => peer.pairs.iter().copied().collect(),
        };
        self.call_beside(pairs);
    }
}
