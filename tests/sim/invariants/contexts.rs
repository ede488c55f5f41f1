//! An honest write goes on naming what the own slot that it replaces has named, or newer of that log.

use std::collections::BTreeSet;

use swarmkv_protocol::id::{LogId, Version};
use swarmkv_protocol::limits::MAX_NAMED_LOGS;
use swarmkv_protocol::store::RawSlot;

use crate::model::{Signed, Written};

/// Holds the operations of one commit, in their order, against those before them in the log, which are those
/// up to `upto`: what was signed beyond that before went with a kill.
pub fn hold(
    log: &LogId,
    before: Option<&Written>,
    upto: u64,
    slots: &[Signed],
) -> Result<(), String> {
    for (n, signed) in slots.iter().enumerate() {
        let earlier = slots[..n].iter().rev().find(|other| other.key == signed.key);
        let older = || {
            let ops = before?.ops.range(..=upto).rev();
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
    let kept = |entry: &&Version| {
        new.op.ctx.iter().any(|other| other.log == entry.log && other.seq >= entry.seq)
    };
    // Of an author that opens log after log the ones with the least epochs are let go of: they count nowhere that
    // knows the greater ones.
    let logs: BTreeSet<LogId> = old.op.ctx.iter().chain(&new.op.ctx).map(|e| e.log).collect();
    let outlived = |entry: &LogId| {
        let greater = logs.range(entry..).skip(1).take_while(|other| other.author == entry.author);
        greater.count() >= MAX_NAMED_LOGS
    };
    let due = |e: &&Version| e.log != *log && !kept(e) && !outlived(&e.log);
    match old.op.ctx.iter().find(due) {
        Some(entry) => {
            let key = String::from_utf8_lossy(&old.op.cell.key);
            Err(format!(
                "contexts: {log:?}:{} on {key} does not name {entry:?} any more, which {} did:\n  \
                 {:?}\n  {:?}",
                new.seq, old.seq, old.op, new.op
            ))
        }
        None => Ok(()),
    }
}
