//! The rules: T, C, what is shown, and what a write holds.

use super::{Config, DEEP, Kind, NUMBER, Op, Part, Replica, Set, State};

pub fn bit(id: u8) -> Set {
    1 << id
}

/// The greatest up and down of each part.
pub fn join(into: &mut Vec<Part>, parts: &[Part]) {
    for part in parts {
        match into.iter_mut().find(|p| (p.log, p.first) == (part.log, part.first)) {
            Some(p) => {
                p.up = p.up.max(part.up);
                p.down = p.down.max(part.down);
            }
            None => into.push(*part),
        }
    }
    into.sort_unstable();
}

fn covers(taken: &[Part], part: &Part) -> bool {
    let same = |p: &&Part| (p.log, p.first) == (part.log, part.first);
    taken.iter().find(same).is_some_and(|p| p.up >= part.up && p.down >= part.down)
}

/// A slot held here: the log, the id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    pub log: u8,
    pub id: u8,
}

/// What the cell shows: live values, the winner first, and the counter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    pub values: Vec<u8>,
    pub counter: Option<i16>,
    /// The winner is a value.
    pub value_first: bool,
}

impl State {
    pub fn op(&self, id: u8) -> &Op {
        &self.ops[id as usize / DEEP][id as usize % DEEP]
    }

    pub fn slots(&self, replica: &Replica) -> Vec<Slot> {
        let held = replica.heads.iter().enumerate().filter(|(_, head)| **head > 0);
        held.map(|(log, head)| Slot { log: log as u8, id: (log * DEEP) as u8 + head - 1 }).collect()
    }

    /// Every write here, superseded ones too.
    pub fn all(&self, replica: &Replica) -> Set {
        let heads = replica.heads.iter().enumerate();
        heads.fold(0, |set, (log, &head)| set | ((1 << head) - 1) << (log * DEEP))
    }

    fn is_counter(&self, slot: &Slot) -> bool {
        matches!(self.op(slot.id).kind, Kind::Add(_))
    }

    fn names(&self, y: &Slot, x: &Slot) -> bool {
        self.op(y.id).ctx.contains(&(x.log, self.op(x.id).seq))
    }

    /// The join over counter slots that no context names exactly.
    pub fn total(&self, config: &Config, slots: &[Slot]) -> Vec<Part> {
        let mut total = Vec::new();
        for x in slots.iter().filter(|x| self.is_counter(x)) {
            if !config.named_out || !slots.iter().any(|y| self.names(y, x)) {
                join(&mut total, &self.op(x.id).parts);
            }
        }
        total
    }

    /// The join of what the slots here took.
    pub fn taken(&self, config: &Config, replica: &Replica, slots: &[Slot]) -> Vec<Part> {
        let mut taken = Vec::new();
        for slot in slots {
            if config.taken && (config.all_took || !self.dominated(replica, slots, slot)) {
                join(&mut taken, &self.op(slot.id).took);
            }
        }
        taken
    }

    /// Domination as for every slot, (i) and (ii).
    fn dominated(&self, replica: &Replica, slots: &[Slot], x: &Slot) -> bool {
        let old = self.op(x.id);
        slots.iter().filter(|y| y.log != x.log).any(|y| {
            let new = self.op(y.id);
            let knows = old.ctx.iter().any(|&(log, seq)| log == y.log && seq >= new.seq);
            new.ctx.iter().filter(|(log, _)| *log == x.log).any(|&(_, seq)| {
                seq == old.seq || seq > old.seq && replica.heads[x.log as usize] < seq && !knows
            })
        })
    }

    /// Live values, the winner first.
    pub fn values(&self, replica: &Replica, slots: &[Slot]) -> Vec<u8> {
        let live =
            |x: &&Slot| self.op(x.id).kind == Kind::Put && !self.dominated(replica, slots, x);
        let mut values: Vec<u8> = slots.iter().filter(live).map(|slot| slot.id).collect();
        values.sort_by_key(|&id| std::cmp::Reverse((self.op(id).hlc, id)));
        values
    }

    /// The sum of what T has beyond what was taken; none if no part exceeds it.
    pub fn sum(&self, config: &Config, total: &[Part], taken: &[Part]) -> Option<i16> {
        let minus = |a: i16, b: i16| if config.floor { (a - b).max(0) } else { a - b };
        let rest = |part: &Part| {
            let same = |p: &&Part| (p.log, p.first) == (part.log, part.first);
            let (up, down) = taken.iter().find(same).map_or((0, 0), |p| (p.up, p.down));
            minus(part.up, up) - minus(part.down, down)
        };
        let some = total.iter().any(|part| !covers(taken, part));
        some.then(|| total.iter().map(rest).sum())
    }

    pub fn view(&self, config: &Config, replica: &Replica) -> View {
        let slots = self.slots(replica);
        let total = self.total(config, &slots);
        let counter = self.sum(config, &total, &self.taken(config, replica, &slots));
        let values = self.values(replica, &slots);
        let counters = slots.iter().filter(|slot| self.is_counter(slot));
        let stamp = counters.map(|slot| self.op(slot.id).hlc).max().unwrap_or(0);
        let newer = |&id: &u8| counter.is_none() || self.op(id).hlc > stamp;
        let value_first = values.first().is_some_and(newer);
        View { values, counter, value_first }
    }

    /// The part that an add to a value adopts.
    fn adopted(&self, config: &Config, id: u8, own: u8, seq: u8) -> Part {
        let (log, first) = (id / DEEP as u8, self.op(id).seq);
        let (log, first) = if config.adopt_by_name { (log, first) } else { (own, seq) };
        Part { log, first, up: NUMBER, down: 0 }
    }

    /// What a delete or put takes.
    pub fn takes(&self, config: &Config, replica: &Replica) -> Vec<Part> {
        let slots = self.slots(replica);
        let mut took = self.total(config, &slots);
        if config.takes_both {
            join(&mut took, &self.taken(config, replica, &slots));
        }
        for slot in slots.iter().filter(|slot| self.op(slot.id).kind == Kind::Put) {
            if config.take_values {
                join(&mut took, &[self.adopted(config, slot.id, 0, 0)]);
            }
        }
        took
    }

    /// The context of a write of a log.
    pub fn context(
        &self,
        config: &Config,
        replica: &Replica,
        own: u8,
        kind: Kind,
    ) -> Vec<(u8, u8)> {
        let add = matches!(kind, Kind::Add(_));
        let slots = self.slots(replica);
        let other: Vec<&Slot> = slots.iter().filter(|slot| slot.log != own).collect();
        let named = |slot: &&&Slot| match (add, self.is_counter(slot)) {
            (false, _) => true,
            (true, true) => !config.spare_counters,
            (true, false) => config.name_values,
        };
        let entry = |slot: &&Slot| (slot.log, self.op(slot.id).seq);
        let mut ctx: Vec<(u8, u8)> = other.iter().filter(named).map(entry).collect();
        if let Some(own) = slots.iter().find(|slot| slot.log == own) {
            for &(log, seq) in &self.op(own.id).ctx {
                let stands = |slot: &&&Slot| {
                    let beside = config.keep_beside_counter && add && self.is_counter(slot);
                    slot.log == log && self.op(slot.id).seq >= seq && !beside
                };
                if !other.iter().any(|slot| stands(&slot)) {
                    ctx.push((log, seq));
                }
            }
        }
        ctx.sort_unstable();
        ctx
    }

    /// What an add holds: its parts, what it took, the value it adopts.
    pub fn add(
        &self,
        config: &Config,
        replica: &Replica,
        own: u8,
        amount: i16,
    ) -> (Vec<Part>, Vec<Part>, Option<u8>) {
        let slots = self.slots(replica);
        let taken = self.taken(config, replica, &slots);
        let view = self.view(config, replica);
        let seq = self.ops[own as usize].len() as u8 + 1;
        let before = slots.iter().find(|slot| slot.log == own).map(|slot| self.op(slot.id));
        let mut parts = before.map_or(Vec::new(), |op| op.parts.clone());
        let mut took = before.map_or(Vec::new(), |op| op.took.clone());
        if replica.copies {
            let old = slots.iter().find(|slot| slot.log == 0).map(|slot| self.op(slot.id));
            for part in old.iter().flat_map(|op| &op.parts) {
                let own = Part { log: own, first: seq + 100, ..*part };
                join(&mut parts, &[if config.copy_by_name { *part } else { own }]);
            }
        }
        if config.drop_covered {
            parts.retain(|part| !covers(&taken, part));
        }
        let has = |part: &Part| {
            let holds = |s: &Slot| {
                let parts = self.op(s.id).parts.iter();
                parts.clone().any(|p| (p.log, p.first) == (part.log, part.first))
            };
            slots.iter().any(holds)
        };
        took.retain(|part| config.carry_took && (config.carry_absent || has(part)));
        let adopts = view.values.first().copied().filter(|_| view.value_first);
        if let Some(id) = adopts {
            join(&mut parts, &[self.adopted(config, id, own, seq + 100)]);
        }
        for &id in view.values.iter().filter(|id| config.take_unadopted && Some(**id) != adopts) {
            join(&mut took, &[self.adopted(config, id, 0, 0)]);
        }
        self.count(config, &mut parts, own, seq, amount);
        (parts, took, adopts)
    }

    /// Adds an amount to the own part, or begins one.
    fn count(&self, config: &Config, parts: &mut Vec<Part>, own: u8, seq: u8, amount: i16) {
        let ops = &self.ops[own as usize];
        let is_add = |first: u8| {
            let op = ops.get(first.wrapping_sub(1) as usize);
            first == 0 || op.is_some_and(|op| matches!(op.kind, Kind::Add(_)))
        };
        let add = |p: &Part| p.log == own && is_add(p.first);
        let (up, down) = match config.apart {
            true => (amount.max(0), (-amount).max(0)),
            false => (amount, 0),
        };
        match parts.iter_mut().find(|p| add(p)) {
            Some(part) => {
                part.up += up;
                part.down += down;
            }
            None => {
                let first = if config.first { seq } else { 0 };
                parts.push(Part { log: own, first, up, down });
            }
        }
        parts.sort_unstable();
    }
}
