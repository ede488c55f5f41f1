//! The core through its public face: one property a file, one harness. One binary, so that the engine is
//! compiled once for all of them.

mod swarm;

mod authors;
mod codec;
mod engine;
mod forks;
mod histories;
mod later;
mod live_sets;
mod lives;
mod membership;
mod merge;
mod omission;
mod revocation;
mod roster;
mod rounds;
mod scrub;
mod sessions;
mod verdicts;
#[cfg(feature = "plant")]
mod work;
