//! The kernel's security policy database, and which of its entries are ours.

use std::io;
use std::ops::RangeInclusive;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::policy::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Selector, UserPolicyInfo, XFRM_MSG_ACQUIRE, XFRM_MSG_EXPIRE, XFRM_MSG_MAPPING,
    XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_USER_ACQUIRE_LEN, XFRM_USER_EXPIRE_LEN,
    XFRM_USER_MAPPING_LEN, XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_INFO_LEN, XfrmAttrs,
    XfrmMessage,
};
use netlink_sys::protocols::NETLINK_XFRM;

use zeroize::Zeroize;

use super::netlink::{Family, Netlink};

/// The priorities that tell our policies from those of others; the kernel takes the smallest
/// number first. Other daemons count in hundred thousands.
pub(super) const OURS: RangeInclusive<u32> = 4300..=4599;

/// Exceptions that nothing may override.
pub(super) const EXCEPTION: u32 = *OURS.start();

/// What stays on this side of a configured connection.
pub(super) const STAYING: u32 = EXCEPTION + 10;

/// What comes from the far side of a configured connection.
pub(super) const BETWEEN: u32 = EXCEPTION + 20;

/// What a rule for single ports lets in, but not past a configured connection.
pub(super) const PORTS: u32 = EXCEPTION + 30;

/// Policies of single flows.
pub(super) const FLOW: u32 = EXCEPTION + 50;

/// Policies of prefixes, by length: the longest first.
pub(super) fn of_prefix(len: u8) -> u32 {
    EXCEPTION + 100 + 128 - u32::from(len.min(128))
}

impl Family for XfrmMessage {
    /// The crate's decoder panics on a payload that is shorter than the fixed part. What we never
    /// ask for is not decoded at all.
    fn is_whole(kind: u16, payload: usize) -> bool {
        let fixed = match kind {
            XFRM_MSG_NEWSA => XFRM_USER_SA_INFO_LEN,
            XFRM_MSG_NEWPOLICY => XFRM_USER_POLICY_INFO_LEN,
            XFRM_MSG_ACQUIRE => XFRM_USER_ACQUIRE_LEN,
            XFRM_MSG_EXPIRE => XFRM_USER_EXPIRE_LEN,
            XFRM_MSG_MAPPING => XFRM_USER_MAPPING_LEN,
            _ => return false,
        };
        payload >= fixed
    }

    fn wipe(&mut self) {
        let (Self::AddSa(state) | Self::UpdateSa(state)) = self else { return };
        for nla in &mut state.nlas {
            if let XfrmAttrs::EncryptionAlgAead(aead) = nla {
                aead.alg_key.zeroize();
            }
        }
    }
}

/// The policy database.
pub(super) struct Spd {
    pub(super) netlink: Netlink<XfrmMessage>,
}

impl Spd {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_XFRM)? })
    }

    /// Adds a policy; false if there is one for its selector already.
    pub(super) fn add(&mut self, policy: UserPolicyInfo) -> io::Result<bool> {
        let message = ModifyMessage { user_policy_info: policy, nlas: Vec::new() };
        let added =
            self.netlink.command(XfrmMessage::AddPolicy(message), NLM_F_CREATE | NLM_F_EXCL);
        match added {
            // Ours from before, or somebody's who protects this pair himself: his wins.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Adds a policy or replaces the one of the same selector; packets that wait for the old one
    /// go on to the new one at once.
    pub(super) fn put(&mut self, policy: UserPolicyInfo, nlas: Vec<XfrmAttrs>) -> io::Result<()> {
        let message = ModifyMessage { user_policy_info: policy, nlas };
        self.netlink.command(XfrmMessage::UpdatePolicy(message), 0)
    }

    /// Whether a packet has met the policy of a selector since it was put there.
    pub(super) fn was_used(&mut self, selector: Selector, direction: u8) -> io::Result<bool> {
        let mut message = DelGetMessage::default();
        message.user_policy_id.selector = selector;
        message.user_policy_id.direction = direction;
        match self.netlink.get(XfrmMessage::GetPolicy(message))? {
            Some(XfrmMessage::AddPolicy(found)) => {
                Ok(found.user_policy_info.lifetime_cur.use_time != 0)
            }
            _ => Ok(false),
        }
    }

    /// Removes the policy of a selector; it is no error if there is none.
    pub(super) fn delete(&mut self, selector: Selector, direction: u8) -> io::Result<()> {
        let mut message = DelGetMessage::default();
        message.user_policy_id.selector = selector;
        message.user_policy_id.direction = direction;
        self.delete_by(message)
    }

    fn delete_by(&mut self, message: DelGetMessage) -> io::Result<()> {
        match self.netlink.command(XfrmMessage::DeletePolicy(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes every policy of ours, those of a predecessor included.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        let all = self.netlink.dump(XfrmMessage::GetPolicy(DelGetMessage::default()))?;
        for message in all {
            let XfrmMessage::AddPolicy(message) = message else { continue };
            let policy = message.user_policy_info;
            if !OURS.contains(&policy.priority) {
                continue;
            }
            let mut wanted = DelGetMessage::default();
            wanted.user_policy_id.direction = policy.direction;
            wanted.user_policy_id.index = policy.index;
            let is_mark = |nla: &XfrmAttrs| matches!(nla, XfrmAttrs::Mark(_));
            wanted.nlas = message.nlas.into_iter().filter(is_mark).collect();
            self.delete_by(wanted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_payloads_never_reach_the_decoder() {
        for kind in 0x10..=0x40 {
            assert!(!XfrmMessage::is_whole(kind, 8), "{kind:#x}");
        }
        assert!(XfrmMessage::is_whole(XFRM_MSG_ACQUIRE, XFRM_USER_ACQUIRE_LEN));
    }
}
