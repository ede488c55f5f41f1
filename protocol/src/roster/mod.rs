//! Who is in the swarm and what each may do: a set of signed statements under one genesis.
//!
//! Evaluation is a pure function of the set: neither arrival order nor any clock matters. Each
//! issuer's statements form a numbered hash chain, so nothing can be slipped in beneath.

mod evaluate;
mod exchange;
mod heads;
mod issue;
mod member;
mod statement;
pub mod ticket;

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{self, Bytes};
use crate::crypto::{self, DeviceKey, Domain, PublicKey, Sealed};
use crate::header::Header;
use crate::id::{DeviceId, Hash, LogId, SwarmId};
use crate::later;
use crate::limits::{MAX_STATEMENT, MAX_STATEMENTS, VERSION};
use evaluate::Outcome;
pub use heads::ChainHead;
use heads::{hash_of, heads_of};
pub use member::{Extent, Member, Revoked, Right};
pub use statement::{BadStatement, Cut, Genesis, Grant, Revoke, Role, Statement, StatementBody};
use statement::{Held, check_label, number, open, read};

/// The set of statements and what follows from it.
#[derive(Clone)]
pub struct Roster {
    swarm: SwarmId,
    genesis: Genesis,
    genesis_bytes: Bytes,
    owner: Member,
    /// Those that count, and those that did until a revocation came: should that be void in its turn,
    /// they count again.
    statements: BTreeMap<Hash, Held>,
    counted: BTreeSet<Hash>,
    /// Those that count, and those that are held without being understood: what replicas compare.
    shared: BTreeSet<Hash>,
    /// Over the heads of the chains that count.
    counted_hash: Hash,
    /// Over the heads of the chains that are shared.
    hash: Hash,
    outcome: Outcome,
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
        if bytes.len() > MAX_STATEMENT {
            return Err(BadStatement::Form("size"));
        }
        let sealed = open(bytes)?;
        if let Some(version) = later::version(&sealed.body) {
            return Err(BadStatement::Version(version));
        }
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
        let swarm = SwarmId::new(*id.as_bytes());
        let statements = BTreeMap::new();
        Ok(Self {
            swarm,
            counted_hash: hash_of(&swarm, &[]),
            hash: hash_of(&swarm, &[]),
            genesis_bytes: bytes.into(),
            outcome: evaluate::evaluate(owner.clone(), &statements),
            counted: BTreeSet::new(),
            shared: BTreeSet::new(),
            statements,
            owner,
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
        let there = |member: &&Member| !self.outcome.revoked.contains_key(&member.device);
        self.outcome.granted.values().filter(there)
    }

    /// One member.
    #[must_use]
    pub fn member(&self, device: &DeviceId) -> Option<&Member> {
        if self.outcome.revoked.contains_key(device) {
            return None;
        }
        self.outcome.granted.get(device)
    }

    /// Every device that was revoked or left, with what it was when it was a member (nothing if that
    /// is not known here).
    pub fn revoked(&self) -> impl Iterator<Item = (&DeviceId, &Revoked, Option<&Member>)> {
        let was = |device| self.outcome.granted.get(device);
        self.outcome.revoked.iter().map(move |(device, revoked)| (device, revoked, was(device)))
    }

    /// Whether and how a device was revoked.
    #[must_use]
    pub fn revocation(&self, device: &DeviceId) -> Option<&Revoked> {
        self.outcome.revoked.get(device)
    }

    /// What a device is or was called.
    #[must_use]
    pub fn label(&self, device: &DeviceId) -> Option<&str> {
        self.outcome.granted.get(device).map(|member| member.label.as_str())
    }

    /// What a device may do, or might before it was revoked.
    #[must_use]
    pub fn role(&self, device: &DeviceId) -> Option<Role> {
        self.outcome.granted.get(device).map(|member| member.role)
    }

    /// The right that a grant gives, or gave to a device that was revoked since.
    #[must_use]
    pub fn right(&self, grant: &Hash) -> Option<&Right> {
        self.outcome.rights.get(grant)
    }

    /// How far a log counts.
    #[must_use]
    pub fn extent(&self, log: &LogId) -> Extent {
        match self.outcome.revoked.get(&log.author) {
            Some(revoked) => {
                revoked.cuts.get(log).map_or(Extent::Nothing, |cut| Extent::Upto(*cut))
            }
            None if self.outcome.granted.contains_key(&log.author) => Extent::Open,
            None => Extent::Nothing,
        }
    }

    /// Whether a genuine header with this hash counts: its grant does, and it does not lie beyond its log's
    /// end.
    pub(crate) fn admits(&self, claim: &Header, hash: Hash) -> bool {
        let within = match self.extent(&claim.log) {
            Extent::Open => true,
            Extent::Nothing => false,
            Extent::Upto(cut) => {
                claim.last_seq < cut.seq || claim.last_seq == cut.seq && hash == cut.hash
            }
        };
        within && self.outcome.rights.contains_key(&claim.grant)
    }

    /// Whether `issuer` may revoke `device`, as far as ranks go.
    #[must_use]
    pub fn may_revoke(&self, issuer: &DeviceId, device: &DeviceId) -> bool {
        let admins = &self.outcome.admins;
        self.member(issuer).is_some()
            && evaluate::may_revoke(self.genesis.owner, admins, *issuer, *device)
    }

    /// How many statements are here that others may lack: those that count and those that are held.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.shared.len()
    }

    /// Who stated what only a later version understands, each once, in the order of their ids.
    pub fn ahead(&self) -> impl Iterator<Item = DeviceId> {
        let issuers = self.outcome.held.iter().map(|name| self.statements[name].statement.issuer);
        issuers.collect::<BTreeSet<_>>().into_iter()
    }

    /// Whether a statement is kept without being understood, or rests on one that is.
    fn is_held(&self, name: &Hash) -> bool {
        self.shared.contains(name) && !self.counted.contains(name)
    }

    /// Takes in whatever of `batch` counts, in any order; returns what is new.
    ///
    /// The second list says why others were not taken. What nobody honest would pass on ends it: the
    /// last of the list then says so.
    pub fn insert(&mut self, batch: &[Bytes]) -> (Vec<(Hash, Bytes)>, Vec<BadStatement>) {
        self.take(batch, false)
    }

    /// Takes in what was kept, also what counted once and does not now.
    pub fn restore(&mut self, kept: &[Bytes]) {
        self.take(kept, true);
    }

    fn take(
        &mut self,
        batch: &[Bytes],
        keep_void: bool,
    ) -> (Vec<(Hash, Bytes)>, Vec<BadStatement>) {
        let mut fresh = Vec::new();
        let mut void = Vec::new();
        // Chains in their order: few rounds, however the batch was shuffled.
        let mut waiting: Vec<&Bytes> = batch.iter().collect();
        waiting.sort_by_cached_key(|bytes| number(bytes));
        loop {
            let mut refused = Vec::new();
            let mut added = Vec::new();
            waiting.retain(|bytes| match self.consider(bytes) {
                _ if refused.last().is_some_and(BadStatement::by_all) => true,
                Ok(Some((name, held))) => {
                    self.statements.insert(name, held);
                    added.push((name, (*bytes).clone()));
                    false
                }
                Ok(None) => false,
                Err(fault) => {
                    refused.push(fault);
                    true
                }
            });
            if !added.is_empty() {
                self.evaluate();
            }
            let over = waiting.is_empty() || added.is_empty();
            for (name, bytes) in added {
                if self.shared.contains(&name) {
                    fresh.push((name, bytes));
                } else if !keep_void {
                    self.statements.remove(&name);
                    let full = self.shared.len() >= MAX_STATEMENTS;
                    void.push(if full { BadStatement::Full } else { BadStatement::Void });
                }
            }
            if over || refused.last().is_some_and(BadStatement::by_all) {
                void.extend(refused);
                return (fresh, void);
            }
        }
    }

    fn evaluate(&mut self) {
        self.outcome = evaluate::evaluate(self.owner.clone(), &self.statements);
        self.counted = self.outcome.counted.iter().copied().collect();
        self.shared = self.counted.iter().chain(&self.outcome.held).copied().collect();
        let hash = |names: &BTreeSet<Hash>| {
            hash_of(&self.swarm, &heads_of(names.iter(), &self.statements))
        };
        (self.counted_hash, self.hash) = (hash(&self.counted), hash(&self.shared));
        if self.statements.len() > 2 * MAX_STATEMENTS {
            self.statements.retain(|name, _| self.shared.contains(name));
        }
    }

    /// Checks a statement by itself, and its place.
    fn consider(&self, bytes: &Bytes) -> Result<Option<(Hash, Held)>, BadStatement> {
        let name = crypto::hash(Domain::StatementName, &[bytes]);
        if self.statements.contains_key(&name) {
            return Ok(None);
        }
        let sealed = open(bytes)?;
        let statement = read(&sealed.body)?;
        if statement.version != VERSION {
            return Err(BadStatement::Version(statement.version));
        }
        if statement.swarm != self.swarm {
            return Err(BadStatement::Swarm);
        }
        // The costly check comes last: what is tried again in another round fails before it.
        self.check(&statement)?;
        let issuer = self.outcome.granted.get(&statement.issuer).ok_or(BadStatement::Unknown)?;
        if !issuer.key.verifies(Domain::Statement, &sealed.body, &sealed.sig) {
            return Err(BadStatement::Signature);
        }
        Ok(Some((name, statement.hold(bytes)?)))
    }

    /// Checks a statement's place in its issuer's chain, and its issuer's rank. Revoked issuers have
    /// theirs: what they stated before counts.
    fn check(&self, statement: &Statement) -> Result<(), BadStatement> {
        let issuer = self.outcome.granted.get(&statement.issuer).ok_or(BadStatement::Unknown)?;
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
        if self.is_held(&statement.prev) {
            // What stands before it may bear on it: it is not judged.
            return Ok(());
        }
        let admins = &self.outcome.admins;
        let entitled = match &statement.body {
            StatementBody::Grant(grant) => issuer.role >= Role::Admin && grant.role < issuer.role,
            StatementBody::Revoke(revoke) => {
                let (owner, device) = (self.genesis.owner, revoke.device);
                evaluate::may_revoke(owner, admins, statement.issuer, device)
            }
            // What it takes to state it is for those to say who know what it says.
            StatementBody::Later => true,
        };
        if entitled { Ok(()) } else { Err(BadStatement::Rank) }
    }
}
