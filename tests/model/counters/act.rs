//! What can happen: a write, a write that arrives, a new epoch.

use super::rules::bit;
use super::{Config, DEEP, Kind, LOGS, Op, Replica, Set, State};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    Write {
        device: usize,
        kind: Kind,
    },
    Take {
        device: usize,
        log: usize,
    },
    /// Device 0 goes on in a new log; its next add there copies what the old log counts, or not.
    Epoch {
        copies: bool,
    },
}

impl State {
    pub fn new(config: &Config) -> Self {
        let replicas = (0..config.replicas).map(|_| Replica::default()).collect();
        State { replicas, ..State::default() }
    }

    pub fn own_log(&self, device: usize) -> usize {
        if device == 0 { usize::from(self.replicas[0].epoch) } else { device + 1 }
    }

    pub fn acts(&self, config: &Config) -> Vec<Act> {
        let mut acts = Vec::new();
        let written: usize = self.ops.iter().map(Vec::len).sum();
        for (device, replica) in self.replicas.iter().enumerate() {
            if written < config.writes && self.ops[self.own_log(device)].len() < DEEP {
                acts.extend(config.kinds.iter().map(|&kind| Act::Write { device, kind }));
            }
            let behind = |log: &usize| (replica.heads[*log] as usize) < self.ops[*log].len();
            acts.extend((0..LOGS).filter(behind).map(|log| Act::Take { device, log }));
        }
        if config.epochs && !self.replicas[0].epoch && !self.ops[0].is_empty() {
            acts.extend([true, false].map(|copies| Act::Epoch { copies }));
        }
        acts
    }

    pub fn apply(&self, config: &Config, act: Act) -> State {
        let mut to = self.clone();
        match act {
            Act::Write { device, kind } => to.write(config, device, kind),
            Act::Take { device, log } => to.replicas[device].heads[log] += 1,
            Act::Epoch { copies } => {
                to.replicas[0].epoch = true;
                to.replicas[0].copies = copies;
            }
        }
        to
    }

    pub fn write(&mut self, config: &Config, device: usize, kind: Kind) {
        let own = self.own_log(device);
        let replica = &self.replicas[device];
        let saw = self.all(replica);
        let ids = (0..(LOGS * DEEP) as u8).filter(|&id| saw & bit(id) != 0);
        let hlc = 1 + ids.map(|id| self.op(id).hlc).max().unwrap_or(0);
        let seq = self.ops[own].len() as u8 + 1;
        let mut ctx = self.context(config, replica, own as u8, kind);
        let (parts, took, adopts);
        let (mut kills, mut brings) = (self.ended_by_all(replica), 0);
        if let Kind::Add(amount) = kind {
            let values = self.view(config, replica).values;
            (parts, took, adopts) = self.add(config, replica, own as u8, amount);
            let rest = values.into_iter().filter(|id| Some(*id) != adopts);
            kills = rest.fold(0, |set: Set, id| set | bit(id));
            if parts.iter().any(|part| part.log == own as u8 && part.first == seq) {
                // What it counted before was taken whole, and is dropped.
                kills |= self.own_adds_ended(own, saw);
            }
            let old = replica.heads[0];
            if replica.copies && old > 0 {
                brings = (1 << old) - 1;
                ctx.retain(|(log, _)| *log != 0);
                ctx.push((0, old));
                ctx.sort_unstable();
            }
            self.replicas[device].copies = false;
        } else {
            (parts, took, adopts) = (Vec::new(), self.takes(config, replica), None);
        }
        self.ops[own].push(Op { kind, seq, hlc, ctx, parts, took, saw, kills, adopts, brings });
        self.replicas[device].heads[own] = seq;
    }

    /// Ghost: what a delete or put by this replica's device ends: adds here, values that are slots
    /// here, values adopted here, and what these had ended.
    fn ended_by_all(&self, replica: &Replica) -> Set {
        let all = self.all(replica);
        let slots = self.slots(replica).iter().fold(0, |set, slot| set | bit(slot.id));
        let of = |set: Set| (0..(LOGS * DEEP) as u8).filter(move |&id| set & bit(id) != 0);
        let mut counted = of(all).fold(all, |set, id| set | self.op(id).brings);
        counted &= !of(counted).fold(0, |set, id| match self.op(id).kind {
            Kind::Put => set | bit(id),
            _ => set,
        });
        let adopted = of(counted).filter_map(|id| self.op(id).adopts);
        let adopted = adopted.fold(0, |set, id| set | bit(id));
        of(all).fold(slots | counted | adopted, |set, id| set | self.op(id).kills)
    }

    /// Ghost: a log's adds that something its author has had ended.
    fn own_adds_ended(&self, own: usize, saw: Set) -> Set {
        let ids = (0..(LOGS * DEEP) as u8).filter(|&id| saw & bit(id) != 0);
        let ended = ids.fold(0, |set, id| set | self.op(id).kills);
        let own = (0..DEEP as u8).map(|at| (own * DEEP) as u8 + at);
        own.filter(|&id| saw & ended & bit(id) != 0).fold(0, |set, id| set | bit(id))
    }

    /// Everybody meets everybody until nothing moves.
    pub fn meet(&mut self) {
        let tips = std::array::from_fn(|log| self.ops[log].len() as u8);
        for replica in &mut self.replicas {
            replica.heads = tips;
        }
    }
}
