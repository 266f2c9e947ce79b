//! What the types cannot say of a configuration, and what its parts say of each other.

use super::places::Fault;
use super::{Backend, Config, Error, parse_identity};

impl Config {
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check_all(&self) -> Result<(), Error> {
        let checked = self
            .check_node()
            .and_then(|()| self.check_ike())
            .and_then(|()| self.check_subnets())
            .and_then(|()| self.check_lent())
            .and_then(|()| self.check_pool())
            .and_then(|()| self.check_groups())
            .and_then(|()| self.check_connections());
        checked.map_err(|fault| self.error(fault))
    }

    /// What the types cannot say of `[node]`.
    fn check_node(&self) -> Result<(), Fault> {
        let fault = |key: &str, why: &str| Err(Fault::new(format!("node.{key}"), why));
        let name = &self.node.interface;
        let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 15 || !name.bytes().all(ok) {
            let why = format!("{name:?} is not an interface name (1 to 15 of [A-Za-z0-9._-])");
            return fault("interface", &why);
        }
        if let Some(Err(why)) = self.node.identity.as_deref().map(parse_identity) {
            return fault("identity", &why);
        }
        if self.node.mark == 0 {
            return fault("mark", "must not be 0, which is every other packet's mark");
        }
        if !(1..=6).contains(&self.node.retransmissions) {
            return fault("retransmissions", "must be 1 to 6");
        }
        let given = self.node.destinations;
        if !(1024..=1 << 24).contains(&given) {
            return fault("destinations", &format!("{given} is not between 1024 and 16777216"));
        }
        if let Some(given) = self.node.new_destinations
            && !(16..=100_000).contains(&given)
        {
            return fault("new-destinations", &format!("{given} is not between 16 and 100000"));
        }
        if matches!(self.node.table, 0 | 253..=255) {
            return fault("table", &format!("{} is one of the kernel's own", self.node.table));
        }
        Ok(())
    }

    /// The same of `[ike]`.
    fn check_ike(&self) -> Result<(), Fault> {
        let lives = [("ike-life", self.ike.ike_life), ("child-life", self.ike.child_life)];
        for (key, given) in lives {
            if !(10..=86_400).contains(&given) {
                let why = format!("{given} is not between 10 and 86400");
                return Err(Fault::new(format!("ike.{key}"), why));
            }
        }
        let given = self.ike.patience;
        if given > 3600 {
            let why = format!("{given} is not between 0 and 3600");
            return Err(Fault::new("ike.patience", why));
        }
        let given = self.ike.fragment_size;
        if !(576..=9000).contains(&given) {
            let why = format!("{given} is not between 576 and 9000");
            return Err(Fault::new("ike.fragment-size", why));
        }
        Ok(())
    }

    /// The same of what is behind us and at the other end of connections.
    fn check_subnets(&self) -> Result<(), Fault> {
        let kernels = self.node.backend == Backend::Xfrm;
        for (kind, any) in
            [("connection", !self.connections.is_empty()), ("serve", !self.serve.is_empty())]
        {
            if kernels && any {
                let why = format!("{kind}: needs node.backend = \"userspace\"");
                return Err(Fault { key: format!("{kind}[0]"), why });
            }
        }
        match self.serve.iter().position(|serve| serve.subnet.0.len() == 0) {
            Some(at) => {
                let why = "everybody cannot be behind this machine";
                Err(Fault::new(format!("serve[{at}].subnet"), why))
            }
            None => Ok(()),
        }
    }

    /// The same of what is lent and borrowed.
    fn check_lent(&self) -> Result<(), Fault> {
        let lent = self.extrude.iter().map(|e| (e.subnet.0, &e.to)).enumerate();
        let borrowed = self.borrow.iter().map(|b| (b.subnet.0, &b.from)).enumerate();
        let all = lent.map(|(at, what)| (format!("extrude[{at}]"), "to", what));
        let all = all.chain(borrowed.map(|(at, what)| (format!("borrow[{at}]"), "from", what)));
        for (table, partner, (subnet, name)) in all {
            if !self.connections.iter().any(|c| c.name == *name) {
                let why = format!("no connection has the name {name:?}");
                return Err(Fault::new(format!("{table}.{partner}"), why));
            }
            if subnet.len() == 0 {
                return Err(Fault::new(format!("{table}.subnet"), "nobody can lend everything"));
            }
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), Fault> {
        for (index, group) in self.groups.iter().enumerate() {
            let fault = |(field, why): (&str, String)| {
                let key = format!("group[{index}].{field}");
                Err(Fault::new(key, why))
            };
            group.check().or_else(fault)?;
            if self.groups.iter().take(index).any(|g| g.name == group.name) {
                return fault(("name", format!("there are two of {}", group.name)));
            }
        }
        Ok(())
    }

    fn check_connections(&self) -> Result<(), Fault> {
        for (index, connection) in self.connections.iter().enumerate() {
            connection.check(index, self.lends_over(&connection.name))?;
            if self.connections.iter().take(index).any(|c| c.name == connection.name) {
                return Err(connection.fault(index, "name", "there are two of it"));
            }
        }
        Ok(())
    }
}
