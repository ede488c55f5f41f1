//! What happens next: events in simulated time, in one order for one seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

/// Something due at a node (by index and, where it matters, by life) or in the world.
pub enum Event {
    Tick(usize, u64),
    Commit(usize, u64),
    Synced(usize, u64, u64),
    Gossip { to: usize, from: usize, bytes: Rc<[u8]> },
    Up { node: usize, life: u64, peer: usize, link: u64 },
    Down { node: usize, life: u64, peer: usize, link: u64 },
    Opened(usize),
    Ready(usize, usize),
    Frame(usize, usize, Vec<u8>),
    Closed(usize, usize),
    Asked { to: usize, from: usize, bytes: Vec<u8> },
    Answered { to: usize, from: usize, bytes: Vec<u8> },
    Join(usize),
    Restart(usize),
    Load(usize),
    Hostile(usize),
    Chaos,
    Check,
}

impl Event {
    /// What it is, for saying what a swarm that does not rest is busy with.
    pub fn kind(&self) -> String {
        use swarmkv_protocol::message::{self, Repair};
        match self {
            Self::Tick(n, _) => format!("tick {n}"),
            Self::Synced(n, ..) => format!("synced {n}"),
            Self::Ready(..) => "ready".into(),
            Self::Gossip { .. } => "gossip".into(),
            Self::Hostile(_) => "hostile".into(),
            Self::Frame(_, _, bytes) => match message::decode::<Repair>(bytes) {
                Ok(repair) => {
                    let text = format!("{repair:?}");
                    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                    format!("frame {}", &text[..end])
                }
                Err(_) => "frame of junk".into(),
            },
            Self::Opened(_) => "opened".into(),
            Self::Closed(..) => "closed".into(),
            _ => "other".into(),
        }
    }

    /// Whose processor it needs.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Tick(n, _) | Self::Commit(n, _) | Self::Synced(n, ..) | Self::Load(n) => Some(*n),
            Self::Gossip { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// Events by time; of one millisecond, in the order they were planned.
#[derive(Default)]
pub struct Agenda {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    planned: u64,
}

impl Agenda {
    pub fn at(&mut self, time: u64, event: Event) {
        self.due.push(Reverse((time, self.planned)));
        self.events.insert(self.planned, event);
        self.planned += 1;
    }

    pub fn next(&mut self) -> Option<(u64, Event)> {
        let Reverse((time, number)) = self.due.pop()?;
        Some((time, self.events.remove(&number).expect("every number has its event")))
    }
}
