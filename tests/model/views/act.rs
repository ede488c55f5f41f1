//! What can happen: writes, lies, a copy put to use, a write that arrives, a history set aside.

use super::rules::bit;
use super::{Config, DEEP, Entry, FAR, HISTORIES, Kind, NOTHING, Op, Replica, Set, State, log_of};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    Write {
        device: usize,
        kind: Kind,
    },
    /// A put with a false entry for a log.
    Lie {
        device: usize,
        log: u8,
        seq: u8,
    },
    /// Device 1 begins with a copy of device 0's directory.
    Copy,
    Take {
        device: usize,
        history: usize,
    },
    SetAside {
        device: usize,
        history: usize,
    },
}

impl State {
    pub fn new(config: &Config) -> Self {
        let up = |device| Replica { up: device != 1, ..Replica::default() };
        State { replicas: (0..config.replicas).map(up).collect(), ..State::default() }
    }

    /// The history that a device writes next.
    pub fn own_history(&self, config: &Config, device: usize) -> usize {
        let replica = &self.replicas[device];
        let shared = self.fork.unwrap_or(FAR);
        let other_is_here = match device {
            0 => replica.heads[1].max(replica.floor[1]) > 0,
            1 => replica.heads[0].max(replica.floor[0]) > shared,
            _ => false,
        };
        match device {
            0 | 1 if other_is_here && config.new_epoch => device + 2,
            0 | 1 => device,
            _ => device + 2,
        }
    }

    /// Whether nothing of what was here is missing: else reads are answered "catching up".
    pub fn complete(&self, replica: &Replica) -> bool {
        replica.up && replica.heads.iter().zip(&replica.floor).all(|(head, floor)| head >= floor)
    }

    pub fn acts(&self, config: &Config) -> Vec<Act> {
        let mut acts = Vec::new();
        for (device, replica) in self.replicas.iter().enumerate().filter(|(_, r)| r.up) {
            acts.extend(self.writes(config, device));
            for history in 0..HISTORIES {
                if self.can_take(replica, history) {
                    acts.push(Act::Take { device, history });
                }
                let own = log_of(history) == log_of(self.own_history(config, device));
                let some = replica.heads[history] > replica.floor[history];
                if self.lost < config.losses && self.complete(replica) && some && !own {
                    acts.push(Act::SetAside { device, history });
                }
            }
        }
        if config.copy && self.fork.is_none() {
            acts.push(Act::Copy);
        }
        acts
    }

    fn writes(&self, config: &Config, device: usize) -> Vec<Act> {
        let count = |on: bool| {
            let ops = self.ops.iter().flatten();
            ops.filter(|op| (op.kind != Kind::Elsewhere) == on).count()
        };
        let own = self.own_history(config, device);
        let current = self.replicas[device].heads[own] >= self.tip(own);
        if self.ops[own].len() == DEEP || !current {
            return Vec::new();
        }
        let mut acts = Vec::new();
        if count(true) < config.writes {
            acts.push(Act::Write { device, kind: Kind::Put });
            if config.deletes {
                acts.push(Act::Write { device, kind: Kind::Delete });
            }
            if config.liar == Some(device) && self.lies < config.lies {
                let logs = (0..log_of(HISTORIES)).filter(|&log| log != log_of(own));
                let lie = |log| [1, 2, 3, FAR].map(|seq| Act::Lie { device, log, seq });
                acts.extend(logs.flat_map(lie));
            }
        }
        // Of the log of devices 2 and 3 a head without a slot matters to nobody.
        if count(false) < config.elsewhere && (device < 2 || !self.ops[own].is_empty()) {
            acts.push(Act::Write { device, kind: Kind::Elsewhere });
        }
        acts
    }

    fn can_take(&self, replica: &Replica, history: usize) -> bool {
        let head = replica.heads[history];
        let begun = history != 1 || replica.heads[0] >= self.base(1);
        head < self.tip(history) && begun
    }

    pub fn apply(&self, config: &Config, act: Act) -> State {
        let mut to = self.clone();
        match act {
            Act::Write { device, kind } => to.write(config, device, kind, None),
            Act::Lie { device, log, seq } => {
                let lie = Entry { log, seq, names: NOTHING };
                to.lies += 1;
                to.write(config, device, Kind::Put, Some(lie));
            }
            Act::Copy => {
                to.fork = Some(to.ops[0].len() as u8);
                to.replicas[1] = to.replicas[0].clone();
            }
            Act::Take { device, history } => to.take(device, history),
            Act::SetAside { device, history } => {
                to.lost += 1;
                let shared = to.fork.unwrap_or(0);
                let replica = &mut to.replicas[device];
                replica.floor[history] = replica.heads[history];
                let keeps = history == 0 && replica.heads[1] > 0;
                replica.heads[history] = if keeps { shared } else { 0 };
            }
        }
        to
    }

    pub fn take(&mut self, device: usize, history: usize) {
        let base = self.base(history);
        let shared = self.fork.unwrap_or(FAR);
        let replica = &mut self.replicas[device];
        replica.heads[history] = replica.heads[history].max(base) + 1;
        if history == 1 && replica.heads[0] <= shared {
            replica.second_first = true;
        }
    }

    /// Every write on the cell that is here or was superseded here.
    fn seen(&self, replica: &Replica) -> Set {
        let all = self.all(replica);
        let on = |id: &u8| all & bit(*id) != 0 && self.op(*id).kind != Kind::Elsewhere;
        (0..(HISTORIES * DEEP) as u8).filter(on).fold(0, |set, id| set | bit(id))
    }

    pub fn write(&mut self, config: &Config, device: usize, kind: Kind, lie: Option<Entry>) {
        let own = self.own_history(config, device);
        let replica = &self.replicas[device];
        let all = self.all(replica);
        let ids = (0..(HISTORIES * DEEP) as u8).filter(|&id| all & bit(id) != 0);
        let hlc = 1 + ids.map(|id| self.op(id).hlc).max().unwrap_or(0);
        let seq = self.base(own) + self.ops[own].len() as u8 + 1;
        let elsewhere = kind == Kind::Elsewhere;
        let mut ctx = if elsewhere { Vec::new() } else { self.context(config, replica, own) };
        if let Some(lie) = lie {
            ctx.retain(|e| e.log != lie.log);
            ctx.push(lie);
            ctx.sort_unstable();
        }
        let saw = if elsewhere { 0 } else { self.seen(replica) };
        self.ops[own].push(Op { kind, seq, hlc, ctx, saw });
        self.replicas[device].heads[own] = seq;
    }

    /// Everybody meets everybody until nothing moves.
    pub fn meet(&mut self) {
        let tips: Vec<u8> = (0..HISTORIES).map(|history| self.tip(history)).collect();
        for replica in self.replicas.iter_mut().filter(|replica| replica.up) {
            replica.heads.copy_from_slice(&tips);
        }
    }
}
