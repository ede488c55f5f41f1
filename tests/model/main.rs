//! The rules of replication as checked models: explicit states, every rule a switch.
//!
//! `views`: contexts and domination in a log whose author signed two histories. `counters`: parts,
//! takings, the join, adoption. Each has tests that the rules as they should be break nothing, and
//! one that takes each rule out and must find what then breaks.
//!
//! `cargo test -p swarmkv-tests --test model` takes less than a minute. `SWARMKV_MODEL_SECONDS=n`
//! gives each search n seconds (and some GB of memory); `SWARMKV_MODEL_TRACES=1` with
//! `--nocapture` prints the shortest trace of each violation.

mod counters;
mod search;
mod views;
