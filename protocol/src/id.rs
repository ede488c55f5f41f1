//! Identifiers and their text forms: devices, swarms, logs, hashes, versions.
//!
//! Text is lower-case base32 without padding (RFC 4648): safe in file names, chat messages and shells.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::tuple_codec;

/// Writes bytes in the project's text form.
#[must_use]
pub fn to_text(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// Reads the project's text form; `None` if it is not that.
#[must_use]
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()
}

/// Text that does not name an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct BadId(&'static str);

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps raw bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first ten characters of the text form: enough to tell the members of a swarm apart.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = to_text(&self.0);
                text.truncate(10);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_text(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let bytes = from_text(text).ok_or(BadId($word))?;
                Ok(Self(bytes.try_into().map_err(|_| BadId($word))?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                crate::codec::fixed_bytes(d).map(Self)
            }
        }
    };
}

bytes_id!(
    /// A device: its Ed25519 public key. Its libp2p peer id is derived from the same key.
    DeviceId, 32, "device id"
);
bytes_id!(
    /// A swarm: the BLAKE3 hash of its signed genesis.
    SwarmId, 32, "swarm id"
);
bytes_id!(
    /// A 32-byte BLAKE3 hash.
    Hash, 32, "hash"
);
bytes_id!(
    /// The first 8 bytes of a hash, where naming one thing among few is enough.
    Hash8, 8, "short hash"
);

impl Hash {
    /// The first 8 bytes.
    #[must_use]
    pub fn short8(&self) -> Hash8 {
        let mut out = [0; 8];
        out.copy_from_slice(&self.0[..8]);
        Hash8(out)
    }
}

/// One author's log in one epoch. `shard` is 0 until placement exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The device that signs this log.
    pub author: DeviceId,
    /// A new one, above all before it, is opened when the old log cannot safely go on. Its low 32 bits are
    /// random, so that two copies of one device do not open the same.
    pub epoch: u64,
    /// Reserved for partial replication: 0.
    pub shard: u16,
}
tuple_codec!(LogId { author, epoch, shard });

impl LogId {
    /// Length of [`LogId::to_bytes`].
    pub const LEN: usize = 42;

    /// Fixed-width big-endian form: byte order equals `Ord`, so that stores can use it as a key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..32].copy_from_slice(self.author.as_bytes());
        out[32..40].copy_from_slice(&self.epoch.to_be_bytes());
        out[40..].copy_from_slice(&self.shard.to_be_bytes());
        out
    }

    /// Reads [`LogId::to_bytes`] back.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let (author, rest) = bytes.split_at(32);
        let (mut id, mut epoch) = ([0; 32], [0; 8]);
        id.copy_from_slice(author);
        epoch.copy_from_slice(&rest[..8]);
        Self {
            author: DeviceId(id),
            epoch: u64::from_be_bytes(epoch),
            shard: u16::from_be_bytes([rest[8], rest[9]]),
        }
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.author.short(), self.epoch)
    }
}

/// One history of a log, as this replica keeps it. A log has one, unless its author signed two that
/// cannot follow from each other (a fork); for a while there is a second when a log is fetched afresh.
/// The number is this replica's own affair and never travels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchId {
    /// The log.
    pub log: LogId,
    /// Tells this log's histories apart here.
    pub number: u16,
}

impl BranchId {
    /// Length of [`BranchId::to_bytes`].
    pub const LEN: usize = LogId::LEN + 2;

    /// Fixed-width big-endian form: byte order equals `Ord`, so that stores can use it as a key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..LogId::LEN].copy_from_slice(&self.log.to_bytes());
        out[LogId::LEN..].copy_from_slice(&self.number.to_be_bytes());
        out
    }

    /// Reads [`BranchId::to_bytes`] back.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut log = [0; LogId::LEN];
        log.copy_from_slice(&bytes[..LogId::LEN]);
        let number = u16::from_be_bytes([bytes[LogId::LEN], bytes[LogId::LEN + 1]]);
        Self { log: LogId::from_bytes(&log), number }
    }
}

impl From<LogId> for BranchId {
    fn from(log: LogId) -> Self {
        Self { log, number: 0 }
    }
}

impl fmt::Debug for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => write!(f, "{:?}", self.log),
            number => write!(f, "{:?}#{number}", self.log),
        }
    }
}

/// Names one write exactly: its log, its sequence number there, and the start of its hash.
///
/// Naming by hash makes a claim about a write that does not exist yet infeasible.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// The log that holds the write.
    pub log: LogId,
    /// Sequence number in that log, from 1.
    pub seq: u64,
    /// Start of the operation's hash.
    pub hash: Hash8,
}
tuple_codec!(Version { log, seq, hash });

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(LogId::LEN + 16);
        bytes.extend_from_slice(&self.log.to_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(self.hash.as_bytes());
        f.write_str(&to_text(&bytes))
    }
}

impl FromStr for Version {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        const BAD: BadId = BadId("version");
        let bytes: [u8; LogId::LEN + 16] =
            from_text(text).ok_or(BAD)?.try_into().map_err(|_| BAD)?;
        let mut log = [0; LogId::LEN];
        let mut seq = [0; 8];
        let mut hash = [0; 8];
        log.copy_from_slice(&bytes[..LogId::LEN]);
        seq.copy_from_slice(&bytes[LogId::LEN..LogId::LEN + 8]);
        hash.copy_from_slice(&bytes[LogId::LEN + 8..]);
        Ok(Self { log: LogId::from_bytes(&log), seq: u64::from_be_bytes(seq), hash: Hash8(hash) })
    }
}
