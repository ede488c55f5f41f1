//! What a write says, and how the writes on one cell merge.

pub mod cell;
pub mod counter;
pub mod op;
pub mod slot;
pub mod view;
