//! Who is in the swarm and what each may do: a grow-only set of signed statements under one genesis.
//!
//! Evaluation is a pure function of the set: neither arrival order nor any clock matters. Each
//! issuer's statements form a numbered hash chain, so nothing can be slipped in beneath.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{self, Bytes, CodecError, tuple_codec};
use crate::crypto::{self, DeviceKey, Domain, PublicKey, Sig};
use crate::id::{DeviceId, Hash, Hash8, SwarmId};
use crate::limits::{
    MAX_KEY, MAX_LABEL, MAX_STATEMENT, MAX_STATEMENT_BYTES, MAX_STATEMENTS, VERSION,
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

/// Signed bytes: the one envelope of geneses, statements and headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) body: Bytes,
    pub(crate) sig: Sig,
}
tuple_codec!(Sealed { body, sig });

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

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementBody {
    /// Admits a device.
    Grant(Grant),
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
    #[error("issuer may not grant that role")]
    Rank,
    /// There is no room.
    #[error("roster is full ({MAX_STATEMENTS} statements)")]
    Full,
}

impl BadStatement {
    /// Whether every honest node would refuse this, whatever its state.
    #[must_use]
    pub fn damning(&self) -> bool {
        matches!(self, Self::Codec(_) | Self::Swarm | Self::Signature | Self::Form(_))
    }
}

fn check_label(label: &str) -> Result<(), BadStatement> {
    let fits = !label.is_empty() && label.len() <= MAX_LABEL;
    if fits && !label.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(BadStatement::Form("label"))
    }
}

fn open(bytes: &[u8]) -> Result<Sealed, BadStatement> {
    if bytes.len() > MAX_STATEMENT {
        return Err(BadStatement::Form("size"));
    }
    Ok(codec::decode(bytes)?)
}

/// The place in its chain that a statement claims; 0 for what is no statement.
fn number(bytes: &[u8]) -> u64 {
    let statement = open(bytes).and_then(|sealed| Ok(codec::decode::<Statement>(&sealed.body)?));
    statement.map_or(0, |statement| statement.number)
}

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
    key: PublicKey,
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
}

#[derive(Clone)]
struct Held {
    statement: Statement,
    bytes: Bytes,
}

/// The set of statements and what follows from it.
#[derive(Clone)]
pub struct Roster {
    swarm: SwarmId,
    genesis: Genesis,
    genesis_bytes: Bytes,
    statements: BTreeMap<Hash, Held>,
    members: BTreeMap<DeviceId, Member>,
    rights: BTreeMap<Hash, Right>,
}

impl Roster {
    /// Makes a new swarm's signed genesis.
    ///
    /// # Errors
    /// When the name or label cannot be used.
    pub fn found(
        key: &DeviceKey,
        name: &str,
        label: &str,
        nonce: [u8; 16],
    ) -> Result<Self, BadStatement> {
        let genesis = Genesis {
            version: VERSION,
            name: name.to_owned(),
            owner: key.id(),
            label: label.to_owned(),
            min_version: VERSION,
            nonce: Bytes(nonce.to_vec()),
        };
        let body = codec::encode(&genesis);
        let sig = key.sign(Domain::Genesis, &body);
        Self::open(&codec::encode(&Sealed { body: Bytes(body), sig }))
    }

    /// Opens a swarm from its signed genesis.
    ///
    /// # Errors
    /// When the bytes are not a valid genesis.
    pub fn open(bytes: &[u8]) -> Result<Self, BadStatement> {
        let sealed = open(bytes)?;
        let genesis: Genesis = codec::decode(&sealed.body)?;
        if genesis.version != VERSION {
            return Err(BadStatement::Version(genesis.version));
        }
        check_label(&genesis.label)?;
        check_label(&genesis.name)?;
        if genesis.nonce.len() != 16 {
            return Err(BadStatement::Form("nonce"));
        }
        let key = PublicKey::new(&genesis.owner).ok_or(BadStatement::Form("owner's key"))?;
        if !key.verifies(Domain::Genesis, &sealed.body, &sealed.sig) {
            return Err(BadStatement::Signature);
        }
        let id = crypto::hash(Domain::Genesis, &[bytes]);
        let owner = Member {
            device: genesis.owner,
            label: genesis.label.clone(),
            role: Role::Owner,
            issuer: genesis.owner,
            grant: id,
            key,
        };
        let right = Right {
            device: genesis.owner,
            role: Role::Owner,
            prefix: Bytes::default(),
            max_bytes: None,
        };
        Ok(Self {
            swarm: SwarmId::new(*id.as_bytes()),
            genesis_bytes: bytes.into(),
            statements: BTreeMap::new(),
            members: BTreeMap::from([(genesis.owner, owner)]),
            rights: BTreeMap::from([(id, right)]),
            genesis,
        })
    }

    /// The swarm's id.
    #[must_use]
    pub fn swarm(&self) -> SwarmId {
        self.swarm
    }

    /// The genesis.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The genesis as signed.
    #[must_use]
    pub fn genesis_bytes(&self) -> &Bytes {
        &self.genesis_bytes
    }

    /// Every member, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One member.
    #[must_use]
    pub fn member(&self, device: &DeviceId) -> Option<&Member> {
        self.members.get(device)
    }

    /// The right that a grant gives.
    #[must_use]
    pub fn right(&self, grant: &Hash) -> Option<&Right> {
        self.rights.get(grant)
    }

    /// Whether some grant lets `device` write `key`.
    #[must_use]
    pub fn may_write(&self, device: &DeviceId, key: &[u8]) -> bool {
        self.rights.values().any(|right| {
            right.device == *device && right.role >= Role::Writer && key.starts_with(&right.prefix)
        })
    }

    /// A hash of the whole set: equal rosters, equal hashes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut h = crypto::hasher(Domain::Roster);
        h.update(self.swarm.as_bytes());
        for name in self.statements.keys() {
            h.update(name.as_bytes());
        }
        Hash::new(*h.finalize().as_bytes())
    }

    /// The short names of all statements, ascending.
    #[must_use]
    pub fn names(&self) -> Vec<Hash8> {
        self.statements.keys().map(Hash::short8).collect()
    }

    /// The statements whose short names are not among `known` (ascending): as many as one frame takes,
    /// each after those it rests on, so that what is cut off can follow in the next session.
    #[must_use]
    pub fn beyond(&self, known: &[Hash8]) -> Vec<Bytes> {
        let unknown = |name: &Hash| known.binary_search(&name.short8()).is_err();
        let mut missing: Vec<&Held> =
            self.statements.iter().filter(|(name, _)| unknown(name)).map(|(_, h)| h).collect();
        // Only the owner admits admins, and nobody else admits issuers: two ranks of issuers.
        missing.sort_by_key(|held| {
            let Statement { issuer, number, .. } = held.statement;
            (issuer != self.genesis.owner, number)
        });
        let mut room = MAX_STATEMENT_BYTES;
        let fits = |held: &&Held| {
            let size = held.bytes.len() + 8;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        missing.into_iter().take_while(fits).map(|held| held.bytes.clone()).collect()
    }

    /// The statements that admit `device`: its own grant's chain and its issuer's, up to the genesis.
    #[must_use]
    pub fn path(&self, device: &DeviceId) -> Vec<Bytes> {
        let mut path = Vec::new();
        let mut at = *device;
        while at != self.genesis.owner && path.len() <= MAX_STATEMENTS {
            let Some(member) = self.members.get(&at) else {
                break;
            };
            let mut name = member.grant;
            while let Some(held) = self.statements.get(&name) {
                path.push(held.bytes.clone());
                name = held.statement.prev;
            }
            at = member.issuer;
        }
        path
    }

    /// Takes in whatever of `batch` is genuine and anchored, in any order; returns what is new.
    ///
    /// The second list says why others were not taken.
    pub fn insert(&mut self, batch: &[Bytes]) -> (Vec<(Hash, Bytes)>, Vec<BadStatement>) {
        let mut fresh = Vec::new();
        // Chains in their order: few rounds, however the batch was shuffled.
        let mut waiting: Vec<&Bytes> = batch.iter().collect();
        waiting.sort_by_cached_key(|bytes| number(bytes));
        loop {
            let before = waiting.len();
            let mut refused = Vec::new();
            waiting.retain(|bytes| match self.insert_one(bytes) {
                Ok(Some(name)) => {
                    fresh.push((name, (*bytes).clone()));
                    false
                }
                Ok(None) => false,
                Err(fault) => {
                    refused.push(fault);
                    true
                }
            });
            if waiting.is_empty() || waiting.len() == before {
                return (fresh, refused);
            }
        }
    }

    /// Issues a grant as `key`'s next statement, without taking it in: the caller makes it durable
    /// and then inserts it.
    ///
    /// # Errors
    /// When this device may not grant that.
    pub fn grant(&self, key: &DeviceKey, grant: Grant) -> Result<Bytes, BadStatement> {
        let issuer = key.id();
        let last = self
            .statements
            .iter()
            .filter(|(_, held)| held.statement.issuer == issuer)
            .max_by_key(|(name, held)| (held.statement.number, **name));
        let statement = Statement {
            version: VERSION,
            swarm: self.swarm,
            issuer,
            number: last.map_or(1, |(_, held)| held.statement.number + 1),
            prev: last.map_or(Hash::default(), |(name, _)| *name),
            body: StatementBody::Grant(grant),
        };
        self.check(&statement)?;
        let body = codec::encode(&statement);
        let sig = key.sign(Domain::Statement, &body);
        Ok(Bytes(codec::encode(&Sealed { body: Bytes(body), sig })))
    }

    fn insert_one(&mut self, bytes: &Bytes) -> Result<Option<Hash>, BadStatement> {
        let name = crypto::hash(Domain::StatementName, &[bytes]);
        if self.statements.contains_key(&name) {
            return Ok(None);
        }
        if self.statements.len() >= MAX_STATEMENTS {
            return Err(BadStatement::Full);
        }
        let sealed = open(bytes)?;
        let statement: Statement = codec::decode(&sealed.body)?;
        if statement.version != VERSION {
            return Err(BadStatement::Version(statement.version));
        }
        if statement.swarm != self.swarm {
            return Err(BadStatement::Swarm);
        }
        // The costly check comes last: what is tried again in another round fails before it.
        self.check(&statement)?;
        let issuer = self.members.get(&statement.issuer).ok_or(BadStatement::Unknown)?;
        if !issuer.key.verifies(Domain::Statement, &sealed.body, &sealed.sig) {
            return Err(BadStatement::Signature);
        }
        let StatementBody::Grant(grant) = statement.body.clone();
        self.admit(name, statement.issuer, grant)?;
        let bytes = bytes.clone();
        self.statements.insert(name, Held { statement, bytes });
        Ok(Some(name))
    }

    fn check(&self, statement: &Statement) -> Result<(), BadStatement> {
        let issuer = self.members.get(&statement.issuer).ok_or(BadStatement::Unknown)?;
        match statement.number {
            0 => return Err(BadStatement::Form("number")),
            1 if statement.prev != Hash::default() => return Err(BadStatement::Form("chain")),
            1 => {}
            number => {
                let prev = self.statements.get(&statement.prev).ok_or(BadStatement::Unknown)?;
                let prev = &prev.statement;
                if prev.issuer != statement.issuer || prev.number + 1 != number {
                    return Err(BadStatement::Form("chain"));
                }
            }
        }
        let StatementBody::Grant(grant) = &statement.body;
        check_label(&grant.label)?;
        if grant.prefix.len() > MAX_KEY {
            return Err(BadStatement::Form("prefix"));
        }
        if issuer.role < Role::Admin || grant.role >= issuer.role {
            return Err(BadStatement::Rank);
        }
        Ok(())
    }

    fn admit(&mut self, name: Hash, issuer: DeviceId, grant: Grant) -> Result<(), BadStatement> {
        let key = PublicKey::new(&grant.device).ok_or(BadStatement::Form("device key"))?;
        let better = self
            .members
            .get(&grant.device)
            .is_none_or(|old| (old.role, old.grant) < (grant.role, name));
        if better {
            let member = Member {
                device: grant.device,
                label: grant.label,
                role: grant.role,
                issuer,
                grant: name,
                key,
            };
            self.members.insert(grant.device, member);
        }
        let right = Right {
            device: grant.device,
            role: grant.role,
            prefix: grant.prefix,
            max_bytes: grant.max_bytes,
        };
        self.rights.insert(name, right);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> DeviceKey {
        DeviceKey::from_seed(&[n; 32])
    }

    fn grant(device: &DeviceKey, role: Role) -> Grant {
        Grant {
            device: device.id(),
            label: "device".into(),
            role,
            prefix: Bytes::default(),
            max_bytes: None,
        }
    }

    fn founded() -> Roster {
        Roster::found(&key(1), "home", "owner", [0; 16]).expect("a valid genesis")
    }

    fn issue(roster: &mut Roster, issuer: &DeviceKey, device: &DeviceKey, role: Role) -> Bytes {
        let bytes = roster.grant(issuer, grant(device, role)).expect("may grant");
        assert_eq!(roster.insert(std::slice::from_ref(&bytes)).0.len(), 1);
        bytes
    }

    #[test]
    fn every_order_of_arrival_gives_one_roster() {
        let mut full = founded();
        let mut all = vec![issue(&mut full, &key(1), &key(2), Role::Admin)];
        all.push(issue(&mut full, &key(2), &key(3), Role::Writer));
        all.push(issue(&mut full, &key(1), &key(4), Role::Reader));
        all.push(issue(&mut full, &key(2), &key(4), Role::Writer));
        let mut orders = 0;
        for a in 0..4 {
            for b in (0..4).filter(|b| *b != a) {
                for c in (0..4).filter(|c| *c != a && *c != b) {
                    let order = [a, b, c, 6 - a - b - c];
                    let mut roster = Roster::open(full.genesis_bytes()).expect("same genesis");
                    // One at a time, then whatever had to wait once more, as repair does.
                    for i in order.into_iter().chain(order).chain(order).chain(order) {
                        roster.insert(&all[i..=i]);
                    }
                    assert_eq!(roster.hash(), full.hash());
                    let view = |r: &Roster| {
                        r.members().map(|m| (m.device, m.role, m.grant)).collect::<Vec<_>>()
                    };
                    assert_eq!(view(&roster), view(&full));
                    orders += 1;
                }
            }
        }
        assert_eq!(orders, 24);
    }

    #[test]
    fn rank_bounds_what_may_be_granted() {
        let mut roster = founded();
        issue(&mut roster, &key(1), &key(2), Role::Admin);
        issue(&mut roster, &key(2), &key(3), Role::Writer);
        let refused = |issuer: u8, role| roster.grant(&key(issuer), grant(&key(9), role)).err();
        assert_eq!(refused(1, Role::Owner), Some(BadStatement::Rank));
        assert_eq!(refused(2, Role::Admin), Some(BadStatement::Rank));
        assert_eq!(refused(3, Role::Reader), Some(BadStatement::Rank));
        assert_eq!(refused(8, Role::Reader), Some(BadStatement::Unknown));
    }

    #[test]
    fn a_forged_or_foreign_statement_is_refused() {
        let mut roster = founded();
        let mut other = Roster::found(&key(1), "home", "owner", [1; 16]).expect("valid");
        let foreign = issue(&mut other, &key(1), &key(2), Role::Writer);
        assert_eq!(roster.insert(&[foreign]).1, [BadStatement::Swarm]);

        let genuine = roster.grant(&key(1), grant(&key(2), Role::Writer)).expect("may grant");
        let mut sealed: Sealed = codec::decode(&genuine).expect("sealed");
        sealed.sig = key(2).sign(Domain::Statement, &sealed.body);
        let forged = Bytes(codec::encode(&sealed));
        assert_eq!(roster.insert(&[forged]).1, [BadStatement::Signature]);
        assert!(roster.member(&key(2).id()).is_none());
    }

    #[test]
    fn a_path_alone_admits_its_device_elsewhere() {
        let mut full = founded();
        issue(&mut full, &key(1), &key(5), Role::Writer);
        issue(&mut full, &key(1), &key(2), Role::Admin);
        issue(&mut full, &key(2), &key(3), Role::Writer);
        let mut roster = Roster::open(full.genesis_bytes()).expect("same genesis");
        roster.insert(&full.path(&key(3).id()));
        assert_eq!(roster.member(&key(3).id()).map(|m| m.role), Some(Role::Writer));
    }
}
