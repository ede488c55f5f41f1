//! A branch's slots in order, merged from all layers of a store.

use std::iter::Peekable;

use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::{RawSlot, StoreError};

use super::layers::State;
use super::schema::{self, Pointer};
use super::segments::Segments;

/// What one layer says of a sequence number.
enum Found<'a> {
    Here(&'a RawSlot),
    There(Pointer),
    Gone,
}

type Source<'a> = Peekable<Box<dyn Iterator<Item = Result<(u64, Found<'a>), StoreError>> + 'a>>;

/// Slots of `branch` with `after < seq <= upto`, ascending, up to `most` slots and bytes of operations; at
/// least one if there is any. `number` is the branch's number, if it was ever stored.
pub(super) fn slots(
    state: &State,
    number: Option<u32>,
    branch: &BranchId,
    (after, upto): (u64, u64),
    (max_slots, max_bytes): (usize, usize),
) -> Result<Vec<RawSlot>, StoreError> {
    let memtables: Vec<_> = [Some(&state.memtable), state.frozen.as_ref()]
        .into_iter()
        .flatten()
        .map(|m| m.read())
        .collect();
    // The newest word first.
    let mut sources: Vec<Source<'_>> = Vec::new();
    for layer in [&state.building, &*state.committing] {
        let range = layer.range(branch, after, upto);
        let range = range.map(|(seq, slot)| Ok((seq, slot.map_or(Found::Gone, Found::Here))));
        sources.push(source(range));
    }
    if let Some(number) = number {
        for maps in &memtables {
            let range = maps.slots.range((number, after + 1)..=(number, upto));
            let found = |pointer: &Option<Pointer>| pointer.map_or(Found::Gone, Found::There);
            sources.push(source(range.map(move |((_, seq), p)| Ok((*seq, found(p))))));
        }
        let range = state.tables.range(number, after, upto)?;
        sources.push(source(range.map(|e| e.map(|((_, seq), p)| (seq, Found::There(p))))));
    }
    let mut window = Window::default();
    let (mut out, mut bytes) = (Vec::new(), 0usize);
    while let Some((seq, found)) = next(&mut sources)? {
        let slot = match found {
            Found::Here(slot) => slot.clone(),
            Found::There(pointer) => window.slot(&state.segments, (*branch, seq), pointer),
            Found::Gone => continue,
        };
        bytes = bytes.saturating_add(slot.op.len());
        if !out.is_empty() && (out.len() >= max_slots || bytes > max_bytes) {
            break;
        }
        out.push(slot);
    }
    Ok(out)
}

fn source<'a>(all: impl Iterator<Item = Result<(u64, Found<'a>), StoreError>> + 'a) -> Source<'a> {
    let boxed: Box<dyn Iterator<Item = _> + 'a> = Box::new(all);
    boxed.peekable()
}

/// The newest word on the lowest sequence number.
fn next<'a>(sources: &mut [Source<'a>]) -> Result<Option<(u64, Found<'a>)>, StoreError> {
    let mut lowest = None;
    for source in &mut *sources {
        match source.peek() {
            Some(Ok((seq, _))) => lowest = Some(lowest.map_or(*seq, |low: u64| low.min(*seq))),
            Some(Err(e)) => return Err(e.clone()),
            None => {}
        }
    }
    let Some(lowest) = lowest else { return Ok(None) };
    let mut newest = None;
    for source in sources {
        let same =
            |entry: &Result<(u64, Found<'_>), _>| matches!(entry, Ok((seq, _)) if *seq == lowest);
        if let Some(Ok((_, found))) = source.next_if(same) {
            newest.get_or_insert(found);
        }
    }
    Ok(newest.map(|found| (lowest, found)))
}

/// Slots that follow each other in a log mostly follow each other in a segment: they are read together.
#[derive(Default)]
struct Window {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Bytes read at once.
    const SIZE: usize = 64 << 10;

    fn slot(&mut self, segments: &Segments, place: schema::Place, pointer: Pointer) -> RawSlot {
        schema::slot(place, self.find(segments, pointer).unwrap_or_default())
    }

    fn find(&mut self, segments: &Segments, pointer: Pointer) -> Option<&[u8]> {
        if self.within(pointer).is_none() {
            let file = segments.get(&pointer.segment)?.file().ok()?;
            let left = file.len().ok()?.saturating_sub(pointer.offset.into());
            let wanted = (pointer.len as usize).max(Self::SIZE);
            self.bytes.resize(usize::try_from(left).map_or(wanted, |left| left.min(wanted)), 0);
            self.segment = pointer.segment;
            self.start = pointer.offset.into();
            if file.read_at(self.start, &mut self.bytes).is_err() {
                self.bytes.clear();
            }
        }
        let range = self.within(pointer)?;
        self.bytes.get(range)
    }

    fn within(&self, pointer: Pointer) -> Option<std::ops::Range<usize>> {
        let from = u64::from(pointer.offset).checked_sub(self.start)?;
        let from = usize::try_from(from).ok()?;
        let to = from.checked_add(pointer.len as usize)?;
        (self.segment == pointer.segment && to <= self.bytes.len()).then_some(from..to)
    }
}
