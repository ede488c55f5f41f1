//! Views of one cell when an author signed two histories of a log (a restored copy): who holds
//! which branch, what a context names, what dominates what.
//!
//! The rules. A context has one entry a log, of a forked one an entry a history, carried on from
//! the own replaced slot. Slot y dominates slot x of another log iff its context (i) names x
//! exactly, or (ii) names a later write of x's log that is awaited here, and x has not seen y.
//! Undominated values win.
//!
//! Device 0 writes log F; a copy of its directory, put to use as device 1, goes on in F by itself:
//! the second history. A device that knows its log forked goes on in a new epoch (E0, E1). Device
//! 2 writes log B, device 3 log C. A write is on the cell (put, delete) or elsewhere (it only
//! moves the head).

mod act;
mod check;
mod rules;
mod runs;

/// Histories: both of F (what they share stands in the first), E0, E1, B, C.
pub const HISTORIES: usize = 6;
/// Most writes of a history: an id is `history * DEEP + place`.
pub const DEEP: usize = 5;
/// A sequence number that no log ever reaches.
pub const FAR: u8 = 63;
/// What a false entry names.
pub const NOTHING: u8 = 255;

/// The log of a history: both branches of F are one log.
pub fn log_of(history: usize) -> u8 {
    history.saturating_sub(1) as u8
}

/// Which writes: a bit for each id.
pub type Set = u32;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Put,
    Delete,
    Elsewhere,
}

/// An entry of a context: the write of a log (not: of a history) with this number and this hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    pub log: u8,
    pub seq: u8,
    pub names: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Op {
    pub kind: Kind,
    pub seq: u8,
    pub hlc: u8,
    pub ctx: Vec<Entry>,
    /// Ghost: every write on the cell that its author had been shown or had superseded.
    pub saw: Set,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Replica {
    pub up: bool,
    /// Of each history the sequence number up to which it is here. Of F: the first has what both
    /// share; the second is 0 unless something of its own is here.
    pub heads: [u8; HISTORIES],
    /// What was here of a history that was set aside: nothing is shown until it is here again.
    pub floor: [u8; HISTORIES],
    /// The second history came first (only where a planted fault reads it).
    pub second_first: bool,
    /// Monitor: values seen overwritten or deleted here.
    pub dead: Set,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    pub ops: [Vec<Op>; HISTORIES],
    /// How many writes both histories of F share, once there is a copy.
    pub fork: Option<u8>,
    pub replicas: Vec<Replica>,
    pub lies: u8,
    pub lost: u8,
}

/// Bounds, events, and every rule as a switch.
#[derive(Clone, Debug)]
pub struct Config {
    pub replicas: usize,
    /// Writes on the cell, and writes elsewhere.
    pub writes: usize,
    pub elsewhere: usize,
    pub deletes: bool,
    pub copy: bool,
    /// The device that signs false entries, and how often it may.
    pub liar: Option<usize>,
    pub lies: u8,
    /// How often a history may be set aside and fetched again.
    pub losses: u8,
    /// The monitor also counts what returns while a history is known to be behind (a known limit).
    pub strict: bool,

    /// (i): exactly what is named.
    pub exact: bool,
    /// (ii): what is older than what is named.
    pub older: bool,
    /// (ii) holds only while the named write is not here.
    pub until_here: bool,
    /// (ii) does not hold for what has seen the dominator.
    pub unseen: bool,
    /// A context names a slot of each history of a forked log.
    pub name_both: bool,
    /// An entry is carried on from the own replaced slot.
    pub carry: bool,
    /// ... of a forked log, also where a slot of another history has a greater number.
    pub carry_forked: bool,
    /// Of a log not known as forked only the greatest entry is kept.
    pub greatest_only: bool,
    /// What both histories share is superseded by what either wrote over it.
    pub shared_superseded: bool,
    /// (ii) does not hold where another history here has the named slot,
    pub elsewhere_here: bool,
    /// ... a later one as well: the named slot may be superseded by now.
    pub later_too: bool,
    /// While one history of a log is here, (ii) does not ask for its head.
    pub one_history: bool,
    pub values_win: bool,
    /// A device goes on in a new epoch once it knows its log forked.
    pub new_epoch: bool,
    /// Ties are broken by the whole hash, not by which history came first.
    pub whole_hash: bool,
}

impl Config {
    /// The rules as the design gives them.
    pub fn letter() -> Self {
        Config {
            replicas: 3,
            writes: 3,
            elsewhere: 1,
            deletes: true,
            copy: true,
            liar: None,
            lies: 0,
            losses: 0,
            strict: false,
            exact: true,
            older: true,
            until_here: true,
            unseen: true,
            name_both: true,
            carry: true,
            carry_forked: false,
            greatest_only: true,
            shared_superseded: false,
            elsewhere_here: false,
            later_too: true,
            one_history: false,
            values_win: true,
            new_epoch: true,
            whole_hash: true,
        }
    }

    /// The rules with what the search found wanting mended.
    pub fn mended() -> Self {
        Config {
            shared_superseded: true,
            elsewhere_here: true,
            one_history: true,
            carry_forked: true,
            ..Config::letter()
        }
    }
}
