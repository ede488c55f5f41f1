//! The rules of replication as checked models: explicit states, every rule a switch.

mod counters;
mod search;
mod views;
