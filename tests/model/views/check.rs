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
    ids(set).map(name).collect::<Vec<_>>().join(",")
}

/// The ids of a set.
fn ids(set: Set) -> impl Iterator<Item = u8> {
    (0..(HISTORIES * DEEP) as u8).filter(move |&id| set & bit(id) != 0)
}

fn set(ids: impl Iterator<Item = u8>) -> Set {
    ids.fold(0, |set, id| set | bit(id))
}

impl State {
    fn live(&self, config: &Config, device: usize) -> Set {
        set(self.shown(config, &self.replicas[device]).into_iter())
    }

    /// Of some writes, what their authors had seen, and which are values.
    fn over_and_puts(&self, all: Set) -> (Set, Set) {
        let over = ids(all).fold(0, |set, id| set | self.op(id).saw);
        (over, set(ids(all).filter(|&id| self.op(id).kind == Kind::Put)))
    }

    /// Values here that a write here had seen: what is not live of them is dead from now on.
    fn note_dead(&mut self, config: &Config) {
        for device in 0..self.replicas.len() {
            if self.complete(&self.replicas[device]) {
                let (over, puts) = self.over_and_puts(self.all(&self.replicas[device]));
                self.replicas[device].dead |= puts & over & !self.live(config, device);
            }
        }
    }

    fn returned(&self, config: &Config) -> bool {
        (0..self.replicas.len()).any(|device| {
            let replica = &self.replicas[device];
            let dead = |&id: &u8| replica.dead & bit(id) != 0;
            let counts = |id: u8| config.strict || !self.behind(replica, id);
            self.complete(replica)
                && self.shown(config, replica).into_iter().filter(dead).any(counts)
        })
    }

    /// Whether a context has more than one entry of a log that has one history.
    fn wide(&self) -> bool {
        let forked = |log: u8| log == 0 && self.tip(1) > 0;
        let twice = |pair: &[super::Entry]| pair[0].log == pair[1].log && !forked(pair[0].log);
        self.ops.iter().flatten().any(|op| op.ctx.windows(2).any(twice))
    }

    fn differ(&self, config: &Config) -> bool {
        let whole: Vec<_> = self.replicas.iter().filter(|r| self.complete(r)).collect();
        let same_heads = whole.iter().enumerate().flat_map(|(at, a)| {
            let before = whole[..at].iter().filter(|b| a.heads == b.heads);
            before.map(move |b| (a, b))
        });
        same_heads.into_iter().any(|(a, b)| self.shown(config, a) != self.shown(config, b))
    }

    /// Once all have met: nothing lost, nothing returned; a put is alone, its delete leaves
    /// nothing.
    fn after_meeting(&self, config: &Config) -> Option<&'static str> {
        let mut met = self.clone();
        met.meet();
        if met.differ(config) {
            return Some("all have met, and views differ");
        }
        let false_view = met.false_view(config).filter(|_| config.liar.is_none());
        false_view.or_else(|| met.hostage(config))
    }

    /// After all met: any honest device's put is alone live everywhere; the next one's delete
    /// leaves nothing.
    fn hostage(&self, config: &Config) -> Option<&'static str> {
        let honest = |device: &usize| self.replicas[*device].up && config.liar != Some(*device);
        let everywhere = |state: &State, live: Set| {
            let up = (0..state.replicas.len()).filter(|&device| state.replicas[device].up);
            up.map(|device| state.live(config, device)).all(|shown| shown == live)
        };
        let devices: Vec<usize> = (0..self.replicas.len()).filter(honest).collect();
        for (at, &device) in devices.iter().enumerate() {
            let Some((id, after)) = self.with_write(config, device, Kind::Put) else { continue };
            if !everywhere(&after, bit(id)) {
                return Some("a put after all met is not alone live");
            }
            let next = devices[(at + 1) % devices.len()];
            let gone = after.with_write(config, next, Kind::Delete);
            if gone.is_some_and(|(_, gone)| !everywhere(&gone, 0)) {
                return Some("its delete leaves something");
            }
        }
        None
    }

    /// A device's next write and the state once all have met after it, if there is room for one.
    fn with_write(&self, config: &Config, device: usize, kind: Kind) -> Option<(u8, State)> {
        let own = self.own_history(config, device);
        let at = self.ops[own].len();
        (at < DEEP).then(|| {
            let mut after = self.clone();
            after.write(config, device, kind, None);
            after.meet();
            ((own * DEEP + at) as u8, after)
        })
    }

    /// Where everything is: a value is live iff no write had seen it.
    fn false_view(&self, config: &Config) -> Option<&'static str> {
        let live = self.live(config, 0);
        let exists = |id: &u8| (*id as usize % DEEP) < self.ops[*id as usize / DEEP].len();
        let all = set((0..(HISTORIES * DEEP) as u8).filter(exists));
        let (over, puts) = self.over_and_puts(all);
        if live & over != 0 {
            Some("all have met, and what was overwritten is live")
        } else if live != puts & !over {
            Some("all have met, and a value that nobody saw is not live")
        } else {
            None
        }
    }

    fn tell(&self, config: &Config) -> String {
        let mut text = String::new();
        for (device, replica) in self.replicas.iter().enumerate().filter(|(_, r)| r.up) {
            let live = names(self.live(config, device));
            let slots = names(set(self.slots(replica).iter().map(|slot| slot.id)));
            let state = if self.complete(replica) { "" } else { " catching up" };
            let heads = replica.heads.map(|head| head.to_string()).join(".");
            text += &format!("{device}@{heads}{state} [{live}] of {{{slots}}}  ");
        }
        let entry = |e: &super::Entry| match e.names {
            super::NOTHING => format!("log {}@{}!", e.log, e.seq),
            id => format!("{}@{}", name(id), e.seq),
        };
        for (history, ops) in self.ops.iter().enumerate() {
            for (at, op) in ops.iter().enumerate().filter(|(_, op)| !op.ctx.is_empty()) {
                let ctx: Vec<String> = op.ctx.iter().map(entry).collect();
                text += &format!("{}:{{{}}} ", name((history * DEEP + at) as u8), ctx.join(","));
            }
        }
        text
    }
}
