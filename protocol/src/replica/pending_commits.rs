//! Commits held while their predecessors are on the way: bounded in number and bytes, newest dropped
//! first, for repair brings whatever is missing anyway.

use std::collections::BTreeMap;

use crate::id::LogId;
use crate::limits::{MAX_HELD, MAX_HELD_BYTES, MAX_HELD_PER_AUTHOR};
use crate::log::commit::VerifiedCommit;

/// The commits that wait.
#[derive(Debug, Default)]
pub(crate) struct PendingCommits {
    commits: BTreeMap<(LogId, u64), VerifiedCommit>,
    bytes: usize,
}

impl PendingCommits {
    /// Holds a commit if there is room.
    pub(crate) fn push(&mut self, commit: VerifiedCommit) {
        let size = commit.ops_bytes();
        let header = commit.header().header();
        let author = header.log.author;
        let same = self.commits.keys().filter(|(log, _)| log.author == author).count();
        let full = self.commits.len() >= MAX_HELD || self.bytes + size > MAX_HELD_BYTES;
        if full || same >= MAX_HELD_PER_AUTHOR {
            return;
        }
        let place = (header.log, header.first_seq());
        self.bytes += size;
        if let Some(old) = self.commits.insert(place, commit) {
            self.bytes -= old.ops_bytes();
        }
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

    fn take(&mut self, place: (LogId, u64)) -> Option<VerifiedCommit> {
        let commit = self.commits.remove(&place)?;
        self.bytes -= commit.ops_bytes();
        Some(commit)
    }

    /// Commits held.
    pub(crate) fn len(&self) -> usize {
        self.commits.len()
    }
}
