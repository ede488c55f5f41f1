//! What a change of the roster means for the logs here, and how this device takes another out.
//!
//! A revocation ends its target's logs where the revoker had them. Every replica comes to hold each of
//! them as it was there, proven by the header at the cut: who is behind goes on up to it, who went
//! beyond fetches that state afresh and meanwhile shows what it holds at or below.

use std::collections::BTreeSet;

use crate::codec::Bytes;
use crate::id::{BranchId, DeviceId, LogId};
use crate::io::{Output, RevokeRefused, Token};
use crate::limits::{MAX_CUTS, MAX_LOGS, MAX_LOGS_PER_AUTHOR, MAX_REVOKE, MAX_UNPROVEN_LOGS};
use crate::log::branch::{Branch, Chore, Standing};
use crate::log::commit::{Header, VerifiedHeader};
use crate::replica::Replica;
use crate::replica::log_set;
use crate::roster::Extent;
use crate::store::Store;

impl<S: Store> Replica<S> {
    /// The roster changed: works out how far each log counts now.
    pub(crate) fn recut(&mut self) {
        let me = self.me;
        let mut writes = Vec::new();
        let mut moved = Vec::new();
        for branch in self.logs.values_mut() {
            let log = branch.id.log;
            let granted = |head: &VerifiedHeader| self.roster.right(&head.header().grant).is_some();
            let founded = branch.head.as_ref().is_none_or(granted);
            if log.author == me {
                // Whatever others make of it, the own copy stays readable. What a member wrote under a
                // grant that counts no more is written again under the one that does.
                let rewrite = !founded && self.roster.member(&me).is_some() && branch.shown();
                if rewrite && branch.chore == Chore::None {
                    branch.standing = Standing::Aside;
                    branch.chore = Chore::Salvage(0);
                    branch.left = true;
                    writes.push(branch.write());
                }
                continue;
            }
            let before = branch.extent;
            branch.extent = if founded { self.roster.extent(&log) } else { Extent::Nothing };
            if branch.extent == Extent::Nothing && branch.chore != Chore::Drop {
                branch.give_up();
                writes.push(branch.write());
            }
            if branch.extent != before {
                moved.push(branch.id);
            }
        }
        self.persist(writes);
        if !moved.is_empty() {
            self.unsettled = true;
            self.out.push_back(Output::Advanced);
        }
        for branch in moved {
            self.resolve_cut(branch.log);
            self.note_moved(branch);
        }
    }

    /// How far a log counts at this replica: its own logs do whatever becomes of it.
    pub(crate) fn extent(&self, log: LogId) -> Extent {
        if log.author == self.me { Extent::Open } else { self.roster.extent(&log) }
    }

    /// Once a log is here as it was when a revocation ended it, its other histories go.
    pub(crate) fn resolve_cut(&mut self, log: LogId) {
        if !self.at_cut(log) {
            return;
        }
        let mut writes = Vec::new();
        for (_, branch) in self.logs.range_mut(log_set::all(log)) {
            if !branch.at_cut() && branch.chore != Chore::Drop {
                branch.give_up();
                writes.push(branch.write());
            }
        }
        self.persist(writes);
    }

    /// Whether a log can be followed that is not here yet. An author that opens more logs than anybody
    /// honest loses those with the greatest ids, so that all replicas keep the same.
    pub(crate) fn make_room(&mut self, log: LogId) -> bool {
        let first = BranchId::from(LogId { epoch: 0, shard: 0, ..log });
        let last = BranchId {
            number: u16::MAX,
            ..LogId { epoch: u32::MAX, shard: u16::MAX, ..log }.into()
        };
        let theirs = || self.logs.range(first..=last).map(|(_, branch)| branch);
        let proven = |branch: &&Branch| branch.head.is_some() && branch.chore != Chore::Drop;
        let kept: BTreeSet<LogId> = theirs().filter(proven).map(|branch| branch.id.log).collect();
        if self.logs.len() >= MAX_LOGS {
            return false;
        }
        if kept.contains(&log) || log.author == self.me {
            return true;
        }
        let idle = |branch: &&Branch| {
            let busy = branch.chore == Chore::Drop || self.receiving.contains_key(&branch.id);
            branch.head.is_none() && !busy
        };
        let unproven: Vec<BranchId> = theirs().filter(idle).map(|branch| branch.id).collect();
        let crowded = unproven.len() >= MAX_UNPROVEN_LOGS;
        let worst = unproven.last().filter(|_| crowded).copied();
        self.evict(worst.into_iter().collect());
        let greatest = kept.last().filter(|_| kept.len() >= MAX_LOGS_PER_AUTHOR).copied();
        if greatest.is_some_and(|greatest| log > greatest) {
            return false;
        }
        let its = |log| self.branches(log).map(|branch| branch.id).collect();
        self.evict(greatest.map(its).unwrap_or_default());
        true
    }

    fn evict(&mut self, branches: Vec<BranchId>) {
        let mut writes = Vec::new();
        for id in branches {
            if let Some(branch) = self.logs.get_mut(&id) {
                branch.give_up();
                writes.push(branch.write());
            }
        }
        self.persist(writes);
    }

    /// Whether a log with this header would take its author over the quota of the grant that it cites:
    /// all logs under that grant count together.
    pub(crate) fn over_quota(&self, header: &Header) -> bool {
        let Some(max) = self.roster.right(&header.grant).and_then(|right| right.max_bytes) else {
            return false;
        };
        let heads = self.logs.values().filter_map(|log| log.head.as_ref());
        let others = heads
            .map(VerifiedHeader::header)
            .filter(|other| other.grant == header.grant && other.log != header.log);
        let others = others.map(|other| other.live_bytes).fold(0, u64::saturating_add);
        others.saturating_add(header.live_bytes) > max
    }

    /// Takes a device out, or leaves: its logs end where they are here.
    pub(crate) fn revoke(&mut self, token: Token, device: DeviceId) {
        let result = self.try_revoke(device);
        self.out.push_back(Output::Revoked(token, result));
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
        let statement = self.roster.revoke(&self.key, device, heads);
        let statement = statement.map_err(|_| RevokeRefused::NotAllowed)?;
        let taken = self.take_statements(&[statement], true).unwrap_or(0);
        if taken == 0 { Err(RevokeRefused::Full) } else { Ok(()) }
    }

    /// Whether some log of a revoked device is not here as it was at its end.
    pub(crate) fn lacks_cut(&self, device: DeviceId) -> bool {
        let revoked = self.roster.revocation(&device);
        revoked.is_some_and(|revoked| revoked.cuts().any(|(log, _)| !self.at_cut(*log)))
    }

    /// The header at which each log of a device ends here: of a forked log its longest history, of too
    /// many logs those that hold most.
    fn heads_to_cut_at(&self, device: DeviceId) -> Vec<Bytes> {
        let mut logs: Vec<LogId> = self.logs.keys().map(|id| id.log).collect();
        logs.dedup();
        logs.retain(|log| log.author == device);
        let longest = |log: &LogId| self.shown(*log).max_by_key(|b| (b.seq(), b.head_hash()));
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
