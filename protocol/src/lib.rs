//! swarmkv's pure core.
pub mod codec;
pub mod id;
