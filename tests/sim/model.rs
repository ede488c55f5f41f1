//! The oracle: every commit that an engine signed, kept as plain maps, and what must follow from them.
//!
//! It shares no code with the core's merge: views are worked out here once more, from the operations.

use std::collections::{BTreeMap, BTreeSet};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{Hash, LogId, Version};
use swarmkv_protocol::op::{Body, Slot};
use swarmkv_protocol::store::RawSlot;

/// One operation as its author signed it.
#[derive(Clone, Debug)]
pub struct Signed {
    pub key: Bytes,
    pub slot: RawSlot,
}

/// One log as its author wrote it.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub ops: BTreeMap<u64, Signed>,
    /// Where its commits end, and the hashes of the headers there.
    pub ends: BTreeMap<u64, Hash>,
    /// Released to the outside up to here.
    pub released: u64,
}

/// A write that a user was told is durable.
#[derive(Clone, Debug)]
pub struct Acked {
    pub version: Version,
    pub key: Bytes,
}

#[derive(Default)]
pub struct Model {
    pub logs: BTreeMap<LogId, Written>,
    pub acked: Vec<Acked>,
    /// Acknowledged writes above this went with a disk that was lost before anybody else had them.
    pub waived: BTreeMap<LogId, u64>,
    pub commits: u64,
}

impl Model {
    /// An author signed a commit that goes on from `before` and ends where `end` says. What it signed there
    /// before must have gone with a kill.
    pub fn signed(
        &mut self,
        log: LogId,
        before: u64,
        end: (u64, Hash),
        slots: Vec<Signed>,
    ) -> Result<(), String> {
        let written = self.logs.entry(log).or_default();
        if written.released > before {
            let released = written.released;
            return Err(format!(
                "order: {log:?} was released up to {released} and signed again from {}",
                before + 1
            ));
        }
        written.ops.split_off(&(before + 1));
        written.ends.split_off(&(before + 1));
        written.ops.extend(slots.into_iter().map(|signed| (signed.slot.seq, signed)));
        written.ends.insert(end.0, end.1);
        self.commits += 1;
        Ok(())
    }

    pub fn released(&mut self, log: LogId, upto: u64) {
        let written = self.logs.entry(log).or_default();
        written.released = written.released.max(upto);
    }

    /// A log's live set at `head`: the last operation on each key.
    pub fn live(&self, log: &LogId, head: u64) -> BTreeMap<&Bytes, &RawSlot> {
        let ops = self.logs.get(log).map(|written| written.ops.range(..=head));
        ops.into_iter().flatten().map(|(_, signed)| (&signed.key, &signed.slot)).collect()
    }
}

/// The undominated slots of a cell and the one shown at Unix millisecond `wall`, from one slot a history,
/// each with how far this replica has that history.
pub fn merged(slots: &[(RawSlot, u64)], wall: u64) -> (BTreeSet<Version>, Option<Version>) {
    let mut open: BTreeMap<Version, (Slot, u64)> = BTreeMap::new();
    for (raw, head) in slots {
        let slot = raw.open().expect("signed slots decode");
        let known = open.entry(slot.version()).or_insert((slot, *head));
        // What histories share counts once, and as far as the longer one goes.
        known.1 = known.1.max(*head);
    }
    let hidden = |name: &Version, slot: &Slot, head: u64| {
        open.values().any(|(other, _)| {
            let seen = slot.op.ctx.iter().any(|e| e.log == other.log && e.seq >= other.seq);
            other.op.ctx.iter().filter(|e| e.log == name.log).any(|e| {
                // Another history of the log has written here as late: then that one is meant.
                let elsewhere = open.values().any(|(z, _)| z.log == e.log && z.seq >= e.seq);
                // What it names exactly; or what comes before something that is not here yet.
                e == name || e.seq > name.seq && e.seq > head && !seen && !elsewhere
            })
        })
    };
    let alive = || open.iter().filter(|(name, (slot, head))| !hidden(name, slot, *head));
    let value = |slot: &Slot| {
        let holds = matches!(slot.op.body, Body::Put(_) | Body::Counter(_) | Body::Element);
        holds && slot.op.expires_at.is_none_or(|at| at > wall)
    };
    let values = alive().filter(|(_, (slot, _))| value(slot));
    let shown = values.max_by_key(|(_, (slot, _))| (slot.hlc, slot.log, slot.seq, slot.hash()));
    (alive().map(|(name, _)| *name).collect(), shown.map(|(name, _)| *name))
}
