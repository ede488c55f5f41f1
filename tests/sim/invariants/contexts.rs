//! An honest write goes on naming what the own slot that it replaces has named, or newer of that log.

use swarmkv_protocol::id::LogId;
use swarmkv_protocol::store::RawSlot;

use crate::model::{Signed, Written};

/// Holds the operations of one commit, in their order, against those before them in the log.
pub fn hold(log: &LogId, before: Option<&Written>, slots: &[Signed]) -> Result<(), String> {
    for (n, signed) in slots.iter().enumerate() {
        let earlier = slots[..n].iter().rev().find(|other| other.key == signed.key);
        let older = || {
            let ops = before?.ops.range(..signed.slot.seq).rev();
            ops.map(|(_, other)| other).find(|other| other.key == signed.key)
        };
        if let Some(replaced) = earlier.or_else(older) {
            carried(log, &replaced.slot, &signed.slot)?;
        }
    }
    Ok(())
}

fn carried(log: &LogId, replaced: &RawSlot, new: &RawSlot) -> Result<(), String> {
    let (Ok(old), Ok(new)) = (replaced.open(), new.open()) else { return Ok(()) };
    let kept = |entry: &&swarmkv_protocol::id::Version| {
        new.op.ctx.iter().any(|other| other.log == entry.log && other.seq >= entry.seq)
    };
    match old.op.ctx.iter().find(|entry| entry.log != *log && !kept(entry)) {
        Some(entry) => {
            Err(format!("contexts: {log:?}:{} does not name {entry:?} any more", new.seq))
        }
        None => Ok(()),
    }
}
