//! Questions put to DNS and not answered yet: once each, whoever waits for the answer.

use std::collections::BTreeMap;

use dnskeys::Name;

use crate::entry::Asker;

/// Names asked, and who waits for each; whoever asked first comes first.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: BTreeMap<Name, Vec<Asker>>,
    /// How many of them are our own.
    ours: usize,
}

impl Questions {
    /// Somebody wants to know; whether DNS has to be asked.
    pub(crate) fn add(&mut self, name: Name, asker: Asker) -> bool {
        if let Some(askers) = self.open.get_mut(&name) {
            if !askers.contains(&asker) {
                askers.push(asker);
            }
            return false;
        }
        self.ours += usize::from(!asker.is_stranger());
        self.open.insert(name, vec![asker]);
        true
    }

    /// Who waited for this answer.
    pub(crate) fn answered(&mut self, name: &Name) -> Vec<Asker> {
        let askers = self.open.remove(name).unwrap_or_default();
        let ours = askers.first().is_some_and(|first| !first.is_stranger());
        self.ours -= usize::from(ours);
        askers
    }

    /// The numbers of the connections that wait: they change when others come and go.
    pub(crate) fn connections_mut(&mut self) -> impl Iterator<Item = &mut usize> {
        self.open.values_mut().flatten().filter_map(|asker| match asker {
            Asker::Connection(index) => Some(index),
            _ => None,
        })
    }

    /// How many are asked because of us: strangers cost what they like, and take no room that our
    /// own flows have.
    pub(crate) fn ours(&self) -> usize {
        self.ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ike::IkeId;
    use sa::Flow;
    use std::net::IpAddr;

    /// Attack A23.
    /// P13.
    #[test]
    fn strangers_take_no_room_of_ours() {
        let mut questions = Questions::default();
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let flow = Flow::new(address(1), address(2)).unwrap();
        for n in 0..100 {
            let stranger = Asker::Visitor(IkeId(u64::from(n)));
            assert!(questions.add(Name::reverse(address(n)), stranger));
        }
        assert_eq!(questions.ours(), 0);
        // Who joins a stranger's question costs nothing.
        assert!(!questions.add(Name::reverse(address(2)), Asker::Destination(flow)));
        assert!(questions.add(Name::reverse(address(101)), Asker::Recheck(flow)));
        assert!(!questions.add(Name::reverse(address(101)), Asker::Visitor(IkeId(7))));
        assert!(!questions.add(Name::reverse(address(101)), Asker::Recheck(flow)));
        assert_eq!(questions.ours(), 1);
        assert_eq!(questions.answered(&Name::reverse(address(2))).len(), 2);
        assert_eq!(questions.answered(&Name::reverse(address(2))), []);
        assert_eq!(questions.ours(), 1);
        assert_eq!(questions.answered(&Name::reverse(address(101))).len(), 2);
        assert_eq!(questions.ours(), 0);
    }
}
