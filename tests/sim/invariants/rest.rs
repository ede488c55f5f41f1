//! Equal replicas rest although hostile ones go on: they send each other nothing, and do not turn in
//! circles.

use crate::world::World;

/// What had happened when the replicas were seen equal.
pub struct Before {
    idle_slots: u64,
    events: u64,
    ticks: Vec<u64>,
}

impl Before {
    pub fn note(world: &World) -> Self {
        let ticks = world.nodes.iter().map(|node| node.ticks).collect();
        Self { idle_slots: world.idle_slots, events: world.events, ticks }
    }
}

/// Ticks a second that an honest replica may need: tidying takes steps of a millisecond.
const TICKS_A_SECOND: u64 = 120;
/// Events a second and node.
const EVENTS_A_SECOND: u64 = 1_500;
/// Slots that may be sent again to an equal replica: of sessions that broke off, or that ran at once.
const SLOTS: u64 = 200;

pub fn holds(world: &World, before: &Before, millis: u64) -> Result<(), String> {
    let slots = world.idle_slots - before.idle_slots;
    if slots > SLOTS {
        return Err(format!("rest: {slots} slots passed again between equal replicas"));
    }
    let seconds = millis / 1_000;
    let hostile = |n: &usize| {
        let of = |kind: &str| world.kinds.get(&format!("{kind} {n}")).copied().unwrap_or(0);
        of("tick") + of("synced")
    };
    let events = world.events - before.events - world.hostile.keys().map(hostile).sum::<u64>();
    if events > EVENTS_A_SECOND * seconds * world.nodes.len() as u64 {
        return Err(format!("rest: {events} events in {seconds} s: {:?}", world.kinds));
    }
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n)) {
        let ticks = world.nodes[n].ticks - before.ticks[n];
        if ticks > TICKS_A_SECOND * seconds {
            let engine = world.nodes[n].engine.as_ref();
            let why = engine.and_then(|engine| engine.next_deadline());
            return Err(format!("rest: node {n} ticked {ticks} times in {seconds} s: {why:?}"));
        }
    }
    Ok(())
}
