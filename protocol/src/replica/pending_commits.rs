//! Commits held while their predecessors are on the way: bounded in number and bytes for all and for each
//! author, and in time; newest dropped first, for repair brings whatever is missing anyway.

use std::collections::BTreeMap;

use crate::id::{DeviceId, LogId};
use crate::limits::{HELD_MS, MAX_HELD, MAX_HELD_BYTES, MAX_HELD_PER_AUTHOR};
use crate::log::commit::VerifiedCommit;

/// The commits that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingCommits {
    commits: BTreeMap<(LogId, u64), Waiting>,
    authors: BTreeMap<DeviceId, Share>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    commit: VerifiedCommit,
    /// Dropped at this monotonic millisecond.
    until: u64,
}

#[derive(Debug, Default)]
struct Share {
    commits: usize,
    bytes: usize,
}

impl PendingCommits {
    /// Holds a commit if there is room.
    pub(crate) fn push(&mut self, commit: VerifiedCommit, now: u64) {
        let size = commit.ops_bytes();
        let header = commit.header().header();
        let place = (header.log, header.first_seq());
        let share = self.authors.entry(header.log.author).or_default();
        let full = self.commits.len() >= MAX_HELD || self.bytes + size > MAX_HELD_BYTES;
        // No author fills the room of all alone.
        let theirs =
            share.commits >= MAX_HELD_PER_AUTHOR || share.bytes + size > MAX_HELD_BYTES / 2;
        if full || theirs || self.commits.contains_key(&place) {
            return;
        }
        share.commits += 1;
        share.bytes += size;
        self.bytes += size;
        self.commits.insert(place, Waiting { commit, until: now + HELD_MS });
    }

    /// Takes the commit that begins right after `seq`, and drops those that lie at or below it.
    pub(crate) fn next(&mut self, log: &LogId, seq: u64) -> Option<VerifiedCommit> {
        let passed: Vec<(LogId, u64)> =
            self.commits.range((*log, 0)..=(*log, seq)).map(|(place, _)| *place).collect();
        for place in passed {
            self.take(place);
        }
        self.take((*log, seq + 1))
    }

    /// Drops everything of an author that is no member any more.
    pub(crate) fn drop_author(&mut self, author: DeviceId) {
        let theirs = |(log, _): &&(LogId, u64)| log.author == author;
        let places: Vec<_> = self.commits.keys().filter(theirs).copied().collect();
        for place in places {
            self.take(place);
        }
    }

    /// Drops what has waited too long; says when the next one will have.
    pub(crate) fn expire(&mut self, now: u64) -> Option<u64> {
        let old = self.commits.iter().filter(|(_, waiting)| waiting.until <= now);
        let old: Vec<_> = old.map(|(place, _)| *place).collect();
        for place in old {
            self.take(place);
        }
        self.commits.values().map(|waiting| waiting.until).min()
    }

    /// When the first one will have waited too long, about: the exact answer costs a walk.
    pub(crate) fn is_empty(&self) -> bool {
        self.commits.is_empty()
    }

    fn take(&mut self, place: (LogId, u64)) -> Option<VerifiedCommit> {
        let commit = self.commits.remove(&place)?.commit;
        let size = commit.ops_bytes();
        self.bytes -= size;
        if let Some(share) = self.authors.get_mut(&place.0.author) {
            share.commits -= 1;
            share.bytes -= size;
            if share.commits == 0 {
                self.authors.remove(&place.0.author);
            }
        }
        Some(commit)
    }

    /// Commits held.
    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }
}
