//! What must hold of views.

use super::act::Act;
use super::rules::bit;
use super::{Config, DEEP, HISTORIES, Kind, Set, State};
use crate::search::Model;

pub struct Views(pub Config);

impl Model for Views {
    type State = State;
    type Act = Act;

    fn start(&self) -> State {
        State::new(&self.0)
    }

    fn acts(&self, state: &State) -> Vec<Act> {
        state.acts(&self.0)
    }

    fn apply(&self, state: &State, act: Act) -> State {
        let mut to = state.apply(&self.0, act);
        to.note_dead(&self.0);
        to
    }

    fn fault(&self, state: &State, act: Act) -> Option<&'static str> {
        let config = &self.0;
        let returned = config.liar.is_none() && state.returned(config);
        let written = matches!(act, Act::Write { .. } | Act::Lie { .. });
        if returned {
            Some("what was seen overwritten or deleted is live again")
        } else if state.differ(config) {
            Some("the same branches at the same heads, and another view")
        } else if config.liar.is_none() && state.wide() {
            Some("a context has two entries of a log that nobody forked")
        } else if written {
            state.after_meeting(config)
        } else {
            None
        }
    }

    fn tell(&self, state: &State) -> String {
        state.tell(&self.0)
    }
}

fn name(id: u8) -> String {
    let history = ["F", "F'", "E0.", "E1.", "B", "C"][id as usize / DEEP];
    format!("{history}{}", id as usize % DEEP + 1)
}

fn names(set: Set) -> String {
    let ids = (0..(HISTORIES * DEEP) as u8).filter(|&id| set & bit(id) != 0);
    ids.map(name).collect::<Vec<_>>().join(",")
}

impl State {
    fn live(&self, config: &Config, device: usize) -> Set {
        self.shown(config, &self.replicas[device]).into_iter().fold(0, |set, id| set | bit(id))
    }

    /// Values here that a write here had seen: what is not live of them is dead from now on.
    fn note_dead(&mut self, config: &Config) {
        for device in 0..self.replicas.len() {
            let replica = &self.replicas[device];
            if !self.complete(replica) {
                continue;
            }
            let all = self.all(replica);
            let ids = || (0..(HISTORIES * DEEP) as u8).filter(|&id| all & bit(id) != 0);
            let over = ids().fold(0, |set, id| set | self.op(id).saw);
            let puts = ids().filter(|&id| self.op(id).kind == Kind::Put);
            let puts = puts.fold(0, |set, id| set | bit(id));
            self.replicas[device].dead |= puts & over & !self.live(config, device);
        }
    }

    fn returned(&self, config: &Config) -> bool {
        (0..self.replicas.len()).any(|device| {
            let replica = &self.replicas[device];
            let known = |&id: &u8| replica.dead & bit(id) != 0;
            let counts = |id: u8| config.strict || !self.behind(replica, id);
            self.complete(replica)
                && self.shown(config, replica).into_iter().filter(known).any(counts)
        })
    }

    /// Whether a context has more than one entry of a log that has one history.
    fn wide(&self) -> bool {
        let forked = |log: u8| log == 0 && self.tip(1) > 0;
        self.ops.iter().flatten().any(|op| {
            op.ctx.windows(2).any(|pair| pair[0].log == pair[1].log && !forked(pair[0].log))
        })
    }

    fn differ(&self, config: &Config) -> bool {
        let whole = self.replicas.iter().filter(|replica| self.complete(replica));
        let whole: Vec<_> = whole.collect();
        whole.iter().enumerate().any(|(at, a)| {
            whole[..at]
                .iter()
                .any(|b| a.heads == b.heads && self.shown(config, a) != self.shown(config, b))
        })
    }

    /// Once all have met: nothing lost, nothing returned; a put is alone, its delete leaves nothing.
    fn after_meeting(&self, config: &Config) -> Option<&'static str> {
        let mut met = self.clone();
        met.meet();
        if met.differ(config) {
            return Some("all have met, and views differ");
        }
        if config.liar.is_none() {
            if let Some(what) = met.false_view(config) {
                return Some(what);
            }
        }
        let honest = |device: &usize| met.replicas[*device].up && config.liar != Some(*device);
        for device in (0..met.replicas.len()).filter(honest) {
            let mut after = met.clone();
            let Some(id) = after.next_id(config, device) else { continue };
            after.write(config, device, Kind::Put, None);
            after.meet();
            if (0..after.replicas.len())
                .any(|d| after.replicas[d].up && after.live(config, d) != bit(id))
            {
                return Some("a put after all met is not alone live");
            }
            for device in (0..met.replicas.len()).filter(honest) {
                let mut gone = after.clone();
                if gone.next_id(config, device).is_none() {
                    continue;
                }
                gone.write(config, device, Kind::Delete, None);
                gone.meet();
                if (0..gone.replicas.len())
                    .any(|d| gone.replicas[d].up && gone.live(config, d) != 0)
                {
                    return Some("its delete leaves something");
                }
            }
        }
        None
    }

    /// Where everything is: a value is live iff no write had seen it.
    fn false_view(&self, config: &Config) -> Option<&'static str> {
        let live = self.live(config, 0);
        let ids = || {
            (0..(HISTORIES * DEEP) as u8)
                .filter(|&id| (id as usize % DEEP) < self.ops[id as usize / DEEP].len())
        };
        let over = ids().fold(0, |set, id| set | self.op(id).saw);
        let puts =
            ids().filter(|&id| self.op(id).kind == Kind::Put).fold(0, |set, id| set | bit(id));
        if live & over != 0 {
            Some("all have met, and what was overwritten is live")
        } else if live != puts & !over {
            Some("all have met, and a value that nobody saw is not live")
        } else {
            None
        }
    }

    /// The id of a device's next write, if there is room for it.
    fn next_id(&self, config: &Config, device: usize) -> Option<u8> {
        let own = self.own_history(config, device);
        (self.ops[own].len() < DEEP).then(|| (own * DEEP + self.ops[own].len()) as u8)
    }

    fn tell(&self, config: &Config) -> String {
        let mut parts = Vec::new();
        for (device, replica) in self.replicas.iter().enumerate().filter(|(_, r)| r.up) {
            let live = names(self.live(config, device));
            let slots = self.slots(replica).iter().fold(0, |set, slot| set | bit(slot.id));
            let state = if self.complete(replica) { "" } else { " catching up" };
            let heads = replica.heads.map(|head| head.to_string()).join(".");
            parts.push(format!("{device}@{heads}{state} [{live}] of {{{}}}", names(slots)));
        }
        let mut text = parts.join("  ");
        for (history, op) in
            self.ops.iter().enumerate().flat_map(|(h, ops)| ops.iter().map(move |op| (h, op)))
        {
            if !op.ctx.is_empty() {
                let ctx = op.ctx.iter().map(|e| {
                    if e.names == super::NOTHING {
                        format!("{}@{}!", e.log, e.seq)
                    } else {
                        format!("{}@{}", name(e.names), e.seq)
                    }
                });
                text += &format!(
                    " {}#{}:{{{}}}",
                    ["F", "F'", "E0.", "E1.", "B", "C"][history],
                    op.seq,
                    ctx.collect::<Vec<_>>().join(",")
                );
            }
        }
        text
    }
}
