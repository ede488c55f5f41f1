//! What members state about each other: geneses, grants, revocations.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{DeviceKey, Domain, PublicKey, Sealed};
use crate::header::{BadCommit, SignedHeader};
use crate::id::{DeviceId, Hash, LogId, SwarmId};
use crate::later;
use crate::limits::{
    MAX_CUTS, MAX_KEY, MAX_LABEL, MAX_REVOKE, MAX_STATEMENT, MAX_STATEMENTS, MAX_TIPS, VERSION,
};

/// What a member may do, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Holds and serves everything, writes nothing.
    Reader,
    /// Also writes, under its prefix and quota.
    Writer,
    /// Also admits writers and readers.
    Admin,
    /// Made the swarm; also admits admins.
    Owner,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Admin => "admin",
            Self::Owner => "owner",
        })
    }
}

/// The birth of a swarm. Its signed form's hash is the swarm's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genesis {
    /// Protocol version.
    pub version: u8,
    /// The swarm's name, for people.
    pub name: String,
    /// The owner's device.
    pub owner: DeviceId,
    /// The owner's device's label.
    pub label: String,
    /// Least protocol version that members must speak.
    pub min_version: u8,
    /// Random: two swarms of one name and owner differ.
    pub nonce: Bytes,
}
tuple_codec!(Genesis { version, name, owner, label, min_version, nonce });

/// Admits a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The device admitted.
    pub device: DeviceId,
    /// Its name, for people.
    pub label: String,
    /// What it may do.
    pub role: Role,
    /// Keys that it may write begin with this; empty: all keys.
    pub prefix: Bytes,
    /// Bytes of live operations that its logs may hold; `None`: no bound.
    pub max_bytes: Option<u64>,
}
tuple_codec!(Grant { device, label, role, prefix, max_bytes });

/// Takes a device out, for ever: a key that was revoked never returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoke {
    /// The device.
    pub device: DeviceId,
    /// The signed headers at which its logs end, ascending by log: the issuer's own proven heads. A log
    /// that is not named here counts for nothing.
    pub heads: Vec<Bytes>,
    /// Names of its last statements that count, ascending; those that they rest on count too.
    pub statements: Vec<Hash>,
}
tuple_codec!(Revoke { device, heads, statements });

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementBody {
    /// Admits a device.
    Grant(Grant),
    /// Takes one out.
    Revoke(Revoke),
    /// What a later version states: kept and passed on as it is, and nothing follows from it here.
    #[serde(skip)]
    Later,
}

/// One link of an issuer's chain of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Protocol version.
    pub version: u8,
    /// The swarm it belongs to.
    pub swarm: SwarmId,
    /// Who states it.
    pub issuer: DeviceId,
    /// Its place in the issuer's chain, from 1.
    pub number: u64,
    /// Name of the issuer's statement before it; zero for the first.
    pub prev: Hash,
    /// What it says.
    pub body: StatementBody,
}
tuple_codec!(Statement { version, swarm, issuer, number, prev, body });

/// Why a genesis or statement is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStatement {
    /// Too large, or not canonical.
    #[error("statement is {0}")]
    Codec(#[from] CodecError),
    /// Of another protocol version: an upgrade may help.
    #[error("statement has protocol version {0}, this build speaks {VERSION}")]
    Version(u8),
    /// Belongs to another swarm.
    #[error("statement belongs to another swarm")]
    Swarm,
    /// The signature is not the issuer's.
    #[error("signature does not verify")]
    Signature,
    /// Says something that no statement may.
    #[error("statement is invalid: {0}")]
    Form(&'static str),
    /// The issuer is unknown here, or what comes before it is.
    #[error("issuer or predecessor is not known here")]
    Unknown,
    /// The issuer's rank does not reach.
    #[error("issuer's rank does not allow that")]
    Rank,
    /// The issuer, or the device it speaks of, was revoked before this counted.
    #[error("it does not count: a revocation came before it")]
    Void,
    /// There is no room.
    #[error("roster is full ({MAX_STATEMENTS} statements)")]
    Full,
    /// This device would state it after something of its own that this build does not understand.
    #[error("this device has stated what only a later version understands: an upgrade is needed")]
    Later,
}

impl BadStatement {
    /// Whether every honest node would refuse this, whatever its state.
    #[must_use]
    pub fn by_all(&self) -> bool {
        matches!(self, Self::Codec(_) | Self::Swarm | Self::Signature | Self::Form(_))
    }

    /// Whether it is of a later version: an upgrade would help.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self, Self::Version(version) if *version > VERSION)
    }
}

pub(super) fn check_label(label: &str) -> Result<(), BadStatement> {
    let fits = !label.is_empty() && label.len() <= MAX_LABEL;
    if fits && !label.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(BadStatement::Form("label"))
    }
}

pub(super) fn open(bytes: &[u8]) -> Result<Sealed, BadStatement> {
    if bytes.len() > MAX_REVOKE {
        return Err(BadStatement::Form("size"));
    }
    Ok(codec::decode(bytes)?)
}

/// Reads a statement, also one that says what this build does not know.
pub(super) fn read(body: &[u8]) -> Result<Statement, BadStatement> {
    if let Some(version) = later::version(body) {
        return Err(BadStatement::Version(version));
    }
    let statement = codec::decode(body).or_else(|bad| read_later(body).ok_or(bad))?;
    Ok(statement)
}

/// A statement whose place can be read, but not what it says: it has a variant that is not here.
fn read_later(body: &[u8]) -> Option<Statement> {
    let (place, says) = later::split_last(body)?;
    let (version, swarm, issuer, number, prev) = codec::decode(&place).ok()?;
    let unknown = later::is_unknown_variant::<StatementBody>(says);
    let body = StatementBody::Later;
    unknown.then_some(Statement { version, swarm, issuer, number, prev, body })
}

/// The place in its chain that a statement claims; 0 for what is no statement.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let statement = open(bytes).and_then(|sealed| read(&sealed.body));
    statement.map_or(0, |statement| statement.number)
}

/// Where a log of a revoked device ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// Last sequence number that counts.
    pub seq: u64,
    /// Hash of the header that ends there.
    pub hash: Hash,
}

/// A statement as it is kept, with what evaluation needs of it worked out once.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) statement: Statement,
    pub(super) bytes: Bytes,
    /// The key of the device that it is about.
    pub(super) key: PublicKey,
    /// Where a revocation ends that device's logs, ascending.
    pub(super) cuts: Vec<(LogId, Cut)>,
}

impl Statement {
    /// What bytes claim to state. Nothing of it is checked.
    #[must_use]
    pub fn claim(bytes: &[u8]) -> Option<Self> {
        codec::decode(&open(bytes).ok()?.body).ok()
    }

    /// The device that it is about; its issuer if that cannot be told.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        match &self.body {
            StatementBody::Grant(grant) => grant.device,
            StatementBody::Revoke(revoke) => revoke.device,
            StatementBody::Later => self.issuer,
        }
    }

    /// Signs it.
    pub(super) fn seal(&self, key: &DeviceKey) -> Bytes {
        let body = codec::encode(self);
        let sig = key.sign(Domain::Statement, &body);
        Bytes(codec::encode(&Sealed { body: Bytes(body), sig }))
    }

    /// Checks everything about it that does not depend on other statements, but for its signature.
    pub(super) fn hold(mut self, bytes: &Bytes) -> Result<Held, BadStatement> {
        let key = PublicKey::new(&self.device()).ok_or(BadStatement::Form("device key"))?;
        let cuts = match &self.body {
            StatementBody::Grant(grant) => {
                check_label(&grant.label)?;
                if grant.prefix.len() > MAX_KEY {
                    return Err(BadStatement::Form("prefix"));
                }
                if bytes.len() > MAX_STATEMENT {
                    return Err(BadStatement::Form("size"));
                }
                Vec::new()
            }
            StatementBody::Revoke(revoke) => match revoke.cuts(&self.swarm, &key) {
                // Where that log ends cannot be told here: to leave it out would end it at nothing.
                Err(BadStatement::Version(version)) if version > VERSION => {
                    self.body = StatementBody::Later;
                    Vec::new()
                }
                cuts => cuts?,
            },
            StatementBody::Later => Vec::new(),
        };
        Ok(Held { statement: self, bytes: bytes.clone(), key, cuts })
    }
}

impl Revoke {
    /// The cuts that it names: each a header of that device's, signed by it.
    fn cuts(&self, swarm: &SwarmId, key: &PublicKey) -> Result<Vec<(LogId, Cut)>, BadStatement> {
        if self.statements.len() > MAX_TIPS {
            return Err(BadStatement::Form("number of cuts"));
        }
        if !self.statements.is_sorted_by(|a, b| a < b) {
            return Err(BadStatement::Form("order of cuts"));
        }
        let mut cuts = Vec::with_capacity(self.heads.len());
        for head in &self.heads {
            let header = match SignedHeader::decode(head) {
                Ok(header) => header,
                Err(BadCommit::Version(version)) => return Err(BadStatement::Version(version)),
                // A header of the first edition: nobody holds that log any more, so it counts for nothing.
                // The revocation stands.
                Err(_) if is_signed_by(head, key) => continue,
                Err(_) => return Err(BadStatement::Form("cut")),
            };
            let claim = header.claim();
            if claim.log.author != self.device || claim.swarm != *swarm {
                return Err(BadStatement::Form("cut of another's log"));
            }
            let (log, seq) = (claim.log, claim.last_seq);
            if !header.is_signed_by(key) {
                return Err(BadStatement::Form("cut's signature"));
            }
            cuts.push((log, Cut { seq, hash: header.hash() }));
        }
        if cuts.len() > MAX_CUTS {
            return Err(BadStatement::Form("number of cuts"));
        }
        if cuts.is_sorted_by(|a, b| a.0 < b.0) {
            Ok(cuts)
        } else {
            Err(BadStatement::Form("order of cuts"))
        }
    }
}

/// Whether the owner of this key signed these bytes as a header, whatever they say.
fn is_signed_by(head: &[u8], key: &PublicKey) -> bool {
    let sealed: Result<Sealed, _> = codec::decode(head);
    sealed.is_ok_and(|sealed| key.verifies(Domain::Commit, &sealed.body, &sealed.sig))
}
