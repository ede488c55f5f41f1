//! The command line as people and scripts meet it: help, words, bytes, exit codes. One file a concern;
//! `support.rs` runs the real binary.

mod bench;
mod bytes;
mod errors;
mod help;
mod listing;
mod running;
mod support;
