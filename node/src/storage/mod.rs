//! Durable storage of one replica. Knows nothing of networks.
//!
//! # Why redb
//! Measured with this project's access pattern (`tests/store-bench`, 2 cores, 100,000 slots of 300
//! bytes): redb opens in under a millisecond where fjall takes 0.3 to 4 s replaying its journal, stays
//! within its cache size where fjall's faster settings take 250–310 MB, and a reader next to a writer
//! waits at most 4 ms against 32–117 ms. fjall writes 2–4 times faster in groups (63,000 against 27,000
//! operations a second at 256 a commit) and 1.6 times faster alone. A peer that starts at once and
//! stays small on every machine is worth more here; what group commit can give back is taken by
//! committing everything that waits in one transaction, on a thread of its own.
//!
//! # Arrangement
//! Values lie in log order (`slots`: log, seq → stamp, operation), so that serving a catch-up is one
//! sequential read and loading one an append; `keys` maps a user's key to the slots on it. Two-phase
//! commits with quick repair: a killed peer opens in about a millisecond whatever its size, and no
//! bytes that a peer may choose can imitate a finished commit.

mod disk;
mod overlay;
mod schema;
mod sync;
mod view;

pub(crate) use disk::Disk;
pub(crate) use overlay::size;
pub(crate) use sync::{SyncDone, SyncThread};
pub(crate) use view::Snapshot;
