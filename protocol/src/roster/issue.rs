//! Statements that this device makes itself.

use std::collections::BTreeSet;

use super::{BadStatement, Grant, Revoke, Roster, Statement, StatementBody};
use crate::codec::Bytes;
use crate::crypto::DeviceKey;
use crate::id::{DeviceId, Hash};
use crate::limits::{MAX_REVOKE, VERSION};

impl Roster {
    /// Issues a grant as `key`'s next statement, without taking it in: the caller makes it durable
    /// and then inserts it.
    ///
    /// # Errors
    /// When this device may not grant that.
    pub fn grant(&self, key: &DeviceKey, grant: Grant) -> Result<Bytes, BadStatement> {
        if self.outcome.revoked.contains_key(&grant.device) {
            return Err(BadStatement::Void);
        }
        self.state(key, StatementBody::Grant(grant))
    }

    /// Issues a revocation as `key`'s next statement, without taking it in. `heads` are the signed
    /// headers at which the device's logs end, ascending by log; of too many, the last are left out.
    ///
    /// # Errors
    /// When this device may not revoke that one.
    pub fn revoke(
        &self,
        key: &DeviceKey,
        device: DeviceId,
        heads: Vec<Bytes>,
    ) -> Result<Bytes, BadStatement> {
        let mut statements = self.tips(&device);
        statements.sort_unstable();
        self.state(key, StatementBody::Revoke(Revoke { device, heads, statements }))
    }

    /// The last statements of a device that are here: one, unless it forked its chain. Those that are not
    /// understood too: who understands them loses nothing by a revocation of somebody who does not.
    fn tips(&self, device: &DeviceId) -> Vec<Hash> {
        let shared = || self.shared.iter().map(|name| (name, &self.statements[name].statement));
        let theirs = || shared().filter(|(_, statement)| statement.issuer == *device);
        let passed: BTreeSet<Hash> = theirs().map(|(_, statement)| statement.prev).collect();
        let tips = theirs().map(|(name, _)| *name).filter(|name| !passed.contains(name));
        tips.take(crate::limits::MAX_TIPS).collect()
    }

    fn state(&self, key: &DeviceKey, body: StatementBody) -> Result<Bytes, BadStatement> {
        let issuer = key.id();
        if self.outcome.revoked.contains_key(&issuer) {
            return Err(BadStatement::Void);
        }
        if self.ahead().any(|ahead| ahead == issuer) {
            // Behind that, nothing that this build states would take effect here; beside it, it would fork.
            return Err(BadStatement::Later);
        }
        let last = self
            .counted
            .iter()
            .map(|name| (name, &self.statements[name].statement))
            .filter(|(_, statement)| statement.issuer == issuer)
            .max_by_key(|(name, statement)| (statement.number, **name));
        let statement = Statement {
            version: VERSION,
            swarm: self.swarm,
            issuer,
            number: last.map_or(1, |(_, statement)| statement.number + 1),
            prev: last.map_or(Hash::default(), |(name, _)| *name),
            body,
        };
        self.check(&statement)?;
        let bytes = statement.seal(key);
        statement.hold(&bytes)?;
        debug_assert!(bytes.len() <= MAX_REVOKE, "bounded by the number of cuts");
        Ok(bytes)
    }
}
