//! Headers: what an author signs, and why one is not taken in. Knows nothing of who is a member: which
//! header may be taken says `log/verify.rs`. Unsigned → signed → verified are different types.

use crate::blame::Blame;
use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, Domain, PublicKey, Sealed};
use crate::id::{DeviceId, Hash, LogId, SwarmId};
use crate::later;
use crate::limits::{MAX_HEADER, VERSION};
use crate::model::op::BadOp;
use crate::plant::{self, Plant};
use crate::time::Hlc;

/// What an author signs: the commit's place in its log, and the log's live set after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol version.
    pub version: u8,
    /// The swarm.
    pub swarm: SwarmId,
    /// The grant under which the author writes.
    pub grant: Hash,
    /// The log.
    pub log: LogId,
    /// Sequence number of the last operation.
    pub last_seq: u64,
    /// Number of operations: they are `last_seq - count + 1 ..= last_seq`.
    pub count: u32,
    /// The commit's stamp, greater than any before it in this log.
    pub hlc: Hlc,
    /// Hash of this log's previous signed header; zero for the first.
    pub prev: Hash,
    /// Hash of the operations.
    pub ops_hash: Hash,
    /// Live root of the log after this commit.
    pub live_root: Hash,
    /// Slots in the log after this commit.
    pub live_count: u64,
    /// Bytes of their operations.
    pub live_bytes: u64,
    /// Hash of the roster that its author counted members under.
    pub roster: Hash,
    /// The sequence number from which this log's headers name that roster.
    pub counted_from: u64,
}
tuple_codec!(Header {
    version,
    swarm,
    grant,
    log,
    last_seq,
    count,
    hlc,
    prev,
    ops_hash,
    live_root,
    live_count,
    live_bytes,
    roster,
    counted_from,
});

/// Why a commit or header is not taken in, and whose fault that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCommit {
    /// Longer than any may be.
    #[error("commit of {0} bytes is too large")]
    TooLarge(usize),
    /// Not canonical.
    #[error("commit is {0}")]
    Codec(#[from] CodecError),
    /// Of another protocol version.
    #[error("commit has protocol version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// Of another swarm.
    #[error("commit belongs to another swarm")]
    Swarm,
    /// The header contradicts itself or its operations.
    #[error("commit is invalid: {0}")]
    Form(&'static str),
    /// An operation that nobody accepts.
    #[error("{0}")]
    Op(#[from] BadOp),
    /// The cited grant is not known here (yet).
    #[error("the grant it cites is not known here")]
    UnknownGrant,
    /// The cited grant does not allow this.
    #[error("its grant does not allow it: {0}")]
    NotGranted(&'static str),
    /// The signature is not the author's.
    #[error("signature does not verify")]
    Signature,
    /// It is over the quota of its grant: its log stays at the last header that is not.
    #[error("it goes over its author's quota")]
    OverQuota(DeviceId),
    /// Something that a later version may do: held back, and nobody is blamed.
    #[error("it has a {0} that this build does not know: an upgrade may help")]
    Later(&'static str),
    /// It lies beyond the place where a revocation ends its log.
    #[error("its author was revoked before it")]
    Revoked,
}

impl BadCommit {
    /// Who is to blame when `from` handed this over: the sender, if no honest replica of any state could
    /// hold it; for what only an author can get wrong, the author's own connection.
    #[must_use]
    pub fn blame(&self, from: &DeviceId) -> Blame {
        let sender = match self {
            Self::UnknownGrant => plant::is(Plant::PunishUnknownGrant),
            Self::Version(_) | Self::Revoked | Self::Later(_) => false,
            Self::Op(bad) => bad.by_all(),
            Self::OverQuota(author) => author == from,
            _ => true,
        };
        if sender { Blame::Sender } else { Blame::Nobody }
    }

    /// Whether it is of a later version: an upgrade would help.
    pub(crate) fn is_later(&self) -> bool {
        match self {
            Self::Version(version) => *version > VERSION,
            Self::Later(_) => true,
            Self::Op(bad) => !bad.by_all(),
            _ => false,
        }
    }
}

impl Header {
    /// Sequence number of the first operation.
    #[must_use]
    pub fn first_seq(&self) -> u64 {
        self.last_seq - u64::from(self.count) + 1
    }

    fn check_form(&self) -> Result<(), BadCommit> {
        if self.version != VERSION {
            return Err(BadCommit::Version(self.version));
        }
        if self.count == 0 || u64::from(self.count) > self.last_seq || self.last_seq == u64::MAX {
            return Err(BadCommit::Form("sequence numbers"));
        }
        if (self.first_seq() == 1) != (self.prev == Hash::default()) {
            return Err(BadCommit::Form("previous header"));
        }
        if self.log.shard != 0 {
            return Err(BadCommit::Later("shard"));
        }
        Ok(())
    }
}

/// A header with a signature nobody has looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHeader {
    header: Header,
    sealed: Sealed,
    bytes: Bytes,
}

impl SignedHeader {
    /// Decodes and checks size and form.
    ///
    /// # Errors
    /// When the bytes are no header of this protocol version.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadCommit> {
        if bytes.len() > MAX_HEADER {
            return Err(BadCommit::TooLarge(bytes.len()));
        }
        let sealed: Sealed = codec::decode(bytes)?;
        if let Some(version) = later::version(&sealed.body) {
            return Err(BadCommit::Version(version));
        }
        let header: Header = codec::decode(&sealed.body)?;
        header.check_form()?;
        Ok(Self { header, sealed, bytes: bytes.into() })
    }

    /// What it claims. Nothing of it is proven yet.
    #[must_use]
    pub fn claim(&self) -> &Header {
        &self.header
    }

    /// Whether the owner of this key signed it. Says nothing of rights.
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(Domain::Commit, &self.sealed.body, &self.sealed.sig)
    }

    /// The hash that chains and names it.
    pub(crate) fn hash(&self) -> Hash {
        crypto::hash(Domain::Header, &[&self.bytes])
    }

    /// What it claims, and its bytes as signed.
    pub(crate) fn into_parts(self) -> (Header, Bytes) {
        (self.header, self.bytes)
    }
}
