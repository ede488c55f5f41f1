//! Comparisons of live sets as hostile members hold them: the truth about a log, or sums, names and slots that
//! are not so.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::digest::DigestKey;
use swarmkv_protocol::id::{BranchId, Hash8};
use swarmkv_protocol::live_set::{self, Block, Named, Range};
use swarmkv_protocol::message::{self, Ask, Digest, Names, Repair, SlotRecord, Start, Sums};
use swarmkv_protocol::model::slot::RawSlot;

use super::relay::Offered;
use crate::rng::Rng;

/// A log that a hostile member compares.
pub struct Compared {
    branch: BranchId,
    header: Bytes,
    slots: Vec<SlotRecord>,
    key: DigestKey,
}

impl Compared {
    pub fn new(log: &Offered, theirs: &Digest) -> Self {
        let (branch, header) = (log.branch, log.header.clone());
        Self { branch, header, slots: log.slots.clone(), key: theirs.key }
    }

    fn raw(&self, slot: &SlotRecord) -> RawSlot {
        RawSlot { branch: self.branch, seq: slot.seq, hlc: slot.hlc, op: slot.op.clone() }
    }

    /// The frames up to the last sums.
    pub fn begin(&self, rng: &mut Rng) -> Vec<Vec<u8>> {
        let start = Start {
            log: self.branch.log,
            base: Hash8::default(),
            linked: true,
            from: if rng.percent(95) { 0 } else { 3 },
            compare: true,
            header: self.header.clone(),
        };
        let mut frames = vec![message::encode(&Repair::Start(start))];
        let size = 1 + rng.index(8);
        let mut blocks: Vec<Block> = self
            .slots
            .chunks(size)
            .map(|slots| {
                let raws: Vec<RawSlot> = slots.iter().map(|slot| self.raw(slot)).collect();
                let upto = slots.last().map_or(0, |slot| slot.seq);
                Block { upto, sum: live_set::sum(&raws, &self.key) }
            })
            .collect();
        for block in &mut blocks {
            match rng.below(20) {
                0 => block.sum = Hash8::new(rng.bytes()),
                1 if rng.percent(20) => block.upto = u64::MAX - 1,
                2 if rng.percent(20) => block.upto = 0,
                _ => {}
            }
        }
        let parts = blocks.chunks(3).map(<[Block]>::to_vec);
        let say = |blocks, last| message::encode(&Repair::Sums(Sums { blocks, last }));
        frames.extend(parts.map(|blocks| say(blocks, false)));
        if rng.percent(95) {
            frames.push(say(Vec::new(), true));
        }
        frames
    }

    /// What is said to an [`Ask`].
    pub fn answer(&self, rng: &mut Rng, ask: &Ask) -> Vec<Vec<u8>> {
        let mut slots: Vec<SlotRecord> =
            self.slots.iter().filter(|slot| ask.wanted.contains(&slot.seq)).cloned().collect();
        match rng.below(12) {
            0 => slots.truncate(slots.len() / 2),
            1 => slots.reverse(),
            2 => slots = self.slots.clone(),
            3 => slots.iter_mut().for_each(|slot| slot.hlc.0 = slot.hlc.0.wrapping_add(1)),
            _ => {}
        }
        let mut frames: Vec<Vec<u8>> =
            slots.chunks(40).map(|part| message::encode(&Repair::Slots(part.to_vec()))).collect();
        if let Some(last) = ask.ranges.last() {
            let asked = |slot: &&SlotRecord| ask.ranges.iter().any(|range| range.has(slot.seq));
            let asked = self.slots.iter().filter(asked);
            let mut names = Names {
                names: asked.map(|slot| Named::of(&self.raw(slot), &self.key)).collect(),
                upto: last.upto,
            };
            match rng.below(12) {
                0 => names.names.truncate(1),
                1 => names.names.iter_mut().for_each(|named| named.name = Hash8::new([7; 8])),
                2 => names.upto = names.upto.saturating_sub(rng.below(9)),
                3 => names.names.iter_mut().for_each(|named| named.seq = named.seq.wrapping_add(1)),
                _ => {}
            }
            frames.push(message::encode(&Repair::Names(names)));
        } else if rng.percent(95) {
            frames.push(message::encode(&Repair::End(self.header.clone())));
        }
        frames
    }
}

/// Asks for anything about a log that ends there.
pub fn ask(rng: &mut Rng, upto: u64) -> Vec<u8> {
    let range = |after: u64, upto: u64| Range { after, upto };
    let (wanted, ranges) = match rng.below(8) {
        0 => (vec![1, 2, 3, u64::MAX], Vec::new()),
        1 => (vec![2, 1], Vec::new()),
        2 => (Vec::new(), vec![range(0, u64::MAX)]),
        3 => (Vec::new(), vec![range(3, 3), range(1, 2)]),
        4 => ((0..5_000).collect(), Vec::new()),
        5 => (Vec::new(), (0..200).map(|n| range(2 * n, 2 * n + 1)).collect()),
        6 => (vec![upto], vec![range(0, upto)]),
        _ => (Vec::new(), Vec::new()),
    };
    message::encode(&Repair::Ask(Ask { wanted, ranges }))
}

/// A frame of a comparison that means nothing.
pub fn junk(rng: &mut Rng) -> Vec<u8> {
    let block = |upto| Block { upto, sum: Hash8::new([3; 8]) };
    let named = |seq| Named { seq, name: Hash8::new([4; 8]) };
    message::encode(&match rng.below(5) {
        0 => Repair::Sums(Sums { blocks: Vec::new(), last: false }),
        1 => Repair::Sums(Sums { blocks: (1..100).map(block).collect(), last: false }),
        2 => Repair::Sums(Sums { blocks: vec![block(9), block(4)], last: true }),
        3 => Repair::Names(Names { names: (1..50).map(named).collect(), upto: 60 }),
        _ => Repair::Names(Names { names: Vec::new(), upto: rng.below(40) }),
    })
}
