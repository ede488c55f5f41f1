//! How much of each segment is pointed to, and how that changes.

use std::collections::BTreeMap;

use super::schema::Pointer;

/// Bytes that are pointed to, by segment.
pub(super) type Live = BTreeMap<u32, u64>;

/// What segments gained and lost.
pub(super) type Balance = BTreeMap<u32, i64>;

pub(super) fn count(balance: &mut Balance, pointer: Pointer, sign: i64) {
    *balance.entry(pointer.segment).or_default() += sign * i64::from(pointer.len);
}
