//! Operations: what one write says, and the slot it becomes in its author's log.

use serde::ser::SerializeTuple as _;
use serde::{Serialize, Serializer};

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, Domain};
use crate::id::{Hash, Hash8, LogId, Version};
use crate::limits::{MAX_CTX, MAX_FIELD, MAX_FORGET, MAX_KEY, MAX_OP, MAX_PARTS, MAX_VALUE};
use crate::model::cell::{Cell, Tag};
use crate::model::counter::{Part, parts_in_order};
use crate::plant::{self, Plant};
use crate::time::Hlc;

/// What a write does to its cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Sets the value.
    Put(Bytes),
    /// Removes what the write saw on the cell; the slot stays as a tombstone.
    Delete,
    /// This log's view of a counter: ascending parts, at most [`MAX_PARTS`].
    Counter(Vec<Part>),
    /// Until when the key is shown, in Unix milliseconds (nothing: for ever), and the values that this
    /// governs. Laid for later: nothing here writes it.
    Until(Until),
    /// The element or field is there.
    Element,
    /// Takes own slots, named exactly, out of the live set, and leaves none itself. Laid for later: a log
    /// with one stops here at the header before it, and nobody is blamed.
    Forget(Vec<Version>),
}

/// See [`Body::Until`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Until {
    /// Unix milliseconds.
    pub at: Option<u64>,
    /// The values that it governs, ascending.
    pub governs: Vec<Version>,
}
tuple_codec!(Until { at, governs });

impl Body {
    const fn number(&self) -> u8 {
        match self {
            Self::Put(_) => 0,
            Self::Delete => 1,
            Self::Counter(_) => 2,
            Self::Until(_) => 3,
            Self::Element => 4,
            Self::Forget(_) => 5,
        }
    }

    /// Everything but the number, as bytes.
    fn content(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Self::Put(value) => (&value[..]).into(),
            Self::Delete | Self::Element => Vec::new().into(),
            Self::Counter(parts) => codec::encode(parts).into(),
            Self::Until(until) => codec::encode(until).into(),
            Self::Forget(versions) => codec::encode(versions).into(),
        }
    }

    fn read(number: u8, content: Bytes) -> Result<Self, BadOp> {
        let empty = content.is_empty();
        Ok(match number {
            0 => Self::Put(content),
            1 if empty => Self::Delete,
            2 => Self::Counter(codec::decode(&content)?),
            3 => Self::Until(codec::decode(&content)?),
            4 if empty => Self::Element,
            5 => Self::Forget(codec::decode(&content)?),
            1 | 4 => return Err(BadOp::Body),
            other => return Err(BadOp::Unknown("kind of write", other)),
        })
    }
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Where it writes.
    pub cell: Cell,
    /// What is done there.
    pub body: Body,
    /// The writes of *other* logs on this cell that this one has seen, ascending: one a log, or one a
    /// history of a log that its author forked.
    pub ctx: Vec<Version>,
    /// The counter parts that this write took away, ascending.
    pub took: Vec<Part>,
    /// Unix milliseconds after which it is no longer shown.
    pub expires_at: Option<u64>,
}

/// How an operation travels: numbers in place of what later versions may add to.
struct Wire {
    key: Bytes,
    tag: u8,
    field: Option<Bytes>,
    body: u8,
    content: Bytes,
    ctx: Vec<Version>,
    took: Vec<Part>,
    expires_at: Option<u64>,
}
tuple_codec!(Wire { key, tag, field, body, content, ctx, took, expires_at });

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Raw<'a>(&'a [u8]);
        impl Serialize for Raw<'_> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_bytes(self.0)
            }
        }
        let mut tuple = s.serialize_tuple(8)?;
        tuple.serialize_element(&self.cell.key)?;
        tuple.serialize_element(&(self.cell.tag as u8))?;
        tuple.serialize_element(&self.cell.field)?;
        tuple.serialize_element(&self.body.number())?;
        tuple.serialize_element(&Raw(&self.body.content()))?;
        tuple.serialize_element(&self.ctx)?;
        tuple.serialize_element(&self.took)?;
        tuple.serialize_element(&self.expires_at)?;
        tuple.end()
    }
}

/// An operation that is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOp {
    /// Longer than any operation may be.
    #[error("operation of {0} bytes is too large")]
    TooLarge(usize),
    /// Not the canonical encoding of an operation.
    #[error("operation {0}")]
    Codec(#[from] CodecError),
    /// The key is empty or longer than [`MAX_KEY`].
    #[error("key of {0} bytes (1 to {MAX_KEY} are allowed)")]
    Key(usize),
    /// A field where there is none, none where there is one, or one longer than [`MAX_FIELD`].
    #[error("field does not fit its cell (at most {MAX_FIELD} bytes)")]
    Field,
    /// The value is longer than [`MAX_VALUE`].
    #[error("value of {0} bytes (at most {MAX_VALUE} are allowed)")]
    Value(usize),
    /// The body does not fit its cell, or holds what such a body has not.
    #[error("body does not fit its cell")]
    Body,
    /// The context is too long, out of order, or names its own log.
    #[error("context is not a short ascending list of other logs' writes")]
    Context,
    /// Counter parts are too many or out of order.
    #[error("counter parts are not a short ascending list")]
    Parts,
    /// Of a later version: held back, and nobody is blamed.
    #[error("{0} number {1} is not known to this build: an upgrade may help")]
    Unknown(&'static str, u8),
}

impl BadOp {
    /// Whether every honest replica of any version would refuse it.
    #[must_use]
    pub const fn by_all(&self) -> bool {
        !matches!(self, Self::Unknown(..))
    }
}

impl Op {
    /// Decodes and checks everything that does not depend on a replica's state.
    ///
    /// # Errors
    /// When an honest replica would not take the bytes; [`BadOp::by_all`] says whether any would.
    pub fn decode(log: &LogId, bytes: &[u8]) -> Result<Self, BadOp> {
        if bytes.len() > MAX_OP {
            return Err(BadOp::TooLarge(bytes.len()));
        }
        let op = Self::read(bytes)?;
        op.check(log)?;
        Ok(op)
    }

    /// Decodes an operation and checks its form alone.
    ///
    /// # Errors
    /// When the bytes are not its canonical encoding.
    pub fn read(bytes: &[u8]) -> Result<Self, BadOp> {
        Self::open(codec::decode(bytes)?)
    }

    /// Decodes an operation that was checked before it was stored.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self, BadOp> {
        Self::open(codec::decode_stored(bytes)?)
    }

    fn open(wire: Wire) -> Result<Self, BadOp> {
        let tag = Tag::from_number(wire.tag).ok_or(BadOp::Unknown("kind of cell", wire.tag))?;
        let cell = Cell { key: wire.key, tag, field: wire.field };
        let body = Body::read(wire.body, wire.content)?;
        Ok(Self { cell, body, ctx: wire.ctx, took: wire.took, expires_at: wire.expires_at })
    }

    /// The checks of [`Op::decode`] on what a user asks for.
    ///
    /// # Errors
    /// As [`Op::decode`].
    pub fn check_parts(cell: &Cell, value: Option<&[u8]>) -> Result<(), BadOp> {
        if cell.key.is_empty() || cell.key.len() > MAX_KEY {
            return Err(BadOp::Key(cell.key.len()));
        }
        if !cell.fits() {
            return Err(BadOp::Field);
        }
        match value {
            Some(value) if value.len() > MAX_VALUE => Err(BadOp::Value(value.len())),
            _ => Ok(()),
        }
    }

    /// The checks of [`Op::decode`] on an operation at hand.
    ///
    /// # Errors
    /// As [`Op::decode`].
    pub fn check(&self, log: &LogId) -> Result<(), BadOp> {
        let value = match &self.body {
            Body::Put(value) => Some(&value[..]),
            _ => None,
        };
        Self::check_parts(&self.cell, value)?;
        let fits = match (&self.body, self.cell.tag) {
            (Body::Put(_) | Body::Counter(_), tag) => tag.has_values(),
            (Body::Delete, _) => true,
            (Body::Until(until), tag) => {
                tag == Tag::Ttl && until.governs.len() <= MAX_CTX && ascends(&until.governs)
            }
            (Body::Element, tag) => tag == Tag::Set,
            (Body::Forget(own), _) => {
                let mine = own.iter().all(|version| version.log == *log);
                mine && (1..=MAX_FORGET).contains(&own.len()) && ascends(own)
            }
        };
        if !fits {
            return Err(BadOp::Body);
        }
        if matches!(self.body, Body::Forget(_)) {
            return Err(BadOp::Unknown("kind of write", self.body.number()));
        }
        let foreign = self.ctx.iter().all(|version| version.log != *log);
        if self.ctx.len() > MAX_CTX || !ascends(&self.ctx) || !foreign {
            return Err(BadOp::Context);
        }
        let parts = match &self.body {
            Body::Counter(parts) => parts_in_order(parts),
            _ => true,
        };
        if parts && parts_in_order(&self.took) { Ok(()) } else { Err(BadOp::Parts) }
    }
}

fn ascends(versions: &[Version]) -> bool {
    versions.windows(2).all(|pair| pair[0] < pair[1])
}

const _: () = assert!(MAX_FORGET <= MAX_CTX && MAX_PARTS <= MAX_CTX);

/// Version of the form in which a slot is hashed.
const FORM: u8 = 1;

/// A log's latest operation on one cell, as it is stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The log.
    pub log: LogId,
    /// The operation's place in it.
    pub seq: u64,
    /// Stamp of the commit that carried it.
    pub hlc: Hlc,
    /// The operation.
    pub op: Op,
    /// Length of the operation's encoding: what it counts towards `live_bytes`.
    pub size: usize,
}

impl Slot {
    /// Expands everything that has meaning in this slot. The first 32 bytes are its hash, of which the
    /// first 8 name the write; the live root sums 2,048 of them, so a proven root proves every name.
    pub(crate) fn expand(&self) -> blake3::OutputReader {
        let op = &self.op;
        let body: Hash = crypto::hash(Domain::Content, &[&[op.body.number()], &op.body.content()]);
        let nothing = Vec::new();
        let ctx = if plant::is(Plant::RootWithoutContext) { &nothing } else { &op.ctx };
        let rest = codec::encode(&(ctx, &op.took, op.expires_at));
        let content = crypto::hash(Domain::Content, &[body.as_bytes(), &rest]);
        let cell = crypto::hash(Domain::Key, &[&op.cell.index_key()]);
        let mut h = crypto::hasher(Domain::Slot);
        h.update(&[FORM]);
        h.update(&self.log.to_bytes());
        h.update(&self.seq.to_be_bytes());
        h.update(&self.hlc.0.to_be_bytes());
        h.update(cell.as_bytes());
        h.update(content.as_bytes());
        h.finalize_xof()
    }

    /// The hash of everything that has meaning in it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut hash = [0; 32];
        self.expand().fill(&mut hash);
        Hash::new(hash)
    }

    /// The exact name of this write.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut hash = [0; 8];
        self.expand().fill(&mut hash);
        Version { log: self.log, seq: self.seq, hash: Hash8::new(hash) }
    }

    /// Whether it is past its time at Unix millisecond `wall`.
    #[must_use]
    pub fn expired(&self, wall: u64) -> bool {
        self.op.expires_at.is_some_and(|at| at <= wall)
    }
}

/// The index key of an encoded operation's cell, without a look at the rest of it.
#[must_use]
pub fn index_key_of(op: &[u8]) -> Option<Bytes> {
    let (key, rest) = byte_string(op.get(1..)?)?;
    let (tag, rest) = rest.split_first()?;
    let tag = Tag::from_number(*tag)?;
    let field = match rest.first()? {
        0xf6 => None,
        _ => Some(byte_string(rest)?.0.into()),
    };
    Some(Cell { key: key.into(), tag, field }.index_key())
}

/// A CBOR byte string and what follows it; its length stands in its head or in one or two bytes after it.
fn byte_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match bytes {
        [head @ 0x40..=0x57, rest @ ..] => (usize::from(head - 0x40), rest),
        [0x58, len, rest @ ..] => (usize::from(*len), rest),
        [0x59, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(len)
}
