//! Looking in from outside: what the engine says of itself, its peers and its logs. Nothing here changes
//! anything.

use std::collections::BTreeMap;

use super::Engine;
use super::peers::Peer;
use crate::codec::Bytes;
use crate::id::{DeviceId, Hash, LogId};
use crate::io::{
    Counters, Knock, Later, LaterKind, LogStatus, PeerStatus, Progress, RevokeRefused,
};
use crate::log::heads::Heads;
use crate::roster::Roster;
use crate::store::Store;

impl<S: Store> Engine<S> {
    /// Whether local writes wait for [`crate::io::Input::Commit`].
    #[must_use]
    pub fn has_queued_writes(&self) -> bool {
        self.replica.writer.has_queued()
    }

    /// Whether they fill a commit, so that nothing is won by waiting for more.
    #[must_use]
    pub fn has_full_group(&self) -> bool {
        self.replica.writer.has_full_group()
    }

    /// The roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.replica.roster
    }

    /// Last proven sequence number of every branch that counts: what readers may see.
    #[must_use]
    pub fn heads(&self) -> Heads {
        self.replica.logs.heads().clone()
    }

    /// Whether this replica is complete: it has once had all that its peers had. Until then readers are told
    /// that it is catching up.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.replica.complete
    }

    /// A hash of roster and version digest: equal replicas, equal hashes.
    #[must_use]
    pub fn state_hash(&self) -> Hash {
        self.replica.state_hash()
    }

    /// How each log stands.
    #[must_use]
    pub fn logs(&self) -> Vec<LogStatus> {
        self.replica.log_status()
    }

    /// The log that local writes go to.
    #[must_use]
    pub fn own_log(&self) -> LogId {
        self.replica.writer.log()
    }

    /// The signed head of the log that local writes go to, if there is one yet: what a replica in memory
    /// keeps for its next start, see [`crate::store::Recovered::resumable`].
    #[must_use]
    pub fn own_head(&self) -> Option<Bytes> {
        let branch = self.replica.writer.branch(&self.replica.logs);
        branch.head.map(|head| head.bytes().clone())
    }

    /// How each connected member stands.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let logs = self.replica.logs.logs();
        let one = |(device, peer): (&DeviceId, &Peer)| {
            let theirs = |log: &LogId| {
                let entries = peer.heard.digest.get(log).into_iter().flatten();
                entries.map(|entry| entry.seq).max().unwrap_or(0)
            };
            let sum = |lags: &mut dyn Iterator<Item = u64>| lags.fold(0, u64::saturating_add);
            let lag = |log: &LogId| self.replica.logs.seq(*log).saturating_sub(theirs(log));
            let lead = |log: &LogId| theirs(log).saturating_sub(self.replica.logs.seq(*log));
            let behind = sum(&mut logs.iter().map(lag));
            let ahead = sum(&mut peer.heard.digest.keys().map(lead));
            PeerStatus { device: *device, behind, ahead, equal_at: peer.equal_at }
        };
        self.peers.iter().map(one).collect()
    }

    /// How the running pull stands.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let pull =
            self.pulls.values().filter(|pull| pull.is_comparison()).max_by_key(|p| p.planned)?;
        Some(Progress { from: pull.peer, received: pull.received, planned: pull.planned })
    }

    /// Devices that wait for a person to compare their check words.
    pub fn knocks(&self) -> impl Iterator<Item = &Knock> {
        self.replica.knocks.values().filter(|(_, said)| said.is_none()).map(|(knock, _)| knock)
    }

    /// Whether something is still to be pulled from a connected member.
    #[must_use]
    pub fn pulling(&self) -> bool {
        let there = |peer| self.peers.contains_key(peer);
        !self.pulls.is_empty() || self.wanted.iter().any(there)
    }

    /// How many connected members hold the logs of `device` exactly as far as they count here, by what
    /// they last told, of how many that are connected.
    #[must_use]
    pub fn holders(&self, device: &DeviceId) -> (usize, usize) {
        let ours: Vec<(LogId, u64, Hash)> = self
            .replica
            .logs
            .of_author(*device)
            .filter(|branch| branch.shown())
            .map(|branch| (branch.id.log, branch.seq(), branch.head_hash()))
            .collect();
        let holds = |peer: &&Peer| {
            ours.iter().all(|(log, seq, head)| {
                let heard = peer.heard.digest.get(log).into_iter().flatten();
                let head = peer.heard.key.short(head);
                heard.clone().any(|entry| (entry.seq, entry.head) == (*seq, head))
            })
        };
        let others = || self.peers.iter().filter(|(id, _)| *id != device).map(|(_, peer)| peer);
        (others().filter(holds).count(), others().count())
    }

    /// Whether this device may take that one out, or leave, if it is its own.
    ///
    /// # Errors
    /// Why not.
    pub fn may_revoke(&self, device: &DeviceId) -> Result<(), RevokeRefused> {
        self.replica.may_revoke(*device)
    }

    /// Whether some log of a revoked device is not here as it was at its end. Should nobody who has it
    /// ever come back, the device can be revoked once more: its logs end where they are here then.
    #[must_use]
    pub fn lacks_cut(&self, device: &DeviceId) -> bool {
        self.replica.lacks_cut(*device)
    }

    /// Operations in the logs of `device` that connected members told of and that are not here.
    #[must_use]
    pub fn missing_of(&self, device: &DeviceId) -> u64 {
        let mut told: BTreeMap<LogId, u64> = BTreeMap::new();
        let digest_received =
            self.peers.values().flat_map(|peer| peer.heard.digest.values().flatten());
        for entry in digest_received.filter(|entry| entry.log.author == *device) {
            let most = told.entry(entry.log).or_default();
            *most = entry.seq.max(*most);
        }
        let lacks = |(log, seq): (&LogId, &u64)| seq.saturating_sub(self.replica.logs.seq(*log));
        told.iter().map(lacks).fold(0, u64::saturating_add)
    }

    /// Histories that wait to be checked in haste: after [`crate::io::Input::Scrub`] it is done when none is
    /// left.
    #[must_use]
    pub fn to_scrub(&self) -> usize {
        self.replica.to_scrub()
    }

    /// Something of a later version: a member's statement that is held for as long as it is, else what was
    /// met last since the start. Nothing if an upgrade of this device is not known to help.
    #[must_use]
    pub fn later(&self) -> Option<Later> {
        let roster = &self.replica.roster;
        let stated = roster.ahead().find(|issuer| roster.member(issuer).is_some());
        let stated = stated.map(|from| Later { what: LaterKind::Statement, from });
        stated.or(self.replica.fx.later)
    }

    /// Running totals.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.replica.fx.counters
    }

    /// Commits held while their predecessors are on the way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.replica.held.len()
    }

    /// Storage, for reading.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.replica.store
    }
}
