//! What layouts 2 and 3 hold: names of logs with epochs of 32 bits, and operations in their first form.

use serde::{Deserialize, Serialize};
use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::{DeviceId, Hash8};
use swarmkv_protocol::time::Hlc;

/// A branch: author (32) ‖ epoch (4) ‖ shard (2) ‖ number (2).
pub(in super::super) type BranchName = [u8; BRANCH];
/// Where a slot or header is: its branch and sequence number.
pub(in super::super) type Place = (BranchName, u64);

pub(super) const BRANCH: usize = 40;
/// Bytes of a branch's name that name its log.
const LOG: usize = 38;

/// Reads a place from a key: branch ‖ seq (8).
pub(in super::super) fn place(bytes: &[u8]) -> Option<Place> {
    let (branch, seq) = bytes.split_first_chunk()?;
    Some((*branch, u64::from_be_bytes(seq.try_into().ok()?)))
}

pub(super) fn place_bytes((branch, seq): &Place) -> Vec<u8> {
    [&branch[..], &seq.to_be_bytes()].concat()
}

/// The device that writes a branch.
pub(in super::super) fn author(branch: &BranchName) -> DeviceId {
    DeviceId::new(std::array::from_fn(|at| branch[at]))
}

/// Names one write: its log (author, epoch, shard), its place there, and the start of its hash.
pub(in super::super) type Version = ((DeviceId, u32, u16), u64, Hash8);

/// What a write did to its key. A counter: what its log has added, and what it has taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) enum Body {
    Put(Bytes),
    Delete,
    Counter((u64, u64)),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Op {
    pub(in super::super) key: Bytes,
    pub(in super::super) body: Body,
    /// The writes of other logs that it overwrites.
    pub(in super::super) ctx: Vec<Version>,
    pub(in super::super) expires_at: Option<u64>,
}

type OpTuple = (Bytes, Body, Vec<Version>, Option<u64>);

/// The stamp and operation in a stored slot, checksum (4) ‖ stamp (8) ‖ operation; `None` if it is not what was
/// written. The checksum is the CRC-32 of place, stamp and operation.
pub(in super::super) fn sound(place: &Place, stored: &[u8]) -> Option<(Hlc, Op)> {
    let (sum, rest) = stored.split_first_chunk::<4>()?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&place_bytes(place));
    hasher.update(rest);
    if hasher.finalize() != u32::from_be_bytes(*sum) {
        return None;
    }
    let (hlc, op) = rest.split_first_chunk::<8>()?;
    let (key, body, ctx, expires_at): OpTuple = codec::decode(op).ok()?;
    Some((Hlc(u64::from_be_bytes(*hlc)), Op { key, body, ctx, expires_at }))
}

/// The name that others know a write by.
pub(in super::super) fn version((branch, seq): &Place, hlc: Hlc, op: &Op) -> Version {
    let body = crypto::hash(Domain::Content, &[&codec::encode(&op.body)]);
    let rest = codec::encode(&(&op.ctx, op.expires_at));
    let content = crypto::hash(Domain::Content, &[body.as_bytes(), &rest]);
    let key = crypto::hash(Domain::Key, &[&op.key]);
    let parts: [&[u8]; 5] = [
        &branch[..LOG],
        &seq.to_be_bytes(),
        &hlc.0.to_be_bytes(),
        key.as_bytes(),
        content.as_bytes(),
    ];
    let epoch = u32::from_be_bytes(std::array::from_fn(|at| branch[32 + at]));
    let shard = u16::from_be_bytes([branch[36], branch[37]]);
    ((author(branch), epoch, shard), *seq, crypto::hash(Domain::Slot, &parts).short8())
}
