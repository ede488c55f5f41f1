//! The operation that a local change comes to, over what is shown on its cell. Changes nothing.

use crate::id::{LogId, Version};
use crate::io::{Change, Condition, Edit, WriteRefused};
use crate::limits::{MAX_CTX, MAX_PARTS};
use crate::model::counter::{Amount, Part, PartId, Parts, decimal};
use crate::model::op::{Body, Op, Slot};
use crate::model::view::{Shown, View};

/// Totals of a counter stay below this.
const MAX_AMOUNT: u128 = 1 << 96;

/// The operation that a change comes to over what is there. `replaced`: the own log's slot on the cell, also
/// one that waits in the same group.
pub(super) fn write(
    change: Change,
    view: &View,
    own: LogId,
    seq: u64,
    replaced: Option<&Slot>,
    wall: u64,
) -> Result<Op, WriteRefused> {
    let too_many = |_| {
        let text = format!("more than {MAX_CTX} logs have written to this key: delete it first");
        WriteRefused::Invalid(text)
    };
    let adds = matches!(change.edit, Edit::Add(_));
    let ctx = view.context(&own, replaced, adds).map_err(too_many)?;
    let mut counted = view.counted(wall);
    let mut taken = view.taken();
    if let Some(slot) = replaced {
        taken.join(&slot.op.took);
        if let Body::Counter(parts) = &slot.op.body {
            counted.join(parts);
        }
    }
    let numbers = numbers(view, replaced);
    let (body, took) = match change.edit {
        Edit::Add(amount) => {
            let (parts, adopted) = added(amount, view, own, seq, replaced, &taken, wall)?;
            let mut carried = Parts::default();
            carried.join(replaced.map_or(&[][..], |slot| &slot.op.took));
            // A number that this write overwrites and does not adopt is gone, also where it was adopted.
            carried
                .join(&numbers.into_iter().filter(|n| Some(n.id()) != adopted).collect::<Vec<_>>());
            (Body::Counter(parts), carried)
        }
        edit => {
            taken.join_all(&counted);
            taken.join(&numbers);
            let body = match edit {
                Edit::Put(value) => Body::Put(value),
                _ => Body::Delete,
            };
            (body, taken)
        }
    };
    let took = took.bounded(&counted).to_vec();
    if took.len() > MAX_PARTS {
        let text = format!("more than {MAX_PARTS} devices and runs have added to this counter");
        return Err(WriteRefused::Invalid(text));
    }
    Ok(Op { cell: change.cell, body, ctx, took, expires_at: change.expires_at })
}

/// The whole numbers among the values on the cell, each as the part that a counter which adopts it begins
/// with.
fn numbers(view: &View, replaced: Option<&Slot>) -> Vec<Part> {
    let slots = view.seen().map(|seen| &seen.slot).chain(replaced);
    let number = |slot: &Slot| match &slot.op.body {
        Body::Put(value) => decimal(value).map(|n| adopted(slot, n)),
        _ => None,
    };
    slots.filter_map(number).collect()
}

fn adopted(slot: &Slot, number: i64) -> Part {
    part(PartId { log: slot.log, first_seq: slot.seq }, i128::from(number), (0, 0))
}

/// The own log's parts once `amount` is added: what was taken away is dropped, the own part grows or a new
/// one begins, and a whole number that is shown is adopted as a part named by the write that set it (returned
/// as well).
fn added(
    amount: i64,
    view: &View,
    own: LogId,
    seq: u64,
    replaced: Option<&Slot>,
    taken: &Parts,
    wall: u64,
) -> Result<(Vec<Part>, Option<PartId>), WriteRefused> {
    let mut parts = Parts::default();
    if let Some(Slot { op: Op { body: Body::Counter(theirs), .. }, .. }) = replaced {
        parts.join(theirs);
    }
    parts.retain(|part| !taken.covers(part));
    // A pending own write stands over what is shown.
    let pending = replaced.filter(|own| view.seen().all(|seen| seen.slot.hlc < own.hlc));
    let shown = pending.or_else(|| view.values(wall).next().map(|seen| &seen.slot));
    let value = shown.filter(|slot| !slot.expired(wall)).and_then(|slot| match &slot.op.body {
        Body::Put(value) => Some((slot, value)),
        _ => None,
    });
    let mut from = None;
    if let Some((slot, value)) = value {
        let Some(number) = decimal(value) else {
            let text = "what the key holds is no whole number: nothing can be added to it";
            return Err(WriteRefused::Invalid(text.to_owned()));
        };
        let part = adopted(slot, number);
        from = Some(part.id());
        parts.join(&[part]);
    }
    let mine = parts.to_vec().into_iter().find(|part| part.log == own && Some(part.id()) != from);
    let id = mine.map_or(PartId { log: own, first_seq: seq }, |part| part.id());
    let grown = part(id, i128::from(amount), parts.of(&id));
    if grown.up.0 >= MAX_AMOUNT || grown.down.0 >= MAX_AMOUNT {
        return Err(WriteRefused::Invalid("the counter is full".to_owned()));
    }
    parts.set(&grown);
    if parts.len() > MAX_PARTS {
        return Err(WriteRefused::Invalid("the counter has too many parts".to_owned()));
    }
    Ok((parts.to_vec(), from))
}

fn part(id: PartId, amount: i128, (up, down): (u128, u128)) -> Part {
    let size = amount.unsigned_abs();
    let (more, less) = if amount < 0 { (0, size) } else { (size, 0) };
    Part { log: id.log, first_seq: id.first_seq, up: Amount(up + more), down: Amount(down + less) }
}

pub(super) fn value_of(change: &Change) -> Option<&[u8]> {
    match &change.edit {
        Edit::Put(value) => Some(value),
        Edit::Delete | Edit::Add(_) => None,
    }
}

pub(super) fn size_hint(change: &Change) -> usize {
    change.cell.key.len() + value_of(change).map_or(0, <[u8]>::len) + 32
}

/// Whether what must hold of a cell does. `pending`: an own write on it that waits in the same group.
pub(super) fn holds(condition: &Condition, view: &View, pending: Option<&Slot>, wall: u64) -> bool {
    match (condition, pending) {
        (Condition::Absent, Some(slot)) => slot.op.body == Body::Delete,
        (Condition::Absent, None) => view.shown(wall) == Shown::Absent,
        (Condition::Values(_), Some(_)) => false,
        (Condition::Values(wanted), None) => {
            let mut there: Vec<Version> = view.values(wall).map(|seen| seen.version).collect();
            let mut wanted = wanted.clone();
            there.sort_unstable();
            wanted.sort_unstable();
            there == wanted
        }
    }
}
