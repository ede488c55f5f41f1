//! Durable storage of one replica. Knows nothing of networks.
//!
//! # Arrangement
//! A write is appended to the *journal* as one frame and synced; then it is durable. Its slots stay where
//! they were written: the *index* only says where each lies, by log order and by key. The index is a redb
//! file that follows the journal from checkpoint to checkpoint; what is durable and not yet in it lies in a
//! *memtable*, which a restart makes again from the journal's end. Segments of the journal that hold little
//! but what nobody points to any more are given back, in idle moments too.
//!
//! ```text
//! core ──apply──▶ overlay ──commit──▶ journal + memtable ──checkpoint──▶ index
//!                                     (one append, one fdatasync)       (thousands at once)
//! ```
//!
//! # Why
//! Measured with this project's access pattern (`tests/store-bench`, 2 cores): a database that holds the
//! values pays for every lone write with some 25 pages, and for a catch-up with two passes of every value
//! through its tree. A log-structured engine (fjall) writes as fast as this, but takes 0.3 to 4 s to open
//! and 250–310 MB in its faster settings. redb alone opens at once and stays small; with values and
//! durability taken off its hands it need not be fast. Two-phase commits with quick repair: a killed peer
//! opens in about a millisecond whatever its size.

mod balance;
mod branches;
mod carry;
mod checkpoint;
mod disk;
mod files;
mod frame;
mod index;
mod journal;
mod layers;
mod memory;
mod memtable;
mod merge;
mod migrate;
mod notes;
mod old;
mod overlay;
mod reclaim;
mod room;
mod schema;
mod segments;
mod sync;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use disk::Disk;
pub(crate) use migrate::open;
pub(crate) use notes::Addresses;
pub(crate) use overlay::size;
pub(crate) use sync::{SyncDone, SyncThread};
pub(crate) use view::Snapshot;
