//! How far the sending of one branch is, and what is done with it next.

use std::collections::VecDeque;

use crate::id::{BranchId, Hash8};
use crate::log::digest::Entry;
use crate::log::live_set::Range;

/// A branch being sent.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) branch: BranchId,
    /// The receiver's proven head that it goes on from; 0: it is sent whole.
    pub(super) base: u64,
    pub(super) head: Hash8,
    /// Whether this side knows that the branch goes through that head.
    pub(super) linked: bool,
    /// Sent, or summed up, to here.
    pub(super) cursor: u64,
    /// The size that was announced; nothing: it is still to be started.
    pub(super) announced: Option<u64>,
    pub(super) compare: bool,
    pub(super) step: Step,
}

/// What is done with a branch next.
#[derive(Debug)]
pub(super) enum Step {
    /// Its live set is summed up.
    Sum,
    /// What was asked for is sent, and what was asked about is named.
    Answer { wanted: VecDeque<u64>, ranges: Vec<Range> },
    /// Its slots are sent from the cursor on.
    Send,
}

impl Sending {
    /// A branch to be sent to a side that has this of its log.
    pub(super) fn new(branch: BranchId, has: &Entry, linked: bool, compare: bool) -> Self {
        Self {
            branch,
            base: has.seq,
            head: has.head,
            linked,
            cursor: if compare { 0 } else { has.staged.max(has.seq) },
            announced: None,
            compare,
            step: if compare { Step::Sum } else { Step::Send },
        }
    }

    /// Nothing that the other side has set aside belongs to this one.
    pub(super) fn start_over(&mut self) {
        self.cursor = 0;
    }
}
