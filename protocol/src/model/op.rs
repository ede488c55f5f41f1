//! Operations: what one write says, and the slot it becomes in its author's log.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, Domain};
use crate::id::{Hash, Hash8, LogId, Version};
use crate::limits::{MAX_CTX, MAX_KEY, MAX_OP, MAX_VALUE};
use crate::plant::{self, Plant};
use crate::time::Hlc;

/// A counter's totals as one log has added them up. Totals, not steps: a repeated or replaced slot
/// counts once (the PN-counter of Shapiro et al., 2011).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counter {
    /// Sum of what was added.
    pub up: u64,
    /// Sum of what was taken away.
    pub down: u64,
}
tuple_codec!(Counter { up, down });

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Sets the value.
    Put(Bytes),
    /// Removes the key; the slot stays as a tombstone.
    Delete,
    /// Sets this log's part of a counter.
    Counter(Counter),
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The user's key.
    pub key: Bytes,
    /// What is done to it.
    pub body: Body,
    /// The writes of *other* logs on this key that this one overwrites, ascending, each named exactly.
    pub ctx: Vec<Version>,
    /// Unix milliseconds after which the value is no longer shown.
    pub expires_at: Option<u64>,
}
tuple_codec!(Op { key, body, ctx, expires_at });

/// The key of an encoded operation, without a look at the rest of it.
#[must_use]
pub fn key_of(op: &[u8]) -> Option<&[u8]> {
    // After the tuple's head: a byte string, its length in the head or in one or two bytes after it.
    let (len, rest) = match op.get(1..)? {
        [head @ 0x40..=0x57, rest @ ..] => (usize::from(head - 0x40), rest),
        [0x58, len, rest @ ..] => (usize::from(*len), rest),
        [0x59, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.get(..len)
}

/// An operation that every honest replica refuses, whatever its state.
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
    /// The value is longer than [`MAX_VALUE`].
    #[error("value of {0} bytes (at most {MAX_VALUE} are allowed)")]
    Value(usize),
    /// The context is too long, out of order, or names its own log.
    #[error("context is not a short ascending list of other logs' writes")]
    Context,
}

impl Op {
    /// Decodes and checks everything that does not depend on a replica's state.
    ///
    /// # Errors
    /// When any honest replica would refuse the bytes.
    pub fn decode(log: &LogId, bytes: &[u8]) -> Result<Self, BadOp> {
        if bytes.len() > MAX_OP {
            return Err(BadOp::TooLarge(bytes.len()));
        }
        let op: Self = codec::decode(bytes)?;
        op.check(log)?;
        Ok(op)
    }

    /// The checks of [`Op::decode`] on what a user asks for.
    ///
    /// # Errors
    /// As [`Op::decode`].
    pub fn check_parts(key: &[u8], body: &Body) -> Result<(), BadOp> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(BadOp::Key(key.len()));
        }
        match body {
            Body::Put(value) if value.len() > MAX_VALUE => Err(BadOp::Value(value.len())),
            _ => Ok(()),
        }
    }

    /// The checks of [`Op::decode`] on an operation at hand.
    ///
    /// # Errors
    /// As [`Op::decode`].
    pub fn check(&self, log: &LogId) -> Result<(), BadOp> {
        Self::check_parts(&self.key, &self.body)?;
        let ascending = self.ctx.windows(2).all(|pair| pair[0] < pair[1]);
        let foreign = self.ctx.iter().all(|version| version.log != *log);
        if self.ctx.len() > MAX_CTX || !ascending || !foreign {
            return Err(BadOp::Context);
        }
        Ok(())
    }
}

/// A log's latest operation on one key, as it is stored and sent.
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
    /// Expands everything that has meaning in this slot. The first 8 bytes name the write; the live
    /// root sums 2,048 of them, so a proven root proves every name as well.
    pub(crate) fn expand(&self) -> blake3::OutputReader {
        let body = codec::encode(&self.op.body);
        let nothing = Vec::new();
        let named = if plant::is(Plant::RootWithoutContext) { &nothing } else { &self.op.ctx };
        let rest = codec::encode(&(named, self.op.expires_at));
        let body: Hash = crypto::hash(Domain::Content, &[&body]);
        let content = crypto::hash(Domain::Content, &[body.as_bytes(), &rest]);
        let key = crypto::hash(Domain::Key, &[&self.op.key]);
        let mut h = crypto::hasher(Domain::Slot);
        h.update(&self.log.to_bytes());
        h.update(&self.seq.to_be_bytes());
        h.update(&self.hlc.0.to_be_bytes());
        h.update(key.as_bytes());
        h.update(content.as_bytes());
        h.finalize_xof()
    }

    /// The exact name of this write.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut hash = [0; 8];
        self.expand().fill(&mut hash);
        Version { log: self.log, seq: self.seq, hash: Hash8::new(hash) }
    }

    /// Whether the value is past its time.
    #[must_use]
    pub fn expired(&self, wall: u64) -> bool {
        self.op.expires_at.is_some_and(|at| at <= wall)
    }
}
