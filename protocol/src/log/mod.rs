//! One author's signed history.

pub(crate) mod branch;
pub mod commit;
pub mod live_root;
