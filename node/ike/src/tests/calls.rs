//! Two nodes that call each other, come back with tickets, go and restart, on a bad link.

use super::interplay::Dice;
use super::*;

struct World {
    net: Net,
    dice: Dice,
    tickets: [Vec<Ticket>; 2],
    /// Events that have been looked at.
    noted: [usize; 2],
    /// IKE SAs of each that stand, as its owner knows.
    standing: [Vec<IkeId>; 2],
    /// Calls that may not have come to anything.
    calls: [Vec<IkeId>; 2],
    starts: u8,
    config: Config,
    /// Nobody plays anything back any more.
    ends: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut net = Net::pair();
        let config = Config {
            resumption: true,
            post_quantum: dice.one_in(3),
            patience: Duration::from_secs(60),
            // Sometimes everybody has to bring a cookie.
            cookie_threshold: dice.below(3),
            fragment_size: [1280, 600, 300][dice.below(3)],
            ..config(0)
        };
        net.now += Duration::from_millis(1);
        let (tickets, noted) = ([vec![], vec![]], [0, 0]);
        let (standing, calls) = ([vec![], vec![]], [vec![], vec![]]);
        let mut world =
            Self { net, dice, tickets, noted, standing, calls, starts: 0, config, ends: false };
        world.start(0);
        world.start(1);
        world
    }

    /// With nothing but what is kept on disk.
    fn start(&mut self, which: usize) {
        self.starts += 1;
        let tag = u8::try_from(which).unwrap();
        let config = Config {
            key: public(key_pair(which)),
            token_secret: Some([tag + 40; 32].into()),
            ticket_keys: vec![[tag + 50; 32].into()],
            started: Duration::from_secs(1_800_000_000)
                + self.net.now.duration_since(self.net.born),
            ..self.config.clone()
        };
        let old = &mut self.net.nodes[which];
        let verdicts = old.verdicts.clone();
        let ike = Ike::new(config.clone(), [self.starts; 32], self.net.now);
        *old = Node { ike, verdicts, prompt: false, ..Node::new(which, config, self.net.now) };
        self.noted[which] = 0;
        self.standing[which].clear();
        self.calls[which].clear();
    }

    fn some(dice: &mut Dice, of: &[IkeId]) -> Option<IkeId> {
        (!of.is_empty()).then(|| of[dice.below(of.len() as u64)])
    }

    fn wish(&mut self) {
        let (which, now) = (self.dice.below(2), self.net.now);
        let call = Net::call(which, 1 - which);
        let what = self.dice.below(40);
        let standing = Self::some(&mut self.dice, &self.standing[which]);
        let under_way = Self::some(&mut self.dice, &self.calls[which]);
        let ticket = match self.tickets[which].is_empty() {
            true => None,
            false => {
                let at = self.dice.below(self.tickets[which].len() as u64);
                // Some come twice.
                let ticket = self.tickets[which][at].clone();
                if !self.dice.one_in(4) {
                    self.tickets[which].remove(at);
                }
                Some(ticket)
            }
        };
        let few = self.net.nodes[which].ike.len() < 8;
        let node = &mut self.net.nodes[which];
        match (what, standing) {
            (0..=7, _) if few => self.calls[which].push(node.ike.initiate(now, call)),
            (8..=13, _) if few => {
                let key = public(key_pair(1 - which));
                if let Some(ticket) = ticket {
                    self.calls[which].push(node.ike.resume(now, call, &ticket, key));
                }
            }
            (14, _) => self.start(which),
            (15..=18, Some(ike)) => node.ike.close(now, ike),
            (19..=22, _) => {
                if let Some(ike) = under_way {
                    node.ike.withdraw(now, ike);
                }
            }
            (23, _) => {
                if let Some(ike) = under_way {
                    node.ike.close(now, ike);
                }
            }
            (24..=26, Some(ike)) => node.ike.rekey_ike(now, ike),
            (27..=29, Some(ike)) => {
                let child = node.children.values().find(|child| child.ike == ike).map(|c| c.id);
                if let Some(child) = child {
                    node.ike.rekey_child(now, child);
                }
            }
            (30..=33, Some(ike)) => node.ike.probe(now, ike),
            (34..=36, Some(ike)) => node.ike.create_child(now, ike, call.child),
            _ => {}
        }
    }

    /// What owners do with what they hear.
    fn note(&mut self) {
        for which in 0..2 {
            let node = &mut self.net.nodes[which];
            while let Some(event) = node.events.get(self.noted[which]) {
                self.noted[which] += 1;
                match event {
                    Event::Established { ike, initial_contact, .. } => {
                        let (ike, alone) = (*ike, *initial_contact);
                        for other in self.standing[which].iter().filter(|_| alone) {
                            node.ike.probe(self.net.now, *other);
                        }
                        self.standing[which].push(ike);
                        self.calls[which].retain(|call| *call != ike);
                    }
                    Event::Ticket { ticket, .. } => self.tickets[which].push(ticket.clone()),
                    Event::Ended { ike, .. } => {
                        self.standing[which].retain(|standing| standing != ike);
                        self.calls[which].retain(|call| call != ike);
                    }
                    _ => {}
                }
            }
        }
    }

    fn pass(&mut self, lossy: bool, time: Duration) {
        let until = self.net.now + time;
        loop {
            self.net.collect();
            while let Some(packet) = self.dice.arrival(&mut self.net.wire, lossy) {
                self.net.deliver(&packet);
                if self.dice.one_in(10) {
                    self.net.deliver(&packet);
                }
                if self.dice.one_in(10) && !self.ends {
                    let at = self.dice.below(self.net.seen.len() as u64);
                    let old = self.net.seen[at].clone();
                    self.net.deliver(&old);
                }
                self.serve(false);
            }
            self.serve(true);
            if self.net.wire.is_empty() && !self.net.tick(until) {
                return;
            }
        }
    }

    fn serve(&mut self, all: bool) {
        for which in 0..2 {
            while !self.net.nodes[which].waiting.is_empty() && (all || self.dice.one_in(3)) {
                let now = self.net.now;
                self.net.nodes[which].serve(now);
                self.net.collect();
            }
        }
        self.note();
    }

    /// Whether the other lives is asked of every SA that stands.
    fn probe(&mut self) {
        for which in 0..2 {
            for ike in self.standing[which].clone() {
                self.net.nodes[which].ike.probe(self.net.now, ike);
            }
        }
    }
}

/// However they have called each other: in the end each knows of the same IKE SAs and children, nothing
/// is reserved for what is no more, and all that stands can be replaced.
#[test]
fn a_long_life_of_calls_leaves_nothing_undone() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(30);
    let first = std::env::var("FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let mut world = World::new(seed);
        for _ in 0..40 {
            for _ in 0..=world.dice.below(3) {
                world.wish();
            }
            let lossy = world.dice.one_in(3);
            let time = Duration::from_millis(world.dice.below(2500) as u64);
            world.pass(lossy, time);
        }
        world.ends = true;
        world.pass(false, Duration::from_secs(45));
        world.probe();
        world.pass(false, Duration::from_secs(120));
        for round in 0..3 {
            let text = format!("seed {seed}, round {round}");
            let standing = [0, 1].map(|which| world.standing[which].len());
            assert_eq!(standing[0], standing[1], "{text}");
            world.net.assert_children_fit();
            for (which, node) in world.net.nodes.iter().enumerate() {
                let tidy = (node.ike.len(), node.children.len());
                assert_eq!((node.ike.reserved(), tidy), (tidy, tidy), "{text}");
                assert_eq!((node.ike.len(), node.ike.half_open()), (standing[which], 0), "{text}");
            }
            let (which, now) = (round % 2, world.net.now);
            let before: Vec<SaId> = world.net.nodes[which].children.keys().copied().collect();
            for child in &before {
                world.net.nodes[which].ike.rekey_child(now, *child);
            }
            for ike in world.standing[which].clone() {
                world.net.nodes[which].ike.rekey_ike(now, ike);
            }
            world.pass(false, Duration::from_secs(30));
            let node = &world.net.nodes[which];
            assert!(before.iter().all(|child| !node.children.contains_key(child)), "{text}");
            assert_eq!(before.len(), node.children.len(), "{text}");
        }
        let now = world.net.now;
        world.net.nodes[0].ike.shutdown(now);
        world.pass(false, Duration::from_secs(1));
        for node in &world.net.nodes {
            assert_eq!((node.ike.reserved(), node.ike.len()), ((0, 0), 0), "seed {seed}");
            assert!(node.ike.names_nobody(), "seed {seed}");
        }
    }
}
