//! Counters: what each log has added, what writes took away, and the sum that is shown.
//!
//! A PN-counter (Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data
//! Types", 2011) in parts, so that a delete takes away exactly what it saw: each log adds up its own part,
//! and a write that removes the counter names the parts it took. Parts join by their greatest amounts, so
//! order, repetition and grouping do not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Bytes, tuple_codec};
use crate::id::LogId;
use crate::limits::{MAX_PARTS, MAX_SPENT};

/// An amount below 2^96, on the wire its big-endian bytes without leading zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u128);

/// Most bytes of an amount.
const AMOUNT: usize = 12;

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.to_be_bytes();
        let zeros = self.0.leading_zeros() as usize / 8;
        s.serialize_bytes(&bytes[zeros..])
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(d)?;
        if bytes.len() > AMOUNT {
            return Err(serde::de::Error::custom("an amount of 2^96 or more"));
        }
        Ok(Self(bytes.iter().fold(0, |sum, byte| sum << 8 | u128::from(*byte))))
    }
}

/// Names a part: the log that adds to it, and the operation it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// The log.
    pub log: LogId,
    /// Sequence number of the operation that began the part, or of the decimal value that was adopted.
    pub first_seq: u64,
}

/// What one log has added to a counter since the operation that began the part. Totals, not steps: a
/// repeated or replaced slot counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The log.
    pub log: LogId,
    /// See [`PartId::first_seq`].
    pub first_seq: u64,
    /// Sum of what was added.
    pub up: Amount,
    /// Sum of what was taken off.
    pub down: Amount,
}
tuple_codec!(Part { log, first_seq, up, down });

impl Part {
    /// Its name.
    #[must_use]
    pub const fn id(&self) -> PartId {
        PartId { log: self.log, first_seq: self.first_seq }
    }
}

/// Parts by name, each with its greatest known amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts(BTreeMap<PartId, (u128, u128)>);

impl Parts {
    /// Joins parts in: the maximum of each amount.
    pub fn join(&mut self, parts: &[Part]) {
        for part in parts {
            let known = self.0.entry(part.id()).or_default();
            known.0 = known.0.max(part.up.0);
            known.1 = known.1.max(part.down.0);
        }
    }

    /// Joins another set in.
    pub fn join_all(&mut self, other: &Self) {
        for (id, (up, down)) in &other.0 {
            let known = self.0.entry(*id).or_default();
            known.0 = known.0.max(*up);
            known.1 = known.1.max(*down);
        }
    }

    /// The amounts of a part; zero if it is not known.
    #[must_use]
    pub fn of(&self, id: &PartId) -> (u128, u128) {
        self.0.get(id).copied().unwrap_or_default()
    }

    /// Whether `taken` holds all of this part.
    #[must_use]
    pub fn covers(&self, part: &Part) -> bool {
        let (up, down) = self.of(&part.id());
        self.0.contains_key(&part.id()) && part.up.0 <= up && part.down.0 <= down
    }

    /// Sets one part.
    pub fn set(&mut self, part: &Part) {
        self.0.insert(part.id(), (part.up.0, part.down.0));
    }

    /// Keeps the parts for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&Part) -> bool) {
        self.0.retain(|id, amounts| keep(&part(id, amounts)));
    }

    /// What was taken, without what hardly matters any more: of the parts of a log that no counter here holds,
    /// only those that began last. An add that did not hear of more than [`MAX_SPENT`] deletes in a row would
    /// count again; without a bound, setting and deleting a number over and over would end in a refusal.
    #[must_use]
    pub fn bounded(mut self, held: &Self) -> Self {
        let mut spent: BTreeMap<LogId, Vec<PartId>> = BTreeMap::new();
        for id in self.0.keys().filter(|id| !held.0.contains_key(id)) {
            spent.entry(id.log).or_default().push(*id);
        }
        for ids in spent.values() {
            for id in ids.iter().rev().skip(MAX_SPENT) {
                self.0.remove(id);
            }
        }
        self
    }

    /// The parts, ascending by name, as they are signed.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Part> {
        self.0.iter().map(|(id, amounts)| part(id, amounts)).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left of these once `taken` is taken off, no part below zero; `None` if nothing exceeds
    /// what was taken: then there is no counter.
    #[must_use]
    pub fn less(&self, taken: &Self) -> Option<i128> {
        let (mut sum, mut there) = (0i128, false);
        for (id, (up, down)) in &self.0 {
            let (taken_up, taken_down) = taken.of(id);
            let known = taken.0.contains_key(id);
            there |= !known || *up > taken_up || *down > taken_down;
            let left = |total: u128, taken: u128| {
                i128::try_from(total.saturating_sub(taken)).unwrap_or(i128::MAX)
            };
            sum = sum.saturating_add(left(*up, taken_up));
            sum = sum.saturating_sub(left(*down, taken_down));
        }
        there.then_some(sum)
    }
}

const fn part(id: &PartId, amounts: &(u128, u128)) -> Part {
    Part { log: id.log, first_seq: id.first_seq, up: Amount(amounts.0), down: Amount(amounts.1) }
}

/// Whether signed parts are few, ascend by name and name each part once.
#[must_use]
pub fn parts_in_order(parts: &[Part]) -> bool {
    parts.len() <= MAX_PARTS && parts.windows(2).all(|pair| pair[0].id() < pair[1].id())
}

/// The number that a value spells, if it spells one as counters do: an optional minus sign and decimal
/// digits without leading zeros, within 63 bits.
#[must_use]
pub fn decimal(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn amounts_have_one_form_each_and_end_below_two_to_the_96() {
        for amount in [0, 1, 255, 256, u128::from(u64::MAX), (1 << 96) - 1] {
            let bytes = codec::encode(&Amount(amount));
            assert_eq!(codec::decode::<Amount>(&bytes), Ok(Amount(amount)));
        }
        assert!(codec::decode::<Amount>(&codec::encode(&Bytes(vec![1; 13]))).is_err());
        assert!(codec::decode::<Amount>(&codec::encode(&Bytes(vec![0, 1]))).is_err());
    }

    #[test]
    fn only_what_counters_print_is_a_decimal() {
        let cases: [&[u8]; 4] = [b"0", b"-7", b"42", b"9223372036854775807"];
        assert!(cases.iter().all(|text| decimal(text).is_some()));
        let others: [&[u8]; 7] = [b"", b"+1", b"01", b"-0", b"1.0", b"9223372036854775808", b" 1"];
        assert!(others.iter().all(|text| decimal(text).is_none()));
    }
}
