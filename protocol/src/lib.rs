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

mod admit;
mod branches;
pub mod codec;
pub mod commit;
pub mod crypto;
pub mod digest;
pub mod engine;
mod gossip;
pub mod id;
pub mod io;
pub mod limits;
mod local;
mod log;
mod membership;
pub mod memory;
pub mod message;
pub mod op;
#[doc(hidden)]
pub mod plant;
mod random;
mod reconcile;
mod replica;
pub mod roster;
mod scrub;
pub mod slots;
pub mod store;
pub mod ticket;
pub mod time;
pub mod timer;
pub mod view;
