//! What a change of the roster means for the logs here, and how this device takes another out.
//!
//! A revocation ends its target's logs where the revoker had them. Every replica comes to hold each of
//! them as it was there, proven by the header at the cut: who is behind goes on up to it, who went
//! beyond fetches that state afresh and meanwhile shows what it holds at or below.

use super::Replica;
use crate::codec::Bytes;
use crate::id::{BranchId, DeviceId, LogId};
use crate::io::{Output, RevokeRefused, Token};
use crate::limits::{MAX_CUTS, MAX_REVOKE};
use crate::log::branch::{Branch, BranchState, Chore};
use crate::log::commit::VerifiedHeader;
use crate::roster::{BadStatement, Extent};
use crate::store::Store;

impl<S: Store> Replica<S> {
    /// The roster changed: works out how far each log counts now.
    pub(crate) fn recut(&mut self) {
        let me = self.me;
        let ids: Vec<BranchId> = self.logs.iter().map(|branch| branch.id).collect();
        let mut moved = Vec::new();
        for id in ids {
            let Some(branch) = self.logs.get(&id) else { continue };
            let granted = |head: &VerifiedHeader| self.roster.right(&head.header().grant).is_some();
            let founded = branch.head.as_ref().is_none_or(granted);
            if id.log.author == me {
                // Whatever others make of it, the own copy stays readable. What a member wrote under a
                // grant that counts no more is written again under the one that does.
                let rewrite = !founded && self.roster.member(&me).is_some() && branch.shown();
                if rewrite && branch.chore == Chore::None {
                    let writes = self.logs.record(id, |branch| {
                        branch.state = BranchState::Quarantined;
                        branch.chore = Chore::Salvage(0);
                    });
                    self.fx.persist(writes);
                }
                continue;
            }
            let before = branch.extent;
            let extent = if founded { self.roster.extent(&id.log) } else { Extent::Nothing };
            if extent == before {
                continue;
            }
            let beyond = match extent {
                Extent::Upto(cut) => branch.staged.as_ref().is_some_and(|s| s.upto > cut.seq),
                Extent::Open | Extent::Nothing => false,
            };
            self.logs.edit(id, |branch| branch.extent = extent);
            if extent == Extent::Nothing {
                let writes = self.logs.record(id, Branch::give_up);
                self.fx.persist(writes);
            } else if beyond {
                // What was set aside beyond the end outlives no revocation.
                self.drop_staged(id);
            }
            moved.push(id);
        }
        if !moved.is_empty() {
            self.ask_all = true;
            self.fx.push(Output::Advanced);
        }
        for id in moved {
            self.resolve_cut(id.log);
            self.note_moved(id);
        }
    }

    /// How far a log counts at this replica: its own logs do whatever becomes of it.
    pub(crate) fn extent(&self, log: LogId) -> Extent {
        if log.author == self.me { Extent::Open } else { self.roster.extent(&log) }
    }

    /// Once a log is here as it was when a revocation ended it, its other histories go.
    pub(crate) fn resolve_cut(&mut self, log: LogId) {
        if !self.logs.at_cut(log) {
            return;
        }
        let others: Vec<BranchId> = self
            .logs
            .branches(log)
            .filter(|branch| !branch.at_cut() && !branch.dropping())
            .map(|branch| branch.id)
            .collect();
        for id in others {
            let writes = self.logs.record(id, Branch::give_up);
            self.fx.persist(writes);
        }
    }

    /// Takes a device out, or leaves: its logs end where they are here.
    pub(crate) fn revoke(&mut self, token: Token, device: DeviceId) {
        let result = self.try_revoke(device);
        self.fx.push(Output::Revoked(token, result));
    }

    /// Whether this device may take that one out now.
    pub(crate) fn may_revoke(&self, device: DeviceId) -> Result<(), RevokeRefused> {
        // If nobody is left who has what stays of it, it can be cut once more, where it is here.
        if self.roster.revocation(&device).is_some() && !self.lacks_cut(device) {
            return Err(RevokeRefused::Already);
        }
        if self.roster.label(&device).is_none() {
            return Err(RevokeRefused::Unknown);
        }
        if self.roster.genesis().owner == device {
            return Err(RevokeRefused::Owner);
        }
        if !self.roster.may_revoke(&self.me, &device) {
            return Err(RevokeRefused::NotAllowed);
        }
        Ok(())
    }

    fn try_revoke(&mut self, device: DeviceId) -> Result<(), RevokeRefused> {
        self.may_revoke(device)?;
        let heads = self.heads_to_cut_at(device);
        let statement = self.roster.revoke(self.writer.key(), device, heads);
        let statement = statement.map_err(|bad| match bad {
            BadStatement::Later => RevokeRefused::Later,
            _ => RevokeRefused::NotAllowed,
        })?;
        let taken = self.take_statements(&[statement], true).unwrap_or(0);
        if taken == 0 { Err(RevokeRefused::Full) } else { Ok(()) }
    }

    /// Whether some log of a revoked device is not here as it was at its end.
    pub(crate) fn lacks_cut(&self, device: DeviceId) -> bool {
        let revoked = self.roster.revocation(&device);
        revoked.is_some_and(|revoked| revoked.cuts().any(|(log, _)| !self.logs.at_cut(*log)))
    }

    /// The header at which each log of a device ends here: of a forked log its longest history, of too
    /// many logs those that hold most.
    fn heads_to_cut_at(&self, device: DeviceId) -> Vec<Bytes> {
        let mut logs: Vec<LogId> =
            self.logs.of_author(device).map(|branch| branch.id.log).collect();
        logs.dedup();
        let longest = |log: &LogId| self.logs.shown(*log).max_by_key(|b| (b.seq(), b.head_hash()));
        let mut heads: Vec<&Branch> = logs.iter().filter_map(longest).collect();
        heads.sort_by_key(|log| (std::cmp::Reverse(log.totals.count()), log.id));
        heads.truncate(MAX_CUTS);
        let mut room = MAX_REVOKE - 1024;
        heads.retain(|log| {
            let size = log.head.as_ref().map_or(0, |head| head.bytes().len() + 8);
            let fits = size <= room;
            room -= if fits { size } else { 0 };
            fits
        });
        heads.sort_by_key(|log| log.id);
        heads.iter().filter_map(|log| Some(log.head.as_ref()?.bytes().clone())).collect()
    }
}
