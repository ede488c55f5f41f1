//! A replica's state and the only ways it changes: local writes, commits from others, statements.
//! Knows nothing of sessions or timers.

mod admission;
pub(crate) mod comparison;
mod damage;
pub(crate) mod effects;
mod histories;
mod local;
mod membership;
pub(crate) mod pending_commits;
mod plan;
pub(crate) mod scrubber;
mod statements;
mod writer;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::comparison::{Comparison, Stands};
use self::effects::Effects;
use self::pending_commits::PendingCommits;
use self::writer::LocalWriter;
use crate::codec::{self, Bytes};
use crate::crypto::{self, DeviceKey, Domain};
use crate::id::{BranchId, DeviceId, Hash, Hash8, LogId};
use crate::io::{
    Blame, Counters, Fault, Knock, LaterKind, LogStatus, Output, SessionId, Token, Verdict,
};
use crate::limits::{MAX_LOGS_PER_AUTHOR, MAX_UNPROVEN};
use crate::log::branch::advance::{Advance, Advanced};
use crate::log::branch::{Branch, proves};
use crate::log::commit::{self, SignedCommit, SignedHeader, VerifiedCommit, VerifiedHeader};
use crate::log::digest::{DigestKey, Entry};
use crate::log::log_set::LogSet;
use crate::message;
use crate::plant::{self, Plant};
use crate::random::Random;
use crate::roster::ticket::TicketRecord;
use crate::roster::{Extent, Roster};
use crate::store::{Recovered, Store, StoreError, Write};
use crate::time::Now;

/// What became of a commit or header from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Applied, or already known.
    Placed,
    /// Something of this log up to there is missing here: pull it.
    Gap { log: LogId, upto: u64 },
    /// It is of another history than those here: pull whatever the peer has.
    Apart,
}

pub(crate) struct Replica<S> {
    /// This device as an author.
    pub(crate) writer: LocalWriter,
    pub(crate) me: DeviceId,
    pub(crate) roster: Roster,
    pub(crate) logs: LogSet,
    pub(crate) tickets: BTreeMap<Hash8, TicketRecord>,
    /// Devices that wait for a person's word, and what was said: in memory only.
    pub(crate) knocks: BTreeMap<DeviceId, (Knock, Option<bool>)>,
    pub(crate) store: S,
    pub(crate) random: Random,
    pub(crate) fx: Effects,
    /// Whether it has once had all that its peers had.
    pub(crate) complete: bool,
    /// Was complete, until something had to be set aside.
    pub(crate) mending: bool,
    pub(crate) held: PendingCommits,
    /// Branches that moved and may have held commits to go on with.
    moved: BTreeSet<BranchId>,
    /// The branch that scrubbing was last through with in this round.
    pub(crate) scrubbed_upto: Option<BranchId>,
    /// Branches that may be damaged here: to be checked before all others.
    pub(crate) suspects: BTreeSet<BranchId>,
    /// Peers that called a header of an own log wrong.
    pub(crate) root_disputes: BTreeSet<(DeviceId, LogId)>,
    /// Branches that a session is receiving, and until when no other may take its place.
    pub(crate) receiving: BTreeMap<BranchId, (SessionId, u64)>,
    /// Histories that moved beside others of their log: to be compared with them at the next round.
    to_compare: BTreeSet<BranchId>,
    /// Histories being compared, step by step.
    pub(crate) comparisons: BTreeMap<BranchId, Comparison>,
    /// How far logs count has changed, or something is missing: others are to be asked for it now.
    pub(crate) ask_all: bool,
}

impl<S: Store> Replica<S> {
    pub(crate) fn open(
        key: DeviceKey,
        roster: Roster,
        recovered: Recovered,
        store: S,
        entropy: u64,
        fresh_epoch: bool,
    ) -> Result<Self, StoreError> {
        let me = key.id();
        let mut roster = roster;
        roster.restore(&recovered.statements);
        let newest: BTreeMap<BranchId, Bytes> = recovered.heads.into_iter().collect();
        let mut logs = LogSet::default();
        for (id, record) in &recovered.logs {
            logs.put(Branch::open(*id, record, newest.get(id), &store)?);
        }
        let mut tickets = BTreeMap::new();
        for (id, record) in &recovered.tickets {
            // One that cannot be read is one more that admits nobody.
            if let Ok(record) = codec::decode(record) {
                tickets.insert(*id, record);
            }
        }
        let damaged = logs.has_quarantined();
        let mut replica = Self {
            complete: recovered.caught_up && !damaged,
            mending: damaged
                && (recovered.caught_up || logs.iter().any(|b| b.quarantined() && b.was_complete)),
            held: PendingCommits::default(),
            moved: BTreeSet::new(),
            scrubbed_upto: None,
            suspects: BTreeSet::new(),
            root_disputes: BTreeSet::new(),
            receiving: BTreeMap::new(),
            to_compare: BTreeSet::new(),
            comparisons: BTreeMap::new(),
            ask_all: false,
            fx: Effects::default(),
            random: Random::new(entropy),
            writer: LocalWriter::new(key, recovered.resumable.as_ref()),
            me,
            roster,
            logs,
            tickets,
            knocks: BTreeMap::new(),
            store,
        };
        if damaged && recovered.caught_up {
            replica.fx.persist(vec![Write::CaughtUp(false)]);
        }
        let (writer, mut parts) = replica.writer_and_parts();
        writer.choose_log(fresh_epoch, &mut parts);
        replica.recut();
        let shown = replica.logs.iter().filter(|b| b.shown() && replica.logs.several(b.id.log));
        replica.to_compare = shown.map(|branch| branch.id).collect();
        replica.logs.refresh();
        Ok(replica)
    }

    // ---- what a replica has -------------------------------------------------------------------

    /// What this replica says in a digest under this key, ascending. Of a log that is set aside it says
    /// that nothing is there, for the others may think otherwise.
    pub(crate) fn entries(&self, key: &DigestKey) -> Vec<Entry> {
        let all: Vec<&Branch> = self.logs.iter().collect();
        let by_log = all.chunk_by(|a, b| a.id.log == b.id.log);
        by_log.flat_map(|branches| self.entries_of(branches, key)).collect()
    }

    /// The same of some logs, which ascend.
    pub(crate) fn some_entries<'a>(
        &self,
        logs: impl IntoIterator<Item = &'a LogId>,
        key: &DigestKey,
    ) -> Vec<Entry> {
        let of_log = |log: &LogId| {
            let branches: Vec<&Branch> = self.logs.branches(*log).collect();
            self.entries_of(&branches, key)
        };
        logs.into_iter().flat_map(of_log).collect()
    }

    /// The same of one log, which has these branches.
    fn entries_of(&self, branches: &[&Branch], key: &DigestKey) -> Vec<Entry> {
        let told = branches.iter().filter(|branch| branch.shown() || branch.fetching());
        let mut entries: Vec<Entry> = told.map(|branch| Entry::of(branch, key)).collect();
        if let (true, Some(last)) = (entries.is_empty(), branches.last()) {
            let log = last.id.log;
            let wanted = log.author == self.me || last.extent != Extent::Nothing;
            entries.extend(wanted.then(|| Entry::nothing(log)));
        }
        // What is here of a log, however little it proves, need not be sent again.
        let here = || branches.iter().any(|b| b.head.is_some() && !b.dropping());
        for entry in entries.iter_mut().filter(|entry| entry.seq == 0) {
            entry.compare |= here();
        }
        entries.sort_unstable();
        entries
    }

    /// A number that is another one after anything that others may lack has come to be here.
    pub(crate) fn moves(&self) -> u64 {
        let Counters { commits_signed, commits_applied, logs_repaired, set_aside, .. } =
            self.fx.counters;
        let statements = self.roster.statements() as u64;
        commits_signed + commits_applied + logs_repaired + set_aside + statements
    }

    /// Hash of roster and of every proven head: equal replicas, equal hashes.
    pub(crate) fn state_hash(&self) -> Hash {
        let (roster, logs) = (self.roster.hash(), self.logs.hash());
        crypto::hash(Domain::Digest, &[roster.as_bytes(), logs.as_bytes()])
    }

    pub(crate) fn log_status(&self) -> Vec<LogStatus> {
        let one = |branch: &Branch| LogStatus {
            branch: branch.id,
            seq: if branch.shown() { branch.seq() } else { 0 },
            slots: branch.totals.count(),
            bytes: branch.totals.bytes(),
            stamp: branch.stamp().millis(),
            staged: branch.staged.as_ref().map_or(0, |staged| staged.upto),
            frozen: branch.frozen,
            forked: branch.forked || self.logs.several(branch.id.log),
            aside: branch.quarantined(),
            lost: branch.is_aside() && branch.was_salvaged(),
        };
        let counts = |branch: &&Branch| {
            let there = branch.head.is_some() || branch.staged.is_some() || branch.frozen.is_some();
            there && !branch.dropping()
        };
        self.logs.iter().filter(counts).map(one).collect()
    }

    // ---- commits of others --------------------------------------------------------------------

    /// Takes a gossiped commit in: the verdict falls first, then it is applied or held.
    pub(crate) fn take_commit(
        &mut self,
        now: Now,
        token: Token,
        from: DeviceId,
        bytes: &[u8],
    ) -> Result<Taken, Fault> {
        let checked =
            SignedCommit::decode(bytes, self.roster.swarm()).and_then(|c| c.verify(&self.roster));
        let known = checked.as_ref().is_ok_and(|commit| self.knows(commit.header()));
        let checked = match checked {
            Ok(commit) if plant::is(Plant::PunishGap) => {
                let gap = self.logs.next_of(commit.header().header()).is_none();
                if gap && !known { Err(commit::BadCommit::Signature) } else { Ok(commit) }
            }
            checked => checked,
        };
        let commit = self.judge(token, from, known, checked)?;
        self.writer.observe(commit.header().header().hlc, now);
        self.place(commit, now)
    }

    /// Takes an announcement in: says whether there is something to pull.
    pub(crate) fn take_announcement(
        &mut self,
        token: Token,
        from: DeviceId,
        bytes: &[u8],
    ) -> Result<Taken, Fault> {
        let checked = SignedHeader::decode(bytes).and_then(|h| h.verify(&self.roster));
        let known = checked.as_ref().is_ok_and(|header| self.knows(header));
        let header = self.judge(token, from, known, checked)?;
        let claim = header.header();
        if self.logs.at_cut(claim.log) || !self.log_counts(claim.log) || self.refuses(&header) {
            return Ok(Taken::Placed);
        }
        Ok(match self.stands(&header)? {
            Stands::Here | Stands::Old => Taken::Placed,
            Stands::Beyond => Taken::Gap { log: claim.log, upto: claim.last_seq },
            Stands::Apart => {
                let writes = self.logs.mark_forked(claim.log);
                self.fx.persist(writes);
                Taken::Apart
            }
        })
    }

    /// Reads what a member sent; whatever a later version sends is noted.
    pub(crate) fn read<'a, T>(&mut self, from: DeviceId, bytes: &'a [u8]) -> Result<T, Fault>
    where
        T: Serialize + Deserialize<'a>,
    {
        message::decode(bytes).map_err(|bad| {
            if bad.is_later() {
                self.fx.note_later(LaterKind::Message, from);
            }
            bad.fault(from)
        })
    }

    /// Whether a header says nothing new. One that differs from ours at the same place does: it proves
    /// a fork and is spread.
    fn knows(&self, header: &VerifiedHeader) -> bool {
        self.stands(header).is_ok_and(|s| matches!(s, Stands::Here | Stands::Old))
    }

    fn judge<T>(
        &mut self,
        token: Token,
        from: DeviceId,
        known: bool,
        checked: Result<T, commit::BadCommit>,
    ) -> Result<T, Fault> {
        let (verdict, result) = match checked {
            Ok(good) if known => (Verdict::Ignore, Ok(good)),
            Ok(good) => (Verdict::Accept, Ok(good)),
            Err(bad) if bad.blame(&from) == Blame::Sender => {
                (Verdict::Reject, Err(Fault::sender(from, bad)))
            }
            Err(bad) => {
                self.note_later_commit(&bad, from);
                (Verdict::Ignore, Err(Fault::nobody(from, bad)))
            }
        };
        self.fx.count(verdict);
        self.fx.push(Output::Verdict(token, verdict));
        result
    }

    /// A commit or header was passed over: if it is of a later version, that is noted.
    pub(crate) fn note_later_commit(&mut self, bad: &commit::BadCommit, from: DeviceId) {
        if bad.is_later() {
            self.fx.note_later(LaterKind::Write, from);
        }
    }

    /// Whether a log is among those of its author that count: the greatest epochs known here. An own log
    /// that is here does until it was written again elsewhere.
    pub(crate) fn log_counts(&self, log: LogId) -> bool {
        let known = self.logs.epochs(log.author);
        let greater = known.range(log..).filter(|other| **other > log).count();
        let own = log.author == self.me && known.contains(&log);
        greater < MAX_LOGS_PER_AUTHOR || own
    }

    /// A log has come to be proven here: those of its author with the least epochs make room. Not before it is
    /// proven: two that are fetched at once would make one place, and one that never is proven would cost
    /// another its place.
    pub(crate) fn make_room(&mut self, author: DeviceId) {
        if author == self.me || plant::is(Plant::KeepAllEpochs) {
            return;
        }
        let known = self.logs.epochs(author);
        let surplus = known.len().saturating_sub(MAX_LOGS_PER_AUTHOR);
        let old: Vec<LogId> = known.into_iter().take(surplus).collect();
        let stale = |b: &&Branch| old.contains(&b.id.log) && !b.dropping();
        let ids: Vec<BranchId> = self.logs.of_author(author).filter(stale).map(|b| b.id).collect();
        for id in ids {
            let writes = self.logs.record(id, Branch::give_up);
            self.fx.persist(writes);
        }
    }

    /// Of what an author has begun or got wrong and nothing is proven of, the least epochs make room: nothing
    /// else bounds it before something is.
    pub(crate) fn limit_unproven(&mut self, author: DeviceId) {
        let unproven = self.logs.of_author(author).filter(|b| b.head.is_none() && !b.dropping());
        let ids: Vec<BranchId> = unproven.map(|branch| branch.id).collect();
        let most = if plant::is(Plant::KeepUnproven) { usize::MAX } else { MAX_UNPROVEN };
        let surplus = ids.len().saturating_sub(most);
        for id in ids.into_iter().take(surplus) {
            let writes = self.logs.record(id, Branch::give_up);
            self.fx.persist(writes);
        }
    }

    /// Whether a header is one that proved wrong here.
    pub(crate) fn refuses(&self, header: &VerifiedHeader) -> bool {
        let hash = header.hash();
        self.logs.branches(header.header().log).any(|branch| branch.frozen == Some(hash))
    }

    fn place(&mut self, commit: VerifiedCommit, now: Now) -> Result<Taken, Fault> {
        let header = commit.header().header();
        let log = header.log;
        // It may have been held while its author was revoked.
        let counts = self.roster.admits(header, commit.header().hash()) && self.log_counts(log);
        if !counts || self.logs.at_cut(log) || self.refuses(commit.header()) {
            return Ok(Taken::Placed);
        }
        match self.stands(commit.header())? {
            Stands::Here | Stands::Old => return Ok(Taken::Placed),
            Stands::Apart => {
                let writes = self.logs.mark_forked(log);
                self.fx.persist(writes);
                return Ok(Taken::Apart);
            }
            Stands::Beyond => {}
        }
        if log == self.writer.log() {
            self.own_head_elsewhere();
        }
        let gap = Taken::Gap { log, upto: header.last_seq };
        let Some(id) = self.logs.next_of(header) else {
            self.held.push(commit, now.mono);
            return Ok(gap);
        };
        let new;
        let branch = match self.logs.get(&id) {
            Some(branch) => branch,
            None => {
                new = self.new_branch(id);
                &new
            }
        };
        if branch.purging() {
            self.held.push(commit, now.mono);
            return Ok(gap);
        }
        // Equal stamps do no harm, and repair could not tell: only what falls back stops the log.
        let stamps_rise = branch.head.is_none() || branch.stamp() <= header.hlc;
        // One log, one grant: its first header fixes it.
        let granted = branch.head.as_ref().is_none_or(|head| head.header().grant == header.grant);
        if !stamps_rise || !(granted || plant::is(Plant::MixGrants)) {
            let branch = branch.clone();
            self.freeze(branch, commit.header().hash());
            return Ok(Taken::Placed);
        }
        let change = match branch.advance(commit.slots(), &self.store)? {
            Advanced::By(change) => change,
            Advanced::StagedApart => {
                self.drop_staged(id);
                self.held.push(commit, now.mono);
                return Ok(gap);
            }
        };
        if !proves(commit.header(), change.totals()) {
            let branch = branch.clone();
            self.freeze(branch, commit.header().hash());
            return Ok(Taken::Placed);
        }
        self.fx.counters.commits_applied += 1;
        self.advance_head(id, &commit, *change);
        Ok(Taken::Placed)
    }

    /// Gives up what is staged of a branch; a session that was bringing more of it is not listened to for it
    /// any more, for what it brings next would not join.
    pub(crate) fn drop_staged(&mut self, id: BranchId) {
        self.receiving.remove(&id);
        let writes = self.logs.record(id, Branch::drop_staged);
        self.fx.persist(writes);
    }

    /// A branch as the roster lets it count.
    pub(crate) fn new_branch(&self, id: BranchId) -> Branch {
        let mut branch = Branch::new(id);
        branch.extent = self.extent(id.log);
        branch
    }

    /// A branch moved or came to rest: what was held for it may go on.
    pub(crate) fn note_moved(&mut self, id: BranchId) {
        self.moved.insert(id);
    }

    /// Applies one held commit that fits now; says whether there may be more. One a call: the next
    /// one's sums are worked out from what this one writes.
    pub(crate) fn apply_held(&mut self, now: Now) -> Result<bool, Fault> {
        while !self.fx.unread()
            && let Some(id) = self.moved.pop_first()
        {
            let (seq, purging) =
                self.logs.get(&id).map_or((0, false), |log| (log.seq(), log.purging()));
            if !purging && let Some(commit) = self.held.next(&id.log, seq) {
                self.place(commit, now)?;
            }
        }
        Ok(!self.moved.is_empty())
    }

    /// Moves a branch's head over a commit whose root is right (or was just computed).
    pub(crate) fn advance_head(&mut self, id: BranchId, commit: &VerifiedCommit, change: Advance) {
        if !self.logs.contains(&id) {
            self.logs.put(self.new_branch(id));
        }
        let extent = self.extent(id.log);
        let moved = self.logs.edit(id, |branch| {
            branch.extent = extent;
            (branch.head.is_none(), branch.go_on(commit.header().clone(), change))
        });
        let (first, mut writes) = moved.unwrap_or_default();
        if first {
            self.make_room(id.log.author);
        }
        writes.extend(self.logs.record_one());
        self.after_head_moved(id, writes);
    }

    /// What follows wherever a head has moved: the writes are made durable, what waited for the log is
    /// looked at again, readers are told.
    pub(crate) fn after_head_moved(&mut self, id: BranchId, writes: Vec<Write>) {
        self.fx.persist(writes);
        self.resolve_cut(id.log);
        self.resolve_aside(id.log);
        self.moved.insert(id);
        if self.logs.several(id.log) {
            self.to_compare.insert(id);
        }
        self.fx.push(Output::Advanced);
    }

    /// Follows a stamp that repair brought.
    pub(crate) fn observe(&mut self, header: &VerifiedHeader, now: Now) {
        self.writer.observe(header.header().hlc, now);
    }
}
