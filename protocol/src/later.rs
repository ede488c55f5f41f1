//! Tells what a later version may say from what no version says. Only the form is looked at: a version number
//! above this build's, or a variant that this build does not have, in canonical CBOR. Whoever sends the first is
//! not to blame, whoever sends anything else malformed is.

use serde::Deserialize;
use serde::de::value::Error as Refused;
use serde::de::{Deserializer, Error as _, Visitor};

use crate::limits::VERSION;

/// Deepest nesting of what is looked at.
const MAX_DEPTH: usize = 16;

/// The version that a tuple of ours begins with, if it is later than this build's.
pub(crate) fn version(tuple: &[u8]) -> Option<u8> {
    let (Head { major: ARRAY, value: 1.. }, fields) = head(tuple)? else { return None };
    let (Head { major: UNSIGNED, value }, _) = head(fields)? else { return None };
    let after = item(tuple, 0)?;
    let later = after.is_empty() && value > u64::from(VERSION);
    // All that exceeds a byte is told as the greatest there is.
    later.then(|| u8::try_from(value).unwrap_or(u8::MAX))
}

/// Whether these bytes are a variant of the enumeration `T` that this build does not have.
pub(crate) fn is_unknown_variant<'a, T: Deserialize<'a>>(bytes: &[u8]) -> bool {
    let known = variants::<T>();
    let whole = item(bytes, 0).is_some_and(<[u8]>::is_empty);
    let unknown = match head(bytes) {
        // Without content: its number.
        Some((Head { major: UNSIGNED, value }, _)) => value >= known.len() as u64,
        // With content: a map of one entry, the name and the content.
        Some((Head { major: MAP, value: 1 }, entry)) => match head(entry) {
            Some((Head { major: TEXT, value }, rest)) => usize::try_from(value)
                .ok()
                .and_then(|len| rest.get(..len))
                .is_some_and(|name| known.iter().all(|known| known.as_bytes() != name)),
            _ => false,
        },
        _ => false,
    };
    whole && unknown
}

/// A tuple without its last field, as a tuple of its own; and that field.
pub(crate) fn split_last(tuple: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    // The heads of longer tuples have more than a byte.
    let (Head { major: ARRAY, value: count @ 1..=23 }, fields) = head(tuple)? else { return None };
    let mut last = fields;
    for _ in 1..count {
        last = item(last, 1)?;
    }
    let before = &fields[..fields.len() - last.len()];
    let mut place = vec![tuple[0] - 1];
    place.extend(before);
    item(last, 1)?.is_empty().then_some((place, last))
}

const UNSIGNED: u8 = 0;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// The head of a CBOR item: its major type, and a number or length.
struct Head {
    major: u8,
    value: u64,
}

/// A head in its shortest form, and what follows it.
fn head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (major, info) = (first >> 5, first & 31);
    let (len, least) = match info {
        0..=23 => return Some((Head { major, value: u64::from(info) }, rest)),
        24 => (1, 24),
        25 => (2, 1 << 8),
        26 => (4, 1 << 16),
        27 => (8, 1 << 32),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(len)?;
    let value = number.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
    (value >= least).then_some((Head { major, value }, rest))
}

/// What follows one item in canonical form: whole numbers, strings, arrays, maps in order, true, false and null.
fn item(bytes: &[u8], depth: usize) -> Option<&[u8]> {
    let (Head { major, value }, mut rest) = head(bytes)?;
    if depth > MAX_DEPTH {
        return None;
    }
    match major {
        UNSIGNED | 1 => Some(rest),
        2 | TEXT => {
            let (string, rest) = rest.split_at_checked(usize::try_from(value).ok()?)?;
            (major != TEXT || std::str::from_utf8(string).is_ok()).then_some(rest)
        }
        ARRAY => {
            for _ in 0..value {
                rest = item(rest, depth + 1)?;
            }
            Some(rest)
        }
        MAP => {
            let mut before: &[u8] = &[];
            for _ in 0..value {
                let after = item(rest, depth + 1)?;
                let key = &rest[..rest.len() - after.len()];
                if key <= before {
                    return None;
                }
                before = key;
                rest = item(after, depth + 1)?;
            }
            Some(rest)
        }
        7 if (20..=22).contains(&value) && bytes[0] & 31 < 24 => Some(rest),
        _ => None,
    }
}

/// The names of an enumeration's variants, in the order of their numbers. An enumeration hands them to whatever
/// it is read from, so it is read from something that keeps them and has nothing else.
fn variants<'a, T: Deserialize<'a>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

struct Names<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Refused;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Refused> {
        *self.0 = variants;
        Err(Refused::custom("nothing is here but names"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        Err(Refused::custom("not an enumeration"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{self, Bytes};
    use crate::message::{Gossip, Repair};

    #[test]
    fn an_enumeration_names_its_variants_in_order() {
        assert_eq!(variants::<Gossip>(), ["Commit", "Announce", "Statement"]);
        assert_eq!(variants::<Repair>()[..3], ["Hello", "Same", "Differs"]);
    }

    #[test]
    fn a_variant_that_is_not_here_is_told_from_a_malformed_one() {
        let unknown = is_unknown_variant::<Gossip>;
        // {"Later": h'01'}, and a number beyond those here.
        assert!(unknown(b"\xa1\x65Later\x41\x01"));
        assert!(unknown(&[3]) && unknown(&[0x18, 200]));
        // One that is here, with content or without.
        assert!(!unknown(&codec::encode(&Gossip::Commit(Bytes(vec![1])))));
        assert!(!unknown(&[2]) && !unknown(b"\xa1\x66Commit\x01"));
        // Not whole, not in canonical form, not a variant at all.
        for bad in [
            &b"\xa1\x65Later\x41"[..],
            b"\xa1\x65Later\x41\x01\x00",
            b"\xb8\x01\x65Later\x41\x01",
            b"\xa1\x65Later\x58\x01\x01",
            b"\xa1\x65Later\x9f\xff",
            b"\xa1\x65Later\xc0\x01",
            b"\xa1\x65\xff\xff\xff\xff\xff\x01",
            b"\xa2\x61a\x01\x61b\x01",
            b"\x81\x01",
            b"\x18\x03",
            b"",
        ] {
            assert!(!unknown(bad), "{bad:02x?}");
        }
        let deep = [b"\xa1\x65Later".as_slice(), &[0x81; 100], &[0]].concat();
        assert!(!unknown(&deep));
    }

    #[test]
    fn only_a_higher_number_at_the_front_is_a_later_version() {
        assert_eq!(version(&[0x82, VERSION + 1, 0]), Some(VERSION + 1));
        assert_eq!(version(&[0x82, 0x19, 1, 0, 0]), Some(u8::MAX));
        assert_eq!(version(&[0x82, VERSION, 0]), None);
        assert_eq!(version(&[0x82, VERSION + 1]), None);
        assert_eq!(version(&[0x82, VERSION + 1, 0, 0]), None);
    }

    #[test]
    fn a_tuple_is_parted_before_its_last_field() {
        let (place, last) = split_last(&[0x83, 1, 0x41, 9, 7]).expect("a tuple");
        assert_eq!((&place[..], last), (&[0x82, 1, 0x41, 9][..], &[7][..]));
        assert_eq!(split_last(&[0x83, 1, 0x41, 9]), None);
        assert_eq!(split_last(&[0x83, 1, 0x41, 9, 7, 7]), None);
    }
}
