//! Who the members are, what taking one of them out means, and what follows from a change.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::Knock;
use swarmkv_protocol::roster::Member;
use tracing::warn;

use crate::api::wire::{Data, KnockInfo, MemberInfo};
use crate::clock;
use crate::driver::Driver;
use crate::error::RevokeError;
use crate::event::NodeEvent;
use crate::network::Command;
use crate::request::Target;
use crate::standing::{labels, standing};

/// Characters of an id that have to be given at least.
const LEAST_ID: usize = 4;

/// How long a device that left stays connected, so that those who do not know yet hear of it.
const FAREWELL: Duration = Duration::from_secs(30);

impl Driver {
    /// The roster says otherwise who is in.
    pub(crate) fn members_changed(&mut self) {
        let roster = self.engine.roster();
        let me = self.identity.me;
        let members: BTreeSet<DeviceId> = roster.members().map(|m| m.device).collect();
        let gone: Vec<_> =
            roster.revoked().map(|(device, revoked, _)| (*device, revoked.by)).collect();
        for (device, by) in gone.into_iter().filter(|(device, _)| self.known.contains(device)) {
            let by = (by != device).then(|| self.label(&by));
            if device == me {
                // Whoever left tells those who do not know yet; whoever was taken out has nothing to say.
                let farewell = if by.is_none() { FAREWELL } else { Duration::ZERO };
                self.alone_at = Some(Instant::now() + farewell);
                self.tell(NodeEvent::Expelled { by });
            } else {
                self.tell(NodeEvent::Removed { device: self.label(&device), by });
            }
        }
        self.known = members;
        self.labels = Arc::new(labels(&self.engine));
        self.set_members();
        let state = self.readers.borrow().with_labels(Arc::clone(&self.labels));
        self.readers.send_replace(Arc::new(state));
    }

    /// Tells the network whom to talk to.
    fn set_members(&mut self) {
        let blocked = self.identity.blocklist.peers();
        let members = self.known.difference(&blocked).copied().collect();
        self.commands.push_back(Command::SetBlocked(blocked));
        self.commands.push_back(Command::SetMembers(members));
    }

    /// A peer handed on what nobody honest would.
    pub(crate) fn offended(&mut self, peer: DeviceId, reason: &str) {
        let label = self.label(&peer);
        warn!(peer = %label, "refused what a peer sent: {reason}");
        if self.identity.blocklist.offend(peer, clock::wall_millis()) {
            self.keep_blocklist();
            self.tell(NodeEvent::Blocked { device: label, reason: reason.to_owned() });
        }
    }

    fn keep_blocklist(&mut self) {
        self.disk.set_blocklist(self.identity.blocklist.to_bytes());
        self.dirty = true;
        self.set_members();
    }

    /// What time brings: blocks end, and a device that left falls silent.
    pub(crate) fn look_at_members(&mut self) {
        if self.identity.blocklist.expire(clock::wall_millis()) {
            self.keep_blocklist();
        }
        if self.alone_at.is_some_and(|at| at <= Instant::now()) {
            self.alone_at = None;
            self.commands.push_back(Command::SetMembers(BTreeSet::new()));
        }
    }

    /// Devices that wait for a person's word.
    pub(crate) fn knocks(&self) -> Vec<KnockInfo> {
        let info = |knock: &Knock| KnockInfo {
            device: knock.label.clone(),
            device_id: knock.device.to_string(),
            check_words: knock.check_words.clone(),
        };
        self.engine.knocks().map(info).collect()
    }

    /// Everybody who is or was a member: members first, each in the order of their labels.
    pub(crate) fn members(&self) -> Vec<MemberInfo> {
        let roster = self.engine.roster();
        let gone = roster.revoked().filter_map(|(_, _, was)| was);
        let mut all: Vec<MemberInfo> =
            roster.members().chain(gone).map(|member| self.member_info(member)).collect();
        all.sort_by_cached_key(|m| (m.standing != "member", m.device.clone(), m.device_id.clone()));
        all
    }

    fn member_info(&self, member: &Member) -> MemberInfo {
        let roster = self.engine.roster();
        let device = member.device;
        let right = roster.right(&member.grant);
        let logs = self.engine.logs();
        let own = || logs.iter().filter(|log| log.branch.log.author == device && log.seq > 0);
        let revoked = roster.revocation(&device).map(|revoked| revoked.by);
        let founder = member.issuer == device;
        MemberInfo {
            device: member.label.clone(),
            device_id: device.to_string(),
            standing: standing(roster, &device).to_owned(),
            role: member.role.to_string(),
            this: device == self.identity.me,
            connected: self.links.get(&device).is_some_and(|link| link.member),
            prefix: Data(right.map(|right| right.prefix.to_vec()).unwrap_or_default()),
            quota: right.and_then(|right| right.max_bytes),
            slots: own().map(|log| log.slots).sum(),
            bytes: own().map(|log| log.bytes).sum(),
            last_write: own().map(|log| log.stamp).max().filter(|stamp| *stamp > 0),
            admitted_by: (!founder).then(|| self.label(&member.issuer)),
            revoked_by: revoked.filter(|by| *by != device).map(|by| self.label(&by)),
        }
    }

    /// The member that a label, or a start of an id, names; empty: this device.
    pub(crate) fn find(&self, name: &str) -> Result<DeviceId, RevokeError> {
        if name.is_empty() {
            return Ok(self.identity.me);
        }
        let roster = self.engine.roster();
        let known = || roster.members().chain(roster.revoked().filter_map(|(_, _, was)| was));
        let called: Vec<DeviceId> = known().filter(|m| m.label == name).map(|m| m.device).collect();
        let lower = name.to_ascii_lowercase();
        let begins =
            |m: &&Member| name.len() >= LEAST_ID && m.device.to_string().starts_with(&lower);
        let found = if called.is_empty() {
            known().filter(begins).map(|m| m.device).collect()
        } else {
            called
        };
        match found.as_slice() {
            [] => Err(RevokeError::Unknown(name.to_owned())),
            [device] => Ok(*device),
            several => Err(RevokeError::Ambiguous {
                name: name.to_owned(),
                ids: several.iter().map(DeviceId::to_string).collect(),
            }),
        }
    }

    /// How things stand with a device that is to be, or was, taken out.
    pub(crate) fn target(&self, name: &str) -> Result<Target, RevokeError> {
        let device = self.find(name)?;
        let roster = self.engine.roster();
        let member = roster
            .member(&device)
            .or_else(|| roster.revoked().find(|(id, ..)| **id == device).and_then(|(.., was)| was))
            .ok_or_else(|| RevokeError::Unknown(name.to_owned()))?;
        let others = |id: &DeviceId| *id != device && *id != self.identity.me;
        let (holders, connected) = self.engine.holders(&device);
        let here = |id: &DeviceId| self.links.get(id).is_some_and(|link| link.member);
        let away = roster.members().filter(|m| others(&m.device) && !here(&m.device));
        Ok(Target {
            device,
            missing: self.engine.missing_of(&device),
            holders,
            connected,
            away: away.map(|m| m.label.clone()).collect(),
            allowed: self.engine.may_revoke(&device),
            info: self.member_info(member),
        })
    }
}
