//! Frames: what one sync makes durable, as bytes.
//!
//! ```text
//! frame = length of body (4) ‖ CRC-32 of number and body (4) ‖ number (8) ‖ body
//! body  = item*
//! item  = 1 ‖ branch                                     the branch of the slots that follow
//!       | 2 ‖ seq (8) ‖ length (4) ‖ slot                keep a slot, see schema
//!       | 3 ‖ seq (8) ‖ key                              drop one
//!       | 4 ‖ table (1) ‖ key ‖ length (4) ‖ value       keep a row
//!       | 5 ‖ table (1) ‖ key                            drop one
//! key   = length (2) ‖ bytes
//! ```
//! A frame is durable or not as a whole; its number is one more than that of the frame before it.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::BranchId;

use super::overlay::Overlay;
use super::schema::{self, Place, Rows};

/// Bytes before the body.
pub(super) const HEAD: usize = 16;

const BRANCH: u8 = 1;
const SLOT: u8 = 2;
const NO_SLOT: u8 = 3;
const ROW: u8 = 4;
const NO_ROW: u8 = 5;

/// Where a slot lies within its frame: offset from the frame's begin, and length.
pub(super) type Within = (u32, u32);

/// A frame being written.
pub(super) struct Builder {
    bytes: Vec<u8>,
    branch: Option<BranchId>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEAD], branch: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEAD
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Everything in a layer; says where each of its slots lies, in their order.
    pub(super) fn layer(&mut self, layer: &Overlay) -> Vec<Option<Within>> {
        let mut lie = Vec::new();
        for (place, (key, slot)) in layer.slots() {
            let within = slot.as_ref().map(|slot| {
                self.slot(&place, |out| schema::push_slot(out, &place, slot.hlc, &slot.op))
            });
            if within.is_none() {
                self.no_slot(&place, key);
            }
            lie.push(within);
        }
        for ((rows, key), value) in &layer.rows {
            self.bytes
                .extend_from_slice(&[if value.is_some() { ROW } else { NO_ROW }, *rows as u8]);
            self.key(key);
            if let Some(value) = value {
                self.length(value.len());
                self.bytes.extend_from_slice(value);
            }
        }
        lie
    }

    /// A slot, its bytes pushed by `push`.
    pub(super) fn slot(&mut self, place: &Place, push: impl FnOnce(&mut Vec<u8>)) -> Within {
        self.branch(&place.0);
        self.bytes.push(SLOT);
        self.bytes.extend_from_slice(&place.1.to_be_bytes());
        let length = self.bytes.len();
        self.length(0);
        let start = self.bytes.len();
        push(&mut self.bytes);
        let len = small(self.bytes.len() - start);
        self.bytes[length..start].copy_from_slice(&len.to_be_bytes());
        (small(start), len)
    }

    fn no_slot(&mut self, place: &Place, key: &[u8]) {
        self.branch(&place.0);
        self.bytes.push(NO_SLOT);
        self.bytes.extend_from_slice(&place.1.to_be_bytes());
        self.key(key);
    }

    fn branch(&mut self, branch: &BranchId) {
        if self.branch != Some(*branch) {
            self.branch = Some(*branch);
            self.bytes.push(BRANCH);
            self.bytes.extend_from_slice(&branch.to_bytes());
        }
    }

    fn key(&mut self, key: &[u8]) {
        let len = u16::try_from(key.len()).expect("keys are short");
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(key);
    }

    fn length(&mut self, len: usize) {
        self.bytes.extend_from_slice(&small(len).to_be_bytes());
    }

    /// The frame as it is written.
    pub(super) fn finish(mut self, number: u64) -> Vec<u8> {
        let len = small(self.bytes.len() - HEAD);
        self.bytes[..4].copy_from_slice(&len.to_be_bytes());
        self.bytes[8..HEAD].copy_from_slice(&number.to_be_bytes());
        let sum = crc32fast::hash(&self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&sum.to_be_bytes());
        self.bytes
    }
}

/// What one sync writes is bounded far below this, see the driver.
fn small(len: usize) -> u32 {
    u32::try_from(len).expect("a frame is smaller than 4 GiB")
}

/// The first words of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) sum: u32,
    pub(super) number: u64,
}

impl Head {
    pub(super) fn read(bytes: &[u8; HEAD]) -> Self {
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        let number = u64::from_be_bytes(std::array::from_fn(|i| bytes[8 + i]));
        Self { len: word(0), sum: word(4), number }
    }

    /// Whether `body` is what this frame was written with.
    pub(super) fn fits(&self, body: &[u8]) -> bool {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.number.to_be_bytes());
        hasher.update(body);
        hasher.finalize() == self.sum
    }
}

/// One thing that a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// Its bytes, and where they lie.
    Slot(Place, &'a [u8], Within),
    NoSlot(Place, &'a [u8]),
    Row(Rows, &'a [u8], Option<Bytes>),
}

/// Reads the body of a frame; `None` in place of an item that makes no sense, and nothing after it.
pub(super) fn items(body: &[u8]) -> impl Iterator<Item = Option<Item<'_>>> {
    let mut reader = Reader { rest: body, length: body.len(), branch: None };
    let mut over = false;
    std::iter::from_fn(move || {
        if over || reader.rest.is_empty() {
            return None;
        }
        let item = reader.item();
        over = item.is_none();
        Some(item)
    })
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
    branch: Option<BranchId>,
}

impl<'a> Reader<'a> {
    fn item(&mut self) -> Option<Item<'a>> {
        let mut tag = self.take(1)?[0];
        if tag == BRANCH {
            let (branch, rest) = self.rest.split_first_chunk::<{ BranchId::LEN }>()?;
            (self.branch, self.rest) = (Some(BranchId::from_bytes(branch)), rest);
            tag = self.take(1)?[0];
        }
        match tag {
            SLOT => {
                let place = self.place()?;
                let len = self.number()?;
                let start = small(HEAD + self.length - self.rest.len());
                Some(Item::Slot(place, self.take(len as usize)?, (start, len)))
            }
            NO_SLOT => Some(Item::NoSlot(self.place()?, self.key()?)),
            ROW | NO_ROW => {
                let rows = Rows::from_number(self.take(1)?[0])?;
                let key = self.key()?;
                let value = if tag == ROW {
                    let len = self.number()?;
                    Some(Bytes::from(self.take(len as usize)?))
                } else {
                    None
                };
                Some(Item::Row(rows, key, value))
            }
            _ => None,
        }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn place(&mut self) -> Option<Place> {
        let seq = u64::from_be_bytes(self.take(8)?.try_into().ok()?);
        Some((self.branch?, seq))
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(len.into())
    }
}
