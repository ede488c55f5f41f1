//! The pure core of swarmkv: a replicated key-value store's data model, merge, authentication, repair
//! and membership as state machines.
//!
//! Nothing here knows a socket, a file, a clock, a task or a source of randomness: bytes, time and
//! entropy are handed in, and ordered outputs come out. [`engine::Engine`] is the way in; its
//! documentation states the contract for driving it.
//!
//! The promise that this crate keeps: replicas that have seen the same commits show the same state,
//! each can prove that its peer left nothing out of what it offered, and nobody is ever shown a byte
//! that a member did not sign.
//!
//! | folder | what it holds |
//! |---|---|
//! | `model` | cells, operations, counters, and how the slots of one cell merge |
//! | `log` | one author's signed history: commit, live root, digest, and a history as kept here |
//! | `roster` | who is a member and what each may do; tickets |
//! | `replica` | a replica's whole state and the only ways it changes |
//! | `repair` | the two sides of a repair session |
//! | `engine` | inputs in, ordered outputs out, peers and timers |

mod blame;
pub mod codec;
pub mod crypto;
pub mod engine;
pub mod header;
pub mod id;
pub mod io;
mod later;
pub mod limits;
pub mod log;
pub mod memory;
pub mod message;
#[doc(hidden)]
pub mod meter;
pub mod model;
#[doc(hidden)]
pub mod plant;
mod random;
pub mod repair;
mod replica;
pub mod roster;
pub mod store;
pub mod time;

pub use engine::timers as timer;
pub use log::{commit, digest, live_root, live_set};
pub use model::{op, view};
pub use roster::ticket;
