//! Whole hosts: each peer in a network namespace of its own, joined by bridges and routers, with the
//! defaults that people run. `lan.rs` lays the cables.

mod alone;
mod discovery;
mod honest;
mod lan;
mod partition;
mod routed;
