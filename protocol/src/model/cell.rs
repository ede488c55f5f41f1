//! Cells: the places that writes go to. A key has one for its value, one for its expiry, and one for each
//! element of a set and each field of a map, so that a large collection costs one small write a change.

use crate::codec::Bytes;
use crate::limits::{MAX_FIELD, MAX_KEY};

/// What a cell of a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tag {
    /// The key's value or counter.
    Value = 0,
    /// Until when the key is shown.
    Ttl = 1,
    /// An element of the key's set.
    Set = 2,
    /// A field of the key's map.
    Map = 3,
}

impl Tag {
    /// The tag with this number; `None`: one of a later version.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Value,
            1 => Self::Ttl,
            2 => Self::Set,
            3 => Self::Map,
            _ => return None,
        })
    }

    /// Whether values and counters stand in cells with this tag.
    #[must_use]
    pub const fn has_values(self) -> bool {
        matches!(self, Self::Value | Self::Map)
    }

    /// Whether cells with this tag are told apart by a field.
    #[must_use]
    pub const fn has_field(self) -> bool {
        matches!(self, Self::Set | Self::Map)
    }
}

/// Names one cell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// The user's key.
    pub key: Bytes,
    /// What the cell is for.
    pub tag: Tag,
    /// The element of a set, or the field of a map.
    pub field: Option<Bytes>,
}

/// Ends the escaped key in an index key: less than anything that may follow a zero byte in it.
const END: [u8; 2] = [0, 1];
/// Stands after a zero byte of the key.
const ZERO: u8 = 0xff;

/// A user's key so that byte order and prefixes survive when something is put after it: a zero byte becomes
/// two. The escaped form of a prefix is a prefix of the escaped form.
#[must_use]
pub fn escape(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 4);
    for byte in key {
        out.push(*byte);
        if *byte == 0 {
            out.push(ZERO);
        }
    }
    out
}

impl Cell {
    /// The cell of a key's value.
    #[must_use]
    pub fn value(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), tag: Tag::Value, field: None }
    }

    /// Whether key and field have lengths that any replica takes.
    #[must_use]
    pub fn fits(&self) -> bool {
        let key = (1..=MAX_KEY).contains(&self.key.len());
        let field = match &self.field {
            None => !self.tag.has_field(),
            Some(field) => self.tag.has_field() && field.len() <= MAX_FIELD,
        };
        key && field
    }

    /// The name under which stores file this cell: `escape(key) ‖ 00 01 ‖ tag ‖ field`. Keys sort as they do
    /// by themselves, and all cells of a key stand together.
    #[must_use]
    pub fn index_key(&self) -> Bytes {
        let mut out = escape(&self.key);
        out.extend(END);
        out.push(self.tag as u8);
        out.extend_from_slice(self.field.as_deref().unwrap_or_default());
        Bytes(out)
    }

    /// Reads [`Cell::index_key`] back; `None` if it is none.
    #[must_use]
    pub fn from_index_key(bytes: &[u8]) -> Option<Self> {
        let mut key = Vec::with_capacity(bytes.len());
        let mut rest = bytes.iter().copied().enumerate();
        let end = loop {
            match rest.next()? {
                (_, 0) => match rest.next()? {
                    (_, ZERO) => key.push(0),
                    (at, 1) => break at + 1,
                    _ => return None,
                },
                (_, byte) => key.push(byte),
            }
        };
        let (number, field) = bytes[end..].split_first()?;
        let tag = Tag::from_number(*number)?;
        let field = tag.has_field().then(|| Bytes::from(field));
        Some(Self { key: Bytes(key), tag, field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_keys_keep_the_order_and_prefixes_of_keys_and_read_back() {
        let keys: [&[u8]; 7] = [b"a", b"a\0", b"a\0\0", b"a\0b", b"a\x01", b"ab", b"b"];
        for pair in keys.windows(2) {
            let [x, y] = [pair[0], pair[1]].map(|key| Cell::value(key).index_key());
            assert!(x < y, "{x:?} {y:?}");
        }
        for key in keys {
            for prefix in 0..=key.len() {
                assert!(Cell::value(key).index_key().starts_with(&escape(&key[..prefix])));
            }
            let fields = [None, Some(Bytes::default()), Some(Bytes::from(&b"f\0\x01"[..]))];
            for (tag, field) in [Tag::Value, Tag::Set, Tag::Map].into_iter().zip(fields) {
                let cell = Cell { key: key.into(), tag, field };
                assert_eq!(Cell::from_index_key(&cell.index_key()), Some(cell));
            }
        }
    }
}
