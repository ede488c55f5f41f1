//! The rules of replication as checked models: explicit states, every rule a switch.

mod search;
mod views;
