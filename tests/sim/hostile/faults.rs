//! What goes wrong beside the hostile: members are taken out, leave, or end their own logs falsely; peers in
//! memory forget everything but who is a member.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::LogId;
use swarmkv_protocol::io::Input;
use swarmkv_protocol::limits::MAX_CUTS;
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::roster::Role;
use swarmkv_protocol::store::Write;
use swarmkv_protocol::ticket::Invite;

use crate::world::World;

impl World {
    /// An honest owner or admin takes somebody out, mostly a hostile one; or an honest member leaves.
    pub fn expel(&mut self) -> Result<(), String> {
        let there = |n: &usize| self.honest(*n) && self.nodes[*n].engine.is_some();
        let honest: Vec<usize> = (0..self.nodes.len()).filter(there).collect();
        if honest.is_empty() {
            return Ok(());
        }
        let issuer = honest[self.rng.index(honest.len())];
        let hostile: Vec<usize> = self.hostile.keys().copied().collect();
        let target = match self.rng.below(100) {
            0..65 => hostile[self.rng.index(hostile.len())],
            65..80 => issuer,
            _ => honest[self.rng.index(honest.len())],
        };
        // Somebody has to be left of whom all this is asked.
        let stay = |n: &usize| self.honest(*n) && !self.outcasts.contains(n);
        let left = (0..self.nodes.len()).filter(stay).count();
        if self.honest(target) && left <= 2 {
            return Ok(());
        }
        let device = self.nodes[target].id;
        let engine = self.nodes[issuer].engine.as_ref();
        let may = engine.is_some_and(|engine| {
            engine.roster().may_revoke(&self.nodes[issuer].id, &device)
                && engine.roster().member(&device).is_some()
        });
        if !may {
            return Ok(());
        }
        // What only its disk has comes to nobody any more.
        self.waive(target);
        self.outcasts.insert(target);
        let token = self.token();
        self.input(issuer, Input::Revoke { token, device })
    }

    /// Something that a person does at an honest member: mostly an invitation, which may be for somebody who
    /// is a member, be of no use, or be used wrongly.
    pub fn person(&mut self) -> Result<(), String> {
        let n = self.rng.index(self.nodes.len());
        if !self.honest(n) || self.nodes[n].engine.is_none() {
            return Ok(());
        }
        let other = self.rng.index(self.nodes.len());
        match self.rng.below(10) {
            0 => self.input(n, Input::PullAll),
            1 => self.input(n, Input::Scrub),
            2 => {
                let engine = self.nodes[n].engine.as_ref();
                let logs = engine.map(|engine| engine.logs()).unwrap_or_default();
                match logs.get(self.rng.index(logs.len().max(1))) {
                    Some(log) => self.input(n, Input::Suspect(log.branch)),
                    None => Ok(()),
                }
            }
            3 => {
                let (device, same) = (self.nodes[other].id, self.rng.percent(70));
                self.input(n, Input::Confirm { device, same })
            }
            _ => self.invite_again(n, other),
        }
    }

    /// A ticket for a node that is a member already, mostly: used, it is granted something else as well.
    fn invite_again(&mut self, n: usize, other: usize) -> Result<(), String> {
        let hostile = !self.honest(other);
        let right = super::plan::right(&mut self.rng, hostile);
        let wall = self.nodes[n].now(self.time).wall;
        let expires_at = match self.rng.below(8) {
            0 => wall,
            1 => wall + 30 * 24 * 3_600_000,
            2 => wall + 40,
            _ => wall + 60_000,
        };
        let role = match self.rng.below(12) {
            0 => Role::Owner,
            1 => Role::Reader,
            2 if self.honest(other) => Role::Admin,
            _ => Role::Writer,
        };
        let invite = Invite {
            role,
            prefix: right.prefix,
            max_bytes: right.max_bytes,
            expires_at,
            uses: u32::from(!self.rng.percent(8)),
            confirm: self.rng.percent(30),
        };
        let (token, secret) = (self.token(), self.rng.bytes());
        // What an admin grants may be undone with it: then its holder is no honest member any more.
        if n == 0 && self.nodes[other].engine.is_some() {
            self.invites.insert(token, (other, secret));
        }
        self.input(n, Input::Invite { token, secret, invite })
    }

    /// A hostile author leaves, and says that its logs end at headers of any age, also at such as nobody was
    /// ever shown.
    pub fn leave_falsely(&mut self, n: usize) {
        let Some(roster) = self.nodes[n].engine.as_ref().map(|engine| engine.roster().clone())
        else {
            return;
        };
        let Some(author) = self.hostile.get(&n).and_then(|hostile| hostile.author.as_ref()) else {
            return;
        };
        let mut heads: BTreeMap<LogId, Bytes> = BTreeMap::new();
        for history in author.histories.iter().filter(|history| !history.commits.is_empty()) {
            let newest = history.commits.len() - 1;
            let at = if self.rng.percent(60) { newest } else { self.rng.index(newest + 1) };
            if self.rng.percent(80) {
                heads.insert(history.log, history.commits[at].bytes.clone());
            }
        }
        while heads.len() > MAX_CUTS {
            heads.pop_first();
        }
        let heads = heads.into_values().collect();
        let (key, device) = (self.nodes[n].key(), self.nodes[n].id);
        let Ok(statement) = roster.revoke(&key, device, heads) else { return };
        self.outcasts.insert(n);
        let chance = if self.rng.percent(70) { 100 } else { 50 };
        self.hand_out(n, message::encode(&Gossip::Statement(statement)), chance);
    }

    /// A peer in memory stops: what is left of its disk is who is a member, and where it left its own log if
    /// it stopped in good order.
    pub fn forget(&mut self, n: usize, orderly: bool) {
        self.waive(n);
        let node = &mut self.nodes[n];
        let head = node.engine.as_ref().and_then(|engine| engine.own_head());
        let left = head.or_else(|| node.resumable.take()).filter(|_| orderly);
        node.kill(0);
        node.resumable = left;
        let kept = node.disk.borrow().durable.recover().statements;
        let named = |bytes: &Bytes| crypto::hash(Domain::StatementName, &[bytes]);
        let write = |bytes: Bytes| Write::Statement { name: named(&bytes), bytes };
        let mut left = MemoryStore::default();
        left.apply(kept.into_iter().map(write).collect());
        node.disk.borrow_mut().restore(&left);
        node.shown.clear();
        node.rotten = None;
    }
}
