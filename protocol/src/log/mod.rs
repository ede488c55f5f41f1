//! One author's signed history.

pub(crate) mod branch;
pub mod commit;
pub mod digest;
pub(crate) mod head_hash;
pub mod heads;
pub mod live_root;
pub mod live_set;
pub(crate) mod log_set;
pub mod rewrite;
pub mod verify;
