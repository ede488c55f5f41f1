//! From statements to rights: a pure function of the set, whatever the order in which it arrived.
//!
//! Issuers are heard in the order of their ranks: the owner, the admins by seniority (the place of their
//! first admin grant in the owner's chain), everybody else. Only a higher rank revokes, and a
//! revocation cuts the statements of its target as well as its logs; so when an issuer's turn comes,
//! all that can cut it has been heard. Ranks are a strict order: there are no duels, and no order of
//! arrival can wedge the roster.

use std::collections::{BTreeMap, BTreeSet};

use super::member::{Member, Revoked, Right};
use super::statement::{Cut, Held, Revoke, Role, StatementBody};
use crate::id::{DeviceId, Hash, LogId};
use crate::limits::{MAX_ADMIN_STATEMENTS, MAX_OWNER_STATEMENTS, MAX_STATEMENTS};
use crate::plant::{self, Plant};

/// What follows from a set of statements.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Every device with a grant that counts, revoked ones too, at its highest role.
    pub(super) granted: BTreeMap<DeviceId, Member>,
    /// Every grant that counts.
    pub(super) rights: BTreeMap<Hash, Right>,
    /// Who was revoked, whether it was ever granted anything or not.
    pub(super) revoked: BTreeMap<DeviceId, Revoked>,
    /// The statements that count: each after those it rests on.
    pub(super) counted: Vec<Hash>,
    /// Those that say what this build does not know, and what their issuers stated after them: nothing
    /// follows from them here. Each after those it rests on.
    pub(super) held: Vec<Hash>,
    /// Admins, the most senior first.
    pub(super) admins: Vec<DeviceId>,
}

/// Works out what follows from `statements` in a swarm that `owner` founded.
pub(super) fn evaluate(owner: Member, statements: &BTreeMap<Hash, Held>) -> Outcome {
    let mut chains: BTreeMap<DeviceId, BTreeSet<(u64, Hash)>> = BTreeMap::new();
    for (name, held) in statements {
        let chain = chains.entry(held.statement.issuer).or_default();
        chain.insert((held.statement.number, *name));
    }
    let founder = owner.device;
    let mut evaluation = Evaluation {
        statements,
        chains,
        owner: founder,
        limits: BTreeMap::new(),
        outcome: Outcome {
            rights: BTreeMap::from([(owner.grant, Right::of_owner(&owner))]),
            granted: BTreeMap::from([(founder, owner)]),
            ..Outcome::default()
        },
    };
    evaluation.hear(founder);
    for admin in evaluation.outcome.admins.clone() {
        evaluation.hear(admin);
    }
    let others: Vec<DeviceId> = evaluation.chains.keys().copied().collect();
    for other in others {
        if other != founder && !evaluation.outcome.admins.contains(&other) {
            evaluation.hear(other);
        }
    }
    evaluation.hold_back();
    evaluation.outcome
}

/// Whether `issuer` may revoke `target`: it outranks it, or it is the same device and leaves.
pub(super) fn may_revoke(
    owner: DeviceId,
    admins: &[DeviceId],
    issuer: DeviceId,
    target: DeviceId,
) -> bool {
    let place = |device| admins.iter().position(|admin| *admin == device);
    if target == owner {
        return false;
    }
    issuer == target
        || issuer == owner
        || place(issuer).is_some_and(|mine| place(target).is_none_or(|theirs| mine < theirs))
}

struct Evaluation<'a> {
    statements: &'a BTreeMap<Hash, Held>,
    chains: BTreeMap<DeviceId, BTreeSet<(u64, Hash)>>,
    owner: DeviceId,
    /// The statements of a revoked issuer that may count.
    limits: BTreeMap<DeviceId, BTreeSet<Hash>>,
    outcome: Outcome,
}

impl Evaluation<'_> {
    /// Counts what one issuer stated.
    fn hear(&mut self, issuer: DeviceId) {
        if !self.outcome.granted.contains_key(&issuer) {
            return;
        }
        let mut counting = self.chain(issuer);
        let leaves = |name: &Hash| match &self.statements[name].statement.body {
            StatementBody::Revoke(revoke) => revoke.device == issuer,
            StatementBody::Grant(_) | StatementBody::Later => false,
        };
        if let Some(leave) = counting.iter().find(|name| leaves(name)).copied()
            && let StatementBody::Revoke(revoke) = &self.statements[&leave].statement.body
        {
            let before = self.resting(issuer, &revoke.statements);
            counting.retain(|name| *name == leave || before.contains(name));
        }
        for name in counting {
            self.outcome.counted.push(name);
            let held = &self.statements[&name];
            match &held.statement.body {
                StatementBody::Grant(_) => self.grant(name, held),
                StatementBody::Revoke(revoke) => self.revoke(name, held, revoke),
                StatementBody::Later => {}
            }
        }
    }

    /// Finds what is kept without being understood. A later version's statement may bear on all that its
    /// issuer states after it, so of that nothing is judged either: this replica is like one that has not
    /// heard of it yet. What was cut off is not kept, and what counts comes first where room is short.
    fn hold_back(&mut self) {
        let counted: BTreeSet<Hash> = self.outcome.counted.iter().copied().collect();
        let mut room = MAX_STATEMENTS - counted.len();
        for (issuer, chain) in &self.chains {
            if !self.outcome.granted.contains_key(issuer) {
                continue;
            }
            let counting = chain.iter().filter(|(_, name)| counted.contains(name)).count();
            let most = room.min(self.room(*issuer).saturating_sub(counting));
            let limit = self.limits.get(issuer);
            let mut held = BTreeSet::new();
            for (number, name) in chain.iter().filter(|(_, name)| !counted.contains(name)) {
                let statement = &self.statements[name].statement;
                let behind = held.contains(&statement.prev);
                let rests = *number == 1 || behind || counted.contains(&statement.prev);
                let unknown = behind || statement.body == StatementBody::Later;
                let cut = limit.is_some_and(|limit| !limit.contains(name));
                if held.len() < most && rests && unknown && !cut {
                    held.insert(*name);
                    self.outcome.held.push(*name);
                }
            }
            room -= held.len();
        }
    }

    /// How many statements of an issuer may count.
    fn room(&self, issuer: DeviceId) -> usize {
        match self.outcome.admins.contains(&issuer) {
            _ if issuer == self.owner => MAX_OWNER_STATEMENTS,
            true => MAX_ADMIN_STATEMENTS,
            // It can only leave.
            false => 1,
        }
    }

    /// The statements of an issuer that it was entitled to and that nobody cut off, in order: each rests
    /// on one before it.
    fn chain(&self, issuer: DeviceId) -> Vec<Hash> {
        let room = self.room(issuer).min(MAX_STATEMENTS - self.outcome.counted.len());
        let limit = self.limits.get(&issuer).filter(|_| !plant::is(Plant::IgnoreCut));
        let mut counting = BTreeSet::new();
        let mut chain = Vec::new();
        for (number, name) in self.chains.get(&issuer).into_iter().flatten() {
            let held = &self.statements[name];
            let rests = *number == 1 || counting.contains(&held.statement.prev);
            let cut = limit.is_some_and(|limit| !limit.contains(name));
            if chain.len() < room && rests && !cut && self.entitled(issuer, &held.statement.body) {
                counting.insert(*name);
                chain.push(*name);
            }
        }
        chain
    }

    fn entitled(&self, issuer: DeviceId, body: &StatementBody) -> bool {
        let admins = &self.outcome.admins;
        match body {
            StatementBody::Grant(grant) if issuer == self.owner => grant.role < Role::Owner,
            StatementBody::Grant(grant) => admins.contains(&issuer) && grant.role < Role::Admin,
            StatementBody::Revoke(revoke) => may_revoke(self.owner, admins, issuer, revoke.device),
            StatementBody::Later => false,
        }
    }

    /// What the named statements of an issuer rest on, and they themselves.
    fn resting(&self, issuer: DeviceId, tips: &[Hash]) -> BTreeSet<Hash> {
        let mut resting = BTreeSet::new();
        for tip in tips {
            let mut at = *tip;
            while let Some(held) = self.statements.get(&at)
                && held.statement.issuer == issuer
                && resting.insert(at)
            {
                at = held.statement.prev;
            }
        }
        resting
    }

    fn grant(&mut self, name: Hash, held: &Held) {
        let StatementBody::Grant(grant) = &held.statement.body else { return };
        let device = grant.device;
        if grant.role == Role::Admin && !self.outcome.admins.contains(&device) {
            self.outcome.admins.push(device);
        }
        let right = Right {
            device,
            role: grant.role,
            prefix: grant.prefix.clone(),
            max_bytes: grant.max_bytes,
            key: held.key.clone(),
        };
        self.outcome.rights.insert(name, right);
        let old = self.outcome.granted.get(&device);
        if old.is_none_or(|old| (old.role, old.grant) < (grant.role, name)) {
            let member = Member {
                device,
                label: grant.label.clone(),
                role: grant.role,
                issuer: held.statement.issuer,
                grant: name,
                key: held.key.clone(),
            };
            self.outcome.granted.insert(device, member);
        }
    }

    fn revoke(&mut self, name: Hash, held: &Held, revoke: &Revoke) {
        let tips = self.resting(revoke.device, &revoke.statements);
        self.limits
            .entry(revoke.device)
            .and_modify(|limit| limit.retain(|name| tips.contains(name)))
            .or_insert(tips);
        let cuts: BTreeMap<LogId, Cut> = held.cuts.iter().copied().collect();
        self.outcome
            .revoked
            .entry(revoke.device)
            .and_modify(|known| known.narrow(&cuts))
            .or_insert(Revoked { by: held.statement.issuer, statement: name, cuts });
    }
}
