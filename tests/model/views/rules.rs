//! The rules: which slots a replica holds, what a write's context names, what dominates what.

use super::{Config, DEEP, Entry, HISTORIES, Kind, NOTHING, Op, Replica, Set, State, log_of};

/// A slot held here: the write, and the first history that it is the slot of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    pub id: u8,
    pub history: usize,
}

pub fn bit(id: u8) -> Set {
    1 << id
}

impl State {
    pub fn op(&self, id: u8) -> &Op {
        &self.ops[id as usize / DEEP][id as usize % DEEP]
    }

    /// The number of writes that come before the first of a history's own.
    pub fn base(&self, history: usize) -> u8 {
        if history == 1 { self.fork.unwrap_or(0) } else { 0 }
    }

    /// The last sequence number that was ever signed in a history; 0 for a second one without
    /// writes.
    pub fn tip(&self, history: usize) -> u8 {
        match self.ops[history].len() as u8 {
            0 => 0,
            own => self.base(history) + own,
        }
    }

    /// The histories here, with their heads.
    pub fn held(&self, replica: &Replica) -> Vec<(usize, u8)> {
        let shared = self.fork.unwrap_or(0);
        let has = |&(history, head): &(usize, u8)| match history {
            0 => head > 0 && (replica.heads[1] == 0 || head > shared),
            _ => head > 0,
        };
        replica.heads.iter().copied().enumerate().filter(has).collect()
    }

    /// Whether both histories of F are here.
    pub fn has_both(&self, replica: &Replica) -> bool {
        replica.heads[1] > 0 && replica.heads[0] > self.fork.unwrap_or(0)
    }

    /// Whether both were ever here: a fork is not forgotten when a history is set aside.
    fn knows_fork(&self, replica: &Replica) -> bool {
        let ever = |h: usize| replica.heads[h].max(replica.floor[h]);
        ever(1) > 0 && ever(0) > self.fork.unwrap_or(0)
    }

    /// The ids of a history up to a head, the oldest first.
    pub fn past(&self, history: usize, head: u8) -> impl DoubleEndedIterator<Item = u8> {
        let base = self.base(history);
        let shared = if history == 1 { base.min(head) } else { 0 };
        let own = head.saturating_sub(base);
        (0..shared).chain((0..own).map(move |at| (history * DEEP) as u8 + at))
    }

    /// Every write here.
    pub fn all(&self, replica: &Replica) -> Set {
        let held = self.held(replica).into_iter();
        held.flat_map(|(history, head)| self.past(history, head)).fold(0, |set, id| set | bit(id))
    }

    pub fn latest(&self, history: usize, head: u8) -> Option<u8> {
        self.past(history, head).rev().find(|&id| self.op(id).kind != Kind::Elsewhere)
    }

    /// At most one slot a history; one that two histories have is one slot.
    pub fn slots(&self, replica: &Replica) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        for (history, head) in self.held(replica) {
            let Some(id) = self.latest(history, head) else { continue };
            if slots.iter().all(|slot| slot.id != id) {
                slots.push(Slot { id, history });
            }
        }
        slots
    }

    fn entry_of(&self, slot: &Slot) -> Entry {
        Entry { log: log_of(slot.history), seq: self.op(slot.id).seq, names: slot.id }
    }

    /// What a new write in a history names.
    pub fn context(&self, config: &Config, replica: &Replica, history: usize) -> Vec<Entry> {
        let slots = self.slots(replica);
        let other = slots.iter().filter(|slot| log_of(slot.history) != log_of(history));
        let held: Vec<Entry> = other.map(|slot| self.entry_of(slot)).collect();
        let mut ctx = held.clone();
        let own = self.latest(history, replica.heads[history].max(self.base(history)));
        if let Some(own) = own.filter(|_| config.carry) {
            for &old in &self.op(own).ctx {
                let covered = |e: &Entry| e.log == old.log && e.seq >= old.seq;
                let lacks = config.carry_forked && self.lacks(replica, old);
                if (lacks || !held.iter().any(covered)) && !ctx.contains(&old) {
                    ctx.push(old);
                }
            }
        }
        let one = |log: u8| {
            !config.name_both || config.greatest_only && !(log == 0 && self.knows_fork(replica))
        };
        let all = ctx.clone();
        ctx.retain(|e| {
            let beyond = |o: &Entry| o.log == e.log && (o.seq, o.names) > (e.seq, e.names);
            !one(e.log) || !all.iter().any(beyond)
        });
        ctx.sort_unstable();
        ctx
    }

    /// Whether a history of a forked log that may hold what an entry names is not here up to it.
    fn lacks(&self, replica: &Replica, entry: Entry) -> bool {
        let behind = |h: usize| {
            log_of(h) == entry.log && replica.heads[h] < replica.floor[h] && {
                replica.heads[h] < entry.seq
            }
        };
        entry.names != NOTHING && (0..HISTORIES).any(behind)
    }

    /// Whether a slot is dominated by another one.
    pub fn dominates(&self, config: &Config, replica: &Replica, y: &Slot, x: &Slot) -> bool {
        let (log, from) = (log_of(x.history), log_of(y.history));
        if log == from {
            return false;
        }
        let (new, old) = (self.op(y.id), self.op(x.id));
        let knows = || old.ctx.iter().any(|e| e.log == from && e.seq >= new.seq);
        new.ctx.iter().filter(|e| e.log == log).any(|e| {
            let named = config.exact && e.names == x.id;
            let older = config.older
                && e.seq > old.seq
                && (!config.until_here || self.awaited(config, replica, e, x))
                && (!config.unseen || !knows());
            named || older
        })
    }

    /// Whether a named write that is newer than a slot of its log may yet come and supersede it.
    fn awaited(&self, config: &Config, replica: &Replica, entry: &Entry, x: &Slot) -> bool {
        let seq = self.op(x.id).seq;
        let held = self.held(replica);
        let of_log: Vec<_> = held.iter().filter(|(h, _)| log_of(*h) == entry.log).collect();
        if config.one_history && of_log.len() == 1 {
            return true;
        }
        let contains = |h: usize| h == x.history || seq <= self.fork.unwrap_or(0);
        let behind = |&&(h, head): &&(usize, u8)| head < entry.seq && contains(h);
        let elsewhere = |&&(h, head): &&(usize, u8)| {
            let slot = self.latest(h, head).filter(|id| *id != x.id);
            let later = |id: u8| config.later_too && self.op(id).seq > entry.seq;
            slot.is_some_and(|id| id == entry.names || later(id))
        };
        of_log.iter().any(behind) && !(config.elsewhere_here && of_log.iter().any(elsewhere))
    }

    /// Whether both histories of F are here, and one that contains a slot is behind what a context
    /// here names of F: it is not known yet what came of that slot.
    pub fn behind(&self, replica: &Replica, id: u8) -> bool {
        let (log, seq) = (log_of(id as usize / DEEP), self.op(id).seq);
        let contains = |h: usize| h == id as usize / DEEP || seq <= self.fork.unwrap_or(0);
        let slots = self.slots(replica);
        let named = slots.iter().flat_map(|slot| &self.op(slot.id).ctx).filter(|e| e.log == log);
        let named = named.map(|e| e.seq).max().unwrap_or(0);
        let held = self.held(replica);
        log == 0
            && self.has_both(replica)
            && held.iter().any(|&(h, head)| log_of(h) == log && contains(h) && head < named)
    }

    /// The undominated slots; with `shared_superseded`, without what another history wrote over.
    pub fn siblings(&self, config: &Config, replica: &Replica) -> Vec<Slot> {
        let slots = self.slots(replica);
        let both = slots.iter().filter(|slot| slot.history < 2).count() == 2;
        let superseded = |x: &Slot| {
            let shared = x.history < 2 && self.op(x.id).seq <= self.fork.unwrap_or(0);
            config.shared_superseded && both && shared
        };
        let counts = |x: &&Slot| {
            !superseded(x) && !slots.iter().any(|y| self.dominates(config, replica, y, x))
        };
        slots.iter().filter(counts).copied().collect()
    }

    /// The live values shown, the winner first.
    pub fn shown(&self, config: &Config, replica: &Replica) -> Vec<u8> {
        let rank = |slot: &Slot| {
            let op = self.op(slot.id);
            let tie = config.whole_hash || (slot.history == 1) == replica.second_first;
            (
                op.hlc,
                log_of(slot.history),
                op.seq,
                if config.whole_hash { slot.id } else { tie.into() },
            )
        };
        let mut siblings = self.siblings(config, replica);
        siblings.sort_by_key(|slot| std::cmp::Reverse(rank(slot)));
        if !config.values_win && siblings.first().is_some_and(|s| self.op(s.id).kind != Kind::Put) {
            return Vec::new();
        }
        siblings.iter().map(|s| s.id).filter(|&id| self.op(id).kind == Kind::Put).collect()
    }
}
