//! Statements of the roster that arrive: taken in, made durable, passed on.

use std::collections::BTreeSet;

use super::Replica;
use crate::codec::Bytes;
use crate::id::DeviceId;
use crate::io::{Fault, LaterKind, Output, Token, Verdict};
use crate::message::{self, Gossip};
use crate::roster::{BadStatement, Roster};
use crate::store::{Store, Write};

impl<S: Store> Replica<S> {
    /// Takes statements in; whatever is new is made durable and, on request, gossiped. Returns how many
    /// were new.
    ///
    /// # Errors
    /// When one is what nobody honest would hand on.
    pub(crate) fn take_statements(
        &mut self,
        batch: &[Bytes],
        spread: bool,
    ) -> Result<usize, BadStatement> {
        let (fresh, refused) = self.insert_statements(batch, spread);
        refused.into_iter().find(BadStatement::by_all).map_or(Ok(fresh), Err)
    }

    /// As [`Self::take_statements`], from a member.
    pub(crate) fn take_statements_of(
        &mut self,
        peer: DeviceId,
        batch: &[Bytes],
    ) -> Result<(), Fault> {
        let (_, refused) = self.insert_statements(batch, false);
        self.note_later_statements(&refused, peer);
        match refused.into_iter().find(BadStatement::by_all) {
            Some(bad) => Err(Fault::sender(peer, bad)),
            None => Ok(()),
        }
    }

    /// Those of a later version are passed over and noted. Those that were held say so themselves, for as
    /// long as they are.
    fn note_later_statements(&mut self, refused: &[BadStatement], from: DeviceId) {
        if refused.iter().any(BadStatement::is_later) {
            self.fx.note_later(LaterKind::Statement, from);
        }
    }

    /// Takes a gossiped statement in, with its verdict.
    pub(crate) fn take_statement(
        &mut self,
        token: Token,
        from: DeviceId,
        statement: Bytes,
    ) -> Result<(), Fault> {
        let (fresh, refused) = self.insert_statements(&[statement], false);
        self.note_later_statements(&refused, from);
        let bad = refused.into_iter().next();
        let verdict = match &bad {
            Some(bad) if bad.by_all() => Verdict::Reject,
            None if fresh > 0 => Verdict::Accept,
            _ => Verdict::Ignore,
        };
        self.fx.count(verdict);
        self.fx.push(Output::Verdict(token, verdict));
        match bad {
            Some(bad) if bad.by_all() => Err(Fault::sender(from, bad)),
            Some(bad) => Err(Fault::nobody(from, bad)),
            None => Ok(()),
        }
    }

    fn insert_statements(&mut self, batch: &[Bytes], spread: bool) -> (usize, Vec<BadStatement>) {
        let members = |roster: &Roster| roster.members().map(|m| m.device).collect::<BTreeSet<_>>();
        let before = members(&self.roster);
        let (fresh, refused) = self.roster.insert(batch);
        let count = fresh.len();
        let writes = fresh
            .iter()
            .map(|(name, bytes)| Write::Statement { name: *name, bytes: bytes.clone() })
            .collect();
        self.fx.persist(writes);
        if spread {
            for (_, bytes) in fresh {
                self.fx.push(Output::Publish(message::encode(&Gossip::Statement(bytes))));
            }
        }
        if count > 0 {
            self.recut();
            let after = members(&self.roster);
            for gone in before.difference(&after) {
                self.held.drop_author(*gone);
            }
            if before != after {
                self.fx.push(Output::MembersChanged);
            }
        }
        (count, refused)
    }
}
