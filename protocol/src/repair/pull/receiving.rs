//! What a session knows of the log that is arriving on it.

use std::collections::VecDeque;

use crate::id::{BranchId, Hash};
use crate::limits::MAX_DIFFERING;
use crate::log::live_set::Range;

/// A branch whose slots are arriving.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) branch: BranchId,
    pub(super) upto: u64,
    pub(super) bound: u64,
    /// The peer knows that its log goes through our head, or sends it whole: what does not prove right
    /// is then the peer's doing.
    pub(super) linked: bool,
    /// Goes on from what an earlier session set aside, which may be another peer's doing.
    pub(super) resumed: bool,
    /// The grant under which the log is written; it says which keys may be in it.
    pub(super) grant: Hash,
    /// Only what differs from what is here is sent.
    pub(super) comparing: Option<Comparing>,
}

/// Live sets being compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparing {
    /// Parts of the log that differ and have not been asked about.
    pub(super) differing: VecDeque<Range>,
    /// Those that were asked about.
    pub(super) asked: Vec<Range>,
    /// Slots that were asked for, ascending.
    pub(super) wanted: VecDeque<u64>,
    /// Nothing more is to be asked: what follows the slots asked for is the rest of the log.
    pub(super) asked_all: bool,
}

impl Receiving {
    /// Whether a slot with this sequence number can come next; then what comes after it is expected.
    pub(super) fn expects(&mut self, seq: u64) -> bool {
        match &mut self.comparing {
            Some(comparing) if seq <= self.upto => return comparing.take_wanted(seq),
            Some(comparing) if !comparing.asked_all => return false,
            _ if seq <= self.upto => return false,
            _ => self.upto = seq,
        }
        true
    }
}

impl Comparing {
    /// Whether a slot up to the last sum was asked for; those before it will not be looked for again.
    fn take_wanted(&mut self, seq: u64) -> bool {
        while let Some(wanted) = self.wanted.front().copied() {
            if wanted > seq {
                return false;
            }
            self.wanted.pop_front();
            if wanted == seq {
                return true;
            }
        }
        false
    }

    /// Notes a range that differs; neighbours become one, and so do those beyond what is kept.
    pub(super) fn note(&mut self, range: Range) {
        let full = self.differing.len() >= MAX_DIFFERING;
        match self.differing.back_mut() {
            Some(last) if last.upto == range.after || full => last.upto = range.upto,
            _ => self.differing.push_back(range),
        }
    }
}
