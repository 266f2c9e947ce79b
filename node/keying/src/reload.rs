//! New policy groups for a running node: what changed is changed, and nothing else is touched.

use std::collections::BTreeMap;
use std::time::Instant;

use sa::{Class, Flow, Ports, Prefix, SaId};

use crate::entry::State;
use crate::group::{Group, Groups};
use crate::keying::{Keying, class_command, class_order};

/// What a reload did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reloaded {
    /// Prefixes that are new or in another group now.
    pub changed: usize,
    /// Prefixes that are in no group any more.
    pub removed: usize,
    /// Flows that started anew because their group changed.
    pub flows: usize,
}

impl Keying {
    /// Puts new groups into force. What is new is added before what is old goes, so that no
    /// packet finds the ground open in between; pairs that the new groups still allow stay.
    pub fn handle_groups(&mut self, now: Instant, groups: Groups) -> Reloaded {
        let classes = |groups: &Groups| -> BTreeMap<(Prefix, Ports), Class> {
            groups.rules().map(|(prefix, ports, group)| ((prefix, ports), group.class())).collect()
        };
        let (old, new) = (classes(&self.config.groups), classes(&groups));
        let mut done = Reloaded::default();
        let mut ordered: Vec<_> = new.iter().collect();
        ordered.sort_by_key(|((_, ports), class)| class_order(*ports, **class));
        for (rule, class) in ordered {
            if old.get(rule) != Some(class) {
                self.command(class_command(rule.0, rule.1, Some(*class)));
                done.changed += 1;
            }
        }
        self.config.groups = groups;
        // Flows before the prefixes under them: a flow that was denied by itself is denied by its
        // new class before the old class goes.
        let affected: Vec<(Flow, Group)> = self
            .flows
            .iter()
            .map(|(flow, entry)| (*flow, entry.group, self.group_of_flow(*flow)))
            .filter(|(_, was, is)| was != is)
            .map(|(flow, _, is)| (flow, is))
            .collect();
        for (flow, group) in affected {
            done.flows += usize::from(self.regroup(now, flow, group));
        }
        for rule in old.keys().filter(|rule| !new.contains_key(rule)) {
            self.command(class_command(rule.0, rule.1, None));
            done.removed += 1;
        }
        self.drain(now);
        done
    }

    /// A flow is in another group now; whether it starts anew.
    fn regroup(&mut self, now: Instant, flow: Flow, group: Group) -> bool {
        let Some(entry) = self.flows.get_mut(&flow) else { return false };
        entry.group = group;
        let proven = |sa: SaId| {
            let strict = group.strictness();
            self.pairs.get(&sa).is_some_and(|p| p.proof.suffices(&self.config.rules, strict))
        };
        match entry.state {
            State::Keyed { current, .. } if group.accepts() && proven(current) => false,
            State::Keyed { .. }
            | State::PotentialOe
            | State::PendingOe(_)
            | State::ClearText(_)
            | State::Deny(_) => {
                self.close_flow(now, flow);
                true
            }
        }
    }
}
