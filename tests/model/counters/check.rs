//! What must hold of counters.

use super::act::Act;
use super::rules::{bit, join};
use super::{Config, DEEP, Kind, LOGS, NUMBER, Part, Replica, Set, State};
use crate::search::Model;

pub struct Counters(pub Config);

impl Model for Counters {
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
        to.note_dead();
        to
    }

    fn fault(&self, state: &State, act: Act) -> Option<&'static str> {
        let config = &self.0;
        for replica in &state.replicas {
            let view = state.view(config, replica);
            let exact = !config.epochs && !config.kinds.contains(&Kind::Put);
            if (exact || state.closed(replica)) && view.counter != state.due(replica) {
                return Some("a counter shows another sum than the adds that nothing took");
            }
            let total = state.total(config, &state.slots(replica));
            if view.counter != state.sum(config, &total, &replica.ever) {
                return Some("what was taken counts again");
            }
            if view.values.iter().any(|&id| replica.dead & bit(id) != 0) {
                return Some("a value seen overwritten is live again");
            }
        }
        match act {
            Act::Write { .. } => state.after_meeting(config),
            _ => None,
        }
    }

    fn tell(&self, state: &State) -> String {
        state.tell(&self.0)
    }
}

fn name(id: u8) -> String {
    format!("{}{}", ["A", "A'", "B", "C"][id as usize / DEEP], id as usize % DEEP + 1)
}

fn ids(set: Set) -> impl Iterator<Item = u8> {
    (0..(LOGS * DEEP) as u8).filter(move |&id| set & bit(id) != 0)
}

impl State {
    /// The sum of adds here that no delete or put here had seen, and of adopted values that
    /// nothing here ended: what the counter is due to show.
    fn due(&self, replica: &Replica) -> Option<i16> {
        let here = self.all(replica);
        let all = ids(here).fold(here, |set, id| set | self.op(id).brings);
        let killed = ids(here).fold(0, |set, id| set | self.op(id).kills);
        let adopted = ids(all).filter_map(|id| self.op(id).adopts).fold(0, |set, id| set | bit(id));
        let adds = ids(all & !killed).filter_map(|id| match self.op(id).kind {
            Kind::Add(amount) => Some(amount),
            _ => None,
        });
        let values = ids(adopted & !killed).map(|_| NUMBER);
        let due: Vec<i16> = adds.chain(values).collect();
        (!due.is_empty()).then(|| due.iter().sum())
    }

    /// Whether everything is here that the authors of what is here had.
    fn closed(&self, replica: &Replica) -> bool {
        let all = self.all(replica);
        ids(all).all(|id| self.op(id).saw & !all == 0)
    }

    fn note_dead(&mut self) {
        for at in 0..self.replicas.len() {
            let replica = &self.replicas[at];
            let all = self.all(replica);
            let over = ids(all).fold(0, |set, id| set | self.op(id).saw);
            let live = self.values(replica, &self.slots(replica));
            let live = live.into_iter().fold(0, |set, id| set | bit(id));
            self.replicas[at].dead |= over & all & !live;
            let took: Vec<Part> = ids(all).flat_map(|id| self.op(id).took.clone()).collect();
            join(&mut self.replicas[at].ever, &took);
        }
    }

    /// Once all have met: views are equal, live are the values that nobody had seen, a delete
    /// leaves nothing.
    fn after_meeting(&self, config: &Config) -> Option<&'static str> {
        let mut met = self.clone();
        met.meet();
        let first = met.view(config, &met.replicas[0]);
        if met.replicas.iter().any(|replica| met.view(config, replica) != first) {
            return Some("all have met, and views differ");
        }
        let all = met.all(&met.replicas[0]);
        let over = ids(all).fold(0, |set, id| set | met.op(id).saw);
        let due: Vec<u8> = ids(all & !over).filter(|&id| met.op(id).kind == Kind::Put).collect();
        let mut live = first.values.clone();
        live.sort_unstable();
        if live != due {
            return Some("all have met, and live values are not those that nobody saw");
        }
        if first.counter != met.due(&met.replicas[0]) {
            return Some("all have met, and the counter shows another sum");
        }
        for device in 0..met.replicas.len() {
            let mut gone = met.clone();
            if gone.ops[gone.own_log(device)].len() == DEEP {
                continue;
            }
            gone.write(config, device, Kind::Delete);
            gone.meet();
            let view = gone.view(config, &gone.replicas[0]);
            if !view.values.is_empty() || view.counter.is_some() {
                return Some("a delete after all met leaves something");
            }
        }
        None
    }

    fn tell(&self, config: &Config) -> String {
        let mut text = String::new();
        for (device, replica) in self.replicas.iter().enumerate() {
            let view = self.view(config, replica);
            let values: Vec<String> = view.values.iter().map(|&id| name(id)).collect();
            let slots: Vec<String> = self.slots(replica).iter().map(|s| name(s.id)).collect();
            let (values, slots) = (values.join(","), slots.join(","));
            let due = self.due(replica);
            text += &format!("{device} [{values}] {:?} due {due:?} of {{{slots}}}  ", view.counter);
        }
        let part =
            |p: &Part| format!("{}#{}:+{}-{}", name(p.log * DEEP as u8), p.first, p.up, p.down);
        let list = |parts: &[Part]| parts.iter().map(part).collect::<Vec<_>>().join(",");
        for (log, op) in
            self.ops.iter().enumerate().filter_map(|(log, ops)| Some((log, ops.last()?)))
        {
            let named: Vec<String> =
                op.ctx.iter().map(|e| name(e.0 * DEEP as u8 + e.1 - 1)).collect();
            let id = name((log * DEEP) as u8 + op.seq - 1);
            let (parts, took) = (list(&op.parts), list(&op.took));
            text += &format!("{id}{{{}}}({parts})took({took}) ", named.join(","));
        }
        text
    }
}
