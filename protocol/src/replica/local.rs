//! The writer's place in a replica: what it is lent, and what follows when it has signed a commit.

use super::Replica;
use super::writer::{Committed, LocalWriter, Parts, Signed};
use crate::codec::Bytes;
use crate::id::DeviceId;
use crate::io::{Change, Fault, Output, Token};
use crate::limits::{GROUP_BYTES, MAX_GOSSIP, MAX_GOSSIP_VALUE};
use crate::log::commit::VerifiedCommit;
use crate::message::{self, Gossip};
use crate::model::op::Body;
use crate::store::Store;
use crate::time::Now;

impl<S: Store> Replica<S> {
    /// The writer, and the parts that it works on.
    pub(crate) fn writer_and_parts(&mut self) -> (&mut LocalWriter, Parts<'_, S>) {
        let Self { writer, logs, fx, roster, store, random, complete, .. } = self;
        (writer, Parts { logs, fx, roster, store, random, complete: *complete })
    }

    /// Takes a transaction in, or refuses it.
    pub(crate) fn enqueue(&mut self, token: Token, changes: Vec<Change>) {
        let (writer, mut parts) = self.writer_and_parts();
        writer.enqueue(token, changes, &mut parts);
    }

    /// Signs one group of queued writes as one commit, keeps and spreads it.
    pub(crate) fn commit(&mut self, now: Now) -> Result<(), Fault> {
        let (writer, mut parts) = self.writer_and_parts();
        let Some(Committed { mut signed, tokens }) = writer.commit(now, &mut parts)? else {
            return Ok(());
        };
        let mut names = std::mem::take(&mut signed.names).into_iter();
        self.keep_signed(signed);
        for (token, ops) in tokens {
            self.fx.push(Output::Written(token, names.by_ref().take(ops).collect()));
        }
        Ok(())
    }

    /// Moves the own log's head over a commit that was just signed, and spreads it.
    pub(crate) fn keep_signed(&mut self, signed: Signed) {
        let Signed { branch, commit, change, .. } = signed;
        self.advance_head(branch, &commit, change);
        self.fx.push(Output::Publish(announce(&commit)));
    }

    /// Goes on in a new own log.
    pub(crate) fn rotate(&mut self) {
        let (writer, mut parts) = self.writer_and_parts();
        writer.rotate(&mut parts);
    }

    /// See [`LocalWriter::head_elsewhere`].
    pub(crate) fn own_head_elsewhere(&mut self) {
        let (writer, mut parts) = self.writer_and_parts();
        writer.head_elsewhere(&mut parts);
    }

    /// See [`LocalWriter::head_claimed`].
    pub(crate) fn own_head_claimed(&mut self, peer: DeviceId) {
        let (writer, mut parts) = self.writer_and_parts();
        writer.head_claimed(peer, &mut parts);
    }
}

/// A commit small enough travels whole; of a larger one only the header does.
fn announce(commit: &VerifiedCommit) -> Vec<u8> {
    let small_values = commit.slots().iter().all(|(slot, _)| match &slot.op.body {
        Body::Put(value) => value.len() <= MAX_GOSSIP_VALUE,
        _ => true,
    });
    if small_values && commit.ops_bytes() <= GROUP_BYTES + GROUP_BYTES / 8 {
        let whole = message::encode(&Gossip::Commit(Bytes(commit.encode())));
        if whole.len() <= MAX_GOSSIP {
            return whole;
        }
    }
    message::encode(&Gossip::Announce(commit.header().bytes().clone()))
}
