//! The two-party repair session (anti-entropy): one side pulls, the other serves.
//!
//! ```text
//! pull                                   serve
//!   Hello(hash of roster and digest) ->
//!                                     <- Same                      equal: one round trip, done
//!                                     <- Differs(roster hash)
//!   Roster(names)                    ->                            only if the rosters differ
//!                                     <- Statements(missing, names)
//!   Digest(missing, entries)         ->                            in several frames if it is long
//!                                     <- TellAll                   only if it goes on from what is not known
//!                                     <- Plan
//!   Except(logs)                     ->                            only beside other sessions
//!                                     <- for each log: Start, Slots…, End
//!                                     <- Done
//! ```
//! The roster is complete before any data. Slots are set aside until the header in `End` proves
//! signature, chain and live root; only then does the log's head move. A session can end anywhere:
//! what was set aside is on disk and the next session goes on from there. Only what was announced counts as
//! progress: a session that brings too little of it is given up, whatever else it brings.
//!
//! Either side learns from the other's digest that it lacks something, and then pulls in a session of
//! its own.

mod hold;
mod progress;
mod pull;
mod serve;

pub(crate) use pull::{PeerCooldown, Pull, Pulled, Told};
pub(crate) use serve::{Heard, Serve, Served};
