//! The tables on disk and how their keys and values are laid out. Integers are big-endian, so that
//! byte order is numeric order.

use redb::TableDefinition;
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::Branch;
use swarmkv_protocol::store::{RawSlot, StoreError};
use swarmkv_protocol::time::Hlc;

/// Number of this layout. A store of another layout is refused until a migration exists.
pub(super) const FORMAT: u32 = 2;

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// branch (40) ‖ seq (8) → checksum (4) ‖ stamp (8) ‖ operation. The checksum is the
/// CRC-32 of place, stamp and operation.
pub(super) const SLOTS: Table = TableDefinition::new("slots");
/// user's key → the places (branch ‖ seq) of the slots on it, ascending.
pub(super) const KEYS: Table = TableDefinition::new("keys");
/// branch ‖ seq → signed header that ends there.
pub(super) const HEADERS: Table = TableDefinition::new("headers");
/// branch → record (canonical CBOR, see the core).
pub(super) const LOGS: Table = TableDefinition::new("logs");
/// name → signed statement.
pub(super) const STATEMENTS: Table = TableDefinition::new("statements");
/// id → record (canonical CBOR, see the core).
pub(super) const TICKETS: Table = TableDefinition::new("tickets");
/// device (32) ‖ multiaddress → when it last worked, in Unix milliseconds (8).
pub(super) const ADDRESSES: Table = TableDefinition::new("addresses");
/// name → value: `format`, `genesis`, `caught-up`, `fingerprint`, `tcp-port`, `quic-port`,
/// `blocked`.
pub(super) const META: Table = TableDefinition::new("meta");

/// Length of a [`Place`] in bytes.
pub(super) const PLACE: usize = Branch::LEN + 8;

/// Where a slot or header lies: its branch and sequence number.
pub(super) type Place = (Branch, u64);

pub(super) fn place_bytes((branch, seq): &Place) -> [u8; PLACE] {
    let mut out = [0; PLACE];
    out[..Branch::LEN].copy_from_slice(&branch.to_bytes());
    out[Branch::LEN..].copy_from_slice(&seq.to_be_bytes());
    out
}

pub(super) fn place(bytes: &[u8]) -> Result<Place, StoreError> {
    let damaged = || StoreError::failed("a place in the store is damaged");
    let (branch, seq) = bytes.split_first_chunk::<{ Branch::LEN }>().ok_or_else(damaged)?;
    let seq: [u8; 8] = seq.try_into().map_err(|_| damaged())?;
    Ok((Branch::from_bytes(branch), u64::from_be_bytes(seq)))
}

pub(super) fn places(bytes: &[u8]) -> Result<Vec<Place>, StoreError> {
    bytes.chunks(PLACE).map(place).collect()
}

pub(super) fn slot_bytes(place: &Place, hlc: Hlc, op: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + op.len());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&hlc.0.to_be_bytes());
    out.extend_from_slice(op);
    let sum = checksum(place, &out[4..]);
    out[..4].copy_from_slice(&sum.to_be_bytes());
    out
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

pub(super) fn store_error(e: impl Into<redb::Error>) -> StoreError {
    StoreError::failed(e.into())
}
