//! The one predicate that says whether a header may be taken, and the headers that passed it.

use crate::codec::Bytes;
use crate::crypto::{self, Domain};
use crate::header::{BadCommit, Header, SignedHeader};
use crate::id::Hash;
use crate::model::op::Slot;
use crate::plant::{self, Plant};
use crate::roster::{Right, Role, Roster};

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

impl SignedHeader {
    /// Checks swarm, grant, cut and signature, in this order.
    ///
    /// # Errors
    /// Says which check failed; [`BadCommit::blame`] says who is to blame.
    pub fn verify(self, roster: &Roster) -> Result<VerifiedHeader, BadCommit> {
        let header = self.claim();
        if header.swarm != roster.swarm() {
            return Err(BadCommit::Swarm);
        }
        let right = roster.right(&header.grant).ok_or(BadCommit::UnknownGrant)?;
        admissible(header, right)?;
        if !self.is_signed_by(&right.key) && !plant::is(Plant::SkipSignature) {
            return Err(BadCommit::Signature);
        }
        let (header, bytes) = self.into_parts();
        let header = VerifiedHeader::seal(header, bytes);
        // Last: who does not know of the revocation cannot know this, so nobody is blamed for it, and
        // whoever is not genuine is blamed for that first.
        if roster.admits(header.header(), header.hash()) {
            Ok(header)
        } else {
            Err(BadCommit::Revoked)
        }
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
        let (header, bytes) = signed.into_parts();
        Ok(Self::seal(header, bytes))
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
