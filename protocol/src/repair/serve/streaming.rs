//! One log being sent: its slots as they follow each other, or after a comparison of live sets only those
//! that the other side lacks.

use std::collections::VecDeque;

use super::sending::{Sending, Step};
use super::{Phase, Serve};
use crate::limits::{
    BLOCK_BYTES, BLOCK_SLOTS, CHUNK_BYTES, CHUNK_SLOTS, NAMES, NAMES_BYTES, RANGES, STAGE_SLACK,
    SUMS,
};
use crate::log::branch::Branch;
use crate::log::live_set::{self, Block, Named, Range};
use crate::message::{Ask, Names, Repair, SlotRecord, Start, Sums};
use crate::model::slot::RawSlot;
use crate::replica::Replica;
use crate::store::{Store, StoreError};

impl Serve {
    /// What is asked about the log that was summed up; false if it makes no sense.
    pub(super) fn asked(&mut self, ask: &Ask) -> bool {
        let Some(sending) = self.sending.front_mut() else { return false };
        let apart = ask.ranges.windows(2).all(|pair| pair[0].upto <= pair[1].after);
        let proper = ask.ranges.iter().all(|range| range.after < range.upto);
        let ascending = ask.wanted.windows(2).all(|pair| pair[0] < pair[1]);
        if !apart || !proper || !ascending {
            return false;
        }
        if ask.wanted.len() > NAMES || ask.ranges.len() > RANGES {
            return false;
        }
        let wanted = ask.wanted.iter().copied().collect();
        sending.step = Step::Answer { wanted, ranges: ask.ranges.clone() };
        true
    }

    /// Puts the next piece of the stream into the outbox.
    pub(super) fn next_chunk<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), StoreError> {
        while self.outbox.is_empty() && self.phase == Phase::Streaming {
            let Some(mut sending) = self.sending.pop_front() else {
                self.phase = Phase::Answering;
                self.say(&Repair::Done);
                return Ok(());
            };
            let there = replica.logs.get(&sending.branch).filter(|branch| branch.shown());
            // Dropped or set aside meanwhile: nothing of it can be proven any more.
            let Some(branch) = there else { continue };
            if self.go_on_with(&mut sending, branch, &replica.store)? {
                self.sending.push_front(sending);
            }
        }
        Ok(())
    }

    /// One step of a branch; false when it is through.
    fn go_on_with(
        &mut self,
        sending: &mut Sending,
        branch: &Branch,
        store: &impl Store,
    ) -> Result<bool, StoreError> {
        let Some(head) = branch.head.as_ref() else { return Ok(false) };
        let grown = head.header().live_bytes;
        if sending.announced.is_none_or(|size| grown > size.saturating_add(STAGE_SLACK / 2)) {
            sending.announced = Some(grown);
            self.say(&Repair::Start(Start {
                log: branch.id.log,
                base: sending.head,
                linked: sending.linked,
                from: sending.cursor,
                compare: sending.compare,
                header: head.bytes().clone(),
            }));
            return Ok(true);
        }
        match &mut sending.step {
            Step::Sum => {
                let sums = self.sums(branch, &mut sending.cursor, store)?;
                if sums.last {
                    self.phase = Phase::Comparing;
                }
                self.say(&Repair::Sums(sums));
            }
            Step::Answer { wanted, .. } if !wanted.is_empty() => {
                let slots = self.wanted(branch, wanted, store)?;
                self.say_slots(slots);
            }
            Step::Answer { ranges, .. } if ranges.is_empty() => sending.step = Step::Send,
            Step::Answer { ranges, .. } => {
                let names = self.names(branch, ranges, store)?;
                self.phase = Phase::Comparing;
                self.say(&Repair::Names(names));
            }
            Step::Send => {
                let (from, upto) = (sending.cursor, branch.seq());
                let chunk = store.slots_after(&branch.id, from, upto, CHUNK_SLOTS, CHUNK_BYTES)?;
                let Some(last) = chunk.last() else {
                    self.say(&Repair::End(head.bytes().clone()));
                    return Ok(false);
                };
                sending.cursor = last.seq;
                let slots = self.live(branch, chunk, store)?;
                self.say_slots(slots.into_iter().map(SlotRecord::from).collect());
            }
        }
        Ok(true)
    }

    fn say_slots(&mut self, slots: Vec<SlotRecord>) {
        if !slots.is_empty() {
            self.say(&Repair::Slots(slots));
        }
    }

    /// Those of some slots that are live now.
    fn live(
        &mut self,
        branch: &Branch,
        raws: Vec<RawSlot>,
        store: &impl Store,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let mut live = Vec::with_capacity(raws.len());
        for raw in raws {
            if raw.op.is_empty() {
                return Err(StoreError::Damaged { branch: branch.id, seq: raw.seq });
            }
            if branch.is_latest(&raw, branch.seq(), store)? {
                self.sent += raw.op.len() as u64;
                live.push(raw);
            }
        }
        Ok(live)
    }

    /// The next blocks of the live set, summed up.
    fn sums(
        &mut self,
        branch: &Branch,
        cursor: &mut u64,
        store: &impl Store,
    ) -> Result<Sums, StoreError> {
        let (mut blocks, mut read) = (Vec::new(), 0);
        while blocks.len() < SUMS && read < NAMES_BYTES {
            let (from, upto) = (*cursor, branch.seq());
            let raws = store.slots_after(&branch.id, from, upto, BLOCK_SLOTS, BLOCK_BYTES)?;
            let Some(last) = raws.last() else {
                return Ok(Sums { blocks, last: true });
            };
            *cursor = last.seq;
            read += raws.iter().map(|raw| raw.op.len()).sum::<usize>();
            let live = self.live(branch, raws, store)?;
            blocks.push(Block { upto: *cursor, sum: live_set::sum(&live, &self.key) });
        }
        Ok(Sums { blocks, last: false })
    }

    /// The names of the live slots in some ranges, as far as one frame goes.
    fn names(
        &mut self,
        branch: &Branch,
        ranges: &[Range],
        store: &impl Store,
    ) -> Result<Names, StoreError> {
        let mut all = Names { names: Vec::new(), upto: 0 };
        let (mut slots, mut bytes) = (NAMES, NAMES_BYTES);
        for range in ranges {
            let upto = range.upto.min(branch.seq());
            let raws = store.slots_after(&branch.id, range.after, upto, slots, bytes)?;
            let end = raws.last().map_or(range.after, |last| last.seq);
            let more = !store.slots_after(&branch.id, end, upto, 1, 1)?.is_empty();
            all.upto = if more { end } else { range.upto };
            slots = slots.saturating_sub(raws.len());
            bytes = bytes.saturating_sub(raws.iter().map(|raw| raw.op.len()).sum());
            let live = self.live(branch, raws, store)?;
            all.names.extend(live.iter().map(|raw| Named::of(raw, &self.key)));
            if more || slots == 0 || bytes == 0 {
                break;
            }
        }
        Ok(all)
    }

    /// Slots that were asked for one by one, as many as one frame takes.
    fn wanted(
        &mut self,
        branch: &Branch,
        wanted: &mut VecDeque<u64>,
        store: &impl Store,
    ) -> Result<Vec<SlotRecord>, StoreError> {
        let (mut slots, mut bytes) = (Vec::new(), 0);
        while let Some(seq) = wanted.front().copied() {
            let upto = seq.min(branch.seq());
            let raws = store.slots_after(&branch.id, seq.saturating_sub(1), upto, 1, 1)?;
            bytes += raws.iter().map(|raw| raw.op.len()).sum::<usize>();
            if bytes > CHUNK_BYTES && !slots.is_empty() {
                break;
            }
            wanted.pop_front();
            slots.extend(self.live(branch, raws, store)?.into_iter().map(SlotRecord::from));
        }
        Ok(slots)
    }
}
