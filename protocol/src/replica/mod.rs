//! A replica's state and the only ways it changes: local writes, commits from others, statements.
//! Knows nothing of sessions or timers.

mod admission;
pub(crate) mod log_set;
mod membership;
pub(crate) mod pending_commits;
pub(crate) mod scrubber;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::log_set::Stands;
use crate::codec::{self, Bytes};
use crate::crypto::DeviceKey;
use crate::id::{BranchId, DeviceId, Hash, LogId, Version};
use crate::io::{Change, Counters, Fault, Knock, LogStatus, Output, SessionId, Token, Verdict};
use crate::log::branch::{Branch, Chore, Gone, Standing};
use crate::log::commit::{
    self, Header, SignedCommit, SignedHeader, VerifiedCommit, VerifiedHeader,
};
use crate::message::{self, Gossip};
use crate::plant::{self, Plant};
use crate::random::Random;
use crate::repair::digest::{self, Entry};
use crate::replica::pending_commits::PendingCommits;
use crate::roster::ticket::TicketRecord;
use crate::roster::{BadStatement, Extent, Roster};
use crate::store::{Recovered, Store, StoreError, Write};
use crate::time::{HybridClock, Now};
use crate::view::View;

/// What became of a commit or header from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Applied, or already known.
    Settled,
    /// Something of this log up to there is missing here: pull it.
    Gap { log: LogId, upto: u64 },
    /// It is of another history than those here: pull whatever the peer has.
    Apart,
}

pub(crate) struct Replica<S> {
    pub(crate) key: DeviceKey,
    pub(crate) me: DeviceId,
    pub(crate) roster: Roster,
    pub(crate) logs: BTreeMap<BranchId, Branch>,
    pub(crate) tickets: BTreeMap<crate::id::Hash8, TicketRecord>,
    /// Devices that wait for a person's word, and what was said: in memory only.
    pub(crate) knocks: BTreeMap<DeviceId, (Knock, Option<bool>)>,
    pub(crate) store: S,
    pub(crate) random: Random,
    pub(crate) out: VecDeque<Output>,
    pub(crate) caught_up: bool,
    /// Was whole, until something had to be set aside.
    pub(crate) mending: bool,
    pub(crate) counters: Counters,
    pub(crate) own: LogId,
    pub(crate) closes: Option<Version>,
    pub(crate) clock: HybridClock,
    pub(crate) held: PendingCommits,
    /// Logs that moved and may have held commits to go on with.
    moved: BTreeSet<BranchId>,
    /// The branch that scrubbing was last through with in this round.
    pub(crate) scrubbed_upto: Option<BranchId>,
    /// Branches that may be damaged here: to be checked before all others.
    pub(crate) suspects: BTreeSet<BranchId>,
    /// Peers that called a header of an own log wrong.
    pub(crate) root_disputes: BTreeSet<(DeviceId, LogId)>,
    /// Branches that a session is receiving.
    pub(crate) receiving: BTreeMap<BranchId, SessionId>,
    /// How often in a row what was offered of a log proved false.
    pub(crate) proof_failures: BTreeMap<LogId, u32>,
    /// How far logs count has changed: others are to be asked for what is missing now.
    pub(crate) unsettled: bool,
    /// Slots were handed to storage in this call: reads do not see them before the next.
    unread: bool,
    /// Peers that made us leave a log by a claim they did not prove: once each.
    pub(crate) alarmed: BTreeSet<DeviceId>,
    pub(crate) queue: VecDeque<(Token, Vec<Change>)>,
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
        let mut logs = BTreeMap::new();
        for (id, record) in &recovered.logs {
            logs.insert(*id, Branch::from_record(*id, record)?);
        }
        let mut tickets = BTreeMap::new();
        for (id, record) in &recovered.tickets {
            // One that cannot be read is one more that admits nobody.
            if let Ok(record) = codec::decode(record) {
                tickets.insert(*id, record);
            }
        }
        let mut replica = Self {
            own: LogId { author: me, epoch: 0, shard: 0 },
            caught_up: recovered.caught_up,
            mending: !recovered.caught_up
                && logs
                    .values()
                    .any(|log: &Branch| log.was_whole && log.standing == Standing::Aside),
            clock: HybridClock::default(),
            closes: None,
            counters: Counters::default(),
            held: PendingCommits::default(),
            moved: BTreeSet::new(),
            scrubbed_upto: None,
            suspects: BTreeSet::new(),
            root_disputes: BTreeSet::new(),
            receiving: BTreeMap::new(),
            proof_failures: BTreeMap::new(),
            unsettled: false,
            unread: false,
            alarmed: BTreeSet::new(),
            out: VecDeque::new(),
            queue: VecDeque::new(),
            random: Random::new(entropy),
            key,
            me,
            roster,
            logs,
            tickets,
            knocks: BTreeMap::new(),
            store,
        };
        let newest = replica
            .logs
            .values()
            .filter(|log| log.id.log.author == me && replica.branches(log.id.log).all(|b| !b.left))
            .filter_map(|log| Some((log.head.as_ref()?.header().hlc, log.id.log)))
            .max();
        if let Some((_, own)) = newest {
            replica.own = own;
        }
        if fresh_epoch && !plant::is(Plant::ReuseEpoch) || newest.is_none() {
            replica.rotate();
        }
        replica.recut();
        Ok(replica)
    }

    /// Leaves the own log for good and goes on in a new one.
    pub(crate) fn rotate(&mut self) {
        let mut left = Vec::new();
        for (_, log) in self.logs.range_mut(log_set::all(self.own)) {
            log.left = true;
            left.push(log.write());
            if let Some(head) = &log.head {
                let (seq, hash) = (head.header().last_seq, head.hash().short8());
                self.closes = Some(Version { log: self.own, seq, hash });
            }
        }
        self.persist(left);
        loop {
            self.own.epoch = u32::try_from(self.random.next() >> 32).unwrap_or(1);
            if self.branches(self.own).next().is_none() {
                return;
            }
        }
    }

    // ---- what a replica has -------------------------------------------------------------------

    /// What this replica says in a digest, ascending. Of a log that is set aside it says that nothing is
    /// there, for the others may think otherwise.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::with_capacity(self.logs.len());
        let mut branches = self.logs.values().peekable();
        while let Some(branch) = branches.next() {
            let log = branch.id.log;
            entries.extend(branch.entry());
            let last = branches.peek().is_none_or(|next| next.id.log != log);
            let wanted = log.author == self.me || self.roster.extent(&log) != Extent::Nothing;
            if last && wanted && entries.last().is_none_or(|entry| entry.log != log) {
                entries.push(Entry::nothing(log));
            }
        }
        entries.sort_unstable();
        entries
    }

    /// A number that is another one after anything that others may lack has come to be here.
    pub(crate) fn moves(&self) -> u64 {
        let Counters { commits_signed, commits_applied, logs_repaired, set_aside, .. } =
            self.counters;
        commits_signed
            + commits_applied
            + logs_repaired
            + set_aside
            + self.roster.statements() as u64
    }

    pub(crate) fn state_hash(&self) -> Hash {
        // What lies beyond a log's end and cannot be replaced yet is offered to nobody, but it is shown
        // in part: two replicas that show different parts are not equal.
        let beyond =
            self.logs.values().filter(|log| log.remains().is_some()).map(Branch::head_entry);
        let entries: Vec<Entry> = self.entries().into_iter().chain(beyond).collect();
        digest::state_hash(&self.roster.hash(), entries.iter())
    }

    pub(crate) fn heads(&self) -> BTreeMap<BranchId, u64> {
        let upto = |log: &Branch| match &log.staged {
            Some(staged) if plant::is(Plant::ShowStaged) => staged.upto,
            _ => self.visible(&log.id),
        };
        let all = self.logs.values().map(|log| (log.id, upto(log)));
        all.filter(|(_, upto)| *upto > 0).collect()
    }

    pub(crate) fn own_log(&self) -> LogId {
        self.own
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn log_status(&self) -> Vec<LogStatus> {
        let one = |log: &Branch| LogStatus {
            branch: log.id,
            seq: if log.shown() { log.seq() } else { 0 },
            slots: log.totals.count(),
            bytes: log.totals.bytes(),
            stamp: log.head.as_ref().map_or(0, |head| head.header().hlc.millis()),
            staged: log.staged.as_ref().map_or(0, |staged| staged.upto),
            frozen: log.frozen,
            forked: log.forked || self.shown(log.id.log).nth(1).is_some(),
            aside: log.standing == Standing::Aside,
        };
        let counts = |log: &&Branch| {
            let there = log.head.is_some() || log.staged.is_some() || log.frozen.is_some();
            there && log.chore != Chore::Drop
        };
        self.logs.values().filter(counts).map(one).collect()
    }

    /// A new call begins: storage has taken whatever earlier calls handed out.
    pub(crate) fn begin(&mut self) {
        self.unread = false;
    }

    /// Whether slots were written in this call, so that storage must not be read for slots again.
    pub(crate) fn unread(&self) -> bool {
        self.unread
    }

    pub(crate) fn persist(&mut self, writes: Vec<Write>) {
        self.unread |= writes.iter().any(|w| {
            matches!(w, Write::Slot { .. } | Write::RemoveSlot { .. } | Write::Header { .. })
        });
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
        }
    }

    pub(crate) fn view(&self, key: &[u8]) -> Result<View, StoreError> {
        View::merge(&self.store.slots(key)?, |branch| self.visible(branch))
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
                let gap = self.next_of(commit.header().header()).is_none();
                if gap && !known { Err(commit::BadCommit::Signature) } else { Ok(commit) }
            }
            checked => checked,
        };
        let commit = self.judge(token, from, known, checked)?;
        self.clock.observe(commit.header().header().hlc, now);
        self.place(commit)
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
        if self.at_cut(claim.log) || self.over_quota(claim) {
            return Ok(Taken::Settled);
        }
        Ok(match self.stands(&header)? {
            Stands::Here | Stands::Old => Taken::Settled,
            Stands::Beyond => Taken::Gap { log: claim.log, upto: claim.last_seq },
            Stands::Apart => {
                self.mark_forked(claim.log);
                Taken::Apart
            }
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
            Err(bad) if bad.damning() => (Verdict::Reject, Err(Fault::peer(from, bad, true))),
            Err(bad) => (Verdict::Ignore, Err(Fault::peer(from, bad, false))),
        };
        self.count(verdict);
        self.out.push_back(Output::Verdict(token, verdict));
        result
    }

    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Accept => {}
            Verdict::Reject => self.counters.rejected += 1,
            Verdict::Ignore => self.counters.ignored += 1,
        }
    }

    fn place(&mut self, commit: VerifiedCommit) -> Result<Taken, Fault> {
        let header = commit.header().header();
        let log = header.log;
        // It may have been held while its author was revoked.
        if !self.roster.admits(commit.header()) || self.at_cut(log) || self.over_quota(header) {
            return Ok(Taken::Settled);
        }
        match self.stands(commit.header())? {
            Stands::Here | Stands::Old => return Ok(Taken::Settled),
            Stands::Apart => {
                self.mark_forked(log);
                return Ok(Taken::Apart);
            }
            Stands::Beyond => {}
        }
        if log == self.own {
            self.own_head_elsewhere();
        }
        let gap = Taken::Gap { log, upto: header.last_seq };
        let Some(branch) = self.next_of(header) else {
            self.held.push(commit);
            return Ok(gap);
        };
        let branch = match self.logs.get(&branch).cloned() {
            Some(branch) => branch,
            None if !self.make_room(log) => return Ok(Taken::Settled),
            None => Branch::new(branch),
        };
        if branch.unsettled() {
            self.held.push(commit);
            return Ok(gap);
        }
        let change = branch.advance(commit.slots(), &header.retired, &self.store)?;
        let stamps_rise = branch.head.as_ref().is_none_or(|head| head.header().hlc < header.hlc);
        if !stamps_rise || !proves(header, &change.totals) {
            self.freeze(branch, commit.header().hash());
            return Ok(Taken::Settled);
        }
        self.counters.commits_applied += 1;
        self.settle(branch, &commit, change);
        Ok(Taken::Settled)
    }

    /// A log moved or came to rest: what was held for it may go on.
    pub(crate) fn note_moved(&mut self, id: BranchId) {
        self.moved.insert(id);
    }

    /// Applies one held commit that fits now; says whether there may be more. One a call: the next
    /// one's sums are worked out from what this one writes.
    pub(crate) fn apply_held(&mut self) -> Result<bool, Fault> {
        while !self.unread
            && let Some(id) = self.moved.pop_first()
        {
            let (seq, unsettled) =
                self.logs.get(&id).map_or((0, false), |log| (log.seq(), log.unsettled()));
            if !unsettled && let Some(commit) = self.held.next(&id.log, seq) {
                self.place(commit)?;
            }
        }
        Ok(!self.moved.is_empty())
    }

    /// Moves a log's head over a commit whose root is right (or was just computed).
    pub(crate) fn settle(
        &mut self,
        mut log: Branch,
        commit: &VerifiedCommit,
        change: crate::log::branch::Change,
    ) {
        let header = commit.header().header().clone();
        log.extent = self.extent(log.id.log);
        log.totals = change.totals;
        log.scrubbed = change.scrubbed;
        log.frozen = None;
        log.note_gone(header.last_seq, &header.retired);
        let mut writes = change.writes;
        writes.push(Write::Header {
            branch: log.id,
            seq: header.last_seq,
            bytes: commit.header().bytes().clone(),
        });
        log.head = Some(commit.header().clone());
        writes.push(log.write());
        let id = log.id;
        self.moved.insert(id);
        self.logs.insert(id, log);
        self.persist(writes);
        self.resolve_cut(id.log);
        self.resolve_aside(id.log);
        self.out.push_back(Output::Advanced);
    }

    /// Follows a stamp that repair brought.
    pub(crate) fn observe(&mut self, header: &VerifiedHeader, now: Now) {
        self.clock.observe(header.header().hlc, now);
    }

    // ---- roster -------------------------------------------------------------------------------

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
        refused.into_iter().find(BadStatement::damning).map_or(Ok(fresh), Err)
    }

    /// As [`Self::take_statements`], from a member.
    pub(crate) fn take_statements_of(
        &mut self,
        peer: DeviceId,
        batch: &[Bytes],
    ) -> Result<(), Fault> {
        let taken = self.take_statements(batch, false);
        taken.map(|_| ()).map_err(|bad| Fault::peer(peer, bad, true))
    }

    /// Takes a gossiped statement in, with its verdict.
    pub(crate) fn take_statement(
        &mut self,
        token: Token,
        from: DeviceId,
        statement: Bytes,
    ) -> Result<(), Fault> {
        let (fresh, refused) = self.insert_statements(&[statement], false);
        let bad = refused.into_iter().next();
        let verdict = match &bad {
            Some(bad) if bad.damning() => Verdict::Reject,
            None if fresh > 0 => Verdict::Accept,
            _ => Verdict::Ignore,
        };
        self.count(verdict);
        self.out.push_back(Output::Verdict(token, verdict));
        match bad {
            Some(bad) => Err(Fault::peer(from, &bad, bad.damning())),
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
        self.persist(writes);
        if spread {
            for (_, bytes) in fresh {
                self.out.push_back(Output::Publish(message::encode(&Gossip::Statement(bytes))));
            }
        }
        if count > 0 {
            self.recut();
            if before != members(&self.roster) {
                self.out.push_back(Output::MembersChanged);
            }
        }
        (count, refused)
    }
}

/// Whether a header's signed sums are these.
pub(crate) fn proves(header: &Header, totals: &crate::log::live_root::Totals) -> bool {
    if plant::is(Plant::SkipRoot) {
        return true;
    }
    header.live_count == totals.count()
        && header.live_bytes == totals.bytes()
        && header.live_root == totals.root()
}

impl Branch {
    pub(crate) fn note_gone(&mut self, at: u64, retired: &[(u64, u64)]) {
        self.gone.extend(retired.iter().map(|(from, to)| Gone { at, from: *from, to: *to }));
    }
}
