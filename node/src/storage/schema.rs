//! How things are laid out on disk. Integers are big-endian, so that byte order is numeric order.

use std::collections::BTreeMap;

use redb::TableDefinition;
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::{RawSlot, StoreError};
use swarmkv_protocol::time::Hlc;

/// Number of this layout, see [`super::migrate`].
pub(super) const FORMAT: u32 = 4;

/// Name of the index file.
pub(super) const INDEX: &str = "index.redb";

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// branch number (4) ‖ seq (8) → [`Pointer`].
pub(super) const SLOTS: Table = TableDefinition::new("slots");
/// a cell's index key → [`Spot`]s of the slots on it.
pub(super) const KEYS: Table = TableDefinition::new("keys");
/// branch → its number (4).
pub(super) const BRANCHES: Table = TableDefinition::new("branches");
/// segment (4) → bytes of it that [`SLOTS`] points to (8).
pub(super) const SEGMENTS: Table = TableDefinition::new("segments");

/// Tables of small things, kept whole: a row of one is a key and a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Rows {
    /// branch ‖ seq (8) → signed header that ends there.
    Headers = 1,
    /// branch → record (canonical CBOR, see the core).
    Logs = 2,
    /// name → signed statement.
    Statements = 3,
    /// id → record (canonical CBOR, see the core).
    Tickets = 4,
    /// device (32) ‖ multiaddress → when it last worked, in Unix milliseconds (8).
    Addresses = 5,
    /// name → value: `format`, `genesis`, `caught-up`, `fingerprint`, `tcp-port`, `quic-port`, `blocked`,
    /// `own-head`, and `journal`, the place up to which the index holds the journal.
    Meta = 6,
}

impl Rows {
    pub(super) const ALL: [Self; 6] =
        [Self::Headers, Self::Logs, Self::Statements, Self::Tickets, Self::Addresses, Self::Meta];

    pub(super) const fn table(self) -> Table {
        TableDefinition::new(self.name())
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Headers => "headers",
            Self::Logs => "logs",
            Self::Statements => "statements",
            Self::Tickets => "tickets",
            Self::Addresses => "addresses",
            Self::Meta => "meta",
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|rows| *rows as u8 == number)
    }
}

/// The keys of rows of a kind that begin with `prefix` and that a layer speaks of.
pub(super) fn keys_under<'a>(
    layer: &'a BTreeMap<(Rows, Vec<u8>), Option<Bytes>>,
    rows: Rows,
    prefix: &'a [u8],
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let from = layer.range((rows, prefix.to_vec())..).map(|((rows, key), _)| (*rows, key));
    let of_kind = from.take_while(move |(r, key)| *r == rows && key.starts_with(prefix));
    of_kind.map(|(_, key)| key.clone())
}

/// Where a slot or header lies: its branch and sequence number.
pub(super) type Place = (BranchId, u64);

/// Length of a [`Place`] in bytes.
pub(super) const PLACE: usize = BranchId::LEN + 8;

pub(super) fn place_bytes((branch, seq): &Place) -> [u8; PLACE] {
    let mut out = [0; PLACE];
    out[..BranchId::LEN].copy_from_slice(&branch.to_bytes());
    out[BranchId::LEN..].copy_from_slice(&seq.to_be_bytes());
    out
}

/// Where a slot's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Pointer {
    const LEN: usize = 12;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&self.segment.to_be_bytes());
        out[4..8].copy_from_slice(&self.offset.to_be_bytes());
        out[8..].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let (segment, rest) = number(bytes)?;
        let (offset, rest) = number(rest)?;
        let (len, _) = number(rest)?;
        Ok(Self { segment, offset, len })
    }
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), StoreError> {
    let split = bytes.split_first_chunk::<4>();
    let (number, rest) = split.ok_or_else(|| StoreError::failed("the store's index is damaged"))?;
    Ok((u32::from_be_bytes(*number), rest))
}

/// A place with its branch by number.
pub(super) type Numbered = (u32, u64);

pub(super) fn numbered_bytes((branch, seq): Numbered) -> [u8; 12] {
    let mut out = [0; 12];
    out[..4].copy_from_slice(&branch.to_be_bytes());
    out[4..].copy_from_slice(&seq.to_be_bytes());
    out
}

pub(super) fn numbered(bytes: &[u8]) -> Result<Numbered, StoreError> {
    let (branch, rest) = number(bytes)?;
    let seq = rest.try_into().map_err(|_| StoreError::failed("the store's index is damaged"))?;
    Ok((branch, u64::from_be_bytes(seq)))
}

/// A slot on a key: which, and where its bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: Numbered,
    pub(super) pointer: Pointer,
}

pub(super) fn spots(record: &[u8]) -> Result<Vec<Spot>, StoreError> {
    let spot = |bytes: &[u8]| {
        let (place, pointer) = bytes.split_at_checked(12).unwrap_or((bytes, &[]));
        Ok(Spot { place: numbered(place)?, pointer: Pointer::from_bytes(pointer)? })
    };
    record.chunks(12 + Pointer::LEN).map(spot).collect()
}

pub(super) fn spots_record(spots: &[Spot]) -> Vec<u8> {
    let one = |spot: &Spot| [numbered_bytes(spot.place), spot.pointer.to_bytes()].concat();
    spots.iter().flat_map(one).collect()
}

/// Puts `spot` in, or takes the slot at its place out.
pub(super) fn patch(spots: &mut Vec<Spot>, place: Numbered, pointer: Option<Pointer>) {
    match (spots.iter().position(|spot| spot.place == place), pointer) {
        (Some(at), Some(pointer)) => spots[at].pointer = pointer,
        (None, Some(pointer)) => spots.push(Spot { place, pointer }),
        (Some(at), None) => {
            spots.remove(at);
        }
        (None, None) => {}
    }
}

/// A slot as it lies in a segment: checksum (4) ‖ stamp (8) ‖ operation. The checksum is the CRC-32 of
/// place, stamp and operation.
pub(super) fn push_slot(out: &mut Vec<u8>, place: &Place, hlc: Hlc, op: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&hlc.0.to_be_bytes());
    out.extend_from_slice(op);
    let sum = checksum(place, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_be_bytes());
}

fn checksum(place: &Place, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place_bytes(place));
    hasher.update(rest);
    hasher.finalize()
}

/// A stored slot. One that is not what was written is handed out with an empty operation, as the core
/// wants it.
pub(super) fn slot(place: Place, bytes: &[u8]) -> RawSlot {
    let sound = bytes.split_first_chunk::<4>().and_then(|(sum, rest)| {
        let (hlc, op) = rest.split_first_chunk::<8>()?;
        let same = u32::from_be_bytes(*sum) == checksum(&place, rest);
        same.then(|| (Hlc(u64::from_be_bytes(*hlc)), Bytes::from(op)))
    });
    let (hlc, op) = sound.unwrap_or_default();
    RawSlot { branch: place.0, seq: place.1, hlc, op }
}

pub(super) fn index_error(e: impl Into<redb::Error>) -> StoreError {
    StoreError::failed(e.into())
}
