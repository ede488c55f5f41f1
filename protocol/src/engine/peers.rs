//! What is known of each connected member: what it was told, what it told, how it behaves, and what it may
//! still be served.

use crate::limits::{
    MAX_PEER_PAUSE_MS, REPAIR_EVERY_MS, SERVE_BUDGET_BYTES, SERVE_SLOW_BYTES_PER_MS, SESSION_BURST,
    SESSION_EVERY_MS,
};
use crate::repair::{Heard, Told};
use crate::time::Now;

/// A connected member.
#[derive(Debug)]
pub(super) struct Peer {
    /// What it was told of this replica on this connection.
    pub(super) told: Told,
    /// What it told of itself.
    pub(super) heard: Heard,
    pub(super) served: usize,
    /// When both sides were last seen equal, in monotonic milliseconds.
    pub(super) equal_at: Option<u64>,
    /// Not asked again before this; grows while sessions with it come to nothing.
    pub(super) retry_after: u64,
    pause: u64,
    /// What it is ahead of us with we could not use: it is not believed to bring news before this.
    pub(super) news_after: u64,
    budget: Budget,
    sessions: u64,
    sessions_at: u64,
}

/// Bytes that a member is served at full speed, given back slowly.
#[derive(Debug)]
struct Budget {
    left: u64,
    at: u64,
}

impl Peer {
    pub(super) fn new(told: Told, now: Now) -> Self {
        Self {
            told,
            heard: Heard::default(),
            served: 0,
            equal_at: None,
            retry_after: 0,
            pause: 0,
            news_after: 0,
            budget: Budget { left: u64::MAX, at: now.mono },
            sessions: SESSION_BURST,
            sessions_at: now.mono,
        }
    }

    /// A session with it came to nothing: it is asked last for a while, each time longer.
    pub(super) fn disappointed(&mut self, now: Now) {
        self.pause = (self.pause * 2).clamp(REPAIR_EVERY_MS, MAX_PEER_PAUSE_MS);
        self.retry_after = now.mono + self.pause;
    }

    /// A session with it went well.
    pub(super) fn satisfied(&mut self) {
        (self.pause, self.retry_after) = (0, 0);
    }

    /// Whether it may open one more session.
    pub(super) fn may_open(&mut self, now: Now) -> bool {
        let gained = (now.mono - self.sessions_at) / SESSION_EVERY_MS;
        self.sessions_at += gained * SESSION_EVERY_MS;
        self.sessions = (self.sessions + gained).min(SESSION_BURST);
        let may = self.sessions > 0;
        self.sessions = self.sessions.saturating_sub(1);
        may
    }

    /// How long it has to wait for the next piece, in milliseconds; `held` is what all of this replica
    /// weighs: so much and half as much again everybody is served at full speed.
    pub(super) fn wait(&mut self, now: Now, held: u64) -> u64 {
        let full = SERVE_BUDGET_BYTES + held + held / 2;
        let gained = (now.mono - self.budget.at).saturating_mul(SERVE_SLOW_BYTES_PER_MS);
        self.budget.at = now.mono;
        self.budget.left = self.budget.left.saturating_add(gained).min(full);
        if self.budget.left > 0 { 0 } else { SESSION_EVERY_MS }
    }

    /// It was served this much.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.budget.left = self.budget.left.saturating_sub(bytes);
    }
}
