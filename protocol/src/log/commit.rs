//! Commits: operations that one author signed together. Unsigned → signed → verified are different
//! types, and only a verified one can be applied.

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, DeviceKey, Domain, PublicKey, Sig};
use crate::id::{Hash, LogId, SwarmId, Version};
use crate::limits::{MAX_HEADER, MAX_RANGES, MAX_TX_BYTES, MAX_TX_OPS, VERSION};
use crate::op::{BadOp, Op, Slot};
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
    /// Sequence numbers given up by this commit: ascending, disjoint, inclusive ranges.
    pub retired: Vec<(u64, u64)>,
    /// All slots that expire at or before this Unix millisecond are given up.
    pub expired_upto: Option<u64>,
    /// The author's earlier log that this one continues, at its last write.
    pub closes: Option<Version>,
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
    retired,
    expired_upto,
    closes,
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
    /// It lies beyond the place where a revocation ends its log.
    #[error("its author was revoked before it")]
    Revoked,
}

impl BadCommit {
    /// Whether every honest node would refuse this, whatever its state: then the sender is to blame.
    #[must_use]
    pub fn damning(&self) -> bool {
        !matches!(self, Self::Version(_) | Self::UnknownGrant | Self::Revoked)
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
            return Err(BadCommit::Form("shard"));
        }
        if !ranges_ascend(&self.retired, self.first_seq() - 1) {
            return Err(BadCommit::Form("retired ranges"));
        }
        Ok(())
    }
}

/// Whether inclusive ranges ascend, do not touch each other and stay within `1..=last`.
pub(crate) fn ranges_ascend(ranges: &[(u64, u64)], last: u64) -> bool {
    let ordered = ranges.iter().all(|(a, b)| 1 <= *a && a <= b && *b <= last);
    let apart = ranges.windows(2).all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
    ranges.len() <= MAX_RANGES && ordered && apart
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
    /// Says which check failed; [`BadCommit::damning`] says whether the sender is to blame.
    pub fn verify(self, roster: &Roster) -> Result<VerifiedHeader, BadCommit> {
        let header = &self.header;
        if header.swarm != roster.swarm() {
            return Err(BadCommit::Swarm);
        }
        let right = roster.right(&header.grant).ok_or(BadCommit::UnknownGrant)?;
        if right.device != header.log.author {
            return Err(BadCommit::NotGranted("it was given to another device"));
        }
        if right.role < Role::Writer {
            return Err(BadCommit::NotGranted("a reader may not write"));
        }
        if right.max_bytes.is_some_and(|max| header.live_bytes > max) {
            return Err(BadCommit::NotGranted("quota exceeded"));
        }
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
    fn seal(header: Header, bytes: Bytes) -> Self {
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

/// A commit on the wire. Of the signed header it leaves out what the receiver knows or can tell: the swarm,
/// and the hash of the operations. A false one of either makes a header that nobody has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CommitWire {
    /// The header's body up to the hash of the operations, without the swarm.
    before: Bytes,
    /// The header's body after that hash.
    after: Bytes,
    sig: Sig,
    ops: Vec<Bytes>,
}
tuple_codec!(CommitWire { before, after, sig, ops });

/// Where the swarm stands in a header's body: after the tuple's head and the version.
const SWARM_AT: usize = 2;

/// A signed header and its operations as they travel.
///
/// # Errors
/// When the bytes are no header.
pub fn pack(header: &[u8], ops: Vec<Bytes>) -> Result<Vec<u8>, CodecError> {
    let Sealed { body, sig } = codec::decode(header)?;
    let header: Header = codec::decode(&body)?;
    let Header { live_root, live_count, live_bytes, retired, expired_upto, closes, .. } = &header;
    let after = (live_root, live_count, live_bytes, retired, expired_upto, closes);
    // Its own tuple has a head, which the body has not.
    let (rest, after) = body.split_at(body.len() + 1 - codec::encode(&after).len());
    let before = &rest[..rest.len() - codec::encode(&header.ops_hash).len()];
    let middle = &before[SWARM_AT + codec::encode(&header.swarm).len()..];
    let before = Bytes([&before[..SWARM_AT], middle].concat());
    Ok(codec::encode(&CommitWire { before, after: after.into(), sig, ops }))
}

/// The other way round: what was packed in `swarm`. Nothing of it is proven.
///
/// # Errors
/// When the bytes are not canonical.
pub fn unpack(bytes: &[u8], swarm: SwarmId) -> Result<(Bytes, Vec<Bytes>), BadCommit> {
    let CommitWire { before, after, sig, ops } = codec::decode(bytes)?;
    let cut = before.split_at_checked(SWARM_AT);
    let (front, middle) = cut.ok_or(BadCommit::Form("header"))?;
    let (swarm, ops_hash) = (codec::encode(&swarm), codec::encode(&ops_hash(&ops)));
    let body = Bytes([front, &swarm, middle, &ops_hash, &after].concat());
    Ok((Bytes(codec::encode(&Sealed { body, sig })), ops))
}

fn ops_hash(ops: &[Bytes]) -> Hash {
    let mut h = crypto::hasher(Domain::Ops);
    for op in ops {
        h.update(&(op.len() as u64).to_be_bytes());
        h.update(op);
    }
    Hash::new(*h.finalize().as_bytes())
}

/// A commit whose form is right and whose signature nobody has looked at yet.
#[derive(Clone, Debug)]
pub struct SignedCommit {
    header: SignedHeader,
    slots: Vec<(Slot, Bytes)>,
}

impl SignedCommit {
    /// Decodes a commit of this swarm and checks size and form.
    ///
    /// # Errors
    /// When the bytes are no commit of this protocol version.
    pub fn decode(bytes: &[u8], swarm: SwarmId) -> Result<Self, BadCommit> {
        if bytes.len() > MAX_TX_BYTES + MAX_HEADER + 16 * MAX_TX_OPS {
            return Err(BadCommit::TooLarge(bytes.len()));
        }
        let (header, ops) = unpack(bytes, swarm)?;
        let header = SignedHeader::decode(&header)?;
        let claim = header.claim();
        if ops.len() != claim.count as usize || ops.len() > MAX_TX_OPS {
            return Err(BadCommit::Form("number of operations"));
        }
        let slots = (claim.first_seq()..)
            .zip(ops)
            .map(|(seq, bytes)| {
                let op = Op::decode(&claim.log, &bytes)?;
                let size = bytes.len();
                Ok((Slot { log: claim.log, seq, hlc: claim.hlc, op, size }, bytes))
            })
            .collect::<Result<_, BadOp>>()?;
        Ok(Self { header, slots })
    }

    /// What its header claims.
    #[must_use]
    pub fn claim(&self) -> &Header {
        self.header.claim()
    }

    /// Checks swarm, grant (each key's prefix too) and signature.
    ///
    /// # Errors
    /// As [`SignedHeader::verify`].
    pub fn verify(self, roster: &Roster) -> Result<VerifiedCommit, BadCommit> {
        if let Some(right) = roster.right(&self.claim().grant) {
            self.slots.iter().try_for_each(|(slot, _)| check_prefix(right, slot))?;
        }
        let header = self.header.verify(roster)?;
        Ok(VerifiedCommit { header, slots: self.slots })
    }
}

/// Whether a grant covers a slot's key.
///
/// # Errors
/// When it does not.
pub(crate) fn check_prefix(right: &Right, slot: &Slot) -> Result<(), BadCommit> {
    if slot.op.key.starts_with(&right.prefix) {
        Ok(())
    } else {
        Err(BadCommit::NotGranted("key outside its prefix"))
    }
}

/// A commit that is genuine and allowed. Its place in the log and live root are still to be checked.
#[derive(Clone, Debug)]
pub struct VerifiedCommit {
    header: VerifiedHeader,
    slots: Vec<(Slot, Bytes)>,
}

impl VerifiedCommit {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &VerifiedHeader {
        &self.header
    }

    /// The operations as slots, with their signed bytes.
    #[must_use]
    pub fn slots(&self) -> &[(Slot, Bytes)] {
        &self.slots
    }

    /// Length of all operations.
    #[must_use]
    pub fn ops_bytes(&self) -> usize {
        self.slots.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// The commit as it travels.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let ops = self.slots.iter().map(|(_, bytes)| bytes.clone()).collect();
        pack(&self.header.bytes, ops).expect("a verified header is one")
    }
}

/// A commit that its author is about to sign: the header's `ops_hash` is filled in here.
pub(crate) fn sign(
    key: &DeviceKey,
    mut header: Header,
    slots: Vec<(Slot, Bytes)>,
) -> VerifiedCommit {
    let ops: Vec<Bytes> = slots.iter().map(|(_, bytes)| bytes.clone()).collect();
    header.ops_hash = ops_hash(&ops);
    let body = codec::encode(&header);
    let sig: Sig = key.sign(Domain::Commit, &body);
    let bytes = codec::encode(&Sealed { body: Bytes(body), sig });
    VerifiedCommit { header: VerifiedHeader::seal(header, Bytes(bytes)), slots }
}
