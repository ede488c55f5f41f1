//! Commits: operations that one author signed together, and how they travel. Only a verified one can be
//! applied.

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, DeviceKey, Domain, Sealed, Sig};
pub use crate::header::{BadCommit, Header, SignedHeader};
use crate::id::{DeviceId, Hash, SwarmId};
use crate::limits::{MAX_HEADER, MAX_TX_BYTES, MAX_TX_OPS, VERSION};
use crate::log::branch::Branch;
use crate::log::live_root::Totals;
pub use crate::log::verify::VerifiedHeader;
use crate::log::verify::admissible_slot;
use crate::model::op::{BadOp, Op, Slot};
use crate::roster::Roster;
use crate::time::Hlc;

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
    let Header { live_root, live_count, live_bytes, roster, counted_from, .. } = &header;
    let after = (live_root, live_count, live_bytes, roster, counted_from);
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
        let slots = ops
            .into_iter()
            .zip(claim.first_seq()..)
            .map(|(bytes, seq)| {
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
            self.slots.iter().try_for_each(|(slot, _)| admissible_slot(right, slot))?;
        }
        let header = self.header.verify(roster)?;
        Ok(VerifiedCommit { header, slots: self.slots })
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
        pack(self.header.bytes(), ops).expect("a verified header is one")
    }
}

/// The header of `author`'s next commit in its log `own`: the hash of the operations is still to be filled in.
pub(crate) fn next_header(
    own: &Branch,
    roster: &Roster,
    author: &DeviceId,
    hlc: Hlc,
    count: usize,
    totals: &Totals,
) -> Header {
    let counted = roster.counted_hash();
    let counted_from = match own.head.as_ref().map(VerifiedHeader::header) {
        Some(head) if head.roster == counted => head.counted_from,
        _ => own.seq() + 1,
    };
    Header {
        version: VERSION,
        swarm: roster.swarm(),
        grant: roster.member(author).map(|member| member.grant).unwrap_or_default(),
        log: own.id.log,
        last_seq: own.seq() + count as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        hlc,
        prev: own.head_hash(),
        ops_hash: Hash::default(),
        live_root: totals.root(),
        live_count: totals.count(),
        live_bytes: totals.bytes(),
        roster: counted,
        counted_from,
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
