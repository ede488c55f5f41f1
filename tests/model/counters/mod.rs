//! Counters in one cell: parts, takings, the join, adoption of a decimal value, epochs.
//!
//! Device 0 writes log A and, once it opened a new epoch, log A'; devices 1 and 2 write B and C.
//! There are no forks, no expiry and no forgetting here. Each add has an amount; the ghost of each
//! write knows what its author had, so what a counter must show is a sum over adds that no delete
//! or put had seen.

mod act;
mod check;
mod fork;
mod rules;
mod runs;

/// A, A', B, C.
pub const LOGS: usize = 4;
/// Most writes of a log: an id is `log * DEEP + place`.
pub const DEEP: usize = 6;
/// The decimal number that every put writes.
pub const NUMBER: i16 = 8;

/// Which writes: a bit for each id.
pub type Set = u32;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Add(i16),
    Put,
    Delete,
}

/// Totals since the write of a log with the number `first`, or the value that this write put.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Part {
    pub log: u8,
    pub first: u8,
    pub up: i16,
    pub down: i16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Op {
    pub kind: Kind,
    pub seq: u8,
    pub hlc: u8,
    /// For each other log at most one entry: (log, seq).
    pub ctx: Vec<(u8, u8)>,
    pub parts: Vec<Part>,
    pub took: Vec<Part>,
    /// Ghost: everything its author had.
    pub saw: Set,
    /// Ghost: adds and values that it ends.
    pub kills: Set,
    /// Ghost: the value that it adopted.
    pub adopts: Option<u8>,
    /// Ghost: the writes of the old log whose parts it copies.
    pub brings: Set,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Replica {
    pub heads: [u8; LOGS],
    /// A new epoch was opened; the next add copies what the old one has (only device 0).
    pub epoch: bool,
    pub copies: bool,
    /// Monitor: all that slots here ever took.
    pub ever: Vec<Part>,
    /// Monitor: values seen overwritten here.
    pub dead: Set,
}

#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct State {
    pub ops: [Vec<Op>; LOGS],
    pub replicas: Vec<Replica>,
}

/// Bounds, and every rule as a switch.
#[derive(Clone, Debug)]
pub struct Config {
    pub replicas: usize,
    pub writes: usize,
    /// The writes that there are.
    pub kinds: &'static [Kind],
    pub epochs: bool,

    /// Slots that a context names exactly are not in T.
    pub named_out: bool,
    /// What slots took is subtracted.
    pub taken: bool,
    /// ... and not below 0.
    pub floor: bool,
    /// What dominated slots took counts, too.
    pub all_took: bool,
    /// A delete or put takes T and C, not T alone.
    pub takes_both: bool,
    /// An add carries what its replaced slot took.
    pub carry_took: bool,
    /// ... even of parts that no slot here has.
    pub carry_absent: bool,
    /// An add drops own parts that C covers.
    pub drop_covered: bool,
    /// A part that is begun anew has a name of its own (its first number).
    pub first: bool,
    /// Ups and downs are totals of their own.
    pub apart: bool,
    /// An add does not name others' counter slots.
    pub spare_counters: bool,
    /// An adopted value is a part named by the write that put it.
    pub adopt_by_name: bool,
    /// An add names others' other slots.
    pub name_values: bool,
    /// An epoch that copies an older one's parts keeps their names.
    pub copy_by_name: bool,
    /// A delete or put takes a decimal value that it saw, as the part that an add would adopt.
    pub take_values: bool,
    /// An add takes the values that it names and does not adopt.
    pub take_unadopted: bool,
    /// An add keeps an old entry of a log whose slot here is a counter.
    pub keep_beside_counter: bool,
}

impl Config {
    /// The rules as the design gives them.
    pub fn letter() -> Self {
        Config {
            replicas: 2,
            writes: 4,
            kinds: &[Kind::Add(1), Kind::Add(-1), Kind::Put, Kind::Delete],
            epochs: false,
            named_out: true,
            taken: true,
            floor: true,
            all_took: true,
            takes_both: true,
            carry_took: true,
            carry_absent: true,
            drop_covered: true,
            first: true,
            apart: true,
            spare_counters: true,
            adopt_by_name: true,
            name_values: true,
            copy_by_name: true,
            take_values: false,
            take_unadopted: false,
            keep_beside_counter: false,
        }
    }

    /// The rules with what the search found wanting mended.
    pub fn mended() -> Self {
        Config {
            take_values: true,
            take_unadopted: true,
            keep_beside_counter: true,
            ..Config::letter()
        }
    }
}
