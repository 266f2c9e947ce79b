//! The kernel's security policy database, and which of its entries are ours.

use std::collections::HashSet;
use std::io;
use std::ops::RangeInclusive;

use netlink_packet_core::{Emitable as _, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_xfrm::policy::{DelGetMessage, ModifyMessage};
use netlink_packet_xfrm::{
    Selector, UserPolicyInfo, XFRM_MSG_ACQUIRE, XFRM_MSG_EXPIRE, XFRM_MSG_MAPPING,
    XFRM_MSG_NEWPOLICY, XFRM_MSG_NEWSA, XFRM_SELECTOR_LEN, XFRM_USER_ACQUIRE_LEN,
    XFRM_USER_EXPIRE_LEN, XFRM_USER_MAPPING_LEN, XFRM_USER_POLICY_INFO_LEN, XFRM_USER_SA_INFO_LEN,
    XfrmAttrs, XfrmMessage,
};
use netlink_sys::protocols::NETLINK_XFRM;
use sa::Prefix;

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

/// What a rule for single ports lets in, but not past a configured connection; requests for a lease
/// as well.
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

/// The policies of the guard (`oe-node guard`), which come after all others of ours.
pub(super) const GUARD: RangeInclusive<u32> = *OURS.end() + 1..=*OURS.end() + 200;

/// What tells one policy from another for the kernel: selector, direction, mark.
pub(super) type Key = ([u8; XFRM_SELECTOR_LEN], u8, (u32, u32));

/// The policy database.
pub(super) struct Spd {
    pub(super) netlink: Netlink<XfrmMessage>,
    /// What has been put here while a predecessor's policies still stand.
    said: Option<HashSet<Key>>,
}

impl Spd {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { netlink: Netlink::open(NETLINK_XFRM)?, said: None })
    }

    /// A predecessor's policies stand until [`Self::settle`]. Whether there are any.
    pub(super) fn take_over(&mut self) -> io::Result<bool> {
        self.said = Some(HashSet::new());
        Ok(!self.list(&OURS)?.is_empty())
    }

    /// All has been said: what a predecessor left and nobody has put here since goes.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        let Some(said) = self.said.take() else { return Ok(()) };
        for policy in self.list(&OURS)? {
            if !said.contains(&key(&policy.user_policy_info, &policy.nlas)) {
                self.delete_exactly(policy)?;
            }
        }
        Ok(())
    }

    fn say(&mut self, policy: &UserPolicyInfo, nlas: &[XfrmAttrs]) {
        if let Some(said) = &mut self.said {
            said.insert(key(policy, nlas));
        }
    }

    /// Adds a policy; false if there is one for its selector already.
    pub(super) fn add(&mut self, policy: UserPolicyInfo) -> io::Result<bool> {
        self.say(&policy, &[]);
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
        self.say(&policy, &nlas);
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
        if let Some(said) = &mut self.said {
            said.remove(&key_of(&message.user_policy_id.selector, direction, &[]));
        }
        self.delete_by(message)
    }

    fn delete_by(&mut self, message: DelGetMessage) -> io::Result<()> {
        match self.netlink.command(XfrmMessage::DeletePolicy(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// Removes every policy of ours, those of a predecessor included; the guard's stay.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.said = None;
        self.clear_range(&OURS)
    }

    /// Removes every policy with one of these priorities.
    pub(super) fn clear_range(&mut self, priorities: &RangeInclusive<u32>) -> io::Result<()> {
        for policy in self.list(priorities)? {
            self.delete_exactly(policy)?;
        }
        Ok(())
    }

    /// Every policy with one of these priorities.
    pub(super) fn list(
        &mut self,
        priorities: &RangeInclusive<u32>,
    ) -> io::Result<Vec<ModifyMessage>> {
        let all = self.netlink.dump(XfrmMessage::GetPolicy(DelGetMessage::default()))?;
        let policy = |message| match message {
            XfrmMessage::AddPolicy(policy) => Some(policy),
            _ => None,
        };
        let of = |policy: &ModifyMessage| priorities.contains(&policy.user_policy_info.priority);
        Ok(all.into_iter().filter_map(policy).filter(of).collect())
    }

    /// The keys of all policies of ours that stand.
    pub(super) fn keys(&mut self) -> io::Result<HashSet<Key>> {
        let all = self.list(&OURS)?;
        Ok(all.iter().map(|policy| key(&policy.user_policy_info, &policy.nlas)).collect())
    }

    /// Removes a policy that was read.
    pub(super) fn delete_exactly(&mut self, policy: ModifyMessage) -> io::Result<()> {
        let mut wanted = DelGetMessage::default();
        wanted.user_policy_id.direction = policy.user_policy_info.direction;
        wanted.user_policy_id.index = policy.user_policy_info.index;
        let is_mark = |nla: &XfrmAttrs| matches!(nla, XfrmAttrs::Mark(_));
        wanted.nlas = policy.nlas.into_iter().filter(is_mark).collect();
        self.delete_by(wanted)
    }
}

/// The selector of everything from one prefix to another of its family. The library's own functions
/// take every prefix that begins with zeros for everybody: 0.0.0.0/32 is not.
pub(super) fn between(from: Prefix, to: Prefix) -> Selector {
    let mut selector = Selector::default();
    selector.source_prefix(&from.addr(), from.len());
    selector.destination_prefix(&to.addr(), to.len());
    (selector.prefixlen_s, selector.prefixlen_d) = (from.len(), to.len());
    selector
}

/// The key of a policy.
pub(super) fn key(policy: &UserPolicyInfo, nlas: &[XfrmAttrs]) -> Key {
    key_of(&policy.selector, policy.direction, nlas)
}

fn key_of(selector: &Selector, direction: u8, nlas: &[XfrmAttrs]) -> Key {
    let mut octets = [0; XFRM_SELECTOR_LEN];
    selector.emit(&mut octets);
    let mark = nlas.iter().find_map(|nla| match nla {
        XfrmAttrs::Mark(mark) => Some((mark.value, mark.mask)),
        _ => None,
    });
    (octets, direction, mark.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_zeros_is_not_everybody() {
        let p = |text: &str| text.parse::<Prefix>().unwrap();
        for (from, to) in [("0.0.0.0/1", "0.0.0.0/32"), ("::/1", "::/64"), ("::/0", "::/0")] {
            let selector = between(p(from), p(to));
            let lens = (selector.prefixlen_s, selector.prefixlen_d);
            assert_eq!(lens, (p(from).len(), p(to).len()));
        }
    }

    #[test]
    fn short_payloads_never_reach_the_decoder() {
        for kind in 0x10..=0x40 {
            assert!(!XfrmMessage::is_whole(kind, 8), "{kind:#x}");
        }
        assert!(XfrmMessage::is_whole(XFRM_MSG_ACQUIRE, XFRM_USER_ACQUIRE_LEN));
    }
}
