//! Signed headers: what an author signs, and the one predicate that says whether it may be taken.
//! Unsigned → signed → verified are different types.

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, Domain, PublicKey};
use crate::io::Blame;
use crate::limits::{MAX_HEADER, VERSION};
use crate::model::id::{DeviceId, Hash, LogId, SwarmId};
use crate::model::op::{BadOp, Slot};
use crate::plant::{self, Plant};
use crate::roster::{Right, Role, Roster, Sealed};
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

/// The one predicate on what a header may claim, asked on the live path and in repair alike: what an honest
/// replica can hold, every honest replica takes. It depends on the header and the grant that it cites, and
/// on nothing else that is known here.
fn admissible(header: &Header, right: &Right) -> Result<(), BadCommit> {
    if right.device != header.log.author {
        return Err(BadCommit::NotGranted("it was given to another device"));
    }
    if right.role < Role::Writer {
        return Err(BadCommit::NotGranted("a reader may not write"));
    }
    if right.max_bytes.is_some_and(|max| header.live_bytes > max) && !plant::is(Plant::NoQuota) {
        return Err(BadCommit::OverQuota(header.log.author));
    }
    Ok(())
}

/// The same for an operation of a log that is written under this grant.
///
/// # Errors
/// When the grant does not cover its key.
pub(crate) fn admissible_slot(right: &Right, slot: &Slot) -> Result<(), BadCommit> {
    if slot.op.cell.key.starts_with(&right.prefix) || plant::is(Plant::NoPrefix) {
        Ok(())
    } else {
        Err(BadCommit::NotGranted("key outside its prefix"))
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
        let header: Header = codec::decode(&sealed.body)?;
        header.check_form()?;
        Ok(Self { header, sealed, bytes: bytes.into() })
    }

    /// What it claims. Nothing of it is proven yet.
    #[must_use]
    pub fn claim(&self) -> &Header {
        &self.header
    }

    /// Its hash, if the owner of this key signed it. Says nothing of rights.
    pub(crate) fn signed_by(&self, key: &PublicKey) -> Option<Hash> {
        let genuine = key.verifies(Domain::Commit, &self.sealed.body, &self.sealed.sig);
        genuine.then(|| crypto::hash(Domain::Header, &[&self.bytes]))
    }

    /// Checks swarm, grant, cut and signature, in this order.
    ///
    /// # Errors
    /// Says which check failed; [`BadCommit::blame`] says who is to blame.
    pub fn verify(self, roster: &Roster) -> Result<VerifiedHeader, BadCommit> {
        let header = &self.header;
        if header.swarm != roster.swarm() {
            return Err(BadCommit::Swarm);
        }
        let right = roster.right(&header.grant).ok_or(BadCommit::UnknownGrant)?;
        admissible(header, right)?;
        let genuine = right.key.verifies(Domain::Commit, &self.sealed.body, &self.sealed.sig);
        if !genuine && !plant::is(Plant::SkipSignature) {
            return Err(BadCommit::Signature);
        }
        let header = VerifiedHeader::seal(self.header, self.bytes);
        // Last: who does not know of the revocation cannot know this, so nobody is blamed for it, and
        // whoever is not genuine is blamed for that first.
        if roster.admits(&header) { Ok(header) } else { Err(BadCommit::Revoked) }
    }
}

/// A header that its author signed, under a grant that allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedHeader {
    header: Header,
    bytes: Bytes,
    hash: Hash,
}

impl VerifiedHeader {
    pub(super) fn seal(header: Header, bytes: Bytes) -> Self {
        let hash = crypto::hash(Domain::Header, &[&bytes]);
        Self { header, bytes, hash }
    }

    /// Reads back a header that was verified before it was stored.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    pub fn from_store(bytes: &[u8]) -> Result<Self, BadCommit> {
        let signed = SignedHeader::decode(bytes)?;
        Ok(Self::seal(signed.header, signed.bytes))
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The signed bytes as received.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The hash that chains and names this header.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }
}
