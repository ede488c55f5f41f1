//! Whom a refusal counts against.

/// Whom a refusal counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The peer that handed it over: no honest replica of any state could hold it.
    Sender,
    /// Nobody: it may come from a stale roster, another clock, a newer version, or an author's mistake.
    Nobody,
}
