//! What follows from the statements for one device: what it may do, and how far its logs count.

use std::collections::BTreeMap;

use super::statement::{Cut, Role};
use crate::codec::Bytes;
use crate::crypto::PublicKey;
use crate::id::{DeviceId, Hash, LogId};

/// A member as the roster sees it.
#[derive(Clone, Debug)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Its name, for people.
    pub label: String,
    /// The highest role granted to it.
    pub role: Role,
    /// Who granted that; the owner granted itself.
    pub issuer: DeviceId,
    /// The grant that its headers should cite.
    pub grant: Hash,
    pub(super) key: PublicKey,
}

impl Member {
    /// The member's public key, checked once when it was granted.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

/// A grant in force: what headers that cite it are held against.
#[derive(Clone, Debug)]
pub struct Right {
    /// Who may use it.
    pub device: DeviceId,
    /// With which role.
    pub role: Role,
    /// On which keys.
    pub prefix: Bytes,
    /// Up to how many live bytes.
    pub max_bytes: Option<u64>,
    pub(crate) key: PublicKey,
}

impl Right {
    pub(super) fn of_owner(owner: &Member) -> Self {
        Self {
            device: owner.device,
            role: Role::Owner,
            prefix: Bytes::default(),
            max_bytes: None,
            key: owner.key.clone(),
        }
    }
}

/// A device that was taken out, or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Who stated it first, by rank; the device itself if it left.
    pub by: DeviceId,
    /// That statement's name.
    pub statement: Hash,
    pub(super) cuts: BTreeMap<LogId, Cut>,
}

impl Revoked {
    /// Several revocations cut at the least of all.
    pub(super) fn narrow(&mut self, cuts: &BTreeMap<LogId, Cut>) {
        self.cuts.retain(|log, _| cuts.contains_key(log));
        for (log, cut) in &mut self.cuts {
            *cut = cuts.get(log).copied().map_or(*cut, |other| other.min(*cut));
        }
    }

    /// Where this device's logs end; a log that is not there counts for nothing.
    pub fn cuts(&self) -> impl Iterator<Item = (&LogId, &Cut)> {
        self.cuts.iter()
    }
}

/// How far a log counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Wherever its author takes it.
    Open,
    /// Up to there.
    Upto(Cut),
    /// Not at all: its author is not, or no longer, entitled to any of it.
    Nothing,
}
