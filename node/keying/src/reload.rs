//! New policy groups, connections, served hosts and pools for a running node: what changed is changed, and
//! nothing else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ike::IkeId;
use sa::{About, Class, Command, Flow, Ports, Prefix, SaId, Subnets};

use crate::connection::{Configured, Connection};
use crate::entry::{Pair, State};
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
    /// Connections that are new; one that was changed is new, and gone.
    pub connections_new: usize,
    /// Connections that are gone.
    pub connections_gone: usize,
    /// Leases in use that were ended: their addresses are not in the pool any more.
    pub leases_ended: usize,
}

impl Keying {
    /// Puts groups, connections and the pool into force together: new connections first, old ones
    /// last, so that nothing is open in between that one of the two closes, before or after. What is
    /// in the pool no longer goes while the groups still keep it private.
    pub fn handle_configuration(
        &mut self,
        now: Instant,
        groups: Groups,
        connections: Vec<Connection>,
        pool: Vec<Prefix>,
    ) -> Reloaded {
        let mut both = connections.clone();
        let old = self.config.connections.iter().filter(|old| !connections.contains(old));
        both.extend(old.cloned());
        let (connections_new, _) = self.handle_connections(now, both);
        let leases_ended = self.handle_pool(now, pool);
        let done = self.handle_groups(now, groups);
        let (_, connections_gone) = self.handle_connections(now, connections);
        Reloaded { connections_new, connections_gone, leases_ended, ..done }
    }

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
        let before = std::mem::replace(&mut self.config.groups, groups);
        // Flows before the prefixes under them: a flow that was denied by itself is denied by its
        // new class before the old class goes.
        let affected: Vec<(Flow, Group)> = self
            .flows
            .iter()
            .map(|(flow, entry)| (*flow, entry.group, self.group_of_flow(*flow)))
            .filter(|(_, was, is)| was != is)
            .map(|(flow, _, is)| (flow, is))
            .collect();
        let anew = |(flow, group): (Flow, Group)| (!self.regroup(flow, group)).then_some(flow);
        let anew: BTreeSet<Flow> = affected.into_iter().filter_map(anew).collect();
        done.flows = anew.len();
        self.revoke_flows(now, &anew);
        self.revoke_refused(now, &before);
        for rule in old.keys().filter(|rule| !new.contains_key(rule)) {
            self.command(class_command(rule.0, rule.1, None));
            done.removed += 1;
        }
        self.drain(now);
        done
    }

    /// Puts new connections into force, and gives back how many are new and how many are gone; one
    /// that was changed counts as both. Those that are as they were keep their pairs. Subnets of
    /// new ones are closed before those of old ones are opened.
    pub fn handle_connections(
        &mut self,
        now: Instant,
        connections: Vec<Connection>,
    ) -> (usize, usize) {
        let before = self.configured.len();
        let mut order = Vec::new();
        for connection in &connections {
            let same = |index: &usize| {
                !order.contains(index)
                    && self.configured.get(*index).is_some_and(|c| c.connection == *connection)
            };
            let known = (0..before).find(same);
            if known.is_none() {
                self.configured.push(Configured::new(connection.clone(), now));
            }
            order.push(known.unwrap_or(self.configured.len() - 1));
        }
        let added: Vec<usize> = (before..self.configured.len()).collect();
        let gone: Vec<usize> = (0..before).filter(|index| !order.contains(index)).collect();
        self.config.connections = connections;
        for index in &added {
            self.lay_subnets(*index);
        }
        let pairs: Vec<SaId> =
            gone.iter().flat_map(|index| self.retire_connection(now, *index)).collect();
        self.clear_unwanted_subnets();
        for sa in pairs {
            self.command(Command::RevokeSa(sa));
        }
        self.reorder_connections(&order);
        if !added.is_empty() {
            self.begin_added(now);
        }
        self.drain(now);
        (added.len(), gone.len())
    }

    /// Takes everything from a connection that is no longer wanted. Gives back the pairs that are
    /// to go once nothing is sent on them.
    fn retire_connection(&mut self, now: Instant, index: usize) -> Vec<SaId> {
        self.set_connection_deadline(index, None);
        let calls = self.configured_calls.iter().map(|(ike, (at, ..))| (*ike, *at));
        let paused = self.configured_visitors.iter().map(|(ike, (at, _))| (*ike, *at));
        let visits = self.configured_visits.iter().map(|(ike, (at, ..))| (*ike, *at));
        let all = calls.chain(paused).chain(visits);
        let mut ended: Vec<IkeId> =
            all.filter(|(_, at)| *at == index).map(|(ike, _)| ike).collect();
        self.configured_calls.retain(|_, (at, ..)| *at != index);
        self.configured_visitors.retain(|_, (at, _)| *at != index);
        self.configured_visits.retain(|_, (at, ..)| *at != index);
        self.configured_after_drain.retain(|(at, _)| *at != index);
        for (ike, peer) in self.peers.iter_mut().filter(|(_, p)| p.connection == Some(index)) {
            // Of no use for anything else, and for this no more.
            (peer.connection, peer.closing) = (None, true);
            peer.pairs.clear();
            ended.push(ike);
        }
        for ike in ended {
            self.close_ike(now, ike);
        }
        let joints = self.joints.iter().filter(|(_, at)| **at == index);
        let mut pairs: Vec<SaId> = joints.map(|(sa, _)| *sa).collect();
        self.joints.retain(|_, at| *at != index);
        if let Some(configured) = self.configured.get_mut(index) {
            // What still receives on the strength of the configuration would keep others out.
            let replaced = std::mem::take(&mut configured.replaced);
            let still = self.lingering.iter().map(|(_, sa)| *sa).filter(|sa| replaced.contains(sa));
            pairs.extend(still);
            self.lingering.retain(|(_, sa)| !replaced.contains(sa));
            configured.retire();
        }
        pairs
    }

    /// Tells the data plane what no connection lies between any more, and what holds between the
    /// others now.
    fn clear_unwanted_subnets(&mut self) {
        let said: Vec<Subnets> = self.said.keys().copied().collect();
        for index in 0..self.configured.len() {
            self.lay_subnets(index);
        }
        let all = self.configured.iter().flat_map(|c| c.subnets.iter().chain(&c.pieces));
        let wanted: BTreeSet<Subnets> = all.copied().collect();
        for subnets in said.into_iter().filter(|subnets| !wanted.contains(subnets)) {
            self.said.remove(&subnets);
            self.command(Command::ClearSubnets { subnets });
        }
    }

    /// Puts connections into the order of the file, those that are in none away.
    fn reorder_connections(&mut self, order: &[usize]) {
        let mut old: Vec<Option<Configured>> =
            std::mem::take(&mut self.configured).into_iter().map(Some).collect();
        let taken = order.iter().filter_map(|index| old.get_mut(*index).and_then(Option::take));
        self.configured = taken.collect();
        crate::links::note_siblings(&mut self.configured);
        let place = |old: usize| order.iter().position(|index| *index == old);
        let moved = |all: &mut dyn Iterator<Item = &mut usize>| {
            for index in all {
                *index = place(*index).unwrap_or(usize::MAX);
            }
        };
        moved(&mut self.configured_calls.values_mut().map(|(index, ..)| index));
        moved(&mut self.configured_visitors.values_mut().map(|(index, _)| index));
        moved(&mut self.configured_visits.values_mut().map(|(index, ..)| index));
        moved(&mut self.configured_after_drain.iter_mut().map(|(index, _)| index));
        moved(&mut self.joints.values_mut());
        moved(&mut self.peers.iter_mut().filter_map(|(_, peer)| peer.connection.as_mut()));
        // An answer for one that is gone finds nobody.
        moved(&mut self.asked.connections_mut());
        let deadlines = std::mem::take(&mut self.configured_deadlines).into_iter();
        self.configured_deadlines =
            deadlines.filter_map(|(at, index)| Some((at, place(index)?))).collect();
    }

    /// Calls for the connections that are new, and takes from opportunism what is theirs now.
    fn begin_added(&mut self, now: Instant) {
        let all = self.flows.keys().copied().chain(self.received_flows());
        let flows: BTreeSet<Flow> =
            all.filter(|flow| !self.connections_of(*flow).is_empty()).collect();
        self.revoke_flows(now, &flows);
        self.begin_connections(now);
    }

    /// Puts other hosts behind us. Flows of those who are served no longer, or were not before,
    /// start anew, and with the first and the last of them our own that were refused; gives back how
    /// many.
    pub fn handle_served(&mut self, now: Instant, served: Vec<Prefix>) -> usize {
        let before = std::mem::replace(&mut self.config.served, served);
        // What our own are refused was as good as said of the destination, while there were no others.
        let first = before.is_empty() != self.config.served.is_empty();
        let refused = |state: &State| match state {
            State::ClearText(why) | State::Deny(why) => why.about() == About::Source,
            State::PotentialOe | State::PendingOe(_) | State::Keyed { .. } => false,
        };
        let flows: BTreeSet<Flow> = self
            .flows
            .iter()
            .filter(|(flow, entry)| {
                self.is_served_otherwise(&before, flow) || (first && refused(&entry.state))
            })
            .map(|(flow, _)| *flow)
            .collect();
        self.revoke_flows(now, &flows);
        let mut forgotten = self.received_flows();
        forgotten.retain(|flow| self.is_served_otherwise(&before, flow));
        self.revoke_flows(now, &forgotten);
        self.drain(now);
        flows.len()
    }

    /// Whether a flow comes from a host behind us that is served now and was not, or the other way round.
    fn is_served_otherwise(&self, before: &[Prefix], flow: &Flow) -> bool {
        let src = flow.src();
        let was = before.iter().any(|prefix| prefix.contains(src));
        !self.config.addresses.contains(&src) && was != self.serves(src)
    }

    /// A flow is in another group now; whether what it has may stay.
    fn regroup(&mut self, flow: Flow, group: Group) -> bool {
        let Some(entry) = self.flows.get_mut(&flow) else { return true };
        entry.group = group;
        let current = match entry.state {
            State::Keyed { current, .. } => self.pairs.get(&current),
            State::PotentialOe | State::PendingOe(_) | State::ClearText(_) | State::Deny(_) => None,
        };
        current.is_some_and(|pair| self.is_allowed(pair, group))
    }

    fn is_allowed(&self, pair: &Pair, group: Group) -> bool {
        // What is lent asks no group whether it is, only how strict to be.
        (group.accepts() || pair.proof.is_leased())
            && pair.proof.suffices(&self.config.rules, group.strictness())
    }

    /// Takes away the other pairs that these groups allowed and the new ones do not: those that wait to
    /// be deleted, or to be proven, or were replaced a moment ago.
    fn revoke_refused(&mut self, now: Instant, before: &Groups) {
        let was = |flow: Flow| before.rule(flow.dst(), flow.ports()).map(|(_, _, l)| l.group);
        let is = |flow: Flow| self.config.groups.rule(flow.dst(), flow.ports());
        let is = |flow: Flow| is(flow).map(|(_, _, listed)| listed.group);
        let refused = |pair: &Pair| {
            let group = is(pair.flow);
            group != was(pair.flow) && !self.is_allowed(pair, group.unwrap_or(Group::Clear))
        };
        let refused = |sa: &SaId| self.pairs.get(sa).is_some_and(&refused);
        let all: Vec<SaId> = self.pairs.keys().copied().filter(refused).collect();
        for sa in all {
            self.revoke_pair(now, sa);
        }
        // What those rested on is not known any more: the old group must have asked for as much.
        let doubtful = |flow: &Flow| {
            let (was, is) = (was(*flow).unwrap_or(Group::Clear), self.group_of_flow(*flow));
            was != is && !(is.accepts() && is.strictness() == was.strictness())
        };
        let late: BTreeSet<Flow> = self.late_flows().filter(doubtful).collect();
        self.revoke_lingering(&late);
    }
}
